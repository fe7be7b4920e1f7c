use super::*;
use crate::disk::nbd::reply::Reply;
use crate::disk::nbd::wire::{
    FIXED_NEWSTYLE, MAGIC, NO_ZEROES, OPTION_MAGIC, OPTION_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, chunk, info, option,
    reply,
};
use crate::disk::nbd::{Handshake, Progress};
use proptest::prelude::*;

/// Lets both sides talk, so many bytes at a time, until one is through.
fn negotiate(client: &mut ClientHandshake, server: &mut Handshake, at_once: usize) -> (ClientProgress, Progress) {
    let (mut ours, mut theirs) = (ClientProgress::More, Progress::More);
    for _ in 0..100 {
        for bytes in server.take_output().chunks(at_once) {
            assert_eq!(ours, ClientProgress::More);
            ours = client.feed(bytes);
        }
        if ours != ClientProgress::More {
            break;
        }
        for bytes in client.take_output().chunks(at_once) {
            theirs = server.feed(bytes);
        }
    }
    (ours, theirs)
}

fn agreed(progress: &ClientProgress) -> Offer {
    let ClientProgress::Agreed(offer) = progress else { panic!("{progress:?}") };
    offer.clone()
}

fn greeting(flags: u32) -> Vec<u8> {
    [&MAGIC.to_be_bytes()[..], &OPTION_MAGIC.to_be_bytes(), &(flags as u16).to_be_bytes()].concat()
}

fn option_reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u32).to_be_bytes();
    [&OPTION_REPLY_MAGIC.to_be_bytes()[..], &option.to_be_bytes(), &kind.to_be_bytes(), &length, data].concat()
}

fn size_and_flags(size: u64, flags: u16) -> Vec<u8> {
    [&size.to_be_bytes()[..], &flags.to_be_bytes()].concat()
}

fn about(kind: u16, data: &[u8]) -> Vec<u8> {
    option_reply(option::GO, reply::INFO, &[&kind.to_be_bytes(), data].concat())
}

/// What a client says to these answers, each of them to its next question.
fn told(answers: &[&[u8]]) -> ClientProgress {
    let mut client = ClientHandshake::new("disk");
    let mut progress = ClientProgress::More;
    for answer in answers {
        assert_eq!(progress, ClientProgress::More);
        progress = client.feed(answer);
    }
    progress
}

#[test]
fn a_client_agrees_with_a_server() {
    let export = Export { minimum_block: 512, is_read_only: true, ..Export::new("disk", 1 << 20) };
    for at_once in [1, 7, 4096] {
        let (mut client, mut server) = (ClientHandshake::new("disk"), Handshake::new(vec![export.clone()]));
        let (ours, theirs) = negotiate(&mut client, &mut server, at_once);
        let offer = agreed(&ours);
        assert_eq!((&offer.export, offer.maximum_block), (&export, 32 << 20));
        assert!(offer.is_structured && offer.allocation_id.is_some() && offer.can_flush() && !offer.can_trim());
        let Progress::Chosen(session) = theirs else { panic!("{theirs:?}") };
        assert!(session.is_structured && session.has_allocation);
    }
    let (mut client, mut server) = (ClientHandshake::new("other"), Handshake::new(vec![export]));
    let (ours, _) = negotiate(&mut client, &mut server, 4096);
    let text = "there is no export \"other\"".to_owned();
    let error = NegotiationError::NoExport { name: "other".into(), text };
    assert_eq!(ours, ClientProgress::Broken(error));
}

#[test]
fn old_servers_are_asked_in_the_old_way() {
    let unsupported = |option| option_reply(option, reply::UNSUPPORTED, &[]);
    let new = greeting(FIXED_NEWSTYLE | NO_ZEROES);
    let (structured, go) = (unsupported(option::STRUCTURED_REPLY), unsupported(option::GO));
    let old = size_and_flags(4096, 1);
    let offer = agreed(&told(&[&new, &structured, &go, &old]));
    assert_eq!((offer.export, offer.is_structured), (Export::new("disk", 4096), false));
    // Older still: no options but this one, and zeroes behind its answer.
    assert_eq!(told(&[&greeting(0), &old]), ClientProgress::More);
    assert_eq!(agreed(&told(&[&greeting(0), &old, &[0; 124]])).export.size, 4096);
}

