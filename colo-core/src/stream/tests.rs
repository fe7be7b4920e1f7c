//! Records and readers together: what is written is read, and nothing that comes from outside does harm.

use super::*;
use crate::ids::{PAGE_SIZE, Pfn};
use proptest::prelude::*;
use std::io::Read;

const PFN_LIMIT: u64 = 1000;

/// A record as one would say it.
#[derive(Clone, PartialEq, Debug)]
enum Said {
    Pages(Vec<(Pfn, PageType, Option<u8>)>),
    Dirty(Vec<Pfn>),
    Body(u32, Vec<u8>),
    Empty(u32),
    Skipped(u32),
}

impl Said {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Said::Pages(pages) => {
                page_data_prefix(pages.iter().map(|(pfn, page_type, _)| (*pfn, *page_type)), out);
                out.extend(pages.iter().filter_map(|(_, _, fill)| *fill).flat_map(|fill| [fill; PAGE_SIZE]));
            }
            Said::Dirty(pages) => write_dirty_pfn_list(out, pages).unwrap(),
            Said::Body(kind, body) => write_record(out, *kind, body).unwrap(),
            Said::Empty(kind) => write_record(out, *kind, &[]).unwrap(),
            Said::Skipped(kind) => write_record(out, *kind, b"unknown").unwrap(),
        }
    }

    fn of(record: RecordRef<'_>) -> Said {
        match record {
            RecordRef::PageData(pages) => Said::Pages(
                pages.pages().map(|page| (page.pfn, page.page_type, page.data.map(|data| data[0]))).collect(),
            ),
            RecordRef::DirtyPfnList(pages) => Said::Dirty(pages.iter().collect()),
            RecordRef::State { kind, body } | RecordRef::Own { kind, body } => Said::Body(kind, body.to_vec()),
            RecordRef::Skipped { kind } => Said::Skipped(kind),
            RecordRef::StaticDataEnd | RecordRef::Verify | RecordRef::Checkpoint | RecordRef::End => {
                Said::Empty(record.kind())
            }
        }
    }
}

fn said() -> impl Strategy<Value = Said> {
    let pfn = || (0..PFN_LIMIT).prop_map(Pfn);
    let page = (pfn(), prop::sample::select(&PageType::ALL), any::<u8>())
        .prop_map(|(pfn, page_type, fill)| (pfn, page_type, page_type.has_data().then_some(fill)));
    let bodies = vec![kind::X86_PV_INFO, kind::HVM_CONTEXT, kind::X86_MSR_POLICY, kind::EMBEDDED_VCPU, 0x8000_C0FF];
    let empty = vec![kind::END, kind::CHECKPOINT, kind::VERIFY, kind::STATIC_DATA_END];
    prop_oneof![
        prop::collection::vec(page, 1..4).prop_map(Said::Pages),
        prop::collection::vec(pfn(), 0..20).prop_map(Said::Dirty),
        (prop::sample::select(bodies), prop::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(kind, body)| Said::Body(kind, body)),
        prop::sample::select(empty).prop_map(Said::Empty),
        prop::sample::select(vec![0x8000_0000, 0x8000_C100, u32::MAX]).prop_map(Said::Skipped),
    ]
}

fn write(records: &[Said]) -> Vec<u8> {
    let mut bytes = Vec::new();
    records.iter().for_each(|record| record.write(&mut bytes));
    bytes
}

/// The records by both readers, which must agree, and the fault that ended it.
fn read(bytes: &[u8], limits: Limits) -> (Vec<Said>, Option<StreamError>) {
    let mut records = Vec::new();
    let fault = Records::new(bytes, limits).try_for_each(|record| record.map(|record| records.push(Said::of(record))));

    let mut reader = RecordReader::new(bytes, limits);
    let mut also = Vec::new();
    let also_fault = loop {
        match reader.next_record() {
            Ok(Some(record)) => also.push(Said::of(record)),
            Ok(None) => break Ok(()),
            Err(ReadError::Stream(error)) => break Err(error),
            Err(ReadError::Io(error)) => panic!("{error}"),
        }
    };
    assert_eq!((&records, &fault), (&also, &also_fault));
    (records, fault.err())
}

/// Gives a byte at a time.
struct Dribble<'a>(&'a [u8]);

impl Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = buffer.len().min(1);
        self.0.read(&mut buffer[..count])
    }
}

