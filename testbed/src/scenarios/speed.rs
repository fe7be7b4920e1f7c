//! `colo`'s save and restore beside `xl`'s: in turn, of the same guest, on the same host.

use super::Scenario;
use super::save_restore::DIRTY_PAGES;
use crate::context::Context;
use crate::guest::{Guest, GuestConfig, GuestType, MEMORY_MIB};
use crate::host::{Host, HostConfig};
use crate::transfer::{Tool, Way};
use anyhow::{Context as _, Result, ensure};
use std::time::Duration;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "speed",
    about: "one host: colo's save and restore beside xl's, five rounds in turn, for guests of each type, the smallest and larger",
    limit: Duration::from_secs(3600),
    needs_root: false,
    run,
};

const ROUNDS: usize = 5;
/// Of the smallest guest half of the time is what both have in common: hotplug scripts, the start of programs, the end of a domain.
const SIZES_MIB: [u32; 2] = [MEMORY_MIB, 512];
/// Of `xl`'s time, for a save and for a restore.
const GOALS: [f64; 2] = [0.70, 1.00];

fn run(context: &Context) -> Result<()> {
    // The largest image lies in dom0's memory, beside what else does.
    let host = Host::boot(context, HostConfig { memory_mib: 2560, dom0_mib: 1536, ..HostConfig::alone() })?;
    let mut summary = Vec::new();
    for kind in context.guest_types() {
        for memory_mib in SIZES_MIB {
            context.say(&format!("a {} guest of {memory_mib} MiB", kind.name()));
            let config = GuestConfig { memory_mib, dirty_pages: DIRTY_PAGES, ..GuestConfig::new(kind) };
            let (guest, _) = host.guest(&config)?;
            guest.check(0)?;
            let times = measure(&host, &guest)?;
            guest.wait_rounds(1)?;
            guest.destroy()?;
            summary.extend(report(kind, memory_mib, &times));
        }
    }
    println!();
    summary.iter().for_each(|line| println!("{line}"));
    Ok(())
}

/// Seconds of each round.
#[derive(Default)]
struct Times {
    save: Vec<f64>,
    restore: Vec<f64>,
}

/// In turn: whatever else this machine does meanwhile hits both. The first of `xl`, and of `colo`.
fn measure(host: &Host, guest: &Guest<'_>) -> Result<[Times; 2]> {
    let mut times = [Times::default(), Times::default()];
    let image = "/tmp/speed.image";
    for round in 0..ROUNDS {
        for (tool, times) in [Tool::Xl, Tool::Colo].into_iter().zip(&mut times) {
            let what = || format!("{}: {}, round {}", guest.name(), tool.name(), round + 1);
            let way = Way::plain(tool, tool);
            let (save, restore) = (way.save(guest.name(), image), way.restore(image));
            times.save.push(seconds(host, &save).with_context(what)?);
            let counted = guest.counter()?;
            times.restore.push(seconds(host, &restore).with_context(what)?);
            guest.check(counted).with_context(what)?;
            host.sh(&format!("rm {image}"))?;
        }
    }
    Ok(times)
}

/// How long a command takes by dom0's clock, in a shell that is there already.
fn seconds(host: &Host, command: &str) -> Result<f64> {
    let timed = format!("begun=$EPOCHREALTIME; {command} >&2; code=$?; echo $begun $EPOCHREALTIME; exit $code");
    let said = host.sh(&timed)?.stdout;
    let times: Vec<f64> = said.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    ensure!(times.len() == 2, "bash does not tell the time: {said:?}");
    Ok(times[1] - times[0])
}

/// Prints it all, and returns the lines that tell most.
fn report(kind: GuestType, memory_mib: u32, [xl, colo]: &[Times; 2]) -> Vec<String> {
    let pairs = [("save", &xl.save, &colo.save), ("restore", &xl.restore, &colo.restore)];
    let guest = format!("{:4} {memory_mib} MiB", kind.name());
    let mut summary = Vec::new();
    for ((what, xl, colo), goal) in pairs.into_iter().zip(GOALS) {
        for (tool, values) in [("xl", xl), ("colo", colo)] {
            let all: Vec<String> = values.iter().map(|value| format!("{value:6.3}")).collect();
            println!("{guest} {tool:4} {what:7} {}  median {:6.3} s", all.join(" "), median(values));
        }
        let ratio = median(colo) / median(xl);
        let verdict = if ratio <= goal { "reached" } else { "not reached" };
        let line = format!("{guest} {what:7} colo/xl {ratio:5.2}  goal {goal:4.2}: {verdict}");
        println!("{line}");
        summary.push(line);
    }
    summary
}

/// The one in the middle, or the mean of the two that are.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[half],
        _ => (sorted[half - 1] + sorted[half]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_some_numbers() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn what_is_reached() {
        let times = |save: f64, restore: f64| Times { save: vec![save; 5], restore: vec![restore; 5] };
        let lines = report(GuestType::Pv, 512, &[times(2.0, 2.0), times(1.4, 2.2)]);
        assert_eq!(lines[0], "pv   512 MiB save    colo/xl  0.70  goal 0.70: reached");
        assert_eq!(lines[1], "pv   512 MiB restore colo/xl  1.10  goal 1.00: not reached");
    }
}
