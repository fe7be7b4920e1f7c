//! Whose addresses a machine has, and what tells the network where it went.
//!
//! After a failover the same Ethernet address answers behind another port of the switch. The switch learns that from any frame
//! with this source address, sent to everybody; neighbours learn it from an ARP announcement.
//!
//! ```
//! use colo_core::net::announce::AddressBook;
//! use colo_core::net::testing::{CLIENT, GUEST, GUEST_MAC, arp_request};
//!
//! let mut book = AddressBook::default();
//! book.learn(0, &arp_request(CLIENT));
//! let address = book.addresses()[0];
//! assert_eq!((address.mac, address.ipv4), (GUEST_MAC, Some(GUEST)));
//! assert_eq!(book.announcements().count(), 1);
//! ```

use super::Frame;
use super::ip::{IpPacket, Network, Vlans};
use super::wire::{ETHERTYPE_ARP, MIN_WIRE_FRAME_BYTES};
use crate::domain::MacAddr;
use std::net::Ipv4Addr;

/// The most addresses that a book holds: a machine has few, and only a router has more, which need no announcement.
pub const MAX_ADDRESSES: usize = 64;

const ETHERTYPE_RARP: u16 = 0x8035;
const ARP_REQUEST: u16 = 1;
const RARP_REQUEST: u16 = 3;
/// An ARP packet for Ethernet and IPv4.
const ARP_BYTES: usize = 28;

/// An address that the guest uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address {
    /// The network card.
    pub nic: u8,
    /// The Ethernet address.
    pub mac: MacAddr,
    /// The IPv4 address that goes with it, once the guest has used one.
    pub ipv4: Option<Ipv4Addr>,
}

/// The addresses that a guest uses, learnt from what it sends.
///
/// What a guest says of itself by ARP is taken as it is. The sources of its IPv4 packets count only until then: a guest that routes
/// sends the packets of others, whose addresses must not be announced as its own.
#[derive(Clone, Default, Debug)]
pub struct AddressBook {
    known: Vec<Known>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    address: Address,
    /// Whether the guest claimed it by ARP.
    claimed: bool,
}

impl AddressBook {
    /// A book with these addresses; more than [`MAX_ADDRESSES`] are left out.
    pub fn new(addresses: impl IntoIterator<Item = Address>) -> Self {
        let claimed = |address: Address| Known { address, claimed: address.ipv4.is_some() };
        AddressBook { known: addresses.into_iter().map(claimed).take(MAX_ADDRESSES).collect() }
    }

    /// Adds an address that is known from elsewhere, as if the guest had claimed it.
    pub fn add(&mut self, address: Address) {
        self.note(address, address.ipv4.is_some());
    }

    /// Learns from a frame that the guest sent. What is not understood, or no longer fits, teaches nothing.
    pub fn learn(&mut self, nic: u8, frame: &[u8]) {
        let Some(source) = frame.get(6..12) else {
            return;
        };
        let mac = mac_at(source);
        if !is_host(mac) {
            return;
        }
        match Network::parse(frame) {
            // What the guest says in a VLAN holds there only.
            Some(Network { ethertype: ETHERTYPE_ARP, vlans, at }) if vlans == Vlans::default() => {
                self.learn_arp(nic, &frame[at..]);
            }
            Some(_) => {
                let ipv4 = IpPacket::parse(frame).and_then(|packet| packet.source_v4()).filter(|ip| is_host_ip(*ip));
                self.note(Address { nic, mac, ipv4 }, false);
            }
            None => {}
        }
    }

    /// What is known, in the order in which it was learnt.
    pub fn addresses(&self) -> Vec<Address> {
        self.known.iter().map(|known| known.address).collect()
    }

    /// What is to be sent, and from which card, to tell the network where the machine is now.
    pub fn announcements(&self) -> impl Iterator<Item = (u8, Frame)> + '_ {
        self.known.iter().map(|Known { address, .. }| match address.ipv4 {
            Some(ipv4) => (address.nic, gratuitous_arp(address.mac, ipv4)),
            None => (address.nic, rarp(address.mac)),
        })
    }

    fn learn_arp(&mut self, nic: u8, arp: &[u8]) {
        const ETHERNET_AND_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
        if arp.len() < ARP_BYTES || arp[..6] != ETHERNET_AND_IPV4 {
            return;
        }
        let mac = mac_at(&arp[8..14]);
        let ipv4 = Ipv4Addr::new(arp[14], arp[15], arp[16], arp[17]);
        if is_host(mac) {
            // A probe (RFC 5227) has no sender address yet.
            self.note(Address { nic, mac, ipv4: is_host_ip(ipv4).then_some(ipv4) }, is_host_ip(ipv4));
        }
    }

    fn note(&mut self, address: Address, claimed: bool) {
        let of_card = |known: &Known| known.address.nic == address.nic && known.address.mac == address.mac;
        // The common case, for every frame of a settled guest.
        if self
            .known
            .iter()
            .any(|known| of_card(known) && known.address.ipv4 == address.ipv4 && known.claimed >= claimed)
        {
            return;
        }
        if address.ipv4.is_none() && self.known.iter().any(of_card) {
            return;
        }
        if !claimed && self.known.iter().any(|known| of_card(known) && known.claimed) {
            return;
        }
        // Better knowledge takes the place of worse.
        self.known.retain(|known| !of_card(known) || known.claimed);
        if self.known.len() < MAX_ADDRESSES {
            self.known.push(Known { address, claimed });
        }
    }
}

/// The ARP announcement of RFC 5227 §1.1 (packet format: RFC 826): a request to everybody for the sender's own address.
pub fn gratuitous_arp(mac: MacAddr, ipv4: Ipv4Addr) -> Frame {
    arp(ETHERTYPE_ARP, ARP_REQUEST, mac, ipv4, [0; 6])
}

