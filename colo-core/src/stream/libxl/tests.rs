use super::*;
use proptest::prelude::*;

fn encoded(record: &LibxlRecord<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.encode(&mut bytes).unwrap();
    bytes
}

fn fault(bytes: &[u8]) -> LibxlFault {
    LibxlRecord::parse(bytes, 1 << 20).unwrap_err()
}

#[test]
fn golden_bytes() {
    let mut header = Vec::new();
    LibxlHeader { legacy: true }.encode(&mut header);
    assert_eq!(header, *b"LibxlFmt\0\0\0\x02\0\0\0\x02");

    let context = encoded(&LibxlRecord::EmulatorContext(Emulator::QEMU, b"qemu!"));
    assert_eq!(context, *b"\x03\0\0\0\x0D\0\0\0\x02\0\0\0\0\0\0\0qemu!\0\0\0");
    let pairs = encode_xenstore_data([("physmap/1f", &b"x y"[..]), ("a", b"")]).unwrap();
    assert_eq!(pairs, *b"physmap/1f\0x y\0a\0\0");
    let data = XenstoreData::parse(&pairs).unwrap();
    let bytes =
        encoded(&LibxlRecord::EmulatorXenstoreData(Emulator { id: EmulatorId::QemuTraditional, index: 3 }, data));
    assert_eq!(bytes, *b"\x02\0\0\0\x1A\0\0\0\x01\0\0\0\x03\0\0\0physmap/1f\0x y\0a\0\0\0\0\0\0\0\0");
    let state = encoded(&LibxlRecord::CheckpointState(CheckpointState::SvmReady));
    assert_eq!(state, *b"\x05\0\0\0\x08\0\0\0\x02\0\0\0\0\0\0\0");
    for (record, kind) in [(LibxlRecord::End, 0), (LibxlRecord::LibxcContext, 1), (LibxlRecord::CheckpointEnd, 4)] {
        assert_eq!(encoded(&record), [kind, 0, 0, 0, 0, 0, 0, 0]);
    }
}

#[test]
fn wrong_headers_are_told_apart() {
    let mut good = Vec::new();
    LibxlHeader::default().encode(&mut good);
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        LibxlHeader::parse(&bytes).map(|(header, _)| header)
    };
    assert_eq!(with(0, b'l'), Err(LibxlFault::NotLibxl));
    assert_eq!(with(11, 3), Err(LibxlFault::UnknownVersion(3)));
    assert_eq!(with(15, 1), Err(LibxlFault::BigEndian));
    assert_eq!(with(15, 2), Ok(LibxlHeader { legacy: true }));
    assert_eq!(with(13, 1), Ok(LibxlHeader::default()), "reserved options are ignored");
    for length in 0..good.len() {
        assert_eq!(LibxlHeader::parse(&good[..length]), Err(LibxlFault::Truncated { needed: 16, got: length }));
    }
}

