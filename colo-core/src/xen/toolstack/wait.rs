//! Waiting for descriptors, with a deadline.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

/// Waits until one of the descriptors is ready or has failed, which using it will tell. The answer has a flag for each of them;
/// none is set when the deadline has passed.
pub(crate) fn ready<const N: usize>(
    fds: [(BorrowedFd<'_>, PollFlags); N],
    deadline: Instant,
) -> Result<[bool; N], Errno> {
    let mut fds = fds.map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags));
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout =
            Timespec { tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) if left.is_zero() => return Ok([false; N]),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(fds.each_ref().map(|fd| !fd.revents().is_empty())),
            Err(errno) => return Err(errno),
        }
    }
}

/// Waits for one descriptor; false when the deadline has passed.
pub(crate) fn ready_one(fd: impl AsFd, flags: PollFlags, deadline: Instant) -> Result<bool, Errno> {
    Ok(ready([(fd.as_fd(), flags)], deadline)?[0])
}
