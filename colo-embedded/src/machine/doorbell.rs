use super::ram::sys;
use colo_core::domain::DomainError;
use rustix::event::{EventfdFlags, PollFd, PollFlags, poll};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What the guest rings when there is something for a device to do: an eventfd. The monitor rings it as well, to have the device look.
pub(crate) struct Doorbell(OwnedFd);

impl Doorbell {
    pub(crate) fn new() -> Result<Doorbell, DomainError> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Doorbell(rustix::event::eventfd(0, flags).map_err(|errno| sys("eventfd", errno))?))
    }

    pub(crate) fn ring(&self) {
        // Fails only when the counter is full, and then the doorbell rings already.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    pub(crate) fn silence(&self) {
        // Fails only when it does not ring.
        let _ = rustix::io::read(&self.0, &mut [0_u8; 8]);
    }

    /// Waits until it rings. May return early.
    pub(crate) fn wait(&self) {
        // An interruption is an early return; nothing else can fail but for want of memory, and then it is tried again.
        let _ = poll(&mut [PollFd::new(&self.0, PollFlags::IN)], None);
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
