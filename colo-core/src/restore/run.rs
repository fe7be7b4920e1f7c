use super::{Flushed, RestoreCallbacks, RestoreError};
use crate::domain::{Domain, DomainSpec, StateRecord};
use crate::ids::{PAGE_SIZE, Page, Pfn};
use crate::save::CallbackError;
use crate::stream::image::{PageRun, PageSource};
use crate::stream::{Headers, Limits, OrderChecker, PageData, PageList, PageType, RecordRef, StreamUse, kind};

/// What is to be done after a piece of the stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Go on reading.
    More,
    /// A checkpoint is here as a whole: [`Restorer::apply`] it, or drop it.
    Staged,
    /// The stream has ended.
    End,
}

/// Takes a stream apart, in order, and calls back. See the module.
pub struct Restorer {
    spec: DomainSpec,
    limits: Limits,
    stream_use: StreamUse,
    /// Once the headers are here.
    order: Option<OrderChecker>,
    staged: bool,
    static_data: Vec<StateRecord>,
    static_data_ended: bool,
    /// Whether pages are not put any more, but compared with what was put.
    verifies: bool,
    state: Vec<StateRecord>,
    records: Vec<StateRecord>,
    record_bytes: usize,
}

/// The most bytes of records that are not pages in one checkpoint: vCPUs, devices, and what the packets' side holds.
const MAX_RECORDS_BYTES: usize = 128 << 20;

impl Restorer {
    /// For a stream of a machine like this.
    pub fn new(spec: &DomainSpec, stream_use: StreamUse) -> Self {
        Restorer {
            limits: Limits::new(spec.pfn_limit),
            spec: spec.clone(),
            stream_use,
            order: None,
            staged: false,
            static_data: Vec::new(),
            static_data_ended: false,
            verifies: false,
            state: Vec::new(),
            records: Vec::new(),
            record_bytes: 0,
        }
    }

    /// Takes the next piece of the stream: whole records, the first piece also the headers.
    ///
    /// # Errors
    /// [`RestoreError`], never `HalfWritten`: nothing that could serve has been touched.
    pub fn handle_stream(
        &mut self,
        bytes: &[u8],
        domain: &mut dyn Domain,
        callbacks: &mut dyn RestoreCallbacks,
    ) -> Result<Progress, RestoreError> {
        let mut rest = bytes;
        if self.order.is_none() {
            let (headers, after) = Headers::parse(rest)?;
            self.handle_headers(&headers, domain, callbacks)?;
            rest = after;
        }
        let mut progress = Progress::More;
        while !rest.is_empty() {
            let (record, after) = RecordRef::parse(rest, &self.limits)?;
            progress = self.handle_record(&record, domain, callbacks)?;
            rest = after;
        }
        Ok(progress)
    }

    /// Takes the headers of a stream that somebody else reads; its records go to [`Restorer::handle_record`].
    ///
    /// # Errors
    /// As for [`Restorer::handle_stream`].
    pub fn handle_headers(
        &mut self,
        headers: &Headers,
        domain: &mut dyn Domain,
        callbacks: &mut dyn RestoreCallbacks,
    ) -> Result<(), RestoreError> {
        let (ours, theirs) = (domain.stream_header().kind, headers.domain.kind);
        if ours != theirs {
            return Err(RestoreError::OtherMachine { theirs, ours });
        }
        self.order = Some(OrderChecker::new(headers, self.stream_use));
        callbacks.init(&self.spec).map_err(staging("init"))
    }

    /// Takes the next record of a stream that somebody else reads.
    ///
    /// # Errors
    /// As for [`Restorer::handle_stream`].
    ///
    /// # Panics
    /// Before [`Restorer::handle_headers`].
    pub fn handle_record(
        &mut self,
        record: &RecordRef<'_>,
        domain: &mut dyn Domain,
        callbacks: &mut dyn RestoreCallbacks,
    ) -> Result<Progress, RestoreError> {
        self.order.as_mut().expect("the headers come first").check(record)?;
        self.record(record, domain, callbacks)
    }

