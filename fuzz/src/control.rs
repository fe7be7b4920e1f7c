//! What is said on a disk server's control socket: by whoever drives or asks, and by a server.

use colo_core::disk::control::{Answer, ControlError, MAX_PACKET_BYTES, Reported, Request, Role, Said};
use colo_core::disk::{Compared, CopyProgress, Difference, DiskError, DiskEvent, DiskState, DiskStatus};
use colo_core::ids::Epoch;
use std::time::Duration;

/// Takes `data`, without its first byte, for a packet of whom that says.
///
/// # Panics
/// When what was read is another than what was sent: each message has one form.
pub fn fuzz(data: &[u8]) {
    match data.split_first() {
        Some((0, packet)) => match Request::decode(packet) {
            Ok((number, request)) => assert_eq!(request.encode(number), packet),
            Err(error) => check(&error),
        },
        Some((_, packet)) => match Said::decode(packet) {
            Ok(said) => {
                assert_eq!(said.encode(), packet);
                assert!(packet.len() <= MAX_PACKET_BYTES);
            }
            Err(error) => check(&error),
        },
        None => {}
    }
}

fn check(error: &ControlError) {
    assert!(matches!(error, ControlError::Version(_) | ControlError::Malformed(_)), "{error}");
}

/// Every request, and everything that is said.
pub fn seeds() -> Vec<Vec<u8>> {
    let (epoch, wait) = (Epoch(7), Duration::from_millis(100));
    let requests = [
        Request::Attach { patience: Duration::from_secs(5), sent: 3, received: 4 },
        Request::Detach,
        Request::Freeze,
        Request::Thaw,
        Request::Barrier(epoch),
        Request::Committed(epoch),
        Request::WaitBarrier(epoch, wait),
        Request::Release,
        Request::WantsCheckpoint,
        Request::Commit(epoch),
        Request::FailOver,
        Request::Drive,
        Request::Status,
        Request::Verify,
    ];
    let progress = CopyProgress { done_bytes: 1, all_bytes: 2, sent_bytes: 3, took: wait };
    let reported = |state| Reported {
        is_driven: true,
        disks: DiskStatus {
            state,
            epoch,
            whole_epoch: epoch,
            waiting_bytes: 5,
            limit_bytes: 6,
            journal_bytes: 7,
        },
    };
    let differences = vec![Difference { disk: 1, range: 65_536..131_072, is_unreadable: false }; 2];
    let said = [
        Said::Hello { role: Role::Primary, is_shared: true, sizes: vec![1 << 30; 2] },
        Said::Answer(1, Answer::Done),
        Said::Answer(2, Answer::Failed(DiskError::NoSpace)),
        Said::Status(3, reported(DiskState::Alone(None))),
        Said::Status(3, reported(DiskState::Alone(Some("gone".into())))),
        Said::Status(3, reported(DiskState::Copying(progress))),
        Said::Status(3, reported(DiskState::InStep)),
        Said::Comparing { number: 4, done_bytes: 1, all_bytes: 2, differing_parts: 3 },
        Said::Compared(4, Compared { compared_bytes: 9, differing_parts: 2, differences }),
        Said::NotCompared { number: 4, is_unprotected: true, why: "not protected".into() },
        Said::Event(DiskEvent::Copying { done_bytes: 1, all_bytes: 2, sent_bytes: 3 }),
        Said::Event(DiskEvent::InStep),
        Said::Event(DiskEvent::WantsCheckpoint),
        Said::Event(DiskEvent::Lost("gone".into())),
        Said::Event(DiskEvent::Failed("a disk".into())),
    ];
    let requests = requests.iter().zip(1..).map(|(request, number)| [vec![0], request.encode(number)].concat());
    requests.chain(said.iter().map(|said| [vec![1], said.encode()].concat())).collect()
}
