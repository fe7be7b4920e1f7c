//! Rules: flows that are not compared, or not in all their bytes.
//!
//! ```
//! use colo_core::compare::Rules;
//!
//! let rules: Rules = r#"
//!     ## A server that sends its clock.
//!     mask tcp from :80 after "Date: " until "\r\n"
//!     mask udp from 10.0.0.1:123 bytes 40..48
//!     ignore tcp from :9100
//!     bypass udp to 224.0.0.0/4
//! "#.parse()?;
//! assert_eq!(rules.len(), 4);
//!
//! let error = "mask tcp from :80".parse::<Rules>().unwrap_err();
//! assert_eq!(error.to_string(), "line 1: a mask needs `bytes FROM..TO` or `after \"...\" until \"...\"`");
//! # Ok::<(), colo_core::compare::RuleError>(())
//! ```
//!
//! One rule in a line: `ACTION PROTOCOL [from ENDPOINT] [to ENDPOINT] [nic N] [vlan N] [WHAT IS MASKED]`. The first that fits a flow
//! holds, from the flow's first frame on.
//!
//! | Action | |
//! | --- | --- |
//! | `bypass` | the primary's frames leave at once, uncompared, before the secondary or a checkpoint has them: after a failover clients may have seen what the secondary never said. For what repeats itself: announcements, statistics |
//! | `ignore` | a frame or a stretch of a stream leaves when the secondary has produced as much, whatever its bytes are |
//! | `mask` | as compared, but for some bytes: `bytes FROM..TO`, counted from the payload's first byte (of a TCP stream, when its beginning was seen), and `after "TEXT" until "TEXT"`, the second text included. Several may stand in one rule |
//!
//! Protocols: `tcp`, `udp`, `icmp` (echoes, also of IPv6), `arp`, `ip NUMBER` (all other), `any`. An endpoint is `ADDRESS`,
//! `ADDRESS/BITS`, either with `:PORT` behind it (`[ADDRESS]:PORT` for IPv6), or `:PORT` alone; `from` is the guest's side. In a text
//! `\r`, `\n`, `\t`, `\"`, `\\` and `\xHH` stand for what they do elsewhere; `#` begins a comment.

mod mask;
mod parse;

pub use parse::RuleError;

pub(super) use mask::{Masks, Scan};

use super::key::{FlowKey, FlowKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Which flows are not compared, or not in all their bytes; none by default. See the [module](self).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rules(Arc<[Rule]>);

/// One rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Rule {
    matches: Match,
    pub(super) action: Action,
}

/// What is done to a flow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Action {
    Bypass,
    Ignore,
    Mask(Masks),
}

/// Which flows a rule is for; `None` fits all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Match {
    protocol: Option<Protocol>,
    source: Endpoint,
    destination: Endpoint,
    nic: Option<u8>,
    vlan: Option<u16>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Protocol {
    Tcp,
    Udp,
    Icmp,
    Arp,
    Ip(u8),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Endpoint {
    network: Option<(IpAddr, u8)>,
    port: Option<u16>,
}

impl Rules {
    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether everything is compared.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of the rule that holds for a flow.
    pub(super) fn find(&self, key: impl FnOnce() -> FlowKey) -> Option<u16> {
        if self.is_empty() {
            return None;
        }
        let key = key();
        self.0.iter().position(|rule| rule.matches.fits(&key)).map(|index| index as u16)
    }

    /// The rule with a number that [`find`](Self::find) gave.
    pub(super) fn action(&self, number: u16) -> &Action {
        &self.0[usize::from(number)].action
    }
}

impl Match {
    fn fits(&self, key: &FlowKey) -> bool {
        let fits = |from: SocketAddr, to: SocketAddr| self.source.fits(from) && self.destination.fits(to);
        let without_ports = |from: IpAddr, to: IpAddr| {
            let has_none = self.source.port.is_none() && self.destination.port.is_none();
            has_none && fits(SocketAddr::new(from, 0), SocketAddr::new(to, 0))
        };
        let anywhere = self.source == Endpoint::default() && self.destination == Endpoint::default();
        let (protocol, fits_addresses) = match key.kind {
            FlowKind::Tcp { source, destination } => (Some(Protocol::Tcp), fits(source, destination)),
            FlowKind::Udp { source, destination } => (Some(Protocol::Udp), fits(source, destination)),
            FlowKind::Echo { source, destination, .. } => (Some(Protocol::Icmp), without_ports(source, destination)),
            FlowKind::Ip { source, destination, protocol } => {
                (Some(Protocol::Ip(protocol)), without_ports(source, destination))
            }
            FlowKind::Arp { sender, target } => (Some(Protocol::Arp), without_ports(sender.into(), target.into())),
            FlowKind::Ethertype(_) | FlowKind::Malformed => (None, anywhere),
        };
        (self.protocol.is_none() || self.protocol == protocol)
            && fits_addresses
            && self.nic.is_none_or(|nic| nic == key.nic)
            && self.vlan.is_none_or(|vlan| key.vlans.0.contains(&vlan))
    }
}

impl Endpoint {
    fn fits(&self, address: SocketAddr) -> bool {
        let in_network = match self.network {
            None => true,
            Some((network, bits)) => prefix(network, bits) == prefix(address.ip(), bits),
        };
        in_network && self.port.is_none_or(|port| port == address.port())
    }
}

/// The first bits of an address; `None` when it has not so many.
fn prefix(address: IpAddr, bits: u8) -> Option<(bool, u128)> {
    let (all, width) = match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    let rest = u32::from(u8::checked_sub(width, bits)?);
    Some((address.is_ipv6(), all.checked_shr(rest).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::classify::classify;
    use crate::net::testing::{Tcp, arp_request, echo_reply, tagged, udp, udp6};

    #[test]
    fn the_first_rule_that_fits_holds() {
        let rules: Rules = r#"
            bypass udp from 10.0.0.1:53 to 10.0.0.0/24
            ignore udp from [::1]:53
            ignore tcp from :80 vlan 5
            bypass tcp to :4000   # the others
            bypass icmp to 10.0.0.2
            ignore arp
            ignore ip 58 from ::/0
            mask any nic 1 bytes 0..1
        "#
        .parse()
        .unwrap();
        let find = |nic: u8, frame: &[u8]| rules.find(|| classify(nic, frame).0.into());
        let tcp = Tcp::new(80, 4000).frame();
        for (frame, nic, rule) in [
            (udp(53, 9, b""), 0, Some(0)),
            (udp(54, 9, b""), 0, None),
            (udp(54, 9, b""), 1, Some(7)),
            (udp6(53, 9, b""), 0, Some(1)),
            (tagged(&tcp, &[(0x88A8, 5), (0x8100, 9)]), 0, Some(2)),
            (tagged(&tcp, &[(0x8100, 9)]), 0, Some(3)),
            (tcp, 0, Some(3)),
            (Tcp::new(80, 4001).frame(), 0, None),
            (echo_reply(1, 1, b""), 0, Some(4)),
            (arp_request([10, 0, 0, 9].into()), 0, Some(5)),
            (vec![0; 20].into(), 0, None),
            (vec![0; 20].into(), 1, Some(7)),
        ] {
            assert_eq!(find(nic, &frame), rule, "{frame:?}");
        }
    }
}
