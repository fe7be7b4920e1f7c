//! In what two machines differed, in words.
//!
//! What the comparator ignores is never given as the reason: the table is the one of [`compare`](crate::compare). What follows from
//! something else, as a length does from a payload, is given only when nothing else differs.

mod assembly;
mod datagram;
mod describe;
mod fields;
mod handshake;
mod hint;
mod stream;
mod tcp;

use super::Miscompare;
use crate::compare::{FlowKey, FlowKind};
use crate::net::{Frame, Seq};
use hint::Hint;
use std::fmt;

/// The most differences that are told: the reason, and some that may help to understand it.
const MAX_DIFFERENCES: usize = 8;

/// The [`Difference::field`] when it is the whole frame.
const FRAME: &str = "frame";

/// In what the two machines differed. `Display` is a line for each difference, and one for each machine's bytes around it; no line ends
/// with a line break.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// The reason first, then what else differs. Empty when the frames are the same in everything that is compared.
    pub differences: Vec<Difference>,
}

/// Something that differs. `Display` is one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// The protocol: "TCP", "IPv4", "Ethernet", ...
    pub protocol: &'static str,
    /// The field in its header, or "payload", or "frame" for a frame that only one machine has sent.
    pub field: String,
    /// Where.
    pub place: Place,
    /// What the primary has there; `None` when it has nothing.
    pub primary: Option<String>,
    /// What the secondary has there; `None` when it has nothing.
    pub secondary: Option<String>,
    /// The bytes around it, the primary's and the secondary's, if it is in a payload.
    pub excerpts: Option<[Excerpt; 2]>,
}

/// Where something differs, as far as it is in a certain place.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Place {
    /// Which of the miscompare's frames it is for the primary, from 1, as the recorded comments count them.
    pub primary_frame: Option<usize>,
    /// The same for the secondary.
    pub secondary_frame: Option<usize>,
    /// In bytes from the start of the primary's frame.
    pub primary_offset: Option<usize>,
    /// In bytes from the start of the secondary's frame.
    pub secondary_offset: Option<usize>,
    /// In bytes from the start of the payload; of a TCP connection, from the first byte that was recorded.
    pub payload_offset: Option<u64>,
    /// The TCP sequence number.
    pub sequence_number: Option<Seq>,
}

/// Bytes around a place. `Display` is them in hex, the one in that place in brackets, and then as ASCII.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Excerpt {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Which of them is in that place; as many as there are when they end there.
    pub at: usize,
}

/// Tells in what the machines differ, from their frames and the words of the divergence.
pub fn explain(miscompare: &Miscompare) -> Explanation {
    let (primary, secondary) = (miscompare.primary.len(), miscompare.secondary.len());
    let pairs = primary.min(secondary);
    // They take turns, as far as there are two.
    let number = |index: usize, is_secondary: usize| match index < pairs {
        true => 2 * index + 1 + is_secondary,
        false => pairs + index + 1,
    };
    let mut differences = differences(miscompare);
    for Difference { place, .. } in &mut differences {
        place.primary_frame = place.primary_frame.map(|index| number(index, 0));
        place.secondary_frame = place.secondary_frame.map(|index| number(index, 1));
    }
    Explanation { differences }
}

/// The same, with frames counted from 0 for each machine.
pub(super) fn differences(miscompare: &Miscompare) -> Vec<Difference> {
    let (primary, secondary) = (&miscompare.primary[..], &miscompare.secondary[..]);
    let hint = Hint::parse(&miscompare.what);
    let is_segment = |frame: &Frame| matches!(FlowKey::of(0, frame).kind, FlowKind::Tcp { .. });
    let mut differences = if primary.iter().chain(secondary).all(is_segment) {
        tcp::differences(primary, secondary, hint)
    } else {
        datagram::differences(primary, secondary, hint)
    };
    differences.truncate(MAX_DIFFERENCES);
    differences
}

