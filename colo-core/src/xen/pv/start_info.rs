//! A PV guest's start info, `struct start_info` of `xen.h`: what it is told when it boots and when it wakes up on another host.
//! Before it suspends, the guest replaces the frames of its xenstore and console rings in it by their page numbers; the restorer
//! puts in the new frames, and all else that is this host's:
//!
//! | | 32 bits | 64 bits | becomes |
//! | --- | --- | --- | --- |
//! | `nr_pages` | 32 | 32 | how many pages the guest has |
//! | `shared_info` | 36 | 40 | the machine address of the shared info |
//! | `flags` | 40 | 48 | 0: not privileged |
//! | `store_mfn`, `store_evtchn` | 44, 48 | 56, 64 | the ring's frame, this host's port |
//! | `console.domU.mfn`, `.evtchn` | 52, 56 | 72, 80 | the same |
//!
//! ```
//! use colo_core::ids::{Mfn, PAGE_SIZE, Pfn};
//! use colo_core::xen::pv::start_info::{HostPart, Ring, restore};
//! use colo_core::xen::pv::{GuestWidth, RestoredP2m};
//!
//! let mut p2m = RestoredP2m::new(GuestWidth::Bits64, 8);
//! p2m.grow(8)?;
//! p2m.set_frame(Pfn(3), Mfn(0x33))?;
//! p2m.set_frame(Pfn(4), Mfn(0x44))?;
//! let mut page = [0; PAGE_SIZE];
//! page[56] = 3;
//! page[72] = 4;
//! let host = HostPart { shared_info: Mfn(0x99), store_port: 1, console_port: 2 };
//! let rings = restore(GuestWidth::Bits64, &mut page, &host, &p2m)?;
//! assert_eq!(rings.store, Ring { pfn: Pfn(3), frame: Mfn(0x33) });
//! assert_eq!(page[72..84], [0x44, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use super::field::Field;
use super::{GuestWidth, PfnToFrame};
use crate::ids::{Mfn, Page, Pfn};

const NR_PAGES: Field = Field::new(32, 32);
const SHARED_INFO: Field = Field::new(36, 40);
const FLAGS: Field = Field::new(40, 48);
const STORE_MFN: Field = Field::new(44, 56);
const STORE_PORT: Field = Field::new(48, 64);
const CONSOLE_MFN: Field = Field::new(52, 72);
const CONSOLE_PORT: Field = Field::new(56, 80);

/// What is this host's in a guest's start info.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostPart {
    /// The frame of the new domain's shared info.
    pub shared_info: Mfn,
    /// The guest's event channel port to xenstore.
    pub store_port: u32,
    /// The guest's event channel port to its console.
    pub console_port: u32,
}

/// A page through which a guest talks with this host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ring {
    /// The guest's number of it.
    pub pfn: Pfn,
    /// The frame it is in.
    pub frame: Mfn,
}

/// The rings that a restored guest uses, to be granted to and connected with their other ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rings {
    /// To xenstore.
    pub store: Ring,
    /// To the console.
    pub console: Ring,
}

/// What is wrong with a start info.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum StartInfoError {
    /// A ring in a page that is not there.
    #[error("the guest's {ring} ring is in {pfn}, which has no frame")]
    NoRing {
        /// Which ring: `xenstore` or `console`.
        ring: &'static str,
        /// The page it should be in.
        pfn: Pfn,
    },
    /// A number that a guest of 32 bits cannot be told.
    #[error("{what} {value:#x} does not fit a 32-bit guest's start info")]
    DoesNotFit {
        /// Which.
        what: &'static str,
        /// The number.
        value: u64,
    },
}

/// Brings a guest's start info up to date for this host.
///
/// # Errors
/// [`StartInfoError`]; the page is then as it was.
pub fn restore(
    width: GuestWidth,
    page: &mut Page,
    host: &HostPart,
    pages: &(impl PfnToFrame + ?Sized),
) -> Result<Rings, StartInfoError> {
    let ring = |name, field: Field| {
        let pfn = Pfn(field.get(width, page));
        pages.frame_of(pfn).map(|frame| Ring { pfn, frame }).ok_or(StartInfoError::NoRing { ring: name, pfn })
    };
    let rings = Rings { store: ring("xenstore", STORE_MFN)?, console: ring("console", CONSOLE_MFN)? };
    let words = [
        ("the number of pages", NR_PAGES, pages.pfn_limit()),
        ("the shared info's address", SHARED_INFO, host.shared_info.0 << 12),
        ("the xenstore ring's frame", STORE_MFN, rings.store.frame.0),
        ("the console ring's frame", CONSOLE_MFN, rings.console.frame.0),
    ];
    if let Some((what, _, value)) = words.iter().find(|(_, _, value)| !fits(width, *value)) {
        return Err(StartInfoError::DoesNotFit { what, value: *value });
    }
    for (_, field, value) in words {
        field.set(width, page, value);
    }
    for (field, value) in [(FLAGS, 0), (STORE_PORT, host.store_port), (CONSOLE_PORT, host.console_port)] {
        field.set_u32(width, page, value);
    }
    Ok(rings)
}

