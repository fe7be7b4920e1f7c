//! What a guest serves on TCP, all of it in threads.

use crate::disk::Disk;
use crate::ledger::Request;
use crate::{http, orders};
use colo_testbed_inside::memory::Memory;
use colo_testbed_inside::ports;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

/// Listens on all ports, and serves from now on.
pub(crate) fn start(
    memory: &Arc<Mutex<Memory>>,
    dirty_pages: &Arc<AtomicUsize>,
    disk: Option<&Arc<Disk>>,
) -> io::Result<()> {
    on(ports::ECHO, echo)?;
    let shared = memory.clone();
    on(ports::MEMORY, move |listener| tell_memory(listener, &shared))?;
    on(ports::HTTP, http::serve)?;
    if let Some(disk) = disk.cloned() {
        on(ports::LEDGER, move |listener| ledger(listener, &disk))?;
    }
    let (shared, disk) = (dirty_pages.clone(), disk.cloned());
    on(ports::ORDERS, move |listener| orders::serve(listener, &shared, disk.as_deref()))
}

fn on(port: u16, serve: impl FnOnce(&TcpListener) + Send + 'static) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    std::thread::spawn(move || serve(&listener));
    Ok(())
}

fn echo(listener: &TcpListener) {
    for mut connection in listener.incoming().flatten() {
        std::thread::spawn(move || {
            // Lines are short, and nobody shall wait for the next.
            let _ = connection.set_nodelay(true);
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = connection.read(&mut bytes) {
                if connection.write_all(&bytes[..count]).is_err() {
                    break;
                }
            }
        });
    }
}

fn tell_memory(listener: &TcpListener, memory: &Mutex<Memory>) {
    for mut connection in listener.incoming().flatten() {
        let checked = memory.lock().expect("no thread panics with the memory").check();
        let _ = match checked.wrong_pages {
            0 => writeln!(connection, "ok {:016x}", checked.sum),
            wrong => writeln!(connection, "BAD {wrong}"),
        };
    }
}

fn ledger(listener: &TcpListener, disk: &Arc<Disk>) {
    for connection in listener.incoming().flatten() {
        let disk = disk.clone();
        std::thread::spawn(move || {
            if let Err(error) = keep_ledger(connection, &disk) {
                println!("ledger: {error}");
            }
        });
    }
}

/// Each answer is sent at once, and ends with a line that says how it is meant.
fn keep_ledger(connection: TcpStream, disk: &Disk) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut to = connection.try_clone()?;
    for line in BufReader::new(connection).lines() {
        let answer = match Request::parse(&line?) {
            None => "what?\n".into(),
            Some(request) => match disk.with(|ledger| ledger.answer(&request)) {
                Ok(lines) => lines.into_iter().map(|line| line + "\n").collect::<String>() + "done\n",
                Err(error) => format!("failed: {error}\n"),
            },
        };
        to.write_all(answer.as_bytes())?;
    }
    Ok(())
}
