//! A simulation of both engines, with everything around them that a session does, over a fake network, with a model guest and
//! clients: deterministic, one seed after the other. Whatever breaks, and whenever, nothing may ever become visible that the
//! survivor could not have said.
//!
//! `COLO_SIM_SEEDS=N` runs N seeds of each kind (a fifth of it where no fence is, or nothing breaks), `COLO_SIM_SEED=X` runs one,
//! and says what happens in it.

#![allow(unreachable_pub, reason = "a test is one crate of its own")]
#![allow(dead_code, reason = "what is kept is printed when a seed fails")]

#[path = "simulation/check.rs"]
mod check;
#[path = "simulation/client.rs"]
mod client;
#[path = "simulation/conditions.rs"]
mod conditions;
#[path = "simulation/faults.rs"]
mod faults;
#[path = "simulation/frames.rs"]
mod frames;
#[path = "simulation/guest.rs"]
mod guest;
#[path = "simulation/guest_tcp.rs"]
mod guest_tcp;
#[path = "simulation/mishaps.rs"]
mod mishaps;
#[path = "simulation/points.rs"]
mod points;
#[path = "simulation/primary.rs"]
mod primary;
#[path = "simulation/primary_net.rs"]
mod primary_net;
#[path = "simulation/rng.rs"]
mod rng;
#[path = "simulation/secondary.rs"]
mod secondary;
#[path = "simulation/secondary_net.rs"]
mod secondary_net;
#[path = "simulation/visible.rs"]
mod visible;
#[path = "simulation/wires.rs"]
mod wires;
#[path = "simulation/world.rs"]
mod world;

use check::Failure;
use colo_core::failover::OnSilence;
use colo_core::peer::Mode;
use world::{Scenario, World};

/// Seeds of each kind, unless told otherwise.
const SEEDS: u64 = 3000;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Runs the seeds, and shows the first few that fail.
fn run(test: &'static str, mode: Mode, on_silence: OnSilence, faults: bool) {
    let one = number("COLO_SIM_SEED");
    let seeds = match one {
        Some(seed) => seed..seed + 1,
        None => {
            0..number("COLO_SIM_SEEDS").unwrap_or(SEEDS) / if on_silence == OnSilence::Fence && faults { 1 } else { 5 }
        }
    };
    let scenario = |seed| Scenario { test, mode, seed, on_silence, faults, trace: one.is_some() };
    let mut takeovers = 0;
    let failures: Vec<Failure> = seeds
        .clone()
        .filter_map(|seed| {
            let mut world = World::new(scenario(seed));
            let result = world.run();
            takeovers += u32::from(world.went_live);
            result.err()
        })
        .collect();
    for failure in failures.iter().take(5) {
        println!("{failure}");
    }
    println!("{mode:?}: {} seeds, {takeovers} takeovers, {} failures", seeds.count(), failures.len());
    assert!(failures.is_empty(), "{} seeds failed", failures.len());
}

#[test]
fn lock_step_survives_everything() {
    run("lock_step_survives_everything", Mode::Colo, OnSilence::Fence, true);
}

#[test]
fn remus_survives_everything() {
    run("remus_survives_everything", Mode::Remus, OnSilence::Fence, true);
}

#[test]
fn lock_step_without_a_fence_never_goes_wrong_before_it_splits() {
    run("lock_step_without_a_fence_never_goes_wrong_before_it_splits", Mode::Colo, OnSilence::TakeOver, true);
}

#[test]
fn remus_without_a_fence_never_goes_wrong_before_it_splits() {
    run("remus_without_a_fence_never_goes_wrong_before_it_splits", Mode::Remus, OnSilence::TakeOver, true);
}

#[test]
fn lock_step_without_a_fence_never_splits_when_silence_is_no_proof() {
    run("lock_step_without_a_fence_never_splits_when_silence_is_no_proof", Mode::Colo, OnSilence::Hold, true);
}

#[test]
fn remus_without_a_fence_never_splits_when_silence_is_no_proof() {
    run("remus_without_a_fence_never_splits_when_silence_is_no_proof", Mode::Remus, OnSilence::Hold, true);
}

#[test]
fn lock_step_goes_on_when_nothing_breaks() {
    run("lock_step_goes_on_when_nothing_breaks", Mode::Colo, OnSilence::Fence, false);
}

#[test]
fn remus_goes_on_when_nothing_breaks() {
    run("remus_goes_on_when_nothing_breaks", Mode::Remus, OnSilence::Fence, false);
}
