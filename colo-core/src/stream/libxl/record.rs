use super::{LibxlFault, kind};
use crate::stream::record::{ALIGN_BYTES, RECORD_HEADER_BYTES, RawRecordHeader};
use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The longest body of a libxl record: 64 MiB. A device model's state is some kilobytes, and some megabytes with a big screen.
pub const MAX_LIBXL_BODY_BYTES: usize = 64 << 20;

/// One record of libxl's, borrowed from the bytes it was read from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LibxlRecord<'a> {
    /// The end of the stream.
    End,
    /// A libxc stream follows.
    LibxcContext,
    /// What the device model keeps in xenstore.
    EmulatorXenstoreData(Emulator, XenstoreData<'a>),
    /// The device model's state, which only it reads.
    EmulatorContext(Emulator, &'a [u8]),
    /// The end of a checkpoint.
    CheckpointEnd,
    /// COLO: what one side has come to.
    CheckpointState(CheckpointState),
}

/// A kind of device model.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EmulatorId {
    /// Not known, in a stream that was made from a legacy one.
    Unknown,
    /// Xen's old fork of QEMU.
    QemuTraditional,
    /// QEMU.
    QemuUpstream,
}

impl EmulatorId {
    const ALL: [EmulatorId; 3] = [EmulatorId::Unknown, EmulatorId::QemuTraditional, EmulatorId::QemuUpstream];

    /// Its number in the stream.
    pub const fn number(self) -> u32 {
        match self {
            EmulatorId::Unknown => 0,
            EmulatorId::QemuTraditional => 1,
            EmulatorId::QemuUpstream => 2,
        }
    }
}

/// A device model of the domain.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Emulator {
    /// Its kind.
    pub id: EmulatorId,
    /// Which of several; libxl has only 0.
    pub index: u32,
}

impl Emulator {
    /// The only one that a domain has today.
    pub const QEMU: Emulator = Emulator { id: EmulatorId::QemuUpstream, index: 0 };
}

/// What COLO's two sides tell each other around a checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CheckpointState {
    /// To the secondary: the guests differ, a checkpoint must be taken.
    New,
    /// To the primary: the secondary's guest is suspended.
    SvmSuspended,
    /// To the primary: the secondary's guest is ready.
    SvmReady,
    /// To the primary: the secondary's guest runs again.
    SvmResumed,
}

impl CheckpointState {
    const ALL: [CheckpointState; 4] =
        [CheckpointState::New, CheckpointState::SvmSuspended, CheckpointState::SvmReady, CheckpointState::SvmResumed];

    /// Its number in the stream.
    pub const fn number(self) -> u32 {
        match self {
            CheckpointState::New => 0,
            CheckpointState::SvmSuspended => 1,
            CheckpointState::SvmReady => 2,
            CheckpointState::SvmResumed => 3,
        }
    }
}

/// As in the specification, "Emulator Records".
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawEmulator {
    id: U32,
    index: U32,
}

/// As in the specification, "CHECKPOINT_STATE".
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawCheckpointState {
    id: U32,
    padding: U32,
}

impl<'a> LibxlRecord<'a> {
    /// Reads the record at the front of `bytes`; its body may be `limit` bytes long. Padding is ignored.
    ///
    /// # Errors
    /// A [`LibxlFault`].
    pub fn parse(bytes: &'a [u8], limit: usize) -> Result<(LibxlRecord<'a>, &'a [u8]), LibxlFault> {
        let (kind, body_bytes, record_bytes) = Self::parse_header(bytes, limit)?;
        let truncated = LibxlFault::Truncated { needed: record_bytes, got: bytes.len() };
        let (record, rest) = bytes.split_at_checked(record_bytes).ok_or(truncated)?;
        let body = &record[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + body_bytes];
        Ok((Self::from_body(kind, body)?, rest))
    }

