//! The world of one seed: two hosts, two connections, clients, a clock; who does something next is chance.

use crate::check::{self, Failure};
use crate::client::{Clients, Wishes};
use crate::faults::{FOR_EVER, Fault, Planned, plan};
use crate::frames::Kind;
use crate::guest::{Nature, PAGES};
use crate::primary::{Captures, PrimaryHost, PrimarySetup};
use crate::primary_net::NetConfig;
use crate::rng::Rng;
use crate::secondary::SecondaryHost;
use crate::visible::Visible;
use crate::wires::{Side, Wires};
use colo_core::checkpoint::PrimaryConfig;
use colo_core::compare::CompareConfig;
use colo_core::domain::Control;
use colo_core::domain::model::ModelDomain;
use colo_core::ids::Epoch;
use colo_core::net::Frame;
use colo_core::peer::Mode;
use colo_core::save::SaveConfig;
use std::time::{Duration, Instant};

/// Between two heartbeats: many turns of everybody.
const HEARTBEAT: Duration = Duration::from_millis(10);
/// Steps within which faults happen.
const FAULT_STEPS: u64 = 9_000;
/// Steps within which everything must have come to an end, faults and all.
const MAX_STEPS: u64 = 60_000;

/// What a run is made from.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub mode: Mode,
    pub seed: u64,
    /// Whether both sides can fence the other.
    pub fenced: bool,
    /// Whether anything goes wrong.
    pub faults: bool,
    pub trace: bool,
}

/// Who can do something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Actor {
    Guest(Side),
    Net(Side),
    Engine(Side),
    StateTo(Side),
    NetTo(Side),
    Clients,
}

const ACTORS: [Actor; 11] = [
    Actor::Guest(Side::Primary),
    Actor::Guest(Side::Secondary),
    Actor::Net(Side::Primary),
    Actor::Net(Side::Secondary),
    Actor::Engine(Side::Primary),
    Actor::Engine(Side::Secondary),
    Actor::StateTo(Side::Primary),
    Actor::StateTo(Side::Secondary),
    Actor::NetTo(Side::Primary),
    Actor::NetTo(Side::Secondary),
    Actor::Clients,
];

pub struct World {
    pub scenario: Scenario,
    pub now: Instant,
    start: Instant,
    pub steps: u64,
    rng: Rng,
    wires: Wires,
    pub primary: Option<PrimaryHost>,
    pub secondary: Option<SecondaryHost>,
    pub clients: Clients,
    pub visible: Visible,
    /// Behind whose port of the switch the guest's address is, once it has sent anything.
    address: Option<Side>,
    /// How often each actor has its turn.
    weights: [usize; ACTORS.len()],
    pub planned: Vec<Planned>,
    faults_left: Vec<Planned>,
    paused: [Option<Instant>; 2],
    /// Somebody who gets no turn for a while: a busy processor, a full queue in the network.
    stalled: Option<(Actor, Instant)>,
    partition_ends: Option<Instant>,
    /// So often fences fail first.
    fence_failures: u32,
    /// The epoch that the secondary stood in when the first fault happened.
    pub epoch_at_fault: Option<Epoch>,
    /// The primary was told before it woke that it is not needed any more.
    told_before_waking: bool,
    pub went_live: bool,
    /// Without a fence both sides came to believe that the other is dead.
    pub two_servers: bool,
    pub takeovers: u32,
}

