//! The embedded hypervisor: a process as a machine, and the LAN between such machines and their clients.
//!
//! * [`machine`]: domains. Their memory is one file, their vCPU one traced process, their card two rings.
//! * [`switch`]: an Ethernet switch as a process of its own, with a way in for clients of this host.
//! * [`body`]: what the guest's `/bytes/N` serves, for clients that check it.
//!
//! `abi.rs`, beside `src/`, is what the hypervisor and its guests agree on; `guest/` is the guest.

#[path = "../guest/src/body.rs"]
pub mod body;
pub mod machine;
pub mod switch;
