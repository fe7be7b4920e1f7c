//! The connection between the hosts.
//!
//! Two TCP connections carry a session: the *state* channel (checkpoints, in bulk) and the *net* channel (packets, and the
//! heartbeat), so that no packet waits behind a checkpoint; and a third, the *disk* channel, where the machine has disks
//! ([`crate::disk`] says what goes over it). All speak the same framed, versioned [`Message`]s. A COLO session:
//!
//! ```text
//!        primary                                              secondary
//!           |                    both connections                |
//!           | Hello -------------------------------------------> |  checks version, hypervisor and heartbeat
//!           | <--------------------- Welcome, or Refused and end |
//!           |                                                    |  when all have greeted: makes the domain
//!           | <--------------------------- net: Goodbye (failed) |  or cannot
//!           |                                                    |
//!           |                       state                        |
//!           | Stream: headers, static data, pages -------------> |  initial copy, while the guest runs
//!           | Stream: pages dirtied since, again and again ----> |  keeps all of it aside
//!  suspend  | Stream: last pages, state, CHECKPOINT -----------> |
//!           | EpochEnd 1 --------------------------------------> |  whole? checksum right? else it ends here
//!           | <----------------------------------- EpochStaged 1 |  will apply it, come what may
//!  resume   | <---------------------------------- EpochApplied 1 |  its guest runs, from where the primary's was
//!           |                                                    |
//!           |                        net                         |
//!           | Heartbeat <-------------------------> Heartbeat    |  from Welcome on, both ways
//!           | Input 1: frames from the clients ----------------> |  given to its guest too
//!           | <----------------------- Output 1: frames, from #0 |  what its guest says to that
//!  compare  | Released 1: #0, #1 ------------------------------> |  has left, so it is forgotten
//!           |                                                    |
//!           |               state: a miscompare                  |
//!  suspend  | Stream: dirty pages, state, CHECKPOINT ----------> |  or first: <--- CheckpointWanted
//!           | EpochEnd 2 --------------------------------------> |
//!           | <----------------------------------- EpochStaged 2 |
//!  resume   | <---------------------------------- EpochApplied 2 |
//!           | HeldReleased 2 (net) ----------------------------> |  the output held until then has left
//!           |                                                    |
//!           | Goodbye, either way, on either: the last message   |
//! ```
//!
//! A primary may ask first, on a connection of its own that ends with the answer (`Inquiry`, `Facts` or `Refused`).
//!
//! With Remus the secondary's guest does not run: there are no `Input`, `Output` and `Released`; the output of an epoch leaves at
//! `EpochStaged`. `docs/peer-protocol.md` says which message may come when, and what is in each.
//!
//! * [`FrameEncoder`] and [`FrameDecoder`] turn messages into bytes and back, and check everything that can be checked without
//!   knowing the session. They do no input or output.
//! * [`StateChannel`] waits, with a deadline; every connection begins as one. [`NetChannel`] never waits.
//!
//! ```
//! use colo_core::peer::{FrameDecoder, FrameEncoder, Message};
//!
//! let mut bytes = Vec::new();
//! FrameEncoder::new().encode(&Message::Welcome, &mut bytes)?;
//!
//! let mut decoder = FrameDecoder::new();
//! decoder.feed(&bytes[..7]);
//! assert_eq!(decoder.next_message()?, None);
//! decoder.feed(&bytes[7..]);
//! assert_eq!(decoder.next_message()?, Some(Message::Welcome));
//! # Ok::<(), colo_core::peer::PeerError>(())
//! ```

mod codec;
mod connection;
mod decoder;
mod error;
mod frame;
mod handover;
mod message;
mod net_channel;
#[cfg(test)]
mod tests;
pub(crate) mod wire;

pub use connection::{DEFAULT_PORT, ShutdownHandle, StateChannel, StateReceiver, StateSender};
pub use decoder::{FrameDecoder, ReadState};
pub use error::PeerError;
pub use frame::{
    FRAME_HEADER_BYTES, FrameEncoder, HASHED_BYTES, MAJOR_VERSION, MAX_DISK_BYTES, MAX_DISK_HASHES, MAX_FACT_BYTES,
    MAX_FACT_NAME_BYTES, MAX_FACTS, MAX_LIKENESS_BYTES, MAX_MESSAGE_FRAME_BYTES, MAX_MESSAGE_FRAMES, MAX_RELEASED,
    MAX_STREAM_BYTES, MAX_TEXT_BYTES, MINOR_VERSION, MessageKind, StreamSum,
};
pub use handover::Handover;
pub use message::{Channel, Facts, GoodbyeReason, Hello, Message, Mode, NetFrame};
pub use net_channel::{MAX_QUEUED_BYTES, NetChannel, Queued};
pub use wire::PayloadError;
