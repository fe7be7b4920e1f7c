use super::*;
use crate::xen::pv::testing::Rng;
use proptest::prelude::*;
use std::mem::{offset_of, size_of};

const WIDTHS: [GuestWidth; 2] = [GuestWidth::Bits32Pae, GuestWidth::Bits64];

/// The structures as the public headers have them, for either `unsigned long`, laid out by the compiler.
macro_rules! layout {
    ($name:ident, $word:ty, { $($register:ident),* }, { $($tail:ident: $count:literal),* }) => {
            mod $name {
            #[repr(C)]
            pub(super) struct UserRegs { $(pub(super) $register: $word),* }
            #[repr(C)]
            pub(super) struct TrapInfo { vector: u8, flags: u8, cs: u16, address: $word }
            #[repr(C)]
            pub(super) struct Context {
                fpu: [u8; 512],
                pub(super) flags: $word,
                pub(super) user_regs: UserRegs,
                trap_ctxt: [TrapInfo; 256],
                ldt_base: $word,
                ldt_ents: $word,
                pub(super) gdt_frames: [$word; 16],
                pub(super) gdt_ents: $word,
                kernel_ss: $word,
                kernel_sp: $word,
                pub(super) ctrlreg: [$word; 8],
                debugreg: [$word; 8],
                $($tail: [$word; $count]),*
            }
        }
    };
}
// `ax_` stand for an error code and a vector, `cs_` for selectors that share a word with others.
layout!(narrow, u32,
    { bx, cx, dx, si, di, bp, ax, ax_, ip, cs_, flags, sp, ss, es, ds, fs, gs },
    { callbacks: 4, vm_assist: 1 });
layout!(wide, u64,
    { r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, ax_, ip, cs_, flags, sp, ss, es, ds, fs, gs },
    { callbacks: 3, vm_assist: 1, bases: 3 });

#[test]
fn offsets_are_those_of_the_headers() {
    macro_rules! offsets {
        ($layout:ident) => {{
            use $layout::{Context, UserRegs};
            [
                size_of::<Context>(),
                offset_of!(Context, flags),
                offset_of!(Context, user_regs) + offset_of!(UserRegs, dx),
                offset_of!(Context, gdt_frames),
                offset_of!(Context, gdt_ents),
                offset_of!(Context, ctrlreg),
            ]
        }};
    }
    for (width, offsets) in WIDTHS.into_iter().zip([offsets!(narrow), offsets!(wide)]) {
        let fields = [FLAGS, DX, GDT_FRAMES, GDT_ENTRIES, CONTROL_REGISTERS].map(|field| field.offset(width));
        assert_eq!([&[blob_bytes(width)], fields.as_slice()].concat(), offsets);
        assert_eq!(CR3.offset(width), CONTROL_REGISTERS.offset(width) + 3 * width.word_bytes());
    }
}

/// A guest of 64 pages: page 1 its start info, 2 to 20 its GDTs, 30 and 31 its top tables, 32 a lower table.
fn guest(width: GuestWidth, first_frame: u64) -> (RestoredP2m, Vec<u64>) {
    let mut p2m = RestoredP2m::new(width, 64);
    p2m.grow(64).unwrap();
    for pfn in 0..60 {
        p2m.set_frame(Pfn(pfn), Mfn(first_frame + 7 * pfn)).unwrap();
    }
    let table = |level, pinned| {
        PageType::ALL.into_iter().find(|t| t.table_level() == Some(level) && t.is_pinned() == pinned).unwrap()
    };
    p2m.set_type(Pfn(30), table(width.levels(), true)).unwrap();
    p2m.set_type(Pfn(31), table(width.levels(), false)).unwrap();
    p2m.set_type(Pfn(32), table(1, true)).unwrap();
    let mut m2p = vec![u64::MAX; 2000];
    for pfn in 0..60 {
        m2p[(first_frame + 7 * pfn) as usize] = pfn;
    }
    (p2m, m2p)
}

fn blob(width: GuestWidth, set: impl Fn(&mut dyn FnMut(Field, u64))) -> Vec<u8> {
    let mut rng = Rng(3);
    let mut blob: Vec<u8> = (0..blob_bytes(width)).map(|_| rng.next() as u8).collect();
    set(&mut |field, value| field.set(width, &mut blob, value));
    blob
}

/// A vCPU as the stream has it.
fn streamed(width: GuestWidth, gdt_entries: u64) -> Vec<u8> {
    blob(width, |set| {
        set(FLAGS, FLAG_ONLINE | 4);
        set(DX, 1);
        set(GDT_ENTRIES, gdt_entries);
        for index in 0..16 {
            set(GDT_FRAMES.element(index), 2 + index as u64);
        }
        set(CR3, width.frame_to_cr3(Mfn(30)).unwrap());
        set(CR1, 31 << 12 | 1);
    })
}

#[test]
fn from_host_to_host_and_back() {
    for width in WIDTHS {
        for (entries, frames) in [(0_u64, 0), (1, 1), (512, 1), (513, 2), (7168, 14)] {
            let (p2m, m2p) = guest(width, 100);
            let physmap = Physmap::new(&p2m, m2p.as_slice());
            let original = streamed(width, entries);
            let mut there = original.clone();
            assert_eq!(localise(width, 0, &mut there, &physmap), Ok(Some(Mfn(107))));
            assert_eq!(DX.get(width, &there), 107);
            for index in 0..16 {
                let pfn = 2 + index as u64;
                let expected = if index < frames { 100 + 7 * pfn } else { pfn };
                assert_eq!(GDT_FRAMES.element(index).get(width, &there), expected);
            }
            assert_eq!(width.cr3_to_frame(CR3.get(width, &there)), Some(Mfn(310)));
            if width == GuestWidth::Bits64 {
                assert_eq!(CR1.get(width, &there), 317 << 12, "Xen gets no mark");
            }
            assert_eq!(normalise(width, 0, &mut there, &physmap), Ok(()));
            assert!(there == original);
        }
    }
}

