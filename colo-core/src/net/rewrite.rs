//! The secondary's TCP sequence numbers, made to agree with what the client has seen.
//!
//! Each machine chooses the first sequence number of its side of a connection for itself. The client has seen the primary's. So, on
//! the secondary's host, what the client acknowledges is moved into the secondary's numbers before its guest sees it, and what the
//! guest sends is moved into the primary's. The difference is learnt from the handshake, where both numbers are known:
//!
//! | | the secondary's first number | the primary's |
//! | --- | --- | --- |
//! | client connects | the guest's SYN-ACK | what the client's next segment acknowledges, less 1 |
//! | guest connects | the guest's SYN | what the peer's SYN-ACK (or RST) acknowledges, less 1 |
//!
//! Until then nothing is changed: the guest's SYN leaves with its own number, and the [comparator](crate::compare) knows that.
//!
//! **A secondary that lags.** The client may acknowledge the primary's SYN-ACK before the secondary's guest has sent its own. Given to
//! the guest now it would be answered with a RST. So the client's segments of this connection are kept, in order, until the guest has
//! sent its SYN-ACK, and are then rewritten and handed out by [`Rewriter::poll_input`]. When the guest refuses instead, they are
//! handed out as they came. (While outputs are compared the primary's SYN-ACK leaves only after the secondary's, and nothing needs to be kept;
//! it may when the comparator is not in the way.) What does not fit is dropped and counted: it is as if lost on the wire, and the client sends it again, since
//! no acknowledgement leaves that the secondary has not given. For the same reason a peer's SYN-ACK to a SYN that the guest has
//! not sent yet is not kept: it is forged, or late, and the guest is to refuse it as the primary does.
//!
//! **A checkpoint** gives the secondary's guest the primary's numbers in all connections, also in those half open:
//! [`Rewriter::reset`] forgets everything, and connections that are not known are not changed. Of a handshake that was over by then a
//! part may still be repeated, by the client or from the guest's ring, and looks like a new connection: until the guest says
//! what only one beyond the handshake says, without the rewriter having shown it the handshake's end. Its numbers are the primary's
//! then, too. **After a failover**
//! ([`Rewriter::go_live`]) the rewriter stays in the way for the connections that it knows; new ones have nothing to be moved.
//! [`Rewriter::flows_to_rewrite`] tells how many are left that would break without it.
//!
//! Sequence numbers stand in the header's two fields and in the SACK option (RFC 2018) of what the client sends. Checksums are mended
//! (RFC 1624), so that one that was wrong stays wrong; those that a card is to complete are left to it. Of a segment in fragments the
//! first is changed, if it has the whole header. A frame is copied only when it is changed and shared with somebody.
//!
//! **ICMP errors** quote segments, and whoever has sent the segment compares the quoted number with what is under way. It is moved, too:
//! else a guest would not believe the router that says that its segments are too big for a smaller MTU ahead, and the connection would hang.
//!
//! **Clocks.** Where both sides use timestamps (RFC 7323), each machine's run from an origin of its own, and the client echoes the
//! primary's. Left as it is, a guest that connects would refuse the answer, as it echoes what the guest never said; and after a failover
//! the client would drop what comes from a clock that is behind. So their difference is learnt with that of the sequence numbers, from
//! what the guest's SYN said and what the other side echoed, and moved in the same way. An echo is never of what the guest has not said
//! yet: when the primary's clock is seen to be ahead, the difference becomes smaller by so much, and what the secondary would say after a
//! failover is never older than what the client has seen.
//!
//! ```
//! use colo_core::net::rewrite::Rewriter;
//! use colo_core::net::testing::{Tcp, ack_of, seq_of};
//! use colo_core::net::Seq;
//!
//! let mut rewriter = Rewriter::new();
//! // The client connects; the guest answers with 7000, the primary answered with 500.
//! rewriter.handle_input(0, Tcp::new(4000, 80).inbound().syn().seq(1).frame());
//! rewriter.handle_output(0, Tcp::new(80, 4000).syn().seq(7000).ack(2).frame());
//! let to_guest = rewriter.handle_input(0, Tcp::new(4000, 80).inbound().seq(2).ack(501).frame()).unwrap();
//! assert_eq!(ack_of(&to_guest), Seq(7001));
//! let from_guest = rewriter.handle_output(0, Tcp::new(80, 4000).seq(7001).ack(2).payload(b"hello").frame());
//! assert_eq!(seq_of(&from_guest), Seq(501));
//! ```

use super::ip::{IpPacket, Vlans};
use super::wire::{Segment, TCP_ACK_AT, TCP_SEQ_AT, TcpEdit, TcpFlags, TcpOption};
use super::{Frame, Seq};
use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

