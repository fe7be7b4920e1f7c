//! A guest as a test sees it: something that counts, answers, and knows whether its memory is right.

use crate::host::Host;
use crate::image::{GUEST, VMLINUX, VMLINUZ};
use anyhow::{Context, Result, bail, ensure};
use colo_testbed_inside::memory::{FIXED_PAGES, Memory};
use colo_testbed_inside::ports;
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::time::Duration;

/// How long a guest may take until it is ready. An HVM guest takes half a minute on a machine that does nothing else: its kernel is
/// read byte by byte from an emulated port.
const BOOT_LIMIT: Duration = Duration::from_secs(240);
/// How long a guest may take to count on.
const COUNT_LIMIT: Duration = Duration::from_secs(60);
/// The least that is enough: Debian's kernel needs 64 MiB before it begins; the guest's own memory for tests is 36 MiB.
pub(crate) const MEMORY_MIB: u32 = 128;
/// Where dom0 keeps what guests say.
const LOGS: &str = "/var/log/xen";
/// Where dom0 keeps kernels for Xen to read: the folder that it shares with this machine is slow.
const KERNELS: &str = "/tmp/kernels";

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
            dirty_pages: 20,
            words,
            lines,
        }
    }

    /// An HVM guest that does not know that it runs on Xen: everything that it has is emulated.
    pub(crate) fn unaware() -> GuestConfig {
        GuestConfig { is_unaware: true, ..GuestConfig::new(GuestType::Hvm) }
    }

    /// The same guest, deaf to its host's requests: asked to suspend, it just runs on. Its kernel does not set up what hears them.
    pub(crate) fn deaf(mut self) -> GuestConfig {
        self.words.push_str("initcall_blacklist=xen_setup_shutdown_event ");
        self
    }

    /// The configuration, as `xl create` reads it.
    pub(crate) fn text(&self) -> String {
        let GuestConfig { kind, name, number, bridge, memory_mib, vcpus, is_unaware, dirty_pages, words, .. } = self;
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
        line(format_args!("ramdisk = '{KERNELS}/{GUEST}'"));
        let words = format!("u.name={name} u.ip=10.9.0.{number}/24 u.dirty={dirty_pages} {words}");
        let console = if *is_unaware { "console=ttyS0 xen_nopv" } else { "console=hvc0" };
        // Without the first word a guest that panics restarts, and nobody hears of a crash.
        line(format_args!("cmdline = 'xen_legacy_crash {console} quiet {}'", words.trim_end()));
        let card = if *is_unaware { "type=ioemu,model=e1000" } else { "type=vif" };
        line(format_args!("vif = ['mac=00:16:3e:00:00:{number:02x},bridge={bridge},{card}']"));
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

/// A guest. Dropped, it goes on: it goes with its host.
pub(crate) struct Guest<'a> {
    host: &'a Host,
    name: String,
    number: u8,
    console: String,
}

impl Host {
    /// Has the kernels where guests' configurations say that they are. A device model wants to see its guest's also when the guest comes
    /// from another host.
    pub(crate) fn take_kernels(&self) -> Result<()> {
        let kernels = [VMLINUX, VMLINUZ, GUEST].map(|file| format!("/images/{file}")).join(" ");
        self.sh(&format!("[ -d {KERNELS} ] || (mkdir {KERNELS} && cp {kernels} {KERNELS})"))?;
        Ok(())
    }

    /// Creates a guest, and waits until it is ready. Says, too, how long `xl create` took, and how long it all took.
    pub(crate) fn guest(&self, config: &GuestConfig) -> Result<(Guest<'_>, GuestTimes)> {
        self.take_kernels()?;
        let file = self.give(&format!("{}.cfg", config.name), config.text().as_bytes())?;
        let guest = Guest::found(self, &config.name, config.number);
        // There may have been another one of this name.
        self.logs().forget(&guest.console);
        let begun = std::time::Instant::now();
        let created = self.sh(&format!("xl create {file}"))?;
        guest.wait(BOOT_LIMIT, "it did not become ready", |console| console.is_ready().then_some(()))?;
        guest.wait_counted(1)?;
        Ok((guest, GuestTimes { created: created.elapsed, ready: begun.elapsed() }))
    }
}

/// How long a guest took.
pub(crate) struct GuestTimes {
    /// `xl create`.
    pub(crate) created: Duration,
    /// From the beginning of `xl create` until the guest was ready.
    pub(crate) ready: Duration,
}

