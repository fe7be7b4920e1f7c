//! `colo save`.

use super::{Found, find, progress_bar};
use crate::args::SaveArgs;
use crate::output::print_json;
use crate::signals;
use anyhow::{Context, Result};
use colo_core::domain::Control;
use colo_core::ids::{DomId, PAGE_SIZE};
use colo_core::save::ImageFile;
use colo_core::xen::Xen;
use colo_core::xen::domain::XenDomain;
use colo_core::xen::guard::Guard;
use colo_core::xen::image::{SaveImageOptions, save_image};
use colo_core::xen::toolstack::{Libxl, Xl};
use serde_json::json;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

pub(crate) fn run(args: &SaveArgs, json: bool) -> Result<ExitCode> {
    let begun = Instant::now();
    let limit = Duration::from_secs(args.suspend_timeout);
    // Before there is a second thread, and while there is little to copy.
    let guard = Guard::start(|word| let_go(word, args.live, limit)).context("a process to watch over this one")?;
    let guard = Arc::new(guard);
    let stop = signals::stop_flag()?;
    let xen = Xen::open()?;
    let Found { control, store, info, name } = find(xen, &args.domain)?;
    let domid = info.domid;
    let xl = Xl::find()?;
    // What ends the domain must be there before anything is done to it.
    let libxl = if args.leave_running { None } else { Some(Libxl::open(xen)?) };
    let mut image = ImageFile::create(&args.file).with_context(|| args.file.display().to_string())?;
    let mut domain = XenDomain::with_handles(xen, control, store, &info, limit)?;
    guard.watch(domid.0).context("the process that watches over this one")?;
    let told = guard.clone();
    domain.on_suspend(move |begins| {
        // Without a guard the save is as good as with one, unless it is killed.
        let _ = told.watch(if begins { domid.0 | SUSPENDING } else { domid.0 });
    });
    let config = domain.config(&xl)?.to_json();
    let options = SaveImageOptions { live: args.live, leave_running: args.leave_running };
    let bar = progress_bar(json);
    let saved = save_image(&mut domain, &config, &mut image, options, &mut |copy| {
        bar.set_message(format!("round {}", copy.round + 1));
        bar.set_length(copy.round_pages * PAGE_SIZE as u64);
        bar.set_position(copy.sent_pages * PAGE_SIZE as u64);
        if stop.load(Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    bar.finish_and_clear();
    let saved = saved.with_context(|| format!("{name} is not saved, and runs on"))?;
    if let Err(error) = image.commit() {
        domain.resume()?;
        return Err(error).with_context(|| format!("{name} is not saved, and runs on: {}", args.file.display()));
    }
    // From here on the image is what counts.
    guard.dismiss();
    if let Some(libxl) = libxl {
        libxl.destroy(domid).with_context(|| format!("{name} is saved, but is still here, suspended"))?;
    }
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

/// What the guard is told, beside the domain's number, when the guest is about to be suspended.
const SUSPENDING: u32 = 1 << 31;

/// The saver was killed, or has failed: its domain shall run.
fn let_go(word: u32, live: bool, limit: Duration) {
    let (domid, is_asked) = (DomId(word & !SUSPENDING), word & SUSPENDING != 0);
    // Nobody is left to be told.
    if let Ok(xen) = Xen::open() {
        let _ = XenDomain::open(xen, domid, limit).and_then(|mut domain| domain.let_go(live, is_asked));
    }
}
