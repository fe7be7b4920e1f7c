use std::time::Duration;

/// So long is looked for what comes next before the thread sleeps: to be woken costs about as much, the client that wakes as well as the
/// thread that is woken, and a client that has its answer mostly asks again sooner.
pub(super) const AWAKE: Duration = Duration::from_micros(32);

/// After so many looks in vain, one after the other, the next comes no later still.
const MOST_MISSES: u32 = 8;

/// Whether to look before sleeping. Who looked in vain sleeps at once the next time, and looks again after one wait, three, seven, in the
/// end 255: so clients that take their time cost nothing, and one that has become quick is noticed.
#[derive(Default)]
pub(super) struct Awake {
    misses: u32,
    skips: u32,
}

impl Awake {
    /// Before a wait: whether to look.
    pub(super) fn looks(&mut self) -> bool {
        let looks = self.skips == 0;
        self.skips = self.skips.saturating_sub(1);
        looks
    }

    /// What a look has come to: whether there was something in time.
    pub(super) fn looked(&mut self, was_in_time: bool) {
        if was_in_time {
            *self = Awake::default();
        } else {
            self.misses = MOST_MISSES.min(self.misses + 1);
            self.skips = (1 << self.misses) - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_looks_in_vain_looks_seldom_and_who_finds_something_looks_always() {
        let mut awake = Awake::default();
        let mut waits_until_a_look = |was_in_time: bool| {
            let waits = (1..1000).find(|_| awake.looks()).unwrap();
            awake.looked(was_in_time);
            waits
        };
        let waits = [1, 2, 4, 8, 16, 32, 64, 128, 256, 256, 256];
        assert_eq!(waits.map(|_| waits_until_a_look(false)), waits);
        assert_eq!([false, true, true].map(&mut waits_until_a_look), [256, 256, 1]);
        assert_eq!([false, true, true].map(&mut waits_until_a_look), [1, 2, 1]);
    }
}
