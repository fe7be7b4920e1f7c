//! What a restore passes over and no Xen writes.

use super::ImageFault;
use crate::stream::{Fault, RECORD_HEADER_BYTES, RecordRef, kind};

/// Whether what means nothing in libxc's headers is zero. They have been read already.
pub(super) fn check_headers(bytes: &[u8]) -> Result<(), Fault> {
    // Within the image header the options, of which one bit means something, and what follows; within the domain header two bytes.
    let reserved = bytes[16..24].iter().enumerate().map(|(at, byte)| if at == 1 { byte & !1 } else { *byte });
    if reserved.chain(bytes[30..32].iter().copied()).any(|byte| byte != 0) {
        return Err(Fault::HeaderNotZero);
    }
    Ok(())
}

/// Whether what means nothing in a record is zero, and no bit makes another record of it. It has been read already.
pub(super) fn check_record(bytes: &[u8], record: &RecordRef<'_>) -> Result<(), ImageFault> {
    let kind = record.kind();
    match record {
        RecordRef::Skipped { .. } => return Err(ImageFault::UnknownOptional(kind)),
        RecordRef::Own { .. } if !kind::is_known_own(kind) => return Err(ImageFault::UnknownOptional(kind)),
        _ => {}
    }
    let length = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) as usize;
    let after = &bytes[RECORD_HEADER_BYTES..];
    // The bytes of pages may not have been read yet; they are followed by no padding.
    let (body, padding) = after.split_at(length.min(after.len()));
    let not_zero = |what| Err(Fault::NotZero { kind, what }.into());
    if !is_zero(padding) {
        return not_zero("the padding");
    }
    let reserved = match kind {
        kind::X86_PV_INFO => 2..8,
        kind::PAGE_DATA | kind::HVM_PARAMS => 4..8,
        kind::X86_PV_VCPU_BASIC..=kind::X86_PV_VCPU_XSAVE | kind::X86_PV_VCPU_MSRS => 4..8,
        kind::X86_TSC_INFO => 20..24,
        _ => 0..0,
    };
    if !body.get(reserved).is_some_and(is_zero) {
        return not_zero("a reserved field");
    }
    match record {
        RecordRef::PageData(pages) if pages.list().has_reserved_bits() => not_zero("a reserved bit of a page number"),
        RecordRef::State { kind: kind::X86_PV_VCPU_MSRS, body }
            if !body[8..].chunks(16).all(|msr| is_zero(&msr[4..8])) =>
        {
            not_zero("a reserved field of a register")
        }
        _ => Ok(()),
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}
