//! Real network devices and real TCP/IP, in network namespaces of this test's own. Takes root.

#[path = "namespaces/devices.rs"]
mod devices;
#[path = "namespaces/namespace.rs"]
mod namespace;
#[path = "namespaces/takeover.rs"]
mod takeover;
