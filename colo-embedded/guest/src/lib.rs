//! The guest of colo's embedded hypervisor: a small unikernel that serves HTTP, a key-value store, and echo.
//!
//! This library is all of it but the machine's own instructions: it uses no operating system, and its tests run on the
//! host. The program (`main.rs`) adds the entry point, the hypercalls, the heap, and the loop that sleeps.
//!
//! [`machine::Machine::round`] is the whole life of the guest, again and again: take frames in from the card ([`device`]),
//! serve the connections ([`pool`], [`session`], [`echo`]), send. Everything lies in guest memory, but for what a machine with a
//! [`disk`] keeps there: the [`log`] behind its key-value store, and an area that clients read and write as they like.
//!
//! ```
//! // What a client of `/bytes/16` gets, and how it checks it.
//! let mut bytes = [0; 16];
//! colo_guest::body::fill(0, &mut bytes);
//! assert_eq!(colo_guest::body::first_difference(0, &bytes), None);
//! ```

#![cfg_attr(not(test), no_std)]

extern crate alloc;
#[cfg(test)]
extern crate std;

#[path = "../../abi.rs"]
pub mod abi;
pub mod answer;
pub mod arena;
pub mod body;
pub mod device;
pub mod disk;
pub mod echo;
pub mod http;
pub mod kv;
pub mod layout;
pub mod log;
pub mod machine;
pub mod nudge;
pub mod pending;
pub mod perform;
#[cfg(test)]
mod platter;
pub mod pool;
pub mod receipt;
pub mod reply;
pub mod ring;
pub mod service;
pub mod session;
pub mod store;
pub mod sum;
