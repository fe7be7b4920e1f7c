//! Gives a domain of this host an event channel that it has no use for: `xen_channel DOMAIN`. From then on its channels are others than
//! those of a domain that is made anew from its image, as those of a guest are whose devices came and went.

use colo_core::ids::DomId;
use colo_core::xen::{Control, Xen};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let domain = std::env::args().nth(1).ok_or("usage: xen_channel DOMAIN")?.parse()?;
    println!("{}", Control::open(Xen::open()?)?.evtchn_alloc_unbound(DomId(domain), DomId(0))?);
    Ok(())
}
