//! The programs that go into the machines: `colo` as it is built now, dom0's agent, the guests' init.

use crate::process::{Stopper, tied};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file names.
pub(crate) const COLO: &str = "colo";
/// dom0's agent.
pub(crate) const AGENT: &str = "dom0-agent";
/// The guests' init.
pub(crate) const GUEST_INIT: &str = "guest-init";

const TARGET: &str = "x86_64-unknown-linux-gnu";
const BUILD_LIMIT: Duration = Duration::from_secs(900);

/// The workspace that this program was built from.
pub(crate) fn workspace() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// Where cargo builds.
pub(crate) fn target_folder(stopper: &Stopper) -> Result<PathBuf> {
    let mut cargo = tied(cargo());
    cargo.args(["metadata", "--no-deps", "--format-version", "1", "--locked", "--offline"]).current_dir(workspace());
    let metadata = stopper.run(cargo, "cargo metadata", BUILD_LIMIT)?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    Ok(metadata["target_directory"].as_str().context("cargo has no target directory")?.into())
}

/// Builds the programs, and puts them into a folder.
pub(crate) fn build(target: &Path, folder: &Path, stopper: &Stopper) -> Result<()> {
    fs::create_dir_all(folder)?;
    let mut colo = tied(cargo());
    colo.args(["build", "-q", "--release", "--locked", "-p", "colo-cli"]).current_dir(workspace());
    colo.arg("--target-dir").arg(target);
    run(colo, "the building of colo", stopper)?;
    strip(&target.join("release/colo"), &folder.join(COLO), stopper)?;

    // A folder of its own: other flags than everything else's would make cargo build that anew, each time.
    let inside = target.join("testbed-inside");
    let mut programs = tied(cargo());
    programs.args(["build", "-q", "--release", "--locked", "-p", "colo-testbed-inside", "--bins", "--target", TARGET]);
    programs.arg("--target-dir").arg(&inside).current_dir(workspace());
    programs.env("RUSTFLAGS", "-C target-feature=+crt-static").env_remove("CARGO_ENCODED_RUSTFLAGS");
    run(programs, "the building of what runs in the machines", stopper)?;
    for program in [AGENT, GUEST_INIT] {
        strip(&inside.join(TARGET).join("release").join(program), &folder.join(program), stopper)?;
    }
    Ok(())
}

/// Builds an example of colo-core's, and returns it.
pub(crate) fn build_example(name: &str, stopper: &Stopper) -> Result<Vec<u8>> {
    let target = target_folder(stopper)?;
    let mut example = tied(cargo());
    example.args(["build", "-q", "--release", "--locked", "-p", "colo-core", "--example", name]);
    example.current_dir(workspace());
    run(example, "the building of an example", stopper)?;
    let built = target.join("release/examples").join(name);
    let stripped = built.with_extension("stripped");
    strip(&built, &stripped, stopper)?;
    Ok(fs::read(stripped)?)
}

/// The one that runs us, or the one in `PATH`.
fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Cargo's messages are for whoever waits.
fn run(command: std::process::Command, what: &str, stopper: &Stopper) -> Result<()> {
    let mut process = stopper.start(command, what)?;
    let status = process.wait(BUILD_LIMIT)?.with_context(|| format!("{what} takes too long"))?;
    anyhow::ensure!(status.success(), "{what} failed");
    Ok(())
}

/// Without what only a debugger needs: ten times as small.
fn strip(from: &Path, to: &Path, stopper: &Stopper) -> Result<()> {
    let mut strip = tied("strip");
    strip.arg("-o").arg(to).arg(from);
    stopper.run(strip, "strip", BUILD_LIMIT)?;
    Ok(())
}
