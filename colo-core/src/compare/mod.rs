//! Which of the primary's packets may leave: those whose content the secondary has produced, too.
//!
//! The [`Comparator`] holds the frames of the primary's guest, and compares them with those of the secondary's, flow by flow. What
//! both have produced leaves, as the primary made it. When they differ, when one has waited too long for the other, or when too
//! much waits, the comparator reports a [`Divergence`]: the caller takes a checkpoint, which makes the two machines equal, and begins
//! the next epoch. Nothing is ever dropped: a frame leaves, or is handed back by [`Comparator::begin_epoch`].
//!
//! ```
//! use colo_core::compare::{CompareConfig, Comparator};
//! use colo_core::ids::Epoch;
//! use colo_core::net::testing::udp;
//! use std::time::Instant;
//!
//! let now = Instant::now();
//! let mut comparator = Comparator::new(CompareConfig::default());
//! comparator.begin_epoch(Epoch::FIRST);
//! comparator.secondary_running(now);
//!
//! comparator.handle_primary(0, udp(53, 4000, b"an answer"), now);
//! assert_eq!(comparator.poll_release(), None);
//! comparator.handle_secondary(0, 0, udp(53, 4000, b"an answer"), now);
//! assert_eq!(comparator.poll_release().unwrap().frame, udp(53, 4000, b"an answer"));
//! assert_eq!(comparator.poll_consumed(), Some(0));
//!
//! comparator.handle_primary(0, udp(53, 4000, b"10:15"), now);
//! comparator.handle_secondary(0, 1, udp(53, 4000, b"10:16"), now);
//! let divergence = comparator.poll_divergence().unwrap();
//! assert_eq!(divergence.to_string(), "UDP 10.0.0.1:53 > 10.0.0.2:4000 (nic 0): payload differs at 46");
//! assert_eq!(comparator.begin_epoch(Epoch(2)).len(), 1);
//! ```
//!
//! # An epoch
//!
//! [`Comparator::begin_epoch`] when the primary was captured; the frames that it returns leave when the checkpoint is acknowledged;
//! then [`Comparator::secondary_running`]. In between the comparator is *closed*: it takes frames of both and compares them, and
//! releases none, not even a retransmission or an acknowledgement known from the ended epoch. For were the primary to die now, the
//! secondary would go on from where *it* stood in the ended epoch, and what the primary held then has not been seen by anybody.
//!
//! By the time at which the secondary runs it is *behind*: its clients' questions of all that time wait for it, as do the primary's answers. It is given as
//! much time again before anything counts as late. Two machines of which one is put in place slowly would never run in
//! lock-step else, for they would be called different before the second had answered the first question.
//!
//! # TCP
//!
//! A connection is compared as a stream of bytes in the primary's sequence numbers. It does not matter how the machines cut it into
//! segments, what they send again, nor how they bundle acknowledgements. The primary's first held segment of a flow may leave when
//! three things hold:
//!
//! 1. Each byte of its payload has been produced by the secondary, and is the same, or has left before in this connection, be it in an
//!    earlier epoch: then it is a retransmission, a keep-alive or a window probe.
//! 2. It acknowledges no more than the secondary has acknowledged, or than the primary had when the epoch began: the client must not
//!    forget data that the secondary has not got.
//! 3. Its SYN, FIN or RST has been produced by the secondary, too; FIN at the same place of the stream, SYN with the same offer.
//!
//! It leaves with *no more of a window* than both machines have open: else a client could send what the secondary has no room for. The
//! edge, acknowledgement plus window, is that of the machine that has less; where the shift of windows is not known (a connection that is
//! older than protection, or that the guest opened) the smaller number. A segment that leaves with a window closed, or less than half as
//! wide, for the secondary's sake leaves once more when the secondary's opens: the primary does not know that there is anything to be said.
//! When it stays closed a checkpoint settles it.
//!
//! When only a part of that segment has been produced by the secondary, the part leaves by itself, after a millisecond: the secondary may be
//! waiting for the client to acknowledge it, as its window or Nagle's rule lets it say no more, and would wait for ever. It is cut as a
//! card would cut it.
//!
//! A segment of which all has left before does not wait behind others: the client has lost it, and the secondary may say no more before the
//! client has it. Of one that goes further the beginning leaves so.
//!
//! *What has left* is remembered as the exact stretches of the stream, not as one highest number: a connection older than protection,
//! whose first segments come out of order, has holes below the highest number, and what is in a hole has not been compared. So there
//! is no guess where such a connection begins. Bytes sent before protection and repeated now leave when both machines repeat them;
//! when only one does, a checkpoint settles it.
//!
//! The *secondary's sequence numbers* are the primary's when they come here: the [rewriter](crate::net::rewrite) saw to that, except
//! for a SYN (or SYN-ACK), which carries the secondary's own number since the primary's is not known there yet. So the number of a
//! secondary's SYN is only a name: it tells a repeated SYN from that of a new connection, and never gives a place in the stream. Nothing
//! else comes before the difference is known: a guest sends its first byte of a connection after the segment from which the rewriter
//! learns, and a checkpoint makes the numbers of all connections equal, also of those half open.
//!
//! A SYN with a new number begins a new connection between the same ports. The machines need not do that at the same moment; each is
//! compared with the other's same connection.
//!
//! # What is compared
//!
//! | Field | | Why |
//! | --- | --- | --- |
//! | **Ethernet** addresses, type | compared; ignored for TCP | segments have no counterpart, and the neighbour's address is the network's affair |
//! | **VLAN** numbers, of one tag or two | compared | the flow's key |
//! | priority | compared; ignored for TCP | segments have no counterpart |
//! | what is left for a card to do | the size of the datagrams that it is to become is compared; all else ignored | segments have no counterpart |
//! | padding up to 60 bytes | ignored | says nothing; may hold what was in the memory before |
//! | **IPv4** identification | ignored | each machine counts for itself |
//! | header checksum | ignored | follows from the rest |
//! | addresses, protocol | compared | the flow's key |
//! | version, lengths, options, service, TTL | compared; ignored for TCP | segments have no counterpart |
//! | fragment fields | reconciled | the packet is compared; alone only where they make none |
//! | **IPv6** flow label | ignored | each machine chooses at random (RFC 6437) |
//! | a fragment's identification | ignored | each machine counts for itself |
//! | its other fields | reconciled | as with IPv4 |
//! | addresses, protocol behind the extension headers | compared | the flow's key |
//! | version, class, length, hop limit, extension headers | compared; ignored for TCP | segments have no counterpart |
//! | **TCP** ports | compared | the flow's key |
//! | sequence number | reconciled | gives the bytes their place; the secondary's is rewritten |
//! | acknowledgement | reconciled | rule 2 |
//! | SYN, FIN, RST | compared | rule 3; a RST's numbers are not, as they tell only how far its sender had got, but rule 2 holds for its acknowledgement |
//! | ACK | reconciled | rule 2; compared with SYN |
//! | URG and its pointer | reconciled | leaves when the secondary has marked as far |
//! | PSH, ECE, CWR | ignored; compared with SYN | follow segmentation and the network's load |
//! | window | reconciled | no edge leaves that only one machine has open; that of a SYN likewise, unless the packet came in fragments |
//! | options in SYN, without the clock's value | compared | what was agreed on must hold after a failover |
//! | timestamps | reconciled | the secondary's run with the primary's ([rewriter](crate::net::rewrite)); what they say follows the moment |
//! | SACK, other options | ignored | follow the moment; SACK is a hint that may be taken back (RFC 2018 §8) |
//! | checksum | ignored | follows from the rest |
//! | payload | compared | rule 1 |
//! | **UDP** ports, length, payload | compared | |
//! | checksum | ignored | follows from the rest, or is left to the card |
//! | **ICMP**, **ICMPv6**, but for the checksum of an echo | compared | |
//! | **ARP**, whole frame; neighbour discovery, membership of groups | compared, unless it says [nothing new](#notices) | |
//! | fragments | as the packet that they make | the originals leave, with the one that completes it |
//! | other IP protocols | as IP above, payload whole | |
//! | everything else (three tags, malformed), whole frame | compared | in order with the others of its EtherType |
//!
//! All but TCP is compared frame by frame, the first of the one machine with the first of the other. The order of frames within a
//! [flow](FlowKey) never changes, but for segments that are said again, and does not matter between flows. [Rules](rules) take flows, or some of their bytes, out of all this.
//!
//! # Notices
//!
//! ARP, neighbour discovery but for redirects (RFC 4861), and reports of membership in groups (IGMP, MLD) say something that holds until it is
//! said otherwise, and each machine says it again when its own timers want it, or when its card has connected anew. What has left
//! before, to the same Ethernet address and with nothing said otherwise since, tells nobody anything: of the primary it leaves at once, of the secondary it
//! is done with at once. What the secondary alone says is forgotten when it has waited too long: no client has heard it. Else two machines would differ whenever a neighbour's entry grows old in one of them.
//!
//! # Limits
//!
//! [`CompareConfig`] has all but one: no more than 17 connections of one TCP flow wait for each other ([`Limit::Connections`]). At each the comparator asks for a checkpoint ([`Reason::QueueFull`]). Frames of the primary are held
//! all the same, up to [`Comparator::is_full`], which the caller obeys. A frame of the secondary that comes after its limit is forgotten:
//! it still has it, and everything else waits for the checkpoint. A flow in which nobody waits may be forgotten for a new one, and is when
//! nobody has used it for long; what is lost then is only the knowledge of what has left. Such a flow costs some 650 bytes, and no packet costs an
//! allocation once the busiest moment has been seen (`tests/limits.rs`, which prints the first and asserts the second).

