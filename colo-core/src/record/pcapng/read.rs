//! Bytes into blocks.

use super::{
    BYTE_ORDER_MAGIC, ENHANCED_PACKET, FRAMING_BYTES, INTERFACE_DESCRIPTION, INTERFACE_NAME, INTERFACE_RESOLUTION,
    INTERFACE_TIME_OFFSET, LINKTYPE_ETHERNET, MAJOR_VERSION, OPTION_COMMENT, OPTION_END, SECTION_HEADER, SIMPLE_PACKET,
};
use crate::record::error::{RecordError, RecordErrorKind};
use std::io::{self, Read};

/// The longest block that is looked into: the longest frame and all that may be said about it. Longer ones that are not known are
/// skipped.
const MAX_BLOCK_BYTES: usize = 1 << 20;

/// The most interfaces of a section: two are wanted, and more are refused by whoever reads this.
const MAX_INTERFACES: usize = 64;

/// What files of the older format begin with: microseconds and nanoseconds, in both byte orders.
const PCAP_MAGICS: [[u8; 4]; 4] =
    [[0xA1, 0xB2, 0xC3, 0xD4], [0xD4, 0xC3, 0xB2, 0xA1], [0xA1, 0xB2, 0x3C, 0x4D], [0x4D, 0x3C, 0xB2, 0xA1]];

/// What a block says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::record) enum Block {
    /// A new section: interfaces are counted anew.
    Section,
    /// The next interface.
    Interface {
        /// Its name, if it has one.
        name: Option<String>,
    },
    /// A frame.
    Packet(Packet),
}

/// A captured frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::record) struct Packet {
    /// One that was described in this section.
    pub(in crate::record) interface: u32,
    /// Since 1970; 0 where the time is not known.
    pub(in crate::record) nanos: u64,
    /// As much of the frame as was captured.
    pub(in crate::record) data: Vec<u8>,
    pub(in crate::record) comments: Vec<String>,
}

/// Reads blocks from a source, one after the other.
pub(in crate::record) struct Blocks<R> {
    source: R,
    /// How many bytes have been read.
    offset: u64,
    big_endian: bool,
    clocks: Vec<Clock>,
}

/// How an interface counts time.
#[derive(Clone, Copy)]
struct Clock {
    resolution: u8,
    offset_secs: i64,
}

impl<R: Read> Blocks<R> {
    pub(in crate::record) fn new(source: R) -> Self {
        Blocks { source, offset: 0, big_endian: false, clocks: Vec::new() }
    }

    /// Where the next block begins.
    pub(in crate::record) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next block that is known; `None` at the end of the file.
    pub(in crate::record) fn next_block(&mut self) -> Result<Option<Block>, RecordError> {
        loop {
            let at = self.offset;
            let wrong = |kind| RecordError { offset: at, kind };
            let mut head = [0; 8];
            match self.fill(&mut head).map_err(wrong)? {
                0 if at == 0 => return Err(wrong(RecordErrorKind::Empty)),
                0 => return Ok(None),
                _ if at == 0 && PCAP_MAGICS.contains(&[head[0], head[1], head[2], head[3]]) => {
                    return Err(wrong(RecordErrorKind::Pcap));
                }
                _ if at == 0 && head[..4] != SECTION_HEADER.to_le_bytes() => {
                    return Err(wrong(RecordErrorKind::NotPcapng));
                }
                8 => {}
                _ => return Err(wrong(RecordErrorKind::Truncated)),
            }
            if let Some(block) = self.block(head).map_err(wrong)? {
                return Ok(Some(block));
            }
        }
    }

    /// The rest of a block that begins with `head`; `None` when there is nothing in it for us.
    fn block(&mut self, head: [u8; 8]) -> Result<Option<Block>, RecordErrorKind> {
        let [k0, k1, k2, k3, length @ ..] = head;
        let mut body = Vec::new();
        // The same in both byte orders.
        let is_section = [k0, k1, k2, k3] == SECTION_HEADER.to_le_bytes();
        if is_section {
            body.resize(4, 0);
            self.fill_all(&mut body)?;
            self.big_endian = match u32::from_le_bytes([body[0], body[1], body[2], body[3]]) {
                BYTE_ORDER_MAGIC => false,
                magic if magic.swap_bytes() == BYTE_ORDER_MAGIC => true,
                _ => return Err(RecordErrorKind::NotPcapng),
            };
        }
        let kind = self.u32([k0, k1, k2, k3]);
        let length = self.u32(length);
        let bytes = length as usize;
        if bytes % 4 != 0 || bytes < FRAMING_BYTES + body.len() {
            return Err(RecordErrorKind::Block("whose length cannot be"));
        }
        let rest = bytes - FRAMING_BYTES - body.len();
        if is_section || [INTERFACE_DESCRIPTION, SIMPLE_PACKET, ENHANCED_PACKET].contains(&kind) {
            if bytes > MAX_BLOCK_BYTES {
                return Err(RecordErrorKind::TooLong { bytes: length, limit: MAX_BLOCK_BYTES });
            }
            let start = body.len();
            body.resize(start + rest, 0);
            self.fill_all(&mut body[start..])?;
        } else {
            self.skip(rest)?;
        }
        let mut again = [0; 4];
        self.fill_all(&mut again)?;
        if self.u32(again) != length {
            return Err(RecordErrorKind::Block("whose two lengths differ"));
        }
        match kind {
            _ if is_section => self.section(&body).map(Some),
            INTERFACE_DESCRIPTION => self.interface(&body).map(Some),
            SIMPLE_PACKET => self.simple_packet(&body).map(Some),
            ENHANCED_PACKET => self.packet(&body).map(Some),
            _ => Ok(None),
        }
    }

