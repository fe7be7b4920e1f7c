//! The seam: what a hypervisor must offer for its machines to be protected.
//!
//! Four small traits, each object-safe: [`Control`] (stop and go), [`DirtyLog`] (which pages were written), [`Pages`] (read
//! and write them) and [`State`] (vCPUs and devices). [`Domain`] is all four. The engine drives a `&mut dyn Domain` and
//! never learns which hypervisor is behind it. [`Host`] makes domains, for the side that receives one.
//!
//! [`model::ModelDomain`] is an implementation in plain memory, for tests and for trying things out:
//!
//! ```
//! use colo_core::domain::{Control, DirtyLog, Domain, Pages, model::ModelDomain};
//! use colo_core::domain::DirtyBitmap;
//! use colo_core::ids::{PAGE_SIZE, Pfn};
//!
//! let mut domain = ModelDomain::new("demo", 16);
//! domain.enable_dirty_log()?;
//! domain.suspend()?;
//! domain.write_pages(&[Pfn(3)], &[7; PAGE_SIZE])?;
//! let mut page = vec![0; PAGE_SIZE];
//! domain.read_pages(&[Pfn(3)], &mut page)?;
//! assert_eq!(page[0], 7);
//! # Ok::<(), colo_core::domain::DomainError>(())
//! ```

mod bitmap;
mod error;
pub mod model;
mod spec;

pub use bitmap::DirtyBitmap;
pub use error::DomainError;
pub use spec::{DiskSpec, DomainSpec, MacAddr, NicSpec};

use crate::disk::{PrimaryDisks, SecondaryDisks};
use crate::ids::{PAGE_SIZE, Page, Pfn};
use crate::net::Port;
use crate::stream::{DomainHeader, PageList, PageType};
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;

/// The most pages in one call of [`Pages`]: a batch is one record of the stream, and 4 MiB keep a cache warm.
pub const MAX_BATCH_PAGES: usize = 1024;

/// Everything that the engine needs of a domain.
pub trait Domain: Control + DirtyLog + Pages + State + Send {}

impl<T: Control + DirtyLog + Pages + State + Send> Domain for T {}

/// What a domain is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunState {
    /// Its vCPUs run.
    Running,
    /// Its vCPUs are stopped; nothing changes its memory or its devices.
    Suspended,
    /// It has ended by itself: shut down in order.
    ShutDown,
    /// It has ended by a fault of its own.
    Crashed,
}

/// Stop and go.
pub trait Control {
    /// What the domain is: its name, its memory, its network cards. Constant over its life.
    fn spec(&self) -> &DomainSpec;

    /// What the domain is doing now.
    fn run_state(&self) -> RunState;

    /// Stops the vCPUs. On return nothing changes the domain's memory or state any more, but by calls of this seam.
    /// Suspending a suspended domain does nothing.
    ///
    /// # Errors
    /// [`DomainError::NotRunning`] when the domain has ended.
    fn suspend(&mut self) -> Result<(), DomainError>;

    /// Keeps the domain as it is, until it is known whether it may serve: then it is resumed, or destroyed. A domain that is not only stopped
    /// when it is suspended, but made ready to be given another's state, holds in another way.
    ///
    /// # Errors
    /// As for [`Control::suspend`].
    fn hold(&mut self) -> Result<(), DomainError> {
        self.suspend()
    }

    /// Lets the vCPUs go on where they are. Resuming a running domain does nothing.
    ///
    /// # Errors
    /// [`DomainError::NotRunning`] when the domain has ended.
    fn resume(&mut self) -> Result<(), DomainError>;

    /// Of a domain that stands, with a state that was loaded: its primary has said nothing for a while, so that it may have to go on soon.
    /// What [`Control::resume`] would do first and can be done ahead is done now.
    ///
    /// # Errors
    /// When it could not be resumed, either.
    fn make_ready(&mut self) -> Result<(), DomainError> {
        Ok(())
    }

    /// By which way the last state was loaded into the domain, and why, where there are several.
    fn load_way(&self) -> Option<String> {
        None
    }

    /// Ends the domain at once; it can do nothing after this call, whatever the call returns. Safe to repeat.
    fn destroy(&mut self);
}

/// Which pages were written, by the guest or by its devices.
pub trait DirtyLog {
    /// How dirty pages are found, in a few words for people ("userfaultfd-wp", "shadow compare").
    fn dirty_log_kind(&self) -> &'static str;

    /// Starts logging. All pages count as clean from here.
    fn enable_dirty_log(&mut self) -> Result<(), DomainError>;