mod connection;
mod icmp;
mod table;

use connection::{Connection, Moved, Timestamps, timestamps};
use icmp::Quotation;
use table::{Connections, Place};

/// The most connections known at once; of those beyond, the least recently used is forgotten. As many as the comparator's flows.
pub const MAX_CONNECTIONS: usize = 65_536;

/// The most known besides of which the handshake is not over. Those have room of their own: somebody who begins connections
/// and ends none of the handshakes pushes out only others that are begun.
pub const MAX_HALF_OPEN: usize = 16_384;

/// The most frames kept for a connection whose guest has not answered yet: a client's first window (RFC 6928) a few times over.
pub const MAX_KEPT_FRAMES: usize = 32;

/// A connection that says nothing for so long is over: what RFC 5382 (REQ-5) asks of address translators, who are in the same place.
pub const IDLE_LIMIT: Duration = Duration::from_secs(124 * 60);

/// The same for one whose handshake was not seen to end.
pub const HALF_OPEN_IDLE_LIMIT: Duration = Duration::from_secs(4 * 60);

/// The most bytes kept in all connections.
pub const MAX_KEPT_BYTES: usize = 4 << 20;

/// Moves the sequence numbers of the secondary's connections. See the [module](self).
pub struct Rewriter {
    connections: Connections,
    ready: VecDeque<(u8, Frame)>,
    kept_bytes: usize,
    is_live: bool,
    counters: Counters,
}

/// What a rewriter has done since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    /// Frames changed on their way to the guest.
    pub inputs_rewritten: u64,
    /// Frames changed on their way from the guest.
    pub outputs_rewritten: u64,
    /// Frames kept until the guest had answered.
    pub inputs_kept: u64,
    /// Frames that did not fit among those.
    pub inputs_dropped: u64,
    /// Connections forgotten because there were too many.
    pub evicted: u64,
}

/// A connection as the guest sees it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Key {
    nic: u8,
    vlans: Vlans,
    guest: SocketAddr,
    peer: SocketAddr,
}

impl Rewriter {
    /// A rewriter that knows no connection.
    pub fn new() -> Self {
        Self::with_room(MAX_CONNECTIONS, MAX_HALF_OPEN)
    }

    /// Takes a frame from the clients, and returns it as the guest is to see it; `None` when it is kept for now.
    pub fn handle_input(&mut self, nic: u8, frame: Frame) -> Option<Frame> {
        let Some((segment, vlans, source, destination)) = parse(&frame) else {
            return Some(self.move_quoted_seq(nic, frame));
        };
        let key = Key { nic, vlans, guest: destination, peer: source };
        if segment.has(TcpFlags::SYN) && segment.ack.is_none() {
            // A connection that is known stays so until the guest agrees to a new one: the SYN may be old, or forged.
            self.find_or_add(key);
            return Some(frame);
        }
        let Some(id) = self.connections.find(&key) else {
            return Some(frame);
        };
        let (_, connection) = self.connections.get_mut(id)?;
        connection.note_input(&segment);
        if !connection.kept.is_empty() || connection.learn(&segment, &frame).is_err() {
            self.keep(id, frame);
            return None;
        }
        let moved = connection.moved();
        connection.note_input_ack(&segment, moved);
        let id = self.settle(id);
        self.demote_closed(id, &segment);
        Some(self.rewrite_input(frame, &segment, moved))
    }

    /// Takes a frame from the guest, and returns it as the clients are to see it. [`poll_input`](Self::poll_input) may have something
    /// then.
    pub fn handle_output(&mut self, nic: u8, frame: Frame) -> Frame {
        let Some((segment, vlans, source, destination)) = parse(&frame) else {
            return self.move_quoted_ack(nic, frame);
        };
        let key = Key { nic, vlans, guest: source, peer: destination };
        let is_syn = segment.has(TcpFlags::SYN);
        let found = if is_syn { self.find_or_add(key) } else { self.connections.find(&key) };
        let Some(id) = found else { return frame };
        let is_live = self.is_live;
        let Some((_, connection)) = self.connections.get_mut(id) else {
            return frame;
        };
        if is_syn {
            connection.open(segment.seq, is_live);
        }
        connection.note_output(&segment);
        if connection.is_older(&segment) {
            connection.difference = Some(0);
        }
        let clock = timestamps(&segment, &frame);
        if let Some(Timestamps { value, .. }) = clock {
            connection.guest_clock = Seq::later(connection.guest_clock.map(Seq), Some(Seq(value))).map(|seq| seq.0);
        }
        if is_syn || segment.has(TcpFlags::RST) || connection.difference.is_some() {
            self.hand_out(id);
        }
        let id = self.settle(id);
        let moved = self.connections.get_mut(id).map_or(Moved::default(), |(_, connection)| connection.moved());
        self.demote_closed(id, &segment);
        let clock = clock.filter(|_| moved.clock != 0);
        if moved.seq == 0 && clock.is_none() {
            return frame;
        }
        self.counters.outputs_rewritten += 1;
        let edit = TcpEdit::new(&frame, &segment);
        frame.edit(|bytes| {
            edit.put(bytes, TCP_SEQ_AT, &(segment.seq - moved.seq).to_be_bytes());
            if let Some(Timestamps { at, value, .. }) = clock {
                edit.put(bytes, at, &value.wrapping_sub(moved.clock).to_be_bytes());
            }
        })
    }

