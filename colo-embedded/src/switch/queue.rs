//! A bounded first-in first-out queue of frames, stored end to end: no allocation per frame.

use std::collections::VecDeque;

/// The most bytes in one queue: a few full windows of TCP, as a switch with deep buffers has. 4 MiB is 13 ms at 300 MB/s.
pub(super) const MAX_QUEUE_BYTES: usize = 4 << 20;

/// The most frames in one queue: keeps the lengths of many tiny frames small beside the bytes.
pub(super) const MAX_QUEUE_FRAMES: usize = 8192;

/// The queue.
#[derive(Debug, Default)]
pub(super) struct FrameQueue {
    bytes: Vec<u8>,
    /// Where the first frame begins; the bytes before it are spent.
    head: usize,
    lengths: VecDeque<usize>,
}

impl FrameQueue {
    /// Appends a frame and returns true, or returns false when the queue is full.
    pub(super) fn push(&mut self, frame: &[u8]) -> bool {
        let room = self.has_room(frame.len());
        if room {
            self.bytes.extend_from_slice(frame);
            self.lengths.push_back(frame.len());
        }
        room
    }

    /// Whether a frame of `length` bytes would be taken.
    pub(super) fn has_room(&self, length: usize) -> bool {
        self.lengths.len() < MAX_QUEUE_FRAMES && self.bytes.len() - self.head + length <= MAX_QUEUE_BYTES
    }

    /// Appends a frame of `length` bytes, all zero, to be written in place. To be called when there is room.
    pub(super) fn push_zeroed(&mut self, length: usize) -> &mut [u8] {
        let start = self.bytes.len();
        self.bytes.resize(start + length, 0);
        self.lengths.push_back(length);
        &mut self.bytes[start..]
    }

    /// The frames, first to last.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.bytes[self.head..];
        self.lengths.iter().map(move |&length| {
            let (frame, after) = rest.split_at(length);
            rest = after;
            frame
        })
    }

    /// The frame pushed last.
    pub(super) fn last(&self) -> Option<&[u8]> {
        let length = *self.lengths.back()?;
        Some(&self.bytes[self.bytes.len() - length..])
    }

    /// Removes the first `count` frames.
    pub(super) fn pop(&mut self, count: usize) {
        self.head += self.lengths.drain(..count.min(self.lengths.len())).sum::<usize>();
        if self.lengths.is_empty() {
            self.clear();
        } else if self.head > MAX_QUEUE_BYTES {
            // Rare enough that moving the rest costs less than a byte per byte.
            self.bytes.drain(..self.head);
            self.head = 0;
        }
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.lengths.clear();
        self.head = 0;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// How many frames wait.
    pub(super) fn len(&self) -> usize {
        self.lengths.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Push(usize),
        Pop(usize),
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn behaves_as_a_list(steps in prop::collection::vec(
            prop_oneof![4 => (0_usize..200_000).prop_map(Step::Push), 1 => (0_usize..8).prop_map(Step::Pop)], 0..120)) {
            let mut queue = FrameQueue::default();
            let mut model: VecDeque<Vec<u8>> = VecDeque::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Push(length) => {
                        let frame = vec![number as u8; length];
                        let used: usize = model.iter().map(Vec::len).sum();
                        let fits = used + length <= MAX_QUEUE_BYTES;
                        prop_assert_eq!(queue.push(&frame), fits);
                        if fits {
                            model.push_back(frame);
                        }
                    }
                    Step::Pop(count) => {
                        queue.pop(count);
                        model.drain(..count.min(model.len()));
                    }
                }
                prop_assert_eq!(queue.len(), model.len());
                prop_assert!(queue.iter().eq(model.iter().map(Vec::as_slice)));
                prop_assert_eq!(queue.last(), model.back().map(Vec::as_slice));
            }
        }
    }

    #[test]
    fn the_number_of_frames_is_bounded() {
        let mut queue = FrameQueue::default();
        while queue.push(&[]) {}
        assert_eq!(queue.len(), MAX_QUEUE_FRAMES);
    }
}
