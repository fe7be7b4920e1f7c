//! dom0's agent: runs what the testbed asks for, and tells it what Xen's logs say.
//!
//! It is started by the image's `/init` when Xen's daemons run, and ends when the testbed asks for it; `/init` then switches the host
//! off. `dom0-agent answer` and `dom0-agent trips ADDRESS` are the two ends of a measurement of the link.

mod logs;
mod run;
mod trips;

use colo_testbed_inside::ports;
use colo_testbed_inside::protocol::{PORT_NAME, ProtocolError, Report, Request, read_frame};
use run::Commands;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => serve().map_err(|error| error.to_string()),
        ["answer"] => answer().map_err(|error| error.to_string()),
        ["trips", address] => trips(address),
        _ => Err("it is started without arguments, with `answer`, or with `trips ADDRESS`".to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dom0-agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), ProtocolError> {
    let mut port = open_port()?;
    let reports = Reports(Arc::new(Mutex::new(port.try_clone()?)));
    let logs = reports.clone();
    let mut follower = logs::Follower::new(Path::new("/var/log/xen"))?;
    std::thread::spawn(move || {
        if let Err(error) = follower.run(&logs) {
            eprintln!("dom0-agent: logs: {error}");
        }
    });
    let commands = Commands::default();
    reports.say(&Report::Ready { uptime_ms: uptime_ms() })?;
    while let Some(frame) = read_frame(&mut port)? {
        match Request::decode(&frame)? {
            Request::Run { id, timeout_ms, command } => commands.run(id, timeout_ms, &command, &reports),
            Request::Signal { id, signal } => commands.signal(id, signal),
            Request::Stop => break,
        }
    }
    Ok(())
}

fn answer() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, ports::ECHO))?;
    println!("ready");
    trips::answer(&listener)
}

fn trips(address: &str) -> Result<(), String> {
    let address: Ipv4Addr = address.parse().map_err(|_| format!("{address}: no address"))?;
    let median = trips::median((address, ports::ECHO).into()).map_err(|error| error.to_string())?;
    println!("{}", median.as_micros());
    Ok(())
}

/// The way to the testbed, for several threads.
#[derive(Clone)]
struct Reports(Arc<Mutex<File>>);

impl Reports {
    /// Reports that go to one end of a pair of sockets.
    #[cfg(test)]
    fn to(stream: std::os::unix::net::UnixStream) -> Reports {
        Reports(Arc::new(Mutex::new(File::from(std::os::fd::OwnedFd::from(stream)))))
    }

    fn say(&self, report: &Report) -> Result<(), ProtocolError> {
        let frame = report.encode()?;
        let mut port = self.0.lock().expect("no thread panics while it writes");
        Ok(port.write_all(&frame)?)
    }
}

/// The virtio-serial port with our name.
fn open_port() -> io::Result<File> {
    for entry in fs::read_dir("/sys/class/virtio-ports")? {
        let entry = entry?;
        // The kernel's own console ports have no name.
        if fs::read_to_string(entry.path().join("name")).is_ok_and(|name| name.trim() == PORT_NAME) {
            return OpenOptions::new().read(true).write(true).open(Path::new("/dev").join(entry.file_name()));
        }
    }
    Err(io::Error::other(format!("no virtio-serial port has the name {PORT_NAME}")))
}

fn uptime_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}
