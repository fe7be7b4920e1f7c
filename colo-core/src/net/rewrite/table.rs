//! The connections that are known, and apart from them those whose handshake is not over: however many of these are begun, and by
//! whomever, none that stands is forgotten for them.

use super::super::{LruTable, SlotId};
use super::{Connection, Key};

/// See the module.
pub(super) struct Connections {
    standing: LruTable<Key, Connection>,
    half_open: LruTable<Key, Connection>,
}

/// Where a connection is.
#[derive(Clone, Copy)]
pub(super) enum Place {
    Standing(SlotId),
    HalfOpen(SlotId),
}

impl Connections {
    /// Room for so many of each.
    pub(super) fn new(standing: usize, half_open: usize) -> Self {
        Connections { standing: LruTable::new(standing), half_open: LruTable::new(half_open) }
    }

    pub(super) fn len(&self) -> usize {
        self.standing.len() + self.half_open.len()
    }

    /// Finds a connection and makes it the most recently used.
    pub(super) fn find(&mut self, key: &Key) -> Option<Place> {
        let standing = self.standing.find(key).map(Place::Standing);
        standing.or_else(|| self.half_open.find(key).map(Place::HalfOpen))
    }

    /// Adds one that is not there, with its handshake before it. `None` when there is no room; else also whether another had to go.
    pub(super) fn insert(&mut self, key: Key) -> Option<(Place, bool)> {
        let inserted = self.half_open.insert(key, Connection::default(), may_go).ok()?;
        Some((Place::HalfOpen(inserted.id), inserted.evicted.is_some()))
    }

    pub(super) fn get_mut(&mut self, place: Place) -> Option<(&Key, &mut Connection)> {
        match place {
            Place::Standing(id) => self.standing.get_mut(id),
            Place::HalfOpen(id) => self.half_open.get_mut(id),
        }
    }

    /// Its handshake may be over by now. Returns where it is from here on, and whether another had to go.
    pub(super) fn settle(&mut self, place: Place) -> (Place, bool) {
        let Place::HalfOpen(id) = place else {
            return (place, false);
        };
        let Some((key, _)) = self.half_open.get_mut(id).filter(|(_, connection)| connection.difference.is_some())
        else {
            return (place, false);
        };
        let key = *key;
        let Some(connection) = self.half_open.remove(id) else {
            return (place, false);
        };
        // One that may not go is one whose ports are used again.
        match self.standing.insert(key, connection, may_go) {
            Ok(inserted) => (Place::Standing(inserted.id), inserted.evicted.is_some()),
            Err(_) => (place, true),
        }
    }

    /// Makes it the first to go.
    pub(super) fn demote(&mut self, place: Place) {
        match place {
            Place::Standing(id) => self.standing.demote(id),
            Place::HalfOpen(id) => self.half_open.demote(id),
        }
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Connection> {
        self.standing.values_mut().chain(self.half_open.values_mut())
    }

    pub(super) fn clear(&mut self) {
        self.standing.clear();
        self.half_open.clear();
    }
}

/// Frames that are kept for a connection would be lost with it.
fn may_go(connection: &Connection) -> bool {
    connection.kept.is_empty()
}
