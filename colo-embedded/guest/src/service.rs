//! What the routes do: a request in, an answer out.

use crate::http::{Method, Request, parse_number};
use crate::store::{Store, Value};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;

/// The longest value of `/kv`.
pub const MAX_VALUE_BYTES: u64 = 64 * 1024;
/// The longest key.
pub const MAX_KEY_BYTES: usize = 255;
/// The longest body of `/bytes`.
pub const MAX_STREAM_BYTES: u64 = 1 << 30;

const WELCOME: &str = "This is a guest of colo's embedded hypervisor.\n\n\
    GET  /           this text\n\
    GET  /kv/KEY     a value\n\
    PUT  /kv/KEY     store one, up to 64 KiB\n\
    GET  /bytes/N    N reproducible bytes, up to 1 GiB\n\
    GET  /time       the guest's clock, in ns\n\
    POST /dirty/N    write to N pages of memory\n\
    GET  /sum        a checksum over values and pages\n\n";

/// The body of an answer.
pub enum Body {
    /// A short text.
    Text(String),
    /// A stored value.
    Value(Rc<Value>),
    /// So many bytes of [`crate::body`]'s stream.
    Stream(u64),
}

/// What becomes of a request.
pub enum Answer {
    /// A status line's code and words, and a body.
    Reply(&'static str, Body),
    /// The request's body is to be stored.
    Upload(Value),
}

/// Answers a request. `time_ns` is the guest's clock.
pub fn answer(request: &Request<'_>, store: &mut Store, time_ns: u64) -> Answer {
    let path = request.path.split('?').next().unwrap_or_default();
    let read = matches!(request.method, Method::Get | Method::Head);
    if let Some(key) = path.strip_prefix("/kv/") {
        return key_value(key, request, store);
    }
    if let Some(count) = path.strip_prefix("/dirty/") {
        return match parse_number(count) {
            Some(count) if read || request.method == Method::Post => {
                text("200 OK", format!("{} pages\n", store.dirty(count)))
            }
            Some(_) => plain("405 Method Not Allowed"),
            None => plain("404 Not Found"),
        };
    }
    match path {
        "/" | "/time" | "/sum" if !read => plain("405 Method Not Allowed"),
        "/" => text("200 OK", format!("{WELCOME}up for {} s\n", time_ns / 1_000_000_000)),
        "/time" => text("200 OK", format!("{time_ns}\n")),
        "/sum" => text("200 OK", format!("{:016x}\n", store.sum())),
        _ => match path.strip_prefix("/bytes/").and_then(parse_number) {
            Some(_) if !read => plain("405 Method Not Allowed"),
            Some(length) if length <= MAX_STREAM_BYTES => Answer::Reply("200 OK", Body::Stream(length)),
            Some(_) => plain("413 Content Too Large"),
            None => plain("404 Not Found"),
        },
    }
}

fn key_value(key: &str, request: &Request<'_>, store: &Store) -> Answer {
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        return plain("404 Not Found");
    }
    match request.method {
        Method::Get | Method::Head => match store.get(key.as_bytes()) {
            Some(value) => Answer::Reply("200 OK", Body::Value(value)),
            None => plain("404 Not Found"),
        },
        Method::Put => match request.content_length {
            None => plain("411 Length Required"),
            Some(length) if length > MAX_VALUE_BYTES => plain("413 Content Too Large"),
            Some(length) => match store.reserve(key.as_bytes(), length as usize) {
                Some(value) => Answer::Upload(value),
                None => plain("507 Insufficient Storage"),
            },
        },
        Method::Post | Method::Other => plain("405 Method Not Allowed"),
    }
}

/// The key that an upload is for.
#[must_use]
pub fn key_of(path: &str) -> &str {
    path.split('?').next().unwrap_or_default().strip_prefix("/kv/").unwrap_or_default()
}

fn plain(status: &'static str) -> Answer {
    text(status, format!("{status}\n"))
}

fn text(status: &'static str, body: String) -> Answer {
    Answer::Reply(status, Body::Text(body))
}