#[test]
fn what_makes_no_sense_ends_the_negotiation() {
    let new = greeting(FIXED_NEWSTYLE | NO_ZEROES);
    let plain = option_reply(option::STRUCTURED_REPLY, reply::UNSUPPORTED, &[]);
    let export = about(info::EXPORT, &size_and_flags(4096, 1));
    let go = option_reply(option::GO, reply::ACK, &[]);
    let blocks = |sizes: [u32; 3]| about(info::BLOCK_SIZE, &sizes.map(u32::to_be_bytes).concat());
    assert!(matches!(told(&[&new, &plain, &export, &blocks([512, 4096, 65536]), &go]), ClientProgress::Agreed(_)));
    let context = |text: &str| {
        option_reply(option::SET_META_CONTEXT, reply::META_CONTEXT, &[b"\0\0\0\x07", text.as_bytes()].concat())
    };
    let rich = option_reply(option::STRUCTURED_REPLY, reply::ACK, &[]);
    let mut too_long = export.clone();
    too_long[16..20].copy_from_slice(&0x7fff_ffff_u32.to_be_bytes());
    let endless = about(info::DESCRIPTION, b"more").repeat(70);
    for (what, answers) in [
        ("no magic number", vec![&b"SSH-2.0"[..]]),
        ("the old style", vec![b"NBDMAGIC\0\0\x42\x02\x81\x86\x12\x53"]),
        ("another option", vec![&new, &go]),
        ("no reply", vec![&new, &[0; 20]]),
        ("no size", vec![&new, &plain, &go]),
        ("blocks of nothing", vec![&new, &plain, &export, &blocks([0, 4096, 65536]), &go]),
        ("blocks of three", vec![&new, &plain, &export, &blocks([3, 4096, 65536]), &go]),
        ("huge blocks", vec![&new, &plain, &export, &blocks([1 << 20, 1 << 20, 1 << 20]), &go]),
        ("less than a block", vec![&new, &plain, &export, &blocks([512, 4096, 256]), &go]),
        ("half an information", vec![&new, &plain, &about(info::EXPORT, &[1; 9])]),
        ("an impossible size", vec![&new, &plain, &about(info::EXPORT, &size_and_flags(1 << 63, 1)), &go]),
        ("no flags", vec![&new, &plain, &about(info::EXPORT, &size_and_flags(4096, 0)), &go]),
        ("a long reply", vec![&new, &plain, &too_long]),
        ("no end", vec![&new, &plain, &endless]),
        ("another context", vec![&new, &rich, &context("base:other")]),
        (
            "a context twice",
            vec![&new, &rich, &context(crate::disk::nbd::wire::ALLOCATION), &context("base:allocation")],
        ),
    ] {
        let progress = told(&answers);
        let is_senseless =
            matches!(progress, ClientProgress::Broken(NegotiationError::Senseless(_) | NegotiationError::NotNbd));
        assert!(is_senseless, "{what}: {progress:?}");
    }
    let refused = option_reply(option::GO, 0x8000_0005, b"TLS first");
    let error = NegotiationError::Refused { code: 5, text: "TLS first".into() };
    assert_eq!(told(&[&new, &plain, &refused]), ClientProgress::Broken(error));
}

fn a_chunk(flags: u16, kind: u16, cookie: u64, data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u32).to_be_bytes();
    let (flags, kind, cookie) = (flags.to_be_bytes(), kind.to_be_bytes(), cookie.to_be_bytes());
    [&STRUCTURED_REPLY_MAGIC.to_be_bytes()[..], &flags, &kind, &cookie, &length, data].concat()
}

fn data_chunk(flags: u16, cookie: u64, offset: u64, data: &[u8]) -> Vec<u8> {
    a_chunk(flags, chunk::OFFSET_DATA, cookie, &[&offset.to_be_bytes(), data].concat())
}

fn hole_chunk(flags: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    a_chunk(flags, chunk::OFFSET_HOLE, cookie, &[&offset.to_be_bytes()[..], &length.to_be_bytes()].concat())
}

fn parts_chunk(cookie: u64, id: u32, parts: &[(u32, u32)]) -> Vec<u8> {
    let parts = parts.iter().flat_map(|(length, state)| [length.to_be_bytes(), state.to_be_bytes()].concat());
    a_chunk(1, chunk::BLOCK_STATUS, cookie, &id.to_be_bytes().into_iter().chain(parts).collect::<Vec<_>>())
}

/// Waits for a read of 16 bytes at 32 (cookie 1), a write (2), a status of as much (3) and a flush (4).
fn waiting(is_structured: bool) -> Replies {
    let mut replies = Replies::new(is_structured, is_structured.then_some(5));
    for (cookie, command) in [Command::Read, Command::Write, Command::BlockStatus].into_iter().enumerate() {
        replies.ask(&Request::new(command, cookie as u64 + 1, 32, 16));
    }
    replies.ask(&Request::new(Command::Flush, 4, 0, 0));
    replies
}

