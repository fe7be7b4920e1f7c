//! The NBD client: with our server over connections that break, with servers that lie, and with other projects' servers.

#[path = "nbd_client/cutting.rs"]
mod cutting;
#[path = "support/folder.rs"]
mod folder;
#[path = "nbd_client/servers.rs"]
mod servers;

use colo_core::disk::nbd::{
    Address, Client, ClientConfig, ClientError, Command, Export, Handshake, Lie, Location, NegotiationError, Progress,
    Reply, Request, serve,
};
use colo_core::disk::{Allocation, Backend, DiskError};
use cutting::{Cutting, Disk};
use folder::Folder;
use proptest::prelude::*;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

const SIZE: usize = 1 << 20;

impl Folder {
    fn location(&self) -> Location {
        Location { address: Address::Unix(self.0.join("socket")), export: "disk".into() }
    }

    /// Has each connection served by that, one after the other, until there are no more of them.
    fn listen(&self, mut connections: Vec<Box<dyn FnOnce(UnixStream) + Send>>) {
        let listener = UnixListener::bind(self.0.join("socket")).unwrap();
        connections.reverse();
        thread::spawn(move || {
            while let Some(connection) = connections.pop() {
                connection(listener.accept().unwrap().0);
            }
        });
    }
}

/// Those that need longer fail, whatever the machine has to do beside.
fn patient() -> ClientConfig {
    ClientConfig { answer_within: Duration::from_secs(60), ..ClientConfig::default() }
}

fn hasty() -> ClientConfig {
    ClientConfig { answer_within: Duration::from_millis(100), ..ClientConfig::default() }
}

/// Negotiates as a server does, and hands over where requests come.
fn negotiated(mut socket: UnixStream, export: &Export) -> UnixStream {
    let mut handshake = Handshake::new(vec![export.clone()]);
    let mut bytes = [0; 4096];
    loop {
        socket.write_all(&handshake.take_output()).unwrap();
        let count = socket.read(&mut bytes).unwrap();
        let is_chosen = matches!(handshake.feed(&bytes[..count]), Progress::Chosen(_));
        socket.write_all(&handshake.take_output()).unwrap();
        if is_chosen {
            return socket;
        }
    }
}

fn request(socket: &mut UnixStream) -> Request {
    let mut bytes = [0; Request::BYTES];
    socket.read_exact(&mut bytes).unwrap();
    Request::decode(&bytes).unwrap()
}

/// A server that answers the first request so.
fn answering(
    export: Export,
    answer: impl FnOnce(Request) -> Vec<u8> + Send + 'static,
) -> Box<dyn FnOnce(UnixStream) + Send> {
    Box::new(move |socket| {
        let mut socket = negotiated(socket, &export);
        let request = request(&mut socket);
        socket.write_all(&answer(request)).unwrap();
        // Until the client goes.
        let _ = socket.read_to_end(&mut Vec::new());
    })
}

/// What every server of a disk of that size, all zeroes, must do.
fn exercise(client: &Client, size: usize) {
    assert_eq!(client.export().size, size as u64);
    let (mut model, mut bytes) = (vec![0; size], vec![0; size]);
    let long: Vec<u8> = (0..size * 3 / 4).map(|at| (at % 251) as u8 | 1).collect();
    client.write(4096, &long).unwrap();
    model[4096..4096 + long.len()].copy_from_slice(&long);
    client.write_zeroes(8192, 4096, false).unwrap();
    client.write_zeroes(65536, 65536, true).unwrap();
    model[8192..12288].fill(0);
    model[65536..131_072].fill(0);
    client.flush().unwrap();
    client.read(0, &mut bytes).unwrap();
    assert!(bytes == model);
    client.trim(131_072, 65536).unwrap();
    let parts = client.allocation(0, size as u32).unwrap();
    let told: u64 = parts.iter().map(|part| u64::from(part.length)).sum();
    assert!((1..=size as u64).contains(&told), "{parts:?}");
    assert_eq!(client.read(size as u64, &mut [0; 512]), Err(DiskError::Invalid));
    assert_eq!(client.write(size as u64 - 512, &[0; 1024]), Err(DiskError::NoSpace));
    assert!(client.failure().is_none());
}

#[test]
fn our_server_and_our_client_understand_each_other() {
    let size = 40 << 20;
    let (export, disk) = (Export::new("disk", size as u64), Disk::new(size));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let location: Location = format!("nbd://{}/disk", listener.local_addr().unwrap()).parse().unwrap();
    let server = thread::spawn(move || serve(listener.accept().unwrap().0, &export, &*disk));
    // Longer than what is asked at once, too.
    let client = Client::connect(&location, patient()).unwrap();
    exercise(&client, size);
    drop(client);
    server.join().unwrap().unwrap();
}

