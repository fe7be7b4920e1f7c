use super::calls::text;
use super::{XBT_NULL, XenStore};
use crate::xen::XenError;
use xen_sys::store as c;

/// A transaction that is being done ([`XenStore::transaction`]).
pub struct Transaction<'a> {
    store: &'a XenStore,
    id: c::xs_transaction_t,
    open: bool,
}

impl<'a> Transaction<'a> {
    pub(super) fn start(store: &'a XenStore) -> Result<Self, XenError> {
        // SAFETY: the handle is open.
        let id = unsafe { store.xen.store.xs_transaction_start(store.handle()) };
        match id {
            XBT_NULL => Err(XenError::last("xs_transaction_start", None)),
            id => Ok(Transaction { store, id, open: true }),
        }
    }

    /// As [`XenStore::read`].
    ///
    /// # Errors
    /// As there.
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>, XenError> {
        self.store.read_in(self.id, path)
    }

    /// As [`XenStore::read_text`].
    ///
    /// # Errors
    /// As there.
    pub fn read_text(&self, path: &str) -> Result<Option<String>, XenError> {
        Ok(self.read(path)?.map(text))
    }

    /// As [`XenStore::write`].
    ///
    /// # Errors
    /// As there.
    pub fn write(&self, path: &str, value: &[u8]) -> Result<(), XenError> {
        self.store.write_in(self.id, path, value)
    }

    /// As [`XenStore::mkdir`].
    ///
    /// # Errors
    /// As there.
    pub fn mkdir(&self, path: &str) -> Result<(), XenError> {
        self.store.mkdir_in(self.id, path)
    }

    /// As [`XenStore::rm`].
    ///
    /// # Errors
    /// As there.
    pub fn rm(&self, path: &str) -> Result<bool, XenError> {
        self.store.rm_in(self.id, path)
    }

    /// As [`XenStore::directory`].
    ///
    /// # Errors
    /// As there.
    pub fn directory(&self, path: &str) -> Result<Option<Vec<String>>, XenError> {
        self.store.directory_in(self.id, path)
    }

    /// Whether it was done; else others were faster.
    pub(super) fn commit(mut self) -> Result<bool, XenError> {
        self.open = false;
        // SAFETY: the handle is open, and the transaction too.
        if unsafe { self.store.xen.store.xs_transaction_end(self.store.handle(), self.id, false) } {
            return Ok(true);
        }
        let error = XenError::last("xs_transaction_end", None);
        let again = error.errno() == Some(rustix::io::Errno::AGAIN.raw_os_error());
        if again { Ok(false) } else { Err(error) }
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.open {
            // SAFETY: the handle is open, and the transaction too. What it says does not matter: nothing was done.
            unsafe { self.store.xen.store.xs_transaction_end(self.store.handle(), self.id, true) };
        }
    }
}
