//! What two machines with real TCP/IP send to a client, through the comparator and through a plain forwarder in its place.
//!
//! `cargo bench -p colo-benches --bench namespaces`; takes root, and `iperf3`.
//!
//! Two network namespaces are the machines, a third the client. All else is one thread: it reads what the client sends and gives it to
//! both machines, reads what both send, decides, and writes to the client. The two ways take turns; the time of the processor is what
//! that thread uses. On a machine with few processors the five that share them (three of them iperf3) set the pace, not that thread.

// The directory of the rig's tests.
#[path = "../../colo-core/tests/namespaces/rig/mod.rs"]
mod rig;

use anyhow::{Context, Result, ensure};
use rig::harness::{Orders, Way};
use rig::machines::{Cards, Rig, SERVER, Timestamps, patient};
use rig::namespace::{has, possible};
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

const WAYS: [Way; 2] = [Way::Forward, Way::Compare];

/// What was measured of one way.
#[derive(Default)]
struct Row {
    gbit_per_s: Vec<f64>,
    cpu: Duration,
    bytes: f64,
}

fn main() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    ensure!(has("iperf3"), "iperf3 is missing");
    // As criterion does it: without `--bench` this is a test of whether it runs at all.
    let (turns, seconds) = if std::env::args().any(|argument| argument == "--bench") { (3, 3) } else { (1, 1) };
    println!("guest to client, iperf3 -R, median of {turns} turns of {seconds} s");
    println!("{:<22}{:<12}{:>10}{:>16}", "cards", "way", "Gbit/s", "CPU, ms/GiB");
    for cards in [Cards::TapWithOffloads, Cards::TapWithout, Cards::Cable] {
        let mut rows = WAYS.map(|_| Row::default());
        for _ in 0..turns {
            for (way, row) in WAYS.into_iter().zip(&mut rows) {
                measure(cards, way, seconds, row)?;
            }
        }
        for (way, mut row) in WAYS.into_iter().zip(rows) {
            row.gbit_per_s.sort_by(f64::total_cmp);
            let median = row.gbit_per_s[row.gbit_per_s.len() / 2];
            let cost = row.cpu.as_secs_f64() * 1e3 / (row.bytes / f64::from(1 << 30));
            println!("{:<22}{:<12}{median:>10.2}{cost:>16.0}", format!("{cards:?}"), format!("{way:?}"));
        }
    }
    Ok(())
}

fn measure(cards: Cards, way: Way, seconds: u32, row: &mut Row) -> Result<()> {
    let rig = Rig::new(cards, Timestamps::Off);
    let _servers = rig.servers_run("iperf3 -s -1 -F /dev/zero", &[]);
    rig.await_listeners(5201);
    rig.begin(Orders { way, compare: patient(), seed: None, keeps_ledger: false });
    let before = used();
    let printed = rig.client_runs(&format!("iperf3 -c {SERVER} -t {seconds} -R -J"), &[]);
    row.cpu += used() - before;
    let report: serde_json::Value = serde_json::from_slice(&printed)?;
    let received = &report["end"]["sum_received"];
    let number = |name: &str| received[name].as_f64().with_context(|| format!("iperf3 did not say {name}"));
    row.gbit_per_s.push(number("bits_per_second")? / 1e9);
    row.bytes += number("bytes")?;
    Ok(())
}

/// The time of processors that this process has used. iperf3 is others.
fn used() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
