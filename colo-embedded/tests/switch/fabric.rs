//! The fabric against the simplest model there is: the list of all frames ever seen.

use colo_embedded::switch::fabric::{Delivery, Fabric, PortId};
use proptest::prelude::*;
use std::time::{Duration, Instant};

const MAX_AGE_S: u64 = 10;

#[derive(Clone, Debug)]
enum Event {
    Frame { port: u32, source: u8, destination: u8 },
    HangUp { port: u32 },
    Wait { seconds: u64 },
    Age,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => (1_u32..5, 0_u8..8, 0_u8..10).prop_map(|(port, source, destination)| Event::Frame { port, source, destination }),
        1 => (1_u32..5).prop_map(|port| Event::HangUp { port }),
        3 => (1_u64..8).prop_map(|seconds| Event::Wait { seconds }),
        1 => Just(Event::Age),
    ]
}

/// 8 is a multicast address, 9 the broadcast address.
fn address(number: u8) -> [u8; 6] {
    match number {
        8 => [1, 0, 0x5e, 0, 0, 1],
        9 => [0xff; 6],
        number => [2, 0, 0, 0, 0, number],
    }
}

/// The last frame from this address: when, and where; unless a hang-up of that port came after it.
fn last_seen(history: &[(u64, Event)], now: u64, wanted: u8) -> Option<u32> {
    for (index, (at, event)) in history.iter().enumerate().rev() {
        match *event {
            Event::Frame { port, source, .. } if source == wanted => {
                let hung_up =
                    history[index..].iter().any(|(_, later)| matches!(later, Event::HangUp { port: p } if *p == port));
                return (!hung_up && now - at < MAX_AGE_S).then_some(port);
            }
            _ => {}
        }
    }
    None
}

proptest! {
    #[test]
    fn frames_go_where_the_history_says(events in prop::collection::vec(event(), 1..200)) {
        let start = Instant::now();
        let mut fabric = Fabric::new(Duration::from_secs(MAX_AGE_S));
        let mut history: Vec<(u64, Event)> = Vec::new();
        let mut now_s = 0;
        for event in events {
            let now = start + Duration::from_secs(now_s);
            match event {
                Event::Frame { port, source, destination } => {
                    let known_at = last_seen(&history, now_s, source);
                    history.push((now_s, event));
                    let expected = match last_seen(&history, now_s, destination) {
                        _ if destination >= 8 => Delivery::Flood,
                        Some(there) if there == port => Delivery::Drop,
                        Some(there) => Delivery::To(PortId(there)),
                        None => Delivery::Flood,
                    };
                    let frame = [&address(destination)[..], &address(source), &[8, 0]].concat();
                    let outcome = fabric.handle_frame(now, PortId(port), &frame);
                    prop_assert_eq!(outcome.delivery, expected);
                    prop_assert_eq!(outcome.appeared.is_some(), known_at != Some(port));
                }
                Event::HangUp { port } => {
                    fabric.remove_port(PortId(port));
                    history.push((now_s, event));
                }
                Event::Wait { seconds } => now_s += seconds,
                Event::Age => {
                    fabric.handle_age(now);
                    let known = (0..8).filter(|&number| last_seen(&history, now_s, number).is_some()).count();
                    prop_assert_eq!(fabric.len(), known);
                }
            }
        }
    }
}
