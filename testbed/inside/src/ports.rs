//! The TCP ports on which a guest answers.
//!
//! ```no_run
//! use colo_testbed_inside::ports;
//! use std::io::Write;
//! use std::net::{Ipv4Addr, TcpStream};
//! let mut guest = TcpStream::connect((Ipv4Addr::new(10, 9, 0, 12), ports::ORDERS))?;
//! guest.write_all(b"dirty 200\n")?;
//! # Ok::<(), std::io::Error>(())
//! ```

/// Everything comes back.
pub const ECHO: u16 = 7;
/// One line about the guest's memory, for each connection: `ok SUM` or `BAD PAGES`.
pub const MEMORY: u16 = 9;
/// HTTP/1.1: `/`, `/bytes/N`, `/count`, `/time`.
pub const HTTP: u16 = 80;
/// Orders, a line each, which are answered by a line each before they are obeyed: `poweroff`, `reboot`, `crash`, `dirty PAGES`.
pub const ORDERS: u16 = 81;
/// The ledger of a guest that has a disk. A line for each request: `put NUMBER TEXT` (an entry, in a transaction of its own), `check` (the
/// database's own check), `rows` and `log` (all entries, of the database and of the log). An answer's last line is `done`: what it is about is
/// on the disk then. Or else it is `failed: WHY`.
pub const LEDGER: u16 = 82;
