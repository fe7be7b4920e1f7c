//! Requests of HTTP/1.1 (RFC 9110, RFC 9112): the head, read from the bytes received so far.
//!
//! Nothing is copied and nothing is kept: while a head is not complete, it is read again from its start when more bytes
//! have come. [`HEAD_LIMIT`] bounds that.

/// The longest head: request line, fields, and the empty line. Fits the smallest receive buffer, where the head waits.
pub const HEAD_LIMIT: usize = 4096;

/// What a request asks to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `GET`.
    Get,
    /// `HEAD`.
    Head,
    /// `PUT`.
    Put,
    /// `POST`.
    Post,
    /// `DELETE`.
    Delete,
    /// Any other token.
    Other,
}

/// A request's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The method.
    pub method: Method,
    /// The path, from its first `/`, with neither query nor decoding.
    pub path: &'a [u8],
    /// Whether the connection stays open after the answer.
    pub keep_alive: bool,
    /// `Content-Length`, in bytes; what exceeds 64 bits reads as `u64::MAX`.
    pub content_length: Option<u64>,
    /// Whether the body's length comes with the body (`Transfer-Encoding`), which this server does not read.
    pub transfer_encoding: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// Bytes that the head takes up, with the empty line.
    pub head_bytes: usize,
}

/// Why bytes are not a request. The connection cannot be used further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// Against the grammar, or ambiguous about where the body ends.
    Malformed,
    /// Longer than [`HEAD_LIMIT`].
    TooLong,
    /// Neither HTTP/1.1 nor HTTP/1.0.
    Version,
}

/// Reads the head at the start of `bytes`: `None` when more bytes are needed.
///
/// # Errors
/// As [`ParseError`] says. A line that is wrong is reported when it is complete, without waiting for the end of the head.
pub fn parse(bytes: &[u8]) -> Result<Option<Request<'_>>, ParseError> {
    let window = &bytes[..bytes.len().min(HEAD_LIMIT)];
    let incomplete = || {
        if bytes.len() >= HEAD_LIMIT {
            Err(ParseError::TooLong)
        } else {
            Ok(None)
        }
    };
    let mut lines = Lines { rest: window };
    // RFC 9112, 2.2: empty lines before a request are skipped.
    let request_line = loop {
        match lines.next_line()? {
            None => return incomplete(),
            Some([]) => {}
            Some(line) => break line,
        }
    };
    let (method, path, minor) = parse_request_line(request_line)?;
    let mut fields = Fields::default();
    loop {
        match lines.next_line()? {
            None => return incomplete(),
            Some([]) => break,
            Some(line) => fields.add(line)?,
        }
    }
    fields.check(minor)?;
    Ok(Some(Request {
        method,
        path,
        keep_alive: !fields.close && (minor >= 1 || fields.keep_alive),
        content_length: fields.content_length,
        transfer_encoding: fields.transfer_encoding,
        expects_continue: fields.expects_continue && minor >= 1,
        head_bytes: window.len() - lines.rest.len(),
    }))
}

/// Reads a decimal number: digits alone, at least one; what exceeds 64 bits reads as `u64::MAX`.
pub fn parse_number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, digit| {
        digit.is_ascii_digit().then(|| {
            number
                .saturating_mul(10)
                .saturating_add(u64::from(digit - b'0'))
        })
    })
}

/// Lines that end in CR LF.
struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Lines<'a> {
    /// The next line without its end, or `None` if its end has not come. A CR or LF alone is malformed (RFC 9112, 2.2
    /// allows a lone LF as an end of line, but does not ask for it, and agreement with other readers is safer).
    fn next_line(&mut self) -> Result<Option<&'a [u8]>, ParseError> {
        let Some(end) = self
            .rest
            .iter()
            .position(|&byte| byte == b'\n' || byte == b'\r')
        else {
            return check_start(self.rest).map(|()| None);
        };
        match (self.rest[end], self.rest.get(end + 1)) {
            (b'\r', Some(b'\n')) => {
                let (line, rest) = self.rest.split_at(end);
                self.rest = &rest[2..];
                Ok(Some(line))
            }
            (b'\r', None) => Ok(None),
            _ => Err(ParseError::Malformed),
        }
    }
}

