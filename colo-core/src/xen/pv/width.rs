use crate::ids::Mfn;
use crate::stream::PvInfo;

/// How wide a PV guest's words are, and with that how its page tables look. There are no others: 32-bit guests without PAE are
/// long gone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum GuestWidth {
    /// 32 bits with physical address extension: 3 levels of page tables, of 64-bit entries.
    Bits32Pae,
    /// 64 bits: 4 levels of page tables.
    Bits64,
}

impl GuestWidth {
    /// Bytes of a guest's `unsigned long`, and of an entry of its p2m: 4 or 8.
    pub const fn word_bytes(self) -> usize {
        self.info().width_bytes()
    }

    /// Levels of its page tables: 3 or 4.
    pub const fn levels(self) -> u8 {
        self.info().levels()
    }

    /// How many entries of the p2m, or of a list of frames, are in a page: 1024 or 512. (A page *table* has 512 entries, always.)
    pub const fn words_per_page(self) -> usize {
        self.info().entries_per_frame() as usize
    }

    /// As a stream says it.
    ///
    /// ```
    /// use colo_core::stream::PvInfo;
    /// use colo_core::xen::pv::GuestWidth;
    ///
    /// assert_eq!(GuestWidth::Bits32Pae.info(), PvInfo::Bits32);
    /// assert_eq!(GuestWidth::from(PvInfo::Bits64), GuestWidth::Bits64);
    /// ```
    pub const fn info(self) -> PvInfo {
        match self {
            GuestWidth::Bits32Pae => PvInfo::Bits32,
            GuestWidth::Bits64 => PvInfo::Bits64,
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

impl From<PvInfo> for GuestWidth {
    fn from(info: PvInfo) -> Self {
        match info {
            PvInfo::Bits32 => GuestWidth::Bits32Pae,
            PvInfo::Bits64 => GuestWidth::Bits64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