#[test]
fn wrong_records_are_told_apart() {
    assert_eq!(fault(b"\x06\0\0\0\0\0\0\0"), LibxlFault::UnknownRecord(6));
    assert_eq!(fault(b"\x01\0\0\x80\0\0\0\0"), LibxlFault::UnknownRecord(0x8000_0001));
    for kind in [0, 1, 4] {
        let bytes = [kind, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(fault(&bytes), LibxlFault::BadLength { kind: kind.into(), length: 1 });
    }
    assert_eq!(fault(b"\x03\0\0\0\x07\0\0\0\0\0\0\0\0\0\0\0"), LibxlFault::BadLength { kind: 3, length: 7 });
    assert_eq!(fault(b"\x03\0\0\0\x08\0\0\0\x03\0\0\0\0\0\0\0"), LibxlFault::UnknownEmulator { kind: 3, id: 3 });
    assert_eq!(fault(b"\x05\0\0\0\x08\0\0\0\x04\0\0\0\0\0\0\0"), LibxlFault::UnknownState(4));
    assert_eq!(fault(b"\x05\0\0\0\x04\0\0\0\x00\0\0\0\0\0\0\0"), LibxlFault::BadLength { kind: 5, length: 4 });
    let long = LibxlFault::TooLong { kind: 3, length: 0xFFFF_FFFF, limit: 1 << 20 };
    assert_eq!(fault(b"\x03\0\0\0\xFF\xFF\xFF\xFF"), long);
    let mut out = Vec::new();
    let long = vec![0; MAX_LIBXL_BODY_BYTES];
    assert!(LibxlRecord::EmulatorContext(Emulator::QEMU, &long).encode(&mut out).is_err());
    assert!(out.is_empty());
}

#[test]
fn xenstore_data_that_is_wrong() {
    let parse = |bytes: &'static [u8]| XenstoreData::parse(bytes).map(|data| data.entries().count());
    assert_eq!(parse(b""), Ok(0));
    assert_eq!(parse(b"k\0v\0"), Ok(1));
    assert_eq!(parse(b"k\0v"), Err(LibxlFault::Xenstore("the last string does not end")));
    assert_eq!(parse(b"k\0v\0k\0"), Err(LibxlFault::Xenstore("a key without a value")));
    for bytes in [&b"\0v\0"[..], b"a b\0v\0", b"../x\0v\0", b"\xFF\0v\0", b"/local/domain/0\0v\0"] {
        assert_eq!(parse(bytes), Err(LibxlFault::Xenstore("a key that xenstore does not allow")));
    }
    assert!(encode_xenstore_data([("k", &b"a\0b"[..])]).is_err());
}

const XENSTORE: LibxlRecord<'_> = LibxlRecord::EmulatorContext(Emulator::QEMU, b"");
const NEW: LibxlRecord<'_> = LibxlRecord::CheckpointState(CheckpointState::New);

/// What happens to a libxl stream: a record, or the end of a part of libxc's.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Step {
    Record(LibxlRecord<'static>),
    LibxcEnd,
    LibxcCheckpoint,
}

/// Runs the steps that can happen; a step of libxc's can only where libxc's stream is.
fn run(steps: &[Step]) -> bool {
    let mut order = LibxlOrder::default();
    for step in steps {
        let fine = match step {
            Step::Record(record) => {
                let before = order;
                let result = order.check(record);
                assert!(result.is_ok() || before == order, "a refused record does not count");
                result.is_ok()
            }
            Step::LibxcEnd | Step::LibxcCheckpoint if !order.is_libxc() => false,
            Step::LibxcEnd => {
                order.libxc_ended(true);
                true
            }
            Step::LibxcCheckpoint => {
                order.libxc_checkpoint(true);
                true
            }
        };
        if !fine {
            return false;
        }
    }
    order.has_ended()
}

/// What a libxl stream may be, as a regular expression over letters.
fn is_stream(steps: &[Step]) -> bool {
    let letters: String = steps
        .iter()
        .map(|step| match step {
            Step::Record(LibxlRecord::LibxcContext) => 'L',
            Step::Record(LibxlRecord::End) => 'E',
            Step::Record(LibxlRecord::CheckpointEnd) => 'c',
            Step::Record(LibxlRecord::CheckpointState(_)) => 's',
            Step::Record(_) => 'e',
            Step::LibxcEnd => '.',
            Step::LibxcCheckpoint => 'C',
        })
        .collect();
    // L ( C e* c s? )* . e* E
    let Some(mut rest) = letters.strip_prefix('L') else { return false };
    while let Some(after) = rest.strip_prefix('C') {
        let Some(after) = after.trim_start_matches('e').strip_prefix('c') else { return false };
        rest = after.strip_prefix('s').unwrap_or(after);
    }
    rest.strip_prefix('.').is_some_and(|rest| rest.trim_start_matches('e') == "E")
}

#[test]
fn a_pv_guest_has_no_device_model() {
    let mut order = LibxlOrder::default();
    order.check(&LibxlRecord::LibxcContext).unwrap();
    order.libxc_ended(false);
    assert_eq!(order.check(&XENSTORE), Err(LibxlFault::NotAllowed { kind: 3 }));
    order.check(&LibxlRecord::End).unwrap();
}

fn good_streams() -> impl Strategy<Value = Vec<Step>> {
    let record = Step::Record;
    let plain = vec![record(LibxlRecord::LibxcContext), Step::LibxcEnd, record(XENSTORE), record(LibxlRecord::End)];
    let checkpoint = [Step::LibxcCheckpoint, record(XENSTORE), record(LibxlRecord::CheckpointEnd)];
    let mut colo = vec![record(LibxlRecord::LibxcContext)];
    colo.extend(checkpoint);
    colo.push(record(NEW));
    colo.extend(checkpoint);
    colo.extend_from_slice(&plain[1..]);
    prop::sample::select(vec![plain, colo])
}

proptest! {
    #[test]
    fn order_by_a_model(
        mut steps in good_streams(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..3), 0..3),
    ) {
        for (at, other, change) in changes {
            let (at, other) = (at.index(steps.len()), other.index(steps.len()));
            match change {
                0 => steps.swap(at, other),
                1 => steps.insert(at, steps[other]),
                _ if steps.len() > 1 => drop(steps.remove(at)),
                _ => {}
            }
        }
        prop_assert_eq!(run(&steps), is_stream(&steps), "{:?}", steps);
    }

    #[test]
    fn records_round_trip(index: u32, context in prop::collection::vec(any::<u8>(), 0..40), pairs in prop::collection::vec(("[a-z@_][a-zA-Z0-9/@_-]{0,8}", "[ -~]{0,8}"), 0..5)) {
        let emulator = Emulator { id: EmulatorId::QemuUpstream, index };
        let data = encode_xenstore_data(pairs.iter().map(|(key, value)| (key.as_str(), value.as_bytes()))).unwrap();
        let data = XenstoreData::parse(&data).unwrap();
        prop_assert!(data.entries().eq(pairs.iter().map(|(key, value)| (key.as_str(), value.as_bytes()))));
        for record in [LibxlRecord::EmulatorContext(emulator, &context), LibxlRecord::EmulatorXenstoreData(emulator, data)] {
            let bytes = encoded(&record);
            prop_assert_eq!(bytes.len() % 8, 0);
            prop_assert_eq!(LibxlRecord::parse(&bytes, 1 << 20), Ok((record, &[][..])));
            for length in 0..bytes.len() {
                let cut = matches!(fault(&bytes[..length]), LibxlFault::Truncated { .. });
                prop_assert!(cut, "at {}", length);
            }
        }
    }
}