impl World {
    pub fn new(scenario: Scenario) -> World {
        let mut rng = Rng::new(scenario.seed.wrapping_mul(2).wrapping_add(u64::from(scenario.mode == Mode::Colo)));
        let start = Instant::now();
        let (wires, captures) = (Wires::default(), Captures::default());
        let nature = Nature { scribble: rng.below(300), tick: [0, 0, 3, 20][rng.below(4)], idle: rng.below(500) };
        // The secondary's host may be slower.
        let slower = Nature { idle: [nature.idle, 800][rng.below(2)], ..nature };
        let queue_bytes = [usize::MAX, usize::MAX, usize::MAX, 4000][rng.below(4)];
        let config = || NetConfig {
            mode: scenario.mode,
            heartbeat: HEARTBEAT,
            compare: CompareConfig { timeout: Duration::from_millis(5), ..CompareConfig::default() },
            queue_bytes,
        };
        let domain = ModelDomain::new("simulated", PAGES);
        let verify = rng.per_mille(300);
        let secondary = SecondaryHost::new(
            domain.spec(),
            &config(),
            verify,
            slower,
            wires.clone(),
            captures.clone(),
            &mut rng,
            start,
        );
        let setup = PrimarySetup {
            checkpoints: PrimaryConfig {
                mode: scenario.mode,
                interval: Duration::from_millis(if scenario.mode == Mode::Colo { 30 } else { 4 }),
                ack_timeout: HEARTBEAT * 40,
            },
            save: SaveConfig {
                precopy_dirty_pages: rng.below(6) as u64,
                precopy_rounds: rng.within(1..4) as u32,
                ..SaveConfig::default()
            },
            verify,
            net: config(),
            nature,
            wires: wires.clone(),
            captures,
        };
        let primary = PrimaryHost::new(domain, setup, &mut rng, start);
        let planned = if scenario.faults { plan(&mut rng, FAULT_STEPS, HEARTBEAT) } else { Vec::new() };
        let mut faults_left = planned.clone();
        faults_left.sort_by_key(|planned| std::cmp::Reverse(planned.step));
        World {
            clients: Clients::new(wishes(&mut rng), rng.fork()),
            // Threads and connections of very different speed.
            weights: std::array::from_fn(|_| [1, 4, 8, 16][rng.below(4)]),
            fence_failures: [0, 0, 0, 3][rng.below(4)],
            scenario,
            now: start,
            start,
            steps: 0,
            rng,
            wires,
            primary: Some(primary),
            secondary: Some(secondary),
            visible: Visible::default(),
            address: None,
            planned,
            faults_left,
            paused: [None; 2],
            stalled: None,
            partition_ends: None,
            epoch_at_fault: None,
            told_before_waking: false,
            went_live: false,
            two_servers: false,
            takeovers: 0,
        }
    }

    /// Runs until everything has come to an end.
    pub fn run(&mut self) -> Result<(), Failure> {
        while self.steps < MAX_STEPS {
            self.step().map_err(|what| self.failure(what))?;
            if self.steps % 64 == 0 && self.faults_left.is_empty() && check::is_over(self) {
                return check::at_end(self).map_err(|what| self.failure(what));
            }
        }
        Err(self.failure(format!("no end: {}", check::progress(self))))
    }

    fn failure(&self, what: String) -> Failure {
        Failure { scenario: self.scenario, step: self.steps, what, planned: self.planned.clone() }
    }

    fn step(&mut self) -> Result<(), String> {
        self.steps += 1;
        self.now += Duration::from_micros(self.rng.within(5..60) as u64);
        while self.faults_left.last().is_some_and(|next| next.step <= self.steps) {
            if let Some(Planned { fault, .. }) = self.faults_left.pop() {
                self.happen(fault);
            }
        }
        self.heal();
        self.stall();
        let actor = self.draw_actor();
        self.act(actor)?;
        // What a process has sent is on its way, though it die in the same breath.
        self.show()?;
        self.bury();
        check::always(self)
    }

    fn draw_actor(&mut self) -> Actor {
        let can: Vec<(Actor, usize)> =
            ACTORS.into_iter().zip(self.weights).filter(|(actor, _)| self.can_act(*actor)).collect();
        let mut left = self.rng.below(can.iter().map(|(_, weight)| weight).sum());
        for (actor, weight) in can {
            if left < weight {
                return actor;
            }
            left -= weight;
        }
        Actor::Clients
    }

    fn can_act(&self, actor: Actor) -> bool {
        if self.stalled.is_some_and(|(stalled, _)| stalled == actor) && actor != Actor::Clients {
            return false;
        }
        match actor {
            Actor::Guest(side) | Actor::Net(side) => self.is_awake(side),
            Actor::Engine(Side::Primary) => {
                self.is_awake(Side::Primary) && self.primary.as_ref().is_some_and(|host| host.engine_is_ready(self.now))
            }
            Actor::Engine(Side::Secondary) => {
                self.is_awake(Side::Secondary)
                    && self.secondary.as_ref().is_some_and(|host| host.engine_is_ready(self.now))
            }
            Actor::StateTo(side) => self.wires.state.can_deliver(side),
            Actor::NetTo(side) => self.wires.net.can_deliver(side),
            Actor::Clients => true,
        }
    }

    pub fn is_awake(&self, side: Side) -> bool {
        let exists = match side {
            Side::Primary => self.primary.is_some(),
            Side::Secondary => self.secondary.is_some(),
        };
        exists && self.paused[side as usize].is_none()
    }

    /// Whether a process stands still, and will not go on in this run.
    pub fn sleeps_for_ever(&self, side: Side) -> bool {
        self.paused[side as usize].is_some_and(|end| end > self.now + FOR_EVER / 2)
    }

