//! Migration streams: headers, records, the order of records, and what is in our own.

use colo_core::domain::StateRecord;
use colo_core::ids::{DomId, PAGE_SIZE, Pfn};
use colo_core::peer::NetFrame;
use colo_core::stream::{
    DomainHeader, EmulatorState, GrantEntry, Headers, Limits, MemoryHash, NetState, OrderChecker, PageType, PfnRanges,
    PortUse, ReadError, RecordReader, RecordRef, Records, StreamError, StreamUse, TwinFrontend, TwinFrontends,
    TwinGrants, TwinPort, TwinPorts, TwinSharedInfo, kind, page_data_prefix, write_dirty_pfn_list, write_record,
};

const LIMITS: Limits = Limits { pfn_limit: 1 << 20, body_bytes: 1 << 20 };

/// Reads `data` as a whole stream, by both readers, and asks of them that they agree.
pub fn fuzz(data: &[u8]) {
    let mut reader = RecordReader::new(data, LIMITS);
    let (headers, rest) = match (Headers::parse(data), reader.read_headers()) {
        (Ok((headers, rest)), Ok(same)) => {
            assert_eq!(headers, same);
            (headers, rest)
        }
        (Err(error), Err(ReadError::Stream(same))) => return assert_eq!(error, same),
        (one, other) => panic!("{one:?}, but {other:?}"),
    };
    let mut orders =
        [StreamUse::Plain, StreamUse::Checkpointed].map(|stream_use| OrderChecker::new(&headers, stream_use));
    let mut state = NetState::default();
    for record in Records::new(rest, LIMITS) {
        match (record, reader.next_record()) {
            (Ok(record), Ok(Some(same))) => {
                assert_eq!(record, same);
                for order in &mut orders {
                    let _ = order.check(&record);
                }
                check(&record, &mut state);
            }
            (Err(error), Err(ReadError::Stream(same))) => {
                assert_eq!(error.fault, same.fault);
                assert_eq!(error.offset + Headers::BYTES as u64, same.offset);
                return;
            }
            (one, other) => panic!("{one:?}, but {other:?}"),
        }
    }
    assert!(matches!(reader.next_record(), Ok(None)), "both end together");
}

/// What a record promises must be so.
fn check(record: &RecordRef<'_>, state: &mut NetState) {
    match record {
        RecordRef::PageData(pages) => {
            let with_data = pages.pages().filter(|page| page.data.is_some()).count();
            assert_eq!(pages.data().len(), with_data * PAGE_SIZE);
            assert!(pages.pages().all(|page| page.pfn.0 < LIMITS.pfn_limit));
            assert!(pages.pages().all(|page| page.data.is_some() == page.page_type.has_data()));
            assert_eq!(pages.pages().count(), pages.page_count());
        }
        RecordRef::DirtyPfnList(pages) => assert!(pages.iter().all(|pfn| pfn.0 < LIMITS.pfn_limit)),
        RecordRef::Own { kind: kind::NET_STATE, body } => check_net_state(body, state),
        RecordRef::Own { kind: kind::MEMORY_HASH, body } => {
            if let Ok(hash) = MemoryHash::parse(body) {
                assert_same(hash.to_record(), body);
            }
        }
        RecordRef::Own { kind: kind::EMULATOR_XENSTORE | kind::EMULATOR_CONTEXT, body } => {
            check_emulator(record.kind(), body);
        }
        RecordRef::Own { kind, body } => check_twin(*kind, body),
        _ => {}
    }
}

/// What is read of a twin's state is written as it was.
fn check_twin(kind: u32, body: &[u8]) {
    let written = match kind {
        kind::TWIN_PORTS => TwinPorts::parse(body).map(|ports| ports.to_record()),
        kind::TWIN_GRANTS => TwinGrants::parse(body).map(|grants| grants.to_record()),
        kind::TWIN_SHARED_INFO => TwinSharedInfo::parse(body).map(|shared| Ok(shared.to_record())),
        kind::TWIN_FRONTENDS => TwinFrontends::parse(body).map(|frontends| frontends.to_record()),
        kind::TWIN_POPULATED => PfnRanges::parse(body).map(|pages| pages.to_record()),
        _ => return,
    };
    if let Ok(written) = written {
        assert_same(written, body);
    }
}

/// What is read of a device model's state is written as it was; neither half is anything alone.
fn check_emulator(kind: u32, body: &[u8]) {
    let mut records = vec![StateRecord { kind, body: body.to_vec() }];
    if kind == kind::EMULATOR_XENSTORE {
        records.push(StateRecord { kind: kind::EMULATOR_CONTEXT, body: CONTEXT.to_vec() });
    }
    if let Ok(Some(state)) = EmulatorState::from_records(&records) {
        records.retain(|record| !record.body.is_empty());
        assert_eq!(state.to_records().expect("what was read can be written"), records);
    }
}

