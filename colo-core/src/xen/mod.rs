//! Xen: its hypervisor and its toolstack, seen from the domain that manages it.
//!
//! * [`toolstack`]: what `xl` and libxl do for us, above all to build a domain that is to be restored.
//! * [`qmp`]: the device model's monitor.

pub mod qmp;
pub mod toolstack;
