//! How messages are framed: the header that goes before each, and its checksum.
//!
//! ```text
//!  0        4      5      6      7          8                16         20         24
//!  | magic  | major | minor | kind | reserved | number         | length   | crc      | payload ...
//! ```
//!
//! All numbers are little-endian. `number` counts the messages of this direction of this connection from 0; `length` is the
//! payload's; `crc` is CRC-32C (Castagnoli's, as in RFC 3720, 12.1) over the first 20 bytes of the header and the
//! payload. Of a message with data of a disk (`DiskWrite`, `DiskBefore`) their own CRC-32C takes part in their place: the journal has it, too.

use super::error::PeerError;
use super::wire::FRAME_OVERHEAD_BYTES;
use super::{Message, codec};
use crate::stream::{Headers, MAX_BODY_BYTES, RECORD_HEADER_BYTES};
use crc32c::{crc32c, crc32c_append};
use std::io::IoSlice;
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The protocol's version. Another major one is refused; another minor one only adds kinds of messages that need not be sent, and moments
/// at which one may be sent.
pub const MAJOR_VERSION: u8 = 5;
/// The protocol's minor version.
pub const MINOR_VERSION: u8 = 2;

/// Bytes of a frame's header.
pub const FRAME_HEADER_BYTES: usize = size_of::<RawHeader>();

/// The longest `Stream` message: the longest record, with its header and the headers of the stream.
pub const MAX_STREAM_BYTES: usize = MAX_BODY_BYTES + RECORD_HEADER_BYTES + Headers::BYTES;
/// The most frames in an `Input` or `Output` message: a few full batches of a port, so that one message is read in one go.
pub const MAX_MESSAGE_FRAMES: usize = 1024;
/// The most bytes of frames in an `Input` or `Output` message: [`MAX_MESSAGE_FRAMES`] of usual length, or 32 of the longest.
pub const MAX_MESSAGE_FRAME_BYTES: usize = 2 << 20;
/// The most numbers in a `Released` message: what the secondary can have produced in an epoch before it asks for a checkpoint.
pub const MAX_RELEASED: usize = 65_536;
/// The most facts in a `Facts` message: a few dozen of a host, and one for each network card and disk of a machine.
pub const MAX_FACTS: usize = 512;
/// The longest name of a fact.
pub const MAX_FACT_NAME_BYTES: usize = 128;
/// The longest value of a fact.
pub const MAX_FACT_BYTES: usize = 2048;
/// The longest `Likeness`: the event channels of a large guest of Xen's.
pub const MAX_LIKENESS_BYTES: usize = 2 << 20;
/// The longest `DiskWrite` or `DiskBefore`; longer ones are cut.
pub const MAX_DISK_BYTES: usize = 1 << 20;
/// So much of a disk has one hash.
pub const HASHED_BYTES: usize = 64 << 10;
/// The most hashes in a `DiskHashes` message: 4 MiB of a disk.
pub const MAX_DISK_HASHES: usize = 64;
/// The longest text, of `Refused` and `Goodbye`: a few lines for people. A longer one is cut off when it is sent.
pub const MAX_TEXT_BYTES: usize = 1024;

/// What is before the data of a `DiskWrite` or a `DiskBefore`: disk, offset.
pub(super) const DISK_WRITE_HEAD_BYTES: usize = 1 + 8;

const MAGIC: u32 = u32::from_le_bytes(*b"COLO");

/// The kinds of messages, by their numbers in the header.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
#[allow(missing_docs, reason = "they are described at `Message`")]
pub enum MessageKind {
    Hello = 1,
    Welcome = 2,
    Refused = 3,
    Goodbye = 4,
    Inquiry = 5,
    Facts = 6,
    Stream = 16,
    EpochEnd = 17,
    EpochStaged = 18,
    EpochApplied = 19,
    CheckpointWanted = 20,
    Likeness = 21,
    Input = 32,
    Output = 33,
    Released = 34,
    HeldReleased = 35,
    Heartbeat = 36,
    DiskWrite = 48,
    DiskZeroes = 49,
    DiskBarrier = 50,
    DiskFlush = 51,
    DiskFlushed = 52,
    DiskHashesWanted = 53,
    DiskHashes = 54,
    DiskShared = 55,
    DiskBefore = 56,
    DiskBeforeZeroes = 57,
    DiskSame = 58,
}

impl MessageKind {
    /// Every kind.
    pub const ALL: [MessageKind; 28] = {
        use MessageKind::*;
        [
            Hello,
            Welcome,
            Refused,
            Goodbye,
            Inquiry,
            Facts,
            Stream,
            EpochEnd,
            EpochStaged,
            EpochApplied,
            CheckpointWanted,
            Likeness,
            Input,
            Output,
            Released,
            HeldReleased,
            Heartbeat,
            DiskWrite,
            DiskZeroes,
            DiskBarrier,
            DiskFlush,
            DiskFlushed,
            DiskHashesWanted,
            DiskHashes,
            DiskShared,
            DiskBefore,
            DiskBeforeZeroes,
            DiskSame,
        ]
    };

