//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use colo_core::compare::{RuleError, Rules};
use colo_core::net::takeover::STATE_FOLDER;
use colo_core::standalone::Address;
use colo_embedded::switch::Forward;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Non-stop service for virtual machines.
#[derive(Parser, Debug)]
#[command(name = "colo", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// Say more on stderr; twice for every packet-less detail
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub(crate) verbose: u8,
    /// One JSON object a line instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "Exit codes:
  0  as asked (stopped, or the guest shut down)
  1  something failed
  2  the command line makes no sense
  3  the secondary has taken over; the guest here was destroyed
  4  the guest crashed
  5  the guest runs on, unprotected: the secondary was lost, or protection could not go on";

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Protect a machine towards another host
    Primary(PrimaryArgs),
    /// Take machines in, and serve when their primary is lost
    #[command(after_help = SECONDARY_HELP)]
    Secondary(SecondaryArgs),
    /// Tell whether a Xen domain can be protected towards another host, and how, before anything is touched
    Check(CheckArgs),
    /// Save a Xen domain into a file, as `xl save` does; `xl restore` takes it too
    Save(SaveArgs),
    /// Restore a Xen domain from a file that `colo save` or `xl save` has written
    Restore(RestoreArgs),
    /// Let a suspended Xen domain go on that nobody else will let go on
    Resume(ResumeArgs),
    /// The domains of this Xen host
    List,
    /// What is known of a Xen domain
    Info(InfoArgs),
    /// Show what is in a domain's image, and whether it is valid
    Inspect(InspectArgs),
    /// Tell what differed at each miscompare that `colo primary` has recorded
    Why(WhyArgs),
    /// Compare the output of two QEMUs, in the place of QEMU's colo-compare
    Compare(CompareArgs),
    /// Mend what killed colos, whose guards were killed, too, have left on this Xen host
    Cleanup(CleanupArgs),
    /// Guests' disks
    #[command(subcommand)]
    Disk(DiskCommand),
    /// The network of this host's guests
    #[command(subcommand)]
    Net(NetCommand),
    /// See it all: a machine protected, killed, and still serving
    Demo(DemoArgs),
    /// The embedded hypervisor's own commands
    #[command(subcommand)]
    Embedded(EmbeddedCommand),
}

#[derive(Subcommand, Debug)]
pub(crate) enum NetCommand {
    /// Put guests' network cards back that a killed colo, and its guard, have left out of their bridges
    Repair(RepairArgs),
}

#[derive(Subcommand, Debug)]
pub(crate) enum DiskCommand {
    /// Serve a file or a block device over NBD, to QEMU, to the kernel (nbd-client), or to any tool that speaks it
    #[command(after_help = DISK_SERVE_HELP)]
    Serve(DiskServeArgs),
    /// What a disk is doing that `colo disk serve --control` serves: whether it is protected, how far the first copy is, what waits
    Status(DiskControlArgs),
    /// Compare a protected guest's disk with what the other host has of it, by hashes, while the guest runs
    #[command(after_help = DISK_VERIFY_HELP)]
    Verify(DiskControlArgs),
    /// Let a guest write again whose disks are shared, and whose secondary was lost: the other host does not serve it, nor will it
    #[command(after_help = DISK_RELEASE_HELP)]
    Release(DiskControlArgs),
}

