//! `colo save`.

use super::{Found, find, progress_bar};
use crate::args::SaveArgs;
use crate::output::print_json;
use crate::signals;
use anyhow::{Context, Result, bail};
use colo_core::domain::{Control, RunState};
use colo_core::guard::Guard;
use colo_core::ids::{DomId, PAGE_SIZE};
use colo_core::save::ImageFile;
use colo_core::xen::Xen;
use colo_core::xen::domain::XenDomain;
use colo_core::xen::image::{SaveImageOptions, SaveProgress, save_image};
use colo_core::xen::save_lock::SaveLock;
use colo_core::xen::toolstack::{Libxl, Xl};
use serde_json::json;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

pub(crate) fn run(args: &SaveArgs, json: bool) -> Result<ExitCode> {
    let begun = Instant::now();
    let limit = Duration::from_secs(args.suspend_timeout);
    // Before there is a second thread, and while there is little to copy.
    let guard =
        Guard::start(|watched, kept| rescue(watched, kept, limit)).context("a process to watch over this one")?;
    let (stop, stop_descriptor) = (signals::stop_flag()?, signals::stop_descriptor()?);
    let xen = Xen::open()?;
    let Found { control, store, info, name } = find(xen, &args.domain)?;
    let domid = info.domid;
    if domid == DomId(0) {
        bail!("{name} is this host's own domain");
    }
    let lock = SaveLock::take(domid, &name)?;
    // Declared after the lock: so it has ended, on every way out, before that is given up.
    let mut guard = guard;
    guard.keep(&lock).and_then(|()| guard.watch(&watched(domid, Stage::LockAlone))).context(GUARD)?;
    let xl = Xl::find()?;
    // What ends the domain must be there before anything is done to it.
    let libxl = if args.leave_running { None } else { Some(Libxl::open(xen)?) };
    let mut image = ImageFile::create(&args.file).with_context(|| args.file.display().to_string())?;
    let mut domain = XenDomain::with_handles(xen, control, store, &info, limit)?;
    domain.stop_by(stop_descriptor);
    guard.watch(&watched(domid, Stage::Begun)).context(GUARD)?;
    let config = domain.config(&xl)?.to_json();
    let options = SaveImageOptions { live: args.live, leave_running: args.leave_running };
    let bar = progress_bar(json);
    let saved = save_image(&mut domain, &config, &mut image, options, &mut |progress| {
        match progress {
            SaveProgress::Copying(copy) => {
                bar.set_message(format!("round {}", copy.round + 1));
                bar.set_length(copy.round_pages * PAGE_SIZE as u64);
                bar.set_position(copy.sent_pages * PAGE_SIZE as u64);
            }
            SaveProgress::Suspending => {
                // Without a guard a guest could stand still for ever.
                if guard.watch(&watched(domid, Stage::Asked)).is_err() {
                    return ControlFlow::Break(());
                }
                bar.set_message("suspended");
                bar.set_length(info.total_pages * PAGE_SIZE as u64);
            }
            SaveProgress::Writing { image_bytes } => bar.set_position(image_bytes),
            SaveProgress::Running => drop(guard.watch(&watched(domid, Stage::Begun))),
        }
        if stop.load(Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    bar.finish_and_clear();
    let saved = match saved {
        Ok(saved) => saved,
        Err(error) => {
            // It sets right what is left to be.
            drop(guard);
            return Err(error).context(not_saved(&name, &domain));
        }
    };
    if let Err(error) = image.commit() {
        if let Err(error) = domain.resume() {
            tracing::error!("{error}");
        }
        if domain.run_state() == RunState::Running {
            let _ = guard.watch(&watched(domid, Stage::Begun));
        }
        drop(guard);
        return Err(error).with_context(|| args.file.display().to_string()).context(not_saved(&name, &domain));
    }
    // From here on the image is what counts. A guard that has been killed needs no word.
    let _ = guard.watch(&watched(domid, Stage::LockAlone));
    if let Some(libxl) = libxl {
        libxl.destroy(domid).with_context(|| format!("{name} is saved, but is still here, suspended"))?;
    }
    guard.dismiss();
    let took = begun.elapsed();
    if json {
        print_json(&json!({
            "event": "saved", "domain": name, "domid": domid.0, "image_bytes": saved.image_bytes,
            "last_pages": saved.last_pages, "took_ms": took.as_secs_f64() * 1e3,
            "pause_ms": saved.pause.map(|pause| pause.as_secs_f64() * 1e3),
        }));
    } else {
        let pause = saved
            .pause
            .map_or(String::new(), |pause| format!(", of which it stood still {:.2} s", pause.as_secs_f64()));
        let megabytes = saved.image_bytes as f64 / 1e6;
        eprintln!("colo: saved {name}: {megabytes:.1} MB in {:.2} s{pause}", took.as_secs_f64());
    }
    // The process ends: its mappings go all at once, which is cheaper than one by one.
    std::mem::forget(domain);
    Ok(ExitCode::SUCCESS)
}

/// What has become of a domain that was not saved.
fn not_saved(name: &str, domain: &XenDomain) -> String {
    let state = match domain.run_state() {
        RunState::Running => "runs on",
        RunState::Suspended => "is suspended still",
        RunState::ShutDown => "has shut down",
        RunState::Crashed => "has crashed",
    };
    format!("{name} is not saved, and {state}")
}

/// For errors of it.
const GUARD: &str = "the process that watches over this one";

/// What the guard must know of a save.
enum Stage {
    /// Nothing has been done to the domain, or nothing must be undone any more.
    LockAlone,
    /// Its writes may be logged.
    Begun,
    /// The guest may have been asked to suspend itself.
    Asked,
}

/// What the guard is told.
fn watched(domid: DomId, stage: Stage) -> [u8; 5] {
    let [a, b, c, d] = domid.0.to_le_bytes();
    [a, b, c, d, stage as u8]
}

/// The saver was killed, or has failed: its domain shall run. Until it does, no other may save it.
fn rescue(watched: &[u8], mut kept: Vec<OwnedFd>, limit: Duration) {
    let Ok([a, b, c, d, stage]) = <[u8; 5]>::try_from(watched) else { return };
    let domid = DomId(u32::from_le_bytes([a, b, c, d]));
    let _lock = kept.pop().map(|file| SaveLock::taken_over(domid, file));
    if stage == Stage::LockAlone as u8 {
        return;
    }
    let rescued = Xen::open()
        .map_err(anyhow::Error::from)
        .and_then(|xen| Ok(XenDomain::open(xen, domid, limit)?.rescue(stage == Stage::Asked as u8)?));
    if let Err(error) = rescued {
        tracing::error!("{domid}, whose save has ended early: {error}");
    }
}
