//! The primary's disk fails under load: clients notice nothing but a pause, and nothing that was acknowledged is lost.

use crate::breakable::Breakable;
use crate::disk::{Files, check_store};
use crate::rig::{Clients, Lan, wait_for};
use crate::{machine_over, start_secondary};
use colo_core::peer::Mode;
use colo_core::session::{Event, Outcome, PrimarySession, PrimarySessionConfig};
use std::fs::OpenOptions;
use std::time::Duration;

#[test]
fn a_primarys_disk_fails_under_load() {
    let lan = Lan::start("failing");
    // Between two checkpoints, and in the midst of them.
    for (mode, interval_ms) in [(Mode::Colo, 10_000), (Mode::Colo, 5), (Mode::Remus, 20)] {
        let files = Files::new(&format!("failing-{mode:?}-{interval_ms}"));
        let disk = Breakable::new(OpenOptions::new().read(true).write(true).open(files.primary()).unwrap());
        let (machine, wire) = machine_over(&lan.socket, disk.clone());
        let (secondary, peer) = start_secondary(&lan, Some(&files));
        let mut config = PrimarySessionConfig::new(mode);
        config.checkpoints.interval = Duration::from_millis(interval_ms);
        // A process that is starved by other tests is not silent.
        config.heartbeat = Duration::from_secs(1);
        let session = PrimarySession::start(machine, vec![wire], &peer, config);
        let session = session.map_err(|refused| refused.error).unwrap();
        let mut log = Vec::new();
        wait_for(session.events(), &mut log, |event| matches!(event, Event::Protected(_))).unwrap();
        let end = std::thread::scope(|scope| {
            let clients = Clients::start(scope, lan.guest);
            clients.acknowledged.wait(30);
            disk.fail(usize::MAX);
            let end = wait_for(session.events(), &mut log, |event| matches!(event, Event::Ended(_))).unwrap();
            secondary.wait_for("\"took-over\"");
            clients.finish(lan.guest).unwrap_or_else(|error| panic!("{mode:?}, {interval_ms} ms: {error}; {log:#?}"));
            end
        });
        let Event::Ended(Outcome::Failed(why)) = end else { panic!("{end}; {log:#?}") };
        assert!(why.contains("disk 0 failed on this host"), "{why}");
        check_store(lan.guest).unwrap();
        session.wait();
    }
}
