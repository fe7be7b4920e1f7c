//! This host and the other: whether what runs here runs there.

use super::{ClockDifference, Question};
use crate::peer::Mode;
use crate::xen::GuestType;
use crate::xen::check::{ColoWay, Finding, HostFacts, colo_way};
use std::time::Duration;

/// How far apart the hosts' clocks may be: a guest's clock jumps by so much when it moves.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(1);

/// All about the peer.
pub(super) fn judge(question: &Question<'_>, peer: &HostFacts) -> Vec<Finding> {
    let mut findings = vec![xen(question, peer), colo(question.here, peer), memory(question, peer)];
    findings.extend(cache(question, peer));
    findings.push(cpu(question, peer));
    findings.extend(question.clock.map(clock));
    findings.push(name(question, peer));
    findings.extend(number(question, peer));
    let text = "not looked at: without a fence command the peer holds the guest when this host falls silent, until an operator says who serves";
    let reminder = Finding::ok("fencing", text);
    findings.push(Finding {
        remedy: Some("give `--fence-command` to `colo primary` and `colo secondary`".into()),
        ..reminder
    });
    findings
}

fn xen(question: &Question<'_>, peer: &HostFacts) -> Finding {
    let about = "xen";
    let guest_type = question.domain.guest.guest_type;
    let can = if guest_type == GuestType::Pv { peer.has_pv } else { peer.has_hvm };
    if !can {
        let (kind, remedy) = match guest_type {
            GuestType::Pv => ("PV", "take a Xen that is built with CONFIG_PV, or run the guest as PVH"),
            _ => ("PVH or HVM", "switch hardware virtualisation (VT-x, AMD-V) on in its firmware"),
        };
        return Finding::failure(about, format!("the peer's Xen runs no {kind} guests"), remedy);
    }
    let [here, there] = [question.here.xen, peer.xen].map(|(major, minor)| format!("{major}.{minor}"));
    match question.here.xen.cmp(&peer.xen) {
        std::cmp::Ordering::Equal => Finding::ok(about, format!("version {here} on both hosts")),
        std::cmp::Ordering::Less => Finding::warning(
            about,
            format!("version {here} here, {there} at the peer: after a failover there is no way back"),
            format!("update this host to {there} soon"),
        ),
        std::cmp::Ordering::Greater => Finding::failure(
            about,
            format!("version {here} here, {there} at the peer, which does not take the state of a newer one"),
            format!("update the peer to {here} first"),
        ),
    }
}

fn colo(here: &HostFacts, peer: &HostFacts) -> Finding {
    if here.colo == peer.colo {
        return Finding::ok("release", format!("colo {} on both hosts", here.colo));
    }
    let text = format!("colo {} here, {} at the peer", here.colo, peer.colo);
    Finding::warning("release", text, "run the same release on both hosts")
}

/// What libxl reckons that a domain takes, in KiB: its memory, some apart, and for the hypervisor's own tables a MiB for each vCPU and 8
/// KiB for each MiB (`libxl_get_required_shadow_memory`).
fn needed_kib(question: &Question<'_>) -> u64 {
    let memory_kib = question.domain.memory_kib;
    memory_kib + 1024 + 1024 * u64::from(question.domain.online_vcpus) + 8 * (memory_kib >> 10)
}

fn memory(question: &Question<'_>, peer: &HostFacts) -> Finding {
    let needed_kib = needed_kib(question);
    let text = format!("{} takes {}, the peer has {} free", question.domain.name, mib(needed_kib), mib(peer.free_kib));
    if peer.free_kib >= needed_kib {
        return Finding::ok("memory", text);
    }
    let remedy = "there: end another domain, or take memory from dom0: `xl mem-set 0 SIZE`";
    Finding::failure("memory", text, remedy)
}

/// COLO keeps the primary's memory of the last checkpoint beside the secondary's guest, in the memory of dom0's programs.
fn cache(question: &Question<'_>, peer: &HostFacts) -> Option<Finding> {
    let colo_is_possible = colo_way(question.domain.guest).is_ok();
    if question.mode == Some(Mode::Remus) || !colo_is_possible {
        return None;
    }
    let about = "dom0's memory";
    let needed_kib = question.domain.memory_kib;
    let text = format!("COLO takes {} of dom0's there, which has {}", mib(needed_kib), mib(peer.dom0_available_kib));
    if peer.dom0_available_kib >= needed_kib {
        return Some(Finding::ok(about, text));
    }
    let remedy = "give the peer's dom0 more: `xl mem-set 0 SIZE` there (dom0_mem on Xen's command line is the limit), or use `--mode remus`";
    Some(match question.mode {
        Some(Mode::Colo) => Finding::failure(about, text, remedy),
        _ => Finding::warning(about, text, remedy),
    })
}

fn mib(kib: u64) -> String {
    format!("{} MiB", kib.div_ceil(1024))
}

