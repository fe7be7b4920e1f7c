//! A short run of every target, with the stable toolchain.

use colo_fuzz::{TARGETS, short_run};

/// A few seconds for all targets together.
const RUNS: u64 = 1_000_000;

#[test]
fn every_target_for_a_short_time() {
    let (runs, seed) = (number("COLO_FUZZ_RUNS", RUNS), number("COLO_FUZZ_SEED", 1));
    for target in TARGETS {
        println!("target {}: {runs} runs from seed {seed}", target.name);
        short_run(target, runs, seed);
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}
