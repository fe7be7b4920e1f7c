use anyhow::{Context, Result, bail};
use colo_core::standalone::{Address, Server, ServerConfig};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const SOCKETS: [&str; 3] = ["primary", "secondary", "out"];

/// Who compares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Contender {
    /// The installed `qemu-system-x86_64`'s `colo-compare`.
    Qemu,
    /// `colo compare`: the same server, in a process of its own.
    Colo,
    /// Nobody: what comes from the primary goes out as it came, and what comes from the secondary goes nowhere. What sockets allow.
    Forwarder,
}

impl Contender {
    /// All of them, in the order of a table.
    pub const ALL: [Contender; 3] = [Contender::Qemu, Contender::Colo, Contender::Forwarder];

    /// Starts it in a process of its own, with sockets in a directory of its own, and connects to it.
    ///
    /// # Errors
    /// When it does not start, or is not installed.
    pub fn start(self) -> Result<Running> {
        let directory = Directory::new()?;
        let path = |name: &str| directory.0.join(name);
        let mut listeners = Vec::new();
        if self == Contender::Qemu {
            // It connects before it does anything else. Were it to listen, what it lets out at first would be lost.
            listeners = SOCKETS.iter().map(|name| UnixListener::bind(path(name))).collect::<Result<_, _>>()?;
        }
        let mut child = Process(match self {
            Contender::Qemu => qemu(&directory.0)?,
            Contender::Colo => role("colo", &directory.0)?,
            Contender::Forwarder => role("forwarder", &directory.0)?,
        });
        let mut sockets = Vec::new();
        for listener in &listeners {
            listener.set_nonblocking(true)?;
            sockets.push(insist(&mut child.0, || Ok(listener.accept()?.0))?);
        }
        for name in &SOCKETS[sockets.len()..] {
            sockets.push(insist(&mut child.0, || UnixStream::connect(path(name)))?);
        }
        let [primary, secondary, out] = sockets.try_into().expect("as many sockets as names");
        for socket in [&out, &secondary, &primary] {
            socket.set_nonblocking(true)?;
        }
        Ok(Running { primary, secondary, out, child, _directory: directory })
    }
}

/// A comparator that runs, and the driver's ends of its sockets. Ends when this is dropped.
#[derive(Debug)]
pub struct Running {
    pub(super) primary: UnixStream,
    pub(super) secondary: UnixStream,
    pub(super) out: UnixStream,
    child: Process,
    _directory: Directory,
}

impl Running {
    /// Time that all its threads have been on a processor, by the kernel's account.
    ///
    /// # Errors
    /// When it is gone.
    pub fn cpu(&self) -> Result<Duration> {
        let mut nanos = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.0.id()))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
            let on_cpu = text.split_whitespace().next().context("an empty schedstat")?;
            nanos += on_cpu.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanos))
    }
}

/// If the program was started for a role, plays it until it is killed; otherwise returns `false` at once.
///
/// # Errors
/// When the role cannot be played.
pub fn play_role() -> Result<bool> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["comparator", "colo", directory] => compare(Path::new(directory))?,
        ["comparator", "forwarder", directory] => forward(Path::new(directory))?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn role(role: &str, directory: &Path) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    Ok(command.args(["comparator", role]).arg(directory).stdin(Stdio::null()).spawn()?)
}

fn qemu(directory: &Path) -> Result<Child> {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-machine", "none", "-nodefaults", "-nographic", "-S", "-monitor", "none", "-serial", "none"]);
    for name in SOCKETS {
        let path = directory.join(name);
        command.arg("-chardev").arg(format!("socket,id={name},path={}", path.display()));
    }
    command.args(["-object", "iothread,id=t", "-object"]);
    command.arg("colo-compare,id=c,primary_in=primary,secondary_in=secondary,outdev=out,iothread=t");
    command.stdin(Stdio::null()).spawn().context("qemu-system-x86_64")
}

fn compare(directory: &Path) -> Result<()> {
    let at = |name: &str| Address::Unix(directory.join(name));
    let mut server = Server::bind(&ServerConfig::new(at("primary"), at("secondary"), at("out")))?;
    let (never, _end) = UnixStream::pair()?;
    Ok(server.run(&never)?)
}

fn forward(directory: &Path) -> Result<()> {
    let listen = |name: &str| UnixListener::bind(directory.join(name));
    let [primary, secondary, out] = SOCKETS.map(listen);
    let (primary, secondary, out) = (primary?.accept()?.0, secondary?.accept()?.0, out?.accept()?.0);
    let mut buffer = vec![0; 256 << 10];
    loop {
        let mut fds = [PollFd::new(&primary, PollFlags::IN), PollFd::new(&secondary, PollFlags::IN)];
        poll(&mut fds, None)?;
        let ready = fds.map(|fd| !fd.revents().is_empty());
        if ready[0] {
            let Some(count) = receive(&primary, &mut buffer)? else {
                return Ok(());
            };
            let mut rest = &buffer[..count];
            while !rest.is_empty() {
                // Waits where there is no room.
                rest = &rest[send(&out, rest, SendFlags::NOSIGNAL)?..];
            }
        }
        if ready[1] && receive(&secondary, &mut buffer)?.is_none() {
            return Ok(());
        }
    }
}

/// `None` when the driver has gone.
fn receive(socket: &UnixStream, buffer: &mut [u8]) -> Result<Option<usize>> {
    match recv(socket, buffer, RecvFlags::DONTWAIT) {
        Ok((0, _)) => Ok(None),
        Ok((count, _)) => Ok(Some(count)),
        Err(Errno::AGAIN) => Ok(Some(0)),
        Err(errno) => Err(errno.into()),
    }
}

/// Tries to get a connection until it is there, or the process has ended.
fn insist(process: &mut Child, connect: impl Fn() -> io::Result<UnixStream>) -> Result<UnixStream> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match connect() {
            Ok(socket) => return Ok(socket),
            Err(error) if Instant::now() > deadline => return Err(error).context("the comparator does not connect"),
            Err(_) => {}
        }
        if let Some(status) = process.try_wait()? {
            bail!("the comparator has ended: {status}");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only when it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[derive(Debug)]
struct Directory(PathBuf);

impl Directory {
    fn new() -> Result<Directory> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("colo-comparators-{}-{number}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Directory(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