    /// Adds to `into` every page written since the last call (or since the log was enabled), and starts anew. Exact when the
    /// domain is suspended; while it runs, a page written during the call is reported now or by the next call.
    ///
    /// # Errors
    /// [`DomainError::DirtyLogOff`] unless the log is enabled.
    fn take_dirty(&mut self, into: &mut DirtyBitmap) -> Result<(), DomainError>;

    /// Stops logging, and gives up what was kept for looking into the domain often. Takes its time: not while somebody waits.
    fn disable_dirty_log(&mut self) -> Result<(), DomainError>;
}

/// Reading and writing guest memory, in batches of at most [`MAX_BATCH_PAGES`].
pub trait Pages {
    /// Adds to `into` every page that has content. A page left out reads as zeroes.
    fn populated(&self, into: &mut DirtyBitmap) -> Result<(), DomainError>;

    /// Adds to `into` every page that others than the guest may write to while it stands still: a ring that it shares with them, or what
    /// it has lent to them. Such a page cannot be compared with what it was.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    fn shared_pages(&self, into: &mut DirtyBitmap) -> Result<(), DomainError> {
        let _ = into;
        Ok(())
    }

    /// Copies the pages, in the order of `pfns`, into `out`, which holds exactly as many pages. Allowed while the domain runs;
    /// a page may then be torn.
    ///
    /// # Errors
    /// [`DomainError::PfnOutOfRange`]; [`DomainError::BadBatch`] when the lengths do not fit.
    fn read_pages(&self, pfns: &[Pfn], out: &mut [u8]) -> Result<(), DomainError>;

    /// As [`Pages::read_pages`], but of the suspended domain and in the guest's own terms: the same for the same guest, whichever memory of
    /// a host it is in. What a guest must know of its host's memory beyond its page tables reads as zeroes.
    ///
    /// # Errors
    /// As for [`Pages::read_pages`].
    fn read_normalised(&self, pfns: &[Pfn], out: &mut [u8]) -> Result<(), DomainError> {
        self.read_pages(pfns, out)
    }

    /// Overwrites the pages with those in `data`. The domain must not run. These writes need not show up in the dirty log.
    ///
    /// # Errors
    /// As for [`Pages::read_pages`].
    fn write_pages(&mut self, pfns: &[Pfn], data: &[u8]) -> Result<(), DomainError>;

    /// Copies the pages as they travel: into `types` what each is to the guest, into `out` the bytes of those
    /// [that have any](PageType::has_data), one after the other in the order of `pfns`; `out` has room for all of them. Page tables
    /// come out in terms of the guest's own page numbers. Returns how many pages have bytes. Allowed while the domain runs; a page
    /// that cannot be had in one piece then is [`PageType::Invalid`] this time, and counts as dirty.
    ///
    /// # Errors
    /// As for [`Pages::read_pages`].
    fn capture_pages(&mut self, pfns: &[Pfn], types: &mut Vec<PageType>, out: &mut [u8]) -> Result<usize, DomainError> {
        let bytes = pfns.len() * PAGE_SIZE;
        let got = out.len();
        let out = out.get_mut(..bytes).ok_or(DomainError::BadBatch { pages: pfns.len(), bytes: got })?;
        self.read_pages(pfns, out)?;
        types.clear();
        types.resize(pfns.len(), PageType::Normal);
        Ok(pfns.len())
    }

    /// As [`Pages::capture_pages`], but the pages are lent where they are, with no copy on the way. The domain must not run. `None` where
    /// that cannot be.
    ///
    /// # Errors
    /// As for [`Pages::capture_pages`].
    fn lend_pages(
        &mut self,
        pfns: &[Pfn],
        types: &mut Vec<PageType>,
    ) -> Result<Option<Box<dyn LentPages + '_>>, DomainError> {
        let _ = (pfns, types);
        Ok(None)
    }

    /// These pages of a stream are about to be put into the domain: makes memory for those that have none. What the guest can see
    /// of its memory does not change.
    ///
    /// # Errors
    /// When there is no memory, or no such page.
    fn populate(&mut self, pages: &PageList<'_>) -> Result<(), DomainError> {
        let _ = pages;
        Ok(())
    }

    /// Turns a page table that came with a stream into this domain's own terms: the opposite of what [`Pages::capture_pages`] did.
    /// Memory is made for the pages that it names. Only called for pages that [are tables](PageType::table_level).
    ///
    /// # Errors
    /// When the table names what cannot be.
    fn localise(&mut self, page_type: PageType, page: &mut Page) -> Result<(), DomainError> {
        let _ = (page_type, page);
        Ok(())
    }

    /// The first of these pages itself (there is one), and those that follow it as far as they lie side by side in this process's
    /// memory, to be filled without a copy on the way; the others are likely to be wanted next. As for [`Pages::write_pages`], the domain must not run, and pages that
    /// [are tables](PageType::table_level) are not to be had. `None` where that cannot be: use [`Pages::write_pages`].
    ///
    /// # Errors
    /// When the hypervisor refuses.
    fn pages_mut(&mut self, pfns: &[Pfn]) -> Result<Option<&mut [Page]>, DomainError> {
        let _ = pfns;
        Ok(None)
    }

    /// Fills the pages with zeroes; any number of them. As for [`Pages::write_pages`], the domain must not run.
    ///
    /// # Errors
    /// As for [`Pages::write_pages`].
    fn clear_pages(&mut self, pfns: &[Pfn]) -> Result<(), DomainError> {
        write_zeroes(self, pfns)
    }

    /// Whether the pages of a checkpoint must be put into the guest all at once, by [`Pages::flush_whole`] and nothing else: where a page
    /// cannot be written before others have changed (Xen PV, whose hypervisor watches over page tables in use).
    fn flushes_whole(&self) -> bool {
        false
    }

    /// Gives the suspended guest another's memory. `page` is what is in a page, in the stream's terms: where a domain flushes whole,
    /// [`Pages::localise`] leaves page tables as they came. `changed` are the pages that either guest has written since both were last the
    /// same, as far as that is known. Returns how many pages were written. Only where [`Pages::flushes_whole`].
    ///
    /// # Errors
    /// When the memory makes no sense, or the hypervisor refuses: the guest is half-written then.
    fn flush_whole<'a>(&mut self, changed: &DirtyBitmap, page: &dyn Fn(Pfn) -> &'a Page) -> Result<u64, DomainError> {
        let _ = (changed, page);
        Err(DomainError::Other("this domain's pages are written one by one".into()))
    }

    /// Brings the guest's own table of frames up to date with the memory that it has, for machines that have one (Xen PV).
    ///
    /// # Errors
    /// When the guest keeps its table where it cannot be.
    fn update_p2m(&mut self) -> Result<(), DomainError> {
        Ok(())
    }
}

