//! A HTTP client that hides nothing: one connection, never made again behind the caller's back.

use anyhow::{Context, Result, bail, ensure};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a client waits for an answer: far longer than any failover may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A keep-alive connection.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Result<Client> {
        Client::over(TcpStream::connect_timeout(&address, PATIENCE)?, PATIENCE)
    }

    /// Over a connection that is there, waiting so long for each answer.
    pub(crate) fn over(stream: TcpStream, patience: Duration) -> Result<Client> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Client { stream: BufReader::with_capacity(256 << 10, stream) })
    }

    /// `GET`; returns the status and the body.
    pub(crate) fn get(&mut self, path: &str) -> Result<(u16, Vec<u8>)> {
        let (status, length) = self.request("GET", path, &[])?;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok((status, body))
    }

    /// `PUT`; returns once the answer is here, which says that the value is stored.
    pub(crate) fn put(&mut self, path: &str, value: &[u8]) -> Result<()> {
        let (status, length) = self.request("PUT", path, value)?;
        std::io::copy(&mut (&mut self.stream).take(length as u64), &mut std::io::sink())?;
        ensure!(matches!(status, 201 | 204), "PUT {path}: status {status}");
        Ok(())
    }

    /// `GET`, with the body handed over piece by piece.
    pub(crate) fn download(&mut self, path: &str, mut piece: impl FnMut(&[u8])) -> Result<()> {
        let (status, mut left) = self.request("GET", path, &[])?;
        ensure!(status == 200, "GET {path}: status {status}");
        while left > 0 {
            let data = self.stream.fill_buf()?;
            ensure!(!data.is_empty(), "the connection ended {left} bytes before the end");
            let count = data.len().min(left);
            piece(&data[..count]);
            self.stream.consume(count);
            left -= count;
        }
        Ok(())
    }

    /// Sends a request and reads the answer's head: its status, and the length of its body.
    fn request(&mut self, method: &str, path: &str, body: &[u8]) -> Result<(u16, usize)> {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: guest\r\n").into_bytes();
        if method == "PUT" {
            request.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        request.extend_from_slice(b"\r\n");
        request.extend_from_slice(body);
        self.stream.get_mut().write_all(&request)?;
        let first = self.line()?;
        let status = first.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status")?;
        let mut length = 0;
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok((status, length));
            }
            if let Some((name, value)) = line.split_once(':') {
                if name.eq_ignore_ascii_case("content-length") {
                    length = value.trim().parse().context("no length")?;
                }
            }
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            bail!("the connection was closed");
        }
        Ok(line.trim_end().to_owned())
    }
}
