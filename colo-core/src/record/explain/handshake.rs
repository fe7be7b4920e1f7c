//! Two SYNs: what they offer, but for the sequence number, the clock's value and the window of the moment.

use super::tcp::Sent;
use super::{Difference, Excerpt, Place, byte};
use crate::net::wire::{TcpFlags, TcpOption};

/// The control bits, from the lowest.
const FLAGS: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];

pub(super) fn differences(ours: &Sent<'_>, theirs: &Sent<'_>) -> Vec<Difference> {
    let mut found = Vec::new();
    let difference = |field: String, primary: Option<String>, secondary: Option<String>| Difference {
        protocol: "TCP",
        field,
        place: Place { primary_frame: Some(ours.index), secondary_frame: Some(theirs.index), ..Place::default() },
        primary,
        secondary,
        excerpts: None,
    };
    for (bit, name) in FLAGS.iter().enumerate() {
        let flag = |sent: &Sent<'_>| sent.segment.has(TcpFlags(1 << bit));
        if flag(ours) != flag(theirs) {
            let text = |set| Some(if set { "set" } else { "not set" }.to_owned());
            found.push(difference((*name).into(), text(flag(ours)), text(flag(theirs))));
        }
    }
    let acks = [ours, theirs].map(|sent| sent.segment.ack.map(|ack| ack.to_string()));
    if acks[0] != acks[1] {
        let [primary, secondary] = acks;
        found.push(difference("acknowledgement number".into(), primary, secondary));
    }
    let options = [ours, theirs].map(|sent| sent.segment.options(sent.frame).map(masked).collect::<Vec<_>>());
    let [ours_offered, theirs_offered] = &options;
    let mut kinds: Vec<u8> = Vec::new();
    for (kind, _) in options.iter().flatten() {
        if !kinds.contains(kind) {
            kinds.push(*kind);
        }
    }
    for kind in kinds {
        let of = |offered: &[(u8, Vec<u8>)]| -> Option<String> {
            let all: Vec<String> =
                offered.iter().filter(|(other, _)| *other == kind).map(|(_, data)| value(kind, data)).collect();
            (!all.is_empty()).then(|| all.join(", "))
        };
        let (primary, secondary) = (of(ours_offered), of(theirs_offered));
        if primary != secondary {
            found.push(difference(format!("option {}", name(kind)), primary, secondary));
        }
    }
    if found.is_empty() && ours_offered != theirs_offered {
        let order = |offered: &[(u8, Vec<u8>)]| {
            Some(offered.iter().map(|(kind, _)| name(*kind)).collect::<Vec<_>>().join(", "))
        };
        found.push(difference("order of options".into(), order(ours_offered), order(theirs_offered)));
    }
    found.extend(payload(ours, theirs));
    found
}

/// Of a SYN, or of a RST: its place in the stream is not known, so it is compared by itself.
pub(super) fn payload(ours: &Sent<'_>, theirs: &Sent<'_>) -> Option<Difference> {
    let (primary, secondary) = (ours.payload(), theirs.payload());
    if primary == secondary {
        return None;
    }
    let at = primary.iter().zip(secondary).take_while(|(ours, theirs)| ours == theirs).count();
    Some(Difference {
        protocol: "TCP",
        field: "payload".into(),
        place: Place {
            primary_frame: Some(ours.index),
            secondary_frame: Some(theirs.index),
            primary_offset: Some(ours.segment.payload_range().start + at),
            secondary_offset: Some(theirs.segment.payload_range().start + at),
            payload_offset: Some(at as u64),
            sequence_number: None,
        },
        primary: primary.get(at).copied().map(byte),
        secondary: secondary.get(at).copied().map(byte),
        excerpts: Some([Excerpt::around(primary, at), Excerpt::around(secondary, at)]),
    })
}

/// The clock's value is of the moment; that there is one is not.
fn masked(option: TcpOption<'_>) -> (u8, Vec<u8>) {
    match option.kind {
        TcpOption::TIMESTAMPS => (option.kind, vec![0; option.data.len()]),
        kind => (kind, option.data.to_vec()),
    }
}

fn name(kind: u8) -> String {
    match kind {
        2 => "maximum segment size".into(),
        3 => "window scale".into(),
        4 => "SACK permitted".into(),
        TcpOption::SACK => "SACK".into(),
        TcpOption::TIMESTAMPS => "timestamps".into(),
        19 => "MD5 signature".into(),
        28 => "user timeout".into(),
        29 => "authentication".into(),
        30 => "multipath".into(),
        34 => "fast open".into(),
        kind => format!("{kind}"),
    }
}

fn value(kind: u8, data: &[u8]) -> String {
    match (kind, data) {
        (2, &[high, low]) => u16::from_be_bytes([high, low]).to_string(),
        (3, &[shift]) => shift.to_string(),
        (TcpOption::TIMESTAMPS, _) | (_, []) => "there".into(),
        (_, data) => data.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "),
    }
}
