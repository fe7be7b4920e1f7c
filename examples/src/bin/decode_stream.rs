//! Prints a migration stream record by record: a file's, or one of a machine that is made on the spot.
//!
//! `cargo run -p colo-examples --bin decode_stream [FILE [PAGES]]`
//!
//! The file is a stream as libxc writes it, without the toolstack's around it; PAGES is the domain's memory. `colo inspect` reads
//! the toolstack's too.

use anyhow::{Context, Result};
use colo_core::domain::model::ModelDomain;
use colo_core::save::{PlainSave, SaveConfig, SaveLoop, Step};
use colo_core::stream::{Limits, MAX_PFN_LIMIT, RecordReader, RecordRef, kind};
use std::fs::File;
use std::io::{BufReader, Read};
use std::time::Instant;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let Some(path) = arguments.next() else {
        return decode(image_of_a_machine()?.as_slice(), 64);
    };
    let pages = arguments.next().map_or(Ok(MAX_PFN_LIMIT), |pages| pages.parse()).context("PAGES is no number")?;
    let file = File::open(&path).with_context(|| path.clone())?;
    decode(BufReader::new(file), pages).with_context(|| path)
}

fn decode(source: impl Read, pfn_limit: u64) -> Result<()> {
    let mut reader = RecordReader::new(source, Limits::new(pfn_limit));
    let headers = reader.read_headers()?;
    println!("{:>8}  version {:?}, machine {:?}", 0, headers.image.version, headers.domain.kind);
    loop {
        let offset = reader.offset();
        let Some(record) = reader.next_record()? else { return Ok(()) };
        println!("{offset:>8}  {}{}", kind::name(record.kind()), details(&record));
    }
}

fn details(record: &RecordRef<'_>) -> String {
    match record {
        RecordRef::PageData(pages) => {
            let first = pages.pages().next().map(|page| format!(", from {}", page.pfn)).unwrap_or_default();
            format!(": {} pages{first}", pages.page_count())
        }
        RecordRef::DirtyPfnList(pages) => format!(": {} pages", pages.iter().len()),
        RecordRef::State { body, .. } | RecordRef::Own { body, .. } => format!(": {} bytes", body.len()),
        _ => String::new(),
    }
}

fn image_of_a_machine() -> Result<Vec<u8>> {
    let mut machine = ModelDomain::new("demo", 64);
    machine.store(5000, b"hello");
    let mut image = Vec::new();
    let mut save = SaveLoop::new(SaveConfig::default());
    while !matches!(save.step(Instant::now(), &mut machine, &mut PlainSave::default(), &mut image)?, Step::Done) {}
    Ok(image)
}
