//! An answer as bytes, piece by piece.

use alloc::vec::Vec;

use crate::reply::{Content, Reply};

/// An answer on its way out.
pub struct Answer {
    head: Vec<u8>,
    content: Content,
    /// Bytes queued so far, of head and content together.
    pub sent: u64,
    /// All of them.
    pub total: u64,
    /// Whether the connection stays open after it.
    pub keep_alive: bool,
}

impl Answer {
    /// To be sent without its content if `head_only`.
    pub fn new(reply: Reply, keep_alive: bool, head_only: bool) -> Self {
        let head = reply.head(keep_alive);
        let content_bytes = if head_only { 0 } else { reply.content.length() };
        Self {
            total: head.len() as u64 + content_bytes,
            head,
            content: reply.content,
            sent: 0,
            keep_alive,
        }
    }

    /// Fills the start of `out`: how much that was.
    pub fn read(&mut self, out: &mut [u8]) -> usize {
        let head_left = self.head.get(self.sent as usize..).unwrap_or_default();
        let count = if head_left.is_empty() {
            let left = usize::try_from(self.total - self.sent).unwrap_or(usize::MAX);
            let limit = left.min(out.len());
            self.content
                .read(self.sent - self.head.len() as u64, &mut out[..limit])
        } else {
            let count = head_left.len().min(out.len());
            out[..count].copy_from_slice(&head_left[..count]);
            count
        };
        self.sent += count as u64;
        count
    }
}
