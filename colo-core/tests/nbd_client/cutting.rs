//! A server whose connections break after so many bytes, and whose host crashes now and then.

use colo_core::disk::nbd::{Export, serve};
use colo_core::disk::{Backend, DiskError};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// A disk in memory, and what of it is durable.
pub(crate) struct Disk {
    state: Mutex<(Vec<u8>, Vec<u8>)>,
}

impl Disk {
    pub(crate) fn new(size: usize) -> Arc<Disk> {
        Arc::new(Disk { state: Mutex::new((vec![0; size], vec![0; size])) })
    }

    pub(crate) fn durable(&self) -> Vec<u8> {
        self.state.lock().unwrap().1.clone()
    }

    /// What is not durable is lost.
    fn crash(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 = state.1.clone();
    }
}

impl Backend for Disk {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DiskError> {
        bytes.copy_from_slice(&self.state.lock().unwrap().0[offset as usize..][..bytes.len()]);
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.state.lock().unwrap().0[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, length: u64, _may_unmap: bool) -> Result<(), DiskError> {
        self.state.lock().unwrap().0[offset as usize..][..length as usize].fill(0);
        Ok(())
    }

    fn flush(&self) -> Result<(), DiskError> {
        let mut state = self.state.lock().unwrap();
        state.1 = state.0.clone();
        Ok(())
    }
}

/// A server whose connections carry so many bytes each, and the last of them as many as it takes.
pub(crate) struct Cutting {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
    path: std::path::PathBuf,
}

impl Cutting {
    /// One connection at a time: the next is accepted when nothing of the last one is under way any more.
    pub(crate) fn start(path: &Path, disk: &Arc<Disk>, budgets: Vec<usize>) -> Cutting {
        let (listener, disk) = (UnixListener::bind(path).unwrap(), disk.clone());
        let is_over = Arc::new(AtomicBool::new(false));
        let over = is_over.clone();
        let thread = thread::spawn(move || {
            let mut budgets = budgets.into_iter();
            while let Ok((client, _)) = listener.accept() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let budget = budgets.next();
                carry(client, &disk, budget.unwrap_or(isize::MAX as usize));
                // After some, and not after others.
                if budget.is_some_and(|budget| budget % 3 != 0) {
                    disk.crash();
                }
            }
        });
        Cutting { is_over, thread, path: path.to_owned() }
    }

    pub(crate) fn end(self) {
        self.is_over.store(true, Ordering::SeqCst);
        let _ = UnixStream::connect(&self.path);
        self.thread.join().unwrap();
    }
}

fn carry(client: UnixStream, disk: &Arc<Disk>, budget: usize) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let budget = AtomicIsize::new(budget as isize);
    let size = disk.durable().len() as u64;
    thread::scope(|scope| {
        // It may end by an error, of course.
        scope.spawn(|| drop(serve(theirs, &Export::new("disk", size), &**disk)));
        scope.spawn(|| pump(&client, &ours, &budget));
        pump(&ours, &client, &budget);
    });
}

/// Carries bytes until one side ends or the budget is spent; then it is over for both directions.
fn pump(mut from: &UnixStream, mut to: &UnixStream, budget: &AtomicIsize) {
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let left = budget.fetch_sub(count as isize, Ordering::SeqCst);
        let allowed = count.min(left.max(0) as usize);
        if to.write_all(&bytes[..allowed]).is_err() || allowed < count {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