#[test]
fn other_vcpus_are_left_their_registers_and_come_online() {
    for width in WIDTHS {
        let (p2m, _) = guest(width, 100);
        let mut other = blob(width, |set| {
            set(FLAGS, 4);
            set(DX, 0xDEAD_BEEF);
            set(GDT_ENTRIES, 0);
            set(CR3, width.frame_to_cr3(Mfn(31)).unwrap());
            set(CR1, 0);
        });
        assert_eq!(localise(width, 1, &mut other, &p2m), Ok(None));
        let online = u64::from(xen_sys::ctrl::VGCF_online);
        assert_eq!((FLAGS.get(width, &other), DX.get(width, &other)), (online | 4, 0xDEAD_BEEF));
        assert_eq!(CR1.get(width, &other), 0, "a vCPU without a table for its user mode");
    }
}

#[test]
fn references_to_what_they_must_not_be() {
    for width in WIDTHS {
        let (mut p2m, _) = guest(width, 100);
        let change = |field: Field, value: u64| {
            let mut blob = streamed(width, 512);
            field.set(width, &mut blob, value);
            blob
        };
        let cr3 = |pfn| width.frame_to_cr3(Mfn(pfn)).unwrap();
        let bad = |blob: Vec<u8>, p2m: &RestoredP2m| localise(width, 0, &mut blob.clone(), p2m).unwrap_err();
        let vcpu = 0;
        for (field, reference, value, pfn, page_type) in [
            (DX, Reference::StartInfo, 32, 32, PageType::L1Pinned),
            (DX, Reference::StartInfo, 64, 64, PageType::Invalid),
            (GDT_FRAMES, Reference::Gdt(0), 32, 32, PageType::L1Pinned),
            (CR3, Reference::Cr3, cr3(32), 32, PageType::L1Pinned),
            (CR3, Reference::Cr3, cr3(1), 1, PageType::Normal),
            (CR3, Reference::Cr3, cr3(99), 99, PageType::Invalid),
        ] {
            let error = VcpuError::BadType { vcpu, reference, pfn: Pfn(pfn), page_type };
            assert_eq!(bad(change(field, value), &p2m), error);
        }
        let (reference, pfn) = (Reference::StartInfo, Pfn(61));
        assert_eq!(bad(change(DX, 61), &p2m), VcpuError::NoFrame { vcpu, reference, pfn });
        let entries = 7169;
        assert_eq!(bad(change(GDT_ENTRIES, entries), &p2m), VcpuError::GdtEntries { vcpu, entries });
        if width == GuestWidth::Bits64 {
            let wrong = VcpuError::BadRegister { vcpu, reference: Reference::Cr1, value: 31 << 12 };
            assert_eq!(bad(change(CR1, 31 << 12), &p2m), wrong);
            let (reference, page_type) = (Reference::Cr1, PageType::Normal);
            let wrong = VcpuError::BadType { vcpu, reference, pfn: Pfn(0), page_type };
            assert_eq!(bad(change(CR1, 1), &p2m), wrong);
        }
        let (bytes, expected) = (blob_bytes(width) - 1, blob_bytes(width));
        let short = streamed(width, 0)[1..].to_vec();
        assert_eq!(bad(short, &p2m), VcpuError::Length { vcpu, bytes, expected });
        p2m.take_frame(Pfn(30)).unwrap();
        let (reference, pfn) = (Reference::Cr3, Pfn(30));
        assert_eq!(bad(streamed(width, 0), &p2m), VcpuError::NoFrame { vcpu, reference, pfn });
    }
}

#[test]
fn frames_of_others_are_refused_when_saved() {
    for width in WIDTHS {
        let (p2m, m2p) = guest(width, 100);
        let physmap = Physmap::new(&p2m, m2p.as_slice());
        let mut good = streamed(width, 512);
        localise(width, 0, &mut good, &physmap).unwrap();
        let cr3 = width.frame_to_cr3(Mfn(101)).unwrap();
        let mut cases =
            vec![(DX, Reference::StartInfo, 101), (GDT_FRAMES, Reference::Gdt(0), 101), (CR3, Reference::Cr3, cr3)];
        if width == GuestWidth::Bits64 {
            cases.push((CR1, Reference::Cr1, 101 << 12));
        }
        for (field, reference, value) in cases {
            let mut blob = good.clone();
            field.set(width, &mut blob, value);
            let error = VcpuError::NotInPhysmap { vcpu: 0, reference, frame: Mfn(101) };
            assert_eq!(normalise(width, 0, &mut blob, &physmap), Err(error));
        }
    }
}

proptest! {
    #[test]
    fn registers_of_any_bytes(seed: u64, wide: bool, vcpu in 0_u32..2) {
        let width = WIDTHS[usize::from(wide)];
        let (p2m, m2p) = guest(width, 100);
        let physmap = Physmap::new(&p2m, m2p.as_slice());
        let mut rng = Rng(seed);
        let mut blob: Vec<u8> = (0..blob_bytes(width)).map(|_| rng.next() as u8).collect();
        let _ = normalise(width, vcpu, &mut blob.clone(), &physmap);
        prop_assert!(localise(width, vcpu, &mut blob, &physmap).is_err());
    }
}
