use super::{bad, body_error, record};
use crate::domain::StateRecord;
use crate::ids::Pfn;
use crate::peer::PayloadError;
use crate::peer::wire::{Fields, check_limit};
use crate::stream::{MAX_PFN_LIMIT, StreamError, kind};
use std::ops::Range;

/// A set of pages, as the ranges that it is made of: those of a domain are few.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct PfnRanges {
    /// They ascend, are not empty, and do not touch.
    ranges: Vec<Range<u64>>,
}

/// Bytes of a range.
const RANGE_BYTES: usize = 16;

impl PfnRanges {
    /// The most ranges: half a record's longest body. A guest of 16 GiB would have to give back every 64th page for so many.
    pub const MAX_RANGES: usize = 1 << 16;

    /// The pages, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = Pfn> + '_ {
        self.ranges.iter().cloned().flatten().map(Pfn)
    }

    /// How many pages there are.
    pub fn count(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    /// Whether there is no page.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The first page number that is above all of them.
    pub fn end(&self) -> u64 {
        self.ranges.last().map_or(0, |range| range.end)
    }

    /// Whether the page is one of them.
    pub fn contains(&self, pfn: Pfn) -> bool {
        let after = self.ranges.partition_point(|range| range.start <= pfn.0);
        after > 0 && self.ranges[after - 1].contains(&pfn.0)
    }

    /// Those pages that `other` does not have.
    pub fn without<'a>(&'a self, other: &'a PfnRanges) -> impl Iterator<Item = Pfn> + 'a {
        // Mostly there are none, and then nothing is looked at.
        let differ = self != other;
        self.iter().filter(move |pfn| differ && !other.contains(*pfn))
    }

    /// The TWIN_POPULATED record.
    ///
    /// # Errors
    /// [`Fault::Body`](crate::stream::Fault::Body): more ranges than the limit.
    pub fn to_record(&self) -> Result<StateRecord, StreamError> {
        let mut body = Vec::new();
        self.put(&mut body).map_err(body_error(kind::TWIN_POPULATED))?;
        Ok(record(kind::TWIN_POPULATED)(body))
    }

    /// Reads the record's body.
    ///
    /// # Errors
    /// [`Fault::Body`](crate::stream::Fault::Body).
    pub fn parse(body: &[u8]) -> Result<PfnRanges, StreamError> {
        let decode = || {
            let mut fields = Fields::new(body);
            let ranges = Self::read(&mut fields)?;
            fields.end()?;
            Ok(ranges)
        };
        decode().map_err(body_error(kind::TWIN_POPULATED))
    }

    /// Appends them: their number (`u32`), and of each the first page and how many there are (`u64` each).
    pub(in crate::stream) fn put(&self, out: &mut Vec<u8>) -> Result<(), PayloadError> {
        check_limit("ranges of pages", Self::MAX_RANGES, self.ranges.len())?;
        out.extend((self.ranges.len() as u32).to_le_bytes());
        for range in &self.ranges {
            out.extend([range.start, range.end - range.start].map(u64::to_le_bytes).concat());
        }
        Ok(())
    }

    pub(in crate::stream) fn read(fields: &mut Fields<'_>) -> Result<PfnRanges, PayloadError> {
        let count = fields.count("ranges of pages", Self::MAX_RANGES, RANGE_BYTES)?;
        let mut ranges: Vec<Range<u64>> = Vec::with_capacity(count);
        for _ in 0..count {
            let (first, pages) = (fields.u64("range of pages")?, fields.u64("range of pages")?);
            let end = first.checked_add(pages).filter(|end| pages > 0 && *end <= MAX_PFN_LIMIT);
            let end = end.ok_or_else(|| bad("number of pages in a range", pages))?;
            if ranges.last().is_some_and(|last| last.end >= first) {
                return Err(bad("the first page of a range behind another", first));
            }
            ranges.push(first..end);
        }
        Ok(PfnRanges { ranges })
    }
}

impl FromIterator<Pfn> for PfnRanges {
    /// The pages must ascend.
    ///
    /// # Panics
    /// When they do not.
    fn from_iter<T: IntoIterator<Item = Pfn>>(pfns: T) -> Self {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for Pfn(pfn) in pfns {
            match ranges.last_mut() {
                Some(last) if last.end == pfn => last.end += 1,
                last => {
                    assert!(last.is_none_or(|last| last.end < pfn), "pages that ascend");
                    ranges.push(pfn..pfn + 1);
                }
            }
        }
        PfnRanges { ranges }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn pages() -> impl Strategy<Value = BTreeSet<u64>> {
        let runs = prop::collection::vec((0_u64..300, 1_u64..40), 0..8);
        runs.prop_map(|runs| runs.into_iter().flat_map(|(first, pages)| first..first + pages).collect())
    }

    proptest! {
        #[test]
        fn they_are_sets_of_pages(mine in pages(), other in pages()) {
            let ranges = |pages: &BTreeSet<u64>| pages.iter().copied().map(Pfn).collect::<PfnRanges>();
            let (mine_ranges, other_ranges) = (ranges(&mine), ranges(&other));
            prop_assert_eq!(mine_ranges.iter().map(|pfn| pfn.0).collect::<BTreeSet<_>>(), mine.clone());
            prop_assert_eq!(mine_ranges.count(), mine.len() as u64);
            prop_assert_eq!(mine_ranges.end(), mine.last().map_or(0, |last| last + 1));
            prop_assert!((0..350).all(|pfn| mine_ranges.contains(Pfn(pfn)) == mine.contains(&pfn)));
            let without: Vec<u64> = mine_ranges.without(&other_ranges).map(|pfn| pfn.0).collect();
            prop_assert_eq!(without, mine.difference(&other).copied().collect::<Vec<_>>());
            let body = mine_ranges.to_record().unwrap().body;
            prop_assert_eq!(PfnRanges::parse(&body), Ok(mine_ranges));
            prop_assert!((0..body.len()).all(|length| PfnRanges::parse(&body[..length]).is_err()));
            prop_assert!(PfnRanges::parse(&[body.as_slice(), &[0]].concat()).is_err());
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let parse = |ranges: &[(u64, u64)]| {
            let mut body = (ranges.len() as u32).to_le_bytes().to_vec();
            ranges.iter().for_each(|(first, pages)| body.extend([*first, *pages].map(u64::to_le_bytes).concat()));
            PfnRanges::parse(&body)
        };
        assert!(parse(&[(0, 1), (2, MAX_PFN_LIMIT - 2)]).is_ok());
        for ranges in [
            &[(0, 0)][..],
            &[(5, 1), (6, 1)],
            &[(5, 3), (6, 1)],
            &[(5, 1), (3, 1)],
            &[(1, MAX_PFN_LIMIT)],
            &[(u64::MAX, 2)],
        ] {
            assert!(parse(ranges).is_err(), "{ranges:?}");
        }
        assert!(PfnRanges::parse(&(PfnRanges::MAX_RANGES as u32 + 1).to_le_bytes()).is_err());
    }
}
