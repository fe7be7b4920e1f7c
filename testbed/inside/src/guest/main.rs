//! The first and only process of a guest. It shows that it lives, and that it goes on where it was:
//!
//! * every 200 ms it prints `TICK NAME n`, with n from 1 on;
//! * it keeps memory that it checks again and again, and prints `SUM NAME ok n` after the n-th round, or `SUM NAME BAD`;
//! * with an address (`u.ip=10.9.0.11/24` on the kernel's command line) it answers on TCP: an echo on port 7; on port 9 one line
//!   about its memory, checked there and then, for each connection; HTTP on port 80; and on port 81 it takes orders;
//! * with a disk (`u.disk=xvda`) it keeps a ledger there, in a database and in a file, which it serves on port 82.
//!
//! `u.name=NAME` says how it calls itself, `u.dirty=N` how many pages it rewrites with each tick, until it is ordered otherwise. When
//! all that is there it prints `GUEST-READY NAME`.

mod disk;
mod http;
mod ledger;
mod network;
mod orders;
mod services;

use colo_testbed_inside::memory::{CHANGING_PAGES, FIXED_PAGES, Memory};
use rustix::mount::{MountFlags, mount};
use rustix::system::finit_module;
use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const TICK: Duration = Duration::from_millis(200);
/// How much is checked with each tick: all of it about every four seconds, for a tenth of a slow machine's time.
const CHECKED_PAGES: usize = (FIXED_PAGES + CHANGING_PAGES) / 16;

fn main() {
    if let Err(error) = run() {
        println!("GUEST-FAILED {error}");
    }
    // The first process must not end: the kernel would panic, and hide what was said.
    loop {
        std::thread::park();
    }
}

fn run() -> io::Result<()> {
    mount("proc", "/proc", "proc", MountFlags::empty(), None)?;
    mount("sysfs", "/sys", "sysfs", MountFlags::empty(), None)?;
    let options = Options::parse(&fs::read_to_string("/proc/cmdline")?);
    let name = options.name;
    let memory = Arc::new(Mutex::new(Memory::new(FIXED_PAGES, CHANGING_PAGES)));
    let dirty_pages = Arc::new(AtomicUsize::new(options.dirty_pages));
    let watch = network::Watch::new()?;
    let devices = disk::Watch::new()?;
    load_modules()?;
    let disk = options.disk.map(|name| disk::Disk::mount(&devices, &name)).transpose()?.map(Arc::new);
    if let Some((address, prefix)) = options.address {
        network::up(&watch, "lo", Ipv4Addr::LOCALHOST, 8)?;
        network::up(&watch, "eth0", address, prefix)?;
        services::start(&memory, &dirty_pages, disk.as_ref())?;
    }
    // For whoever makes it smaller: with none left, Linux panics.
    let memory_left = fs::read_to_string("/proc/meminfo")?.lines().take(3).collect::<Vec<_>>().join(", ");
    println!("{memory_left}");
    println!("GUEST-READY {name}");
    let mut rounds = 0_u64;
    let mut wrong_pages = 0;
    for tick in 1_u64.. {
        println!("TICK {name} {tick}");
        let (checked, is_round) = {
            let mut memory = memory.lock().expect("no thread panics with the memory");
            memory.dirty(dirty_pages.load(Ordering::Relaxed));
            memory.check_some(CHECKED_PAGES)
        };
        wrong_pages += checked.wrong_pages;
        if checked.wrong_pages > 0 {
            println!("SUM {name} BAD");
        }
        if is_round {
            rounds += 1;
            if wrong_pages == 0 {
                println!("SUM {name} ok {rounds}");
            }
        }
        std::thread::sleep(TICK);
    }
    Ok(())
}

/// The kernel's command line, as far as it is for us.
struct Options {
    name: String,
    address: Option<(Ipv4Addr, u8)>,
    disk: Option<String>,
    dirty_pages: usize,
}

impl Options {
    fn parse(command_line: &str) -> Options {
        let value =
            |key: &str| command_line.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let address = value("u.ip").and_then(|ip| {
            let (address, prefix) = ip.split_once('/')?;
            Some((address.parse().ok()?, prefix.parse().ok()?))
        });
        Options {
            name: value("u.name").unwrap_or("guest").to_owned(),
            address,
            disk: value("u.disk").map(str::to_owned),
            dirty_pages: value("u.dirty").and_then(|pages| pages.parse().ok()).unwrap_or(0),
        }
    }
}

/// Loads what the image's list says, in its order.
fn load_modules() -> io::Result<()> {
    for file in fs::read_to_string("/modules/order")?.lines() {
        let module = File::open(format!("/modules/{file}"))?;
        // A driver whose device is not there may refuse; that the network is missing shows soon enough.
        if let Err(error) = finit_module(&module, c"", 0) {
            println!("{file}: {error}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_from_the_command_line() {
        let options = Options::parse("console=hvc0 quiet u.name=web u.ip=10.9.0.11/24 u.dirty=20 u.disk=xvda\n");
        assert_eq!(options.name, "web");
        assert_eq!(options.address, Some((Ipv4Addr::new(10, 9, 0, 11), 24)));
        assert_eq!(options.disk.as_deref(), Some("xvda"));
        assert_eq!(options.dirty_pages, 20);
        let options = Options::parse("u.ip=nonsense u.dirty=-1 xu.name=no");
        assert_eq!((options.name.as_str(), options.address, options.dirty_pages), ("guest", None, 0));
        assert_eq!(options.disk, None);
    }
}
