use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Parts of disks that somebody changes right now. Whoever comes to a part that is taken waits.
#[derive(Default)]
pub(super) struct Ranges {
    taken: Mutex<Vec<(u8, Range<u64>)>>,
    left: Condvar,
}

/// A part that is taken, until this is dropped.
pub(super) struct Entered<'a> {
    ranges: &'a Ranges,
    disk: u8,
    range: Range<u64>,
}

impl Ranges {
    /// Takes that part, once nobody has any of it.
    pub(super) fn enter(&self, disk: u8, range: Range<u64>) -> Entered<'_> {
        let mut taken = self.lock();
        let overlaps =
            |other: &(u8, Range<u64>)| other.0 == disk && other.1.start < range.end && range.start < other.1.end;
        while taken.iter().any(overlaps) {
            taken = self.left.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
        taken.push((disk, range.clone()));
        Entered { ranges: self, disk, range }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(u8, Range<u64>)>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut taken = self.ranges.lock();
        // One of two that are the same, which can only be empty, is as good as the other.
        let found = taken.iter().position(|(disk, range)| *disk == self.disk && *range == self.range);
        if let Some(index) = found {
            taken.swap_remove(index);
        }
        self.ranges.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn whoever_overlaps_waits_and_nobody_else() {
        let ranges = Arc::new(Ranges::default());
        let first = ranges.enter(0, 10..20);
        // Neither of these returns if it should have to wait.
        drop((ranges.enter(0, 0..10), ranges.enter(0, 20..30), ranges.enter(1, 10..20)));
        let left = Arc::new(AtomicBool::new(false));
        let waiting = std::thread::spawn({
            let (ranges, left) = (ranges.clone(), left.clone());
            move || {
                let _second = ranges.enter(0, 19..21);
                assert!(left.load(Ordering::SeqCst), "two are in one place");
            }
        });
        left.store(true, Ordering::SeqCst);
        drop(first);
        waiting.join().unwrap();
        assert!(ranges.lock().is_empty());
    }
}
