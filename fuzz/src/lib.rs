//! What reads bytes from outside, fed with bytes of every kind. A target panics when something is wrong with the code.
//!
//! Each target is a function of bytes, with a few good inputs to begin with. They run in two ways:
//!
//! * `cargo test` here: [`short_run`] mutates the good inputs by a seeded generator, the same way each time. Stable toolchain,
//!   a few seconds. `COLO_FUZZ_RUNS` and `COLO_FUZZ_SEED` ask for more, or for others.
//! * libFuzzer, which finds its way by coverage: `cargo fuzz run TARGET` with a nightly toolchain. A stable one does too, with
//!   `RUSTC_BOOTSTRAP=1 cargo fuzz run TARGET --features libfuzzer`.
//!
//! A new target is a module with `fuzz` and `seeds`, a line in [`TARGETS`], and a file in `fuzz_targets/`.

pub mod control;
pub mod disk;
pub mod image;
mod mutate;
pub mod packets;
pub mod peer;
pub mod pv;
pub mod qemu;
pub mod record;
pub mod stream;
pub mod toolstack;

/// One thing that reads bytes from outside.
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Reads them.
    pub fuzz: fn(&[u8]),
    /// Inputs that are right.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "control", fuzz: control::fuzz, seeds: control::seeds },
    Target { name: "disk", fuzz: disk::fuzz, seeds: disk::seeds },
    Target { name: "stream", fuzz: stream::fuzz, seeds: stream::seeds },
    Target { name: "image", fuzz: image::fuzz, seeds: image::seeds },
    Target { name: "peer", fuzz: peer::fuzz, seeds: peer::seeds },
    Target { name: "packets", fuzz: packets::fuzz, seeds: packets::seeds },
    Target { name: "record", fuzz: record::fuzz, seeds: record::seeds },
    Target { name: "pv", fuzz: pv::fuzz, seeds: pv::seeds },
    Target { name: "qemu", fuzz: qemu::fuzz, seeds: qemu::seeds },
    Target { name: "toolstack", fuzz: toolstack::fuzz, seeds: toolstack::seeds },
];

/// Feeds the target with its seeds, and then with `runs` inputs made from them.
///
/// # Panics
/// When the target does; before that it has printed how to do it again.
pub fn short_run(target: &Target, runs: u64, seed: u64) {
    let seeds = (target.seeds)();
    seeds.iter().for_each(|input| (target.fuzz)(input));
    for run in 0..runs {
        // Each run has a generator of its own, so that the failing one can be repeated alone.
        let run_seed = seed.wrapping_add(run);
        let input = mutate::Mutator::new(run_seed).mutate(&seeds);
        let told = TellOnPanic { name: target.name, run_seed };
        (target.fuzz)(&input);
        std::mem::forget(told);
    }
}

/// Says, when it is dropped by a panic, which run that was.
struct TellOnPanic {
    name: &'static str,
    run_seed: u64,
}

impl Drop for TellOnPanic {
    fn drop(&mut self) {
        eprintln!("target {}: again with COLO_FUZZ_RUNS=1 COLO_FUZZ_SEED={}", self.name, self.run_seed);
    }
}
