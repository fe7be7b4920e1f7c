//! What a guest can be told to do: a line for each order, answered by a line before it is obeyed.

use crate::disk::Disk;
use rustix::system::{RebootCommand, reboot};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};

/// An order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Order {
    /// Switch off, once the disk is put away.
    PowerOff,
    /// Start anew, likewise.
    Reboot,
    /// Panic.
    Crash,
    /// Rewrite so many pages with each tick from now on.
    Dirty(usize),
}

impl Order {
    fn parse(line: &str) -> Option<Order> {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["poweroff"] => Some(Order::PowerOff),
            ["reboot"] => Some(Order::Reboot),
            ["crash"] => Some(Order::Crash),
            ["dirty", pages] => pages.parse().ok().map(Order::Dirty),
            _ => None,
        }
    }

    /// Whether there is no other after it.
    fn is_last(self) -> bool {
        !matches!(self, Order::Dirty(_))
    }

    fn obey(self, dirty_pages: &AtomicUsize, disk: Option<&Disk>) -> io::Result<()> {
        if matches!(self, Order::PowerOff | Order::Reboot) {
            disk.map_or(Ok(()), Disk::put_away)?;
        }
        match self {
            Order::PowerOff => Ok(reboot(RebootCommand::PowerOff)?),
            Order::Reboot => Ok(reboot(RebootCommand::Restart)?),
            Order::Crash => std::fs::write("/proc/sysrq-trigger", "c"),
            Order::Dirty(pages) => {
                dirty_pages.store(pages, Ordering::Relaxed);
                Ok(())
            }
        }
    }
}

/// Takes orders, from one after the other. How many pages are rewritten is told by way of `dirty_pages`.
pub(crate) fn serve(listener: &TcpListener, dirty_pages: &AtomicUsize, disk: Option<&Disk>) {
    for connection in listener.incoming().flatten() {
        if let Err(error) = take(connection, dirty_pages, disk) {
            println!("orders: {error}");
        }
    }
}

fn take(connection: TcpStream, dirty_pages: &AtomicUsize, disk: Option<&Disk>) -> io::Result<()> {
    let mut to = connection.try_clone()?;
    for line in BufReader::new(connection).lines() {
        match Order::parse(&line?) {
            Some(order) => {
                // It may be the last that is heard of it.
                to.write_all(b"ok\n")?;
                if order.is_last() {
                    // Nobody will close it any more.
                    to.shutdown(Shutdown::Both)?;
                }
                order.obey(dirty_pages, disk)?;
            }
            None => to.write_all(b"what?\n")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn orders_are_understood() {
        assert_eq!(Order::parse("poweroff\r"), Some(Order::PowerOff));
        assert_eq!(Order::parse("reboot"), Some(Order::Reboot));
        assert_eq!(Order::parse("crash"), Some(Order::Crash));
        assert_eq!(Order::parse("dirty 200"), Some(Order::Dirty(200)));
        for line in ["", "dirty", "dirty -1", "poweroff now", "Reboot"] {
            assert_eq!(Order::parse(line), None, "{line}");
        }
    }

    #[test]
    fn orders_are_answered_and_obeyed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.write_all(b"dance\ndirty 7\n").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let dirty_pages = AtomicUsize::new(0);
        take(listener.accept().unwrap().0, &dirty_pages, None).unwrap();
        let mut said = String::new();
        client.read_to_string(&mut said).unwrap();
        assert_eq!(said, "what?\nok\n");
        assert_eq!(dirty_pages.into_inner(), 7);
    }
}