    /// Takes the next record, one of pages, whose bytes go from `source` straight to where the callbacks want them.
    ///
    /// # Errors
    /// As for [`Restorer::handle_stream`].
    ///
    /// # Panics
    /// Before [`Restorer::handle_headers`].
    pub fn handle_pages(
        &mut self,
        pages: &PageList<'_>,
        source: &mut dyn PageSource,
        domain: &mut dyn Domain,
        callbacks: &mut dyn RestoreCallbacks,
    ) -> Result<(), RestoreError> {
        let record = RecordRef::PageData(PageData::without_bytes(*pages));
        self.order.as_mut().expect("the headers come first").check(&record)?;
        self.begin_record(&record, domain)?;
        if self.verifies {
            return verify_pages(pages, source, domain);
        }
        put_pages(pages, source, domain, callbacks)
    }

    /// Puts the staged checkpoint into the guest.
    ///
    /// # Errors
    /// [`RestoreError::HalfWritten`]: the domain must be destroyed.
    ///
    /// # Panics
    /// When no checkpoint is staged.
    pub fn apply(
        &mut self,
        domain: &mut dyn Domain,
        callbacks: &mut dyn RestoreCallbacks,
    ) -> Result<Flushed, RestoreError> {
        assert!(self.staged, "apply without a staged checkpoint");
        let flushed = callbacks.flush_memory(domain).map_err(half_written("flush_memory"))?;
        callbacks.update_p2m(domain).map_err(half_written("update_p2m"))?;
        callbacks.finish_restore(domain, &self.state).map_err(half_written("finish_restore"))?;
        self.state.clear();
        self.record_bytes = 0;
        self.staged = false;
        Ok(flushed)
    }

    /// The records of the last checkpoint that are neither pages nor the domain's state.
    pub fn take_records(&mut self) -> Vec<StateRecord> {
        std::mem::take(&mut self.records)
    }

    /// Whatever is not static data ends it: version 2 has no record that says so. But an optional record may stand anywhere.
    fn begin_record(&mut self, record: &RecordRef<'_>, domain: &mut dyn Domain) -> Result<(), RestoreError> {
        if self.staged {
            return Err(RestoreError::NotApplied);
        }
        let is_optional = matches!(record, RecordRef::Own { .. } | RecordRef::Skipped { .. });
        if !is_static(record.kind()) && !is_optional && !std::mem::replace(&mut self.static_data_ended, true) {
            domain.load_static(&std::mem::take(&mut self.static_data))?;
        }
        Ok(())
    }

    fn record(
        &mut self,
        record: &RecordRef<'_>,
        domain: &mut dyn Domain,
        callbacks: &mut dyn RestoreCallbacks,
    ) -> Result<Progress, RestoreError> {
        self.begin_record(record, domain)?;
        match record {
            RecordRef::PageData(pages) if self.verifies => {
                verify_pages(&pages.list(), &mut pages.data(), domain)?;
            }
            RecordRef::PageData(pages) => put_pages(&pages.list(), &mut pages.data(), domain, callbacks)?,
            RecordRef::Verify => {
                callbacks.verify(domain).map_err(staging("verify"))?;
                self.verifies = true;
            }
            RecordRef::State { kind, body } | RecordRef::Own { kind, body } => {
                self.record_bytes += body.len();
                if self.record_bytes > MAX_RECORDS_BYTES {
                    return Err(RestoreError::TooMuch { limit_bytes: MAX_RECORDS_BYTES });
                }
                let record = StateRecord { kind: *kind, body: body.to_vec() };
                match *kind {
                    kind if is_static(kind) => self.static_data.push(record),
                    kind::X86_PV_P2M_FRAMES => domain.load_layout(&record)?,
                    own if kind::is_own(own) && !kind::is_domain_state(own) => {
                        callbacks.record(own, body).map_err(staging("record"))?;
                        self.records.push(record);
                    }
                    _ => self.state.push(record),
                }
            }
            // The end of a plain image is its only checkpoint; a checkpointed stream ends right behind one.
            RecordRef::End if self.state.is_empty() => return Ok(Progress::End),
            RecordRef::Checkpoint | RecordRef::End => {
                // What cannot be loaded must be known before the checkpoint is acknowledged.
                domain.check_state(&self.state)?;
                self.staged = true;
                return Ok(Progress::Staged);
            }
            _ => {}
        }
        Ok(Progress::More)
    }
}

