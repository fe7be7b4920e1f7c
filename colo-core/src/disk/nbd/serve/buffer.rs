/// Bytes that are used again and again: what was made zeroes once is not made so for the next use.
#[derive(Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// So many bytes stand before the data of a long reply.
    head: usize,
}

/// Data that begin at such an address are copied faster.
const ALIGNMENT: usize = 64;
/// And so are those that do not stand behind a head in what the socket keeps, if there are so many.
const LONG: usize = 128 << 10;

impl Buffer {
    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The head and the data, if there are so many of those that they were better sent alone.
    pub(super) fn long(&self) -> Option<(&[u8], &[u8])> {
        self.as_slice().split_at_checked(self.head).filter(|(head, data)| !head.is_empty() && data.len() >= LONG)
    }

    /// If it is empty: so many bytes of data will follow a head of that length, and are to stand at a good address.
    pub(super) fn align(&mut self, head: usize, data: usize) {
        if self.len() == 0 {
            let most = ALIGNMENT + head + data;
            if self.bytes.len() < most {
                self.bytes.resize(most, 0);
            }
            self.start = ALIGNMENT - (self.bytes.as_ptr().addr() + head) % ALIGNMENT;
            self.end = self.start;
            self.head = head;
        }
    }

    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.grow(bytes.len()).copy_from_slice(bytes);
    }

    /// So many more bytes at the end, whatever is in them.
    pub(super) fn grow(&mut self, count: usize) -> &mut [u8] {
        let begin = self.end;
        self.end += count;
        if self.bytes.len() < self.end {
            self.bytes.resize(self.end, 0);
        }
        &mut self.bytes[begin..self.end]
    }

    pub(super) fn truncate(&mut self, length: usize) {
        self.end = self.end.min(self.start + length);
        if self.len() == 0 {
            self.head = 0;
        }
    }

    /// What it holds, used or not.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.len()
    }
}

/// The most that is kept for the next use: so many buffers, none longer than that.
const KEPT_BUFFERS: usize = 16;
const KEPT_BYTES: usize = 2 << 20;

/// Buffers that nobody uses now. The last one that came back goes first: it is in the processor's cache.
#[derive(Default)]
pub(super) struct Spares(Vec<Buffer>);

impl Spares {
    pub(super) fn take(&mut self) -> Buffer {
        self.0.pop().unwrap_or_default()
    }

    pub(super) fn give(&mut self, mut buffer: Buffer) {
        if self.0.len() < KEPT_BUFFERS && buffer.capacity() <= KEPT_BYTES {
            buffer.truncate(0);
            self.0.push(buffer);
        }
    }
}
