//! The embedded hypervisor: a process as a machine.
//!
//! A domain is a child process whose memory is one memory file and nothing else, mapped at a fixed address and by the monitor as
//! well. Its vCPU is that process' registers, which a thread of the monitor stops, reads and sets by ptrace(2) at any instruction;
//! its hypercalls are system calls behind a filter; its network card is a pair of rings in its memory, its disk another ring. So a copy of memory, registers
//! and clock is a copy of the machine. [`crate::abi`] is the contract with the guest program.
//!
//! ```text
//!   monitor (this process)                         guest (its child)
//!   EmbeddedDomain ── Vcpu ── thread ───ptrace───▶ registers
//!        │            dirty/ ──────pagemap───────▶ page tables (userfaultfd)
//!        └─ GuestRam ═══════════one memfd════════▶ memory, at RAM_BASE
//!   RingPort ── Nic ═══════════════════════════════╡   ▲ doorbells (eventfds), event (futex)
//!   DiskGate ── disk/ ─ thread ════════════════════╛   a disk's requests, over a `Backend`
//! ```
//!
//! A domain dies with its monitor, however that dies. It needs no privilege.
//!
//! ```
//! use colo_core::domain::Control;
//! use colo_core::net::Port;
//! use colo_embedded::machine::{EmbeddedConfig, EmbeddedDomain};
//!
//! let (mut domain, mut port) = EmbeddedDomain::boot(&EmbeddedConfig::named("web"))?;
//! domain.resume()?;
//! let mut frames = Vec::new();
//! port.receive(&mut frames)?;
//! domain.suspend()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod config;
mod console;
mod dirty;
mod disk;
mod domain;
mod doorbell;
mod host;
mod loader;
mod nic;
mod page_set;
mod process;
mod ptrace;
mod ram;
mod registers;
mod seccomp;
mod vcpu;

use crate::abi;

pub use config::{EmbeddedConfig, HYPERVISOR};
pub use dirty::DirtyLogChoice;
pub use disk::{DiskGate, GatedTap};
pub use domain::{EmbeddedDomain, GUEST_PROGRAM};
pub use host::EmbeddedHost;
pub use nic::RingPort;
pub use registers::{EMBEDDED_DEVICES, EMBEDDED_VCPU};
pub use vcpu::EndReport;
