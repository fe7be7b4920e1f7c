//! What all connections share.

use alloc::vec::Vec;

use crate::{
    arena::Arena,
    disk::Disk,
    http::HEAD_LIMIT,
    kv::Kv,
    log::format::Area,
    nudge::{Connection, Watch},
    sum::Sum,
};

/// The guest's state that outlives connections.
pub struct State {
    /// Behind `/kv`.
    pub kv: Kv,
    /// Behind `/dirty`.
    pub arena: Arena,
    /// The guest's time at boot, in ns.
    pub boot_ns: u64,
    /// Behind `/disk`, and under the store.
    pub disk: Option<Disk>,
}

impl State {
    /// How the disk is divided, if there is one.
    pub fn area(&self) -> Option<Area> {
        self.disk.as_ref().map(|disk| Area::of(disk.bytes()))
    }

    /// Goes on as far as the disk has come: hands out what is done, and sends on its way what is asked for. Whether anything was done.
    pub fn pump(&mut self) -> bool {
        let Some(disk) = &mut self.disk else {
            return false;
        };
        let mut any = false;
        loop {
            any |= disk.pump();
            if !self.kv.pump(disk) {
                return any;
            }
        }
    }

    /// The checksum over the store and the arena. Network buffers are no part of it: they depend on packets' fates.
    pub fn sum(&self) -> u64 {
        let mut sum = Sum::default();
        self.kv.store().add_to(&mut sum);
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
