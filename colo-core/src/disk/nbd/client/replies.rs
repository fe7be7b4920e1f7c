use super::asked::Asked;
use crate::disk::nbd::fields::Fields;
use crate::disk::nbd::request::Request;
use crate::disk::nbd::wire::{SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, chunk};
use crate::disk::nbd::{Command, Offer};
use crate::disk::{Allocation, DiskError};
use std::collections::{HashMap, VecDeque};

/// The longest error that is taken: its text has at most 4096 bytes.
const MAX_ERROR_BYTES: u32 = 4 + 2 + 4096 + 8;
/// The most parts of a disk that are told by one reply.
const MAX_PARTS: u32 = 1 << 20;

/// What a request is answered with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answered {
    /// It is done.
    Done,
    /// What was read: as much as was asked for.
    Data(Vec<u8>),
    /// What is allocated: at least one part, and together no more than was asked for.
    Parts(Vec<Allocation>),
}

/// The answer to one request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The request's.
    pub cookie: u64,
    /// How it went.
    pub result: Result<Answered, DiskError>,
}

/// What a server has sent that no server may send. What else it says is not believed either.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Lie {
    /// Where a reply should be there is something else.
    #[error("the server sends what is no reply")]
    NoReply,
    /// An answer to what was not asked, or was answered before.
    #[error("the server answers a request that there is not (cookie {0})")]
    UnknownCookie(u64),
    /// A kind of reply that this request does not have.
    #[error("the server answers by a chunk of type {0}, which such a request does not have")]
    WrongKind(u16),
    /// A length that is too short, or too long, for what it belongs to.
    #[error("the server sends a chunk of type {kind} with {length} bytes")]
    WrongLength {
        /// The chunk's type.
        kind: u16,
        /// Its length.
        length: u32,
    },
    /// Data that lie outside of what was asked for.
    #[error("the server sends data that were not asked for")]
    Outside,
    /// A part that comes twice.
    #[error("the server sends the same part of a reply twice")]
    Twice,
    /// A part that does not come, though nothing is said to be wrong.
    #[error("the server leaves out a part of a reply")]
    Incomplete,
    /// A reply with more chunks than are believed.
    #[error("the server sends a reply without an end")]
    Endless,
}

/// Takes apart what a server sends, without input and output.
///
/// ```
/// use colo_core::disk::nbd::{Answer, Answered, Command, Replies, Request};
///
/// let mut replies = Replies::new(false, None);
/// replies.ask(&Request::new(Command::Read, 7, 4096, 4));
/// replies.feed(b"\x67\x44\x66\x98\0\0\0\0\0\0\0\0\0\0\0\x07da")?;
/// assert_eq!(replies.poll(), None);
/// replies.feed(b"ta")?;
/// assert_eq!(replies.poll(), Some(Answer { cookie: 7, result: Ok(Answered::Data(b"data".into())) }));
/// # Ok::<(), colo_core::disk::nbd::Lie>(())
/// ```
#[derive(Debug)]
pub struct Replies {
    is_structured: bool,
    allocation_id: Option<u32>,
    asked: HashMap<u64, Asked>,
    step: Step,
    /// Of the step, until it is whole. No longer than an error.
    gathered: Vec<u8>,
    answers: VecDeque<Answer>,
}

/// The part of a reply that comes next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Magic,
    Simple,
    Chunk,
    /// A chunk's data that are short, as a whole.
    Short(Chunk),
    DataOffset(Chunk),
    Data {
        chunk: Chunk,
        at: usize,
        left: usize,
    },
    ContextId(Chunk),
    Part {
        chunk: Chunk,
        left: u32,
    },
}

#[derive(Clone, Copy, Debug)]
struct Chunk {
    is_last: bool,
    kind: u16,
    cookie: u64,
    length: u32,
}

impl Replies {
    /// Of a connection over which this was agreed.
    pub fn new(is_structured: bool, allocation_id: Option<u32>) -> Replies {
        let (asked, answers) = (HashMap::new(), VecDeque::new());
        Replies { is_structured, allocation_id, asked, step: Step::Magic, gathered: Vec::new(), answers }
    }

    /// As was agreed.
    pub fn of(offer: &Offer) -> Replies {
        Replies::new(offer.is_structured, offer.allocation_id)
    }

    /// That is asked now, under a cookie that no other request has.
    pub fn ask(&mut self, request: &Request) {
        self.asked.insert(request.cookie, Asked::new(request));
    }

