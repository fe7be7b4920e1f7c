//! What `load` says, in processes of their own: it looks at the environment, and remembers.

use std::path::Path;
use std::process::Command;

/// Run by the tests below; by itself it only must not crash.
#[test]
fn says() {
    match xen_sys::load() {
        Ok(xen) => println!("<loaded {}>", xen.version),
        Err(error) => println!("<{error}>"),
    }
}

/// What `load` says when the variable is set so.
fn load_with(version: Option<&str>) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "says", "--nocapture"]).env_remove(xen_sys::VERSION_VARIABLE);
    command.envs(version.map(|version| (xen_sys::VERSION_VARIABLE, version)));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    // On a line of its own: the error is one line.
    let line = text.lines().find_map(|line| Some(line.split_once('<')?.1.strip_suffix('>')?.to_owned()));
    line.unwrap_or_else(|| panic!("{text}"))
}

#[test]
fn a_host_without_xen_is_told() {
    if Path::new("/sys/hypervisor/type").exists() {
        eprintln!("SKIPPED: this machine has a hypervisor of some kind");
        return;
    }
    let said = load_with(None);
    assert!(said.starts_with("this is not a Xen host (/sys/hypervisor/type: No such file"), "{said}");
}

#[test]
fn the_variable_overrides_the_hypervisor() {
    assert_eq!(load_with(Some("4.16")), "Xen 4.16 is not supported: 4.17 to 4.22 are");
    let bad = r#"COLO_XEN_LIB_VERSION is "new": set it to a version such as 4.17, or unset it"#;
    assert_eq!(load_with(Some("new")), bad);
    let oldest = load_with(Some("4.17"));
    let missing = "cannot load libxenguest.so.4.17: install the tools of Xen 4.17 (";
    assert!(oldest == "loaded 4.17" || oldest.starts_with(missing), "{oldest}");
    // No machine has the libraries of all releases.
    let said = ["4.18", "4.19", "4.20", "4.21", "4.22"].map(|version| load_with(Some(version)));
    let missing =
        |said: &&String| said.starts_with("cannot load libxenguest.so.4.") && said.contains("install the tools");
    assert!(said.iter().filter(missing).count() >= 3, "{said:?}");
}
