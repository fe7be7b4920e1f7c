//! What the two machines serve: the same, byte for byte, but for the clock.

use super::namespace::Namespace;
use super::wire::Dice;
use rustix::event::{PollFd, PollFlags, poll};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::{SystemTime, UNIX_EPOCH};

/// `GET /BYTES/SEED` gives [`body`]; a `PUT` is answered with the sum of what came.
pub(crate) const HTTP: u16 = 80;
/// Datagrams come back.
pub(crate) const ECHO: u16 = 7;
/// A datagram, or a line, is answered with the clock.
pub(crate) const CLOCK: u16 = 37;

/// What the server gives for a seed.
pub(crate) fn body(bytes: usize, seed: u64) -> Vec<u8> {
    let mut dice = Dice::new(seed);
    let mut body: Vec<u8> = (0..bytes.div_ceil(4)).flat_map(|_| (dice.roll(1 << 32) as u32).to_le_bytes()).collect();
    body.truncate(bytes);
    body
}

/// A sum of bytes in which each counts, and its place (FNV-1a).
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// Servers on threads, until this is dropped.
pub(crate) struct Servers {
    /// Its other end is what the threads wait for, too.
    _alive: UnixStream,
}

impl Servers {
    /// Starts all servers of a machine. When this returns they can be talked to.
    pub(crate) fn start(on: &Namespace) -> Servers {
        let (alive, stop) = UnixStream::pair().unwrap();
        on.enter(|| {
            serve(&stop, TcpListener::bind(any(HTTP)).unwrap(), http);
            serve(&stop, TcpListener::bind(any(CLOCK)).unwrap(), clock);
            answer(&stop, UdpSocket::bind(any(ECHO)).unwrap(), |question| question.to_vec());
            answer(&stop, UdpSocket::bind(any(CLOCK)).unwrap(), |_| now().into_bytes());
        });
        Servers { _alive: alive }
    }
}

/// IPv4, too.
fn any(port: u16) -> SocketAddr {
    (Ipv6Addr::UNSPECIFIED, port).into()
}

/// The clock, in as many digits at every time.
fn now() -> String {
    format!("{:020}\n", SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos())
}

/// Whether there is something to do before the end.
fn goes_on(stop: &UnixStream, fd: impl std::os::fd::AsFd) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
    poll(&mut fds, None).unwrap();
    fds[1].revents().is_empty()
}

fn serve(stop: &UnixStream, listener: TcpListener, talk: fn(TcpStream) -> io::Result<()>) {
    let stop = stop.try_clone().unwrap();
    std::thread::spawn(move || {
        while goes_on(&stop, &listener) {
            if let Ok((stream, _)) = listener.accept() {
                // A client that goes away is its own affair.
                std::thread::spawn(move || talk(stream));
            }
        }
    });
}

fn answer(stop: &UnixStream, socket: UdpSocket, reply: fn(&[u8]) -> Vec<u8>) {
    let stop = stop.try_clone().unwrap();
    std::thread::spawn(move || {
        let mut question = vec![0; 65_536];
        while goes_on(&stop, &socket) {
            if let Ok((bytes, from)) = socket.recv_from(&mut question) {
                let _ = socket.send_to(&reply(&question[..bytes]), from);
            }
        }
    });
}

fn clock(stream: TcpStream) -> io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?);
    while lines.read_line(&mut String::new())? > 0 {
        (&stream).write_all(now().as_bytes())?;
    }
    Ok(())
}

/// As little of HTTP/1.1 as curl needs, and nothing that another machine would say differently.
fn http(stream: TcpStream) -> io::Result<()> {
    let mut requests = BufReader::new(stream.try_clone()?);
    loop {
        let (mut head, mut line) = (Vec::new(), String::new());
        while requests.read_line(&mut line)? > 2 {
            head.push(std::mem::take(&mut line).trim_end().to_ascii_lowercase());
        }
        let Some(request) = head.first() else { return Ok(()) };
        let mut words = request.split([' ', '/']).filter(|word| !word.is_empty());
        let field = |name: &str| head.iter().find_map(|line| line.strip_prefix(name));
        let (method, first, second) = (words.next(), words.next(), words.next());
        let number = |word: Option<&str>| word.and_then(|word| word.trim().parse().ok());
        let answer = match (method, number(first), number(second), number(field("content-length:"))) {
            (Some("get"), Some(bytes), Some(seed), _) => body(bytes as usize, seed),
            (Some("put"), _, _, Some(bytes)) => {
                if field("expect:").is_some() {
                    (&stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
                }
                let mut body = vec![0; bytes as usize];
                requests.read_exact(&mut body)?;
                sum(&body).to_string().into_bytes()
            }
            _ => return Ok(()),
        };
        write!(&stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", answer.len())?;
        (&stream).write_all(&answer)?;
    }
}
