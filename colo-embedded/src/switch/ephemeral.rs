//! Local port numbers for connections into the LAN.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The first port number handed out; below it are those that people know by heart.
pub(super) const FIRST_PORT: u16 = 16_384;

/// How long a number rests after its connection: as long as the other end may stay in TIME-WAIT, where it would not answer
/// a new connection with the same numbers. smoltcp's guests wait 10 s.
pub(super) const REST: Duration = Duration::from_secs(10);

/// Free numbers, the longest unused first.
#[derive(Debug)]
pub(super) struct EphemeralPorts {
    never_used: std::ops::RangeInclusive<u16>,
    resting: VecDeque<(Instant, u16)>,
}

impl EphemeralPorts {
    pub(super) fn new() -> Self {
        Self { never_used: FIRST_PORT..=u16::MAX, resting: VecDeque::new() }
    }

    /// A number that no connection has, or has had within [`REST`].
    pub(super) fn take(&mut self, now: Instant) -> Option<u16> {
        if let Some(port) = self.never_used.next() {
            return Some(port);
        }
        let &(freed, port) = self.resting.front()?;
        if now.saturating_duration_since(freed) < REST {
            return None;
        }
        self.resting.pop_front();
        Some(port)
    }

    /// Gives a number back.
    pub(super) fn release(&mut self, now: Instant, port: u16) {
        self.resting.push_back((now, port));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_number_rests_before_it_is_used_again() {
        let mut ports = EphemeralPorts::new();
        let start = Instant::now();
        let mut seen = HashSet::new();
        while let Some(port) = ports.take(start) {
            assert!(port >= FIRST_PORT && seen.insert(port));
        }
        assert_eq!(seen.len(), 65_536 - usize::from(FIRST_PORT));
        ports.release(start, 20_000);
        assert_eq!(ports.take(start + REST - Duration::from_millis(1)), None);
        assert_eq!(ports.take(start + REST), Some(20_000));
        assert_eq!(ports.take(start + REST), None);
    }
}
