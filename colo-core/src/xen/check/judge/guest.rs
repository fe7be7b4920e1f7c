//! The guest: whether it can be protected at all, and in which mode.

use super::Question;
use crate::peer::Mode;
use crate::xen::GuestType;
use crate::xen::check::{DomainFacts, DomainState, Finding, HostFacts, SuspendSupport, colo_way};

/// vCPUs with which COLO has been tried.
const TRIED_VCPUS: u32 = 2;

/// All about the guest.
pub(super) fn judge(question: &Question<'_>) -> Vec<Finding> {
    let Question { domain, here, peer, mode, .. } = *question;
    let mut findings = vec![state(domain)];
    if mode != Some(Mode::Remus) {
        findings.push(colo(domain, mode));
        findings.extend(vcpus(domain));
    }
    if mode != Some(Mode::Colo) {
        findings.push(Finding::ok("remus", "possible: it protects guests of every type"));
    }
    findings.push(suspend(domain));
    findings.push(dirty_pages(domain, here, peer, mode));
    findings
}

fn state(domain: &DomainFacts) -> Finding {
    let about = "domain";
    let DomainFacts { name, domid, guest, online_vcpus, memory_kib, .. } = domain;
    match domain.state {
        DomainState::Running => {
            let kind = guest.guest_type.name().to_uppercase();
            let mib = memory_kib >> 10;
            let vcpus = if *online_vcpus == 1 { "vCPU" } else { "vCPUs" };
            Finding::ok(about, format!("{name} ({domid}) runs: {kind}, {online_vcpus} {vcpus}, {mib} MiB"))
        }
        DomainState::Paused => {
            Finding::failure(about, format!("{name} is paused"), format!("let it run: `xl unpause {name}`"))
        }
        DomainState::Suspended => Finding::failure(
            about,
            format!("{name} is suspended: it is being saved, or nobody has let it go on"),
            format!("wait for the save to end, or let it go on: `colo resume {name}`"),
        ),
        DomainState::Ended(reason) => Finding::failure(
            about,
            format!("{name} has stopped: {reason}"),
            format!("`xl destroy {name}`, and start it anew"),
        ),
        DomainState::Dying => Finding::failure(about, format!("{name} is being destroyed"), "start it anew"),
    }
}

fn colo(domain: &DomainFacts, mode: Option<Mode>) -> Finding {
    match colo_way(domain.guest) {
        Ok(way) => Finding::ok("colo", format!("possible: {}", way.describe())),
        Err(why) => {
            let text = format!("not possible: {why}");
            let remedy =
                "use `--mode remus`, or boot the guest without PV drivers (Linux: `xen_nopv` on its command line)";
            match mode {
                Some(Mode::Colo) => Finding::failure("colo", text, remedy),
                _ => Finding::warning("colo", text, remedy),
            }
        }
    }
}

fn vcpus(domain: &DomainFacts) -> Option<Finding> {
    (domain.online_vcpus > TRIED_VCPUS && colo_way(domain.guest).is_ok()).then(|| {
        let text = format!("{} of them: COLO has not been tried with more than {TRIED_VCPUS}", domain.online_vcpus);
        let remedy =
            format!("try it before you rely on it, or take some away: `xl vcpu-set {} {TRIED_VCPUS}`", domain.name);
        Finding::warning("vcpus", text, remedy)
    })
}

fn suspend(domain: &DomainFacts) -> Finding {
    match domain.suspend {
        SuspendSupport::Announced => Finding::ok("suspend", "the guest says that it can suspend itself"),
        SuspendSupport::NotNeeded => Finding::ok("suspend", "the hypervisor stops the guest, which need not help"),
        SuspendSupport::Unknown => Finding::warning(
            "suspend",
            "the guest has not said that it can suspend itself: whether it does turns out when protection starts",
            format!(
                "wait until it has booted; else try it: `colo save --leave-running {} FILE`, and see that its kernel has Xen's drivers",
                domain.name
            ),
        ),
    }
}

fn dirty_pages(domain: &DomainFacts, here: &HostFacts, peer: Option<&HostFacts>, mode: Option<Mode>) -> Finding {
    let about = "dirty pages";
    if domain.guest.guest_type != GuestType::Pv {
        return Finding::ok(about, "logged by the hypervisor");
    }
    // Of what the secondary's guest writes nobody asks under Remus, where it does not run.
    let there_lacks = mode != Some(Mode::Remus) && peer.is_some_and(|peer| !peer.has_shadow);
    let place = match (!here.has_shadow, there_lacks) {
        (false, false) => return Finding::ok(about, "logged by the hypervisor, which has shadow paging"),
        (true, false) => "this host's hypervisor",
        (false, true) => "the peer's hypervisor",
        (true, true) => "neither hypervisor",
    };
    let has = if here.has_shadow || !there_lacks { "has no" } else { "has" };
    let text = format!(
        "{place} {has} shadow paging, so they are found by comparing: each checkpoint takes a look at all of the guest's {} MiB",
        domain.memory_kib >> 10
    );
    Finding::warning(about, text, "run it as PVH (type = 'pvh'), or take a Xen that is built with CONFIG_SHADOW_PAGING")
}

