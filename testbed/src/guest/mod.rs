//! A guest as a test sees it: something that counts, answers, and knows whether its memory is right.

mod config;

pub(crate) use config::{GuestConfig, GuestType, MEMORY_MIB};

use crate::host::Host;
use crate::image::{GUEST, GUEST_WITH_DISK, VMLINUX, VMLINUZ};
use anyhow::{Context, Result, bail, ensure};
use colo_testbed_inside::memory::{FIXED_PAGES, Memory};
use colo_testbed_inside::ports;
use config::{KERNELS, LOGS};
use std::net::Ipv4Addr;
use std::time::Duration;

/// How long a guest may take until it is ready. An HVM guest takes half a minute on a machine that does nothing else: its kernel is
/// read byte by byte from an emulated port.
const BOOT_LIMIT: Duration = Duration::from_secs(240);
/// How long a guest may take to count on.
const COUNT_LIMIT: Duration = Duration::from_secs(60);
/// Xen's number for a guest that has switched itself off.
pub(crate) const POWEROFF: u32 = 0;

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
        let kernels = [VMLINUX, VMLINUZ, GUEST, GUEST_WITH_DISK].map(|file| format!("/images/{file}")).join(" ");
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
        let found = Guest::found(host, name, number);
        let guest = Guest { console: found.newest_log("guest")?, ..found };
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

    /// Has it put its disk away and switch itself off, and waits until it says that it does.
    pub(crate) fn power_off(&self) -> Result<()> {
        self.order("poweroff")?;
        self.wait(COUNT_LIMIT, "it does not switch itself off", |console| {
            // The last words of its kernel: what they are differs between types.
            console.last_lines(20).iter().any(|line| line.contains("reboot: ")).then_some(())
        })
    }

    /// Waits until its toolstack has seen it shut down for this reason, by Xen's number for it, and done what is to be done then.
    pub(crate) fn wait_shut_down(&self, reason: u32) -> Result<()> {
        self.wait_released(&format!("has shut down, reason code {reason} "))
    }

    /// Waits until nobody looks after it any more on its host, since this was said.
    fn wait_released(&self, wanted: &str) -> Result<()> {
        // It is called after what the domain was called when it was made.
        let log = self.newest_log("xl")?;
        let found = self.host.logs().wait(&log, COUNT_LIMIT, |said| {
            let lines = said.last_lines(usize::MAX);
            let at = lines.iter().rposition(|line| line.contains(wanted))?;
            lines[at..].iter().any(|line| line.starts_with("Done. Exiting now")).then_some(())
        });
        found.with_context(|| format!("guest {}: it did not shut down", self.name))
    }

    /// Ends it in an orderly way, and looks whether it is gone.
    pub(crate) fn shut_down(self) -> Result<()> {
        let id = self.domain_id()?;
        self.power_off()?;
        // What looks after it destroys it now; or has ended before, when it was suspended for a checkpoint.
        self.wait_released("has shut down, reason code ")?;
        self.host.sh(&format!("if xl domid {0} 2>/dev/null; then xl destroy {0}; fi", self.name))?;
        ensure_gone(self.host, &self.name, id)
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

    /// What was written to last of all logs of this kind that are called after it, whatever is added to its name.
    fn newest_log(&self, kind: &str) -> Result<String> {
        let Guest { host, name, .. } = self;
        let newest = host.sh(&format!("ls -t {LOGS} | grep '^{kind}-{name}.*[.]log$' | head -n 1"))?.stdout;
        ensure!(!newest.trim().is_empty(), "guest {name} has no log of the kind {kind} on host {}", host.name());
        Ok(newest.trim().to_owned())
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
