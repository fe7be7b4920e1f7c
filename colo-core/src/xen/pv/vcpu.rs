//! A PV vCPU's registers: the body of an X86_PV_VCPU_BASIC record behind its header, which is a `struct vcpu_guest_context` of
//! `arch-x86/xen.h` as `XEN_DOMCTL_getvcpucontext` gives it. It names frames in four places; in the stream they are pages:
//!
//! | | 32 bits | 64 bits | in the stream |
//! | --- | --- | --- | --- |
//! | vCPU 0's `edx` or `rdx`: the start info, which a guest hands over when it suspends | 524 | 616 | its pfn |
//! | `gdt_frames[16]`, of which `gdt_ents` says how many are in use | 2640, 2704 | 4832, 4960 | pfns |
//! | `ctrlreg[3]`: the page table in use | 2728 | 5008 | a CR3 that names the pfn |
//! | `ctrlreg[1]`: of a 64-bit guest, the page table of its user mode, or 0 | - | 4992 | the pfn, shifted by 12, and bit 0 set |
//!
//! The other records of a vCPU name no frames.
//!
//! ```
//! use colo_core::ids::{Mfn, Pfn};
//! use colo_core::stream::PageType;
//! use colo_core::xen::pv::vcpu::{blob_bytes, localise, normalise};
//! use colo_core::xen::pv::{GuestWidth, Physmap, RestoredP2m};
//!
//! let mut p2m = RestoredP2m::new(GuestWidth::Bits64, 8);
//! p2m.grow(8)?;
//! p2m.set_frame(Pfn(1), Mfn(5))?;
//! p2m.set_frame(Pfn(2), Mfn(6))?;
//! p2m.set_type(Pfn(2), PageType::L4Pinned)?;
//! let m2p = [0, 0, 0, 0, 0, 1, 2, 0];
//! let physmap = Physmap::new(&p2m, m2p.as_slice());
//!
//! let mut blob = [0; blob_bytes(GuestWidth::Bits64)];
//! blob[616..624].copy_from_slice(&5_u64.to_le_bytes()); // rdx
//! blob[5008..5016].copy_from_slice(&0x6000_u64.to_le_bytes()); // CR3
//! normalise(GuestWidth::Bits64, 0, &mut blob, &physmap)?;
//! assert_eq!(blob[5008..5016], 0x2000_u64.to_le_bytes());
//! assert_eq!(localise(GuestWidth::Bits64, 0, &mut blob, &physmap)?, Some(Mfn(5)));
//! assert_eq!(blob[5008..5016], 0x6000_u64.to_le_bytes());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use super::field::Field;
use super::{FrameToPfn, GuestWidth, MachineToPfn, PfnToFrame, Physmap, RestoredP2m};
use crate::ids::{Mfn, Pfn};
use crate::stream::PageType;
use std::fmt;

#[cfg(test)]
mod tests;

/// Frames of a guest's GDT; Xen's own descriptors come after them (`FIRST_RESERVED_GDT_PAGE`).
const GDT_FRAMES_MAX: u64 = 14;
/// Descriptors in a frame.
const GDT_FRAME_ENTRIES: u64 = 512;

const FLAGS: Field = Field::new(512, 512);
/// In `user_regs`, which follows the flags: `edx`, `rdx`.
const DX: Field = Field::new(516 + 8, 520 + 96);
const GDT_FRAMES: Field = Field::new(2640, 4832);
const GDT_ENTRIES: Field = Field::new(2704, 4960);
const CONTROL_REGISTERS: Field = Field::new(2716, 4984);
const CR1: Field = CONTROL_REGISTERS.element(1);
const CR3: Field = CONTROL_REGISTERS.element(3);

/// `VGCF_online`: the vCPU is up. Only such a one has records in the stream.
const FLAG_ONLINE: u64 = 1 << 5;
/// CR1, in the stream: it names a page. Without it a guest whose page is page 0 would be one that has none.
const CR1_VALID: u64 = 1;

/// Pages whose types are known: what a vCPU's references are checked against.
pub trait TypedPages: PfnToFrame {
    /// What a page is; [`PageType::Invalid`] when the guest has no such page.
    fn type_of(&self, pfn: Pfn) -> PageType;
}

impl TypedPages for RestoredP2m {
    fn type_of(&self, pfn: Pfn) -> PageType {
        RestoredP2m::type_of(self, pfn)
    }
}

