//! Puts one domain's state over another's, on one host, again and again: `xen_overlay PRIMARY SECONDARY ROUNDS [DIFFER]`, where every
//! DIFFERth time the secondary gets an event channel that the primary has not. Both were made from one
//! image (`xl save -c`, then `xl restore` under another name and on another bridge). What two hosts do with a network between them,
//! in one process.

use colo_core::domain::{Control as _, Domain, StateRecord};
use colo_core::ids::{DomId, Epoch};
use colo_core::layers::Timings;
use colo_core::restore::layers::{Timed as TimedRestore, Verified as VerifiedRestore};
use colo_core::restore::{ColoRestore, Progress, Restorer};
use colo_core::save::layers::{Timed as TimedSave, Verified as VerifiedSave};
use colo_core::save::{CallbackError, Ready, SaveCallbacks, SaveConfig, SaveLoop, Step, Trigger};
use colo_core::stream::StreamUse;
use colo_core::xen::domain::XenDomain;
use colo_core::xen::overlay::{Twin, overlay_for, wait_connected};
use colo_core::xen::{Control, DeviceModel, Xen};
use std::error::Error;
use std::time::{Duration, Instant};

type Result<T = ()> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Result {
    tracing_subscriber::fmt().with_env_filter("debug,xen=info").with_writer(std::io::stderr).init();
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u32>());
    let mut number = || {
        arguments
            .next()
            .ok_or("usage: xen_overlay PRIMARY SECONDARY ROUNDS")?
            .map_err(Box::<dyn Error + Send + Sync>::from)
    };
    let (primary, secondary, rounds) = (DomId(number()?), DomId(number()?), number()?);
    let differ = number().ok();
    let xen = Xen::open()?;
    let control = Control::open(xen)?;
    let mut primary = XenDomain::open(xen, primary, Duration::from_secs(60))?;
    primary.set_has_twin();
    let adopted = XenDomain::adopt(xen, secondary)?;
    wait_connected(&adopted, Instant::now() + Duration::from_secs(60))?;
    let servers = ioreq_servers(xen, secondary)?;
    let overlay = overlay_for(&adopted)?;
    let mut twin = Twin::new(adopted, overlay);
    // Pages are written while they arrive, at first.
    twin.suspend()?;

    let (saved, restored) = (Timings::default(), Timings::default());
    let mut callbacks = TimedSave::new(VerifiedSave::new(Rounds { left: rounds }), saved.clone());
    let mut restore = TimedRestore::new(VerifiedRestore::new(ColoRestore::default()), restored.clone());
    let mut restorer = Restorer::new(primary.spec(), StreamUse::Checkpointed);
    let mut save = SaveLoop::new(SaveConfig::default());
    let mut stream = Vec::new();
    loop {
        let step = save.step(Instant::now(), &mut primary, &mut callbacks, &mut stream)?;
        if step == Step::Done {
            break;
        }
        if !stream.is_empty() {
            let progress = restorer.handle_stream(&std::mem::take(&mut stream), &mut twin, &mut restore)?;
            if progress == Progress::Staged {
                if differ.is_some_and(|differ| save.epoch().0 % u64::from(differ) == 0) {
                    control.evtchn_alloc_unbound(secondary, DomId(0))?;
                }
                let flushed = restorer.apply(&mut twin, &mut restore)?;
                if let Step::Written(stats) = step {
                    println!(
                        "{}: {} dirty, {} received, {} written, primary away {:?}, secondary {:?}",
                        stats.epoch,
                        stats.dirty_pages,
                        flushed.received_pages,
                        flushed.written_pages,
                        saved.last_pause().unwrap_or_default(),
                        restored.last_pause().unwrap_or_default()
                    );
                }
            }
        }
    }
    for (name, time) in saved.calls().into_iter().chain(restored.calls()).chain(twin.timings().calls()) {
        println!(
            "{name}: {} times, {:.1?} each, {:.1?} at most",
            time.calls,
            time.total / time.calls as u32,
            time.longest
        );
    }
    println!("{:?}", twin.stats());
    if ioreq_servers(xen, secondary)? != servers {
        return Err("the device model has another number than before, and there are only eight".into());
    }
    Ok(())
}

/// By which numbers the hypervisor knows the domain's device models: none, where it has none.
fn ioreq_servers(xen: Xen, domid: DomId) -> Result<Vec<u16>> {
    let model = DeviceModel::open(xen)?;
    Ok((0..8).filter(|id| matches!(model.ioreq_server(domid, *id), Ok(Some(_)))).collect())
}

/// A checkpoint as soon as the last one is done, so many times.
struct Rounds {
    left: u32,
}

impl SaveCallbacks for Rounds {
    fn wait_checkpoint(&mut self, _: Instant) -> std::result::Result<Ready<Trigger>, CallbackError> {
        Ok(Ready::Now(Trigger::Requested))
    }

    fn suspend(&mut self, domain: &mut dyn Domain) -> std::result::Result<(), CallbackError> {
        Ok(domain.suspend()?)
    }

    fn capture(&mut self, _: &mut dyn Domain, _: Epoch) -> std::result::Result<Vec<StateRecord>, CallbackError> {
        Ok(Vec::new())
    }

    fn postcopy(&mut self, domain: &mut dyn Domain, _: Epoch) -> std::result::Result<(), CallbackError> {
        Ok(domain.resume()?)
    }

    fn checkpoint(&mut self, _: Epoch, _: Instant) -> std::result::Result<Ready<bool>, CallbackError> {
        self.left = self.left.saturating_sub(1);
        Ok(Ready::Now(self.left > 0))
    }
}
