//! The records that only a PV guest has: its width, its table of frames, its vCPUs, its shared info page.
//!
//! What Xen's own restore refuses is refused here, in the same places. Lengths are those of Xen's public interface
//! (`vcpu_guest_context` and the rest), which cannot change any more.
//!
//! ```
//! use colo_core::stream::pv::{PvInfo, VcpuBlob, VcpuPart};
//!
//! let info = PvInfo::parse(&[8, 4, 0, 0, 0, 0, 0, 0])?;
//! assert_eq!((info, info.levels()), (PvInfo::Bits64, 4));
//!
//! let record = VcpuBlob { part: VcpuPart::Basic, vcpu: 0, context: &[0; 5168] }.to_record();
//! let vcpu = VcpuBlob::parse(record.kind, &record.body, info)?;
//! assert_eq!((vcpu.vcpu, vcpu.context.len()), (0, info.basic_bytes()));
//! # Ok::<(), colo_core::stream::StreamError>(())
//! ```

use super::error::{Fault, StreamError};
use super::{PfnWord, kind};
use crate::domain::StateRecord;
use crate::ids::{PAGE_SIZE, Page, Pfn};
use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The most vCPUs of a domain: those of a PV guest of today's Xen (`MAX_VIRT_CPUS`), which no HVM guest reaches.
pub const MAX_VCPUS: u32 = 8192;

/// X86_PV_INFO: how wide a PV guest's words are, which decides how many levels its page tables have.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PvInfo {
    /// Words of 4 bytes, page tables of 3 levels.
    Bits32,
    /// Words of 8 bytes, page tables of 4 levels.
    Bits64,
}

/// As in the specification, "X86_PV_INFO".
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawPvInfo {
    guest_width: u8,
    pt_levels: u8,
    reserved: [u8; 6],
}

impl PvInfo {
    /// Reads the record's body.
    ///
    /// # Errors
    /// [`Fault::Size`]; [`Fault::PvInfo`] unless width and levels are one of the two pairs there are.
    pub fn parse(body: &[u8]) -> Result<PvInfo, StreamError> {
        let raw = RawPvInfo::ref_from_bytes(body).map_err(|_| size(kind::X86_PV_INFO, size_of::<RawPvInfo>(), body))?;
        match (raw.guest_width, raw.pt_levels) {
            (4, 3) => Ok(PvInfo::Bits32),
            (8, 4) => Ok(PvInfo::Bits64),
            (width, levels) => Err(Fault::PvInfo { width, levels }.at_start()),
        }
    }

    /// The record.
    pub fn to_record(self) -> StateRecord {
        let raw = RawPvInfo { guest_width: self.width_bytes() as u8, pt_levels: self.levels(), reserved: [0; 6] };
        StateRecord { kind: kind::X86_PV_INFO, body: raw.as_bytes().to_vec() }
    }

    /// Bytes of a word.
    pub const fn width_bytes(self) -> usize {
        match self {
            PvInfo::Bits32 => 4,
            PvInfo::Bits64 => 8,
        }
    }

    /// Levels of the page tables.
    pub const fn levels(self) -> u8 {
        match self {
            PvInfo::Bits32 => 3,
            PvInfo::Bits64 => 4,
        }
    }

    /// Bytes of a vCPU's basic context: of `vcpu_guest_context_x86_32` or `vcpu_guest_context_x86_64`.
    pub const fn basic_bytes(self) -> usize {
        match self {
            PvInfo::Bits32 => 2800,
            PvInfo::Bits64 => 5168,
        }
    }

    /// Entries in one frame of the guest's table of frames (the p2m).
    pub const fn entries_per_frame(self) -> u32 {
        (PAGE_SIZE / self.width_bytes()) as u32
    }

    /// How many frames the part of the p2m from `start` to `end`, both included, lies in.
    const fn frames(self, start: u32, end: u32) -> usize {
        (end / self.entries_per_frame() - start / self.entries_per_frame()) as usize + 1
    }
}

/// X86_PV_P2M_FRAMES: in which pages the guest keeps its p2m, or a part of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct P2mFrames<'a> {
    start: u32,
    end: u32,
    first_frame: usize,
    words: &'a [PfnWord],
}

/// As in the specification, "X86_PV_P2M_FRAMES", without the array.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawP2mFrames {
    start: U32,
    end: U32,
}

