use std::collections::BTreeMap;
use std::ops::Range;

/// What a part of a disk is, so that a part of that part can be told.
pub trait Cut: Clone {
    /// The part from byte `from` on, `bytes` long.
    fn cut(&self, from: u64, bytes: u64) -> Self;

    /// Bytes of memory that so long a part takes.
    fn memory_bytes(&self, bytes: u64) -> u64;
}

/// Which parts of a disk are something else than what lies beneath, and what: ranges of bytes that do not overlap, however long.
///
/// ```
/// use colo_core::disk::{Change, Content, ExtentMap};
///
/// let mut map = ExtentMap::<Content>::default();
/// map.insert(0..4096, Change::from(vec![1; 4096]).into());
/// map.insert(1024..2048, Content::Zeroes { may_unmap: true });
/// let parts: Vec<_> = map.read(512..8192).map(|(range, content)| (range, content.is_some())).collect();
/// assert_eq!(parts, [(512..1024, true), (1024..2048, true), (2048..4096, true), (4096..8192, false)]);
/// ```
#[derive(Clone, Debug)]
pub struct ExtentMap<C> {
    /// By their beginnings.
    extents: BTreeMap<u64, Extent<C>>,
    bytes: u64,
    memory_bytes: u64,
}

#[derive(Clone, Debug)]
struct Extent<C> {
    end: u64,
    content: C,
}

impl<C> Default for ExtentMap<C> {
    fn default() -> Self {
        ExtentMap { extents: BTreeMap::new(), bytes: 0, memory_bytes: 0 }
    }
}

impl<C: Cut> ExtentMap<C> {
    /// Whether everything is what lies beneath.
    pub fn is_empty(&self) -> bool {
        self.extents.is_empty()
    }

    /// How many ranges there are.
    pub fn count(&self) -> usize {
        self.extents.len()
    }

    /// How many bytes of the disk are something else.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How much memory that takes, without what the map itself takes.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// From here on this range is that, whatever it was. An empty range changes nothing.
    pub fn insert(&mut self, range: Range<u64>, content: C) {
        if range.is_empty() {
            return;
        }
        self.remove(range.clone());
        self.add(range, content);
    }

