//! Blocks into bytes.

use super::{
    BYTE_ORDER_MAGIC, ENHANCED_PACKET, FRAMING_BYTES, INTERFACE_DESCRIPTION, INTERFACE_NAME, INTERFACE_RESOLUTION,
    LINKTYPE_ETHERNET, MAJOR_VERSION, OPTION_COMMENT, OPTION_END, SECTION_APPLICATION, SECTION_HEADER,
};

/// Times are in nanoseconds: ten to the power of minus nine.
const NANOSECONDS: u8 = 9;

/// The longest text that is written in an option; its length has 16 bits.
const MAX_TEXT_BYTES: usize = 4096;

/// Begins a section, written by this application.
pub(in crate::record) fn write_section(out: &mut Vec<u8>, application: &str) {
    block(out, SECTION_HEADER, |out| {
        out.extend(BYTE_ORDER_MAGIC.to_le_bytes());
        out.extend(MAJOR_VERSION.to_le_bytes());
        out.extend(0u16.to_le_bytes());
        // How long it will be is not known.
        out.extend(u64::MAX.to_le_bytes());
        option(out, SECTION_APPLICATION, text(application));
        option(out, OPTION_END, &[]);
    });
}

/// Describes the next interface: Ethernet, frames in full length, times in nanoseconds.
pub(in crate::record) fn write_interface(out: &mut Vec<u8>, name: &str) {
    block(out, INTERFACE_DESCRIPTION, |out| {
        out.extend(LINKTYPE_ETHERNET.to_le_bytes());
        out.extend(0u16.to_le_bytes());
        out.extend(0u32.to_le_bytes());
        option(out, INTERFACE_NAME, text(name));
        option(out, INTERFACE_RESOLUTION, &[NANOSECONDS]);
        option(out, OPTION_END, &[]);
    });
}

/// A frame with a comment, at that time since 1970.
pub(in crate::record) fn write_packet(out: &mut Vec<u8>, interface: u32, nanos: u64, data: &[u8], comment: &str) {
    block(out, ENHANCED_PACKET, |out| {
        out.extend(interface.to_le_bytes());
        out.extend(((nanos >> 32) as u32).to_le_bytes());
        out.extend((nanos as u32).to_le_bytes());
        for _captured_and_original in 0..2 {
            out.extend((data.len() as u32).to_le_bytes());
        }
        out.extend_from_slice(data);
        pad(out);
        option(out, OPTION_COMMENT, text(comment));
        option(out, OPTION_END, &[]);
    });
}

fn block(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend(kind.to_le_bytes());
    out.extend(0u32.to_le_bytes());
    // Everything that is written in it keeps the length a multiple of four.
    body(out);
    let length = ((out.len() - start - 8 + FRAMING_BYTES) as u32).to_le_bytes();
    out[start + 4..start + 8].copy_from_slice(&length);
    out.extend(length);
}

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    out.extend(code.to_le_bytes());
    out.extend((value.len() as u16).to_le_bytes());
    out.extend_from_slice(value);
    pad(out);
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

fn text(text: &str) -> &[u8] {
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text.as_bytes()[..end]
}
