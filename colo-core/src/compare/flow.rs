use super::classify::Content;
use super::datagram::{Datagram, DatagramFlow};
use super::key::Key;
use super::rules::{Action, Masks, Rules};
use super::spares::Spares;
use super::tcp::{TcpFlow, TcpSpares};
use super::verdict::{Evidence, Reason, Release};
use crate::net::Frame;
use std::collections::VecDeque;
use std::time::Instant;

/// What each held frame costs beside its own bytes: its place in the queues. Keeps empty frames from being free.
pub(super) const FRAME_OVERHEAD_BYTES: usize = 176;

/// A frame of the primary, on its way out.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    /// Its place among all that the primary produced.
    pub(super) order: u64,
    pub(super) since: Instant,
    /// What is compared.
    pub(super) frame: Frame,
    /// What leaves, with their orders, if it is something else: the fragments of the packet.
    pub(super) fragments: Option<Box<[(u64, Frame)]>>,
}

impl Outgoing {
    /// What it counts against the limits.
    pub(super) fn charge(&self) -> usize {
        let fragments = self.fragments.iter().flat_map(|fragments| &fragments[..]);
        charge(&self.frame) + fragments.map(|(_, frame)| charge(frame)).sum::<usize>()
    }

    /// The frames that leave, with their orders.
    pub(super) fn into_frames(self) -> impl Iterator<Item = (u64, Frame)> {
        let (one, several) = match self.fragments {
            None => (Some((self.order, self.frame)), None),
            Some(fragments) => (None, Some(fragments)),
        };
        one.into_iter().chain(several.into_iter().flat_map(Vec::from))
    }
}

/// A frame of the secondary.
#[derive(Debug)]
pub(super) struct Witness {
    pub(super) number: u64,
    pub(super) since: Instant,
    pub(super) frame: Frame,
}

/// What a flow's held frames count against the limits.
pub(super) fn charge(frame: &Frame) -> usize {
    frame.len() + FRAME_OVERHEAD_BYTES
}

/// Bytes held in a flow, or in all.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Held {
    pub(super) primary: usize,
    pub(super) secondary: usize,
}

/// Where a flow puts what it decided.
#[derive(Default, Debug)]
pub(super) struct Outbox {
    pub(super) released: VecDeque<Release>,
    pub(super) consumed: VecDeque<u64>,
    pub(super) compared_bytes: u64,
    pub(super) released_frames: u64,
    /// The network card of the flow at work.
    pub(super) nic: u8,
    /// Whether that flow may release anything now.
    pub(super) open: bool,
    /// What time it is.
    pub(super) now: Option<Instant>,
    pub(super) keep_evidence: bool,
    pub(super) rules: Rules,
    /// The number of that flow's rule.
    pub(super) rule: Option<u16>,
    pub(super) clamped_windows: u64,
    pub(super) cut_frames: u64,
    pub(super) reopened_windows: u64,
    pub(super) spares: AllSpares,
}

/// Memory for the queues of all flows.
#[derive(Default, Debug)]
pub(super) struct AllSpares {
    pub(super) outgoing: Spares<Datagram<Outgoing>>,
    pub(super) witnesses: Spares<Datagram<Witness>>,
    pub(super) tcp: TcpSpares,
}

impl Outbox {
    /// What is masked in the flow at work.
    pub(super) fn masks(&self) -> Option<&Masks> {
        match self.rules.action(self.rule?) {
            Action::Mask(masks) => Some(masks),
            Action::Bypass | Action::Ignore => None,
        }
    }

    /// Whether it does not matter in the flow at work what bytes are.
    pub(super) fn ignores_bytes(&self) -> bool {
        self.rule.is_some_and(|rule| *self.rules.action(rule) == Action::Ignore)
    }

    // A frame is some 90 bytes to be moved.
    #[inline(always)]
    pub(super) fn release(&mut self, outgoing: Outgoing) {
        let nic = self.nic;
        let Some(fragments) = outgoing.fragments else {
            self.released_frames += 1;
            self.released.push_back(Release { nic, frame: outgoing.frame });
            return;
        };
        self.released_frames += fragments.len() as u64;
        self.released.extend(fragments.into_iter().map(|(_, frame)| Release { nic, frame }));
    }
}

/// Who waits in a flow, and since when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Waiting {
    pub(super) since: Instant,
    pub(super) what: What,
}

/// What waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum What {
    /// A frame of the primary, for the secondary's.
    Primary,
    /// A frame of the secondary, for the primary's.
    Secondary,
    /// A client, for the secondary's window.
    Window,
    /// What nobody is to hear any more.
    Nobody,
}

/// A flow by the way in which it is compared.
#[derive(Debug)]
pub(super) enum Flow {
    Stream(Box<TcpFlow>),
    Datagrams(DatagramFlow),
}

impl Flow {
    pub(super) fn new(key: &Key) -> Self {
        if key.is_tcp() { Flow::Stream(Box::default()) } else { Flow::Datagrams(DatagramFlow::default()) }
    }

