//! The switch's memory: which address is behind which port, and where a frame goes.
//!
//! No socket and no clock: frames and times go in, a [`Outcome`] comes out. The rules are those of an IEEE 802.1D/802.1Q
//! learning bridge without spanning tree or VLANs.
//!
//! ```
//! use colo_embedded::switch::fabric::{Delivery, Fabric, PortId};
//! use std::time::{Duration, Instant};
//!
//! let mut fabric = Fabric::new(Duration::from_secs(300));
//! let (a, b, now) = (PortId(1), PortId(2), Instant::now());
//! // To 02::2, which nobody has seen yet, from 02::1 at port a: to everyone.
//! let frame = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
//! assert_eq!(fabric.handle_frame(now, a, &frame).delivery, Delivery::Flood);
//! // The answer goes to port a alone.
//! let answer = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
//! assert_eq!(fabric.handle_frame(now, b, &answer).delivery, Delivery::To(a));
//! ```

use colo_core::domain::MacAddr;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The most addresses remembered. Far more than machines on one host's LAN; at the limit a new address is not learned, and
/// frames to it are flooded, as in a real switch.
pub const MAX_ADDRESSES: usize = 8192;

/// The most addresses remembered for one port, so that one port that makes up addresses cannot use up the table.
pub const MAX_ADDRESSES_PER_PORT: usize = 1024;

/// Bytes of an Ethernet header: destination, source, type.
pub const HEADER_BYTES: usize = 14;

/// A port of the switch. Never used again after its port is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub u32);

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Nowhere: malformed, meant for the bridge itself, or for a machine on the port it came from.
    Drop,
    /// To this port.
    To(PortId),
    /// To every port but the one it came from.
    Flood,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Where it goes.
    pub delivery: Delivery,
    /// The sender's address when it was not known at this port before: a new machine, or one that has moved.
    pub appeared: Option<MacAddr>,
}

/// The address table. See the [module](self).
#[derive(Debug)]
pub struct Fabric {
    max_age: Duration,
    table: HashMap<MacAddr, Place>,
    per_port: HashMap<PortId, usize>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    port: PortId,
    seen: Instant,
}

impl Fabric {
    /// An empty table, which forgets an address `max_age` after the last frame from it.
    pub fn new(max_age: Duration) -> Self {
        Self { max_age, table: HashMap::new(), per_port: HashMap::new() }
    }

    /// Learns from a frame that came in at `from`, and says where it goes.
    pub fn handle_frame(&mut self, now: Instant, from: PortId, frame: &[u8]) -> Outcome {
        let nothing = Outcome { delivery: Delivery::Drop, appeared: None };
        let Some(header) = frame.first_chunk::<HEADER_BYTES>() else {
            return nothing;
        };
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, ..] = *header;
        let destination = MacAddr([d0, d1, d2, d3, d4, d5]);
        let source = MacAddr([s0, s1, s2, s3, s4, s5]);
        // Nobody is a group, and nobody is zero: such a frame has no honest sender.
        if source.is_multicast() || source == MacAddr([0; 6]) {
            return nothing;
        }
        let appeared = self.learn(now, from, source).then_some(source);
        Outcome { delivery: self.route(now, from, destination), appeared }
    }

    /// The port behind which `address` is, if it is known and not too old.
    pub fn lookup(&self, now: Instant, address: MacAddr) -> Option<PortId> {
        let place = self.table.get(&address)?;
        self.is_fresh(now, place).then_some(place.port)
    }

    /// Forgets every address behind a port that is gone.
    pub fn remove_port(&mut self, port: PortId) {
        if self.per_port.remove(&port).is_some() {
            self.table.retain(|_, place| place.port != port);
        }
    }

    /// Forgets every address that is too old. Answers do not depend on it; only the space taken does.
    pub fn handle_age(&mut self, now: Instant) {
        let (max_age, per_port) = (self.max_age, &mut self.per_port);
        self.table.retain(|_, place| {
            let keep = now.saturating_duration_since(place.seen) < max_age;
            if !keep {
                release(per_port, place.port);
            }
            keep
        });
    }

    /// How many addresses are in the table, old ones included.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether no address is in the table.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Returns whether `source` was not known at `from`.
    fn learn(&mut self, now: Instant, from: PortId, source: MacAddr) -> bool {
        if let Some(place) = self.table.get_mut(&source) {
            if place.port == from {
                let was_fresh = now.saturating_duration_since(place.seen) < self.max_age;
                place.seen = now;
                return !was_fresh;
            }
        }
        if self.per_port.get(&from).copied().unwrap_or(0) >= MAX_ADDRESSES_PER_PORT {
            self.forget(source);
            return true;
        }
        self.forget(source);
        if self.table.len() >= MAX_ADDRESSES {
            self.handle_age(now);
        }
        if self.table.len() < MAX_ADDRESSES {
            self.table.insert(source, Place { port: from, seen: now });
            *self.per_port.entry(from).or_insert(0) += 1;
        }
        true
    }

    /// An address that has moved to where it cannot be learned must not stay where it was: frames to it would be lost.
    fn forget(&mut self, address: MacAddr) {
        if let Some(place) = self.table.remove(&address) {
            release(&mut self.per_port, place.port);
        }
    }

    fn route(&self, now: Instant, from: PortId, destination: MacAddr) -> Delivery {
        if is_link_local(destination) {
            return Delivery::Drop;
        }
        if destination.is_multicast() {
            return Delivery::Flood;
        }
        match self.lookup(now, destination) {
            Some(port) if port == from => Delivery::Drop,
            Some(port) => Delivery::To(port),
            None => Delivery::Flood,
        }
    }

    fn is_fresh(&self, now: Instant, place: &Place) -> bool {
        now.saturating_duration_since(place.seen) < self.max_age
    }
}