    fn act(&mut self, actor: Actor) -> Result<(), String> {
        if !matches!(actor, Actor::Guest(_) | Actor::Net(_) | Actor::Clients) {
            self.trace(|| format!("{actor:?}"));
        }
        match actor {
            Actor::Guest(Side::Primary) => self.primary.iter_mut().for_each(PrimaryHost::guest_step),
            Actor::Guest(Side::Secondary) => self.secondary.iter_mut().for_each(SecondaryHost::guest_step),
            Actor::Net(Side::Primary) => self.primary.iter_mut().for_each(|host| host.net_turn(self.now)),
            Actor::Net(Side::Secondary) => self.secondary.iter_mut().for_each(|host| host.net_turn(self.now)),
            Actor::Engine(Side::Primary) => self.primary_engine(),
            Actor::Engine(Side::Secondary) => return self.secondary_engine(),
            Actor::StateTo(side) => self.wires.state.deliver(side, 1 << self.rng.below(18)),
            Actor::NetTo(side) => self.wires.net.deliver(side, 1 << self.rng.below(14)),
            Actor::Clients => {
                if let Some(frame) = self.clients.act(self.now) {
                    self.to_guest(frame);
                }
            }
        }
        Ok(())
    }

    fn primary_engine(&mut self) {
        let Some(mut host) = self.primary.take() else {
            return;
        };
        let before = format!("{:?}", host.doing);
        host.engine_turn(self.now, &mut || self.fence(Side::Secondary));
        if self.scenario.trace && !before.starts_with("Protecting") {
            self.trace(|| format!("primary: {before} -> {:?}", host.doing));
        }
        self.primary = Some(host);
    }

    fn secondary_engine(&mut self) -> Result<(), String> {
        let Some(mut host) = self.secondary.take() else {
            return Ok(());
        };
        let was_serving = host.serves();
        let result = host.engine_turn(self.now, &mut || self.fence(Side::Primary));
        self.trace(|| format!("secondary: {:?} in {}", host.doing, host.epoch()));
        let took_over = !was_serving && host.serves();
        self.secondary = Some(host);
        result?;
        if took_over {
            self.takeovers += 1;
            self.went_live = true;
            if !self.scenario.fenced && self.primary.as_ref().is_some_and(PrimaryHost::went_on_alone) {
                self.two_servers = true;
                return Ok(());
            }
            // A paused process' system goes on receiving.
            let is_told = self.secondary.as_ref().is_some_and(|host| host.net.net.borrow().has_told);
            if is_told && self.paused[Side::Primary as usize].is_some() && self.partition_ends.is_none() {
                self.told_before_waking = true;
                self.wires.net.flush(Side::Primary);
            }
            check::at_takeover(self)?;
        }
        Ok(())
    }

    /// Kills the other side for good, if that works this time.
    fn fence(&mut self, other: Side) -> bool {
        if !self.scenario.fenced {
            return true;
        }
        if self.fence_failures > 0 {
            self.fence_failures -= 1;
            return false;
        }
        self.trace(|| format!("{other:?} is fenced"));
        self.remove(other, false);
        true
    }

    fn happen(&mut self, fault: Fault) {
        self.trace(|| format!("FAULT {fault:?}"));
        self.epoch_at_fault.get_or_insert(self.secondary.as_ref().map_or(Epoch::NONE, SecondaryHost::epoch));
        match fault {
            Fault::Kill(side) => self.remove(side, true),
            Fault::PowerOff(side) => self.remove(side, false),
            Fault::At(Side::Primary, after, mishap) => {
                self.primary.iter().for_each(|host| host.points().choose(after, mishap));
            }
            Fault::At(Side::Secondary, after, mishap) => {
                self.secondary.iter().for_each(|host| host.points().choose(after, mishap));
            }
            Fault::Cut { state, net } => {
                if state {
                    self.wires.state.cut(&mut self.rng);
                }
                if net {
                    self.wires.net.cut(&mut self.rng);
                }
            }
            Fault::Partition { to_primary, to_secondary, lasts } => {
                self.partition_ends = Some(self.now + lasts);
                for link in self.wires.both() {
                    link.set_stuck(Side::Primary, to_primary);
                    link.set_stuck(Side::Secondary, to_secondary);
                }
            }
            Fault::Pause(side, lasts) => self.paused[side as usize] = Some(self.now + lasts),
            Fault::Flip { to, state } => {
                let link = if state { &self.wires.state } else { &self.wires.net };
                if !link.flip(to, &mut self.rng) {
                    // Nothing there to be damaged: tried again with what comes.
                    let (step, fault) = (self.steps + 1, Fault::Flip { to, state });
                    if self.steps < FAULT_STEPS * 2 {
                        self.faults_left.push(Planned { step, fault });
                    }
                }
            }
            Fault::EndProtection => {
                if self.is_awake(Side::Primary) {
                    self.primary.iter_mut().for_each(|host| host.end_protection(self.now));
                }
            }
        }
    }

