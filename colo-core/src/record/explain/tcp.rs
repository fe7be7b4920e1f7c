//! TCP segments: which connection they are of, and how that began.

use super::hint::Hint;
use super::{Difference, handshake, stream};
use crate::net::ip::IpPacket;
use crate::net::wire::{Segment, TcpFlags};
use crate::net::{Frame, Seq};

/// A segment that a machine has sent.
#[derive(Clone, Copy)]
pub(super) struct Sent<'a> {
    /// Which of its frames.
    pub(super) index: usize,
    pub(super) frame: &'a [u8],
    pub(super) segment: Segment,
}

impl<'a> Sent<'a> {
    pub(super) fn payload(&self) -> &'a [u8] {
        &self.frame[self.segment.payload_range()]
    }

    pub(super) fn has(&self, flag: TcpFlags) -> bool {
        self.segment.has(flag)
    }

    /// Whether it is more than an acknowledgement.
    fn says_something(&self) -> bool {
        self.segment.payload_bytes() > 0 || [TcpFlags::SYN, TcpFlags::FIN, TcpFlags::RST].iter().any(|f| self.has(*f))
    }
}

/// In the first connection between these ports in which anything differs.
pub(super) fn differences(primary: &[Frame], secondary: &[Frame], hint: Hint) -> Vec<Difference> {
    let (ours, theirs) = (segments(primary), segments(secondary));
    let syns: Vec<Seq> = ours.iter().filter(|sent| sent.has(TcpFlags::SYN)).map(|sent| sent.segment.seq).collect();
    let (mut ours, mut theirs) = (connections(&ours, &[]), connections(&theirs, &syns));
    // One machine may have ended an earlier connection of which the other still speaks.
    let has_earlier = |connections: &[Vec<Sent<'_>>]| connections.first().is_some_and(|first| syn(first).is_none());
    if ours.len() > theirs.len() && has_earlier(&ours) && !has_earlier(&theirs) {
        theirs.insert(0, Vec::new());
    } else if theirs.len() > ours.len() && has_earlier(&theirs) && !has_earlier(&ours) {
        ours.insert(0, Vec::new());
    }
    let count = ours.len().max(theirs.len());
    ours.resize(count, Vec::new());
    theirs.resize(count, Vec::new());
    let found = ours.iter().zip(&theirs).map(|(ours, theirs)| connection(ours, theirs, hint));
    found.into_iter().find(|found| !found.is_empty()).unwrap_or_default()
}

fn segments(frames: &[Frame]) -> Vec<Sent<'_>> {
    let sent = frames.iter().enumerate().filter_map(|(index, frame)| {
        let packet = IpPacket::parse(frame)?;
        Some(Sent { index, frame, segment: Segment::parse(frame, &packet)?.0 })
    });
    sent.collect()
}

/// Cuts segments at each SYN that is not sent again. A number that the other machine has chosen is one that was moved.
fn connections<'a>(segments: &[Sent<'a>], others: &[Seq]) -> Vec<Vec<Sent<'a>>> {
    let mut connections: Vec<Vec<Sent<'a>>> = Vec::new();
    for sent in segments {
        let seq = sent.segment.seq;
        let known = connections.last().and_then(|last| syn(last));
        let again = known.is_some_and(|known| known.segment.seq == seq || others.contains(&seq));
        match connections.last_mut() {
            Some(last) if again || !sent.has(TcpFlags::SYN) => last.push(*sent),
            _ => connections.push(vec![*sent]),
        }
    }
    connections
}

fn syn<'s, 'a>(segments: &'s [Sent<'a>]) -> Option<&'s Sent<'a>> {
    segments.iter().find(|sent| sent.has(TcpFlags::SYN))
}

fn connection(ours: &[Sent<'_>], theirs: &[Sent<'_>], hint: Hint) -> Vec<Difference> {
    // Of a machine that is alone there, what is more than an acknowledgement.
    let first = |sent: &[Sent<'_>]| sent.iter().position(Sent::says_something).unwrap_or(0);
    match (ours.get(first(ours)), theirs.get(first(theirs))) {
        (None, None) => return Vec::new(),
        (Some(sent), None) => return vec![Difference::frame(Some((sent.index, sent.frame)), None)],
        (None, Some(sent)) => return vec![Difference::frame(None, Some((sent.index, sent.frame)))],
        (Some(_), Some(_)) => {}
    }
    let syns = (syn(ours), syn(theirs));
    if let (Some(ours), Some(theirs)) = syns {
        let found = handshake::differences(ours, theirs);
        if !found.is_empty() {
            return found;
        }
    }
    let found = stream::differences(ours, theirs, hint);
    match syns {
        _ if !found.is_empty() => found,
        (Some(sent), None) => vec![Difference::frame(Some((sent.index, sent.frame)), None)],
        (None, Some(sent)) => vec![Difference::frame(None, Some((sent.index, sent.frame)))],
        _ => Vec::new(),
    }
}