    /// Whether there is a place for this frame of the primary. If there is not, the next epoch makes one.
    pub(super) fn has_room_for_primary(&mut self, content: &Content) -> bool {
        match (self, content) {
            (Flow::Stream(flow), Content::Segment(segment)) => flow.has_room_for_primary(segment),
            _ => true,
        }
    }

    /// The same for the secondary.
    pub(super) fn has_room_for_secondary(&self, content: &Content) -> bool {
        match (self, content) {
            (Flow::Stream(flow), Content::Segment(segment)) => flow.has_room_for_secondary(segment),
            _ => true,
        }
    }

    /// Takes a frame of the primary. `content` is what [`classify`] said with the flow's key.
    pub(super) fn push_primary(&mut self, outgoing: Outgoing, content: &Content, spares: &mut AllSpares) {
        match (self, content) {
            (Flow::Stream(flow), Content::Segment(segment)) => flow.push_primary(outgoing, segment, &mut spares.tcp),
            (Flow::Datagrams(flow), Content::Datagram(mask)) => flow.push_primary(outgoing, *mask, false, spares),
            (Flow::Datagrams(flow), Content::Notice(mask)) => flow.push_primary(outgoing, *mask, true, spares),
            (flow, content) => unreachable!("{content:?} in {flow:?}"),
        }
    }

    /// Takes a frame of the secondary.
    pub(super) fn push_secondary(
        &mut self,
        witness: Witness,
        content: &Content,
        out: &mut Outbox,
    ) -> Result<(), Reason> {
        match (self, content) {
            (Flow::Stream(flow), Content::Segment(segment)) => flow.push_secondary(witness, segment, out),
            (Flow::Datagrams(flow), Content::Datagram(mask)) => {
                flow.push_secondary(witness, *mask, false, &mut out.spares);
                Ok(())
            }
            (Flow::Datagrams(flow), Content::Notice(mask)) => {
                flow.push_secondary(witness, *mask, true, &mut out.spares);
                Ok(())
            }
            (flow, content) => unreachable!("{content:?} in {flow:?}"),
        }
    }

    /// Compares what can be compared, and releases what may leave.
    pub(super) fn advance(&mut self, out: &mut Outbox) -> Result<(), Reason> {
        match self {
            Flow::Stream(flow) => flow.advance(out),
            Flow::Datagrams(flow) => flow.advance(out),
        }
    }

    /// Its client has reset the connection.
    pub(super) fn client_reset(&mut self) {
        if let Flow::Stream(flow) = self {
            flow.client_reset();
        }
    }

    /// Lets the frame that the primary has said last go before those that wait, if there is nothing new in it.
    pub(super) fn overtake(&mut self, out: &mut Outbox) {
        if let Flow::Stream(flow) = self {
            flow.overtake(out);
        }
    }

    /// Whether what the secondary has said first of all that waits is a notice.
    pub(super) fn secondary_has_notice(&self) -> bool {
        matches!(self, Flow::Datagrams(flow) if flow.secondary_has_notice())
    }

    /// Nobody waits for that notice any more.
    pub(super) fn forget_notice(&mut self, out: &mut Outbox) {
        if let Flow::Datagrams(flow) = self {
            flow.forget_notice(out);
        }
    }

    /// Whether only a part of the frame that is to leave next has been said by both.
    pub(super) fn has_part(&self) -> bool {
        matches!(self, Flow::Stream(flow) if flow.has_part())
    }

    /// Lets that part go.
    pub(super) fn release_part(&mut self, out: &mut Outbox) {
        if let Flow::Stream(flow) = self {
            flow.release_part(out);
        }
    }

    /// Both machines now stand where the primary stands: moves all that the primary still holds to `ended`, in any order.
    pub(super) fn begin_epoch(&mut self, ended: &mut Vec<Outgoing>, spares: &mut AllSpares) {
        match self {
            Flow::Stream(flow) => flow.begin_epoch(ended, &mut spares.tcp),
            Flow::Datagrams(flow) => flow.begin_epoch(ended, spares),
        }
    }

    /// Who has waited longest; `None` when nobody waits.
    pub(super) fn waiting(&self) -> Option<Waiting> {
        match self {
            Flow::Stream(flow) => flow.waiting(),
            Flow::Datagrams(flow) => flow.waiting(),
        }
    }

    pub(super) fn held(&self) -> Held {
        match self {
            Flow::Stream(flow) => flow.held(),
            Flow::Datagrams(flow) => flow.held(),
        }
    }

    /// What waits in it, of each machine.
    pub(super) fn evidence(&self) -> Evidence {
        match self {
            Flow::Stream(flow) => flow.evidence(),
            Flow::Datagrams(flow) => flow.evidence(),
        }
    }

    /// Whether nothing more is expected in it.
    pub(super) fn is_closed(&self) -> bool {
        match self {
            Flow::Stream(flow) => flow.is_closed(),
            Flow::Datagrams(_) => false,
        }
    }
}

/// The longer waiting of two.
pub(super) fn longest(a: Option<Waiting>, b: Option<Waiting>) -> Option<Waiting> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if b.since < a.since { b } else { a }),
        (a, b) => a.or(b),
    }
}
