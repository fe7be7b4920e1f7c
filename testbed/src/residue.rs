//! What is left of a domain that is gone, or that never came to be.

use crate::host::Host;
use anyhow::{Result, ensure};
use std::collections::BTreeSet;

/// All in a dom0 that comes and goes with domains and their protection: the domains, nodes in xenstore, files of the toolstack's and
/// ours, network interfaces, the ports of bridges, queues, the toolstack's, the device models' and our processes.
#[derive(Debug)]
pub(crate) struct Residue(BTreeSet<String>);

// A line each. The folders in xenstore that a host's first domain makes stay for those that come after it, and libxl's history of numbers is there for all domains that were, and so is the folder for the locks of Xen's scripts. A name in /proc has 15 letters; a process that a file is
// run in by its number is called after that file: exe.
const LOOK: &str = "xl vm-list | sed 's/^/domain /'; \
    xenstore-ls -f / | sed 's/ = .*//; s/^/node /' | \
        grep -vxE 'node /(vm|libxl|local/domain/0/(backend(/[a-z]+)?|device-model))'; \
    find /run /var/lib/xen ! -name domid-history ! -path /run/colo ! -path /run/colo/net ! -path /run/xen-hotplug | sed 's/^/file /'; \
    ls /sys/class/net | sed 's/^/network /'; \
    ls -d /sys/class/net/*/brif/* | sed 's/^/port /'; \
    tc qdisc show | sed 's/ refcnt.*//; s/^/queue /'; \
    grep -sHxE 'xl|colo|exe|socat|libxl-save-help|xen-qemu-system.*' /proc/[0-9]*/comm | sed 's/^/process /'; true";

impl Residue {
    /// What there is now.
    pub(crate) fn of(host: &Host) -> Result<Residue> {
        Ok(Residue(host.sh(LOOK)?.stdout.lines().map(str::to_owned).collect()))
    }

    /// Whether it is the same again.
    pub(crate) fn ensure_same(&self, host: &Host) -> Result<()> {
        let now = Residue::of(host)?;
        let left: Vec<&str> = now.0.difference(&self.0).map(String::as_str).collect();
        // The xl that looks after a domain ends when that is suspended for the first time, whoever has asked for it.
        let gone = self.0.difference(&now.0).map(String::as_str).filter(|what| !what.ends_with(":xl"));
        let gone: Vec<&str> = gone.collect();
        ensure!(left.is_empty(), "left behind: {}", left.join(", "));
        ensure!(gone.is_empty(), "gone: {}", gone.join(", "));
        Ok(())
    }
}
