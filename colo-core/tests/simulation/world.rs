//! The world of one seed: two hosts, two connections, clients, a clock; who does something next is chance.

use crate::check::{self, Failure};
use crate::client::Clients;
use crate::conditions::{Conditions, HEARTBEAT};
use crate::faults::{FOR_EVER, Fault, Planned, plan};
use crate::frames::parse;
use crate::guest::PAGES;
use crate::primary::{Captures, PrimaryHost, Setup};
use crate::rng::Rng;
use crate::secondary::SecondaryHost;
use crate::visible::Visible;
use crate::wires::{Side, Wires};
use colo_core::domain::Control;
use colo_core::domain::model::ModelDomain;
use colo_core::failover::OnSilence;
use colo_core::ids::Epoch;
use colo_core::net::Frame;
use colo_core::peer::Mode;
use std::time::{Duration, Instant};

/// Steps within which faults happen.
pub const FAULT_STEPS: u64 = 9_000;
/// Steps within which everything must have come to an end, faults and all: enough for the slowest guest behind the slowest network.
const MAX_STEPS: u64 = 120_000;

/// What a run is made from.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// The test's name, to replay it.
    pub test: &'static str,
    pub mode: Mode,
    pub seed: u64,
    /// Whether both sides can fence the other, or what a secondary does that cannot.
    pub on_silence: OnSilence,
    /// Whether anything goes wrong.
    pub faults: bool,
    pub trace: bool,
}

/// Who can do something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Actor {
    Guest(Side),
    Net(Side),
    Engine(Side),
    StateTo(Side),
    NetTo(Side),
    Clients,
}

pub const ACTORS: [Actor; 11] = [
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
    pub conditions: Conditions,
    pub now: Instant,
    pub start: Instant,
    pub steps: u64,
    pub rng: Rng,
    pub wires: Wires,
    pub primary: Option<PrimaryHost>,
    pub secondary: Option<SecondaryHost>,
    pub clients: Clients,
    pub visible: Visible,
    /// Behind whose port of the switch the guest's address is, once it has sent anything.
    pub address: Option<Side>,
    /// How often each actor has its turn.
    pub weights: [usize; ACTORS.len()],
    pub planned: Vec<Planned>,
    pub faults_left: Vec<Planned>,
    pub paused: [Option<Instant>; 2],
    /// Somebody who gets no turn for a while: a busy processor, a full queue in the network.
    pub stalled: Option<(Actor, Instant)>,
    pub partition_ends: Option<Instant>,
    /// So often fences fail first.
    pub fence_failures: u32,
    /// The epoch that the secondary stood in when the first fault happened.
    pub epoch_at_fault: Option<Epoch>,
    /// The primary was told before it woke that it is not needed any more.
    pub told_before_waking: bool,
    pub went_live: bool,
    /// The primary served in the belief that the secondary is dead.
    pub went_alone: bool,
    /// Without a fence both sides came to believe that the other is dead.
    pub two_servers: bool,
}

impl World {
    pub fn new(scenario: Scenario) -> World {
        let mut rng = Rng::new(scenario.seed.wrapping_mul(2).wrapping_add(u64::from(scenario.mode == Mode::Colo)));
        let now = Instant::now();
        let conditions = Conditions::draw(scenario.mode, &mut rng);
        let domain = ModelDomain::new("simulated", PAGES);
        let (wires, captures) = (Wires::default(), Captures::default());
        let setup = Setup { conditions: &conditions, wires: &wires, captures: &captures, now };
        let secondary = SecondaryHost::new(domain.spec(), scenario.on_silence, &setup, &mut rng);
        let primary = PrimaryHost::new(domain, &setup, &mut rng);
        let planned = if scenario.faults { plan(&mut rng, FAULT_STEPS, HEARTBEAT) } else { Vec::new() };
        let mut faults_left = planned.clone();
        faults_left.sort_by_key(|planned| std::cmp::Reverse(planned.step));
        World {
            scenario,
            clients: Clients::new(conditions.wishes.clone(), rng.fork()),
            fence_failures: conditions.fence_failures,
            conditions,
            now,
            start: now,
            steps: 0,
            // Threads and connections of very different speed.
            weights: std::array::from_fn(|_| [1, 4, 8, 16][rng.below(4)]),
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
            went_alone: false,
            two_servers: false,
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
        self.operate();
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
                    self.send_in(frame);
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
        self.went_alone |= host.went_on_alone();
        // Even if the secondary dies before the primary says a word: what it has shown by then, the primary's guest does not know.
        self.two_servers |= self.went_alone && self.went_live && self.scenario.on_silence == OnSilence::TakeOver;
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
            self.went_live = true;
            if self.scenario.on_silence == OnSilence::TakeOver && self.went_alone {
                self.two_servers = true;
                return Ok(());
            }
            // A paused process' system goes on receiving.
            let is_told = self.secondary.as_ref().is_some_and(|host| host.net.net.borrow().has_told);
            // A word that is damaged on its way tells nothing.
            let is_damaged = |planned: &Planned| planned.fault == Fault::Flip { to: Side::Primary, state: false };
            let is_told = is_told && !self.planned.iter().any(is_damaged);
            if is_told && self.paused[Side::Primary as usize].is_some() && self.partition_ends.is_none() {
                self.told_before_waking = true;
                self.wires.net.flush(Side::Primary);
            }
            check::at_takeover(self)?;
        }
        Ok(())
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
            self.trace(|| format!("{side:?} shows {:?}", parse(&frame)));
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
                self.send_in(reply);
            }
        }
        Ok(())
    }

    /// The switch sends a frame where the guest was last heard of; before that, everywhere.
    fn send_in(&mut self, frame: Frame) {
        self.trace(|| format!("clients say {:?}", parse(&frame)));
        if let Some(host) = self.primary.as_ref().filter(|_| self.address != Some(Side::Secondary)) {
            host.net.net.borrow_mut().lan_in.push_back(frame.clone());
        }
        if let Some(host) = self.secondary.as_ref().filter(|host| host.serves() && self.address != Some(Side::Primary))
        {
            host.net.net.borrow_mut().lan_in.push_back(frame);
        }
    }

    pub fn trace(&self, what: impl FnOnce() -> String) {
        if self.scenario.trace {
            println!("{:>6} {:>9.3} ms  {}", self.steps, (self.now - self.start).as_secs_f64() * 1e3, what());
        }
    }
}
