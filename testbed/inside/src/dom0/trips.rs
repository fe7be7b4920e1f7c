//! The link between two hosts, with two programs at its ends that do nothing: what no protection can be faster than.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// As long as a ping that is mirrored.
const BYTES: usize = 140;
const TRIPS: usize = 500;
/// Between two trips, as between two packets of a client.
const REST: Duration = Duration::from_millis(9);

/// Sends back whatever comes over one connection.
pub(crate) fn answer(listener: &TcpListener) -> io::Result<()> {
    let (mut connection, _) = listener.accept()?;
    connection.set_nodelay(true)?;
    let mut bytes = [0; BYTES];
    while connection.read_exact(&mut bytes).is_ok() {
        connection.write_all(&bytes)?;
    }
    Ok(())
}

/// Makes trips to the one that answers there, and returns how long the median took.
pub(crate) fn median(to: SocketAddr) -> io::Result<Duration> {
    let mut connection = TcpStream::connect(to)?;
    connection.set_nodelay(true)?;
    let mut trips = Vec::with_capacity(TRIPS);
    let mut bytes = [0; BYTES];
    for _ in 0..TRIPS {
        let begun = Instant::now();
        connection.write_all(&bytes)?;
        connection.read_exact(&mut bytes)?;
        trips.push(begun.elapsed());
        std::thread::sleep(REST);
    }
    trips.sort();
    Ok(trips[TRIPS / 2])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn trips_are_made() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let answering = std::thread::spawn(move || answer(&listener));
        assert!(median(address).unwrap() > Duration::ZERO);
        answering.join().unwrap().unwrap();
    }
}
