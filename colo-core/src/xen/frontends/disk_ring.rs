//! A disk's ring: what its guest has asked for, and what is answered (`xen/include/public/io/blkif.h`, `io/ring.h`).

use crate::ids::Page;
use crate::stream::TwinFrontends;

/// Where a ring's first page has the number of requests that the guest has written, and of answers that it has got; both only grow, and
/// begin again after the largest.
const REQUESTS: usize = 0;
const ANSWERS: usize = 8;

/// The grants of the first pages of all disks' rings.
pub fn disk_rings(published: &TwinFrontends) -> Vec<u32> {
    let disks = published.devices.iter().filter(|device| device.class == "vbd");
    let nodes = disks.flat_map(|disk| &disk.nodes);
    // One page, the first of several, each in a queue of several or not.
    let is_first = |path: &str| matches!(path.rsplit('/').next(), Some("ring-ref" | "ring-ref0"));
    nodes.filter(|(path, _)| is_first(path)).filter_map(|(_, value)| value.parse().ok()).collect()
}

/// Whether the backend has answered all that the guest has asked for.
pub fn is_answered(ring: &Page) -> bool {
    ring[REQUESTS..REQUESTS + 4] == ring[ANSWERS..ANSWERS + 4]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PAGE_SIZE;
    use crate::stream::TwinFrontend;

    fn device(class: &str, nodes: &[(&str, &str)]) -> TwinFrontend {
        let nodes = nodes.iter().map(|(path, value)| ((*path).into(), (*value).into())).collect();
        TwinFrontend { class: class.into(), handle: 0, nodes }
    }

    #[test]
    fn rings_of_every_kind_are_found() {
        let devices = vec![
            device("vif", &[("tx-ring-ref", "1"), ("ring-ref", "2")]),
            device("vbd", &[("ring-ref", "8"), ("event-channel", "9"), ("ring-page-order", "0")]),
            device("vbd", &[("ring-ref0", "10"), ("ring-ref1", "11"), ("ring-page-order", "1")]),
            device("vbd", &[("queue-0/ring-ref", "12"), ("queue-1/ring-ref0", "13"), ("queue-1/ring-ref1", "14")]),
        ];
        assert_eq!(disk_rings(&TwinFrontends { devices }), [8, 10, 12, 13]);
    }

    #[test]
    fn a_ring_is_answered_when_both_ends_are_at_the_same_place() {
        let mut ring = [0; PAGE_SIZE];
        ring[REQUESTS..][..4].copy_from_slice(&0x1_0007_u32.to_le_bytes());
        ring[ANSWERS..][..4].copy_from_slice(&0x1_0006_u32.to_le_bytes());
        assert!(!is_answered(&ring));
        ring[ANSWERS] = 7;
        // Where the ends want to be woken says nothing.
        ring[4] = 9;
        assert!(is_answered(&ring));
    }
}
