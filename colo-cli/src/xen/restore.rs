//! `colo restore`.

use super::progress_bar;
use crate::args::RestoreArgs;
use crate::output::print_json;
use crate::signals;
use anyhow::{Context, Result, anyhow, bail};
use colo_core::xen::Xen;
use colo_core::xen::image::{RestoreImageError, RestoreImageOptions, restore_image};
use colo_core::xen::toolstack::{RestoreGuard, Xl};
use serde_json::json;
use std::fs::File;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

pub(crate) fn run(args: &RestoreArgs, json: bool) -> Result<ExitCode> {
    let begun = Instant::now();
    let path = args.file.display();
    let source = File::open(&args.file).with_context(|| path.to_string())?;
    let found = source.metadata()?;
    if found.is_dir() {
        bail!("{path}: this is a directory");
    }
    // Before there is a second thread, and while there is little to copy.
    let guard = RestoreGuard::start(args.paused).context("a process to watch over this one")?;
    let xen = Xen::open()?;
    let xl = Xl::find()?;
    let stop = signals::stop_flag()?;
    let options = RestoreImageOptions { paused: args.paused, name: args.name.clone(), helper: None };
    let bar = progress_bar(json);
    bar.set_length(found.len());
    let restored = restore_image(xen, &xl, source, &options, Some(guard), &mut |bytes| {
        bar.set_position(bytes);
        if stop.load(Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    bar.finish_and_clear();
    let restored = restored.map_err(|error| match error {
        RestoreImageError::NameTaken(_) => anyhow!("{error}; --name gives the restored one another name"),
        error => error.into(),
    });
    let restored = restored.with_context(|| path.to_string())?;
    let took = begun.elapsed();
    if json {
        print_json(&json!({
            "event": "restored", "domain": restored.name, "domid": restored.domid.0, "paused": args.paused,
            "took_ms": took.as_secs_f64() * 1e3,
        }));
    } else {
        let how = if args.paused { "paused" } else { "running" };
        eprintln!(
            "colo: restored {} as domain {} in {:.2} s, {how}",
            // The image's own, and a terminal obeys what it gets.
            restored.name.escape_debug(),
            restored.domid.0,
            took.as_secs_f64()
        );
    }
    // The process ends: its mappings go all at once, which is cheaper than one by one.
    std::mem::forget(restored.domain);
    Ok(ExitCode::SUCCESS)
}
