//! A client that has the guest count. Nobody else does, so each number is the last one and 1: what was once said is never said again,
//! and never forgotten, whichever machine says it.

use super::http::Connection;
use super::record::Record;
use super::{Client, Stop};
use anyhow::{Context, Result, ensure};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(30);

pub(super) struct Counter;

impl Client for Counter {
    fn name(&self) -> &'static str {
        "counter"
    }

    fn run(&self, guest: Ipv4Addr, stop: &Stop, record: &mut Record) -> Result<()> {
        let mut connection = Connection::open(guest)?;
        let mut last = None;
        loop {
            let asked = Instant::now();
            record.ask(asked);
            let number = parse(&connection.get("/count")?)?;
            record.answer(asked, Instant::now());
            follow(last, number)?;
            last = Some(number);
            record.remark(format!("counted to {number}"));
            if stop.wait_until(Instant::now() + PAUSE) {
                return Ok(());
            }
        }
    }
}

fn parse(said: &[u8]) -> Result<u64> {
    let text = String::from_utf8_lossy(said);
    text.trim_end().parse().with_context(|| format!("{text:?} is no number"))
}

/// Whether a number may come after another.
fn follow(last: Option<u64>, number: u64) -> Result<()> {
    let Some(last) = last else { return Ok(()) };
    ensure!(number > last, "it counted {number} after {last}");
    ensure!(number == last + 1, "it counted {number} after {last}, and nobody else counts");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_follow() {
        assert!(follow(None, 9).is_ok() && follow(Some(9), 10).is_ok());
        let why = |last, number| follow(Some(last), number).unwrap_err().to_string();
        assert_eq!(why(9, 9), "it counted 9 after 9");
        assert_eq!(why(9, 3), "it counted 3 after 9");
        assert_eq!(why(9, 11), "it counted 11 after 9, and nobody else counts");
        assert_eq!(parse(b"12\n").unwrap(), 12);
        assert_eq!(parse(b"twelve").unwrap_err().to_string(), "\"twelve\" is no number");
    }
}
