//! What the routes do. A request's head goes in, an [`Answer`] comes out; the bytes are [`crate::session`]'s.
//!
//! | route | answer |
//! |---|---|
//! | `GET /` | a short text: what this is, its routes, its uptime |
//! | `GET /kv/KEY`, `PUT /kv/KEY` | a value kept in memory; 201 when the key is new, 204 when it was there, 507 when there is no room |
//! | `GET /bytes/N` | N bytes of the stream of [`crate::body`] |
//! | `GET /time` | the machine's own clock, in ns |
//! | `GET /dirty/N`, `POST /dirty/N` | writes to N pages; answers how many |
//! | `GET /sum` | the checksum of [`crate::store::Store::sum`], in hexadecimal |
//!
//! `HEAD` is answered wherever `GET` is, but for `/dirty/N`, which changes something.
//!
//! ```
//! use colo_guest::{http::Request, service::{Answer, Service}, store::Store};
//! let mut service = Service::new(Store::new(1 << 20, 16));
//! let request = Request::parse(b"GET /bytes/10 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
//! assert!(matches!(service.answer(&request), Answer::Stream(10)));
//! ```

use crate::http::{Method, Request, parse_number};
use crate::store::{Store, Value};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use core::fmt;

/// The longest value of a key: what a connection may make the machine hold at once.
pub const MAX_VALUE_BYTES: u64 = 64 << 10;
/// The longest key.
pub const MAX_KEY_BYTES: usize = 256;
/// The longest body of `/bytes/N`: long enough for any test, short enough that a mistyped N ends.
pub const MAX_STREAM_BYTES: u64 = 1 << 30;

/// A response's status code with its phrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u16, pub &'static str);

#[allow(missing_docs)]
impl Status {
    pub const OK: Self = Self(200, "OK");
    pub const CREATED: Self = Self(201, "Created");
    pub const NO_CONTENT: Self = Self(204, "No Content");
    pub const BAD_REQUEST: Self = Self(400, "Bad Request");
    pub const NOT_FOUND: Self = Self(404, "Not Found");
    pub const METHOD_NOT_ALLOWED: Self = Self(405, "Method Not Allowed");
    pub const LENGTH_REQUIRED: Self = Self(411, "Length Required");
    pub const CONTENT_TOO_LARGE: Self = Self(413, "Content Too Large");
    pub const EXPECTATION_FAILED: Self = Self(417, "Expectation Failed");
    pub const HEAD_TOO_LARGE: Self = Self(431, "Request Header Fields Too Large");
    pub const NOT_IMPLEMENTED: Self = Self(501, "Not Implemented");
    pub const VERSION: Self = Self(505, "HTTP Version Not Supported");
    pub const STORAGE_FULL: Self = Self(507, "Insufficient Storage");
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, self.1)
    }
}

/// What is to be answered.
pub enum Answer {
    /// A short text.
    Text(Status, String),
    /// 405: which methods are allowed.
    NotAllowed(&'static str),
    /// A stored value.
    Value(Rc<Value>),
    /// So many bytes of [`crate::body`].
    Stream(u64),
    /// First receive this value; then [`Service::stored`].
    Receive {
        /// The value's key.
        key: String,
        /// Where its bytes go.
        value: Value,
    },
}

/// The service of one machine.
pub struct Service {
    store: Store,
    /// The machine's clock, in ns; its owner keeps it going.
    pub now_ns: u64,
    /// The clock at boot.
    pub booted_ns: u64,
}

impl Service {
    /// A service over `store`, with its clock at 0.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self {
            store,
            now_ns: 0,
            booted_ns: 0,
        }
    }

    /// Does what the request asks.
    pub fn answer(&mut self, request: &Request<'_>) -> Answer {
        let path = request.path;
        let reads = matches!(request.method, Method::Get | Method::Head);
        if let Some(key) = path.strip_prefix("/kv/") {
            return self.answer_key(request, key);
        }
        if let Some(count) = path.strip_prefix("/dirty/") {
            return match parse_number(count) {
                None => error(Status::BAD_REQUEST),
                Some(_) if !matches!(request.method, Method::Get | Method::Post) => {
                    Answer::NotAllowed("GET, POST")
                }
                Some(count) => text(format!("{}\n", self.store.dirty(count))),
            };
        }
        if let Some(count) = path.strip_prefix("/bytes/") {
            return match parse_number(count) {
                Some(count) if reads && count <= MAX_STREAM_BYTES => Answer::Stream(count),
                Some(_) if !reads => Answer::NotAllowed("GET, HEAD"),
                _ => error(Status::BAD_REQUEST),
            };
        }
        match path {
            "/" | "/time" | "/sum" if !reads => Answer::NotAllowed("GET, HEAD"),
            "/" => text(self.introduce()),
            "/time" => text(format!("{}\n", self.now_ns)),
            "/sum" => text(format!("{:016x}\n", self.store.sum())),
            _ => error(Status::NOT_FOUND),
        }
    }

    /// Keeps a value that has been received.
    pub fn stored(&mut self, key: &str, value: Value) -> Answer {
        let new = self.store.put(key.as_bytes(), value);
        Answer::Text(
            if new {
                Status::CREATED
            } else {
                Status::NO_CONTENT
            },
            String::new(),
        )
    }

    fn answer_key(&mut self, request: &Request<'_>, key: &str) -> Answer {
        if !is_key(key) {
            return error(Status::BAD_REQUEST);
        }
        match request.method {
            Method::Get | Method::Head => self
                .store
                .get(key.as_bytes())
                .map_or_else(|| error(Status::NOT_FOUND), Answer::Value),
            Method::Put => match request.content_length {
                None => error(Status::LENGTH_REQUIRED),
                Some(length) if length > MAX_VALUE_BYTES => error(Status::CONTENT_TOO_LARGE),
                Some(length) => match self.store.reserve(key.as_bytes(), length as usize) {
                    None => error(Status::STORAGE_FULL),
                    Some(value) => Answer::Receive {
                        key: String::from(key),
                        value,
                    },
                },
            },
            Method::Post | Method::Other => Answer::NotAllowed("GET, HEAD, PUT"),
        }
    }

    fn introduce(&self) -> String {
        let uptime_s = self.now_ns.saturating_sub(self.booted_ns) / 1_000_000_000;
        format!(
            "colo's guest: a machine whose whole state is its memory and its registers.\n\
             \n\
             GET      /kv/KEY    a value kept in memory; PUT to set it\n\
             GET      /bytes/N   N reproducible bytes\n\
             GET      /time      this machine's clock, in ns\n\
             GET|POST /dirty/N   write to N pages\n\
             GET      /sum       checksum of values and pages\n\
             \n\
             up {uptime_s} s\n"
        )
    }
}

/// An error's answer: its status, as text too.
#[must_use]
pub fn error(status: Status) -> Answer {
    Answer::Text(status, format!("{status}\n"))
}

fn text(body: String) -> Answer {
    Answer::Text(Status::OK, body)
}

/// Keys are path segments without escapes, so that one key has one spelling.
fn is_key(key: &str) -> bool {
    (1..=MAX_KEY_BYTES).contains(&key.len())
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&b))
}
