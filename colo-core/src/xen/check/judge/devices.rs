//! Network cards, disks, and whatever else a domain has.

use super::Question;
use crate::domain::DomainSpec;
use crate::xen::check::{BridgeFacts, DiskFacts, DiskServerFit, DomainFacts, Finding, HostFacts, NicFacts};

const NETWORK: &str = "network";
const DISK: &str = "disk";

/// Each network card: in a bridge here, and one of the same name there.
pub(super) fn network(question: &Question<'_>) -> Vec<Finding> {
    let nics = &question.domain.nics;
    if nics.is_empty() {
        return vec![Finding::ok(NETWORK, "no network card")];
    }
    let mut findings = Vec::new();
    if nics.len() > DomainSpec::MAX_NICS {
        let text = format!("{} network cards: the limit is {}", nics.len(), DomainSpec::MAX_NICS);
        findings.push(Finding::failure(NETWORK, text, "take the others out of its configuration, and boot it anew"));
    }
    for nic in nics {
        let found = card(nic, question);
        match (found.is_empty(), nic.bridge.as_ref(), nic.mtu) {
            (true, Some(bridge), Some(mtu)) => {
                let both = if question.peer.is_some() { "here and there" } else { "here" };
                findings.push(Finding::ok(NETWORK, format!("{}: bridge {bridge}, MTU {mtu}, {both}", nic.link)));
            }
            _ => findings.extend(found),
        }
    }
    findings
}

/// What is wrong with a card; of more than one thing the first, of the peer's side too.
fn card(nic: &NicFacts, question: &Question<'_>) -> Vec<Finding> {
    let link = &nic.link;
    let name = &question.domain.name;
    let failure = |text: String, remedy: String| vec![Finding::failure(NETWORK, text, remedy)];
    let script = nic.script.as_deref().map(|path| path.rsplit('/').next().unwrap_or(path));
    if let Some(script) = script.filter(|script| *script != "vif-bridge") {
        return failure(
            format!("{link} is connected by {script}: only cards in a Linux bridge can be taken over"),
            format!("give {name}'s vif a bridge and no `script` of its own, and boot it anew"),
        );
    }
    let Some(bridge) = &nic.bridge else {
        return failure(
            format!("{link} has no bridge: only cards in a Linux bridge can be taken over"),
            format!("write `bridge=NAME` into {name}'s vif, and boot it anew"),
        );
    };
    let Some(mtu) = nic.mtu else {
        return failure(
            format!("there is no device {link}: its backend has failed"),
            format!("`xl network-list {name}`, and see /var/log/xen/xen-hotplug.log"),
        );
    };
    let mut findings = here(nic, bridge, mtu, question.here);
    findings.extend(question.peer.and_then(|peer| there(nic, bridge, question.here, peer)));
    findings
}

fn here(nic: &NicFacts, bridge: &str, mtu: u32, here: &HostFacts) -> Vec<Finding> {
    let link = &nic.link;
    let Some(found) = here.bridges.get(bridge) else {
        let text = format!("{link} is to be in {bridge}, which is no Linux bridge of this host");
        let remedy = format!("make it: `ip link add {bridge} type bridge`, `ip link set {link} master {bridge}`");
        return vec![Finding::failure(NETWORK, text, remedy)];
    };
    if nic.master.as_deref() != Some(bridge) {
        let at = nic.master.as_ref().map_or("in no bridge".into(), |master| format!("in {master}"));
        let text = format!("{link} is {at} instead of {bridge}");
        let remedy = format!(
            "`ip link set {link} master {bridge}`; if a colo was killed that had taken it over: `colo net repair`"
        );
        return vec![Finding::failure(NETWORK, text, remedy)];
    }
    if !found.is_up {
        return vec![Finding::failure(NETWORK, format!("{bridge} is down"), format!("`ip link set {bridge} up`"))];
    }
    if mtu != found.mtu {
        let text = format!("{link} has an MTU of {mtu}, {bridge} one of {}", found.mtu);
        let remedy = format!("make them equal: `ip link set {link} mtu {}`", found.mtu);
        return vec![Finding::warning(NETWORK, text, remedy)];
    }
    Vec::new()
}