impl<'a> P2mFrames<'a> {
    /// Reads the record's body; a guest of this width has written it.
    ///
    /// # Errors
    /// [`Fault::BadLength`], [`Fault::P2mRange`]; [`Fault::Size`] when there are not as many pages as the range has frames.
    pub fn parse(body: &'a [u8], info: PvInfo) -> Result<P2mFrames<'a>, StreamError> {
        let bad_length = || Fault::BadLength { kind: kind::X86_PV_P2M_FRAMES, length: body.len() }.at_start();
        let (raw, rest) = RawP2mFrames::ref_from_prefix(body).map_err(|_| bad_length())?;
        let (start, end) = (raw.start.get(), raw.end.get());
        if start > end {
            return Err(Fault::P2mRange { start, end }.at_start());
        }
        let expected = size_of::<RawP2mFrames>() + info.frames(start, end) * size_of::<PfnWord>();
        if body.len() != expected {
            return Err(size(kind::X86_PV_P2M_FRAMES, expected, body));
        }
        let words = <[PfnWord]>::ref_from_bytes(rest).map_err(|_| bad_length())?;
        Ok(P2mFrames { start, end, first_frame: (start / info.entries_per_frame()) as usize, words })
    }

    /// The first page whose entry is in these frames.
    pub fn start(&self) -> Pfn {
        Pfn(u64::from(self.start))
    }

    /// The last page whose entry is in these frames: no page of the guest has a higher number, as far as is known.
    pub fn end(&self) -> Pfn {
        Pfn(u64::from(self.end))
    }

    /// Which frame of the whole p2m the first of these is.
    pub fn first_frame(&self) -> usize {
        self.first_frame
    }

    /// The pages, in the order of the p2m.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = Pfn> + use<'a> {
        self.words.iter().map(|word| Pfn(word.get()))
    }
}

/// The X86_PV_P2M_FRAMES record for the part of a p2m from page `start` to `end`, both included.
///
/// # Panics
/// Unless `start` is at most `end`, and there are as many frames as the range has for a guest of this width.
pub fn p2m_frames_record(
    info: PvInfo,
    start: u32,
    end: u32,
    frames: impl ExactSizeIterator<Item = Pfn>,
) -> StateRecord {
    assert!(start <= end, "from {start} to {end}");
    assert_eq!(frames.len(), info.frames(start, end), "frames from {start} to {end}");
    let mut body = RawP2mFrames { start: start.into(), end: end.into() }.as_bytes().to_vec();
    body.reserve(frames.len() * size_of::<PfnWord>());
    body.extend(frames.flat_map(|pfn| pfn.0.to_le_bytes()));
    StateRecord { kind: kind::X86_PV_P2M_FRAMES, body }
}

/// Which part of a vCPU a record holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum VcpuPart {
    /// Its registers (`XEN_DOMCTL_getvcpucontext`).
    Basic,
    /// Its callbacks and machine check state (`XEN_DOMCTL_get_ext_vcpucontext`).
    Extended,
    /// Its extended registers (`XEN_DOMCTL_getvcpuextstate`).
    Xsave,
    /// Its model-specific registers (`XEN_DOMCTL_get_vcpu_msrs`).
    Msrs,
}

impl VcpuPart {
    /// Every part, in the order in which Xen's tools write them.
    pub const ALL: [VcpuPart; 4] = [VcpuPart::Basic, VcpuPart::Extended, VcpuPart::Xsave, VcpuPart::Msrs];

    /// The type of the records that hold it.
    pub const fn kind(self) -> u32 {
        match self {
            VcpuPart::Basic => kind::X86_PV_VCPU_BASIC,
            VcpuPart::Extended => kind::X86_PV_VCPU_EXTENDED,
            VcpuPart::Xsave => kind::X86_PV_VCPU_XSAVE,
            VcpuPart::Msrs => kind::X86_PV_VCPU_MSRS,
        }
    }

    /// What records of this type hold, if of a vCPU.
    pub fn of_kind(kind: u32) -> Option<VcpuPart> {
        Self::ALL.into_iter().find(|part| part.kind() == kind)
    }
}

/// X86_PV_VCPU_BASIC, EXTENDED, XSAVE, MSRS: a part of a vCPU, for the hypervisor to read.
///
/// Older tools wrote records without context ("Errata"); a restore passes over them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VcpuBlob<'a> {
    /// Which part.
    pub part: VcpuPart,
    /// Which vCPU.
    pub vcpu: u32,
    /// The part, as the hypervisor gives and takes it.
    pub context: &'a [u8],
}

/// As in the specification, "X86_PV_VCPU_BASIC, EXTENDED, XSAVE, MSRS", without the context.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawVcpuHeader {
    vcpu: U32,
    reserved: U32,
}

impl<'a> VcpuBlob<'a> {
    /// The longest extended context, as the hypervisor says.
    pub const MAX_EXTENDED_BYTES: usize = 128;
    /// The shortest XSAVE state: two masks of features.
    pub const MIN_XSAVE_BYTES: usize = 16;

