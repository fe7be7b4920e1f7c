use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::os::fd::BorrowedFd;
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

/// As [`wait_readable`], but also no longer than until `stop`, if there is one, can be read. What is ready counts before it.
pub(super) fn wait_unless(fds: &[BorrowedFd<'_>], stop: Option<BorrowedFd<'_>>, deadline: Instant) -> io::Result<Wake> {
    let all: Vec<BorrowedFd<'_>> = fds.iter().copied().chain(stop).collect();
    Ok(match wait_readable(&all, deadline)? {
        false => Wake::TimedOut,
        true if stop.is_none() || wait_readable(fds, Instant::now())? => Wake::Ready,
        true => Wake::Stopped,
    })
}

/// Waits until one of them can be read, but not beyond the deadline. Whether one can.
pub(super) fn wait_readable(fds: &[BorrowedFd<'_>], deadline: Instant) -> io::Result<bool> {
    let mut fds: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // A wait of more than the seconds fit is as good as the most that does.
        let tv_sec = left.as_secs().min(i64::MAX as u64) as i64;
        let timeout = Timespec { tv_sec, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) if !left.is_zero() => {}
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    #[test]
    fn a_deadline_that_has_passed_still_sees_what_is_there() {
        let (reader, mut writer) = UnixStream::pair().unwrap();
        let past = Instant::now();
        assert!(!wait_readable(&[reader.as_fd()], past).unwrap());
        writer.write_all(&[1]).unwrap();
        assert!(wait_readable(&[reader.as_fd()], past).unwrap());
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
