//! Between two machines and their client: what a session's net threads do, with nothing of the rest.
//!
//! ```text
//! client ──> bad wire ──┬──────────────> primary ─────────────> comparator ──> bad wire ──> client
//!                       └─> rewriter ──> secondary ──> rewriter ──┘
//! ```
//!
//! There is no state to be copied. So a miscompare is counted, what the primary held leaves, and both go on as they are.

use super::ledger::Ledger;
use super::trace::{told, trace};
use super::wire::Wire;
use colo_core::compare::{Comparator, CompareConfig, Counters, Divergence};
use colo_core::ids::Epoch;
use colo_core::net::rewrite::Rewriter;
use colo_core::net::{Frame, Port};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Whom a kernel tells which multicast groups it is in (RFC 9777), at moments that it chooses at random. Nobody listens here.
const MEMBERSHIP_REPORTS: [u8; 6] = [0x33, 0x33, 0, 0, 0, 0x16];

/// What decides on what leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// Everything of the primary leaves at once. The secondary is fed all the same.
    Forward,
    /// The comparator.
    Compare,
}

/// What a harness is to do.
#[derive(Clone)]
pub(crate) struct Orders {
    pub(crate) way: Way,
    pub(crate) compare: CompareConfig,
    /// Of the bad wires; good ones without.
    pub(crate) seed: Option<u64>,
    /// Whether every byte that leaves is looked up.
    pub(crate) keeps_ledger: bool,
}

/// What has happened by now.
#[derive(Clone, Default, Debug)]
pub(crate) struct Report {
    pub(crate) divergences: Vec<Divergence>,
    pub(crate) counters: Option<Counters>,
    /// What left and should not have.
    pub(crate) wrong: Vec<String>,
    /// Bytes of streams, and other frames, that left and were looked up.
    pub(crate) checked: (u64, u64),
    /// Frames that the bad wires lost, and let be overtaken.
    pub(crate) mishaps: (u64, u64),
}

/// A harness at work on a thread of its own; dropped, it ends.
pub(crate) struct Running {
    orders: Sender<Order>,
    waker: UnixStream,
    thread: Option<JoinHandle<()>>,
}

enum Order {
    /// From now on that way.
    Begin(Orders),
    Report(Sender<Report>),
    End,
}

/// The cables to the three.
pub(crate) struct Cables {
    pub(crate) client: Box<dyn Port>,
    pub(crate) primary: Box<dyn Port>,
    pub(crate) secondary: Box<dyn Port>,
}

impl Running {
    /// Begins to forward.
    pub(crate) fn start(cables: Cables) -> Running {
        let (orders, taken) = channel();
        let (waker, woken) = UnixStream::pair().unwrap();
        woken.set_nonblocking(true).unwrap();
        let thread = std::thread::spawn(move || Harness::new(cables).run(&taken, &woken));
        Running { orders, waker, thread: Some(thread) }
    }

    /// Begins anew with these orders.
    pub(crate) fn begin(&self, orders: Orders) {
        self.tell(Order::Begin(orders));
    }

    /// What has happened since.
    pub(crate) fn report(&self) -> Report {
        let (sender, receiver) = channel();
        self.tell(Order::Report(sender));
        receiver.recv().expect("the harness has died")
    }

    fn tell(&self, order: Order) {
        use std::io::Write;
        let _ = self.orders.send(order);
        let _ = (&self.waker).write_all(&[0]);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tell(Order::End);
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.transpose().expect("the harness has died");
        }
    }
}

/// A cable, and what it had no room for.
struct Outlet {
    port: Box<dyn Port>,
    unsent: VecDeque<Frame>,
}

impl Outlet {
    fn new(port: Box<dyn Port>) -> Self {
        Outlet { port, unsent: VecDeque::new() }
    }

    fn receive(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        self.port.receive(&mut frames).unwrap();
        frames.retain(|frame| !frame.starts_with(&MEMBERSHIP_REPORTS));
        frames
    }

    fn flush(&mut self) {
        if !self.unsent.is_empty() {
            let sent = self.port.send(self.unsent.make_contiguous()).unwrap();
            self.unsent.drain(..sent);
        }
    }
}

struct Harness {
    client: Outlet,
    primary: Outlet,
    secondary: Outlet,
    to_servers: Wire,
    to_client: Wire,
    rewriter: Rewriter,
    comparator: Option<Comparator>,
    ledger: Option<Ledger>,
    number: u64,
    divergences: Vec<Divergence>,
}

impl Harness {
    fn new(cables: Cables) -> Self {
        Harness {
            client: Outlet::new(cables.client),
            primary: Outlet::new(cables.primary),
            secondary: Outlet::new(cables.secondary),
            to_servers: Wire::new(None),
            to_client: Wire::new(None),
            rewriter: Rewriter::new(),
            comparator: None,
            ledger: None,
            number: 0,
            divergences: Vec::new(),
        }
    }

    fn run(&mut self, orders: &Receiver<Order>, woken: &UnixStream) {
        use std::io::Read;
        loop {
            self.wait(woken);
            let mut wakes = [0; 16];
            while (&*woken).read(&mut wakes).is_ok_and(|bytes| bytes > 0) {}
            while let Ok(order) = orders.try_recv() {
                match order {
                    Order::Begin(orders) => self.begin(orders),
                    Order::Report(to) => drop(to.send(self.report())),
                    Order::End => return,
                }
            }
            self.turn(Instant::now());
        }
    }

