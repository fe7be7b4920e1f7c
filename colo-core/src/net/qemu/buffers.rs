use bytes::Bytes;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of a buffer that is read into: more than a Unix socket holds by default, so that one read takes all.
pub(super) const BUFFER_BYTES: usize = 256 << 10;

/// Buffers kept for the next reads: those of two readers, and as many under way.
const MAX_SPARE_BUFFERS: usize = 8;

/// Where the memory of frames comes from that were read: cheap to clone, and then the same pool.
///
/// Frames are slices of the buffer that they were read into, and it comes back when the last of them is gone: no copy and no
/// allocation for a frame. The price is that one frame, held for long, keeps the whole buffer. So the pool counts what is kept like
/// that, and beyond its limit frames are copied, each into memory of its own. What all frames together take is never more than the
/// limit, their own bytes, and one buffer for each reader.
#[derive(Clone, Debug)]
pub struct BufferPool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    max_lent_bytes: usize,
    /// What frames keep now, whole buffers counted.
    lent_bytes: AtomicUsize,
    spare: Mutex<Vec<Box<[u8]>>>,
}

impl BufferPool {
    /// A pool whose frames keep at most so many bytes beyond their own.
    pub fn new(max_lent_bytes: usize) -> Self {
        let spare = Mutex::new(Vec::with_capacity(MAX_SPARE_BUFFERS));
        BufferPool(Arc::new(Shared { max_lent_bytes, lent_bytes: AtomicUsize::new(0), spare }))
    }

    /// Bytes that frames keep now.
    pub fn lent_bytes(&self) -> usize {
        self.0.lent_bytes.load(Ordering::Relaxed)
    }

    /// A buffer of [`BUFFER_BYTES`], of which each byte has some value.
    pub(super) fn take(&self) -> Box<[u8]> {
        let spare = self.0.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_else(|| vec![0; BUFFER_BYTES].into_boxed_slice())
    }

    /// Takes a buffer back.
    pub(super) fn put(&self, buffer: Box<[u8]>) {
        self.0.put(buffer);
    }

    /// Whether so many bytes more may be lent.
    pub(super) fn may_lend(&self, bytes: usize) -> bool {
        self.lent_bytes() + bytes <= self.0.max_lent_bytes
    }

    /// The first bytes of a buffer, which comes back when nobody has them any more.
    pub(super) fn lend(&self, buffer: Box<[u8]>, bytes: usize) -> Bytes {
        self.0.lent_bytes.fetch_add(buffer.len(), Ordering::Relaxed);
        Bytes::from_owner(Lent { buffer, bytes, pool: Arc::clone(&self.0) })
    }
}

impl Shared {
    /// Keeps a buffer for the next who wants one, unless it is of another size or there are enough.
    fn put(&self, buffer: Box<[u8]>) {
        if buffer.len() == BUFFER_BYTES {
            let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
            if spare.len() < MAX_SPARE_BUFFERS {
                spare.push(buffer);
            }
        }
    }
}

/// A buffer, while somebody has a part of it.
struct Lent {
    buffer: Box<[u8]>,
    bytes: usize,
    pool: Arc<Shared>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.bytes]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.pool.lent_bytes.fetch_sub(self.buffer.len(), Ordering::Relaxed);
        self.pool.put(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_the_last_slice_is_gone() {
        let pool = BufferPool::new(2 * BUFFER_BYTES);
        let mut buffer = pool.take();
        buffer[0] = 7;
        let at = buffer.as_ptr();
        let lent = pool.lend(buffer, 10);
        let slice = lent.slice(..1);
        drop(lent);
        assert_eq!((&slice[..], slice.as_ptr()), (&[7][..], at));
        assert_eq!(pool.lent_bytes(), BUFFER_BYTES);
        assert!(pool.may_lend(BUFFER_BYTES) && !pool.may_lend(BUFFER_BYTES + 1));
        drop(slice);
        assert_eq!(pool.lent_bytes(), 0);
        let again = pool.take();
        assert_eq!(again.as_ptr(), at);
    }

    #[test]
    fn no_more_are_kept_than_are_of_use() {
        let pool = BufferPool::new(usize::MAX);
        let lent: Vec<Bytes> = (0..2 * MAX_SPARE_BUFFERS).map(|_| pool.lend(pool.take(), 1)).collect();
        drop(lent);
        assert_eq!(pool.0.spare.lock().unwrap().len(), MAX_SPARE_BUFFERS);
    }
}
