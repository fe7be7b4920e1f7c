//! Whether a guest can be protected towards another host: a good guest can, and whatever is in the way is told.

use super::Scenario;
use crate::context::Context;
use crate::guest::{GuestConfig, GuestType};
use crate::host::{COMMAND_LIMIT, Host};
use crate::net::Network;
use anyhow::{Result, ensure};
use colo_testbed_inside::protocol::Outcome;
use std::time::Duration;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "check",
    about: "two hosts: colo check finds nothing in a good guest's way, and each thing that is put there",
    limit: Duration::from_secs(600),
    needs_root: true,
    run,
};

/// SIGTERM.
const TERMINATE: u8 = 15;
/// A read-only disk of the same size on both hosts, and one that is on the first alone.
const DISKS: &str = "modprobe -a loop xen-blkback && \
    truncate -s 8M /tmp/shared /tmp/own && losetup /dev/loop0 /tmp/shared && losetup /dev/loop1 /tmp/own";
/// Connects a disk. Xen's own script looks first whether others have it, by programs that this dom0 has not.
const BLOCK_SCRIPT: &str = "#!/bin/bash
[ \"$1\" = add ] || exit 0
device=$(xenstore-read \"$XENBUS_PATH/params\")
xenstore-write \"$XENBUS_PATH/physical-device\" \"$(stat -L -c %t:%T \"$device\")\"
xenstore-write \"$XENBUS_PATH/hotplug-status\" connected
";

fn run(context: &Context) -> Result<()> {
    let network = Network::new(context, 2)?;
    let [a, b] = network.boot(context)?;
    for host in [&a, &b] {
        host.sh(DISKS)?;
    }
    let script = a.give("block-plain", BLOCK_SCRIPT.as_bytes())?;
    a.sh(&format!("cp {script} /etc/xen/scripts/block-plain && chmod 755 /etc/xen/scripts/block-plain"))?;
    let lines = "disk = ['script=block-plain,vdev=xvda,access=r,target=/dev/loop0']\n".to_owned();
    let (guest, _) = a.guest(&GuestConfig { lines, ..GuestConfig::new(GuestType::Pvh) })?;
    let (pv, _) = a.guest(&GuestConfig::new(GuestType::Pv))?;

    let check = Check { a: &a, arguments: "--domain pvh --peer 10.8.0.2" };
    let mut found = check.fails(&["peer: 10.8.0.2: cannot connect", "start `colo secondary --listen` there"])?;
    ensure!(found.contains("ok       domain: pvh (domain 1) runs: PVH, 1 vCPU, 128 MiB"), "{found}");
    let mut secondary = b.spawn("colo secondary --listen", Duration::from_secs(600))?;
    secondary.wait_said("listening on")?;

    let before = [state(&a)?, state(&b)?];
    let begun = std::time::Instant::now();
    found = check.says(Outcome::Code(0), &["ok       colo: possible", "ok       disk: disk xvda is read-only"])?;
    context.figure("colo check", begun.elapsed());
    context.say(&found);
    ensure!(found.lines().all(|line| line.starts_with("ok ")), "{found}");
    ensure!(state(&a)? == before[0] && state(&b)? == before[1], "a check has changed something");
    modes(&a)?;

    for (what, undo, words) in WAYS {
        let host = if what.starts_with("peer: ") { &b } else { &a };
        let command = |text: &str| text.strip_prefix("peer: ").unwrap_or(text).to_owned();
        host.sh(&command(what))?;
        let (verdict, words) = words.split_at(1);
        match verdict[0] {
            "failure" => check.fails(words)?,
            _ => check.says(Outcome::Code(0), &[&["warning "], words].concat())?,
        };
        host.sh(&command(undo))?;
    }
    check.says(Outcome::Code(0), &[])?;

    secondary.signal(TERMINATE)?;
    ensure!(secondary.wait()?.is_good(), "an orderly end");
    guest.check(0)?;
    pv.check(0).map(drop)
}

/// What is put in the way, how it is taken away again, and the verdict and the words that tell of it. On the peer where it says so.
const WAYS: [(&str, &str, &[&str]); 8] = [
    ("xl pause pvh", "xl unpause pvh", &["failure", "domain: pvh is paused", "xl unpause pvh"]),
    (
        "xl block-attach pvh script=block-plain,vdev=xvdb,access=w,target=/dev/loop1",
        "xl block-detach pvh xvdb",
        &["failure", "disk: disk xvdb is writable", "--unsafe-disk"],
    ),
    (
        "ip link set vif1.0 nomaster",
        "ip link set vif1.0 master xenbr0",
        &["failure", "network: vif1.0 is in no bridge instead of xenbr0"],
    ),
    (
        "peer: ip link set xenbr0 down",
        "peer: ip link set xenbr0 up",
        &["failure", "network: xenbr0 is down at the peer"],
    ),
    (
        "peer: ip link set xenbr0 down && ip link set xenbr0 name other",
        "peer: ip link set other name xenbr0 && ip link set xenbr0 up",
        &["failure", "network: the peer has no bridge xenbr0", "ip link add xenbr0 type bridge"],
    ),
    (
        "peer: losetup -d /dev/loop0",
        "peer: losetup /dev/loop0 /tmp/shared",
        &["failure", "disk: disk xvda: /dev/loop0 has 8388608 bytes here and 0 at the peer"],
    ),
    (
        "peer: xenstore-write /local/domain/0/name pvh",
        "peer: xenstore-write /local/domain/0/name Domain-0",
        &["failure", "name: the peer has another domain of that name, domain 0"],
    ),
    (
        "peer: date -s @$(($(date +%s) + 30))",
        "peer: date -s @$(($(date +%s) - 30))",
        &["warning", "clock: the peer's is ", "NTP"],
    ),
];

/// What depends on the mode, the type, and how it is asked.
fn modes(a: &Host) -> Result<()> {
    let pv = Check { a, arguments: "--domain pv --peer 10.8.0.2 --mode colo" };
    // Debian's Xen has none.
    let found = pv.says(Outcome::Code(0), &["warning  dirty pages: neither hypervisor has shadow paging"])?;
    ensure!(!found.contains("remus:"), "{found}");
    let remus = Check { a, arguments: "--domain pv --peer 10.8.0.2 --mode remus" };
    let found = remus.says(Outcome::Code(0), &["remus: possible"])?;
    ensure!(!found.contains("colo: "), "{found}");
    let json = Check { a, arguments: "--json --domain pvh --peer 10.8.0.2" };
    let found = json.says(Outcome::Code(0), &[r#"{"about":"domain","#])?;
    ensure!(found.lines().all(|line| line.starts_with('{') && line.ends_with('}')), "{found}");
    Check { a, arguments: "--domain 0 --peer 10.8.0.2" }.fails(&["domain: domain 0 is the host itself"])?;
    let nobody = a.try_sh("colo check --domain nobody --peer 10.8.0.2", COMMAND_LIMIT)?;
    ensure!(nobody.outcome == Outcome::Code(1) && nobody.stderr.starts_with("colo: there is no domain nobody"));
    Ok(())
}

struct Check<'a> {
    a: &'a Host,
    arguments: &'a str,
}

impl Check<'_> {
    /// It ends like this, and each of the words is in what it says.
    fn says(&self, outcome: Outcome, words: &[&str]) -> Result<String> {
        let done = self.a.try_sh(&format!("colo check {}", self.arguments), COMMAND_LIMIT)?;
        let text = format!("{}{}", done.stdout, done.stderr);
        ensure!(done.outcome == outcome, "colo check {}: {:?}: {text}", self.arguments, done.outcome);
        for word in words {
            ensure!(text.contains(word), "colo check {} does not say {word:?}: {text}", self.arguments);
        }
        Ok(text)
    }

    /// It tells of exactly one failure, in these words.
    fn fails(&self, words: &[&str]) -> Result<String> {
        let text = self.says(Outcome::Code(1), words)?;
        let failures = text.lines().filter(|line| line.starts_with("failure ")).count();
        ensure!(failures == 1, "{failures} failures instead of one: {text}");
        Ok(text)
    }
}

/// The domains, xenstore and the network of a host.
fn state(host: &Host) -> Result<String> {
    Ok(host.sh("xl list | cut -c 1-58; xenstore-ls -f; ip -o link; bridge link; ls /var/lib/xen")?.stdout)
}