#[derive(Subcommand, Debug)]
pub(crate) enum EmbeddedCommand {
    /// The LAN between embedded machines and their clients
    Switch(SwitchArgs),
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub(crate) enum ModeArg {
    /// Both machines run; output leaves when both have produced it
    Colo,
    /// One machine runs; output leaves when the checkpoint after it is acknowledged
    Remus,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub(crate) enum HypervisorArg {
    /// A process as a machine, on any Linux
    Embedded,
    /// Xen
    Xen,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub(crate) enum DurabilityArg {
    /// Nothing: it is on its way
    AsyncEpoch,
    /// It is in the secondary's memory
    Memory,
    /// It is durable on the secondary
    Disk,
}

#[derive(Args, Debug)]
pub(crate) struct PrimaryArgs {
    /// The domain to protect; the embedded hypervisor boots it under this name
    #[arg(long, value_name = "NAME")]
    pub(crate) domain: String,
    /// The host that runs `colo secondary`; port 8002 unless given
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) peer: String,
    /// How to protect it
    #[arg(long, value_enum, default_value_t = ModeArg::Colo)]
    pub(crate) mode: ModeArg,
    /// Milliseconds between two checkpoints, at the latest [default: 10000, remus: 20]
    #[arg(long, value_name = "MS", value_parser = millis)]
    pub(crate) interval: Option<Duration>,
    /// Milliseconds that one machine may say something that the other does not [default: 200]
    #[arg(long, value_name = "MS", value_parser = millis)]
    pub(crate) compare_timeout: Option<Duration>,
    /// Flows that are not compared, or not in all their bytes: a file of rules (docs/miscompares.md)
    #[arg(long, value_name = "FILE", value_parser = rules)]
    pub(crate) compare_rules: Option<Rules>,
    /// Milliseconds between two heartbeats; five missed are a death
    #[arg(long, value_name = "MS", default_value = "100", value_parser = millis)]
    pub(crate) heartbeat: Duration,
    /// The hypervisor [default: xen on a Xen host, else embedded]
    #[arg(long, value_enum)]
    pub(crate) hypervisor: Option<HypervisorArg>,
    /// Shell command that makes sure a lost secondary does not serve (exit code 0: it does not)
    #[arg(long, value_name = "COMMAND")]
    pub(crate) fence_command: Option<String>,
    /// Xen: seconds that the guest has to answer when it is asked to suspend itself, and then again to do it
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) suspend_timeout: u64,
    /// Xen: begin even though `colo check` finds something in the way
    #[arg(long)]
    pub(crate) force: bool,
    /// Xen: the control socket of the disk server that has what the guest writes to (`colo disk serve --control`; docs/disks.md)
    #[arg(long, value_name = "PATH")]
    pub(crate) disk_control: Option<PathBuf>,
    /// Xen: protect a guest with writable disks, though what it writes is not: for disks of which nothing matters
    #[arg(long, conflicts_with = "disk_control")]
    pub(crate) unsafe_disk: bool,
    /// Hash the guest's whole memory at each checkpoint, for the secondary to verify
    #[arg(long)]
    pub(crate) verify: bool,
    /// Write what both machines had said at each miscompare to a new file, for Wireshark and `colo why`; 64 MiB at most
    #[arg(long, value_name = "FILE.pcapng")]
    pub(crate) record_miscompares: Option<PathBuf>,
    /// For tests: die, as by `kill -9`, just before the Nth call of a callback of the save loop
    #[arg(long, value_name = "CALLBACK:N", hide = true, value_parser = fault)]
    pub(crate) die_at: Option<(String, u64)>,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
}

#[derive(Args, Debug)]
pub(crate) struct MachineArgs {
    /// Embedded: guest memory in MiB, 16 to 4096
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(16..=4096))]
    pub(crate) memory: u64,
    /// Embedded: the guest's disk, a file or a block device; the secondary has one of the same size
    #[arg(long, value_name = "FILE")]
    pub(crate) disk: Option<PathBuf>,
    /// Embedded: what a flush of the guest's waits for on the secondary (docs/disks.md)
    #[arg(long, value_enum, default_value_t = DurabilityArg::AsyncEpoch, requires = "disk")]
    pub(crate) durability: DurabilityArg,
    /// Embedded: the guest's address
    #[arg(long, value_name = "IPV4", default_value_t = Ipv4Addr::new(10, 77, 0, 10))]
    pub(crate) ip: Ipv4Addr,
    /// Embedded: the switch's socket
    #[arg(long, value_name = "PATH", default_value_os_t = default_socket())]
    pub(crate) switch: PathBuf,
}

const SECONDARY_HELP: &str = "A primary whose process is gone is taken over from at once: its host closes the connection. One that is only silent may live \
behind a cut link. Then a --fence-command makes sure that it is dead; without one the machine is held: it stands still, and nobody is \
served by it, until SIGUSR1 says that the primary is dead (kill -USR1 PID), until a primary greets again, or until SIGINT or SIGTERM.";

