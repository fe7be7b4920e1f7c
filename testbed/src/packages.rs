//! Debian 12's packages: fetched as they are, unpacked into a folder, installed nowhere.

use crate::elf::Elf;
use crate::process::{Stopper, tied};
use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

/// Xen itself, dom0's programs, and what of it runs on this machine (xz, Python for Xen's own verifier of streams).
const PROGRAMS: [&str; 20] = [
    "bash",
    "busybox-static",
    "e2fsprogs",
    "iproute2",
    "ipxe-qemu",
    "libpython3.11-minimal",
    "libxenmisc4.17",
    "nbd-client",
    "python3.11-minimal",
    "qemu-system-data",
    "qemu-system-xen",
    "seabios",
    "socat",
    "sqlite3",
    "util-linux",
    "xen-hypervisor-4.17-amd64",
    "xen-utils-4.17",
    "xen-utils-common",
    "xenstore-utils",
    "xz-utils",
];

/// The libraries of all these. Those of this machine are left out of it: which it has is chance.
const LIBRARIES: [&str; 71] = [
    "libblkid1",
    "libbpf1",
    "libbsd0",
    "libbz2-1.0",
    "libc6",
    "libcap2",
    "libcom-err2",
    "libdw1",
    "libelf1",
    "libexpat1",
    "libext2fs2",
    "libfdt1",
    "libffi8",
    "libgcc-s1",
    "libglib2.0-0",
    "libgmp10",
    "libgnutls30",
    "libgssapi-krb5-2",
    "libgstreamer-plugins-base1.0-0",
    "libgstreamer1.0-0",
    "libhogweed6",
    "libidn2-0",
    "libjpeg62-turbo",
    "libk5crypto3",
    "libkeyutils1",
    "libkrb5-3",
    "libkrb5support0",
    "liblz4-1",
    "liblzma5",
    "libmd0",
    "libmnl0",
    "libncurses6",
    "libnettle8",
    "libnl-3-200",
    "libnl-genl-3-200",
    "libnsl2",
    "libopus0",
    "liborc-0.4-0",
    "libp11-kit0",
    "libpcre2-8-0",
    "libpixman-1-0",
    "libreadline8",
    "libsasl2-2",
    "libspice-server1",
    "libsqlite3-0",
    "libssl3",
    "libstdc++6",
    "libtasn1-6",
    "libtinfo6",
    "libtirpc3",
    "libudev1",
    "libunistring2",
    "libunwind8",
    "libusb-1.0-0",
    "libuuid1",
    "libwrap0",
    "libxencall1",
    "libxendevicemodel1",
    "libxenevtchn1",
    "libxenforeignmemory1",
    "libxengnttab1",
    "libxenhypfs1",
    "libxenstore4",
    "libxentoolcore1",
    "libxentoollog1",
    "libxtables12",
    "libyajl2",
    "libzstd1",
    "libselinux1",
    "libaudit1",
    "zlib1g",
];

/// The package that depends on the newest kernel's.
const KERNEL: &str = "linux-image-amd64";

const FETCH_LIMIT: Duration = Duration::from_secs(600);
const UNPACK_LIMIT: Duration = Duration::from_secs(120);

/// Where Debian's libraries lie.
const LIBRARY_FOLDERS: [&str; 3] =
    ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/pulseaudio"];

/// The packages, unpacked.
pub(crate) struct Packages {
    root: PathBuf,
    /// The list of them, written when all were unpacked.
    stamp: PathBuf,
}

impl Packages {
    /// Fetches and unpacks them into a folder, unless they are there.
    pub(crate) fn fetch(cache: &Path, stopper: &Stopper) -> Result<Packages> {
        let root = cache.join("sysroot");
        // Written last: without it, or with another list, what is there may be half of it.
        let stamp = cache.join("sysroot.packages");
        let wanted = [&PROGRAMS[..], &LIBRARIES[..], &[KERNEL]].concat().join("\n");
        if fs::read_to_string(&stamp).is_ok_and(|there| there == wanted) {
            return Ok(Packages { root, stamp });
        }
        eprintln!("testbed: fetching Debian's packages ...");
        let _ = fs::remove_file(&stamp);
        let debs = cache.join("debs");
        for folder in [&root, &debs] {
            if folder.exists() {
                fs::remove_dir_all(folder)?;
            }
            fs::create_dir_all(folder)?;
        }
        download(cache, &debs, stopper)?;
        for deb in fs::read_dir(&debs)? {
            let mut unpack = tied("dpkg");
            unpack.arg("-x").arg(deb?.path()).arg(&root);
            stopper.run(unpack, "dpkg", UNPACK_LIMIT)?;
        }
        fs::remove_dir_all(&debs)?;
        fs::write(&stamp, wanted)?;
        Ok(Packages { root, stamp })
    }

    /// The folder with all of them.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// When they were unpacked.
    pub(crate) fn unpacked(&self) -> Result<SystemTime> {
        Ok(fs::metadata(&self.stamp)?.modified()?)
    }

