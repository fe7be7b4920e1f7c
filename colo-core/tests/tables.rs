//! A machine whose memory has page tables in terms of machine frames, saved on one host and restored on another where every page
//! has another frame: what the seam asks of the engine, in the order in which it must come.

use colo_core::domain::model::ModelDomain;
use colo_core::domain::{
    Control, DirtyBitmap, DirtyLog, Domain, DomainError, DomainSpec, Pages, RunState, State, StateRecord,
};
use colo_core::ids::{PAGE_SIZE, Page, Pfn};
use colo_core::restore::{ColoRestore, PlainRestore, RemusRestore, RestoreCallbacks, RestoreError, Restorer};
use colo_core::save::{PlainSave, SaveConfig, SaveLoop, Step};
use colo_core::stream::image::{ImageReadError, PageRun, PageSource};
use colo_core::stream::{
    DomainHeader, Headers, Limits, PageList, PageType, RecordRef, StreamUse, kind, page_data_prefix, write_record,
};
use proptest::prelude::*;
use std::cell::Cell;
use std::time::Instant;

const PAGES: u64 = 40;
/// What a host adds to a page's number to get its frame.
type Shift = u64;

/// The pages from this one on are tables: every word but zero is a frame.
const FIRST_TABLE: u64 = 30;

struct TableMachine {
    inner: ModelDomain,
    shift: Shift,
    /// What has been called, for the order.
    calls: Vec<&'static str>,
    /// Whether it was logged what is written when it was asked which pages there are.
    listed: Cell<Option<bool>>,
    populated: DirtyBitmap,
}

impl TableMachine {
    fn new(shift: Shift) -> Self {
        TableMachine {
            inner: ModelDomain::new("tables", PAGES),
            shift,
            calls: Vec::new(),
            listed: Cell::new(None),
            populated: DirtyBitmap::new(PAGES),
        }
    }

    /// Its memory with every frame as a page number.
    fn pseudo_physical(&self) -> Vec<u8> {
        let mut ram = self.inner.ram().to_vec();
        for table in ram.chunks_mut(PAGE_SIZE).skip(FIRST_TABLE as usize) {
            convert(table, |frame| frame - self.shift);
        }
        ram
    }
}

fn convert(table: &mut [u8], change: impl Fn(u64) -> u64) {
    for entry in table.chunks_mut(8) {
        let word = u64::from_le_bytes(entry.try_into().unwrap());
        if word != 0 {
            entry.copy_from_slice(&change(word).to_le_bytes());
        }
    }
}

impl Control for TableMachine {
    fn spec(&self) -> &DomainSpec {
        self.inner.spec()
    }

    fn run_state(&self) -> RunState {
        self.inner.run_state()
    }

    fn suspend(&mut self) -> Result<(), DomainError> {
        self.calls.push("suspend");
        self.inner.suspend()
    }

    fn resume(&mut self) -> Result<(), DomainError> {
        self.inner.resume()
    }

    fn destroy(&mut self) {
        self.inner.destroy();
    }
}

impl DirtyLog for TableMachine {
    fn dirty_log_kind(&self) -> &'static str {
        "model"
    }

    fn enable_dirty_log(&mut self) -> Result<(), DomainError> {
        self.calls.push("enable_dirty_log");
        self.inner.enable_dirty_log()
    }

    fn take_dirty(&mut self, into: &mut DirtyBitmap) -> Result<(), DomainError> {
        self.inner.take_dirty(into)
    }

    fn disable_dirty_log(&mut self) -> Result<(), DomainError> {
        self.inner.disable_dirty_log()
    }
}

impl Pages for TableMachine {
    fn populated(&self, into: &mut DirtyBitmap) -> Result<(), DomainError> {
        self.listed.set(Some(self.calls.contains(&"enable_dirty_log")));
        into.set_range(Pfn(0), PAGES);
        Ok(())
    }

    fn read_pages(&self, pfns: &[Pfn], out: &mut [u8]) -> Result<(), DomainError> {
        self.inner.read_pages(pfns, out)
    }

    fn write_pages(&mut self, pfns: &[Pfn], data: &[u8]) -> Result<(), DomainError> {
        assert!(pfns.iter().all(|pfn| self.populated.contains(*pfn)), "a page without memory is written");
        self.inner.write_pages(pfns, data)
    }

    fn capture_pages(&mut self, pfns: &[Pfn], types: &mut Vec<PageType>, out: &mut [u8]) -> Result<usize, DomainError> {
        self.calls.push("capture_pages");
        types.clear();
        let mut count = 0;
        for &pfn in pfns {
            let page = &mut out[count * PAGE_SIZE..][..PAGE_SIZE];
            self.inner.read_pages(&[pfn], page)?;
            types.push(match pfn.0 {
                // Every seventh page is not there.
                pfn if pfn % 7 == 6 => PageType::Invalid,
                FIRST_TABLE.. => PageType::L1Pinned,
                _ => PageType::Normal,
            });
            if pfn.0 % 7 != 6 {
                count += 1;
                if pfn.0 >= FIRST_TABLE {
                    convert(page, |frame| frame - self.shift);
                }
            }
        }
        Ok(count)
    }

