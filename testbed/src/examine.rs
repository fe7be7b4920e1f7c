//! What hosts say of themselves and their guests when a scenario has failed: a file beside their logs, for whoever looks for a cause.

use crate::host::Host;
use anyhow::Result;
use std::time::Duration;

/// A host that is dead, or that stands still, says nothing.
const LIMIT: Duration = Duration::from_secs(60);

// What Xen says when it is sent a key comes in its log: q are domains and their processors, a timers. A guest that seems to stand still
// is looked at three times.
const LOOK: &str = "exec 2>&1; say() { echo; echo \"# $*\"; \"$@\"; }; \
    say date; say uptime; say xl list; say top -b -n 1; say ip -s link; say cat /proc/interrupts; \
    say xenstore-ls -f; say xl debug-keys qa; say xl dmesg; say dmesg; \
    for look in 1 2 3; do \
        say xl vcpu-list; \
        for id in $(xl list | sed 1,2d | awk '{print $2}'); do say /usr/lib/xen-4.17/bin/xenctx -a $id 0; done; \
        sleep 1; \
    done; \
    for id in $(xl list | sed 1,2d | awk '{print $2}'); do say xen-hvmctx $id; done; true";

/// Has the hosts say it if this is an error.
pub(crate) fn examined<T>(hosts: &[&Host], result: Result<T>) -> Result<T> {
    if result.is_err() {
        for host in hosts {
            // Why the scenario has failed is what counts.
            let _ = host.try_sh(LOOK, LIMIT).and_then(|done| host.logs().add("examined.log", done.stdout.as_bytes()));
        }
    }
    result
}
