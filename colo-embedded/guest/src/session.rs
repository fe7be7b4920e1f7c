//! One HTTP connection as bytes in and bytes out, without a socket: what arrives goes to [`Session::read`], what is to be sent
//! comes from [`Session::write`]. Requests are answered one after the other, and the next is not read before the last answer is
//! written, so a client that asks and does not listen costs no memory.
//!
//! ```
//! use colo_guest::{service::Service, session::Session, store::Store};
//! let mut service = Service::new(Store::new(1 << 20, 16));
//! let mut session = Session::new();
//! let request = b"GET /kv/a HTTP/1.1\r\nHost: x\r\n\r\n";
//! assert_eq!(session.read(request, &mut service), request.len());
//! let mut out = [0; 256];
//! let count = session.write(&mut out);
//! assert!(out[..count].starts_with(b"HTTP/1.1 404 Not Found\r\n"));
//! ```

use crate::body;
use crate::http::{HeadError, MAX_HEAD_BYTES, Method, Request, head_len};
use crate::service::{Answer, MAX_VALUE_BYTES, Service, Status, error};
use crate::store::Value;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};

/// The most body of a request that is not wanted, and read only to get to the next request. Beyond it closing is cheaper.
const MAX_DISCARDED_BYTES: u64 = MAX_VALUE_BYTES;

/// Where the conversation is.
enum Input {
    /// In the head of a request: what of it has come.
    Head(Vec<u8>),
    /// In the body of a PUT.
    Value {
        key: String,
        value: Value,
        keep_alive: bool,
    },
    /// In a body that nobody wants.
    Discard(u64),
    /// After the last request: what still comes is dropped.
    Closed,
}

/// What is still to be sent.
enum Output {
    None,
    Value { value: Rc<Value>, sent: usize },
    Stream { sent: u64, end: u64 },
}