#[test]
fn several_requests_are_in_flight_and_answered_in_any_order() {
    let folder = Folder::new();
    let export = Export::new("disk", SIZE as u64);
    folder.listen(vec![Box::new(move |socket| {
        let mut socket = negotiated(socket, &export);
        // All of them are here before the first is answered.
        let requests: Vec<Request> = (0..4).map(|_| request(&mut socket)).collect();
        for Request { cookie, offset, length, .. } in requests.into_iter().rev() {
            let data = vec![(offset / 4096) as u8; length as usize];
            socket.write_all(&[Reply::data_head(cookie, offset, length, true), data].concat()).unwrap();
        }
    })]);
    let client = Client::connect(&folder.location(), patient()).unwrap();
    thread::scope(|scope| {
        for number in 0..4_u8 {
            let client = &client;
            scope.spawn(move || {
                let mut bytes = [0; 100];
                client.read(u64::from(number) * 4096, &mut bytes).unwrap();
                assert_eq!(bytes, [number; 100]);
            });
        }
    });
}

#[test]
fn a_lie_ends_everything() {
    let folder = Folder::new();
    folder.listen(vec![answering(Export::new("disk", 8192), |request| Reply::done(request.cookie + 1))]);
    let client = Client::connect(&folder.location(), patient()).unwrap();
    assert_eq!(client.write(0, &[1; 512]), Err(DiskError::Io));
    let failure = client.failure().unwrap();
    assert!(matches!(*failure, ClientError::Lie(Lie::UnknownCookie(_))), "{failure}");
    // The server is not asked again.
    assert_eq!(client.flush(), Err(DiskError::Io));
}

#[test]
fn endless_output_ends_everything() {
    let folder = Folder::new();
    folder.listen(vec![Box::new(|socket| {
        let mut socket = negotiated(socket, &Export::new("disk", 8192));
        request(&mut socket);
        // Until the client has enough.
        while socket.write_all(&[0x67, 0x44, 0x66, 0x98, 0]).is_ok() {}
    })]);
    let client = Client::connect(&folder.location(), patient()).unwrap();
    assert_eq!(client.flush(), Err(DiskError::Io));
    assert!(matches!(*client.failure().unwrap(), ClientError::Lie(_)));
}

#[test]
fn another_disk_behind_the_next_connection_ends_everything() {
    let disk = |size| Export::new("disk", size);
    let small = Export { is_read_only: true, ..disk(8192) };
    for other in [disk(4096), disk(1 << 30), small, Export { minimum_block: 4096, ..disk(8192) }] {
        let folder = Folder::new();
        let expected = other.clone();
        // The first connection is closed without an answer.
        folder.listen(vec![
            Box::new(|socket| {
                request(&mut negotiated(socket, &Export::new("disk", 8192)));
            }),
            answering(other, |request| Reply::done(request.cookie)),
        ]);
        let client = Client::connect(&folder.location(), patient()).unwrap();
        assert_eq!(client.flush(), Err(DiskError::Io));
        let failure = client.failure().unwrap();
        let ClientError::Changed { was, is } = &*failure else { panic!("{failure}") };
        assert_eq!((was.size, is.size), (8192, expected.size));
    }
}

#[test]
fn who_is_not_answered_hears_of_it_in_time() {
    let folder = Folder::new();
    // Nobody accepts a second time, and the first connection says nothing.
    folder.listen(vec![answering(Export::new("disk", 8192), |_| Vec::new())]);
    let client = Client::connect(&folder.location(), hasty()).unwrap();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| assert_eq!(client.read(0, &mut [0; 512]), Err(DiskError::Io)));
        }
    });
    fs::remove_file(folder.0.join("socket")).unwrap();
    assert_eq!(client.flush(), Err(DiskError::Io));
    assert!(client.failure().is_none(), "it may come back");
}

#[test]
fn a_server_that_comes_back_is_used_again() {
    let folder = Folder::new();
    let export = Export::new("disk", 8192);
    folder.listen(vec![answering(export.clone(), |_| Vec::new())]);
    let client = Client::connect(&folder.location(), hasty()).unwrap();
    assert_eq!(client.flush(), Err(DiskError::Io));
    fs::remove_file(folder.0.join("socket")).unwrap();
    folder.listen(vec![answering(export, |request| Reply::done(request.cookie))]);
    while client.flush().is_err() {}
    assert!(client.failure().is_none());
}

