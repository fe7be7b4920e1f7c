//! The parts of the guest that do not touch its machine: what it serves, and how. Everything here is sans-IO, bounded by
//! constants with a reason, and runs on the host in tests; `main.rs` adds the machine.
//!
//! * [`http`]: the head of a request, parsed.
//! * [`session`]: one connection's conversation, as bytes in and bytes out.
//! * [`service`]: what the routes do.
//! * [`store`]: the key-value store and the arena of pages, with their checksum.
//! * [`flow`]: which connection a packet belongs to.
//! * [`window_probe`]: what smoltcp's TCP lacks.
//! * [`mem`]: copying and comparing memory.
//! * [`plan`]: how the memory is divided.
//! * [`body`]: the reproducible bodies of `/bytes/N`.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

#[path = "../../abi.rs"]
pub mod abi;
pub mod body;
pub mod flow;
pub mod http;
pub mod mem;
pub mod plan;
pub mod service;
pub mod session;
pub mod store;
pub mod window_probe;
