//! A client with one connection to the guest's echo: a line every 50 ms, whether the last one has come back or not, and all of them
//! come back, whole and in their order.

use super::record::Record;
use super::{Client, PATIENCE, Stop, explain};
use anyhow::{Context, Result, bail, ensure};
use colo_testbed_inside::ports;
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_millis(50);

pub(super) struct Session;

impl Client for Session {
    fn name(&self) -> &'static str {
        "echo"
    }

    fn run(&self, guest: Ipv4Addr, stop: &Stop, record: &mut Record) -> Result<()> {
        let mut stream = TcpStream::connect_timeout(&(guest, ports::ECHO).into(), PATIENCE).map_err(explain)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut lines = Lines::default();
        let mut next = Instant::now();
        loop {
            let (now, is_stopped) = (Instant::now(), stop.is_set());
            if is_stopped && lines.is_all_back() {
                return Ok(());
            }
            if !is_stopped && now >= next {
                record.ask(now);
                stream.write_all(lines.say(now).as_bytes()).map_err(explain).context("a line")?;
                next = (next + EVERY).max(now);
            }
            ensure!(lines.patience_left(now) > Duration::ZERO, "a line has not come back for {} s", PATIENCE.as_secs());
            let wait = if is_stopped { lines.patience_left(now) } else { next.saturating_duration_since(now) };
            // Zero would be for ever.
            stream.set_read_timeout(Some(wait.max(Duration::from_millis(1))))?;
            let mut bytes = [0; 4096];
            match stream.read(&mut bytes) {
                Ok(0) => bail!("the connection was closed"),
                Ok(count) => {
                    for asked in lines.hear(&bytes[..count])? {
                        record.answer(asked, Instant::now());
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => (),
                Err(error) => return Err(explain(error)),
            }
        }
    }
}

/// Lines that were said, and how much of them has come back.
#[derive(Default)]
struct Lines {
    said: u64,
    /// What is still to come back.
    expected: VecDeque<u8>,
    /// When each of the lines was said that is not whole yet.
    asked: VecDeque<Instant>,
}

impl Lines {
    /// The next line.
    fn say(&mut self, now: Instant) -> String {
        self.said += 1;
        let line = format!("line {} of a long talk\n", self.said);
        self.expected.extend(line.bytes());
        self.asked.push_back(now);
        line
    }

    /// Some bytes have come back: when those lines were said that are whole with them.
    fn hear(&mut self, bytes: &[u8]) -> Result<Vec<Instant>> {
        let mut whole = Vec::new();
        for byte in bytes {
            let line = self.said - self.asked.len() as u64 + 1;
            let Some(expected) = self.expected.pop_front() else { bail!("more came back than was said") };
            ensure!(expected == *byte, "line {line} came back wrong: {:?}", String::from_utf8_lossy(bytes));
            if *byte == b'\n' {
                whole.extend(self.asked.pop_front());
            }
        }
        Ok(whole)
    }

    fn is_all_back(&self) -> bool {
        self.asked.is_empty()
    }

    /// How long the oldest line may still be waited for.
    fn patience_left(&self, now: Instant) -> Duration {
        self.asked.front().map_or(PATIENCE, |asked| (*asked + PATIENCE).saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_in_any_pieces() {
        let mut lines = Lines::default();
        let (first, second) = (Instant::now(), Instant::now() + EVERY);
        let said = lines.say(first) + &lines.say(second);
        assert_eq!(lines.hear(&said.as_bytes()[..3]).unwrap(), []);
        assert!(!lines.is_all_back());
        assert_eq!(lines.hear(&said.as_bytes()[3..]).unwrap(), [first, second]);
        assert!(lines.is_all_back());
        assert_eq!(lines.hear(b"x").unwrap_err().to_string(), "more came back than was said");
    }

    #[test]
    fn a_line_that_is_lost_said_twice_or_changed() {
        let now = Instant::now();
        let of = |heard: &str| {
            let mut lines = Lines::default();
            let _ = [lines.say(now), lines.say(now)];
            lines.hear(heard.as_bytes()).unwrap_err().to_string()
        };
        let lost = "line 2 of a long talk\n";
        assert_eq!(of(lost), format!("line 1 came back wrong: {lost:?}"));
        let twice = "line 1 of a long talk\nline 1 of a long talk\n";
        assert_eq!(of(twice), format!("line 2 came back wrong: {twice:?}"));
        assert!(of("line 1 of a short").starts_with("line 1 came back wrong"));
    }

    #[test]
    fn patience_is_with_the_oldest_line() {
        let mut lines = Lines::default();
        let now = Instant::now();
        assert_eq!(lines.patience_left(now), PATIENCE);
        lines.say(now);
        lines.say(now + EVERY);
        assert_eq!(lines.patience_left(now + EVERY), PATIENCE - EVERY);
        assert_eq!(lines.patience_left(now + 2 * PATIENCE), Duration::ZERO);
    }
}
