//! A disk that several hosts reach, as a storage network has them: a file of this machine, exported over TCP beside the clients, and a block
//! device that each dom0's own NBD client makes of it. What each dom0's kernel has of it in its cache is its own.
//!
//! ```text
//!   guest -- /dev/nbd0 -- colo disk serve --shared -- /dev/nbd1 of A --+
//!                                                                      +-- 10.9.0.254 -- a file
//!   guest -- /dev/nbd0 -- colo disk serve --shared -- /dev/nbd1 of B --+
//! ```

use crate::context::Context;
use crate::disk::SIZE_BYTES;
use crate::host::Host;
use crate::net::{CLIENTS, Network};
use crate::process::{Process, Stopper};
use anyhow::{Context as _, Result, ensure};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// dom0's block device.
pub(crate) const LUN: &str = "/dev/nbd1";
const PORT: u16 = 10809;
/// How long a look from without may take.
const LOOK_LIMIT: Duration = Duration::from_secs(60);

/// A disk for several hosts. Dropped, it is gone for them, and its file stays.
pub(crate) struct Lun<'a> {
    context: &'a Context,
    path: PathBuf,
    _server: Process,
}

impl<'a> Lun<'a> {
    /// A new one, of nothing but zeroes.
    pub(crate) fn new(context: &'a Context, network: &Network) -> Result<Lun<'a>> {
        let path = context.run_folder().join("lun.img");
        File::create(&path)?.set_len(SIZE_BYTES)?;
        let mut command = network.command(context.colo());
        command.args(["--json", "disk", "serve", "--tcp", &format!("{CLIENTS}:{PORT}"), "--backing"]).arg(&path);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut server = context.stopper().start(command, "the LUN's server")?;
        let said = server.stdout().context("it has a pipe")?;
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line)?;
        ensure!(line.contains("\"listening\""), "the LUN's server says {line:?}");
        Ok(Lun { context, path, _server: server })
    }

    /// Makes it a block device of a host, with blocks of this size.
    pub(crate) fn connect(&self, host: &Host, block_bytes: u32) -> Result<()> {
        host.sh(&format!("modprobe nbd && nbd-client {CLIENTS} {PORT} {LUN} -N disk -block-size {block_bytes}"))?;
        let known = host.sh(&format!("blockdev --getss {LUN} && blockdev --getsize64 {LUN}"))?.stdout;
        ensure!(known == format!("{block_bytes}\n{SIZE_BYTES}\n"), "{LUN} of host {}: {known:?}", host.name());
        Ok(())
    }

    /// Ends the block device.
    pub(crate) fn disconnect(&self, host: &Host) -> Result<()> {
        host.sh(&format!("nbd-client -d {LUN}"))?;
        Ok(())
    }

    /// Writes to its file, from without.
    pub(crate) fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        Ok(File::options().write(true).open(&self.path)?.write_all_at(bytes, at)?)
    }

    /// All that is in its file.
    pub(crate) fn read(&self) -> Result<Vec<u8>> {
        Ok(fs::read(&self.path)?)
    }

    /// Whether its file has a file system that was unmounted, and a guest's ledger on it with so many entries, the same in the database and
    /// in the log, and nothing that the database's own check finds; looked at by programs of this machine, and by no dom0.
    pub(crate) fn ensure_ledger(&self, entries: usize) -> Result<()> {
        let packages = self.context.packages();
        let mut check = packages.command("/sbin/fsck.ext4")?;
        check.args(["-f", "-n"]).arg(&self.path);
        run(self.context.stopper(), check, "fsck.ext4 of the LUN")?;
        let folder = self.context.run_folder();
        let files = ["ledger.db", "log"].map(|name| (name, folder.join(name)));
        for (name, to) in &files {
            let mut dump = packages.command("/sbin/debugfs")?;
            dump.arg("-R").arg(format!("dump /{name} {}", to.display())).arg(&self.path);
            run(self.context.stopper(), dump, "debugfs of the LUN")?;
        }
        let [(_, database), (_, log)] = &files;
        ensure!(self.ask(database, "PRAGMA integrity_check")? == "ok\n", "the database's own check, on the LUN");
        let rows = self.ask(database, "SELECT number || ' ' || text FROM ledger ORDER BY number")?;
        ensure!(rows == fs::read_to_string(log)?, "on the LUN the log is not what the database is");
        let there = rows.lines().count();
        ensure!(there == entries, "the LUN has {there} entries instead of {entries}");
        Ok(())
    }

    fn ask(&self, database: &Path, statement: &str) -> Result<String> {
        let mut sqlite = self.context.packages().command("/usr/bin/sqlite3")?;
        sqlite.args(["-batch", "-readonly"]).arg(database).arg(statement);
        run(self.context.stopper(), sqlite, "sqlite3")
    }
}

fn run(stopper: &Stopper, command: Command, name: &str) -> Result<String> {
    stopper.run(command, name, LOOK_LIMIT)
}