/// As short as a state of QEMU's can be.
const CONTEXT: &[u8] = b"QEVM\0\0\0\x03\0";

fn assert_same(written: Result<StateRecord, StreamError>, body: &[u8]) {
    assert_eq!(written.expect("what was read can be written").body, body);
}

fn check_net_state(body: &[u8], state: &mut NetState) {
    let before = state.clone();
    if state.add_part(body).is_err() {
        return assert_eq!(*state, before, "a part that is refused adds nothing");
    }
    let part = NetState {
        addresses: state.addresses[before.addresses.len()..].to_vec(),
        held: state.held[before.held.len()..].to_vec(),
    };
    let records = part.to_records().expect("what was read can be written");
    assert!(matches!(records.as_slice(), [record] if record.kind == kind::NET_STATE && record.body == body));
}

/// Short streams of every kind of record.
pub fn seeds() -> Vec<Vec<u8>> {
    let hold = NetFrame { nic: 1, frame: colo_core::net::Frame::from_static(b"an Ethernet frame") };
    let net_state = NetState { addresses: Vec::new(), held: vec![hold; 3] };
    let mut embedded = Vec::new();
    Headers::new(DomainHeader::embedded()).encode(&mut embedded);
    put(&mut embedded, kind::STATIC_DATA_END, &[]);
    page_data_prefix([(Pfn(3), PageType::Normal), (Pfn(4), PageType::Invalid)], &mut embedded);
    embedded.extend([7; PAGE_SIZE]);
    put(&mut embedded, kind::EMBEDDED_VCPU, &[1; 21]);
    let mut records = net_state.to_records().expect("it is within its limits");
    records.push(
        MemoryHash { memory: 1, state: 2, left_out: [Pfn(3), Pfn(5)].into_iter().collect() }
            .to_record()
            .expect("it is short"),
    );
    records.extend(twin());
    for record in records {
        put(&mut embedded, record.kind, &record.body);
    }
    put(&mut embedded, kind::CHECKPOINT, &[]);
    put(&mut embedded, kind::END, &[]);

    let mut hvm = embedded[..Headers::BYTES].to_vec();
    hvm[24..28].copy_from_slice(&2_u32.to_le_bytes());
    put(&mut hvm, kind::X86_CPUID_POLICY, &[0; 24]);
    put(&mut hvm, kind::STATIC_DATA_END, &[]);
    page_data_prefix((0..9).map(|pfn| (Pfn(pfn), PageType::AllocateOnly)), &mut hvm);
    put(&mut hvm, kind::HVM_PARAMS, &[0; 24]);
    put(&mut hvm, kind::HVM_CONTEXT, &[5; 40]);
    let vram = [("physmap/f0000000/start_addr", "f1000000"), ("physmap/f0000000/name", "vga.vram")];
    let xenstore = vram.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
    for record in (EmulatorState { xenstore, context: CONTEXT.to_vec() }).to_records().expect("it is short") {
        put(&mut hvm, record.kind, &record.body);
    }
    put(&mut hvm, 0x8000_0001, b"optional");
    write_dirty_pfn_list(&mut hvm, &[Pfn(1), Pfn(2)]).expect("it is short");
    put(&mut hvm, kind::END, &[]);
    vec![embedded, hvm]
}

/// What a domain with a twin has.
fn twin() -> Vec<StateRecord> {
    let uses = [
        PortUse::Closed,
        PortUse::Interdomain(DomId(0), 7),
        PortUse::Unbound(DomId(0)),
        PortUse::Virq(0),
        PortUse::Ipi,
        PortUse::Pirq(9),
    ];
    let ports = TwinPorts { ports: uses.map(|connected| TwinPort { connected, vcpu: 1 }).to_vec() };
    let grants = TwinGrants { entries: vec![GrantEntry { flags: 0x19, domain: 0, frame: 0xfeffc }; 3] };
    let nodes = [("event-channel", "8"), ("queue-0/tx-ring-ref", "520")];
    let nodes = nodes.map(|(path, value)| (path.to_owned(), value.to_owned())).to_vec();
    let frontends = TwinFrontends { devices: vec![TwinFrontend { class: "vif".into(), handle: 0, nodes }] };
    let pages: PfnRanges = (0..16).chain(17..300).map(Pfn).collect();
    let records = [ports.to_record(), grants.to_record(), frontends.to_record(), pages.to_record()];
    let mut records = records.map(|record| record.expect("it is short")).to_vec();
    records.push(TwinSharedInfo::new(Box::new([3; PAGE_SIZE])).to_record());
    records
}

fn put(out: &mut Vec<u8>, kind: u32, body: &[u8]) {
    write_record(out, kind, body).expect("it is short");
}
