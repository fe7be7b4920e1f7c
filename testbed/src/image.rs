//! What the machines boot from: dom0's first file system with all that Xen needs, the guests', and the kernels.

use crate::cpio::Tree;
use crate::kernel::xz_payload;
use crate::modules::Modules;
use crate::packages::Packages;
use crate::process::{Stopper, tied};
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The files in an images folder.
pub(crate) const XEN: &str = "xen";
/// The kernel as Debian has it: for dom0, and for HVM guests.
pub(crate) const VMLINUZ: &str = "vmlinuz";
/// The kernel unpacked: for PV and PVH guests.
pub(crate) const VMLINUX: &str = "vmlinux";
/// dom0's first file system.
pub(crate) const DOM0: &str = "dom0.cpio";
/// The guests'.
pub(crate) const GUEST: &str = "guest.cpio.gz";
/// That of guests with a disk: with a file system's driver and a database. Others go without them, for HVM guests read it byte by byte.
pub(crate) const GUEST_WITH_DISK: &str = "guest-with-disk.cpio.gz";
/// All of them.
pub(crate) const FILES: [&str; 6] = [XEN, VMLINUZ, VMLINUX, DOM0, GUEST, GUEST_WITH_DISK];

const DOM0_INIT: &str = include_str!("../dom0/init");
const XEN_FOLDER: &str = "/usr/lib/xen-4.17/bin";
const LIBRARY_FOLDER: &str = "/usr/lib/x86_64-linux-gnu";
const TOOL_LIMIT: Duration = Duration::from_secs(120);

/// Xen's programs that dom0 gets, with the folder in which `PATH` finds them.
const XEN_PROGRAMS: [&str; 9] = [
    "libxl-save-helper",
    "xen-hvmctx",
    "xen-init-dom0",
    "xenconsole",
    "xenconsoled",
    "xenctx",
    "xenstore-control",
    "xenstored",
    "xl",
];
const XENSTORE_TOOLS: [&str; 8] = ["chmod", "exists", "list", "ls", "read", "rm", "watch", "write"];
/// Firmware and option ROMs of HVM guests.
const FIRMWARE: [&str; 8] = [
    "/usr/lib/xen-4.17/boot/hvmloader",
    "/usr/share/seabios/bios-256k.bin",
    // It wants a keyboard, though there is no screen.
    "/usr/share/qemu/keymaps/en-us",
    "/usr/share/qemu/kvmvapic.bin",
    "/usr/share/qemu/linuxboot.bin",
    "/usr/share/qemu/linuxboot_dma.bin",
    "/usr/share/qemu/multiboot.bin",
    // Without which there is no card of this kind.
    "/usr/lib/ipxe/qemu/efi-e1000.rom",
];
/// Libraries that are loaded by name at run time, so that no program says that it needs them; colo does it with Xen's.
const LOADED_LIBRARIES: [&str; 13] = [
    "libgcc_s.so.1",
    "libm.so.6",
    "libnss_files.so.2",
    "libxencall.so.1",
    "libxenctrl.so.4.17",
    "libxendevicemodel.so.1",
    "libxenevtchn.so.1",
    "libxenforeignmemory.so.1",
    "libxengnttab.so.1",
    "libxenguest.so.4.17",
    "libxenstore.so.4",
    "libxentoolcore.so.1",
    "libxentoollog.so.1",
];
/// What disks need: an NBD client, a file system made and checked, what Xen's script for them calls, and a look into a guest's database.
const DISK_PROGRAMS: [&str; 5] =
    ["/sbin/nbd-client", "/sbin/mke2fs", "/sbin/e2fsck", "/usr/bin/flock", "/usr/bin/sqlite3"];
/// Xen's drivers, the network's, what the checkpoints of a network and of disks need, and the way to this machine.
const DOM0_MODULES: [&str; 31] = [
    "xen-evtchn",
    "xen-gntdev",
    "xen-gntalloc",
    "xen-privcmd",
    "xenfs",
    "xen-netback",
    "xen-blkback",
    "bridge",
    "br_netfilter",
    "tun",
    "ifb",
    "sch_plug",
    "sch_ingress",
    "sch_netem",
    "sch_prio",
    "act_mirred",
    "cls_u32",
    "cls_matchall",
    "cls_flower",
    "nfnetlink_queue",
    "nft_queue",
    "crc32c_generic",
    "nbd",
    "ext4",
    "loop",
    "virtio_pci",
    "virtio_net",
    "virtio_console",
    "9p",
    "9pnet_virtio",
    "veth",
];
const GUEST_MODULES: [&str; 3] = ["xen-netfront", "xen-blkfront", "e1000"];
/// A file system, with the checksums that it does not say it needs, and the emulated disks of guests that do not know Xen.
const GUEST_DISK_MODULES: [&str; 4] = ["crc32c_generic", "ext4", "ata_piix", "sd_mod"];

