//! Answers: which route a path is, and what is sent for it.

use alloc::{rc::Rc, vec::Vec};
use core::fmt::Write;

use crate::{
    body,
    http::{Method, parse_number},
    store::{KEY_LIMIT, VALUE_LIMIT, Value},
};

/// The longest body of `/bytes`, in bytes.
pub const BYTES_LIMIT: u64 = 1 << 30;

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// `/`.
    About,
    /// `/kv/KEY`.
    Key(&'a [u8]),
    /// `/bytes/N`.
    Bytes(u64),
    /// `/time`.
    Time,
    /// `/dirty/N`.
    Dirty(u64),
    /// `/sum`.
    Sum,
    /// `/kv-check`.
    Check,
    /// `/disk/size`.
    DiskSize,
    /// `/disk/read/OFFSET/N`.
    DiskRead(u64, u64),
    /// `/disk/write/OFFSET`.
    DiskWrite(u64),
}

impl<'a> Route<'a> {
    /// The route of `path`.
    ///
    /// # Errors
    /// [`Status::NotFound`] for a path that is none, [`Status::BadRequest`] for a key or number outside of its limits.
    pub fn of(path: &'a [u8]) -> Result<Self, Status> {
        let number = |digits, limit| {
            parse_number(digits)
                .filter(|&number| number <= limit)
                .ok_or(Status::BadRequest)
        };
        match path {
            b"/" => Ok(Self::About),
            b"/time" => Ok(Self::Time),
            b"/sum" => Ok(Self::Sum),
            b"/kv-check" => Ok(Self::Check),
            b"/disk/size" => Ok(Self::DiskSize),
            _ => {
                if let Some(key) = path.strip_prefix(b"/kv/") {
                    if (1..=KEY_LIMIT).contains(&key.len()) {
                        Ok(Self::Key(key))
                    } else {
                        Err(Status::BadRequest)
                    }
                } else if let Some(digits) = path.strip_prefix(b"/bytes/") {
                    number(digits, BYTES_LIMIT).map(Self::Bytes)
                } else if let Some(digits) = path.strip_prefix(b"/dirty/") {
                    number(digits, u64::MAX).map(Self::Dirty)
                } else if let Some(digits) = path.strip_prefix(b"/disk/write/") {
                    number(digits, u64::MAX).map(Self::DiskWrite)
                } else if let Some(numbers) = path.strip_prefix(b"/disk/read/") {
                    let mut parts = numbers.splitn(2, |&byte| byte == b'/');
                    let mut part = |limit| number(parts.next().unwrap_or_default(), limit);
                    Ok(Self::DiskRead(part(u64::MAX)?, part(VALUE_LIMIT as u64)?))
                } else {
                    Err(Status::NotFound)
                }
            }
        }
    }

    /// The methods that the route takes, as in the field `Allow`. Keys are removed only where there is a disk.
    pub fn allowed(&self, has_disk: bool) -> &'static str {
        match self {
            Self::Key(_) if has_disk => "GET, HEAD, PUT, DELETE",
            Self::Key(_) => "GET, HEAD, PUT",
            Self::DiskWrite(_) => "PUT, POST",
            Self::Dirty(_) => "GET, HEAD, POST",
            _ => "GET, HEAD",
        }
    }

    /// Whether the route takes `method`.
    pub fn takes(&self, method: Method, has_disk: bool) -> bool {
        match method {
            Method::Get | Method::Head => !matches!(self, Self::DiskWrite(_)),
            Method::Put => matches!(self, Self::Key(_) | Self::DiskWrite(_)),
            Method::Post => matches!(self, Self::Dirty(_) | Self::DiskWrite(_)),
            Method::Delete => has_disk && matches!(self, Self::Key(_)),
            Method::Other => false,
        }
    }

    /// Whether only a machine with a disk has the route.
    pub fn needs_disk(&self) -> bool {
        matches!(
            self,
            Self::Check | Self::DiskSize | Self::DiskRead(..) | Self::DiskWrite(_)
        )
    }

    /// Whether the answer is of the store, which must have been read back from its disk.
    pub fn needs_store(&self) -> bool {
        matches!(self, Self::About | Self::Key(_) | Self::Sum | Self::Check)
    }
}

/// The status codes sent (RFC 9110, 15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
#[allow(missing_docs, reason = "their names are the standard's")]
pub enum Status {
    Ok = 200,
    Created = 201,
    NoContent = 204,
    BadRequest = 400,
    NotFound = 404,
    MethodNotAllowed = 405,
    LengthRequired = 411,
    ContentTooLarge = 413,
    FieldsTooLarge = 431,
    InternalServerError = 500,
    VersionNotSupported = 505,
    InsufficientStorage = 507,
}

impl Status {
    /// The reason phrase.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Created => "Created",
            Self::NoContent => "No Content",
            Self::BadRequest => "Bad Request",
            Self::NotFound => "Not Found",
            Self::MethodNotAllowed => "Method Not Allowed",
            Self::LengthRequired => "Length Required",
            Self::ContentTooLarge => "Content Too Large",
            Self::FieldsTooLarge => "Request Header Fields Too Large",
            Self::InternalServerError => "Internal Server Error",
            Self::VersionNotSupported => "HTTP Version Not Supported",
            Self::InsufficientStorage => "Insufficient Storage",
        }
    }
}

/// What follows the head.
#[derive(Clone)]
pub enum Content {
    /// Text.
    Text(Vec<u8>),
    /// A stored value.
    Value(Rc<Value>),
    /// So many bytes of [`body`].
    Pattern(u64),
}

