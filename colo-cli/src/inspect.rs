//! `colo inspect`: what is in an image, and whether it is a valid one.
//!
//! Nothing is printed of an image that is not valid, but for the records before the fault if records were asked for: one line on
//! stderr says where and what, and the exit code is 1.

use crate::args::InspectArgs;
use crate::source::{open, wrote};
use anyhow::{Context, Result};
use colo_core::ids::PAGE_SIZE;
use colo_core::stream::image::{ImageItem, ImageLimits, ImageReader, ImageSummary, PageTally};
use colo_core::stream::{Headers, PageType, Version};
use serde_json::{Value, json};
use std::io::{self, BufWriter, Read, Write};
use std::process::ExitCode;

pub(crate) fn run(args: &InspectArgs, json: bool) -> Result<ExitCode> {
    let name = args.file.display().to_string();
    let mut out = BufWriter::new(io::stdout().lock());
    let read = open(&args.file).and_then(|source| inspect(source, args.records, json, &name, &mut out));
    // What came before a fault is printed before it.
    let flushed = out.flush();
    match read {
        Ok(Told::All) => {
            wrote(flushed)?;
        }
        Ok(Told::NobodyListens) => {}
        Err(error) => return Err(error).context(name),
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether somebody read it all.
enum Told {
    All,
    NobodyListens,
}

fn inspect(source: impl Read, records: bool, json: bool, name: &str, out: &mut impl Write) -> Result<Told> {
    let mut reader = ImageReader::new(source, ImageLimits::strict());
    let mut summary = ImageSummary::default();
    while let Some(item) = reader.next_item()? {
        summary.add(&item);
        if records && !wrote(write_record(out, &item, json))? {
            return Ok(Told::NobodyListens);
        }
    }
    reader.check_end_of_source()?;
    let domain = Domain::of(&summary)?;
    if records {
        return Ok(Told::All);
    }
    let written = match json {
        true => writeln!(out, "{}", summary_json(&summary, domain.as_ref(), name)),
        false => write_summary(out, &summary, domain.as_ref(), name),
    };
    Ok(if wrote(written)? { Told::All } else { Told::NobodyListens })
}

/// One line: offset, length, layer, name, and what it says.
fn write_record(out: &mut impl Write, item: &ImageItem<'_>, json: bool) -> io::Result<()> {
    let (layer, name, gist) = (item.layer().name(), item.name(), item.event.to_string());
    if json {
        let value = json!({"offset": item.offset, "bytes": item.bytes, "layer": layer, "record": name, "gist": gist});
        return writeln!(out, "{value}");
    }
    let line = format!("{:>12} {:>8}  {layer:<5}  {name:<22}  {gist}", item.offset, item.bytes);
    writeln!(out, "{}", line.trim_end())
}

/// What the configuration says of the domain.
struct Domain {
    kind: Option<String>,
    name: Option<String>,
    uuid: Option<String>,
    memory_kib: Option<u64>,
    vcpus: Option<u64>,
}

impl Domain {
    /// `None` without a configuration, or with one that is a person's text, which xl alone reads.
    fn of(summary: &ImageSummary) -> Result<Option<Domain>> {
        let Some(config) = summary.config.as_deref().filter(|_| summary.config_is_json) else { return Ok(None) };
        let value: Value =
            serde_json::from_slice(config).context("at byte 0: the domain's configuration is no JSON")?;
        let text = |path: &str| value.pointer(path).and_then(Value::as_str).map(str::to_owned);
        let number = |path: &str| value.pointer(path).and_then(Value::as_u64);
        Ok(Some(Domain {
            kind: text("/c_info/type"),
            name: text("/c_info/name"),
            uuid: text("/c_info/uuid"),
            memory_kib: number("/b_info/max_memkb"),
            vcpus: number("/b_info/max_vcpus"),
        }))
    }
}

fn write_summary(out: &mut impl Write, summary: &ImageSummary, domain: Option<&Domain>, name: &str) -> io::Result<()> {
    writeln!(out, "{name}: valid, {} bytes", summary.bytes)?;
    if let Some(headers) = &summary.libxc {
        writeln!(out, "  machine   {}", machine(summary, headers))?;
    }
    if let Some(domain) = domain {
        // Names are the image's own, and a terminal obeys what it gets.
        let text = |text: &Option<String>| text.as_deref().unwrap_or("?").escape_debug().to_string();
        write!(out, "  domain    {}, {}, uuid {}", text(&domain.name), text(&domain.kind), text(&domain.uuid))?;
        domain.memory_kib.map_or(Ok(()), |kib| write!(out, ", {} MiB", kib / 1024))?;
        domain.vcpus.map_or(Ok(()), |vcpus| write!(out, ", {vcpus} vCPU{}", if vcpus == 1 { "" } else { "s" }))?;
        writeln!(out)?;
    }
    writeln!(out, "  layers    {}", layers(summary).join(", "))?;
    if summary.checkpoints > 0 {
        writeln!(out, "  checkpoints {}", summary.checkpoints)?;
    }
    let data = summary.pages_with_data();
    writeln!(out, "  pages     {data} with data, {:.1} MiB", (data * PAGE_SIZE as u64) as f64 / f64::from(1 << 20))?;
    for (page_type, PageTally { count, lowest, highest }) in summary.pages() {
        writeln!(out, "    {:<12} {count:>10}  from {lowest:#x} to {highest:#x}", page_name(page_type))?;
    }
    writeln!(out, "  records")?;
    for ((layer, name), tally) in &summary.tallies {
        writeln!(out, "    {:<5} {name:<24} {:>8} {:>16} bytes", layer.name(), tally.count, tally.bytes)?;
    }
    Ok(())
}

fn machine(summary: &ImageSummary, headers: &Headers) -> String {
    let mut text = headers.domain.kind.to_string();
    if let Some(info) = summary.pv_info {
        text += &format!(", {} bits", info.width_bytes() * 8);
    }
    match (headers.domain.xen_major, headers.domain.xen_minor) {
        (0, _) => text + ", made from a legacy image",
        (major, minor) => format!("{text}, written by {} {major}.{minor}", writer(headers)),
    }
}

fn writer(headers: &Headers) -> &'static str {
    if headers.domain.kind == colo_core::stream::DomainKind::Embedded { "colo's embedded hypervisor" } else { "Xen" }
}

fn layers(summary: &ImageSummary) -> Vec<String> {
    let mut layers = Vec::new();
    if summary.is_xl {
        layers.push("xl".to_owned());
    }
    if summary.libxl.is_some() {
        layers.push("libxl version 2".to_owned());
    }
    if let Some(headers) = &summary.libxc {
        layers.push(format!("libxc version {}", version(headers)));
    }
    layers
}

fn version(headers: &Headers) -> u32 {
    match headers.image.version {
        Version::V2 => 2,
        Version::V3 => 3,
    }
}

fn summary_json(summary: &ImageSummary, domain: Option<&Domain>, name: &str) -> Value {
    let page = |(page_type, tally): (PageType, PageTally)| {
        let value = json!({"count": tally.count, "lowest": tally.lowest, "highest": tally.highest});
        (page_name(page_type).to_owned(), value)
    };
    let records = |((layer, name), tally): (&(colo_core::stream::image::Layer, &str), &_)| {
        let tally: &colo_core::stream::image::Tally = tally;
        json!({"layer": layer.name(), "record": name, "count": tally.count, "bytes": tally.bytes})
    };
    json!({
        "file": name,
        "valid": true,
        "bytes": summary.bytes,
        "xl": summary.is_xl,
        "libxl_version": summary.libxl.map(|_| 2),
        "libxc_version": summary.libxc.as_ref().map(version),
        "machine": summary.libxc.map(|headers| headers.domain.kind.to_string()),
        "bits": summary.pv_info.map(|info| info.width_bytes() * 8),
        "written_by": summary.libxc.map(|headers| {
            json!({"major": headers.domain.xen_major, "minor": headers.domain.xen_minor, "writer": writer(&headers)})
        }),
        "domain": domain.map(|domain| json!({
            "type": domain.kind, "name": domain.name, "uuid": domain.uuid, "memory_kib": domain.memory_kib,
            "vcpus": domain.vcpus,
        })),
        "checkpoints": summary.checkpoints,
        "pages_with_data": summary.pages_with_data(),
        "pages": summary.pages().map(page).collect::<serde_json::Map<_, _>>(),
        "records": summary.tallies.iter().map(records).collect::<Vec<_>>(),
    })
}

fn page_name(page_type: PageType) -> &'static str {
    match page_type {
        PageType::Normal => "normal",
        PageType::L1 => "l1",
        PageType::L2 => "l2",
        PageType::L3 => "l3",
        PageType::L4 => "l4",
        PageType::L1Pinned => "l1-pinned",
        PageType::L2Pinned => "l2-pinned",
        PageType::L3Pinned => "l3-pinned",
        PageType::L4Pinned => "l4-pinned",
        PageType::Broken => "broken",
        PageType::AllocateOnly => "allocate-only",
        PageType::Invalid => "invalid",
    }
}