fn cpu(question: &Question<'_>, peer: &HostFacts) -> Finding {
    let about = "cpu";
    let (ours, theirs) = (&question.here.cpu, &peer.cpu);
    if ours.vendor != theirs.vendor {
        let text = format!("{} here, {} at the peer", ours.vendor, theirs.vendor);
        return Finding::failure(about, text, "take a peer whose CPUs are of the same maker");
    }
    // What the guest sees that no CPU has is the hypervisor's own work, which it does there, too.
    let missing = question.domain.features.and(ours.features).without(theirs.features).to_names();
    if !missing.is_empty() {
        let list = missing.join(",");
        let hide: Vec<String> = missing.iter().map(|name| format!("{name}=0")).collect();
        return Finding::failure(
            about,
            format!("the peer's CPU ({}) has no {list}, which the guest has been told of", theirs.name),
            format!("boot the guest anew with cpuid = 'host,{}', or take a peer with such a CPU", hide.join(",")),
        );
    }
    if (ours.family_model, &ours.name) == (theirs.family_model, &theirs.name) {
        return Finding::ok(about, format!("{} on both hosts", ours.name));
    }
    Finding::ok(
        about,
        format!("{} here, {} at the peer, which has all that the guest has been told of", ours.name, theirs.name),
    )
}

fn clock(ClockDifference { ahead_ns, error }: ClockDifference) -> Finding {
    let about = "clock";
    let difference = Duration::from_nanos(u64::try_from(ahead_ns.unsigned_abs()).unwrap_or(u64::MAX));
    let which = if ahead_ns < 0 { "behind" } else { "ahead" };
    let text =
        format!("the peer's is {:.3} s {which}, to within {:.3} s", difference.as_secs_f64(), error.as_secs_f64());
    if difference.saturating_sub(error) <= MAX_CLOCK_DIFFERENCE {
        return Finding::ok(about, text);
    }
    Finding::warning(
        about,
        text,
        "run an NTP client (chronyd, systemd-timesyncd) on both hosts: the guest's clock jumps by as much",
    )
}

fn name(question: &Question<'_>, peer: &HostFacts) -> Finding {
    let about = "name";
    let name = &question.domain.name;
    match (peer.name_taken_by, peer.uuid_taken_by) {
        (None, None) => Finding::ok(about, format!("{name} is free at the peer, and so is its UUID")),
        (Some(taken), Some(same)) if taken == same => Finding::failure(
            about,
            format!("{name} is at the peer already, as {taken}"),
            "if that is left from before, and does not serve: `xl destroy` it there",
        ),
        (Some(taken), _) => Finding::failure(
            about,
            format!("the peer has another domain of that name, {taken}"),
            format!("give it another name there: `xl rename {name} OTHER`"),
        ),
        (None, Some(taken)) => Finding::failure(
            about,
            format!("the peer's {taken} has the same UUID as {name}"),
            "if it is an old copy, and does not serve: `xl destroy` it there; if not, boot one of the two with another `uuid`",
        ),
    }
}

