use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

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

    #[test]
    fn a_deadline_that_has_passed_still_sees_what_is_there() {
        let (reader, mut writer) = UnixStream::pair().unwrap();
        let past = Instant::now();
        assert!(!wait_readable(&[reader.as_fd()], past).unwrap());
        writer.write_all(&[1]).unwrap();
        assert!(wait_readable(&[reader.as_fd()], past).unwrap());
    }
}
