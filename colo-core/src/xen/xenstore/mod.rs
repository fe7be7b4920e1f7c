//! `libxenstore`: the store that domains and toolstack share, a small tree of names and values that can be watched.
//!
//! ```no_run
//! use colo_core::xen::{Xen, XenStore};
//! use std::time::{Duration, Instant};
//!
//! let store = XenStore::open(Xen::open()?)?;
//! store.watch("/local/domain/3/control/shutdown", "shutdown")?;
//! store.write("/local/domain/3/control/shutdown", b"poweroff")?;
//! while let Some(event) = store.wait(Instant::now() + Duration::from_secs(5))? {
//!     println!("{} changed", event.path);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod calls;
mod transaction;

pub use transaction::Transaction;

use super::evtchn::EventPort;
use super::poll::ready_one;
use super::{Xen, XenError};
use crate::ids::DomId;
use calls::{Allocated, c_path, text};
use rustix::event::PollFlags;
use std::cell::Cell;
use std::ffi::CStr;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::raw::{c_char, c_uint};
use std::ptr::NonNull;
use std::time::Instant;
use xen_sys::store as c;

/// No transaction: each call stands for itself.
const XBT_NULL: c::xs_transaction_t = 0;
/// How often a transaction is done again when others were faster, before it is given up.
const MAX_TRIES: usize = 64;

/// A connection to the store. It may move between threads.
pub struct XenStore {
    xen: &'static xen_sys::Xen,
    handle: NonNull<c::xs_handle>,
    /// Readable while an event waits; the library's.
    fd: i32,
    /// One thread at a time.
    not_sync: PhantomData<Cell<()>>,
}

// SAFETY: the library locks its handle; nothing in it belongs to the thread that opened it.
unsafe impl Send for XenStore {}

/// Something changed at or below a watched path, or was there when the watch was set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WatchEvent {
    /// What changed.
    pub path: String,
    /// The name that was given to the watch.
    pub token: String,
}

/// What a domain may do with a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Permission {
    /// The domain; in the first of a node's permissions the owner, who may do everything, and what is said there holds for all others.
    pub domid: DomId,
    /// Whether it may read.
    pub read: bool,
    /// Whether it may write.
    pub write: bool,
}

