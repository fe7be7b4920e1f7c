use crate::ids::{PAGE_SIZE, Page};

/// An event that is pending.
const PENDING: u32 = 1 << 31;
/// One that is not to be told.
const MASKED: u32 = 1 << 30;
/// One that is in a queue: the next of it is in the low bits, so that it cannot be moved to another domain on its own.
const EVENT_LINKED: u32 = 1 << 29;
/// The next in the queue.
const LINK: u32 = (1 << 17) - 1;

/// The words of a page.
const WORDS: usize = PAGE_SIZE / 4;

/// Whether a page is the first of an event array: what a Linux guest with Xen's larger interface for events (FIFO) tells the hypervisor
/// to keep its events in, a word for each port. A new array is masked throughout, and a guest has far fewer ports than words.
pub fn is_event_array(page: &Page) -> bool {
    let word = |index: usize| word(page, index);
    // The cheapest of all tests comes first, as every page of a guest may be asked.
    word(600) == MASKED
        && word(WORDS - 1) == MASKED
        && (0..WORDS).filter(|index| word(*index) == MASKED).count() > 800
        && (0..WORDS).all(|index| word(index) & !(PENDING | MASKED | EVENT_LINKED | LINK) == 0)
}

/// The first port whose event is in a queue, in a guest's event array.
pub fn linked_port(array: &Page) -> Option<u32> {
    (0..WORDS).find(|index| word(array, *index) & EVENT_LINKED != 0).map(|index| index as u32)
}

/// Masks every event of an array: one that comes is noted in its word, and nowhere else.
pub fn mask_all(array: &mut Page) {
    let masked = MASKED.to_le_bytes();
    array.chunks_exact_mut(4).for_each(|word| word.iter_mut().zip(masked).for_each(|(byte, mask)| *byte |= mask));
}

fn word(page: &Page, index: usize) -> u32 {
    let at = index * 4;
    u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(used: &[(usize, u32)]) -> Page {
        let mut page = [0; PAGE_SIZE];
        page.chunks_exact_mut(4).for_each(|word| word.copy_from_slice(&MASKED.to_le_bytes()));
        used.iter().for_each(|(port, word)| page[port * 4..port * 4 + 4].copy_from_slice(&word.to_le_bytes()));
        page
    }

    #[test]
    fn an_array_is_known_and_nothing_else_is() {
        assert!(is_event_array(&array(&[(0, MASKED), (1, 0), (2, PENDING), (7, PENDING | MASKED)])));
        assert!(!is_event_array(&[0; PAGE_SIZE]));
        assert!(!is_event_array(&[0x40; PAGE_SIZE]));
        assert!(!is_event_array(&array(&[(600, 0)])));
        assert!(!is_event_array(&array(&[(3, 1 << 28)])), "a bit that is not used");
    }

    #[test]
    fn a_masked_array_is_still_one() {
        let mut page = array(&[(1, 0), (2, PENDING)]);
        mask_all(&mut page);
        assert_eq!([1, 2, 3].map(|port| word(&page, port)), [MASKED, PENDING | MASKED, MASKED]);
        assert!(is_event_array(&page));
    }

    #[test]
    fn a_queue_is_found() {
        assert_eq!(linked_port(&array(&[(1, 0), (7, PENDING | MASKED)])), None);
        assert_eq!(linked_port(&array(&[(1, 0), (5, PENDING | EVENT_LINKED | 6)])), Some(5));
    }
}
