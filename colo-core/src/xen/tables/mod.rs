//! The tables by which the hypervisor knows a domain: its event channels, its grants, the page that it shares with it.
//!
//! They are what a guest's memory refers to by number and does not hold itself. Of two domains that were made from one image, and have
//! gone the same way since, they are the same; where that is so, the one's memory may be put under the other's tables.
//!
//! ```no_run
//! use colo_core::ids::DomId;
//! use colo_core::xen::tables::{first_difference, read_ports};
//! use colo_core::xen::{Control, Xen};
//!
//! let control = Control::open(Xen::open()?)?;
//! let (one, other) = (read_ports(&control, DomId(3))?, read_ports(&control, DomId(4))?);
//! if let Some(difference) = first_difference(&one, &other, false) {
//!     println!("{difference}");
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod events;
mod grants;
mod ports;
mod shared_info;

pub use events::{is_event_array, linked_port, mask_all};
pub use grants::{GrantFrames, is_any_in_use, is_in_use, is_writable, is_written, put_over};
pub use ports::{first_difference, read_ports};
pub use shared_info::{mask_shared_info, read_shared_info, write_shared_info};
