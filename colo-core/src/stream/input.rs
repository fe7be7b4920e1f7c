//! What a reader has read and not yet given away.

use std::io::{self, ErrorKind, Read};

/// Room that is made before anything has come.
const FIRST_BYTES: usize = 64 << 10;

/// A source, and the bytes of the piece of it that is being read: one buffer for all pieces, which never grows beyond twice what
/// really came, whatever a length in the stream says.
#[derive(Debug)]
pub(super) struct Input<R> {
    source: R,
    /// All of it has been initialised; only the front of it is filled.
    buffer: Vec<u8>,
    filled: usize,
    /// Bytes of the pieces before this one.
    offset: u64,
    /// Bytes of the piece that was finished last that have been left in the source.
    ahead: u64,
}

impl<R> Input<R> {
    pub(super) fn new(source: R) -> Self {
        Input { source, buffer: Vec::new(), filled: 0, offset: 0, ahead: 0 }
    }

    /// Where the piece begins that comes after those that were finished.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// What has come of the piece.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }

    /// Begins a piece.
    pub(super) fn start(&mut self) {
        self.filled = 0;
    }

    /// Counts the piece, which is whole, as read. Its bytes stay until the next begins.
    pub(super) fn finish(&mut self) {
        self.offset += self.filled as u64;
    }

    /// Counts the piece as read, although so many of its bytes are in the source still: whoever has what this returns is to take them
    /// from there, and counts them down. What has come of the piece is lent, too.
    pub(super) fn finish_ahead(&mut self, ahead: u64) -> (&[u8], &mut R, &mut u64) {
        self.offset += self.filled as u64 + ahead;
        self.ahead = ahead;
        (&self.buffer[..self.filled], &mut self.source, &mut self.ahead)
    }

    pub(super) fn into_source(self) -> R {
        self.source
    }

    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.buffer.capacity()
    }
}

impl<R: Read> Input<R> {
    /// Reads, for nobody, what was left in the source and not taken from there.
    pub(super) fn pass_over(&mut self) -> io::Result<()> {
        if self.ahead > 0 {
            io::copy(&mut self.source.by_ref().take(self.ahead), &mut io::sink())?;
            self.ahead = 0;
        }
        Ok(())
    }

    /// Reads until that many bytes of the piece are there, or the source ends; no byte beyond them. Returns whether they are there.
    pub(super) fn fill_to(&mut self, bytes: usize) -> io::Result<bool> {
        while self.filled < bytes {
            if self.filled == self.buffer.len() {
                let room = bytes.min(FIRST_BYTES.max(2 * self.filled));
                self.buffer.resize(room, 0);
            }
            let end = bytes.min(self.buffer.len());
            match self.source.read(&mut self.buffer[self.filled..end]) {
                Ok(0) => return Ok(false),
                Ok(count) => self.filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}