/// The guest's memory names its backends by its number: only where nothing is set up anew does that matter.
fn number(question: &Question<'_>, peer: &HostFacts) -> Option<Finding> {
    let domid = question.domain.domid;
    let matters = question.mode != Some(Mode::Remus) && colo_way(question.domain.guest) == Ok(ColoWay::Transparent);
    (matters && peer.domids.contains(&domid.0)).then(|| {
        let text = format!(
            "{domid} is taken at the peer: the guest gets another number there, which COLO would rather not have"
        );
        Finding::warning(
            "number",
            text,
            "nothing must be done; a domain that is created anew here gets a higher number",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::DomId;
    use crate::xen::check::Verdict;
    use crate::xen::check::judge::tests::{about, only, with_mode};

    #[test]
    fn versions() {
        let found = |here, there| only(about("xen", |_, host, peer| (host.xen, peer.xen) = (here, there)));
        assert_eq!(found((4, 17), (4, 17)), (Verdict::Ok, "version 4.17 on both hosts".into()));
        assert_eq!(found((4, 9), (4, 17)).0, Verdict::Warning);
        assert_eq!(found((4, 17), (4, 9)).0, Verdict::Failure);
        let said = only(about("release", |_, _, peer| peer.colo = "0.2.0".into()));
        assert_eq!(said, (Verdict::Warning, "colo 0.1.0 here, 0.2.0 at the peer".into()));
    }

    #[test]
    fn types_of_guests_that_the_peer_runs() {
        let found = |guest_type, has_pv, has_hvm| {
            only(about("xen", |domain, _, peer| {
                domain.guest.guest_type = guest_type;
                (peer.has_pv, peer.has_hvm) = (has_pv, has_hvm);
            }))
        };
        assert_eq!(found(GuestType::Pv, true, false).0, Verdict::Ok);
        assert_eq!(found(GuestType::Pv, false, true), (Verdict::Failure, "the peer's Xen runs no PV guests".into()));
        for guest_type in [GuestType::Pvh, GuestType::Hvm] {
            assert_eq!(found(guest_type, false, true).0, Verdict::Ok);
            let said = found(guest_type, true, false);
            assert_eq!(said, (Verdict::Failure, "the peer's Xen runs no PVH or HVM guests".into()));
        }
    }

    #[test]
    fn memory_for_the_guest() {
        // 128 MiB, 1 apart, 1 for the vCPU, 1 for tables.
        let found = |free_kib| only(about("memory", |_, _, peer| peer.free_kib = free_kib));
        assert_eq!(found(131 << 10), (Verdict::Ok, "web takes 131 MiB, the peer has 131 MiB free".into()));
        assert_eq!(found((131 << 10) - 1).0, Verdict::Failure);
    }

    #[test]
    fn memory_for_what_colo_keeps() {
        let found = |mode, kib| with_mode("dom0's memory", mode, |_, _, peer| peer.dom0_available_kib = kib);
        assert_eq!(only(found(None, 128 << 10)).0, Verdict::Ok);
        assert_eq!(only(found(None, (128 << 10) - 1)).0, Verdict::Warning);
        assert_eq!(only(found(Some(Mode::Colo), 0)).0, Verdict::Failure);
        assert_eq!(found(Some(Mode::Remus), 0), []);
    }

    #[test]
    fn what_the_guest_knows_of_its_cpu() {
        let features = |words: &str| format!("{words}{}", ":00000000".repeat(6)).parse().unwrap();
        let said = only(about("cpu", |_, _, peer| peer.cpu.vendor = "GenuineIntel".into()));
        assert_eq!(said, (Verdict::Failure, "AuthenticAMD here, GenuineIntel at the peer".into()));
        // The guest has hypervisor (31), which no CPU has, xsave and avx.
        let found = |guest: &str, here: &str, there: &str| {
            only(about("cpu", |domain, host, peer| {
                domain.features = features(guest);
                (host.cpu.features, peer.cpu.features) = (features(here), features(there));
                peer.cpu.name = "another".into();
            }))
        };
        let (verdict, text) = found("00000001:94000000", "00000001:14000000", "00000001:04000000");
        assert_eq!(verdict, Verdict::Failure);
        assert_eq!(text, "the peer's CPU (another) has no avx, which the guest has been told of");
        // What this host has and the guest does not know of may be missing.
        assert_eq!(found("00000001:84000000", "00000001:14000000", "00000001:04000000").0, Verdict::Ok);
    }

    #[test]
    fn clocks() {
        let found = |ahead_ms: i128, error_ms| {
            let difference = ClockDifference { ahead_ns: ahead_ms * 1_000_000, error: Duration::from_millis(error_ms) };
            let finding = clock(difference);
            (finding.verdict, finding.text)
        };
        assert_eq!(found(-12, 3), (Verdict::Ok, "the peer's is 0.012 s behind, to within 0.003 s".into()));
        assert_eq!(found(1000, 0).0, Verdict::Ok);
        assert_eq!(found(1100, 200).0, Verdict::Ok);
        assert_eq!(found(1300, 200), (Verdict::Warning, "the peer's is 1.300 s ahead, to within 0.200 s".into()));
        assert_eq!(found(-1300, 200).0, Verdict::Warning);
        assert_eq!(found(i64::MAX.into(), 0).0, Verdict::Warning);
    }

    #[test]
    fn names_and_numbers() {
        let found = |name: Option<u32>, uuid: Option<u32>| {
            only(about("name", |_, _, peer| {
                (peer.name_taken_by, peer.uuid_taken_by) = (name.map(DomId), uuid.map(DomId));
            }))
        };
        assert_eq!(found(None, None).0, Verdict::Ok);
        assert_eq!(found(Some(5), Some(5)), (Verdict::Failure, "web is at the peer already, as domain 5".into()));
        let said = found(Some(5), None);
        assert_eq!(said, (Verdict::Failure, "the peer has another domain of that name, domain 5".into()));
        let said = found(None, Some(5));
        assert_eq!(said, (Verdict::Failure, "the peer's domain 5 has the same UUID as web".into()));

        assert_eq!(about("number", |_, _, _| {}), []);
        let taken = |mode| with_mode("number", mode, |_, _, peer| peer.domids.push(3));
        assert_eq!(only(taken(None)).0, Verdict::Warning);
        assert_eq!(taken(Some(Mode::Remus)), []);
    }

    #[test]
    fn fencing_is_not_forgotten() {
        let findings = about("fencing", |_, _, _| {});
        assert!(matches!(&findings[..], [Finding { verdict: Verdict::Ok, remedy: Some(_), .. }]), "{findings:?}");
    }
}
