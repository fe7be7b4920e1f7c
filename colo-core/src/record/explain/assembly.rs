//! One machine's bytes of a TCP connection, put together from its segments.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

/// Bytes by their place in the stream, each from the segment that had it first.
#[derive(Default)]
pub(super) struct Assembly<'a> {
    /// By where they begin; they neither touch the same place twice, nor are they empty.
    pieces: BTreeMap<i64, Piece<'a>>,
    /// Where a segment has another byte than one before it.
    contradictions: Vec<Contradiction>,
}

/// A part of a segment's payload.
#[derive(Clone, Copy)]
pub(super) struct Piece<'a> {
    pub(super) bytes: &'a [u8],
    /// Which frame it is from.
    pub(super) frame: usize,
    /// Where in that frame.
    pub(super) offset: usize,
}

/// A machine has sent two different bytes for the same place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Contradiction {
    pub(super) place: i64,
    /// The frame with the later one, and where in that.
    pub(super) frame: usize,
    pub(super) offset: usize,
    pub(super) byte: u8,
}

impl<'a> Assembly<'a> {
    /// Puts in a segment's payload.
    ///
    /// The work grows with its length, however the bytes before were cut.
    pub(super) fn insert(&mut self, start: i64, piece: Piece<'a>) {
        let end = start + piece.bytes.len() as i64;
        let mut place = start;
        while place < end {
            let rest = piece.from((place - start) as usize);
            let (known, until) = match self.at(place) {
                Some(known) => (Some(known), place + known.bytes.len() as i64),
                None => (None, self.next_after(place).unwrap_or(end)),
            };
            let bytes = (until.min(end) - place) as usize;
            match known {
                Some(known) => self.contradiction(place, known.bytes, &rest, bytes),
                None => {
                    self.pieces.insert(place, Piece { bytes: &rest.bytes[..bytes], ..rest });
                }
            }
            place += bytes as i64;
        }
    }

    /// What is there at a place, from there on.
    pub(super) fn at(&self, place: i64) -> Option<Piece<'a>> {
        let (&start, piece) = self.pieces.range(..=place).next_back()?;
        let at = usize::try_from(place - start).ok()?;
        (at < piece.bytes.len()).then(|| piece.from(at))
    }

    /// Where the next piece begins behind a place.
    pub(super) fn next_after(&self, place: i64) -> Option<i64> {
        self.pieces.range((Excluded(place), Unbounded)).next().map(|(&start, _)| start)
    }

    /// Where the first byte is.
    pub(super) fn start(&self) -> Option<i64> {
        self.pieces.first_key_value().map(|(&start, _)| start)
    }

    /// Behind the last byte.
    pub(super) fn end(&self) -> Option<i64> {
        self.pieces.last_key_value().map(|(&start, piece)| start + piece.bytes.len() as i64)
    }

    /// All pieces, in order.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (i64, Piece<'a>)> {
        self.pieces.iter().map(|(&start, &piece)| (start, piece))
    }

    /// Where this machine contradicts itself, in the order of its frames.
    pub(super) fn contradictions(&self) -> &[Contradiction] {
        &self.contradictions
    }

    /// The bytes around a place without a gap, and which of them is the one.
    pub(super) fn around(&self, place: i64, before: usize, after: usize) -> (Vec<u8>, usize) {
        let byte = |place: i64| self.at(place).map(|piece| piece.bytes[0]);
        let mut bytes: Vec<u8> = (1..=before as i64).map_while(|back| byte(place - back)).collect();
        bytes.reverse();
        let at = bytes.len();
        bytes.extend((0..after as i64).map_while(|on| byte(place + on)));
        (bytes, at)
    }

    /// Keeps the first byte, of each segment, that is not what is there already.
    fn contradiction(&mut self, place: i64, known: &[u8], new: &Piece<'_>, bytes: usize) {
        if let Some(at) = first_difference(&known[..bytes], &new.bytes[..bytes]) {
            self.contradictions.push(Contradiction {
                place: place + at as i64,
                frame: new.frame,
                offset: new.offset + at,
                byte: new.bytes[at],
            });
        }
    }
}

impl<'a> Piece<'a> {
    pub(super) fn from(&self, at: usize) -> Piece<'a> {
        Piece { bytes: &self.bytes[at..], frame: self.frame, offset: self.offset + at }
    }
}