#[cfg(test)]
mod tests {
    use crate::peer::Mode;
    use crate::xen::check::judge::tests::{about, only, with_mode};
    use crate::xen::check::{DomainState, Guest, SuspendSupport, Verdict};
    use crate::xen::{GuestType, ShutdownReason};

    #[test]
    fn only_a_guest_that_runs() {
        let said = only(about("domain", |domain, _, _| domain.online_vcpus = 2));
        assert_eq!(said, (Verdict::Ok, "web (domain 3) runs: PVH, 2 vCPUs, 128 MiB".into()));
        let states = [
            (DomainState::Paused, "web is paused"),
            (DomainState::Suspended, "web is suspended: it is being saved, or nobody has let it go on"),
            (DomainState::Ended(ShutdownReason::CRASH), "web has stopped: crash"),
            (DomainState::Dying, "web is being destroyed"),
        ];
        for (state, text) in states {
            let said = only(about("domain", |domain, _, _| domain.state = state));
            assert_eq!(said, (Verdict::Failure, text.into()));
        }
    }

    #[test]
    fn which_modes_there_are() {
        let hvm = Guest { guest_type: GuestType::Hvm, has_pv_drivers: true };
        for (mode, verdict) in [(None, Verdict::Warning), (Some(Mode::Colo), Verdict::Failure)] {
            let said = only(with_mode("colo", mode, |domain, _, _| domain.guest = hvm));
            assert_eq!(said.0, verdict);
            assert!(said.1.starts_with("not possible: its PV drivers"), "{}", said.1);
        }
        assert_eq!(with_mode("colo", Some(Mode::Remus), |domain, _, _| domain.guest = hvm), []);
        assert_eq!(with_mode("remus", Some(Mode::Colo), |_, _, _| {}), []);
        for guest_type in [GuestType::Pv, GuestType::Pvh] {
            let guest = Guest { guest_type, has_pv_drivers: true };
            for mode in ["colo", "remus"] {
                assert_eq!(only(about(mode, |domain, _, _| domain.guest = guest)).0, Verdict::Ok);
            }
        }
    }

    #[test]
    fn more_vcpus_than_were_tried() {
        assert_eq!(about("vcpus", |domain, _, _| domain.online_vcpus = 2), []);
        let said = only(about("vcpus", |domain, _, _| domain.online_vcpus = 3));
        assert_eq!(said, (Verdict::Warning, "3 of them: COLO has not been tried with more than 2".into()));
        assert_eq!(with_mode("vcpus", Some(Mode::Remus), |domain, _, _| domain.online_vcpus = 3), []);
    }

    #[test]
    fn a_guest_that_may_be_deaf() {
        for (suspend, verdict) in
            [(SuspendSupport::NotNeeded, Verdict::Ok), (SuspendSupport::Unknown, Verdict::Warning)]
        {
            assert_eq!(only(about("suspend", |domain, _, _| domain.suspend = suspend)).0, verdict);
        }
    }

    #[test]
    fn where_there_is_no_dirty_log() {
        let found = |mode, guest_type, here: bool, there: bool| {
            only(with_mode("dirty pages", mode, |domain, host, peer| {
                domain.guest.guest_type = guest_type;
                (host.has_shadow, peer.has_shadow) = (here, there);
            }))
        };
        assert_eq!(found(None, GuestType::Pvh, false, false).0, Verdict::Ok);
        assert_eq!(found(None, GuestType::Pv, true, true).0, Verdict::Ok);
        let told = |mode, here, there| {
            let (verdict, text) = found(mode, GuestType::Pv, here, there);
            assert_eq!(verdict, Verdict::Warning);
            text.split(", so ").next().unwrap_or_default().to_owned()
        };
        assert_eq!(told(None, false, true), "this host's hypervisor has no shadow paging");
        assert_eq!(told(None, true, false), "the peer's hypervisor has no shadow paging");
        assert_eq!(told(None, false, false), "neither hypervisor has shadow paging");
        assert_eq!(told(Some(Mode::Remus), false, false), "this host's hypervisor has no shadow paging");
        assert_eq!(found(Some(Mode::Remus), GuestType::Pv, true, false).0, Verdict::Ok);
    }
}
