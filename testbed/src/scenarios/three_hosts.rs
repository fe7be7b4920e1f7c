//! Three hosts, and the links between them: each reaches each, a link that is cut is silent and nothing else, and mended it is as it was.

use super::Scenario;
use crate::context::Context;
use crate::control::Done;
use crate::host::{COMMAND_LIMIT, Host};
use crate::net::Network;
use anyhow::{Result, ensure};
use std::net::Ipv4Addr;
use std::time::Duration;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "three-hosts",
    about: "three hosts: each reaches each, also when one link of theirs is cut; how fast the links are",
    limit: Duration::from_secs(600),
    needs_root: true,
    run,
};

/// What is sent to tell how fast a link is.
const SENT_MB: u64 = 20;

fn run(context: &Context) -> Result<()> {
    let network = Network::new(context, 3)?;
    let [a, b, c] = network.boot(context)?;
    for number in [1, 2, 3] {
        network.ping(Ipv4Addr::new(10, 9, 0, number))?;
    }
    let reaches = |from: &Host, to: &Host| Ok::<bool, anyhow::Error>(ping(from, to)?.is_good());
    for (from, to) in [(&a, &b), (&b, &c), (&c, &a)] {
        ensure!(reaches(from, to)?, "host {} does not reach host {}", from.name(), to.name());
        context.figure(&format!("{SENT_MB} MB from {} to {}", from.name(), to.name()), send(from, to)?);
    }
    network.cut_link(0, 1)?;
    ensure!(!reaches(&a, &b)? && !reaches(&b, &a)?, "a link is cut, and the hosts reach each other");
    ensure!(a.sh("cat /sys/class/net/eth1/carrier")?.stdout == "1\n", "the cut is seen by the card");
    ensure!(reaches(&a, &c)? && reaches(&c, &b)?, "the other links are cut, too");
    network.mend_link(0, 1)?;
    ensure!(reaches(&a, &b)? && reaches(&b, &a)?, "a link is mended, and the hosts do not reach each other");
    [a, b, c].into_iter().try_for_each(Host::stop)
}

fn ping(from: &Host, to: &Host) -> Result<Done> {
    from.try_sh(&format!("ping -c 2 -W 3 {}", to.link_address()), COMMAND_LIMIT)
}

fn send(from: &Host, to: &Host) -> Result<Duration> {
    let mut receiver = to.spawn("socat -d -d -u -b 262144 TCP-LISTEN:7000,reuseaddr - > /dev/null", COMMAND_LIMIT)?;
    receiver.wait_said("listening on")?;
    let source = format!("head -c {}000000 /dev/zero", SENT_MB);
    let sent = from.sh(&format!("{source} | socat -u -b 262144 - TCP:{}:7000", to.link_address()))?;
    ensure!(receiver.wait()?.is_good(), "host {} did not receive all", to.name());
    Ok(sent.elapsed)
}
