//! What the testbed shares with the programs that it starts inside its machines: dom0's agent (`dom0-agent`), and the first
//! process of every guest (`guest-init`).
//!
//! The programs are built as static binaries, so that they run in an image which has no libraries.

pub mod bytes;
pub mod memory;
pub mod ports;
pub mod protocol;
