use super::cache::PageCache;
use super::{Flushed, RestoreCallbacks};
use crate::domain::{DirtyBitmap, Domain, DomainError, DomainSpec, MAX_BATCH_PAGES, StateRecord};
use crate::ids::{Page, Pfn};
use crate::save::CallbackError;

/// The most received pages that wait for the first flush: what is written while the copy still runs need not be written while
/// the primary's clients wait.
const EARLY_FLUSH_PAGES: u64 = MAX_BATCH_PAGES as u64;

/// Into a cache of the whole guest, and from there into the guest, which runs beside the primary between checkpoints.
///
/// The cache always holds the last checkpoint. A page that only the secondary has dirtied is put right from it, so the
/// primary sends its own dirty pages and no others: what is flushed is *received ∪ dirtied by the secondary*. It costs the
/// guest's memory a second time.
///
/// Before the first checkpoint the guest does not run, and pages go into it while they arrive, unless it
/// [takes them all at once](crate::domain::Pages::flushes_whole).
#[derive(Debug)]
pub struct ColoRestore {
    cache: PageCache,
    /// Received since the last flush.
    received: DirtyBitmap,
    received_pages: u64,
    /// Whether the guest has been started.
    running: bool,
    /// Pages written into the guest since the last checkpoint was finished.
    written_pages: u64,
}

impl Default for ColoRestore {
    fn default() -> Self {
        ColoRestore {
            cache: PageCache::default(),
            received: DirtyBitmap::new(0),
            received_pages: 0,
            running: false,
            written_pages: 0,
        }
    }
}

impl RestoreCallbacks for ColoRestore {
    fn init(&mut self, spec: &DomainSpec) -> Result<(), CallbackError> {
        self.cache = PageCache::default();
        self.received = DirtyBitmap::new(spec.pfn_limit);
        Ok(())
    }

    fn get_page<'a>(&'a mut self, domain: &'a mut dyn Domain, pfn: Pfn) -> Result<&'a mut Page, CallbackError> {
        if pfn.0 >= self.received.pfn_limit() {
            return Err(DomainError::PfnOutOfRange { pfn, pfn_limit: self.received.pfn_limit() }.into());
        }
        if !self.running && self.received_pages >= EARLY_FLUSH_PAGES && !domain.flushes_whole() {
            self.write_received(domain)?;
        }
        self.received.set(pfn);
        self.received_pages += 1;
        Ok(self.cache.page_mut(pfn))
    }

    fn verify(&mut self, domain: &mut dyn Domain) -> Result<(), CallbackError> {
        Ok(self.write_received(domain)?)
    }

    fn flush_memory(&mut self, domain: &mut dyn Domain) -> Result<Flushed, CallbackError> {
        let received_pages = self.received.count();
        domain.suspend()?;
        if self.running {
            domain.take_dirty(&mut self.received)?;
        }
        self.write_received(domain)?;
        Ok(Flushed { received_pages, written_pages: std::mem::take(&mut self.written_pages) })
    }

    fn finish_restore(&mut self, domain: &mut dyn Domain, state: &[StateRecord]) -> Result<(), CallbackError> {
        domain.load_state(state)?;
        if !self.running {
            domain.enable_dirty_log()?;
            self.running = true;
        }
        Ok(domain.resume()?)
    }
}

impl ColoRestore {
    /// Writes all pages in `received` from the cache into the guest, a run of neighbours at a time.
    fn write_received(&mut self, domain: &mut dyn Domain) -> Result<(), DomainError> {
        if domain.flushes_whole() {
            self.written_pages += domain.flush_whole(&self.received, &|pfn| self.cache.page(pfn))?;
            self.received.clear();
            self.received_pages = 0;
            return Ok(());
        }
        let mut run: Vec<Pfn> = Vec::with_capacity(MAX_BATCH_PAGES);
        for pfn in self.received.iter() {
            let follows = run.last().is_none_or(|last| last.0 + 1 == pfn.0 && !PageCache::begins_chunk(pfn));
            if !follows {
                write_run(&self.cache, &run, domain)?;
                run.clear();
            }
            run.push(pfn);
            self.written_pages += 1;
        }
        write_run(&self.cache, &run, domain)?;
        self.received.clear();
        self.received_pages = 0;
        Ok(())
    }
}

fn write_run(cache: &PageCache, run: &[Pfn], domain: &mut dyn Domain) -> Result<(), DomainError> {
    match run.first() {
        Some(first) => domain.write_pages(run, cache.pages(*first, run.len())),
        None => Ok(()),
    }
}
