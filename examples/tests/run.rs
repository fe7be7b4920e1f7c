//! Every example runs to its end, and says what it is meant to show.

use std::process::Command;

fn run(program: &str) -> String {
    let output = Command::new(program).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    said
}

#[test]
fn a_protected_machine_survives() {
    let said = run(env!("CARGO_BIN_EXE_protect"));
    assert!(said.contains("took over from"), "{said}");
    assert!(said.ends_with("the survivor says: colo\n"), "{said}");
}

#[test]
fn own_callbacks_count() {
    let said = run(env!("CARGO_BIN_EXE_own_callbacks"));
    assert!(said.lines().any(|line| line.starts_with("3 checkpoints: ")), "{said}");
}

#[test]
fn a_stream_is_decoded() {
    let said = run(env!("CARGO_BIN_EXE_decode_stream"));
    let names: Vec<&str> = said.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(names.first(), Some(&"version"), "{said}");
    assert_eq!(names.last(), Some(&"END"), "{said}");
    assert!(said.contains("PAGE_DATA: 1 pages"), "{said}");
}
