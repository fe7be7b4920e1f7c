//! Hosts that die at chosen and at random moments, with real processes and real clients: the service goes on, and nothing that
//! was acknowledged is lost.
//!
//! `COLO_KILLS=N` sets how many primaries die (100), `COLO_KILL_SEED=X` replays the one that a failure names.

#[path = "../src/demo/client.rs"]
#[allow(dead_code)]
mod client;

#[path = "../../colo-core/tests/support/breakable.rs"]
mod breakable;
#[path = "kills/disk.rs"]
mod disk;
#[path = "kills/failing.rs"]
mod failing;
#[path = "kills/rig.rs"]
mod rig;

use colo_core::disk::{Backend, FileBackend};
use colo_core::domain::{Disks, Machine};
use colo_core::layers::Faults;
use colo_core::net::Port;
use colo_core::peer::Mode;
use colo_core::restore::RestoreCallbacks;
use colo_core::save::SaveCallbacks;
use colo_core::session::{Event, PrimarySession, PrimarySessionConfig, SecondarySession, SecondarySessionConfig};
use colo_embedded::machine::{EmbeddedConfig, EmbeddedDomain, EmbeddedHost, RingPort};
use colo_embedded::switch::SwitchPort;
use disk::{DISK_BYTES, Files};
use rig::{Clients, Lan, Process, Random, guest_answers, kill, wait_for};
use std::cell::Cell;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

