//! What the demo's clients do, and what they find.

use super::client::Client;
use anyhow::Result;
use colo_embedded::body;
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Clients at once.
const CLIENTS: usize = 4;
/// One request in so many asks for the time, which the two machines answer differently.
const TIME_EVERY: u64 = 400;

/// What a load found.
#[derive(Default)]
pub(crate) struct Load {
    pub(crate) latencies: Vec<Duration>,
    pub(crate) took: Duration,
    pub(crate) errors: u64,
}

impl Load {
    pub(crate) fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }

    /// The latency that so many percent of the requests did not exceed, in ms.
    pub(crate) fn percentile_ms(&self, percent: usize) -> f64 {
        let rank = (self.latencies.len() * percent).div_ceil(100).saturating_sub(1);
        self.latencies.get(rank).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
    }
}

/// Several clients store and fetch, one request after the other, for so long.
pub(crate) fn run(guest: SocketAddr, duration: Duration) -> Load {
    let began = Instant::now();
    let results: Vec<Load> = std::thread::scope(|scope| {
        let clients: Vec<_> =
            (0..CLIENTS).map(|number| scope.spawn(move || client(guest, number, began + duration))).collect();
        clients.into_iter().map(|client| client.join().unwrap_or_default()).collect()
    });
    let mut load = Load { took: began.elapsed(), ..Load::default() };
    for result in results {
        load.latencies.extend(result.latencies);
        load.errors += result.errors;
    }
    load.latencies.sort_unstable();
    load
}

fn client(guest: SocketAddr, number: usize, until: Instant) -> Load {
    let mut load = Load::default();
    let Ok(mut client) = Client::connect(guest) else { return Load { errors: 1, ..load } };
    let mut count = number as u64 * 97;
    while Instant::now() < until {
        count += 1;
        let key = format!("/kv/client-{number}-{}", count % 64);
        let began = Instant::now();
        let result = match count {
            _ if count % TIME_EVERY == 0 => client.get("/time").map(drop),
            _ if count % 2 == 0 => client.put(&key, format!("value {count}").as_bytes()),
            _ => client.get(&key).map(drop),
        };
        if result.is_err() {
            load.errors += 1;
            return load;
        }
        load.latencies.push(began.elapsed());
    }
    load
}

/// Downloads so many bytes; returns MB/s.
pub(crate) fn throughput(guest: SocketAddr, bytes: u64) -> Result<f64> {
    let began = Instant::now();
    Client::connect(guest)?.download(&format!("/bytes/{bytes}"), |_| ())?;
    Ok(bytes as f64 / 1e6 / began.elapsed().as_secs_f64())
}

/// A download with its SHA-256. Returns whether it is what the guest's generator makes.
pub(crate) fn download_is_right(guest: SocketAddr, bytes: u64) -> Result<bool> {
    let mut got = Sha256::new();
    Client::connect(guest)?.download(&format!("/bytes/{bytes}"), |piece| got.update(piece))?;
    let mut expected = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    let mut at = 0;
    while at < bytes {
        let count = (bytes - at).min(piece.len() as u64) as usize;
        body::fill(at, &mut piece[..count]);
        expected.update(&piece[..count]);
        at += count as u64;
    }
    Ok(got.finalize() == expected.finalize())
}

/// What a stream of PUTs saw of a failover.
#[derive(Default)]
pub(crate) struct Puts {
    /// How many were acknowledged; the keys are numbered from 0.
    pub(crate) acknowledged: u64,
    /// The longest wait for an answer.
    pub(crate) longest: Duration,
    pub(crate) error: Option<String>,
}

/// Stores one value after the other until told to stop.
pub(crate) fn puts(guest: SocketAddr, stop: &AtomicBool) -> Puts {
    let mut puts = Puts::default();
    let mut store = || -> Result<()> {
        let mut client = Client::connect(guest)?;
        while !stop.load(Ordering::SeqCst) {
            let number = puts.acknowledged;
            let began = Instant::now();
            client.put(&format!("/kv/put-{number}"), format!("{number}").as_bytes())?;
            puts.acknowledged += 1;
            puts.longest = puts.longest.max(began.elapsed());
        }
        Ok(())
    };
    let result = store();
    puts.error = result.err().map(|error| error.to_string());
    puts
}

/// How many of the acknowledged values are not there, or not right.
pub(crate) fn lost_puts(guest: SocketAddr, acknowledged: u64) -> Result<u64> {
    let mut client = Client::connect(guest)?;
    let mut lost = 0;
    for number in 0..acknowledged {
        let (status, value) = client.get(&format!("/kv/put-{number}"))?;
        lost += u64::from(status != 200 || value != number.to_string().as_bytes());
    }
    Ok(lost)
}