fn there(nic: &NicFacts, bridge: &str, here: &HostFacts, peer: &HostFacts) -> Option<Finding> {
    let link = &nic.link;
    let Some(BridgeFacts { is_up, mtu }) = peer.bridges.get(bridge).copied() else {
        let text = format!("the peer has no bridge {bridge}, which {link} needs there");
        return Some(Finding::failure(
            NETWORK,
            text,
            format!("make it there, in the clients' network: `ip link add {bridge} type bridge`"),
        ));
    };
    if !is_up {
        let text = format!("{bridge} is down at the peer");
        return Some(Finding::failure(NETWORK, text, format!("there: `ip link set {bridge} up`")));
    }
    let ours = here.bridges.get(bridge)?.mtu;
    (mtu != ours).then(|| {
        let text = format!("{bridge} has an MTU of {ours} here and of {mtu} at the peer");
        Finding::failure(NETWORK, text, format!("make them equal: there `ip link set {bridge} mtu {ours}`"))
    })
}

/// Each disk: replicated, or read-only and the same on both hosts.
pub(super) fn disks(question: &Question<'_>) -> Vec<Finding> {
    match &question.domain.disks[..] {
        [] => vec![Finding::ok(DISK, "no disk")],
        disks => disks.iter().map(|disk| disk_of(disk, question)).collect(),
    }
}

/// A disk that the guest may write to.
fn writable(disk: &DiskFacts, question: &Question<'_>) -> Finding {
    let (vdev, name) = (&disk.vdev, &question.domain.name);
    let there = question.peer.map(|peer| (&peer.disk_server, question.here.disks.get(vdev), peer.disks.get(vdev)));
    match (&question.here.disk_server, there) {
        (None, _) if question.unsafe_disk => Finding::warning(
            DISK,
            format!("disk {vdev} is writable, and not replicated; after a failover it may be damaged (--unsafe-disk)"),
            "keep a backup of it",
        ),
        (None, _) => Finding::failure(
            DISK,
            format!("disk {vdev} is writable, and no disk server is named that replicates it"),
            format!(
                "let a disk server have it, and say `--disk-control` (docs/disks.md); or make it read-only in {name}'s configuration \
                 (mode r), or take the risk of a damaged disk: `--unsafe-disk`"
            ),
        ),
        (Some(DiskServerFit::Not(why)), _) => {
            Finding::failure(DISK, format!("disk {vdev} is not replicated: {why}"), "docs/disks.md has the whole way")
        }
        (Some(DiskServerFit::Fits), None) => Finding::ok(DISK, format!("disk {vdev} has a disk server")),
        (Some(DiskServerFit::Shared), None) => {
            Finding::ok(DISK, format!("disk {vdev} has a disk server, and is shared"))
        }
        (Some(_), Some((None, ..))) => Finding::failure(
            DISK,
            format!("disk {vdev}: the peer names no disk server"),
            "there: a disk server with a journal, and `colo secondary --disk-control` (docs/disks.md)",
        ),
        (Some(_), Some((Some(DiskServerFit::Not(why)), ..))) => Finding::failure(
            DISK,
            format!("disk {vdev} is not replicated at the peer: {why}"),
            "docs/disks.md has the whole way",
        ),
        (Some(here), Some((Some(there), ..))) if here != there => {
            let which =
                if *here == DiskServerFit::Shared { "here, and not at the peer" } else { "at the peer, and not here" };
            let text = format!("disk {vdev} is shared {which}");
            Finding::failure(
                DISK,
                text,
                "both disk servers with --shared, over one disk that both hosts reach; or none",
            )
        }
        (Some(_), Some((_, here, there))) if here != there => {
            let size = |size: Option<&u64>| size.map_or("none".into(), |size| format!("{size}"));
            let text = format!("disk {vdev} has {} bytes here and {} at the peer", size(here), size(there));
            Finding::failure(DISK, text, "make what the peer's disk server has as large")
        }
        (Some(DiskServerFit::Shared), Some(_)) => Finding::ok(
            DISK,
            format!("disk {vdev} is shared by both hosts' disk servers; both hosts need a --fence-command"),
        ),
        (Some(DiskServerFit::Fits), Some(_)) => {
            Finding::ok(DISK, format!("disk {vdev} has a disk server on both hosts"))
        }
    }
}

