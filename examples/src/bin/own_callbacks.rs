//! Callbacks of one's own around `get_page` and `flush_memory`: they count what a protected machine costs.
//!
//! `cargo run -p colo-examples --bin own_callbacks`
//!
//! Here they only look. They might as well put the pages somewhere else, or keep every checkpoint.

use anyhow::{Context, Result, bail, ensure};
use colo_core::domain::{Disks, Domain, Machine};
use colo_core::ids::{PAGE_SIZE, Page, Pfn};
use colo_core::net::memory;
use colo_core::peer::Mode;
use colo_core::restore::{Flushed, RestoreCallbacks};
use colo_core::save::CallbackError;
use colo_core::session::{Event, PrimarySession, PrimarySessionConfig, SecondarySession, SecondarySessionConfig};
use colo_embedded::machine::{EmbeddedConfig, EmbeddedDomain, EmbeddedHost};
use colo_examples::PATIENCE;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Checkpoints to count.
const CHECKPOINTS: usize = 3;

/// What was counted, over all checkpoints.
#[derive(Default)]
struct Counts {
    received_pages: AtomicU64,
    written_pages: AtomicU64,
}

/// Counts, and leaves the work to the callbacks that it wraps.
struct Counting {
    inner: Box<dyn RestoreCallbacks>,
    counts: Arc<Counts>,
}

impl RestoreCallbacks for Counting {
    colo_core::hand_on_restore!(inner: init, record, update_p2m, finish_restore);

    fn get_page<'a>(&'a mut self, domain: &'a mut dyn Domain, pfn: Pfn) -> Result<&'a mut Page, CallbackError> {
        self.counts.received_pages.fetch_add(1, Ordering::Relaxed);
        self.inner.get_page(domain, pfn)
    }

    fn flush_memory(&mut self, domain: &mut dyn Domain) -> Result<Flushed, CallbackError> {
        let flushed = self.inner.flush_memory(domain)?;
        self.counts.written_pages.fetch_add(flushed.written_pages, Ordering::Relaxed);
        Ok(flushed)
    }
}

fn main() -> Result<()> {
    let counts = Arc::new(Counts::default());
    let layer = {
        let counts = counts.clone();
        move |inner| Box::new(Counting { inner, counts: counts.clone() }) as Box<dyn RestoreCallbacks>
    };
    let config = SecondarySessionConfig { layer: Some(Arc::new(layer)), ..SecondarySessionConfig::default() };
    // The switch would be asked for if the secondary took over, which it will not.
    let secondary = SecondarySession::listen("127.0.0.1:0", Box::new(EmbeddedHost::new("no-switch")), config)?;
    let primary = start_primary(&secondary)?;

    let mut applied = 0;
    while applied < CHECKPOINTS {
        let event = secondary.events().recv_timeout(PATIENCE).context("the secondary says nothing")?;
        println!("{event}");
        if matches!(event, Event::Applied { .. }) {
            applied += 1;
            primary.controller().checkpoint();
        }
    }
    let received = counts.received_pages.load(Ordering::Relaxed);
    let written = counts.written_pages.load(Ordering::Relaxed);
    println!(
        "{applied} checkpoints: {received} pages ({} bytes) received, {written} written",
        received * PAGE_SIZE as u64
    );
    ensure!(received > 0 && written > 0, "nothing was counted");

    primary.controller().stop();
    primary.wait();
    secondary.controller().stop();
    secondary.wait();
    Ok(())
}

/// A machine that nobody talks to.
fn start_primary(secondary: &SecondarySession) -> Result<PrimarySession> {
    let (domain, card) = EmbeddedDomain::boot(&EmbeddedConfig::named("counted"))?;
    let machine = Machine { domain: Box::new(domain), nics: vec![Box::new(card)], disks: Disks::None };
    let (lan, _clients) = memory::pair(1)?;
    let config = PrimarySessionConfig::new(Mode::Colo);
    match PrimarySession::start(machine, vec![Box::new(lan)], &secondary.local_addr().to_string(), config) {
        Ok(session) => Ok(session),
        Err(not_started) => bail!(not_started.error),
    }
}