/// Checks that `bytes` is the length of that many pages, and the batch no longer than allowed.
pub(crate) fn check_batch(pfns: &[Pfn], bytes: usize) -> Result<(), DomainError> {
    if pfns.len() > MAX_BATCH_PAGES || bytes != pfns.len() * PAGE_SIZE {
        return Err(DomainError::BadBatch { pages: pfns.len(), bytes });
    }
    Ok(())
}

/// [`Pages::clear_pages`], for whoever has no better way.
pub(crate) fn write_zeroes<P: Pages + ?Sized>(domain: &mut P, pfns: &[Pfn]) -> Result<(), DomainError> {
    let zeroes = vec![0; pfns.len().min(MAX_BATCH_PAGES) * PAGE_SIZE];
    pfns.chunks(MAX_BATCH_PAGES).try_for_each(|pfns| domain.write_pages(pfns, &zeroes[..pfns.len() * PAGE_SIZE]))
}

/// Pages that lie one after the other in a stream, and anywhere in memory. Others may still write to them (a network backend that
/// does not know yet that its guest stands still), so there is no reference to what is in them.
pub trait LentPages {
    /// How many there are.
    fn count(&self) -> usize;

    /// Whether there is nothing but zeroes in a page.
    ///
    /// # Panics
    /// When there is no such page.
    fn is_zero(&self, index: usize) -> bool;

    /// Copies a page.
    ///
    /// # Panics
    /// When there is no such page.
    fn copy(&self, index: usize, into: &mut Page);

    /// Writes pages into a file, from byte `offset` on.
    ///
    /// # Errors
    /// The file's.
    ///
    /// # Panics
    /// When there are no such pages.
    fn write_at(&self, pages: Range<usize>, file: BorrowedFd<'_>, offset: u64) -> io::Result<()>;
}

/// A piece of a domain's state that is not memory: a vCPU's registers, a device. What is in it only the hypervisor knows; the
/// stream carries it as one record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StateRecord {
    /// The record's type in the stream (see [`crate::stream`]).
    pub kind: u32,
    /// Its body.
    pub body: Vec<u8>,
}

/// vCPU and device state.
pub trait State {
    /// What kind of machine this is, as its stream says it.
    fn stream_header(&self) -> DomainHeader;

