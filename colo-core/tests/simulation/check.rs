//! What must hold: after every step, at a takeover, and at the end.

use crate::faults::{Fault, Planned};
use crate::frames::ASK_FLOWS;
use crate::guest::Memory;
use crate::points::Mishap;
use crate::primary::{self, PrimaryHost};
use crate::secondary::{self, SecondaryHost};
use crate::wires::Side;
use crate::world::{Scenario, World};
use colo_core::failover::OnSilence;
use colo_core::ids::Epoch;
use colo_core::peer::Mode;
use std::collections::BTreeSet;
use std::fmt;

/// A seed that failed.
pub struct Failure {
    pub scenario: Scenario,
    pub step: u64,
    pub what: String,
    pub planned: Vec<Planned>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Scenario { test, mode, seed, on_silence, .. } = self.scenario;
        writeln!(f, "seed {seed} ({mode:?}, on silence {on_silence:?}), step {}: {}", self.step, self.what)?;
        writeln!(f, "  with {:?}", self.planned)?;
        write!(f, "  replay: COLO_SIM_SEED={seed} cargo test -p colo-core --test simulation {test} -- --nocapture")
    }
}

/// A frame has become visible: the other side, too, must be able to have said it, as long as that may take over.
pub fn shown(world: &World, by: Side) -> Result<(), String> {
    match by {
        Side::Primary => check_secondary(world),
        Side::Secondary => Ok(()),
    }
}

/// After every step.
pub fn always(world: &World) -> Result<(), String> {
    let primary = world.primary.as_ref().is_some_and(PrimaryHost::serves);
    let secondary = world.secondary.as_ref().is_some_and(SecondaryHost::serves);
    if world.scenario.on_silence != OnSilence::TakeOver && primary && secondary {
        return Err("two servers, and nobody had accepted that".into());
    }
    match &world.secondary {
        Some(host) if matches!(host.doing, secondary::Doing::Applied) => check_secondary(world),
        _ => Ok(()),
    }
}

/// The secondary goes live: it is what it was a moment ago.
pub fn at_takeover(world: &World) -> Result<(), String> {
    let Some(host) = &world.secondary else {
        return Ok(());
    };
    asked_once(Memory(host.domain.ram()))?;
    world.visible.check(Memory(host.domain.ram())).map_err(|what| format!("at the takeover: {what}"))
}

/// No request reaches a guest twice: clients ask once by UDP, and no network of theirs repeats it.
fn asked_once(memory: Memory<'_>) -> Result<(), String> {
    for flow in 0..ASK_FLOWS {
        let mut seen = BTreeSet::new();
        let answers = (0..memory.answer_count(flow)).filter_map(|index| memory.answer(flow, index));
        for answer in answers {
            if !seen.insert(answer.id) {
                return Err(format!("flow {flow}: request {} was answered twice", answer.id));
            }
        }
    }
    Ok(())
}

/// Whether nothing is left to happen.
pub fn is_over(world: &World) -> bool {
    if world.two_servers {
        return true;
    }
    let Some(server) = server(world) else {
        return !can_come(world);
    };
    let is_settled = match &world.primary {
        Some(_) if world.sleeps_for_ever(Side::Primary) => true,
        Some(_) if !world.is_awake(Side::Primary) => false,
        Some(host) => match host.doing {
            primary::Doing::Protecting { .. } => host.is_protected() && world.secondary.is_some(),
            primary::Doing::Unprotected | primary::Doing::Ended(_) => true,
            primary::Doing::Judging { .. } | primary::Doing::Parting { .. } | primary::Doing::Fencing { .. } => false,
        },
        None => true,
    };
    is_settled && world.clients.are_done() && complete(world, server).is_ok()
}

/// What is missing to the end, for the message.
pub fn progress(world: &World) -> String {
    let primary = world.primary.as_ref().map(|host| format!("{:?}, {} staged", host.doing, host.staged()));
    let secondary = world.secondary.as_ref().map(|host| format!("{:?}, {}", host.doing, host.epoch()));
    let missing = server(world).map(|server| complete(world, server));
    let done = world.clients.are_done();
    format!("primary {primary:?}; secondary {secondary:?}; clients done: {done}; missing: {missing:?}")
}