/// One connection's conversation.
pub struct Session {
    input: Input,
    /// Heads and short bodies, sent up to `head_sent`; then `body` follows.
    head: Vec<u8>,
    head_sent: usize,
    body: Output,
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl Session {
    /// A connection on which nothing has been said.
    #[must_use]
    pub fn new() -> Self {
        Self {
            input: Input::Head(Vec::new()),
            head: Vec::new(),
            head_sent: 0,
            body: Output::None,
        }
    }

    /// Takes what has arrived and returns how much: 0 as long as an answer is waiting to be written.
    pub fn read(&mut self, data: &[u8], service: &mut Service) -> usize {
        let mut taken = 0;
        while taken < data.len() && self.pending() == 0 {
            taken += self.read_some(&data[taken..], service);
        }
        taken
    }

    /// Puts what is to be sent into `out` and returns how much.
    pub fn write(&mut self, out: &mut [u8]) -> usize {
        let from_head = copy(&self.head[self.head_sent..], out);
        self.head_sent += from_head;
        if self.head_sent == self.head.len() {
            self.head.clear();
            self.head_sent = 0;
        }
        let out = &mut out[from_head..];
        let (from_body, done) = match &mut self.body {
            Output::None => (0, false),
            Output::Value { value, sent } => {
                let count = copy(&value[*sent..], out);
                *sent += count;
                (count, *sent == value.len())
            }
            Output::Stream { sent, end } => {
                let count = out
                    .len()
                    .min(usize::try_from(*end - *sent).unwrap_or(usize::MAX));
                body::fill(*sent, &mut out[..count]);
                *sent += count as u64;
                (count, sent == end)
            }
        };
        if done {
            self.body = Output::None;
        }
        from_head + from_body
    }

    /// Bytes that [`Session::write`] has to give.
    #[must_use]
    pub fn pending(&self) -> u64 {
        let body = match &self.body {
            Output::None => 0,
            Output::Value { value, sent } => (value.len() - sent) as u64,
            Output::Stream { sent, end } => end - sent,
        };
        (self.head.len() - self.head_sent) as u64 + body
    }

    /// The last answer is written: the connection is to be closed.
    #[must_use]
    pub fn finished(&self) -> bool {
        matches!(self.input, Input::Closed) && self.pending() == 0
    }

    /// Between two requests, or before the first: nothing is lost if the connection ends now.
    #[must_use]
    pub fn idle(&self) -> bool {
        matches!(&self.input, Input::Head(head) if head.is_empty()) && self.pending() == 0
    }

    fn read_some(&mut self, data: &[u8], service: &mut Service) -> usize {
        match &mut self.input {
            Input::Closed => data.len(),
            Input::Discard(left) => {
                let count = data.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= count as u64;
                if *left == 0 {
                    self.input = Input::Head(Vec::new());
                }
                count
            }
            Input::Value { value, .. } => {
                let count = value.extend(data);
                if value.missing() == 0 {
                    self.end_value(service);
                }
                count
            }
            Input::Head(head) => {
                // A few empty lines before a request are to be overlooked (RFC 9112, 2.2).
                if head.is_empty() && matches!(data[0], b'\r' | b'\n') {
                    return 1;
                }
                let before = head.len();
                head.extend_from_slice(&data[..data.len().min(MAX_HEAD_BYTES - before)]);
                match head_len(head, before) {
                    Some(end) => {
                        let mut head = core::mem::take(head);
                        head.truncate(end);
                        self.begin(&head, service);
                        end - before
                    }
                    None if head.len() == MAX_HEAD_BYTES => {
                        self.refuse(Status::HEAD_TOO_LARGE);
                        data.len()
                    }
                    None => head.len() - before,
                }
            }
        }
    }

    fn begin(&mut self, head: &[u8], service: &mut Service) {
        let request = match Request::parse(head) {
            Ok(request) => request,
            Err(HeadError::Malformed) => return self.refuse(Status::BAD_REQUEST),
            Err(HeadError::TransferCoding) => return self.refuse(Status::NOT_IMPLEMENTED),
            Err(HeadError::Version) => return self.refuse(Status::VERSION),
            Err(HeadError::Expectation) => return self.refuse(Status::EXPECTATION_FAILED),
        };
        let answer = service.answer(&request);
        if let Answer::Receive { key, value } = answer {
            if request.expects_continue && value.missing() != 0 {
                self.head
                    .extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
            let empty = value.missing() == 0;
            self.input = Input::Value {
                key,
                value,
                keep_alive: request.keep_alive,
            };
            if empty {
                self.end_value(service);
            }
            return;
        }
        // A body that nobody wants is read away, unless it is long, or its sender waits to be asked for it, and so may send it
        // or not; or a PUT does not say how long it is.
        let unwanted = request.content_length.unwrap_or(0);
        let unclear = unwanted > MAX_DISCARDED_BYTES || (request.expects_continue && unwanted != 0);
        let endless = request.method == Method::Put && request.content_length.is_none();
        let keep_alive = request.keep_alive && !unclear && !endless;
        self.input = match (keep_alive, unwanted) {
            (false, _) => Input::Closed,
            (true, 0) => Input::Head(Vec::new()),
            (true, unwanted) => Input::Discard(unwanted),
        };
        self.say(answer, keep_alive, request.method == Method::Head);
    }

    fn end_value(&mut self, service: &mut Service) {
        if let Input::Value {
            key,
            value,
            keep_alive,
        } = core::mem::replace(&mut self.input, Input::Closed)
        {
            if keep_alive {
                self.input = Input::Head(Vec::new());
            }
            let answer = service.stored(&key, value);
            self.say(answer, keep_alive, false);
        }
    }

    /// An error after which nobody knows where the next request begins.
    fn refuse(&mut self, status: Status) {
        self.input = Input::Closed;
        self.say(error(status), false, false);
    }

    fn say(&mut self, answer: Answer, keep_alive: bool, head_only: bool) {
        let mut head = Head(&mut self.head);
        match answer {
            Answer::Text(Status::NO_CONTENT, _) => {
                head.begin(Status::NO_CONTENT, None, keep_alive, "");
            }
            Answer::Text(status, text) => {
                head.begin(
                    status,
                    Some(("text/plain", text.len() as u64)),
                    keep_alive,
                    "",
                );
                if !head_only {
                    self.head.extend_from_slice(text.as_bytes());
                }
            }
            Answer::NotAllowed(methods) => head.begin(
                Status::METHOD_NOT_ALLOWED,
                Some(("text/plain", 0)),
                keep_alive,
                methods,
            ),
            Answer::Value(value) => {
                head.begin(
                    Status::OK,
                    Some(("application/octet-stream", value.len() as u64)),
                    keep_alive,
                    "",
                );
                if !head_only && !value.is_empty() {
                    self.body = Output::Value { value, sent: 0 };
                }
            }
            Answer::Stream(end) => {
                head.begin(
                    Status::OK,
                    Some(("application/octet-stream", end)),
                    keep_alive,
                    "",
                );
                if !head_only && end != 0 {
                    self.body = Output::Stream { sent: 0, end };
                }
            }
            Answer::Receive { .. } => unreachable!("taken by `begin`, and not made by `stored`"),
        }
    }
}

/// Writes heads of responses. They carry no date: a server without a clock that it trusts may leave it out (RFC 9110, 6.6.1), and
/// two machines in lock-step would differ in it at every second.
struct Head<'a>(&'a mut Vec<u8>);

impl Head<'_> {
    fn begin(&mut self, status: Status, body: Option<(&str, u64)>, keep_alive: bool, allow: &str) {
        // Writing into memory cannot fail.
        let _ = write!(self, "HTTP/1.1 {status}\r\n");
        if let Some((kind, length)) = body {
            let _ = write!(self, "Content-Type: {kind}\r\nContent-Length: {length}\r\n");
        }
        if !allow.is_empty() {
            let _ = write!(self, "Allow: {allow}\r\n");
        }
        let _ = write!(
            self,
            "Connection: {}\r\n\r\n",
            if keep_alive { "keep-alive" } else { "close" }
        );
    }
}

impl Write for Head<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let count = from.len().min(to.len());
    to[..count].copy_from_slice(&from[..count]);
    count
}

#[cfg(test)]
mod tests;
