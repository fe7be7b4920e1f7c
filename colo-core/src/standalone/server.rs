use super::door::Door;
use super::inlet::{Inlet, Room};
use super::judge::Judge;
use super::notifier::Notifier;
use super::outlet::Outlet;
use super::rarely::Rarely;
use super::{Address, BindError, ServerConfig, Totals};
use crate::net::qemu::BufferPool;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// For how long the thread looks for more before it sleeps, when something has come: to be woken costs more than to compare a dozen packets,
/// and the second copy of a packet mostly comes soon after the first. QEMU's threads do as much by default.
const AWAKE: Duration = Duration::from_micros(32);

/// A comparator that stands alone. See the [module](super).
pub struct Server {
    primary: Inlet,
    secondary: Inlet,
    out: Outlet,
    notify: Option<Notifier>,
    judge: Judge,
    /// Frames came in the last turn.
    is_awake: bool,
    addresses: Vec<(&'static str, Address)>,
    totals: Totals,
    differences: Rarely,
    primary_losses: Rarely,
    out_losses: Rarely,
}

/// What the kernel says about the descriptors that were polled.
#[derive(Default)]
struct Ready {
    stop: bool,
    primary: bool,
    secondary: bool,
    out: bool,
    notify: bool,
}

impl Server {
    /// Listens at all addresses; from here on one can connect. Files of Unix sockets are removed when the server is dropped.
    ///
    /// # Errors
    /// When it cannot be listened at one of them; what was made is removed again.
    pub fn bind(config: &ServerConfig) -> Result<Server, BindError> {
        let mut addresses = Vec::new();
        let mut open = |name: &'static str, address: &Address| {
            let door = Door::open(name, address);
            let door = door.map_err(|source| BindError { name, address: address.clone(), source })?;
            addresses.push((name, door.address(address)));
            Ok(door)
        };
        let pool = BufferPool::new(config.compare.max_held_bytes);
        let mut inlet =
            |name, address| Ok(Inlet::new(open(name, address)?, config.vnet_header, &pool, config.hold_back));
        let primary = inlet("primary-in", &config.primary_in)?;
        let secondary = inlet("secondary-in", &config.secondary_in)?;
        let out = Outlet::new(open("out", &config.out)?, config.vnet_header);
        let notify = config.notify.as_ref().map(|address| open("notify", address)).transpose()?.map(Notifier::new);
        let judge = Judge::new(config.compare.clone(), Instant::now());
        Ok(Server {
            primary,
            secondary,
            out,
            notify,
            judge,
            is_awake: false,
            addresses,
            totals: Totals::default(),
            differences: Rarely::default(),
            primary_losses: Rarely::default(),
            out_losses: Rarely::default(),
        })
    }