    fn begin(&mut self, orders: Orders) {
        let now = Instant::now();
        let seed = |salt: u64| orders.seed.map(|seed| seed ^ salt);
        (self.to_servers, self.to_client) = (Wire::new(seed(1)), Wire::new(seed(2)));
        self.comparator = (orders.way == Way::Compare).then(|| {
            let mut comparator = Comparator::new(orders.compare);
            comparator.begin_epoch(Epoch::FIRST);
            comparator.secondary_running(now);
            comparator
        });
        self.ledger = orders.keeps_ledger.then(Ledger::default);
        self.divergences.clear();
    }

    fn report(&self) -> Report {
        let ledger = self.ledger.as_ref();
        Report {
            divergences: self.divergences.clone(),
            counters: self.comparator.as_ref().map(Comparator::counters),
            wrong: ledger.map(|ledger| ledger.wrong.clone()).unwrap_or_default(),
            checked: ledger.map(|ledger| (ledger.stream_bytes, ledger.datagram_frames)).unwrap_or_default(),
            mishaps: (self.to_servers.lost + self.to_client.lost, self.to_servers.reordered + self.to_client.reordered),
        }
    }

    /// Waits until there is something to do.
    fn wait(&self, woken: &UnixStream) {
        let flags = |wants_in: bool, wants_out: bool| {
            let wanted = |flag, wants| if wants { flag } else { PollFlags::empty() };
            wanted(PollFlags::IN, wants_in) | wanted(PollFlags::OUT, wants_out)
        };
        let outs = [&self.client, &self.primary, &self.secondary].map(|outlet| !outlet.unsent.is_empty());
        // Whoever does not take what he is given is not asked for more.
        let ins = [!outs[1] && !outs[2], !outs[0] && !self.is_full(), true];
        let mut fds = vec![PollFd::new(woken, PollFlags::IN)];
        for (at, outlet) in [&self.client, &self.primary, &self.secondary].into_iter().enumerate() {
            fds.push(PollFd::from_borrowed_fd(outlet.port.poll_fd(), flags(ins[at], outs[at])));
        }
        let dues =
            [self.to_servers.due(), self.to_client.due(), self.comparator.as_ref().and_then(Comparator::poll_timeout)];
        let timeout = dues.into_iter().flatten().min().map(|due| due.saturating_duration_since(Instant::now()));
        let timespec = |wait: Duration| Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
        poll(&mut fds, timeout.map(timespec).as_ref()).unwrap();
    }

    fn is_full(&self) -> bool {
        self.comparator.as_ref().is_some_and(Comparator::is_full)
    }

    fn turn(&mut self, now: Instant) {
        self.hear_client(now);
        self.hear_secondary(now);
        self.hear_primary(now);
        self.tell_client(now);
        [&mut self.client, &mut self.primary, &mut self.secondary].into_iter().for_each(Outlet::flush);
    }

    fn hear_client(&mut self, now: Instant) {
        let mut arrived = Vec::new();
        if self.primary.unsent.is_empty() && self.secondary.unsent.is_empty() {
            for frame in self.client.receive() {
                self.to_servers.pass(frame, now, &mut arrived);
            }
        }
        self.to_servers.late(now, &mut arrived);
        for frame in arrived {
            trace("to both", &frame);
            if let Some(comparator) = &mut self.comparator {
                comparator.handle_input(0, &frame);
            }
            self.primary.unsent.push_back(frame.clone());
            self.secondary.unsent.extend(self.rewriter.handle_input(0, frame));
        }
    }

    fn hear_secondary(&mut self, now: Instant) {
        for frame in self.secondary.receive() {
            let frame = self.rewriter.handle_output(0, frame);
            while let Some((_, kept)) = self.rewriter.poll_input() {
                self.secondary.unsent.push_back(kept);
            }
            trace("secondary", &frame);
            if let Some(ledger) = &mut self.ledger {
                ledger.secondary(&frame);
            }
            if let Some(comparator) = &mut self.comparator {
                comparator.handle_secondary(0, self.number, frame, now);
                self.number += 1;
            }
        }
    }

    fn hear_primary(&mut self, now: Instant) {
        if !self.client.unsent.is_empty() || self.is_full() {
            return;
        }
        let mut left = Vec::new();
        for frame in self.primary.receive() {
            trace("primary", &frame);
            if let Some(ledger) = &mut self.ledger {
                ledger.primary(&frame);
            }
            match &mut self.comparator {
                Some(comparator) => comparator.handle_primary(0, frame, now),
                None => self.to_client.pass(frame, now, &mut left),
            }
        }
        self.client.unsent.extend(left);
    }

    fn tell_client(&mut self, now: Instant) {
        let mut arrived = Vec::new();
        if let Some(comparator) = &mut self.comparator {
            comparator.handle_timeout(now);
            while let Some(release) = comparator.poll_release() {
                if let Some(ledger) = &mut self.ledger {
                    ledger.leaves(&release.frame);
                }
                self.to_client.pass(release.frame, now, &mut arrived);
            }
            while comparator.poll_consumed().is_some() {}
            if let Some(divergence) = comparator.poll_divergence() {
                told(|| format!("a miscompare: {divergence}"));
                self.divergences.push(divergence);
                self.number = 0;
                for release in comparator.begin_epoch(comparator.epoch().next()) {
                    if let Some(ledger) = &mut self.ledger {
                        ledger.leaves_by_checkpoint(&release.frame);
                    }
                    self.to_client.pass(release.frame, now, &mut arrived);
                }
                if let Some(ledger) = &mut self.ledger {
                    ledger.checkpoint();
                }
                comparator.secondary_running(now);
            }
        }
        self.to_client.late(now, &mut arrived);
        arrived.iter().for_each(|frame| trace("to client", frame));
        self.client.unsent.extend(arrived);
    }
}