    /// What lies under this path, with all links followed within the packages.
    pub(crate) fn path(&self, path: &str) -> Result<PathBuf> {
        let mut found = self.root.join(path.trim_start_matches('/'));
        // As many as the kernel follows.
        for _ in 0..40 {
            let Ok(target) = fs::read_link(&found) else {
                return if found.exists() { Ok(found) } else { bail!("no package has {path}") };
            };
            found = match target.strip_prefix("/") {
                Ok(absolute) => self.root.join(absolute),
                Err(_) => found.parent().context("a link has a folder")?.join(target),
            };
        }
        bail!("{path} is a link to itself")
    }

    /// Reads a file.
    pub(crate) fn read(&self, path: &str) -> Result<Vec<u8>> {
        let path = self.path(path)?;
        fs::read(&path).with_context(|| path.display().to_string())
    }

    /// Where a library lies.
    pub(crate) fn library(&self, name: &str) -> Result<PathBuf> {
        let found = LIBRARY_FOLDERS.iter().find_map(|folder| self.path(&format!("{folder}/{name}")).ok());
        found.with_context(|| format!("no package has the library {name}"))
    }

    /// The libraries that a program needs, and those that they need, by name.
    pub(crate) fn libraries_of(&self, program: &[u8], into: &mut Vec<String>) -> Result<()> {
        let Some(elf) = Elf::of(program)? else { return Ok(()) };
        for name in elf.needed()? {
            if !into.contains(&name) {
                let library = fs::read(self.library(&name)?)?;
                into.push(name);
                self.libraries_of(&library, into)?;
            }
        }
        Ok(())
    }

    /// How one of their programs is run on this machine: with their libraries, and not with this machine's.
    pub(crate) fn words(&self, program: &str) -> Result<Vec<OsString>> {
        let folders = LIBRARY_FOLDERS.map(|folder| self.root.join(folder).display().to_string());
        let loader = self.library("ld-linux-x86-64.so.2")?.into_os_string();
        Ok(vec![loader, "--library-path".into(), folders.join(":").into(), self.path(program)?.into_os_string()])
    }

    /// One of their programs, to be run on this machine.
    pub(crate) fn command(&self, program: &str) -> Result<Command> {
        let words = self.words(program)?;
        let mut command = tied(&words[0]);
        command.args(&words[1..]);
        Ok(command)
    }
}

/// With the lists of packages that this machine has; if it has none, or old ones, with lists of our own.
fn download(cache: &Path, into: &Path, stopper: &Stopper) -> Result<()> {
    let Err(first) = download_by(&[], into, stopper) else { return Ok(()) };
    eprintln!("testbed: {first:#}; trying again with new lists of packages ...");
    let apt = cache.join("apt");
    for folder in ["state/lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(apt.join(folder))?;
    }
    let options =
        [format!("Dir::State={}", apt.join("state").display()), format!("Dir::Cache={}", apt.join("cache").display())];
    let mut update = tied("apt-get");
    update.args(["-q", "-o", &options[0], "-o", &options[1], "update"]);
    stopper.run(update, "apt-get update", FETCH_LIMIT)?;
    download_by(&options, into, stopper).context("Debian 12's packages cannot be had here")
}

fn download_by(options: &[String], into: &Path, stopper: &Stopper) -> Result<()> {
    let with_options = |program: &str| {
        let mut command = tied(program);
        command.args(options.iter().flat_map(|option| ["-o", option]));
        command
    };
    let mut depends = with_options("apt-cache");
    depends.args(["depends", "--important", KERNEL]);
    let depends = stopper.run(depends, "apt-cache", UNPACK_LIMIT)?;
    let kernel = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let kernel = kernel.with_context(|| format!("{KERNEL} has no kernel"))?;
    let mut download = with_options("apt-get");
    download.args(["-q", "-o", "Acquire::Retries=3", "download"]).args(PROGRAMS).args(LIBRARIES).arg(kernel);
    download.current_dir(into);
    stopper.run(download, "apt-get download", FETCH_LIMIT)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_within_the_packages() {
        let root = std::env::temp_dir().join(format!("colo-testbed-packages-{}", std::process::id()));
        fs::create_dir_all(root.join("usr/lib/x86_64-linux-gnu")).unwrap();
        fs::write(root.join("usr/lib/x86_64-linux-gnu/libx.so.1.2"), "x").unwrap();
        let link = |target: &str, path: &str| std::os::unix::fs::symlink(target, root.join(path)).unwrap();
        link("libx.so.1.2", "usr/lib/x86_64-linux-gnu/libx.so.1");
        link("/usr/lib/x86_64-linux-gnu/libx.so.1", "usr/libx.so");
        link("circle", "usr/circle");
        let packages = Packages { root: root.clone(), stamp: root.join("stamp") };
        assert_eq!(packages.read("/usr/libx.so").unwrap(), b"x");
        assert!(packages.library("libx.so.1").unwrap().ends_with("libx.so.1.2"));
        assert!(packages.library("liby.so.1").unwrap_err().to_string().contains("liby.so.1"));
        assert!(packages.path("usr/circle").is_err());
        fs::remove_dir_all(root).unwrap();
    }
}