fn is_static(kind: u32) -> bool {
    matches!(kind, kind::X86_PV_INFO | kind::X86_CPUID_POLICY | kind::X86_MSR_POLICY)
}

fn put_pages(
    pages: &PageList<'_>,
    source: &mut dyn PageSource,
    domain: &mut dyn Domain,
    callbacks: &mut dyn RestoreCallbacks,
) -> Result<(), RestoreError> {
    domain.populate(pages)?;
    let (pfns, types): (Vec<Pfn>, Vec<PageType>) = pages.pages().filter(|(_, page_type)| page_type.has_data()).unzip();
    let mut next = 0;
    while next < pfns.len() {
        let run = source.next_run(pfns.len() - next)?;
        let (PageRun::Zeroes(count) | PageRun::Data(count)) = run;
        let (pfns, types) = (&pfns[next..next + count], &types[next..next + count]);
        match run {
            PageRun::Zeroes(_) => callbacks.clear_pages(domain, pfns).map_err(staging("clear_pages"))?,
            PageRun::Data(_) => put_run(pfns, types, source, domain, callbacks)?,
        }
        next += count;
    }
    Ok(())
}

/// Puts pages that follow each other in the stream: the plain ones of them as many at once as there is room for side by side.
fn put_run(
    pfns: &[Pfn],
    types: &[PageType],
    source: &mut dyn PageSource,
    domain: &mut dyn Domain,
    callbacks: &mut dyn RestoreCallbacks,
) -> Result<(), RestoreError> {
    let mut next = 0;
    while next < pfns.len() {
        let pfn = pfns[next];
        if types[next].table_level().is_some() {
            let mut table = [0; PAGE_SIZE];
            source.read(std::slice::from_mut(&mut table))?;
            domain.localise(types[next], &mut table)?;
            callbacks.get_page(domain, pfn).map_err(staging("get_page"))?.copy_from_slice(&table);
            next += 1;
        } else {
            let plain = types[next..].iter().take_while(|page_type| page_type.table_level().is_none()).count();
            let room = callbacks.get_pages(domain, &pfns[next..]).map_err(staging("get_page"))?;
            let count = room.len().min(plain);
            if count == 0 {
                return Err(staging("get_page")("no room".into()));
            }
            source.read(&mut room[..count])?;
            next += count;
        }
    }
    Ok(())
}

/// Compares the pages with the guest's.
fn verify_pages(
    pages: &PageList<'_>,
    source: &mut dyn PageSource,
    domain: &mut dyn Domain,
) -> Result<(), RestoreError> {
    let (pfns, types): (Vec<Pfn>, Vec<PageType>) = pages.pages().filter(|(_, page_type)| page_type.has_data()).unzip();
    let mut there = vec![0; pfns.len() * PAGE_SIZE];
    domain.read_pages(&pfns, &mut there)?;
    for ((&pfn, page_type), there) in pfns.iter().zip(types).zip(there.chunks_exact(PAGE_SIZE)) {
        let mut page: Page = [0; PAGE_SIZE];
        source.read(std::slice::from_mut(&mut page))?;
        if page_type.table_level().is_some() {
            domain.localise(page_type, &mut page)?;
        }
        if there != page.as_slice() {
            return Err(RestoreError::NotTheSame { pfn });
        }
    }
    Ok(())
}

fn staging(callback: &'static str) -> impl FnOnce(CallbackError) -> RestoreError {
    move |source| RestoreError::Callback { callback, source }
}

fn half_written(callback: &'static str) -> impl FnOnce(CallbackError) -> RestoreError {
    move |source| RestoreError::HalfWritten { callback, source }
}
