//! A PV guest's shared info page, `struct shared_info` of `xen.h`: what the guest and Xen tell each other. A saver reads from it
//! where the guest's p2m is; a restorer puts the parts of it that are the guest's into the new domain's page.
//!
//! | | 32 bits | 64 bits |
//! | --- | --- | --- |
//! | `vcpu_info[32]` | 0, 2048 bytes | 0, 2048 bytes |
//! | `evtchn_pending` | 2048, 128 bytes | 2048, 512 bytes |
//! | `evtchn_mask` | 2176, 128 bytes | 2560, 512 bytes |
//! | wall clock | 2304, 12 bytes | 3072, 16 bytes |
//! | `arch` | 2316, 28 bytes | 3088, 48 bytes |
//!
//! ```
//! use colo_core::ids::PAGE_SIZE;
//! use colo_core::xen::pv::GuestWidth;
//! use colo_core::xen::pv::shared_info::{ArchInfo, restore};
//!
//! let mut saved = [0; PAGE_SIZE];
//! saved[3088..3096].copy_from_slice(&24_576_u64.to_le_bytes());
//! assert_eq!(ArchInfo::read(GuestWidth::Bits64, &saved).entries, 24_576);
//!
//! let mut fresh = [0; PAGE_SIZE];
//! restore(GuestWidth::Bits64, &saved, &mut fresh);
//! assert_eq!(ArchInfo::read(GuestWidth::Bits64, &fresh).entries, 24_576);
//! ```

use super::GuestWidth;
use super::field::Field;
use crate::ids::Page;
use std::ops::Range;

/// vCPUs that have their `vcpu_info` in the page (`XEN_LEGACY_MAX_VCPUS`). The others' is in the guest's own memory.
const LEGACY_VCPUS: usize = 32;
/// Bytes of `struct vcpu_info`, for both widths.
const VCPU_INFO_BYTES: usize = 64;
const VCPU_INFO: Range<usize> = 0..LEGACY_VCPUS * VCPU_INFO_BYTES;
/// In a `vcpu_info`: which words of `evtchn_pending` to look at.
const PENDING_SELECTOR: Field = Field::new(4, 8);

const ARCH: Field = Field::new(2316, 3088);
const MAX_PFN: Field = Field::new(0, 0).offset_by(ARCH);
const FRAME_LIST_LIST: Field = Field::new(4, 8).offset_by(ARCH);
const P2M_CR3: Field = Field::new(12, 24).offset_by(ARCH);
const P2M_VADDR: Field = Field::new(16, 32).offset_by(ARCH);
const P2M_GENERATION: Field = Field::new(20, 40).offset_by(ARCH);

/// Where a guest says that its p2m is: what of `struct arch_shared_info` (`arch-x86/xen.h`) is about it. Nothing of it is checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ArchInfo {
    /// How many entries the p2m has. Called `max_pfn`, but it is one more than the highest page number.
    pub entries: u64,
    /// The frame that lists the frames that list the p2m's frames. 0 when there is none yet, all ones when there never will be.
    pub frame_list_list: u64,
    /// The CR3 of the address space in which the p2m is at [`Self::p2m_vaddr`]; 0 when the guest does not map it so.
    pub p2m_cr3: u64,
    /// The address of the p2m's first entry in that address space.
    pub p2m_vaddr: u64,
    /// How often the guest began and ended to change that mapping: odd while it does.
    pub p2m_generation: u64,
}

impl ArchInfo {
    /// Reads it from a guest's shared info page.
    pub fn read(width: GuestWidth, page: &Page) -> ArchInfo {
        let get = |field: Field| field.get(width, page);
        ArchInfo {
            entries: get(MAX_PFN),
            frame_list_list: get(FRAME_LIST_LIST),
            p2m_cr3: get(P2M_CR3),
            p2m_vaddr: get(P2M_VADDR),
            p2m_generation: get(P2M_GENERATION),
        }
    }

    #[cfg(test)]
    pub(super) fn write(&self, width: GuestWidth, page: &mut Page) {
        for (field, value) in [
            (MAX_PFN, self.entries),
            (FRAME_LIST_LIST, self.frame_list_list),
            (P2M_CR3, self.p2m_cr3),
            (P2M_VADDR, self.p2m_vaddr),
            (P2M_GENERATION, self.p2m_generation),
        ] {
            field.set(width, page, value);
        }
    }
}

/// Puts what is the guest's own of a saved shared info page into the page of the domain it is restored into, as Xen's own tools do:
///
/// * the vCPUs' infos and the architecture's part are the saved ones;
/// * but not the frame that lists the p2m's frames: it was of the other host, and the guest makes it anew;
/// * no event is pending, all are masked: the guest's event channels are gone, it makes new ones;
/// * the wall clock stays this host's.
pub fn restore(width: GuestWidth, saved: &Page, page: &mut Page) {
    let (pending, mask, arch) = ranges(width);
    for kept in [VCPU_INFO, arch] {
        page[kept.clone()].copy_from_slice(&saved[kept]);
    }
    FRAME_LIST_LIST.set(width, page, 0);
    page[pending].fill(0);
    for info in page[VCPU_INFO].chunks_exact_mut(VCPU_INFO_BYTES) {
        PENDING_SELECTOR.set(width, info, 0);
    }
    page[mask].fill(0xFF);
}

/// Where the pending bits, the mask bits and the architecture's part are.
fn ranges(width: GuestWidth) -> (Range<usize>, Range<usize>, Range<usize>) {
    match width {
        GuestWidth::Bits32Pae => (2048..2176, 2176..2304, 2316..2344),
        GuestWidth::Bits64 => (2048..2560, 2560..3072, 3088..3136),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PAGE_SIZE;

    #[test]
    fn only_what_is_the_guests_is_restored() {
        for (width, pending, mask, clock, arch) in [
            (GuestWidth::Bits32Pae, 2048..2176, 2176..2304, 2304..2316, 2316..2344),
            (GuestWidth::Bits64, 2048..2560, 2560..3072, 3072..3088, 3088..3136),
        ] {
            let mut saved: Page = [0x5A; PAGE_SIZE];
            let info = ArchInfo { entries: 1, frame_list_list: 2, p2m_cr3: 3, p2m_vaddr: 4, p2m_generation: 6 };
            info.write(width, &mut saved);
            let mut page: Page = [0xC3; PAGE_SIZE];
            restore(width, &saved, &mut page);

            assert_eq!(ArchInfo::read(width, &page), ArchInfo { frame_list_list: 0, ..info });
            assert!(page[pending].iter().all(|byte| *byte == 0));
            assert!(page[mask].iter().all(|byte| *byte == 0xFF));
            assert!(page[clock].iter().all(|byte| *byte == 0xC3), "the wall clock is this host's");
            assert!(page[arch.end..].iter().all(|byte| *byte == 0xC3));
            for info in page[..2048].chunks_exact(64) {
                let selector = width.word_bytes()..2 * width.word_bytes();
                assert!(info[selector.clone()].iter().all(|byte| *byte == 0));
                assert!(info[..selector.start].iter().chain(&info[selector.end..]).all(|byte| *byte == 0x5A));
            }
        }
    }
}
