use super::EngineError;
use crate::domain::{Domain, StateRecord};
use crate::ids::Epoch;
use crate::peer::{Message, Mode};
use crate::save::{CallbackError, Ready, SaveCallbacks, Trigger};
use bytes::Bytes;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// When checkpoints are taken.
#[derive(Clone, Debug)]
pub struct PrimaryConfig {
    /// How the machine is protected.
    pub mode: Mode,
    /// From the beginning of one checkpoint to that of the next, at the latest.
    pub interval: Duration,
    /// How long the secondary may take to acknowledge a checkpoint that was sent to it, and to apply it.
    pub ack_timeout: Duration,
    /// Whether the first two epochs are a rehearsal: the secondary's machine gets to run, for as long as that takes, and is loaded once while
    /// it runs; the primary's output leaves at once meanwhile, and nothing is protected. Protection begins with the third checkpoint; each
    /// follows the one before at once.
    pub rehearse: bool,
    /// What takes the place of `ack_timeout` for the first epoch of a rehearsal.
    pub rehearsal_timeout: Duration,
}

impl PrimaryConfig {
    /// The interval of lock-step unless told otherwise, that of the 2013 series: nothing depends on it but how far the machines' memories
    /// come apart, and answers wait while a checkpoint is loaded.
    pub const COLO_INTERVAL: Duration = Duration::from_secs(10);
    /// The interval of Remus unless told otherwise: it is what every answer waits for.
    pub const REMUS_INTERVAL: Duration = Duration::from_millis(20);
    /// Generous: a peer that hangs is found by its heartbeat, and one that is busy flushing gigabytes is not dead.
    pub const ACK_TIMEOUT: Duration = Duration::from_secs(20);

    /// For the machine that a toolstack builds, connects and lets go through its resume path meanwhile, on a busy host. Nobody waits
    /// for it but the one who wants protection.
    pub const REHEARSAL_TIMEOUT: Duration = Duration::from_secs(10 * 60);

    /// The usual times for that mode, without a rehearsal.
    pub fn new(mode: Mode) -> Self {
        let interval = match mode {
            Mode::Colo => Self::COLO_INTERVAL,
            Mode::Remus => Self::REMUS_INTERVAL,
        };
        PrimaryConfig {
            mode,
            interval,
            ack_timeout: Self::ACK_TIMEOUT,
            rehearse: false,
            rehearsal_timeout: Self::REHEARSAL_TIMEOUT,
        }
    }
}

/// What the primary's engine needs of the packets' side: the gate, and the ports around it.
pub trait PrimaryNet {
    /// Stops giving input to the guest and taking its output: on return nothing of it touches guest memory.
    ///
    /// # Errors
    /// When the packets' side is gone.
    fn freeze(&mut self) -> Result<(), CallbackError>;

    /// The guest was captured: its output so far belongs to the ended epoch. Returns what must travel with the checkpoint.
    ///
    /// # Errors
    /// When the packets' side is gone.
    fn begin_epoch(&mut self, epoch: Epoch) -> Result<Vec<StateRecord>, CallbackError>;

    /// Goes on, in the new epoch.
    ///
    /// # Errors
    /// When the packets' side is gone.
    fn thaw(&mut self) -> Result<(), CallbackError>;

    /// The secondary has this epoch, staged and verified: output of the epoch before may leave.
    ///
    /// # Errors
    /// When the packets' side is gone.
    fn commit(&mut self, epoch: Epoch) -> Result<(), CallbackError>;

    /// The secondary runs in this epoch.
    ///
    /// # Errors
    /// When the packets' side is gone.
    fn applied(&mut self, epoch: Epoch) -> Result<(), CallbackError>;
}