impl Content {
    /// The length in bytes.
    pub fn length(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::Value(value) => value.len() as u64,
            Self::Pattern(length) => *length,
        }
    }

    /// Fills the start of `out` with the content from `offset` on: how much that was.
    pub fn read(&self, offset: u64, out: &mut [u8]) -> usize {
        let left = self.length().saturating_sub(offset);
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(out.len());
        let out = &mut out[..count];
        // Within a slice whose length fits `usize`, so does an offset that leaves something to read.
        let from = offset as usize;
        match self {
            _ if count == 0 => {}
            Self::Text(text) => out.copy_from_slice(&text[from..from + count]),
            Self::Value(value) => out.copy_from_slice(&value[from..from + count]),
            Self::Pattern(_) => body::fill(offset, out),
        }
        count
    }
}

/// An answer.
pub struct Reply {
    /// The status.
    pub status: Status,
    /// What follows the head.
    pub content: Content,
    /// The methods allowed, where that is what was wrong.
    pub allow: Option<&'static str>,
}

impl Reply {
    /// An answer that says its status in words.
    pub fn status(status: Status) -> Self {
        let mut text = Vec::new();
        if !matches!(status, Status::NoContent | Status::Created) {
            text.extend_from_slice(status.reason().as_bytes());
            text.push(b'\n');
        }
        Self {
            status,
            content: Content::Text(text),
            allow: None,
        }
    }

    /// The answer 200 with text.
    pub fn text(arguments: core::fmt::Arguments<'_>) -> Self {
        Self {
            content: Content::Text(alloc::fmt::format(arguments).into_bytes()),
            ..Self::status(Status::Ok)
        }
    }

    /// The answer 200 with `content`.
    pub fn content(content: Content) -> Self {
        Self {
            status: Status::Ok,
            content,
            allow: None,
        }
    }

    /// The head, as it is sent. There is no `Date`: two machines that answer alike shall answer the same bytes.
    pub fn head(&self, keep_alive: bool) -> Vec<u8> {
        let mut head = alloc::string::String::with_capacity(160);
        let kind = match self.content {
            Content::Text(_) => "text/plain; charset=utf-8",
            Content::Value(_) | Content::Pattern(_) => "application/octet-stream",
        };
        // Writing to a string does not fail.
        let _ = write!(
            head,
            "HTTP/1.1 {} {}\r\n",
            self.status as u16,
            self.status.reason()
        );
        if self.status != Status::NoContent {
            let _ = write!(
                head,
                "Content-Type: {kind}\r\nContent-Length: {}\r\n",
                self.content.length()
            );
        }
        if let Some(allow) = self.allow {
            let _ = write!(head, "Allow: {allow}\r\n");
        }
        head.push_str(if keep_alive {
            "Connection: keep-alive\r\n\r\n"
        } else {
            "Connection: close\r\n\r\n"
        });
        head.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{format, string::String, vec};

    #[test]
    fn routes() {
        assert_eq!(Route::of(b"/"), Ok(Route::About));
        assert_eq!(Route::of(b"/kv/a/b"), Ok(Route::Key(b"a/b")));
        assert_eq!(
            Route::of(b"/bytes/1073741824"),
            Ok(Route::Bytes(BYTES_LIMIT))
        );
        for path in [
            "/bytes/1073741825",
            "/bytes/",
            "/bytes/-1",
            "/dirty/x",
            "/kv/",
        ] {
            assert_eq!(
                Route::of(path.as_bytes()),
                Err(Status::BadRequest),
                "{path}"
            );
        }
        assert_eq!(
            Route::of(format!("/kv/{}", "k".repeat(KEY_LIMIT + 1)).as_bytes()),
            Err(Status::BadRequest)
        );
        assert_eq!(
            Route::of(b"/disk/read/7/65536"),
            Ok(Route::DiskRead(7, 65536))
        );
        assert_eq!(Route::of(b"/disk/write/0"), Ok(Route::DiskWrite(0)));
        for path in [
            "/disk/read/7",
            "/disk/read/7/",
            "/disk/read/7/65537",
            "/disk/read/7/1/1",
            "/disk/write/",
        ] {
            assert_eq!(
                Route::of(path.as_bytes()),
                Err(Status::BadRequest),
                "{path}"
            );
        }
        for path in ["/kv", "/times", "//", "*", "/disk", "/disk/"] {
            assert_eq!(Route::of(path.as_bytes()), Err(Status::NotFound), "{path}");
        }
    }

    #[test]
    fn heads() {
        let head = |reply: Reply, keep| String::from_utf8(reply.head(keep)).expect("text");
        assert_eq!(
            head(Reply::status(Status::NoContent), true),
            "HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n\r\n"
        );
        let refused = Reply {
            allow: Some("GET"),
            ..Reply::status(Status::MethodNotAllowed)
        };
        assert_eq!(
            head(refused, false),
            "HTTP/1.1 405 Method Not Allowed\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 19\r\nAllow: GET\r\nConnection: close\r\n\r\n"
        );
    }

    #[test]
    fn content_is_read_in_pieces() {
        let content = Content::Text(vec![1, 2, 3, 4, 5]);
        let mut out = [0; 3];
        assert_eq!((content.read(0, &mut out), out), (3, [1, 2, 3]));
        assert_eq!((content.read(3, &mut out), out), (2, [4, 5, 3]));
        assert_eq!(content.read(5, &mut out), 0);
        assert_eq!(content.read(u64::MAX, &mut out), 0);
    }
}