#[test]
fn a_flush_that_failed_is_followed_by_all_that_it_should_have_covered() {
    let folder = Folder::new();
    let export = Export::new("disk", 8192);
    let again = export.clone();
    folder.listen(vec![
        Box::new(move |socket| {
            let mut socket = negotiated(socket, &export);
            let mut data = [0; 512];
            let write = request(&mut socket);
            socket.read_exact(&mut data).unwrap();
            socket.write_all(&Reply::done(write.cookie)).unwrap();
            let flush = request(&mut socket);
            socket.write_all(&Reply::error(flush.cookie, DiskError::Io, false)).unwrap();
        }),
        Box::new(move |socket| {
            let mut socket = negotiated(socket, &again);
            let (write, mut data) = (request(&mut socket), [0; 512]);
            assert_eq!((write.command, write.offset, write.length), (Command::Write, 1024, 512));
            socket.read_exact(&mut data).unwrap();
            assert_eq!(data, [7; 512]);
            socket.write_all(&Reply::done(write.cookie)).unwrap();
            let flush = request(&mut socket);
            assert_eq!(flush.command, Command::Flush);
            socket.write_all(&Reply::done(flush.cookie)).unwrap();
        }),
    ]);
    let client = Client::connect(&folder.location(), patient()).unwrap();
    client.write(1024, &[7; 512]).unwrap();
    assert_eq!(client.flush(), Err(DiskError::Io));
    client.flush().unwrap();
}

#[test]
fn what_was_acknowledged_while_a_flush_was_under_way_is_not_covered_by_it() {
    let folder = Folder::new();
    let export = Export::new("disk", 8192);
    let again = export.clone();
    let (flush_is_here, go_on) = channel();
    folder.listen(vec![
        Box::new(move |socket| {
            let mut socket = negotiated(socket, &export);
            let flush = request(&mut socket);
            flush_is_here.send(()).unwrap();
            let (write, mut data) = (request(&mut socket), [0; 512]);
            socket.read_exact(&mut data).unwrap();
            socket.write_all(&[Reply::done(write.cookie), Reply::done(flush.cookie)].concat()).unwrap();
        }),
        Box::new(move |socket| {
            let mut socket = negotiated(socket, &again);
            let (write, mut data) = (request(&mut socket), [0; 512]);
            assert_eq!((write.command, write.offset, write.length), (Command::Write, 1024, 512));
            socket.read_exact(&mut data).unwrap();
            socket.write_all(&Reply::done(write.cookie)).unwrap();
            let flush = request(&mut socket);
            socket.write_all(&Reply::done(flush.cookie)).unwrap();
        }),
    ]);
    let client = Client::connect(&folder.location(), patient()).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| client.flush().unwrap());
        go_on.recv().unwrap();
        client.write(1024, &[7; 512]).unwrap();
    });
    client.flush().unwrap();
}

#[test]
fn what_does_not_fit_the_servers_blocks_is_not_asked() {
    let folder = Folder::new();
    let export = Export { minimum_block: 512, is_read_only: true, ..Export::new("disk", 8192) };
    folder.listen(vec![answering(export, |request| {
        [Reply::data_head(request.cookie, 512, 512, true), vec![3; 512]].concat()
    })]);
    let client = Client::connect(&folder.location(), patient()).unwrap();
    assert_eq!(client.read(1, &mut [0; 512]), Err(DiskError::Invalid));
    assert_eq!(client.read(0, &mut [0; 511]), Err(DiskError::Invalid));
    assert_eq!(client.write(0, &[0; 512]), Err(DiskError::NotPermitted));
    assert_eq!(client.write_zeroes(0, u64::MAX, true), Err(DiskError::NotPermitted));
    let mut bytes = [0; 512];
    client.read(512, &mut bytes).unwrap();
    assert_eq!(bytes, [3; 512]);
}

#[test]
fn what_cannot_be_had_is_said() {
    let folder = Folder::new();
    let connected = Client::connect(&folder.location(), patient());
    assert!(matches!(connected, Err(ClientError::Connection(_))));
    let disk = Disk::new(8192);
    folder.listen(vec![Box::new(move |socket| drop(serve(socket, &Export::new("disk", 8192), &*disk)))]);
    let other = Location { export: "other".into(), ..folder.location() };
    let connected = Client::connect(&other, patient());
    assert!(matches!(connected, Err(ClientError::Negotiation(NegotiationError::NoExport { .. }))), "{connected:?}");
}

/// One thing that a thread does.
#[derive(Clone, Debug)]
enum Deed {
    Read(usize, usize),
    Write(usize, usize, u8),
    Zeroes(usize, usize),
    Flush,
}

const REGION: usize = 64 << 10;

