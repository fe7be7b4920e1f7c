//! The secondary's host: its guest, and the engine thread in the order of `session/secondary.rs`.

use crate::guest::{Guest, Nature};
use crate::points::Points;
use crate::primary::{Captures, Setup, WATCH_BEATS};
use crate::rng::Rng;
use crate::secondary_net::{Net, NetHandle};
use crate::wires::{Side, Wires};
use colo_core::checkpoint::Secondary;
use colo_core::domain::model::ModelDomain;
use colo_core::domain::{Control, DirtyLog, Domain, DomainSpec, StateRecord};
use colo_core::failover::{Detector, Loss, OnSilence, SecondaryVerdict, secondary_verdict};
use colo_core::ids::{Epoch, Page, Pfn};
use colo_core::peer::{GoodbyeReason, Message, Mode, PeerError};
use colo_core::restore::layers::Verified;
use colo_core::restore::{ColoRestore, Flushed, RemusRestore, RestoreCallbacks};
use colo_core::save::CallbackError;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// What the engine thread is doing.
#[derive(Debug)]
pub enum Doing {
    Following,
    /// An epoch is staged, and not even acknowledged.
    Staged,
    /// It is acknowledged, and not applied.
    Acknowledged,
    /// It is applied, and that is not reported.
    Applied,
    /// The state channel broke; waiting for what the net thread makes of it.
    Judging {
        until: Instant,
        why: String,
    },
    /// The primary is silent, and may live: waiting for the operator.
    Held,
    /// The primary must be fenced before this side serves.
    Fencing,
    Serving,
    Ended(String),
}

pub struct SecondaryHost {
    pub domain: ModelDomain,
    pub net: NetHandle,
    pub doing: Doing,
    nature: Nature,
    points: Points,
    entropy: Rng,
    wires: Wires,
    engine: Secondary<NetHandle>,
    callbacks: Box<dyn RestoreCallbacks>,
    captures: Captures,
    heartbeat: Duration,
    on_silence: OnSilence,
    /// How long the first epoch takes to be applied, and when that is over.
    rehearsal: Duration,
    applies_at: Instant,
}

impl SecondaryHost {
    pub fn new(spec: &DomainSpec, on_silence: OnSilence, setup: &Setup<'_>, rng: &mut Rng) -> SecondaryHost {
        let Setup { conditions, wires, captures, now } = *setup;
        let points = Points::default();
        let net = Rc::new(RefCell::new(Net::new(&conditions.net, wires.clone(), rng.fork(), now)));
        let net = NetHandle { net, points: points.clone() };
        let inner: Box<dyn RestoreCallbacks> = match conditions.net.mode {
            Mode::Colo => Box::new(ColoRestore::default()),
            Mode::Remus => Box::new(RemusRestore::default()),
        };
        let watched = Watched { inner, points: points.clone() };
        let callbacks: Box<dyn RestoreCallbacks> =
            if conditions.verify { Box::new(Verified::new(watched)) } else { Box::new(watched) };
        SecondaryHost {
            domain: ModelDomain::from_spec(spec.clone()),
            engine: Secondary::new(spec, net.clone()).with_rehearsal(conditions.net.rehearse),
            net,
            doing: Doing::Following,
            nature: conditions.secondary_nature,
            points,
            entropy: rng.fork(),
            wires: wires.clone(),
            callbacks,
            captures: captures.clone(),
            heartbeat: conditions.net.heartbeat,
            on_silence,
            rehearsal: if conditions.net.rehearse { conditions.rehearsal } else { Duration::ZERO },
            applies_at: now,
        }
    }

    pub fn guest_step(&mut self) {
        Guest(&mut self.domain).step(&self.nature, &mut self.entropy);
    }

    pub fn net_turn(&mut self, now: Instant) {
        self.net.net.borrow_mut().turn(now, &mut self.domain);
    }

    /// Whether clients can be answered by this guest.
    pub fn serves(&self) -> bool {
        self.net.net.borrow().live && !matches!(self.doing, Doing::Ended(_))
    }

    /// The epoch that the guest stands in.
    pub fn epoch(&self) -> Epoch {
        self.engine.epoch()
    }

    /// The epoch that it could take over from.
    pub fn takeover_epoch(&self) -> Epoch {
        self.engine.takeover_epoch()
    }

    /// The operator says that the primary is dead.
    pub fn promote(&mut self) {
        if matches!(self.doing, Doing::Held) {
            self.doing = Doing::Fencing;
        }
    }

    /// Whether the guest is what it would be, were this side to take over now.
    pub fn is_settled(&self) -> bool {
        matches!(
            self.doing,
            Doing::Following | Doing::Applied | Doing::Judging { .. } | Doing::Held | Doing::Fencing | Doing::Serving
        )
    }

    pub fn points(&self) -> &Points {
        &self.points
    }

    pub fn engine_is_ready(&self, now: Instant) -> bool {
        let alerted = self.net.net.borrow().lost_alert.is_some();
        match &self.doing {
            Doing::Following => alerted || self.wires.state.is_readable(Side::Secondary),
            Doing::Judging { until, .. } => alerted || *until <= now,
            Doing::Acknowledged => self.applies_at <= now,
            Doing::Staged | Doing::Applied | Doing::Fencing => true,
            Doing::Held | Doing::Serving | Doing::Ended(_) => false,
        }
    }