/// When a primary dies.
#[derive(Clone, Debug)]
enum Moment {
    /// Just before call number N of one of its own callbacks.
    Primary(&'static str, u64),
    /// Just before call number N of one of the secondary's.
    Secondary(&'static str, u64),
    /// After so many PUTs.
    Puts(u64),
}

impl Moment {
    fn random(random: &mut Random) -> Moment {
        let call = 1 + random.below(6);
        match random.below(12) {
            // 1 is the end of the first copy.
            0 => Moment::Primary("wait_checkpoint", 1),
            1 => Moment::Primary("suspend", call),
            2 => Moment::Primary("capture", call),
            3 => Moment::Primary("postcopy", call),
            4 => Moment::Primary("checkpoint", 1 + random.below(12)),
            // During the first copy, and while a later checkpoint is staged.
            5 => Moment::Secondary("get_page", 1 + random.below(20)),
            6 => Moment::Secondary("get_page", 40 + random.below(2000)),
            // The last record before the acknowledgement.
            7 => Moment::Secondary("record", call),
            // Between the acknowledgement and the release, while flushing, and after.
            8 => Moment::Secondary("flush_memory", call),
            9 => Moment::Secondary("finish_restore", call),
            _ => Moment::Puts(random.below(300)),
        }
    }
}

#[test]
fn a_primary_dies_at_any_moment() {
    let lan = Lan::start("primary");
    let kills = std::env::var("COLO_KILLS").map_or(100, |text| text.parse().expect("COLO_KILLS is a number"));
    let seeds: Vec<u64> = match std::env::var("COLO_KILL_SEED") {
        Ok(seed) => vec![seed.parse().expect("COLO_KILL_SEED is a number")],
        Err(_) => (0..kills).collect(),
    };
    let mut took_over = 0;
    for &seed in &seeds {
        match primary_dies(seed, &lan) {
            Ok(survived) => took_over += u64::from(survived),
            Err(error) => panic!("replay with COLO_KILL_SEED={seed}: {error}"),
        }
    }
    println!("{} primaries died; {took_over} times the secondary took over", seeds.len());
    assert!(
        seeds.len() < 20 || took_over * 2 > seeds.len() as u64,
        "most of the deaths are after the first checkpoint"
    );
}

/// Returns whether there was anything to take over.
fn primary_dies(seed: u64, lan: &Lan) -> Result<bool, String> {
    let mut random = Random(seed);
    let mode = if random.below(3) == 0 { "remus" } else { "colo" };
    let moment = Moment::random(&mut random);
    // Half of the machines have a disk, and keep what was PUT there.
    let files = (seed % 2 == 1).then(|| Files::new(&format!("primary-{seed}")));
    let pid = Arc::new(AtomicI32::new(0));
    let layer = {
        let (pid, moment) = (pid.clone(), moment.clone());
        move |inner: Box<dyn RestoreCallbacks>| -> Box<dyn RestoreCallbacks> {
            let Moment::Secondary(callback, call) = moment else { return inner };
            let pid = pid.clone();
            let faults = Faults::default().at(callback, call, move || {
                kill(&pid);
                Ok(())
            });
            Box::new(colo_core::restore::layers::Faulty::new(inner, faults))
        }
    };
    let config = SecondarySessionConfig { verify: true, layer: Some(Arc::new(layer)), ..Default::default() };
    let host = EmbeddedHost::new(&lan.socket);
    let host = Box::new(match &files {
        Some(files) => host.with_disk(files.replica()),
        None => host,
    });
    let session = SecondarySession::listen("127.0.0.1:0", host, config).map_err(|error| error.to_string())?;
    let mut primary = start_primary(lan, session.local_addr(), mode, &moment, files.as_ref());
    pid.store(primary.pid(), Ordering::SeqCst);
    let result = std::thread::scope(|scope| {
        let gone = || primary_gone(pid.load(Ordering::SeqCst));
        let clients = guest_answers(lan.guest, gone).then(|| Clients::start(scope, lan.guest));
        if let (Moment::Puts(count), Some(clients)) = (&moment, &clients) {
            clients.acknowledged.wait(*count);
            kill(&pid);
        }
        let mut log = Vec::new();
        let is_end = |event: &Event| matches!(event, Event::TookOver { .. } | Event::Unprotected(_) | Event::Ended(_));
        match wait_for(session.events(), &mut log, is_end)? {
            Event::TookOver { .. } => {}
            Event::Unprotected(why) if why.contains("before the machine was protected") => {
                if let Some(clients) = clients {
                    clients.abandon();
                }
                return Ok(false);
            }
            other => return Err(format!("{mode}, {moment:?}: {other}; events: {log:#?}")),
        }
        match clients {
            Some(clients) => {
                clients.finish(lan.guest).map_err(|error| format!("{mode}, {moment:?}: {error}; {log:#?}"))?;
            }
            None => assert!(guest_answers(lan.guest, || false), "{mode}, {moment:?}: the survivor does not answer"),
        }
        if files.is_some() {
            disk::check_store(lan.guest).map_err(|error| format!("{mode}, {moment:?}: {error}"))?;
        }
        Ok(true)
    });
    let _ = primary.child.kill();
    session.controller().stop();
    session.wait();
    result
}

fn start_primary(lan: &Lan, peer: SocketAddr, mode: &str, moment: &Moment, files: Option<&Files>) -> Process {
    let (peer, switch) = (peer.to_string(), lan.socket.to_string_lossy().into_owned());
    let mut args = vec!["primary", "--json", "--verify", "--domain", "web", "--memory", "16", "--mode", mode];
    // A process that is starved by other tests is not silent: only the dead are taken over from without a fence.
    args.extend(["--interval", "30", "--heartbeat", "1000", "--peer", &peer, "--switch", &switch]);
    let die_at = match moment {
        Moment::Primary(callback, call) => format!("{callback}:{call}"),
        _ => String::new(),
    };
    let disk = files.map(|files| files.primary().to_string_lossy().into_owned());
    if let Some(disk) = &disk {
        args.extend(["--disk", disk]);
    }
    if !die_at.is_empty() {
        args.extend(["--die-at", &die_at]);
    }
    Process::start(&args)
}

/// A primary that stands still is silent, as if the link were cut: the operator says whether it is dead.
#[test]
fn a_primary_that_is_only_silent_is_held_until_sigusr1() {
    for accepts in [false, true] {
        let lan = Lan::start(&format!("silent-{accepts}"));
        let switch = lan.socket.to_string_lossy().into_owned();
        let mut args = vec!["secondary", "--json", "--listen", "127.0.0.1:0", "--switch", &switch];
        args.extend(accepts.then_some("--promote-unfenced"));
        let secondary = Process::start(&args);
        let listening: serde_json::Value = serde_json::from_str(&secondary.wait_for("listening")).unwrap();
        let peer = listening["address"].as_str().unwrap();
        let mut primary = Process::start(&[
            "primary",
            "--json",
            "--domain",
            "web",
            "--memory",
            "16",
            "--heartbeat",
            "200",
            "--peer",
            peer,
            "--switch",
            &switch,
        ]);
        primary.wait_for("\"protected\"");
        secondary.wait_for("\"applied\"");
        send_signal("-STOP", primary.pid());
        if !accepts {
            secondary.wait_for("\"held\"");
            send_signal("-USR1", secondary.pid());
        }
        secondary.wait_for("\"took-over\"");
        // It wakes, hears that the other side serves, and stands down.
        send_signal("-CONT", primary.pid());
        assert_eq!(primary.child.wait().unwrap().code(), Some(3));
        assert!(guest_answers(lan.guest, || false));
    }
}

fn send_signal(signal: &str, pid: i32) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

fn primary_gone(pid: i32) -> bool {
    // A zombie has no memory map.
    std::fs::read_to_string(format!("/proc/{pid}/maps")).map_or(true, |maps| maps.is_empty())
}

#[test]
fn a_secondary_dies_at_any_moment() {
    let lan = Lan::start("secondary");
    for seed in 0..20 {
        if let Err(error) = secondary_dies(seed, &lan) {
            panic!("seed {seed}: {error}");
        }
    }
}

fn secondary_dies(seed: u64, lan: &Lan) -> Result<(), String> {
    let mut random = Random(seed);
    let mode = if random.below(3) == 0 { Mode::Remus } else { Mode::Colo };
    let callbacks = ["wait_checkpoint", "suspend", "capture", "postcopy", "checkpoint"];
    let callback = callbacks[random.below(callbacks.len() as u64) as usize];
    let call = 1 + random.below(8);
    let files = (seed % 2 == 1).then(|| Files::new(&format!("secondary-{seed}")));
    let (secondary, peer) = start_secondary(lan, files.as_ref());
    let pid = Arc::new(AtomicI32::new(secondary.pid()));
    let (machine, wire) = boot(&lan.socket, files.as_ref());
    let mut config = PrimarySessionConfig::new(mode);
    config.checkpoints.interval = Duration::from_millis(30);
    config.verify = true;
    config.layer = Some(Box::new(move |inner: Box<dyn SaveCallbacks>| {
        let faults = Faults::default().at(callback, call, move || {
            kill(&pid);
            Ok(())
        });
        Box::new(colo_core::save::layers::Faulty::new(inner, faults))
    }));
    let session = PrimarySession::start(machine, vec![wire], &peer, config).map_err(|error| error.error.to_string())?;
    let result = std::thread::scope(|scope| {
        if !guest_answers(lan.guest, || false) {
            return Err("the guest does not answer".into());
        }
        let clients = Clients::start(scope, lan.guest);
        let mut log = Vec::new();
        wait_for(session.events(), &mut log, |event| matches!(event, Event::Unprotected(_)))?;
        clients.finish(lan.guest).map_err(|error| format!("{mode:?}, {callback} {call}: {error}; {log:#?}"))
    });
    session.controller().stop();
    session.wait();
    drop(secondary);
    result.and_then(|()| files.map_or(Ok(()), |files| files.check_secondary()))
}

fn start_secondary(lan: &Lan, files: Option<&Files>) -> (Process, String) {
    let switch = lan.socket.to_string_lossy().into_owned();
    let mut args = vec!["secondary", "--json", "--verify", "--listen", "127.0.0.1:0", "--switch", &switch];
    let paths = files.map(|files| [files.secondary(), files.journal()].map(|path| path.to_string_lossy().into_owned()));
    if let Some([disk, journal]) = &paths {
        args.extend(["--disk", disk, "--journal", journal]);
    }
    let secondary = Process::start(&args);
    let line = secondary.wait_for("listening");
    let peer = line.split('"').find(|word| word.starts_with("127.0.0.1:")).expect("an address").to_owned();
    (secondary, peer)
}

fn boot(switch: &Path, files: Option<&Files>) -> (Machine, Box<dyn Port>) {
    if let Some(files) = files {
        return machine_over(switch, Arc::new(FileBackend::open(&files.primary()).unwrap().0));
    }
    let (domain, card) = EmbeddedDomain::boot(&config()).unwrap();
    connected(switch, (domain, card, Disks::None))
}

/// A machine with that disk, which can be protected.
fn machine_over(switch: &Path, disk: Arc<dyn Backend>) -> (Machine, Box<dyn Port>) {
    connected(switch, disk::boot_over(disk, config()))
}

fn config() -> EmbeddedConfig {
    EmbeddedConfig { ram_bytes: 16 << 20, ..EmbeddedConfig::named("web") }
}

fn connected(switch: &Path, (domain, card, disks): (EmbeddedDomain, RingPort, Disks)) -> (Machine, Box<dyn Port>) {
    let wire = SwitchPort::connect(switch).unwrap();
    (Machine { domain: Box::new(domain), nics: vec![Box::new(card)], disks }, Box::new(wire))
}

/// A secondary dies under load. What has changed since is copied to its disk when it comes again, and then both are the same.
#[test]
fn disks_are_the_same_after_a_secondary_has_died_and_come_again() {
    let lan = Lan::start("again");
    let files = Files::new("again");
    let first = protect_with_disk(&lan, &files, |session, secondary, log| {
        drop(secondary);
        wait_for(session.events(), log, |event| matches!(event, Event::Unprotected(_))).unwrap();
    });
    assert!(first > 0, "disks that had nothing in common");
    files.check_secondary().unwrap();
    let again = protect_with_disk(&lan, &files, |session, secondary, log| {
        // Two checkpoints later nothing is under way.
        for _ in 0..2 {
            session.controller().checkpoint();
            wait_for(session.events(), log, |event| matches!(event, Event::Checkpoint { .. })).unwrap();
        }
        session.controller().end_protection();
        wait_for(session.events(), log, |event| matches!(event, Event::Unprotected(_))).unwrap();
        secondary.wait_for("\"unprotected\"");
    });
    assert!(again < DISK_BYTES / 4, "{again} bytes were copied again");
    files.check_same().unwrap();
}

/// Protects a machine over that disk, with clients, until `end` has ended it. Returns how much of the disk was copied.
fn protect_with_disk(lan: &Lan, files: &Files, end: impl FnOnce(&PrimarySession, Process, &mut Vec<String>)) -> u64 {
    let (machine, wire) = boot(&lan.socket, Some(files));
    let (secondary, peer) = start_secondary(lan, Some(files));
    let mut config = PrimarySessionConfig::new(Mode::Colo);
    config.checkpoints.interval = Duration::from_millis(30);
    let session = PrimarySession::start(machine, vec![wire], &peer, config).map_err(|refused| refused.error).unwrap();
    let (mut log, copied) = (Vec::new(), Cell::new(0));
    let is_protected = |event: &Event| {
        if let Event::CopyingDisks { sent_bytes, .. } = event {
            copied.set(*sent_bytes);
        }
        matches!(event, Event::Protected(_))
    };
    wait_for(session.events(), &mut log, is_protected).unwrap();
    std::thread::scope(|scope| Clients::start(scope, lan.guest).finish(lan.guest)).unwrap();
    end(&session, secondary, &mut log);
    session.controller().stop();
    session.wait();
    copied.get()
}
