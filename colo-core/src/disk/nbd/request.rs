use super::wire::{MAX_REQUEST_BYTES, REQUEST_MAGIC, flag};
use super::{Export, Session};
use crate::disk::DiskError;

/// What a client wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// To have what is there.
    Read,
    /// That it is something else.
    Write,
    /// To go. There is no answer.
    Disconnect,
    /// That everything that was answered is durable.
    Flush,
    /// That what is there need not be kept.
    Trim,
    /// To read it soon.
    Cache,
    /// That there are zeroes.
    WriteZeroes,
    /// To know what is allocated.
    BlockStatus,
    /// Something that nobody knows here.
    Unknown(u16),
}

/// A request, without the data that follow a write's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Comes back with the reply.
    pub cookie: u64,
    /// What is wanted.
    pub command: Command,
    /// Where on the disk, in bytes.
    pub offset: u64,
    /// How much, in bytes.
    pub length: u32,
    flags: u16,
}

impl Request {
    /// How long it is on the wire.
    pub const BYTES: usize = 28;

    /// One without flags.
    pub fn new(command: Command, cookie: u64, offset: u64, length: u32) -> Request {
        Request { cookie, command, offset, length, flags: 0 }
    }

    /// The same under another cookie.
    #[must_use]
    pub fn under(self, cookie: u64) -> Request {
        Request { cookie, ..self }
    }

    /// The same, of zeroes that must keep their space.
    #[must_use]
    pub fn keeping_space(self) -> Request {
        Request { flags: self.flags | flag::NO_HOLE, ..self }
    }

    /// As it is on the wire.
    pub fn encode(&self) -> [u8; Request::BYTES] {
        let command = match self.command {
            Command::Read => 0,
            Command::Write => 1,
            Command::Disconnect => 2,
            Command::Flush => 3,
            Command::Trim => 4,
            Command::Cache => 5,
            Command::WriteZeroes => 6,
            Command::BlockStatus => 7,
            Command::Unknown(other) => other,
        };
        let mut bytes = [0; Request::BYTES];
        bytes[..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.flags.to_be_bytes());
        bytes[6..8].copy_from_slice(&command.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_be_bytes());
        bytes[24..].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }

    /// Reads one. `None`: the client speaks something else, and nobody knows where its next request would be.
    pub fn decode(bytes: &[u8; Request::BYTES]) -> Option<Request> {
        let u16_at = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let u64_at = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        if bytes[..4] != REQUEST_MAGIC.to_be_bytes() {
            return None;
        }
        let command = match u16_at(6) {
            0 => Command::Read,
            1 => Command::Write,
            2 => Command::Disconnect,
            3 => Command::Flush,
            4 => Command::Trim,
            5 => Command::Cache,
            6 => Command::WriteZeroes,
            7 => Command::BlockStatus,
            other => Command::Unknown(other),
        };
        let length = u32::from_be_bytes(bytes[24..].try_into().expect("four bytes"));
        Some(Request { cookie: u64_at(8), command, offset: u64_at(16), length, flags: u16_at(4) })
    }

    /// How many bytes of data follow it.
    pub fn data_bytes(&self) -> u32 {
        if self.command == Command::Write { self.length } else { 0 }
    }

    /// Whether what it writes must be durable before it is answered.
    pub fn is_durable(&self) -> bool {
        self.flags & flag::FUA != 0
    }

    /// Whether the disk may give the space back that zeroes take.
    pub fn may_unmap(&self) -> bool {
        self.flags & flag::NO_HOLE == 0
    }

    /// Whether what is read must come in one piece.
    pub fn is_in_one_piece(&self) -> bool {
        self.flags & flag::DF != 0
    }

    /// Whether one answer about what is allocated is enough.
    pub fn wants_one_extent(&self) -> bool {
        self.flags & flag::REQ_ONE != 0
    }

