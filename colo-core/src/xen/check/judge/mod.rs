//! What follows from the facts. Pure: each rule is a function of what was found, and has a test.

mod devices;
mod guest;
mod hosts;

use super::{DomainFacts, Finding, HostFacts};
use crate::peer::Mode;
use std::time::Duration;

/// What is to be judged.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The domain.
    pub domain: &'a DomainFacts,
    /// Its host.
    pub here: &'a HostFacts,
    /// The host that it is to be protected towards; none when that does not answer.
    pub peer: Option<&'a HostFacts>,
    /// How far apart the hosts' clocks are, where that is known.
    pub clock: Option<ClockDifference>,
    /// The mode that is wanted; none tells of both.
    pub mode: Option<Mode>,
    /// Whether the risk of a writable disk is taken.
    pub unsafe_disk: bool,
}

/// The wall clocks of two hosts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClockDifference {
    /// How far the peer's is before this host's, in nanoseconds.
    pub ahead_ns: i128,
    /// By how much that may be wrong.
    pub error: Duration,
}

/// All findings, in the order in which an administrator asks. What is about the peer is missing when that did not answer.
///
/// ```no_run
/// use colo_core::xen::check::{Question, Verdict, judge};
///
/// # fn check(question: &Question<'_>) {
/// let findings = judge(question);
/// let is_possible = findings.iter().all(|finding| finding.verdict != Verdict::Failure);
/// # }
/// ```
pub fn judge(question: &Question<'_>) -> Vec<Finding> {
    let mut findings = guest::judge(question);
    findings.extend(devices::network(question));
    findings.extend(devices::disks(question));
    findings.push(devices::others(question.domain));
    if let Some(peer) = question.peer {
        findings.extend(hosts::judge(question, peer));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xen::check::Verdict;
    use crate::xen::check::testing::{domain, host};

    /// A question about which there is nothing to be said, to be changed by `change`, and the findings about one thing.
    pub(super) fn about(
        what: &str,
        change: impl FnOnce(&mut DomainFacts, &mut HostFacts, &mut HostFacts),
    ) -> Vec<Finding> {
        with_mode(what, None, change)
    }

    pub(super) fn with_mode(
        what: &str,
        mode: Option<Mode>,
        change: impl FnOnce(&mut DomainFacts, &mut HostFacts, &mut HostFacts),
    ) -> Vec<Finding> {
        let (mut domain, mut here, mut peer) = (domain(), host(), host());
        change(&mut domain, &mut here, &mut peer);
        let clock = Some(ClockDifference { ahead_ns: 1_000_000, error: Duration::from_millis(2) });
        let question = Question { domain: &domain, here: &here, peer: Some(&peer), clock, mode, unsafe_disk: false };
        judge(&question).into_iter().filter(|finding| finding.about == what).collect()
    }

    /// The verdict and the text of the only finding about something.
    #[track_caller]
    pub(super) fn only(findings: Vec<Finding>) -> (Verdict, String) {
        let [finding] = &findings[..] else { panic!("{findings:#?}") };
        assert_eq!(finding.remedy.is_none(), finding.verdict == Verdict::Ok, "{finding:?}");
        (finding.verdict, finding.text.clone())
    }

    #[test]
    fn nothing_is_in_the_way() {
        let (domain, here, peer) = (domain(), host(), host());
        let question =
            |mode| Question { domain: &domain, here: &here, peer: Some(&peer), clock: None, mode, unsafe_disk: false };
        for mode in [None, Some(Mode::Colo), Some(Mode::Remus)] {
            let findings = judge(&question(mode));
            assert!(findings.iter().all(|finding| finding.verdict == Verdict::Ok), "{findings:#?}");
            assert!(findings.len() > 10);
        }
    }

    #[test]
    fn what_is_here_is_told_without_a_peer() {
        let (mut domain, here) = (domain(), host());
        domain.disks[0].read_write = true;
        let question =
            Question { domain: &domain, here: &here, peer: None, clock: None, mode: None, unsafe_disk: false };
        let findings = judge(&question);
        assert!(findings.iter().any(|finding| finding.verdict == Verdict::Failure), "{findings:#?}");
        assert!(findings.iter().all(|finding| !["cpu", "memory", "clock"].contains(&finding.about)), "{findings:#?}");
    }
}
