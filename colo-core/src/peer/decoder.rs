use super::Message;
use super::codec::decode_payload;
use super::error::PeerError;
use super::frame::{FRAME_HEADER_BYTES, FrameHeader};
use bytes::Bytes;
use std::io::{self, ErrorKind, Read};

/// How much is read at once while no longer message is under way: a few dozen messages of packets, and no more than a cache holds.
const READ_AHEAD_BYTES: usize = 64 * 1024;

/// What came of a read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadState {
    /// There may be more: take the messages, then read again.
    More,
    /// There is nothing more now.
    Blocked,
    /// The peer has closed its side.
    Closed,
}

/// Puts messages together from bytes, however these are cut. It does no waiting; give it bytes by [`FrameDecoder::feed`] or
/// [`FrameDecoder::read_from`], then take messages by [`FrameDecoder::next_message`] until there are none.
///
/// It never holds more than one message of the longest kind and 64 KiB: room is made for a message only when its
/// header has come and its length is within its kind's limit. Frames and stream records are slices of what was read; so a
/// frame that is kept keeps up to 64 KiB with it.
#[derive(Default, Debug)]
pub struct FrameDecoder {
    /// What has been read and not looked at; begins with a header.
    filling: Vec<u8>,
    /// What messages are being cut from; begins with a header.
    ready: Bytes,
    /// The frame at the front, if its header has come.
    header: Option<FrameHeader>,
    next_number: u64,
    /// The minor version that the last message had.
    minor: Option<u8>,
    failed: bool,
}

impl FrameDecoder {
    /// For a new connection.
    pub fn new() -> FrameDecoder {
        FrameDecoder::default()
    }

    /// For a connection on which so many messages have come.
    pub(super) fn numbered_from(next_number: u64) -> FrameDecoder {
        FrameDecoder { next_number, ..FrameDecoder::default() }
    }

    /// How many messages have been taken, if there is nothing behind them.
    pub(super) fn whole_messages(&self) -> Result<u64, PeerError> {
        match self.filling.len() + self.ready.len() {
            _ if self.failed => Err(PeerError::Failed),
            0 => Ok(self.next_number),
            got => Err(PeerError::UnderWay { got }),
        }
    }

    /// Takes as many of the bytes as there is room for, and returns how many. Less than all only while messages have not been
    /// taken.
    pub fn feed(&mut self, bytes: &[u8]) -> usize {
        self.refill();
        let count = bytes.len().min(self.room());
        self.filling.extend_from_slice(&bytes[..count]);
        count
    }

    /// Reads what the source has, without reading on when the room is full.
    ///
    /// # Errors
    /// The source's, but `WouldBlock`.
    pub fn read_from(&mut self, source: &mut impl Read) -> io::Result<ReadState> {
        self.refill();
        let room = self.room();
        self.read(source, room)
    }

    /// Reads no further than the end of the header or of the message under way, so that nothing is left here unseen when the
    /// source is given to somebody who polls it.
    pub(super) fn read_step_from(&mut self, source: &mut impl Read) -> io::Result<ReadState> {
        self.refill();
        self.read(source, self.missing_bytes())
    }

    /// How many bytes are missing of the header or of the message under way.
    pub(super) fn missing_bytes(&self) -> usize {
        self.frame_bytes().saturating_sub(self.filling.len())
    }

    /// The next message, if all of it has come.
    ///
    /// # Errors
    /// Everything that a [`PeerError`] says about a message; the decoder is good for nothing after it.
    pub fn next_message(&mut self) -> Result<Option<Message>, PeerError> {
        if self.failed {
            return Err(PeerError::Failed);
        }
        let result = self.cut_message();
        self.failed = result.is_err();
        result
    }

    /// What it means that the peer has closed its side now, after all messages have been taken:
    /// [`PeerError::Truncated`] when a part of a message is left; else [`PeerError::Closed`].
    pub fn closed(&self) -> PeerError {
        match self.filling.len() + self.ready.len() {
            0 => PeerError::Closed,
            got => PeerError::Truncated { needed: self.frame_bytes(), got },
        }
    }

    /// The minor version that the peer speaks, by the last message that was taken.
    pub fn peer_minor(&self) -> Option<u8> {
        self.minor
    }

    /// Bytes of memory that it holds for itself.
    pub fn capacity_bytes(&self) -> usize {
        self.filling.capacity() + self.ready.len()
    }

    /// Bytes of the frame under way, as far as known.
    fn frame_bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.header.map_or(0, |header| header.payload_bytes)
    }

    /// Bytes that may be added to `filling`.
    fn room(&self) -> usize {
        self.frame_bytes().max(READ_AHEAD_BYTES).saturating_sub(self.filling.len())
    }

    fn read(&mut self, source: &mut impl Read, limit: usize) -> io::Result<ReadState> {
        if limit == 0 {
            return Ok(ReadState::More);
        }
        // Room is made once, so that `read_to_end` does not make it in steps, each with a copy.
        self.filling.reserve_exact(limit);
        match source.take(limit as u64).read_to_end(&mut self.filling) {
            Ok(count) if count == limit => Ok(ReadState::More),
            Ok(_) => Ok(ReadState::Closed),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(ReadState::Blocked),
            Err(error) => Err(error),
        }
    }

    fn cut_message(&mut self) -> Result<Option<Message>, PeerError> {
        if self.ready.is_empty() {
            self.start_cutting()?;
        }
        let header = match (self.header, self.ready.first_chunk()) {
            (Some(header), _) => header,
            (None, Some(bytes)) => *self.header.insert(FrameHeader::parse(bytes, self.next_number)?),
            (None, None) => return Ok(None),
        };
        let frame_bytes = self.frame_bytes();
        if self.ready.len() < frame_bytes {
            return Ok(None);
        }
        let payload = self.ready.slice(FRAME_HEADER_BYTES..frame_bytes);
        let data_crc = header.check(&payload)?;
        let kind = header.kind;
        let mut message = decode_payload(kind, &payload).map_err(|error| PeerError::Payload { kind, error })?;
        if let (Message::DiskWrite { data, .. } | Message::DiskBefore { data, .. }, Some(crc)) =
            (&mut message, data_crc)
        {
            data.set_crc(crc);
        }
        self.ready = self.ready.slice(frame_bytes..);
        self.header = None;
        self.minor = Some(header.minor);
        self.next_number += 1;
        Ok(Some(message))
    }

    /// Turns what has been read into something that messages can be cut from, if there is a whole one or a new header in it.
    fn start_cutting(&mut self) -> Result<(), PeerError> {
        if self.header.is_none() {
            let Some(bytes) = self.filling.first_chunk() else {
                return Ok(());
            };
            self.header = Some(FrameHeader::parse(bytes, self.next_number)?);
        }
        if self.filling.len() < self.frame_bytes() {
            return Ok(());
        }
        if self.filling.len() <= READ_AHEAD_BYTES / 2 {
            // A copy costs less than the rest of the room, which every kept frame would hold.
            self.ready = Bytes::copy_from_slice(&self.filling);
            self.filling.clear();
        } else {
            self.ready = Bytes::from(std::mem::take(&mut self.filling));
        }
        Ok(())
    }

    /// Puts what is left after the last message where more can be read to.
    fn refill(&mut self) {
        if !self.ready.is_empty() {
            self.filling = self.ready.to_vec();
            self.ready = Bytes::new();
        }
    }
}
