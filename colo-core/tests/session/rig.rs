//! Two sessions that protect a machine, and what the test needs to drive and to watch them.

use crate::machine::{End, Guest, HostView, ModelHost, machine, spec};
use colo_core::disk::{PrimaryDisks, SecondaryDisks};
use colo_core::domain::{DiskSpec, Disks, DomainSpec, Machine};
use colo_core::layers::Faults;
use colo_core::net::memory::pair;
use colo_core::net::{Frame, Port, testing};
use colo_core::peer::Mode;
use colo_core::restore::layers::Faulty as FaultyRestore;
use colo_core::save::CallbackError;
use colo_core::save::layers::Faulty as FaultySave;
use colo_core::session::{
    Event, Events, NotStarted, Outcome, PrimarySession, PrimarySessionConfig, RestoreLayer, SaveLayer,
    SecondarySession, SecondarySessionConfig,
};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Long enough for a busy machine; reached only by a test that fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// For times that shall not pass in a test.
pub(crate) const NEVER: Duration = Duration::from_secs(24 * 3600);

pub(crate) fn deadline() -> Instant {
    Instant::now() + PATIENCE
}

/// A datagram from the guest's port 53 to its client.
pub(crate) fn answer(text: &str) -> Frame {
    testing::udp(53, 4000, text.as_bytes())
}

/// How both sides are set up. Nothing happens by time unless a test says so.
pub(crate) struct Setup {
    pub(crate) primary: PrimarySessionConfig,
    pub(crate) secondary: SecondarySessionConfig,
    /// With its size.
    primary_disk: Option<(Box<dyn PrimaryDisks>, u64)>,
    secondary_disk: Option<Box<dyn SecondaryDisks>>,
}

impl Setup {
    pub(crate) fn new(mode: Mode) -> Self {
        let mut primary = PrimarySessionConfig::new(mode);
        primary.checkpoints.interval = NEVER;
        primary.compare.timeout = NEVER;
        // A machine that is busy with other tests is not dead.
        primary.heartbeat = Duration::from_secs(2);
        Setup { primary, secondary: SecondarySessionConfig::default(), primary_disk: None, secondary_disk: None }
    }

    pub(crate) fn colo() -> Self {
        Setup::new(Mode::Colo)
    }

    pub(crate) fn remus() -> Self {
        Setup::new(Mode::Remus)
    }

    /// The primary does this just before call number `call` of that callback.
    pub(crate) fn primary_fault(mut self, callback: &'static str, call: u64, action: impl Action) -> Self {
        self.primary.layer = Some(save_fault(callback, call, action));
        self
    }

    /// The same on the secondary, in its first session.
    pub(crate) fn secondary_fault(mut self, callback: &'static str, call: u64, action: impl Action) -> Self {
        self.secondary.layer = Some(restore_fault(callback, call, action));
        self
    }

    /// Both sides verify the guest's whole memory.
    pub(crate) fn verified(mut self) -> Self {
        self.primary.verify = true;
        self.secondary.verify = true;
        self
    }

    /// The first two epochs are a rehearsal.
    pub(crate) fn rehearsed(mut self) -> Self {
        self.primary.checkpoints.rehearse = true;
        self
    }

    /// The machine has a disk of this size on the primary.
    pub(crate) fn with_primary_disk(mut self, disk: impl PrimaryDisks + 'static, size_bytes: u64) -> Self {
        self.primary_disk = Some((Box::new(disk), size_bytes));
        self
    }

    /// And on the secondary.
    pub(crate) fn with_secondary_disk(mut self, disk: impl SecondaryDisks + 'static) -> Self {
        self.secondary_disk = Some(Box::new(disk));
        self
    }

    /// Both sides, from the greeting on. The guest has something in its memory and in its registers.
    pub(crate) fn start(self) -> Rig {
        self.start_by_way_of(|address| address)
    }

    /// The same, where the primary finds the secondary at another address.
    pub(crate) fn start_by_way_of(self, way: impl FnOnce(SocketAddr) -> SocketAddr) -> Rig {
        let (host, host_view) = ModelHost::new("model");
        let host = host.with_disks(self.secondary_disk);
        let secondary = SecondarySession::listen("127.0.0.1:0", Box::new(host), self.secondary).unwrap();
        let address = way(secondary.local_addr()).to_string();
        let (primary, pvm, client) =
            start_primary_with(&address, self.primary, self.primary_disk).map_err(|refused| refused.error).unwrap();
        let svm = host_view.guest();
        let (primary_events, secondary_events) = (Watch::new(primary.events()), Watch::new(secondary.events()));
        Rig { primary, secondary, primary_events, secondary_events, pvm, svm, client, host: host_view }
    }

    /// As [`Setup::start`], until the first checkpoint is applied.
    pub(crate) fn protect(self) -> Rig {
        self.start().protected()
    }
}

/// A primary with a guest of its own, and its client.
pub(crate) fn start_primary(
    address: &str,
    config: PrimarySessionConfig,
) -> Result<(PrimarySession, Guest, End), Box<NotStarted>> {
    start_primary_with(address, config, None)
}