#[test]
fn replies_are_put_together() {
    let mut replies = waiting(true);
    let part = |length, is_hole| Allocation { length, is_hole, is_zero: is_hole };
    let bytes = [
        data_chunk(0, 1, 40, b"ijkl"),
        Reply::done(4),
        hole_chunk(0, 1, 44, 4),
        Reply::error(2, DiskError::NoSpace, false),
        data_chunk(0, 1, 32, b"abcdefgh"),
        // The last part reaches beyond what was asked for, as it may.
        parts_chunk(3, 5, &[(4, 0), (4096, 3), (7, 0)]),
        a_chunk(1, chunk::NONE, 1, &[]),
    ]
    .concat();
    replies.feed(&bytes).unwrap();
    let answers: Vec<_> = std::iter::from_fn(|| replies.poll()).map(|answer| (answer.cookie, answer.result)).collect();
    let expected = [
        (4, Ok(Answered::Done)),
        (2, Err(DiskError::NoSpace)),
        (3, Ok(Answered::Parts(vec![part(4, false), part(12, true)]))),
        (1, Ok(Answered::Data(b"abcdefghijkl\0\0\0\0".to_vec()))),
    ];
    assert_eq!(answers, expected);
    // An error among the data: what came before it does not count, and what comes after it is taken all the same.
    let mut replies = waiting(true);
    let error = [&5_u32.to_be_bytes()[..], &3_u16.to_be_bytes(), b"bad", &40_u64.to_be_bytes()].concat();
    let bytes = [a_chunk(0, chunk::ERROR_OFFSET, 1, &error), data_chunk(1, 1, 32, b"abcd")].concat();
    replies.feed(&bytes).unwrap();
    assert_eq!(replies.poll(), Some(Answer { cookie: 1, result: Err(DiskError::Io) }));
}