    fn populate(&mut self, pages: &PageList<'_>) -> Result<(), DomainError> {
        for (pfn, _) in pages.pages().filter(|(_, page_type)| page_type.has_data()) {
            self.populated.set(pfn);
        }
        Ok(())
    }

    fn pages_mut(&mut self, pfns: &[Pfn]) -> Result<Option<&mut [Page]>, DomainError> {
        self.inner.pages_mut(pfns)
    }

    fn localise(&mut self, page_type: PageType, page: &mut Page) -> Result<(), DomainError> {
        assert_eq!(page_type, PageType::L1Pinned);
        convert(page, |pfn| pfn + self.shift);
        Ok(())
    }

    fn update_p2m(&mut self) -> Result<(), DomainError> {
        self.calls.push("update_p2m");
        Ok(())
    }
}

impl State for TableMachine {
    fn stream_header(&self) -> DomainHeader {
        self.inner.stream_header()
    }

    fn save_static(&mut self) -> Result<Vec<StateRecord>, DomainError> {
        self.calls.push("save_static");
        Ok(Vec::new())
    }

    fn load_static(&mut self, state: &[StateRecord]) -> Result<(), DomainError> {
        assert_eq!(state, []);
        self.calls.push("load_static");
        Ok(())
    }

    fn save_layout(&mut self) -> Result<Vec<StateRecord>, DomainError> {
        self.calls.push("save_layout");
        Ok(Vec::new())
    }

    fn save_state(&mut self) -> Result<Vec<StateRecord>, DomainError> {
        self.calls.push("save_state");
        self.inner.save_state()
    }

    fn check_state(&self, state: &[StateRecord]) -> Result<(), DomainError> {
        self.inner.check_state(state)
    }

    fn load_state(&mut self, state: &[StateRecord]) -> Result<(), DomainError> {
        self.calls.push("load_state");
        self.inner.load_state(state)
    }
}

fn save(machine: &mut TableMachine, live: bool) -> Vec<u8> {
    let mut image = Vec::new();
    let mut save = SaveLoop::new(SaveConfig { live, ..SaveConfig::default() });
    while !matches!(save.step(Instant::now(), machine, &mut PlainSave::default(), &mut image).unwrap(), Step::Done) {}
    image
}

fn restore(machine: &mut dyn Domain, callbacks: &mut dyn RestoreCallbacks, image: &[u8]) {
    let mut restorer = Restorer::new(machine.spec(), StreamUse::Plain);
    restorer.handle_stream(image, machine, callbacks).unwrap();
    restorer.apply(machine, callbacks).unwrap();
}

/// Pages in memory that says which of them are zeroes.
struct Sparse<'a>(&'a [u8]);

impl PageSource for Sparse<'_> {
    fn next_run(&mut self, most: usize) -> Result<PageRun, ImageReadError> {
        let is_zero = |page: &&[u8]| page.iter().all(|byte| *byte == 0);
        let zeroes = self.0.chunks(PAGE_SIZE).take(most).take_while(is_zero).count();
        if zeroes > 0 {
            self.0 = &self.0[zeroes * PAGE_SIZE..];
            return Ok(PageRun::Zeroes(zeroes));
        }
        Ok(PageRun::Data(self.0.chunks(PAGE_SIZE).take(most).take_while(|page| !is_zero(page)).count()))
    }

    fn read(&mut self, pages: &mut [Page]) -> Result<(), ImageReadError> {
        self.0.read(pages)
    }
}

/// As [`restore`], with the pages' bytes from a source of their own.
fn restore_from_source(machine: &mut dyn Domain, callbacks: &mut dyn RestoreCallbacks, image: &[u8]) {
    let mut restorer = Restorer::new(machine.spec(), StreamUse::Plain);
    let limits = Limits::new(PAGES);
    let (headers, mut rest) = Headers::parse(image).unwrap();
    restorer.handle_headers(&headers, machine, callbacks).unwrap();
    while !rest.is_empty() {
        let (record, after) = RecordRef::parse(rest, &limits).unwrap();
        if let RecordRef::PageData(pages) = record {
            restorer.handle_pages(&pages.list(), &mut Sparse(pages.data()), machine, callbacks).unwrap();
        } else {
            restorer.handle_record(&record, machine, callbacks).unwrap();
        }
        rest = after;
    }
    restorer.apply(machine, callbacks).unwrap();
}

