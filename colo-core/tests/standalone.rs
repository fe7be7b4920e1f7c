//! A comparator that stands alone, over real sockets: the test is QEMU on both hosts, and the toolstack.
//!
//! No test waits for time to pass: each waits for an event, and a deadline turns a hang into a failure. That something has *not*
//! left is looked at when something that was sent later has.

#[path = "standalone/checkpoints.rs"]
mod checkpoints;
#[path = "standalone/connections.rs"]
mod connections;
#[path = "standalone/frames.rs"]
mod frames;
#[path = "standalone/limits.rs"]
mod limits;
#[path = "standalone/qemu.rs"]
mod qemu;
#[path = "standalone/rig.rs"]
mod rig;
