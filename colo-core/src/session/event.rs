use crate::checkpoint::Applied;
use crate::disk::Pace;
use crate::ids::Epoch;
use crate::save::{CheckpointStats, CopyStats};
use crossbeam_channel::{Receiver, Sender, TrySendError};
use std::fmt;
use std::time::Duration;

/// What happens in a session, for people and machines. `Display` is one line without a full stop.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The peer answered; `dirty_log` is how dirty pages are found here.
    Connected {
        /// The other side.
        peer: String,
        /// The domain.
        domain: String,
        /// How dirty pages are found.
        dirty_log: &'static str,
    },
    /// The first copy goes on.
    Copying(CopyStats),
    /// The secondary's disks are being made like the primary's.
    CopyingDisks {
        /// So many bytes are known to be the same ...
        done_bytes: u64,
        /// ... of so many.
        all_bytes: u64,
        /// So many were sent, since they differed.
        sent_bytes: u64,
        /// How fast it is, and how long it will still take, once that is known.
        pace: Option<Pace>,
    },
    /// The rehearsal is over: the secondary's machine runs. The checkpoint that begins protection follows at once.
    Rehearsed,
    /// A checkpoint to take over from is on the other side: from here on the machine is protected.
    Protected(Epoch),
    /// The outputs of the two machines differ; the text says in what.
    Miscompare(String),
    /// A checkpoint was taken and sent.
    Checkpoint {
        /// What it carried.
        stats: CheckpointStats,
        /// How long the guest stood still.
        pause: Duration,
    },
    /// A checkpoint is here whole, and about to be applied.
    Staged(Epoch),
    /// A checkpoint has become the guest's state.
    Applied {
        /// By which way, where the domain has several.
        way: Option<String>,
        /// What it carried.
        applied: Applied,
        /// How long the guest stood still.
        pause: Duration,
    },
    /// The other side was lost, in this way.
    PeerLost(String),
    /// The fence command failed and will be tried again; until then nothing is served.
    FenceFailed(String),
    /// This side keeps its machine suspended, for this reason, and waits to be told whether it shall serve
    /// ([`SecondaryController::promote`](super::SecondaryController::promote)).
    Held {
        /// The domain.
        domain: String,
        /// The epoch that it would go on from.
        epoch: Epoch,
        /// Why.
        why: String,
    },
    /// The machine runs without protection, for this reason.
    Unprotected(String),
    /// This side serves now.
    TookOver {
        /// The epoch it goes on from.
        epoch: Epoch,
        /// From the loss to the first frame that could be sent.
        took: Duration,
        /// Output that was sent at once.
        resent_frames: usize,
    },
    /// The session is over, and what it had taken from this host is put back.
    Ended(Outcome),
}

