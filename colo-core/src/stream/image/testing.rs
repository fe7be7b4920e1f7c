//! Small images of every kind, as Xen's tools would write them, for tests.

use crate::domain::StateRecord;
use crate::ids::{PAGE_SIZE, Pfn};
use crate::stream::hvm::entry;
use crate::stream::libxl::{CheckpointState, Emulator, LibxlHeader, LibxlRecord, XenstoreData, encode_xenstore_data};
use crate::stream::pv::p2m_frames_record;
use crate::stream::xl::XlHeader;
use crate::stream::{
    CpuidLeaf, CpuidPolicy, DomainHeader, DomainKind, Headers, HvmContext, HvmParam, HvmParams, ImageHeader, MsrEntry,
    MsrPolicy, PageType, PvInfo, TscInfo, VcpuBlob, VcpuPart, Version, kind, page_data_prefix, write_record,
};

/// An image in the making.
#[derive(Clone, Debug, Default)]
pub struct ImageBuilder {
    bytes: Vec<u8>,
}

impl ImageBuilder {
    /// An image of a file: xl's header with a configuration for a domain of this type, libxl's, and libxc's headers.
    pub fn xl(config_type: &str, domain: DomainKind, version: Version) -> ImageBuilder {
        let config = format!(
            r#"{{"c_info": {{"type": "{config_type}", "name": "small", "uuid": "f6637b60-e8f7-11f1-a1d9-152448cde78e"}},
"b_info": {{"max_vcpus": 2, "max_memkb": 4096}}}}"#
        );
        let mut image = ImageBuilder::default();
        XlHeader::new(config.as_bytes()).encode(&mut image.bytes).expect("it is short");
        image.libxl_stream(domain, version)
    }

    /// An image that is a libxl stream.
    pub fn libxl(domain: DomainKind, version: Version) -> ImageBuilder {
        ImageBuilder::default().libxl_stream(domain, version)
    }

    /// An image that is a libxc stream.
    pub fn libxc(domain: DomainKind, version: Version) -> ImageBuilder {
        let mut image = ImageBuilder::default();
        let domain = DomainHeader { kind: domain, page_shift: 12, xen_major: 4, xen_minor: 17 };
        Headers { image: ImageHeader { version }, domain }.encode(&mut image.bytes);
        image
    }

    fn libxl_stream(mut self, domain: DomainKind, version: Version) -> ImageBuilder {
        LibxlHeader::default().encode(&mut self.bytes);
        self.libxl_record(&LibxlRecord::LibxcContext);
        self.bytes.extend(ImageBuilder::libxc(domain, version).bytes);
        self
    }

    /// Appends a record of libxl's.
    pub fn libxl_record(&mut self, record: &LibxlRecord<'_>) -> &mut Self {
        record.encode(&mut self.bytes).expect("it is short");
        self
    }

    /// Appends a record of libxc's.
    pub fn record(&mut self, record: &StateRecord) -> &mut Self {
        write_record(&mut self.bytes, record.kind, &record.body).expect("it is short");
        self
    }

    /// Appends a record of libxc's that has no body.
    pub fn mark(&mut self, kind: u32) -> &mut Self {
        self.record(&StateRecord { kind, body: Vec::new() })
    }

    /// Appends a PAGE_DATA record. The pages that have data are full of their numbers.
    pub fn pages(&mut self, pages: &[(u64, PageType)]) -> &mut Self {
        page_data_prefix(pages.iter().map(|(pfn, page_type)| (Pfn(*pfn), *page_type)), &mut self.bytes);
        for (pfn, _) in pages.iter().filter(|(_, page_type)| page_type.has_data()) {
            self.bytes.extend([*pfn as u8; PAGE_SIZE]);
        }
        self
    }

    /// Appends both policies and, since version 3, the end of static data.
    fn static_data_end(&mut self) -> &mut Self {
        let leaves = [
            CpuidLeaf { leaf: 0, subleaf: None, eax: 13, ebx: 1, ecx: 2, edx: 3 },
            CpuidLeaf { leaf: 7, subleaf: Some(0), eax: 0, ebx: 1, ecx: 2, edx: 3 },
        ];
        self.record(&CpuidPolicy::record(&leaves));
        self.record(&MsrPolicy::record(&[MsrEntry { index: 0xCE, value: 1 << 31 }]));
        self.mark(kind::STATIC_DATA_END)
    }

    fn tsc(&mut self) -> &mut Self {
        self.record(&TscInfo { mode: 2, khz: 2_400_000, nsec: 5, incarnation: 1 }.to_record())
    }

    /// Appends what comes behind the memory of an HVM guest.
    fn hvm_state(&mut self) -> &mut Self {
        let (header, cpu) = (HvmContext::header(0x60FB1, 2_400_000), [1; 40]);
        let entries: [(u16, u16, &[u8]); 3] =
            [(entry::HEADER, 0, &header), (entry::CPU, 0, &cpu), (entry::CPU, 1, &cpu)];
        let params = [HvmParam { index: 1, value: 0xFEFFC }, HvmParam { index: 17, value: 0xFEFFF }];
        self.tsc().record(&HvmContext::record(&entries)).record(&HvmParams::record(&params))
    }

    /// Appends what comes behind the memory of a PV guest of this width.
    fn pv_state(&mut self, info: PvInfo) -> &mut Self {
        self.tsc().record(&StateRecord { kind: kind::SHARED_INFO, body: vec![0; PAGE_SIZE] });
        let msrs = MsrEntry::encode(&[MsrEntry { index: 0xC000_0103, value: 1 }]);
        for part in VcpuPart::ALL {
            let context = match part {
                VcpuPart::Basic => vec![7; info.basic_bytes()],
                VcpuPart::Extended => vec![7; 64],
                VcpuPart::Xsave => vec![7; 96],
                VcpuPart::Msrs => msrs.clone(),
            };
            self.record(&VcpuBlob { part, vcpu: 0, context: &context }.to_record());
        }
        self
    }

    /// Appends what QEMU has to say.
    fn emulator(&mut self) -> &mut Self {
        let pairs = encode_xenstore_data([("physmap/f0000000/name", &b"vga.vram"[..])]).expect("it is right");
        let data = XenstoreData::parse(&pairs).expect("it is right");
        self.libxl_record(&LibxlRecord::EmulatorXenstoreData(Emulator::QEMU, data));
        self.libxl_record(&LibxlRecord::EmulatorContext(Emulator::QEMU, b"QEVM, as it were"))
    }

    /// The image.
    pub fn build(&self) -> Vec<u8> {
        self.bytes.clone()
    }
}

