//! The first copy of a guest's disks, as `colo` tells of it.

use anyhow::{Context, Result};
use serde_json::Value;
use std::fmt;
use std::time::{Duration, Instant};

/// A first copy so far.
#[derive(Default, Debug)]
pub(crate) struct DiskCopy {
    begun: Option<Instant>,
    took: Duration,
    done_bytes: u64,
    all_bytes: u64,
    sent_bytes: u64,
}

impl DiskCopy {
    /// Takes an event, if it is one of a copy.
    pub(super) fn see(&mut self, event: &Value, now: Instant) -> Result<()> {
        if event["event"] != "copying-disks" {
            return Ok(());
        }
        let number = |field: &str| event[field].as_u64().with_context(|| format!("a copy of disks: {event}"));
        (self.done_bytes, self.all_bytes) = (number("done_bytes")?, number("all_bytes")?);
        self.sent_bytes = number("sent_bytes")?;
        self.took = now.saturating_duration_since(*self.begun.get_or_insert(now));
        Ok(())
    }

    /// How much was sent: what was the same is not.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }
}

impl fmt::Display for DiskCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DiskCopy { took, done_bytes, all_bytes, sent_bytes, .. } = self;
        write!(f, "{done_bytes} of {all_bytes} bytes in {:.2} s, {sent_bytes} were sent", took.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_copy_goes_on() {
        let (mut copy, begun) = (DiskCopy::default(), Instant::now());
        copy.see(&json!({"event": "checkpoint"}), begun).unwrap();
        for (done, ms) in [(0, 0), (6, 500), (9, 1500)] {
            let event = json!({"event": "copying-disks", "done_bytes": done, "all_bytes": 9, "sent_bytes": done / 2});
            copy.see(&event, begun + Duration::from_millis(ms)).unwrap();
        }
        assert_eq!(copy.to_string(), "9 of 9 bytes in 1.50 s, 4 were sent");
        assert_eq!(copy.sent_bytes(), 4);
        assert!(copy.see(&json!({"event": "copying-disks", "done_bytes": 9}), begun).is_err());
    }
}
