//! The NBD protocol, as <https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md> has it: the fixed newstyle negotiation, and both
//! kinds of replies. All numbers are big-endian.
//!
//! [`Handshake`] is a server's side of the negotiation, and [`Request`] and [`Reply`] are what follows; none of them does input or output.
//! [`serve`] does, for one connection over one disk; [`Server`] is a file or a device and a socket, with a thread for each connection.
//!
//! [`ClientHandshake`] and [`Replies`] are a client's side, without input and output, too; [`Client`] is a disk that a server has, as a
//! [`Backend`](crate::disk::Backend).
//!
//! ```
//! use colo_core::disk::nbd::{Export, Handshake, Progress};
//!
//! let mut handshake = Handshake::new(vec![Export::new("disk", 1 << 20)]);
//! assert_eq!(&handshake.take_output()[..16], b"NBDMAGICIHAVEOPT");
//! // NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES; then NBD_OPT_EXPORT_NAME.
//! handshake.feed(&[0, 0, 0, 3]);
//! assert!(matches!(handshake.feed(b"IHAVEOPT\0\0\0\x01\0\0\0\x04disk"), Progress::Chosen(_)));
//! assert_eq!(handshake.take_output()[..8], (1_u64 << 20).to_be_bytes());
//! ```

mod client;
mod export;
mod fields;
mod handshake;
mod reply;
mod request;
mod serve;
mod server;
mod wire;

pub use client::{
    Address, Answer, Answered, Client, ClientConfig, ClientError, ClientHandshake, ClientProgress, Lie, Location,
    LocationError, NBD_PORT, NegotiationError, Offer, Replies,
};
pub use export::Export;
pub use handshake::{Handshake, HandshakeError, Progress, Session};
pub use reply::Reply;
pub use request::{Command, Request};
pub use serve::{Limits, ServeError, serve, serve_one_of, serve_within};
pub use server::{DiskConfig, OpenError, Server, ServerConfig};
pub use wire::MAX_REQUEST_BYTES;
