use super::messages::{MAX_MESSAGE_BYTES, Message};
use crate::xen::poll::ready;
use rustix::event::PollFlags;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, read, write};
use rustix::net::{SendFlags, send};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// What a restoring process says to libxl, in the helper's place: over the pipes that the helper has passed. The helper waits
/// meanwhile; libxl believes it to work.
///
/// Every call has a deadline of [`Self::REPLY_LIMIT`]. When a channel is dropped without a completion, the helper ends with exit
/// code 1 and libxl destroys the domain: the way of every failure that has nothing to say.
#[derive(Debug)]
pub struct LibxlChannel {
    to_libxl: OwnedFd,
    from_libxl: OwnedFd,
    helper: OwnedFd,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Messages may be sent.
    Open,
    /// RESTORE_RESULTS has been sent.
    Results,
    /// COMPLETE has been sent and the helper let go, or the channel has failed, perhaps within a message: nothing more may be
    /// sent. Whether the domain is to live.
    Complete(bool),
}

/// Why libxl could not be told something. The restore has failed, then.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum ChannelError {
    /// libxl has ended, or closed its pipes.
    #[error("libxl is gone ({doing})")]
    Gone {
        /// What was tried.
        doing: &'static str,
    },
    /// libxl has ended the helper: it wants no more of this restore.
    #[error("libxl has ended its save helper ({doing})")]
    HelperGone {
        /// What was tried.
        doing: &'static str,
    },
    /// libxl neither read nor answered for too long.
    #[error("libxl did not answer within {} s ({doing})", LibxlChannel::REPLY_LIMIT.as_secs())]
    TimedOut {
        /// What was tried.
        doing: &'static str,
    },
    /// libxl answered that it could not.
    #[error("libxl answered {reply} to {doing}")]
    Refused {
        /// What was asked.
        doing: &'static str,
        /// Its answer.
        reply: i32,
    },
    /// A completion without results, or something after the completion.
    #[error("{doing} at the wrong time")]
    OutOfOrder {
        /// What was tried.
        doing: &'static str,
    },
    /// The system refused.
    #[error("{doing}: {errno}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        errno: Errno,
    },
}

impl LibxlChannel {
    /// How long libxl has to take a message and to answer it. It answers from its event loop, or after a CPUID policy made for the
    /// domain: far below a second.
    pub const REPLY_LIMIT: Duration = Duration::from_secs(30);

