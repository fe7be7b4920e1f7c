//! Machines with a disk: what is on it after deaths.

use crate::client::Client;
use crate::rig::{Lan, guest_answers};
use colo_core::disk::{Backend, FileBackend, Replica, ReplicaConfig, StoreConfig, Tap, TapConfig};
use colo_core::domain::{Control, Disks};
use colo_core::net::Port;
use colo_embedded::machine::{EmbeddedConfig, EmbeddedDomain, GatedTap, RingPort};
use colo_embedded::switch::SwitchPort;
use rustix::event::{PollFd, PollFlags, poll};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

pub(crate) const DISK_BYTES: u64 = 8 << 20;

/// The files of both hosts, until this is dropped.
pub(crate) struct Files(PathBuf);

impl Files {
    pub(crate) fn new(name: &str) -> Files {
        let path = std::env::temp_dir().join(format!("colo-kills-{}-{name}.disks", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        let files = Files(path);
        let primary = std::fs::File::create(files.primary()).unwrap();
        // So that there is something to copy, however late the guest is to write.
        primary.write_all_at(&[0x5e; 64 << 10], DISK_BYTES - (64 << 10)).unwrap();
        // Of another machine's.
        std::fs::write(files.secondary(), vec![0xe5; DISK_BYTES as usize]).unwrap();
        files
    }

    pub(crate) fn primary(&self) -> PathBuf {
        self.0.join("primary")
    }

    pub(crate) fn secondary(&self) -> PathBuf {
        self.0.join("secondary")
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.0.join("journal")
    }

    pub(crate) fn replica(&self) -> ReplicaConfig {
        ReplicaConfig { disks: vec![self.secondary()], journal: self.journal(), store: StoreConfig::default() }
    }

    /// A secondary that was killed has left its disk at one epoch: a machine that is booted over it finds its store whole.
    pub(crate) fn check_secondary(&self) -> Result<(), String> {
        let replica = Replica::open(self.replica()).map_err(|error| error.to_string())?;
        if replica.epoch().is_none() {
            // It died while the disks were copied: they are at no epoch, and it knows.
            return Ok(());
        }
        replica.settle().map_err(|error| error.to_string())?;
        drop(replica);
        boots_alone(self.secondary())
    }

    /// Both have the same, once what counts has been written.
    pub(crate) fn check_same(&self) -> Result<(), String> {
        Replica::open(self.replica())
            .map_err(|error| error.to_string())?
            .settle()
            .map_err(|error| error.to_string())?;
        let read = |path| std::fs::read(path).map_err(|error| error.to_string());
        if read(self.primary())? != read(self.secondary())? {
            return Err("the disks differ".into());
        }
        Ok(())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A machine over the primary's disk, which can be protected.
pub(crate) fn boot_over(disk: Arc<dyn Backend>, config: EmbeddedConfig) -> (EmbeddedDomain, RingPort, Disks) {
    let tap = Tap::new(vec![(disk, DISK_BYTES)], TapConfig::default());
    let config = EmbeddedConfig { disk_bytes: DISK_BYTES, ..config };
    let (domain, card) = EmbeddedDomain::boot_with(&config, Some(Arc::new(tap.disk(0)))).unwrap();
    let gate = domain.disk_gate().expect("it has a disk");
    (domain, card, Disks::Primary(Box::new(GatedTap::new(gate, tap))))
}

/// The guest's own check of its store.
pub(crate) fn check_store(guest: SocketAddr) -> Result<(), String> {
    let answer = Client::connect(guest).and_then(|mut client| client.get("/kv-check"));
    match answer {
        Ok((200, said)) if said.starts_with(b"ok") => Ok(()),
        Ok((status, said)) => Err(format!("/kv-check: {status} {}", String::from_utf8_lossy(&said))),
        Err(error) => Err(format!("/kv-check: {error:#}")),
    }
}

/// A machine over that disk alone starts, and finds nothing wrong with its store.
fn boots_alone(disk: PathBuf) -> Result<(), String> {
    let lan = Lan::start("alone");
    let (file, disk_bytes) = FileBackend::open(&disk).map_err(|error| error.to_string())?;
    let config = EmbeddedConfig { ram_bytes: 16 << 20, disk_bytes, ..EmbeddedConfig::named("alone") };
    let backend: Arc<dyn Backend> = Arc::new(file);
    let (mut domain, card) = EmbeddedDomain::boot_with(&config, Some(backend)).map_err(|error| error.to_string())?;
    let wire = Wire::between(card, SwitchPort::connect(&lan.socket).map_err(|error| error.to_string())?);
    domain.resume().map_err(|error| error.to_string())?;
    let checked = if guest_answers(lan.guest, || false) {
        check_store(lan.guest)
    } else {
        Err("a machine over the secondary's disk does not answer".into())
    };
    domain.destroy();
    drop(wire);
    checked
}

/// A machine's way to the LAN without anybody who protects it.
struct Wire {
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    fn between(mut card: RingPort, mut lan: SwitchPort) -> Wire {
        let (stop, stopped) = UnixStream::pair().unwrap();
        let thread = std::thread::spawn(move || {
            // Until it is stopped, or the machine has ended.
            let _ = carry(&mut card, &mut lan, &stopped);
        });
        Wire { stop: Some(stop), thread: Some(thread) }
    }
}

fn carry(card: &mut RingPort, lan: &mut SwitchPort, stopped: &UnixStream) -> std::io::Result<()> {
    let mut frames = Vec::new();
    loop {
        // What does not fit is lost, as on any LAN.
        lan.receive(&mut frames)?;
        card.send(&frames)?;
        frames.clear();
        card.receive(&mut frames)?;
        lan.send(&frames)?;
        frames.clear();
        let ends = [card.poll_fd(), lan.poll_fd(), stopped.as_fd()];
        let mut ends = ends.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        poll(&mut ends, None)?;
        if !ends[2].revents().is_empty() {
            return Ok(());
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
