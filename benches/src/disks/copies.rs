use super::colo::{backend, own_cpu_time, serve_at};
use super::{Contender, Folder};
use anyhow::Result;
use colo_core::disk::{Backend, DiskError, FileBackend};
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// So long is the journal, which is written from its beginning again when it is full.
const JOURNAL_BYTES: u64 = 256 << 20;

/// No replication, but what each one with a journal must do with the bytes that are written, and no more: received from the client, written to
/// the disk, sent over a TCP connection; and on the other side received, written to a journal, written to the disk. No checksums, no epochs,
/// nothing that is kept; and the last copy is made while the bytes are still in the processor's cache.
pub struct Copies {
    socket: PathBuf,
}

impl Copies {
    /// From this disk to the secondary's.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub fn start(folder: &Folder, disk: &Path, secondary: &Path) -> Result<Copies> {
        let (disk, size) = backend(disk)?;
        let files = (File::create(folder.path("copies-journal"))?, OpenOptions::new().write(true).open(secondary)?);
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let link = TcpStream::connect(listener.local_addr()?)?;
        link.set_nodelay(true)?;
        let received = listener.accept()?.0;
        // Until the connection ends, and that is with the process.
        std::thread::spawn(move || receive(received, &files.0, &files.1));
        let socket = folder.path("copies");
        serve_at(&socket, Arc::new(Primary { disk, link: Mutex::new(link) }), size)?;
        Ok(Copies { socket })
    }
}

impl Contender for Copies {
    fn socket(&self) -> &Path {
        &self.socket
    }

    fn processes(&self) -> Vec<u32> {
        vec![std::process::id()]
    }

    fn cpu_time(&self) -> Result<Duration> {
        Ok(own_cpu_time())
    }
}

struct Primary {
    disk: FileBackend,
    link: Mutex<TcpStream>,
}

impl Primary {
    fn send(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let head = [offset.to_le_bytes(), (bytes.len() as u64).to_le_bytes()].concat();
        let mut slices = &mut [IoSlice::new(&head), IoSlice::new(bytes)][..];
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        while !slices.is_empty() {
            let count = link.write_vectored(slices)?;
            IoSlice::advance_slices(&mut slices, count);
        }
        Ok(())
    }
}

impl Backend for Primary {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DiskError> {
        self.disk.read(offset, bytes)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.disk.write(offset, bytes)?;
        self.send(offset, bytes).map_err(|_| DiskError::Io)
    }

    fn write_zeroes(&self, _: u64, _: u64, _: bool) -> Result<(), DiskError> {
        Err(DiskError::NotSupported)
    }

    fn flush(&self) -> Result<(), DiskError> {
        self.disk.flush()
    }
}

/// The other side.
fn receive(mut link: TcpStream, journal: &File, disk: &File) -> io::Result<()> {
    let (mut buffer, mut at) = (Vec::new(), 0);
    loop {
        let mut head = [[0; 8]; 2];
        link.read_exact(head.as_flattened_mut())?;
        let [offset, length] = head.map(u64::from_le_bytes);
        buffer.resize(buffer.len().max(length as usize), 0);
        let bytes = &mut buffer[..length as usize];
        link.read_exact(bytes)?;
        if at + length > JOURNAL_BYTES {
            at = 0;
        }
        journal.write_all_at(bytes, at)?;
        at += length;
        disk.write_all_at(bytes, offset)?;
    }
}