mod classify;
mod comparator;
mod datagram;
mod flow;
mod fragments;
mod key;
pub mod rules;
mod spares;
mod tcp;
mod verdict;

#[cfg(test)]
mod tests;

pub use comparator::Comparator;
pub use key::{FlowKey, FlowKind};
pub use rules::{RuleError, Rules};
pub use verdict::{Counters, Divergence, Evidence, Limit, Reason, Release};

use crate::ids::Epoch;
use crate::net::testing::cut;
use std::time::{Duration, Instant};

/// When a comparator asks for a checkpoint, and how much it holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CompareConfig {
    /// How long a frame of the one machine may wait for the other's, when the secondary has had as long to catch up after a checkpoint as it was
    /// behind then.
    ///
    /// 200 ms by default: the shortest retransmission timeout in wide use (Linux), so that a client is not made to send again by
    /// waiting alone; and long against what two machines under load drift apart.
    pub timeout: Duration,
    /// The most bytes held of each machine's frames, with 176 bytes for each frame's place in the queues. 64 MiB by default: half a
    /// second of a link of 1 Gbit/s.
    pub max_held_bytes: usize,
    /// The same for each machine in one flow. 16 MiB by default: more than common TCP windows, and no flow takes all.
    pub max_flow_bytes: usize,
    /// The most flows. 65,536 by default: some 40 MiB when each is a TCP connection; a million cost sixteen times that, and no more time.
    pub max_flows: usize,
    /// Flows that are not compared, or not in all their bytes. None by default.
    pub rules: Rules,
    /// After how long a flow in which nobody waits is forgotten. 5 minutes by default. What is lost then is only the knowledge of what has
    /// left: a machine that repeats it is compared anew.
    pub idle_timeout: Duration,
    /// Whether a [`Divergence`] carries the frames in which the machines differ. Costs some memory in TCP flows; not by default.
    pub keep_evidence: bool,
}

