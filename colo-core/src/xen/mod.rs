//! Real domains on Xen.

pub mod guard;
pub mod toolstack;
