//! What kind of guest is wanted, and how `xl` is told.

use crate::disk::DEVICE;
use crate::image::{GUEST, GUEST_WITH_DISK, VMLINUX, VMLINUZ};
use std::fmt::Write;

/// The least that is enough: Debian's kernel needs 64 MiB before it begins; the guest's own memory for tests is 36 MiB.
pub(crate) const MEMORY_MIB: u32 = 128;
/// With a file system's driver, a database, and some cache.
const MEMORY_WITH_DISK_MIB: u32 = 160;
/// Where dom0 keeps what guests say.
pub(super) const LOGS: &str = "/var/log/xen";
/// Where dom0 keeps kernels for Xen to read: the folder that it shares with this machine is slow.
pub(super) const KERNELS: &str = "/tmp/kernels";

/// How a guest is virtualised.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum GuestType {
    /// Paravirtualised, page tables included.
    Pv,
    /// A machine with nested paging and no emulated devices.
    Pvh,
    /// A machine with firmware and emulated devices.
    Hvm,
}

impl GuestType {
    /// Every type.
    pub(crate) const ALL: [GuestType; 3] = [GuestType::Pv, GuestType::Pvh, GuestType::Hvm];

    /// As `xl` writes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            GuestType::Pv => "pv",
            GuestType::Pvh => "pvh",
            GuestType::Hvm => "hvm",
        }
    }
}

/// What kind of guest is wanted.
#[derive(Clone, Debug)]
pub(crate) struct GuestConfig {
    /// Its type.
    pub(crate) kind: GuestType,
    /// Its name, in Xen too.
    pub(crate) name: String,
    /// The last byte of its addresses: 10.9.0.N. Not below 10, for hosts have those, and not 254, which clients have.
    pub(crate) number: u8,
    /// The bridge that its card is on.
    pub(crate) bridge: String,
    /// Its memory.
    pub(crate) memory_mib: u32,
    /// Its vCPUs.
    pub(crate) vcpus: u32,
    /// Whether it does without PV drivers, as a system that does not know Xen. Its console is the log of an emulated serial port then, which
    /// begins anew with each domain of its name.
    pub(crate) is_unaware: bool,
    /// Whether it has a disk, which is its host's ([`DEVICE`]), and keeps a ledger there.
    pub(crate) has_disk: bool,
    /// How many pages it rewrites every 200 ms.
    pub(crate) dirty_pages: u32,
    /// More words for its kernel.
    pub(crate) words: String,
    /// More lines of its `xl` configuration.
    pub(crate) lines: String,
}

impl GuestConfig {
    /// A guest that rewrites some of its memory, named after its type.
    pub(crate) fn new(kind: GuestType) -> GuestConfig {
        let number = 11 + kind as u8;
        let (bridge, words, lines) = ("xenbr0".into(), String::new(), String::new());
        let name = kind.name().into();
        GuestConfig {
            kind,
            name,
            number,
            bridge,
            memory_mib: MEMORY_MIB,
            vcpus: 1,
            is_unaware: false,
            has_disk: false,
            dirty_pages: 20,
            words,
            lines,
        }
    }

    /// An HVM guest that does not know that it runs on Xen: everything that it has is emulated.
    pub(crate) fn unaware() -> GuestConfig {
        GuestConfig { is_unaware: true, ..GuestConfig::new(GuestType::Hvm) }
    }

    /// The same guest with a disk, and more memory for what that needs.
    pub(crate) fn with_disk(self) -> GuestConfig {
        GuestConfig { has_disk: true, memory_mib: MEMORY_WITH_DISK_MIB, ..self }
    }

    /// The same guest, deaf to its host's requests: asked to suspend, it just runs on. Its kernel does not set up what hears them.
    pub(crate) fn deaf(mut self) -> GuestConfig {
        self.words.push_str("initcall_blacklist=xen_setup_shutdown_event ");
        self
    }