#[test]
fn each_lie_is_found() {
    let kind = |kind, length| Lie::WrongLength { kind, length };
    let error = |number: u32, text: u16, more: &[u8]| [&number.to_be_bytes()[..], &text.to_be_bytes(), more].concat();
    for (what, is_structured, bytes, lie) in [
        ("no reply", true, b"HTTP".to_vec(), Lie::NoReply),
        ("not agreed", false, data_chunk(1, 1, 32, &[0; 16]), Lie::NoReply),
        ("another cookie", true, Reply::done(9), Lie::UnknownCookie(9)),
        ("done twice", true, [Reply::done(2), Reply::done(2)].concat(), Lie::UnknownCookie(2)),
        ("another cookie's chunk", true, data_chunk(1, 9, 32, &[0; 16]), Lie::UnknownCookie(9)),
        ("a simple reply to a read", true, Reply::done(1), Lie::WrongKind(0)),
        ("a simple status", false, Reply::done(3), Lie::WrongKind(0)),
        (
            "a simple end",
            true,
            [a_chunk(0, chunk::ERROR, 2, &error(5, 0, b"")), Reply::done(2)].concat(),
            Lie::WrongKind(0),
        ),
        ("data of a write", true, data_chunk(1, 2, 32, &[0; 16]), Lie::WrongKind(1)),
        ("a status of a read", true, parts_chunk(1, 5, &[(16, 0)]), Lie::WrongKind(5)),
        ("an unknown kind", true, a_chunk(1, 77, 1, &[]), Lie::WrongKind(77)),
        ("data before", true, data_chunk(1, 1, 31, &[0; 16]), Lie::Outside),
        ("data behind", true, data_chunk(1, 1, 33, &[0; 16]), Lie::Outside),
        ("data far behind", true, data_chunk(1, 1, u64::MAX, &[0; 2]), Lie::Outside),
        ("a hole behind", true, hole_chunk(1, 1, 32, 17), Lie::Outside),
        ("a huge hole", true, hole_chunk(1, 1, 40, u32::MAX), Lie::Outside),
        ("an empty hole", true, hole_chunk(1, 1, 32, 0), Lie::Outside),
        ("too much data", true, data_chunk(1, 1, 32, &[0; 17]), kind(1, 25)),
        ("no data", true, data_chunk(1, 1, 32, &[]), kind(1, 8)),
        ("a long hole", true, a_chunk(1, 2, 1, &[0; 13]), kind(2, 13)),
        ("an end with data", true, a_chunk(1, 0, 1, &[0]), kind(0, 1)),
        ("an end that is none", true, a_chunk(0, 0, 1, &[]), kind(0, 0)),
        ("twice", true, [data_chunk(0, 1, 32, &[0; 8]), data_chunk(1, 1, 39, &[0; 8])].concat(), Lie::Twice),
        ("twice, before", true, [data_chunk(0, 1, 40, &[0; 8]), hole_chunk(1, 1, 32, 9)].concat(), Lie::Twice),
        ("half", true, data_chunk(1, 1, 32, &[0; 8]), Lie::Incomplete),
        ("nothing", true, a_chunk(1, 0, 1, &[]), Lie::Incomplete),
        ("no status", true, a_chunk(1, 0, 3, &[]), Lie::Incomplete),
        ("an empty part", true, parts_chunk(3, 5, &[(0, 0)]), kind(5, 0)),
        ("no part", true, parts_chunk(3, 5, &[]), kind(5, 4)),
        ("half a part", true, a_chunk(1, 5, 3, &[0; 14]), kind(5, 14)),
        ("another context", true, parts_chunk(3, 6, &[(16, 0)]), Lie::WrongKind(5)),
        ("no error", true, a_chunk(1, chunk::ERROR, 1, &error(0, 0, b"")), Lie::WrongKind(chunk::ERROR)),
        ("a short error", true, a_chunk(1, chunk::ERROR, 1, &[0; 5]), kind(chunk::ERROR, 5)),
        ("no text", true, a_chunk(1, chunk::ERROR, 1, &error(5, 9, b"")), kind(chunk::ERROR, 6)),
        ("too much text", true, a_chunk(1, chunk::ERROR, 1, &error(5, 1, b"ab")), kind(chunk::ERROR, 8)),
        ("a long error", true, a_chunk(1, chunk::ERROR, 1, &[1; 5000]), kind(chunk::ERROR, 5000)),
        ("an error elsewhere", true, a_chunk(1, chunk::ERROR_OFFSET, 1, &error(5, 0, &[0; 8])), Lie::Outside),
    ] {
        let mut replies = waiting(is_structured);
        assert_eq!(replies.feed(&bytes), Err(lie), "{what}");
    }
    let mut replies = waiting(true);
    let nothing = a_chunk(0, chunk::ERROR, 1, &error(5, 0, b""));
    let end = (0..1 << 20).map(|_| replies.feed(&nothing)).find(Result::is_err);
    assert_eq!(end, Some(Err(Lie::Endless)));
    let mut replies = Replies::new(true, None);
    replies.ask(&Request::new(Command::Read, 1, 0, 1 << 20));
    let end = (0..1 << 19).map(|at| replies.feed(&data_chunk(0, 1, at * 2, &[0]))).find(Result::is_err);
    assert_eq!(end, Some(Err(Lie::Endless)));
}

proptest! {
    #[test]
    fn it_does_not_matter_where_replies_are_cut(cuts in prop::collection::vec(1..40_usize, 1..40)) {
        let bytes = [
            data_chunk(0, 1, 40, b"ijkl"),
            Reply::done(2),
            hole_chunk(0, 1, 44, 4),
            parts_chunk(3, 5, &[(4, 0), (12, 3)]),
            data_chunk(1, 1, 32, b"abcdefgh"),
            Reply::error(4, DiskError::Io, true),
        ]
        .concat();
        let (mut whole, mut cut) = (waiting(true), waiting(true));
        whole.feed(&bytes).unwrap();
        let (mut rest, mut cuts) = (&bytes[..], cuts.into_iter().cycle());
        while !rest.is_empty() {
            let (now, later) = rest.split_at(cuts.next().unwrap().min(rest.len()));
            cut.feed(now).unwrap();
            rest = later;
        }
        for _ in 0..4 {
            let answer = whole.poll();
            prop_assert!(answer.is_some());
            prop_assert_eq!(answer, cut.poll());
        }
    }

    #[test]
    fn arbitrary_replies_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), cookie in 0..5_u64, kind in 0..7_u16) {
        for bytes in [bytes.clone(), a_chunk(0, kind, cookie, &bytes), a_chunk(1, kind | 0x8000, cookie, &bytes)] {
            let _ = waiting(true).feed(&bytes);
            let _ = waiting(false).feed(&bytes);
        }
        let mut client = ClientHandshake::new("disk");
        let _ = client.feed(&greeting(FIXED_NEWSTYLE));
        let _ = client.feed(&option_reply(option::STRUCTURED_REPLY, kind.into(), &bytes));
    }
}
