//! Model machines, with the guest's ends in the hands of the test.

use crate::rig::deadline;
use colo_core::disk::SecondaryDisks;
use colo_core::domain::model::ModelDomain;
use colo_core::domain::{
    Control, DirtyBitmap, DirtyLog, Disks, Domain, DomainError, DomainSpec, Host, Machine, Pages, RunState, State,
    StateRecord,
};
use colo_core::ids::{PAGE_SIZE, Pfn};
use colo_core::net::memory::{MemoryPort, pair};
use colo_core::net::{Frame, Port};
use colo_core::stream::DomainHeader;
use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

/// Frames under way on a model's network: more than any test sends.
const CAPACITY: usize = 1024;

/// Pages of a model machine.
const PAGES: u64 = 32;

/// A machine for a session, and the guest in it for the test.
pub(crate) fn machine(spec: DomainSpec) -> (Machine, Guest) {
    let vcpu = Arc::new(Mutex::new(Inside {
        domain: ModelDomain::from_spec(spec.clone()),
        crashed: false,
        gone: false,
        outlives: false,
        became: None,
        is_ready: false,
        stalls: None,
    }));
    let (guest_end, host_end) = pair(CAPACITY).unwrap();
    let (quiet, settled) = unbounded();
    let nic = Watched::new(host_end, quiet).unwrap();
    let domain = Box::new(Shared { spec, inside: vcpu.clone() });
    (
        Machine { domain, nics: vec![Box::new(nic)], disks: Disks::None },
        Guest { inside: vcpu, nic: End::new(guest_end), settled },
    )
}

/// The machine that the tests protect.
pub(crate) fn spec() -> DomainSpec {
    ModelDomain::new("web", PAGES).spec().clone()
}

/// What runs in a model machine: the test.
pub(crate) struct Guest {
    inside: Arc<Mutex<Inside>>,
    /// Its network card.
    pub(crate) nic: End,
    settled: Receiver<()>,
}

struct Inside {
    domain: ModelDomain,
    crashed: bool,
    /// Destroyed by its host.
    gone: bool,
    /// Does not end with its host's hand on it.
    outlives: bool,
    /// What it was made like.
    became: Option<Vec<u8>>,
    /// Whether it was made ready since its state was loaded.
    is_ready: bool,
    /// It cannot become like another, and stands still from then on.
    stalls: Option<Stall>,
}

/// For how long a machine stands still.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stall {
    UntilResumed,
    ForGood,
}

impl Guest {
    /// Writes into its memory, as a running guest does.
    pub(crate) fn store(&self, offset: usize, data: &[u8]) {
        self.lock().domain.store(offset, data);
    }

    /// Its whole memory.
    pub(crate) fn ram(&self) -> Vec<u8> {
        self.lock().domain.ram().to_vec()
    }

    /// What stands for its vCPU.
    pub(crate) fn registers(&self) -> Vec<u8> {
        self.lock().domain.registers.clone()
    }

    /// Sets them.
    pub(crate) fn set_registers(&self, registers: &[u8]) {
        self.lock().domain.registers = registers.to_vec();
    }

    /// Shuts down by itself.
    pub(crate) fn shut_down(&self) {
        self.lock().domain.destroy();
    }

    /// Crashes.
    pub(crate) fn crash(&self) {
        self.lock().crashed = true;
    }

    /// From here on it is like a domain of Xen's, that does not end with the hand on it.
    pub(crate) fn outlives_its_session(&self) {
        self.lock().outlives = true;
    }

    /// Whether its dirty pages are logged.
    pub(crate) fn is_logged(&self) -> bool {
        let mut inside = self.lock();
        let mut dirty = DirtyBitmap::new(inside.domain.spec().pfn_limit);
        inside.domain.take_dirty(&mut dirty).is_ok()
    }

    /// What it was made like.
    pub(crate) fn became(&self) -> Option<Vec<u8>> {
        self.lock().became.clone()
    }

