//! `colo compare` beside the installed QEMU's `colo-compare`, and beside a program that only forwards.
//!
//! `cargo bench -p colo-benches --bench qemu_compare`
//!
//! Each is a process of its own, started anew for each run, and gets the same frames through the same kind of Unix sockets from one
//! driver on the other processor. They take turns; a figure is the median of its runs. A *packet* is one that the guest has sent: a frame of the
//! primary's, its copy from the secondary, and the release. Processor time is the kernel's account of all threads of the process
//! (`schedstat`). The driver keeps at most 256 packets under way and sends both copies close together: far from the number at which
//! QEMU loses packets, and without what it takes for differences.
//!
//! Latency: one packet at a time, from when the second copy was written until the release was read; the forwarder's from when the
//! primary's was.

use anyhow::{Result, bail};
use colo_benches::Samples;
use colo_benches::comparators::{Contender, Measured, Protocol, Traffic, play_role};
use std::time::Duration;

/// Packets under way.
const UNDER_WAY: u64 = 256;

/// How many of QEMU's nanoseconds `colo compare` may take, and how many times its packets it must do.
const CPU_GOAL: f64 = 0.25;
const RATE_GOAL: f64 = 2.0;

#[derive(Clone, Copy)]
struct Case {
    protocol: Protocol,
    payload_bytes: usize,
    flows: usize,
}

/// How much is measured.
struct Effort {
    runs: usize,
    time: Duration,
    single_packets: u64,
}

fn main() -> Result<()> {
    if play_role()? {
        return Ok(());
    }
    // As criterion does it: without `--bench` this is a test of whether it runs at all.
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let effort = match is_bench {
        true => Effort { runs: 5, time: Duration::from_millis(500), single_packets: 20_000 },
        false => Effort { runs: 1, time: Duration::from_millis(1), single_packets: 100 },
    };
    if Contender::Qemu.start().is_err() {
        bail!("qemu-system-x86_64 with colo-compare is needed (Debian: qemu-system-x86)");
    }
    rates(&effort)?;
    latencies(&effort)
}

fn rates(effort: &Effort) -> Result<()> {
    println!(
        "\n| packets | flows | QEMU, 1/s | colo, 1/s | forwarder, 1/s | colo : QEMU | QEMU's CPU | colo's CPU | forwarder's CPU | colo : QEMU | goal |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|");
    for payload_bytes in [64, 512, 1448] {
        for flows in [1, 100, 10_000] {
            rate(effort, Case { protocol: Protocol::Tcp, payload_bytes, flows })?;
        }
    }
    for flows in [1, 100, 10_000] {
        rate(effort, Case { protocol: Protocol::Udp, payload_bytes: 512, flows })?;
    }
    Ok(())
}

fn rate(effort: &Effort, case: Case) -> Result<()> {
    let mut runs: [Vec<Measured>; 3] = Default::default();
    for _ in 0..effort.runs {
        for (contender, runs) in Contender::ALL.into_iter().zip(&mut runs) {
            let mut traffic = case.traffic();
            let running = contender.start()?;
            // Every flow is known, and every buffer has been used.
            running.run(&mut traffic, case.flows as u64, effort.time / 5, UNDER_WAY)?;
            runs.push(running.run(&mut traffic, 0, effort.time, UNDER_WAY)?);
        }
    }
    let [qemu, colo, forwarder] = runs.each_ref().map(|runs| median(runs, Measured::per_second));
    let [qemu_cpu, colo_cpu, forwarder_cpu] = runs.each_ref().map(|runs| median(runs, Measured::cpu_nanos));
    let goal = colo_cpu <= CPU_GOAL * qemu_cpu && (colo >= RATE_GOAL * qemu || colo >= forwarder);
    println!(
        "| {} | {} | {:.0} | {:.0} | {:.0} | {:.2} | {:.0} ns | {:.0} ns | {:.0} ns | {:.3} | {} |",
        case.name(),
        case.flows,
        qemu,
        colo,
        forwarder,
        colo / qemu,
        qemu_cpu,
        colo_cpu,
        forwarder_cpu,
        colo_cpu / qemu_cpu,
        told(goal),
    );
    Ok(())
}

fn latencies(effort: &Effort) -> Result<()> {
    println!(
        "\n| one packet at a time | QEMU p50 | QEMU p99 | colo p50 | colo p99 | forwarder p50 | forwarder p99 | goal |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|---|");
    for (protocol, payload_bytes) in
        [(Protocol::Tcp, 64), (Protocol::Tcp, 512), (Protocol::Tcp, 1448), (Protocol::Udp, 512)]
    {
        let case = Case { protocol, payload_bytes, flows: 1 };
        let mut samples: [Samples; 3] = Default::default();
        for _ in 0..effort.runs {
            for (contender, samples) in Contender::ALL.into_iter().zip(&mut samples) {
                let (mut traffic, running) = (case.traffic(), contender.start()?);
                let primary_last = contender == Contender::Forwarder;
                running.latencies(&mut traffic, effort.single_packets / 100, primary_last)?;
                let packets = effort.single_packets / effort.runs as u64;
                samples.append(running.latencies(&mut traffic, packets, primary_last)?);
            }
        }
        let [qemu, colo, forwarder] = samples.map(|samples| [50, 99].map(|percent| samples.percentile(percent)));
        let goal = colo[0] <= qemu[0] && colo[1] <= qemu[1];
        println!(
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            case.name(),
            micros(qemu[0]),
            micros(qemu[1]),
            micros(colo[0]),
            micros(colo[1]),
            micros(forwarder[0]),
            micros(forwarder[1]),
            told(goal),
        );
    }
    Ok(())
}

impl Case {
    fn traffic(&self) -> Traffic {
        Traffic::new(self.protocol, self.payload_bytes, self.flows, 2 * UNDER_WAY as usize)
    }

    fn name(&self) -> String {
        let protocol = match self.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        };
        format!("{protocol}, {} B", self.payload_bytes)
    }
}

fn median(runs: &[Measured], figure: impl Fn(&Measured) -> f64) -> f64 {
    let mut figures: Vec<f64> = runs.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn micros(time: Duration) -> String {
    format!("{:.1} µs", time.as_secs_f64() * 1e6)
}

fn told(goal: bool) -> &'static str {
    if goal { "reached" } else { "missed" }
}
