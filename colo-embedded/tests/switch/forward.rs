//! The user-mode forward, to a real TCP/IP stack behind a port.

use crate::guest::{ECHO, Guest, IDLE, REFUSED, RESET, SOURCE, SOURCE_BYTES, pattern};
use crate::running::Running;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

fn target(port: u16) -> String {
    format!("10.77.0.10:{port}")
}

/// A switch with a forward to each of these ports of the guest.
fn switch(ports: &[u16]) -> Running {
    let targets: Vec<String> = ports.iter().map(|&port| target(port)).collect();
    Running::start(&targets.iter().map(String::as_str).collect::<Vec<_>>())
}

fn text(seed: usize, length: usize) -> Vec<u8> {
    (0..length).map(|index| pattern(index + seed * 1_000_003)).collect()
}

fn assert_same(got: &[u8], wanted: &[u8]) {
    assert_eq!(got.len(), wanted.len());
    let differ = got.iter().zip(wanted).position(|(a, b)| a != b);
    assert_eq!(differ, None, "first difference at");
}

/// Sends `sent` and the end of the stream, while it reads until the end.
fn exchange(mut client: TcpStream, sent: &[u8]) -> Vec<u8> {
    let mut writer = client.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            writer.write_all(sent).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        got
    })
}

#[test]
fn fifty_connections_at_once_each_get_their_own_bytes_back() {
    let switch = switch(&[ECHO]);
    let _guest = Guest::start(&switch);
    let address = switch.forwards[0];
    let clients: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(address).unwrap()).collect();
    thread::scope(|scope| {
        for (number, client) in clients.into_iter().enumerate() {
            scope.spawn(move || {
                let sent = text(number, 100_000 + number);
                // The half-close: the answer's end comes after the question's.
                assert_same(&exchange(client, &sent), &sent);
            });
        }
    });
    let counters = switch.stop();
    assert_eq!((counters.connections, counters.connections_broken), (50, 0));
}

#[test]
fn many_connections_one_after_the_other() {
    let switch = switch(&[ECHO]);
    let _guest = Guest::start(&switch);
    for number in 0..200 {
        let sent = text(number, number);
        assert_same(&exchange(TcpStream::connect(switch.forwards[0]).unwrap(), &sent), &sent);
    }
}

#[test]
fn thirty_two_megabytes_each_way() {
    let switch = switch(&[ECHO, SOURCE]);
    let _guest = Guest::start(&switch);
    let sent = text(1, 32 << 20);
    let echoed = exchange(TcpStream::connect(switch.forwards[0]).unwrap(), &sent);
    assert_same(&echoed, &sent);
    let got = exchange(TcpStream::connect(switch.forwards[1]).unwrap(), &sent);
    assert_same(&got, &text(0, SOURCE_BYTES));
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody_and_loses_nothing() {
    let switch = switch(&[SOURCE, ECHO]);
    let _guest = Guest::start(&switch);
    let mut slow = TcpStream::connect(switch.forwards[0]).unwrap();
    let mut first = [0];
    slow.read_exact(&mut first).unwrap();
    for number in 0..4 {
        let sent = text(number, 1 << 20);
        assert_same(&exchange(TcpStream::connect(switch.forwards[1]).unwrap(), &sent), &sent);
    }
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).unwrap();
    assert_same(&rest, &text(0, SOURCE_BYTES)[1..]);
}

#[test]
fn lost_frames_are_made_good() {
    let switch = switch(&[ECHO]);
    let _guest = Guest::start_lossy(&switch, 50);
    let sent = text(3, 1 << 20);
    assert_same(&exchange(TcpStream::connect(switch.forwards[0]).unwrap(), &sent), &sent);
}

#[test]
fn refusals_and_resets_break_the_client() {
    let switch = switch(&[REFUSED, RESET]);
    let _guest = Guest::start(&switch);
    let mut refused = TcpStream::connect(switch.forwards[0]).unwrap();
    assert_eq!(refused.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    let mut reset = TcpStream::connect(switch.forwards[1]).unwrap();
    reset.write_all(b"x").unwrap();
    assert_eq!(reset.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(switch.stop().connections_broken, 2);
}

#[test]
fn a_client_that_breaks_frees_the_guests_socket() {
    let switch = switch(&[IDLE]);
    let _guest = Guest::start(&switch);
    // The guest has four sockets there; each must be free again for the next client to get one. That it did shows in that
    // it is not refused.
    for _ in 0..20 {
        let client = TcpStream::connect(switch.forwards[0]).unwrap();
        socket2::SockRef::from(&client).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(client);
    }
    let mut last = TcpStream::connect(switch.forwards[0]).unwrap();
    last.write_all(b"x").unwrap();
    last.set_read_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
    assert_eq!(last.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_guest_that_comes_later_gets_the_connection() {
    let switch = switch(&[ECHO]);
    let client = TcpStream::connect(switch.forwards[0]).unwrap();
    let _guest = Guest::start(&switch);
    assert_same(&exchange(client, b"are you there?"), b"are you there?");
}