/// The primary's engine: the callbacks of a save that goes on for as long as the machine is protected.
///
/// Requests for a checkpoint while one is running are merged into none: the one that runs ends the epoch that they are about,
/// if they came before its capture; one that comes after is about the new epoch, and waits.
///
/// ```
/// use colo_core::checkpoint::{Primary, PrimaryConfig};
/// use colo_core::peer::Mode;
/// use colo_core::save::{Ready, SaveCallbacks, Trigger};
/// # use colo_core::checkpoint::PrimaryNet;
/// # use colo_core::{domain::StateRecord, ids::Epoch, save::CallbackError};
/// # struct NoNet;
/// # impl PrimaryNet for NoNet {
/// #     fn freeze(&mut self) -> Result<(), CallbackError> { Ok(()) }
/// #     fn begin_epoch(&mut self, _: Epoch) -> Result<Vec<StateRecord>, CallbackError> { Ok(Vec::new()) }
/// #     fn thaw(&mut self) -> Result<(), CallbackError> { Ok(()) }
/// #     fn commit(&mut self, _: Epoch) -> Result<(), CallbackError> { Ok(()) }
/// #     fn applied(&mut self, _: Epoch) -> Result<(), CallbackError> { Ok(()) }
/// # }
/// use std::time::Instant;
///
/// let mut primary = Primary::new(PrimaryConfig::new(Mode::Colo), NoNet);
/// // The first checkpoint is due as soon as the first copy is done.
/// assert_eq!(primary.wait_checkpoint(Instant::now())?, Ready::Now(Trigger::First));
/// # Ok::<(), CallbackError>(())
/// ```
pub struct Primary<N> {
    config: PrimaryConfig,
    net: N,
    /// The last checkpoint captured, acknowledged, applied.
    begun: Epoch,
    staged: Epoch,
    applied: Epoch,
    trigger: Option<Trigger>,
    begun_at: Option<Instant>,
    /// When the checkpoint that was written must have been acknowledged.
    deadline: Option<Instant>,
    /// What the secondary's machine is like.
    likeness: Option<Bytes>,
}

impl<N: PrimaryNet> Primary<N> {
    /// Before the first copy.
    pub fn new(config: PrimaryConfig, net: N) -> Self {
        Primary {
            config,
            net,
            begun: Epoch::NONE,
            staged: Epoch::NONE,
            applied: Epoch::NONE,
            trigger: None,
            begun_at: None,
            deadline: None,
            likeness: None,
        }
    }

    /// The last epoch that the secondary has acknowledged.
    pub fn staged(&self) -> Epoch {
        self.staged
    }

    /// Whether the secondary has a checkpoint that it can take over from.
    pub fn is_protected(&self) -> bool {
        self.staged >= Epoch::first_protected(self.config.rehearse)
    }

    /// Whether a checkpoint was captured that the secondary can take over from, once it has it; whether it has is not always known here.
    pub fn may_be_taken_over(&self) -> bool {
        self.begun >= Epoch::first_protected(self.config.rehearse)
    }

    /// Whether there was a rehearsal, and it is over.
    pub fn is_rehearsed(&self) -> bool {
        self.config.rehearse && self.applied.next() >= Epoch::first_protected(true)
    }

    /// What the domain must [become like](crate::domain::State::become_like), before the next checkpoint; told once, when the secondary's
    /// machine runs.
    pub fn take_likeness(&mut self) -> Option<Bytes> {
        if self.applied == Epoch::NONE { None } else { self.likeness.take() }
    }

    /// The packets' side.
    pub fn net(&mut self) -> &mut N {
        &mut self.net
    }

    /// Somebody needs a checkpoint.
    pub fn handle_trigger(&mut self, trigger: Trigger) {
        self.trigger.get_or_insert(trigger);
    }

    /// A message of the secondary, from the state channel.
    ///
    /// # Errors
    /// [`EngineError::Unexpected`]: the peer cannot be trusted any more. [`EngineError::Net`].
    pub fn handle_message(&mut self, message: &Message) -> Result<(), EngineError> {
        match message {
            Message::EpochStaged(epoch) => {
                if *epoch != self.begun || self.staged == *epoch {
                    return Err(self.unexpected("EpochStaged", *epoch));
                }
                self.staged = *epoch;
                // At once, not when the loop next asks: clients are waiting for what this releases.
                self.net.commit(*epoch).map_err(EngineError::Net)
            }
            Message::EpochApplied(epoch) => {
                if *epoch != self.staged || self.applied == *epoch {
                    return Err(self.unexpected("EpochApplied", *epoch));
                }
                self.applied = *epoch;
                self.net.applied(*epoch).map_err(EngineError::Net)
            }
            Message::Likeness(likeness) => {
                let is_awaited = self.config.rehearse && self.staged == Epoch::FIRST && self.applied == Epoch::NONE;
                if !is_awaited || self.likeness.is_some() {
                    return Err(self.unexpected("Likeness", self.begun));
                }
                self.likeness = Some(likeness.clone());
                Ok(())
            }
            Message::CheckpointWanted => {
                self.handle_trigger(Trigger::QueueFull);
                Ok(())
            }
            _ => Err(EngineError::Unexpected {
                message: "a message of another channel",
                when: "on the state channel".into(),
            }),
        }
    }