    /// What never changes while the guest runs, but must be known before its memory: the records that stand before STATIC_DATA_END.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    fn save_static(&mut self) -> Result<Vec<StateRecord>, DomainError> {
        Ok(Vec::new())
    }

    /// Prepares the domain for a guest with this static data: what [`State::save_static`] gave, or less from an older version.
    ///
    /// # Errors
    /// [`DomainError::BadState`] when this host cannot have such a guest.
    fn load_static(&mut self, state: &[StateRecord]) -> Result<(), DomainError> {
        let _ = state;
        Ok(())
    }

    /// How the guest's memory is laid out, before any page of it: the records that stand before the first PAGE_DATA.
    ///
    /// # Errors
    /// When the guest's own tables make no sense.
    fn save_layout(&mut self) -> Result<Vec<StateRecord>, DomainError> {
        Ok(Vec::new())
    }

    /// Takes a record of [`State::save_layout`].
    ///
    /// # Errors
    /// [`DomainError::BadState`].
    fn load_layout(&mut self, record: &StateRecord) -> Result<(), DomainError> {
        let _ = record;
        Ok(())
    }

    /// The state of the suspended domain, in the order in which it must be loaded.
    ///
    /// # Errors
    /// [`DomainError::NotSuspended`] when the domain runs.
    fn save_state(&mut self) -> Result<Vec<StateRecord>, DomainError>;

    /// Checks that [`State::load_state`] would take these records, and changes nothing.
    ///
    /// # Errors
    /// [`DomainError::BadState`], with the reason.
    fn check_state(&self, state: &[StateRecord]) -> Result<(), DomainError>;

    /// Puts the suspended domain into this state. Its memory has been written before.
    ///
    /// # Errors
    /// [`DomainError::NotSuspended`], [`DomainError::BadState`].
    fn load_state(&mut self, state: &[StateRecord]) -> Result<(), DomainError>;

    /// What of this running domain no state changes, in terms of the hypervisor, at most
    /// [`MAX_LIKENESS_BYTES`](crate::peer::MAX_LIKENESS_BYTES): another domain whose state it is to be given again and again should be
    /// like it. Empty where there is no such thing.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    fn likeness(&mut self) -> Result<Vec<u8>, DomainError> {
        Ok(Vec::new())
    }

    /// Makes this running domain like the one with that [likeness](State::likeness), if it is not. Says what the difference was. Its guest
    /// may have to connect its devices anew, and clients wait for that.
    ///
    /// # Errors
    /// [`DomainError::BadState`] when it is no likeness; else the guest may be in any state.
    fn become_like(&mut self, likeness: &[u8]) -> Result<Option<String>, DomainError> {
        let _ = likeness;
        Ok(None)
    }
}

/// A domain and the host's ends of its network cards, in the order of [`DomainSpec::nics`].
pub struct Machine {
    /// The domain.
    pub domain: Box<dyn Domain>,
    /// One port for each card.
    pub nics: Vec<Box<dyn Port>>,
    /// Its disks.
    pub disks: Disks,
}

/// The disks of a [`Machine`], as those of its side.
#[derive(Default)]
pub enum Disks {
    /// It has none that are protected with it.
    #[default]
    None,
    /// Of a machine that serves.
    Primary(Box<dyn PrimaryDisks>),
    /// Of one that was made to follow.
    Secondary(Box<dyn SecondaryDisks>),
}

/// A host that can take in a domain: the secondary's side of the seam.
pub trait Host: Send {
    /// The hypervisor's name, as domains' specifications carry it ("embedded", "xen").
    fn hypervisor(&self) -> &str;

    /// Makes an empty, suspended domain to that specification.
    fn create(&mut self, spec: &DomainSpec) -> Result<Machine, DomainError>;

    /// The domain is about to serve, and will have to outlive whatever becomes of this process.
    ///
    /// # Errors
    /// When that cannot be had; it does not serve then.
    fn promote(&mut self, spec: &DomainSpec) -> Result<(), DomainError> {
        let _ = spec;
        Ok(())
    }

    /// The domain serves, and has done so for a moment, or its time is over: now is the time for what clients do not wait for.
    fn took_over(&mut self, spec: &DomainSpec) {
        let _ = spec;
    }

    /// Connects card number `nic` of the domain to the clients' network: from here on its address may be seen there. Called
    /// when the domain goes live.
    fn open_lan(&mut self, spec: &DomainSpec, nic: usize) -> Result<Box<dyn Port>, DomainError>;

    /// What whoever would protect such a domain towards this host should know of it beforehand: names and values, to the limits of
    /// [`Facts`](crate::peer::Facts). Only looks: nothing is made for the domain. Its specification comes from anybody who can connect.
    ///
    /// # Errors
    /// When there is something that must be put right before the host could take anything in.
    fn facts(&mut self, spec: &DomainSpec) -> Result<Vec<(String, String)>, DomainError> {
        let _ = spec;
        Ok(Vec::new())
    }
}
