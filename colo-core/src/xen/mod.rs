//! Xen, as a hypervisor for colo.
//!
//! * [`pv`]: what a paravirtualised guest needs so that it can be saved and restored: pure logic, which needs no Xen.

pub mod pv;
