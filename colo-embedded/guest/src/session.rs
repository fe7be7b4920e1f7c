//! One connection's conversation, as bytes in and bytes out: requests one after the other, each answered before the next is
//! looked at.
//!
//! ```
//! use colo_guest::session::Session;
//! use colo_guest::store::Store;
//! let mut store = Store::new(1 << 20, 0);
//! let mut session = Session::default();
//! let request = b"PUT /kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi";
//! let mut taken = session.receive(request, &mut store, 0);
//! taken += session.receive(&request[taken..], &mut store, 0);
//! assert_eq!(taken, request.len());
//! let mut out = [0; 200];
//! let length = session.fill(&mut out);
//! assert!(out[..length].starts_with(b"HTTP/1.1 201 Created\r\n"));
//! ```

use crate::body;
use crate::http::{HeadError, MAX_HEAD_BYTES, Method, Request, head_len};
use crate::service::{Answer, Body, answer, key_of};
use crate::store::{Store, Value};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// The longest request body that is read only to be thrown away, so that the connection can be used again.
const MAX_SKIPPED_BYTES: u64 = 64 * 1024;

/// See the module.
#[derive(Default)]
pub struct Session {
    /// The head that is arriving, and how much of it has been looked through.
    head: Vec<u8>,
    looked: usize,
    upload: Option<(Vec<u8>, Value)>,
    /// Of a request's body that nobody wants.
    skip_bytes: u64,
    reply: Option<Reply>,
    /// After the answer that is under way nothing follows.
    closing: bool,
}

struct Reply {
    head: Vec<u8>,
    head_sent: usize,
    body: Body,
    sent_bytes: u64,
    body_bytes: u64,
}