fn start_primary_with(
    address: &str,
    config: PrimarySessionConfig,
    disk: Option<(Box<dyn PrimaryDisks>, u64)>,
) -> Result<(PrimarySession, Guest, End), Box<NotStarted>> {
    let sizes = disk.iter().map(|(_, size_bytes)| DiskSpec { size_bytes: *size_bytes }).collect();
    let (machine, pvm) = machine(DomainSpec { disks: sizes, ..spec() });
    let machine = Machine { disks: disk.map_or(Disks::None, |(disk, _)| Disks::Primary(disk)), ..machine };
    pvm.store(5000, b"hello");
    pvm.set_registers(b"at the start");
    let (clients, lan) = pair(1024).unwrap();
    let lans: Vec<Box<dyn Port>> = vec![Box::new(lan)];
    let session = PrimarySession::start(machine, lans, address, config)?;
    Ok((session, pvm, End::new(clients)))
}

/// Both sides of a session.
pub(crate) struct Rig {
    pub(crate) primary: PrimarySession,
    pub(crate) secondary: SecondarySession,
    pub(crate) primary_events: Watch,
    pub(crate) secondary_events: Watch,
    pub(crate) pvm: Guest,
    pub(crate) svm: Guest,
    /// On the primary's network.
    pub(crate) client: End,
    pub(crate) host: HostView,
}

impl Rig {
    /// Waits until the machine is protected, and the secondary has become what the primary was.
    pub(crate) fn protected(mut self) -> Rig {
        let epoch = self.primary_events.get(|event| match event {
            Event::Protected(epoch) => Some(*epoch),
            _ => None,
        });
        self.secondary_events.find(|event| matches!(event, Event::Applied { applied, .. } if applied.epoch == epoch));
        self
    }

    /// A checkpoint, from the request to its end on the secondary.
    pub(crate) fn checkpoint(&mut self) {
        self.primary.controller().checkpoint();
        self.secondary_events.applied();
    }

    /// Waits until the primary serves without protection, and returns why.
    pub(crate) fn unprotected(&mut self) -> String {
        unprotected(&mut self.primary_events)
    }

    /// Stops both sides, and returns how they ended.
    pub(crate) fn stop(self) -> (Outcome, Outcome) {
        self.primary.controller().stop();
        let primary = self.primary.wait();
        self.secondary.controller().stop();
        (primary, self.secondary.wait())
    }
}

/// Waits until a side says that its machine is not protected, and returns why.
pub(crate) fn unprotected(events: &mut Watch) -> String {
    events.get(|event| match event {
        Event::Unprotected(why) => Some(why.clone()),
        _ => None,
    })
}

/// Reads a session's events.
pub(crate) struct Watch {
    events: Events,
    seen: Vec<Event>,
}

impl Watch {
    pub(crate) fn new(events: &Events) -> Self {
        Watch { events: events.clone(), seen: Vec::new() }
    }

    /// Reads on until an event is wanted, and returns what is wanted of it.
    pub(crate) fn get<T>(&mut self, wanted: impl Fn(&Event) -> Option<T>) -> T {
        let deadline = deadline();
        loop {
            let event = match self.events.recv_deadline(deadline) {
                Ok(event) => event,
                Err(RecvTimeoutError::Timeout) => panic!("an event did not come in time, after {:#?}", self.seen),
                Err(RecvTimeoutError::Disconnected) => panic!("no more events come, after {:#?}", self.seen),
            };
            self.seen.push(event.clone());
            if let Some(found) = wanted(&event) {
                return found;
            }
        }
    }

    /// Reads on until such an event.
    pub(crate) fn find(&mut self, wanted: impl Fn(&Event) -> bool) -> Event {
        self.get(|event| wanted(event).then(|| event.clone()))
    }

    /// Reads on until a checkpoint is applied.
    pub(crate) fn applied(&mut self) {
        self.find(|event| matches!(event, Event::Applied { .. }));
    }

    /// Reads on until the other side is lost, and returns how.
    pub(crate) fn peer_lost(&mut self) -> String {
        self.get(|event| match event {
            Event::PeerLost(how) => Some(how.clone()),
            _ => None,
        })
    }
}

/// What a fault does.
pub(crate) trait Action: FnMut() -> Result<(), CallbackError> + Send + 'static {}

impl<F: FnMut() -> Result<(), CallbackError> + Send + 'static> Action for F {}

pub(crate) fn save_fault(callback: &'static str, call: u64, action: impl Action) -> SaveLayer {
    let faults = Faults::default().at(callback, call, action);
    Box::new(move |inner| Box::new(FaultySave::new(inner, faults)))
}

pub(crate) fn restore_fault(callback: &'static str, call: u64, action: impl Action) -> RestoreLayer {
    let faults = Mutex::new(Faults::default().at(callback, call, action));
    // Later sessions get none.
    Arc::new(move |inner| Box::new(FaultyRestore::new(inner, std::mem::take(&mut faults.lock().unwrap()))))
}

/// An action at which a thread waits for the test, and the test's side of it.
pub(crate) fn barrier() -> (impl Action, Barrier) {
    let (reach, reached) = bounded(1);
    let (go_on, go) = bounded::<()>(1);
    let action = move || {
        let _ = reach.send(());
        // Goes on as well when the test has failed, and its side is gone.
        let _ = go.recv_deadline(deadline());
        Ok(())
    };
    (action, Barrier { reached, go_on })
}

/// See [`barrier`].
pub(crate) struct Barrier {
    reached: Receiver<()>,
    go_on: Sender<()>,
}

impl Barrier {
    /// Waits until the thread is there.
    pub(crate) fn reached(&self) {
        self.reached.recv_deadline(deadline()).expect("the place is reached");
    }

    /// Lets it go on.
    pub(crate) fn go_on(self) {
        let _ = self.go_on.send(());
    }
}
