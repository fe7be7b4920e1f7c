//! Checkpoints, by what they were made for.

use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// All checkpoints of a protection.
#[derive(Default, PartialEq, Debug)]
pub(crate) struct Checkpoints {
    by_trigger: BTreeMap<String, Vec<Checkpoint>>,
    /// How often the second host has loaded one by which way, where it has several.
    ways: BTreeMap<String, u64>,
}

/// One of them, as far as it is known.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Checkpoint {
    /// How long the guest stood still.
    pause_ms: Option<f64>,
    pages: u64,
    bytes: u64,
}

impl Checkpoints {
    /// Adds one that `colo` has told about: an event `checkpoint`.
    pub(super) fn add_event(&mut self, event: &Value) -> Result<()> {
        let what = || format!("a checkpoint: {event}");
        let trigger = event["trigger"].as_str().with_context(what)?;
        let checkpoint = Checkpoint {
            pause_ms: Some(event["pause_ms"].as_f64().with_context(what)?),
            pages: event["dirty_pages"].as_u64().with_context(what)?,
            bytes: event["stream_bytes"].as_u64().with_context(what)?,
        };
        self.by_trigger.entry(trigger.to_owned()).or_default().push(checkpoint);
        Ok(())
    }

    /// Adds the way of one that the second host has told about: an event `applied`.
    pub(super) fn add_way(&mut self, event: &Value) {
        if let Some(way) = event["way"].as_str() {
            *self.ways.entry(way.to_owned()).or_default() += 1;
        }
    }

    /// Adds one of which nothing is known but that it was.
    pub(super) fn add(&mut self, trigger: &str) {
        self.by_trigger.entry(trigger.to_owned()).or_default().push(Checkpoint::default());
    }

    /// By which ways the second host has loaded them, and how often.
    pub(crate) fn loads(&self) -> impl Iterator<Item = (&str, u64)> {
        self.ways.iter().map(|(way, count)| (way.as_str(), *count))
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.by_trigger.values().map(Vec::len).sum()
    }
}

impl fmt::Display for Checkpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} checkpoints", self.count())?;
        for (trigger, all) in &self.by_trigger {
            write!(f, "\n  {trigger:<24} {:6}", all.len())?;
            let mut pauses: Vec<f64> = all.iter().filter_map(|checkpoint| checkpoint.pause_ms).collect();
            pauses.sort_by(f64::total_cmp);
            let (Some(middle), Some(worst)) = (pauses.get(pauses.len() / 2), pauses.last()) else { continue };
            let mean = |of: fn(&Checkpoint) -> u64| all.iter().map(of).sum::<u64>() / all.len() as u64;
            let (pages, bytes) = (mean(|checkpoint| checkpoint.pages), mean(|checkpoint| checkpoint.bytes));
            write!(f, "  pause: median {middle:6.1}, worst {worst:6.1} ms;  mean: {pages} pages, {bytes} bytes")?;
        }
        for (way, count) in &self.ways {
            write!(f, "\n  loaded {count:6} times: {way}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(trigger: &str, pause_ms: f64, pages: u64) -> Value {
        json!({"event": "checkpoint", "epoch": 3, "trigger": trigger, "pause_ms": pause_ms, "dirty_pages": pages,
            "stream_bytes": pages * 4096})
    }

    #[test]
    fn by_trigger() {
        let mut checkpoints = Checkpoints::default();
        for (trigger, pause_ms, pages) in [("miscompare", 9.0, 10), ("interval", 1.0, 2), ("miscompare", 3.0, 20)] {
            checkpoints.add_event(&event(trigger, pause_ms, pages)).unwrap();
        }
        assert_eq!(checkpoints.count(), 3);
        let lines: Vec<String> = checkpoints.to_string().lines().map(str::to_owned).collect();
        assert_eq!(lines[0], "3 checkpoints");
        assert!(lines[1].starts_with("  interval                      1  pause: median    1.0"), "{lines:?}");
        assert!(lines[2].ends_with("worst    9.0 ms;  mean: 15 pages, 61440 bytes"), "{lines:?}");
    }

    #[test]
    fn of_some_nothing_is_known() {
        let mut checkpoints = Checkpoints::default();
        checkpoints.add("interval");
        assert_eq!(checkpoints.to_string(), "1 checkpoints\n  interval                      1");
    }

    #[test]
    fn an_event_that_lacks_something() {
        for field in ["trigger", "pause_ms", "dirty_pages", "stream_bytes"] {
            let mut event = event("interval", 1.0, 2);
            event.as_object_mut().unwrap().remove(field);
            let mut checkpoints = Checkpoints::default();
            assert!(checkpoints.add_event(&event).unwrap_err().to_string().starts_with("a checkpoint: {"), "{field}");
            assert_eq!(checkpoints.count(), 0);
        }
    }
}
