use super::testing::{ImageBuilder, images};
use super::*;
use crate::ids::{PAGE_SIZE, Pfn};
use crate::stream::pv::p2m_frames_record;
use crate::stream::{DomainKind, PageType, PvInfo, Version, kind};
use proptest::prelude::*;

/// The names of everything in an image, and what is wrong with it.
fn read(image: &[u8], limits: ImageLimits) -> (Vec<&'static str>, Option<ImageError>) {
    let mut reader = ImageReader::new(image, limits);
    let mut names = Vec::new();
    let mut end = 0;
    loop {
        match reader.next_item() {
            Ok(Some(item)) => {
                assert_eq!(item.offset, end, "no byte is left out");
                end += item.bytes as u64;
                names.push(item.name());
                let _ = item.event.to_string();
            }
            Ok(None) => return (names, None),
            Err(ImageReadError::Image(error)) => return (names, Some(error)),
            Err(ImageReadError::Io { error, .. }) => panic!("{error}"),
        }
    }
}

/// What comes of an image whose pages' bytes are left in the source, those of every `nth` record to be passed over.
fn read_parts(image: &[u8], limits: ImageLimits, nth: usize) -> (Vec<&'static str>, Option<ImageError>) {
    let mut reader = ImageReader::new(image, limits);
    let mut names = Vec::new();
    loop {
        let read = match reader.next_part() {
            Ok(None) => return (names, None),
            Ok(Some(ImagePart::Item(item))) => {
                names.push(item.name());
                Ok(())
            }
            Ok(Some(ImagePart::Pages(mut part))) => {
                names.push("PAGE_DATA");
                let mut pages = vec![[0; PAGE_SIZE]; part.list.data_count()];
                let bytes = &image[part.offset as usize..image.len().min(part.offset as usize + part.bytes)];
                let read = if names.len() % nth == 0 { Ok(()) } else { part.source.read(&mut pages) };
                if read.is_ok() && names.len() % nth != 0 {
                    assert!(bytes.ends_with(pages.as_flattened()));
                    assert!(part.source.read(&mut [[0; PAGE_SIZE]]).is_err(), "there are no more");
                }
                read
            }
            Err(error) => Err(error),
        };
        match read {
            Ok(()) => {}
            Err(ImageReadError::Image(error)) => return (names, Some(error)),
            Err(ImageReadError::Io { error, .. }) => panic!("{error}"),
        }
    }
}

fn fault(image: &[u8]) -> (u64, String) {
    let error = read(image, ImageLimits::strict()).1.expect("it is wrong");
    (error.offset, error.fault.to_string())
}

fn image(name: &str) -> Vec<u8> {
    images().into_iter().find(|(found, _)| *found == name).unwrap().1
}

/// Where the first record of this name begins, and how long it is.
fn find(image: &[u8], name: &str) -> (usize, usize) {
    let mut reader = ImageReader::new(image, ImageLimits::default());
    while let Some(item) = reader.next_item().unwrap() {
        if item.name() == name {
            return (item.offset as usize, item.bytes);
        }
    }
    panic!("no {name}");
}

#[test]
fn images_of_every_kind_are_valid() {
    for (name, image) in images() {
        for limits in [ImageLimits::default(), ImageLimits::strict()] {
            let (names, error) = read(&image, limits);
            assert_eq!(error, None, "{name}");
            assert_eq!(names.last(), Some(&"END"), "{name}");
        }
    }
    let (names, _) = read(&image("hvm"), ImageLimits::strict());
    let expected = [
        "header",
        "header",
        "LIBXC_CONTEXT",
        "headers",
        "X86_CPUID_POLICY",
        "X86_MSR_POLICY",
        "STATIC_DATA_END",
        "PAGE_DATA",
        "X86_TSC_INFO",
        "HVM_CONTEXT",
        "HVM_PARAMS",
        "END",
        "EMULATOR_XENSTORE_DATA",
        "EMULATOR_CONTEXT",
        "END",
    ];
    assert_eq!(names, expected);
    let (names, _) = read(&image("colo"), ImageLimits::strict());
    assert_eq!(names.iter().filter(|name| **name == "CHECKPOINT_STATE").count(), 2);
}

