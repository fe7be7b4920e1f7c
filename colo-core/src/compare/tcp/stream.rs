use crate::compare::spares::Spares;
use crate::net::Frame;
use std::collections::VecDeque;
use std::ops::Range;

/// What the secondary has produced of a stream and has not left yet: parts of its frames, sorted, none overlapping another.
#[derive(Default, Debug)]
pub(super) struct Stream {
    pieces: VecDeque<Piece>,
}

#[derive(Debug)]
pub(super) struct Piece {
    start: i64,
    frame: Frame,
    /// Where its bytes are in the frame.
    at: u32,
    length: u32,
}

impl Piece {
    fn end(&self) -> i64 {
        self.start + i64::from(self.length)
    }

    /// The bytes from one place to another.
    fn bytes(&self, places: Range<i64>) -> &[u8] {
        let at = self.at as usize;
        &self.frame[at + (places.start - self.start) as usize..at + (places.end - self.start) as usize]
    }

    /// A part of it.
    fn part(&self, places: Range<i64>) -> Piece {
        let at = self.at + (places.start - self.start) as u32;
        let length = (places.end - places.start) as u32;
        Piece { start: places.start, frame: self.frame.clone(), at, length }
    }
}

/// The secondary said two different things about the same place.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Contradiction {
    pub(super) place: i64,
}

impl Stream {
    /// Adds what is new in a part of a frame, whose first byte has this place. What was there before stays.
    pub(super) fn insert(
        &mut self,
        start: i64,
        frame: Frame,
        part: Range<usize>,
        ignores_bytes: bool,
        spares: &mut Spares<Piece>,
    ) -> Result<(), Contradiction> {
        let new = Piece { start, frame, at: part.start as u32, length: part.len() as u32 };
        if new.length == 0 {
            return Ok(());
        }
        spares.equip(&mut self.pieces);
        let mut index = self.first_ending_after(start);
        if self.pieces.get(index).is_none_or(|piece| piece.start >= new.end()) {
            self.pieces.insert(index, new);
            return Ok(());
        }
        let mut place = start;
        while place < new.end() {
            let Some(piece) = self.pieces.get(index).filter(|piece| piece.start < new.end()) else {
                self.pieces.insert(index, new.part(place..new.end()));
                break;
            };
            if place < piece.start {
                let gap = place..piece.start;
                place = gap.end;
                self.pieces.insert(index, new.part(gap));
            } else {
                let both = place..piece.end().min(new.end());
                let difference = first_difference(piece.bytes(both.clone()), new.bytes(both.clone()));
                if let Some(at) = difference.filter(|_| !ignores_bytes) {
                    return Err(Contradiction { place: place + at as i64 });
                }
                place = both.end;
            }
            index += 1;
        }
        Ok(())
    }

    /// The bytes from a place on, as far as they lie in one piece; empty when the place is not there.
    pub(super) fn run_at(&self, place: i64) -> &[u8] {
        match self.pieces.get(self.first_ending_after(place)) {
            Some(piece) if piece.start <= place => piece.bytes(place..piece.end()),
            _ => &[],
        }
    }

    /// Whether anything lies at this place or beyond it.
    pub(super) fn reaches(&self, place: i64) -> bool {
        self.pieces.back().is_some_and(|piece| piece.end() > place)
    }

    /// Forgets the pieces that lie wholly in a range.
    pub(super) fn forget(&mut self, range: &Range<i64>, spares: &mut Spares<Piece>) {
        if self.pieces.is_empty() {
            return;
        }
        let from = self.pieces.partition_point(|piece| piece.start < range.start);
        let to = self.pieces.partition_point(|piece| piece.end() <= range.end);
        if from < to {
            self.pieces.drain(from..to);
        }
        spares.settle(&mut self.pieces);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self, spares: &mut Spares<Piece>) {
        self.pieces.clear();
        spares.settle(&mut self.pieces);
    }

    fn first_ending_after(&self, place: i64) -> usize {
        // New bytes are mostly the last, and sought ones mostly the first.
        if self.pieces.front().is_none_or(|piece| piece.end() > place) {
            return 0;
        }
        if self.pieces.back().is_some_and(|piece| piece.end() <= place) {
            return self.pieces.len();
        }
        self.pieces.partition_point(|piece| piece.end() <= place)
    }
}

/// Where two slices of one length first differ.
pub(super) fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    // One comparison of all of it is many times as fast as one byte by byte, and nearly always enough.
    if a == b { None } else { a.iter().zip(b).position(|(a, b)| a != b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Op {
        Insert { start: i64, bytes: i64, flip: Option<i64> },
        Forget { start: i64, bytes: i64 },
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (0..50i64, 0..20i64, proptest::option::weighted(0.1, 0..20i64))
                .prop_map(|(start, bytes, flip)| Op::Insert { start, bytes, flip }),
            1 => (0..30i64, 0..30i64).prop_map(|(start, bytes)| Op::Forget { start, bytes }),
        ]
    }

    proptest! {
        /// Against one cell per place.
        #[test]
        fn behaves_like_an_array(ops in proptest::collection::vec(op(), 0..60)) {
            let (mut stream, mut spares) = (Stream::default(), Spares::default());
            let mut cells: [Option<u8>; 80] = [None; 80];
            for op in ops {
                match op {
                    Op::Insert { start, bytes, flip } => {
                        let mut data: Vec<u8> = (start..start + bytes).map(|place| place as u8).collect();
                        if let Some(cell) = flip.and_then(|at| data.get_mut(at as usize)) {
                            *cell ^= 0x80;
                        }
                        let clash = (start..).zip(&data).find(|(place, new)| cells[*place as usize].is_some_and(|old| old != **new));
                        // Somewhere in a frame.
                        let frame = Frame::from([&[0xFF; 3][..], &data, &[0xFF; 2]].concat());
                        let result = stream.insert(start, frame, 3..3 + data.len(), false, &mut spares);
                        prop_assert_eq!(result.err().map(|e| e.place), clash.map(|(place, _)| place));
                        let end = clash.map_or(start + bytes, |(place, _)| place);
                        for (place, new) in (start..end).zip(&data) {
                            cells[place as usize] = Some(*new);
                        }
                    }
                    Op::Forget { start, bytes } => {
                        // Pieces that stick out are kept whole, which no reader minds.
                        stream.forget(&(start..start + bytes), &mut spares);
                        for place in start..start + bytes {
                            if stream.run_at(place).is_empty() {
                                cells[place as usize] = None;
                            }
                        }
                    }
                }
                for place in 0..80i64 {
                    prop_assert_eq!(stream.run_at(place).first().copied(), cells[place as usize], "at {}", place);
                }
                let last = cells.iter().rposition(Option::is_some).map_or(0, |place| place as i64 + 1);
                prop_assert!(!stream.reaches(last) && (last == 0 || stream.reaches(last - 1)));
            }
        }
    }
}
