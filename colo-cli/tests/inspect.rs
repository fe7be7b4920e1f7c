//! `colo inspect`, the real command, on small images of every kind and on what is none.

#[path = "support/scratch.rs"]
mod scratch;

use colo_core::stream::image::testing::images;
use scratch::Scratch;
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn inspect(path: &Path, options: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_colo")).arg("inspect").arg(path).args(options).output().unwrap()
}

fn image(name: &str) -> Vec<u8> {
    images().into_iter().find(|(found, _)| *found == name).unwrap().1
}

/// What it says on stderr of a file that is wrong: one line, without the file's name.
fn complaint(path: &Path, output: &Output) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(output.stdout.is_empty(), "nothing on stdout of what is wrong");
    stderr.trim_end().strip_prefix(&format!("colo: {}: ", path.display())).expect(&stderr).to_owned()
}

#[test]
fn valid_images_of_every_kind() {
    let scratch = Scratch::new("inspect-valid");
    for (name, bytes) in images() {
        let path = scratch.file(name, &bytes);
        let output = inspect(&path, &[]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{name}");
        assert!(text.starts_with(&format!("{}: valid, {} bytes\n", path.display(), bytes.len())), "{name}: {text}");

        let output = inspect(&path, &["--json"]);
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&value["valid"], &value["bytes"]), (&Value::Bool(true), &Value::from(bytes.len())), "{name}");

        let lines = String::from_utf8(inspect(&path, &["--records"]).stdout).unwrap().lines().count();
        let records = String::from_utf8(inspect(&path, &["--records", "--json"]).stdout).unwrap();
        let records: Vec<Value> = records.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let sum: u64 = records.iter().map(|record| record["bytes"].as_u64().unwrap()).sum();
        assert_eq!((records.len(), sum), (lines, bytes.len() as u64), "{name}");
    }
}

#[test]
fn what_a_summary_says() {
    let scratch = Scratch::new("inspect-summary");
    let path = scratch.file("pv", &image("pv"));
    let value: Value = serde_json::from_slice(&inspect(&path, &["--json"]).stdout).unwrap();
    assert_eq!(value["domain"]["name"], "small");
    assert_eq!(value["domain"]["vcpus"], 2);
    assert_eq!((&value["machine"], &value["bits"]), (&"x86 PV".into(), &64.into()));
    assert_eq!((&value["libxl_version"], &value["libxc_version"]), (&2.into(), &3.into()));
    assert_eq!(value["pages"]["l4-pinned"]["lowest"], 0x3FF);
    let text = String::from_utf8(inspect(&path, &[]).stdout).unwrap();
    assert!(text.contains("  machine   x86 PV, 64 bits, written by Xen 4.17\n"), "{text}");
    assert!(
        text.contains("  domain    small, pv, uuid f6637b60-e8f7-11f1-a1d9-152448cde78e, 4 MiB, 2 vCPUs\n"),
        "{text}"
    );
}

#[test]
fn what_is_wrong_is_said_in_one_line() {
    let scratch = Scratch::new("inspect-wrong");
    let hvm = image("hvm");
    let changed = |at: usize, value: u8| {
        let mut bytes = hvm.clone();
        bytes[at] = value;
        bytes
    };
    let config = hvm.windows(2).position(|bytes| bytes == b"{\"").unwrap();
    let libxl = hvm.windows(8).position(|bytes| bytes == b"LibxlFmt").unwrap();
    let libxc = libxl + 24;
    let wrong: [(&str, Vec<u8>, String); 10] = [
        ("empty", Vec::new(), "at byte 0: the file is empty".into()),
        ("text", b"no image at all".to_vec(), "at byte 0: this is no Xen domain image".into()),
        ("legacy", changed(36, 1), "at byte 0: this is a legacy image, of Xen 4.5 or before".into()),
        ("cut", hvm[..hvm.len() - 9].to_vec(), format!("at byte {}: ", hvm.len() - 40)),
        (
            "no end",
            hvm[..hvm.len() - 8].to_vec(),
            format!("at byte {}: it ends where a libxl record must come", hvm.len() - 8),
        ),
        ("more", [&hvm[..], b"x"].concat(), format!("at byte {}: something follows the end of the image", hvm.len())),
        ("big-endian", changed(libxc + 17, 1), format!("at byte {libxc}: its numbers are big-endian")),
        (
            "order",
            changed(libxc + 40, 9),
            format!("at byte {}: HVM_CONTEXT record where STATIC_DATA_END must come", libxc + 40),
        ),
        (
            "length",
            changed(libxc + 47, 0x7F),
            format!("at byte {}: X86_CPUID_POLICY record of 2130706480 bytes, but", libxc + 40),
        ),
        ("config", changed(config, b'!'), "at byte 0: the domain's configuration is no JSON".into()),
    ];
    for (name, bytes, expected) in wrong {
        let path = scratch.file(name, &bytes);
        for options in [&[][..], &["--json"]] {
            let said = complaint(&path, &inspect(&path, options));
            assert!(said.starts_with(&expected), "{name}: {said}");
        }
    }
    let said = complaint(&scratch.0, &inspect(&scratch.0, &[]));
    assert_eq!(said, "this is a directory");
    let missing = scratch.0.join("missing");
    assert_eq!(complaint(&missing, &inspect(&missing, &[])), "No such file or directory (os error 2)");
}

#[test]
fn records_come_before_the_fault() {
    let scratch = Scratch::new("inspect-records");
    let hvm = image("hvm");
    let path = scratch.file("cut", &hvm[..hvm.len() - 8]);
    let output = inspect(&path, &["--records"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 14);
    assert_eq!(String::from_utf8(output.stderr).unwrap().lines().count(), 1);
}

#[test]
fn reads_stdin_and_minds_no_closed_pipe() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_colo"))
        .args(["inspect", "-", "--records"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Nobody reads: the first thing that it writes fails.
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().unwrap();
    // It may be gone before all of it is written.
    let _ = stdin.write_all(&image("remus"));
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert!(output.status.success());
}
