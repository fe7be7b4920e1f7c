//! The guest's HTTP/1.1 server. Machines that are alike answer alike: there is no date in a head, and nothing left to chance, but for
//! `/time`, which is there to make two machines differ.
//!
//! * `GET /`: always the same page;
//! * `GET /bytes/N`: the first N of the bytes that [`fill`] makes;
//! * `GET` or `POST /count`: a number, one more each time;
//! * `GET /time`: the guest's clock.

use colo_testbed_inside::bytes::fill;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

const PAGE: &str = "<!doctype html>\n<title>A guest</title>\n<h1>A guest</h1>\n<p>This page is always the same, word for word, on \
    whichever host the guest happens to run. It has nothing to say, but it says it again and again: so whoever asks for it can tell \
    when it is late, when it is cut short, and when it is not there at all.</p>\n";
/// What is written at once: more would only be memory.
const PIECE_BYTES: usize = 16 << 10;
/// The longest line of a request, and the longest body: whoever sends more is not one of ours.
const MAX_LINE_BYTES: u64 = 4096;
const MAX_BODY_BYTES: u64 = 64 << 10;

/// Serves each connection in a thread of its own.
pub(crate) fn serve(listener: &TcpListener) {
    let counter = Arc::new(AtomicU64::new(0));
    for connection in listener.incoming().flatten() {
        let counter = counter.clone();
        std::thread::spawn(move || {
            // A connection that breaks is the client's to tell.
            let _ = connection.set_nodelay(true).and_then(|()| converse(connection, &counter));
        });
    }
}

fn converse(connection: TcpStream, counter: &AtomicU64) -> io::Result<()> {
    let mut from = BufReader::with_capacity(2048, connection.try_clone()?);
    let mut to = connection;
    loop {
        let request = match read_request(&mut from) {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return answer(&mut to, "400 Bad Request", &format!("{error}\n"), false);
            }
            Err(error) => return Err(error),
        };
        respond(&mut to, &request, counter)?;
        if !request.keep_alive {
            return Ok(());
        }
    }
}

/// A request, as far as it matters here.
#[derive(PartialEq, Eq, Debug)]
struct Request {
    method: String,
    path: String,
    keep_alive: bool,
}

/// Reads a request, its body too. `None` if the client has closed.
fn read_request(from: &mut impl BufRead) -> io::Result<Option<Request>> {
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let Some(first) = read_line(from)? else { return Ok(None) };
    let words: Vec<&str> = first.split(' ').collect();
    let [method, path, "HTTP/1.1"] = words[..] else { return Err(invalid("no request of HTTP/1.1")) };
    let mut request = Request { method: method.to_owned(), path: path.to_owned(), keep_alive: true };
    let mut body_bytes = 0;
    loop {
        let line = read_line(from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| invalid("no header"))?;
        match (name.to_ascii_lowercase().as_str(), value.trim()) {
            ("content-length", value) => body_bytes = value.parse().map_err(|_| invalid("no length"))?,
            ("connection", value) => request.keep_alive = !value.eq_ignore_ascii_case("close"),
            _ => (),
        }
    }
    if body_bytes > MAX_BODY_BYTES {
        return Err(invalid("too long a body"));
    }
    if io::copy(&mut from.take(body_bytes), &mut io::sink())? < body_bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(request))
}

/// A line without its end. `None` at the end of the stream.
fn read_line(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    if from.take(MAX_LINE_BYTES).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.pop() != Some(b'\n') {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a line without an end"));
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map(Some).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a line that is no text"))
}

fn respond(to: &mut impl Write, request: &Request, counter: &AtomicU64) -> io::Result<()> {
    let good = |to, text: &str| answer(to, "200 OK", text, request.keep_alive);
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/") => good(to, PAGE),
        ("GET" | "POST", "/count") => good(to, &format!("{}\n", counter.fetch_add(1, Ordering::SeqCst) + 1)),
        ("GET", "/time") => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            good(to, &format!("{}\n", now.as_nanos()))
        }
        ("GET", path) => match path.strip_prefix("/bytes/").and_then(|count| count.parse().ok()) {
            Some(count) => send_bytes(to, count, request.keep_alive),
            None => answer(to, "404 Not Found", "there is no such page\n", request.keep_alive),
        },
        _ => answer(to, "405 Method Not Allowed", "no page is to be had so\n", request.keep_alive),
    }
}

