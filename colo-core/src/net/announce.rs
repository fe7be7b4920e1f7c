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
/// What a guest says of itself by ARP is taken as it is, until somebody else says the same of another Ethernet address. The sources of
/// its IPv4 packets count only until it says something: a guest that routes sends the packets of others, whose addresses must not be
/// announced as its own.
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
            Some(network) if network.ethertype == ETHERTYPE_ARP && network.vlans == Vlans::default() => {
                if let Some((mac, ipv4)) = arp_sender(frame, network) {
                    if let Some(ipv4) = ipv4 {
                        self.drop_other_claims(nic, mac, ipv4);
                    }
                    self.note(Address { nic, mac, ipv4 }, ipv4.is_some());
                }
            }
            Some(_) => {
                let ipv4 = IpPacket::parse(frame).and_then(|packet| packet.source_v4()).filter(|ip| is_host_ip(*ip));
                self.note(Address { nic, mac, ipv4 }, false);
            }
            None => {}
        }
    }

    /// Hears a frame that somebody else sent to the guest. Whoever claims an address that the guest has claimed has it from here on: the
    /// guest has given it up, or will defend it by a claim of its own (RFC 5227 §2.4).
    pub fn hear(&mut self, nic: u8, frame: &[u8]) {
        if let Some((mac, Some(ipv4))) = Network::parse(frame).and_then(|network| arp_sender(frame, network)) {
            self.drop_other_claims(nic, mac, ipv4);
        }
    }

    /// What is known, in the order in which it was learnt.
    pub fn addresses(&self) -> Vec<Address> {
        self.known.iter().map(|known| known.address).collect()
    }

    /// What the guest has claimed, for somebody who would take all that he is told for a claim. Of an Ethernet address that goes with
    /// no such IPv4 address only itself.
    pub fn claims(&self) -> Vec<Address> {
        let claim = |known: &Known| Address { ipv4: known.address.ipv4.filter(|_| known.claimed), ..known.address };
        self.known.iter().map(claim).collect()
    }

    /// What is to be sent, and from which card, to tell the network where the machine is now.
    pub fn announcements(&self) -> impl Iterator<Item = (u8, Frame)> + '_ {
        self.known.iter().map(|Known { address, .. }| match address.ipv4 {
            Some(ipv4) => (address.nic, gratuitous_arp(address.mac, ipv4)),
            None => (address.nic, rarp(address.mac)),
        })
    }

    fn drop_other_claims(&mut self, nic: u8, mac: MacAddr, ipv4: Ipv4Addr) {
        let is_refuted = |known: &Known| {
            let Address { nic: of, mac: by, ipv4: claim } = known.address;
            of == nic && by != mac && claim == Some(ipv4)
        };
        while let Some(index) = self.known.iter().position(is_refuted) {
            let Address { nic, mac, .. } = self.known.remove(index).address;
            // Switches are to learn of the card all the same.
            self.note(Address { nic, mac, ipv4: None }, false);
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

/// Who sent an ARP packet: one for Ethernet and IPv4 that is in no VLAN. A probe (RFC 5227) has no IPv4 address yet.
fn arp_sender(frame: &[u8], network: Network) -> Option<(MacAddr, Option<Ipv4Addr>)> {
    const ETHERNET_AND_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
    let arp = frame.get(network.at..network.at + ARP_BYTES)?;
    if network.ethertype != ETHERTYPE_ARP || network.vlans != Vlans::default() || arp[..6] != ETHERNET_AND_IPV4 {
        return None;
    }
    let mac = mac_at(&arp[8..14]);
    let ipv4 = Ipv4Addr::new(arp[14], arp[15], arp[16], arp[17]);
    is_host(mac).then_some((mac, Some(ipv4).filter(|ipv4| is_host_ip(*ipv4))))
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
    use crate::net::testing::{CLIENT, CLIENT_MAC, GUEST, GUEST_MAC, arp_request, tagged, udp};
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

    /// A router's book.
    #[test]
    fn what_packets_suggested_is_not_told_as_a_claim() {
        let mut book = AddressBook::default();
        let mut forwarded = udp(1, 2, b"forwarded").to_vec();
        forwarded[26..30].copy_from_slice(&[192, 168, 7, 7]);
        book.learn(0, &forwarded);
        book.learn(1, &arp_request(CLIENT));
        let suggested = Address { nic: 0, mac: GUEST_MAC, ipv4: None };
        let claimed = Address { nic: 1, mac: GUEST_MAC, ipv4: Some(GUEST) };
        assert_eq!(book.claims(), [suggested, claimed]);
        // Whoever was told so takes the guest's word as before.
        let mut other = AddressBook::new(book.claims());
        other.learn(0, &arp_request(CLIENT));
        assert_eq!(other.addresses(), [claimed, Address { nic: 0, ..claimed }]);
    }

    #[test]
    fn a_claim_holds_until_another_ethernet_address_makes_it() {
        let others = gratuitous_arp(CLIENT_MAC, GUEST);
        let without = Address { nic: 0, mac: GUEST_MAC, ipv4: None };
        let claimed = Address { ipv4: Some(GUEST), ..without };
        let mut book = AddressBook::default();
        book.learn(0, &arp_request(CLIENT));
        // On another card it is another network, in a VLAN, too; and what comes back from the network is the guest's own word.
        book.hear(1, &others);
        book.hear(0, &tagged(&others, &[(0x8100, 5)]));
        book.hear(0, &arp_request(CLIENT));
        book.hear(0, &gratuitous_arp(CLIENT_MAC, CLIENT));
        assert_eq!(book.addresses(), [claimed]);
        book.hear(0, &others);
        assert_eq!((book.addresses(), book.announcements().collect()), (vec![without], vec![(0, rarp(GUEST_MAC))]));
        // The guest defends it.
        book.learn(0, &arp_request(CLIENT));
        assert_eq!(book.claims(), [claimed]);
        // It has moved to another of the guest's own.
        book.learn(0, &others);
        assert_eq!(book.claims(), [without, Address { mac: CLIENT_MAC, ..claimed }]);
    }

    #[test]
    fn of_two_claims_of_a_card_the_other_stays() {
        let mut book = AddressBook::default();
        book.learn(0, &gratuitous_arp(GUEST_MAC, GUEST));
        book.learn(0, &gratuitous_arp(GUEST_MAC, CLIENT));
        book.hear(0, &gratuitous_arp(CLIENT_MAC, CLIENT));
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
                book.hear(0, &frame);
                book.learn(0, &[&[2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8, 8, 6, 0, 1, 8, 0, 6, 4], &frame[..]].concat());
            }
            prop_assert!(book.addresses().len() <= MAX_ADDRESSES);
        }
    }
}
