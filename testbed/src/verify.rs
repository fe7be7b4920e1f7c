//! Images of saved guests, looked at on this machine: by Xen's own verifier, out of the packages, and by `colo inspect`.

use crate::context::Context;
use crate::process::{Ended, last_lines, tied};
use anyhow::{Result, bail, ensure};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const XEN: &str = "/usr/lib/xen-4.17";
const LIMIT: Duration = Duration::from_secs(120);

/// Whether both accept a file as one that `xl restore` reads.
///
/// # Errors
/// What they found.
pub(crate) fn ensure_valid(context: &Context, file: &Path) -> Result<()> {
    verify_stream(context, file)?;
    let said = inspect(context, file)?;
    ensure!(said.status.success(), "colo inspect: {}", last_lines(&said.stderr, 20));
    ensure!(said.stdout.contains(": valid, ") && said.stderr.is_empty(), "colo inspect says {said:?}");
    Ok(())
}

/// Whether both refuse a file, `colo` in one line and with exit code 1. Returns that line.
///
/// # Errors
/// What they said instead.
pub(crate) fn ensure_refused(context: &Context, file: &Path) -> Result<String> {
    if verify_stream(context, file).is_ok() {
        bail!("verify-stream-v2 accepts it; colo inspect: {:?}", inspect(context, file)?);
    }
    let said = inspect(context, file)?;
    ensure!(said.status.code() == Some(1) && said.stdout.is_empty(), "colo inspect: {said:?}");
    ensure!(said.stderr.lines().count() == 1, "colo inspect says more than a line: {:?}", said.stderr);
    Ok(said.stderr.trim_end().to_owned())
}

/// Whether a file is what `xl restore` reads, by `verify-stream-v2`. It looks at the order and form of records, not into pages.
///
/// # Errors
/// What it found.
pub(crate) fn verify_stream(context: &Context, file: &Path) -> Result<()> {
    let packages = context.packages();
    let mut python = packages.command("/usr/bin/python3.11")?;
    // -S: what belongs to this machine's Python is not ours. -B: nothing is written into the packages.
    python.args(["-S", "-B"]).arg(packages.path(&format!("{XEN}/bin/verify-stream-v2"))?);
    python.args(["-f", "xl", "--in"]).arg(file);
    python.env("PYTHONHOME", packages.root().join("usr"));
    python.env("PYTHONPATH", packages.path(&format!("{XEN}/lib/python"))?);
    context.stopper().run(python, "verify-stream-v2", LIMIT)?;
    Ok(())
}

fn inspect(context: &Context, file: &Path) -> Result<Ended> {
    let mut colo: Command = tied(context.colo());
    colo.arg("inspect").arg(file);
    context.stopper().try_run(colo, "colo inspect", LIMIT)
}