    fn section(&mut self, body: &[u8]) -> Result<Block, RecordErrorKind> {
        let version = body.get(4..6).ok_or(RecordErrorKind::Block("that is too short"))?;
        match self.u16([version[0], version[1]]) {
            MAJOR_VERSION => {
                self.clocks.clear();
                Ok(Block::Section)
            }
            version => Err(RecordErrorKind::Version(version)),
        }
    }

    fn interface(&mut self, body: &[u8]) -> Result<Block, RecordErrorKind> {
        let (fixed, options) = body.split_at_checked(8).ok_or(RecordErrorKind::Block("that is too short"))?;
        match self.u16([fixed[0], fixed[1]]) {
            LINKTYPE_ETHERNET => {}
            other => return Err(RecordErrorKind::LinkType(other)),
        }
        if self.clocks.len() == MAX_INTERFACES {
            return Err(RecordErrorKind::Interfaces(MAX_INTERFACES + 1));
        }
        let mut clock = Clock { resolution: 6, offset_secs: 0 };
        let mut name = None;
        for (code, value) in self.options(options) {
            match (code, value) {
                (INTERFACE_NAME, value) => name = Some(String::from_utf8_lossy(value).into_owned()),
                (INTERFACE_RESOLUTION, &[resolution]) => clock.resolution = resolution,
                (INTERFACE_TIME_OFFSET, value) => {
                    let Ok(value) = value.try_into() else { continue };
                    clock.offset_secs =
                        if self.big_endian { i64::from_be_bytes(value) } else { i64::from_le_bytes(value) };
                }
                _ => {}
            }
        }
        self.clocks.push(clock);
        Ok(Block::Interface { name })
    }

    fn packet(&mut self, body: &[u8]) -> Result<Block, RecordErrorKind> {
        let (fixed, rest) = body.split_at_checked(20).ok_or(RecordErrorKind::Block("that is too short"))?;
        let word = |at: usize| self.u32([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        let captured = word(12) as usize;
        let data = rest.get(..captured).ok_or(RecordErrorKind::Packet)?;
        let clock = self.clocks.get(word(0) as usize).ok_or(RecordErrorKind::Stray)?;
        let nanos = clock.nanos(u64::from(word(4)) << 32 | u64::from(word(8)));
        let options = rest.get(captured.next_multiple_of(4)..).unwrap_or_default();
        let comments = self.options(options).filter(|(code, _)| *code == OPTION_COMMENT);
        let comments = comments.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect();
        Ok(Block::Packet(Packet { interface: word(0), nanos, data: data.to_vec(), comments }))
    }

    /// A packet of the first interface, without a time.
    fn simple_packet(&mut self, body: &[u8]) -> Result<Block, RecordErrorKind> {
        let (original, data) = body.split_at_checked(4).ok_or(RecordErrorKind::Block("that is too short"))?;
        if self.clocks.is_empty() {
            return Err(RecordErrorKind::Stray);
        }
        let original = self.u32([original[0], original[1], original[2], original[3]]) as usize;
        let data = data[..original.min(data.len())].to_vec();
        Ok(Block::Packet(Packet { interface: 0, nanos: 0, data, comments: Vec::new() }))
    }

    /// The options of a block; ends early at one whose length lies.
    fn options<'a>(&self, mut bytes: &'a [u8]) -> impl Iterator<Item = (u16, &'a [u8])> {
        let big_endian = self.big_endian;
        let u16 = move |bytes: [u8; 2]| {
            if big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
        };
        std::iter::from_fn(move || {
            let (head, rest) = bytes.split_at_checked(4)?;
            let (code, length) = (u16([head[0], head[1]]), usize::from(u16([head[2], head[3]])));
            if code == OPTION_END {
                return None;
            }
            let value = rest.get(..length)?;
            bytes = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            Some((code, value))
        })
    }

    fn u16(&self, bytes: [u8; 2]) -> u16 {
        if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    fn u32(&self, bytes: [u8; 4]) -> u32 {
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    /// Reads as much as there is, and returns how much.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, RecordErrorKind> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.source.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(RecordErrorKind::Source(error)),
            }
        }
        self.offset += filled as u64;
        Ok(filled)
    }

    fn fill_all(&mut self, buffer: &mut [u8]) -> Result<(), RecordErrorKind> {
        if self.fill(buffer)? == buffer.len() { Ok(()) } else { Err(RecordErrorKind::Truncated) }
    }

    fn skip(&mut self, mut bytes: usize) -> Result<(), RecordErrorKind> {
        let mut buffer = [0; 4096];
        while bytes > 0 {
            let piece = bytes.min(buffer.len());
            self.fill_all(&mut buffer[..piece])?;
            bytes -= piece;
        }
        Ok(())
    }
}

impl Clock {
    /// A number of units as nanoseconds since 1970; the nearest that can be said.
    fn nanos(self, units: u64) -> u64 {
        const PER_SEC: u128 = 1_000_000_000;
        let (units, exponent) = (u128::from(units), u32::from(self.resolution & 0x7F));
        let nanos = if self.resolution & 0x80 != 0 {
            (units * PER_SEC).checked_shr(exponent).unwrap_or(0)
        } else {
            10u128.checked_pow(exponent).map_or(0, |per_sec| units * PER_SEC / per_sec)
        };
        let offset = i128::from(self.offset_secs) * PER_SEC as i128;
        let nanos = i128::try_from(nanos).unwrap_or(i128::MAX).saturating_add(offset);
        u64::try_from(nanos.max(0)).unwrap_or(u64::MAX)
    }
}
