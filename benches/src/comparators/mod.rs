//! Comparators as processes, and a driver that feeds them: QEMU's `colo-compare`, this project's, and a program that only forwards.
//!
//! All three get the same bytes through the same kind of sockets from the same driver. A program that uses this calls [`play_role`]
//! first of all.

mod contender;
mod driver;
mod traffic;

pub use contender::{Contender, Running, play_role};
pub use driver::Measured;
pub use traffic::{Protocol, Traffic};
