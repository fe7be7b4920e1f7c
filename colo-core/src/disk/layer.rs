use super::Content;
use super::extents::ExtentMap;
use super::journal::Mark;
use super::summed::Summed;
use crate::ids::Epoch;
use std::ops::Range;

/// What all disks are from an epoch on, as far as they were written in it.
pub(super) struct Layer {
    /// Which epoch; of none that is open.
    pub(super) epoch: Epoch,
    /// The one before.
    pub(super) before: Epoch,
    maps: Vec<ExtentMap<Content>>,
    /// Where in the journal its first record stands.
    pub(super) begin: Mark,
    /// Below that it needs nothing of the journal, in bytes.
    pub(super) data_from: u64,
    /// Up to where the journal must be durable for it to count, in bytes.
    pub(super) end: u64,
}

impl Layer {
    pub(super) fn new(disks: usize, begin: Mark) -> Layer {
        let maps = std::iter::repeat_with(ExtentMap::default).take(disks).collect();
        Layer { epoch: Epoch::NONE, before: Epoch::NONE, maps, begin, data_from: u64::MAX, end: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.maps.iter().all(ExtentMap::is_empty)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.maps.iter().map(ExtentMap::bytes).sum()
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        self.maps.iter().map(ExtentMap::memory_bytes).sum()
    }

    /// A disk's part of it. There must be that disk.
    pub(super) fn map(&self, disk: u8) -> &ExtentMap<Content> {
        &self.maps[usize::from(disk)]
    }

    pub(super) fn insert(&mut self, disk: u8, range: Range<u64>, content: Content) {
        self.maps[usize::from(disk)].insert(range, content);
    }

    pub(super) fn extents(&self) -> impl Iterator<Item = (u8, Range<u64>, &Content)> {
        (0..).zip(&self.maps).flat_map(|(disk, map)| map.iter().map(move |(range, content)| (disk, range, content)))
    }

    /// The first extent from a place of a disk on, or on the disks behind it.
    pub(super) fn first_from(&self, (disk, at): (u8, u64)) -> Option<(u8, Range<u64>, &Content)> {
        (disk..).zip(self.maps.iter().skip(usize::from(disk))).find_map(|(number, map)| {
            let (range, content) = map.first_from(if number == disk { at } else { 0 })?;
            Some((number, range, content))
        })
    }

    /// A later epoch over this one: together they are that.
    pub(super) fn overlay(&mut self, later: Layer) {
        (self.epoch, self.end) = (later.epoch, later.end);
        self.data_from = self.data_from.min(later.data_from);
        for (own, later) in self.maps.iter_mut().zip(later.maps) {
            own.overlay(later);
        }
    }

    /// Data that are in memory only.
    pub(super) fn unwritten(&self) -> impl Iterator<Item = (u8, Range<u64>, Summed)> + '_ {
        self.extents().filter_map(|(disk, range, content)| match content {
            Content::Memory { bytes, at: None } => Some((disk, range, bytes.clone())),
            _ => None,
        })
    }

    /// Keeps no data of that part in memory that the journal has in that range.
    pub(super) fn forget_written(&mut self, disk: u8, part: Range<u64>, written: &Range<u64>) {
        self.maps[usize::from(disk)].replace_in(part, |content, _| match content {
            Content::Memory { at: Some(at), .. } if written.contains(at) => Some(Content::Stored { at: *at }),
            _ => None,
        });
    }

    /// Keeps no data in memory that the journal has up to there.
    pub(super) fn forget_memory(&mut self, written: u64) {
        for map in &mut self.maps {
            map.replace(|content, bytes| match content {
                Content::Memory { at: Some(at), .. } if at + bytes <= written => Some(Content::Stored { at: *at }),
                _ => None,
            });
        }
    }
}