    fn is_rehearsal(&self, epoch: Epoch) -> bool {
        epoch >= Epoch::FIRST && epoch < Epoch::first_protected(self.config.rehearse)
    }

    fn unexpected(&self, message: &'static str, epoch: Epoch) -> EngineError {
        let when = format!("for {epoch}, with {} sent, {} staged, {} applied", self.begun, self.staged, self.applied);
        EngineError::Unexpected { message, when }
    }
}

impl<N: PrimaryNet> SaveCallbacks for Primary<N> {
    fn wait_checkpoint(&mut self, now: Instant) -> Result<Ready<Trigger>, CallbackError> {
        let Some(begun_at) = self.begun_at else {
            self.begun_at = Some(now);
            return Ok(Ready::Now(Trigger::First));
        };
        if self.is_rehearsal(self.begun) && self.applied == self.begun {
            self.begun_at = Some(now);
            return Ok(Ready::Now(Trigger::First));
        }
        let due = begun_at + self.config.interval;
        let trigger = match self.trigger.take() {
            Some(trigger) => trigger,
            None if now >= due => Trigger::Interval,
            None => return Ok(Ready::NotBefore(due)),
        };
        self.begun_at = Some(now);
        Ok(Ready::Now(trigger))
    }

    fn suspend(&mut self, domain: &mut dyn Domain) -> Result<(), CallbackError> {
        self.net.freeze()?;
        Ok(domain.suspend()?)
    }

    fn capture(&mut self, _domain: &mut dyn Domain, epoch: Epoch) -> Result<Vec<StateRecord>, CallbackError> {
        self.begun = epoch;
        self.deadline = None;
        // Whatever was asked for until now is about the epoch that ends here.
        self.trigger = None;
        self.net.begin_epoch(epoch)
    }

    fn postcopy(&mut self, domain: &mut dyn Domain, _epoch: Epoch) -> Result<(), CallbackError> {
        domain.resume()?;
        self.net.thaw()
    }

    fn checkpoint(&mut self, epoch: Epoch, now: Instant) -> Result<Ready<bool>, CallbackError> {
        let is_made_to_run = self.config.rehearse && epoch == Epoch::FIRST;
        let timeout = if is_made_to_run { self.config.rehearsal_timeout } else { self.config.ack_timeout };
        let deadline = *self.deadline.get_or_insert(now + timeout);
        if self.applied == epoch {
            return Ok(Ready::Now(true));
        }
        if now >= deadline {
            return Err(Box::new(EngineError::AckTimeout { epoch: epoch.0, seconds: timeout.as_secs() }));
        }
        Ok(Ready::NotBefore(deadline))
    }
}

/// So that the session can keep a handle on the engine while layers around it drive it.
impl<N: PrimaryNet> SaveCallbacks for Rc<RefCell<Primary<N>>> {
    fn wait_checkpoint(&mut self, now: Instant) -> Result<Ready<Trigger>, CallbackError> {
        self.borrow_mut().wait_checkpoint(now)
    }

    fn suspend(&mut self, domain: &mut dyn Domain) -> Result<(), CallbackError> {
        self.borrow_mut().suspend(domain)
    }

    fn capture(&mut self, domain: &mut dyn Domain, epoch: Epoch) -> Result<Vec<StateRecord>, CallbackError> {
        self.borrow_mut().capture(domain, epoch)
    }

    fn postcopy(&mut self, domain: &mut dyn Domain, epoch: Epoch) -> Result<(), CallbackError> {
        self.borrow_mut().postcopy(domain, epoch)
    }