    /// The longest payload of this kind, in bytes.
    pub const fn max_payload_bytes(self) -> usize {
        const FRAMES: usize = MAX_MESSAGE_FRAME_BYTES + MAX_MESSAGE_FRAMES * FRAME_OVERHEAD_BYTES;
        match self {
            MessageKind::Hello => codec::MAX_HELLO_BYTES,
            MessageKind::Welcome | MessageKind::CheckpointWanted => 0,
            MessageKind::Refused => 2 + MAX_TEXT_BYTES,
            MessageKind::Goodbye => 1 + 2 + MAX_TEXT_BYTES,
            MessageKind::Inquiry => codec::MAX_SPEC_BYTES,
            MessageKind::Facts => codec::MAX_FACTS_BYTES,
            MessageKind::Stream => MAX_STREAM_BYTES,
            MessageKind::Likeness => MAX_LIKENESS_BYTES,
            MessageKind::EpochEnd => 8 + 8 + 4,
            MessageKind::EpochStaged
            | MessageKind::EpochApplied
            | MessageKind::HeldReleased
            | MessageKind::Heartbeat
            | MessageKind::DiskFlushed => 8,
            MessageKind::Input => 8 + 1 + 4 + FRAMES,
            MessageKind::Output => 8 + 8 + 4 + FRAMES,
            MessageKind::Released => 8 + 4 + 8 * MAX_RELEASED,
            MessageKind::DiskWrite | MessageKind::DiskBefore => DISK_WRITE_HEAD_BYTES + MAX_DISK_BYTES,
            MessageKind::DiskZeroes => 1 + 8 + 8 + 1,
            MessageKind::DiskBarrier | MessageKind::DiskFlush => 8 + 1,
            MessageKind::DiskHashesWanted => 1 + 8 + 4 + 8,
            MessageKind::DiskHashes => 1 + 8 + 4 + 16 * MAX_DISK_HASHES,
            MessageKind::DiskShared => 4 + 8 * crate::disk::MAX_DISKS,
            MessageKind::DiskBeforeZeroes => 1 + 8 + 8,
            MessageKind::DiskSame => 1 + 8 + 4 + 8 + 16,
        }
    }

    fn from_number(number: u8) -> Option<MessageKind> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: U32,
    major: u8,
    minor: u8,
    kind: u8,
    reserved: u8,
    number: U64,
    length: U32,
    crc: U32,
}

/// Where the checksum stands: it covers what is before it.
const CRC_OFFSET: usize = FRAME_HEADER_BYTES - 4;

/// A header that has been checked, but for the checksum.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameHeader {
    pub(super) kind: MessageKind,
    pub(super) payload_bytes: usize,
    pub(super) minor: u8,
    crc: u32,
    /// CRC-32C of the header's first [`CRC_OFFSET`] bytes.
    own_crc: u32,
}

impl FrameHeader {
    /// Reads and checks the header of message number `expected`, before anything of its payload is looked at.
    pub(super) fn parse(bytes: &[u8; FRAME_HEADER_BYTES], expected: u64) -> Result<FrameHeader, PeerError> {
        let raw: RawHeader = zerocopy::transmute!(*bytes);
        if raw.magic.get() != MAGIC {
            return Err(PeerError::NotOurs(raw.magic.get()));
        }
        if raw.major != MAJOR_VERSION {
            return Err(PeerError::Version { major: raw.major, minor: raw.minor });
        }
        let kind = MessageKind::from_number(raw.kind).ok_or(PeerError::UnknownKind(raw.kind))?;
        let (length, limit) = (raw.length.get() as usize, kind.max_payload_bytes());
        if length > limit {
            return Err(PeerError::TooLong { kind, length, limit });
        }
        let got = raw.number.get();
        if got < expected {
            return Err(PeerError::Repeated { expected, got });
        }
        if got > expected {
            return Err(PeerError::Missing { expected, got });
        }
        let own_crc = crc32c(&bytes[..CRC_OFFSET]);
        Ok(FrameHeader { kind, payload_bytes: length, minor: raw.minor, crc: raw.crc.get(), own_crc })
    }

    /// Checks the checksum. Returns that of a disk's data in it.
    pub(super) fn check(&self, payload: &[u8]) -> Result<Option<u32>, PeerError> {
        let (crc, data_crc) = sum(self.kind, self.own_crc, &[IoSlice::new(payload)]);
        if self.crc != crc {
            return Err(PeerError::Checksum(self.kind));
        }
        Ok(data_crc)
    }
}

