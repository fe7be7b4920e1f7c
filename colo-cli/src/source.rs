//! Files that are read, and a reader of what is written that may be gone.

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// Opens a file; `-` is stdin.
pub(crate) fn open(path: &Path) -> Result<Box<dyn Read>> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        bail!("this is a directory");
    }
    Ok(Box::new(file))
}

/// Whether somebody still reads what is written.
pub(crate) fn wrote(result: io::Result<()>) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("writing"),
    }
}
