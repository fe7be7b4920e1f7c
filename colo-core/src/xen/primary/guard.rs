use crate::domain::DomainError;
use crate::guard::Guard;
use crate::ids::DomId;
use crate::net::takeover::Orphan;
use crate::xen::domain::XenDomain;
use crate::xen::save_lock::SaveLock;
use crate::xen::toolstack::Xl;
use crate::xen::{Control, Xen};
use std::error::Error;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// What is to become of the guest if this process dies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// It runs on.
    Begun = 1,
    /// It stands still until an operator has looked.
    Unsure = 2,
    /// It is destroyed: the other host serves it.
    Protected = 3,
}

impl Stage {
    /// What is to become of its cards.
    pub(super) fn orphan(self) -> Orphan {
        if self == Stage::Begun { Orphan::PutBack } else { Orphan::StayOut }
    }

    /// Whether it is still true after `before`. That the guest is protected is told by whoever reads the session's events, and that may be
    /// late: by then the guest here can be the only one again.
    pub(super) fn holds_after(self, before: Stage) -> bool {
        self != Stage::Protected || before != Stage::Begun
    }
}

/// Sees to it when this process dies.
pub struct PrimaryGuard {
    guard: Guard,
    domid: Option<DomId>,
}

impl PrimaryGuard {
    /// Starts it; see [`Guard::start`]. `suspend_limit` is how long the guest may take to finish a suspension that was under way.
    ///
    /// # Errors
    /// When there can be no more processes.
    pub fn start(suspend_limit: Duration) -> std::io::Result<PrimaryGuard> {
        let guard = Guard::start(|watched, kept| settle(watched, kept, suspend_limit))?;
        Ok(PrimaryGuard { guard, domid: None })
    }

    /// From here on the guest must not be left as it is. Nobody else may save it as long as the guard lives.
    pub(super) fn begin(&mut self, domid: DomId, lock: &SaveLock) -> Result<(), DomainError> {
        self.domid = Some(domid);
        self.guard.keep(lock).map_err(DomainError::sys("telling the process that watches over this one"))?;
        self.tell(Stage::Begun)
    }

    /// On return it is sure.
    pub(super) fn tell(&mut self, stage: Stage) -> Result<(), DomainError> {
        let Some(DomId(domid)) = self.domid else { return Ok(()) };
        let [a, b, c, d] = domid.to_le_bytes();
        self.guard
            .watch(&[a, b, c, d, stage as u8])
            .map_err(DomainError::sys("telling the process that watches over this one"))
    }

    /// All is well.
    pub(super) fn dismiss(self) {
        self.guard.dismiss();
    }
}

/// The process has died.
fn settle(watched: &[u8], mut kept: Vec<OwnedFd>, suspend_limit: Duration) {
    let Ok([a, b, c, d, stage]) = <[u8; 5]>::try_from(watched) else { return };
    let domid = DomId(u32::from_le_bytes([a, b, c, d]));
    let _lock = kept.pop().map(|file| SaveLock::taken_over(domid, file));
    let settled = match stage {
        stage if stage == Stage::Begun as u8 => run_on(domid, suspend_limit),
        stage if stage == Stage::Unsure as u8 => stand_still(domid),
        _ => destroy(domid),
    };
    if let Err(error) = settled {
        // Not by a log, whose lock may have been another thread's when this process was made.
        let _ = writeln!(std::io::stderr(), "colo: {domid}, whose protection ended with a dead process: {error}");
    }
}

type Settled = Result<(), Box<dyn Error>>;

fn run_on(domid: DomId, suspend_limit: Duration) -> Settled {
    Ok(XenDomain::open(Xen::open()?, domid, suspend_limit)?.rescue(true)?)
}

fn stand_still(domid: DomId) -> Settled {
    Ok(Control::open(Xen::open()?)?.pause(domid)?)
}

fn destroy(domid: DomId) -> Settled {
    let control = Control::open(Xen::open()?)?;
    // At once; what is around it goes by the toolstack's own way.
    let paused = control.pause(domid);
    Xl::find()?.destroy(domid)?;
    Ok(paused?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What holds when these were told, one after the other.
    fn last_of(told: &[Stage]) -> Stage {
        told.iter().fold(Stage::Begun, |before, next| if next.holds_after(before) { *next } else { before })
    }

    #[test]
    fn what_is_told_late_does_not_hold() {
        use Stage::{Begun, Protected, Unsure};
        assert_eq!(last_of(&[Unsure]), Unsure);
        assert_eq!(last_of(&[Unsure, Protected]), Protected);
        assert_eq!(last_of(&[Unsure, Protected, Begun]), Begun);
        assert_eq!(last_of(&[Unsure, Begun, Protected]), Begun, "its reader was held up");
    }

    #[test]
    fn a_guest_that_may_be_served_elsewhere_is_not_seen_here() {
        assert_eq!(Stage::Begun.orphan(), Orphan::PutBack);
        assert_eq!([Stage::Unsure, Stage::Protected].map(Stage::orphan), [Orphan::StayOut; 2]);
    }
}
