//! The connection between the hosts.
//!
//! Two TCP connections carry a session: the *state* channel (checkpoints, in bulk) and the *net* channel (packets, and the
//! heartbeat), so that no packet waits behind a checkpoint. Both speak the same framed, versioned [`Message`]s.

mod message;

pub use message::{Channel, GoodbyeReason, Hello, Message, Mode, NetFrame};