    /// A channel over libxl's pipes, as a helper has them for its standard output and input, and the socket to the helper.
    pub(super) fn new(to_libxl: OwnedFd, from_libxl: OwnedFd, helper: OwnedFd) -> Result<Self, Errno> {
        // The helper shares these descriptions with us; it uses neither.
        for fd in [&to_libxl, &from_libxl] {
            fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)?;
        }
        Ok(LibxlChannel { to_libxl, from_libxl, helper, state: State::Open })
    }

    /// Tells libxl that the stream's static data is there, and what it lacks
    /// ([`MISSING_CPUID`](super::messages::MISSING_CPUID), [`MISSING_MSR`](super::messages::MISSING_MSR)). On return libxl has
    /// made a CPUID policy for the domain, when that was missing. To be called once, before any vCPU's state is set.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub fn static_data_done(&mut self, missing: u32) -> Result<(), ChannelError> {
        let doing = "the end of the static data";
        if self.state != State::Open {
            return Err(ChannelError::OutOfOrder { doing });
        }
        match self.ask(doing, &Message::StaticDataDone { missing })? {
            0 => Ok(()),
            reply => Err(ChannelError::Refused { doing, reply }),
        }
    }

    /// Tells libxl where the domain has its xenstore and console pages: gfns, mfns for a PV domain.
    ///
    /// # Errors
    /// [`ChannelError`], but not `Refused`.
    pub fn results(&mut self, store_gfn: u64, console_gfn: u64) -> Result<(), ChannelError> {
        let doing = "the results";
        if self.state != State::Open {
            return Err(ChannelError::OutOfOrder { doing });
        }
        self.send(doing, &Message::RestoreResults { store_gfn, console_gfn })?;
        self.state = State::Results;
        Ok(())
    }

    /// Tells libxl that the domain is restored, and lets the helper end. libxl reads on in its stream.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub fn complete_ok(&mut self) -> Result<(), ChannelError> {
        let doing = "the completion";
        if self.state != State::Results {
            return Err(ChannelError::OutOfOrder { doing });
        }
        self.complete(doing, 0, 0)
    }

    /// Tells libxl that the restore has failed, and why, and lets the helper end. libxl destroys the domain.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub fn complete_failed(&mut self, errno: Errno) -> Result<(), ChannelError> {
        let doing = "the failure";
        match self.state {
            // Without results libxl would complain of their absence, not of the errno.
            State::Open => self.results(0, 0)?,
            State::Results => {}
            State::Complete(_) => return Err(ChannelError::OutOfOrder { doing }),
        }
        self.complete(doing, -1, errno.raw_os_error())
    }

    /// Whether a completion has been sent, and the domain is to live.
    pub fn is_complete(&self) -> bool {
        self.state == State::Complete(true)
    }

    fn complete(&mut self, doing: &'static str, retval: i32, errno: i32) -> Result<(), ChannelError> {
        match self.ask(doing, &Message::Complete { retval, errno })? {
            0 => {}
            reply => return Err(ChannelError::Refused { doing, reply }),
        }
        self.release(doing, 0)?;
        self.state = State::Complete(retval == 0);
        Ok(())
    }

    fn release(&mut self, doing: &'static str, exit_code: u8) -> Result<(), ChannelError> {
        match send(&self.helper, &[exit_code], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(_) => Ok(()),
            Err(Errno::PIPE | Errno::CONNRESET) => Err(ChannelError::HelperGone { doing }),
            Err(errno) => Err(ChannelError::Io { doing, errno }),
        }
    }

    fn ask(&mut self, doing: &'static str, message: &Message) -> Result<i32, ChannelError> {
        self.send(doing, message)?;
        let reply = self.reply(doing);
        if reply.is_err() {
            self.state = State::Complete(false);
        }
        reply
    }

    fn reply(&self, doing: &'static str) -> Result<i32, ChannelError> {
        let deadline = Instant::now() + Self::REPLY_LIMIT;
        let mut reply = [0; 4];
        let mut got = 0;
        while got < reply.len() {
            match read(&self.from_libxl, &mut reply[got..]) {
                Ok(0) => return Err(ChannelError::Gone { doing }),
                Ok(bytes) => got += bytes,
                Err(Errno::AGAIN | Errno::INTR) => {
                    self.wait(doing, self.from_libxl.as_fd(), PollFlags::IN, deadline)?;
                }
                Err(errno) => return Err(ChannelError::Io { doing, errno }),
            }
        }
        Ok(i32::from_le_bytes(reply))
    }

    fn send(&mut self, doing: &'static str, message: &Message) -> Result<(), ChannelError> {
        if matches!(self.state, State::Complete(_)) {
            return Err(ChannelError::OutOfOrder { doing });
        }
        let bytes = message.encode();
        debug_assert!(bytes.len() <= 2 + MAX_MESSAGE_BYTES);
        let sent = self.send_all(doing, &bytes);
        if sent.is_err() {
            self.state = State::Complete(false);
        }
        sent
    }

    fn send_all(&self, doing: &'static str, bytes: &[u8]) -> Result<(), ChannelError> {
        let deadline = Instant::now() + Self::REPLY_LIMIT;
        let mut rest = bytes;
        while !rest.is_empty() {
            match write(&self.to_libxl, rest) {
                Ok(bytes) => rest = &rest[bytes..],
                Err(Errno::AGAIN | Errno::INTR) => {
                    self.wait(doing, self.to_libxl.as_fd(), PollFlags::OUT, deadline)?;
                }
                Err(Errno::PIPE) => return Err(ChannelError::Gone { doing }),
                Err(errno) => return Err(ChannelError::Io { doing, errno }),
            }
        }
        Ok(())
    }

    /// Waits for a pipe, or for the helper's end: libxl answers nobody whom it has ended.
    fn wait(
        &self,
        doing: &'static str,
        fd: BorrowedFd<'_>,
        flags: PollFlags,
        deadline: Instant,
    ) -> Result<(), ChannelError> {
        match ready([(fd, flags), (self.helper.as_fd(), PollFlags::IN)], deadline) {
            Ok([true, _]) => Ok(()),
            Ok([false, true]) => Err(ChannelError::HelperGone { doing }),
            Ok([false, false]) => Err(ChannelError::TimedOut { doing }),
            Err(errno) => Err(ChannelError::Io { doing, errno }),
        }
    }
}
