use super::{SaveError, StreamSink};
use crate::domain::{Domain, MAX_BATCH_PAGES};
use crate::ids::{PAGE_SIZE, Pfn};
use crate::stream::{PageType, page_data_prefix};
use std::io::IoSlice;

/// Pages copied out of a suspended domain, so that it can go on before they are sent.
///
/// Holds up to a limit and keeps its memory from one checkpoint to the next: touching fresh memory would cost as much as the
/// copy itself.
pub(super) struct Capture {
    limit_bytes: usize,
    batch_pages: usize,
    chunks: Vec<Vec<u8>>,
    batches: Vec<Batch>,
    prefix: Vec<u8>,
    types: Vec<PageType>,
}

/// What is in the chunk of the same number.
struct Batch {
    pages: Vec<(Pfn, PageType)>,
    data_bytes: usize,
}

impl Capture {
    /// # Panics
    /// Unless a batch has 1 to [`MAX_BATCH_PAGES`] pages.
    pub(super) fn new(limit_bytes: usize, batch_pages: usize) -> Self {
        assert!((1..=MAX_BATCH_PAGES).contains(&batch_pages), "batches of {batch_pages} pages");
        Capture {
            limit_bytes,
            batch_pages,
            chunks: Vec::new(),
            batches: Vec::new(),
            prefix: Vec::new(),
            types: Vec::new(),
        }
    }

    /// Makes the memory ready for so many pages, within the limit, while nobody waits.
    pub(super) fn prepare(&mut self, pages: u64) {
        let pages = (pages as usize).min(self.limit_bytes / PAGE_SIZE);
        let chunks = pages.div_ceil(self.batch_pages).max(self.chunks.len());
        self.chunks.resize_with(chunks, Vec::new);
        for chunk in &mut self.chunks {
            // Anything but zeroes, which may come as memory that is mapped only when it is written.
            chunk.resize(chunk.len().max(pages.min(self.batch_pages) * PAGE_SIZE), 1);
        }
    }

    /// Copies the pages. What does not fit goes out to the sink at once, while the domain still waits. Returns the bytes written.
    pub(super) fn take(
        &mut self,
        domain: &mut dyn Domain,
        pfns: impl Iterator<Item = Pfn>,
        sink: &mut dyn StreamSink,
    ) -> Result<u64, SaveError> {
        let mut written = 0;
        let mut pfns = pfns.peekable();
        while pfns.peek().is_some() {
            if (self.batches.len() + 1) * self.batch_pages * PAGE_SIZE
                > self.limit_bytes.max(self.batch_pages * PAGE_SIZE)
            {
                written += self.write(sink)?;
            }
            let batch: Vec<Pfn> = pfns.by_ref().take(self.batch_pages).collect();
            let bytes = batch.len() * PAGE_SIZE;
            if self.chunks.len() == self.batches.len() {
                self.chunks.push(Vec::new());
            }
            let chunk = &mut self.chunks[self.batches.len()];
            chunk.resize(chunk.len().max(bytes), 0);
            let with_data = domain.capture_pages(&batch, &mut self.types, &mut chunk[..bytes])?;
            let pages = batch.into_iter().zip(self.types.iter().copied()).collect();
            self.batches.push(Batch { pages, data_bytes: with_data * PAGE_SIZE });
        }
        Ok(written)
    }

    /// Sends the pages of a domain that stands still, from where they are if it lends them. Nothing is held. Returns the bytes written.
    pub(super) fn pass(
        &mut self,
        domain: &mut dyn Domain,
        pfns: impl Iterator<Item = Pfn>,
        sink: &mut dyn StreamSink,
    ) -> Result<u64, SaveError> {
        let mut written = 0;
        let mut pfns = pfns.peekable();
        while pfns.peek().is_some() {
            let batch = next_batch(&mut pfns, self.batch_pages);
            let Some(lent) = domain.lend_pages(&batch, &mut self.types)? else {
                written += self.take(domain, batch.into_iter(), sink)? + self.write(sink)?;
                continue;
            };
            self.prefix.clear();
            page_data_prefix(batch.into_iter().zip(self.types.iter().copied()), &mut self.prefix);
            sink.write_lent(&self.prefix, &*lent)?;
            written += (self.prefix.len() + lent.count() * PAGE_SIZE) as u64;
        }
        Ok(written)
    }

    /// Writes what is held, one record for each batch, and forgets it. Returns the bytes written.
    pub(super) fn write(&mut self, sink: &mut dyn StreamSink) -> Result<u64, SaveError> {
        let mut written = 0;
        for (batch, chunk) in self.batches.drain(..).zip(&self.chunks) {
            self.prefix.clear();
            page_data_prefix(batch.pages, &mut self.prefix);
            sink.write(&[IoSlice::new(&self.prefix), IoSlice::new(&chunk[..batch.data_bytes])])?;
            written += (self.prefix.len() + batch.data_bytes) as u64;
        }
        Ok(written)
    }
}

/// Pages of 2 MiB: what is restored in whole such extents is faster there.
const EXTENT_PAGES: u64 = 512;

/// The next pages, as many as make a batch; fewer where that lets the next batch begin with an extent.
fn next_batch(pfns: &mut impl Iterator<Item = Pfn>, batch_pages: usize) -> Vec<Pfn> {
    let mut batch = Vec::with_capacity(batch_pages);
    for pfn in pfns.by_ref() {
        batch.push(pfn);
        let extent_ends = pfn.0 % EXTENT_PAGES == EXTENT_PAGES - 1;
        if batch.len() == batch_pages || (extent_ends && batch.len() >= batch_pages / 2) {
            break;
        }
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_come_to_begin_with_extents() {
        let mut pfns = (0..16).chain(17..3000).map(Pfn);
        let batches: Vec<_> =
            std::iter::from_fn(|| Some(next_batch(&mut pfns, 512)).filter(|batch| !batch.is_empty())).collect();
        let firsts: Vec<_> = batches.iter().map(|batch| batch[0].0).collect();
        assert_eq!(firsts, [0, 512, 1024, 1536, 2048, 2560]);
        assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), 2999);
        // Pages far from each other are not sent one by one.
        let mut pfns = (0..2000).map(|number| Pfn(number * 512 + 511));
        assert_eq!(next_batch(&mut pfns, 512).len(), 256);
    }
}
