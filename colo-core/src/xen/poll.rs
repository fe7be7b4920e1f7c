//! Waiting for descriptors, with a deadline.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

/// How a wait has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wake {
    /// Something that was waited for can be read.
    Ready,
    /// The caller wants no more of it.
    Stopped,
    /// The deadline has passed.
    TimedOut,
}

/// Waits until one of the descriptors is ready or has failed, which using it will tell. The answer has a flag for each of them;
/// none is set when the deadline has passed.
pub(super) fn ready<const N: usize>(
    fds: [(BorrowedFd<'_>, PollFlags); N],
    deadline: Instant,
) -> Result<[bool; N], Errno> {
    let mut fds = fds.map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags));
    wait(&mut fds, deadline)?;
    Ok(fds.each_ref().map(is_ready))
}

/// Waits for one descriptor; false when the deadline has passed.
pub(super) fn ready_one(fd: impl AsFd, flags: PollFlags, deadline: Instant) -> Result<bool, Errno> {
    Ok(ready([(fd.as_fd(), flags)], deadline)?[0])
}

/// Waits until one of the descriptors can be read, but no longer than until `stop`, if there is one, can be. What is ready counts
/// before it.
pub(super) fn wait_unless(
    fds: &[BorrowedFd<'_>],
    stop: Option<BorrowedFd<'_>>,
    deadline: Instant,
) -> Result<Wake, Errno> {
    let all = fds.iter().copied().chain(stop);
    let mut all: Vec<PollFd<'_>> = all.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    Ok(match wait(&mut all, deadline)? {
        false => Wake::TimedOut,
        true if all[..fds.len()].iter().any(is_ready) => Wake::Ready,
        true => Wake::Stopped,
    })
}

/// Whether one of them is ready before the deadline has passed.
fn wait(fds: &mut [PollFd<'_>], deadline: Instant) -> Result<bool, Errno> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // A wait of more than the seconds fit is as good as the most that does.
        let tv_sec = left.as_secs().try_into().unwrap_or(i64::MAX);
        match poll(fds, Some(&Timespec { tv_sec, tv_nsec: left.subsec_nanos().into() })) {
            Ok(0) if !left.is_zero() => {}
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn is_ready(fd: &PollFd<'_>) -> bool {
    !fd.revents().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    #[test]
    fn a_deadline_that_has_passed_still_sees_what_is_there() {
        let (reader, mut writer) = UnixStream::pair().unwrap();
        let past = Instant::now();
        assert!(!ready_one(&reader, PollFlags::IN, past).unwrap());
        writer.write_all(&[1]).unwrap();
        assert!(ready_one(&reader, PollFlags::IN, past).unwrap());
    }

    #[test]
    fn a_wait_is_stopped_unless_what_it_waits_for_is_there() {
        let ((reader, mut writer), (stop, mut stopper)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        let wait = |stop, limit| wait_unless(&[reader.as_fd()], stop, Instant::now() + limit).unwrap();
        assert_eq!(wait(Some(stop.as_fd()), Duration::ZERO), Wake::TimedOut);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| wait(Some(stop.as_fd()), Duration::from_secs(600)));
            stopper.write_all(&[1]).unwrap();
            assert_eq!(waiting.join().unwrap(), Wake::Stopped);
        });
        // It stays stopped, for whoever looks at it.
        assert_eq!(wait(Some(stop.as_fd()), Duration::from_secs(600)), Wake::Stopped);
        assert_eq!(wait(None, Duration::ZERO), Wake::TimedOut);
        writer.write_all(&[1]).unwrap();
        assert_eq!(wait(Some(stop.as_fd()), Duration::from_secs(600)), Wake::Ready);
        assert_eq!(wait(None, Duration::ZERO), Wake::Ready);
    }
}