    /// An answer that is whole.
    pub fn poll(&mut self) -> Option<Answer> {
        self.answers.pop_front()
    }

    /// Takes what the server has sent.
    ///
    /// # Errors
    /// [`Lie`]: close the connection.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Lie> {
        while !bytes.is_empty() {
            if let Step::Data { chunk, at, left } = self.step {
                let count = left.min(bytes.len());
                self.of_cookie(chunk.cookie)?.fill(at, &bytes[..count]);
                bytes = &bytes[count..];
                self.step = match left - count {
                    0 => self.end(chunk.cookie, chunk.is_last)?,
                    left => Step::Data { chunk, at: at + count, left },
                };
                continue;
            }
            let missing = self.step.wanted() - self.gathered.len();
            let count = missing.min(bytes.len());
            self.gathered.extend_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            if count == missing {
                let mut gathered = std::mem::take(&mut self.gathered);
                self.step = self.take(&mut Fields(&gathered)).ok_or(Lie::NoReply)??;
                gathered.clear();
                self.gathered = gathered;
            }
        }
        Ok(())
    }

    /// Takes a step that is whole; there are enough fields.
    fn take(&mut self, fields: &mut Fields<'_>) -> Option<Result<Step, Lie>> {
        Some(match self.step {
            Step::Magic => match fields.u32()? {
                SIMPLE_REPLY_MAGIC => Ok(Step::Simple),
                STRUCTURED_REPLY_MAGIC if self.is_structured => Ok(Step::Chunk),
                _ => Err(Lie::NoReply),
            },
            Step::Simple => {
                let error = fields.u32()?;
                self.simple(error, fields.u64()?)
            }
            Step::Chunk => {
                let (flags, kind) = (fields.u16()?, fields.u16()?);
                let (cookie, length) = (fields.u64()?, fields.u32()?);
                self.chunk(Chunk { is_last: flags & chunk::DONE != 0, kind, cookie, length })
            }
            Step::Short(chunk) if chunk.kind == chunk::OFFSET_HOLE => {
                let (offset, length) = (fields.u64()?, fields.u32()?);
                self.hole(chunk, offset, length)
            }
            Step::Short(chunk) => self.error(chunk, fields),
            Step::DataOffset(chunk) => {
                let (offset, length) = (fields.u64()?, chunk.length - 8);
                self.of_cookie(chunk.cookie).and_then(|asked| asked.cover(offset, length)).map(|at| Step::Data {
                    chunk,
                    at,
                    left: length as usize,
                })
            }
            Step::ContextId(chunk) if Some(fields.u32()?) != self.allocation_id => Err(Lie::WrongKind(chunk.kind)),
            Step::ContextId(chunk) => Ok(Step::Part { chunk, left: (chunk.length - 4) / 8 }),
            Step::Part { chunk, left } => {
                let (length, flags) = (fields.u32()?, fields.u32()?);
                self.part(chunk, left - 1, length, flags)
            }
            Step::Data { .. } => return None,
        })
    }

    fn simple(&mut self, error: u32, cookie: u64) -> Result<Step, Lie> {
        let is_structured = self.is_structured;
        let asked = self.of_cookie(cookie)?;
        let (is_begun, command, length) = (asked.is_begun(), asked.command(), asked.length());
        if is_begun || (is_structured && command == Command::Read) {
            return Err(Lie::WrongKind(chunk::NONE));
        }
        if error != 0 {
            asked.fail(error_of(error));
            return self.end(cookie, true);
        }
        match command {
            // It has no other way to tell what was asked.
            Command::BlockStatus => Err(Lie::WrongKind(chunk::NONE)),
            Command::Read => {
                let at = asked.cover(asked.offset(), length)?;
                let chunk = Chunk { is_last: true, kind: chunk::OFFSET_DATA, cookie, length };
                Ok(Step::Data { chunk, at, left: length as usize })
            }
            _ => self.end(cookie, true),
        }
    }

    fn chunk(&mut self, chunk: Chunk) -> Result<Step, Lie> {
        let asked = self.of_cookie(chunk.cookie)?;
        asked.begin_chunk()?;
        let (command, asked_bytes, has_parts) = (asked.command(), asked.length(), asked.has_parts());
        let Chunk { kind, length, .. } = chunk;
        let fits = |fits: bool, step| if fits { Ok(step) } else { Err(Lie::WrongLength { kind, length }) };
        match (kind, command) {
            (chunk::NONE, _) if length == 0 && chunk.is_last => self.end(chunk.cookie, true),
            (chunk::NONE, _) => Err(Lie::WrongLength { kind, length }),
            (chunk::OFFSET_DATA, Command::Read) => {
                fits(length > 8 && length - 8 <= asked_bytes, Step::DataOffset(chunk))
            }
            (chunk::OFFSET_HOLE, Command::Read) => fits(length == 12, Step::Short(chunk)),
            // There is one for each context, and there is one context.
            (chunk::BLOCK_STATUS, Command::BlockStatus) if has_parts => Err(Lie::Twice),
            (chunk::BLOCK_STATUS, Command::BlockStatus) => {
                let is_whole = length >= 12 && length % 8 == 4 && (length - 4) / 8 <= MAX_PARTS;
                fits(is_whole, Step::ContextId(chunk))
            }
            (kind, _) if kind & chunk::ERROR_BIT != 0 => {
                fits((6..=MAX_ERROR_BYTES).contains(&length), Step::Short(chunk))
            }
            (kind, _) => Err(Lie::WrongKind(kind)),
        }
    }

    fn hole(&mut self, chunk: Chunk, offset: u64, length: u32) -> Result<Step, Lie> {
        let asked = self.of_cookie(chunk.cookie)?;
        // It is zeroes from its beginning.
        asked.cover(offset, length)?;
        self.end(chunk.cookie, chunk.is_last)
    }

    fn part(&mut self, chunk: Chunk, left: u32, length: u32, flags: u32) -> Result<Step, Lie> {
        if length == 0 {
            return Err(Lie::WrongLength { kind: chunk.kind, length });
        }
        let (is_hole, is_zero) = (flags & chunk::STATE_HOLE != 0, flags & chunk::STATE_ZERO != 0);
        self.of_cookie(chunk.cookie)?.add_part(Allocation { length, is_hole, is_zero });
        if left > 0 { Ok(Step::Part { chunk, left }) } else { self.end(chunk.cookie, chunk.is_last) }
    }

    fn error(&mut self, chunk: Chunk, fields: &mut Fields<'_>) -> Result<Step, Lie> {
        let wrong = Lie::WrongLength { kind: chunk.kind, length: chunk.length };
        let asked = self.of_cookie(chunk.cookie)?;
        let error = fields.u32().filter(|error| *error != 0).ok_or(Lie::WrongKind(chunk.kind))?;
        fields.u16().and_then(|length| fields.bytes(length.into())).ok_or(wrong.clone())?;
        match chunk.kind {
            chunk::ERROR if !fields.0.is_empty() => return Err(wrong),
            chunk::ERROR_OFFSET => {
                let offset = fields.u64().filter(|_| fields.0.is_empty()).ok_or(wrong)?;
                if !asked.contains(offset) {
                    return Err(Lie::Outside);
                }
            }
            // Others are errors, too, whatever else they say.
            _ => {}
        }
        asked.fail(error_of(error));
        self.end(chunk.cookie, chunk.is_last)
    }

    /// A chunk is over.
    fn end(&mut self, cookie: u64, is_last: bool) -> Result<Step, Lie> {
        if is_last {
            let asked = self.asked.remove(&cookie).ok_or(Lie::UnknownCookie(cookie))?;
            self.answers.push_back(Answer { cookie, result: asked.into_result()? });
        }
        Ok(Step::Magic)
    }

    fn of_cookie(&mut self, cookie: u64) -> Result<&mut Asked, Lie> {
        self.asked.get_mut(&cookie).ok_or(Lie::UnknownCookie(cookie))
    }
}

impl Step {
    /// How many bytes make it whole.
    fn wanted(self) -> usize {
        match self {
            Step::Magic | Step::ContextId(_) => 4,
            Step::Simple => 12,
            Step::Chunk => 16,
            Step::Short(chunk) => chunk.length as usize,
            Step::DataOffset(_) | Step::Part { .. } => 8,
            Step::Data { left, .. } => left,
        }
    }
}

fn error_of(number: u32) -> DiskError {
    [DiskError::NotPermitted, DiskError::Invalid, DiskError::NoSpace, DiskError::Overflow, DiskError::NotSupported]
        .into_iter()
        .find(|error| *error as u32 == number)
        .unwrap_or(DiskError::Io)
}