/// A line that cannot become text (another protocol's greeting, say) is refused before it ends.
fn check_start(line: &[u8]) -> Result<(), ParseError> {
    if line.iter().all(|&byte| is_field_byte(byte)) {
        Ok(())
    } else {
        Err(ParseError::Malformed)
    }
}

/// `METHOD SP target SP HTTP/1.x`: the method, the path, and `x`.
fn parse_request_line(line: &[u8]) -> Result<(Method, &[u8], u8), ParseError> {
    let mut parts = line.split(|&byte| byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(ParseError::Malformed);
    };
    if method.is_empty() || !method.iter().all(|&byte| is_token_byte(byte)) {
        return Err(ParseError::Malformed);
    }
    let method = match method {
        b"GET" => Method::Get,
        b"HEAD" => Method::Head,
        b"PUT" => Method::Put,
        b"POST" => Method::Post,
        b"DELETE" => Method::Delete,
        _ => Method::Other,
    };
    let minor = match version {
        b"HTTP/1.1" => 1,
        b"HTTP/1.0" => 0,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(ParseError::Version);
        }
        _ => return Err(ParseError::Malformed),
    };
    Ok((method, parse_target(target)?, minor))
}

/// The path of a request target: `/path?query`, `http://host/path?query`, or `*` as it is.
fn parse_target(target: &[u8]) -> Result<&[u8], ParseError> {
    if target.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
        return Err(ParseError::Malformed);
    }
    let path = if target[0] == b'/' || target == b"*" {
        target
    } else {
        let scheme = target
            .get(..7)
            .filter(|scheme| scheme.eq_ignore_ascii_case(b"http://"));
        let after = &target[scheme.ok_or(ParseError::Malformed)?.len()..];
        match after.iter().position(|&byte| byte == b'/') {
            Some(slash) => &after[slash..],
            None => b"/",
        }
    };
    let end = path
        .iter()
        .position(|&byte| byte == b'?')
        .unwrap_or(path.len());
    Ok(&path[..end])
}

/// What the fields that matter said.
#[derive(Default)]
struct Fields {
    close: bool,
    keep_alive: bool,
    content_length: Option<u64>,
    transfer_encoding: bool,
    expects_continue: bool,
    hosts: usize,
}

impl Fields {
    fn add(&mut self, line: &[u8]) -> Result<(), ParseError> {
        let colon = line
            .iter()
            .position(|&byte| byte == b':')
            .ok_or(ParseError::Malformed)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        let well_formed = !name.is_empty()
            && name.iter().all(|&byte| is_token_byte(byte))
            && value.iter().all(|&byte| is_field_byte(byte));
        if !well_formed {
            return Err(ParseError::Malformed);
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            self.add_content_length(value)?;
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.transfer_encoding = true;
        } else if name.eq_ignore_ascii_case(b"connection") {
            for option in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                self.close |= option.eq_ignore_ascii_case(b"close");
                self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if name.eq_ignore_ascii_case(b"expect") {
            self.expects_continue |= value.eq_ignore_ascii_case(b"100-continue");
        } else if name.eq_ignore_ascii_case(b"host") {
            self.hosts += 1;
        }
        Ok(())
    }

    /// RFC 9110, 8.6: a length that is repeated must be the same each time.
    fn add_content_length(&mut self, value: &[u8]) -> Result<(), ParseError> {
        let length = parse_number(value).ok_or(ParseError::Malformed)?;
        if self
            .content_length
            .replace(length)
            .is_some_and(|before| before != length)
        {
            return Err(ParseError::Malformed);
        }
        Ok(())
    }

    /// RFC 9112, 3.2 (exactly one `Host` in HTTP/1.1) and 6.3 (not both ways of giving a length).
    fn check(&self, minor: u8) -> Result<(), ParseError> {
        let hosts_wrong = self.hosts > 1 || (minor >= 1 && self.hosts == 0);
        let ambiguous = self.transfer_encoding && self.content_length.is_some();
        if hosts_wrong || ambiguous {
            Err(ParseError::Malformed)
        } else {
            Ok(())
        }
    }
}

/// `tchar` of RFC 9110, 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What a field's value may hold: all but control characters (RFC 9110, 5.5).
fn is_field_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{format, string::String, vec::Vec};

