use super::{Running, Traffic};
use crate::Samples;
use anyhow::{Result, bail, ensure};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long a comparator may be silent.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came of a run.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Frames that came out.
    pub frames: u64,
    /// From the first one sent to the last one that came out.
    pub time: Duration,
    /// The comparator's processor time meanwhile.
    pub cpu: Duration,
}

impl Measured {
    /// Frames that came out in a second.
    pub fn per_second(&self) -> f64 {
        self.frames as f64 / self.time.as_secs_f64()
    }

    /// Nanoseconds of processor time for each of them.
    pub fn cpu_nanos(&self) -> f64 {
        self.cpu.as_nanos() as f64 / self.frames as f64
    }
}

/// Bytes that went into the one socket, those that went into the other, and those that came out.
#[derive(Clone, Copy, Default)]
struct Places {
    primary: u64,
    secondary: u64,
    out: u64,
}

impl Running {
    /// Sends at least so many frames, for at least so long, from both sides, with at most `under_way` that have not come out, and tells
    /// what that took. The driver never sleeps, so that nobody pays for waking it.
    ///
    /// # Errors
    /// When the comparator is gone, or does not let out what both have sent.
    pub fn run(&self, traffic: &mut Traffic, frames: u64, time: Duration, under_way: u64) -> Result<Measured> {
        let bytes = traffic.frame_bytes() as u64;
        // A run goes on where the last one ended.
        let first = traffic.ready();
        let start = Places { primary: first * bytes, secondary: first * bytes, out: first * bytes };
        let mut at = start;
        let (mut ready, mut last) = (first, Instant::now());
        let mut buffer = vec![0; 256 << 10];
        let (cpu, began) = (self.cpu()?, Instant::now());
        loop {
            let left = at.out / bytes;
            let is_enough = ready - first >= frames && began.elapsed() >= time;
            if is_enough && left == ready {
                break;
            }
            // Many at a time: nobody sends one frame at a time under load.
            if !is_enough && ready - left <= under_way / 2 {
                ready = left + under_way;
                traffic.make_ready(ready);
            }
            at.primary += send_some(&self.primary, traffic.piece(at.primary, ready * bytes))?;
            // The one machine's is never far behind the other's.
            at.secondary += send_some(&self.secondary, traffic.piece(at.secondary, ready * bytes))?;
            let count = receive_some(&self.out, &mut buffer)?;
            at.out += count as u64;
            ensure!(at.out <= ready * bytes, "more came out than was sent");
            if count > 0 {
                last = Instant::now();
            } else if last.elapsed() > PATIENCE {
                bail!("{} of {} frames came out", left - first, ready - first);
            }
        }
        let (time, cpu) = (began.elapsed(), self.cpu()? - cpu);
        Ok(Measured { frames: ready - first, time, cpu })
    }

    /// Sends one frame at a time, and tells how long it takes from when the second side's was written until it comes out. It must
    /// be, byte for byte, what was sent.
    ///
    /// # Errors
    /// When the comparator is gone, or lets out something else.
    pub fn latencies(&self, traffic: &mut Traffic, frames: u64, primary_last: bool) -> Result<Samples> {
        let bytes = traffic.frame_bytes();
        let mut samples = Samples::default();
        let mut buffer = vec![0; 2 * bytes];
        let (first, second) = match primary_last {
            true => (&self.secondary, &self.primary),
            false => (&self.primary, &self.secondary),
        };
        for _ in 0..frames {
            let number = traffic.ready();
            traffic.make_ready(number + 1);
            let frame = traffic.piece(number * bytes as u64, (number + 1) * bytes as u64);
            ensure!(send_some(first, frame)? == bytes as u64, "no room for one frame");
            let began = Instant::now();
            ensure!(send_some(second, frame)? == bytes as u64, "no room for one frame");
            let mut got = 0;
            while got < bytes {
                got += receive_some(&self.out, &mut buffer[got..])?;
                ensure!(began.elapsed() < PATIENCE, "nothing came out");
            }
            samples.add(began.elapsed());
            ensure!(buffer[..got] == *frame, "something else came out");
        }
        Ok(samples)
    }
}

fn send_some(socket: &UnixStream, bytes: &[u8]) -> Result<u64> {
    if bytes.is_empty() {
        return Ok(0);
    }
    match send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Ok(count) => Ok(count as u64),
        Err(Errno::AGAIN) => Ok(0),
        Err(errno) => Err(errno.into()),
    }
}

fn receive_some(socket: &UnixStream, buffer: &mut [u8]) -> Result<usize> {
    match recv(socket, buffer, RecvFlags::DONTWAIT) {
        Ok((0, _)) => bail!("the comparator has closed the connection"),
        Ok((count, _)) => Ok(count),
        Err(Errno::AGAIN) => Ok(0),
        Err(errno) => Err(errno.into()),
    }
}