fn deed() -> impl Strategy<Value = Deed> {
    let place = (0..REGION, 1..9000_usize).prop_map(|(at, length)| (at, length.min(REGION - at)));
    prop_oneof![
        3 => place.clone().prop_map(|(at, length)| Deed::Read(at, length)),
        5 => (place.clone(), any::<u8>()).prop_map(|((at, length), value)| Deed::Write(at, length, value)),
        1 => place.prop_map(|(at, length)| Deed::Zeroes(at, length)),
        1 => Just(Deed::Flush),
    ]
}

/// Does that in a region of the disk that is this thread's own. Returns what must be there now.
fn act(client: &Client, base: usize, deeds: &[Deed]) -> Vec<u8> {
    let mut model = vec![0; REGION];
    for deed in deeds {
        match *deed {
            Deed::Read(at, length) => {
                let mut bytes = vec![0; length];
                client.read((base + at) as u64, &mut bytes).unwrap();
                assert!(bytes == model[at..at + length], "{deed:?}");
            }
            Deed::Write(at, length, value) => {
                let bytes: Vec<u8> = (0..length).map(|at| value.wrapping_add(at as u8)).collect();
                client.write((base + at) as u64, &bytes).unwrap();
                model[at..at + length].copy_from_slice(&bytes);
            }
            Deed::Zeroes(at, length) => {
                client.write_zeroes((base + at) as u64, length as u64, at % 2 == 0).unwrap();
                model[at..at + length].fill(0);
            }
            Deed::Flush => client.flush().unwrap(),
        }
    }
    model
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    /// Connections break anywhere, and sometimes the server's host crashes with them: nobody notices, and what is flushed is there.
    #[test]
    fn nobody_notices_that_connections_break(
        threads in prop::collection::vec(prop::collection::vec(deed(), 1..60), 1..5),
        budgets in prop::collection::vec(300..120_000_usize, 1..30),
    ) {
        let folder = Folder::new();
        let disk = Disk::new(SIZE);
        let cutting = Cutting::start(&folder.0.join("socket"), &disk, budgets);
        let config = ClientConfig { kept_bytes: 20_000, ..patient() };
        let client = loop {
            // Cut while it negotiates.
            if let Ok(client) = Client::connect(&folder.location(), config.clone()) {
                break client;
            }
        };
        let models: Vec<Vec<u8>> = thread::scope(|scope| {
            let client = &client;
            let act = |(number, deeds): (usize, &Vec<Deed>)| {
                let deeds = deeds.clone();
                scope.spawn(move || act(client, number * REGION, &deeds))
            };
            let threads: Vec<_> = threads.iter().enumerate().map(act).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        client.flush().unwrap();
        let durable = disk.durable();
        for (number, model) in models.iter().enumerate() {
            prop_assert!(&durable[number * REGION..][..REGION] == model, "region {}", number);
        }
        drop(client);
        cutting.end();
    }
}

fn other_server(command: &str, arguments: impl FnOnce(&Path) -> Vec<String>) {
    let (folder, size) = (Folder::new(), 40 << 20);
    let (socket, file) = (folder.0.join("socket"), folder.0.join("file"));
    fs::File::create(&file).unwrap().set_len(size as u64).unwrap();
    let Some(_server) = servers::Running::start(command, &arguments(&file), &socket) else { return };
    let client = Client::connect(&folder.location(), patient()).unwrap();
    exercise(&client, size);
    assert!(client.offer().is_structured && client.offer().allocation_id.is_some());
    thread::scope(|scope| {
        for number in 0..4_usize {
            let client = &client;
            scope.spawn(move || {
                for round in 0..50_usize {
                    let at = (number << 20) + round * 4096;
                    client.write(at as u64, &[round as u8; 4096]).unwrap();
                    let mut bytes = [0; 4096];
                    client.read(at as u64, &mut bytes).unwrap();
                    assert_eq!(bytes, [round as u8; 4096]);
                }
            });
        }
    });
}

fn words(text: String) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn qemu_nbd_serves_our_client() {
    other_server("qemu-nbd", |file| words(format!("-t -f raw --discard=unmap -x disk {}", file.display())));
}

#[test]
fn nbdkit_serves_our_client() {
    other_server("nbdkit", |file| words(format!("-f -e disk file {}", file.display())));
}

#[test]
fn hole_and_zero_are_told() {
    let folder = Folder::new();
    let export = Export::new("disk", 8192);
    let parts = vec![
        Allocation { length: 4096, is_hole: true, is_zero: true },
        Allocation { length: 4096, is_hole: false, is_zero: false },
    ];
    let told = parts.clone();
    folder.listen(vec![answering(export, move |request| Reply::block_status(request.cookie, &told))]);
    let client = Client::connect(&folder.location(), patient()).unwrap();
    assert_eq!(client.allocation(0, 8192).unwrap(), parts);
}