    /// The next frame that was kept and may now go to the guest, with its network card. To be emptied after each
    /// [`handle_output`](Self::handle_output), before further input.
    pub fn poll_input(&mut self) -> Option<(u8, Frame)> {
        self.ready.pop_front()
    }

    /// The guest was given the primary's state: forgets all connections, and what was kept, which that state already knows.
    pub fn reset(&mut self) {
        self.connections.clear();
        self.ready.clear();
        self.kept_bytes = 0;
    }

    /// The secondary takes over: connections that are not known yet need no rewriting any more.
    pub fn go_live(&mut self) {
        self.is_live = true;
    }

    /// How many connections there are that would break if their numbers were not moved any more, once the secondary serves. Not those
    /// that have ended: by a RST behind which the guest has said nothing else, by FINs of both sides that were acknowledged, or by having
    /// been found idle at each call for [`IDLE_LIMIT`]. Looks at every connection: nothing to be asked for each frame.
    pub fn flows_to_rewrite(&mut self, now: Instant) -> usize {
        self.connections.values_mut().map(|connection| connection.needs_rewriting(now)).filter(|needs| *needs).count()
    }

    /// What was done so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn with_room(connections: usize, half_open: usize) -> Self {
        Rewriter {
            connections: Connections::new(connections, half_open),
            ready: VecDeque::new(),
            kept_bytes: 0,
            is_live: false,
            counters: Counters::default(),
        }
    }

    fn find_or_add(&mut self, key: Key) -> Option<Place> {
        let found = self.connections.find(&key);
        if found.is_some() || self.is_live {
            return found;
        }
        let (id, evicts) = self.connections.insert(key)?;
        self.counters.evicted += u64::from(evicts);
        Some(id)
    }

    /// The handshake may be over by now.
    fn settle(&mut self, id: Place) -> Place {
        let (id, evicts) = self.connections.settle(id);
        self.counters.evicted += u64::from(evicts);
        id
    }

    fn keep(&mut self, id: Place, frame: Frame) {
        let Some((_, connection)) = self.connections.get_mut(id) else {
            return;
        };
        if connection.kept.len() >= MAX_KEPT_FRAMES || self.kept_bytes + frame.len() > MAX_KEPT_BYTES {
            self.counters.inputs_dropped += 1;
            return;
        }
        self.counters.inputs_kept += 1;
        self.kept_bytes += frame.len();
        connection.kept.push(frame);
    }

    /// The guest has answered: what was kept for it may go.
    fn hand_out(&mut self, id: Place) {
        let Some((key, connection)) = self.connections.get_mut(id) else {
            return;
        };
        let nic = key.nic;
        for frame in std::mem::take(&mut connection.kept) {
            self.kept_bytes -= frame.len();
            let Some((segment, ..)) = parse(&frame) else {
                continue;
            };
            let Some((_, connection)) = self.connections.get_mut(id) else {
                return;
            };
            // Refused, there is nothing to learn, and nothing to be moved.
            let moved = connection.learn(&segment, &frame).map_or(Moved::default(), |()| connection.moved());
            connection.note_input_ack(&segment, moved);
            let frame = self.rewrite_input(frame, &segment, moved);
            self.ready.push_back((nic, frame));
        }
    }

    /// A connection that has ended is kept for what may still be repeated, but is the first to go.
    fn demote_closed(&mut self, id: Place, segment: &Segment) {
        let Some((_, connection)) = self.connections.get_mut(id) else {
            return;
        };
        if segment.has(TcpFlags::RST) || connection.fin_in.is_some() && connection.fin_out.is_some() {
            self.connections.demote(id);
        }
    }

    fn rewrite_input(&mut self, frame: Frame, segment: &Segment, moved: Moved) -> Frame {
        let Some(ack) = segment.ack.filter(|_| moved != Moved::default()) else {
            return frame;
        };
        self.counters.inputs_rewritten += 1;
        let mut sack = SackEdges::default();
        for option in segment.options(&frame).filter(|option| option.kind == TcpOption::SACK && moved.seq != 0) {
            sack.add(&option);
        }
        let clock = timestamps(segment, &frame).filter(|_| moved.clock != 0);
        let edit = TcpEdit::new(&frame, segment);
        frame.edit(|bytes| {
            edit.put(bytes, TCP_ACK_AT, &(ack + moved.seq).to_be_bytes());
            for (at, edge) in sack.iter() {
                edit.put(bytes, at, &(edge + moved.seq).to_be_bytes());
            }
            if let Some(Timestamps { at, echo, .. }) = clock {
                edit.put(bytes, at + size_of_val(&echo), &echo.wrapping_add(moved.clock).to_be_bytes());
            }
        })
    }

    /// The network tells by an ICMP error what became of a segment that the guest has sent.
    fn move_quoted_seq(&mut self, nic: u8, frame: Frame) -> Frame {
        let Some(quotation) = Quotation::parse(&frame) else {
            return frame;
        };
        let moved =
            self.moved(&Key { nic, vlans: quotation.vlans, guest: quotation.source, peer: quotation.destination });
        if moved.seq == 0 {
            return frame;
        }
        self.counters.inputs_rewritten += 1;
        quotation.move_seq(frame, moved.seq)
    }

    /// The guest tells what became of one that the client has sent, and that acknowledges in the guest's numbers by now.
    fn move_quoted_ack(&mut self, nic: u8, frame: Frame) -> Frame {
        let Some(quotation) = Quotation::parse(&frame).filter(|quotation| quotation.has_ack(&frame)) else {
            return frame;
        };
        let moved =
            self.moved(&Key { nic, vlans: quotation.vlans, guest: quotation.destination, peer: quotation.source });
        if moved.seq == 0 {
            return frame;
        }
        self.counters.outputs_rewritten += 1;
        quotation.move_ack(frame, moved.seq.wrapping_neg())
    }

    fn moved(&mut self, key: &Key) -> Moved {
        let found = self.connections.find(key).and_then(|id| self.connections.get_mut(id));
        found.map_or(Moved::default(), |(_, connection)| connection.moved())
    }
}

