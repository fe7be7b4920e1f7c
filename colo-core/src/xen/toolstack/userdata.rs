use crate::ids::DomId;
use crate::lock_file::LockFile;
use rustix::io::Errno;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A domain's UUID, as Xen keeps it: its *handle*.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DomainUuid(pub [u8; 16]);

impl DomainUuid {
    /// Reads the usual form, 8-4-4-4-12 hexadecimal digits.
    pub fn parse(text: &str) -> Option<DomainUuid> {
        let shape = text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
        if text.len() != 36 || !shape {
            return None;
        }
        let number = u128::from_str_radix(&text.replace('-', ""), 16).ok()?;
        Some(DomainUuid(number.to_be_bytes()))
    }
}

impl fmt::Display for DomainUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let dash = if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

/// Where libxl keeps what it knows of its domains.
pub(crate) const LIBXL_FOLDER: &str = "/var/lib/xen";

/// The file of a domain for one purpose; `kind` is `d` for data, `l` for a lock.
pub(crate) fn userdata_path(folder: &Path, kind: char, domain: DomId, uuid: DomainUuid, purpose: &str) -> PathBuf {
    folder.join(format!("userdata-{kind}.{}.{uuid}.{purpose}", domain.0))
}

/// What a lock of libxl's guards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockKind {
    /// The domain's stored configuration: held for the time of a read or a write.
    Userdata,
    /// The device model's monitor, which serves one client at a time: held for the time of a conversation.
    Qmp,
}

impl LockKind {
    fn purpose(self) -> &'static str {
        match self {
            LockKind::Userdata => "domain-userdata-lock",
            LockKind::Qmp => "qmp-socket-lock",
        }
    }
}

/// Why a lock was not taken.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum LockError {
    /// Somebody else has held it all the time: another `xl` at work on this domain.
    #[error("{path} is locked: another toolstack is at work on the domain")]
    Busy {
        /// The lock's file.
        path: PathBuf,
    },
    /// The system refused.
    #[error("{path}: {errno}")]
    Io {
        /// The lock's file.
        path: PathBuf,
        /// What the system said.
        errno: Errno,
    },
}

/// One of libxl's locks of one domain, held until dropped; `xl` waits meanwhile, as we wait for it.
///
/// As libxl does it (`libxl_internal.c`): an exclusive `flock`, and the file's name must still lead to the locked file, since who
/// unlocks removes it first.
#[derive(Debug)]
pub struct DomainLock {
    // Nobody else has its description.
    _file: LockFile,
}

impl DomainLock {
    /// `flock` has no deadline, and nothing tells of a lock that becomes free: it is looked at so often.
    const POLL: Duration = Duration::from_millis(2);

    /// Waits for the lock of the domain that has this number and this UUID. A domain that does not exist can be locked, too: who
    /// needs it to exist must look after this.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn acquire(
        kind: LockKind,
        domain: DomId,
        uuid: DomainUuid,
        deadline: Instant,
    ) -> Result<DomainLock, LockError> {
        Self::acquire_in(Path::new(LIBXL_FOLDER), kind, domain, uuid, deadline)
    }

    pub(crate) fn acquire_in(
        folder: &Path,
        kind: LockKind,
        domain: DomId,
        uuid: DomainUuid,
        deadline: Instant,
    ) -> Result<DomainLock, LockError> {
        let path = userdata_path(folder, 'l', domain, uuid, kind.purpose());
        loop {
            match LockFile::try_lock(&path) {
                Ok(Some(file)) => return Ok(DomainLock { _file: file }),
                Ok(None) => {}
                Err(errno) => return Err(LockError::Io { path, errno }),
            }
            if Instant::now() >= deadline {
                return Err(LockError::Busy { path });
            }
            std::thread::sleep(Self::POLL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: DomainUuid = DomainUuid([0xc6, 0x8e, 0x58, 0xa4, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0xff]);

    #[test]
    fn uuids_as_text() {
        let text = "c68e58a4-0001-0203-0405-060708090aff";
        assert_eq!(UUID.to_string(), text);
        assert_eq!(DomainUuid::parse(text), Some(UUID));
        assert_eq!(DomainUuid::parse(&text.to_uppercase()), Some(UUID));
        for wrong in ["", &text[1..], &text.replace('-', ""), &text.replacen('c', "g", 1), &format!("{text}0"), "é"] {
            assert_eq!(DomainUuid::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_lock_keeps_others_out_until_it_is_dropped() {
        let folder = std::env::temp_dir().join(format!("colo-lock-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let acquire = |kind, limit| {
            DomainLock::acquire_in(&folder, kind, DomId(3), UUID, Instant::now() + Duration::from_millis(limit))
        };
        let lock = acquire(LockKind::Qmp, 0).unwrap();
        let path = folder.join("userdata-l.3.c68e58a4-0001-0203-0405-060708090aff.qmp-socket-lock");
        assert!(path.exists());
        assert!(matches!(acquire(LockKind::Qmp, 5), Err(LockError::Busy { .. })));
        drop(acquire(LockKind::Userdata, 0).unwrap());

        // One that waits gets it; the file that it waits on is removed under it.
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| acquire(LockKind::Qmp, 20_000).map(drop));
            drop(lock);
            waiting.join().unwrap().unwrap();
        });
        assert!(!path.exists());
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(matches!(acquire(LockKind::Qmp, 0), Err(LockError::Io { errno: Errno::NOENT, .. })));
    }
}
