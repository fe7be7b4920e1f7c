//! Linux' network devices: where packets come from and go to on a real host.
//!
//! * [`Tap`]: a network card of the host's whose cable ends here. What the host sends is received, what is sent comes in there.
//! * [`PacketSocket`]: the cable of a card that is there already, such as the host's end of a Xen guest's.
//! * [`Links`]: the cards themselves: up or down, their bridge, their MTU.
//!
//! The first two are [`Port`](super::Port)s. Their frames come with what their sender has left to do ([`Offload`](super::Offload)), and
//! go out with it: a segment of 64 KiB passes as one frame, and no checksum is computed on the way.
//!
//! Everything here happens in the network namespace of the thread that opens it, and stays there wherever it is moved. Nothing here
//! assumes one card: open as many as a guest has.
//!
//! ```no_run
//! use colo_core::net::Port;
//! use colo_core::net::sys::{Links, Offloads, PacketSocket, Promiscuous, Tap};
//!
//! // What the guest says goes to the clients, by way of the bridge.
//! let mut links = Links::open()?;
//! let mut guest = PacketSocket::open(&"vif5.0".parse()?, Promiscuous::Yes)?;
//! let mut clients = Tap::open(&"colo5.0".parse()?, Offloads::On)?;
//! let (tap, bridge) = (links.find(&"colo5.0".parse()?)?, links.find(&"xenbr0".parse()?)?);
//! links.set_master(tap.id, Some(bridge.id))?;
//! links.set_up(tap.id, true)?;
//!
//! let mut frames = Vec::new();
//! guest.receive(&mut frames)?;
//! clients.send(&frames)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod backlog;
mod link;
mod low_water;
mod name;
mod netlink;
mod packet;
mod slot;
mod tap;

pub use backlog::Backlog;
pub use link::{BridgePort, Link, LinkId, Links};
pub(crate) use low_water::set_receive_low_water;
pub use name::{LinkName, LinkNameError};
pub use packet::{PacketSocket, Promiscuous};
pub use tap::{Offloads, Tap, open_bare_tap};

use std::ffi::c_int;
use std::io;

/// What a call of C's says, or the error that it has left.
fn done(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
