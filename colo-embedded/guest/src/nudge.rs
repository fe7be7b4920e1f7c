//! Nudges: how a connection goes on after a segment that mattered was lost.
//!
//! A failover loses segments, and two things stop a sender of smoltcp 0.12 for ever when the wrong one is lost:
//! * It does not probe a closed window (RFC 9293, 3.8.6.1). If the acknowledgement that opens it is lost, nobody asks again.
//! * In CLOSE-WAIT, CLOSING and LAST-ACK, any acknowledgement stops its retransmission timer, whatever is outstanding.
//!
//! Both are cured by what the peer might have said anyway. [`Watch`] remembers the last acknowledgement of each connection;
//! when a connection has stood still for a while, the stack is told it again, by [`nudge`]:
//! * With a closed window: once, as if the window were open by the least amount. The stack sends that much, which is the
//!   probe that it lacks, and the peer answers with its window as it is.
//! * With an open window: until it is the third duplicate, at which the stack sends again what is not acknowledged
//!   (RFC 5681, 3.2). Another window comes first, since duplicates beyond the third count only after a change.
//!
//! Its keep-alives would be no cure: their byte, zero, may be taken for one of data by a peer that lacks that one.

use alloc::{collections::BTreeMap, vec::Vec};

use smoltcp::{
    iface::{Interface, SocketSet},
    phy::{ChecksumCapabilities, Device, DeviceCapabilities, RxToken},
    time::Instant,
    wire::{
        ETHERNET_HEADER_LEN, EthernetFrame, EthernetProtocol, EthernetRepr, IPV4_HEADER_LEN,
        IpAddress, IpEndpoint, IpProtocol, Ipv4Address, Ipv4Packet, Ipv4Repr, TcpControl,
        TcpPacket, TcpRepr, TcpSeqNumber, TcpTimestampRepr,
    },
};

/// How often an acknowledgement is said so that it becomes the third duplicate.
const REPEATS: usize = 4;

/// A connection: the peer's address and port, and our port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Connection {
    address: Ipv4Address,
    port: u16,
    local_port: u16,
}

impl Connection {
    /// The connection of `peer` to our port.
    pub fn new(peer: IpEndpoint, local_port: u16) -> Self {
        let IpAddress::Ipv4(address) = peer.addr;
        Self {
            address,
            port: peer.port,
            local_port,
        }
    }
}

/// What a peer said last.
#[derive(Clone, Copy)]
struct Heard {
    ethernet: EthernetRepr,
    to: Ipv4Address,
    /// Behind all that the peer has sent.
    seq_end: TcpSeqNumber,
    ack: TcpSeqNumber,
    /// The field, not scaled.
    window: u16,
}

/// What the peers of some connections said last. As many as are added, and not removed again.
#[derive(Default)]
pub struct Watch {
    heard: BTreeMap<Connection, Option<Heard>>,
}

impl Watch {
    /// Begins to watch a connection: to be called before its handshake ends.
    pub fn add(&mut self, connection: Connection) {
        self.heard.entry(connection).or_insert(None);
    }

    /// Forgets a connection.
    pub fn remove(&mut self, connection: Connection) {
        self.heard.remove(&connection);
    }

    /// Notes a frame that came in, if it belongs to a watched connection.
    fn note(&mut self, frame: &[u8]) {
        let Some((connection, heard)) = parse(frame) else {
            return;
        };
        let Some(last) = self.heard.get_mut(&connection) else {
            return;
        };
        // What was overtaken on its way says nothing new.
        match last {
            Some(last) if heard.ack < last.ack => {}
            Some(last) => {
                *last = Heard {
                    seq_end: heard.seq_end.max(last.seq_end),
                    ..heard
                }
            }
            None => *last = Some(heard),
        }
    }

    /// The frames that make our stack send again on this connection, in order.
    fn frames(&self, connection: &Connection) -> Vec<Vec<u8>> {
        let Some(Some(heard)) = self.heard.get(connection) else {
            return Vec::new();
        };
        let frame = |window| emit(connection, heard, window);
        if heard.window == 0 {
            return alloc::vec![frame(1)];
        }
        let mut frames = alloc::vec![frame(heard.window - 1)];
        frames.resize(1 + REPEATS, frame(heard.window));
        frames
    }
}

