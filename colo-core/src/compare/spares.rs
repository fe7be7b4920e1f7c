//! Queues for flows in which somebody waits. A flow in which nobody does has none, and costs no memory for one.

use std::collections::VecDeque;

/// The most places in all spare queues of one kind: enough for the busiest moments to come again without an allocation. More is given
/// back, so that one burst does not hold memory for ever.
const MAX_SPARE_PLACES: usize = 1 << 16;

/// Emptied queues, kept with their memory for the next flow in which somebody waits.
#[derive(Debug)]
pub(super) struct Spares<T> {
    queues: Vec<VecDeque<T>>,
    places: usize,
}

impl<T> Default for Spares<T> {
    fn default() -> Self {
        Spares { queues: Vec::new(), places: 0 }
    }
}

impl<T> Spares<T> {
    /// Sees to it that a queue has memory.
    pub(super) fn equip(&mut self, queue: &mut VecDeque<T>) {
        if queue.capacity() == 0 {
            if let Some(spare) = self.queues.pop() {
                self.places -= spare.capacity();
                *queue = spare;
            }
        }
    }

    /// Takes the memory of an emptied queue.
    pub(super) fn settle(&mut self, queue: &mut VecDeque<T>) {
        if queue.is_empty() && queue.capacity() > 0 {
            let spare = std::mem::take(queue);
            if self.places + spare.capacity() <= MAX_SPARE_PLACES {
                self.places += spare.capacity();
                self.queues.push(spare);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_goes_round_and_is_limited() {
        let mut spares = Spares::default();
        let mut queue = VecDeque::new();
        spares.equip(&mut queue);
        queue.extend(0..100);
        spares.settle(&mut queue);
        assert_eq!(queue.len(), 100, "not empty");
        queue.clear();
        let memory = queue.capacity();
        spares.settle(&mut queue);
        assert_eq!(queue.capacity(), 0);
        spares.equip(&mut queue);
        assert_eq!((queue.capacity(), spares.places), (memory, 0));
        let mut large = VecDeque::<i32>::with_capacity(MAX_SPARE_PLACES + 1);
        spares.settle(&mut large);
        assert_eq!((large.capacity(), spares.places), (0, 0));
    }
}
