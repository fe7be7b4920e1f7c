//! Clients of a guest, who see nothing but what it answers: each a thread in the network's namespace, with a record of what it has
//! seen. A connection that is reset, a wrong byte, a counter that goes back is the end of a client, and a failure; an answer that comes
//! late is only late.

mod counter;
mod download;
mod echo;
mod http;
mod icmp;
mod ledger;
mod pinger;
mod record;
mod requests;

pub(crate) use record::Record;

use crate::net::Network;
use anyhow::{Result, anyhow, bail};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// How long a client waits for an answer. Everything is emulated, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// What clients ask for.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// How long it will go on, about: so long is the download.
    pub(crate) time: Duration,
    /// How fast the download is.
    pub(crate) download_bytes_per_s: u64,
    /// Nothing but pings and requests: for latencies that are those of the guest, and not of a busy machine.
    pub(crate) is_light: bool,
    /// Whether one asks for the guest's clock, which two machines answer differently.
    pub(crate) has_clock: bool,
    /// Whether one keeps a ledger on the guest's disk.
    pub(crate) has_ledger: bool,
}

impl Load {
    /// One of each client, for about so long.
    pub(crate) fn new(time: Duration) -> Load {
        Load { time, download_bytes_per_s: 200_000, is_light: false, has_clock: false, has_ledger: false }
    }

    fn clients(&self) -> Vec<Box<dyn Client>> {
        let mut clients: Vec<Box<dyn Client>> =
            vec![Box::new(pinger::Pinger), Box::new(requests::Requests::keep_alive())];
        if !self.is_light {
            clients.push(Box::new(requests::Requests::new_connections()));
            clients.push(Box::new(download::Download::paced(self.time, self.download_bytes_per_s)));
            clients.push(Box::new(echo::Session));
            clients.push(Box::new(counter::Counter));
        }
        if self.has_ledger {
            clients.push(Box::new(ledger::Keeper));
        }
        if self.has_clock {
            clients.push(Box::new(requests::Requests::clock()));
        }
        clients
    }
}

/// One kind of client.
trait Client: Send {
    /// What it is called in a report.
    fn name(&self) -> &'static str;

    /// Asks the guest until it is told to stop, and then comes to a good end.
    fn run(&self, guest: Ipv4Addr, stop: &Stop, record: &mut Record) -> Result<()>;
}

/// Tells clients when it is enough.
#[derive(Clone)]
struct Stop(Receiver<()>);

impl Stop {
    /// Whether it is.
    fn is_set(&self) -> bool {
        self.wait_until(Instant::now())
    }

    /// Waits until this moment, or until it is enough, and says whether it is.
    fn wait_until(&self, moment: Instant) -> bool {
        self.0.recv_deadline(moment) == Err(RecvTimeoutError::Disconnected)
    }
}

/// Clients that are at work. Dropped, they come to an end by and by.
pub(crate) struct Clients {
    until_dropped: Option<Sender<()>>,
    ended: Receiver<Record>,
    count: usize,
    records: Vec<Record>,
}

impl Clients {
    /// Lets clients loose on a guest, once it can be reached.
    pub(crate) fn start(network: &Network, guest: Ipv4Addr, load: &Load) -> Result<Clients> {
        network.as_client(move || pinger::reach(guest))?;
        let (until_dropped, stopped) = bounded(0);
        let (sender, ended) = unbounded();
        let clients = load.clients();
        let count = clients.len();
        for client in clients {
            let (stop, sender) = (Stop(stopped.clone()), sender.clone());
            // Its end is heard of by way of the channel.
            network.client(move || {
                let mut record = Record::new(client.name(), Instant::now());
                let result = client.run(guest, &stop, &mut record);
                record.end(Instant::now(), result.err().map(|error| format!("{error:#}")));
                let _ = sender.send(record);
                Ok(())
            })?;
        }
        Ok(Clients { until_dropped: Some(until_dropped), ended, count, records: Vec::new() })
    }