fn disk_of(disk: &DiskFacts, question: &Question<'_>) -> Finding {
    let vdev = &disk.vdev;
    if disk.read_write {
        return writable(disk, question);
    }
    let Some(path) = &disk.path else {
        return Finding::ok(DISK, format!("drive {vdev} is empty"));
    };
    let Some(peer) = question.peer else {
        return Finding::ok(DISK, format!("disk {vdev} is read-only"));
    };
    match (question.here.disks.get(vdev), peer.disks.get(vdev)) {
        (_, None) => Finding::failure(
            DISK,
            format!("disk {vdev}: the peer has no {path}"),
            format!("copy {path} there, or mount there what it lies on"),
        ),
        (None, Some(_)) => Finding::failure(
            DISK,
            format!("disk {vdev}: {path} is gone from this host"),
            "put it back: the guest runs on what it had open",
        ),
        (Some(here), Some(there)) if here != there => Finding::failure(
            DISK,
            format!("disk {vdev}: {path} has {here} bytes here and {there} at the peer"),
            format!("copy {path} there anew"),
        ),
        (Some(_), Some(_)) => Finding::ok(DISK, format!("disk {vdev} is read-only, {path} is there, too")),
    }
}

/// What cannot be protected, whatever is done.
pub(super) fn others(domain: &DomainFacts) -> Finding {
    let about = "devices";
    let mut names: Vec<String> = domain.other_devices.iter().map(|(name, count)| format!("{name} ({count})")).collect();
    if domain.has_other_device_model {
        names.push("a device model in a stub domain, or qemu-traditional".into());
    }
    if names.is_empty() {
        return Finding::ok(about, "none beside network cards and disks");
    }
    let text = format!("{} cannot be protected: the state is not in a checkpoint", names.join(", "));
    Finding::failure(about, text, format!("take it out of {}'s configuration, and boot it anew", domain.name))
}

#[cfg(test)]
mod tests {
    use crate::xen::check::judge::tests::{about, only};
    use crate::xen::check::testing::{domain, host};
    use crate::xen::check::{BridgeFacts, DiskFacts, DiskServerFit, NicFacts, Question, Verdict, judge};

    fn bridge(is_up: bool, mtu: u32) -> BridgeFacts {
        BridgeFacts { is_up, mtu }
    }

    type Change = fn(&mut NicFacts);

    #[test]
    fn a_card_that_cannot_be_taken_over() {
        let card = |change: Change| only(about("network", |domain, _, _| change(&mut domain.nics[0])));
        assert_eq!(card(|_| {}), (Verdict::Ok, "vif3.0: bridge xenbr0, MTU 1500, here and there".into()));
        assert_eq!(card(|nic| nic.script = None).0, Verdict::Ok);
        let failures: [(Change, &str); 5] = [
            (
                |nic| nic.script = Some("/etc/xen/scripts/vif-openvswitch".into()),
                "vif3.0 is connected by vif-openvswitch: ",
            ),
            (|nic| nic.bridge = None, "vif3.0 has no bridge: "),
            (|nic| nic.mtu = None, "there is no device vif3.0: "),
            (|nic| nic.master = None, "vif3.0 is in no bridge instead of xenbr0"),
            (|nic| nic.master = Some("br9".into()), "vif3.0 is in br9 instead of xenbr0"),
        ];
        for (change, text) in failures {
            let said = card(change);
            assert_eq!(said.0, Verdict::Failure);
            assert!(said.1.starts_with(text), "{}", said.1);
        }
        let said = card(|nic| nic.mtu = Some(9000));
        assert_eq!(said, (Verdict::Warning, "vif3.0 has an MTU of 9000, xenbr0 one of 1500".into()));
    }

    #[test]
    fn bridges_here_and_there() {
        let found = |here: Option<BridgeFacts>, there: Option<BridgeFacts>| {
            only(about("network", |_, host, peer| {
                host.bridges = here.map(|bridge| ("xenbr0".to_owned(), bridge)).into_iter().collect();
                peer.bridges = there.map(|bridge| ("xenbr0".to_owned(), bridge)).into_iter().collect();
            }))
        };
        let good = Some(bridge(true, 1500));
        let failures = [
            (None, good, "vif3.0 is to be in xenbr0, which is no Linux bridge of this host"),
            (Some(bridge(false, 1500)), good, "xenbr0 is down"),
            (good, None, "the peer has no bridge xenbr0, which vif3.0 needs there"),
            (good, Some(bridge(false, 1500)), "xenbr0 is down at the peer"),
            (good, Some(bridge(true, 1400)), "xenbr0 has an MTU of 1500 here and of 1400 at the peer"),
        ];
        for (here, there, text) in failures {
            assert_eq!(found(here, there), (Verdict::Failure, text.into()));
        }
    }

