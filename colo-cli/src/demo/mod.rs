//! `colo demo`.

use crate::args::DemoArgs;
use anyhow::Result;
use std::process::ExitCode;

pub(crate) fn run(_args: &DemoArgs, _json: bool) -> Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
