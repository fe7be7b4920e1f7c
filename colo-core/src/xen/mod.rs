//! Real domains on Xen.

pub mod guard;
