//! Flows whose frames are compared one by one, the first of the one side with the first of the other.

use super::flow::{Held, Outbox, Outgoing, Waiting, Witness, charge, longest, trim};
use super::verdict::Reason;
use std::collections::VecDeque;
use std::ops::Range;

/// Which bytes of a frame are not compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mask {
    /// Every byte is compared.
    Nothing,
    /// The identification and the checksum of the IPv4 header, the checksum in the payload if any, and what follows the packet.
    Ipv4 { checksum_at: Option<usize>, end: usize },
}

impl Mask {
    const IPV4_IDENTIFICATION: Range<usize> = 18..20;
    const IPV4_CHECKSUM: Range<usize> = 24..26;

    /// The stretches that are compared, in order, for a frame of this length.
    fn compared(&self, frame_bytes: usize) -> [Range<usize>; 4] {
        match *self {
            Mask::Nothing => [0..frame_bytes, 0..0, 0..0, 0..0],
            Mask::Ipv4 { checksum_at, end } => {
                let checksum = checksum_at.map_or(end..end, |at| at..at + 2);
                [
                    0..Self::IPV4_IDENTIFICATION.start,
                    Self::IPV4_IDENTIFICATION.end..Self::IPV4_CHECKSUM.start,
                    Self::IPV4_CHECKSUM.end..checksum.start,
                    checksum.end..end,
                ]
            }
        }
    }
}

#[derive(Debug)]
struct Datagram<T> {
    item: T,
    mask: Mask,
}

/// A flow of datagrams.
#[derive(Default, Debug)]
pub(super) struct DatagramFlow {
    primary: VecDeque<Datagram<Outgoing>>,
    secondary: VecDeque<Datagram<Witness>>,
    /// How many of the first pairs were found equal, and wait for the flow to be opened.
    equal: usize,
    held: Held,
}

impl DatagramFlow {
    pub(super) fn push_primary(&mut self, item: Outgoing, mask: Mask) {
        self.held.primary += charge(&item.frame);
        self.primary.push_back(Datagram { item, mask });
    }

    pub(super) fn push_secondary(&mut self, item: Witness, mask: Mask) {
        self.held.secondary += charge(&item.frame);
        self.secondary.push_back(Datagram { item, mask });
    }

    pub(super) fn advance(&mut self, out: &mut Outbox) -> Result<(), Reason> {
        let verdict = self.compare(out);
        while out.open && self.equal > 0 {
            let (Some(outgoing), Some(witness)) = (self.primary.pop_front(), self.secondary.pop_front()) else {
                break;
            };
            self.equal -= 1;
            self.held.primary -= charge(&outgoing.item.frame);
            self.held.secondary -= charge(&witness.item.frame);
            out.consumed.push_back(witness.item.number);
            out.release(outgoing.item.frame);
        }
        trim(&mut self.primary);
        trim(&mut self.secondary);
        verdict
    }

    pub(super) fn begin_epoch(&mut self, ended: &mut Vec<Outgoing>) {
        ended.extend(self.primary.drain(..).map(|datagram| datagram.item));
        *self = DatagramFlow::default();
    }

    pub(super) fn waiting(&self) -> Option<Waiting> {
        let primary = self.primary.front().map(|d| Waiting { since: d.item.since, is_primary: true });
        let secondary = self.secondary.front().map(|d| Waiting { since: d.item.since, is_primary: false });
        longest(primary, secondary)
    }

    pub(super) fn held(&self) -> Held {
        self.held
    }

    fn compare(&mut self, out: &mut Outbox) -> Result<(), Reason> {
        while let (Some(outgoing), Some(witness)) = (self.primary.get(self.equal), self.secondary.get(self.equal)) {
            match first_difference(&outgoing.item.frame, outgoing.mask, &witness.item.frame, witness.mask) {
                None => self.equal += 1,
                Some(offset) => {
                    return Err(Reason::PayloadDiffers { offset: offset as u64 });
                }
            }
            out.compared_bytes += outgoing.item.frame.len() as u64;
        }
        Ok(())
    }
}

/// Where two frames first differ in a byte that is compared.
fn first_difference(a: &[u8], mask_a: Mask, b: &[u8], mask_b: Mask) -> Option<usize> {
    // Packets of different shape have stretches of different length, which are not equal.
    for (in_a, in_b) in mask_a.compared(a.len()).into_iter().zip(mask_b.compared(b.len())) {
        if a[in_a.clone()] != b[in_b.clone()] {
            let equal = a[in_a.clone()].iter().zip(&b[in_b]).take_while(|(a, b)| a == b).count();
            return Some(in_a.start + equal);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::flow::{Content, classify};
    use crate::net::testing::{echo_reply, udp};

    fn difference(a: &[u8], b: &[u8]) -> Option<usize> {
        let mask = |frame: &[u8]| match classify(0, frame).1 {
            Content::Datagram(mask) => mask,
            content => panic!("{content:?}"),
        };
        first_difference(a, mask(a), b, mask(b))
    }

    /// Every byte is flipped: only those that the module's table calls ignored make no difference.
    #[test]
    fn exactly_the_ignored_bytes_are_ignored() {
        let frame = udp(5, 6, b"payload");
        let ignored: Vec<usize> = (0..frame.len())
            .filter(|at| {
                let mut other = frame.to_vec();
                other[*at] ^= 1;
                difference(&frame, &other).is_none()
            })
            .collect();
        assert_eq!(ignored, [18, 19, 24, 25, 40, 41]);
    }

    #[test]
    fn different_lengths_and_options_differ() {
        let long = echo_reply(1, 2, &[7; 20]);
        assert!(difference(&long, &echo_reply(1, 2, &[7; 21])).is_some());
        assert!(difference(&echo_reply(1, 2, &[7; 21]), &long).is_some());
        assert_eq!(difference(&long, &echo_reply(1, 3, &[7; 20])), Some(41));
        let mut with_option = long[..34].to_vec();
        with_option.extend_from_slice(&[1, 1, 1, 1]);
        with_option.extend_from_slice(&long[34..]);
        with_option[14] = 0x46;
        with_option[17] += 4;
        assert_eq!(difference(&long, &with_option), Some(14));
    }

    #[test]
    fn padding_is_ignored() {
        let frame = echo_reply(1, 2, b"x");
        let mut padded = frame.to_vec();
        padded.resize(60, 0xaa);
        assert_eq!(difference(&frame, &padded), None);
    }
}