fn fits(width: GuestWidth, value: u64) -> bool {
    width == GuestWidth::Bits64 || value <= u64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PAGE_SIZE;
    use crate::xen::pv::RestoredP2m;
    use std::mem::{offset_of, size_of};

    /// As in `xen.h`, for either `unsigned long`, laid out by the compiler.
    macro_rules! offsets {
        ($word:ty) => {{
            #[repr(C)]
            struct StartInfo {
                magic: [u8; 32],
                nr_pages: $word,
                shared_info: $word,
                flags: u32,
                store_mfn: $word,
                store_evtchn: u32,
                console_mfn: $word,
                console_evtchn: u32,
            }
            assert!(size_of::<StartInfo>() < PAGE_SIZE);
            [
                offset_of!(StartInfo, nr_pages),
                offset_of!(StartInfo, shared_info),
                offset_of!(StartInfo, flags),
                offset_of!(StartInfo, store_mfn),
                offset_of!(StartInfo, store_evtchn),
                offset_of!(StartInfo, console_mfn),
                offset_of!(StartInfo, console_evtchn),
            ]
        }};
    }

    #[test]
    fn offsets_are_those_of_the_header() {
        let fields = [NR_PAGES, SHARED_INFO, FLAGS, STORE_MFN, STORE_PORT, CONSOLE_MFN, CONSOLE_PORT];
        assert_eq!(fields.map(|field| field.offset(GuestWidth::Bits32Pae)), offsets!(u32));
        assert_eq!(fields.map(|field| field.offset(GuestWidth::Bits64)), offsets!(u64));
    }

    fn pages(width: GuestWidth) -> RestoredP2m {
        let mut p2m = RestoredP2m::new(width, 100);
        p2m.grow(100).unwrap();
        p2m.set_frame(Pfn(10), Mfn(0x1234)).unwrap();
        p2m.set_frame(Pfn(11), Mfn(0x5678)).unwrap();
        p2m
    }

    const HOST: HostPart = HostPart { shared_info: Mfn(0xF_FFFF), store_port: 0x0101_0101, console_port: 0x0202_0202 };

    #[test]
    fn only_what_is_the_hosts_changes() {
        for width in [GuestWidth::Bits32Pae, GuestWidth::Bits64] {
            let mut page = [0xA5; PAGE_SIZE];
            STORE_MFN.set(width, &mut page, 10);
            CONSOLE_MFN.set(width, &mut page, 11);
            let mut expected = page;
            for (field, value) in
                [(NR_PAGES, 100), (SHARED_INFO, 0xFFFF_F000), (STORE_MFN, 0x1234), (CONSOLE_MFN, 0x5678)]
            {
                field.set(width, &mut expected, value);
            }
            for (field, byte) in [(FLAGS, 0), (STORE_PORT, 1), (CONSOLE_PORT, 2)] {
                let offset = field.offset(width);
                expected[offset..offset + 4].fill(byte);
            }
            let rings = restore(width, &mut page, &HOST, &pages(width)).unwrap();
            assert_eq!((rings.store.frame, rings.console.frame), (Mfn(0x1234), Mfn(0x5678)));
            assert!(page == expected);
        }
    }

    #[test]
    fn rings_and_numbers_that_cannot_be() {
        for width in [GuestWidth::Bits32Pae, GuestWidth::Bits64] {
            let mut page = [0; PAGE_SIZE];
            STORE_MFN.set(width, &mut page, 10);
            CONSOLE_MFN.set(width, &mut page, 12);
            let before = page;
            let no_ring = StartInfoError::NoRing { ring: "console", pfn: Pfn(12) };
            assert_eq!(restore(width, &mut page, &HOST, &pages(width)), Err(no_ring));
            STORE_MFN.set(width, &mut page, u64::MAX);
            let no_ring = restore(width, &mut page, &HOST, &pages(width)).unwrap_err();
            assert!(matches!(no_ring, StartInfoError::NoRing { ring: "xenstore", .. }));

            page = before;
            CONSOLE_MFN.set(width, &mut page, 11);
            let before = page;
            let high = HostPart { shared_info: Mfn(0x10_0000), ..HOST };
            let restored = restore(width, &mut page, &high, &pages(width));
            if width == GuestWidth::Bits32Pae {
                let what = "the shared info's address";
                assert_eq!(restored, Err(StartInfoError::DoesNotFit { what, value: 1 << 32 }));
                assert!(page == before);
            } else {
                assert!(restored.is_ok());
            }
        }
    }
}