    /// From here on this range is what lies beneath.
    pub fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        // At most one begins before the range and reaches into it.
        let before = self.extents.range(..range.start).next_back();
        let first = before.filter(|(_, extent)| extent.end > range.start).map_or(range.start, |(start, _)| *start);
        let inside: Vec<u64> = self.extents.range(first..range.end).map(|(start, _)| *start).collect();
        for start in inside {
            let Some(Extent { end, content }) = self.take(start) else { continue };
            if start < range.start {
                self.add(start..range.start, content.cut(0, range.start - start));
            }
            if end > range.end {
                self.add(range.end..end, content.cut(range.end - start, end - range.end));
            }
        }
    }

    /// What is in a range, piece by piece and without gaps: `None` for what lies beneath.
    pub fn read(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, Option<C>)> + '_ {
        let before = self.extents.range(..range.start).next_back();
        let first = before.filter(|(_, extent)| extent.end > range.start).map_or(range.start, |(start, _)| *start);
        let end = range.end.max(range.start);
        let mut extents = self.extents.range(first..end).peekable();
        let mut at = range.start;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let piece = match extents.peek() {
                Some((start, extent)) if **start <= at => {
                    let until = extent.end.min(end);
                    let content = extent.content.cut(at - **start, until - at);
                    extents.next();
                    (at..until, Some(content))
                }
                Some((start, _)) => (at..**start, None),
                None => (at..end, None),
            };
            at = piece.0.end;
            Some(piece)
        })
    }

    /// All ranges, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (Range<u64>, &C)> {
        self.extents.iter().map(|(start, extent)| (*start..extent.end, &extent.content))
    }

    /// The first range that begins there or behind it.
    pub fn first_from(&self, at: u64) -> Option<(Range<u64>, &C)> {
        self.extents.range(at..).next().map(|(start, extent)| (*start..extent.end, &extent.content))
    }

    /// Lays another map over this one: what that has holds.
    pub fn overlay(&mut self, other: ExtentMap<C>) {
        if self.is_empty() {
            *self = other;
            return;
        }
        for (start, Extent { end, content }) in other.extents {
            self.insert(start..end, content);
        }
    }

    /// Changes what ranges are, not where they are.
    pub fn replace(&mut self, mut with: impl FnMut(&C, u64) -> Option<C>) {
        let mut memory_bytes = 0;
        for (start, extent) in &mut self.extents {
            let bytes = extent.end - start;
            if let Some(content) = with(&extent.content, bytes) {
                extent.content = content;
            }
            memory_bytes += extent.content.memory_bytes(bytes);
        }
        self.memory_bytes = memory_bytes;
    }

    /// Changes what the ranges in that part are, as far as they lie in it whole; not where they are.
    pub fn replace_in(&mut self, part: Range<u64>, mut with: impl FnMut(&C, u64) -> Option<C>) {
        for (start, extent) in self.extents.range_mut(part.start..part.end.max(part.start)) {
            let bytes = extent.end - start;
            let Some(content) = with(&extent.content, bytes).filter(|_| extent.end <= part.end) else { continue };
            self.memory_bytes -= extent.content.memory_bytes(bytes);
            self.memory_bytes += content.memory_bytes(bytes);
            extent.content = content;
        }
    }

    fn add(&mut self, range: Range<u64>, content: C) {
        self.bytes += range.end - range.start;
        self.memory_bytes += content.memory_bytes(range.end - range.start);
        self.extents.insert(range.start, Extent { end: range.end, content });
    }

    fn take(&mut self, start: u64) -> Option<Extent<C>> {
        let extent = self.extents.remove(&start)?;
        self.bytes -= extent.end - start;
        self.memory_bytes -= extent.content.memory_bytes(extent.end - start);
        Some(extent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Knows for each of its bytes which write it came with, and where in that it stood.
    #[derive(Clone, Copy, PartialEq, Debug)]
    struct Written {
        write: usize,
        from: u64,
    }

    impl Cut for Written {
        fn cut(&self, from: u64, _: u64) -> Self {
            Written { from: self.from + from, ..*self }
        }

        fn memory_bytes(&self, bytes: u64) -> u64 {
            // Some take none.
            if self.write % 3 == 0 { 0 } else { bytes }
        }
    }

    const DISK: u64 = 64;

    fn range() -> impl Strategy<Value = Range<u64>> {
        (0..DISK, 0..DISK).prop_map(|(one, other)| one.min(other)..one.max(other))
    }

    fn check(map: &ExtentMap<Written>, model: &[Option<Written>], read: Range<u64>) -> Result<(), TestCaseError> {
        let mut at = read.start;
        for (range, content) in map.read(read.clone()) {
            prop_assert_eq!(range.start, at);
            prop_assert!(!range.is_empty());
            for byte in range.clone() {
                let expected = model[byte as usize];
                prop_assert_eq!(content.map(|content| content.cut(byte - range.start, 1)), expected);
            }
            at = range.end;
        }
        prop_assert_eq!(at, read.end);
        let known: Vec<&Written> = model.iter().flatten().collect();
        prop_assert_eq!(map.bytes(), known.len() as u64);
        prop_assert_eq!(map.memory_bytes(), known.iter().map(|written| written.memory_bytes(1)).sum::<u64>());
        prop_assert_eq!(map.iter().map(|(range, _)| range.end - range.start).sum::<u64>(), map.bytes());
        Ok(())
    }

    proptest! {
        #[test]
        fn it_is_an_array_of_bytes(
            writes in prop::collection::vec((range(), prop::bool::weighted(0.8)), 0..40),
            others in prop::collection::vec(range(), 0..10),
            read in range(),
        ) {
            let (mut map, mut model) = (ExtentMap::default(), vec![None; DISK as usize]);
            for (write, (range, is_insert)) in writes.into_iter().enumerate() {
                for byte in range.clone() {
                    model[byte as usize] = is_insert.then_some(Written { write, from: byte - range.start });
                }
                if is_insert {
                    map.insert(range, Written { write, from: 0 });
                } else {
                    map.remove(range);
                }
                check(&map, &model, read.clone())?;
            }
            let mut over = ExtentMap::default();
            for (number, range) in others.into_iter().enumerate() {
                for byte in range.clone() {
                    model[byte as usize] = Some(Written { write: 100 + number, from: byte - range.start });
                }
                over.insert(range, Written { write: 100 + number, from: 0 });
            }
            map.overlay(over);
            check(&map, &model, read.clone())?;
            map.replace(|written, _| Some(Written { write: written.write + 1, ..*written }));
            model.iter_mut().flatten().for_each(|written| written.write += 1);
            check(&map, &model, read)?;
        }
    }
}
