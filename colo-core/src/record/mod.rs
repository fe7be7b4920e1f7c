//! What both machines had said when they were found to differ: written down, read again, and told in words.
//!
//! A [`Recording`] makes a pcapng file of the [`Evidence`](crate::compare::Evidence) of divergences, for Wireshark and its kin. A
//! [`RecordReader`] reads it again, one [`Miscompare`] at a time, and [`explain`] tells in what the two machines differed: protocol,
//! field, offset, both values. All of it is sans-IO: bytes out, bytes in.
//!
//! ```
//! use colo_core::compare::{Divergence, Evidence, FlowKey, Reason};
//! use colo_core::ids::Epoch;
//! use colo_core::net::testing::udp;
//! use colo_core::record::{MAX_FILE_BYTES, Miscompare, RecordReader, Recording, explain};
//! use std::time::SystemTime;
//!
//! let (primary, secondary) = (udp(53, 4000, b"10:15"), udp(53, 4000, b"10:16"));
//! let divergence = Divergence {
//!     flow: Some(FlowKey::of(0, &primary)),
//!     reason: Reason::PayloadDiffers { offset: 46 },
//!     evidence: Some(Box::new(Evidence { primary: vec![primary], secondary: vec![secondary] })),
//! };
//! let miscompare = Miscompare::of(1, SystemTime::now(), Epoch(7), divergence);
//!
//! let mut recording = Recording::new(MAX_FILE_BYTES);
//! let mut file = recording.begin();
//! file.extend(recording.add(&miscompare).expect("there is room"));
//!
//! let mut reader = RecordReader::new(&file[..]);
//! let read = reader.next_miscompare()?.expect("there is one");
//! assert_eq!(read, miscompare);
//! let explanation = explain(&read);
//! assert_eq!(
//!     explanation.differences[0].to_string(),
//!     "UDP payload, byte 4 (byte 46 of frame 1, byte 46 of frame 2): primary 0x35 '5', secondary 0x36 '6'"
//! );
//! # Ok::<(), colo_core::record::RecordError>(())
//! ```
//!
//! # The file
//!
//! One section, with two interfaces of link type Ethernet, `primary` and `secondary`, whose times are in nanoseconds. The frames of a
//! miscompare follow each other, all with the time at which it was found: the primary's first, the secondary's first, the primary's
//! second, and so on; what one side has more comes last. The secondary's sequence numbers are the primary's, where these were known. Each
//! frame has a comment:
//!
//! ```text
//! miscompare 3 (epoch 7), frame 2 of 5: UDP 10.0.0.1:53 > 10.0.0.2:4000 (nic 0): payload differs at 46
//! ```
//!
//! Numbers that are missing are miscompares that could not be recorded. What a card would have completed (checksums, segmentation) is
//! as the guest left it.
//!
//! # Other files
//!
//! Any pcapng file with two interfaces of link type Ethernet in each section can be explained. Those named `primary` and `secondary` are
//! taken for that; else the first is the primary's. Frames without a comment of ours are put together by flow, and each flow in which the
//! two sides differ counts as a miscompare. Nothing moves the sequence numbers of such a capture: where the two machines have chosen
//! different ones, it is these that differ.

mod comment;
mod error;
mod explain;
mod pcapng;
mod reader;
mod recording;

#[cfg(test)]
mod tests;

pub use error::{RecordError, RecordErrorKind};
pub use explain::{Difference, Excerpt, Explanation, Place, explain};
pub use reader::RecordReader;
pub use recording::{MAX_FILE_BYTES, MAX_MISCOMPARE_BYTES, Recording};

use crate::compare::Divergence;
use crate::ids::Epoch;
use crate::net::Frame;
use std::time::SystemTime;

/// The interface of the primary's frames.
const PRIMARY: &str = "primary";
/// The interface of the secondary's frames.
const SECONDARY: &str = "secondary";

/// What both machines had said when they were found to differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Miscompare {
    /// Which one it is in its session, from 1.
    pub number: u64,
    /// When it was found.
    pub time: SystemTime,
    /// The epoch in which it was found, if that is known.
    pub epoch: Option<Epoch>,
    /// The divergence's words; of a file that is not ours, the flow.
    pub what: String,
    /// The primary's frames, oldest first.
    pub primary: Vec<Frame>,
    /// The secondary's frames, oldest first.
    pub secondary: Vec<Frame>,
    /// How many frames there were when it was recorded. More than there are now when the file was cut, or filtered.
    pub frames: usize,
}

impl Miscompare {
    /// From a divergence with its evidence.
    pub fn of(number: u64, time: SystemTime, epoch: Epoch, divergence: Divergence) -> Miscompare {
        let what = divergence.to_string();
        let evidence = divergence.evidence.map(|evidence| *evidence).unwrap_or_default();
        let frames = evidence.primary.len() + evidence.secondary.len();
        let (primary, secondary) = (evidence.primary, evidence.secondary);
        Miscompare { number, time, epoch: Some(epoch), what, primary, secondary, frames }
    }
}