impl Session {
    /// Whether [`Session::receive`] would take anything.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        self.reply.is_none() && !self.closing
    }

    /// Whether [`Session::fill`] has anything.
    #[must_use]
    pub fn wants_output(&self) -> bool {
        self.reply.is_some()
    }

    /// Whether everything has been said.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.closing && self.reply.is_none()
    }

    /// Takes what has arrived, as far as it is its turn, and returns how many bytes that was.
    pub fn receive(&mut self, data: &[u8], store: &mut Store, time_ns: u64) -> usize {
        if !self.wants_input() || data.is_empty() {
            return 0;
        }
        if self.skip_bytes > 0 {
            let skipped = self.skip_bytes.min(data.len() as u64);
            self.skip_bytes -= skipped;
            return skipped as usize;
        }
        match self.upload.take() {
            Some(upload) => self.receive_body(upload, data, store),
            None => self.receive_head(data, store, time_ns),
        }
    }

    /// Writes the next bytes of the answer into `out`, and returns how many.
    pub fn fill(&mut self, out: &mut [u8]) -> usize {
        let Some(reply) = &mut self.reply else { return 0 };
        let count = (reply.head.len() - reply.head_sent).min(out.len());
        out[..count].copy_from_slice(&reply.head[reply.head_sent..][..count]);
        reply.head_sent += count;
        let rest = &mut out[count..];
        let body_count = (reply.body_bytes - reply.sent_bytes).min(rest.len() as u64) as usize;
        let rest = &mut rest[..body_count];
        let sent = reply.sent_bytes as usize;
        match &reply.body {
            Body::Text(text) => rest.copy_from_slice(&text.as_bytes()[sent..][..body_count]),
            Body::Value(value) => rest.copy_from_slice(&value[sent..][..body_count]),
            Body::Stream(_) => body::fill(reply.sent_bytes, rest),
        }
        reply.sent_bytes += body_count as u64;
        if reply.head_sent == reply.head.len() && reply.sent_bytes == reply.body_bytes {
            self.reply = None;
        }
        count + body_count
    }

    fn receive_body(&mut self, (key, mut value): (Vec<u8>, Value), data: &[u8], store: &mut Store) -> usize {
        let count = value.extend(data);
        if value.missing() > 0 {
            self.upload = Some((key, value));
        } else {
            self.stored(&key, value, store);
        }
        count
    }

    fn stored(&mut self, key: &[u8], value: Value, store: &mut Store) {
        let status = if store.put(key, value) { "201 Created" } else { "204 No Content" };
        self.reply(status, Body::Text(String::new()), false);
    }

    fn receive_head(&mut self, data: &[u8], store: &mut Store, time_ns: u64) -> usize {
        let before = self.head.len();
        let count = data.len().min(MAX_HEAD_BYTES - before);
        self.head.extend_from_slice(&data[..count]);
        let Some(length) = head_len(&self.head, self.looked) else {
            self.looked = self.head.len();
            if self.head.len() == MAX_HEAD_BYTES {
                self.refuse("431 Request Header Fields Too Large");
            }
            return count;
        };
        let mut head = core::mem::take(&mut self.head);
        self.looked = 0;
        head.truncate(length);
        match Request::parse(&head) {
            Ok(request) => self.request(&request, store, time_ns),
            Err(HeadError::Malformed) => self.refuse("400 Bad Request"),
            Err(HeadError::TransferCoding) => self.refuse("501 Not Implemented"),
            Err(HeadError::Version) => self.refuse("505 HTTP Version Not Supported"),
            Err(HeadError::Expectation) => self.refuse("417 Expectation Failed"),
        }
        length - before
    }

    fn request(&mut self, request: &Request<'_>, store: &mut Store, time_ns: u64) {
        self.closing |= !request.keep_alive;
        let length = request.content_length.unwrap_or(0);
        match answer(request, store, time_ns) {
            Answer::Upload(value) => {
                let key = key_of(request.path).as_bytes();
                if length == 0 {
                    self.stored(key, value, store);
                } else {
                    // A connection that is to be closed is still read until the body is here.
                    self.upload = Some((key.to_vec(), value));
                    self.defer_close(request);
                }
            }
            Answer::Reply(status, body) => {
                // Rather than read a long body that nobody wants, the connection is given up.
                self.closing |= length > MAX_SKIPPED_BYTES || request.expects_continue;
                self.skip_bytes = if self.closing { 0 } else { length };
                self.reply(status, body, request.method == Method::Head);
            }
        }
    }

    fn defer_close(&mut self, request: &Request<'_>) {
        self.closing = false;
        if request.expects_continue {
            let head = b"HTTP/1.1 100 Continue\r\n\r\n".to_vec();
            self.reply =
                Some(Reply { head, head_sent: 0, body: Body::Text(String::new()), sent_bytes: 0, body_bytes: 0 });
        }
    }

    /// Answers what cannot be understood; what follows it cannot either.
    fn refuse(&mut self, status: &'static str) {
        self.closing = true;
        self.reply(status, Body::Text(format!("{status}\n")), false);
    }

    fn reply(&mut self, status: &'static str, body: Body, head_only: bool) {
        let length = match &body {
            Body::Text(text) => text.len() as u64,
            Body::Value(value) => value.len() as u64,
            Body::Stream(length) => *length,
        };
        let connection = if self.closing { "Connection: close\r\n" } else { "" };
        // RFC 9110, 8.6: no length in an answer that has no body by definition.
        let head = if status.starts_with("204") {
            format!("HTTP/1.1 {status}\r\n{connection}\r\n")
        } else {
            let kind = if matches!(body, Body::Text(_)) { "text/plain" } else { "application/octet-stream" };
            format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{connection}\r\n")
        };
        let body_bytes = if head_only { 0 } else { length };
        self.reply = Some(Reply { head: head.into_bytes(), head_sent: 0, body, sent_bytes: 0, body_bytes });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Talks to a session in pieces of these sizes, and returns everything it says.
    fn talk(input: &[u8], piece: usize, room: usize) -> (Vec<u8>, bool) {
        let mut store = Store::new(1 << 20, 8);
        let mut session = Session::default();
        let (mut at, mut out) = (0, Vec::new());
        let mut buffer = vec![0; room];
        loop {
            let end = input.len().min(at + piece);
            let taken = session.receive(&input[at..end], &mut store, 7_000_000_000);
            at += taken;
            let filled = session.fill(&mut buffer);
            out.extend_from_slice(&buffer[..filled]);
            if taken == 0 && filled == 0 {
                return (out, session.is_over());
            }
        }
    }

    const MANY: &[u8] = b"PUT /kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello\
        GET /kv/a HTTP/1.1\r\nHost: x\r\n\r\n\
        PUT /kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n\
        HEAD /bytes/100 HTTP/1.1\r\nHost: x\r\n\r\n\
        POST /kv/b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nxyz\
        GET /bytes/9 HTTP/1.1\r\nHost: x\r\n\r\n\
        GET /time HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET / HTTP/1.1\r\n";

    proptest! {
        #[test]
        fn pieces_make_no_difference(piece in 1_usize..200, room in 1_usize..300) {
            let (whole, over) = talk(MANY, MANY.len(), 4096);
            prop_assert!(over);
            prop_assert_eq!(talk(MANY, piece, room), (whole, true));
        }

        #[test]
        fn arbitrary_input_ends(input in proptest::collection::vec(any::<u8>(), 0..6000), piece in 1_usize..500) {
            let _ = talk(&input, piece, 100);
        }
    }

    #[test]
    fn answers_in_order_and_as_the_standard_has_it() {
        let (out, _) = talk(MANY, 1000, 1000);
        let text = String::from_utf8_lossy(&out);
        let statuses: Vec<&str> = text.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
        assert_eq!(statuses, ["201", "200", "204", "200", "405", "200", "200"]);
        assert!(text.contains("\r\n\r\nhelloHTTP/1.1"));
        assert!(text.ends_with("\r\n\r\n7000000000\n"));
    }

    #[test]
    fn what_cannot_be_is_refused_and_closed() {
        let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(5000));
        for (input, status) in [
            (long.as_str(), "431"),
            ("GET /\r\n\r\n", "400"),
            ("PUT /kv/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", "501"),
            ("GET / HTTP/2.0\r\n\r\n", "505"),
            ("PUT /kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 65537\r\n\r\n", "413"),
        ] {
            let (out, over) = talk(input.as_bytes(), 100, 100);
            assert_eq!(&out[9..12], status.as_bytes(), "{input}");
            assert!(over, "{input}");
        }
    }
}