impl<'a> Guest<'a> {
    /// A guest that is on a host already: restored, or migrated to it.
    pub(crate) fn found(host: &'a Host, name: &str, number: u8) -> Guest<'a> {
        Guest { host, name: name.into(), number, console: format!("guest-{name}.log") }
    }

    /// The same, with another console: Xen names its log after what the domain was called when it was made.
    pub(crate) fn with_console(self, domain: &str) -> Guest<'a> {
        Guest { console: format!("guest-{domain}.log"), ..self }
    }

    /// A guest that has come to a host by itself, whatever its domain was called while it came. It is the one that speaks there.
    pub(crate) fn came_to(host: &'a Host, name: &str, number: u8) -> Result<Guest<'a>> {
        let newest = host.sh(&format!("ls -t /var/log/xen | grep '^guest-{name}.*[.]log$' | head -n 1"))?.stdout;
        let console = newest.trim().to_owned();
        ensure!(!console.is_empty(), "guest {name} has no console on host {}", host.name());
        let guest = Guest { console, ..Guest::found(host, name, number) };
        // In lock-step it was put back to what its primary had counted to, again and again.
        guest.forget_console();
        Ok(guest)
    }

    /// The same, restored under another name.
    pub(crate) fn renamed(&self, name: &str) -> Guest<'a> {
        Guest::found(self.host, name, self.number)
    }

    /// What it says from now on is not to be measured by what it has said: it starts from another place.
    pub(crate) fn forget_console(&self) {
        self.host.logs().forget(&self.console);
    }

    /// Where it is.
    pub(crate) fn host(&self) -> &'a Host {
        self.host
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The last byte of its addresses.
    pub(crate) fn number(&self) -> u8 {
        self.number
    }