/// A device that notes what comes in, and keeps from smoltcp what it would not survive.
pub struct Watched<'a, D: ?Sized>(pub &'a mut D, pub &'a mut Watch);

impl<D: Device + ?Sized> Device for Watched<'_, D> {
    type RxToken<'t>
        = Noted<'t, D::RxToken<'t>>
    where
        Self: 't;
    type TxToken<'t>
        = D::TxToken<'t>
    where
        Self: 't;

    fn receive(&mut self, now: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        let (receive, transmit) = self.0.receive(now)?;
        Some((Noted(receive, self.1), transmit))
    }

    fn transmit(&mut self, now: Instant) -> Option<Self::TxToken<'_>> {
        self.0.transmit(now)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.0.capabilities()
    }
}

/// A frame that came in at a [`Watched`] device.
pub struct Noted<'a, T>(T, &'a mut Watch);

impl<T: RxToken> RxToken for Noted<'_, T> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        let Self(token, watch) = self;
        token.consume(|frame| {
            if would_panic(frame) {
                // No frame, to smoltcp.
                return read(&[]);
            }
            watch.note(frame);
            read(frame)
        })
    }
}

/// Makes the stack send again what is outstanding on `connection`: when it next sends.
pub fn nudge(
    watch: &Watch,
    connection: &Connection,
    now: Instant,
    interface: &mut Interface,
    device: &mut impl Device,
    sockets: &mut SocketSet<'_>,
) {
    for frame in watch.frames(connection) {
        interface.poll_ingress_single(now, &mut Told(Some(frame), device), sockets);
    }
}

/// A device with one frame to be received.
struct Told<'a, D>(Option<Vec<u8>>, &'a mut D);

impl<D: Device> Device for Told<'_, D> {
    type RxToken<'t>
        = ToldFrame
    where
        Self: 't;
    type TxToken<'t>
        = D::TxToken<'t>
    where
        Self: 't;

    fn receive(&mut self, now: Instant) -> Option<(ToldFrame, Self::TxToken<'_>)> {
        let transmit = self.1.transmit(now)?;
        Some((ToldFrame(self.0.take()?), transmit))
    }

    fn transmit(&mut self, now: Instant) -> Option<Self::TxToken<'_>> {
        self.1.transmit(now)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.1.capabilities()
    }
}

struct ToldFrame(Vec<u8>);

impl RxToken for ToldFrame {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

/// Whether smoltcp 0.12 would not survive a frame: it may answer an IPv4 source of 0.0.0.0, and cannot; nobody but a host
/// without an address has that source. And it trusts the header length (RFC 791, 3.1: at least 5 words).
fn would_panic(frame: &[u8]) -> bool {
    let Ok(frame) = EthernetFrame::new_checked(frame) else {
        return false;
    };
    if frame.ethertype() != EthernetProtocol::Ipv4 {
        return false;
    }
    match Ipv4Packet::new_checked(frame.payload()) {
        Ok(packet) => {
            packet.src_addr().is_unspecified() || usize::from(packet.header_len()) < IPV4_HEADER_LEN
        }
        Err(_) => false,
    }
}

/// The connection of a frame, and what it says; `None` for all but whole segments with an acknowledgement.
fn parse(frame: &[u8]) -> Option<(Connection, Heard)> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    if frame.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let ethernet = EthernetRepr::parse(&frame).ok()?;
    let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
    let ip = Ipv4Repr::parse(&packet, &ChecksumCapabilities::default()).ok()?;
    if ip.next_header != IpProtocol::Tcp || packet.more_frags() || packet.frag_offset() != 0 {
        return None;
    }
    let segment = TcpPacket::new_checked(packet.payload()).ok()?;
    if !segment.verify_checksum(&ip.src_addr.into(), &ip.dst_addr.into())
        || !segment.ack()
        || segment.syn()
        || segment.rst()
    {
        return None;
    }
    let connection = Connection {
        address: ip.src_addr,
        port: segment.src_port(),
        local_port: segment.dst_port(),
    };
    let heard = Heard {
        ethernet,
        to: ip.dst_addr,
        seq_end: segment.seq_number() + segment.segment_len(),
        ack: segment.ack_number(),
        window: segment.window_len(),
    };
    Some((connection, heard))
}