fn head(status: &str, length: u64, keep_alive: bool) -> String {
    let connection = if keep_alive { "keep-alive" } else { "close" };
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\r\n")
}

/// An answer that is sent at once.
fn answer(to: &mut impl Write, status: &str, text: &str, keep_alive: bool) -> io::Result<()> {
    to.write_all((head(status, text.len() as u64, keep_alive) + text).as_bytes())
}

fn send_bytes(to: &mut impl Write, count: u64, keep_alive: bool) -> io::Result<()> {
    to.write_all(head("200 OK", count, keep_alive).as_bytes())?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = 0;
    while at < count {
        let now = (count - at).min(PIECE_BYTES as u64);
        fill(at, &mut piece[..now as usize]);
        to.write_all(&piece[..now as usize])?;
        at += now;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> io::Result<Option<Request>> {
        read_request(&mut text.as_bytes())
    }

    fn said(method: &str, path: &str, counter: &AtomicU64) -> Vec<u8> {
        let mut to = Vec::new();
        let request = Request { method: method.into(), path: path.into(), keep_alive: true };
        respond(&mut to, &request, counter).unwrap();
        to
    }

    #[test]
    fn requests() {
        let request = parsed("GET /bytes/7 HTTP/1.1\r\nHost: guest\r\nX: y\r\n\r\n").unwrap().unwrap();
        assert_eq!(request, Request { method: "GET".into(), path: "/bytes/7".into(), keep_alive: true });
        assert!(!parsed("GET / HTTP/1.1\nconnection: Close\n\n").unwrap().unwrap().keep_alive);
        assert_eq!(parsed("").unwrap(), None);
    }

    #[test]
    fn a_body_is_no_request() {
        let mut two = "POST /count HTTP/1.1\r\nContent-Length: 4\r\n\r\nbodyGET / HTTP/1.1\r\n\r\n".as_bytes();
        assert_eq!(read_request(&mut two).unwrap().unwrap().path, "/count");
        assert_eq!(read_request(&mut two).unwrap().unwrap().path, "/");
        assert_eq!(read_request(&mut two).unwrap(), None);
    }

    #[test]
    fn what_is_no_request() {
        for text in [
            "GET /\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "GET / HTTP/1.1\r\nnonsense\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
            "GET",
        ] {
            assert_eq!(parsed(text).unwrap_err().kind(), io::ErrorKind::InvalidData, "{text:?}");
        }
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(MAX_LINE_BYTES as usize));
        assert_eq!(parsed(&long).unwrap_err().kind(), io::ErrorKind::InvalidData);
        for text in ["GET / HTTP/1.1\r\n", "POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nbo"] {
            assert_eq!(parsed(text).unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{text:?}");
        }
    }

    #[test]
    fn answers() {
        let counter = AtomicU64::new(6);
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\n";
        assert_eq!(said("POST", "/count", &counter), format!("{head}7\n").as_bytes());
        assert_eq!(said("GET", "/count", &counter), format!("{head}8\n").as_bytes());
        assert!(said("GET", "/bytes/x", &counter).starts_with(b"HTTP/1.1 404 "));
        assert!(said("PUT", "/", &counter).starts_with(b"HTTP/1.1 405 "));
        assert!(said("GET", "/", &counter).ends_with(PAGE.as_bytes()));
        assert_eq!(said("GET", "/", &counter), said("GET", "/", &counter));
    }

    #[test]
    fn bytes_are_those_of_their_places() {
        let count = PIECE_BYTES + 5;
        let mut expected = vec![0; count];
        fill(0, &mut expected);
        let said = said("GET", &format!("/bytes/{count}"), &AtomicU64::new(0));
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {count}\r\nConnection: keep-alive\r\n\r\n");
        assert!(said.starts_with(head.as_bytes()));
        assert_eq!(said[head.len()..], expected);
    }
}
