//! Short programs that embed colo; each is a binary under `src/bin/`. Here is what they need beside it: a LAN, and a client.

use anyhow::{Context, Result, ensure};
use colo_embedded::switch::{Forward, Switch, SwitchConfig};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

/// Where guests are, unless told otherwise; their web server is at port 80.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
/// How long a client waits for an answer.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The longest answer that [`http`] takes.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// A switch in a thread of this program, which relays one address of this host to the guest's web server. Ends when dropped.
pub struct Lan {
    socket: PathBuf,
    web: SocketAddr,
    /// Dropped to stop the switch.
    stopper: Option<UnixStream>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Lan {
    /// Starts it.
    ///
    /// # Errors
    /// When the switch's sockets are not to be had.
    pub fn start() -> Result<Lan> {
        let socket = std::env::temp_dir().join(format!("colo-example-{}.switch", std::process::id()));
        let mut config = SwitchConfig::new(&socket);
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        config.forwards.push(Forward { listen, target: SocketAddrV4::new(GUEST, 80) });
        let mut switch = Switch::new(&config)?;
        let web = switch.forward_addrs()?[0];
        let (stop, stopper) = UnixStream::pair()?;
        let thread = Some(std::thread::spawn(move || switch.run(stop).map(drop)));
        Ok(Lan { socket, web, stopper: Some(stopper), thread })
    }

    /// The switch's socket, for machines.
    pub fn switch(&self) -> &Path {
        &self.socket
    }

    /// Connects with the guest's web server, as a client.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn connect(&self) -> Result<TcpStream> {
        let client = TcpStream::connect(self.web)?;
        client.set_nodelay(true)?;
        client.set_read_timeout(Some(PATIENCE))?;
        Ok(client)
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        self.stopper.take();
        // A switch that failed has been of no use to anybody by now.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Sends a request, and returns the body of the answer. The connection stays open for the next.
///
/// # Errors
/// Those of the socket; an answer that is not "200 OK" or "201 Created", or has no length.
pub fn http(client: &mut TcpStream, method: &str, path: &str, body: &str) -> Result<String> {
    write!(client, "{method} {path} HTTP/1.1\r\nHost: guest\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
    // The answer is read to its end and the server sends nothing unasked, so that the reader holds nothing back.
    let mut answer = BufReader::new(client);
    let mut line = String::new();
    answer.read_line(&mut line)?;
    ensure!(line.starts_with("HTTP/1.1 20"), "{method} {path}: {line:?}");
    let mut length = None;
    while !line.trim_end().is_empty() {
        line.clear();
        answer.read_line(&mut line)?;
        if let Some((name, value)) = line.split_once(':') {
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(value.trim().parse::<usize>()?);
            }
        }
    }
    let length = length.filter(|&length| length <= MAX_ANSWER_BYTES).context("an answer of no or too great length")?;
    let mut bytes = vec![0; length];
    answer.read_exact(&mut bytes)?;
    Ok(String::from_utf8(bytes)?)
}
