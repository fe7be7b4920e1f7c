//! Two machines that say the same are found to say the same, whatever they are asked by real programs; and nothing leaves that only
//! one has said.

use crate::rig::harness::{Orders, Way};
use crate::rig::machines::{
    Background, CLIENT, Cards, PATIENCE, Rig, SERVER, SERVER6, Timestamps, await_listener, patient,
};
use crate::rig::namespace::{has, possible};
use crate::rig::servers::{CLOCK, ECHO, HTTP, Servers, body, sum};
use colo_core::compare::{CompareConfig, Reason};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

/// What the bad wires do follows from it, as far as what the kernels do is the same.
const SEED: u64 = 4;

/// Another than [`SEED`], for a search.
fn seed() -> u64 {
    std::env::var("COLO_SEED").map_or(SEED, |seed| seed.parse().expect("COLO_SEED is a number"))
}

/// Whether the wires are good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wires {
    Good,
    Bad,
}

/// Talks to the machines through the comparator: they must be found equal, and nothing may leave that is not.
fn equal(cards: Cards, timestamps: Timestamps, wires: Wires, talk: impl FnOnce(&Rig)) {
    if !possible() {
        return;
    }
    for tool in ["curl", "iperf3", "nc", "ping", "dnsmasq"] {
        assert!(has(tool), "{tool} is missing");
    }
    let rig = Rig::new(cards, timestamps);
    rig.compare((wires == Wires::Bad).then(seed));
    talk(&rig);
    let report = rig.report();
    eprintln!(
        "{cards:?}: {:?} checked, {:?} lost and overtaken, {:?}",
        report.checked, report.mishaps, report.counters
    );
    assert!(report.wrong.is_empty(), "left, and was not said by both: {:#?}", report.wrong);
    let told: Vec<String> = report.divergences.iter().map(ToString::to_string).collect();
    assert!(told.is_empty(), "found different, and are not: {told:#?}");
    let (bytes, frames) = report.checked;
    assert!(bytes + frames > 0, "something was compared");
    assert_eq!(report.mishaps != (0, 0), wires == Wires::Bad);
}