proptest! {
    #[test]
    fn records_round_trip(records in prop::collection::vec(said(), 0..8)) {
        let bytes = write(&records);
        prop_assert_eq!(bytes.len() % 8, 0);
        prop_assert_eq!(read(&bytes, Limits::new(PFN_LIMIT)), (records, None));
    }

    #[test]
    fn a_stream_cut_off_anywhere_is_truncated(first in said(), second in said()) {
        let bytes = write(&[first.clone(), second]);
        let boundary = write(&[first]).len();
        for length in (1..bytes.len()).filter(|length| *length != boundary) {
            let (records, error) = read(&bytes[..length], Limits::new(PFN_LIMIT));
            let error = error.unwrap();
            prop_assert!(matches!(error.fault, Fault::Truncated { .. }), "{}: {}", length, error);
            let before = length > boundary;
            prop_assert_eq!((records.len(), error.offset), (usize::from(before), if before { boundary as u64 } else { 0 }));
        }
    }

    #[test]
    fn flipped_bits_do_no_harm(record in said(), flips in prop::collection::vec(any::<prop::sample::Index>(), 1..4)) {
        // There are no checksums in the format: all that can be asked is a record or a typed error, within the limits.
        let mut bytes = write(&[record]);
        for flip in flips {
            let bit = flip.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for record in read(&bytes, Limits::new(PFN_LIMIT)).0 {
            if let Said::Pages(pages) = record {
                prop_assert!(pages.iter().all(|(pfn, _, _)| pfn.0 < PFN_LIMIT));
            }
        }
    }

    #[test]
    fn any_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes, Limits::new(PFN_LIMIT));
        let _ = Headers::parse(&bytes);
        let _ = NetState::default().add_part(&bytes);
        let _ = MemoryHash::parse(&bytes);
    }

    #[test]
    fn records_over_the_limit_are_refused(body_bytes in 0_usize..100, limit in 0_usize..100) {
        let limits = Limits { pfn_limit: PFN_LIMIT, body_bytes: limit };
        let (records, error) = read(&write(&[Said::Body(kind::EMBEDDED_DEVICES, vec![1; body_bytes])]), limits);
        let expected = Fault::TooLong { kind: kind::EMBEDDED_DEVICES, length: body_bytes, limit };
        let expected = (body_bytes > limit).then_some(StreamError { offset: 0, fault: expected });
        prop_assert_eq!((records.len(), error), (usize::from(body_bytes <= limit), expected));
    }
}

#[test]
fn a_reader_reads_from_a_source_that_gives_little() {
    let mut bytes = Vec::new();
    let headers = Headers::new(DomainHeader::embedded());
    headers.encode(&mut bytes);
    let records = [Said::Pages(vec![(Pfn(1), PageType::Normal, Some(9))]), Said::Empty(kind::END)];
    bytes.extend(write(&records));

    let mut reader = RecordReader::new(Dribble(&bytes), Limits::new(PFN_LIMIT));
    assert_eq!(reader.read_headers().unwrap(), headers);
    for record in records {
        assert_eq!(reader.next_record().unwrap().map(Said::of), Some(record));
    }
    assert_eq!(reader.next_record().unwrap(), None);
    assert_eq!(reader.offset(), bytes.len() as u64);
}

#[test]
fn faults_of_records() {
    let fault = |kind: u32, body: &[u8]| {
        let mut bytes = Vec::new();
        write_record(&mut bytes, kind, body).unwrap();
        read(&bytes, Limits::new(PFN_LIMIT)).1.unwrap().fault
    };
    assert_eq!(fault(kind::TOOLSTACK, &[]), Fault::UnknownMandatory(kind::TOOLSTACK));
    assert_eq!(fault(0x13, &[]), Fault::UnknownMandatory(0x13));
    for kind in [kind::END, kind::CHECKPOINT, kind::VERIFY, kind::STATIC_DATA_END] {
        assert_eq!(fault(kind, &[0]), Fault::BadLength { kind, length: 1 });
    }
    let kind = kind::CHECKPOINT_DIRTY_PFN_LIST;
    assert_eq!(fault(kind, &[0; 9]), Fault::BadLength { kind, length: 9 });
    let beyond = Fault::PfnOutOfRange { pfn: Pfn(PFN_LIMIT), pfn_limit: PFN_LIMIT };
    assert_eq!(fault(kind, &PFN_LIMIT.to_le_bytes()), beyond);
}

#[test]
fn bodies_too_long_are_not_written() {
    let mut out = Vec::new();
    let error = write_record(&mut out, kind::HVM_CONTEXT, &vec![0; MAX_BODY_BYTES + 1]).unwrap_err();
    assert!(matches!(error.fault, Fault::TooLong { .. }), "{error}");
    assert!(out.is_empty());
}

#[test]
fn padding_and_reserved_bits_are_ignored() {
    let mut bytes = write(&[Said::Body(kind::EMBEDDED_VCPU, b"12345".to_vec())]);
    bytes[13..].fill(0xFF);
    assert_eq!(read(&bytes, Limits::new(PFN_LIMIT)).0, [Said::Body(kind::EMBEDDED_VCPU, b"12345".to_vec())]);

    let pages = Said::Pages(vec![(Pfn(5), PageType::Invalid, None)]);
    let mut bytes = write(std::slice::from_ref(&pages));
    bytes[16 + 6] |= 0xF0; // bits 52 to 55 of the page's number
    bytes[12] = 1; // beside the count
    assert_eq!(read(&bytes, Limits::new(PFN_LIMIT)), (vec![pages], None));
}
