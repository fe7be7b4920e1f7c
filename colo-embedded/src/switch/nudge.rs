//! Making a stuck TCP sender send again, with nothing but acknowledgements that it has seen before.
//!
//! Two things get small stacks stuck for ever; smoltcp 0.12 is one of them, and it is on both sides of the forward:
//! * It does not probe a closed window (RFC 9293, 3.8.6.1). If the acknowledgement that opens it again is lost, nobody
//!   says so a second time.
//! * In CLOSE-WAIT, CLOSING and LAST-ACK any acknowledgement stops its retransmission timer, even with data unacknowledged.
//!
//! The remedy for both is to repeat the last acknowledgement: it carries the window, and from the third duplicate on the sender
//! goes back to what is not acknowledged (fast retransmit, RFC 5681, 3.2). Since only the third counts, and one with another
//! window is no duplicate but begins the count anew, an acknowledgement with its window a step smaller goes first.

use super::fabric::HEADER_BYTES;
use smoltcp::wire::{IPV4_HEADER_LEN, Ipv4Packet, TcpPacket};

/// How many times the acknowledgement itself is said: the first, which restores the window, and three duplicates.
const REPEATS: usize = 4;

/// The frames that make the receiver of `ack`, a bare TCP acknowledgement without IP options, send again. In order; none
/// if `ack` is empty.
pub(super) fn frames(ack: &[u8]) -> impl Iterator<Item = Vec<u8>> + use<> {
    let repeats = if ack.is_empty() { 0 } else { REPEATS };
    with_smaller_window(ack).into_iter().chain(std::iter::repeat_n(ack.to_vec(), repeats))
}

/// None for a closed window: it cannot be smaller, and to say that it is open would be a lie that is believed.
fn with_smaller_window(ack: &[u8]) -> Option<Vec<u8>> {
    let mut frame = ack.to_vec();
    let (header, segment) = frame.get_mut(HEADER_BYTES..)?.split_at_mut_checked(IPV4_HEADER_LEN)?;
    let ip = Ipv4Packet::new_checked(&ack[HEADER_BYTES..]).ok()?;
    if usize::from(ip.header_len()) != header.len() {
        return None;
    }
    // What follows the IP packet in the frame is padding, and not part of the checksum.
    let segment_bytes = usize::from(ip.total_len()) - header.len();
    let mut tcp = TcpPacket::new_checked(segment.get_mut(..segment_bytes)?).ok()?;
    let window = tcp.window_len().checked_sub(1)?;
    tcp.set_window_len(window);
    tcp.fill_checksum(&ip.src_addr().into(), &ip.dst_addr().into());
    Some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use smoltcp::wire::{IpAddress, Ipv4Address};

    const ADDRESSES: (Ipv4Address, Ipv4Address) = (Ipv4Address::new(10, 0, 0, 1), Ipv4Address::new(10, 0, 0, 9));

    fn ack(window: u16) -> Vec<u8> {
        let mut frame = vec![0; HEADER_BYTES + 40 + 6];
        let mut ip = Ipv4Packet::new_unchecked(&mut frame[HEADER_BYTES..]);
        ip.set_version(4);
        ip.set_header_len(20);
        ip.set_total_len(40);
        ip.set_src_addr(ADDRESSES.0);
        ip.set_dst_addr(ADDRESSES.1);
        let mut tcp = TcpPacket::new_unchecked(&mut frame[HEADER_BYTES + 20..HEADER_BYTES + 40]);
        tcp.set_src_port(1);
        tcp.set_dst_port(2);
        tcp.set_header_len(20);
        tcp.set_ack(true);
        tcp.set_window_len(window);
        tcp.fill_checksum(&ADDRESSES.0.into(), &ADDRESSES.1.into());
        frame
    }

    #[test]
    fn another_window_then_the_same_again() {
        let frames: Vec<Vec<u8>> = frames(&ack(500)).collect();
        assert_eq!(frames.len(), 1 + REPEATS);
        assert!(frames[1..].iter().all(|frame| *frame == ack(500)));
        assert_eq!(frames[0], ack(499));
        let tcp = TcpPacket::new_checked(&frames[0][HEADER_BYTES + 20..HEADER_BYTES + 40]).unwrap();
        assert!(tcp.verify_checksum(&IpAddress::from(ADDRESSES.0), &IpAddress::from(ADDRESSES.1)));
    }

    #[test]
    fn a_closed_window_stays_closed_and_nonsense_is_no_reason_to_panic() {
        assert!(frames(&ack(0)).all(|frame| frame == ack(0)));
        assert_eq!(frames(&[]).count(), 0);
        for cut in 1..HEADER_BYTES + 40 {
            assert_eq!(frames(&ack(500)[..cut]).count(), REPEATS);
        }
    }
}