/// The checksum of a message, whose header alone has this one, and which has this payload; and that of a disk's data in it.
fn sum(kind: MessageKind, header_crc: u32, parts: &[IoSlice<'_>]) -> (u32, Option<u32>) {
    let has_data = matches!(kind, MessageKind::DiskWrite | MessageKind::DiskBefore);
    let mut before_data = if has_data { DISK_WRITE_HEAD_BYTES } else { usize::MAX };
    let (mut crc, mut data_crc) = (header_crc, 0);
    for part in parts {
        let (head, data) = part.split_at(before_data.min(part.len()));
        before_data -= head.len();
        (crc, data_crc) = (crc32c_append(crc, head), crc32c_append(data_crc, data));
    }
    if has_data { (crc32c_append(crc, &data_crc.to_le_bytes()), Some(data_crc)) } else { (crc, None) }
}

/// The length and checksum of the `Stream` messages of an epoch, as `EpochEnd` tells them.
#[derive(Clone, Default, Debug)]
pub struct StreamSum {
    bytes: u64,
    crc: u32,
}

impl StreamSum {
    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// CRC-32C over them.
    pub fn crc(&self) -> u32 {
        self.crc
    }

    /// These are the next.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.crc = crc32c_append(self.crc, bytes);
    }
}

/// Frames the messages of one direction of one connection.
///
/// ```
/// use colo_core::peer::{FrameDecoder, FrameEncoder, Message, MessageKind};
/// use std::io::IoSlice;
///
/// let mut encoder = FrameEncoder::new();
/// let mut bytes = Vec::new();
/// encoder.encode(&Message::Heartbeat { number: 7 }, &mut bytes)?;
///
/// // Pages are not copied to be sent: the header is made over them where they are.
/// let parts = [IoSlice::new(b"prefix"), IoSlice::new(b"page")];
/// bytes.extend(encoder.header_for(MessageKind::Stream, &parts)?);
/// bytes.extend(b"prefixpage");
///
/// let mut decoder = FrameDecoder::new();
/// decoder.feed(&bytes);
/// assert_eq!(decoder.next_message()?, Some(Message::Heartbeat { number: 7 }));
/// assert_eq!(decoder.next_message()?, Some(Message::Stream("prefixpage".into())));
/// assert_eq!(decoder.next_message()?, None);
/// # Ok::<(), colo_core::peer::PeerError>(())
/// ```
#[derive(Clone, Default, Debug)]
pub struct FrameEncoder {
    next_number: u64,
    stream_sum: StreamSum,
}

impl FrameEncoder {
    /// For a new connection.
    pub fn new() -> FrameEncoder {
        FrameEncoder::default()
    }

    /// For a connection on which so many messages have been sent.
    pub(super) fn numbered_from(next_number: u64) -> FrameEncoder {
        FrameEncoder { next_number, ..FrameEncoder::default() }
    }

    /// The number of the next message.
    pub(super) fn next_number(&self) -> u64 {
        self.next_number
    }

    /// The header of the next message, whose payload is these parts one after the other. The message counts as sent.
    ///
    /// # Errors
    /// [`PeerError::TooLong`]; the message does not count then.
    pub fn header_for(
        &mut self,
        kind: MessageKind,
        parts: &[IoSlice<'_>],
    ) -> Result<[u8; FRAME_HEADER_BYTES], PeerError> {
        let length = parts.iter().map(|part| part.len()).sum();
        let limit = kind.max_payload_bytes();
        if length > limit {
            return Err(PeerError::TooLong { kind, length, limit });
        }
        if kind == MessageKind::Stream {
            parts.iter().for_each(|part| self.stream_sum.add(part));
        }
        let raw = RawHeader {
            magic: MAGIC.into(),
            major: MAJOR_VERSION,
            minor: MINOR_VERSION,
            kind: kind as u8,
            reserved: 0,
            number: self.next_number.into(),
            length: (length as u32).into(),
            crc: 0.into(),
        };
        self.next_number += 1;
        let mut header: [u8; FRAME_HEADER_BYTES] = zerocopy::transmute!(raw);
        let (crc, _) = sum(kind, crc32c(&header[..CRC_OFFSET]), parts);
        header[CRC_OFFSET..].copy_from_slice(&crc.to_le_bytes());
        Ok(header)
    }

    /// Appends the next message, whole.
    ///
    /// # Errors
    /// [`PeerError::Payload`], [`PeerError::TooLong`] when something in the message is beyond its limit; nothing is appended,
    /// and the message does not count.
    pub fn encode(&mut self, message: &Message, out: &mut Vec<u8>) -> Result<(), PeerError> {
        let start = out.len();
        let result = self.encode_at(start, message, out);
        if result.is_err() {
            out.truncate(start);
        }
        result
    }

    /// The sum over the `Stream` messages since the last call.
    pub fn take_stream_sum(&mut self) -> StreamSum {
        std::mem::take(&mut self.stream_sum)
    }

    fn encode_at(&mut self, start: usize, message: &Message, out: &mut Vec<u8>) -> Result<(), PeerError> {
        let kind = message.kind();
        out.resize(start + FRAME_HEADER_BYTES, 0);
        codec::encode_payload(message, out).map_err(|error| PeerError::Payload { kind, error })?;
        let (header, payload) = out[start..].split_at_mut(FRAME_HEADER_BYTES);
        header.copy_from_slice(&self.header_for(kind, &[IoSlice::new(payload)])?);
        Ok(())
    }
}