/// Makes the images of a folder, unless they are there and made of the same.
pub(crate) fn make(folder: &Path, packages: &Packages, guest_init: &Path, stopper: &Stopper) -> Result<()> {
    let guest_init = fs::read(guest_init).with_context(|| guest_init.display().to_string())?;
    let stamp = folder.join("made-of");
    let key = key(packages, &guest_init)?;
    if fs::read_to_string(&stamp).is_ok_and(|made_of| made_of == key) {
        return Ok(());
    }
    eprintln!("testbed: making images ...");
    // New files beside old ones, and never into them: a running host may have them open.
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    let dom0 = dom0_tree(packages)?;
    write_archive(&dom0, &folder.join(DOM0))?;
    for (file, has_disk) in [(GUEST, false), (GUEST_WITH_DISK, true)] {
        let archive = folder.join(file).with_extension("");
        write_archive(&guest_tree(packages, guest_init.clone(), has_disk)?, &archive)?;
        let mut gzip = tied("gzip");
        gzip.arg("-9n").arg(&archive);
        stopper.run(gzip, "gzip", TOOL_LIMIT)?;
    }
    unpack(host_tool("gzip"), packages.path("/boot/xen-4.17-amd64.gz")?.as_path(), &folder.join(XEN), stopper)?;
    let kernel = boot_file(packages, "vmlinuz-")?;
    fs::write(folder.join(VMLINUZ), &kernel)?;
    let compressed = folder.join("vmlinux.xz");
    fs::write(&compressed, xz_payload(&kernel)?)?;
    unpack(packages.command("/usr/bin/xz")?, &compressed, &folder.join(VMLINUX), stopper)?;
    fs::remove_file(compressed)?;
    fs::write(stamp, key)?;
    Ok(())
}

/// A text that is another one if the images would be others: this program makes them, out of the packages and the guests' init.
fn key(packages: &Packages, guest_init: &[u8]) -> Result<String> {
    let program = fs::metadata(std::env::current_exe()?)?;
    let mut hasher = DefaultHasher::new();
    guest_init.hash(&mut hasher);
    Ok(format!("{:?} {} {:?} {:x}", program.modified()?, program.len(), packages.unpacked()?, hasher.finish()))
}

fn dom0_tree(packages: &Packages) -> Result<Tree> {
    let mut image = Image { packages, tree: Tree::default(), libraries: Vec::new() };
    let folders =
        ["/dev", "/host", "/images", "/proc", "/root", "/run", "/sys", "/tmp", "/var/lib/xen", "/var/log/xen"];
    for folder in folders {
        image.tree.folder(folder);
    }
    image.tree.folder("/var/lib/xenstored");
    image.tree.link("/var/run", "/run");
    image.tree.link("/var/lock", "/run/lock");
    image.tree.device("/dev/console", 5, 1);
    image.tree.program("/init", DOM0_INIT);
    image.tree.file("/etc/passwd", *b"root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/tmp:/bin/bash\n");
    image.tree.file("/etc/group", *b"root:x:0:\nnogroup:x:65534:\n");
    image.tree.file("/etc/nsswitch.conf", *b"passwd: files\ngroup: files\nhosts: files\n");
    image.tree.file("/etc/hosts", *b"127.0.0.1 localhost\n");
    image.busybox()?;
    image.xen()?;
    image.disks()?;
    for library in LOADED_LIBRARIES {
        image.library(library)?;
    }
    let mut tree = image.with_libraries()?;
    let modules = Modules::read(packages.root(), &DOM0_MODULES)?;
    let folder = format!("/lib/modules/{}", modules.version);
    tree.file(&format!("{folder}/modules.dep"), modules.dependencies());
    tree.file(&format!("{folder}/modules.alias"), modules.aliases());
    for file in ["modules.builtin", "modules.order"] {
        tree.file(&format!("{folder}/{file}"), packages.read(&format!("{folder}/{file}"))?);
    }
    for module in modules.list {
        tree.file(&format!("{folder}/{}", module.path), module.bytes);
    }
    Ok(tree)
}

/// A file system with programs out of packages.
struct Image<'a> {
    packages: &'a Packages,
    tree: Tree,
    libraries: Vec<String>,
}