    /// When it shall become like another, it stands still instead.
    pub(crate) fn stalls(&self, stall: Stall) {
        self.lock().stalls = Some(stall);
    }

    /// Whether it was made ready to go on from the state that was loaded last.
    pub(crate) fn is_ready(&self) -> bool {
        self.lock().is_ready
    }

    /// Whether its host has destroyed it.
    pub(crate) fn is_destroyed(&self) -> bool {
        self.lock().gone
    }

    /// What it does.
    pub(crate) fn run_state(&self) -> RunState {
        self.lock().domain.run_state()
    }

    /// Sends a frame, and waits until the host has taken it and done all that it can do with it.
    pub(crate) fn say(&mut self, frame: &Frame) {
        while self.settled.try_recv().is_ok() {}
        self.nic.send(frame);
        self.settled.recv_deadline(deadline()).expect("the host takes the guest's frame");
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap()
    }
}

/// The test's end of a network.
pub(crate) struct End {
    port: MemoryPort,
    received: VecDeque<Frame>,
}

impl End {
    pub(crate) fn new(port: MemoryPort) -> Self {
        End { port, received: VecDeque::new() }
    }

    pub(crate) fn send(&mut self, frame: &Frame) {
        assert_eq!(self.port.send(std::slice::from_ref(frame)).expect("the other end is there"), 1, "there is room");
    }

    /// The next frame; waits for it.
    pub(crate) fn next(&mut self) -> Frame {
        loop {
            if let Some(frame) = self.poll() {
                return frame;
            }
            self.wait();
        }
    }

    /// Whether nothing is here now.
    pub(crate) fn is_silent(&mut self) -> bool {
        let next = self.poll();
        let silent = next.is_none();
        self.received.extend(next);
        silent
    }

    /// Waits until the other end is closed.
    pub(crate) fn closed(&mut self) {
        let mut frames = Vec::new();
        while self.port.receive(&mut frames).is_ok() {
            self.wait();
        }
    }

    fn poll(&mut self) -> Option<Frame> {
        if self.received.is_empty() {
            let mut frames = Vec::new();
            // The end of a network shows only once all has been received.
            let _ = self.port.receive(&mut frames);
            self.received.extend(frames);
        }
        self.received.pop_front()
    }

    fn wait(&self) {
        let left = deadline().saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: 0 };
        let fd = self.port.poll_fd();
        let ready = poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).unwrap();
        assert_eq!(ready, 1, "nothing came");
    }
}

/// The host's end of a guest's card. Asks to be looked at once more after something was taken, and tells when it is found empty then:
/// by then the net thread has been through its whole turn with that.
struct Watched {
    port: MemoryPort,
    busy: bool,
    quiet: Sender<()>,
    /// Readable while the port is, or this wants to be looked at again.
    either: OwnedFd,
    again: OwnedFd,
}

impl Watched {
    fn new(port: MemoryPort, quiet: Sender<()>) -> io::Result<Watched> {
        let again = eventfd(0, EventfdFlags::NONBLOCK)?;
        let either = epoll::create(epoll::CreateFlags::empty())?;
        for fd in [port.poll_fd(), again.as_fd()] {
            epoll::add(&either, fd, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        }
        Ok(Watched { port, busy: false, quiet, either, again })
    }
}

impl Port for Watched {
    fn poll_fd(&self) -> BorrowedFd<'_> {
        self.either.as_fd()
    }

    fn receive(&mut self, frames: &mut Vec<Frame>) -> io::Result<usize> {
        let count = self.port.receive(frames)?;
        let was_busy = std::mem::replace(&mut self.busy, count > 0);
        match (was_busy, self.busy) {
            (false, true) => drop(rustix::io::write(&self.again, &1_u64.to_ne_bytes())?),
            (true, false) => {
                rustix::io::read(&self.again, &mut [0; 8])?;
                // Nobody listens when the test is over.
                let _ = self.quiet.send(());
            }
            _ => {}
        }
        Ok(count)
    }

