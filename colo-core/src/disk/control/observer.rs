use super::line::{Greeting, Line};
use super::wire::{Reported, Request, Role, Said};
use super::{ANSWER_WITHIN, ControlError};
use crate::disk::Compared;
use std::path::Path;

/// Asks about disks that another process serves, whoever drives them, and changes nothing.
///
/// ```
/// use colo_core::disk::control::{ControlServer, Observer, ServedDisks};
/// use colo_core::disk::{DiskState, FileBackend, Tap, TapConfig};
/// # let folder = std::env::temp_dir().join(format!("colo-doc-observer-{}", std::process::id()));
/// # std::fs::create_dir(&folder)?;
/// # let path = folder.join("disk");
/// # let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
/// file.set_len(1 << 20)?;
/// let tap = Tap::new(vec![(std::sync::Arc::new(FileBackend::new(file)), 1 << 20)], TapConfig::default());
/// let server = ControlServer::start(&folder.join("control"), ServedDisks::Primary(tap))?;
///
/// let mut observer = Observer::connect(&folder.join("control"))?;
/// assert_eq!(observer.status()?.disks.state, DiskState::Alone(None));
/// assert_eq!(observer.verify(|_| {}).unwrap_err().to_string(), "not protected: there is nothing to compare with");
/// # drop((observer, server));
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Observer {
    line: Line,
    greeting: Greeting,
    /// The number of the last request.
    number: u64,
}

/// How far a comparison is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Comparing {
    /// So many bytes were compared.
    pub done_bytes: u64,
    /// Of so many.
    pub all_bytes: u64,
    /// So many parts of them differ.
    pub differing_parts: u64,
}

impl Observer {
    /// Connects to the disk server at that path.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn connect(path: &Path) -> Result<Observer, ControlError> {
        let (line, greeting) = Line::connect(path, ANSWER_WITHIN)?;
        Ok(Observer { line, greeting, number: 0 })
    }

    /// Whose disks they are.
    pub fn role(&self) -> Role {
        self.greeting.role
    }

    /// The disks' sizes in bytes.
    pub fn sizes(&self) -> &[u64] {
        &self.greeting.sizes
    }

    /// Whether both hosts have the same disks, and not each its own.
    pub fn is_shared(&self) -> bool {
        self.greeting.is_shared
    }

    /// What the disks are doing.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn status(&mut self) -> Result<Reported, ControlError> {
        let asked = self.ask(&Request::Status)?;
        match self.line.hear(Some(ANSWER_WITHIN))? {
            Said::Status(number, reported) if number == asked => Ok(reported),
            _ => Err(unexpected()),
        }
    }

    /// Has the disks compared with the secondary's: see [`Tap::verify`](crate::disk::Tap::verify). It stops when this process does.
    ///
    /// # Errors
    /// [`ControlError::NotProtected`], [`ControlError::NotCompared`], and those of the connection.
    pub fn verify(&mut self, mut on_progress: impl FnMut(Comparing)) -> Result<Compared, ControlError> {
        let asked = self.ask(&Request::Verify)?;
        loop {
            match self.line.hear(None)? {
                Said::Comparing { number, done_bytes, all_bytes, differing_parts } if number == asked => {
                    on_progress(Comparing { done_bytes, all_bytes, differing_parts });
                }
                Said::Compared(number, compared) if number == asked => return Ok(compared),
                Said::NotCompared { number, is_unprotected: true, why } if number == asked => {
                    return Err(ControlError::NotProtected(why));
                }
                Said::NotCompared { number, why, .. } if number == asked => return Err(ControlError::NotCompared(why)),
                _ => return Err(unexpected()),
            }
        }
    }

    fn ask(&mut self, request: &Request) -> Result<u64, ControlError> {
        self.number += 1;
        self.line.ask(self.number, request)?;
        Ok(self.number)
    }
}

fn unexpected() -> ControlError {
    ControlError::Unexpected("an answer to something else")
}
