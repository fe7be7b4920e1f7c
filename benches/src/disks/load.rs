use super::Contender;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What fio does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pattern {
    /// 4 KiB each, anywhere.
    RandomWrites,
    /// The same, read.
    RandomReads,
    /// 1 MiB each, one behind the other.
    Writes,
    /// The same, read.
    Reads,
}

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// What.
    pub pattern: Pattern,
    /// Requests under way at once.
    pub depth: u32,
    /// How long.
    pub time: Duration,
    /// On so much of the disk.
    pub bytes: u64,
    /// On which processors fio and the server may run.
    pub processors: Processors,
}

/// Some of this machine's processors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Processors {
    /// All.
    All,
    /// One, for both: nobody has to be woken on another, which takes a virtual machine longer than a short request does.
    One,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Requests in a second.
    pub rate: f64,
    /// Bytes in a second.
    pub bytes_rate: f64,
    /// The server's processor time for each request, with what it does behind them.
    pub cpu: Duration,
}

impl Processors {
    /// As the kernel writes it.
    fn list(self) -> Result<String> {
        match self {
            Processors::All => Ok(std::fs::read_to_string("/sys/devices/system/cpu/online")?.trim().to_owned()),
            Processors::One => Ok("0".to_owned()),
        }
    }
}

impl Load {
    /// Has fio do it.
    ///
    /// # Errors
    /// When fio is not there, or a request fails.
    pub fn run(&self, server: &dyn Contender) -> Result<Measured> {
        let (rw, size) = match self.pattern {
            Pattern::RandomWrites => ("randwrite", "4k"),
            Pattern::RandomReads => ("randread", "4k"),
            Pattern::Writes => ("write", "1m"),
            Pattern::Reads => ("read", "1m"),
        };
        let uri = format!("--uri=nbd+unix:///{}?socket={}", server.export(), server.socket().display());
        let millis = format!("--runtime={}ms", self.time.as_millis());
        let (depth, bytes) = (format!("--iodepth={}", self.depth), format!("--size={}", self.bytes));
        let processors = self.processors.list()?;
        for process in server.processes() {
            let mut taskset = Command::new("taskset");
            taskset.args(["--all-tasks", "--cpu-list", "--pid", &processors, &process.to_string()]);
            let set = taskset.stdout(Stdio::null()).status().context("taskset is needed (Debian: util-linux)")?;
            ensure!(set.success(), "taskset: {set}");
        }
        let before = server.cpu_time()?;
        let fio = Command::new("taskset")
            .args(["--cpu-list", &processors, "fio"])
            .args(["--name=load", "--ioengine=nbd", "--output-format=json", "--time_based", "--norandommap"])
            .args([uri, millis, depth, bytes, format!("--rw={rw}"), format!("--bs={size}")])
            .output()
            .context("fio is needed, with its engine for NBD (Debian: fio)")?;
        server.settle()?;
        let cpu = server.cpu_time()? - before;
        ensure!(
            fio.status.success(),
            "fio: {}{}",
            String::from_utf8_lossy(&fio.stderr),
            String::from_utf8_lossy(&fio.stdout)
        );
        let said = String::from_utf8_lossy(&fio.stdout);
        // It has remarks, too.
        let told = said
            .find(
                "{
",
            )
            .map(|start| &said[start..])
            .context("fio tells nothing")?;
        let told: Value = serde_json::from_str(told).context("what fio tells")?;
        let side = &told["jobs"][0][if rw.ends_with("read") { "read" } else { "write" }];
        let number = |name: &str| side[name].as_f64().with_context(|| format!("fio tells no {name}"));
        let requests = number("total_ios")?;
        ensure!(requests > 0.0, "fio has done nothing");
        Ok(Measured { rate: number("iops")?, bytes_rate: number("bw_bytes")?, cpu: cpu.div_f64(requests) })
    }
}