    /// Ends what does not last for ever.
    fn heal(&mut self) {
        if self.partition_ends.is_some_and(|end| end <= self.now) {
            self.partition_ends = None;
            for link in self.wires.both() {
                Side::BOTH.into_iter().for_each(|side| link.set_stuck(side, false));
            }
        }
        for side in Side::BOTH {
            if self.paused[side as usize].is_some_and(|end| end <= self.now) {
                self.trace(|| format!("{side:?} wakes"));
                self.paused[side as usize] = None;
            }
        }
    }

    /// Now and then somebody gets no turn for a while, shorter than what makes a death.
    fn stall(&mut self) {
        if self.stalled.is_some_and(|(_, end)| end <= self.now) {
            self.stalled = None;
        }
        if self.stalled.is_none() && self.rng.per_mille(2) {
            let lasts = HEARTBEAT * self.rng.within(1..10) as u32 / 10;
            self.stalled = Some((*self.rng.pick(&ACTORS), self.now + lasts));
        }
    }

    /// A process died at a place inside of its work.
    fn bury(&mut self) {
        if let Some(place) = self.primary.as_ref().filter(|host| host.points().is_dead()) {
            let place = place.points().happened();
            self.trace(|| format!("the primary dies: {place:?}"));
            self.remove(Side::Primary, true);
        }
        if let Some(place) = self.secondary.as_ref().filter(|host| host.points().is_dead()) {
            let place = place.points().happened();
            self.trace(|| format!("the secondary dies: {place:?}"));
            self.remove(Side::Secondary, true);
        }
    }

    /// A host is gone, with all that it was; its system may still close its connections.
    fn remove(&mut self, side: Side, closes: bool) {
        let existed = match side {
            Side::Primary => self.primary.take().is_some(),
            Side::Secondary => self.secondary.take().is_some(),
        };
        for link in self.wires.both().map(Clone::clone) {
            match (existed, closes) {
                (true, true) => link.orphan(side),
                (true, false) => link.silence(side, &mut self.rng),
                (false, _) => {}
            }
        }
    }

    /// Takes what the hosts have put on the clients' network.
    fn show(&mut self) -> Result<(), String> {
        let from = |frames: Vec<Frame>, side| frames.into_iter().map(move |frame| (side, frame));
        let mut shown = Vec::new();
        if let Some(host) = &self.primary {
            shown.extend(from(std::mem::take(&mut host.net.net.borrow_mut().lan_out), Side::Primary));
        }
        if let Some(host) = &self.secondary {
            shown.extend(from(std::mem::take(&mut host.net.net.borrow_mut().lan_out), Side::Secondary));
        }
        for (side, frame) in shown {
            self.address = Some(side);
            if side == Side::Primary && self.went_live {
                self.two_servers = true;
                if self.told_before_waking {
                    return Err("the primary served after it could know that the secondary does".into());
                }
            }
            if self.two_servers {
                continue;
            }
            self.visible.show(&frame)?;
            check::shown(self, side)?;
            if let Some(reply) = self.clients.hear(&frame, side == Side::Secondary, self.now)? {
                self.to_guest(reply);
            }
        }
        Ok(())
    }

    /// The switch sends a frame where the guest was last heard of; before that, everywhere.
    fn to_guest(&mut self, frame: Frame) {
        if let Some(host) = self.primary.as_ref().filter(|_| self.address != Some(Side::Secondary)) {
            host.net.net.borrow_mut().lan_in.push_back(frame.clone());
        }
        if let Some(host) = self.secondary.as_ref().filter(|host| host.serves() && self.address != Some(Side::Primary))
        {
            host.net.net.borrow_mut().lan_in.push_back(frame);
        }
    }

    fn trace(&self, what: impl FnOnce() -> String) {
        if self.scenario.trace {
            println!("{:>6} {:>9.3} ms  {}", self.steps, (self.now - self.start).as_secs_f64() * 1e3, what());
        }
    }
}

fn wishes(rng: &mut Rng) -> Wishes {
    let kinds = match rng.below(4) {
        0 => vec![Kind::Plain],
        1 => vec![Kind::Plain, Kind::Plain, Kind::Plain, Kind::Plain, Kind::Memory],
        2 => vec![Kind::Plain, Kind::Plain, Kind::Plain, Kind::Plain, Kind::Entropy, Kind::Moody],
        _ => vec![Kind::Plain, Kind::Memory, Kind::Entropy, Kind::Moody],
    };
    Wishes { asks: rng.within(20..70) as u32, tcp_requests: rng.below(12), kinds }
}
