use super::EngineError;
use crate::domain::{Domain, DomainSpec, StateRecord};
use crate::ids::Epoch;
use crate::peer::{Message, StreamSum};
use crate::restore::{Flushed, Progress, RestoreCallbacks, Restorer};
use crate::save::CallbackError;
use crate::stream::StreamUse;
use std::collections::VecDeque;

/// What the secondary's engine needs of the packets' side.
pub trait SecondaryNet {
    /// Stops giving input to the guest and taking its output: on return nothing of it touches guest memory.
    ///
    /// # Errors
    /// When the packets' side is gone.
    fn freeze(&mut self) -> Result<(), CallbackError>;

    /// The guest stands at the beginning of `epoch`, with these records of the primary's packets' side; goes on.
    ///
    /// # Errors
    /// When the records make no sense, or the packets' side is gone.
    fn begin_epoch(&mut self, epoch: Epoch, records: Vec<StateRecord>) -> Result<(), CallbackError>;
}

/// A checkpoint that has become the guest's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Applied {
    /// Its number.
    pub epoch: Epoch,
    /// Bytes of the stream.
    pub stream_bytes: u64,
    /// Pages.
    pub flushed: Flushed,
}

/// The secondary's engine: messages in, an epoch at a time into the guest.
///
/// Until the whole of an epoch is here, with the right length and checksum, nothing of it touches the guest; from then on
/// it will be applied whatever happens to the primary.
///
/// ```
/// use colo_core::checkpoint::Secondary;
/// use colo_core::domain::{Control, model::ModelDomain};
/// use colo_core::ids::Epoch;
/// use colo_core::peer::Message;
/// use colo_core::restore::RemusRestore;
/// # use colo_core::checkpoint::SecondaryNet;
/// # use colo_core::{domain::StateRecord, save::CallbackError};
/// # struct NoNet;
/// # impl SecondaryNet for NoNet {
/// #     fn freeze(&mut self) -> Result<(), CallbackError> { Ok(()) }
/// #     fn begin_epoch(&mut self, _: Epoch, _: Vec<StateRecord>) -> Result<(), CallbackError> { Ok(()) }
/// # }
///
/// let mut domain = ModelDomain::new("demo", 16);
/// let mut secondary = Secondary::new(domain.spec(), NoNet);
/// // The end of an epoch of which nothing came:
/// let end = Message::EpochEnd { epoch: Epoch(1), stream_bytes: 0, crc: 0 };
/// assert!(secondary.handle_message(end, &mut domain, &mut RemusRestore::default()).is_err());
/// ```
pub struct Secondary<N> {
    restorer: Restorer,
    net: N,
    /// The last epoch applied.
    epoch: Epoch,
    /// Whether the first two epochs are a rehearsal.
    rehearse: bool,
    /// What has come of the next one.
    arrived: StreamSum,
    complete: bool,
    staged: Option<(Epoch, u64)>,
    outbox: VecDeque<Message>,
}

impl<N: SecondaryNet> Secondary<N> {
    /// For a domain to that specification, empty and suspended.
    pub fn new(spec: &DomainSpec, net: N) -> Self {
        Secondary {
            restorer: Restorer::new(spec, StreamUse::Checkpointed),
            net,
            epoch: Epoch::NONE,
            rehearse: false,
            arrived: StreamSum::default(),
            complete: false,
            staged: None,
            outbox: VecDeque::new(),
        }
    }

    /// The first two epochs are a rehearsal (or not, which is the default): the guest runs in them, and must not serve.
    #[must_use]
    pub fn with_rehearsal(mut self, rehearse: bool) -> Self {
        self.rehearse = rehearse;
        self
    }

    /// The epoch that the guest stands in: [`Epoch::NONE`] while it stands nowhere.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The epoch that the guest could serve from: [`Epoch::NONE`] while it could not, and in a rehearsal.
    pub fn takeover_epoch(&self) -> Epoch {
        if self.epoch >= Epoch::first_protected(self.rehearse) { self.epoch } else { Epoch::NONE }
    }

    /// The packets' side.
    pub fn net(&mut self) -> &mut N {
        &mut self.net
    }

    /// A message of the primary, from the state channel.
    ///
    /// # Errors
    /// [`EngineError`]; the guest has not been touched, and stands in [`Secondary::epoch`].
    pub fn handle_message(
        &mut self,
        message: Message,
        domain: &mut dyn Domain,
        callbacks: &mut dyn RestoreCallbacks,
    ) -> Result<(), EngineError> {
        match message {
            _ if self.staged.is_some() => Err(EngineError::Unexpected {
                message: "a message",
                when: "while a staged epoch was not applied".into(),
            }),
            Message::Stream(bytes) => {
                self.arrived.add(&bytes);
                let progress = self.restorer.handle_stream(&bytes, domain, callbacks)?;
                self.complete |= progress != Progress::More;
                Ok(())
            }
            Message::EpochEnd { epoch, stream_bytes, crc } => self.end_epoch(epoch, stream_bytes, crc),
            _ => Err(EngineError::Unexpected {
                message: "a message of another channel",
                when: "on the state channel".into(),
            }),
        }
    }

    /// The next message for the primary. Send all of them before [`Secondary::apply`]: the primary's clients wait for the
    /// acknowledgement, not for the flush.
    pub fn poll_message(&mut self) -> Option<Message> {
        self.outbox.pop_front()
    }

    /// Whether a staged epoch waits to be applied.
    pub fn is_staged(&self) -> bool {
        self.staged.is_some()
    }

    /// Makes the staged epoch the guest's state.
    ///
    /// # Errors
    /// Any error leaves the guest half-written: it must be destroyed, and never serve.
    ///
    /// # Panics
    /// When no epoch is staged.
    pub fn apply(
        &mut self,
        domain: &mut dyn Domain,
        callbacks: &mut dyn RestoreCallbacks,
    ) -> Result<Applied, EngineError> {
        let (epoch, stream_bytes) = self.staged.take().expect("an epoch is staged");
        // Until it is whole again.
        self.epoch = Epoch::NONE;
        self.net.freeze().map_err(EngineError::Net)?;
        let flushed = self.restorer.apply(domain, callbacks)?;
        self.net.begin_epoch(epoch, self.restorer.take_records()).map_err(EngineError::Net)?;
        self.epoch = epoch;
        if self.rehearse && epoch == Epoch::FIRST {
            let likeness = domain.likeness().map_err(|error| EngineError::Restore(error.into()))?;
            if !likeness.is_empty() {
                self.outbox.push_back(Message::Likeness(likeness.into()));
            }
        }
        self.outbox.push_back(Message::EpochApplied(epoch));
        Ok(Applied { epoch, stream_bytes, flushed })
    }

    fn end_epoch(&mut self, epoch: Epoch, stream_bytes: u64, crc: u32) -> Result<(), EngineError> {
        let damaged = |what| Err(EngineError::Damaged { epoch: epoch.0, what });
        let arrived = std::mem::take(&mut self.arrived);
        if epoch != self.epoch.next() {
            return damaged(format!("it is not the one after {}", self.epoch));
        }
        if stream_bytes != arrived.bytes() {
            return damaged(format!("{} bytes of {stream_bytes} came", arrived.bytes()));
        }
        if crc != arrived.crc() {
            return damaged("the checksum is wrong".into());
        }
        if !std::mem::take(&mut self.complete) {
            return damaged("its last record is not a checkpoint".into());
        }
        self.staged = Some((epoch, stream_bytes));
        self.outbox.push_back(Message::EpochStaged(epoch));
        Ok(())
    }
}