/// The announcement of a machine whose IPv4 address is not known: a reverse ARP request (RFC 903) to everybody for its own Ethernet
/// address. Nobody answers; switches learn where the address is. Hypervisors announce migrated guests in this way.
pub fn rarp(mac: MacAddr) -> Frame {
    arp(ETHERTYPE_RARP, RARP_REQUEST, mac, Ipv4Addr::UNSPECIFIED, mac.0)
}

fn arp(ethertype: u16, operation: u16, mac: MacAddr, ipv4: Ipv4Addr, target_mac: [u8; 6]) -> Frame {
    let mut frame = Vec::with_capacity(MIN_WIRE_FRAME_BYTES);
    frame.extend_from_slice(&MacAddr::BROADCAST.0);
    frame.extend_from_slice(&mac.0);
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4]);
    frame.extend_from_slice(&operation.to_be_bytes());
    frame.extend_from_slice(&mac.0);
    frame.extend_from_slice(&ipv4.octets());
    frame.extend_from_slice(&target_mac);
    frame.extend_from_slice(&ipv4.octets());
    frame.resize(MIN_WIRE_FRAME_BYTES, 0);
    frame.into()
}

fn mac_at(bytes: &[u8]) -> MacAddr {
    let mut mac = [0; 6];
    mac.copy_from_slice(bytes);
    MacAddr(mac)
}

fn is_host(mac: MacAddr) -> bool {
    !mac.is_multicast() && mac != MacAddr([0; 6])
}

fn is_host_ip(ip: Ipv4Addr) -> bool {
    !ip.is_unspecified() && !ip.is_broadcast() && !ip.is_multicast() && !ip.is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{CLIENT, GUEST, GUEST_MAC, arp_request, tagged, udp};
    use etherparse::{ArpOperation, NetSlice, SlicedPacket};
    use proptest::prelude::*;

    #[test]
    fn another_parser_reads_the_announcement() {
        let frame = gratuitous_arp(GUEST_MAC, GUEST);
        let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(NetSlice::Arp(arp)) = sliced.net else { panic!("not ARP: {sliced:?}") };
        assert_eq!(arp.operation(), ArpOperation::REQUEST);
        assert_eq!((arp.sender_hw_addr(), arp.sender_protocol_addr()), (&GUEST_MAC.0[..], &GUEST.octets()[..]));
        assert_eq!((arp.target_hw_addr(), arp.target_protocol_addr()), (&[0; 6][..], &GUEST.octets()[..]));
        assert_eq!(&frame[..6], MacAddr::BROADCAST.0);
    }

    #[test]
    fn rarp_has_the_fields_of_rfc_903() {
        let frame = rarp(GUEST_MAC);
        assert_eq!(&frame[12..22], [0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
        assert_eq!((&frame[22..28], &frame[32..38]), (&GUEST_MAC.0[..], &GUEST_MAC.0[..]));
        assert_eq!(frame.len(), MIN_WIRE_FRAME_BYTES);
    }

    #[test]
    fn what_is_said_in_a_vlan_is_not_announced_outside_of_it() {
        for frame in [udp(1, 2, b"x"), arp_request(CLIENT)] {
            let mut book = AddressBook::default();
            book.learn(0, &tagged(&frame, &[(0x8100, 5)]));
            assert_eq!(book.addresses(), [Address { nic: 0, mac: GUEST_MAC, ipv4: None }]);
        }
    }

    #[test]
    fn arp_corrects_what_packets_suggested() {
        let mut book = AddressBook::default();
        let mut other = udp(1, 2, b"forwarded").to_vec();
        other[26..30].copy_from_slice(&[192, 168, 7, 7]);
        book.learn(0, &other);
        assert_eq!(book.addresses()[0].ipv4, Some(Ipv4Addr::new(192, 168, 7, 7)));
        book.learn(0, &arp_request(CLIENT));
        book.learn(0, &other);
        book.learn(0, &arp_request(CLIENT));
        assert_eq!(book.addresses(), [Address { nic: 0, mac: GUEST_MAC, ipv4: Some(GUEST) }]);
    }

    #[test]
    fn a_card_without_ipv4_is_announced_by_rarp_until_it_has_one() {
        let mut book = AddressBook::default();
        let mut ipv6 = [MacAddr::BROADCAST.0, GUEST_MAC.0].concat();
        ipv6.extend_from_slice(&[0x86, 0xdd, 0x60]);
        book.learn(1, &ipv6);
        assert_eq!(book.announcements().collect::<Vec<_>>(), [(1, rarp(GUEST_MAC))]);
        book.learn(1, &udp(1, 2, b""));
        assert_eq!(book.announcements().collect::<Vec<_>>(), [(1, gratuitous_arp(GUEST_MAC, GUEST))]);
        assert_eq!(AddressBook::new(book.addresses()).addresses(), book.addresses());
    }

    #[test]
    fn the_book_is_bounded() {
        let mut book = AddressBook::default();
        for mac in 0..=255u8 {
            book.learn(0, &gratuitous_arp(MacAddr([2, 0, 0, 0, 1, mac]), GUEST));
        }
        assert_eq!(book.addresses().len(), MAX_ADDRESSES);
    }

    proptest! {
        #[test]
        fn arbitrary_frames_do_not_panic(frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 0..80)) {
            let mut book = AddressBook::default();
            for frame in frames {
                book.learn(0, &frame);
                book.learn(0, &[&[2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8, 8, 6, 0, 1, 8, 0, 6, 4], &frame[..]].concat());
            }
            prop_assert!(book.addresses().len() <= MAX_ADDRESSES);
        }
    }
}
