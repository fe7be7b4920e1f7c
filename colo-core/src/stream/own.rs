//! Our own records, all optional, so that Xen's tools skip them: what belongs to a checkpoint but is no state of the domain.
//!
//! The embedded hypervisor's two records ([`kind::EMBEDDED_VCPU`], [`kind::EMBEDDED_DEVICES`]) are opaque here.
//!
//! ```
//! use colo_core::stream::NetState;
//!
//! let state = NetState::default();
//! let records = state.to_records()?;
//! assert_eq!(NetState::from_records(&records)?, state);
//! # Ok::<(), colo_core::stream::StreamError>(())
//! ```

use super::error::{Fault, StreamError};
use super::{MAX_BODY_BYTES, PfnRanges, kind};
use crate::domain::StateRecord;
use crate::net::announce::Address;
use crate::peer::wire::{ADDRESS_BYTES, FRAME_OVERHEAD_BYTES, Fields, check_limit, check_nic, put_address, put_frame};
use crate::peer::{NetFrame, PayloadError};
use bytes::Bytes;
use zerocopy::byteorder::little_endian::U128;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What the network must know at a checkpoint: the addresses that the guest uses, to be announced after a failover, and the
/// primary's output that has not left yet, to be sent by the secondary if the primary can not.
///
/// Travels as one or more NET_STATE records, little-endian: the number of addresses and of frames in this part (`u32` each); for
/// each address the card (`u8`), the Ethernet address (6 bytes), whether there is an IPv4 address (`u8`, 0 or 1), and that
/// (4 bytes, zeroes if none); for each frame its length (`u32`), the card (`u8`; plus 128 if an offload
/// follows), the offload if there is one (10 bytes), and its bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NetState {
    /// The addresses.
    pub addresses: Vec<Address>,
    /// The output that is held, oldest first.
    pub held: Vec<NetFrame>,
}

/// Bytes of the two counts.
const COUNTS_BYTES: usize = 8;
/// Bytes of an address with its card.
const NIC_ADDRESS_BYTES: usize = 1 + ADDRESS_BYTES;

impl NetState {
    /// The most addresses: 4 for each of the most network cards; a machine that answers to more is a router.
    pub const MAX_ADDRESSES: usize = 64;
    /// The most bytes of frames held: 50 ms of a 10 Gbit/s card that sends all the time. A gate that holds more must take a
    /// checkpoint or throw frames away, as a full card does.
    pub const MAX_HELD_BYTES: usize = 64 << 20;
    /// The most frames held: what [`NetState::MAX_HELD_BYTES`] holds of 256 bytes each, so that many small ones do not cost
    /// more memory to keep than they are long.
    pub const MAX_HELD_FRAMES: usize = 256 * 1024;

    /// The NET_STATE records.
    ///
    /// # Errors
    /// [`Fault::Body`] when there is more of anything than the limits say.
    pub fn to_records(&self) -> Result<Vec<StateRecord>, StreamError> {
        self.parts().map_err(body_error(kind::NET_STATE))
    }

    /// What all NET_STATE records among these hold together.
    ///
    /// # Errors
    /// Those of [`NetState::add_part`].
    pub fn from_records(records: &[StateRecord]) -> Result<NetState, StreamError> {
        let mut state = NetState::default();
        records
            .iter()
            .filter(|record| record.kind == kind::NET_STATE)
            .try_for_each(|part| state.add_part(&part.body))?;
        Ok(state)
    }

    /// Adds what one NET_STATE record holds.
    ///
    /// # Errors
    /// [`Fault::Body`] when the record is malformed, or more than the limits has come in all parts together; nothing is added.
    pub fn add_part(&mut self, body: &[u8]) -> Result<(), StreamError> {
        let part = NetState::parse_part(body).map_err(body_error(kind::NET_STATE))?;
        check_totals(
            self.addresses.len() + part.addresses.len(),
            self.held.len() + part.held.len(),
            held_bytes(&self.held) + held_bytes(&part.held),
        )
        .map_err(body_error(kind::NET_STATE))?;
        self.addresses.extend(part.addresses);
        self.held.extend(part.held);
        Ok(())
    }

    fn parts(&self) -> Result<Vec<StateRecord>, PayloadError> {
        check_totals(self.addresses.len(), self.held.len(), held_bytes(&self.held))?;
        let mut records = Vec::new();
        let mut part = Part::new();
        for address in &self.addresses {
            part.put_address(address)?;
        }
        for frame in &self.held {
            if part.body.len() + FRAME_OVERHEAD_BYTES + frame.frame.len() > MAX_BODY_BYTES {
                records.push(std::mem::replace(&mut part, Part::new()).finish());
            }
            part.put_frame(frame)?;
        }
        records.push(part.finish());
        Ok(records)
    }

