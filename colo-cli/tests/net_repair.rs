//! `colo net repair`, where there is nothing to be put back: what it says, and with which exit code. What it does to real cards is
//! tested with the library (`colo-core/tests/namespaces/takeover.rs`).

use std::path::Path;
use std::process::Command;

/// The exit code, and what is said.
fn repair(folder: &Path, options: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_colo"));
    let output = command.args(options).args(["net", "repair", "--state-folder"]).arg(folder).output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code(), said)
}

#[test]
fn each_card_has_a_line_and_a_bad_record_fails() {
    let folder = std::env::temp_dir().join(format!("colo-net-repair-{}", std::process::id()));
    assert_eq!(repair(&folder, &[]), (Some(0), String::new()));
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("vif5.0"), "colo-takeover 2\n").unwrap();
    assert_eq!(repair(&folder, &[]), (Some(0), "colo: vif5.0: had not been touched\n".into()));
    assert!(!folder.join("vif5.0").exists());

    std::fs::write(folder.join("vif5.0"), "").unwrap();
    std::fs::write(folder.join("vif5.1"), "colo-takeover 2\nend\n").unwrap();
    let (code, said) = repair(&folder, &["--json"]);
    let lines: Vec<serde_json::Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> =
        lines.iter().map(|line| (line["vif"].as_str().unwrap(), line["event"].as_str().unwrap())).collect();
    assert_eq!((code, told), (Some(1), vec![("vif5.0", "untouched"), ("vif5.1", "failed")]));
    let text = lines[1]["text"].as_str().unwrap();
    assert!(text.contains("no line \"process\"") && text.contains("docs/network.md"), "{text}");
    assert!(folder.join("vif5.1").exists(), "for who puts the card back by hand");

    // A file where the folder should be.
    let (code, said) = repair(&folder.join("vif5.1"), &[]);
    assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
    std::fs::remove_dir_all(&folder).unwrap();
}