    /// The engine thread does one thing. `fence` fences the primary, when it can.
    ///
    /// Fails when the guest is not what the primary's was.
    pub fn engine_turn(&mut self, now: Instant, fence: &mut dyn FnMut() -> bool) -> Result<(), String> {
        match &self.doing {
            Doing::Following => self.follow(now),
            Doing::Staged => {
                self.answer();
                self.doing = Doing::Acknowledged;
                self.applies_at = if self.engine.epoch() == Epoch::NONE { now + self.rehearsal } else { now };
            }
            Doing::Acknowledged => match self.engine.apply(&mut self.domain, &mut *self.callbacks) {
                Ok(_) => {
                    self.doing = Doing::Applied;
                    return self.check_equal();
                }
                Err(error) => self.cannot(error.to_string()),
            },
            Doing::Applied => {
                self.answer();
                self.doing = Doing::Following;
            }
            Doing::Judging { until, why } => {
                let (until, why) = (*until, why.clone());
                let loss = self.net.net.borrow_mut().lost_alert.take();
                match loss {
                    Some(loss) => self.lost(&loss),
                    None if until <= now => self.cannot(format!("the state channel is gone: {why}")),
                    None => {}
                }
            }
            Doing::Fencing => {
                if fence() {
                    self.goodbye_net(GoodbyeReason::Promoted);
                    self.domain.resume().map_err(|error| error.to_string())?;
                    self.net.net.borrow_mut().go_live();
                    let _ = self.domain.disable_dirty_log();
                    self.doing = Doing::Serving;
                }
            }
            Doing::Held | Doing::Serving | Doing::Ended(_) => {}
        }
        Ok(())
    }

    fn follow(&mut self, now: Instant) {
        let message = match self.wires.state.receive(Side::Secondary) {
            Ok(Some(Message::Goodbye(reason))) => return self.lost(&Loss::Goodbye(reason)),
            Ok(Some(message)) => message,
            Ok(None) => {
                let loss = self.net.net.borrow_mut().lost_alert.take();
                return loss.map_or((), |loss| self.lost(&loss));
            }
            Err(error @ (PeerError::Closed | PeerError::Truncated { .. } | PeerError::Io { .. })) => {
                let until = now + self.heartbeat * (Detector::MISSED + 1 + WATCH_BEATS);
                self.doing = Doing::Judging { until, why: error.to_string() };
                return;
            }
            Err(error) => return self.cannot(error.to_string()),
        };
        match self.engine.handle_message(message, &mut self.domain, &mut *self.callbacks) {
            Ok(()) if self.engine.is_staged() => self.doing = Doing::Staged,
            Ok(()) => self.answer(),
            Err(error) => self.cannot(error.to_string()),
        }
    }

    fn answer(&mut self) {
        while let Some(message) = self.engine.poll_message() {
            let _ = self.wires.state.send(Side::Secondary, &message);
        }
    }

    fn lost(&mut self, loss: &Loss) {
        match secondary_verdict(loss, self.engine.takeover_epoch(), self.on_silence) {
            SecondaryVerdict::End(why) => self.cannot(why),
            SecondaryVerdict::Hold(_) => {
                self.net.net.borrow_mut().frozen = true;
                let _ = self.domain.suspend();
                self.doing = Doing::Held;
            }
            SecondaryVerdict::TakeOver => self.doing = Doing::Fencing,
        }
    }

    fn cannot(&mut self, why: String) {
        if self.points.is_dead() {
            return;
        }
        self.domain.destroy();
        self.goodbye_net(GoodbyeReason::Failed(why.clone()));
        self.doing = Doing::Ended(why);
    }

    fn goodbye_net(&mut self, reason: GoodbyeReason) {
        self.net.net.borrow_mut().goodbye(reason.clone());
        let _ = self.wires.state.send(Side::Secondary, &Message::Goodbye(reason));
        self.wires.state.close(Side::Secondary);
    }

    fn check_equal(&self) -> Result<(), String> {
        let captures = self.captures.borrow();
        let epoch = self.epoch();
        let (ram, registers) = captures.get(&epoch).ok_or(format!("{epoch} was never captured"))?;
        if let Some(at) = ram.iter().zip(self.domain.ram()).position(|(a, b)| a != b) {
            return Err(format!("{epoch}: the guests' memories differ at {at:#x} after it was applied"));
        }
        if *registers != self.domain.registers {
            return Err(format!("{epoch}: the guests' vCPUs differ after it was applied"));
        }
        Ok(())
    }
}

/// A restore whose every step is a place where things can go wrong.
struct Watched<C> {
    inner: C,
    points: Points,
}

impl<C: RestoreCallbacks> RestoreCallbacks for Watched<C> {
    fn init(&mut self, spec: &DomainSpec) -> Result<(), CallbackError> {
        self.points.reach("secondary: at the headers")?;
        self.inner.init(spec)
    }

    fn get_page<'a>(&'a mut self, domain: &'a mut dyn Domain, pfn: Pfn) -> Result<&'a mut Page, CallbackError> {
        if pfn.0 % 8 == 0 {
            self.points.reach("secondary: at a page")?;
        }
        self.inner.get_page(domain, pfn)
    }

    fn record(&mut self, kind: u32, body: &[u8]) -> Result<(), CallbackError> {
        self.points.reach("secondary: at a record")?;
        self.inner.record(kind, body)
    }

    fn flush_memory(&mut self, domain: &mut dyn Domain) -> Result<Flushed, CallbackError> {
        self.points.reach("secondary: before the flush")?;
        self.inner.flush_memory(domain)
    }

    fn finish_restore(&mut self, domain: &mut dyn Domain, state: &[StateRecord]) -> Result<(), CallbackError> {
        self.points.reach("secondary: half-way through the flush")?;
        self.inner.finish_restore(domain, state)?;
        Ok(self.points.reach("secondary: resumed")?)
    }
}