/// At the end.
pub fn at_end(world: &World) -> Result<(), String> {
    if world.two_servers {
        return Ok(());
    }
    let Some(server) = server(world) else {
        return if may_be_alone(world) { Ok(()) } else { Err(format!("nobody serves: {}", progress(world))) };
    };
    world.visible.check(server).map_err(|what| format!("at the end: {what}"))?;
    asked_once(server)?;
    complete(world, server)?;
    if world.planned.is_empty() {
        check_undisturbed(world)?;
    }
    Ok(())
}

/// Nothing went wrong: nothing may look as if it had.
fn check_undisturbed(world: &World) -> Result<(), String> {
    let Some(primary) = world.primary.as_ref().filter(|host| matches!(host.doing, primary::Doing::Protecting { .. }))
    else {
        return Err(format!("protection ended without a reason: {}", progress(world)));
    };
    match &primary.miscompare {
        Some(what) if world.conditions.are_deterministic() => {
            Err(format!("a miscompare of two guests that say the same: {what}"))
        }
        _ => Ok(()),
    }
}

/// Whether one fault was enough to leave nobody, by right.
fn may_be_alone(world: &World) -> bool {
    let protected = world.epoch_at_fault.is_some_and(|epoch| epoch != Epoch::NONE);
    match world.planned[..] {
        [Planned { fault, .. }] => {
            let of_primary = matches!(
                fault,
                Fault::Kill(Side::Primary) | Fault::PowerOff(Side::Primary) | Fault::At(Side::Primary, ..)
            ) || matches!(fault, Fault::Pause(Side::Primary, _));
            let of_network = matches!(fault, Fault::Partition { .. } | Fault::Cut { .. });
            !protected && (of_primary || of_network) && !matches!(fault, Fault::At(_, _, Mishap::Failure))
        }
        [] => false,
        _ => true,
    }
}

/// Whether somebody may still begin to serve, or a sleeper wake.
fn can_come(world: &World) -> bool {
    match &world.secondary {
        Some(host) if matches!(host.doing, secondary::Doing::Held) && !world.may_promote() => {
            world.primary.as_ref().is_some_and(PrimaryHost::serves) && world.is_awake(Side::Primary)
        }
        Some(host) if !matches!(host.doing, secondary::Doing::Ended(_)) => world.is_awake(Side::Secondary),
        _ => world.primary.as_ref().is_some_and(PrimaryHost::serves) && world.is_awake(Side::Primary),
    }
}

/// The memory of the guest that serves, if only one does and its process is awake.
fn server(world: &World) -> Option<Memory<'_>> {
    if let Some(host) = world.secondary.as_ref().filter(|host| host.serves()) {
        return world.is_awake(Side::Secondary).then(|| Memory(host.domain.ram()));
    }
    let host = world.primary.as_ref().filter(|host| host.serves())?;
    world.is_awake(Side::Primary).then(|| Memory(host.domain.ram()))
}

/// Whether clients have all that was said to them.
fn complete(world: &World, server: Memory<'_>) -> Result<(), String> {
    world.visible.check_complete(server)?;
    for (flow, connection) in world.clients.connections.iter().enumerate() {
        let said = server.stream(flow).unwrap_or_default();
        if connection.heard() != said {
            return Err(format!("connection {flow}: {} bytes heard of {}", connection.heard().len(), said.len()));
        }
    }
    Ok(())
}

/// Whether the secondary's guest could have said all that clients were shown, if it is the one to take over.
fn check_secondary(world: &World) -> Result<(), String> {
    let Some(host) = &world.secondary else {
        return Ok(());
    };
    let is_alone = world
        .primary
        .as_ref()
        .is_none_or(|host| matches!(host.doing, primary::Doing::Unprotected | primary::Doing::Ended(_)));
    if is_alone || host.takeover_epoch() == Epoch::NONE || !host.is_settled() || host.serves() {
        return Ok(());
    }
    let what = match world.scenario.mode {
        Mode::Colo => "the secondary's guest",
        Mode::Remus => "the last checkpoint",
    };
    world.visible.check(Memory(host.domain.ram())).map_err(|error| format!("{what} would not do: {error}"))
}
