use crate::net::Seq;
use std::ops::Range;

/// The most separate stretches of a stream that are remembered as having left. A guest that sends in order has one.
const MAX_RANGES: usize = 8;

/// The farthest that two sequence numbers in use can lie apart: the largest window is 1 GiB (RFC 7323 §2.3).
const MAX_WINDOW_BYTES: i64 = 1 << 30;

/// Maps 32-bit sequence numbers to places in a stream that never wrap around, so that they have one order.
#[derive(Default, Debug)]
pub(super) struct SequenceSpace {
    /// The sequence number of place 0: the first that was seen.
    anchor: Option<Seq>,
    /// The place to which numbers are taken to be near.
    reference: i64,
}

impl SequenceSpace {
    /// The place of a sequence number: the one nearest to where the stream stands.
    pub(super) fn place(&mut self, seq: Seq) -> i64 {
        let anchor = *self.anchor.get_or_insert(seq);
        // Truncation is meant: the reference's own sequence number.
        let reference = anchor + self.reference as u32;
        self.reference + i64::from(seq.distance_from(reference))
    }

    /// Whether a window can reach this place.
    pub(super) fn is_near(&self, place: i64) -> bool {
        (place - self.reference).abs() <= MAX_WINDOW_BYTES
    }

    /// The sequence number at a place.
    pub(super) fn seq_at(&self, place: i64) -> Seq {
        self.anchor.unwrap_or_default() + place as u32
    }

    /// The stream has got as far as this place.
    pub(super) fn reach(&mut self, place: i64) {
        self.reference = self.reference.max(place);
    }
}

/// Stretches of a stream, sorted, none touching another. A guest that sends in order has one, and that is no allocation.
#[derive(Default, Debug)]
pub(super) struct Ranges {
    /// The highest; empty when there is none.
    last: Range<i64>,
    lower: Vec<Range<i64>>,
}

impl Ranges {
    /// Adds a stretch, and returns the one that it has become a part of. When there are too many, the lowest is forgotten.
    pub(super) fn insert(&mut self, new: Range<i64>) -> Range<i64> {
        if new.is_empty() {
            return new;
        }
        if self.last.is_empty() {
            self.last = new;
        } else if self.last.start <= new.start && new.start <= self.last.end {
            self.last.end = self.last.end.max(new.end);
        } else {
            return self.insert_out_of_order(new);
        }
        self.last.clone()
    }

    #[cold]
    fn insert_out_of_order(&mut self, new: Range<i64>) -> Range<i64> {
        let ranges = &mut self.lower;
        ranges.push(self.last.clone());
        let first = ranges.partition_point(|range| range.end < new.start);
        let last = ranges.partition_point(|range| range.start <= new.end);
        let mut merged = new;
        for range in ranges.drain(first..last) {
            merged = merged.start.min(range.start)..merged.end.max(range.end);
        }
        ranges.insert(first, merged.clone());
        if ranges.len() > MAX_RANGES {
            ranges.remove(0);
        }
        self.last = ranges.pop().unwrap_or_default();
        merged
    }

    /// Where the stretch that holds this place ends.
    pub(super) fn end_of(&self, place: i64) -> Option<i64> {
        let mut ranges = std::iter::once(&self.last).chain(self.lower.iter().rev());
        ranges.find(|range| range.contains(&place)).map(|range| range.end)
    }

    /// Whether one stretch holds all of these places.
    pub(super) fn covers(&self, places: &Range<i64>) -> bool {
        places.is_empty() || self.end_of(places.start).is_some_and(|end| places.end <= end)
    }

    /// Whether everything in it lies before this place.
    pub(super) fn ends_before(&self, place: i64) -> bool {
        self.last.end <= place || self.last.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn places_go_on_where_numbers_wrap() {
        let mut space = SequenceSpace::default();
        let mut seq = Seq(u32::MAX - 5);
        for step in 0..20i64 {
            assert_eq!(space.place(seq), step << 29);
            assert_eq!(space.seq_at(step << 29), seq);
            assert_eq!(space.place(seq - 10), (step << 29) - 10);
            space.reach(step << 29);
            seq = seq + (1 << 29);
        }
        let far = space.place(seq + (1 << 30));
        assert!(!space.is_near(far));
    }

    proptest! {
        #[test]
        fn ranges_behave_like_a_set(inserts in proptest::collection::vec((0..60i64, 0..9i64), 0..30)) {
            let mut ranges = Ranges::default();
            let mut set = std::collections::BTreeSet::new();
            for (start, bytes) in inserts {
                let merged = ranges.insert(start..start + bytes);
                set.extend(start..start + bytes);
                prop_assert!(merged.start <= start && merged.end >= start + bytes);
                prop_assert!(merged.clone().all(|place| set.contains(&place)));
                // Only a forgotten range may be missing, and those are the lowest.
                let all: Vec<_> = ranges.lower.iter().chain([&ranges.last]).filter(|range| !range.is_empty()).cloned().collect();
                prop_assert!(all.len() <= MAX_RANGES);
                let lowest = all.first().map_or(0, |range| range.start);
                if all.len() < MAX_RANGES {
                    set.retain(|place| *place >= lowest);
                }
                for place in lowest..70 {
                    prop_assert_eq!(ranges.end_of(place).is_some(), set.contains(&place), "at {}", place);
                }
                prop_assert!(all.windows(2).all(|pair| pair[0].end < pair[1].start));
                let highest = set.last().map_or(0, |place| place + 1);
                prop_assert!(ranges.ends_before(highest) && (set.is_empty() || !ranges.ends_before(highest - 1)));
            }
        }
    }
}
