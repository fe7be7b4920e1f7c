use super::{Contender, Folder};
use anyhow::{Context, Result};
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// A process that ends with this.
pub(super) struct Running(Child);

impl Running {
    /// Starts one that takes over a socket which listens already (systemd's way), so that nobody has to wait for it.
    pub(super) fn activated(program: &str, arguments: &[&OsStr], socket: &Path) -> Result<Running> {
        let listener = UnixListener::bind(socket)?;
        let script = "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\"";
        let installed = Command::new(program).arg("--version").stdout(Stdio::null()).status();
        installed.with_context(|| format!("{program} is needed"))?;
        let mut shell = Command::new("sh");
        shell.args(["-c", script, program]).args(arguments).stdin(OwnedFd::from(listener));
        Ok(Running(shell.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?))
    }

    /// Starts one that is talked to over its standard input and output.
    pub(super) fn talking(command: &mut Command) -> Result<(Running, ChildStdin, ChildStdout)> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = child.with_context(|| format!("{name} is needed"))?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let running = Running(child);
        let (input, output) = pipes.context("its pipes")?;
        Ok((running, input, output))
    }

    pub(super) fn process(&self) -> u32 {
        self.0.id()
    }

    /// The processor time of its threads, those that have ended, too.
    pub(super) fn cpu_time(&self) -> Result<Duration> {
        let told = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        // Behind the name, which may be anything: proc(5), utime and stime, in hundredths of a second.
        let fields = told.rsplit_once(')').context("/proc/PID/stat")?.1.split_whitespace().skip(11).take(2);
        let ticks: u64 = fields.map(str::parse::<u64>).sum::<Result<_, _>>()?;
        Ok(Duration::from_millis(ticks * 10))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `qemu-nbd`.
pub struct QemuNbd {
    socket: PathBuf,
    running: Running,
}

impl QemuNbd {
    /// Over this disk.
    ///
    /// # Errors
    /// When it is not there, or does not start.
    pub fn start(folder: &Folder, disk: &Path) -> Result<QemuNbd> {
        let socket = folder.path("qemu-nbd");
        let options = ["--persistent", "--format=raw", "--cache=writeback", "--shared=8", "--export-name=disk"];
        let arguments: Vec<&OsStr> = options.iter().map(OsStr::new).chain([disk.as_os_str()]).collect();
        let running = Running::activated("qemu-nbd", &arguments, &socket)?;
        Ok(QemuNbd { socket, running })
    }
}

impl Contender for QemuNbd {
    fn socket(&self) -> &Path {
        &self.socket
    }

    fn processes(&self) -> Vec<u32> {
        vec![self.running.process()]
    }

    fn cpu_time(&self) -> Result<Duration> {
        self.running.cpu_time()
    }
}

/// `nbdkit file`.
pub struct NbdKit {
    socket: PathBuf,
    running: Running,
}

impl NbdKit {
    /// Over this disk.
    ///
    /// # Errors
    /// When it is not there, or does not start.
    pub fn start(folder: &Folder, disk: &Path) -> Result<NbdKit> {
        let socket = folder.path("nbdkit");
        let options = ["--foreground", "--exportname=disk", "file"];
        let arguments: Vec<&OsStr> = options.iter().map(OsStr::new).chain([disk.as_os_str()]).collect();
        let running = Running::activated("nbdkit", &arguments, &socket)?;
        Ok(NbdKit { socket, running })
    }
}

impl Contender for NbdKit {
    fn socket(&self) -> &Path {
        &self.socket
    }

    fn processes(&self) -> Vec<u32> {
        vec![self.running.process()]
    }

    fn cpu_time(&self) -> Result<Duration> {
        self.running.cpu_time()
    }
}
