use super::*;
use crate::disk::DiskError;
use crate::disk::nbd::client::{Answer, Answered, ClientHandshake, ClientProgress, Replies};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

const SIZE: usize = 1 << 20;

/// A read from here on waits as a flush does.
const SLOW_AT: u64 = 600 << 10;

/// A disk whose flushes wait for a word, which says whether they succeed.
struct Disk {
    bytes: Mutex<Vec<u8>>,
    flushing: SyncSender<()>,
    words: Mutex<Receiver<bool>>,
}

impl Backend for Disk {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DiskError> {
        assert!(offset != 512 * 1024, "a disk that panics");
        if offset == SLOW_AT {
            self.flush()?;
        }
        bytes.copy_from_slice(&self.bytes.lock().unwrap()[offset as usize..][..bytes.len()]);
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.bytes.lock().unwrap()[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, length: u64, _may_unmap: bool) -> Result<(), DiskError> {
        self.write(offset, &vec![0; length as usize])
    }

    fn flush(&self) -> Result<(), DiskError> {
        self.flushing.send(()).unwrap();
        if self.words.lock().unwrap().recv().unwrap() { Ok(()) } else { Err(DiskError::Io) }
    }
}

/// A client that does as it is told, and its server.
struct Client {
    socket: UnixStream,
    replies: Replies,
    answers: VecDeque<Answer>,
    server: JoinHandle<Result<(), ServeError>>,
    is_flushing: Receiver<()>,
    words: SyncSender<bool>,
}

impl Client {
    fn new(limits: Limits) -> Client {
        let (socket, theirs) = UnixStream::pair().unwrap();
        let ((flushing, is_flushing), (words, waiting)) = (sync_channel(2000), sync_channel(2000));
        let bytes = Mutex::new((0..SIZE).map(|at| (at / 512) as u8).collect());
        let disk = Arc::new(Disk { bytes, flushing, words: Mutex::new(waiting) });
        let export = Export::new("disk", SIZE as u64);
        let server = thread::spawn(move || serve_within(theirs, &export, &*disk, &limits));
        let mut handshake = ClientHandshake::new("disk");
        let mut bytes = [0; 4096];
        let mut socket = socket;
        let offer = loop {
            socket.write_all(&handshake.take_output()).unwrap();
            let count = socket.read(&mut bytes).unwrap();
            match handshake.feed(&bytes[..count]) {
                ClientProgress::More => {}
                ClientProgress::Agreed(offer) => break offer,
                ClientProgress::Broken(error) => panic!("{error}"),
            }
        };
        Client { socket, replies: Replies::of(&offer), answers: VecDeque::new(), server, is_flushing, words }
    }

    /// Asks all of that at once.
    fn ask(&mut self, requests: &[Request], data: &[u8]) {
        let mut bytes = Vec::new();
        for request in requests {
            self.replies.ask(request);
            bytes.extend(request.encode());
        }
        bytes.extend(data);
        self.socket.write_all(&bytes).unwrap();
    }

    fn answer(&mut self) -> Answer {
        let mut bytes = vec![0; 65536];
        loop {
            if let Some(answer) = self.replies.poll() {
                return answer;
            }
            let count = self.socket.read(&mut bytes).unwrap();
            assert!(count > 0, "the server has gone; {:?}", self.answers);
            self.replies.feed(&bytes[..count]).unwrap();
        }
    }

