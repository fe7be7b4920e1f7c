//! Back to how it was: the same whoever does it, and from wherever its predecessor died.

use super::error::{TakeoverError, doing};
use super::record::{Device, Orphan, Record};
use super::{Repaired, namespace, quiet};
use crate::net::sys::{Link, LinkId, Links};
use rustix::io::Errno;
use std::io;
use std::path::Path;

/// Does what was to be done if the process dies that had the card.
pub(super) fn settle(record: &Record, file: &Path) -> Result<Repaired, TakeoverError> {
    if record.orphan == Orphan::PutBack {
        return put_back(record, file);
    }
    let mut links = begin(record)?;
    Ok(if look(&mut links, record.vif.id)?.is_some() { Repaired::KeptOut } else { Repaired::Gone })
}

/// Puts a card back. The TAP leaves the bridge before the card enters it.
pub(super) fn put_back(record: &Record, file: &Path) -> Result<Repaired, TakeoverError> {
    let vif = &record.vif;
    let mut links = begin(record)?;
    let Some(card) = look(&mut links, vif.id)? else { return Ok(Repaired::Gone) };
    if card.name != vif.name {
        let (vif, bridge) = (vif.name.clone(), record.bridge.name.clone());
        return Err(TakeoverError::Renamed { vif, now: card.name, bridge, file: file.to_owned() });
    }
    let bridge = match card.master {
        Some(master) if master != record.bridge.id => None,
        _ => Some(find_bridge(&mut links, record)?),
    };
    let what = || format!("putting {} back into {}", vif.name, record.bridge.name);
    if let Some(bridge) = &bridge {
        // Down, so that nothing passes before the port is what it was.
        links.set_up(vif.id, false).map_err(doing(what))?;
        if card.master.is_none() {
            links.set_master(vif.id, Some(bridge.id)).map_err(doing(what))?;
        }
        links.set_bridge_port(vif.id, &record.port).map_err(doing(what))?;
    }
    quiet::restore(&vif.name, &record.host).map_err(doing(what))?;
    links.set_arp(vif.id, record.has_arp).map_err(doing(what))?;
    links.set_up(vif.id, record.is_up).map_err(doing(what))?;
    Ok(bridge.map_or(Repaired::Elsewhere, |bridge| Repaired::PutBack { bridge: bridge.name }))
}

/// Whatever is done then, the TAP goes first.
fn begin(record: &Record) -> Result<Links, TakeoverError> {
    if namespace()? != record.namespace {
        return Err(TakeoverError::OtherNamespace { vif: record.vif.name.clone() });
    }
    let mut links = Links::open().map_err(doing(|| "asking for network devices".into()))?;
    remove_tap(&mut links, &record.tap)?;
    Ok(links)
}

/// Removes the TAP, which would stay as long as anybody has a descriptor of it.
fn remove_tap(links: &mut Links, tap: &Device) -> Result<(), TakeoverError> {
    let what = || format!("removing {}", tap.name);
    let is_it = |link: &Link| link.name == tap.name && link.kind.as_deref() == Some("tun");
    if look(links, tap.id)?.as_ref().is_none_or(|link| !is_it(link)) {
        return Ok(());
    }
    links.remove(tap.id).or_else(unless_gone).map_err(doing(what))
}

/// The bridge, and else one of its name: the network may have been set up anew.
fn find_bridge(links: &mut Links, record: &Record) -> Result<Link, TakeoverError> {
    let bridge = &record.bridge;
    if let Some(link) = look(links, bridge.id)?.filter(Link::is_bridge) {
        return Ok(link);
    }
    match links.find(&bridge.name) {
        Ok(link) if link.is_bridge() => Ok(link),
        _ => Err(TakeoverError::BridgeGone { vif: record.vif.name.clone(), bridge: bridge.name.clone() }),
    }
}

/// A device; none when it is gone.
fn look(links: &mut Links, id: LinkId) -> Result<Option<Link>, TakeoverError> {
    match links.get(id) {
        Ok(link) => Ok(Some(link)),
        Err(error) => {
            unless_gone(error).map_err(doing(|| format!("asking for network device {id}")))?;
            Ok(None)
        }
    }
}

fn unless_gone(error: io::Error) -> io::Result<()> {
    if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) { Ok(()) } else { Err(error) }
}
