use super::error::{Fault, StreamError};
use super::record::RawRecordHeader;
use super::{Headers, Limits, RECORD_HEADER_BYTES, RecordRef};
use std::io::{self, Read};

/// Why a stream cannot be read on.
#[derive(thiserror::Error, Debug)]
pub enum ReadError {
    /// The stream is wrong.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The source failed.
    #[error("reading the stream: {0}")]
    Io(#[from] io::Error),
}

/// Reads a stream from a file or a pipe, record by record, in constant memory: one buffer that grows to the longest record, and
/// that no lying length can make grow beyond what really came.
///
/// ```
/// use colo_core::stream::{DomainHeader, Headers, Limits, RecordReader, RecordRef, kind, write_record};
///
/// let mut image = Vec::new();
/// Headers::new(DomainHeader::embedded()).encode(&mut image);
/// write_record(&mut image, kind::STATIC_DATA_END, &[])?;
/// write_record(&mut image, kind::END, &[])?;
///
/// let mut reader = RecordReader::new(image.as_slice(), Limits::new(16));
/// assert_eq!(reader.read_headers()?.domain, DomainHeader::embedded());
/// assert_eq!(reader.next_record()?, Some(RecordRef::StaticDataEnd));
/// assert_eq!(reader.next_record()?, Some(RecordRef::End));
/// assert_eq!(reader.next_record()?, None);
/// # Ok::<(), colo_core::stream::ReadError>(())
/// ```
#[derive(Debug)]
pub struct RecordReader<R> {
    source: R,
    limits: Limits,
    buffer: Vec<u8>,
    offset: u64,
}

impl<R: Read> RecordReader<R> {
    /// A reader at the beginning of a stream (or, without calling [`RecordReader::read_headers`], of a sequence of records).
    pub fn new(source: R, limits: Limits) -> Self {
        RecordReader { source, limits, buffer: Vec::new(), offset: 0 }
    }

    /// How many bytes have been read: after a record, where the next one begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads the two headers.
    ///
    /// # Errors
    /// Those of [`Headers::parse`], and the source's.
    pub fn read_headers(&mut self) -> Result<Headers, ReadError> {
        self.buffer.clear();
        self.fill_to(Headers::BYTES)?;
        let (headers, _) = Headers::parse(&self.buffer)?;
        self.offset += Headers::BYTES as u64;
        Ok(headers)
    }

    /// Reads the next record; `None` where the source ends between two records.
    ///
    /// # Errors
    /// Those of [`RecordRef::parse`], and the source's.
    pub fn next_record(&mut self) -> Result<Option<RecordRef<'_>>, ReadError> {
        self.buffer.clear();
        self.fill_to(RECORD_HEADER_BYTES)?;
        if self.buffer.is_empty() {
            return Ok(None);
        }
        let at = StreamError::at(self.offset);
        let (_, _, record_bytes) = RawRecordHeader::parse(&self.buffer, &self.limits).map_err(&at)?;
        self.fill_to(record_bytes)?;
        if self.buffer.len() < record_bytes {
            return Err(at(Fault::Truncated { needed: record_bytes, got: self.buffer.len() }).into());
        }
        let (record, _) = RecordRef::parse(&self.buffer, &self.limits).map_err(|error| at(error.fault))?;
        self.offset += record_bytes as u64;
        Ok(Some(record))
    }

    /// Reads until the buffer holds that many bytes, or the source ends.
    fn fill_to(&mut self, bytes: usize) -> io::Result<()> {
        let missing = bytes.saturating_sub(self.buffer.len()) as u64;
        self.source.by_ref().take(missing).read_to_end(&mut self.buffer)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::kind;

    #[test]
    fn a_length_that_lies_makes_no_room() {
        let mut bytes = [kind::EMBEDDED_VCPU.to_le_bytes(), (8_u32 << 20).to_le_bytes()].concat();
        bytes.extend([1; 1000]);
        let mut reader = RecordReader::new(bytes.as_slice(), Limits::new(16));
        let error = reader.next_record().unwrap_err();
        assert!(matches!(error, ReadError::Stream(StreamError { fault: Fault::Truncated { got: 1008, .. }, .. })));
        assert!(reader.buffer.capacity() < 16 * 1024, "{}", reader.buffer.capacity());
    }
}
