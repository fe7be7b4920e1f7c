//! Disks that both hosts have: what they must be told, and `colo disk release`.

use crate::args::DiskControlArgs;
use anyhow::{Context, Result, bail};
use colo_core::disk::PrimaryDisks;
use colo_core::disk::control::{ControlledPrimary, Observer};
use std::path::Path;
use std::process::ExitCode;

/// What is wrong with a side of a guest whose disks are shared, and which has no fence. (A disk server that cannot be asked is found later.)
pub(crate) fn unfenced(disk_control: Option<&Path>, fence_command: Option<&String>) -> Option<String> {
    let path = disk_control.filter(|_| fence_command.is_none())?;
    let is_shared = Observer::connect(path).is_ok_and(|server| server.is_shared());
    is_shared.then(|| {
        let path = path.display();
        format!("--disk-control: {path}: the disks are shared with the other host, so that must be dead before this one goes on alone: give a --fence-command")
    })
}

/// `colo disk release`.
pub(crate) fn release(args: &DiskControlArgs) -> Result<ExitCode> {
    let path = args.control.display();
    let mut disks = ControlledPrimary::connect(&args.control)?;
    if !disks.is_shared() {
        bail!("{path}: the disks are not shared: nothing waits");
    }
    disks.alone();
    // One that has not heard it has ended by now.
    Observer::connect(&args.control).and_then(|mut server| server.status()).with_context(|| path.to_string())?;
    Ok(ExitCode::SUCCESS)
}
