//! What an event says, in a few words.

use super::{ImageEvent, ImageItem, Layer};
use crate::stream::libxl::{self, Emulator, EmulatorId, LibxlRecord};
use crate::stream::{DomainKind, PageData, RecordRef, StateRef, VcpuPart, Version, kind};
use std::fmt;

impl ImageItem<'_> {
    /// Which layer it belongs to.
    pub fn layer(&self) -> Layer {
        match self.event {
            ImageEvent::XlHeader(_) => Layer::Xl,
            ImageEvent::LibxlHeader(_) | ImageEvent::Libxl(_) => Layer::Libxl,
            ImageEvent::LibxcHeaders(_) | ImageEvent::Libxc { .. } => Layer::Libxc,
        }
    }

    /// Its name: of a record, that of its type in the specification.
    pub fn name(&self) -> &'static str {
        match self.event {
            ImageEvent::XlHeader(_) | ImageEvent::LibxlHeader(_) => "header",
            ImageEvent::LibxcHeaders(_) => "headers",
            ImageEvent::Libxl(record) => libxl::kind::name(record.kind()),
            ImageEvent::Libxc { record, .. } => kind::name(record.kind()),
        }
    }
}

/// A few words on what an event says; none where its name says it all.
impl fmt::Display for ImageEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageEvent::XlHeader(header) => match header.config {
                Some(config) if header.is_json => write!(f, "configuration of {} bytes, JSON", config.len()),
                Some(config) => write!(f, "configuration of {} bytes, text", config.len()),
                None => write!(f, "no configuration"),
            },
            ImageEvent::LibxlHeader(header) => {
                write!(f, "version 2{}", if header.legacy { ", made from a legacy image" } else { "" })
            }
            ImageEvent::Libxl(record) => libxl_gist(f, record),
            ImageEvent::LibxcHeaders(headers) => {
                let version = match headers.image.version {
                    Version::V2 => 2,
                    Version::V3 => 3,
                };
                write!(f, "version {version}, {}", headers.domain.kind)?;
                match (headers.domain.xen_major, headers.domain.xen_minor) {
                    (0, _) => write!(f, ", made from a legacy image"),
                    _ if headers.domain.kind == DomainKind::Embedded => Ok(()),
                    (major, minor) => write!(f, ", Xen {major}.{minor}"),
                }
            }
            ImageEvent::Libxc { state: Some(state), .. } => state_gist(f, state),
            ImageEvent::Libxc { record, state: None } => match record {
                RecordRef::PageData(pages) => pages_gist(f, pages),
                RecordRef::DirtyPfnList(pages) => write!(f, "{} pages", pages.iter().len()),
                RecordRef::State { body, .. } | RecordRef::Own { body, .. } => write!(f, "{} bytes", body.len()),
                RecordRef::Skipped { kind } => write!(f, "type {kind:#x}"),
                _ => Ok(()),
            },
        }
    }
}

/// The kind of machine, for people.
impl fmt::Display for DomainKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DomainKind::X86Pv => "x86 PV",
            DomainKind::X86Hvm => "x86 HVM",
            DomainKind::Embedded => "embedded",
        })
    }
}

fn libxl_gist(f: &mut fmt::Formatter<'_>, record: &LibxlRecord<'_>) -> fmt::Result {
    let name = |emulator: &Emulator| match emulator.id {
        EmulatorId::Unknown => "unknown emulator",
        EmulatorId::QemuTraditional => "traditional QEMU",
        EmulatorId::QemuUpstream => "QEMU",
    };
    match record {
        LibxlRecord::EmulatorXenstoreData(emulator, data) => {
            write!(f, "{} {}: {} keys", name(emulator), emulator.index, data.entries().count())
        }
        LibxlRecord::EmulatorContext(emulator, context) => {
            write!(f, "{} {}: {} bytes", name(emulator), emulator.index, context.len())
        }
        LibxlRecord::CheckpointState(state) => write!(f, "{state:?}"),
        LibxlRecord::End | LibxlRecord::LibxcContext | LibxlRecord::CheckpointEnd => Ok(()),
    }
}

fn pages_gist(f: &mut fmt::Formatter<'_>, pages: &PageData<'_>) -> fmt::Result {
    let (mut lowest, mut highest, mut with_data) = (u64::MAX, 0, 0);
    for page in pages.pages() {
        lowest = lowest.min(page.pfn.0);
        highest = highest.max(page.pfn.0);
        with_data += u64::from(page.data.is_some());
    }
    write!(f, "{} pages, {with_data} with data, from {lowest:#x} to {highest:#x}", pages.page_count())
}

fn state_gist(f: &mut fmt::Formatter<'_>, state: &StateRef<'_>) -> fmt::Result {
    match state {
        StateRef::PvInfo(info) => write!(f, "{} bits, {} levels", info.width_bytes() * 8, info.levels()),
        StateRef::P2mFrames(frames) => {
            let (start, end) = (frames.start().0, frames.end().0);
            write!(f, "pages {start:#x} to {end:#x} in {} frames", frames.frames().len())
        }
        StateRef::Vcpu(blob) => {
            write!(f, "vCPU {}: ", blob.vcpu)?;
            match blob.part {
                VcpuPart::Msrs => write!(f, "{} registers", blob.context.len() / crate::stream::MsrEntry::BYTES),
                _ => write!(f, "{} bytes", blob.context.len()),
            }
        }
        StateRef::SharedInfo(page) => write!(f, "{} bytes", page.len()),
        StateRef::Tsc(tsc) => {
            write!(f, "mode {}, {} kHz, {} ns, incarnation {}", tsc.mode, tsc.khz, tsc.nsec, tsc.incarnation)
        }
        StateRef::HvmContext(context) => {
            let mut entries = context.entries().map(|entry| (entry.name(), entry.instance)).peekable();
            let mut first = true;
            while let Some((name, instance)) = entries.next() {
                // Several of a kind, one after the other, are said as one.
                let mut last = instance;
                while let Some((_, next)) = entries.next_if(|next| next.0 == name) {
                    last = next;
                }
                write!(f, "{}{name}", if first { "" } else { " " })?;
                if last != instance {
                    write!(f, "[{instance}..{last}]")?;
                }
                first = false;
            }
            Ok(())
        }
        StateRef::HvmParams(params) => {
            for (index, param) in params.iter().enumerate() {
                let space = if index == 0 { "" } else { " " };
                match param.name() {
                    "unknown" => write!(f, "{space}{}={:#x}", param.index, param.value)?,
                    name => write!(f, "{space}{name}={:#x}", param.value)?,
                }
            }
            Ok(())
        }
        StateRef::CpuidPolicy(policy) => write!(f, "{} leaves", policy.leaves().len()),
        StateRef::MsrPolicy(policy) => write!(f, "{} registers", policy.entries().len()),
    }
}
