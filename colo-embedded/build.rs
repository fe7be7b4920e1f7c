//! Builds the guest program, which is a cargo workspace of its own, and tells the crate where it is.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "x86_64-unknown-linux-gnu";

fn main() {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    for path in ["abi.rs", "guest/Cargo.toml", "guest/Cargo.lock", "guest/build.rs", "guest/src"] {
        println!("cargo::rerun-if-changed={path}");
    }
    let elf = build_guest(&here.join("guest"), &out.join("guest"));
    println!("cargo::rustc-env=COLO_GUEST_ELF={}", elf.display());
}

fn build_guest(guest: &Path, target_dir: &Path) -> PathBuf {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(guest).args(["build", "--release", "--locked", "--bin", "colo-guest", "--target", TARGET]);
    cargo.arg("--target-dir").arg(target_dir);
    // What the outer build was told is not meant for the guest: its flags, its wrappers (clippy is one), its target.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let ours = text.starts_with("CARGO_")
            && !text.starts_with("CARGO_HOME")
            && !text.starts_with("CARGO_NET")
            && !text.starts_with("CARGO_HTTP")
            && !text.starts_with("CARGO_REGISTR")
            && !text.starts_with("CARGO_SOURCE");
        if ours || text.starts_with("RUSTC") || text == "RUSTFLAGS" || text == "RUSTDOCFLAGS" || text == "TARGET" {
            cargo.env_remove(&name);
        }
    }
    let status = cargo.status().expect("cargo can be started");
    assert!(status.success(), "the guest program could not be built: {status}");
    target_dir.join(TARGET).join("release/colo-guest")
}
