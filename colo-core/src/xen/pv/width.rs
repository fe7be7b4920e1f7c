use crate::ids::{Mfn, PAGE_SIZE};

/// How wide a PV guest's words are, and with that how its page tables look. There are no others: 32-bit guests without PAE are
/// long gone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum GuestWidth {
    /// 32 bits with physical address extension: 3 levels of page tables, of 64-bit entries.
    Bits32Pae,
    /// 64 bits: 4 levels of page tables.
    Bits64,
}

/// An X86_PV_INFO record that says nothing sensible.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum WidthError {
    /// It is too short.
    #[error("X86_PV_INFO record of {0} bytes, not {INFO_BYTES}")]
    Length(usize),
    /// No guest is like that.
    #[error("a PV guest of {width} bytes a word and {levels} levels of page tables")]
    Combination {
        /// Bytes of a word.
        width: u8,
        /// Levels of page tables.
        levels: u8,
    },
}

/// Bytes of an X86_PV_INFO record's body.
const INFO_BYTES: usize = 8;

impl GuestWidth {
    /// Bytes of a guest's `unsigned long`, and of an entry of its p2m: 4 or 8.
    pub const fn word_bytes(self) -> usize {
        match self {
            GuestWidth::Bits32Pae => 4,
            GuestWidth::Bits64 => 8,
        }
    }

    /// Levels of its page tables: 3 or 4.
    pub const fn levels(self) -> u8 {
        match self {
            GuestWidth::Bits32Pae => 3,
            GuestWidth::Bits64 => 4,
        }
    }

    /// How many entries of the p2m, or of a list of frames, are in a page: 1024 or 512. (A page *table* has 512 entries, always.)
    pub const fn words_per_page(self) -> usize {
        PAGE_SIZE / self.word_bytes()
    }

    /// The body of an X86_PV_INFO record.
    pub const fn to_info(self) -> [u8; INFO_BYTES] {
        [self.word_bytes() as u8, self.levels(), 0, 0, 0, 0, 0, 0]
    }

    /// Reads the body of an X86_PV_INFO record.
    ///
    /// # Errors
    /// [`WidthError`].
    ///
    /// ```
    /// use colo_core::xen::pv::GuestWidth;
    ///
    /// assert_eq!(GuestWidth::from_info(&[8, 4, 0, 0, 0, 0, 0, 0])?, GuestWidth::Bits64);
    /// assert!(GuestWidth::from_info(&[8, 3, 0, 0, 0, 0, 0, 0]).is_err());
    /// # Ok::<(), colo_core::xen::pv::WidthError>(())
    /// ```
    pub fn from_info(body: &[u8]) -> Result<GuestWidth, WidthError> {
        if body.len() < INFO_BYTES {
            return Err(WidthError::Length(body.len()));
        }
        match (body[0], body[1]) {
            (4, 3) => Ok(GuestWidth::Bits32Pae),
            (8, 4) => Ok(GuestWidth::Bits64),
            (width, levels) => Err(WidthError::Combination { width, levels }),
        }
    }

    /// The CR3 with which a vCPU of the guest names this frame. A 32-bit CR3 would have room for frames below 4 GiB only, so Xen
    /// puts the frame number's upper 12 bits where an address has its offset (`xen_pfn_to_cr3` of `xen-x86_32.h`). `None` when
    /// the frame number does not fit.
    pub const fn frame_to_cr3(self, frame: Mfn) -> Option<u64> {
        match self {
            GuestWidth::Bits32Pae if frame.0 > u32::MAX as u64 => None,
            GuestWidth::Bits32Pae => Some((frame.0 as u32).rotate_left(12) as u64),
            GuestWidth::Bits64 if frame.0 >> 52 != 0 => None,
            GuestWidth::Bits64 => Some(frame.0 << 12),
        }
    }

    /// The frame that a CR3 names. `None` when no such guest has such a CR3.
    ///
    /// ```
    /// use colo_core::ids::Mfn;
    /// use colo_core::xen::pv::GuestWidth;
    ///
    /// // Beyond 4 GiB.
    /// assert_eq!(GuestWidth::Bits32Pae.frame_to_cr3(Mfn(0x12_3456)), Some(0x2345_6001));
    /// assert_eq!(GuestWidth::Bits32Pae.cr3_to_frame(0x2345_6001), Some(Mfn(0x12_3456)));
    /// assert_eq!(GuestWidth::Bits32Pae.cr3_to_frame(1 << 32), None);
    /// ```
    pub const fn cr3_to_frame(self, cr3: u64) -> Option<Mfn> {
        match self {
            GuestWidth::Bits32Pae if cr3 > u32::MAX as u64 => None,
            GuestWidth::Bits32Pae => Some(Mfn((cr3 as u32).rotate_right(12) as u64)),
            GuestWidth::Bits64 => Some(Mfn(cr3 >> 12)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn info_round_trips_and_lies_are_refused() {
        for width in [GuestWidth::Bits32Pae, GuestWidth::Bits64] {
            assert_eq!(GuestWidth::from_info(&width.to_info()), Ok(width));
        }
        assert_eq!(GuestWidth::from_info(&[8, 4]), Err(WidthError::Length(2)));
        assert_eq!(GuestWidth::from_info(&[4; 8]), Err(WidthError::Combination { width: 4, levels: 4 }));
    }

    proptest! {
        #[test]
        fn cr3_round_trips(frame in 0_u64..1 << 32) {
            for width in [GuestWidth::Bits32Pae, GuestWidth::Bits64] {
                let cr3 = width.frame_to_cr3(Mfn(frame)).unwrap();
                prop_assert_eq!(width.cr3_to_frame(cr3), Some(Mfn(frame)));
            }
            prop_assert_eq!(GuestWidth::Bits32Pae.frame_to_cr3(Mfn(frame | 1 << 32)), None);
            prop_assert_eq!(GuestWidth::Bits64.frame_to_cr3(Mfn(frame | 1 << 52)), None);
        }
    }
}
