//! The command that starts a machine which can run Xen, without hardware virtualisation.

use crate::image;
use crate::process::tied;
use anyhow::{Context, Result};
use colo_testbed_inside::protocol::PORT_NAME;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The only model that is sound here. EPYC: Xen panics when it first idles (MWAIT is not emulated as Xen uses it), and without
/// MWAIT, floating-point registers get corrupted now and then (XSAVE, AVX). SVM and nested paging are for PVH and HVM guests.
const CPU: &str = "qemu64,+svm,+npt";
/// Xen's panics reboot the machine, and QEMU ends then; Xen's `noreboot` would make it hang instead. SMAP and SMEP cost time when
/// they are emulated.
const XEN_OPTIONS: &str = "console=com1 com1=115200,8n1 dom0_max_vcpus=1 loglvl=info guest_loglvl=info smap=0 smep=0";
/// The emulator keeps what it has translated by its address. Where programs lie somewhere else each time, each start is paid for again,
/// many times over what the program does: a run of bash, xl or colo then tells about the emulator, and nothing about itself.
const DOM0_OPTIONS: &str = "console=hvc0 quiet norandmaps";
/// Translated code is kept in so much memory; the default grows by far more.
const TRANSLATIONS_MIB: u32 = 128;

/// A machine to be started.
pub(crate) struct Machine<'a> {
    /// `A`, `B` or `C`.
    pub(crate) name: &'a str,
    /// The images, which dom0 sees in `/images`.
    pub(crate) images: &'a Path,
    /// What dom0 sees in `/host`, and may write to.
    pub(crate) share: &'a Path,
    /// The socket on which the agent's connection is awaited.
    pub(crate) control: &'a Path,
    /// What Xen and dom0 say.
    pub(crate) serial: &'a Path,
    /// Memory of the whole machine.
    pub(crate) memory_mib: u32,
    /// Memory of dom0.
    pub(crate) dom0_mib: u32,
    /// More words for dom0's kernel.
    pub(crate) dom0_words: Vec<String>,
    /// Cards, in the order eth0, eth1, eth2.
    pub(crate) cards: Vec<Card>,
    /// The console is this terminal, too.
    pub(crate) is_on_terminal: bool,
}

/// A network card.
pub(crate) struct Card {
    /// The last two bytes of its address.
    pub(crate) address: [u8; 2],
    /// Its other end.
    pub(crate) end: CardEnd,
}

/// What a network card is connected to.
pub(crate) enum CardEnd {
    /// A tap of this name.
    Tap(String),
    /// A card of another QEMU, by datagrams.
    Link {
        /// The socket of this one.
        own: PathBuf,
        /// The socket of the other one.
        other: PathBuf,
    },
}

/// QEMU, after these words: `ip netns exec NAME`, or none.
pub(crate) fn command(machine: &Machine<'_>, within: &[OsString]) -> Result<Command> {
    let mut words = within.to_vec();
    words.push("qemu-system-x86_64".into());
    let mut command = tied(&words[0]);
    command.args(&words[1..]).args(arguments(machine)?);
    Ok(command)
}

