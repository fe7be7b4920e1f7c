//! The link between the hosts, in the hands of the test: it can be cut, and no side is told.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// See the module.
pub(crate) struct Relay {
    address: SocketAddr,
    is_cut: Arc<AtomicBool>,
}

impl Relay {
    /// Carries the connections of a session to that address.
    pub(crate) fn to(target: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let is_cut = Arc::new(AtomicBool::new(false));
        let cut = is_cut.clone();
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let near = near.unwrap();
                let far = TcpStream::connect(target).unwrap();
                let (near_too, far_too) = (near.try_clone().unwrap(), far.try_clone().unwrap());
                let (there, back) = (cut.clone(), cut.clone());
                std::thread::spawn(move || carry(near, far, &there));
                std::thread::spawn(move || carry(far_too, near_too, &back));
            }
        });
        Relay { address, is_cut }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From here on nothing arrives, not even an end.
    pub(crate) fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, is_cut: &AtomicBool) {
    let mut bytes = [0; 65_536];
    loop {
        let count = from.read(&mut bytes).unwrap_or(0);
        if is_cut.load(Ordering::SeqCst) {
            // Held open: whoever waits at the other end hears nothing.
            std::mem::forget(to);
            return;
        }
        if count == 0 || to.write_all(&bytes[..count]).is_err() {
            let _ = to.shutdown(Shutdown::Both);
            return;
        }
    }
}
