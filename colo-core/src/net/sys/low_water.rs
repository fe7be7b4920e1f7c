use super::done;
use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// From how many bytes on a TCP connection counts as readable, if it has not ended: nobody is woken for fewer. The kernel makes room for them.
pub(crate) fn set_receive_low_water(socket: impl AsFd, bytes: usize) -> io::Result<()> {
    let value = c_int::try_from(bytes).unwrap_or(c_int::MAX);
    let (option, length) = (std::ptr::from_ref(&value).cast(), size_of::<c_int>() as libc::socklen_t);
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel reads so many bytes of the value, which lives over the call.
    done(unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, option, length) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_connection_is_readable_when_so_much_has_come_or_it_has_ended() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let receiver = listener.accept().unwrap().0;
        let is_readable =
            |timeout: Option<&Timespec>| poll(&mut [PollFd::new(&receiver, PollFlags::IN)], timeout).unwrap() == 1;
        set_receive_low_water(&receiver, 100_000).unwrap();
        sender.write_all(&[1; 99_999]).unwrap();
        assert!(!is_readable(Some(&Timespec::default())));
        sender.write_all(&[1]).unwrap();
        assert!(is_readable(None));
        set_receive_low_water(&receiver, 1 << 20).unwrap();
        assert!(!is_readable(Some(&Timespec::default())));
        drop(sender);
        assert!(is_readable(None));
    }
}