    /// Reads the body of a record of this type; `info` says how wide the guest is.
    ///
    /// # Errors
    /// [`Fault::BadLength`] for a context of a length that the part cannot have, [`Fault::Size`] for a basic context of the
    /// wrong one; [`Fault::VcpuNumber`] from [`MAX_VCPUS`] on; [`Fault::UnknownMandatory`] for a type that is no vCPU's.
    pub fn parse(kind: u32, body: &'a [u8], info: PvInfo) -> Result<VcpuBlob<'a>, StreamError> {
        let blob = Self::parse_any(kind, body)?;
        let expected = size_of::<RawVcpuHeader>() + info.basic_bytes();
        if blob.part == VcpuPart::Basic && !blob.context.is_empty() && body.len() != expected {
            return Err(size(kind, expected, body));
        }
        Ok(blob)
    }

    /// [`VcpuBlob::parse`] where the guest's width is not known: a basic context may then be of any length.
    pub(super) fn parse_any(kind: u32, body: &'a [u8]) -> Result<VcpuBlob<'a>, StreamError> {
        let part = VcpuPart::of_kind(kind).ok_or_else(|| Fault::UnknownMandatory(kind).at_start())?;
        let bad_length = || Fault::BadLength { kind, length: body.len() }.at_start();
        let (raw, context) = RawVcpuHeader::ref_from_prefix(body).map_err(|_| bad_length())?;
        let vcpu = raw.vcpu.get();
        if vcpu >= MAX_VCPUS {
            return Err(Fault::VcpuNumber { kind, vcpu }.at_start());
        }
        let fits = match part {
            _ if context.is_empty() => true,
            VcpuPart::Basic => true,
            VcpuPart::Extended => context.len() <= Self::MAX_EXTENDED_BYTES,
            VcpuPart::Xsave => context.len() >= Self::MIN_XSAVE_BYTES,
            VcpuPart::Msrs => context.len() % super::MsrEntry::BYTES == 0,
        };
        if fits { Ok(VcpuBlob { part, vcpu, context }) } else { Err(bad_length()) }
    }

    /// The record.
    pub fn to_record(&self) -> StateRecord {
        let mut body = RawVcpuHeader { vcpu: self.vcpu.into(), reserved: 0.into() }.as_bytes().to_vec();
        body.extend_from_slice(self.context);
        StateRecord { kind: self.part.kind(), body }
    }
}

/// SHARED_INFO: the page that a PV guest shares with the hypervisor.
///
/// # Errors
/// [`Fault::Size`] unless it is one page.
pub fn shared_info(body: &[u8]) -> Result<&Page, StreamError> {
    body.try_into().map_err(|_| size(kind::SHARED_INFO, PAGE_SIZE, body))
}

fn size(kind: u32, expected: usize, body: &[u8]) -> StreamError {
    Fault::Size { kind, expected, length: body.len() }.at_start()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn info() -> impl Strategy<Value = PvInfo> {
        prop::sample::select(vec![PvInfo::Bits32, PvInfo::Bits64])
    }

    #[test]
    fn golden_bodies() {
        assert_eq!(PvInfo::Bits32.to_record().body, [4, 3, 0, 0, 0, 0, 0, 0]);
        assert_eq!(PvInfo::Bits64.to_record().body, [8, 4, 0, 0, 0, 0, 0, 0]);

        // Pages 0x1FF to 0x200 of a 64-bit guest lie in two frames.
        let frames = p2m_frames_record(PvInfo::Bits64, 0x1FF, 0x200, [Pfn(0x1234), Pfn(7)].into_iter());
        let golden = [[0xFF, 1, 0, 0, 0, 2, 0, 0], [0x34, 0x12, 0, 0, 0, 0, 0, 0], [7, 0, 0, 0, 0, 0, 0, 0]];
        assert_eq!((frames.kind, frames.body.as_slice()), (3, golden.as_flattened()));

        let msrs = VcpuBlob { part: VcpuPart::Msrs, vcpu: 3, context: &[0x11; 16] }.to_record();
        assert_eq!(
            (msrs.kind, msrs.body.as_slice()),
            (0xC, [&[3, 0, 0, 0, 0, 0, 0, 0][..], &[0x11; 16]].concat().as_slice())
        );
    }

    #[test]
    fn widths_and_levels_go_together() {
        for (width, levels) in [(4, 4), (8, 3), (0, 0), (5, 3), (16, 5)] {
            let fault = PvInfo::parse(&[width, levels, 0, 0, 0, 0, 0, 0]).unwrap_err().fault;
            assert_eq!(fault, Fault::PvInfo { width, levels });
        }
        for length in [0, 7, 9] {
            let fault = PvInfo::parse(&vec![8; length]).unwrap_err().fault;
            assert_eq!(fault, Fault::Size { kind: kind::X86_PV_INFO, expected: 8, length });
        }
    }

    #[test]
    fn p2m_frames_are_counted() {
        let body = |start: u32, end: u32, frames: usize| {
            let mut body = [start.to_le_bytes(), end.to_le_bytes()].concat();
            body.resize(8 + 8 * frames, 1);
            body
        };
        let fault = |body: &[u8], info| P2mFrames::parse(body, info).unwrap_err().fault;
        assert_eq!(fault(&body(0, 0, 0)[..7], PvInfo::Bits64), Fault::BadLength { kind: 3, length: 7 });
        assert_eq!(fault(&body(6, 5, 1), PvInfo::Bits64), Fault::P2mRange { start: 6, end: 5 });
        assert_eq!(fault(&body(0, 512, 1), PvInfo::Bits64), Fault::Size { kind: 3, expected: 24, length: 16 });
        assert_eq!(fault(&body(0, 511, 2), PvInfo::Bits64), Fault::Size { kind: 3, expected: 16, length: 24 });
        assert!(P2mFrames::parse(&body(0, 512, 1), PvInfo::Bits32).is_ok(), "1024 entries to a frame");
        let all = fault(&body(0, u32::MAX, 1), PvInfo::Bits64);
        assert_eq!(all, Fault::Size { kind: 3, expected: 8 + (8 << 23), length: 16 });
    }

    #[test]
    fn vcpus_of_impossible_lengths() {
        let parse = |part: VcpuPart, bytes: usize| {
            let record = VcpuBlob { part, vcpu: 1, context: &vec![0; bytes] }.to_record();
            VcpuBlob::parse(record.kind, &record.body, PvInfo::Bits64).map(|blob| blob.context.len())
        };
        for part in VcpuPart::ALL {
            assert_eq!(parse(part, 0), Ok(0), "older tools wrote empty records");
        }
        assert!(parse(VcpuPart::Basic, 5167).is_err() && parse(VcpuPart::Basic, 2800).is_err());
        assert!(parse(VcpuPart::Extended, 128).is_ok() && parse(VcpuPart::Extended, 129).is_err());
        assert!(parse(VcpuPart::Xsave, 16).is_ok() && parse(VcpuPart::Xsave, 15).is_err());
        assert!(parse(VcpuPart::Msrs, 32).is_ok() && parse(VcpuPart::Msrs, 24).is_err());
        let far = VcpuBlob { part: VcpuPart::Xsave, vcpu: MAX_VCPUS, context: &[] }.to_record();
        let fault = VcpuBlob::parse(far.kind, &far.body, PvInfo::Bits64).unwrap_err().fault;
        assert_eq!(fault, Fault::VcpuNumber { kind: far.kind, vcpu: MAX_VCPUS });
    }

    #[test]
    fn shared_info_is_one_page() {
        assert!(shared_info(&[0; PAGE_SIZE]).is_ok());
        assert!(shared_info(&[0; PAGE_SIZE - 1]).is_err());
    }

    proptest! {
        #[test]
        fn p2m_frames_round_trip(info in info(), start in 0_u32..1 << 20, length in 0_u32..1 << 14, seed: u64) {
            let end = start + length;
            let frames: Vec<Pfn> = (0..info.frames(start, end) as u64).map(|at| Pfn(seed ^ at)).collect();
            let record = p2m_frames_record(info, start, end, frames.iter().copied());
            let parsed = P2mFrames::parse(&record.body, info).unwrap();
            prop_assert_eq!((parsed.start(), parsed.end()), (Pfn(start.into()), Pfn(end.into())));
            prop_assert_eq!(parsed.first_frame(), (start / info.entries_per_frame()) as usize);
            prop_assert!(parsed.frames().eq(frames));
        }

        #[test]
        fn vcpus_round_trip(info in info(), part in prop::sample::select(&VcpuPart::ALL), vcpu in 0..MAX_VCPUS, fill: u8, entries in 1_usize..8) {
            let bytes = if part == VcpuPart::Basic { info.basic_bytes() } else { entries * 16 };
            let context = vec![fill; bytes];
            let blob = VcpuBlob { part, vcpu, context: &context };
            let record = blob.to_record();
            prop_assert_eq!(VcpuBlob::parse(record.kind, &record.body, info), Ok(blob));
        }
    }
}
