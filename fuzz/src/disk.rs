//! What an NBD client sends, what a server sends, and a journal that somebody has left behind.

use colo_core::disk::journal::ReadAt;
use colo_core::disk::nbd::{
    Answered, ClientHandshake, ClientProgress, Command, Export, Handshake, Progress, Replies, Reply, Request, Session,
};
use colo_core::disk::{Action, Allocation, DiskError, EpochStore, StoreConfig};
use colo_core::ids::Epoch;
use std::io;

const SIZE: u64 = 1 << 16;

struct Journal<'a>(&'a [u8]);

impl ReadAt for Journal<'_> {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let rest = self.0.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or(&[]);
        let count = rest.len().min(bytes.len());
        bytes[..count].copy_from_slice(&rest[..count]);
        bytes[count..].fill(0);
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}

/// Takes `data`, without its first byte, for what that says: a client's negotiation and requests, a server's
/// negotiation and replies, or a journal.
///
/// # Panics
/// When a journal that is taken up says something of what is not on its disks, or an answer is another than was asked for.
pub fn fuzz(data: &[u8]) {
    match data.split_first() {
        Some((0, journal)) => recover(journal),
        Some((1, client)) => negotiate(client),
        Some((_, server)) => listen(server),
        None => {}
    }
}

/// A journal with epochs in each of their states, a client that looks around before it chooses, and a server that answers each request.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut store = EpochStore::new(StoreConfig::default(), &[SIZE], Epoch(1), 7);
    for epoch in 2..5 {
        let _ = store.write(0, 0..512, vec![epoch as u8; 512].into());
        let _ = store.barrier(Epoch(epoch));
    }
    let _ = store.commit(Epoch(3));
    let mut journal = Vec::new();
    while let Some((_, action)) = store.poll_action() {
        if let Action::Journal { at, parts } = action {
            let (bytes, at) = (parts.concat(), at as usize);
            journal.resize(journal.len().max(at + bytes.len()), 0);
            journal[at..at + bytes.len()].copy_from_slice(&bytes);
        }
    }
    let option = |kind: u32, data: &[u8]| {
        [b"IHAVEOPT", &kind.to_be_bytes()[..], &(data.len() as u32).to_be_bytes(), data].concat()
    };
    let context = b"\0\0\0\x04disk\0\0\0\x01\0\0\0\x0fbase:allocation";
    let options =
        [option(3, b""), option(8, b""), option(10, context), option(7, b"\0\0\0\x04disk\0\x01\0\x03")].concat();
    let request =
        [&0x2560_9513_u32.to_be_bytes()[..], &[0; 12], &512_u64.to_be_bytes(), &512_u32.to_be_bytes()].concat();
    let client = [&[1, 0, 0, 0, 3][..], &options, &request].concat();
    vec![[vec![0], journal].concat(), client, [vec![2], server()].concat()]
}

/// What a server says to a client: the negotiation as a server of ours has it, and answers of each kind.
fn server() -> Vec<u8> {
    let (mut server, mut client) = (Handshake::new(vec![Export::new("disk", SIZE)]), ClientHandshake::new("disk"));
    let mut said = Vec::new();
    loop {
        let output = server.take_output();
        said.extend_from_slice(&output);
        match client.feed(&output) {
            ClientProgress::More => {}
            _ => break,
        }
        let _ = server.feed(&client.take_output());
    }
    let part = |length, is_hole| Allocation { length, is_hole, is_zero: is_hole };
    said.extend(Reply::data_head(1, 512, 32, true));
    said.extend([7; 32]);
    said.extend(Reply::block_status(3, &[part(16, true), part(16, false)]));
    said.extend(Reply::hole(5, 512, 32));
    said.extend(Reply::error(6, DiskError::NoSpace, true));
    said.extend(Reply::done(2));
    said.extend(Reply::done(4));
    said
}

/// Believes a server as far as a client does that has asked for something of each kind.
fn listen(server: &[u8]) {
    let mut client = ClientHandshake::new("disk");
    let ClientProgress::Agreed(offer) = client.feed(server) else { return };
    let (mut replies, mut asked) = (Replies::of(&offer), Vec::new());
    for command in [Command::Read, Command::Write, Command::BlockStatus, Command::Flush, Command::Read, Command::Read] {
        let (offset, length) = if command == Command::Flush { (0, 0) } else { (512, 32) };
        asked.push(Request::new(command, asked.len() as u64 + 1, offset, length));
    }
    asked.iter().for_each(|request| replies.ask(request));
    let end = replies.feed(&client.into_rest());
    while let Some(answer) = replies.poll() {
        let at = asked.iter().position(|request| request.cookie == answer.cookie).expect("it was asked, and once");
        let request = asked.swap_remove(at);
        match (answer.result, request.command) {
            (Ok(Answered::Data(data)), Command::Read) => assert_eq!(data.len(), 32),
            (Ok(Answered::Parts(parts)), Command::BlockStatus) => {
                assert!((1..=32).contains(&parts.iter().map(|part| part.length).sum::<u32>()));
            }
            (Ok(Answered::Done), Command::Write | Command::Flush) | (Err(_), _) => {}
            (answered, command) => panic!("{command:?}: {answered:?}"),
        }
    }
    drop(end);
}

fn recover(journal: &[u8]) {
    let Ok(mut store) = EpochStore::recover(StoreConfig::default(), &[SIZE], &Journal(journal), 9) else { return };
    for (range, _) in store.read(0, 0..SIZE).expect("it is the disk").1 {
        assert!(range.end <= SIZE);
    }
    while let Some((id, action)) = store.poll_action() {
        if let Action::Disk { range, .. } = action {
            assert!(range.end <= SIZE);
        }
        store.done(id);
    }
}

fn negotiate(client: &[u8]) {
    let export = Export::new("disk", SIZE);
    let mut handshake = Handshake::new(vec![export.clone()]);
    let Progress::Chosen(session) = handshake.feed(client) else { return };
    let rest = handshake.into_rest();
    for bytes in rest.chunks_exact(Request::BYTES) {
        let Some(request) = Request::decode(bytes.try_into().expect("so many")) else { return };
        check(&request, &export, &session);
    }
}

fn check(request: &Request, export: &Export, session: &Session) {
    if request.check(export, session).is_ok() {
        assert!(request.offset + u64::from(request.length) <= SIZE);
    }
}
