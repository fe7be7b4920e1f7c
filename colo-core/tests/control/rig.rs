//! Two hosts, each with a disk server and somebody who drives it.

use crate::breakable::Breakable;
use crate::folder::Folder;
use colo_core::disk::control::{ControlServer, ControlledPrimary, ControlledSecondary, ServedDisks};
use colo_core::disk::{
    Backend, DiskEvent, PrimaryDisks, Replica, ReplicaConfig, SecondaryDisks, StoreConfig, Tap, TapConfig, TapDisk,
};
use colo_core::ids::Epoch;
use colo_core::peer::StateChannel;
use crossbeam_channel::{Receiver, unbounded};
use std::fs::OpenOptions;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Not a whole number of the parts that are compared.
pub(crate) const SIZE: u64 = (2 << 20) + 512 * 7;
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Rig {
    pub(crate) primary: Option<ControlledPrimary>,
    pub(crate) secondary: Option<ControlledSecondary>,
    /// The disk as the primary's guest has it, and as the secondary's.
    pub(crate) guest: TapDisk,
    pub(crate) own: TapDisk,
    /// The primary's disk itself.
    pub(crate) disk: Arc<Breakable>,
    pub(crate) primary_server: Option<ControlServer>,
    pub(crate) secondary_server: Option<ControlServer>,
    events: Receiver<DiskEvent>,
    epoch: Epoch,
    folder: Folder,
}

impl Rig {
    /// Two hosts whose disks have nothing in common.
    pub(crate) fn new(config: TapConfig) -> Rig {
        let folder = Folder::new();
        let path = |name: &str| folder.0.join(name);
        std::fs::write(path("primary"), vec![1; SIZE as usize]).unwrap();
        std::fs::write(path("secondary"), vec![2; SIZE as usize]).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(path("primary")).unwrap();
        let disk = Breakable::new(file);
        let tap = Tap::new(vec![(disk.clone(), SIZE)], config);
        let store = StoreConfig { memory_bytes: 1 << 20, ..StoreConfig::default() };
        let config = ReplicaConfig { disks: vec![path("secondary")], journal: path("journal"), store };
        let replica = Replica::open(config).unwrap();
        let over = Tap::new(vec![(Arc::new(replica.disk(0)), SIZE)], TapConfig::default());
        let (guest, own) = (tap.disk(0), over.disk(0));
        let start = |name, disks| Some(ControlServer::start(&path(name), disks).unwrap());
        let mut rig = Rig {
            primary: None,
            secondary: None,
            guest,
            own,
            disk,
            primary_server: start("primary.control", ServedDisks::Primary(tap)),
            secondary_server: start("secondary.control", ServedDisks::Secondary(replica, over)),
            events: crossbeam_channel::never(),
            epoch: Epoch::NONE,
            folder,
        };
        rig.connect_primary();
        rig.connect_secondary();
        rig
    }

    /// The secondary's process dies, and another has its disks and its journal.
    pub(crate) fn restart_secondary(&mut self) {
        (self.secondary, self.secondary_server) = (None, None);
        let path = |name: &str| self.folder.0.join(name);
        // Whoever has a disk of the old one keeps its files.
        self.own = self.guest.clone();
        let config = ReplicaConfig {
            disks: vec![path("secondary")],
            journal: path("journal"),
            store: StoreConfig { memory_bytes: 1 << 20, ..StoreConfig::default() },
        };
        let replica = Replica::open(config).unwrap();
        let over = Tap::new(vec![(Arc::new(replica.disk(0)), SIZE)], TapConfig::default());
        self.own = over.disk(0);
        let served = ServedDisks::Secondary(replica, over);
        self.secondary_server = Some(ControlServer::start(&path("secondary.control"), served).unwrap());
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.0.join(name)
    }

    pub(crate) fn connect_primary(&mut self) {
        self.primary = Some(ControlledPrimary::connect_within(&self.path("primary.control"), PATIENCE).unwrap());
    }

    pub(crate) fn connect_secondary(&mut self) {
        self.secondary = Some(ControlledSecondary::connect_within(&self.path("secondary.control"), PATIENCE).unwrap());
    }

    pub(crate) fn primary(&mut self) -> &mut ControlledPrimary {
        self.primary.as_mut().unwrap()
    }

    pub(crate) fn secondary(&mut self) -> &mut ControlledSecondary {
        self.secondary.as_mut().unwrap()
    }

    /// Begins a session, and waits until both disks are the same and the first epoch has begun.
    pub(crate) fn protect(&mut self) {
        let (primary, secondary) = channels();
        self.secondary().attach(secondary).unwrap();
        let (sender, events) = unbounded();
        self.events = events;
        self.primary().attach(primary, Box::new(move |event| drop(sender.send(event)))).unwrap();
        self.wait(|event| *event == DiskEvent::InStep);
        self.epoch = Epoch::NONE;
        self.checkpoint();
    }

    pub(crate) fn wait(&self, is_awaited: impl Fn(&DiskEvent) -> bool) -> DiskEvent {
        loop {
            let event = self.events.recv_timeout(PATIENCE).expect("an event");
            assert!(is_awaited(&event) || !matches!(event, DiskEvent::Lost(_)), "{event:?}");
            if is_awaited(&event) {
                return event;
            }
        }
    }

    pub(crate) fn checkpoint(&mut self) {
        self.stage();
        self.apply();
    }

    /// An epoch ends on the primary, and is whole on the secondary.
    pub(crate) fn stage(&mut self) {
        self.epoch = self.epoch.next();
        let epoch = self.epoch;
        let primary = self.primary();
        primary.freeze();
        primary.barrier(epoch);
        primary.thaw();
        assert!(self.secondary().wait_barrier(epoch, Instant::now() + PATIENCE));
    }

    /// It counts.
    pub(crate) fn apply(&mut self) {
        let epoch = self.epoch;
        let secondary = self.secondary();
        secondary.release();
        secondary.freeze();
        secondary.commit(epoch).unwrap();
        secondary.thaw();
        self.primary().committed(epoch);
    }

    /// What is on the secondary's disk itself, once nobody serves it any more.
    pub(crate) fn settled(mut self) -> Vec<u8> {
        let disks = self.secondary_server.take().unwrap().stop();
        let Some(ServedDisks::Secondary(replica, _)) = disks else { panic!("other disks") };
        replica.settle().unwrap();
        std::fs::read(self.path("secondary")).unwrap()
    }
}

/// Both ends of a connection that carries a greeting.
pub(crate) fn channels() -> (StateChannel, StateChannel) {
    use colo_core::peer::Message::Welcome;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let deadline = Instant::now() + PATIENCE;
    let mut primary = StateChannel::connect(&address, PATIENCE, deadline).unwrap();
    let mut secondary = StateChannel::new(listener.accept().unwrap().0, PATIENCE).unwrap();
    secondary.send(&Welcome).unwrap();
    assert_eq!(primary.recv(deadline).unwrap(), Some(Welcome));
    (primary, secondary)
}

pub(crate) fn read_all(disk: &dyn Backend) -> Vec<u8> {
    let mut bytes = vec![0; SIZE as usize];
    disk.read(0, &mut bytes).unwrap();
    bytes
}