impl<P: TypedPages + ?Sized, M: MachineToPfn + ?Sized> TypedPages for Physmap<'_, P, M> {
    fn type_of(&self, pfn: Pfn) -> PageType {
        self.p2m().type_of(pfn)
    }
}

/// Which of a vCPU's references.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reference {
    /// The start info.
    StartInfo,
    /// A frame of the GDT.
    Gdt(usize),
    /// The page table in use.
    Cr3,
    /// The user mode's page table.
    Cr1,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::StartInfo => f.write_str("the start info"),
            Reference::Gdt(index) => write!(f, "frame {index} of the GDT"),
            Reference::Cr3 => f.write_str("CR3"),
            Reference::Cr1 => f.write_str("CR1"),
        }
    }
}

/// What is wrong with a vCPU's registers.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum VcpuError {
    /// They are not as long as those of a guest of this width.
    #[error("vCPU {vcpu}: {bytes} bytes of registers, not {expected}")]
    Length {
        /// The vCPU.
        vcpu: u32,
        /// Bytes there are.
        bytes: usize,
        /// Bytes there must be.
        expected: usize,
    },
    /// More descriptors than a guest may have.
    #[error("vCPU {vcpu}: {entries} descriptors in the GDT, but the limit is {}", GDT_FRAMES_MAX * GDT_FRAME_ENTRIES)]
    GdtEntries {
        /// The vCPU.
        vcpu: u32,
        /// Descriptors.
        entries: u64,
    },
    /// A control register that names nothing.
    #[error("vCPU {vcpu}: {reference} is {value:#x}")]
    BadRegister {
        /// The vCPU.
        vcpu: u32,
        /// Which one.
        reference: Reference,
        /// What it is.
        value: u64,
    },
    /// A frame that is not the guest's.
    #[error("vCPU {vcpu}: {reference} is {frame}, which is not the guest's")]
    NotInPhysmap {
        /// The vCPU.
        vcpu: u32,
        /// Of what.
        reference: Reference,
        /// The frame.
        frame: Mfn,
    },
    /// A page of the stream that is not what it must be.
    #[error("vCPU {vcpu}: {reference} is {pfn}, which is {page_type:?}")]
    BadType {
        /// The vCPU.
        vcpu: u32,
        /// Of what.
        reference: Reference,
        /// The page.
        pfn: Pfn,
        /// What it is.
        page_type: PageType,
    },
    /// A page of the stream that has no frame, or one that the field has no room for.
    #[error("vCPU {vcpu}: {reference} is {pfn}, which has no frame for it")]
    NoFrame {
        /// The vCPU.
        vcpu: u32,
        /// Of what.
        reference: Reference,
        /// The page.
        pfn: Pfn,
    },
}

/// How long the registers of a guest's vCPU are.
pub const fn blob_bytes(width: GuestWidth) -> usize {
    width.info().basic_bytes()
}

/// Makes a suspended vCPU's registers ready for the stream: pfns for mfns.
///
/// # Errors
/// [`VcpuError`]. The blob may then be half done.
pub fn normalise(
    width: GuestWidth,
    vcpu: u32,
    blob: &mut [u8],
    frames: &(impl FrameToPfn + ?Sized),
) -> Result<(), VcpuError> {
    check_length(width, vcpu, blob)?;
    let pfn_of = |reference, frame: Mfn| {
        frames.pfn_of(frame).ok_or(VcpuError::NotInPhysmap { vcpu, reference, frame }).map(|pfn| pfn.0)
    };
    if vcpu == 0 {
        let pfn = pfn_of(Reference::StartInfo, Mfn(DX.get(width, blob)))?;
        DX.set(width, blob, pfn);
    }
    for index in 0..gdt_frames(width, vcpu, blob)? {
        let field = GDT_FRAMES.element(index);
        let pfn = pfn_of(Reference::Gdt(index), Mfn(field.get(width, blob)))?;
        field.set(width, blob, pfn);
    }
    let value = CR3.get(width, blob);
    let bad_cr3 = VcpuError::BadRegister { vcpu, reference: Reference::Cr3, value };
    let pfn = pfn_of(Reference::Cr3, width.cr3_to_frame(value).ok_or(bad_cr3.clone())?)?;
    CR3.set(width, blob, width.frame_to_cr3(Mfn(pfn)).ok_or(bad_cr3)?);

    let user_table = CR1.get(width, blob);
    if width == GuestWidth::Bits64 && user_table != 0 {
        let pfn = pfn_of(Reference::Cr1, Mfn(user_table >> 12))?;
        CR1.set(width, blob, pfn << 12 | CR1_VALID);
    }
    Ok(())
}

