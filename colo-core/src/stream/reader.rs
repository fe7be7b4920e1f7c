use super::error::{Fault, StreamError};
use super::input::Input;
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
    input: Input<R>,
    limits: Limits,
}

impl<R: Read> RecordReader<R> {
    /// A reader at the beginning of a stream (or, without calling [`RecordReader::read_headers`], of a sequence of records).
    pub fn new(source: R, limits: Limits) -> Self {
        RecordReader { input: Input::new(source), limits }
    }

    /// How many bytes have been read: after a record, where the next one begins.
    pub fn offset(&self) -> u64 {
        self.input.offset()
    }

    /// Reads the two headers.
    ///
    /// # Errors
    /// Those of [`Headers::parse`], and the source's.
    pub fn read_headers(&mut self) -> Result<Headers, ReadError> {
        self.input.start();
        self.input.fill_to(Headers::BYTES)?;
        let (headers, _) = Headers::parse(self.input.bytes())?;
        self.input.finish();
        Ok(headers)
    }

    /// Reads the next record; `None` where the source ends between two records.
    ///
    /// # Errors
    /// Those of [`RecordRef::parse`], and the source's.
    pub fn next_record(&mut self) -> Result<Option<RecordRef<'_>>, ReadError> {
        self.input.start();
        if !self.input.fill_to(RECORD_HEADER_BYTES)? && self.input.bytes().is_empty() {
            return Ok(None);
        }
        let at = StreamError::at(self.input.offset());
        let (_, _, record_bytes) = RawRecordHeader::parse(self.input.bytes(), &self.limits).map_err(&at)?;
        if !self.input.fill_to(record_bytes)? {
            return Err(at(Fault::Truncated { needed: record_bytes, got: self.input.bytes().len() }).into());
        }
        self.input.finish();
        let (record, _) = RecordRef::parse(self.input.bytes(), &self.limits).map_err(|error| at(error.fault))?;
        Ok(Some(record))
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
        assert!(reader.input.room() <= 64 * 1024, "{}", reader.input.room());
    }
}