#[derive(Args, Debug)]
pub(crate) struct SecondaryArgs {
    /// Where to listen
    #[arg(long, value_name = "ADDR[:PORT]", num_args = 0..=1, default_missing_value = "0.0.0.0:8002", required = true)]
    pub(crate) listen: String,
    /// The hypervisor [default: xen on a Xen host, else embedded]
    #[arg(long, value_enum)]
    pub(crate) hypervisor: Option<HypervisorArg>,
    /// Shell command that makes sure a lost primary does not serve (exit code 0: it does not)
    #[arg(long, value_name = "COMMAND")]
    pub(crate) fence_command: Option<String>,
    /// Take over from a silent primary though nothing makes sure that it is dead: if only the link is cut, both serve
    #[arg(long, conflicts_with = "fence_command")]
    pub(crate) promote_unfenced: bool,
    /// Embedded: what becomes the disk of a machine that has one; of the same size as the primary's
    #[arg(long, value_name = "FILE", requires = "journal")]
    pub(crate) disk: Option<PathBuf>,
    /// Embedded: where what is written waits for its checkpoint; made when it is not there
    #[arg(long, value_name = "FILE", requires = "disk")]
    pub(crate) journal: Option<PathBuf>,
    /// Xen: the control socket of the disk server that has the disk of a machine that has one (`colo disk serve --journal --control`)
    #[arg(long, value_name = "PATH")]
    pub(crate) disk_control: Option<PathBuf>,
    /// Verify the guest's whole memory after each checkpoint whose primary hashes it
    #[arg(long)]
    pub(crate) verify: bool,
    /// Embedded: the switch's socket
    #[arg(long, value_name = "PATH", default_value_os_t = default_socket())]
    pub(crate) switch: PathBuf,
}

#[derive(Args, Debug)]
#[command(after_help = CHECK_HELP)]
pub(crate) struct CheckArgs {
    /// The domain: its name or its number
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) domain: String,
    /// The host that runs `colo secondary`; port 8002 unless given
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) peer: String,
    /// The mode in which it is to be protected [default: both are told of]
    #[arg(long, value_enum)]
    pub(crate) mode: Option<ModeArg>,
    /// The control socket of this host's disk server, as `colo primary` will be told it
    #[arg(long, value_name = "PATH")]
    pub(crate) disk_control: Option<PathBuf>,
    /// Take the risk of a writable disk, which is not protected
    #[arg(long, conflicts_with = "disk_control")]
    pub(crate) unsafe_disk: bool,
}

const CHECK_HELP: &str = "Each line is `ok`, `warning` or `failure`, with what to do about it. \
Exit code 0: nothing fails; 1: something does.";

#[derive(Args, Debug)]
pub(crate) struct SaveArgs {
    /// The domain: its name or its number
    pub(crate) domain: String,
    /// Where to; what stands there is replaced once the image is whole
    pub(crate) file: PathBuf,
    /// Copy memory while the guest runs, so that it stands still for a moment only
    #[arg(long)]
    pub(crate) live: bool,
    /// Let the guest run on; otherwise it is gone from this host once the image is safe
    #[arg(long)]
    pub(crate) leave_running: bool,
    /// Seconds that the guest has to answer when it is asked to suspend itself, and then again to do it
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) suspend_timeout: u64,
}

#[derive(Args, Debug)]
pub(crate) struct RestoreArgs {
    /// The image
    pub(crate) file: PathBuf,
    /// Leave the guest paused
    #[arg(long)]
    pub(crate) paused: bool,
    /// Another name than the one in the image
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct ResumeArgs {
    /// The domain: its name or its number. Never one of which there is an image that has been restored, here or elsewhere
    pub(crate) domain: String,
}

#[derive(Args, Debug)]
pub(crate) struct InfoArgs {
    /// The domain: its name or its number
    pub(crate) domain: String,
}

#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    /// The image, as `xl save` or `colo save` writes it, or the libxl or libxc stream in it; - for stdin
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// One line a record: offset, length, layer, name, and what it says
    #[arg(long)]
    pub(crate) records: bool,
}

#[derive(Args, Debug)]
pub(crate) struct WhyArgs {
    /// The recording, or any pcapng file with one interface for each machine; - for stdin
    #[arg(value_name = "FILE.pcapng")]
    pub(crate) file: PathBuf,
}

