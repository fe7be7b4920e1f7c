//! Two machines with one client, real TCP/IP in all three, and between them what a session's net threads do.

// The tests use one part of it, and a bench another.
#![allow(dead_code)]

pub(crate) mod harness;
mod ledger;
pub(crate) mod machines;
pub(crate) mod namespace;
pub(crate) mod servers;
mod trace;
mod wire;