/// The same with each kind of card.
macro_rules! with_each_card {
    ($($(#[$attribute:meta])* $name:ident: $timestamps:expr, $wires:expr, $talk:expr;)*) => {$(
        mod $name {
            use super::*;

            $(#[$attribute])*
            #[test]
            fn taps_with_offloads() {
                equal(Cards::TapWithOffloads, $timestamps, $wires, $talk);
            }

            $(#[$attribute])*
            #[test]
            fn taps_without_offloads() {
                equal(Cards::TapWithout, $timestamps, $wires, $talk);
            }

            $(#[$attribute])*
            #[test]
            fn cables_and_packet_sockets() {
                equal(Cards::Cable, $timestamps, $wires, $talk);
            }
        }
    )*};
}

with_each_card! {
    downloads: Timestamps::Off, Wires::Good, |rig| {
        download(rig, SERVER, 64 << 20);
        download(rig, "[fd09::1]", 8 << 20);
    };
    uploads: Timestamps::Off, Wires::Good, |rig| {
        upload(rig, SERVER, 32 << 20);
        upload(rig, "[fd09::1]", 8 << 20);
    };
    many_small_downloads: Timestamps::Off, Wires::Good, many_small_downloads;
    netcat: Timestamps::Off, Wires::Good, netcat;
    pings: Timestamps::Off, Wires::Good, pings;
    names: Timestamps::Off, Wires::Good, names;
    large_datagrams: Timestamps::Off, Wires::Good, large_datagrams;
    machines_that_call: Timestamps::Off, Wires::Good, machines_that_call;
    bad_wires: Timestamps::Off, Wires::Bad, |rig| {
        download(rig, SERVER, 8 << 20);
        upload(rig, SERVER, 8 << 20);
        download(rig, "[fd09::1]", 1 << 20);
        many_small_downloads(rig);
    };
    bad_wires_and_machines_that_call: Timestamps::Off, Wires::Bad, |rig| call(rig, &[8 << 20; 4]);
}

/// The machines' clocks differ, as those of two kernels do.
mod timestamps {
    use super::*;

    with_each_card! {
        downloads: Timestamps::Differ, Wires::Good, |rig| download(rig, SERVER, 16 << 20);
        uploads: Timestamps::Differ, Wires::Good, |rig| upload(rig, SERVER, 16 << 20);
        machines_that_call: Timestamps::Differ, Wires::Good, machines_that_call;
        bad_wires: Timestamps::Differ, Wires::Bad, |rig| {
            download(rig, SERVER, 8 << 20);
            upload(rig, SERVER, 8 << 20);
        };
    }
}

fn download(rig: &Rig, server: &str, bytes: usize) {
    let got = rig.client_runs(&format!("curl -sS --fail http://{server}:{HTTP}/{bytes}/7"), &[]);
    assert!(got == body(bytes, 7), "{} bytes of {bytes}", got.len());
}

fn upload(rig: &Rig, server: &str, bytes: usize) {
    let body = body(bytes, 8);
    // A file, so that its length is known before.
    let thread = std::thread::current().id();
    let path = std::env::temp_dir().join(format!("colo-upload-{}-{thread:?}", std::process::id()));
    std::fs::write(&path, &body).unwrap();
    let got = rig.client_runs(&format!("curl -sS --fail -T {} http://{server}:{HTTP}/", path.display()), &[]);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(String::from_utf8(got).unwrap(), sum(&body).to_string());
}

/// Some over one connection, and some over one each, several at a time.
fn many_small_downloads(rig: &Rig) {
    let bytes = |n: usize| 1 + 997 * n % 40_000;
    let urls = |server: &str, range: std::ops::Range<usize>| {
        range.map(|n| format!("http://{server}:{HTTP}/{}/{n}", bytes(n))).collect::<Vec<_>>().join(" ")
    };
    let wanted = |range: std::ops::Range<usize>| range.flat_map(|n| body(bytes(n), n as u64)).collect::<Vec<u8>>();
    for server in [SERVER, "[fd09::1]"] {
        let got = rig.client_runs(&format!("curl -sS --fail {}", urls(server, 0..50)), &[]);
        assert!(got == wanted(0..50));
    }
    let several: Vec<_> = (50..100)
        .map(|n| {
            let command = format!("curl -sS --fail {}", urls(SERVER, n..n + 1));
            (n, Background::start(&rig.client, &command, &[]))
        })
        .collect();
    for (n, download) in several {
        assert!(download.finish() == wanted(n..n + 1));
    }
}

fn netcat(rig: &Rig) {
    let (to, from) = (body(5 << 20, 1), body(5 << 20, 2));
    let takers = rig.servers_run("nc -l 7001", &[]);
    rig.await_listeners(7001);
    rig.client_runs(&format!("nc -N {SERVER} 7001"), &to);
    for taker in takers {
        assert!(taker.finish() == to);
    }
    let givers = rig.servers_run("nc -l -N 7002", &from);
    rig.await_listeners(7002);
    assert!(rig.client_runs(&format!("nc -d {SERVER} 7002"), &[]) == from);
    for giver in givers {
        giver.finish();
    }
}

fn pings(rig: &Rig) {
    for server in [SERVER, SERVER6] {
        // Small, large, and so large that it goes in pieces.
        for bytes in [56, 1400, 8000] {
            let printed = rig.client_runs(&format!("ping -q -c 30 -i 0.01 -W 60 -s {bytes} {server}"), &[]);
            let printed = String::from_utf8(printed).unwrap();
            assert!(printed.contains("30 received"), "{printed}");
        }
    }
}

/// A hundred names, each asked for once.
fn names(rig: &Rig) {
    let options = "--keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --pid-file= --user=root";
    let zone = "--address=/colo.test/10.1.2.3 --address=/colo.test/fd00::123";
    let _servers = rig.servers_run(&format!("dnsmasq {options} {zone}"), &[]);
    rig.await_listeners(53);
    let socket = client_socket(rig, SERVER, 53);
    for n in 0..100_u16 {
        // One question, recursion wanted; of the kind A or AAAA.
        let kind = if n % 2 == 0 { 1 } else { 28 };
        let label = format!("name-{n}");
        let mut question = [&n.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
        for label in [&label, "colo", "test", ""] {
            question.push(label.len() as u8);
            question.extend_from_slice(label.as_bytes());
        }
        question.extend_from_slice(&[0, kind, 0, 1]);
        let answer = ask(&socket, &question);
        let address =
            if kind == 1 { &[10, 1, 2, 3][..] } else { &[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x23] };
        assert!(answer[..2] == n.to_be_bytes() && answer.ends_with(address), "{label}: {answer:02x?}");
    }
}

/// So large that they go in pieces.
fn large_datagrams(rig: &Rig) {
    for server in [SERVER, SERVER6] {
        let socket = client_socket(rig, server, ECHO);
        for bytes in (0..40).map(|n| 1 + n * 1499) {
            let sent = body(bytes, 3);
            assert!(ask(&socket, &sent) == sent, "{bytes}");
        }
    }
}

fn machines_that_call(rig: &Rig) {
    call(rig, &[1000, 4 << 20]);
}

/// The machines call a server at the client's, and are answered with so many bytes each time.
fn call(rig: &Rig, answers: &[usize]) {
    let _server = Servers::start(&rig.client);
    await_listener(&rig.client, HTTP);
    for (n, bytes) in answers.iter().enumerate() {
        // A port is chosen at random: two machines would not choose the same.
        let port = 45_000 + n;
        let calls =
            rig.servers_run(&format!("curl -sS --fail --local-port {port} http://{CLIENT}:{HTTP}/{bytes}/9"), &[]);
        for call in calls {
            assert!(call.finish() == body(*bytes, 9));
        }
    }
}

/// A socket there that knows patience.
fn client_socket(rig: &Rig, server: &str, port: u16) -> UdpSocket {
    let own = if server == SERVER { "0.0.0.0:0" } else { "[::]:0" };
    let socket = rig.client.enter(|| UdpSocket::bind(own)).unwrap();
    socket.connect((server, port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn ask(socket: &UdpSocket, question: &[u8]) -> Vec<u8> {
    let mut answer = vec![0; 65_536];
    socket.send(question).unwrap();
    let bytes = socket.recv(&mut answer).unwrap();
    answer.truncate(bytes);
    answer
}

/// A server that tells its clock: each answer is a difference, and the client gets the primary's.
#[test]
fn a_clock_is_a_miscompare_for_each_answer() {
    if !possible() {
        return;
    }
    for cards in [Cards::TapWithOffloads, Cards::TapWithout, Cards::Cable] {
        let rig = Rig::new(cards, Timestamps::Off);
        rig.compare(None);
        let socket = client_socket(&rig, SERVER, CLOCK);
        let stream = rig.client.enter(|| TcpStream::connect((SERVER, CLOCK))).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        assert!(rig.report().divergences.is_empty(), "a handshake is none");
        let mut last = 0;
        for n in 1..=20 {
            let told = if n % 2 == 0 {
                String::from_utf8(ask(&socket, b"?")).unwrap()
            } else {
                (&stream).write_all(b"?\n").unwrap();
                lines.next().unwrap().unwrap()
            };
            let told: u64 = told.trim().parse().unwrap();
            assert!(told > last);
            last = told;
            let report = rig.report();
            assert!(report.wrong.is_empty(), "{:#?}", report.wrong);
            let differs = |reason: &Reason| matches!(reason, Reason::PayloadDiffers { .. });
            assert!(
                report.divergences.iter().all(|divergence| differs(&divergence.reason)),
                "{:#?}",
                report.divergences
            );
            assert_eq!(report.divergences.len(), n, "{:#?}", report.divergences);
        }
    }
}

/// How much of an answer each machine has said when its client goes away is a matter of time, and neither says more.
#[test]
#[ignore = "the comparator does not hear of it when a client resets a connection: what only one has said waits in vain"]
fn clients_that_go_away() {
    if !possible() {
        return;
    }
    for cards in [Cards::TapWithOffloads, Cards::TapWithout, Cards::Cable] {
        let rig = Rig::new(cards, Timestamps::Off);
        let compare = CompareConfig { timeout: Duration::from_millis(500), ..patient() };
        rig.begin(Orders { way: Way::Compare, compare, seed: None, keeps_ledger: true });
        for n in 0..20 {
            let mut stream = rig.client.enter(|| TcpStream::connect((SERVER, HTTP))).unwrap();
            write!(stream, "GET /20000000/{n} HTTP/1.1\r\n\r\n").unwrap();
            stream.read_exact(&mut [0; 100_000]).unwrap();
        }
        // For longer than anything may wait.
        rig.client_runs(&format!("ping -q -c 20 -i 0.1 {SERVER}"), &[]);
        let report = rig.report();
        assert!(report.wrong.is_empty() && report.divergences.is_empty(), "{report:#?}");
    }
}

/// Both ways, as fast as it goes. Its server tells how much of the CPU it has used, and stops sending when it is told to: that differs.
/// All that was sent until then does not.
#[test]
fn iperf3_both_ways() {
    if !possible() {
        return;
    }
    for cards in [Cards::TapWithOffloads, Cards::TapWithout, Cards::Cable] {
        for (direction, server) in [("", SERVER), (" -R", SERVER), (" -R", SERVER6)] {
            let rig = Rig::new(cards, Timestamps::Off);
            // What it makes up itself depends on how much each write takes.
            let _servers = rig.servers_run("iperf3 -s -1 -F /dev/zero", &[]);
            rig.await_listeners(5201);
            rig.compare(None);
            rig.client_runs(&format!("iperf3 -c {server} -n 64M -F /dev/zero{direction}"), &[]);
            let report = rig.report();
            assert!(report.wrong.is_empty(), "{:#?}", report.wrong);
            // Nearly all, as the end of what was sent may be the first difference.
            assert!(direction.is_empty() || report.checked.0 >= 48 << 20, "{:?}", report.checked);
            // What comes after a difference follows from it: nothing has made the two machines equal.
            let first = report.divergences.first().map(|divergence| divergence.reason);
            let is_the_end = matches!(first, Some(Reason::PayloadDiffers { .. } | Reason::FlagsDiffer));
            assert!(is_the_end, "{:#?}", report.divergences);
        }
    }
}