/// Whether it is one of the sixteen addresses that no bridge forwards: pause, spanning tree, LLDP (IEEE 802.1Q, table 8-1).
fn is_link_local(address: MacAddr) -> bool {
    matches!(address.0, [0x01, 0x80, 0xc2, 0, 0, 0..=0x0f])
}

fn release(per_port: &mut HashMap<PortId, usize>, port: PortId) {
    if let Some(count) = per_port.get_mut(&port) {
        *count -= 1;
        if *count == 0 {
            per_port.remove(&port);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_secs(10);

    fn frame(destination: u16, source: u16) -> [u8; HEADER_BYTES] {
        let [d, s] = [destination.to_be_bytes(), source.to_be_bytes()];
        [2, 0, 0, 0, d[0], d[1], 2, 0, 0, 0, s[0], s[1], 8, 0]
    }

    #[test]
    fn malformed_and_reserved_frames_go_nowhere_and_teach_nothing() {
        let mut fabric = Fabric::new(AGE);
        let now = Instant::now();
        let good = frame(1, 2);
        for cut in 0..HEADER_BYTES {
            assert_eq!(fabric.handle_frame(now, PortId(1), &good[..cut]).delivery, Delivery::Drop);
        }
        let mut from_group = good;
        from_group[6] |= 1;
        assert_eq!(fabric.handle_frame(now, PortId(1), &from_group).delivery, Delivery::Drop);
        assert!(fabric.is_empty());
        let pause = [1, 0x80, 0xc2, 0, 0, 1, 2, 0, 0, 0, 0, 9, 0x88, 8];
        assert_eq!(fabric.handle_frame(now, PortId(1), &pause).delivery, Delivery::Drop);
    }

    #[test]
    fn one_port_cannot_use_up_the_table() {
        let mut fabric = Fabric::new(AGE);
        let now = Instant::now();
        for source in 0..5000 {
            fabric.handle_frame(now, PortId(1), &frame(0xffff, source));
        }
        assert_eq!(fabric.len(), MAX_ADDRESSES_PER_PORT);
        fabric.handle_frame(now, PortId(2), &frame(0xffff, 6000));
        assert_eq!(fabric.handle_frame(now, PortId(1), &frame(6000, 1)).delivery, Delivery::To(PortId(2)));
    }

    #[test]
    fn the_whole_table_is_bounded_and_old_entries_make_room() {
        let mut fabric = Fabric::new(AGE);
        let start = Instant::now();
        for source in 0..10_000_u16 {
            fabric.handle_frame(start, PortId(u32::from(source) / 1000), &frame(0xffff, source));
        }
        assert_eq!(fabric.len(), MAX_ADDRESSES);
        fabric.handle_frame(start + AGE, PortId(77), &frame(0xffff, 20_000));
        assert_eq!(fabric.len(), 1);
    }
}