    /// Reads the header at the front of `bytes`: the record's type, its body's length, its whole length with padding.
    pub(in crate::stream) fn parse_header(bytes: &[u8], limit: usize) -> Result<(u32, usize, usize), LibxlFault> {
        let truncated = LibxlFault::Truncated { needed: RECORD_HEADER_BYTES, got: bytes.len() };
        let (raw, _) = RawRecordHeader::ref_from_prefix(bytes).map_err(|_| truncated)?;
        let (kind, length) = (raw.kind.get(), raw.body_bytes());
        if kind > kind::CHECKPOINT_STATE {
            return Err(LibxlFault::UnknownRecord(kind));
        }
        if length > limit {
            return Err(LibxlFault::TooLong { kind, length, limit });
        }
        Ok((kind, length, RECORD_HEADER_BYTES + length.next_multiple_of(ALIGN_BYTES)))
    }

    /// The record's type.
    pub fn kind(&self) -> u32 {
        match self {
            LibxlRecord::End => kind::END,
            LibxlRecord::LibxcContext => kind::LIBXC_CONTEXT,
            LibxlRecord::EmulatorXenstoreData(..) => kind::EMULATOR_XENSTORE_DATA,
            LibxlRecord::EmulatorContext(..) => kind::EMULATOR_CONTEXT,
            LibxlRecord::CheckpointEnd => kind::CHECKPOINT_END,
            LibxlRecord::CheckpointState(_) => kind::CHECKPOINT_STATE,
        }
    }

    /// Appends the record: header, body, padding.
    ///
    /// # Errors
    /// [`LibxlFault::TooLong`] when the body is longer than [`MAX_LIBXL_BODY_BYTES`]; nothing is appended.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), LibxlFault> {
        let emulator = |emulator: &Emulator| {
            RawEmulator { id: emulator.id.number().into(), index: emulator.index.into() }.as_bytes().to_vec()
        };
        let (front, rest) = match self {
            LibxlRecord::End | LibxlRecord::LibxcContext | LibxlRecord::CheckpointEnd => (Vec::new(), &[][..]),
            LibxlRecord::EmulatorXenstoreData(of, data) => (emulator(of), data.0),
            LibxlRecord::EmulatorContext(of, context) => (emulator(of), *context),
            LibxlRecord::CheckpointState(state) => {
                let raw = RawCheckpointState { id: state.number().into(), padding: 0.into() };
                (raw.as_bytes().to_vec(), &[][..])
            }
        };
        let (kind, length) = (self.kind(), front.len() + rest.len());
        if length > MAX_LIBXL_BODY_BYTES {
            return Err(LibxlFault::TooLong { kind, length, limit: MAX_LIBXL_BODY_BYTES });
        }
        out.extend_from_slice(RawRecordHeader::new(kind, length).as_bytes());
        out.extend_from_slice(&front);
        out.extend_from_slice(rest);
        out.extend_from_slice(&[0; ALIGN_BYTES][..length.next_multiple_of(ALIGN_BYTES) - length]);
        Ok(())
    }

    /// Whether what means nothing in a record is zero: its padding, and a CHECKPOINT_STATE's. `body` is the body with its padding.
    pub(in crate::stream) fn check_reserved(kind: u32, body_bytes: usize, body: &[u8]) -> Result<(), LibxlFault> {
        if kind == kind::CHECKPOINT_STATE && body[..body_bytes].iter().skip(size_of::<U32>()).any(|byte| *byte != 0) {
            return Err(LibxlFault::NotZero("a reserved field of a CHECKPOINT_STATE record"));
        }
        if body[body_bytes..].iter().any(|byte| *byte != 0) {
            return Err(LibxlFault::NotZero("the padding of a libxl record"));
        }
        Ok(())
    }

    fn from_body(kind: u32, body: &'a [u8]) -> Result<LibxlRecord<'a>, LibxlFault> {
        let bad_length = || LibxlFault::BadLength { kind, length: body.len() };
        let empty = |record| if body.is_empty() { Ok(record) } else { Err(bad_length()) };
        match kind {
            kind::END => empty(LibxlRecord::End),
            kind::LIBXC_CONTEXT => empty(LibxlRecord::LibxcContext),
            kind::CHECKPOINT_END => empty(LibxlRecord::CheckpointEnd),
            kind::EMULATOR_XENSTORE_DATA => {
                let (emulator, rest) = split_emulator(kind, body)?;
                Ok(LibxlRecord::EmulatorXenstoreData(emulator, XenstoreData::parse(rest)?))
            }
            kind::EMULATOR_CONTEXT => {
                let (emulator, rest) = split_emulator(kind, body)?;
                Ok(LibxlRecord::EmulatorContext(emulator, rest))
            }
            kind::CHECKPOINT_STATE => {
                let raw = RawCheckpointState::ref_from_bytes(body).map_err(|_| bad_length())?;
                let state = CheckpointState::ALL.into_iter().find(|state| state.number() == raw.id.get());
                state.map(LibxlRecord::CheckpointState).ok_or(LibxlFault::UnknownState(raw.id.get()))
            }
            _ => Err(LibxlFault::UnknownRecord(kind)),
        }
    }
}