    fn send(&mut self, frames: &[Frame]) -> io::Result<usize> {
        self.port.send(frames)
    }
}

/// A host that takes model machines in, and hands their guests to the test.
pub(crate) struct ModelHost {
    hypervisor: &'static str,
    /// Of the next machine.
    disks: Option<Box<dyn SecondaryDisks>>,
    guests: Sender<Guest>,
    lans: Sender<End>,
    settled: Sender<()>,
    /// Something that is given up with the host.
    _held: Option<Box<dyn Send>>,
}

/// The test's view of a [`ModelHost`].
#[derive(Clone)]
pub(crate) struct HostView {
    guests: Receiver<Guest>,
    lans: Receiver<End>,
    settled: Receiver<()>,
}

impl ModelHost {
    pub(crate) fn new(hypervisor: &'static str) -> (Self, HostView) {
        let (guests, guests_out) = unbounded();
        let (lans, lans_out) = unbounded();
        let (settled, settled_out) = unbounded();
        let view = HostView { guests: guests_out, lans: lans_out, settled: settled_out };
        (ModelHost { hypervisor, disks: None, guests, lans, settled, _held: None }, view)
    }
}

impl ModelHost {
    /// The next machine has these disks.
    pub(crate) fn with_disks(self, disks: Option<Box<dyn SecondaryDisks>>) -> Self {
        ModelHost { disks, ..self }
    }

    /// It has something of this host's, which it gives up with itself.
    pub(crate) fn holding(self, held: impl Send + 'static) -> Self {
        ModelHost { _held: Some(Box::new(held)), ..self }
    }
}

impl HostView {
    /// The guest of the next machine that is made.
    pub(crate) fn guest(&self) -> Guest {
        self.guests.recv_deadline(deadline()).expect("a machine is made")
    }

    /// The clients' end of the next network that is opened.
    pub(crate) fn lan(&self) -> End {
        self.lans.recv_deadline(deadline()).expect("the clients' network is opened")
    }

    /// Waits until what is left of a takeover is done.
    pub(crate) fn wait_settled(&self) {
        self.settled.recv_deadline(deadline()).expect("what is left of a takeover is done");
    }

    /// How often that was.
    pub(crate) fn settled(&self) -> usize {
        self.settled.len()
    }

    /// Whether a network was opened: the machine may be seen there.
    pub(crate) fn has_lan(&self) -> bool {
        !self.lans.is_empty()
    }
}

impl Host for ModelHost {
    fn hypervisor(&self) -> &str {
        self.hypervisor
    }

    fn create(&mut self, spec: &DomainSpec) -> Result<Machine, DomainError> {
        let (machine, guest) = machine(spec.clone());
        let _ = self.guests.send(guest);
        Ok(Machine { disks: self.disks.take().map_or(Disks::None, Disks::Secondary), ..machine })
    }

    fn took_over(&mut self, _spec: &DomainSpec) {
        let _ = self.settled.send(());
    }

    fn open_lan(&mut self, _spec: &DomainSpec, _nic: usize) -> Result<Box<dyn Port>, DomainError> {
        let (clients, ours) = pair(CAPACITY).map_err(DomainError::sys("eventfd"))?;
        let _ = self.lans.send(End::new(clients));
        Ok(Box::new(ours))
    }

    /// What it was asked about: and as a fact's value whatever the specification's configuration is.
    fn facts(&mut self, spec: &DomainSpec) -> Result<Vec<(String, String)>, DomainError> {
        let config = String::from_utf8(spec.config.clone()).map_err(|error| DomainError::BadSpec(error.to_string()))?;
        Ok(vec![("name".into(), spec.name.clone()), ("config".into(), config)])
    }
}