    /// Where it listens, by the names of the command's options, with the ports that the system chose.
    pub fn addresses(&self) -> &[(&'static str, Address)] {
        &self.addresses
    }

    /// Compares until `stop` is readable (an eventfd, a pipe, a socket; it is not read). Called again, it goes on where it was.
    ///
    /// # Errors
    /// When `stop` cannot be watched or the poll fails. A connection that breaks is no error.
    pub fn run(&mut self, stop: impl AsFd) -> io::Result<()> {
        loop {
            let ready = self.wait(stop.as_fd())?;
            if ready.stop {
                return Ok(());
            }
            self.turn(&ready);
        }
    }

    /// What was done so far.
    pub fn totals(&self) -> Totals {
        let bad_framings = self.notify.as_ref().map_or(0, |notify| notify.bad_framings);
        Totals {
            counters: self.judge.counters(),
            sent_frames: self.out.sent_frames(),
            waiting_frames: self.out.waiting_frames(),
            lost_out_frames: self.out.lost_frames,
            bad_framings: self.primary.bad_framings + self.secondary.bad_framings + bad_framings,
            ..self.totals
        }
    }

    /// Sleeps until there is something to do.
    fn wait(&self, stop: BorrowedFd<'_>) -> io::Result<Ready> {
        let now = Instant::now();
        let is_wanted = |inlet: &Inlet| inlet.room(now) != Room::None || !inlet.door.is_connected();
        let writes = |wants: bool| if wants { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let (out, notify) = (&self.out, self.notify.as_ref());
        let wanted = [
            Some((stop, PollFlags::IN)),
            self.primary.door.poll_fd(now).filter(|_| is_wanted(&self.primary)).map(read),
            self.secondary.door.poll_fd(now).filter(|_| is_wanted(&self.secondary)).map(read),
            out.door.poll_fd(now).map(|fd| (fd, writes(out.wants_write()))),
            notify.and_then(|notify| Some((notify.door.poll_fd(now)?, writes(notify.wants_write())))),
        ];
        let mut fds: Vec<PollFd<'_>> =
            wanted.iter().flatten().map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
        let timeout = self.timeout(now);
        let awake_until = self.is_awake.then(|| now + AWAKE);
        loop {
            let is_awake = awake_until.is_some_and(|until| Instant::now() < until);
            let timeout = if is_awake { Some(&Timespec { tv_sec: 0, tv_nsec: 0 }) } else { timeout.as_ref() };
            match poll(&mut fds, timeout) {
                Ok(0) if is_awake => {}
                Ok(_) | Err(Errno::INTR) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        // Errors and hang-ups count: the next call tells what it is.
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let mut next = |index: usize| wanted[index].is_some() && ready.next().unwrap_or(false);
        Ok(Ready { stop: next(0), primary: next(1), secondary: next(2), out: next(3), notify: next(4) })
    }

    /// How long there is nothing to do by itself; `None` for ever.
    fn timeout(&self, now: Instant) -> Option<Timespec> {
        let inlets = [&self.primary, &self.secondary];
        if inlets.iter().any(|inlet| inlet.has_frame() && inlet.room(now) != Room::None) {
            return Some(Timespec::default());
        }
        let doors = inlets.iter().map(|inlet| &inlet.door).chain([&self.out.door]);
        let doors = doors.chain(self.notify.as_ref().map(|notify| &notify.door));
        let held_back = inlets.iter().filter_map(|inlet| inlet.held_back_until()).filter(|until| now < *until);
        let until = doors.filter_map(Door::opens_at).chain(held_back).chain(self.judge.poll_timeout()).min()?;
        // Rounded up, so that a deadline is not met by spinning towards it.
        let left = until.saturating_duration_since(now) + Duration::from_micros(1);
        Some(Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) })
    }

    fn turn(&mut self, ready: &Ready) {
        let now = Instant::now();
        self.is_awake = ready.primary || ready.secondary;
        // First: what is read after it may be of the next epoch.
        if ready.notify {
            self.hear_toolstack(now);
        }
        self.take_primary(ready.primary, now);
        self.take_secondary(ready.secondary, now);
        self.settle(now);
        if ready.out && !admit(&mut self.out.door, now) {
            self.out.read();
        }
        self.out.write();
        if let Some(notify) = &mut self.notify {
            notify.write();
        }
        self.primary.note_room(self.judge.is_primary_full(), now);
        self.secondary.note_room(self.judge.is_secondary_full(), now);
    }

    fn hear_toolstack(&mut self, now: Instant) {
        let Some(notify) = &mut self.notify else {
            return;
        };
        if !admit(&mut notify.door, now) && notify.read() {
            self.secondary.end_epoch();
            self.totals.checkpoints += 1;
            self.begin_epoch(now);
        }
    }

    fn take_primary(&mut self, is_ready: bool, now: Instant) {
        fetch(&mut self.primary, is_ready, now);
        let is_overdue = self.primary.room(now) == Room::Overdue;
        let mut lost_frames = 0;
        while is_overdue || !self.judge.is_primary_full() {
            let Some((frame, _)) = self.primary.next_frame() else {
                break;
            };
            if self.judge.is_primary_full() {
                lost_frames += 1;
            } else {
                self.judge.handle_primary(frame, now);
            }
        }
        self.out.set_vnet_header_bytes(self.primary.vnet_header_bytes());
        self.totals.lost_primary_frames += lost_frames;
        if let Some(frames) = self.primary_losses.tell(lost_frames, now) {
            tracing::warn!("primary-in: {frames} frames are lost, for too much is held, and no checkpoint comes");
        }
    }

    fn take_secondary(&mut self, is_ready: bool, now: Instant) {
        fetch(&mut self.secondary, is_ready, now);
        let is_overdue = self.secondary.room(now) == Room::Overdue;
        while is_overdue || !self.judge.is_secondary_full() {
            let Some((frame, is_stale)) = self.secondary.next_frame() else {
                break;
            };
            if is_stale {
                self.totals.stale_frames += 1;
            } else {
                self.judge.handle_secondary(frame, now);
            }
        }
    }

    /// Lets leave what may, and asks for a checkpoint where the machines differ; where nobody takes any, all that is held leaves.
    fn settle(&mut self, now: Instant) {
        let lost_before = self.out.lost_frames;
        if let Some(divergence) = self.judge.settle(now, |frame| self.out.push(frame)) {
            self.totals.divergences += 1;
            if let Some(notify) = &mut self.notify {
                tracing::info!("checkpoint needed: {divergence}");
                notify.ask_checkpoint();
            } else {
                if let Some(times) = self.differences.tell(1, now) {
                    tracing::warn!("outputs differ ({times} times): {divergence}; all that was held leaves");
                }
                self.begin_epoch(now);
            }
        }
        if let Some(frames) = self.out_losses.tell(self.out.lost_frames - lost_before, now) {
            tracing::warn!("out: {frames} frames are lost, for too much waits to be sent");
        }
    }

    fn begin_epoch(&mut self, now: Instant) {
        self.judge.begin_epoch(now, |frame| self.out.push_all_the_same(frame));
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("addresses", &self.addresses)
            .field("totals", &self.totals())
            .finish_non_exhaustive()
    }
}

fn read(fd: BorrowedFd<'_>) -> (BorrowedFd<'_>, PollFlags) {
    (fd, PollFlags::IN)
}

/// Takes in a connection where there is none. False when there was one.
fn admit(door: &mut Door, now: Instant) -> bool {
    if door.is_connected() {
        return false;
    }
    door.accept(now);
    true
}

/// Reads what has come, unless there are frames that were not taken yet.
fn fetch(inlet: &mut Inlet, is_ready: bool, now: Instant) {
    if is_ready && !admit(&mut inlet.door, now) && !inlet.has_frame() {
        inlet.read();
    }
}
