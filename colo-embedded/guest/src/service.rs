//! What all connections share.

use alloc::vec::Vec;

use crate::{
    arena::Arena,
    http::HEAD_LIMIT,
    nudge::{Connection, Watch},
    store::Store,
    sum::Sum,
};

/// The guest's state that outlives connections.
pub struct State {
    /// Behind `/kv`.
    pub store: Store,
    /// Behind `/dirty`.
    pub arena: Arena,
    /// The guest's time at boot, in ns.
    pub boot_ns: u64,
}

impl State {
    /// The checksum over the store and the arena. Network buffers are no part of it: they depend on packets' fates.
    pub fn sum(&self) -> u64 {
        let mut sum = Sum::default();
        self.store.add_to(&mut sum);
        self.arena.add_to(&mut sum);
        sum.value()
    }
}

/// What a connection is served with.
pub struct Context<'a> {
    /// The guest's time at the start of the turn, in ns.
    pub now_ns: u64,
    /// Reads the guest's time, in ns.
    pub clock: fn() -> u64,
    /// The shared state.
    pub state: &'a mut State,
    /// A place for bytes that must lie in one piece; nothing stays in it.
    pub scratch: &'a mut [u8; HEAD_LIMIT],
    /// What the peers said last.
    pub watch: &'a mut Watch,
    /// Gathers the connections that stand still.
    pub stalled: &'a mut Vec<Connection>,
}
