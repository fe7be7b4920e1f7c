//! What passes, a line for each frame, where `COLO_TRACE` is set.

use colo_core::net::Frame;
use etherparse::{SlicedPacket, TransportSlice};
use std::sync::LazyLock;
use std::time::Instant;

static START: LazyLock<Option<Instant>> = LazyLock::new(|| std::env::var_os("COLO_TRACE").is_some().then(Instant::now));

/// Tells something, if it is wanted.
pub(crate) fn told(what: impl FnOnce() -> String) {
    if let Some(start) = *START {
        eprintln!("{:>10} us  {}", start.elapsed().as_micros(), what());
    }
}

/// Tells of a frame.
pub(crate) fn trace(way: &str, frame: &Frame) {
    told(|| match SlicedPacket::from_ethernet(frame).ok().and_then(|packet| packet.transport) {
        Some(TransportSlice::Tcp(tcp)) => {
            let flags = [(tcp.syn(), "SYN "), (tcp.fin(), "FIN "), (tcp.rst(), "RST ")];
            let flags: String = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
            let options: Vec<String> = tcp.options_iterator().flatten().map(|option| format!("{option:?}")).collect();
            format!(
                "{way:9} {} > {} {flags}seq {} ack {} window {} bytes {} {}",
                tcp.source_port(),
                tcp.destination_port(),
                tcp.sequence_number(),
                tcp.acknowledgment_number(),
                tcp.window_size(),
                tcp.payload().len(),
                options.join(" ")
            )
        }
        _ => format!("{way:9} {} bytes: {:02x?}", frame.len(), &frame[..frame.len().min(60)]),
    });
}
