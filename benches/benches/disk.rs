//! A disk over NBD: plain servers beside ours, and QEMU's replication beside ours.
//!
//! `cargo bench -p colo-benches --bench disk`
//!
//! Disks of 1 GiB in memory, fio's engine for NBD, one connection over a Unix socket. The servers take turns; a figure is the median of its runs.
//! Processor time is the kernel's account of all threads of the server, on both hosts where there are two.

use anyhow::Result;
use colo_benches::disks::{
    Alone, Contender, Copies, Folder, Load, Measured, NbdKit, Pattern, Processors, Protected, QemuNbd, QemuReplication,
};
use std::time::Duration;

/// How much is measured.
struct Effort {
    runs: usize,
    time: Duration,
    bytes: u64,
}

/// What is done, how much of it at once, and where.
type Case = (&'static str, Pattern, u32, Processors);

const CASES: [Case; 8] = [
    ("4 KiB random writes, 1 at once", Pattern::RandomWrites, 1, Processors::All),
    ("the same, all on one processor", Pattern::RandomWrites, 1, Processors::One),
    ("4 KiB random writes, 16 at once", Pattern::RandomWrites, 16, Processors::All),
    ("4 KiB random reads, 1 at once", Pattern::RandomReads, 1, Processors::All),
    ("the same, all on one processor", Pattern::RandomReads, 1, Processors::One),
    ("4 KiB random reads, 16 at once", Pattern::RandomReads, 16, Processors::All),
    ("1 MiB writes, 4 at once", Pattern::Writes, 4, Processors::All),
    ("1 MiB reads, 4 at once", Pattern::Reads, 4, Processors::All),
];

fn main() -> Result<()> {
    // As criterion does it: without `--bench` this is a test of whether it runs at all.
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let effort = match is_bench {
        true => Effort { runs: 3, time: Duration::from_secs(3), bytes: 1 << 30 },
        false => Effort { runs: 1, time: Duration::from_millis(200), bytes: 16 << 20 },
    };
    // Or one of the two tables only.
    let asked = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let is_asked = |table: &str| asked.as_ref().is_none_or(|asked| asked == table);
    if is_asked("unprotected") {
        plain(&effort)?;
    }
    if is_asked("protected") {
        replicated(&effort)?;
    }
    Ok(())
}

fn plain(effort: &Effort) -> Result<()> {
    let folder = Folder::new()?;
    let disk = |name: &str| folder.disk(name, effort.bytes);
    let mut servers: [(&str, Box<dyn Contender>); 3] = [
        ("qemu-nbd", Box::new(QemuNbd::start(&folder, &disk("of qemu-nbd")?)?)),
        ("nbdkit file", Box::new(NbdKit::start(&folder, &disk("of nbdkit")?)?)),
        ("colo", Box::new(Alone::start(&folder, &disk("of colo")?)?)),
    ];
    println!("\n| unprotected | server | requests/s | MB/s | CPU for each, us |");
    println!("|---|---|--:|--:|--:|");
    CASES.into_iter().try_for_each(|case| compare(effort, case, &mut servers))
}

fn replicated(effort: &Effort) -> Result<()> {
    let folder = Folder::new()?;
    let disk = |name: &str| folder.disk(name, effort.bytes);
    let mut servers: [(&str, Box<dyn Contender>); 3] = [
        ("QEMU's replication", Box::new(QemuReplication::start(&folder, &disk("q1")?, &disk("q2")?)?)),
        ("colo, protected", Box::new(Protected::start(&folder, &disk("c1")?, &disk("c2")?)?)),
        ("the copies alone", Box::new(Copies::start(&folder, &disk("n1")?, &disk("n2")?)?)),
    ];
    println!("\n| protected | server | requests/s | MB/s | CPU for each, us |");
    println!("|---|---|--:|--:|--:|");
    let writes = CASES.into_iter().filter(|(_, pattern, _, processors)| {
        matches!(pattern, Pattern::RandomWrites | Pattern::Writes) && *processors == Processors::All
    });
    for case in writes {
        // Of short writes it is not the copies that cost.
        let contenders = if case.1 == Pattern::Writes { 3 } else { 2 };
        compare(effort, case, &mut servers[..contenders])?;
    }
    drop((servers, folder));

    let folder = Folder::new()?;
    let disk = |name: &str| folder.disk(name, effort.bytes);
    let mut servers: [(&str, Box<dyn Contender>); 2] = [
        ("QEMU's replication", Box::new(QemuReplication::start(&folder, &disk("q1")?, &disk("q2")?)?)),
        ("colo, protected", Box::new(Protected::without_limit(&folder, &disk("c1")?, &disk("c2")?)?)),
    ];
    checkpoints(effort, &mut servers)
}

fn compare(
    effort: &Effort,
    (name, pattern, depth, processors): Case,
    servers: &mut [(&str, Box<dyn Contender>)],
) -> Result<()> {
    let mut runs: Vec<Vec<Measured>> = servers.iter().map(|_| Vec::new()).collect();
    for _ in 0..effort.runs {
        for ((_, server), runs) in servers.iter_mut().zip(&mut runs) {
            let load = Load { pattern, depth, time: effort.time, bytes: effort.bytes, processors };
            runs.push(load.run(&**server)?);
            server.checkpoint()?;
        }
    }
    for ((server, _), runs) in servers.iter().zip(&runs) {
        let of_all = |of: fn(&Measured) -> f64| median(runs.iter().map(of).collect());
        let (rate, bytes_rate) = (of_all(|run| run.rate), of_all(|run| run.bytes_rate));
        let cpu = of_all(|run| run.cpu.as_secs_f64());
        println!("| {name} | {server} | {rate:.0} | {:.0} | {:.1} |", bytes_rate / 1e6, cpu * 1e6);
    }
    Ok(())
}

/// How long a guest stands still for its disk, with as much written as the disk is large.
fn checkpoints(effort: &Effort, servers: &mut [(&str, Box<dyn Contender>)]) -> Result<()> {
    println!("\n| checkpoint with {} MiB written since the last | ms |", effort.bytes >> 20);
    println!("|---|--:|");
    for (name, server) in servers {
        let mut took = Vec::new();
        for _ in 0..effort.runs {
            let processors = Processors::All;
            let load = Load { pattern: Pattern::Writes, depth: 4, time: effort.time, bytes: effort.bytes, processors };
            load.run(&**server)?;
            took.extend(server.checkpoint()?.map(|took| took.as_secs_f64() * 1e3));
        }
        println!("| {name} | {:.2} |", median(took));
    }
    Ok(())
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures[figures.len() / 2]
}
