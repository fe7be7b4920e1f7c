//! The embedded hypervisor: a process as a machine, on any Linux host, without privilege; and the LAN between such machines and
//! their clients.
//!
//! * [`machine`]: domains, and the host that makes them; they plug into `colo_core::domain` and `colo_core::net`.
//! * [`switch`]: an Ethernet switch as a process of its own, with a way in for clients of this host.
//! * [`abi`]: what machines and guest programs agree on. The guest program is in `guest/`, a workspace of its own.
//! * [`body`]: what the guest's `/bytes/N` serves, for clients that check it.

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!("the embedded hypervisor drives Linux processes on x86-64 only");

#[path = "../abi.rs"]
pub mod abi;
#[path = "../guest/src/body.rs"]
pub mod body;
pub mod machine;
pub mod switch;