/// Valid images, by name.
pub fn images() -> Vec<(&'static str, Vec<u8>)> {
    let pv = |image: ImageBuilder, info| pv(image, info, Version::V3);
    let xl_pv = || ImageBuilder::xl("pv", DomainKind::X86Pv, Version::V3);
    vec![
        ("pv", pv(xl_pv(), PvInfo::Bits64)),
        ("pv32", pv(xl_pv(), PvInfo::Bits32)),
        ("hvm", hvm(true)),
        ("pvh", hvm(false)),
        ("remus", checkpointed(None)),
        ("colo", checkpointed(Some(CheckpointState::New))),
        ("verify", verify()),
        ("version 2", self::pv(ImageBuilder::libxc(DomainKind::X86Pv, Version::V2), PvInfo::Bits64, Version::V2)),
    ]
}

/// The images that Xen's tools write with `xl save`, by the type of the domain.
pub fn xl_images() -> Vec<(&'static str, Vec<u8>)> {
    images().into_iter().filter(|(name, _)| matches!(*name, "pv" | "pv32" | "hvm" | "pvh")).collect()
}

fn pv(mut image: ImageBuilder, info: PvInfo, version: Version) -> Vec<u8> {
    let has_libxl = image.bytes.starts_with(b"Xen");
    image.record(&info.to_record());
    if version == Version::V3 {
        image.static_data_end();
    }
    let frames = 0x400 / info.entries_per_frame() as usize;
    image.record(&p2m_frames_record(info, 0, 0x3FF, (0..frames).map(|at| Pfn(0x10 + at as u64))));
    image.pages(&[(0, PageType::Normal), (0x3FF, PageType::L4Pinned), (5, PageType::Invalid), (6, PageType::Broken)]);
    image.pv_state(info).mark(kind::END);
    if has_libxl {
        image.libxl_record(&LibxlRecord::End);
    }
    image.build()
}

fn hvm(device_model: bool) -> Vec<u8> {
    let config_type = if device_model { "hvm" } else { "pvh" };
    let mut image = ImageBuilder::xl(config_type, DomainKind::X86Hvm, Version::V3);
    image.static_data_end();
    image.pages(&[(0, PageType::Normal), (0xFEFFC, PageType::Normal), (0xA0, PageType::Invalid)]);
    image.hvm_state().mark(kind::END);
    if device_model {
        image.emulator();
    }
    image.libxl_record(&LibxlRecord::End).build()
}

/// Two checkpoints, and then the end; `between` is COLO's record.
fn checkpointed(between: Option<CheckpointState>) -> Vec<u8> {
    let mut image = ImageBuilder::libxl(DomainKind::X86Hvm, Version::V3);
    image.static_data_end();
    for pfn in [1, 2] {
        image.pages(&[(pfn, PageType::Normal)]).hvm_state().mark(kind::CHECKPOINT);
        image.emulator().libxl_record(&LibxlRecord::CheckpointEnd);
        if let Some(state) = between {
            image.libxl_record(&LibxlRecord::CheckpointState(state));
        }
    }
    image.mark(kind::END).libxl_record(&LibxlRecord::End).build()
}

fn verify() -> Vec<u8> {
    let mut image = ImageBuilder::libxc(DomainKind::X86Hvm, Version::V3);
    image.static_data_end().pages(&[(1, PageType::Normal)]).mark(kind::VERIFY).pages(&[(1, PageType::Normal)]);
    image.hvm_state().mark(kind::END).build()
}
