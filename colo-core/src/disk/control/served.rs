use super::ControlError;
use super::wire::{Answer, Request, Role};
use crate::disk::{
    DiskError, DiskStatus, OnDiskEvent, OnVerifyEvent, PrimaryDisks, Replica, SecondaryDisks, Tap, Verification,
};
use crate::peer::StateChannel;
use std::time::Instant;

/// The disks that a server has: all of one machine's.
pub enum ServedDisks {
    /// A machine's that serves.
    Primary(Tap),
    /// A machine's that follows, or that has taken over.
    Secondary(Replica),
}

impl ServedDisks {
    pub(super) fn role(&self) -> Role {
        match self {
            ServedDisks::Primary(_) => Role::Primary,
            ServedDisks::Secondary(_) => Role::Secondary,
        }
    }

    pub(super) fn sizes(&self) -> Vec<u64> {
        match self {
            ServedDisks::Primary(tap) => tap.sizes(),
            ServedDisks::Secondary(replica) => replica.sizes().to_vec(),
        }
    }

    pub(super) fn status(&self) -> DiskStatus {
        match self {
            ServedDisks::Primary(tap) => tap.status(),
            ServedDisks::Secondary(replica) => replica.status(),
        }
    }

    /// Begins to compare them with the other host's.
    ///
    /// # Errors
    /// Whether there is nothing to compare with, and the reason.
    pub(super) fn verify(&self, on_event: OnVerifyEvent) -> Result<Verification, (bool, String)> {
        match self {
            ServedDisks::Primary(tap) => {
                tap.verify(on_event).map_err(|error| (error.is_unprotected(), error.to_string()))
            }
            ServedDisks::Secondary(_) => {
                Err((false, "these are a secondary's disks: ask for it where the primary's are".into()))
            }
        }
    }

    pub(super) fn attach(
        &mut self,
        channel: StateChannel,
        on_event: impl FnOnce() -> OnDiskEvent,
    ) -> Result<(), DiskError> {
        match self {
            ServedDisks::Primary(tap) => tap.attach(channel, on_event()),
            ServedDisks::Secondary(replica) => replica.attach(channel),
        }
    }

    /// Nobody drives them any more: nothing waits for a word that will not come.
    pub(super) fn let_go(&mut self) {
        match self {
            ServedDisks::Primary(tap) => {
                tap.detach();
                tap.thaw();
            }
            ServedDisks::Secondary(replica) => {
                replica.detach();
                replica.thaw();
            }
        }
    }

    /// # Errors
    /// When it is none of theirs.
    pub(super) fn carry_out(&mut self, request: &Request) -> Result<Answer, ControlError> {
        match self {
            ServedDisks::Primary(tap) => {
                match *request {
                    Request::Freeze => tap.freeze(),
                    Request::Thaw => tap.thaw(),
                    Request::Barrier(epoch) => tap.barrier(epoch),
                    Request::Committed(epoch) => tap.committed(epoch),
                    Request::Detach => tap.detach(),
                    _ => return Err(ControlError::Unexpected("a request to a secondary")),
                }
                Ok(Answer::Done)
            }
            ServedDisks::Secondary(replica) => {
                match *request {
                    Request::Freeze => replica.freeze(),
                    Request::Thaw => replica.thaw(),
                    Request::Release => replica.release(),
                    Request::Detach => replica.detach(),
                    Request::Commit(epoch) => return Ok(answer_of(replica.commit(epoch))),
                    Request::FailOver => return Ok(answer_of(replica.fail_over())),
                    Request::WantsCheckpoint if replica.wants_checkpoint() => {}
                    Request::WantsCheckpoint => return Ok(Answer::No),
                    Request::WaitBarrier(epoch, wait) => {
                        let deadline = Instant::now() + wait;
                        return Ok(match replica.wait_barrier(epoch, deadline) {
                            true => Answer::Done,
                            // It gives up early only when nobody sends any more.
                            false if Instant::now() < deadline => Answer::Never,
                            false => Answer::No,
                        });
                    }
                    _ => return Err(ControlError::Unexpected("a request to a primary")),
                }
                Ok(Answer::Done)
            }
        }
    }
}

pub(super) fn answer_of(result: Result<(), DiskError>) -> Answer {
    result.map_or_else(Answer::Failed, |()| Answer::Done)
}