    fn end(self) -> Result<(), ServeError> {
        drop(self.socket);
        self.server.join().unwrap()
    }
}

fn read(cookie: u64, offset: u64, length: u32) -> Request {
    Request::new(Command::Read, cookie, offset, length)
}

fn flush(cookie: u64) -> Request {
    Request::new(Command::Flush, cookie, 0, 0)
}

#[test]
fn a_flush_does_not_hold_up_what_comes_behind_it() {
    let mut client = Client::new(Limits::default());
    client.ask(&[flush(1), read(2, 512, 2), Request::new(Command::Write, 3, 0, 4)], b"data");
    let data = Ok(Answered::Data(vec![1; 2]));
    assert_eq!(client.answer(), Answer { cookie: 2, result: data });
    assert_eq!(client.answer(), Answer { cookie: 3, result: Ok(Answered::Done) });
    client.is_flushing.recv().unwrap();
    client.words.send(false).unwrap();
    assert_eq!(client.answer(), Answer { cookie: 1, result: Err(DiskError::Io) });
    client.ask(&[read(4, 0, 4)], &[]);
    assert_eq!(client.answer().result, Ok(Answered::Data(b"data".to_vec())));
    client.end().unwrap();
}

#[test]
fn nor_does_a_long_read() {
    let mut client = Client::new(Limits::default());
    client.ask(&[read(1, SLOW_AT, LONG_BYTES), read(2, 512, 2)], &[]);
    client.is_flushing.recv().unwrap();
    assert_eq!(client.answer(), Answer { cookie: 2, result: Ok(Answered::Data(vec![1; 2])) });
    client.words.send(true).unwrap();
    let data: Vec<u8> = (SLOW_AT..SLOW_AT + u64::from(LONG_BYTES)).map(|at| (at / 512) as u8).collect();
    assert_eq!(client.answer(), Answer { cookie: 1, result: Ok(Answered::Data(data)) });
    client.end().unwrap();
}

#[test]
fn a_durable_write_is_answered_when_it_is_durable() {
    let mut client = Client::new(Limits::default());
    // NBD_CMD_FLAG_FUA is the lower bit of the flags, which stand behind the magic number.
    let write = Request::new(Command::Write, 1, 0, 4);
    let mut bytes = write.encode();
    bytes[5] |= 1;
    client.replies.ask(&write);
    client.socket.write_all(&[&bytes[..], b"data"].concat()).unwrap();
    client.is_flushing.recv().unwrap();
    client.ask(&[read(2, 0, 4)], &[]);
    assert_eq!(client.answer(), Answer { cookie: 2, result: Ok(Answered::Data(b"data".to_vec())) });
    client.words.send(true).unwrap();
    assert_eq!(client.answer(), Answer { cookie: 1, result: Ok(Answered::Done) });
    client.end().unwrap();
}

#[test]
fn no_more_is_in_flight_than_is_allowed_and_none_is_lost() {
    let mut client = Client::new(Limits { in_flight: 3, threads: 8, ..Limits::default() });
    let flushes: Vec<Request> = (0..20).map(flush).collect();
    client.ask(&flushes, &[]);
    // Behind the flushes: it is not looked at before there is room.
    client.ask(&[read(100, 0, 1)], &[]);
    for _ in 0..3 {
        client.is_flushing.recv().unwrap();
    }
    assert!(client.is_flushing.try_recv().is_err());
    for _ in 0..20 {
        client.words.send(true).unwrap();
    }
    let mut cookies: Vec<u64> = (0..21).map(|_| client.answer().cookie).collect();
    cookies.sort_unstable();
    assert_eq!(cookies, (0..20).chain([100]).collect::<Vec<_>>());
    client.end().unwrap();
}

#[test]
fn a_thousand_in_flight_are_each_answered() {
    let mut client = Client::new(Limits::default());
    client.ask(&(0..500).flat_map(|at| [flush(at * 2), read(at * 2 + 1, at * 512, 512)]).collect::<Vec<_>>(), &[]);
    for _ in 0..500 {
        client.words.send(true).unwrap();
    }
    let mut seen = vec![false; 1000];
    for _ in 0..1000 {
        let Answer { cookie, result } = client.answer();
        assert!(!std::mem::replace(&mut seen[cookie as usize], true));
        let value = (cookie / 2) as u8;
        let expected = if cookie % 2 == 0 { Answered::Done } else { Answered::Data(vec![value; 512]) };
        assert_eq!(result, Ok(expected));
    }
    client.end().unwrap();
}

#[test]
fn a_client_that_says_goodbye_gets_the_answers_that_are_due() {
    let mut client = Client::new(Limits::default());
    client.ask(&[flush(1), read(2, 0, 1), Request::new(Command::Disconnect, 3, 0, 0)], &[]);
    assert_eq!(client.answer().cookie, 2);
    client.words.send(true).unwrap();
    assert_eq!(client.answer().cookie, 1);
    assert_eq!(client.socket.read(&mut [0]).unwrap(), 0);
    client.end().unwrap();
}

#[test]
fn a_client_that_goes_in_the_midst_is_an_error_and_a_thread_that_works_for_it_ends() {
    let mut client = Client::new(Limits::default());
    client.ask(&[flush(1), Request::new(Command::Write, 2, 0, 100_000)], &[7; 50_000]);
    client.is_flushing.recv().unwrap();
    client.socket.shutdown(Shutdown::Both).unwrap();
    client.words.send(true).unwrap();
    assert!(matches!(client.end(), Err(ServeError::Connection(_))));
}

#[test]
fn nonsense_is_an_error_and_what_was_asked_before_is_given_up() {
    let mut client = Client::new(Limits::default());
    // It may be under way already.
    client.words.send(true).unwrap();
    client.ask(&[flush(1)], &[0x55; 100]);
    assert!(matches!(client.end(), Err(ServeError::NoRequest)));
}

#[test]
fn who_does_not_take_its_replies_is_left() {
    let mut client = Client::new(Limits { patience: Duration::from_millis(50), ..Limits::default() });
    // Far more than a socket holds.
    client.ask(&(0..100).map(|cookie| read(cookie, 0, 500_000)).collect::<Vec<_>>(), &[]);
    let result = std::mem::replace(&mut client.server, thread::spawn(|| Ok(()))).join().unwrap();
    assert!(matches!(result, Err(ServeError::Stalled(_))), "{result:?}");
}

#[test]
fn who_does_not_negotiate_is_left() {
    let (_client, theirs) = UnixStream::pair().unwrap();
    let limits = Limits { patience: Duration::from_millis(50), ..Limits::default() };
    let disk = crate::disk::FileBackend::new(std::fs::File::open("/dev/null").unwrap());
    let result = serve_within(theirs, &Export::new("disk", 512), &disk, &limits);
    assert!(matches!(result, Err(ServeError::Stalled(_))), "{result:?}");
}

#[test]
fn a_disk_that_panics_ends_its_connection() {
    let mut client = Client::new(Limits::default());
    client.ask(&[flush(1), read(2, 512 * 1024, 512)], &[]);
    // Unless the panic comes first: then there is no thread any more that would flush.
    if client.is_flushing.recv().is_ok() {
        client.words.send(true).unwrap();
    }
    let mut rest = Vec::new();
    // Nothing, or the flush's answer; but an end.
    let _ = client.socket.read_to_end(&mut rest);
    assert!(client.server.join().is_err());
}

#[test]
fn a_slow_disk_gets_threads_and_a_quick_one_does_not() {
    let (pace, request) = (Pace::new(), read(1, 0, 4096));
    assert!(pace.is_quick(&request) && !pace.is_quick(&flush(2)));
    (0..50).for_each(|_| pace.note(&request, Duration::from_millis(4)));
    assert!(!pace.is_quick(&request));
    (0..50).for_each(|_| pace.note(&request, Duration::from_micros(5)));
    assert!(pace.is_quick(&request));
    (0..50).for_each(|_| pace.note(&flush(2), Duration::from_micros(5)));
    assert!(pace.is_quick(&flush(2)));
    let long = read(1, 0, 32 << 20);
    (0..50).for_each(|_| pace.note(&long, Duration::from_millis(16)));
    assert!(pace.is_quick(&long), "it is copied, and no more");
}
