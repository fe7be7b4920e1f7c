//! The head of an HTTP/1.1 request, parsed strictly (RFC 9112): what two readers could understand differently is refused, so
//! that no request hides inside another.
//!
//! ```
//! use colo_guest::http::{Method, Request};
//! let request = Request::parse(b"PUT /kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n").unwrap();
//! assert_eq!((request.method, request.path, request.content_length), (Method::Put, "/kv/a", Some(3)));
//! ```

/// The longest head of a request, with its last empty line. Enough for a browser's; a connection's memory is bounded by it.
pub const MAX_HEAD_BYTES: usize = 4096;

/// A request's method. All that the service knows; `Other` is answered with 405.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Method {
    Get,
    Head,
    Put,
    Post,
    Other,
}

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// Against the grammar, or open to two readings: 400.
    Malformed,
    /// A transfer coding, which this server does not read: 501.
    TransferCoding,
    /// Neither HTTP/1.0 nor HTTP/1.1: 505.
    Version,
    /// An expectation other than `100-continue`: 417.
    Expectation,
}

/// A request without its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The method.
    pub method: Method,
    /// The path, from its first `/`; a query, if any, is still on it.
    pub path: &'a str,
    /// Whether the connection stays open after the response.
    pub keep_alive: bool,
    /// The body's length, when the request tells one.
    pub content_length: Option<u64>,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
}

impl<'a> Request<'a> {
    /// Parses a head: everything up to and with the empty line.
    ///
    /// # Errors
    /// [`HeadError`], after which the connection cannot be used further.
    pub fn parse(head: &'a [u8]) -> Result<Self, HeadError> {
        let head = core::str::from_utf8(head).map_err(|_| HeadError::Malformed)?;
        let mut lines = head
            .strip_suffix("\r\n\r\n")
            .ok_or(HeadError::Malformed)?
            .split("\r\n");
        let (method, path, minor_version) =
            parse_request_line(lines.next().ok_or(HeadError::Malformed)?)?;
        let mut fields = Fields::default();
        for line in lines {
            fields.add(line)?;
        }
        // RFC 9112, 3.2: a request of HTTP/1.1 without exactly one Host is to be answered with 400.
        if fields.hosts > 1 || (minor_version == 1 && fields.hosts == 0) {
            return Err(HeadError::Malformed);
        }
        if fields.transfer_coding {
            // With a length beside it, somebody is trying to smuggle.
            return Err(if fields.content_length.is_some() {
                HeadError::Malformed
            } else {
                HeadError::TransferCoding
            });
        }
        Ok(Self {
            method,
            path,
            keep_alive: !fields.close && (minor_version == 1 || fields.keep_alive),
            content_length: fields.content_length,
            expects_continue: fields.expects_continue && minor_version == 1,
        })
    }
}

/// Where the head ends in `data`: the number of bytes up to and with the empty line. Looks from `from` on, where an earlier
/// look has ended.
#[must_use]
pub fn head_len(data: &[u8], from: usize) -> Option<usize> {
    let start = from.saturating_sub(3);
    data.get(start..)?
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .map(|at| start + at + 4)
}

#[derive(Default)]
struct Fields {
    hosts: u32,
    content_length: Option<u64>,
    transfer_coding: bool,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
}

impl Fields {
    fn add(&mut self, line: &str) -> Result<(), HeadError> {
        let (name, value) = line.split_once(':').ok_or(HeadError::Malformed)?;
        // A folded line begins with a space, so its name is not a token either.
        if name.is_empty()
            || !name.bytes().all(is_token)
            || value.bytes().any(|b| b.is_ascii_control() && b != b'\t')
        {
            return Err(HeadError::Malformed);
        }
        let value = value.trim_matches([' ', '\t']);
        if name.eq_ignore_ascii_case("host") {
            self.hosts += 1;
        } else if name.eq_ignore_ascii_case("content-length") {
            let length = parse_number(value).ok_or(HeadError::Malformed)?;
            if self.content_length.is_some_and(|before| before != length) {
                return Err(HeadError::Malformed);
            }
            self.content_length = Some(length);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            self.transfer_coding = true;
        } else if name.eq_ignore_ascii_case("connection") {
            for option in value.split(',').map(str::trim) {
                self.close |= option.eq_ignore_ascii_case("close");
                self.keep_alive |= option.eq_ignore_ascii_case("keep-alive");
            }
        } else if name.eq_ignore_ascii_case("expect") {
            if !value.eq_ignore_ascii_case("100-continue") {
                return Err(HeadError::Expectation);
            }
            self.expects_continue = true;
        }
        Ok(())
    }
}

