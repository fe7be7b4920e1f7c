//! What a client notices of protection: latency, the outage when the primary's host dies; and what the secondary's host pays for
//! it in memory.
//!
//! `cargo bench -p colo-benches --bench latency`
//!
//! Primary and secondary are processes of their own, protected with the defaults (Remus: every 20 ms). The client has one connection
//! through the switch, which is in this process, and thinks between two requests. Native, COLO and Remus take turns.

use anyhow::{Context, Result};
use colo_benches::hosts::{Lab, Protection, play_role};
use colo_benches::{Samples, millis};
use colo_core::peer::Mode;
use colo_examples::http;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// The default of `colo primary`.
const RAM_BYTES: u64 = 64 << 20;
/// Large enough for what does not grow with the guest to count little.
const LARGE_RAM_BYTES: u64 = 256 << 20;
/// Between an answer and the next request: no queue ever forms.
const THINK: Duration = Duration::from_millis(5);
/// Between the requests that look for the outage.
const PROBE: Duration = Duration::from_millis(1);

/// How much is measured.
struct Effort {
    turns: usize,
    requests: usize,
    failovers: usize,
}

fn main() -> Result<()> {
    if play_role()? {
        return Ok(());
    }
    // As criterion does it: without `--bench` this is a test of whether it runs at all.
    let effort = if std::env::args().any(|argument| argument == "--bench") {
        Effort { turns: 5, requests: 200, failovers: 10 }
    } else {
        Effort { turns: 1, requests: 5, failovers: 1 }
    };
    latencies(&effort)?;
    outages(&effort)?;
    memory()
}

fn latencies(effort: &Effort) -> Result<()> {
    let mut rows: Vec<(Protection, Samples)> = Protection::ALL.map(|kind| (kind, Samples::default())).into();
    for _ in 0..effort.turns {
        for (protection, samples) in &mut rows {
            let lab = Lab::start(*protection, RAM_BYTES)?;
            let mut client = client(&lab)?;
            for _ in 0..effort.requests {
                std::thread::sleep(THINK);
                let began = Instant::now();
                ask(&mut client)?;
                samples.add(began.elapsed());
            }
        }
    }
    let native = rows[0].1.percentile(50);
    println!("\n| `GET /kv/x` | requests | p50 | p99 | p50 above native |");
    println!("|---|--:|--:|--:|--:|");
    for (protection, samples) in &rows {
        println!(
            "| {} | {} | {} ms | {} ms | {} ms |",
            protection.name(),
            samples.count(),
            millis(samples.percentile(50)),
            millis(samples.percentile(99)),
            millis(samples.percentile(50).saturating_sub(native)),
        );
    }
    Ok(())
}

/// The longest time between two answers, of a client whose machine's primary is killed meanwhile.
fn outages(effort: &Effort) -> Result<()> {
    println!("\n| primary killed | times | outage p50 | longest |");
    println!("|---|--:|--:|--:|");
    for protection in [Protection::By(Mode::Colo), Protection::By(Mode::Remus)] {
        let outages = (0..effort.failovers).map(|_| outage(protection)).collect::<Result<Samples>>()?;
        println!(
            "| {} | {} | {} ms | {} ms |",
            protection.name(),
            outages.count(),
            millis(outages.percentile(50)),
            millis(outages.percentile(100)),
        );
    }
    Ok(())
}

fn outage(protection: Protection) -> Result<Duration> {
    let mut lab = Lab::start(protection, RAM_BYTES)?;
    let mut client = client(&lab)?;
    let prober = std::thread::spawn(move || -> Result<(TcpStream, Duration)> {
        let (mut longest, mut last) = (Duration::ZERO, Instant::now());
        let end = last + Duration::from_secs(3);
        while last < end {
            std::thread::sleep(PROBE);
            ask(&mut client)?;
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        Ok((client, longest))
    });
    // In the middle of what the prober does.
    std::thread::sleep(Duration::from_secs(1));
    lab.kill_primary();
    lab.wait_for_takeover()?;
    let (_client, longest) = prober.join().map_err(|_| anyhow::anyhow!("the prober has panicked"))??;
    Ok(longest)
}

/// What the secondary's processes take when the guest uses as much of its memory as clients can make it use. What it does not
/// use takes no memory on either side, so the second ratio is the one that a guest which uses all would have.
fn memory() -> Result<()> {
    println!("\n| secondary | guest RAM | of it in use | secondary's memory | per RAM | per RAM in use |");
    println!("|---|--:|--:|--:|--:|--:|");
    for protection in [Protection::By(Mode::Colo), Protection::By(Mode::Remus)] {
        let lab = Lab::start(protection, LARGE_RAM_BYTES)?;
        fill(&lab)?;
        lab.wait_for_new_checkpoints(2)?;
        let used = kib_of(child_of(lab.primary_pid())?, "Rss")?;
        let monitor = lab.secondary_pid().context("no secondary")?;
        let total = kib_of(monitor, "Pss")? + kib_of(child_of(monitor)?, "Pss")?;
        println!(
            "| {} | {} MiB | {} MiB | {} MiB | {:.2} | {:.2} |",
            protection.name(),
            LARGE_RAM_BYTES >> 20,
            used >> 10,
            total >> 10,
            total as f64 * 1024.0 / LARGE_RAM_BYTES as f64,
            total as f64 / used as f64,
        );
    }
    Ok(())
}

/// Has the guest write to its pages, and store values until it has no room for more.
fn fill(lab: &Lab) -> Result<()> {
    // The guest refuses more pages than it has to spare.
    let mut pages = LARGE_RAM_BYTES / 4096;
    while http(&mut client(lab)?, "POST", &format!("/dirty/{pages}"), "").is_err() {
        pages -= pages / 16;
    }
    let client = &mut client(lab)?;
    let value = "x".repeat(64 << 10);
    let mut stored = 0;
    while http(client, "PUT", &format!("/kv/{stored}"), &value).is_ok() {
        stored += 1;
    }
    anyhow::ensure!(stored > 0, "the guest stores nothing");
    Ok(())
}

/// A field of `/proc/PID/smaps_rollup`, in KiB.
fn kib_of(pid: u32, field: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = text
        .lines()
        .find(|line| line.split(':').next() == Some(field))
        .with_context(|| format!("{field} in {path}"))?;
    Ok(line.split_whitespace().nth(1).unwrap_or_default().parse()?)
}

/// The only child of a process: the secondary's guest.
fn child_of(parent: u32) -> Result<u32> {
    for entry in std::fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
        // Gone by now, if it cannot be read.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // After the name, which is in parentheses and may hold anything: the state, and the parent.
        let fields = stat.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
        if fields.split_whitespace().nth(1) == Some(parent.to_string().as_str()) {
            return Ok(pid);
        }
    }
    anyhow::bail!("process {parent} has no child")
}

/// A client whose machine knows `x`, and is warm.
fn client(lab: &Lab) -> Result<TcpStream> {
    let mut client = lab.lan.connect()?;
    http(&mut client, "PUT", "/kv/x", "a value")?;
    (0..20).try_for_each(|_| ask(&mut client))?;
    Ok(client)
}

fn ask(client: &mut TcpStream) -> Result<()> {
    http(client, "GET", "/kv/x", "").map(drop)
}
