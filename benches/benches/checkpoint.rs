//! How long a machine stands still for a checkpoint, beside a plain copy of as many pages.
//!
//! `cargo bench -p colo-benches --bench checkpoint`
//!
//! A machine of 1 GiB runs the built-in guest, which has written to all the pages that `/dirty` knows. For each share of dirty
//! pages: the guest writes to so many, a checkpoint is taken by the save loop and sent through a TCP socket to a thread that drops
//! it, and then as many pages of ordinary memory (4 KiB pages, each written to just before) are copied, page by page, to memory
//! that was used before. The pause is from the call of `suspend` to the return from `resume`: it holds the dirty log, the copies,
//! and the vCPU's state. A machine that goes on to pages which it never used before is paused longer, by the first use of each
//! in the monitor's mapping.

use anyhow::{Context, Result};
use colo_benches::{Samples, Wire, millis};
use colo_core::domain::{Control, Domain, StateRecord};
use colo_core::ids::{Epoch, PAGE_SIZE};
use colo_core::layers::Timings;
use colo_core::save::layers::Timed;
use colo_core::save::{CallbackError, CheckpointStats, Ready, SaveCallbacks, SaveConfig, SaveLoop, Step, Trigger};
use colo_embedded::machine::{EmbeddedConfig, EmbeddedDomain};
use colo_embedded::switch::SwitchPort;
use colo_examples::{Lan, http};
use criterion::{Criterion, SamplingMode};
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

const RAM_BYTES: u64 = 1 << 30;
const RAM_PAGES: u64 = RAM_BYTES / PAGE_SIZE as u64;
/// What the guest is asked to dirty: a name, and pages.
const CASES: [(&str, u64); 4] =
    [("0 %", 0), ("1 %", RAM_PAGES / 100), ("4 %", RAM_PAGES * 4 / 100), ("40 MiB", (40 << 20) / PAGE_SIZE as u64)];

fn main() -> Result<()> {
    let mut criterion = Criterion::default().configure_from_args();
    let mut lab = Lab::new()?;
    let mut rows = Vec::new();
    for (name, pages) in CASES {
        let mut row = Row::default();
        run(&mut criterion, name, &mut || lab.round(pages, &mut row));
        rows.push((name, row));
    }
    criterion.final_summary();
    print(&rows);
    Ok(())
}

/// Criterion's statistics are of the pauses alone; the rest of each round is not timed.
fn run(criterion: &mut Criterion, name: &str, round: &mut dyn FnMut() -> Result<Duration>) {
    let mut group = criterion.benchmark_group("pause");
    group.sampling_mode(SamplingMode::Flat).sample_size(50);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(5));
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|rounds| (0..rounds).map(|_| round().unwrap_or_else(|error| panic!("{error:#}"))).sum());
    });
    group.finish();
}

fn print(rows: &[(&str, Row)]) {
    println!(
        "| dirty | pages | checkpoints | pause p50 | pause p99 | memcpy p50 | memcpy p99 | ratio p50 | ratio p99 |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|");
    for (name, row) in rows {
        let ratio = |percent| {
            let copy = row.copies.percentile(percent).as_secs_f64();
            row.pauses.percentile(percent).as_secs_f64() / copy.max(1e-9)
        };
        println!(
            "| {name} | {} | {} | {} ms | {} ms | {} ms | {} ms | {:.1} | {:.1} |",
            row.pages.checked_div(row.pauses.count() as u64).unwrap_or_default(),
            row.pauses.count(),
            millis(row.pauses.percentile(50)),
            millis(row.pauses.percentile(99)),
            millis(row.copies.percentile(50)),
            millis(row.copies.percentile(99)),
            ratio(50),
            ratio(99),
        );
    }
}

#[derive(Default)]
struct Row {
    pauses: Samples,
    copies: Samples,
    /// Dirty pages of all checkpoints together.
    pages: u64,
}

/// The machine, its only client, and the loop that saves it.
struct Lab {
    client: TcpStream,
    save: SaveLoop,
    callbacks: Timed<AtOnce>,
    timings: Timings,
    sink: TcpStream,
    baseline: Baseline,
    domain: EmbeddedDomain,
    _wire: Wire,
    _lan: Lan,
}

