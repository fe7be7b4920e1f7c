//! Builds the guest program, a workspace of its own in `guest/`, and tells the crate where it is (`COLO_GUEST_ELF`).

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// The machine is one of x86-64. The guest needs no operating system, but this target's core library is everywhere where colo
/// itself can be built.
const GUEST_TARGET: &str = "x86_64-unknown-linux-gnu";

/// What the guest is made of; a change in any makes a new one.
const INPUTS: [&str; 7] =
    ["abi.rs", "build.rs", "guest/Cargo.toml", "guest/Cargo.lock", "guest/build.rs", "guest/link.ld", "guest/src"];

/// Variables that cargo or its user set for the host's build, and that would change the guest's: flags of another target,
/// wrappers such as clippy's driver, another profile.
const SCRUBBED: [&str; 9] = [
    "CARGO_ENCODED_RUSTFLAGS",
    "RUSTFLAGS",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "CARGO_TARGET_DIR",
    "TARGET",
    "HOST",
    "PROFILE",
    "OUT_DIR",
];
const SCRUBBED_PREFIXES: [&str; 6] =
    ["CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_", "CARGO_FEATURE_", "CARGO_CFG_", "CARGO_PKG_"];

fn main() {
    for input in INPUTS {
        println!("cargo::rerun-if-changed={input}");
    }
    let target_dir = PathBuf::from(variable("OUT_DIR")).join("guest");
    let mut cargo = Command::new(variable("CARGO"));
    cargo.args(["build", "--release", "--locked", "--bin", "colo-guest", "--target", GUEST_TARGET]);
    cargo.arg("--manifest-path").arg(PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("guest/Cargo.toml"));
    cargo.arg("--target-dir").arg(&target_dir);
    for (name, _) in env::vars_os() {
        let is_scrubbed = name.to_str().is_some_and(|name| {
            SCRUBBED.contains(&name) || SCRUBBED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        });
        if is_scrubbed {
            cargo.env_remove(name);
        }
    }
    // The guest's own build script has the linker's arguments. Empty, rather than not set, keeps away what a user's
    // configuration of cargo has for programs of this host.
    cargo.env("CARGO_ENCODED_RUSTFLAGS", "");
    match cargo.status() {
        Ok(status) if status.success() => (),
        Ok(status) => panic!("the guest program cannot be built ({status}); see above"),
        Err(error) => panic!("cargo cannot be run for the guest program: {error}"),
    }
    let program = target_dir.join(GUEST_TARGET).join("release/colo-guest");
    println!("cargo::rustc-env=COLO_GUEST_ELF={}", program.display());
}

fn variable(name: &str) -> std::ffi::OsString {
    env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}"))
}