impl Default for CompareConfig {
    fn default() -> Self {
        CompareConfig {
            timeout: Duration::from_millis(200),
            max_held_bytes: 64 << 20,
            max_flow_bytes: 16 << 20,
            max_flows: 65_536,
            rules: Rules::default(),
            idle_timeout: Duration::from_secs(300),
            keep_evidence: false,
        }
    }
}

/// Feeds a comparator with frames cut from arbitrary bytes: a fuzz target.
///
/// # Panics
/// When a frame of the primary is lost, or more is held than the limits allow.
#[doc(hidden)]
pub fn fuzz(data: &[u8]) {
    const MAX_HELD_BYTES: usize = 8 << 10;
    let config = CompareConfig {
        max_held_bytes: MAX_HELD_BYTES,
        max_flow_bytes: MAX_HELD_BYTES / 2,
        max_flows: 4,
        keep_evidence: true,
        idle_timeout: Duration::from_millis(500),
        rules: "bypass udp from :9\nignore any nic 1 to :4001\nmask any to :4002 bytes 1..3 after \"x\" until \"y\""
            .parse()
            .unwrap_or_default(),
        ..CompareConfig::default()
    };
    let mut comparator = Comparator::new(config);
    let mut now = Instant::now();
    let (mut taken, mut given) = (0, 0);
    for (number, (side, frame)) in cut(data).enumerate() {
        now += Duration::from_millis(u64::from(side >> 4));
        match side % 8 {
            0..=2 if !comparator.is_full() => {
                comparator.handle_primary(side & 1, frame, now);
                taken += 1;
            }
            0..=5 => comparator.handle_secondary(side & 1, number as u64, frame, now),
            6 => comparator.secondary_running(now),
            _ => given += comparator.begin_epoch(comparator.epoch().next()).len(),
        }
        comparator.handle_timeout(now);
        given += std::iter::from_fn(|| comparator.poll_release()).count();
        // Fragments are joined by the packet that they make.
        let slack = flow::FRAME_OVERHEAD_BYTES + usize::from(u8::MAX);
        assert!(comparator.counters().held_bytes < 2 * MAX_HELD_BYTES + slack);
    }
    given += comparator.begin_epoch(Epoch(u64::MAX)).len();
    let Counters { reopened_windows, cut_frames, .. } = comparator.counters();
    assert_eq!(taken + (reopened_windows + cut_frames) as usize, given, "a frame was lost");
}
