//! Machines that are processes: [`colo_core::domain`]'s seam without a hypervisor, without root, at native speed.
//!
//! [`EmbeddedDomain::boot`] makes one from the guest program that is built in; [`EmbeddedHost`] makes empty ones for a state to
//! be loaded into. Everything that a machine is lies in its memory ([`ram`]), its registers ([`registers`]) and its clock.
//!
//! ```
//! use colo_core::domain::{Control, RunState};
//! use colo_embedded::machine::{EmbeddedConfig, EmbeddedDomain};
//!
//! let (mut domain, _card) = EmbeddedDomain::boot(&EmbeddedConfig::named("demo"))?;
//! domain.resume()?;
//! assert_eq!(domain.run_state(), RunState::Running);
//! domain.suspend()?;
//! assert_eq!(domain.run_state(), RunState::Suspended);
//! # Ok::<(), colo_core::domain::DomainError>(())
//! ```

#[path = "../../abi.rs"]
pub mod abi;
mod config;
mod console;
mod dirty;
mod domain;
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

pub use config::{EmbeddedConfig, HYPERVISOR};
pub use dirty::DirtyLogChoice;
pub use domain::EmbeddedDomain;
pub use host::{EmbeddedHost, SwitchPort};
pub use nic::RingPort;
pub use registers::{EMBEDDED_DEVICES, EMBEDDED_VCPU};
pub use vcpu::EndReport;
