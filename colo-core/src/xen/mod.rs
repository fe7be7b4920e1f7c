//! Real domains on Xen.

pub mod guard;
pub mod pv;
pub mod toolstack;