fn arguments(machine: &Machine<'_>) -> Result<Vec<String>> {
    let mut arguments: Vec<String> = Vec::new();
    let mut option = |name: &str, value: String| arguments.extend([format!("-{name}"), value]);
    let (images, share) = (text(machine.images)?, text(machine.share)?);
    option("accel", format!("tcg,thread=multi,tb-size={TRANSLATIONS_MIB}"));
    option("cpu", CPU.into());
    option("m", machine.memory_mib.to_string());
    option("smp", "1".into());
    option("display", "none".into());
    let memory = machine.dom0_mib;
    option("kernel", format!("{images}/{}", image::XEN));
    option("append", format!("{XEN_OPTIONS} dom0_mem={memory}M,max:{memory}M"));
    let mut words = vec![DOM0_OPTIONS.to_owned(), format!("testbed.name={}", machine.name)];
    words.extend_from_slice(&machine.dom0_words);
    option("initrd", format!("{images}/{} {},{images}/{}", image::VMLINUZ, words.join(" "), image::DOM0));
    let serial = text(machine.serial)?;
    if machine.is_on_terminal {
        option("chardev", format!("stdio,id=serial,signal=off,logfile={serial}"));
    } else {
        option("chardev", format!("file,id=serial,path={serial}"));
    }
    option("serial", "chardev:serial".into());
    option("device", "virtio-serial-pci".into());
    option("chardev", format!("socket,id=control,path={}", text(machine.control)?));
    option("device", format!("virtserialport,chardev=control,name={PORT_NAME}"));
    for (name, path, more) in [("host", share, ""), ("images", images, ",readonly=on")] {
        option("fsdev", format!("local,id={name},path={path},security_model=none{more}"));
        option("device", format!("virtio-9p-pci,fsdev={name},mount_tag={name}"));
    }
    for (number, card) in machine.cards.iter().enumerate() {
        let end = match &card.end {
            CardEnd::Tap(name) => format!("tap,id=n{number},ifname={name},script=no,downscript=no"),
            CardEnd::Link { own, other } => {
                let (own, other) = (text(own)?, text(other)?);
                format!("dgram,id=n{number},local.type=unix,local.path={own},remote.type=unix,remote.path={other}")
            }
        };
        option("netdev", end);
        let [high, low] = card.address;
        let address = format!("52:54:00:00:{high:02x}:{low:02x}");
        option("device", format!("virtio-net-pci,netdev=n{number},mac={address},romfile="));
    }
    arguments.extend(["-no-reboot", "-nodefaults", "-no-user-config"].map(str::to_owned));
    Ok(arguments)
}

/// A path as a part of an option. QEMU would take a comma for the end of it.
fn text(path: &Path) -> Result<&str> {
    let text = path.to_str().filter(|text| !text.contains([',', ' ']));
    text.with_context(|| {
        format!("QEMU does not take the path {}: it must have no commas and no spaces", path.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(images: &Path) -> Machine<'_> {
        Machine {
            name: "A",
            images,
            share: Path::new("/run/share"),
            control: Path::new("/run/control"),
            serial: Path::new("/run/serial.log"),
            memory_mib: 1024,
            dom0_mib: 512,
            dom0_words: vec!["testbed.ip=10.9.0.1/24".into()],
            cards: vec![
                Card { address: [0, 1], end: CardEnd::Tap("tapA".into()) },
                Card { address: [1, 1], end: CardEnd::Link { own: "/run/a".into(), other: "/run/b".into() } },
            ],
            is_on_terminal: false,
        }
    }

    #[test]
    fn what_must_not_change_unnoticed() {
        let arguments = arguments(&machine(Path::new("/cache/images"))).unwrap();
        let after = |name: &str| {
            let at = arguments.iter().position(|argument| argument == name).unwrap();
            arguments[at + 1].as_str()
        };
        assert_eq!(after("-cpu"), "qemu64,+svm,+npt");
        assert_eq!(after("-smp"), "1");
        assert!(!after("-append").contains("noreboot"));
        assert!(arguments.contains(&"-no-reboot".to_owned()));
        assert_eq!(
            after("-initrd"),
            "/cache/images/vmlinuz console=hvc0 quiet norandmaps testbed.name=A testbed.ip=10.9.0.1/24,/cache/images/dom0.cpio"
        );
        let netdevs: Vec<&String> = arguments.iter().filter(|argument| argument.contains("id=n")).collect();
        assert_eq!(netdevs.len(), 2);
        assert!(netdevs[1].ends_with("local.path=/run/a,remote.type=unix,remote.path=/run/b"));
    }

    #[test]
    fn a_path_that_qemu_would_misread_is_an_error() {
        assert!(arguments(&machine(Path::new("/cache,1"))).is_err());
        assert!(arguments(&machine(Path::new("/my cache"))).is_err());
    }
}