    /// Looks whether it can be done at all.
    ///
    /// # Errors
    /// What it is to be answered with.
    pub fn check(&self, export: &Export, session: &Session) -> Result<(), DiskError> {
        let (known, writes) = match self.command {
            Command::Read if session.is_structured => (flag::DF, false),
            Command::Read | Command::Flush | Command::Cache | Command::Disconnect => (0, false),
            Command::BlockStatus if session.has_allocation => (flag::REQ_ONE, false),
            Command::Write | Command::Trim => (flag::FUA, true),
            Command::WriteZeroes => (flag::FUA | flag::NO_HOLE, true),
            Command::BlockStatus | Command::Unknown(_) => return Err(DiskError::Invalid),
        };
        if self.flags & !known != 0 {
            return Err(DiskError::Invalid);
        }
        if matches!(self.command, Command::Flush | Command::Disconnect) {
            return if (self.offset, self.length) == (0, 0) { Ok(()) } else { Err(DiskError::Invalid) };
        }
        if writes && export.is_read_only {
            return Err(DiskError::NotPermitted);
        }
        if matches!(self.command, Command::Read | Command::Write) && self.length > MAX_REQUEST_BYTES {
            return Err(DiskError::Overflow);
        }
        let is_inside = self.offset.checked_add(self.length.into()).is_some_and(|end| end <= export.size);
        if !is_inside {
            return Err(if writes { DiskError::NoSpace } else { DiskError::Invalid });
        }
        let block = u64::from(export.minimum_block);
        if self.length == 0 || self.offset % block != 0 || u64::from(self.length) % block != 0 {
            return Err(DiskError::Invalid);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(flags: u16, command: u16, offset: u64, length: u32) -> [u8; Request::BYTES] {
        let parts: [&[u8]; 6] = [
            &REQUEST_MAGIC.to_be_bytes(),
            &flags.to_be_bytes(),
            &command.to_be_bytes(),
            &7_u64.to_be_bytes(),
            &offset.to_be_bytes(),
            &length.to_be_bytes(),
        ];
        parts.concat().try_into().unwrap()
    }

    #[test]
    fn what_can_be_done_and_what_not() {
        let export = Export { minimum_block: 512, ..Export::new("a", 8192) };
        let read_only = Export { is_read_only: true, ..export.clone() };
        let plain = Session { export: 0, is_structured: false, has_allocation: false };
        let rich = Session { export: 0, is_structured: true, has_allocation: true };
        let check = |flags, command, offset, length, export: &Export, session: &Session| {
            let request = Request::decode(&bytes(flags, command, offset, length)).unwrap();
            assert_eq!((request.cookie, request.offset, request.length), (7, offset, length));
            assert_eq!(request.encode(), bytes(flags, command, offset, length));
            request.check(export, session).err()
        };
        use DiskError::{Invalid, NoSpace, NotPermitted, Overflow};
        for (flags, command, offset, length, plainly, richly) in [
            (0, 0, 0, 8192, None, None),
            (flag::DF, 0, 512, 512, Some(Invalid), None),
            (0, 0, 512, 8192, Some(Invalid), Some(Invalid)),
            (0, 0, u64::MAX - 511, 512, Some(Invalid), Some(Invalid)),
            (0, 0, 1, 512, Some(Invalid), Some(Invalid)),
            (0, 0, 0, 0, Some(Invalid), Some(Invalid)),
            (0, 0, 0, MAX_REQUEST_BYTES + 512, Some(Overflow), Some(Overflow)),
            (flag::FUA, 1, 7680, 512, None, None),
            (0, 1, 8192, 512, Some(NoSpace), Some(NoSpace)),
            (flag::NO_HOLE, 1, 0, 512, Some(Invalid), Some(Invalid)),
            (0, 3, 0, 0, None, None),
            (0, 3, 0, 512, Some(Invalid), Some(Invalid)),
            (flag::NO_HOLE | flag::FUA, 6, 0, 8192, None, None),
            (0, 7, 0, 512, Some(Invalid), None),
            (0, 99, 0, 512, Some(Invalid), Some(Invalid)),
        ] {
            let what = format!("{flags} {command} {offset} {length}");
            assert_eq!(check(flags, command, offset, length, &export, &plain), plainly, "{what}");
            assert_eq!(check(flags, command, offset, length, &export, &rich), richly, "{what}");
        }
        for command in [1, 4, 6] {
            assert_eq!(check(0, command, 0, 512, &read_only, &plain), Some(NotPermitted));
        }
        let mut other = bytes(0, 0, 0, 512);
        other[0] ^= 1;
        assert_eq!(Request::decode(&other), None);
    }
}