#[test]
fn an_image_cut_off_anywhere_is_an_error() {
    for (name, image) in images() {
        for length in 0..image.len() {
            let (_, error) = read(&image[..length], ImageLimits::default());
            let error = error.unwrap_or_else(|| panic!("{name} cut at {length} is taken for a whole one"));
            let cut = matches!(error.fault, ImageFault::Truncated { .. } | ImageFault::NoEnd(_));
            assert!(cut || (length == 0 && error.fault == ImageFault::Empty), "{name} at {length}: {error}");
        }
    }
}

#[test]
fn pages_that_are_left_in_the_source_make_no_difference() {
    for (name, image) in images() {
        for length in 0..=image.len() {
            let limits = ImageLimits::strict();
            let (names, error) = read(&image[..length], limits);
            let (parts, part_error) = read_parts(&image[..length], limits, usize::MAX);
            assert_eq!(part_error, error, "{name} cut at {length}");
            // Pages that are cut off are seen by whoever reads them.
            let cut = part_error.is_some() && parts.len() == names.len() + 1 && parts.last() == Some(&"PAGE_DATA");
            assert!(parts == names || cut, "{name} cut at {length}: {parts:?}, {names:?}");
        }
        assert_eq!(read_parts(&image, ImageLimits::strict(), 1), read(&image, ImageLimits::strict()), "{name}");
    }
}

#[test]
fn a_reader_reads_no_byte_too_many() {
    for (name, mut image) in images() {
        let length = image.len();
        image.extend(b"more");
        let mut reader = ImageReader::new(image.as_slice(), ImageLimits::strict());
        while reader.next_item().unwrap().is_some() {
            let offset = reader.offset() as usize;
            assert!(offset <= length);
        }
        assert_eq!(reader.offset(), length as u64, "{name}");
        let error = reader.check_end_of_source().unwrap_err();
        assert_eq!(error.to_string(), format!("at byte {length}: something follows the end of the image"));
        let reader = ImageReader::new(&image[..length], ImageLimits::strict());
        assert_eq!(reader.into_source().len(), length, "nothing has been asked for");
    }
}

#[test]
fn what_is_no_image() {
    assert_eq!(fault(b""), (0, "the file is empty".into()));
    for bytes in
        [&b"x"[..], b"\x7FELF, as it were", &[0; 4096], b"Xen saved domain, xl format\n \0 \n, almost", b"LibxlFoo"]
    {
        assert_eq!(fault(bytes), (0, "this is no Xen domain image".into()), "{bytes:?}");
    }
    let legacy = "this is a legacy image, of Xen 4.5 or before";
    assert_eq!(fault(&[&[0, 0, 1, 0, 0, 0, 0, 0][..], &[0xFF; 8], &[0; 40]].concat()), (0, legacy.into()));
    assert_eq!(fault(&[&[0, 0, 1, 0][..], &[0xFF; 4], &[0; 40]].concat()), (0, legacy.into()));
    let mut xl = image("hvm");
    xl[36] = 1;
    assert_eq!(fault(&xl), (0, legacy.into()));
    let mut big = image("verify");
    big[17] = 1;
    assert_eq!(fault(&big), (0, "its numbers are big-endian".into()));
}

#[test]
fn what_is_wrong_and_where() {
    let hvm = image("hvm");
    let with = |name: &str, at: usize, value: u8| {
        let mut bytes = hvm.clone();
        let start = find(&hvm, name).0;
        bytes[start + at] = value;
        let (offset, text) = fault(&bytes);
        assert_eq!(offset, start as u64, "{text}");
        text
    };
    assert_eq!(with("PAGE_DATA", 7, 0xFF), "PAGE_DATA record of 4278198304 bytes, but the limit is 8388608");
    assert_eq!(with("PAGE_DATA", 3, 0x80), "optional record of unknown type 0x80000001, which no Xen writes");
    assert_eq!(with("PAGE_DATA", 12, 1), "PAGE_DATA record: a reserved field is not zero");
    assert_eq!(with("PAGE_DATA", 22, 0x10), "PAGE_DATA record: a reserved bit of a page number is not zero");
    assert_eq!(with("X86_TSC_INFO", 4, 23), "X86_TSC_INFO record of 23 bytes, not 24");
    assert_eq!(
        with("HVM_CONTEXT", 8, 2),
        "HVM_CONTEXT record: at its byte 0: a header must come first, and only there"
    );
    assert_eq!(with("EMULATOR_CONTEXT", 8, 9), "EMULATOR_CONTEXT record of unknown emulator 0x9");
    let xenstore = with("EMULATOR_XENSTORE_DATA", 16, b'.');
    assert_eq!(xenstore, "EMULATOR_XENSTORE_DATA record: a key that xenstore does not allow");
    let (start, _) = find(&hvm, "HVM_CONTEXT");
    let mut without = hvm[..start].to_vec();
    without.extend_from_slice(&hvm[start + find(&hvm, "HVM_CONTEXT").1..]);
    assert_eq!(fault(&without).1, "END record where HVM_CONTEXT must come");
}

