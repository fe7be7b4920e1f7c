use super::{Flushed, RestoreCallbacks, RestoreError};
use crate::domain::{Domain, DomainSpec, StateRecord};
use crate::ids::{PAGE_SIZE, Page, Pfn};
use crate::save::CallbackError;
use crate::stream::{Headers, Limits, OrderChecker, PageData, RecordRef, StreamUse, kind};

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

    fn record(
        &mut self,
        record: &RecordRef<'_>,
        domain: &mut dyn Domain,
        callbacks: &mut dyn RestoreCallbacks,
    ) -> Result<Progress, RestoreError> {
        if self.staged {
            return Err(RestoreError::NotApplied);
        }
        // Whatever is not static data ends it: version 2 has no record that says so. But an optional record may stand anywhere.
        let is_static = matches!(record.kind(), kind::X86_PV_INFO | kind::X86_CPUID_POLICY | kind::X86_MSR_POLICY);
        let is_optional = matches!(record, RecordRef::Own { .. } | RecordRef::Skipped { .. });
        if !is_static && !is_optional && !std::mem::replace(&mut self.static_data_ended, true) {
            domain.load_static(&std::mem::take(&mut self.static_data))?;
        }
        match record {
            RecordRef::PageData(pages) if self.verifies => verify_pages(pages, domain)?,
            RecordRef::PageData(pages) => put_pages(pages, domain, callbacks)?,
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
                    _ if is_static => self.static_data.push(record),
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

fn put_pages(
    pages: &PageData<'_>,
    domain: &mut dyn Domain,
    callbacks: &mut dyn RestoreCallbacks,
) -> Result<(), RestoreError> {
    domain.populate(pages)?;
    for entry in pages.pages() {
        let Some(data) = entry.data else {
            continue;
        };
        if entry.page_type.table_level().is_some() {
            let mut table: Page = *data;
            domain.localise(entry.page_type, &mut table)?;
            callbacks.get_page(domain, entry.pfn).map_err(staging("get_page"))?.copy_from_slice(&table);
        } else {
            callbacks.get_page(domain, entry.pfn).map_err(staging("get_page"))?.copy_from_slice(data);
        }
    }
    Ok(())
}

/// Compares the pages with the guest's.
fn verify_pages(pages: &PageData<'_>, domain: &mut dyn Domain) -> Result<(), RestoreError> {
    let pfns: Vec<Pfn> = pages.pages().filter(|entry| entry.data.is_some()).map(|entry| entry.pfn).collect();
    let mut there = vec![0; pfns.len() * PAGE_SIZE];
    domain.read_pages(&pfns, &mut there)?;
    let with_data = pages.pages().filter_map(|entry| Some((entry, entry.data?)));
    for ((entry, data), there) in with_data.zip(there.chunks_exact(PAGE_SIZE)) {
        let mut page: Page = *data;
        if entry.page_type.table_level().is_some() {
            domain.localise(entry.page_type, &mut page)?;
        }
        if there != page.as_slice() {
            return Err(RestoreError::NotTheSame { pfn: entry.pfn });
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
