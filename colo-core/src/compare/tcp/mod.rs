//! TCP, compared as a stream of bytes. The rules are in the table of the [module above](super).

mod connection;
mod part;
mod ranges;
mod secondary;
mod stream;
mod window;

use super::flow::{Held, Outbox, Outgoing, Waiting, What, Witness, longest};
use super::verdict::{Evidence, Reason};
use crate::compare::spares::Spares;
use crate::net::wire::{Segment, TcpFlags};
use connection::{Connection, Side};
use std::collections::VecDeque;

/// The most connections there after the first. A client that opens and resets them faster than the machines come to agree needs a
/// checkpoint; until then each of them costs all that is done here.
pub(super) const MAX_LATER: usize = 16;

/// One direction between two ports: the connections there, one after the other.
///
/// The two machines need not open the next connection at the same moment. Each side has its place in the list; the first
/// connection is gone through to its end before the next.
#[derive(Default, Debug)]
pub(super) struct TcpFlow {
    first: Connection,
    /// Those after it: none but for a moment.
    later: VecDeque<Connection>,
    primary_at: usize,
    secondary_at: usize,
    /// The primary is beyond the last of them: what it says is of a connection that has no place here.
    is_beyond: bool,
}

/// Memory for the queues of all TCP flows.
#[derive(Default, Debug)]
pub(super) struct TcpSpares {
    held: Spares<connection::Held>,
    pending: Spares<secondary::Pending>,
    pieces: Spares<stream::Piece>,
}

impl TcpFlow {
    /// Whether there is a place for what the primary says; if there is not, there is none for what follows, either, before the next epoch.
    pub(super) fn has_room_for_primary(&mut self, segment: &Segment) -> bool {
        let at = self.primary_at;
        self.is_beyond |= at == MAX_LATER && self.opens_next(Side::Primary, at, segment);
        !self.is_beyond
    }

    /// Whether there is a place for what the secondary says.
    pub(super) fn has_room_for_secondary(&self, segment: &Segment) -> bool {
        let at = self.secondary_at;
        !(at == MAX_LATER && self.opens_next(Side::Secondary, at, segment))
    }

    pub(super) fn push_primary(&mut self, outgoing: Outgoing, segment: &Segment, spares: &mut TcpSpares) {
        self.primary_at = self.place(Side::Primary, self.primary_at, segment);
        self.at(self.primary_at).push_primary(outgoing, segment, spares);
    }

    pub(super) fn push_secondary(
        &mut self,
        witness: Witness,
        segment: &Segment,
        out: &mut Outbox,
    ) -> Result<(), Reason> {
        self.secondary_at = self.place(Side::Secondary, self.secondary_at, segment);
        self.at(self.secondary_at).push_secondary(witness, segment, out)
    }

    pub(super) fn advance(&mut self, out: &mut Outbox) -> Result<(), Reason> {
        loop {
            self.first.advance(out)?;
            if self.primary_at == 0 || self.secondary_at == 0 || !self.first.is_idle() {
                return Ok(());
            }
            self.leave_first();
            self.secondary_at -= 1;
        }
    }

    /// The client has reset the connection.
    pub(super) fn client_reset(&mut self) {
        self.all_mut().for_each(Connection::client_reset);
    }

    /// Lets what the primary has said last go before what it said earlier, if the client may have seen it.
    pub(super) fn overtake(&mut self, out: &mut Outbox) {
        self.at(self.primary_at).overtake(out);
    }

    /// Whether only a part of what is to leave next has been said by both.
    pub(super) fn has_part(&self) -> bool {
        self.first.has_part()
    }

    /// Lets that part go.
    pub(super) fn release_part(&mut self, out: &mut Outbox) {
        self.first.release_part(out);
    }

    pub(super) fn begin_epoch(&mut self, ended: &mut Vec<Outgoing>, spares: &mut TcpSpares) {
        for connection in self.all_mut() {
            connection.begin_epoch(ended, spares);
        }
        // The primary may have left earlier connections, and the secondary may have been ahead.
        self.later.truncate(self.primary_at);
        while self.primary_at > 0 {
            self.leave_first();
        }
        self.secondary_at = 0;
        if std::mem::take(&mut self.is_beyond) {
            // Both machines are in a connection of which nothing is known, as in one that is older than protection.
            self.first = Connection::default();
        }
    }

    pub(super) fn waiting(&self) -> Option<Waiting> {
        // What a client has reset must not hide what waits in the connection that came after it.
        let is_heard = |waiting: &Waiting| waiting.what != What::Nobody;
        let heard = self.all().filter_map(|connection| connection.waiting().filter(is_heard));
        heard.map(Some).fold(None, longest).or_else(|| self.all().map(Connection::waiting).fold(None, longest))
    }

    pub(super) fn held(&self) -> Held {
        self.all().map(Connection::held_bytes).fold(Held::default(), |sum, (primary, secondary)| Held {
            primary: sum.primary + primary,
            secondary: sum.secondary + secondary,
        })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.later.is_empty() && self.first.is_closed()
    }

    /// The frames that wait, of each machine.
    pub(super) fn evidence(&self) -> Evidence {
        Evidence::new(
            self.all().flat_map(Connection::primary_frames),
            self.all().flat_map(Connection::secondary_frames),
        )
    }

    /// The connection that a segment of this side belongs to.
    fn place(&mut self, side: Side, at: usize, segment: &Segment) -> usize {
        if !self.opens_next(side, at, segment) {
            return at;
        }
        if at == self.later.len() {
            self.later.push_back(Connection::default());
        }
        at + 1
    }

    /// Whether a segment of this side opens the connection after that one.
    fn opens_next(&self, side: Side, at: usize, segment: &Segment) -> bool {
        let connection = if at == 0 { &self.first } else { &self.later[at - 1] };
        segment.has(TcpFlags::SYN) && !connection.knows_syn(side, segment.seq) && !connection.accepts_syn(side)
    }

    fn at(&mut self, index: usize) -> &mut Connection {
        if index == 0 { &mut self.first } else { &mut self.later[index - 1] }
    }

    fn all(&self) -> impl Iterator<Item = &Connection> {
        std::iter::once(&self.first).chain(&self.later)
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Connection> {
        std::iter::once(&mut self.first).chain(&mut self.later)
    }

    /// The first connection is over, for the primary at least.
    fn leave_first(&mut self) {
        self.first = self.later.pop_front().unwrap_or_default();
        self.primary_at -= 1;
    }
}
