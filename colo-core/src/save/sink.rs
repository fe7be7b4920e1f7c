use crate::domain::LentPages;
use crate::ids::{Epoch, PAGE_SIZE};
use std::io::{self, IoSlice, Write};

/// Where a stream goes.
pub trait StreamSink {
    /// Writes the parts one after the other. Together they are whole records (at first, the headers), at most
    /// [`crate::stream::MAX_BODY_BYTES`] and a record's header long.
    ///
    /// # Errors
    /// When the other side is gone, or did not take it in time.
    fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<()>;

    /// As [`StreamSink::write`], of a PAGE_DATA record whose pages are lent.
    ///
    /// # Errors
    /// As for [`StreamSink::write`].
    fn write_lent(&mut self, front: &[u8], pages: &dyn LentPages) -> io::Result<()> {
        let mut data = vec![[0; PAGE_SIZE]; pages.count()];
        data.iter_mut().enumerate().for_each(|(index, page)| pages.copy(index, page));
        self.write(&[IoSlice::new(front), IoSlice::new(data.as_flattened())])
    }

    /// Everything of this checkpoint has been written.
    ///
    /// # Errors
    /// As for [`StreamSink::write`].
    fn end_epoch(&mut self, epoch: Epoch) -> io::Result<()>;
}

/// A file, or a vector: any writer takes a plain stream.
impl<W: Write> StreamSink for W {
    fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        parts.iter().try_for_each(|part| self.write_all(part))
    }

    fn end_epoch(&mut self, _epoch: Epoch) -> io::Result<()> {
        self.flush()
    }
}