    fn checkpoint(&mut self, epoch: Epoch, now: Instant) -> Result<Ready<bool>, CallbackError> {
        self.borrow_mut().checkpoint(epoch, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct NoNet;

    impl PrimaryNet for NoNet {
        fn freeze(&mut self) -> Result<(), CallbackError> {
            Ok(())
        }

        fn begin_epoch(&mut self, _: Epoch) -> Result<Vec<StateRecord>, CallbackError> {
            Ok(Vec::new())
        }

        fn thaw(&mut self) -> Result<(), CallbackError> {
            Ok(())
        }

        fn commit(&mut self, _: Epoch) -> Result<(), CallbackError> {
            Ok(())
        }

        fn applied(&mut self, _: Epoch) -> Result<(), CallbackError> {
            Ok(())
        }
    }

    #[test]
    fn a_rehearsal_has_its_own_patience_and_the_next_checkpoint_does_not_wait() {
        let mut domain = crate::domain::model::ModelDomain::new("demo", 16);
        let config = PrimaryConfig { rehearse: true, ..PrimaryConfig::new(Mode::Colo) };
        let (ack, rehearsal) = (config.ack_timeout, config.rehearsal_timeout);
        assert!(rehearsal > ack);
        let (mut primary, start) = (Primary::new(config, NoNet), Instant::now());
        assert_eq!(primary.wait_checkpoint(start).unwrap(), Ready::Now(Trigger::First));
        primary.capture(&mut domain, Epoch(1)).unwrap();
        assert_eq!(primary.checkpoint(Epoch(1), start).unwrap(), Ready::NotBefore(start + rehearsal));
        let likeness = Message::Likeness(Bytes::from_static(b"ports"));
        assert!(primary.handle_message(&likeness).is_err(), "it does not run yet");
        primary.handle_message(&Message::EpochStaged(Epoch(1))).unwrap();
        primary.handle_message(&likeness).unwrap();
        assert!(primary.handle_message(&likeness).is_err(), "once");
        assert_eq!(primary.take_likeness(), None, "the guest is about to go on");

        // Long after any other checkpoint would have been given up.
        let applied = start + rehearsal - Duration::from_secs(1);
        primary.handle_message(&Message::EpochApplied(Epoch(1))).unwrap();
        assert!(!primary.is_protected() && !primary.is_rehearsed());
        assert_eq!(primary.take_likeness().as_deref(), Some(&b"ports"[..]));
        assert_eq!(primary.checkpoint(Epoch(1), applied).unwrap(), Ready::Now(true));
        assert_eq!(primary.wait_checkpoint(applied).unwrap(), Ready::Now(Trigger::First));
        primary.capture(&mut domain, Epoch(2)).unwrap();
        assert_eq!(primary.checkpoint(Epoch(2), applied).unwrap(), Ready::NotBefore(applied + ack));
        primary.handle_message(&Message::EpochStaged(Epoch(2))).unwrap();
        assert!(primary.handle_message(&likeness).is_err(), "it ran already");
        assert!(!primary.is_protected() && !primary.is_rehearsed());
        primary.handle_message(&Message::EpochApplied(Epoch(2))).unwrap();
        assert!(!primary.is_protected() && primary.is_rehearsed());
        assert_eq!(primary.wait_checkpoint(applied).unwrap(), Ready::Now(Trigger::First));
        assert!(!primary.may_be_taken_over());
        primary.capture(&mut domain, Epoch(3)).unwrap();
        assert!(primary.may_be_taken_over() && !primary.is_protected());
        assert_eq!(primary.checkpoint(Epoch(3), applied).unwrap(), Ready::NotBefore(applied + ack));
        primary.handle_message(&Message::EpochStaged(Epoch(3))).unwrap();
        assert!(primary.is_protected());
        primary.handle_message(&Message::EpochApplied(Epoch(3))).unwrap();
        assert!(matches!(primary.wait_checkpoint(applied).unwrap(), Ready::NotBefore(_)), "as usual from here on");
        primary.capture(&mut domain, Epoch(4)).unwrap();
        assert_eq!(primary.checkpoint(Epoch(4), applied).unwrap(), Ready::NotBefore(applied + ack));
        let late = primary.checkpoint(Epoch(4), applied + ack).unwrap_err();
        assert_eq!(late.to_string(), format!("no acknowledgement of epoch 4 within {} s", ack.as_secs()));
    }
}