    fn request(text: &str) -> Request<'_> {
        parse(text.as_bytes())
            .expect("well-formed")
            .expect("complete")
    }

    fn error(text: &str) -> ParseError {
        parse(text.as_bytes()).expect_err(text)
    }

    #[test]
    fn a_plain_request() {
        let text = "GET /kv/a?x=1 HTTP/1.1\r\nHost: g\r\n\r\nrest";
        let request = request(text);
        assert_eq!(request.method, Method::Get);
        assert_eq!(request.path, b"/kv/a");
        assert!(request.keep_alive);
        assert_eq!(request.head_bytes, text.len() - 4);
        assert_eq!(request.content_length, None);
    }

    #[test]
    fn fields_are_understood() {
        let request = request(
            "PUT http://g:80/kv/b HTTP/1.1\r\nhOST:g\r\ncontent-LENGTH: \t12 \r\nConnection: x, Close\r\nExpect: 100-Continue\r\n\r\n",
        );
        assert_eq!((request.method, request.path), (Method::Put, &b"/kv/b"[..]));
        assert_eq!(request.content_length, Some(12));
        assert!(!request.keep_alive && request.expects_continue);
    }

    #[test]
    fn the_older_version_closes_unless_asked() {
        assert!(!request("GET / HTTP/1.0\r\n\r\n").keep_alive);
        assert!(request("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").keep_alive);
    }

    #[test]
    fn what_is_wrong_is_refused() {
        let malformed = [
            "GET /\r\n\r\n",
            "GET / HTTP/1.1 \r\n",
            "GET  / HTTP/1.1\r\n",
            "G@T / HTTP/1.1\r\n",
            "GET kv HTTP/1.1\r\n",
            "GET / http/1.1\r\n",
            "GET / HTTP/1.1\n",
            "GET / HTTP/1.1\r\nHost : g\r\n",
            "GET / HTTP/1.1\r\nHost: g\r\n folded\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: g\r\nHost: g\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: g\r\nContent-Length: 1\r\nContent-Length: 2\r\n",
            "GET / HTTP/1.1\r\nHost: g\r\nContent-Length: +1\r\n",
            "GET / HTTP/1.1\r\nHost: g\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "\x16\x03\x01",
        ];
        for text in malformed {
            assert_eq!(error(text), ParseError::Malformed, "{text:?}");
        }
        assert_eq!(error("GET / HTTP/2.0\r\n"), ParseError::Version);
    }

    #[test]
    fn the_limit_is_exact() {
        let frame = "GET / HTTP/1.1\r\nHost: g\r\nX: \r\n\r\n";
        let filler = "x".repeat(HEAD_LIMIT - frame.len());
        let longest = format!("GET / HTTP/1.1\r\nHost: g\r\nX: {filler}\r\n\r\n");
        assert_eq!(request(&longest).head_bytes, HEAD_LIMIT);
        let longer = format!("GET / HTTP/1.1\r\nHost: g\r\nX: x{filler}\r\n\r\n");
        assert_eq!(error(&longer), ParseError::TooLong);
        assert_eq!(parse(&longest.as_bytes()[..HEAD_LIMIT - 1]), Ok(None));
    }

    #[test]
    fn huge_numbers_saturate() {
        assert_eq!(parse_number(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_number(b"99999999999999999999999"), Some(u64::MAX));
        assert_eq!(parse_number(b""), None);
        assert_eq!(parse_number(b"1x"), None);
    }

    proptest! {
        #[test]
        fn every_prefix_of_a_request_is_incomplete(path in "/[a-z0-9/]{0,20}", fields in proptest::collection::vec("[A-Za-z-]{1,8}: ?[ -~]{0,20}", 0..5)) {
            prop_assume!(fields.iter().all(|field| {
                let name = field.split(':').next().unwrap_or("").to_ascii_lowercase();
                !["host", "expect", "content-length", "connection"].contains(&name.as_str())
            }));
            let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
            let text = format!("GET {path} HTTP/1.1\r\nHost: g\r\n{fields}\r\n");
            for end in 0..text.len() {
                prop_assert_eq!(parse(&text.as_bytes()[..end]), Ok(None));
            }
            prop_assert_eq!(request(&text).path, path.as_bytes());
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(bytes: Vec<u8>) {
            if let Ok(Some(request)) = parse(&bytes) {
                prop_assert!(request.head_bytes <= bytes.len());
            }
        }
    }
}