fn split_emulator(kind: u32, body: &[u8]) -> Result<(Emulator, &[u8]), LibxlFault> {
    let bad_length = || LibxlFault::BadLength { kind, length: body.len() };
    let (raw, rest) = RawEmulator::ref_from_prefix(body).map_err(|_| bad_length())?;
    let id = EmulatorId::ALL.into_iter().find(|id| id.number() == raw.id.get());
    let id = id.ok_or(LibxlFault::UnknownEmulator { kind, id: raw.id.get() })?;
    Ok((Emulator { id, index: raw.index.get() }, rest))
}

/// Keys below the device model's place in xenstore, and their values: each a string that a NUL ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct XenstoreData<'a>(&'a [u8]);

impl<'a> XenstoreData<'a> {
    /// Reads what comes behind an emulator's number.
    ///
    /// # Errors
    /// [`LibxlFault::Xenstore`] unless these are pairs of whole strings, the first of each a key: relative, and of the letters that
    /// xenstore allows.
    pub fn parse(bytes: &'a [u8]) -> Result<XenstoreData<'a>, LibxlFault> {
        let fault = |what| Err(LibxlFault::Xenstore(what));
        if bytes.last().is_some_and(|last| *last != 0) {
            return fault("the last string does not end");
        }
        let mut strings = strings(bytes);
        while let Some(key) = strings.next() {
            let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-/_@".contains(byte);
            if key.is_empty() || key[0] == b'/' || !key.iter().all(allowed) {
                return fault("a key that xenstore does not allow");
            }
            if strings.next().is_none() {
                return fault("a key without a value");
            }
        }
        Ok(XenstoreData(bytes))
    }

    /// The keys and their values, in the order of the record.
    pub fn entries(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        let mut strings = strings(self.0);
        std::iter::from_fn(move || {
            // `parse` has let only ASCII through.
            let key = std::str::from_utf8(strings.next()?).ok()?;
            Some((key, strings.next()?))
        })
    }
}

/// These keys and values as [`XenstoreData::parse`] reads them.
///
/// # Errors
/// [`LibxlFault::Xenstore`] for a key that xenstore does not allow, or a NUL in a value.
pub fn encode_xenstore_data<'s>(entries: impl IntoIterator<Item = (&'s str, &'s [u8])>) -> Result<Vec<u8>, LibxlFault> {
    let mut bytes = Vec::new();
    for (key, value) in entries {
        if value.contains(&0) {
            return Err(LibxlFault::Xenstore("a NUL in a value"));
        }
        bytes.extend_from_slice(key.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(value);
        bytes.push(0);
    }
    XenstoreData::parse(&bytes)?;
    Ok(bytes)
}

/// The strings in `bytes`, which is empty or ends with a NUL.
fn strings(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split_inclusive(|byte| *byte == 0).map(|string| &string[..string.len() - 1])
}
