use crate::ids::DomId;
use crate::xen::poll::ready_one;
use crate::xen::{Xen, XenStore};
use rustix::event::PollFlags;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a process may take to end that is killed.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Ends what there may be of the device model of a domain that has been destroyed. `xl destroy` does that only by what `xl` has noted in
/// the store: one that was killed while it started a device model has not come to that, and the device model itself goes on.
pub(super) fn end_device_model(domid: DomId) {
    kill(domid);
    // It writes there as it starts: only now nobody is left who does.
    let store = Xen::open().ok().and_then(|xen| XenStore::open(xen).ok());
    let _ = store.map(|store| store.rm(&format!("/local/domain/0/device-model/{}", domid.0)));
}

/// Kills the device model, and waits for its end.
fn kill(domid: DomId) {
    let Ok(processes) = std::fs::read_dir("/proc") else { return };
    for process in processes.flatten() {
        let number = process.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        let Some(number) = number.filter(|_| is_device_model(&process.path(), domid)) else { continue };
        let Ok(handle) = pidfd_open(number, PidfdFlags::empty()) else { continue };
        // The number may have become another's before the handle was there.
        if is_device_model(&process.path(), domid) && pidfd_send_signal(&handle, Signal::KILL).is_ok() {
            let _ = ready_one(&handle, PollFlags::IN, Instant::now() + KILL_LIMIT);
        }
    }
}

fn is_device_model(process: &Path, domid: DomId) -> bool {
    std::fs::read(process.join("cmdline")).is_ok_and(|line| serves(&line, domid))
}

/// Whether a command line, a zero byte behind each word, is that of QEMU for this domain.
fn serves(line: &[u8], domid: DomId) -> bool {
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    let program = words[0].rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let domid = domid.0.to_string();
    program.windows(4).any(|part| part == b"qemu")
        && words.windows(2).any(|pair| pair[0] == b"-xen-domid" && pair[1] == domid.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::{Command, Stdio};

    #[test]
    fn the_device_model_of_one_domain() {
        let serves = |line: &str| serves(line.replace(' ', "\0").as_bytes(), DomId(45));
        assert!(serves("/usr/libexec/xen-qemu-system-i386 -xen-domid 45 -no-shutdown "));
        assert!(!serves("/usr/libexec/xen-qemu-system-i386 -xen-domid 4 -no-shutdown "));
        assert!(!serves("/usr/libexec/xen-qemu-system-i386 -name -xen-domid -m 45 "));
        assert!(!serves("grep -xen-domid 45 qemu "));
        assert!(!serves("/opt/qemu/grep -xen-domid 45 "));
        assert!(!serves(""));
    }

    #[test]
    fn it_has_ended_on_return() {
        // No domain has such a number.
        let start = |domid: u32| {
            let mut command = Command::new("/bin/sh");
            command.arg0("qemu-test").args(["-c", "echo; read word", "-xen-domid", &domid.to_string()]);
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            // A process that has only just become another has no command line yet.
            child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
            child
        };
        let (mut one, mut other) = (start(4_000_000_001), start(4_000_000_002));
        kill(DomId(4_000_000_001));
        assert_eq!(one.try_wait().unwrap().and_then(|status| status.signal()), Some(9));
        assert_eq!(other.try_wait().unwrap(), None);
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
