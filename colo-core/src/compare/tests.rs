mod limits;
mod model;
mod packets;
mod progress;
mod rules;
mod streams;

use super::*;
use crate::net::Frame;
use crate::net::testing::Tcp;

/// A comparator in its first epoch, with a clock of its own.
struct Bench {
    comparator: Comparator,
    now: Instant,
    next_number: u64,
}

impl Bench {
    fn new() -> Self {
        Bench::with(CompareConfig::default())
    }

    fn with(config: CompareConfig) -> Self {
        let mut comparator = Comparator::new(config);
        let now = Instant::now();
        assert_eq!(comparator.begin_epoch(Epoch::FIRST), []);
        comparator.secondary_running(now);
        Bench { comparator, now, next_number: 0 }
    }

    /// The primary sends; returns what leaves.
    fn primary(&mut self, frame: &Frame) -> Vec<Frame> {
        self.comparator.handle_primary(0, frame.clone(), self.now);
        self.released()
    }

    /// The secondary sends; returns what leaves.
    fn secondary(&mut self, frame: &Frame) -> Vec<Frame> {
        self.comparator.handle_secondary(0, self.next_number, frame.clone(), self.now);
        self.next_number += 1;
        self.released()
    }

    fn released(&mut self) -> Vec<Frame> {
        std::iter::from_fn(|| self.comparator.poll_release()).map(|release| release.frame).collect()
    }

    fn consumed(&mut self) -> Vec<u64> {
        let mut numbers: Vec<u64> = std::iter::from_fn(|| self.comparator.poll_consumed()).collect();
        numbers.sort_unstable();
        numbers
    }

    fn reason(&mut self) -> Option<Reason> {
        self.comparator.poll_divergence().map(|divergence| divergence.reason)
    }

    /// A checkpoint; returns what is handed back.
    fn checkpoint(&mut self) -> Vec<Frame> {
        let back = self.capture();
        self.comparator.secondary_running(self.now);
        back
    }

    /// The first half of a checkpoint.
    fn capture(&mut self) -> Vec<Frame> {
        self.next_number = 0;
        let epoch = self.comparator.epoch().next();
        self.comparator.begin_epoch(epoch).into_iter().map(|release| release.frame).collect()
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.comparator.handle_timeout(self.now);
    }
}

/// A segment of the guest.
fn tcp() -> Tcp {
    Tcp::new(80, 4000)
}

const MSS: [u8; 4] = [2, 4, 5, 0xb4];
const NOTHING: [Frame; 0] = [];

fn data(seq: u32, payload: &[u8]) -> Frame {
    tcp().seq(seq).ack(500).payload(payload).frame()
}

fn ack(seq: u32, ack: u32) -> Frame {
    tcp().seq(seq).ack(ack).frame()
}

/// A bench on which the primary's handshake with number 1000 has left; the secondary chose 9000.
fn connected() -> Bench {
    let mut bench = Bench::new();
    let syn_ack = tcp().syn().seq(1000).ack(500).options(&MSS).frame();
    assert_eq!(bench.primary(&syn_ack), NOTHING);
    assert_eq!(bench.secondary(&tcp().syn().seq(9000).ack(500).options(&MSS).identification(7).frame()), [syn_ack]);
    assert_eq!(bench.consumed(), [0]);
    bench
}
