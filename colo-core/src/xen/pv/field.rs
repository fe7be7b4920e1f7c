use super::GuestWidth;

/// A C `unsigned long` of a structure that a guest of either width shares with Xen: where it is, in bytes.
///
/// All offsets in this module are those that a C compiler gives for `struct NAME_x86_32` and `struct NAME_x86_64` of Xen's
/// public headers (`xen/foreign/x86_32.h` and `x86_64.h`, which Xen generates from `xen.h` and `arch-x86/`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Field {
    narrow: usize,
    wide: usize,
}

impl Field {
    pub(super) const fn new(narrow: usize, wide: usize) -> Field {
        Field { narrow, wide }
    }

    /// The field at that index of the array that begins with this one.
    pub(super) const fn element(self, index: usize) -> Field {
        Field { narrow: self.narrow + 4 * index, wide: self.wide + 8 * index }
    }

    /// The same field of a structure that begins this many bytes later.
    pub(super) const fn offset_by(self, outer: Field) -> Field {
        Field { narrow: self.narrow + outer.narrow, wide: self.wide + outer.wide }
    }

    pub(super) const fn offset(self, width: GuestWidth) -> usize {
        match width {
            GuestWidth::Bits32Pae => self.narrow,
            GuestWidth::Bits64 => self.wide,
        }
    }

    /// # Panics
    /// When the structure is shorter than that. So do the others.
    pub(super) fn get(self, width: GuestWidth, bytes: &[u8]) -> u64 {
        let offset = self.offset(width);
        match width {
            GuestWidth::Bits32Pae => u64::from(get_u32(bytes, offset)),
            GuestWidth::Bits64 => {
                let mut word = [0; 8];
                word.copy_from_slice(&bytes[offset..offset + 8]);
                u64::from_le_bytes(word)
            }
        }
    }

    /// Writes the number, or as much of it as a narrow field holds.
    pub(super) fn set(self, width: GuestWidth, bytes: &mut [u8], value: u64) {
        let (offset, word_bytes) = (self.offset(width), width.word_bytes());
        bytes[offset..offset + word_bytes].copy_from_slice(&value.to_le_bytes()[..word_bytes]);
    }

    /// Writes a field that is a `uint32_t` for both widths.
    pub(super) fn set_u32(self, width: GuestWidth, bytes: &mut [u8], value: u32) {
        let offset = self.offset(width);
        bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    }
}

fn get_u32(bytes: &[u8], offset: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_le_bytes(word)
}
