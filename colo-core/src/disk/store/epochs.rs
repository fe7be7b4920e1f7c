//! How what comes becomes epochs.

use super::EpochStore;
use crate::disk::Content;
use crate::disk::extents::Cut as _;
use crate::disk::journal::Entry;
use crate::disk::layer::Layer;
use crate::ids::Epoch;
use std::ops::Range;

impl EpochStore {
    /// Notes a write of the open epoch, in the journal and here; in pieces, where no record is so long.
    pub(super) fn log_write(&mut self, disk: u8, range: Range<u64>, content: Content) {
        if self.open.is_empty() {
            self.open.begin = self.log.end;
        }
        let mut offset = range.start;
        while offset < range.end {
            let all = range.end - offset;
            let is_new = matches!(content, Content::Memory { at: None, .. });
            let length = if is_new { self.make_room(all) } else { all };
            let content = match content.cut(offset - range.start, length) {
                Content::Memory { bytes, at: None } => {
                    let entry = Entry::Data { disk, offset, length, checksum: bytes.crc() };
                    let at = self.append(entry, Some(bytes.as_bytes().clone()));
                    Content::Memory { bytes, at: Some(at) }
                }
                scratch @ (Content::Memory { at: Some(at), .. } | Content::Stored { at }) => {
                    self.append(Entry::Refer { disk, offset, length, at }, None);
                    scratch
                }
                zeroes @ Content::Zeroes { may_unmap } => {
                    self.append(Entry::Zeroes { disk, offset, length, may_unmap }, None);
                    zeroes
                }
            };
            self.open.insert(disk, offset..offset + length, content);
            offset += length;
        }
    }

    pub(super) fn close(&mut self, epoch: Epoch) {
        if self.open.is_empty() {
            self.open.begin = self.log.end;
        }
        self.append(Entry::Barrier { epoch, life: (self.log.life >> 32) as u32 }, None);
        let mut layer = std::mem::replace(&mut self.open, Layer::new(self.sizes.len(), self.log.end));
        (layer.epoch, layer.before) = (epoch, self.last_barrier());
        self.closed.push_back(layer);
    }

    pub(super) fn count(&mut self, epoch: Epoch) {
        self.append(Entry::Commit(epoch), None);
        let end = self.log.end.at;
        self.move_closed(epoch, end);
        self.log.wanted = end;
    }

    /// Closed epochs up to this one count, once the journal is durable up to there.
    pub(super) fn move_closed(&mut self, epoch: Epoch, end: u64) {
        while self.closed.front().is_some_and(|layer| layer.epoch <= epoch) {
            let Some(mut layer) = self.closed.pop_front() else { break };
            if self.keeps_before() {
                // The disks have it.
                self.garbage.push(layer);
                continue;
            }
            layer.end = end;
            self.committed.push_back(layer);
        }
        self.epoch = epoch;
    }

    pub(super) fn drop_uncommitted(&mut self) {
        let open = std::mem::replace(&mut self.open, Layer::new(self.sizes.len(), self.log.end));
        self.garbage.push(open);
        self.garbage.extend(self.closed.drain(..));
    }
}
