//! A card on which the host itself is silent and deaf.
//!
//! A port of a bridge is no business of the host's IP. A card that was taken out of its bridge is: the host would answer its guest's
//! ARP there with a wrong address, make itself a link-local address and announce it, and hear broadcasts twice. Packet sockets have a
//! frame before any of that.

use crate::net::sys::LinkName;
use std::io::{self, Write};

/// Where the kernel has it, its name in a record, and the value that silences. With a strict filter of sources (RFC 3704) an IPv4
/// packet is refused whose source is not reached by this card: no source is. (Where the host has set it to loose for all cards, that
/// one holds.)
const SWITCHES: [(&str, &str, i32); 2] = [("ipv6", "disable_ipv6", 1), ("ipv4", "rp_filter", 1)];

/// Silences a card, but for its ARP.
pub(super) fn silence(card: &LinkName) -> io::Result<()> {
    for (family, name, value) in SWITCHES {
        write(card, family, name, value)?;
    }
    Ok(())
}

/// What a card has set now.
pub(super) fn settings(card: &LinkName) -> io::Result<Vec<(String, i32)>> {
    let mut settings = Vec::new();
    for (family, name, _) in SWITCHES {
        match std::fs::read_to_string(path(card, family, name)) {
            Ok(text) => {
                let value = text.trim().parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
                settings.push((name.to_owned(), value));
            }
            // A host without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(settings)
}

/// Gives a card its settings back.
pub(super) fn restore(card: &LinkName, settings: &[(String, i32)]) -> io::Result<()> {
    for (family, name, _) in SWITCHES {
        for (_, value) in settings.iter().filter(|(known, _)| known == name) {
            write(card, family, name, *value)?;
        }
    }
    Ok(())
}

fn write(card: &LinkName, family: &str, name: &str, value: i32) -> io::Result<()> {
    match std::fs::File::options().write(true).open(path(card, family, name)) {
        Ok(mut file) => file.write_all(value.to_string().as_bytes()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// That of the network namespace of this thread.
fn path(card: &LinkName, family: &str, name: &str) -> String {
    format!("/proc/sys/net/{family}/conf/{card}/{name}")
}
