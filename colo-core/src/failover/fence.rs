use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Makes sure that the other side does not serve.
pub trait Fence: Send {
    /// On return the other side is known not to serve, nor to begin.
    ///
    /// # Errors
    /// [`FenceError`] when that is not known.
    fn fence(&mut self) -> Result<(), FenceError>;
}

/// Why it is not known that the other side is dead.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum FenceError {
    /// The command could not be started.
    #[error("fence command {command:?} could not be started: {source}")]
    NotStarted {
        /// The command.
        command: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The command said no.
    #[error("fence command {command:?} failed: {status}")]
    Failed {
        /// The command.
        command: String,
        /// Its exit status.
        status: std::process::ExitStatus,
    },
    /// The command did not end in time, and was ended.
    #[error("fence command {command:?} did not end within {seconds} s")]
    TimedOut {
        /// The command.
        command: String,
        /// How long it had.
        seconds: u64,
    },
}

/// A shell command that fences: exit code 0 means that the other side is down. It finds the domain's name in `COLO_DOMAIN`, its
/// own side in `COLO_ROLE` ("primary" or "secondary") and the other's address in `COLO_PEER`.
#[derive(Clone, Debug)]
pub struct CommandFence {
    command: String,
    environment: Vec<(&'static str, String)>,
    limit: Duration,
}

impl CommandFence {
    /// How long the command may take unless told otherwise: a power switch needs some seconds.
    pub const DEFAULT_LIMIT: Duration = Duration::from_secs(30);
    /// How often a running command is looked at.
    const POLL: Duration = Duration::from_millis(5);

    /// The command, run by `/bin/sh -c`.
    pub fn new(command: &str, domain: &str, role: &str, peer: &str) -> Self {
        let environment =
            vec![("COLO_DOMAIN", domain.to_owned()), ("COLO_ROLE", role.to_owned()), ("COLO_PEER", peer.to_owned())];
        CommandFence { command: command.to_owned(), environment, limit: Self::DEFAULT_LIMIT }
    }

    /// Ends the command after so long.
    #[must_use]
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }
}

impl Fence for CommandFence {
    fn fence(&mut self) -> Result<(), FenceError> {
        let command = self.command.clone();
        let not_started = |source| FenceError::NotStarted { command: self.command.clone(), source };
        let mut child = Command::new("/bin/sh")
            .args(["-c", &self.command])
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .spawn()
            .map_err(not_started)?;
        let deadline = Instant::now() + self.limit;
        loop {
            match child.try_wait().map_err(not_started)? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(FenceError::Failed { command, status }),
                None if Instant::now() >= deadline => {
                    // Both fail only if the command has ended by now.
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(FenceError::TimedOut { command, seconds: self.limit.as_secs() });
                }
                None => std::thread::sleep(Self::POLL),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fence(command: &str) -> Result<(), FenceError> {
        CommandFence::new(command, "web", "secondary", "10.0.0.1").with_limit(Duration::from_secs(1)).fence()
    }

    #[test]
    fn exit_code_zero_and_only_that_is_a_fence() {
        assert!(fence("test \"$COLO_DOMAIN/$COLO_ROLE/$COLO_PEER\" = web/secondary/10.0.0.1").is_ok());
        assert!(matches!(fence("exit 3"), Err(FenceError::Failed { status, .. }) if status.code() == Some(3)));
    }

    #[test]
    fn a_command_that_hangs_is_ended() {
        assert!(matches!(fence("exec sleep 60"), Err(FenceError::TimedOut { seconds: 1, .. })));
    }
}
