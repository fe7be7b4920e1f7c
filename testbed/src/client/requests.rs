//! Clients that ask for the same page again and again: over one connection, or over a new one each time.

use super::http::Connection;
use super::record::Record;
use super::{Client, Stop};
use anyhow::{Result, ensure};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

pub(super) const KEEP_ALIVE: &str = "requests";

pub(super) struct Requests {
    name: &'static str,
    path: &'static str,
    /// Between an answer and the next request.
    pause: Duration,
    /// Whether there is a new connection for each request.
    is_anew: bool,
    /// Whether all answers are the same.
    is_fixed: bool,
}

impl Requests {
    pub(super) fn keep_alive() -> Requests {
        let pause = Duration::from_millis(20);
        Requests { name: KEEP_ALIVE, path: "/", pause, is_anew: false, is_fixed: true }
    }

    pub(super) fn new_connections() -> Requests {
        let pause = Duration::from_millis(200);
        Requests { name: "new connections", pause, is_anew: true, ..Requests::keep_alive() }
    }

    /// Two machines have two clocks, so that what they answer differs.
    pub(super) fn clock() -> Requests {
        let pause = Duration::from_secs(1);
        Requests { name: "clock", path: "/time", pause, is_anew: false, is_fixed: false }
    }
}

impl Client for Requests {
    fn name(&self) -> &'static str {
        self.name
    }

    fn run(&self, guest: Ipv4Addr, stop: &Stop, record: &mut Record) -> Result<()> {
        let mut connection = None;
        let mut first: Option<Vec<u8>> = None;
        loop {
            let asked = Instant::now();
            record.ask(asked);
            let mut asking = match connection.take() {
                Some(connection) => connection,
                None => Connection::open(guest)?,
            };
            let page = asking.get(self.path)?;
            record.answer(asked, Instant::now());
            if !self.is_anew {
                connection = Some(asking);
            }
            let first = first.get_or_insert_with(|| page.clone());
            ensure!(!self.is_fixed || *first == page, "{}: it is another page than at first", self.path);
            if stop.wait_until(Instant::now() + self.pause) {
                return Ok(());
            }
        }
    }
}