    /// Lets them go on for so long: no longer than until one has failed, which is an error.
    pub(crate) fn run_for(&mut self, time: Duration) -> Result<()> {
        let deadline = Instant::now() + time;
        if let Some(record) = self.next_end(deadline)? {
            let failure = record.failure().unwrap_or_else(|| format!("{}: it has ended by itself", record.name()));
            self.records.push(record);
            bail!("a client has failed: {failure}");
        }
        Ok(())
    }

    /// Lets them go on for so long, or until the last of them has failed.
    pub(crate) fn suffer_for(&mut self, time: Duration) -> Result<()> {
        let deadline = Instant::now() + time;
        while let Some(record) = self.next_end(deadline)? {
            self.records.push(record);
        }
        Ok(())
    }

    /// Ends them, and says what they have seen.
    pub(crate) fn stop(mut self) -> Result<Seen> {
        self.until_dropped = None;
        // The download may have some way to go, and each has its patience.
        let deadline = Instant::now() + 3 * PATIENCE;
        while self.records.len() < self.count {
            match self.next_end(deadline)? {
                Some(record) => self.records.push(record),
                None => bail!("{} clients do not come to an end", self.count - self.records.len()),
            }
        }
        self.records.sort_by_key(Record::name);
        Ok(Seen(self.records))
    }

    /// The next client that ends before this moment; at once nothing if all have ended.
    fn next_end(&self, deadline: Instant) -> Result<Option<Record>> {
        match self.ended.recv_deadline(deadline) {
            Ok(record) => Ok(Some(record)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) if self.records.len() < self.count => bail!("a client panicked"),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
        }
    }
}

/// What clients have seen.
pub(crate) struct Seen(Vec<Record>);

impl Seen {
    /// Prints it, a line for each.
    pub(crate) fn print(&self) {
        for record in &self.0 {
            println!("{record}");
        }
    }

    /// Prints what they have seen between these two moments.
    pub(crate) fn print_between(&self, what: &str, from: Instant, to: Instant) {
        println!("{what}, {:.1} s:", to.saturating_duration_since(from).as_secs_f64());
        for record in &self.0 {
            println!("  {}", record.between(from, to));
        }
    }

    /// What went wrong, a line for each client.
    pub(crate) fn failures(&self) -> Vec<String> {
        self.0.iter().filter_map(Record::failure).collect()
    }

    /// An error if something went wrong.
    pub(crate) fn ensure_good(&self) -> Result<()> {
        let failures = self.failures();
        if failures.is_empty() { Ok(()) } else { Err(anyhow!("clients have failed: {}", failures.join("; "))) }
    }

    /// What the pinger has seen.
    pub(crate) fn pings(&self) -> Result<&Record> {
        self.of(pinger::NAME)
    }

    /// What the one has seen who asks again and again over one connection.
    pub(crate) fn requests(&self) -> Result<&Record> {
        self.of(requests::KEEP_ALIVE)
    }

    /// What the one has seen who keeps a ledger.
    pub(crate) fn ledger(&self) -> Result<&Record> {
        self.of(ledger::NAME)
    }

    fn of(&self, name: &str) -> Result<&Record> {
        self.0.iter().find(|record| record.name() == name).ok_or_else(|| anyhow!("there was no client {name}"))
    }
}

/// What an error of a connection means to a client.
fn explain(error: io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => anyhow!("no answer for {} s", PATIENCE.as_secs()),
        io::ErrorKind::ConnectionReset => anyhow!("the connection was reset"),
        io::ErrorKind::UnexpectedEof => anyhow!("the connection was closed"),
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_wakes_who_waits() {
        let (until_dropped, stopped) = bounded(0);
        let stop = Stop(stopped);
        assert!(!stop.is_set());
        let waiting = stop.clone();
        let waits = std::thread::spawn(move || waiting.wait_until(Instant::now() + Duration::from_secs(600)));
        drop(until_dropped);
        assert!(waits.join().unwrap());
        assert!(stop.is_set());
    }
}
