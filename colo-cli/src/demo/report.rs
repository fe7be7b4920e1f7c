//! What the demo prints: the figures as they came out.

use super::load::Load;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// One column of the table.
pub(crate) struct Measured {
    pub(crate) mode: &'static str,
    pub(crate) load: Load,
    /// MB/s.
    pub(crate) throughput: f64,
    pub(crate) checkpoints: Option<Checkpoints>,
    pub(crate) failover: Option<Failover>,
}

/// The checkpoints of the load.
#[derive(Default)]
pub(crate) struct Checkpoints {
    triggers: BTreeMap<String, u64>,
    pauses_ms: Vec<f64>,
    bytes: u64,
}

/// What clients saw of the host's death.
pub(crate) struct Failover {
    /// The longest wait for an answer.
    pub(crate) outage: Duration,
    pub(crate) took_over_ms: f64,
    pub(crate) connections_lost: u64,
    pub(crate) sha_right: bool,
    pub(crate) puts_acknowledged: u64,
    pub(crate) puts_lost: u64,
}

impl Checkpoints {
    /// From a primary's events.
    pub(crate) fn of(events: &[Value]) -> Checkpoints {
        let mut checkpoints = Checkpoints::default();
        for event in events.iter().filter(|event| event["event"] == "checkpoint") {
            *checkpoints.triggers.entry(event["trigger"].as_str().unwrap_or("?").to_owned()).or_default() += 1;
            checkpoints.pauses_ms.push(event["pause_ms"].as_f64().unwrap_or(f64::NAN));
            checkpoints.bytes += event["stream_bytes"].as_u64().unwrap_or(0);
        }
        checkpoints.pauses_ms.sort_by(f64::total_cmp);
        checkpoints
    }

    fn count(&self) -> u64 {
        self.triggers.values().sum()
    }

    fn pause_ms(&self, percent: usize) -> f64 {
        let rank = (self.pauses_ms.len() * percent).div_ceil(100).saturating_sub(1);
        self.pauses_ms.get(rank).copied().unwrap_or(f64::NAN)
    }

    fn triggers(&self) -> String {
        let words: Vec<String> = self.triggers.iter().map(|(name, count)| format!("{name} {count}")).collect();
        words.join(", ")
    }
}

impl Measured {
    /// Whether nothing was lost.
    pub(crate) fn is_good(&self) -> bool {
        self.load.errors == 0
            && self
                .failover
                .as_ref()
                .is_none_or(|failover| failover.connections_lost == 0 && failover.sha_right && failover.puts_lost == 0)
    }
}

/// The table, in Markdown, on stdout.
pub(crate) fn print_table(columns: &[Measured]) {
    type Cell = fn(&Measured) -> Option<String>;
    let rows: [(&str, Cell); 14] = [
        ("requests", |m| Some(m.load.latencies.len().to_string())),
        ("requests/s", |m| Some(format!("{:.0}", m.load.per_second()))),
        ("latency p50, ms", |m| Some(format!("{:.2}", m.load.percentile_ms(50)))),
        ("latency p99, ms", |m| Some(format!("{:.2}", m.load.percentile_ms(99)))),
        ("download, MB/s", |m| Some(format!("{:.0}", m.throughput))),
        ("checkpoints", |m| m.checkpoints.as_ref().map(|c| c.count().to_string())),
        ("their triggers", |m| m.checkpoints.as_ref().map(Checkpoints::triggers)),
        ("pause p50, ms", |m| m.checkpoints.as_ref().map(|c| format!("{:.2}", c.pause_ms(50)))),
        ("pause p99, ms", |m| m.checkpoints.as_ref().map(|c| format!("{:.2}", c.pause_ms(99)))),
        ("checkpoints, MB sent", |m| m.checkpoints.as_ref().map(|c| format!("{:.1}", c.bytes as f64 / 1e6))),
        ("host killed: outage, ms", |m| m.failover.as_ref().map(|f| format!("{:.1}", f.outage.as_secs_f64() * 1e3))),
        ("connections lost", |m| m.failover.as_ref().map(|f| f.connections_lost.to_string())),
        ("download's SHA-256", |m| m.failover.as_ref().map(|f| if f.sha_right { "right" } else { "WRONG" }.into())),
        ("acknowledged PUTs lost", |m| {
            m.failover.as_ref().map(|f| format!("{} of {}", f.puts_lost, f.puts_acknowledged))
        }),
    ];
    let cells: Vec<Vec<String>> = std::iter::once(
        std::iter::once(String::new()).chain(columns.iter().map(|column| column.mode.to_owned())).collect(),
    )
    .chain(rows.iter().map(|(name, cell)| {
        let values = columns.iter().map(|column| cell(column).unwrap_or_else(|| "-".into()));
        std::iter::once((*name).to_owned()).chain(values).collect()
    }))
    .collect();
    let widths: Vec<usize> =
        (0..=columns.len()).map(|column| cells.iter().map(|row| row[column].len()).max().unwrap_or(0)).collect();
    for (number, row) in cells.iter().enumerate() {
        let padded: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        println!("| {} |", padded.join(" | "));
        if number == 0 {
            let lines: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
            println!("| {} |", lines.join(" | "));
        }
    }
}

/// One object for each column.
pub(crate) fn print_json(columns: &[Measured]) {
    for column in columns {
        let mut value = json!({
            "event": "measured", "mode": column.mode, "requests": column.load.latencies.len(),
            "requests_per_second": column.load.per_second(), "errors": column.load.errors,
            "latency_p50_ms": column.load.percentile_ms(50), "latency_p99_ms": column.load.percentile_ms(99),
            "download_mb_per_second": column.throughput,
        });
        if let Some(checkpoints) = &column.checkpoints {
            value["checkpoints"] = json!({"count": checkpoints.count(), "triggers": checkpoints.triggers,
                "pause_p50_ms": checkpoints.pause_ms(50), "pause_p99_ms": checkpoints.pause_ms(99), "bytes": checkpoints.bytes});
        }
        if let Some(failover) = &column.failover {
            value["failover"] = json!({"outage_ms": failover.outage.as_secs_f64() * 1e3,
                "took_over_ms": failover.took_over_ms, "connections_lost": failover.connections_lost,
                "sha256_right": failover.sha_right, "puts_acknowledged": failover.puts_acknowledged,
                "puts_lost": failover.puts_lost});
        }
        crate::output::print_json(&value);
    }
}
