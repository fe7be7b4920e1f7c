//! Of disks that both hosts have. The primary writes to them at once, so what it is about to change is kept here as it is: the
//! *before-images* of an epoch. Together with what stands on the disks they are what the disks were when it began.
//!
//! ```text
//!   overlay      the secondary's guest's own
//!   -------
//!   closed       what whole epochs that do not count yet have changed, as it was: the oldest first
//!   open         the same of the open epoch
//!   disks        where the primary is
//! ```
//!
//! When an epoch counts nothing is folded: the disks have it, and its before-images are forgotten. At a failover they are the guest's own writes,
//! beneath those of its overlay: they go to the journal, and from there to the disks. All of them are its own by the record that says that it
//! serves. Until it is durable nothing is written to the disks, which are the primary's.

use super::EpochStore;
use crate::disk::extents::Cut as _;
use crate::disk::layer::Layer;
use crate::disk::{Content, Piece, Source};
use crate::ids::Epoch;
use std::ops::Range;

impl EpochStore {
    /// Whether what the primary says is what its disks were.
    pub fn keeps_before(&self) -> bool {
        self.config.is_shared && !self.serves
    }

    /// Notes what stood there when the open epoch began. Once that is known, it is what is said first that counts.
    pub(super) fn log_before(&mut self, disk: u8, range: Range<u64>, content: &Content) {
        let parts = self.open.map(disk).read(range.clone());
        let new: Vec<_> = parts.filter(|(_, known)| known.is_none()).map(|(part, _)| part).collect();
        for part in new {
            let content = content.cut(part.start - range.start, part.end - part.start);
            self.log_write(disk, part, content);
        }
    }

    /// Where what the secondary's guest reads is.
    pub(super) fn find_before(&self, disk: u8, range: Range<u64>) -> Vec<Piece> {
        self.find(disk, range, std::iter::once(&self.overlay).chain(&self.closed).chain([&self.open]))
    }

    /// Whether that part of a disk is as it was when the guest's epoch began, or there is none that it must be of any more.
    pub(in crate::disk) fn is_untouched(&self, disk: u8, part: Range<u64>) -> bool {
        !self.keeps_before() || self.find_before(disk, part.clone()) == [(part, Source::Disk)]
    }

    /// Whether everything up to that epoch is on the disks.
    pub(in crate::disk) fn is_folded(&self, epoch: Epoch) -> bool {
        self.epoch_before_layers() >= epoch
    }

    /// What the secondary's guest has seen, as far as it is not what is on the disks: it is to be there, and be its own.
    pub(super) fn take_seen(&mut self) -> Layer {
        let (disks, end) = (self.sizes.len(), self.log.end);
        let open = std::mem::replace(&mut self.open, Layer::new(disks, end));
        let closed = std::mem::take(&mut self.closed);
        let mut seen = Layer::new(disks, end);
        // The oldest lies over the others, and what the guest itself has written over that.
        for layer in std::iter::once(open).chain(closed.into_iter().rev()) {
            let begin = if layer.is_empty() { u64::MAX } else { layer.begin.at };
            seen.data_from = seen.data_from.min(begin);
            seen.overlay(layer);
        }
        seen.overlay(self.take_overlay());
        seen
    }
}
