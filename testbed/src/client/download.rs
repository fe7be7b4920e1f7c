//! A client that downloads for as long as the others are at work, no faster than it is told, and checks the SHA-256 of it all.

use super::http::Connection;
use super::record::Record;
use super::{Client, Stop};
use anyhow::{Result, ensure};
use colo_testbed_inside::bytes::fill;
use sha2::{Digest, Sha256};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// What is read at once.
const PIECE_BYTES: usize = 16 << 10;

pub(super) struct Download {
    bytes: u64,
    bytes_per_s: u64,
}

impl Download {
    /// A download that takes so long at this speed. If it is over before the others are, there is another one; if it is not, the rest
    /// comes as fast as it can.
    pub(super) fn paced(time: Duration, bytes_per_s: u64) -> Download {
        Download { bytes: (time.as_secs_f64() * bytes_per_s as f64) as u64, bytes_per_s }
    }
}

impl Client for Download {
    fn name(&self) -> &'static str {
        "download"
    }

    fn run(&self, guest: Ipv4Addr, stop: &Stop, record: &mut Record) -> Result<()> {
        let begun = Instant::now();
        let mut connection = Connection::open(guest)?;
        let mut whole = 0;
        loop {
            let asked = Instant::now();
            record.ask(asked);
            let length = connection.ask(&format!("/bytes/{}", self.bytes))?;
            ensure!(length == self.bytes, "{length} bytes are announced, not {}", self.bytes);
            let mut checked = Checked::default();
            let mut piece = vec![0; PIECE_BYTES];
            while checked.count < self.bytes {
                let due = asked + Duration::from_secs_f64(checked.count as f64 / self.bytes_per_s as f64);
                stop.wait_until(due);
                let wanted = (self.bytes - checked.count).min(PIECE_BYTES as u64) as usize;
                let count = connection.read(&mut piece[..wanted]).map_err(|error| checked.explain(error))?;
                checked.add(&piece[..count]);
                record.part(Instant::now());
            }
            let count = checked.count;
            checked.ensure_right()?;
            record.answer(asked, Instant::now());
            whole += count;
            let speed = whole as f64 / 1e6 / begun.elapsed().as_secs_f64();
            record.remark(format!("{:.1} MB, {speed:.2} MB/s, SHA-256 right", whole as f64 / 1e6));
            if stop.is_set() {
                return Ok(());
            }
        }
    }
}

/// The bytes that came, from the first on.
#[derive(Default)]
struct Checked {
    count: u64,
    sha: Sha256,
    /// For whoever looks for a cause: the SHA-256 says only that there is one.
    first_wrong: Option<u64>,
}

impl Checked {
    fn add(&mut self, bytes: &[u8]) {
        self.sha.update(bytes);
        if self.first_wrong.is_none() {
            let mut expected = vec![0; bytes.len()];
            fill(self.count, &mut expected);
            let wrong = bytes.iter().zip(&expected).position(|(byte, expected)| byte != expected);
            self.first_wrong = wrong.map(|at| self.count + at as u64);
        }
        self.count += bytes.len() as u64;
    }

    /// An error, and how far it had come.
    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        match self.first_wrong {
            Some(at) => error.context(format!("after {} bytes, of which byte {at} was wrong", self.count)),
            None => error.context(format!("after {} bytes", self.count)),
        }
    }

    /// Whether the SHA-256 is that of the bytes which the guest should have sent.
    fn ensure_right(self) -> Result<()> {
        let mut expected = Sha256::new();
        let mut piece = vec![0; PIECE_BYTES];
        let mut at = 0;
        while at < self.count {
            let now = (self.count - at).min(PIECE_BYTES as u64);
            fill(at, &mut piece[..now as usize]);
            expected.update(&piece[..now as usize]);
            at += now;
        }
        let is_right = self.sha.finalize() == expected.finalize();
        let at = self.first_wrong.map_or_else(String::new, |at| format!(", from byte {at} on"));
        ensure!(is_right, "the SHA-256 of {} bytes is wrong{at}", self.count);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        fill(0, &mut bytes);
        bytes
    }

    fn check(bytes: &[u8]) -> Result<()> {
        let mut checked = Checked::default();
        bytes.chunks(1000).for_each(|piece| checked.add(piece));
        checked.ensure_right()
    }

    #[test]
    fn the_right_bytes() {
        check(&bytes(PIECE_BYTES + 77)).unwrap();
        check(&[]).unwrap();
    }

    #[test]
    fn a_wrong_byte_and_one_that_came_twice() {
        let mut changed = bytes(5000);
        changed[3500] ^= 1;
        assert_eq!(check(&changed).unwrap_err().to_string(), "the SHA-256 of 5000 bytes is wrong, from byte 3500 on");
        let mut twice = bytes(5000);
        let again = twice[2000..3000].to_vec();
        twice[3000..4000].copy_from_slice(&again);
        assert!(check(&twice).unwrap_err().to_string().ends_with("wrong, from byte 3000 on"));
    }

    #[test]
    fn how_far_it_had_come() {
        let mut checked = Checked::default();
        checked.add(&bytes(10));
        assert_eq!(format!("{:#}", checked.explain(anyhow::anyhow!("reset"))), "after 10 bytes: reset");
        checked.add(&[0; 4]);
        let error = format!("{:#}", checked.explain(anyhow::anyhow!("reset")));
        assert_eq!(error, "after 14 bytes, of which byte 10 was wrong: reset");
    }

    #[test]
    fn a_download_lasts_as_long_as_it_is_told() {
        assert_eq!(Download::paced(Duration::from_millis(1500), 1000).bytes, 1500);
    }
}