fn parse_request_line(line: &str) -> Result<(Method, &str, u8), HeadError> {
    let mut parts = line.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(HeadError::Malformed);
    };
    let method = match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "PUT" => Method::Put,
        "POST" => Method::Post,
        other if !other.is_empty() && other.bytes().all(is_token) => Method::Other,
        _ => return Err(HeadError::Malformed),
    };
    if !target.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(HeadError::Malformed);
    }
    let minor_version = match version {
        "HTTP/1.1" => 1,
        "HTTP/1.0" => 0,
        other if other.starts_with("HTTP/") => return Err(HeadError::Version),
        _ => return Err(HeadError::Malformed),
    };
    Ok((method, parse_target(target)?, minor_version))
}

/// The path of a target in origin form (`/path`) or absolute form (`http://host/path`), which servers have to take as well.
fn parse_target(target: &str) -> Result<&str, HeadError> {
    if target.starts_with('/') || target == "*" {
        return Ok(target);
    }
    let rest = target.strip_prefix("http://").ok_or(HeadError::Malformed)?;
    Ok(rest.find('/').map_or("/", |at| &rest[at..]))
}

/// A decimal number without sign, as `Content-Length` and the paths have it.
pub(crate) fn parse_number(digits: &str) -> Option<u64> {
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        digits.parse().ok()
    } else {
        None
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(head: &str) -> Result<Request<'_>, HeadError> {
        Request::parse(head.as_bytes())
    }

    #[test]
    fn connection_and_version() {
        for (head, keep_alive) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
            (
                "GET / HTTP/1.1\r\nhost: a\r\nConnection: foo, CLOSE\r\n\r\n",
                false,
            ),
            ("GET / HTTP/1.0\r\n\r\n", false),
            ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true),
        ] {
            assert_eq!(parse(head).unwrap().keep_alive, keep_alive, "{head}");
        }
        assert_eq!(parse("GET / HTTP/2.0\r\n\r\n"), Err(HeadError::Version));
    }

    #[test]
    fn absolute_form() {
        assert_eq!(
            parse("GET http://a:80/time HTTP/1.1\r\nHost: a\r\n\r\n")
                .unwrap()
                .path,
            "/time"
        );
        assert_eq!(
            parse("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n")
                .unwrap()
                .path,
            "/"
        );
    }

    #[test]
    fn two_readings_are_refused() {
        for fields in [
            "",
            "Host: a\r\nHost: b\r\n",
            "Host: a\r\n folded: x\r\n",
            "Host : a\r\n",
            "Host: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n",
            "Host: a\r\nContent-Length: +1\r\n",
            "Host: a\r\nContent-Length: 1, 1\r\n",
            "Host: a\r\nContent-Length: 99999999999999999999\r\n",
            "Host: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Host: a\r\nX: a\nb\r\n",
            "Host: a\r\n: x\r\n",
            "Host: a\r\nnothing\r\n",
        ] {
            assert_eq!(
                parse(&format!("PUT /kv/a HTTP/1.1\r\n{fields}\r\n")),
                Err(HeadError::Malformed),
                "{fields:?}"
            );
        }
        for line in [
            "",
            "GET /",
            "GET  / HTTP/1.1",
            "GET / HTTP/1.1 ",
            "G@T / HTTP/1.1",
            "GET x HTTP/1.1",
            "GET /\u{e4} HTTP/1.1",
        ] {
            assert_eq!(
                parse(&format!("{line}\r\nHost: a\r\n\r\n")),
                Err(HeadError::Malformed),
                "{line:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(data in proptest::collection::vec(any::<u8>(), 0..200), from in 0_usize..300) {
            let _ = Request::parse(&data);
            let _ = head_len(&data, from);
        }

        #[test]
        fn the_end_is_found_wherever_the_look_resumes(data in "[a\r\n]{0,40}", cut in 0_usize..40) {
            let data = data.as_bytes();
            let cut = cut.min(data.len());
            let whole = head_len(data, 0);
            let in_two = head_len(&data[..cut], 0).or_else(|| head_len(data, cut));
            prop_assert_eq!(whole, in_two);
        }
    }
}