impl Image<'_> {
    /// A program, under its own path, with the libraries that it needs.
    fn program(&mut self, path: &str) -> Result<()> {
        let bytes = self.packages.read(path)?;
        self.packages.libraries_of(&bytes, &mut self.libraries).with_context(|| path.to_owned())?;
        self.tree.program(path, bytes);
        Ok(())
    }

    fn library(&mut self, name: &str) -> Result<()> {
        if !self.libraries.iter().any(|there| there == name) {
            self.libraries.push(name.to_owned());
            let bytes = fs::read(self.packages.library(name)?)?;
            self.packages.libraries_of(&bytes, &mut self.libraries)?;
        }
        Ok(())
    }

    /// All of it, with the libraries that were found to be needed.
    fn with_libraries(mut self) -> Result<Tree> {
        self.tree.link("/lib/x86_64-linux-gnu", LIBRARY_FOLDER);
        self.tree.program("/lib64/ld-linux-x86-64.so.2", fs::read(self.packages.library("ld-linux-x86-64.so.2")?)?);
        for name in &self.libraries {
            self.tree.file(&format!("{LIBRARY_FOLDER}/{name}"), fs::read(self.packages.library(name)?)?);
        }
        Ok(self.tree)
    }

    /// The small tools, and the real ones where busybox's are too small. Busybox's shell would take its own for those, whatever `PATH`
    /// says; so they are run by bash.
    fn busybox(&mut self) -> Result<()> {
        let applets = Command::new(self.packages.path("/bin/busybox")?).arg("--list-full").output()?;
        for applet in String::from_utf8(applets.stdout)?.lines() {
            self.tree.link(applet, "/bin/busybox");
        }
        // It lists itself, too.
        for program in ["/bin/busybox", "/bin/bash", "/bin/ip", "/sbin/tc", "/sbin/bridge", "/usr/bin/socat"] {
            self.program(program)?;
        }
        self.tree.link("/sbin/ip", "/bin/ip");
        Ok(())
    }

    fn disks(&mut self) -> Result<()> {
        for program in DISK_PROGRAMS {
            self.program(program)?;
        }
        self.tree.link("/sbin/mkfs.ext4", "mke2fs");
        self.tree.link("/sbin/fsck.ext4", "e2fsck");
        self.tree.file("/etc/mke2fs.conf", self.packages.read("/etc/mke2fs.conf")?);
        Ok(())
    }

    fn xen(&mut self) -> Result<()> {
        for name in XEN_PROGRAMS {
            self.program(&format!("{XEN_FOLDER}/{name}"))?;
            self.tree.link(&format!("/usr/sbin/{name}"), &format!("{XEN_FOLDER}/{name}"));
        }
        self.program("/usr/bin/xenstore")?;
        for tool in XENSTORE_TOOLS {
            self.tree.link(&format!("/usr/bin/xenstore-{tool}"), "xenstore");
        }
        self.program("/usr/libexec/xen-qemu-system-i386")?;
        for file in FIRMWARE {
            self.tree.file(file, self.packages.read(file)?);
        }
        self.tree.file("/etc/xen/xl.conf", self.packages.read("/etc/xen/xl.conf")?);
        for script in fs::read_dir(self.packages.path("/etc/xen/scripts")?)? {
            let script = script?;
            let name = script.file_name().into_string().ok().context("a script with a strange name")?;
            self.tree.program(&format!("/etc/xen/scripts/{name}"), fs::read(script.path())?);
        }
        Ok(())
    }
}

fn guest_tree(packages: &Packages, init: Vec<u8>, has_disk: bool) -> Result<Tree> {
    let mut image = Image { packages, tree: Tree::default(), libraries: Vec::new() };
    image.tree.device("/dev/console", 5, 1);
    image.tree.folder("/proc");
    image.tree.folder("/sys");
    image.tree.program("/init", init);
    let mut modules = GUEST_MODULES.to_vec();
    if has_disk {
        modules.extend(GUEST_DISK_MODULES);
        image.program("/usr/bin/sqlite3")?;
    }
    let mut tree = if has_disk { image.with_libraries()? } else { image.tree };
    let mut order = String::new();
    for module in Modules::read(packages.root(), &modules)?.list {
        order.push_str(&format!("{}.ko\n", module.name));
        tree.file(&format!("/modules/{}.ko", module.name), module.bytes);
    }
    tree.file("/modules/order", order);
    Ok(tree)
}

fn write_archive(tree: &Tree, path: &Path) -> Result<()> {
    let mut out = std::io::BufWriter::with_capacity(1 << 20, File::create(path)?);
    tree.write(&mut out)?;
    Ok(std::io::Write::flush(&mut out)?)
}

fn host_tool(name: &str) -> Command {
    tied(name)
}

/// Runs `COMMAND -dc FROM > TO`.
fn unpack(mut command: Command, from: &Path, to: &Path, stopper: &Stopper) -> Result<()> {
    command.arg("-dc").arg(from).stdout(File::create(to)?);
    let mut process = stopper.start(command, "the unpacking")?;
    let status = process.wait(TOOL_LIMIT)?.context("the unpacking takes too long")?;
    anyhow::ensure!(status.success(), "{} cannot be unpacked", from.display());
    Ok(())
}

/// The file in `/boot` with this beginning.
fn boot_file(packages: &Packages, beginning: &str) -> Result<Vec<u8>> {
    for entry in fs::read_dir(packages.path("/boot")?)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(beginning)) {
            return Ok(fs::read(entry.path())?);
        }
    }
    anyhow::bail!("no package has a file /boot/{beginning}*")
}