/// Makes a vCPU's registers from the stream usable on this host: mfns for pfns, and the vCPU online. Returns the frame of the start
/// info, for vCPU 0: it must be [brought up to date](super::start_info) before the guest goes on.
///
/// # Errors
/// [`VcpuError`]. The blob may then be half done.
pub fn localise(
    width: GuestWidth,
    vcpu: u32,
    blob: &mut [u8],
    pages: &(impl TypedPages + ?Sized),
) -> Result<Option<Mfn>, VcpuError> {
    check_length(width, vcpu, blob)?;
    let frame_of = |reference, pfn: Pfn, is_right: fn(GuestWidth, PageType) -> bool| {
        let page_type = pages.type_of(pfn);
        if !is_right(width, page_type) {
            return Err(VcpuError::BadType { vcpu, reference, pfn, page_type });
        }
        pages.frame_of(pfn).ok_or(VcpuError::NoFrame { vcpu, reference, pfn })
    };
    // Data, and of a 32-bit guest in a frame that a field of 32 bits holds.
    let data_frame = |reference, pfn: Pfn| {
        let frame = frame_of(reference, pfn, |_, page_type| page_type == PageType::Normal)?;
        let fits = width == GuestWidth::Bits64 || frame.0 <= u64::from(u32::MAX);
        if fits { Ok(frame) } else { Err(VcpuError::NoFrame { vcpu, reference, pfn }) }
    };
    let top_table = |width: GuestWidth, page_type: PageType| page_type.table_level() == Some(width.levels());

    let mut start_info = None;
    if vcpu == 0 {
        let frame = data_frame(Reference::StartInfo, Pfn(DX.get(width, blob)))?;
        DX.set(width, blob, frame.0);
        start_info = Some(frame);
    }
    FLAGS.set(width, blob, FLAGS.get(width, blob) | FLAG_ONLINE);
    for index in 0..gdt_frames(width, vcpu, blob)? {
        let field = GDT_FRAMES.element(index);
        let frame = data_frame(Reference::Gdt(index), Pfn(field.get(width, blob)))?;
        field.set(width, blob, frame.0);
    }

    let (reference, value) = (Reference::Cr3, CR3.get(width, blob));
    let pfn = width.cr3_to_frame(value).ok_or(VcpuError::BadRegister { vcpu, reference, value })?;
    let pfn = Pfn(pfn.0);
    let frame = frame_of(reference, pfn, top_table)?;
    CR3.set(width, blob, width.frame_to_cr3(frame).ok_or(VcpuError::NoFrame { vcpu, reference, pfn })?);

    let (reference, value) = (Reference::Cr1, CR1.get(width, blob));
    if width == GuestWidth::Bits64 && value != 0 {
        if value & CR1_VALID == 0 {
            return Err(VcpuError::BadRegister { vcpu, reference, value });
        }
        let pfn = Pfn(value >> 12);
        let frame = frame_of(reference, pfn, top_table)?;
        CR1.set(width, blob, width.frame_to_cr3(frame).ok_or(VcpuError::NoFrame { vcpu, reference, pfn })?);
    }
    Ok(start_info)
}

fn check_length(width: GuestWidth, vcpu: u32, blob: &[u8]) -> Result<(), VcpuError> {
    match blob_bytes(width) {
        expected if expected != blob.len() => Err(VcpuError::Length { vcpu, bytes: blob.len(), expected }),
        _ => Ok(()),
    }
}

/// How many frames the GDT has.
fn gdt_frames(width: GuestWidth, vcpu: u32, blob: &[u8]) -> Result<usize, VcpuError> {
    match GDT_ENTRIES.get(width, blob) {
        entries if entries > GDT_FRAMES_MAX * GDT_FRAME_ENTRIES => Err(VcpuError::GdtEntries { vcpu, entries }),
        entries => Ok(entries.div_ceil(GDT_FRAME_ENTRIES) as usize),
    }
}
