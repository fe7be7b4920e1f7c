//! Whole images: xl's header, libxl's stream, libxc's, and every body in them.

use colo_core::ids::PAGE_SIZE;
use colo_core::stream::image::testing::images;
use colo_core::stream::image::{
    ImageEvent, ImageLimits, ImagePart, ImageReadError, ImageReader, ImageSummary, PageSource,
};
use colo_core::stream::libxl::{LibxlHeader, LibxlRecord};
use colo_core::stream::xl::XlHeader;
use colo_core::stream::{
    CpuidPolicy, HvmContext, HvmParams, Limits, MsrPolicy, RecordRef, StateRef, pv::p2m_frames_record,
};

const LIMITS: Limits = Limits { pfn_limit: 1 << 32, body_bytes: 1 << 20 };

/// Reads `data` as an image, as a restore does and strictly, which may only differ by an earlier end.
pub fn fuzz(data: &[u8]) {
    let lenient = read(data, false);
    let strict = read(data, true);
    assert!(strict <= lenient, "what is read strictly is read");
    assert_eq!(read_parts(data), lenient, "with the pages' bytes left in the source it is the same");
}

/// As [`read`], for a restore, which takes the bytes of pages out of the source itself.
fn read_parts(data: &[u8]) -> u64 {
    let limits = ImageLimits { libxc: LIMITS, libxl_body_bytes: 1 << 20, strict: false };
    let mut reader = ImageReader::new(data, limits);
    let mut end = 0;
    while let Ok(Some(part)) = reader.next_part() {
        match part {
            ImagePart::Item(item) => end = item.offset + item.bytes as u64,
            ImagePart::Pages(mut part) => {
                let mut pages = vec![[0; PAGE_SIZE]; part.list.data_count()];
                if part.source.read(&mut pages).is_err() {
                    return end;
                }
                end = part.offset + part.bytes as u64;
            }
        }
    }
    end
}

/// How many bytes were read before something was wrong, or all.
fn read(data: &[u8], strict: bool) -> u64 {
    let limits = ImageLimits { libxc: LIMITS, libxl_body_bytes: 1 << 20, strict };
    let mut reader = ImageReader::new(data, limits);
    let mut summary = ImageSummary::default();
    loop {
        match reader.next_item() {
            Ok(Some(item)) => {
                assert_eq!(item.offset, summary.bytes, "no byte is left out");
                summary.add(&item);
                let bytes = &data[item.offset as usize..][..item.bytes];
                let _ = item.event.to_string();
                check(&item.event, bytes, strict);
            }
            Ok(None) => {
                assert_eq!(reader.offset(), summary.bytes);
                return summary.bytes;
            }
            Err(ImageReadError::Image(error)) => {
                assert!(error.offset >= summary.bytes && !error.to_string().is_empty());
                return summary.bytes;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// What an event says, written again, is what it was read from; byte by byte if nothing in it may be but what is written.
fn check(event: &ImageEvent<'_>, bytes: &[u8], strict: bool) {
    let mut again = Vec::new();
    match event {
        ImageEvent::XlHeader(header) => {
            header.encode(&mut again).expect("what was read can be written");
            assert_eq!(XlHeader::parse(&again).map(|(header, _)| header).as_ref(), Ok(header));
            return;
        }
        ImageEvent::LibxlHeader(header) => LibxlHeader::encode(header, &mut again),
        ImageEvent::LibxcHeaders(headers) => headers.encode(&mut again),
        ImageEvent::Libxl(record) => LibxlRecord::encode(record, &mut again).expect("what was read can be written"),
        ImageEvent::Libxc { record: RecordRef::PageData(pages), .. } => {
            assert_eq!(pages.data().len() % PAGE_SIZE, 0);
            return;
        }
        ImageEvent::Libxc { state: Some(state), .. } => return check_state(state, &bytes[8..], strict),
        ImageEvent::Libxc { .. } => return,
    }
    if strict {
        assert_eq!(again, bytes);
    }
}

fn check_state(state: &StateRef<'_>, body: &[u8], strict: bool) {
    let record = match state {
        StateRef::PvInfo(info) => info.to_record(),
        StateRef::P2mFrames(frames) => {
            let info =
                [colo_core::stream::PvInfo::Bits32, colo_core::stream::PvInfo::Bits64].into_iter().find(|info| {
                    let per = u64::from(info.entries_per_frame());
                    (frames.end().0 / per - frames.start().0 / per + 1) as usize == frames.frames().len()
                });
            let info = info.expect("one of the widths fits");
            p2m_frames_record(info, frames.start().0 as u32, frames.end().0 as u32, frames.frames())
        }
        StateRef::Vcpu(blob) => blob.to_record(),
        StateRef::Tsc(tsc) => tsc.to_record(),
        StateRef::HvmContext(context) => {
            let entries: Vec<_> = context.entries().map(|entry| (entry.kind, entry.instance, entry.state)).collect();
            HvmContext::record(&entries)
        }
        StateRef::HvmParams(params) => HvmParams::record(&params.iter().collect::<Vec<_>>()),
        StateRef::CpuidPolicy(policy) => CpuidPolicy::record(&policy.leaves().collect::<Vec<_>>()),
        StateRef::MsrPolicy(policy) => MsrPolicy::record(&policy.entries().collect::<Vec<_>>()),
        _ => return,
    };
    assert!(record.body.len() <= body.len());
    // An HVM context's end may have any instance.
    let compared = record.body.len() - if let StateRef::HvmContext(_) = state { 8 } else { 0 };
    if strict {
        assert_eq!(record.body[..compared], body[..compared]);
    }
}

/// Small images of every kind.
pub fn seeds() -> Vec<Vec<u8>> {
    images().into_iter().map(|(_, image)| image).collect()
}
