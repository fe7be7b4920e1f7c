//! How what goes wrong comes about in the world, and ends.

use crate::conditions::HEARTBEAT;
use crate::faults::{Fault, Planned};
use crate::secondary::{Doing, SecondaryHost};
use crate::wires::Side;
use crate::world::{ACTORS, FAULT_STEPS, World};
use colo_core::failover::OnSilence;
use colo_core::ids::Epoch;

impl World {
    /// Kills the other side for good, if that works this time.
    pub fn fence(&mut self, other: Side) -> bool {
        if self.scenario.on_silence != OnSilence::Fence {
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

    /// A fault's time has come.
    pub fn happen(&mut self, fault: Fault) {
        self.trace(|| format!("FAULT {fault:?}"));
        self.epoch_at_fault.get_or_insert(self.secondary.as_ref().map_or(Epoch::NONE, SecondaryHost::takeover_epoch));
        match fault {
            Fault::Kill(side) => self.remove(side, true),
            Fault::PowerOff(side) => self.remove(side, false),
            Fault::At(Side::Primary, after, mishap) => {
                self.primary.iter().for_each(|host| host.points().choose(after, mishap));
            }
            Fault::At(Side::Secondary, after, mishap) => {
                self.secondary.iter().for_each(|host| host.points().choose(after, mishap));
            }
            // A reset from between the hosts looks like the other's death, which is for those who have a fence, or take the risk.
            Fault::Cut { state, net } if self.scenario.on_silence == OnSilence::Hold => {
                for (link, is_cut) in self.wires.both().into_iter().zip([state, net]).filter(|(_, is_cut)| *is_cut) {
                    Side::BOTH.into_iter().for_each(|side| link.set_stuck(side, is_cut));
                }
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
    pub fn heal(&mut self) {
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
    pub fn stall(&mut self) {
        if self.stalled.is_some_and(|(_, end)| end <= self.now) {
            self.stalled = None;
        }
        if self.stalled.is_none() && self.rng.per_mille(self.conditions.stall_chance) {
            let lasts = HEARTBEAT * self.rng.within(1..10) as u32 / 10;
            self.stalled = Some((*self.rng.pick(&ACTORS), self.now + lasts));
        }
    }

    /// Whether an operator who looks may let a held machine serve: the primary has not gone on alone, and is dead, or can be killed since
    /// it sleeps.
    pub fn may_promote(&self) -> bool {
        !self.went_alone && !self.is_awake(Side::Primary)
    }

    /// Now and then the operator looks.
    pub fn operate(&mut self) {
        let is_held = self.secondary.as_ref().is_some_and(|host| matches!(host.doing, Doing::Held));
        if is_held && self.may_promote() && self.rng.per_mille(2) {
            self.trace(|| "the operator promotes".into());
            self.remove(Side::Primary, false);
            self.secondary.iter_mut().for_each(SecondaryHost::promote);
        }
    }

    /// A process died at a place inside of its work.
    pub fn bury(&mut self) {
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
    pub fn remove(&mut self, side: Side, closes: bool) {
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
}
