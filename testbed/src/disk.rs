//! A guest's disk on its host: a file in dom0's memory, which `colo disk serve` has, and which dom0's own NBD client makes a block device.
//!
//! ```text
//! guest -- blkback or device model -- /dev/nbd0 -- dom0's kernel -- a socket -- colo disk serve -- a file
//! ```

use crate::control::Running;
use crate::host::{COMMAND_LIMIT, Host};
use crate::lun::LUN;
use anyhow::{Context, Result, ensure};
use std::time::Duration;

/// dom0's block device.
pub(crate) const DEVICE: &str = "/dev/nbd0";
/// Where whoever protects the guest drives the disk.
pub(crate) const CONTROL: &str = "/run/colo-disk.control";
/// The file behind it all.
pub(crate) const BACKING: &str = "/tmp/disk.img";
/// Its size: room for a file system with a journal.
pub(crate) const SIZE_BYTES: u64 = 64 << 20;
/// What the block device's are, as docs/disks.md has it.
pub(crate) const BLOCK_BYTES: u32 = 4096;

/// So much of its end no file system has: a scenario may write there.
pub(crate) const FREE_BYTES: u64 = 1 << 20;

const SOCKET: &str = "/run/colo-disk.socket";
const JOURNAL: &str = "/tmp/disk.journal";
/// Where dom0 looks into it.
const LOOK: &str = "/tmp/look";
/// How long a host and its disk may live.
const LIMIT: Duration = Duration::from_secs(7200);
const TERMINATE: u8 = 15;

/// Which of two hosts it is on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    /// The guest's.
    Primary,
    /// The one that has it when the first dies.
    Secondary,
}

/// A disk that is served, and a block device.
pub(crate) struct ServedDisk<'a> {
    host: &'a Host,
    server: Running<'a>,
}

impl<'a> ServedDisk<'a> {
    /// A new disk, of nothing but zeroes, served and connected.
    pub(crate) fn new(host: &'a Host, side: Side) -> Result<ServedDisk<'a>> {
        host.sh(&format!("rm -f {BACKING}; truncate -s {SIZE_BYTES} {BACKING}"))?;
        ServedDisk::serve(host, side, BACKING)
    }

    /// One that is the other host's, too: a [LUN](crate::lun::Lun) that is connected.
    pub(crate) fn shared(host: &'a Host, side: Side) -> Result<ServedDisk<'a>> {
        ServedDisk::serve(host, side, &format!("{LUN} --shared"))
    }

    fn serve(host: &'a Host, side: Side, backing: &str) -> Result<ServedDisk<'a>> {
        host.sh(&format!("rm -f {JOURNAL}"))?;
        let journal = match side {
            Side::Primary => String::new(),
            Side::Secondary => format!(" --journal {JOURNAL}"),
        };
        let command = format!(
            "exec colo --json disk serve --backing {backing} --socket {SOCKET} --control {CONTROL}{journal} -v \
             2>>/var/log/xen/colo-disk.log"
        );
        let mut server = host.spawn(&command, LIMIT)?;
        server.wait_said("\"listening\"")?;
        let disk = ServedDisk { host, server };
        disk.connect(1, BLOCK_BYTES)?;
        Ok(disk)
    }

    /// Makes the block device, by so many connections to the server.
    pub(crate) fn connect(&self, connections: u32, block_bytes: u32) -> Result<()> {
        self.host.sh(&format!(
            "modprobe -a nbd xen-blkback && nbd-client -N disk -C {connections} -unix {SOCKET} {DEVICE} -block-size {block_bytes}"
        ))?;
        let size = self.host.sh(&format!("blockdev --getsize64 {DEVICE}"))?.stdout;
        ensure!(size.trim() == SIZE_BYTES.to_string(), "{DEVICE} has {} bytes instead of {SIZE_BYTES}", size.trim());
        Ok(())
    }

    /// Ends the block device.
    pub(crate) fn disconnect(&self) -> Result<()> {
        self.host.sh(&format!("nbd-client -d {DEVICE}"))?;
        Ok(())
    }

    /// Makes an ext4 file system, as it is usual, but for the [end](FREE_BYTES) of the disk.
    pub(crate) fn make_file_system(&self) -> Result<()> {
        self.host.sh(&format!("mkfs.ext4 -q {DEVICE} {}k", (SIZE_BYTES - FREE_BYTES) / 1024))?;
        Ok(())
    }

    /// Whether a guest's ledger is there as dom0's kernel and programs read it: so many entries, the same in the database and in the
    /// log, and nothing that the database's own check finds.
    pub(crate) fn ensure_ledger(&self, entries: usize) -> Result<()> {
        let sqlite = format!("sqlite3 -readonly {LOOK}/ledger.db");
        let looked = self.host.sh(&format!(
            "modprobe ext4 && mkdir -p {LOOK} && mount -t ext4 -o ro {DEVICE} {LOOK} || exit 1; \
             {sqlite} \"SELECT number || ' ' || text FROM ledger ORDER BY number\" | cmp - {LOOK}/log && \
             {sqlite} 'PRAGMA integrity_check; SELECT count(*) FROM ledger'; \
             code=$?; umount {LOOK}; exit $code"
        ));
        let looked = looked.context("the ledger, from without")?.stdout;
        ensure!(looked == format!("ok\n{entries}\n"), "the ledger, from without: {looked:?}, of {entries} entries");
        Ok(())
    }

    /// Ends the block device and then the server, which settles what it has.
    pub(crate) fn stop(self) -> Result<()> {
        self.disconnect()?;
        self.server.signal(TERMINATE)?;
        let ended = self.server.wait()?;
        ensure!(ended.is_good(), "colo disk serve: {:?} (why is in its log)", ended.outcome);
        Ok(())
    }
}

/// Whether the file system of a device, or in a file, is as one that was unmounted must be. Says how long the look took.
pub(crate) fn ensure_file_system_clean(host: &Host, path: &str) -> Result<Duration> {
    let checked = host.try_sh(&format!("fsck.ext4 -f -n {path}"), COMMAND_LIMIT)?;
    ensure!(checked.is_good(), "fsck.ext4 {path}: {:?}: {}{}", checked.outcome, checked.stdout, checked.stderr);
    Ok(checked.elapsed)
}