/// The first place in which two streams have different bytes.
pub(super) fn first_conflict(ours: &Assembly<'_>, theirs: &Assembly<'_>) -> Option<i64> {
    let mut place = ours.start()?.max(theirs.start()?);
    loop {
        match (ours.at(place), theirs.at(place)) {
            (Some(a), Some(b)) => {
                let bytes = a.bytes.len().min(b.bytes.len());
                if let Some(at) = first_difference(&a.bytes[..bytes], &b.bytes[..bytes]) {
                    return Some(place + at as i64);
                }
                place += bytes as i64;
            }
            (a, b) => {
                // Behind the gap of whoever has one; behind both, if both have.
                let next = [a.is_none().then(|| ours.next_after(place)), b.is_none().then(|| theirs.next_after(place))];
                for next in next.into_iter().flatten() {
                    place = place.max(next?);
                }
            }
        }
    }
}

/// The first byte, from a place on, that `ours` has and `theirs` has not.
pub(super) fn first_missing(ours: &Assembly<'_>, theirs: &Assembly<'_>, from: i64) -> Option<i64> {
    for (start, piece) in ours.pieces() {
        let end = start + piece.bytes.len() as i64;
        let mut place = start.max(from);
        while place < end {
            match theirs.at(place) {
                Some(known) => place += known.bytes.len() as i64,
                None => return Some(place),
            }
        }
    }
    None
}

fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    if a == b { None } else { a.iter().zip(b).position(|(a, b)| a != b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Segments that need not agree with each other: where, and what.
    fn segments() -> impl Strategy<Value = Vec<(i64, Vec<u8>)>> {
        prop::collection::vec((-20..20i64, prop::collection::vec(0..3u8, 0..9)), 0..12)
    }

    fn assembled(segments: &[(i64, Vec<u8>)]) -> (Assembly<'_>, BTreeMap<i64, u8>) {
        let (mut assembly, mut bytes) = (Assembly::default(), BTreeMap::new());
        for (frame, (start, payload)) in segments.iter().enumerate() {
            assembly.insert(*start, Piece { bytes: payload, frame, offset: 100 });
            for (place, byte) in (*start..).zip(payload) {
                bytes.entry(place).or_insert(*byte);
            }
        }
        (assembly, bytes)
    }

    proptest! {
        #[test]
        fn the_first_byte_counts_for_each_place(segments in segments()) {
            let (assembly, bytes) = assembled(&segments);
            for place in -25..35 {
                let piece = assembly.at(place);
                prop_assert_eq!(piece.map(|piece| piece.bytes[0]), bytes.get(&place).copied());
                if let Some(piece) = piece {
                    let (start, payload) = &segments[piece.frame];
                    prop_assert_eq!(payload[(place - start) as usize], piece.bytes[0]);
                    prop_assert_eq!(piece.offset as i64, 100 + place - start);
                }
            }
            prop_assert_eq!(assembly.start(), bytes.first_key_value().map(|(place, _)| *place));
            prop_assert_eq!(assembly.end(), bytes.last_key_value().map(|(place, _)| *place + 1));
            // It contradicts itself if, and only if, some segment has another byte than the first.
            let own = |(start, payload): &(i64, Vec<u8>)| (*start..).zip(payload.clone()).any(|(place, byte)| bytes[&place] != byte);
            prop_assert_eq!(!assembly.contradictions().is_empty(), segments.iter().any(own));
            for other in assembly.contradictions() {
                prop_assert_ne!(bytes[&other.place], other.byte);
            }
        }

        #[test]
        fn two_streams_are_compared_place_by_place(ours in segments(), theirs in segments(), from in -25..35i64) {
            let ((a, in_a), (b, in_b)) = (assembled(&ours), assembled(&theirs));
            let conflict = in_a.iter().find(|(place, byte)| in_b.get(place).is_some_and(|other| other != *byte));
            prop_assert_eq!(first_conflict(&a, &b), conflict.map(|(place, _)| *place));
            let missing = in_a.keys().find(|place| **place >= from && !in_b.contains_key(place));
            prop_assert_eq!(first_missing(&a, &b, from), missing.copied());
        }
    }

    #[test]
    fn the_surroundings_end_at_a_gap() {
        let segments = [(0, b"abc".to_vec()), (3, b"def".to_vec()), (8, b"xyz".to_vec())];
        let (assembly, _) = assembled(&segments);
        assert_eq!(assembly.around(4, 3, 8), (b"bcdef".to_vec(), 3));
        assert_eq!(assembly.around(6, 8, 8), (b"abcdef".to_vec(), 6));
        assert_eq!(assembly.around(8, 8, 8), (b"xyz".to_vec(), 0));
    }
}
