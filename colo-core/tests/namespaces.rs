//! Real network devices and real TCP/IP, in network namespaces of this test's own. Takes root.

#[path = "namespaces/cases.rs"]
mod cases;
#[path = "namespaces/devices.rs"]
mod devices;
#[path = "namespaces/harness.rs"]
mod harness;
#[path = "namespaces/ledger.rs"]
mod ledger;
#[path = "namespaces/namespace.rs"]
mod namespace;
#[path = "namespaces/rig.rs"]
mod rig;
#[path = "namespaces/servers.rs"]
mod servers;
#[path = "namespaces/wire.rs"]
mod wire;
