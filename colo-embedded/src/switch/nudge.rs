//! Making a stuck TCP sender send again, with nothing but acknowledgements that say what has been said before.
//!
//! Two things get small stacks stuck for ever; smoltcp 0.12 is one of them, and it is on both sides of the forward:
//! * It does not probe a closed window (RFC 9293, 3.8.6.1). If the acknowledgement that opens it again is lost, nobody
//!   says so a second time.
//! * In CLOSE-WAIT, CLOSING and LAST-ACK any acknowledgement stops its retransmission timer, even with data unacknowledged.
//!
//! The remedy for both is to say the last acknowledgement again: it carries the window, and from the third duplicate on the
//! sender goes back to what is not acknowledged (fast retransmit, RFC 5681, 3.2). Since only the third counts, and one with
//! another window is no duplicate but begins the count anew, an acknowledgement with its window a step smaller goes first.
//!
//! And should the window be closed, the stack on this side is told that it is open by the least amount: what it then sends
//! is the probe that it lacks. (Its keep-alives would not do: their byte, zero, has the number of the last byte sent, and
//! would be taken for that one if that one was lost.)

use super::fabric::HEADER_BYTES;
use smoltcp::wire::{EthernetFrame, EthernetProtocol, IPV4_HEADER_LEN, IpProtocol, Ipv4Packet, TcpPacket};

const TCP_HEADER_BYTES: usize = 20;
const ACK_BYTES: usize = HEADER_BYTES + IPV4_HEADER_LEN + TCP_HEADER_BYTES;

/// How many times the acknowledgement itself is said: the first, which restores the window, and three duplicates.
const REPEATS: usize = 4;

/// The last that one side of a connection said.
#[derive(Debug, Clone, Default)]
pub(super) struct LastSaid {
    /// The headers of its last frame, without options.
    headers: Option<[u8; ACK_BYTES]>,
}

impl LastSaid {
    /// Notes a frame. One without an acknowledgement, and one that ends the connection, is passed over.
    pub(super) fn note(&mut self, frame: &[u8]) {
        if let Some(headers) = bare_ack(frame) {
            self.headers = Some(headers);
        }
    }

    /// Who sent it.
    pub(super) fn source(&self) -> Option<[u8; 6]> {
        let headers = self.headers.as_ref()?;
        Some(EthernetFrame::new_unchecked(headers).src_addr().0)
    }

    /// The frames that make the other side send again, in order. None if nothing has been said.
    pub(super) fn nudge(&self) -> impl Iterator<Item = [u8; ACK_BYTES]> + use<> {
        let with_checksums = self.headers.map(|headers| with_window(headers, |window| window));
        // A closed window cannot be smaller, and to say that it is open would be a lie that is believed.
        let smaller = self.headers.map(|headers| with_window(headers, |window| window.saturating_sub(1)));
        let repeats = std::iter::repeat_n(with_checksums, REPEATS);
        std::iter::once(smaller).chain(repeats).flatten()
    }

    /// Only if the window was closed: the acknowledgement with the smallest one that is not. Never to be sent.
    pub(super) fn probe(&self) -> Option<[u8; ACK_BYTES]> {
        let headers = self.headers?;
        let tcp = TcpPacket::new_unchecked(&headers[HEADER_BYTES + IPV4_HEADER_LEN..]);
        (tcp.window_len() == 0).then(|| with_window(headers, |_| 1))
    }
}

/// The acknowledgement that a TCP segment makes, by itself: what it says when all in it has been received. Its checksums
/// are left to be filled in.
fn bare_ack(frame: &[u8]) -> Option<[u8; ACK_BYTES]> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    let ip = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
    let is_tcp = ethernet.ethertype() == EthernetProtocol::Ipv4 && ip.next_header() == IpProtocol::Tcp;
    if !is_tcp || ip.version() != 4 || usize::from(ip.header_len()) != IPV4_HEADER_LEN || ip.more_frags() {
        return None;
    }
    let segment = TcpPacket::new_checked(ip.payload()).ok()?;
    if !segment.ack() || segment.syn() || segment.rst() {
        return None;
    }
    let mut bytes = *frame.first_chunk::<ACK_BYTES>()?;
    let mut ip = Ipv4Packet::new_unchecked(&mut bytes[HEADER_BYTES..]);
    ip.set_total_len((IPV4_HEADER_LEN + TCP_HEADER_BYTES) as u16);
    let mut ack = TcpPacket::new_unchecked(&mut bytes[HEADER_BYTES + IPV4_HEADER_LEN..]);
    ack.clear_flags();
    ack.set_ack(true);
    ack.set_header_len(TCP_HEADER_BYTES as u8);
    ack.set_seq_number(segment.seq_number() + segment.segment_len());
    Some(bytes)
}