/// The acknowledgement in `heard`, by itself, with `window`.
fn emit(connection: &Connection, heard: &Heard, window: u16) -> Vec<u8> {
    let tcp = TcpRepr {
        src_port: connection.port,
        dst_port: connection.local_port,
        control: TcpControl::None,
        seq_number: heard.seq_end,
        ack_number: Some(heard.ack),
        window_len: window,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None::<TcpTimestampRepr>,
        payload: &[],
    };
    let ip = Ipv4Repr {
        src_addr: connection.address,
        dst_addr: heard.to,
        next_header: IpProtocol::Tcp,
        payload_len: tcp.buffer_len(),
        hop_limit: 64,
    };
    let checksums = ChecksumCapabilities::default();
    let mut bytes = alloc::vec![0; ETHERNET_HEADER_LEN + ip.buffer_len() + tcp.buffer_len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    heard.ethernet.emit(&mut frame);
    let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
    ip.emit(&mut packet, &checksums);
    let mut segment = TcpPacket::new_unchecked(packet.payload_mut());
    tcp.emit(
        &mut segment,
        &ip.src_addr.into(),
        &ip.dst_addr.into(),
        &checksums,
    );
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use smoltcp::wire::EthernetAddress;
    use std::vec;

    const CONNECTION: Connection = Connection {
        address: Ipv4Address::new(10, 0, 0, 1),
        port: 4000,
        local_port: 80,
    };

    fn frame(seq: i32, ack: i32, window: u16) -> Vec<u8> {
        let heard = Heard {
            ethernet: EthernetRepr {
                src_addr: EthernetAddress([2; 6]),
                dst_addr: EthernetAddress([4; 6]),
                ethertype: EthernetProtocol::Ipv4,
            },
            to: Ipv4Address::new(10, 0, 0, 2),
            seq_end: TcpSeqNumber(seq),
            ack: TcpSeqNumber(ack),
            window,
        };
        emit(&CONNECTION, &heard, window)
    }

    fn watch(frames: &[Vec<u8>]) -> Watch {
        let mut watch = Watch::default();
        watch.add(CONNECTION);
        for frame in frames {
            watch.note(frame);
        }
        watch
    }

    #[test]
    fn an_open_window_is_repeated_after_a_change() {
        let said = frame(5, 9, 700);
        let expected = [vec![frame(5, 9, 699)], vec![said.clone(); 4]].concat();
        assert_eq!(watch(&[said]).frames(&CONNECTION), expected);
    }

    #[test]
    fn a_closed_window_is_opened_a_little() {
        assert_eq!(
            watch(&[frame(5, 9, 0)]).frames(&CONNECTION),
            [frame(5, 9, 1)]
        );
    }

    #[test]
    fn what_was_overtaken_changes_nothing() {
        // Sequence numbers wrap.
        let (newer, older) = (frame(5, i32::MIN, 0), frame(3, i32::MAX, 0));
        assert_eq!(
            watch(&[newer.clone(), older]).frames(&CONNECTION),
            [frame(5, i32::MIN, 1)]
        );
        let earlier = frame(3, i32::MIN, 0);
        assert_eq!(
            watch(&[newer, earlier]).frames(&CONNECTION),
            [frame(5, i32::MIN, 1)]
        );
    }

    #[test]
    fn strangers_are_not_noted() {
        let mut watch = watch(&[]);
        watch.remove(CONNECTION);
        watch.note(&frame(5, 9, 0));
        assert_eq!((watch.heard.len(), watch.frames(&CONNECTION).len()), (0, 0));
    }

    proptest! {
        #[test]
        fn damaged_frames_are_not_noted(at in ETHERNET_HEADER_LEN..54, bit in 0u8..8, cut in 0usize..54) {
            let mut damaged = frame(5, 9, 700);
            damaged[at] ^= 1 << bit;
            prop_assert!(watch(&[damaged.clone()]).frames(&CONNECTION).is_empty());
            damaged.truncate(cut);
            prop_assert!(watch(&[damaged]).frames(&CONNECTION).is_empty());
        }
    }
}