proptest! {
    #[test]
    fn frames_are_the_hosts_own_and_numbers_the_guests(
        stores in prop::collection::vec((0..FIRST_TABLE, 0_usize..PAGE_SIZE, any::<u8>()), 0..20),
        entries in prop::collection::vec((FIRST_TABLE..PAGES, 0_usize..512, 1..PAGES), 0..40),
        (here, there) in (1000_u64..1_000_000, 1000_u64..1_000_000),
        mapped in prop::collection::btree_set(0..PAGES, 0..PAGES as usize),
        live: bool,
    ) {
        let mut source = TableMachine::new(here);
        for (pfn, at, byte) in stores {
            source.inner.store(pfn as usize * PAGE_SIZE + at, &[byte]);
        }
        for (table, slot, pfn) in entries {
            source.inner.store(table as usize * PAGE_SIZE + slot * 8, &(pfn + here).to_le_bytes());
        }
        let mut expected = source.pseudo_physical();
        for pfn in (6..PAGES as usize).step_by(7) {
            expected[pfn * PAGE_SIZE..][..PAGE_SIZE].fill(0);
        }
        let image = save(&mut source, live);

        let callbacks = || -> [Box<dyn RestoreCallbacks>; 3] {
            [Box::<PlainRestore>::default(), Box::<RemusRestore>::default(), Box::<ColoRestore>::default()]
        };
        let ways = [restore, restore_from_source];
        for (mut callbacks, restore) in ways.into_iter().flat_map(|way| callbacks().map(|callbacks| (callbacks, way))) {
            let mut copy = TableMachine::new(there);
            copy.inner.mapped = mapped.iter().copied().map(Pfn).collect();
            // What was there before must not be there after. Every seventh page does not come.
            for pfn in (0..PAGES as usize).filter(|pfn| pfn % 7 != 6) {
                copy.inner.store(pfn * PAGE_SIZE + 100, &[0xEE; 8]);
            }
            restore(&mut copy, &mut *callbacks, &image);
            prop_assert!(copy.pseudo_physical() == expected);
            prop_assert_eq!(copy.populated.count(), PAGES - PAGES / 7);
            let order: Vec<_> = copy.calls.iter().filter(|call| **call != "suspend" && **call != "enable_dirty_log").collect();
            prop_assert_eq!(order, [&"load_static", &"update_p2m", &"load_state"]);
        }
    }
}

#[test]
fn a_save_that_is_not_live_copies_only_what_stands_still() {
    let mut machine = TableMachine::new(1);
    save(&mut machine, false);
    assert_eq!(machine.calls, ["save_static", "save_layout", "suspend", "capture_pages", "save_state"]);
    assert_eq!(machine.listed.get(), Some(false));
    let mut machine = TableMachine::new(1);
    save(&mut machine, true);
    assert_eq!(
        machine.calls,
        ["save_static", "save_layout", "enable_dirty_log", "capture_pages", "suspend", "save_state"]
    );
    assert_eq!(machine.listed.get(), Some(true), "a page that comes between the two would be in neither");
}

/// A version 3 stream without its END: one table and one page of plain memory, `rounds` times, from the second time on to be verified.
fn verified(rounds: &[(u8, u64)]) -> Vec<u8> {
    let mut stream = Vec::new();
    Headers::new(DomainHeader::embedded()).encode(&mut stream);
    write_record(&mut stream, kind::STATIC_DATA_END, &[]).unwrap();
    for (round, (fill, named)) in rounds.iter().enumerate() {
        if round == 1 {
            write_record(&mut stream, kind::VERIFY, &[]).unwrap();
        }
        page_data_prefix([(Pfn(FIRST_TABLE), PageType::L1Pinned), (Pfn(2), PageType::Normal)], &mut stream);
        let mut table = [0; PAGE_SIZE];
        table[8..16].copy_from_slice(&named.to_le_bytes());
        stream.extend(table);
        stream.extend([*fill; PAGE_SIZE]);
    }
    stream
}

#[test]
fn pages_that_come_again_to_be_verified_are_compared() {
    let verify = |rounds: &[(u8, u64)]| {
        let mut copy = TableMachine::new(1000);
        let mut restorer = Restorer::new(copy.spec(), StreamUse::Plain);
        restorer.handle_stream(&verified(rounds), &mut copy, &mut PlainRestore::default())
    };
    assert!(verify(&[(1, 5)]).is_ok());
    assert!(verify(&[(1, 5), (1, 5)]).is_ok());
    for (again, wrong) in [((2, 5), Pfn(2)), ((1, 6), Pfn(FIRST_TABLE))] {
        assert!(matches!(verify(&[(1, 5), again]), Err(RestoreError::NotTheSame { pfn }) if pfn == wrong));
    }
}

#[test]
fn an_optional_record_does_not_end_the_static_data() {
    let mut stream = Vec::new();
    Headers::new(DomainHeader::embedded()).encode(&mut stream);
    write_record(&mut stream, 0x8000_0123, b"of a later version").unwrap();
    let mut copy = TableMachine::new(1);
    let mut restorer = Restorer::new(copy.spec(), StreamUse::Plain);
    let mut callbacks = PlainRestore::default();
    restorer.handle_stream(&stream, &mut copy, &mut callbacks).unwrap();
    assert!(copy.calls.is_empty());
    let mut end = Vec::new();
    write_record(&mut end, kind::STATIC_DATA_END, &[]).unwrap();
    restorer.handle_stream(&end, &mut copy, &mut callbacks).unwrap();
    assert_eq!(copy.calls, ["load_static"]);
}
