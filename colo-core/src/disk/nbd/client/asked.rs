use super::replies::{Answered, Lie};
use crate::disk::nbd::Command;
use crate::disk::nbd::request::Request;
use crate::disk::{Allocation, DiskError};
use std::ops::Range;

/// The most chunks of one reply: one for each 512 bytes of the longest request, and some more.
const MAX_CHUNKS: u32 = (1 << 16) + 16;
/// The most places of a reply between which there are gaps that are to be filled yet.
const MAX_RANGES: usize = 4096;

/// A request, and what is known of its answer.
#[derive(Debug)]
pub(super) struct Asked {
    request: Request,
    chunks: u32,
    data: Vec<u8>,
    /// What of the data has come: in order, with gaps between them.
    covered: Vec<Range<usize>>,
    parts: Vec<Allocation>,
    parts_bytes: u32,
    error: Option<DiskError>,
}

impl Asked {
    pub(super) fn new(request: &Request) -> Asked {
        Asked {
            request: *request,
            chunks: 0,
            data: Vec::new(),
            covered: Vec::new(),
            parts: Vec::new(),
            parts_bytes: 0,
            error: None,
        }
    }

    pub(super) fn command(&self) -> Command {
        self.request.command
    }

    pub(super) fn offset(&self) -> u64 {
        self.request.offset
    }

    pub(super) fn length(&self) -> u32 {
        self.request.length
    }

    pub(super) fn is_begun(&self) -> bool {
        self.chunks > 0
    }

    pub(super) fn contains(&self, offset: u64) -> bool {
        offset.checked_sub(self.request.offset).is_some_and(|at| at < self.request.length.into())
    }

    pub(super) fn begin_chunk(&mut self) -> Result<(), Lie> {
        self.chunks += 1;
        if self.chunks > MAX_CHUNKS { Err(Lie::Endless) } else { Ok(()) }
    }

    /// That part comes now. Returns where it stands in the data.
    pub(super) fn cover(&mut self, offset: u64, length: u32) -> Result<usize, Lie> {
        let at = offset.checked_sub(self.request.offset).ok_or(Lie::Outside)?;
        let is_inside = at.checked_add(length.into()).is_some_and(|end| end <= self.request.length.into());
        if !is_inside || length == 0 {
            return Err(Lie::Outside);
        }
        let range = at as usize..at as usize + length as usize;
        let next = self.covered.partition_point(|other| other.start < range.start);
        let is_after = next == 0 || self.covered[next - 1].end <= range.start;
        if !is_after || self.covered.get(next).is_some_and(|other| other.start < range.end) {
            return Err(Lie::Twice);
        }
        if next > 0 && self.covered[next - 1].end == range.start {
            self.covered[next - 1].end = range.end;
        } else if self.covered.len() < MAX_RANGES {
            self.covered.insert(next, range.clone());
        } else {
            return Err(Lie::Endless);
        }
        if self.data.is_empty() {
            self.data = vec![0; self.request.length as usize];
        }
        Ok(range.start)
    }

    /// Puts data where [`Asked::cover`] has said.
    pub(super) fn fill(&mut self, at: usize, bytes: &[u8]) {
        self.data[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(super) fn has_parts(&self) -> bool {
        !self.parts.is_empty()
    }

    /// A part may reach beyond the request, and others may follow then: they are left out.
    pub(super) fn add_part(&mut self, part: Allocation) {
        let length = part.length.min(self.request.length - self.parts_bytes);
        if length > 0 {
            self.parts_bytes += length;
            self.parts.push(Allocation { length, ..part });
        }
    }

    /// The first error is the one that counts.
    pub(super) fn fail(&mut self, error: DiskError) {
        self.error.get_or_insert(error);
    }

    /// What it is answered with, now that all of it is here.
    pub(super) fn into_result(self) -> Result<Result<Answered, DiskError>, Lie> {
        if let Some(error) = self.error {
            return Ok(Err(error));
        }
        match self.request.command {
            Command::Read => {
                let covered: usize = self.covered.iter().map(ExactSizeIterator::len).sum();
                if covered == self.request.length as usize {
                    Ok(Ok(Answered::Data(self.data)))
                } else {
                    Err(Lie::Incomplete)
                }
            }
            Command::BlockStatus if self.parts.is_empty() => Err(Lie::Incomplete),
            Command::BlockStatus => Ok(Ok(Answered::Parts(self.parts))),
            _ => Ok(Ok(Answered::Done)),
        }
    }
}
