//! The forward's stack against frames that nobody means well with.

use super::*;
use proptest::prelude::*;
use smoltcp::wire::{EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, TcpPacket, TcpSeqNumber};

const GUEST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 10];
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
const SWITCH: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const SWITCH_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

/// A forward with one connection, and the guest's side of it, by hand.
struct Bench {
    forwarder: Forwarder,
    client: TcpStream,
    now: Instant,
    /// The connection's local port, and the next sequence number that it expects to be acknowledged.
    port: u16,
    sent_to: TcpSeqNumber,
}

impl Bench {
    fn new() -> Self {
        let forward = Forward { listen: "127.0.0.1:0".parse().unwrap(), target: SocketAddrV4::new(GUEST, 80) };
        let now = Instant::now();
        let mut forwarder = Forwarder::new(SWITCH_MAC, SWITCH, 24, &[forward], now).unwrap();
        let client = TcpStream::connect(forwarder.listeners()[0].socket.local_addr().unwrap()).unwrap();
        let mut accepted = Vec::new();
        while accepted.is_empty() {
            forwarder.set_acceptable(0);
            forwarder.accept(now, &mut accepted);
        }
        let mut bench = Self { forwarder, client, now, port: accepted[0], sent_to: TcpSeqNumber(0) };
        bench.run();
        bench.feed(&arp_reply());
        let syn = bench.run().pop().unwrap();
        let ethernet = EthernetFrame::new_checked(&syn[..]).unwrap();
        let ip = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
        let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
        assert!(tcp.syn() && !tcp.ack() && tcp.src_port() == bench.port);
        bench.sent_to = tcp.seq_number() + 1;
        bench.feed(&bench.segment(0, 0x12, &[]));
        assert_eq!(bench.run().len(), 1);
        bench
    }

    fn feed(&mut self, frame: &[u8]) {
        self.forwarder.handle_frame(self.now, frame);
    }

    /// Lets everything happen that is to, and returns the frames sent.
    fn run(&mut self) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        loop {
            let more = self.forwarder.advance(self.now);
            sent.extend(self.forwarder.out.iter().map(<[u8]>::to_vec));
            self.forwarder.out.clear();
            if !more {
                return sent;
            }
        }
    }

    /// From the guest to the connection, `offset` bytes behind its SYN.
    fn segment(&self, offset: usize, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut tcp = vec![0; 20];
        tcp[..2].copy_from_slice(&80_u16.to_be_bytes());
        tcp[2..4].copy_from_slice(&self.port.to_be_bytes());
        tcp[4..8].copy_from_slice(&(1000 + offset as u32).to_be_bytes());
        tcp[8..12].copy_from_slice(&self.sent_to.0.to_be_bytes());
        tcp[12..16].copy_from_slice(&[0x50, flags, 0x40, 0]);
        tcp.extend(payload);
        packet(6, &tcp)
    }
}

fn arp_reply() -> Vec<u8> {
    let mut frame = [&SWITCH_MAC.0[..], &GUEST_MAC, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2]].concat();
    frame.extend([&GUEST_MAC[..], &GUEST.octets(), &SWITCH_MAC.0, &SWITCH.octets()].concat());
    frame
}

