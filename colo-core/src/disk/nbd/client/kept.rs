use crate::disk::nbd::request::Request;
use std::collections::VecDeque;
use std::sync::Arc;

/// What a change takes beside its data.
const CHANGE_BYTES: usize = 128;

/// Changes that a server has acknowledged, and that it may lose until it is flushed.
#[derive(Debug, Default)]
pub(super) struct Kept {
    changes: VecDeque<Change>,
    /// How many were forgotten, ever: the place of the first that is here.
    forgotten: u64,
    bytes: usize,
}

/// The first of these, at least one, that may be under way together: a server does them in any order.
pub(super) fn together(changes: &[Change], most: usize) -> usize {
    let most = most.min(changes.len());
    let overlaps = |at: &usize| changes[..*at].iter().any(|before| before.overlaps(&changes[*at]));
    (1..most).find(overlaps).unwrap_or(most)
}

/// A request that changes the disk, with its data.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) request: Request,
    pub(super) data: Option<Arc<[u8]>>,
}

impl Change {
    pub(super) fn data(&self) -> &[u8] {
        self.data.as_deref().unwrap_or_default()
    }

    fn overlaps(&self, other: &Change) -> bool {
        let end = |request: &Request| request.offset + u64::from(request.length);
        self.request.offset < end(&other.request) && other.request.offset < end(&self.request)
    }

    fn bytes(&self) -> usize {
        CHANGE_BYTES + self.data().len()
    }
}

impl Kept {
    pub(super) fn push(&mut self, change: Change) {
        self.bytes += change.bytes();
        self.changes.push_back(change);
    }

    /// Behind the last one that was acknowledged.
    pub(super) fn end(&self) -> u64 {
        self.forgotten + self.changes.len() as u64
    }

    /// Those before that place are durable.
    pub(super) fn forget_before(&mut self, place: u64) {
        while self.forgotten < place {
            let Some(change) = self.changes.pop_front() else { return };
            self.bytes -= change.bytes();
            self.forgotten += 1;
        }
    }

    /// In the order in which they were acknowledged.
    pub(super) fn changes(&self) -> Vec<Change> {
        self.changes.iter().cloned().collect()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::nbd::Command;

    fn change(offset: u64, length: u32) -> Change {
        Change { request: Request::new(Command::WriteZeroes, 0, offset, length), data: None }
    }

    #[test]
    fn what_overlaps_is_not_under_way_together() {
        let changes = [change(0, 8), change(16, 8), change(8, 8), change(23, 2), change(24, 1)];
        assert_eq!(together(&changes, 64), 3);
        assert_eq!(together(&changes, 2), 2);
        assert_eq!(together(&changes[3..], 64), 1);
        assert_eq!(together(&changes[4..], 64), 1);
    }

    #[test]
    fn what_was_flushed_is_forgotten_and_nothing_else() {
        let mut kept = Kept::default();
        kept.push(change(0, 8));
        let place = kept.end();
        kept.push(Change { data: Some(vec![0; 100].into()), ..change(8, 8) });
        assert_eq!((kept.changes().len(), kept.bytes()), (2, 2 * CHANGE_BYTES + 100));
        kept.forget_before(place);
        kept.forget_before(place - 1);
        assert_eq!((kept.changes()[0].request.offset, kept.bytes()), (8, CHANGE_BYTES + 100));
        kept.forget_before(kept.end() + 9);
        assert_eq!((kept.changes().len(), kept.bytes()), (0, 0));
    }
}
