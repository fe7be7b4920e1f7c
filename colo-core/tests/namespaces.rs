//! Real network devices and real TCP/IP, in network namespaces of this test's own. Takes root.

#[path = "namespaces/cases.rs"]
mod cases;
#[path = "namespaces/devices.rs"]
mod devices;
#[path = "namespaces/rig/mod.rs"]
mod rig;
#[path = "namespaces/takeover.rs"]
mod takeover;
