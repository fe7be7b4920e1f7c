//! Who serves when something breaks.
//!
//! * [`Detector`]: is the other side still there?
//! * [`primary_verdict`], [`secondary_verdict`]: what a side does when it loses the other. Pure functions: the whole policy is
//!   here, and small enough to be read.
//! * [`Fence`]: making sure that the other side does not serve, before this side does.
//!
//! A connection that the other host's system has closed proves that the process there is gone. Silence proves nothing: the link may be
//! cut, and both sides believe that the other is dead. So a secondary without a fence holds its machine, and leaves it to its operator.
//!
//! ```
//! use colo_core::failover::{Loss, OnSilence, SecondaryVerdict, secondary_verdict};
//! use colo_core::ids::Epoch;
//!
//! assert_eq!(secondary_verdict(&Loss::Closed, Epoch(7), OnSilence::Hold), SecondaryVerdict::TakeOver);
//! assert!(matches!(secondary_verdict(&Loss::Silent, Epoch(7), OnSilence::Hold), SecondaryVerdict::Hold(_)));
//! assert!(matches!(secondary_verdict(&Loss::Closed, Epoch::NONE, OnSilence::Hold), SecondaryVerdict::End(_)));
//! ```

mod detector;
mod fence;

pub use detector::Detector;
pub use fence::{CommandFence, Fence, FenceError};

use crate::ids::Epoch;
use crate::peer::GoodbyeReason;
use std::fmt;

/// How the other side was lost.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Loss {
    /// The other host's system ended the connection: the process is gone, and said no word why.
    Closed,
    /// The same, to a side that [stood still](Detector::may_be_given_up) itself: the process there may be gone, or have given up this one,
    /// which did not hear it say so.
    Unclear,
    /// Nothing was heard for too long, or nothing can be: it may live.
    Silent,
    /// It said something that it must not, or failed to do in time what it must.
    Broken(String),
    /// It said goodbye.
    Goodbye(GoodbyeReason),
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Loss::Closed => f.write_str("the connection broke"),
            Loss::Unclear => f.write_str("the connection broke while this side stood still"),
            Loss::Silent => f.write_str("no heartbeat"),
            Loss::Broken(what) => write!(f, "the peer misbehaves: {what}"),
            Loss::Goodbye(GoodbyeReason::Stopped) => f.write_str("the peer ended protection"),
            Loss::Goodbye(GoodbyeReason::Promoted) => f.write_str("the secondary has taken over"),
            Loss::Goodbye(GoodbyeReason::GuestEnded) => f.write_str("the guest has ended"),
            Loss::Goodbye(GoodbyeReason::Failed(what)) => write!(f, "the peer failed: {what}"),
        }
    }
}

/// What a primary does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PrimaryVerdict {
    /// The other side serves: destroy the guest, whatever it was doing.
    StandDown,
    /// Serve on without protection. If the other side might live, fence it first.
    GoUnprotected {
        /// Whether the other side might live and take over.
        fence: bool,
    },
}

/// What a primary does when it has lost its secondary.
pub fn primary_verdict(loss: &Loss) -> PrimaryVerdict {
    match loss {
        Loss::Goodbye(GoodbyeReason::Promoted) => PrimaryVerdict::StandDown,
        // It said itself that it ends, so it will not take over.
        Loss::Goodbye(_) => PrimaryVerdict::GoUnprotected { fence: false },
        Loss::Closed | Loss::Unclear | Loss::Silent | Loss::Broken(_) => PrimaryVerdict::GoUnprotected { fence: true },
    }
}

/// What a secondary goes by when its primary is silent.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum OnSilence {
    /// A fence makes sure that the primary is dead.
    Fence,
    /// Nothing does, and the operator has accepted that both may serve if only the link is cut.
    TakeOver,
    /// Nothing does: the operator is to say so.
    #[default]
    Hold,
    /// Nothing does, and it must be dead as a whole: even of one whose process is gone the operator is to say so.
    HoldAlways,
}