    /// The configuration, as `xl create` reads it.
    pub(crate) fn text(&self) -> String {
        let GuestConfig {
            kind, name, number, bridge, memory_mib, vcpus, is_unaware, has_disk, dirty_pages, words, ..
        } = self;
        let mut text = String::new();
        let mut line = |line: std::fmt::Arguments<'_>| {
            let _ = writeln!(text, "{line}");
        };
        line(format_args!("name = '{name}'"));
        line(format_args!("type = '{}'", kind.name()));
        line(format_args!("memory = {memory_mib}"));
        line(format_args!("maxmem = {memory_mib}"));
        line(format_args!("vcpus = {vcpus}"));
        let kernel = if *kind == GuestType::Hvm { VMLINUZ } else { VMLINUX };
        line(format_args!("kernel = '{KERNELS}/{kernel}'"));
        let ramdisk = if *has_disk { GUEST_WITH_DISK } else { GUEST };
        line(format_args!("ramdisk = '{KERNELS}/{ramdisk}'"));
        // What the toolstack calls it, and what the guest's kernel does.
        let (disk, seen_as) = if *is_unaware { ("hda", "sda") } else { ("xvda", "xvda") };
        let disk_word = if *has_disk { format!("u.disk={seen_as} ") } else { String::new() };
        let words = format!("u.name={name} u.ip=10.9.0.{number}/24 u.dirty={dirty_pages} {disk_word}{words}");
        let console = if *is_unaware { "console=ttyS0 xen_nopv" } else { "console=hvc0" };
        // Without the first word a guest that panics restarts, and nobody hears of a crash.
        line(format_args!("cmdline = 'xen_legacy_crash {console} quiet {}'", words.trim_end()));
        let card = if *is_unaware { "type=ioemu,model=e1000" } else { "type=vif" };
        line(format_args!("vif = ['mac=00:16:3e:00:00:{number:02x},bridge={bridge},{card}']"));
        if *has_disk {
            line(format_args!("disk = ['phy:{DEVICE},{disk},w']"));
        }
        if *is_unaware {
            line(format_args!("xen_platform_pci = 0\nserial = 'file:{LOGS}/guest-{name}.log'"));
        }
        line(format_args!("on_poweroff = 'destroy'"));
        line(format_args!("on_reboot = 'destroy'"));
        line(format_args!("on_crash = 'preserve'"));
        if *kind != GuestType::Pv {
            // The emulated CPU reports RDTSCP as RDTSC, and Xen, which would emulate both, gives up. Native needs no exit.
            line(format_args!("tsc_mode = 'native'"));
        }
        if *kind == GuestType::Hvm {
            line(format_args!("vga = 'none'\nnographic = 1\nvnc = 0\nsdl = 0"));
        }
        text + &self.lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_xl_reads() {
        let mut config = GuestConfig::new(GuestType::Pvh);
        config.lines = "nestedhvm = 0\n".into();
        let text = config.text();
        assert!(text.starts_with("name = 'pvh'\ntype = 'pvh'\nmemory = 128\n"));
        assert!(text.contains("\nkernel = '/tmp/kernels/vmlinux'\n"));
        assert!(
            text.contains(
                "\ncmdline = 'xen_legacy_crash console=hvc0 quiet u.name=pvh u.ip=10.9.0.12/24 u.dirty=20'\n"
            )
        );
        assert!(text.contains("\nvif = ['mac=00:16:3e:00:00:0c,bridge=xenbr0,type=vif']\n"));
        assert!(text.contains("\ntsc_mode = 'native'\n"));
        assert!(text.ends_with("\nnestedhvm = 0\n"));
    }

    #[test]
    fn a_deaf_guest() {
        let text = GuestConfig::new(GuestType::Pv).deaf().text();
        assert!(text.contains(" u.dirty=20 initcall_blacklist=xen_setup_shutdown_event'\n"));
    }

    #[test]
    fn a_guest_that_does_not_know_xen() {
        let text = GuestConfig { name: "other".into(), ..GuestConfig::unaware() }.text();
        assert!(text.contains("\ncmdline = 'xen_legacy_crash console=ttyS0 xen_nopv quiet u.name=other "));
        assert!(text.contains(",bridge=xenbr0,type=ioemu,model=e1000']\n"));
        assert!(text.contains("\nxen_platform_pci = 0\nserial = 'file:/var/log/xen/guest-other.log'\n"));
    }

    #[test]
    fn a_guest_with_a_disk() {
        let text = |config: GuestConfig| config.with_disk().text();
        let aware = text(GuestConfig::new(GuestType::Pvh));
        assert!(aware.contains("\nramdisk = '/tmp/kernels/guest-with-disk.cpio.gz'\n"));
        assert!(aware.contains(" u.dirty=20 u.disk=xvda'\n") && aware.contains("\ndisk = ['phy:/dev/nbd0,xvda,w']\n"));
        let unaware = text(GuestConfig::unaware());
        assert!(unaware.contains(" u.disk=sda'\n") && unaware.contains("\ndisk = ['phy:/dev/nbd0,hda,w']\n"));
    }

    #[test]
    fn types_differ() {
        let text = |kind| GuestConfig::new(kind).text();
        assert!(!text(GuestType::Pv).contains("tsc_mode"));
        assert!(text(GuestType::Hvm).contains("\nkernel = '/tmp/kernels/vmlinuz'\n"));
        assert!(text(GuestType::Hvm).contains("nographic") && !text(GuestType::Pvh).contains("nographic"));
        let mut numbers = GuestType::ALL.map(|kind| GuestConfig::new(kind).number).to_vec();
        numbers.dedup();
        assert_eq!(numbers.len(), 3);
    }
}
