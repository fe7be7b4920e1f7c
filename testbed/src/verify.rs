//! Xen's own verifier of saved guests, run on this machine, out of the packages.

use crate::context::Context;
use anyhow::Result;
use std::path::Path;
use std::time::Duration;

const XEN: &str = "/usr/lib/xen-4.17";
const LIMIT: Duration = Duration::from_secs(120);

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
