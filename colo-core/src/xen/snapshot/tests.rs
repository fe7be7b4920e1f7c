//! Loaded by a real QEMU: a whole machine, of which no instruction runs.

use super::*;
use crate::xen::qmp::tests::Qemu;
use crate::xen::toolstack::emulator::device_state;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// A PC such as Xen's device model emulates, with a card. The state is as Xen's is: without what a migration has more.
fn pc(test: &str, mac: &str) -> Option<Qemu> {
    let card = format!("e1000,mac={mac}");
    Qemu::start_with(
        test,
        &[
            "-machine",
            "pc,accel=tcg",
            "-m",
            "4",
            "-nodefaults",
            "-nographic",
            "-S",
            "-device",
            &card,
            "-device",
            "rtl8139",
            "-global",
            "migration.store-global-state=off",
            "-global",
            "migration.send-configuration=off",
            "-global",
            "migration.send-section-footer=off",
        ],
    )
}

fn connect(qemu: &Qemu) -> QmpClient {
    let mut qmp = qemu.connect(LIMIT).unwrap();
    // As a guest's that has run.
    qmp.stop().unwrap();
    qmp
}

#[test]
fn a_qemu_becomes_another_again_and_again() {
    let Some(from) = pc("from", "00:16:3e:00:00:01") else { return };
    let into_qemu = pc("into", "00:16:3e:00:00:02").expect("it is installed");
    let (mut from, mut into) = (connect(&from), connect(&into_qemu));
    let state = device_state(&mut from).unwrap();
    let own = device_state(&mut into).unwrap();
    assert!(state != own && state.len() == own.len(), "their cards have other addresses");
    for round in 0..3 {
        load_into(&mut into, &state).unwrap();
        assert!(device_state(&mut into).unwrap() == state, "round {round}");
        load_into(&mut into, &own).unwrap();
        assert!(device_state(&mut into).unwrap() == own, "round {round}");
    }
    let status = into.query_status().unwrap();
    assert!(!status.running, "{status:?}");
    into.cont().unwrap();
    assert!(into.query_status().unwrap().running);
    // Nothing is left. A QEMU that stands still keeps files until it runs and nobody speaks with it.
    drop(into);
    let mut into = into_qemu.connect(LIMIT).unwrap();
    for query in ["query-named-block-nodes", "query-jobs", "query-fdsets"] {
        assert_eq!(into.execute(query, None).unwrap(), serde_json::json!([]), "{query}");
    }
}

#[test]
fn a_state_that_is_none_is_refused_and_leaves_nothing() {
    let Some(qemu) = pc("refused", "00:16:3e:00:00:01") else { return };
    let mut qmp = connect(&qemu);
    let state = device_state(&mut qmp).unwrap();
    let mut unknown_device = state.clone();
    // Behind the magic, the version, and the first section's type and number: its name, with its length before it.
    unknown_device[14] = b'?';
    for bad in [&b""[..], b"no state of QEMU's", &unknown_device] {
        let error = load_into(&mut qmp, bad).unwrap_err();
        assert!(matches!(&error, SnapshotError::Qmp(QmpError::Job { .. })), "{error:?}");
    }
    let long = MAX_DEVICE_STATE_BYTES as usize + 1;
    assert!(matches!(load_into(&mut qmp, &vec![0; long]), Err(SnapshotError::TooLong(length)) if length == long));
    // It takes a good one after them.
    load_into(&mut qmp, &state).unwrap();
    assert!(device_state(&mut qmp).unwrap() == state);
}

#[test]
fn what_a_killed_one_has_left_is_in_nobodys_way() {
    let Some(qemu) = pc("left", "00:16:3e:00:00:01") else { return };
    let mut qmp = connect(&qemu);
    let state = device_state(&mut qmp).unwrap();
    let mut left = File::from(memfd_create("left", MemfdFlags::CLOEXEC).unwrap());
    left.write_all(&qcow2::image(b"another's")).unwrap();
    add(&mut qmp, &left).unwrap();
    qmp.execute(
        "snapshot-load",
        Some(serde_json::json!({ "job-id": JOB, "tag": "state", "vmstate": NODE, "devices": [NODE] })),
    )
    .unwrap();
    drop(qmp);
    let mut qmp = connect(&qemu);
    load_into(&mut qmp, &state).unwrap();
    assert!(device_state(&mut qmp).unwrap() == state);
}
