use crate::disk::DiskError;
use std::ops::Range;

/// What a comparison of both hosts' disks has found.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Compared {
    /// So many bytes were compared.
    pub compared_bytes: u64,
    /// So many parts differ, each of 64 KiB, or cannot be read on the secondary.
    pub differing_parts: u64,
    /// The first of them; those that are neighbours are one. No more than [`Compared::MAX_DIFFERENCES`].
    pub differences: Vec<Difference>,
}

/// A part of a disk that is not the same on both hosts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// Which of the machine's disks.
    pub disk: u8,
    /// From where to where, in bytes.
    pub range: Range<u64>,
    /// The secondary cannot read it.
    pub is_unreadable: bool,
}

/// Why disks are not compared, or not to their end. Protection goes on, if there was any.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum VerifyError {
    /// There is no secondary.
    #[error("not protected: there is nothing to compare with")]
    NotProtected,
    /// There was one.
    #[error("not protected any more: there is nothing to compare with")]
    Lost,
    /// The secondary does not have the disks yet.
    #[error("the first copy is under way: wait until it is over")]
    Copying,
    /// The secondary's host cannot.
    #[error("the other host runs an older release of colo, which cannot compare disks: run the same on both")]
    Older,
    /// It has the same.
    #[error("the disks are shared: both hosts have the same ones, and there is nothing to compare")]
    Shared,
    /// One at a time.
    #[error("another comparison is under way")]
    Another,
    /// A disk of this host.
    #[error("disk {disk} cannot be read here, at byte {offset}: {source}")]
    Unreadable {
        /// Which.
        disk: u8,
        /// From where on.
        offset: u64,
        /// Why.
        source: DiskError,
    },
    /// It was told to stop.
    #[error("stopped")]
    Stopped,
    /// There is no thread for it.
    #[error("no thread: {0}")]
    Thread(String),
}

impl VerifyError {
    /// Whether there is no secondary, or none any more.
    pub fn is_unprotected(&self) -> bool {
        matches!(self, VerifyError::NotProtected | VerifyError::Lost)
    }
}

impl Compared {
    /// So many differences are told at most.
    pub const MAX_DIFFERENCES: usize = 32;

    /// Whether both hosts have the same.
    pub fn is_equal(&self) -> bool {
        self.differing_parts == 0
    }

    /// A part was compared.
    pub(super) fn add(&mut self, disk: u8, range: Range<u64>, found: Found) {
        self.compared_bytes += range.end - range.start;
        let is_unreadable = match found {
            Found::Same => return,
            Found::Other => false,
            Found::Unreadable => true,
        };
        self.differing_parts += 1;
        let is_full = self.differences.len() == Compared::MAX_DIFFERENCES;
        match self.differences.last_mut() {
            Some(last) if (last.disk, last.range.end, last.is_unreadable) == (disk, range.start, is_unreadable) => {
                last.range.end = range.end;
            }
            _ if is_full => {}
            _ => self.differences.push(Difference { disk, range, is_unreadable }),
        }
    }
}

/// What a part is on the secondary.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Found {
    Same,
    Other,
    Unreadable,
}

/// What a comparison has to say, from a thread of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum VerifyEvent {
    /// It goes on.
    Progress {
        /// So many bytes were compared.
        done_bytes: u64,
        /// Of so many.
        all_bytes: u64,
        /// So many parts of them differ.
        differing_parts: u64,
    },
    /// It has ended: the last event.
    Ended(Result<Compared, VerifyError>),
}

/// Takes [`VerifyEvent`]s. The comparison waits for it meanwhile.
pub type OnVerifyEvent = Box<dyn Fn(VerifyEvent) + Send>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_one_difference_and_there_is_an_end_to_them() {
        let mut compared = Compared::default();
        let found = [Found::Other, Found::Other, Found::Unreadable, Found::Same, Found::Unreadable];
        for (number, found) in (0..).zip(found) {
            compared.add(3, number * 10..number * 10 + 10, found);
        }
        compared.add(4, 50..60, Found::Unreadable);
        let difference = |disk, range, is_unreadable| Difference { disk, range, is_unreadable };
        let expected = [
            difference(3, 0..20, false),
            difference(3, 20..30, true),
            difference(3, 40..50, true),
            difference(4, 50..60, true),
        ];
        assert_eq!((&compared.differences[..], compared.differing_parts), (&expected[..], 5));
        assert_eq!((compared.compared_bytes, compared.is_equal()), (60, false));
        for number in 10..100 {
            compared.add(4, number * 20..number * 20 + 10, Found::Other);
        }
        assert_eq!((compared.differences.len(), compared.differing_parts), (Compared::MAX_DIFFERENCES, 95));
    }
}