impl Difference {
    /// A frame that only one machine has sent.
    fn frame(primary: Option<(usize, &[u8])>, secondary: Option<(usize, &[u8])>) -> Difference {
        let text = |frame: Option<(usize, &[u8])>| frame.map(|(_, frame)| describe::frame(frame));
        Difference {
            protocol: primary.or(secondary).map_or("", |(_, frame)| describe::protocol(frame)),
            field: FRAME.into(),
            place: Place {
                primary_frame: primary.map(|(index, _)| index),
                secondary_frame: secondary.map(|(index, _)| index),
                ..Place::default()
            },
            primary: text(primary),
            secondary: text(secondary),
            excerpts: None,
        }
    }
}

/// A byte, in hex and, if it is a character, as that.
fn byte(value: u8) -> String {
    if value.is_ascii_graphic() || value == b' ' {
        format!("{value:#04x} '{}'", value as char)
    } else {
        format!("{value:#04x}")
    }
}

impl Excerpt {
    /// Bytes before the place, and after.
    const BEFORE: usize = 8;
    const AFTER: usize = 8;

    /// The bytes around one of them.
    fn around(bytes: &[u8], at: usize) -> Excerpt {
        let at = at.min(bytes.len());
        let from = at.saturating_sub(Self::BEFORE);
        let to = (at + Self::AFTER).min(bytes.len());
        Excerpt { bytes: bytes[from..to].to_vec(), at: at - from }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.differences.is_empty() {
            return f.write_str("what was recorded is the same in everything that is compared");
        }
        for (index, difference) in self.differences.iter().enumerate() {
            let also = if index == 0 { "" } else { "\nalso: " };
            write!(f, "{also}{difference}")?;
            if let Some([primary, secondary]) = &difference.excerpts {
                write!(f, "\n  primary    {primary}\n  secondary  {secondary}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.primary, &self.secondary) {
            (Some(frame), None) if self.field == FRAME => write!(f, "the secondary did not send this: {frame}"),
            (None, Some(frame)) if self.field == FRAME => write!(f, "the primary did not send this: {frame}"),
            (primary, secondary) => {
                let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".into());
                let (primary, secondary) = (text(primary), text(secondary));
                write!(f, "{} {}{}: primary {primary}, secondary {secondary}", self.protocol, self.field, self.place)
            }
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut details = Vec::new();
        match (self.payload_offset, self.sequence_number) {
            (Some(offset), None) => write!(f, ", byte {offset}")?,
            (Some(offset), Some(_)) => write!(f, ", byte {offset} of the stream as recorded")?,
            (None, _) => {}
        }
        details.extend(self.sequence_number.map(|number| format!("sequence number {number}")));
        let of = |frame: Option<usize>, offset: Option<usize>| match (frame?, offset) {
            (frame, Some(offset)) => Some(format!("byte {offset} of frame {frame}")),
            (frame, None) => Some(format!("frame {frame}")),
        };
        details.extend(of(self.primary_frame, self.primary_offset));
        details.extend(of(self.secondary_frame, self.secondary_offset));
        if details.is_empty() { Ok(()) } else { write!(f, " ({})", details.join(", ")) }
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut hex = String::new();
        for index in 0..=self.bytes.len() {
            // A bracket takes the place of the space before a byte.
            hex.push(match index {
                index if index == self.at => '[',
                index if index == self.at + 1 => ']',
                _ => ' ',
            });
            match self.bytes.get(index) {
                Some(byte) => hex += &format!("{byte:02x}"),
                None if index == self.at => hex += "  ]",
                None => {}
            }
        }
        let ascii = |byte: &u8| if byte.is_ascii_graphic() || *byte == b' ' { *byte as char } else { '.' };
        let ascii: String = self.bytes.iter().map(ascii).collect();
        write!(f, "{hex:<52} {ascii}")
    }
}

#[cfg(test)]
mod tests;
