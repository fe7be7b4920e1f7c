//! TCP, compared as a stream of bytes. The rules are in the table of the [module above](super).

mod connection;
mod ranges;
mod secondary;
mod stream;

use super::flow::{Held, Outbox, Outgoing, Waiting, Witness, longest};
use super::verdict::Reason;
use crate::net::wire::{Segment, TcpFlags};
use connection::{Connection, Side};
use std::collections::VecDeque;

/// One direction between two ports: the connections there, one after the other.
///
/// The two machines need not open the next connection at the same moment. Each side has its place in the list; the first
/// connection is gone through to its end before the next.
#[derive(Debug)]
pub(super) struct TcpFlow {
    connections: VecDeque<Connection>,
    primary_at: usize,
    secondary_at: usize,
}

impl Default for TcpFlow {
    fn default() -> Self {
        TcpFlow { connections: VecDeque::from([Connection::default()]), primary_at: 0, secondary_at: 0 }
    }
}

impl TcpFlow {
    pub(super) fn push_primary(&mut self, outgoing: Outgoing, segment: Segment) {
        self.primary_at = self.place(Side::Primary, self.primary_at, &segment);
        self.connections[self.primary_at].push_primary(outgoing, segment);
    }

    pub(super) fn push_secondary(
        &mut self,
        witness: Witness,
        segment: Segment,
        out: &mut Outbox,
    ) -> Result<(), Reason> {
        self.secondary_at = self.place(Side::Secondary, self.secondary_at, &segment);
        self.connections[self.secondary_at].push_secondary(witness, segment, out)
    }

    pub(super) fn advance(&mut self, out: &mut Outbox) -> Result<(), Reason> {
        loop {
            self.connections[0].advance(out)?;
            if self.primary_at == 0 || self.secondary_at == 0 || !self.connections[0].is_idle() {
                return Ok(());
            }
            self.connections.pop_front();
            self.primary_at -= 1;
            self.secondary_at -= 1;
        }
    }

    pub(super) fn begin_epoch(&mut self, ended: &mut Vec<Outgoing>) {
        for connection in &mut self.connections {
            connection.begin_epoch(ended);
        }
        // The primary may have left earlier connections, and the secondary may have been ahead.
        self.connections.truncate(self.primary_at + 1);
        self.connections.drain(..self.primary_at);
        (self.primary_at, self.secondary_at) = (0, 0);
    }

    pub(super) fn waiting(&self) -> Option<Waiting> {
        self.connections.iter().map(Connection::waiting).fold(None, longest)
    }

    pub(super) fn held(&self) -> Held {
        self.connections.iter().map(Connection::held_bytes).fold(Held::default(), |sum, (primary, secondary)| Held {
            primary: sum.primary + primary,
            secondary: sum.secondary + secondary,
        })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.connections.len() == 1 && self.connections[0].is_closed()
    }

    /// The connection that a segment of this side belongs to.
    fn place(&mut self, side: Side, at: usize, segment: &Segment) -> usize {
        let connection = &self.connections[at];
        let stays = connection.knows_syn(side, segment.seq) || connection.accepts_syn(side);
        if !segment.has(TcpFlags::SYN) || stays {
            return at;
        }
        if at + 1 == self.connections.len() {
            self.connections.push_back(Connection::default());
        }
        at + 1
    }
}