#[test]
fn what_a_restore_must_pass_over_it_passes_over() {
    let hvm = image("hvm");
    for (name, at, value) in [("PAGE_DATA", 12, 1), ("X86_TSC_INFO", 28, 1), ("HVM_PARAMS", 12, 1)] {
        let mut bytes = hvm.clone();
        bytes[find(&hvm, name).0 + at] = value;
        assert_eq!(read(&bytes, ImageLimits::default()).1, None, "{name}");
        assert!(read(&bytes, ImageLimits::strict()).1.is_some(), "{name}");
    }
}

#[test]
fn a_pv_guest_tells_its_size() {
    let pv = |pfn: u64, frame: u64| {
        let mut image = ImageBuilder::libxc(DomainKind::X86Pv, Version::V3);
        image.record(&PvInfo::Bits64.to_record()).mark(kind::STATIC_DATA_END);
        image.record(&p2m_frames_record(PvInfo::Bits64, 0, 100, [Pfn(frame)].into_iter()));
        image.pages(&[(pfn, PageType::Normal)]);
        let vcpu = crate::stream::VcpuBlob { part: crate::stream::VcpuPart::Basic, vcpu: 0, context: &[0; 5168] };
        image.record(&vcpu.to_record()).mark(kind::END);
        read(&image.build(), ImageLimits::default()).1.map(|error| error.fault)
    };
    assert_eq!(pv(100, 100), None);
    let beyond = ImageFault::Libxc(Fault::PfnOutOfRange { pfn: Pfn(101), pfn_limit: 101 });
    assert_eq!(pv(101, 100), Some(beyond.clone()));
    assert_eq!(pv(100, 101), Some(beyond), "its table must lie within it");
}

#[test]
fn a_summary_counts() {
    let image = image("pv");
    let mut reader = ImageReader::new(image.as_slice(), ImageLimits::strict());
    let mut summary = ImageSummary::default();
    while let Some(item) = reader.next_item().unwrap() {
        summary.add(&item);
    }
    assert_eq!((summary.bytes, summary.pages_with_data()), (image.len() as u64, 2));
    let pages: Vec<_> = summary.pages().map(|(page_type, tally)| (page_type, tally.count, tally.highest)).collect();
    let expected =
        [(PageType::Normal, 1, 0), (PageType::L4Pinned, 1, 0x3FF), (PageType::Broken, 1, 6), (PageType::Invalid, 1, 5)];
    assert_eq!(pages, expected);
    assert_eq!(summary.tallies[&(Layer::Libxc, "X86_TSC_INFO")], Tally { count: 1, bytes: 32 });
    assert_eq!((summary.pv_info, summary.checkpoints), (Some(PvInfo::Bits64), 0));
}

proptest! {
    #[test]
    fn flipped_bits_do_no_harm(
        image in prop::sample::select(images()),
        flips in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
        strict: bool,
    ) {
        let mut bytes = image.1;
        for flip in flips {
            let bit = flip.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        read(&bytes, ImageLimits { strict, ..ImageLimits::default() });
    }

    #[test]
    fn any_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200), start in 0_usize..3) {
        let starts = [&crate::stream::xl::MAGIC[..], b"LibxlFmt\0\0\0\x02", &[0xFF; 8]];
        read(&[starts[start], &bytes].concat(), ImageLimits::default());
    }
}