    fn parse_part(body: &[u8]) -> Result<NetState, PayloadError> {
        let payload = Bytes::copy_from_slice(body);
        let mut fields = Fields::new(&payload);
        let address_count = fields.count("addresses", Self::MAX_ADDRESSES, NIC_ADDRESS_BYTES)?;
        let frame_count = fields.count("held frames", Self::MAX_HELD_FRAMES, FRAME_OVERHEAD_BYTES)?;
        let addresses = (0..address_count).map(|_| parse_address(&mut fields)).collect::<Result<_, _>>()?;
        let held = (0..frame_count).map(|_| fields.frame(&payload)).collect::<Result<_, _>>()?;
        fields.end()?;
        Ok(NetState { addresses, held })
    }
}

/// One NET_STATE record in the making.
struct Part {
    body: Vec<u8>,
    addresses: u32,
    frames: u32,
}

impl Part {
    fn new() -> Part {
        Part { body: vec![0; COUNTS_BYTES], addresses: 0, frames: 0 }
    }

    fn put_address(&mut self, address: &Address) -> Result<(), PayloadError> {
        check_nic(address.nic)?;
        self.body.push(address.nic);
        put_address(&mut self.body, address.mac, address.ipv4);
        self.addresses += 1;
        Ok(())
    }

    fn put_frame(&mut self, frame: &NetFrame) -> Result<(), PayloadError> {
        self.frames += 1;
        put_frame(&mut self.body, frame)
    }

    fn finish(mut self) -> StateRecord {
        self.body[..4].copy_from_slice(&self.addresses.to_le_bytes());
        self.body[4..COUNTS_BYTES].copy_from_slice(&self.frames.to_le_bytes());
        StateRecord { kind: kind::NET_STATE, body: self.body }
    }
}

fn parse_address(fields: &mut Fields<'_>) -> Result<Address, PayloadError> {
    let nic = fields.nic()?;
    let (mac, ipv4) = fields.address()?;
    Ok(Address { nic, mac, ipv4 })
}

fn held_bytes(held: &[NetFrame]) -> usize {
    held.iter().map(|frame| frame.frame.len()).sum()
}

fn check_totals(addresses: usize, frames: usize, bytes: usize) -> Result<(), PayloadError> {
    check_limit("addresses", NetState::MAX_ADDRESSES, addresses)?;
    check_limit("held frames", NetState::MAX_HELD_FRAMES, frames)?;
    check_limit("held bytes", NetState::MAX_HELD_BYTES, bytes)
}

fn body_error(kind: u32) -> impl Fn(PayloadError) -> StreamError {
    move |error| StreamError { offset: 0, fault: Fault::Body { kind, error } }
}

/// What the primary's machine hashes to at a checkpoint, so that the secondary's can be compared after it: a MEMORY_HASH record
/// of two XXH3-128 numbers, little-endian, and the pages that the first leaves out, as [`PfnRanges`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemoryHash {
    /// Over all guest memory: of each page that is not all zeroes, from page 0 on, its number (`u64`, little-endian) and its bytes.
    pub memory: u128,
    /// Over the domain's state records, one after the other: of each its type (`u32`), the length of its body (`u64`), little-endian,
    /// and its body.
    pub state: u128,
    /// Pages that are not in it: others than the guest write to them, also while it stands still.
    pub left_out: PfnRanges,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawMemoryHash {
    memory: U128,
    state: U128,
}

impl MemoryHash {
    /// The record.
    ///
    /// # Errors
    /// [`Fault::Body`] when too many pages are left out.
    pub fn to_record(&self) -> Result<StateRecord, StreamError> {
        let kind = kind::MEMORY_HASH;
        let mut body = RawMemoryHash { memory: self.memory.into(), state: self.state.into() }.as_bytes().to_vec();
        self.left_out.put(&mut body).map_err(body_error(kind))?;
        Ok(StateRecord { kind, body })
    }