    /// Its address on the bridge.
    pub(crate) fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 9, 0, self.number)
    }

    /// What it has counted to.
    pub(crate) fn counter(&self) -> Result<u64> {
        self.wait(COUNT_LIMIT, "it does not count", |console| console.tick())
    }

    /// What it counted first, since its console was forgotten.
    pub(crate) fn first_count(&self) -> Result<u64> {
        self.wait(COUNT_LIMIT, "it does not count", |console| console.first_tick())
    }

    /// Waits until it has counted so far on.
    pub(crate) fn wait_counted(&self, more: u64) -> Result<u64> {
        let goal = self.counter()? + more;
        self.wait_counter(goal)
    }

    /// Waits until it has counted to this number.
    pub(crate) fn wait_counter(&self, goal: u64) -> Result<u64> {
        self.wait(COUNT_LIMIT, "it does not count on", |console| console.tick().filter(|tick| *tick >= goal))
    }

    /// Waits until it has looked at all of its memory so many times more.
    pub(crate) fn wait_rounds(&self, more: u64) -> Result<u64> {
        let goal = self.wait(COUNT_LIMIT, "it has no rounds", |console| Some(console.rounds()))? + more;
        self.wait(COUNT_LIMIT, "it does not check its memory", |console| {
            Some(console.rounds()).filter(|rounds| *rounds >= goal)
        })
    }

    /// Sends it a text, and returns what comes back.
    pub(crate) fn echo(&self, text: &str) -> Result<String> {
        let text = text.replace('\'', r"'\''");
        // socat goes on reading until the other end has closed, too.
        let socat = format!("socat -t 20 - TCP:{}:{},connect-timeout=20", self.address(), ports::ECHO);
        Ok(self.host.sh(&format!("printf %s '{text}' | {socat}"))?.stdout)
    }

    /// Tells it to do something: see [`ports::ORDERS`]. It says yes, and then does it.
    pub(crate) fn order(&self, order: &str) -> Result<()> {
        let socat = format!("socat -t 20 - TCP:{}:{},connect-timeout=20", self.address(), ports::ORDERS);
        let answer = self.host.sh(&format!("echo {order} | {socat}"))?.stdout;
        ensure!(answer == "ok\n", "guest {}: it answers {answer:?} to the order {order:?}", self.name);
        Ok(())
    }

    /// Waits until its toolstack has seen it shut down for this reason, by Xen's number for it, and done what is to be done then.
    pub(crate) fn wait_shut_down(&self, reason: u32) -> Result<()> {
        let (log, wanted) = (format!("xl-{}.log", self.name), format!("has shut down, reason code {reason} "));
        let found = self.host.logs().wait(&log, COUNT_LIMIT, |said| {
            let lines = said.last_lines(usize::MAX);
            let at = lines.iter().rposition(|line| line.contains(&wanted))?;
            lines[at..].iter().any(|line| line.starts_with("Done. Exiting now")).then_some(())
        });
        found.with_context(|| format!("guest {}: it did not shut down", self.name))
    }

    /// Lets it look at all of its memory, and returns the sum; an error if a page is wrong.
    pub(crate) fn memory_checksum(&self) -> Result<u64> {
        let socat = format!("socat -u -T 60 TCP:{}:{},connect-timeout=20 -", self.address(), ports::MEMORY);
        let answer = self.host.sh(&socat)?.stdout;
        match answer.split_whitespace().collect::<Vec<_>>()[..] {
            ["ok", sum] => Ok(u64::from_str_radix(sum, 16)?),
            _ => bail!("guest {}: its memory: {answer:?}", self.name),
        }
    }

    /// Whether all is well: it answers, its memory is right, and it counts on, further than `from`.
    pub(crate) fn check(&self, from: u64) -> Result<u64> {
        let text = format!("are you {}, beyond {from}?", self.name);
        let echo = self.echo(&text)?;
        ensure!(echo == text, "guest {} answers {echo:?} to {text:?}", self.name);
        let sum = self.memory_checksum()?;
        ensure!(sum == Memory::expected_sum(FIXED_PAGES), "guest {}: the sum of its memory is {sum:016x}", self.name);
        let counter = self.wait_counter(from + 1)?;
        self.wait_counted(1)?;
        Ok(counter)
    }

    /// Its number as a domain.
    pub(crate) fn domain_id(&self) -> Result<u32> {
        Ok(self.host.sh(&format!("xl domid {}", self.name))?.stdout.trim().parse()?)
    }

    /// Its identity.
    pub(crate) fn uuid(&self) -> Result<String> {
        let line = self.host.sh(&format!("xl vm-list | grep ' {} *$'", self.name))?.stdout;
        Ok(line.split_whitespace().next().context("no UUID")?.to_owned())
    }

    /// Whether it stands still because it was paused.
    pub(crate) fn is_paused(&self) -> Result<bool> {
        let list = self.host.sh(&format!("xl list {}", self.name))?.stdout;
        let state = list.lines().nth(1).and_then(|line| line.split_whitespace().nth(4));
        Ok(state.context("xl list says nothing of it")?.contains('p'))
    }

    /// Looks whether its device model lives. An HVM guest that needs it for nothing would not miss it until it is saved.
    pub(crate) fn ensure_device_model(&self) -> Result<()> {
        let found = self.host.sh(&format!("{}; true", find_device_model(self.domain_id()?)))?.stdout;
        ensure!(!found.is_empty(), "guest {}: its device model is gone", self.name);
        Ok(())
    }

    /// Destroys it, and looks whether it is gone.
    pub(crate) fn destroy(self) -> Result<()> {
        let id = self.domain_id()?;
        self.host.sh(&format!("xl destroy {}", self.name))?;
        ensure_gone(self.host, &self.name, id)
    }

    fn wait<T>(
        &self,
        limit: Duration,
        what: &str,
        look: impl FnMut(&crate::console::Console) -> Option<T>,
    ) -> Result<T> {
        let found = self.host.logs().wait(&self.console, limit, look);
        found.with_context(|| format!("guest {} on host {}: {what}", self.name, self.host.name()))
    }
}

/// A command that prints the command line of a domain's device model, if there is one. (A name in /proc has 15 letters.)
fn find_device_model(id: u32) -> String {
    format!(
        "for process in $(grep -lsx 'xen-qemu-syste.*' /proc/[0-9]*/comm); do \
           tr '\\0' ' ' < ${{process%comm}}cmdline | grep -e '-xen-domid {id} '; done"
    )
}

/// Looks whether nothing is left of a domain: no domain of this name or number, no nodes in xenstore, no device model.
pub(crate) fn ensure_gone(host: &Host, name: &str, id: u32) -> Result<()> {
    let left = host.sh(&format!(
        "xl domid {name} 2>/dev/null && echo domain {name}; \
         xenstore-exists /local/domain/{id} && echo node {id}; \
         for kind in vif console vbd qdisk; do \
           xenstore-exists /local/domain/0/backend/$kind/{id} && echo backend $kind {id}; done; \
         {}; true",
        find_device_model(id)
    ))?;
    ensure!(left.stdout.is_empty(), "of domain {id} ({name}) is left: {}", left.stdout.trim().replace('\n', ", "));
    Ok(())
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