/// How a session ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// As it was told to.
    Stopped,
    /// The guest shut down.
    GuestShutDown,
    /// The guest crashed.
    GuestCrashed,
    /// As it was told to, and the guest runs on without the session.
    Left,
    /// The guest runs on, without protection and without the session; the text says why.
    Unprotected(String),
    /// The guest stands still here: it cannot be resumed, or is to be only when the other side is known not to serve; the text says which.
    LeftSuspended(String),
    /// The secondary serves: the guest here was destroyed.
    StoodDown,
    /// The secondary's guest is gone and the machine, if it runs, runs elsewhere; the text says why.
    Ended(String),
    /// Something failed, and the guest here was destroyed.
    Failed(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Stopped => f.write_str("stopped"),
            Outcome::GuestShutDown => f.write_str("the guest has shut down"),
            Outcome::GuestCrashed => f.write_str("the guest has crashed"),
            Outcome::Left => f.write_str("the guest runs on by itself"),
            Outcome::Unprotected(why) => write!(f, "the guest runs on, unprotected: {why}"),
            Outcome::LeftSuspended(why) => write!(f, "the guest is left suspended: {why}"),
            Outcome::StoodDown => f.write_str("the secondary has taken over; the guest here was destroyed"),
            Outcome::Ended(why) => write!(f, "ended: {why}"),
            Outcome::Failed(why) => write!(f, "failed: {why}; the guest here was destroyed"),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Connected { peer, domain, dirty_log } => {
                write!(f, "connected with {peer} for domain {domain}; dirty pages by {dirty_log}")
            }
            Event::Copying(copy) => {
                write!(f, "copying, round {}: {} of {} pages", copy.round + 1, copy.sent_pages, copy.round_pages)
            }
            Event::CopyingDisks { done_bytes, all_bytes, sent_bytes, pace } => {
                let [done, all, sent] = [done_bytes, all_bytes, sent_bytes].map(|bytes| bytes >> 20);
                write!(f, "copying disks: {done} of {all} MiB are the same, {sent} MiB were sent")?;
                pace.map_or(Ok(()), |pace| write!(f, "; {pace}"))
            }
            Event::Rehearsed => f.write_str("the secondary's guest runs; protection begins"),
            Event::Protected(epoch) => write!(f, "protected from {epoch} on"),
            Event::Miscompare(what) => write!(f, "outputs differ: {what}"),
            Event::Checkpoint { stats, pause } => write!(
                f,
                "checkpoint {} ({}): {} pages, {} bytes, pause {:.2} ms",
                stats.epoch.0,
                stats.trigger,
                stats.dirty_pages,
                stats.stream_bytes,
                pause.as_secs_f64() * 1e3
            ),
            Event::Staged(epoch) => write!(f, "{epoch} is staged"),
            Event::Applied { applied, pause, way } => write!(
                f,
                "{} applied: {} pages received, {} written, pause {:.2} ms{}",
                applied.epoch,
                applied.flushed.received_pages,
                applied.flushed.written_pages,
                pause.as_secs_f64() * 1e3,
                way.as_ref().map_or(String::new(), |way| format!(", {way}"))
            ),
            Event::PeerLost(how) => write!(f, "the peer is lost: {how}"),
            Event::FenceFailed(why) => write!(f, "fencing failed, nothing is served until it succeeds: {why}"),
            Event::Held { domain, epoch, why } => {
                write!(f, "HELD: domain {domain} stands still at {epoch}, and nobody may serve: {why}")
            }
            Event::Unprotected(why) => write!(f, "NOT PROTECTED: {why}"),
            Event::TookOver { epoch, took, resent_frames } => write!(
                f,
                "took over from {epoch} in {:.2} ms, {resent_frames} frames sent again",
                took.as_secs_f64() * 1e3
            ),
            Event::Ended(outcome) => outcome.fmt(f),
        }
    }
}

/// Events that wait to be read: enough for a reader that looks once a second. Beyond it, events are dropped rather than the
/// machine held up; the last one, [`Event::Ended`], never is.
const MAX_WAITING_EVENTS: usize = 4096;

/// A session's events, oldest first. Ends after [`Event::Ended`].
pub type Events = Receiver<Event>;

/// The session's end of [`Events`].
#[derive(Clone, Debug)]
pub struct EventSender(Sender<Event>, Receiver<Event>);

impl EventSender {
    /// A pair of both ends.
    pub fn new() -> (EventSender, Events) {
        let (sender, receiver) = crossbeam_channel::bounded(MAX_WAITING_EVENTS);
        (EventSender(sender, receiver.clone()), receiver)
    }

    /// Reports an event, and logs it.
    pub fn send(&self, event: Event) {
        match &event {
            Event::Copying(_)
            | Event::CopyingDisks { .. }
            | Event::Checkpoint { .. }
            | Event::Applied { .. }
            | Event::Staged(_) => tracing::debug!("{event}"),
            _ => tracing::info!("{event}"),
        }
        let mut event = event;
        while let Err(TrySendError::Full(refused)) = self.0.try_send(event) {
            if !matches!(refused, Event::Ended(_)) {
                return;
            }
            // Room for the last word, at the cost of the oldest.
            let _ = self.1.try_recv();
            event = refused;
        }
    }
}