#[derive(Args, Debug)]
#[command(after_help = COMPARE_HELP)]
pub(crate) struct CompareArgs {
    /// Where the primary's frames come in
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) primary_in: Address,
    /// Where the secondary's frames come in
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) secondary_in: Address,
    /// Where the primary's frames go out that the secondary has sent, too
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) out: Address,
    /// Where the toolstack is asked for checkpoints, and tells of them
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) notify: Option<Address>,
    /// Frames have vnet headers (QEMU's vnet_hdr_support=on)
    #[arg(long)]
    pub(crate) vnet_hdr: bool,
    /// Milliseconds that a frame of the one machine waits for the other's
    #[arg(long, value_name = "MS", default_value = "3000", value_parser = millis)]
    pub(crate) compare_timeout: Duration,
    /// Flows that are not compared, or not in all their bytes: a file of rules (docs/miscompares.md)
    #[arg(long, value_name = "FILE", value_parser = rules)]
    pub(crate) compare_rules: Option<Rules>,
}

const COMPARE_HELP: &str = "ADDRESS is the path of a Unix socket, or tcp:HOST:PORT; all are listened at.

Without --notify nobody takes checkpoints: differences are logged, and what was held leaves. \
Stops on Ctrl-C or SIGTERM, and tells what it has done; on SIGUSR1 it tells, and goes on.";

#[derive(Args, Debug)]
pub(crate) struct DiskServeArgs {
    /// The disk; it has the size that it has. Once for each disk of a guest, in the order of its configuration
    #[arg(long, value_name = "FILE_OR_DEVICE", required = true)]
    pub(crate) backing: Vec<PathBuf>,
    /// The Unix socket at which clients connect; for this user alone
    #[arg(long, value_name = "PATH", required_unless_present = "tcp")]
    pub(crate) socket: Option<PathBuf>,
    /// The address and the port at which clients connect, too, or instead: for whoever reaches them. NBD has neither passwords nor
    /// encryption: use a network that is yours alone
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) tcp: Option<SocketAddr>,
    /// The export's name, once for each --backing; a client that names none gets the first [default: disk; of several disk0, disk1, ...]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Vec<String>,
    /// Clients may not write; several colos may serve the same disk then
    #[arg(long)]
    pub(crate) read_only: bool,
    /// The disk is a protected guest's: the Unix socket at which `colo primary` or `colo secondary` drives it; for this user alone
    #[arg(long, value_name = "PATH", conflicts_with = "read_only")]
    pub(crate) control: Option<PathBuf>,
    /// With --control: the disk is the secondary's, until it takes over. What the primary's guest writes waits in this file until it counts; it is made if it is
    /// not there, belongs to these disks alone, and is best on another device
    #[arg(long, value_name = "FILE", requires = "control")]
    pub(crate) journal: Option<PathBuf>,
    /// With --control, on both hosts: both reach this very disk (a LUN). The primary writes to it at once, and a secondary that takes over
    /// first makes it what it was at its epoch. Only with fencing (docs/disks.md)
    #[arg(long, requires = "control", conflicts_with_all = ["durability", "copy_limit"])]
    pub(crate) shared: bool,
    /// With --control: when the flushes of a guest that is protected are done [default: async-epoch]. The secondary's disk minds this, and
    /// the next, once it has taken over
    #[arg(long, value_enum, requires = "control")]
    pub(crate) durability: Option<DurabilityArg>,
    /// With --control: bytes that the first copy sends in a second at most, and that a comparison looks at; K, M and G
    /// are 1024 of each other [default: no limit]
    #[arg(long, value_name = "BYTES_PER_SECOND", requires = "control", value_parser = rate)]
    pub(crate) copy_limit: Option<u64>,
}

const DISK_SERVE_HELP: &str = "Stops on Ctrl-C or SIGTERM. With --control it is one of two, which live as long as the guests do: on the \
primary's host one over the guest's disk, on the secondary's one with a --journal over a disk of the same size. They are idle until \
`colo primary` and `colo secondary` give them a connection; when these end, or are killed, the primary's guest goes on, unprotected. The \
secondary's disk may be read before it is protected, and written once it has taken over, or by its own guest: what that writes is \
forgotten at each checkpoint. A disk that has taken over is a primary's from then on, and can be protected towards another host; that is in its \
journal. To make it a secondary's again: stop its server, and remove the journal.";

#[derive(Args, Debug)]
pub(crate) struct DiskControlArgs {
    /// The Unix socket that `colo disk serve` was given by --control
    #[arg(long, value_name = "PATH")]
    pub(crate) control: PathBuf,
}