impl Default for Rewriter {
    fn default() -> Self {
        Rewriter::new()
    }
}

impl fmt::Debug for Rewriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Rewriter");
        debug.field("connections", &self.connections.len()).field("counters", &self.counters).finish_non_exhaustive()
    }
}

/// The edges of SACK blocks with their places in the TCP header. Forty bytes of options have room for four blocks.
#[derive(Default)]
struct SackEdges {
    edges: [(usize, Seq); 8],
    count: usize,
}

impl SackEdges {
    fn add(&mut self, option: &TcpOption<'_>) {
        for (index, edge) in option.data.chunks_exact(4).enumerate() {
            let Some(place) = self.edges.get_mut(self.count) else {
                return;
            };
            *place = (option.data_at + 4 * index, Seq(u32::from_be_bytes([edge[0], edge[1], edge[2], edge[3]])));
            self.count += 1;
        }
    }

    fn iter(&self) -> impl Iterator<Item = (usize, Seq)> + '_ {
        self.edges[..self.count].iter().copied()
    }
}

fn parse(frame: &[u8]) -> Option<(Segment, Vlans, SocketAddr, SocketAddr)> {
    let packet = IpPacket::parse(frame)?;
    let (segment, from, to) = Segment::parse_beginning(frame, &packet)?;
    let (source, destination) = (SocketAddr::new(packet.source, from), SocketAddr::new(packet.destination, to));
    Some((segment, packet.vlans, source, destination))
}

/// Feeds a rewriter with frames cut from arbitrary bytes: a fuzz target.
///
/// # Panics
/// When a frame changes its length, or more is kept than the limits allow.
#[doc(hidden)]
pub fn fuzz(data: &[u8]) {
    let mut rewriter = Rewriter::new();
    for (side, frame) in super::testing::cut(data) {
        let bytes = frame.len();
        match side % 16 {
            0..=6 => assert!(rewriter.handle_input(side >> 7, frame).is_none_or(|frame| frame.len() == bytes)),
            7..=13 => assert_eq!(rewriter.handle_output(side >> 7, frame).len(), bytes),
            14 => rewriter.reset(),
            _ => rewriter.go_live(),
        }
        assert!(rewriter.kept_bytes <= MAX_KEPT_BYTES);
        while rewriter.poll_input().is_some() {}
    }
}

#[cfg(test)]
mod tests;
