//! A client that pings every 10 ms, whether it is answered or not.

use super::icmp;
use super::record::Record;
use super::{Client, PATIENCE, Stop};
use crate::process::wait_readable;
use anyhow::{Context, Result, ensure};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, ipproto, recv, send, socket_with,
};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

pub(super) const NAME: &str = "pings";
const EVERY: Duration = Duration::from_millis(10);
/// How long the last answers are waited for.
const LAST: Duration = Duration::from_secs(5);

pub(super) struct Pinger;

impl Client for Pinger {
    fn name(&self) -> &'static str {
        NAME
    }

    fn run(&self, guest: Ipv4Addr, stop: &Stop, record: &mut Record) -> Result<()> {
        let (socket, mut pings) = Pings::open(guest)?;
        let mut next = Instant::now();
        while !stop.is_set() {
            let now = Instant::now();
            if now >= next {
                pings.send(&socket, record);
                // Those that are late are not made up for all at once.
                next = (next + EVERY).max(now);
            }
            pings.receive(&socket, next, record)?;
        }
        record.fall_silent(Instant::now());
        let deadline = Instant::now() + LAST;
        while pings.sent.last().is_some_and(Option::is_some) && Instant::now() < deadline {
            pings.receive(&socket, deadline, record)?;
        }
        let lost = pings.sent.iter().flatten().count();
        record.remark(format!("{lost} lost, {} answered twice", pings.repeated));
        Ok(())
    }
}

struct Pings {
    id: u16,
    /// When each was sent that is not answered yet.
    sent: Vec<Option<Instant>>,
    repeated: u64,
}

/// Waits until the guest answers: an emulated card has its link a while after its guest has it, and before that a client would be told
/// that there is no such host, sooner if another one asks for it already.
pub(super) fn reach(guest: Ipv4Addr) -> Result<()> {
    let (socket, mut pings) = Pings::open(guest)?;
    let mut record = Record::new(NAME, Instant::now());
    let deadline = Instant::now() + PATIENCE;
    loop {
        pings.send(&socket, &mut record);
        pings.receive(&socket, Instant::now() + 10 * EVERY, &mut record)?;
        if pings.sent.iter().any(Option::is_none) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{guest} does not answer for {} s", PATIENCE.as_secs());
    }
}

impl Pings {
    fn open(guest: Ipv4Addr) -> Result<(OwnedFd, Pings)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::INET, SocketType::RAW, flags, Some(ipproto::ICMP))?;
        // It hears of nobody else then.
        connect(&socket, &SocketAddrV4::new(guest, 0)).context("pings")?;
        Ok((socket, Pings { id: std::process::id() as u16, sent: Vec::new(), repeated: 0 }))
    }

    fn send(&mut self, socket: &OwnedFd, record: &mut Record) {
        let now = Instant::now();
        record.ask(now);
        self.sent.push(Some(now));
        // While nobody has the address there is an error now and then: a ping that is lost.
        let _ = send(socket, &icmp::request(self.id, self.sent.len() as u64 - 1), SendFlags::empty());
    }

    /// Waits until something comes, or this moment, and takes what has come.
    fn receive(&mut self, socket: &OwnedFd, until: Instant, record: &mut Record) -> Result<()> {
        wait_readable(&[socket.as_fd()], until.saturating_duration_since(Instant::now()))?;
        let mut packet = [0; 2048];
        loop {
            match recv(socket, &mut packet, RecvFlags::empty()) {
                Ok((length, _)) => self.answered(&packet[..length], record),
                Err(Errno::AGAIN) => return Ok(()),
                // It tells of one that could not be delivered.
                Err(Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::INTR) => (),
                Err(error) => return Err(error).context("pings"),
            }
        }
    }

    fn answered(&mut self, packet: &[u8], record: &mut Record) {
        let Some(number) = icmp::reply(packet, self.id) else { return };
        match self.sent.get_mut(number as usize).map(Option::take) {
            Some(Some(asked)) => record.answer(asked, Instant::now()),
            Some(None) => self.repeated += 1,
            None => (),
        }
    }
}