impl XenStore {
    /// Connects to xenstored.
    ///
    /// # Errors
    /// `xs_open`: `ENOENT`, `ECONNREFUSED` or `EACCES` where there is no xenstored, or not for us.
    ///
    /// ```no_run
    /// # use colo_core::xen::{Xen, XenStore};
    /// let store = XenStore::open(Xen::open()?)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(xen: Xen) -> Result<XenStore, XenError> {
        // SAFETY: no flags.
        let handle = NonNull::new(unsafe { xen.0.store.xs_open(0) }).ok_or_else(|| XenError::last("xs_open", None))?;
        let mut store = XenStore { xen: xen.0, handle, fd: -1, not_sync: PhantomData };
        // SAFETY: the handle is open.
        store.fd = unsafe { xen.0.store.xs_fileno(handle.as_ptr()) };
        if store.fd < 0 {
            return Err(XenError::last("xs_fileno", None));
        }
        Ok(store)
    }

    /// The value of a node, or none when there is no such node (`xs_read`).
    ///
    /// # Errors
    /// `EACCES`: not for us. `InvalidInput`: a path with a zero byte in it.
    ///
    /// ```no_run
    /// # use colo_core::xen::{Xen, XenStore};
    /// # let store = XenStore::open(Xen::open()?)?;
    /// let name = store.read("/local/domain/3/name")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>, XenError> {
        self.read_in(XBT_NULL, path)
    }

    /// As [`XenStore::read`], for values that are text; what is no UTF-8 is replaced.
    ///
    /// # Errors
    /// As for [`XenStore::read`].
    ///
    /// ```no_run
    /// # use colo_core::xen::{Xen, XenStore};
    /// # let store = XenStore::open(Xen::open()?)?;
    /// let name = store.read_text("/local/domain/3/name")?.unwrap_or_default();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read_text(&self, path: &str) -> Result<Option<String>, XenError> {
        Ok(self.read(path)?.map(text))
    }

    /// Sets the value of a node; makes it, and those above it, where they are not there (`xs_write`).
    ///
    /// # Errors
    /// `EACCES`: not for us. `E2BIG`: more than 4 KiB. `InvalidInput`: a path with a zero byte in it.
    ///
    /// ```no_run
    /// # use colo_core::xen::{Xen, XenStore};
    /// # let store = XenStore::open(Xen::open()?)?;
    /// store.write("/local/domain/3/control/shutdown", b"suspend")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write(&self, path: &str, value: &[u8]) -> Result<(), XenError> {
        self.write_in(XBT_NULL, path, value)
    }

    /// Makes a node (`xs_mkdir`). It may be there already.
    ///
    /// # Errors
    /// As for [`XenStore::write`].
    ///
    /// ```no_run
    /// # use colo_core::xen::{Xen, XenStore};
    /// # let store = XenStore::open(Xen::open()?)?;
    /// store.mkdir("/tool/colo")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn mkdir(&self, path: &str) -> Result<(), XenError> {
        self.mkdir_in(XBT_NULL, path)
    }

    /// Removes a node and everything below it (`xs_rm`). Whether it was there.
    ///
    /// # Errors
    /// As for [`XenStore::write`].
    ///
    /// ```no_run
    /// # use colo_core::xen::{Xen, XenStore};
    /// # let store = XenStore::open(Xen::open()?)?;
    /// store.rm("/tool/colo")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn rm(&self, path: &str) -> Result<bool, XenError> {
        self.rm_in(XBT_NULL, path)
    }

    /// The names of the nodes right below this one, or none when it is not there (`xs_directory`).
    ///
    /// # Errors
    /// As for [`XenStore::read`].
    ///
    /// ```no_run
    /// # use colo_core::xen::{Xen, XenStore};
    /// # let store = XenStore::open(Xen::open()?)?;
    /// let domains = store.directory("/local/domain")?.unwrap_or_default();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn directory(&self, path: &str) -> Result<Option<Vec<String>>, XenError> {
        self.directory_in(XBT_NULL, path)
    }

    /// Who may do what with a node, or none when it is not there (`xs_get_permissions`).
    ///
    /// # Errors
    /// As for [`XenStore::read`].
    ///
    /// ```no_run
    /// # use colo_core::xen::{Xen, XenStore};
    /// # let store = XenStore::open(Xen::open()?)?;
    /// let owner = store.permissions("/local/domain/3")?.map(|permissions| permissions[0].domid);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn permissions(&self, path: &str) -> Result<Option<Vec<Permission>>, XenError> {
        let call = "xs_get_permissions";
        let (name, mut count) = (c_path(call, path)?, 0);
        let (library, name) = (&self.xen.store, name.as_c_str());
        // SAFETY: the handle is open, the path is a C string, and the number is ours.
        let array = unsafe { library.xs_get_permissions(self.handle(), XBT_NULL, name.as_ptr(), &raw mut count) };
        let Some(array) = self.answer(call, path, array.cast())? else { return Ok(None) };
        // SAFETY: the array that was just received has so many elements, and lives until `array` is dropped.
        let raw = unsafe { std::slice::from_raw_parts(array.0.as_ptr().cast::<c::xs_permissions>(), count as usize) };
        let permission = |raw: &c::xs_permissions| Permission {
            domid: DomId(raw.id),
            read: raw.perms & c::XS_PERM_READ != 0,
            write: raw.perms & c::XS_PERM_WRITE != 0,
        };
        Ok(Some(raw.iter().map(permission).collect()))
    }

    /// Sets who may do what with a node: the first is its owner (`xs_set_permissions`).
    ///
    /// # Errors
    /// As for [`XenStore::write`]; `ENOENT`: no such node.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Xen, XenStore, xenstore::Permission}};
    /// # let store = XenStore::open(Xen::open()?)?;
    /// let owner = Permission { domid: DomId(3), read: false, write: false };
    /// store.set_permissions("/local/domain/3/data", &[owner])?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_permissions(&self, path: &str, permissions: &[Permission]) -> Result<(), XenError> {
        let call = "xs_set_permissions";
        let name = c_path(call, path)?;
        let flag = |set: bool, flag: u32| if set { flag } else { c::XS_PERM_NONE };
        let raw = permissions.iter().map(|permission| c::xs_permissions {
            id: permission.domid.0,
            perms: flag(permission.read, c::XS_PERM_READ) | flag(permission.write, c::XS_PERM_WRITE),
        });
        let mut raw: Vec<_> = raw.collect();
        // SAFETY: the handle is open, the path is a C string, and the array is as long as told.
        let done = unsafe {
            let (array, count) = (raw.as_mut_ptr(), raw.len() as c_uint);
            self.xen.store.xs_set_permissions(self.handle(), XBT_NULL, name.as_ptr(), array, count)
        };
        self.done(call, path, done)
    }

    /// Does `work` in a transaction: others see all of it or nothing, and it is done again when they were faster
    /// (`xs_transaction_start`, `xs_transaction_end`). When `work` fails, nothing has happened.
    ///
    /// # Errors
    /// What `work` says. `EAGAIN`: others were faster 64 times.
    ///
    /// ```no_run
    /// # use colo_core::xen::{Xen, XenStore};
    /// # let store = XenStore::open(Xen::open()?)?;
    /// let path = "/local/domain/3/control/shutdown";
    /// store.transaction(|transaction| match transaction.read(path)? {
    ///     Some(value) if value == b"suspend" => transaction.write(path, b""),
    ///     _ => Ok(()),
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn transaction<T>(&self, mut work: impl FnMut(&Transaction<'_>) -> Result<T, XenError>) -> Result<T, XenError> {
        for _ in 0..MAX_TRIES {
            let transaction = Transaction::start(self)?;
            let result = work(&transaction)?;
            if transaction.commit()? {
                return Ok(result);
            }
        }
        let again = rustix::io::Errno::AGAIN;
        Err(XenError::new("xs_transaction_end", None, again.into()))
    }

    /// Watches a path and everything below it (`xs_watch`), or with `@introduceDomain` and `@releaseDomain` the coming, stopping and going of
    /// domains. The first event comes at once.
    ///
    /// # Errors
    /// `EEXIST`: the same path is watched by this connection with the same token. `InvalidInput`: a zero byte.
    ///
    /// ```no_run
    /// # use colo_core::xen::{Xen, XenStore};
    /// # let store = XenStore::open(Xen::open()?)?;
    /// store.watch("@releaseDomain", "end")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn watch(&self, path: &str, token: &str) -> Result<(), XenError> {
        let (name, mark) = (c_path("xs_watch", path)?, c_path("xs_watch", token)?);
        // SAFETY: the handle is open, and both are C strings.
        let done = unsafe { self.xen.store.xs_watch(self.handle(), name.as_ptr(), mark.as_ptr()) };
        self.done("xs_watch", path, done)
    }

    /// Ends a watch (`xs_unwatch`). Events that wait already stay.
    ///
    /// # Errors
    /// `ENOENT`: there is no such watch.
    ///
    /// ```no_run
    /// # use colo_core::xen::{Xen, XenStore};
    /// # let store = XenStore::open(Xen::open()?)?;
    /// store.unwatch("@releaseDomain", "end")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn unwatch(&self, path: &str, token: &str) -> Result<(), XenError> {
        let (name, mark) = (c_path("xs_unwatch", path)?, c_path("xs_unwatch", token)?);
        // SAFETY: the handle is open, and both are C strings.
        let done = unsafe { self.xen.store.xs_unwatch(self.handle(), name.as_ptr(), mark.as_ptr()) };
        self.done("xs_unwatch", path, done)
    }

    /// The next event that waits, if there is one (`xs_check_watch`).
    ///
    /// # Errors
    /// When xenstored is gone.
    ///
    /// ```no_run
    /// # use colo_core::xen::{Xen, XenStore};
    /// # let store = XenStore::open(Xen::open()?)?;
    /// while store.check_watch()?.is_some() {}
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn check_watch(&self) -> Result<Option<WatchEvent>, XenError> {
        let call = "xs_check_watch";
        // SAFETY: the handle is open.
        let strings = unsafe { self.xen.store.xs_check_watch(self.handle()) };
        let Some(strings) = Allocated::new(strings.cast()) else {
            let error = XenError::last(call, None);
            let nothing = error.errno() == Some(rustix::io::Errno::AGAIN.raw_os_error());
            return if nothing { Ok(None) } else { Err(error) };
        };
        let array = strings.0.as_ptr().cast::<*const c_char>();
        // SAFETY: an event is a path and a token, C strings that live until `strings` is dropped.
        let text = |index| unsafe { CStr::from_ptr(*array.add(index)) }.to_string_lossy().into_owned();
        // XS_WATCH_PATH and XS_WATCH_TOKEN.
        Ok(Some(WatchEvent { path: text(0), token: text(1) }))
    }

    /// Waits for the next event, but not beyond the deadline.
    ///
    /// # Errors
    /// As for [`XenStore::check_watch`].
    ///
    /// ```no_run
    /// # use colo_core::xen::{Xen, XenStore};
    /// # use std::time::{Duration, Instant};
    /// # let store = XenStore::open(Xen::open()?)?;
    /// let event = store.wait(Instant::now() + Duration::from_secs(1))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait(&self, deadline: Instant) -> Result<Option<WatchEvent>, XenError> {
        loop {
            if let Some(event) = self.check_watch()? {
                return Ok(Some(event));
            }
            let ready = ready_one(self, PollFlags::IN, deadline);
            if !ready.map_err(|errno| XenError::new("poll", None, errno.into()))? {
                return Ok(None);
            }
        }
    }

    /// Tells xenstored of a domain's store page and event channel (`xs_introduce_domain`): a guest frame for HVM and PVH, a machine
    /// frame for PV.
    ///
    /// # Errors
    /// `EINVAL` and others: the page cannot be mapped or the port not be bound. `EACCES`: not for us.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Xen, XenStore, evtchn::EventPort}};
    /// # let store = XenStore::open(Xen::open()?)?;
    /// store.introduce_domain(DomId(4), 0xfeffc, EventPort(1))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn introduce_domain(&self, domid: DomId, frame: u64, port: EventPort) -> Result<(), XenError> {
        // SAFETY: the handle is open.
        let done = unsafe { self.xen.store.xs_introduce_domain(self.handle(), domid.0, frame, port.0) };
        self.done_for("xs_introduce_domain", domid, done)
    }

    /// Tells xenstored that a domain that had shut down goes on: the next shutdown is an event again (`xs_resume_domain`).
    ///
    /// # Errors
    /// `ENOENT`: it was never introduced. `EINVAL`: it has not shut down.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Xen, XenStore}};
    /// # let store = XenStore::open(Xen::open()?)?;
    /// store.resume_domain(DomId(3))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn resume_domain(&self, domid: DomId) -> Result<(), XenError> {
        // SAFETY: the handle is open.
        let done = unsafe { self.xen.store.xs_resume_domain(self.handle(), domid.0) };
        self.done_for("xs_resume_domain", domid, done)
    }

    /// Makes xenstored forget a domain, and give its store page back (`xs_release_domain`).
    ///
    /// # Errors
    /// `ENOENT`: it was never introduced.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Xen, XenStore}};
    /// # let store = XenStore::open(Xen::open()?)?;
    /// store.release_domain(DomId(4))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn release_domain(&self, domid: DomId) -> Result<(), XenError> {
        // SAFETY: the handle is open.
        let done = unsafe { self.xen.store.xs_release_domain(self.handle(), domid.0) };
        self.done_for("xs_release_domain", domid, done)
    }

    /// Whether xenstored knows the domain (`xs_is_domain_introduced`). No, too, when it cannot be asked.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Xen, XenStore}};
    /// # let store = XenStore::open(Xen::open()?)?;
    /// assert!(store.is_domain_introduced(DomId(0)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_domain_introduced(&self, domid: DomId) -> bool {
        // SAFETY: the handle is open.
        unsafe { self.xen.store.xs_is_domain_introduced(self.handle(), domid.0) }
    }

    /// Where the domain's own nodes are, as in `/local/domain/3` (`xs_get_domain_path`).
    ///
    /// # Errors
    /// When xenstored is gone.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Xen, XenStore}};
    /// # let store = XenStore::open(Xen::open()?)?;
    /// let name = store.read_text(&format!("{}/name", store.domain_path(DomId(3))?))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn domain_path(&self, domid: DomId) -> Result<String, XenError> {
        // SAFETY: the handle is open.
        let path = unsafe { self.xen.store.xs_get_domain_path(self.handle(), domid.0) };
        let path = Allocated::new(path.cast()).ok_or_else(|| XenError::last("xs_get_domain_path", domid))?;
        // SAFETY: a C string that lives until `path` is dropped.
        Ok(unsafe { CStr::from_ptr(path.0.as_ptr().cast()) }.to_string_lossy().into_owned())
    }

    fn handle(&self) -> *mut c::xs_handle {
        self.handle.as_ptr()
    }
}

impl AsFd for XenStore {
    /// Can be read while an event waits, or may wait.
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: it is the library's, and open as long as the handle is.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }
}

impl Drop for XenStore {
    fn drop(&mut self) {
        // SAFETY: it is open, and is not used after.
        unsafe { self.xen.store.xs_close(self.handle()) };
    }
}