    #[test]
    fn how_many_cards() {
        assert_eq!(only(about("network", |domain, _, _| domain.nics.clear())).0, Verdict::Ok);
        let cards = |count| about("network", |domain, _, _| domain.nics = vec![domain.nics[0].clone(); count]);
        assert!(cards(16).iter().all(|finding| finding.verdict == Verdict::Ok));
        assert_eq!(cards(17)[0].text, "17 network cards: the limit is 16");
        assert_eq!(cards(17)[0].verdict, Verdict::Failure);
    }

    #[test]
    fn disks() {
        assert_eq!(only(about("disk", |domain, _, _| domain.disks.clear())).0, Verdict::Ok);
        let empty = DiskFacts { vdev: "hdc".into(), path: None, read_write: false };
        assert_eq!(only(about("disk", |domain, _, _| domain.disks = vec![empty])).0, Verdict::Ok);
        let said = only(about("disk", |domain, _, _| domain.disks[0].read_write = true));
        let text = "disk xvda is writable, and no disk server is named that replicates it";
        assert_eq!(said, (Verdict::Failure, text.into()));
        let said = only(about("disk", |_, _, peer| peer.disks.clear()));
        assert_eq!(said, (Verdict::Failure, "disk xvda: the peer has no /images/web".into()));
        let said = only(about("disk", |_, here, _| here.disks.clear()));
        assert_eq!(said, (Verdict::Failure, "disk xvda: /images/web is gone from this host".into()));
        let said = only(about("disk", |_, here, _| *here.disks.entry("xvda".into()).or_default() = 5));
        assert_eq!(said, (Verdict::Failure, "disk xvda: /images/web has 5 bytes here and 1048576 at the peer".into()));
    }

    #[test]
    fn a_disk_has_a_disk_server_on_both_hosts() {
        let found = |here: Option<DiskServerFit>, there: Option<DiskServerFit>, bytes_there: u64| {
            only(about("disk", |domain, host, peer| {
                domain.disks[0].read_write = true;
                (host.disk_server, peer.disk_server) = (here, there);
                peer.disks.insert("xvda".into(), bytes_there);
            }))
        };
        let (fits, not) = (|| Some(DiskServerFit::Fits), |why: &str| Some(DiskServerFit::Not(why.into())));
        assert_eq!(found(fits(), fits(), 1 << 20), (Verdict::Ok, "disk xvda has a disk server on both hosts".into()));
        let shared = || Some(DiskServerFit::Shared);
        let text = "disk xvda is shared by both hosts' disk servers; both hosts need a --fence-command";
        assert_eq!(found(shared(), shared(), 1 << 20), (Verdict::Ok, text.into()));
        let failures = [
            (shared(), fits(), 1 << 20, "disk xvda is shared here, and not at the peer"),
            (fits(), shared(), 1 << 20, "disk xvda is shared at the peer, and not here"),
            (shared(), shared(), 5, "disk xvda has 1048576 bytes here and 5 at the peer"),
            (shared(), None, 1 << 20, "disk xvda: the peer names no disk server"),
            (not("nobody is there"), fits(), 1 << 20, "disk xvda is not replicated: nobody is there"),
            (fits(), None, 1 << 20, "disk xvda: the peer names no disk server"),
            (fits(), not("it is smaller"), 1 << 20, "disk xvda is not replicated at the peer: it is smaller"),
            (fits(), fits(), 5, "disk xvda has 1048576 bytes here and 5 at the peer"),
        ];
        for (here, there, bytes_there, text) in failures {
            assert_eq!(found(here, there, bytes_there), (Verdict::Failure, text.into()));
        }
    }

    #[test]
    fn the_risk_of_a_disk_can_be_taken() {
        let (mut domain, here) = (domain(), host());
        domain.disks[0].read_write = true;
        let question =
            Question { domain: &domain, here: &here, peer: Some(&here), clock: None, mode: None, unsafe_disk: true };
        let findings = judge(&question);
        let disk = findings.iter().find(|finding| finding.about == "disk").expect("it is told of");
        assert_eq!(disk.verdict, Verdict::Warning);
        assert!(findings.iter().all(|finding| finding.verdict != Verdict::Failure), "{findings:#?}");
    }

    #[test]
    fn what_is_not_in_a_checkpoint() {
        let said = only(about("devices", |domain, _, _| domain.other_devices = vec![("pci", 2), ("vtpm", 1)]));
        assert_eq!(said.0, Verdict::Failure);
        assert!(said.1.starts_with("pci (2), vtpm (1) cannot be protected"), "{}", said.1);
        let said = only(about("devices", |domain, _, _| domain.has_other_device_model = true));
        assert_eq!(said.0, Verdict::Failure);
    }
}
