use super::ControlError;
use super::wire::{Answer, Request, Role};
use crate::disk::{
    DiskError, DiskState, DiskStatus, OnDiskEvent, OnVerifyEvent, PrimaryDisks, Replica, SecondaryDisks, Tap,
    Verification,
};
use crate::peer::StateChannel;
use std::time::Instant;

/// The disks that a server has: all of one machine's.
pub enum ServedDisks {
    /// A machine's that serves.
    Primary(Tap),
    /// A machine's that follows. Its guest has them through this tap, which is over the [`Replica`]'s disks: when they have taken over they are
    /// those of a machine that serves, and can be replicated to another host.
    Secondary(Replica, Tap),
}

impl ServedDisks {
    /// Whose they are now.
    pub(super) fn role(&self) -> Role {
        match self {
            ServedDisks::Secondary(replica, _) if !replica.serves() => Role::Secondary,
            _ => Role::Primary,
        }
    }

    pub(super) fn sizes(&self) -> Vec<u64> {
        self.tap().sizes()
    }

    /// Whether both hosts have the same ones.
    pub(super) fn is_shared(&self) -> bool {
        self.tap().is_shared()
    }

    pub(super) fn status(&self) -> DiskStatus {
        match self {
            ServedDisks::Primary(tap) => tap.status(),
            ServedDisks::Secondary(replica, tap) => match tap.status() {
                status if status.state == DiskState::Alone(None) => replica.status(),
                status => status,
            },
        }
    }

    /// Begins to compare them with the other host's.
    ///
    /// # Errors
    /// Whether there is nothing to compare with, and the reason.
    pub(super) fn verify(&self, on_event: OnVerifyEvent) -> Result<Verification, (bool, String)> {
        match self.role() {
            Role::Primary => self.tap().verify(on_event).map_err(|error| (error.is_unprotected(), error.to_string())),
            Role::Secondary => Err((false, "these are a secondary's disks: ask for it where the primary's are".into())),
        }
    }

    /// Whoever drives them as this does it by that connection.
    pub(super) fn attach(
        &mut self,
        driven_as: Role,
        channel: StateChannel,
        on_event: impl FnOnce() -> OnDiskEvent,
    ) -> Result<(), DiskError> {
        match (self, driven_as) {
            (ServedDisks::Primary(tap) | ServedDisks::Secondary(_, tap), Role::Primary) => {
                tap.attach(channel, on_event())
            }
            (ServedDisks::Secondary(replica, _), Role::Secondary) => replica.attach(channel),
            (ServedDisks::Primary(_), Role::Secondary) => Err(DiskError::NotPermitted),
        }
    }

    /// Nobody drives them any more: nothing waits for a word that will not come.
    pub(super) fn let_go(&mut self) {
        if let ServedDisks::Secondary(replica, _) = self {
            replica.detach();
            replica.thaw();
        }
        let (ServedDisks::Primary(tap) | ServedDisks::Secondary(_, tap)) = self;
        tap.detach();
        tap.thaw();
    }

    /// # Errors
    /// When it is none for who drives them as this.
    pub(super) fn carry_out(&mut self, driven_as: Role, request: &Request) -> Result<Answer, ControlError> {
        match *request {
            Request::ExpectRead { disk, offset } => {
                self.tap().expect_read(disk, offset);
                return Ok(Answer::Done);
            }
            Request::WasRead if self.tap().was_read() => return Ok(Answer::Done),
            Request::WasRead => return Ok(Answer::No),
            _ => {}
        }
        match (self, driven_as) {
            (ServedDisks::Primary(tap) | ServedDisks::Secondary(_, tap), Role::Primary) => {
                match *request {
                    Request::Freeze => tap.freeze(),
                    Request::Thaw => tap.thaw(),
                    Request::Barrier(epoch) => tap.barrier(epoch),
                    Request::Committed(epoch) => tap.committed(epoch),
                    Request::Detach => tap.detach(),
                    Request::Alone => tap.alone(),
                    _ => return Err(ControlError::Unexpected("a request to a secondary")),
                }
                Ok(Answer::Done)
            }
            (ServedDisks::Secondary(replica, _), Role::Secondary) => {
                match *request {
                    Request::Freeze => replica.freeze(),
                    Request::Thaw => replica.thaw(),
                    Request::Release => replica.release(),
                    Request::Detach => replica.detach(),
                    Request::Fenced => replica.fenced(),
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
            (ServedDisks::Primary(_), Role::Secondary) => Err(ControlError::Unexpected("a request to a secondary")),
        }
    }

    /// Between the guest and them.
    fn tap(&self) -> &Tap {
        let (ServedDisks::Primary(tap) | ServedDisks::Secondary(_, tap)) = self;
        tap
    }
}

pub(super) fn answer_of(result: Result<(), DiskError>) -> Answer {
    result.map_or_else(Answer::Failed, |()| Answer::Done)
}