/// The session's hand on a machine whose guest the test holds.
struct Shared {
    spec: DomainSpec,
    inside: Arc<Mutex<Inside>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap()
    }

    fn alive(&self) -> Result<MutexGuard<'_, Inside>, DomainError> {
        let inside = self.lock();
        if inside.crashed { Err(DomainError::NotRunning(self.spec.name.clone())) } else { Ok(inside) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if !self.lock().outlives {
            self.destroy();
        }
    }
}

impl Control for Shared {
    fn spec(&self) -> &DomainSpec {
        &self.spec
    }

    fn run_state(&self) -> RunState {
        let inside = self.lock();
        if inside.crashed { RunState::Crashed } else { inside.domain.run_state() }
    }

    fn suspend(&mut self) -> Result<(), DomainError> {
        self.alive()?.domain.suspend()
    }

    fn resume(&mut self) -> Result<(), DomainError> {
        let mut inside = self.alive()?;
        if inside.became.is_some() && inside.stalls == Some(Stall::ForGood) {
            return Err(DomainError::Other("it stalls".into()));
        }
        inside.domain.resume()
    }

    fn make_ready(&mut self) -> Result<(), DomainError> {
        self.alive()?.is_ready = true;
        Ok(())
    }

    fn destroy(&mut self) {
        let mut inside = self.lock();
        inside.gone = true;
        inside.domain.destroy();
    }
}

impl DirtyLog for Shared {
    fn dirty_log_kind(&self) -> &'static str {
        "model"
    }

    fn enable_dirty_log(&mut self) -> Result<(), DomainError> {
        self.lock().domain.enable_dirty_log()
    }

    fn take_dirty(&mut self, into: &mut DirtyBitmap) -> Result<(), DomainError> {
        self.lock().domain.take_dirty(into)
    }

    fn disable_dirty_log(&mut self) -> Result<(), DomainError> {
        self.lock().domain.disable_dirty_log()
    }
}

impl Pages for Shared {
    fn populated(&self, into: &mut DirtyBitmap) -> Result<(), DomainError> {
        self.lock().domain.populated(into)
    }

    fn read_pages(&self, pfns: &[Pfn], out: &mut [u8]) -> Result<(), DomainError> {
        self.lock().domain.read_pages(pfns, out)
    }

    fn write_pages(&mut self, pfns: &[Pfn], data: &[u8]) -> Result<(), DomainError> {
        self.lock().domain.write_pages(pfns, data)
    }
}

impl State for Shared {
    fn stream_header(&self) -> DomainHeader {
        self.lock().domain.stream_header()
    }

    fn save_state(&mut self) -> Result<Vec<StateRecord>, DomainError> {
        self.lock().domain.save_state()
    }

    fn check_state(&self, state: &[StateRecord]) -> Result<(), DomainError> {
        self.lock().domain.check_state(state)
    }

    fn load_state(&mut self, state: &[StateRecord]) -> Result<(), DomainError> {
        let mut inside = self.lock();
        inside.is_ready = false;
        inside.domain.load_state(state)
    }

    fn likeness(&mut self) -> Result<Vec<u8>, DomainError> {
        let runs = self.lock().domain.run_state() == RunState::Running;
        Ok(if runs { b"as it was made here".to_vec() } else { Vec::new() })
    }

    fn become_like(&mut self, likeness: &[u8]) -> Result<Option<String>, DomainError> {
        let mut inside = self.lock();
        assert_eq!(inside.domain.run_state(), RunState::Running);
        inside.became = Some(likeness.to_vec());
        if inside.stalls.is_some() {
            inside.domain.suspend()?;
            return Err(DomainError::Other("it stalls".into()));
        }
        Ok(Some("a byte".into()))
    }
}

/// Flips a byte of a page, behind everybody's back.
pub(crate) fn corrupt(domain: &mut dyn Domain, pfn: Pfn) -> Result<(), DomainError> {
    let mut page = [0; PAGE_SIZE];
    domain.read_pages(&[pfn], &mut page)?;
    page[100] ^= 1;
    domain.write_pages(&[pfn], &page)
}