const DISK_RELEASE_HELP: &str = "For the primary's disk server, started with --shared. When the secondary is lost, it may take over, and then puts the disk back to its epoch: so what the guest writes waits until `colo primary` says that it will not, which it does by itself, once its fence has succeeded or the other host has said goodbye. If `colo primary` was killed before, nobody says so. MAKE SURE FIRST: if the other host serves the guest all the same, the disk is damaged.";

const DISK_VERIFY_HELP: &str = "For the primary's disk server. All of the disk is read on both hosts, as fast as that server's --copy-limit allows; the guest and its checkpoints go on. Nothing is changed: where the two differ end protection, and begin anew, which copies what differs. Ctrl-C ends it.

Exit codes:
  0  both hosts have the same
  1  they do not, which is told; or something failed, which stderr tells
  5  the guest is not protected (any more): there is nothing to compare with";

#[derive(Args, Debug)]
pub(crate) struct CleanupArgs {
    /// A domain that is cut off here, and that the other host serves: destroy it here
    #[arg(long, value_name = "DOMAIN", conflicts_with = "keep")]
    pub(crate) end: Option<String>,
    /// A domain that is cut off here, and that no other host serves: let it serve on
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) keep: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct RepairArgs {
    /// Also cards that were left out on purpose, since another host may serve their guests: make sure first that none does
    #[arg(long)]
    pub(crate) kept_out: bool,
    /// For tests: where it is written down which cards are taken over
    #[arg(long, value_name = "FOLDER", hide = true, default_value = STATE_FOLDER)]
    pub(crate) state_folder: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct SwitchArgs {
    /// The socket that machines connect to
    #[arg(long, value_name = "PATH", default_value_os_t = default_socket())]
    pub(crate) socket: PathBuf,
    /// Relay connections from an address of this host to one of a guest; may be given several times
    #[arg(long, value_name = "ADDR:PORT=GUEST:PORT")]
    pub(crate) forward: Vec<Forward>,
    /// A TAP device to connect as one more port (root)
    #[arg(long, value_name = "NAME")]
    pub(crate) tap: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// Seconds of load for each of native, Remus and COLO
    #[arg(long, value_name = "S", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) seconds: u64,
    /// Guest memory in MiB, 16 to 4096
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(16..=4096))]
    pub(crate) memory: u64,
}

/// A socket of this user's own.
fn default_socket() -> PathBuf {
    let directory = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    // Without a runtime directory the temporary one is everybody's.
    let user = std::env::var("USER").unwrap_or_else(|_| "nobody".into());
    directory.join(format!("colo-{user}.switch"))
}

fn millis(text: &str) -> Result<Duration, String> {
    match text.parse::<u32>() {
        Ok(millis @ 1..=3_600_000) => Ok(Duration::from_millis(u64::from(millis))),
        _ => Err("give whole milliseconds, from 1 to 3600000".into()),
    }
}

/// Bytes in a second, of which a part of a disk must not take longer than that.
fn rate(text: &str) -> Result<u64, String> {
    let (number, shift) = match text.char_indices().next_back() {
        Some((at, 'K' | 'k')) => (&text[..at], 10),
        Some((at, 'M' | 'm')) => (&text[..at], 20),
        Some((at, 'G' | 'g')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes
        .filter(|bytes| *bytes >= 64 << 10)
        .ok_or("give whole bytes in a second, 64K or more: 100M, for instance".into())
}

fn rules(path: &str) -> Result<Rules, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    text.parse().map_err(|error: RuleError| error.to_string())
}

fn fault(text: &str) -> Result<(String, u64), String> {
    let (callback, call) = text.split_once(':').ok_or("give CALLBACK:N")?;
    Ok((callback.to_owned(), call.parse().map_err(|error| format!("{call:?}: {error}"))?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn rates_have_units() {
        for (text, bytes) in [("65536", 65_536), ("64K", 65_536), ("100M", 100 << 20), ("2g", 2 << 30)] {
            assert_eq!(rate(text), Ok(bytes), "{text}");
        }
        for bad in ["", "M", "0", "63K", "1.5M", "-1M", "100MB", "+", "ä", "17179869184G"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_checked() {
        assert_eq!(millis("20"), Ok(Duration::from_millis(20)));
        for bad in ["0", "-1", "1.5", "3600001", ""] {
            assert!(millis(bad).is_err(), "{bad}");
        }
    }
}
