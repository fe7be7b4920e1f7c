//! Whole conversations, in pieces of every size.

use super::*;
use crate::store::Store;
use proptest::prelude::*;
use std::format;
use std::vec;

/// Sends `input` in pieces, takes what is written in pieces, and returns it all and whether the connection is to close.
fn converse(service: &mut Service, input: &[u8], pieces: &[usize]) -> (Vec<u8>, bool) {
    let mut session = Session::new();
    let mut said = Vec::new();
    let mut at: usize = 0;
    let mut sizes = pieces.iter().copied().cycle();
    loop {
        let size = sizes.next().unwrap_or(usize::MAX).max(1);
        let end = at.saturating_add(size).min(input.len());
        let taken = session.read(&input[at..end], service);
        at += taken;
        let mut out = vec![0; size.min(1 << 16)];
        let written = session.write(&mut out);
        said.extend_from_slice(&out[..written]);
        if taken == 0 && written == 0 && session.pending() == 0 && at == input.len() {
            return (said, session.finished());
        }
    }
}

fn ask(service: &mut Service, input: &str) -> (String, bool) {
    let (said, closes) = converse(service, input.as_bytes(), &[]);
    (String::from_utf8(said).unwrap(), closes)
}

fn service() -> Service {
    Service::new(Store::new(1 << 20, 16))
}

#[test]
fn a_conversation() {
    let mut service = service();
    service.now_ns = 42;
    for (request, status, body) in [
        (
            "GET /kv/a HTTP/1.1\r\nHost: x\r\n\r\n",
            "404 Not Found",
            "404 Not Found\n",
        ),
        (
            "PUT /kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
            "201 Created",
            "",
        ),
        (
            "PUT /kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nabcd",
            "204 No Content",
            "",
        ),
        (
            "\r\nGET /kv/a HTTP/1.1\r\nHost: x\r\n\r\n",
            "200 OK",
            "abcd",
        ),
        ("HEAD /kv/a HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK", ""),
        (
            "PUT /kv/e HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
            "201 Created",
            "",
        ),
        ("GET /kv/e HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK", ""),
        ("GET /time HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK", "42\n"),
        (
            "POST /dirty/7 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nxx",
            "200 OK",
            "7\n",
        ),
        (
            "GET /dirty/99 HTTP/1.1\r\nHost: x\r\n\r\n",
            "200 OK",
            "16\n",
        ),
        (
            "HEAD /dirty/9 HTTP/1.1\r\nHost: x\r\n\r\n",
            "405 Method Not Allowed",
            "",
        ),
        (
            "DELETE /kv/a HTTP/1.1\r\nHost: x\r\n\r\n",
            "405 Method Not Allowed",
            "",
        ),
        (
            "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n",
            "404 Not Found",
            "404 Not Found\n",
        ),
        (
            "GET /bytes/x HTTP/1.1\r\nHost: x\r\n\r\n",
            "400 Bad Request",
            "400 Bad Request\n",
        ),
        ("GET /bytes/0 HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK", ""),
        (
            "GET /kv/%41 HTTP/1.1\r\nHost: x\r\n\r\n",
            "400 Bad Request",
            "400 Bad Request\n",
        ),
    ] {
        let (said, closes) = ask(&mut service, request);
        assert!(
            said.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{request:?}: {said:?}"
        );
        assert!(
            said.contains("Connection: keep-alive\r\n"),
            "{request:?}: {said:?}"
        );
        assert_eq!(said.split_once("\r\n\r\n").unwrap().1, body, "{request:?}");
        assert!(!closes, "{request:?}");
    }
}

#[test]
fn errors_that_close() {
    let long = format!("GET / HTTP/1.1\r\nHost: {}", "x".repeat(5000));
    for (request, status) in [
        ("nonsense\r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/1.1\r\n\r\n", "400 Bad Request"),
        (&long, "431 Request Header Fields Too Large"),
        (
            "PUT /kv/a HTTP/1.1\r\nHost: x\r\n\r\n",
            "411 Length Required",
        ),
        (
            "PUT /kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 65537\r\n\r\n",
            "413 Content Too Large",
        ),
        (
            "PUT /kv/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "501 Not Implemented",
        ),
        (
            "GET / HTTP/1.1\r\nHost: x\r\nExpect: more\r\n\r\n",
            "417 Expectation Failed",
        ),
        ("GET / HTTP/3.0\r\n\r\n", "505 HTTP Version Not Supported"),
    ] {
        let (said, closes) = ask(
            &mut service(),
            &format!("{request}GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        );
        assert!(
            said.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{request:?}: {said:?}"
        );
        assert!(
            said.contains("Connection: close\r\n"),
            "{request:?}: {said:?}"
        );
        assert_eq!(
            said.matches("HTTP/1.1").count(),
            1,
            "nothing is answered after an error: {said:?}"
        );
        assert!(closes);
    }
}

#[test]
fn continue_is_said_only_when_the_body_is_wanted() {
    let put = |length| {
        format!(
            "PUT /kv/a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let (said, _) = ask(&mut service(), &put(3));
    assert_eq!(said, "HTTP/1.1 100 Continue\r\n\r\n");
    let (said, closes) = ask(&mut service(), &put(65537));
    assert!(said.starts_with("HTTP/1.1 413 ") && closes, "{said:?}");
}

#[test]
fn a_full_store_says_so_and_goes_on() {
    let mut service = Service::new(Store::new(1000, 0));
    let (said, closes) = ask(
        &mut service,
        &format!(
            "PUT /kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n{}",
            "x".repeat(2000)
        ),
    );
    assert!(
        said.starts_with("HTTP/1.1 507 Insufficient Storage\r\n") && !closes,
        "{said:?}"
    );
}

proptest! {
    #[test]
    fn pieces_do_not_matter(pieces in proptest::collection::vec(1_usize..200, 1..20), length in 0_usize..3000) {
        let value = "v".repeat(length);
        let input = format!(
            "PUT /kv/k HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{value}GET /kv/k HTTP/1.1\r\nHost: x\r\n\r\n\
             GET /bytes/{length} HTTP/1.1\r\nHost: x\r\n\r\nGET /sum HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        );
        let whole = converse(&mut service(), input.as_bytes(), &[]);
        let in_pieces = converse(&mut service(), input.as_bytes(), &pieces);
        prop_assert!(whole.1);
        prop_assert_eq!(&whole, &in_pieces);
        let mut expected = vec![0; length];
        crate::body::fill(0, &mut expected);
        prop_assert!(whole.0.windows(length.max(1)).any(|window| window == &expected[..]) || length == 0);
    }

    #[test]
    fn noise_does_no_harm(noise in proptest::collection::vec(any::<u8>(), 0..600), pieces in proptest::collection::vec(1_usize..100, 1..9)) {
        converse(&mut service(), &noise, &pieces);
    }
}
