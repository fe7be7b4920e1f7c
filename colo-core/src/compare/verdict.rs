use super::FlowKey;
use crate::net::Frame;
use std::fmt;
use std::time::Duration;

/// A frame of the primary that leaves now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Release {
    /// The network card that it came from.
    pub nic: u8,
    /// The frame, as the primary's guest made it.
    pub frame: Frame,
}

/// The two machines do not say the same: a checkpoint is needed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Divergence {
    /// Where; `None` when it concerns no flow in particular.
    pub flow: Option<FlowKey>,
    /// Why.
    pub reason: Reason,
    /// What each machine had said there that has not left, if it was asked for
    /// ([`CompareConfig::keep_evidence`](super::CompareConfig::keep_evidence)).
    pub evidence: Option<Box<Evidence>>,
}

/// What was held of a flow when the machines were found to differ, as each of them made it, oldest first; at most
/// [`MAX_FRAMES`](Self::MAX_FRAMES) of each.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Evidence {
    /// The primary's frames.
    pub primary: Vec<Frame>,
    /// The secondary's frames, in the primary's sequence numbers where they are known.
    pub secondary: Vec<Frame>,
}

impl Evidence {
    /// The most frames of each machine: the first are those that differ.
    pub const MAX_FRAMES: usize = 64;

    pub(super) fn new<'a>(
        primary: impl Iterator<Item = &'a Frame>,
        secondary: impl Iterator<Item = &'a Frame>,
    ) -> Self {
        Evidence {
            primary: primary.take(Self::MAX_FRAMES).cloned().collect(),
            secondary: secondary.take(Self::MAX_FRAMES).cloned().collect(),
        }
    }
}

/// Why a checkpoint is needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Reason {
    /// The bytes at the same place differ. In a TCP flow the place is the primary's sequence number of the first such byte, in
    /// every other flow its offset in the frame.
    PayloadDiffers {
        /// The place.
        offset: u64,
    },
    /// Two TCP handshakes differ in what they acknowledge or offer.
    HandshakeDiffers,
    /// One machine ended a TCP stream where the other went on.
    FlagsDiffer,
    /// The secondary's TCP sequence number lies farther off than any window reaches.
    OutOfWindow,
    /// The secondary did not produce in time what the primary produced.
    Unmatched {
        /// How long the primary's frame has waited.
        waited: Duration,
    },
    /// The primary did not produce in time what the secondary produced.
    OnlySecondary {
        /// How long the secondary's frame has waited.
        waited: Duration,
    },
    /// The primary would take more of a TCP stream, the secondary would not, and the client was told so.
    WindowClosed {
        /// For how long.
        waited: Duration,
    },
    /// Too much is waiting.
    QueueFull(Limit),
}

/// A limit that was reached: of [`CompareConfig`](super::CompareConfig), or one that is fixed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// `max_held_bytes`.
    HeldBytes,
    /// `max_flow_bytes`.
    FlowBytes,
    /// `max_flows`.
    Flows,
    /// 17 connections between the same ports, one after the other.
    Connections,
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.flow {
            Some(flow) => write!(f, "{flow}: {}", self.reason),
            None => fmt::Display::fmt(&self.reason, f),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::PayloadDiffers { offset } => write!(f, "payload differs at {offset}"),
            Reason::HandshakeDiffers => f.write_str("handshakes differ"),
            Reason::FlagsDiffer => f.write_str("the stream's end differs"),
            Reason::OutOfWindow => f.write_str("the secondary's sequence number is out of window"),
            Reason::Unmatched { waited } => write!(f, "the primary's frame unmatched for {} ms", waited.as_millis()),
            Reason::OnlySecondary { waited } => {
                write!(f, "the secondary's frame unmatched for {} ms", waited.as_millis())
            }
            Reason::WindowClosed { waited } => {
                write!(f, "the secondary's window closed for {} ms", waited.as_millis())
            }
            Reason::QueueFull(limit) => write!(f, "too much waits ({limit})"),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Limit::HeldBytes => "bytes in all flows",
            Limit::FlowBytes => "bytes in one flow",
            Limit::Flows => "number of flows",
            Limit::Connections => "connections between the same ports",
        })
    }
}

/// What a comparator has done since it was made. All of them only grow, but `held_bytes` and `flows`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    /// Frames of the primary.
    pub primary_frames: u64,
    /// Frames of the secondary.
    pub secondary_frames: u64,
    /// Frames released because both machines had produced what they say.
    pub released_frames: u64,
    /// Frames handed back when their epoch ended.
    pub handed_back_frames: u64,
    /// Frames that left with a smaller window than the primary's, as the secondary's was smaller.
    pub clamped_windows: u64,
    /// Frames of which a part left before the rest; each time is counted.
    pub cut_frames: u64,
    /// Frames that left once more to say that a window is open again which left closed for the secondary's sake.
    pub reopened_windows: u64,
    /// Payload bytes of the two machines found equal.
    pub compared_bytes: u64,
    /// Frames of the secondary that were forgotten because a queue was full; a checkpoint follows.
    pub forgotten_frames: u64,
    /// Frames released uncompared, by a rule.
    pub bypassed_frames: u64,
    /// Packets of the primary that were put together from fragments.
    pub reassembled_packets: u64,
    /// Flows forgotten because nobody had used them for long.
    pub aged_flows: u64,
    /// Idle flows forgotten to make room for new ones.
    pub evicted_flows: u64,
    /// Divergences by [`Reason::PayloadDiffers`].
    pub payload_differs: u64,
    /// Divergences by [`Reason::HandshakeDiffers`], [`Reason::FlagsDiffer`] and [`Reason::OutOfWindow`].
    pub stream_differs: u64,
    /// Divergences by [`Reason::Unmatched`].
    pub unmatched: u64,
    /// Divergences by [`Reason::OnlySecondary`].
    pub only_secondary: u64,
    /// Divergences by [`Reason::WindowClosed`].
    pub window_closed: u64,
    /// Divergences by [`Reason::QueueFull`].
    pub queue_full: u64,
    /// What the primary's held frames count now, in bytes.
    pub held_bytes: usize,
    /// The flows known now.
    pub flows: usize,
}

impl Counters {
    pub(super) fn count(&mut self, reason: &Reason) {
        *match reason {
            Reason::PayloadDiffers { .. } => &mut self.payload_differs,
            Reason::HandshakeDiffers | Reason::FlagsDiffer | Reason::OutOfWindow => &mut self.stream_differs,
            Reason::Unmatched { .. } => &mut self.unmatched,
            Reason::OnlySecondary { .. } => &mut self.only_secondary,
            Reason::WindowClosed { .. } => &mut self.window_closed,
            Reason::QueueFull(_) => &mut self.queue_full,
        } += 1;
    }
}
