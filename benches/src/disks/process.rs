use super::{Contender, Folder};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A process that ends with this.
pub(super) struct Running(Child);

impl Running {
    pub(super) fn start(command: &mut Command) -> Result<Running> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Ok(Running(child.with_context(|| format!("{name} is needed"))?))
    }

    /// Waits until it listens there.
    pub(super) fn listens_at(mut self, socket: &Path) -> Result<Running> {
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::os::unix::net::UnixStream::connect(socket).is_err() {
            ensure!(self.0.try_wait()?.is_none(), "it has ended instead of listening at {}", socket.display());
            ensure!(Instant::now() < deadline, "nobody listens at {}", socket.display());
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(self)
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
        let mut command = Command::new("qemu-nbd");
        command.args(["--persistent", "--format=raw", "--cache=writeback", "--shared=8", "--export-name=disk"]);
        let running = Running::start(command.arg("--socket").arg(&socket).arg(disk))?.listens_at(&socket)?;
        Ok(QemuNbd { socket, running })
    }
}

impl Contender for QemuNbd {
    fn socket(&self) -> &Path {
        &self.socket
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
        let mut command = Command::new("nbdkit");
        command.args(["--foreground", "--exportname=disk", "--unix"]).arg(&socket).arg("file").arg(disk);
        let running = Running::start(&mut command)?.listens_at(&socket)?;
        Ok(NbdKit { socket, running })
    }
}

impl Contender for NbdKit {
    fn socket(&self) -> &Path {
        &self.socket
    }

    fn cpu_time(&self) -> Result<Duration> {
        self.running.cpu_time()
    }
}