fn with_window(mut bytes: [u8; ACK_BYTES], change: impl FnOnce(u16) -> u16) -> [u8; ACK_BYTES] {
    let (ip, tcp) = bytes[HEADER_BYTES..].split_at_mut(IPV4_HEADER_LEN);
    let mut ip = Ipv4Packet::new_unchecked(ip);
    ip.fill_checksum();
    let mut tcp = TcpPacket::new_unchecked(tcp);
    tcp.set_window_len(change(tcp.window_len()));
    tcp.fill_checksum(&ip.src_addr().into(), &ip.dst_addr().into());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{EthernetAddress, Ipv4Address, Ipv4Repr, TcpControl, TcpRepr, TcpSeqNumber, TcpTimestampRepr};

    const MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 7]);

    fn repr(control: TcpControl, window_len: u16, payload: &[u8]) -> TcpRepr<'_> {
        TcpRepr {
            src_port: 1,
            dst_port: 2,
            control,
            seq_number: TcpSeqNumber(i32::MAX - 1),
            ack_number: Some(TcpSeqNumber(77)),
            window_len,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [Some((100, 200)), None, None],
            timestamp: Some(TcpTimestampRepr::new(1, 2)),
            payload,
        }
    }

    fn frame(tcp: &TcpRepr<'_>) -> Vec<u8> {
        let (source, destination) = (Ipv4Address::new(10, 0, 0, 1), Ipv4Address::new(10, 0, 0, 9));
        let ip = Ipv4Repr {
            src_addr: source,
            dst_addr: destination,
            next_header: IpProtocol::Tcp,
            payload_len: tcp.buffer_len(),
            hop_limit: 64,
        };
        let checksums = ChecksumCapabilities::default();
        let mut bytes = vec![0; HEADER_BYTES + ip.buffer_len() + tcp.buffer_len()];
        let mut ethernet = EthernetFrame::new_unchecked(&mut bytes);
        ethernet.set_src_addr(MAC);
        ethernet.set_ethertype(EthernetProtocol::Ipv4);
        ip.emit(&mut Ipv4Packet::new_unchecked(ethernet.payload_mut()), &checksums);
        let mut packet = Ipv4Packet::new_unchecked(ethernet.payload_mut());
        let mut segment = TcpPacket::new_unchecked(packet.payload_mut());
        tcp.emit(&mut segment, &source.into(), &destination.into(), &checksums);
        bytes
    }

    fn parse(frame: &[u8]) -> (usize, u16, TcpControl) {
        let ethernet = EthernetFrame::new_checked(frame).unwrap();
        let ip = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
        assert!(ip.verify_checksum());
        let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
        let (from, to) = (ip.src_addr().into(), ip.dst_addr().into());
        let repr = TcpRepr::parse(&tcp, &from, &to, &ChecksumCapabilities::default()).unwrap();
        assert_eq!((repr.ack_number, repr.payload), (Some(TcpSeqNumber(77)), &[][..]));
        (repr.seq_number - TcpSeqNumber(i32::MAX - 1), repr.window_len, repr.control)
    }

    fn nudge(repr: &TcpRepr<'_>) -> Vec<(usize, u16, TcpControl)> {
        let mut last = LastSaid::default();
        last.note(&frame(repr));
        assert!(last.headers.is_none() || last.source() == Some(MAC.0));
        last.nudge().map(|frame| parse(&frame)).collect()
    }

    #[test]
    fn another_window_then_the_same_again_after_all_that_was_said() {
        for (control, payload, length) in
            [(TcpControl::None, &b""[..], 0), (TcpControl::Psh, b"abc", 3), (TcpControl::Fin, b"abc", 4)]
        {
            let said = (length, 500, TcpControl::None);
            assert_eq!(nudge(&repr(control, 500, payload)), [(length, 499, TcpControl::None), said, said, said, said]);
        }
    }

    #[test]
    fn a_closed_window_stays_closed() {
        assert!(nudge(&repr(TcpControl::None, 0, b"")).iter().all(|&(_, window, _)| window == 0));
    }

    #[test]
    fn only_a_closed_window_is_probed() {
        let mut last = LastSaid::default();
        assert_eq!(last.probe(), None);
        last.note(&frame(&repr(TcpControl::None, 0, b"abc")));
        assert_eq!(parse(&last.probe().unwrap()), (3, 1, TcpControl::None));
        last.note(&frame(&repr(TcpControl::None, 1, b"")));
        assert_eq!(last.probe(), None);
    }

    #[test]
    fn nothing_is_made_of_what_is_no_acknowledgement() {
        assert!(nudge(&repr(TcpControl::Rst, 500, b"")).is_empty());
        assert!(nudge(&repr(TcpControl::Syn, 500, b"")).is_empty());
    }

    proptest! {
        #[test]
        fn hostile_frames_do_no_harm(cut in 0_usize..120, at in 0_usize..80, value: u8) {
            let mut bytes = frame(&repr(TcpControl::None, 500, b"abc"));
            bytes.truncate(cut);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            let mut last = LastSaid::default();
            last.note(&bytes);
            prop_assert!(matches!(last.nudge().count(), 0 | 5));
        }
    }
}
