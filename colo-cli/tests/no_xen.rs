//! The commands for domains of Xen, where there is no Xen: each says in one line what is missing.

use std::path::PathBuf;
use std::process::{Command, Output};

fn colo(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_colo")).args(arguments).output().unwrap()
}

/// What it says when it fails: one line, and exit code 1.
fn complaint(arguments: &[&str]) -> String {
    let output = colo(arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    stderr.trim_end().strip_prefix("colo: ").expect(&stderr).to_owned()
}

/// Says so where there is one: there the testbed's scenarios are what counts.
fn is_xen_host() -> bool {
    let is_one = colo_core::xen::is_xen_host();
    if is_one {
        eprintln!("SKIPPED: this is a Xen host");
    }
    is_one
}

/// A path that does not exist, in a folder that does.
fn nowhere(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("colo-no-xen-{name}-{}", std::process::id()))
}

#[test]
fn each_command_says_what_is_missing() {
    if is_xen_host() {
        return;
    }
    let file = nowhere("image");
    let path = file.to_str().unwrap();
    let commands: [&[&str]; 11] = [
        &["list"],
        &["list", "--json"],
        &["info", "web"],
        &["info", "3", "--json"],
        &["save", "web", path],
        &["save", "--live", "--leave-running", "web", path],
        &["--json", "save", "web", path],
        &["resume", "web"],
        &["check", "--domain", "web", "--peer", "other"],
        &["secondary", "--listen", "127.0.0.1:0", "--hypervisor", "xen"],
        &["-v", "list"],
    ];
    for command in commands {
        let said = complaint(command);
        assert!(said.starts_with("this is not a Xen host (") && said.contains("dom0"), "{command:?}: {said}");
    }
    assert!(!file.exists(), "a save that cannot begin leaves no file");
}

#[test]
fn a_restore_says_what_is_missing_or_what_is_wrong() {
    if is_xen_host() {
        return;
    }
    let file = nowhere("no-image");
    std::fs::write(&file, "no image").unwrap();
    let path = file.to_str().unwrap();
    for options in [&["restore"][..], &["restore", "--paused"], &["restore", "--name", "other"], &["--json", "restore"]]
    {
        let said = complaint(&[options, &[path]].concat());
        assert!(said.contains("this is not a Xen host"), "{options:?}: {said}");
    }
    std::fs::remove_file(&file).unwrap();
    let said = complaint(&["restore", path]);
    assert!(said.starts_with(&format!("{path}: No such file or directory")), "{said}");
    let folder = std::env::temp_dir();
    let said = complaint(&["restore", folder.to_str().unwrap()]);
    assert_eq!(said, format!("{}: this is a directory", folder.display()));
}
