//! A machine with a disk.

use super::*;
use crate::platter::DISK_BYTES;

fn net(platter: &TestDisk) -> Net {
    Net::with_disk(0, 1, Some(platter.clone()))
}

/// What a head of a request with a body is.
fn request(line: &str, body: &str) -> String {
    let length = body.len();
    format!("{line} HTTP/1.1\r\nHost: g\r\nContent-Length: {length}\r\n\r\n{body}")
}

#[test]
fn values_outlive_the_machine() {
    let platter = TestDisk::new();
    let mut first = net(&platter);
    assert_eq!(first.status("PUT /kv/a", b"1"), "201 Created");
    assert_eq!(first.status("PUT /kv/a", b"22"), "204 No Content");
    assert_eq!(first.status("PUT /kv/b", b"3"), "201 Created");
    assert_eq!(first.status("DELETE /kv/b", b""), "204 No Content");
    assert_eq!(first.status("DELETE /kv/b", b""), "404 Not Found");
    assert_eq!(first.ask("GET /kv-check", b"").1, b"ok 1 keys\n");
    platter.crash(5);
    let mut second = net(&platter);
    assert_eq!(
        second.ask("GET /kv/a", b""),
        ("200 OK".into(), b"22".to_vec())
    );
    assert_eq!(second.status("GET /kv/b", b""), "404 Not Found");
    assert_eq!(second.ask("GET /kv-check", b"").1, b"ok 1 keys\n");
}

#[test]
fn the_other_half_is_for_clients_to_read_and_write() {
    let platter = TestDisk::new();
    let mut net = net(&platter);
    let raw_bytes = DISK_BYTES / 2;
    let size = net.ask("GET /disk/size", b"");
    assert_eq!(
        size,
        ("200 OK".into(), format!("{raw_bytes}\n").into_bytes())
    );
    assert_eq!(net.status("PUT /disk/write/0", b"start"), "204 No Content");
    let last = raw_bytes - 3;
    assert_eq!(
        net.status(&format!("POST /disk/write/{last}"), b"end"),
        "204 No Content"
    );
    platter.crash(7);
    let now = platter.0.borrow().now.clone();
    assert_eq!(
        (&now[raw_bytes..raw_bytes + 5], &now[DISK_BYTES - 3..]),
        (&b"start"[..], &b"end"[..])
    );
    let mut net = self::net(&platter);
    assert_eq!(
        net.ask("GET /disk/read/1/3", b""),
        ("200 OK".into(), b"tar".to_vec())
    );
    for (line, body, status) in [
        (
            format!("PUT /disk/write/{}", last + 1),
            3,
            "400 Bad Request",
        ),
        (format!("GET /disk/read/{last}/4"), 0, "400 Bad Request"),
        (
            format!("GET /disk/read/{}/4", u64::MAX),
            0,
            "400 Bad Request",
        ),
        ("GET /disk/read/0/0".into(), 0, "400 Bad Request"),
        ("PUT /disk/write/0".into(), 65537, "413 Content Too Large"),
        ("GET /disk/write/0".into(), 0, "405 Method Not Allowed"),
    ] {
        assert_eq!(net.status(&line, &vec![0; body]), status, "{line}");
    }
}

#[test]
fn the_service_goes_on_while_the_disk_is_at_work() {
    let platter = TestDisk::new();
    let mut net = net(&platter);
    assert_eq!(net.status("PUT /kv/a", b"old"), "201 Created");
    net.disk = None;
    let writer = net.connect(HTTP_PORT);
    let reader = net.connect(HTTP_PORT);
    for _ in 0..10 {
        net.step();
    }
    let put = request("PUT /kv/a", "new");
    net.socket(writer).send_slice(put.as_bytes()).expect("room");
    for _ in 0..100 {
        net.step();
    }
    let get = request("GET /kv/a", "");
    net.socket(reader).send_slice(get.as_bytes()).expect("room");
    for _ in 0..100 {
        net.step();
    }
    assert_eq!(net.status("GET /time", b""), "200 OK");
    assert_eq!(net.socket(writer).recv_queue(), 0, "it is not durable");
    assert_eq!(net.socket(reader).recv_queue(), 0, "nor may that be told");
    net.disk = Some(platter);
    let answer = net.exchange(writer, b"", 20);
    assert!(answer.starts_with(b"HTTP/1.1 204 "));
    assert!(net.exchange(reader, b"", 20).ends_with(b"new"));
}

#[test]
fn a_failed_disk_is_named() {
    let platter = TestDisk::new();
    let mut net = net(&platter);
    assert_eq!(net.status("PUT /kv/a", b"1"), "201 Created");
    platter.0.borrow_mut().fails = true;
    let failed = "500 Internal Server Error";
    assert_eq!(net.status("PUT /disk/write/0", b"1"), failed);
    assert_eq!(net.status("GET /disk/read/0/1", b""), failed);
    assert_eq!(net.status("PUT /kv/b", b"1"), failed);
    assert_eq!(net.status("DELETE /kv/a", b""), failed);
    assert_eq!(net.status("GET /kv-check", b""), failed);
    assert_eq!(net.status("GET /kv/a", b""), "200 OK");
    // And one that fails before the store is read back.
    let mut net = self::net(&platter);
    assert_eq!(net.status("GET /kv/a", b""), failed);
    assert_eq!(net.status("GET /time", b""), "200 OK");
}

/// What lock-stepping relies on: how fast a disk is changes no answer.
#[test]
fn the_same_requests_get_the_same_answers_from_any_disk() {
    let mut requests = String::new();
    for number in 0..400u32 {
        let key = number * 7 % 40;
        let line = match number % 9 {
            0..=4 => {
                let body = "x".repeat((number * 37 % 700) as usize);
                request(&format!("PUT /kv/{key}"), &body)
            }
            5 => request(&format!("DELETE /kv/{key}"), ""),
            6 => request("GET /kv-check", ""),
            7 => request(&format!("PUT /disk/write/{key}"), "raw"),
            _ => request(&format!("GET /kv/{key}"), ""),
        };
        requests.push_str(&line);
    }
    requests.push_str("GET /nothing HTTP/1.0\r\n\r\n");
    let answers = |work_every: u32| {
        let platter = TestDisk::new();
        let mut net = net(&platter);
        net.disk = None;
        let (handle, mut sent, mut answer) = (net.connect(HTTP_PORT), 0, vec![]);
        for step in 0..400_000 {
            if step % work_every == 0 {
                platter.work();
            }
            net.step();
            let socket = net.socket(handle);
            if socket.may_send() && sent < requests.len() {
                sent += socket
                    .send_slice(&requests.as_bytes()[sent..])
                    .expect("room");
            }
            let _ = socket.recv(|data| {
                answer.extend_from_slice(data);
                (data.len(), ())
            });
            if sent == requests.len() && !socket.may_recv() {
                return answer;
            }
        }
        panic!("{} bytes of an answer", answer.len());
    };
    let fast = answers(1);
    assert!(
        fast.windows(3).any(|window| window == b"507"),
        "it was full"
    );
    assert!(fast == answers(17));
}
