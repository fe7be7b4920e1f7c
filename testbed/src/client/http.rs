//! A HTTP client that hides nothing: one connection, never made again behind its user's back.

use super::{PATIENCE, explain};
use anyhow::{Context, Result, bail, ensure};
use colo_testbed_inside::ports;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};

/// The longest line of a head, and the longest body that is read at once.
const MAX_LINE_BYTES: u64 = 4096;
const MAX_BODY_BYTES: u64 = 1 << 20;

/// A connection to a guest.
pub(super) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(super) fn open(guest: Ipv4Addr) -> Result<Connection> {
        let stream = TcpStream::connect_timeout(&(guest, ports::HTTP).into(), PATIENCE).map_err(explain)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Connection(BufReader::with_capacity(64 << 10, stream)))
    }

    /// Asks for something, and returns it.
    pub(super) fn get(&mut self, path: &str) -> Result<Vec<u8>> {
        let length = self.ask(path)?;
        ensure!(length <= MAX_BODY_BYTES, "GET {path}: {length} bytes are too many");
        let mut body = vec![0; length as usize];
        self.0.read_exact(&mut body).map_err(explain).with_context(|| format!("GET {path}"))?;
        Ok(body)
    }

    /// Asks for something, and says how long it is. It must be read to its end then.
    pub(super) fn ask(&mut self, path: &str) -> Result<u64> {
        let what = || format!("GET {path}");
        let request = format!("GET {path} HTTP/1.1\r\nHost: guest\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes()).map_err(explain).with_context(what)?;
        read_head(&mut self.0).with_context(what)
    }

    /// Reads on: at most so many bytes, and at least one.
    pub(super) fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        match self.0.read(into) {
            Ok(0) => Err(explain(io::ErrorKind::UnexpectedEof.into())),
            Ok(count) => Ok(count),
            Err(error) => Err(explain(error)),
        }
    }
}

/// Reads the head of an answer, which must be a good one, and returns the length of its body.
fn read_head(from: &mut impl BufRead) -> Result<u64> {
    let first = read_line(from)?;
    let Some(("HTTP/1.1", status)) = first.split_once(' ') else { bail!("{first:?} is no answer") };
    ensure!(status.starts_with("200 "), "the answer is {status:?}");
    let mut length = None;
    loop {
        let line = read_line(from)?;
        if line.is_empty() {
            return length.context("an answer without a length");
        }
        let (name, value) = line.split_once(':').with_context(|| format!("{line:?} is no header"))?;
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse().with_context(|| format!("{value:?} is no length"))?);
        }
    }
}

fn read_line(from: &mut impl BufRead) -> Result<String> {
    let mut line = Vec::new();
    from.take(MAX_LINE_BYTES).read_until(b'\n', &mut line).map_err(explain)?;
    ensure!(!line.is_empty(), "the connection was closed");
    let Some(line) = line.strip_suffix(b"\r\n") else { bail!("a line that does not end") };
    String::from_utf8(line.to_vec()).context("a line that is no text")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<u64> {
        read_head(&mut text.as_bytes())
    }

    #[test]
    fn a_good_answer() {
        assert_eq!(head("HTTP/1.1 200 OK\r\nX: y\r\ncontent-LENGTH: 12\r\n\r\nbody").unwrap(), 12);
    }

    #[test]
    fn answers_that_are_not() {
        let why = |text| format!("{:#}", head(text).unwrap_err());
        assert_eq!(why(""), "the connection was closed");
        assert_eq!(why("HTTP/1.1 200 OK\r\n"), "the connection was closed");
        assert_eq!(why("HTTP/1.1 404 Not Found\r\n\r\n"), "the answer is \"404 Not Found\"");
        assert_eq!(why("200 OK\r\n\r\n"), "\"200 OK\" is no answer");
        assert_eq!(why("HTTP/1.1 200 OK\r\n\r\n"), "an answer without a length");
        assert_eq!(why("HTTP/1.1 200 OK\r\nnonsense\r\n\r\n"), "\"nonsense\" is no header");
        assert_eq!(why("HTTP/1.1 200 O"), "a line that does not end");
        assert!(why("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n").starts_with("\" -1\" is no length"));
    }
}