/// From the guest to the switch.
fn packet(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = [&SWITCH_MAC.0[..], &GUEST_MAC, &[8, 0, 0x45, 0]].concat();
    frame.extend((20 + payload.len() as u16).to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
    frame.extend([&GUEST.octets()[..], &SWITCH.octets(), payload].concat());
    set_checksums(&mut frame);
    frame
}

/// Sets an IPv4 frame's checksums right, as far as it is one: damage must not be found out by them.
fn set_checksums(frame: &mut [u8]) {
    let mut ethernet = EthernetFrame::new_unchecked(frame);
    if ethernet.ethertype() != EthernetProtocol::Ipv4 {
        return;
    }
    let Ok(mut ip) = Ipv4Packet::new_checked(ethernet.payload_mut()) else {
        return;
    };
    if ip.header_len() < 20 {
        return;
    }
    ip.fill_checksum();
    let (source, destination) = (ip.src_addr().into(), ip.dst_addr().into());
    match ip.next_header() {
        IpProtocol::Tcp if ip.payload_mut().len() >= 20 => {
            TcpPacket::new_unchecked(ip.payload_mut()).fill_checksum(&source, &destination);
        }
        IpProtocol::Icmp if ip.payload_mut().len() >= 8 => {
            smoltcp::wire::Icmpv4Packet::new_unchecked(ip.payload_mut()).fill_checksum();
        }
        _ => {}
    }
}

#[test]
fn a_connection_by_hand() {
    use std::io::Read;
    let mut bench = Bench::new();
    bench.feed(&bench.segment(1, 0x18, b"hello"));
    bench.feed(&bench.segment(6, 0x11, b""));
    assert!(!bench.run().is_empty());
    let mut got = String::new();
    bench.client.read_to_string(&mut got).unwrap();
    assert_eq!(got, "hello");
}

#[test]
fn a_closed_window_is_probed() {
    use std::io::Write;
    let mut bench = Bench::new();
    let mut closed = bench.segment(1, 0x10, b"");
    closed[48..50].fill(0);
    set_checksums(&mut closed);
    bench.feed(&closed);
    bench.run();
    bench.client.write_all(b"data").unwrap();
    // Written is not yet there to be read.
    while bench.forwarder.relays[&bench.port].relay.queued_bytes() == 0 {
        bench.forwarder.handle_host_event(bench.port, true, false, false);
        assert!(bench.run().is_empty(), "data for a closed window");
    }
    bench.now += super::super::relay::LAST_NUDGE;
    let sent = bench.run();
    assert!(sent.iter().any(|frame| frame.ends_with(b"d")), "no probe of one byte: {sent:?}");
}

proptest! {
    #[test]
    fn hostile_frames_do_no_harm(
        steps in prop::collection::vec((0_u8..5, 0_usize..80, any::<u8>(), any::<u8>(), 0_usize..2000, any::<bool>()), 1..60),
    ) {
        let mut bench = Bench::new();
        for (kind, at, byte, flags, offset, cut) in steps {
            let mut frame = match kind {
                0 => arp_reply(),
                1 => packet(1, &[8, 0, 0, 0, 0, 1, 0, 1, 1, 2, 3, 4]),
                2 => packet(17, &[0, 7, 0, 7, 0, 12, 0, 0, 1, 2, 3, 4]),
                _ => bench.segment(offset, flags, &[7; 30]),
            };
            if cut {
                frame.truncate(at);
            } else if let Some(damaged) = frame.get_mut(at) {
                *damaged = byte;
            }
            if frame.len() >= 14 {
                set_checksums(&mut frame);
            }
            bench.feed(&frame);
            bench.run();
            bench.now += Duration::from_millis(u64::from(byte));
        }
        // Alive: it answers a ping.
        bench.feed(&arp_reply());
        bench.run();
        bench.feed(&packet(1, &[8, 0, 0, 0, 0, 1, 0, 1]));
        prop_assert!(bench.run().iter().any(|frame| frame[23] == 1));
    }

    /// Nobody's address, in every kind of packet: smoltcp 0.12 would panic.
    #[test]
    fn frames_from_nobody_are_passed_over(kind in 0_u8..3, flags: u8) {
        let mut bench = Bench::new();
        let mut frame = match kind {
            0 => packet(1, &[8, 0, 0, 0, 0, 1, 0, 1]),
            1 => packet(17, &[0, 7, 0, 7, 0, 8, 0, 0]),
            _ => bench.segment(1, flags, b"x"),
        };
        frame[26..30].fill(0);
        set_checksums(&mut frame);
        bench.feed(&frame);
        prop_assert!(bench.run().is_empty());
    }
}