/// What a secondary does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SecondaryVerdict {
    /// Fence the other side, if there is a fence, then serve.
    TakeOver,
    /// Keep the guest, suspended, for this reason, until somebody says who serves.
    Hold(String),
    /// Destroy the guest, for this reason; the other side serves, or nobody can.
    End(String),
}

/// What a secondary does when it has lost its primary. `epoch` is what it could take over from: [`Epoch::NONE`] before the first
/// checkpoint, and in a rehearsal.
pub fn secondary_verdict(loss: &Loss, epoch: Epoch, on_silence: OnSilence) -> SecondaryVerdict {
    match loss {
        Loss::Goodbye(_) => SecondaryVerdict::End(loss.to_string()),
        // The primary is there and serves; it is this side that cannot follow.
        Loss::Broken(_) => SecondaryVerdict::End(loss.to_string()),
        Loss::Closed | Loss::Unclear | Loss::Silent if epoch == Epoch::NONE => SecondaryVerdict::End(format!(
            "{loss} before the machine was protected: there is nothing to go on from yet"
        )),
        Loss::Unclear | Loss::Silent if on_silence == OnSilence::Hold => {
            SecondaryVerdict::Hold(format!("{loss}, and nothing makes sure that the primary is dead"))
        }
        Loss::Closed | Loss::Unclear | Loss::Silent if on_silence == OnSilence::HoldAlways => {
            SecondaryVerdict::Hold(format!(
                "{loss}, and nothing makes sure that the primary's host does not write to the disks, which are shared"
            ))
        }
        Loss::Closed | Loss::Unclear | Loss::Silent => SecondaryVerdict::TakeOver,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [OnSilence; 4] = [OnSilence::Fence, OnSilence::TakeOver, OnSilence::Hold, OnSilence::HoldAlways];

    #[test]
    fn a_goodbye_never_makes_a_second_server() {
        let reasons = [
            GoodbyeReason::Stopped,
            GoodbyeReason::Promoted,
            GoodbyeReason::GuestEnded,
            GoodbyeReason::Failed("x".into()),
        ];
        for reason in reasons {
            let loss = Loss::Goodbye(reason);
            for on_silence in ALL {
                assert!(matches!(secondary_verdict(&loss, Epoch(3), on_silence), SecondaryVerdict::End(_)), "{loss}");
            }
        }
        assert_eq!(primary_verdict(&Loss::Goodbye(GoodbyeReason::Promoted)), PrimaryVerdict::StandDown);
    }

    #[test]
    fn a_side_that_does_not_know_fences() {
        for loss in [Loss::Closed, Loss::Unclear, Loss::Silent, Loss::Broken("x".into())] {
            assert_eq!(primary_verdict(&loss), PrimaryVerdict::GoUnprotected { fence: true }, "{loss}");
        }
    }

    #[test]
    fn without_a_checkpoint_nothing_is_taken_over() {
        for (loss, on_silence) in
            [Loss::Closed, Loss::Unclear, Loss::Silent].into_iter().flat_map(|loss| ALL.map(|on| (loss.clone(), on)))
        {
            assert!(matches!(secondary_verdict(&loss, Epoch::NONE, on_silence), SecondaryVerdict::End(_)));
            assert!(!matches!(secondary_verdict(&loss, Epoch(1), on_silence), SecondaryVerdict::End(_)));
        }
    }

    #[test]
    fn silence_alone_is_no_proof_of_death() {
        for on_silence in ALL {
            let holds = |loss| matches!(secondary_verdict(&loss, Epoch(1), on_silence), SecondaryVerdict::Hold(_));
            for loss in [Loss::Silent, Loss::Unclear] {
                assert_eq!(holds(loss), matches!(on_silence, OnSilence::Hold | OnSilence::HoldAlways));
            }
            // One that is gone may have left writes on their way to a disk that is shared.
            assert_eq!(holds(Loss::Closed), on_silence == OnSilence::HoldAlways);
        }
    }
}