impl Lab {
    fn new() -> Result<Lab> {
        let lan = Lan::start()?;
        let config = EmbeddedConfig { ram_bytes: RAM_BYTES, ..EmbeddedConfig::named("bench") };
        let (mut domain, card) = EmbeddedDomain::boot(&config)?;
        let wire = Wire::between(Box::new(card), Box::new(SwitchPort::connect(lan.switch())?));
        domain.resume()?;
        let mut client = lan.connect()?;
        // More than there are: all of them, once.
        println!("touched: {}", http(&mut client, "POST", &format!("/dirty/{RAM_PAGES}"), "")?.trim_end());
        let timings = Timings::default();
        let mut lab = Lab {
            client,
            save: SaveLoop::new(SaveConfig::default()),
            callbacks: Timed::new(AtOnce, timings.clone()),
            timings,
            sink: drain()?,
            baseline: Baseline::new(),
            domain,
            _wire: wire,
            _lan: lan,
        };
        // The first copy.
        lab.checkpoint()?;
        Ok(lab)
    }

    /// One checkpoint with so many dirty pages, and one copy beside it. Returns the pause.
    fn round(&mut self, pages: u64, row: &mut Row) -> Result<Duration> {
        if pages > 0 {
            http(&mut self.client, "POST", &format!("/dirty/{pages}"), "")?;
        }
        let stats = self.checkpoint()?;
        let pause = self.timings.last_pause().context("no pause was measured")?;
        row.pauses.add(pause);
        row.copies.add(self.baseline.copy(stats.dirty_pages as usize));
        row.pages += stats.dirty_pages;
        Ok(pause)
    }

    fn checkpoint(&mut self) -> Result<CheckpointStats> {
        loop {
            let step = self.save.step(Instant::now(), &mut self.domain, &mut self.callbacks, &mut self.sink)?;
            if let Step::Written(stats) = step {
                return Ok(stats);
            }
        }
    }
}

/// A socket whose other end is read and forgotten.
fn drain() -> Result<TcpStream> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let sink = TcpStream::connect(listener.local_addr()?)?;
    let (mut source, _) = listener.accept()?;
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 20];
        while source.read(&mut buffer).is_ok_and(|count| count > 0) {}
    });
    Ok(sink)
}

/// Takes a checkpoint whenever it is asked, and waits for no one.
struct AtOnce;

impl SaveCallbacks for AtOnce {
    fn wait_checkpoint(&mut self, _now: Instant) -> Result<Ready<Trigger>, CallbackError> {
        Ok(Ready::Now(Trigger::Requested))
    }

    fn suspend(&mut self, domain: &mut dyn Domain) -> Result<(), CallbackError> {
        Ok(domain.suspend()?)
    }

    fn capture(&mut self, _domain: &mut dyn Domain, _epoch: Epoch) -> Result<Vec<StateRecord>, CallbackError> {
        Ok(Vec::new())
    }

    fn postcopy(&mut self, domain: &mut dyn Domain, _epoch: Epoch) -> Result<(), CallbackError> {
        Ok(domain.resume()?)
    }

    fn checkpoint(&mut self, _epoch: Epoch, _now: Instant) -> Result<Ready<bool>, CallbackError> {
        Ok(Ready::Now(true))
    }
}

/// As much ordinary memory as the machine has.
struct Baseline {
    memory: Vec<u8>,
    copy: Vec<u8>,
    /// The next page to be copied: like the guest's, the pages go around.
    next: usize,
}

impl Baseline {
    fn new() -> Baseline {
        let pages = CASES.iter().map(|&(_, pages)| pages as usize).max().unwrap_or(0) * 2;
        // Not zeroes, which would have no memory behind them.
        Baseline { memory: vec![1; RAM_BYTES as usize], copy: vec![1; pages * PAGE_SIZE], next: 0 }
    }

    /// Writes to so many pages, and then copies them; only that is timed.
    fn copy(&mut self, pages: usize) -> Duration {
        let pages = pages.min(self.copy.len() / PAGE_SIZE);
        if (self.next + pages) * PAGE_SIZE > self.memory.len() {
            self.next = 0;
        }
        let from = &mut self.memory[self.next * PAGE_SIZE..][..pages * PAGE_SIZE];
        self.next += pages;
        from.chunks_exact_mut(PAGE_SIZE).for_each(|page| page[0] = page[0].wrapping_add(1));
        let began = Instant::now();
        for (to, from) in self.copy.chunks_exact_mut(PAGE_SIZE).zip(from.chunks_exact(PAGE_SIZE)) {
            to.copy_from_slice(from);
        }
        std::hint::black_box(&mut self.copy);
        began.elapsed()
    }
}