    /// Reads the record's body.
    ///
    /// # Errors
    /// [`Fault::BadLength`]; [`Fault::Body`].
    pub fn parse(body: &[u8]) -> Result<MemoryHash, StreamError> {
        let kind = kind::MEMORY_HASH;
        let (raw, rest) = RawMemoryHash::ref_from_prefix(body)
            .map_err(|_| Fault::BadLength { kind, length: body.len() }.at_start())?;
        let mut fields = Fields::new(rest);
        let left_out = PfnRanges::read(&mut fields).map_err(body_error(kind))?;
        fields.end().map_err(body_error(kind))?;
        Ok(MemoryHash { memory: raw.memory.get(), state: raw.state.get(), left_out })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::MacAddr;
    use crate::ids::Pfn;
    use crate::stream::{Limits, RecordRef, Records, write_record};
    use proptest::prelude::*;

    fn read(bytes: &[u8]) -> Result<(NetState, usize), StreamError> {
        let (mut state, mut parts) = (NetState::default(), 0);
        for record in Records::new(bytes, Limits::new(1)) {
            match record? {
                RecordRef::Own { kind: kind::NET_STATE, body } => state.add_part(body)?,
                other => panic!("{other:?}"),
            }
            parts += 1;
        }
        Ok((state, parts))
    }

    fn put(state: &NetState, out: &mut Vec<u8>) -> Result<(), StreamError> {
        state.to_records()?.iter().try_for_each(|record| write_record(out, record.kind, &record.body))
    }

    fn address() -> impl Strategy<Value = Address> {
        (0_u8..16, any::<[u8; 6]>(), any::<Option<[u8; 4]>>()).prop_map(|(nic, mac, ipv4)| Address {
            nic,
            mac: MacAddr(mac),
            ipv4: ipv4.map(Into::into),
        })
    }

    fn frame() -> impl Strategy<Value = NetFrame> {
        (0_u8..16, prop::collection::vec(any::<u8>(), 0..60))
            .prop_map(|(nic, frame)| NetFrame { nic, frame: frame.into() })
    }

    prop_compose! {
        fn net_state()(
            addresses in prop::collection::vec(address(), 0..=NetState::MAX_ADDRESSES),
            held in prop::collection::vec(frame(), 0..20),
        ) -> NetState {
            NetState { addresses, held }
        }
    }

    proptest! {
        #[test]
        fn net_states_round_trip(state in net_state()) {
            let mut bytes = Vec::new();
            put(&state, &mut bytes).unwrap();
            prop_assert_eq!(read(&bytes).unwrap(), (state, 1));
        }

        #[test]
        fn a_part_cut_off_anywhere_or_too_long_adds_nothing(state in net_state()) {
            let mut bytes = Vec::new();
            put(&state, &mut bytes).unwrap();
            let (RecordRef::Own { body, .. }, _) = RecordRef::parse(&bytes, &Limits::new(1)).unwrap() else { panic!() };
            let mut read = NetState::default();
            for length in 0..body.len() {
                prop_assert!(read.add_part(&body[..length]).is_err());
            }
            prop_assert!(read.add_part(&[body, &[0]].concat()).is_err());
            prop_assert_eq!(read, NetState::default());
        }

        #[test]
        fn hashes_round_trip(memory: u128, state: u128, left_out in prop::collection::btree_set(0_u64..50, 0..9)) {
            let hash = MemoryHash { memory, state, left_out: left_out.into_iter().map(Pfn).collect() };
            let StateRecord { kind: kind::MEMORY_HASH, body } = hash.to_record().unwrap() else { panic!() };
            prop_assert_eq!(MemoryHash::parse(&body), Ok(hash));
            prop_assert!((0..body.len()).all(|length| MemoryHash::parse(&body[..length]).is_err()));
            prop_assert!(MemoryHash::parse(&[body.as_slice(), &[0]].concat()).is_err());
        }
    }

    #[test]
    fn much_output_travels_in_several_records() {
        let frame = |index: usize| NetFrame { nic: 0, frame: vec![index as u8; 64 * 1024].into() };
        let state = NetState { addresses: Vec::new(), held: (0..300).map(frame).collect() };
        let mut bytes = Vec::new();
        put(&state, &mut bytes).unwrap();
        let (got, parts) = read(&bytes).unwrap();
        assert!(got == state);
        assert_eq!(parts, 3, "19 MiB in records of 8 MiB");
    }

    #[test]
    fn limits_hold_over_all_parts() {
        let address = Address { nic: 0, mac: MacAddr([1; 6]), ipv4: None };
        let full = NetState { addresses: vec![address; NetState::MAX_ADDRESSES], held: Vec::new() };
        let mut bytes = Vec::new();
        put(&full, &mut bytes).unwrap();
        put(&full, &mut bytes).unwrap();
        let error = read(&bytes).unwrap_err();
        let expected = PayloadError::TooMany { what: "addresses", limit: 64, got: 128 };
        assert_eq!(error.fault, Fault::Body { kind: kind::NET_STATE, error: expected });
    }

    #[test]
    fn what_is_beyond_a_limit_is_not_written() {
        let frame = |bytes: usize| NetFrame { nic: 0, frame: vec![0; bytes].into() };
        let held = |held| NetState { addresses: Vec::new(), held };
        let address = Address { nic: 16, mac: MacAddr([1; 6]), ipv4: None };
        let refused = [
            held(vec![frame(1); NetState::MAX_HELD_FRAMES + 1]),
            held(vec![frame(64 * 1024); NetState::MAX_HELD_BYTES / (64 * 1024) + 1]),
            held(vec![frame(crate::net::MAX_FRAME_BYTES + 1)]),
            NetState { addresses: vec![address], held: Vec::new() },
        ];
        for state in refused {
            assert!(state.to_records().is_err());
        }
    }
}
