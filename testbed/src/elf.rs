//! As much of ELF (64 bit, little-endian; System V ABI, chapters 4 and 5) as an image's making needs: which libraries a program wants,
//! and what a section holds.

use anyhow::{Context, Result, bail};

const MAGIC: [u8; 4] = *b"\x7fELF";
/// 64 bit, little-endian.
const CLASS_AND_ORDER: [u8; 2] = [2, 1];
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const PROGRAM_HEADER_BYTES: usize = 56;
const SECTION_HEADER_BYTES: usize = 64;

/// An ELF file in memory.
#[derive(Clone, Copy)]
pub(crate) struct Elf<'a>(&'a [u8]);

impl<'a> Elf<'a> {
    /// `None` if these bytes are no ELF file at all: a script, say.
    pub(crate) fn of(bytes: &'a [u8]) -> Result<Option<Elf<'a>>> {
        if !bytes.starts_with(&MAGIC) {
            return Ok(None);
        }
        if bytes.get(4..6) != Some(&CLASS_AND_ORDER) {
            bail!("an ELF file, but not of 64 bit and little-endian");
        }
        Ok(Some(Elf(bytes)))
    }

    /// The names of the libraries that must be loaded with it.
    pub(crate) fn needed(self) -> Result<Vec<String>> {
        let headers = self.program_headers()?;
        let Some(dynamic) = headers.iter().find(|header| header.kind == PT_DYNAMIC) else { return Ok(Vec::new()) };
        let dynamic = self.bytes(dynamic.offset, dynamic.size)?;
        let mut names = Vec::new();
        let mut strings = None;
        for entry in dynamic.chunks_exact(16) {
            let (tag, value) = (u64_at(entry, 0)?, u64_at(entry, 8)?);
            match tag {
                DT_NULL => break,
                DT_NEEDED => names.push(value),
                DT_STRTAB => strings = Some(value),
                _ => (),
            }
        }
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let address = strings.context("libraries without names")?;
        // The address is one in memory; a segment says where it lies in the file.
        let strings = headers
            .iter()
            .filter(|header| header.kind == PT_LOAD)
            .find_map(|header| {
                let within = address.checked_sub(header.address).filter(|within| *within < header.size)?;
                header.offset.checked_add(within)
            })
            .context("the names of the libraries lie outside of the file")?;
        names
            .into_iter()
            .map(|name| self.text(strings.checked_add(name).context("a name beyond all bounds")?))
            .collect()
    }

    /// What the section with this name holds.
    pub(crate) fn section(self, name: &str) -> Result<Option<&'a [u8]>> {
        let table = u64_at(self.0, 40)?;
        let (count, names) = (u64::from(u16_at(self.0, 60)?), u64::from(u16_at(self.0, 62)?));
        let header = |index: u64| {
            let place = index.checked_mul(SECTION_HEADER_BYTES as u64).and_then(|within| table.checked_add(within));
            self.bytes(place.context("a section beyond all bounds")?, SECTION_HEADER_BYTES as u64)
        };
        if names >= count {
            bail!("sections without names");
        }
        let names = u64_at(header(names)?, 24)?;
        for index in 0..count {
            let header = header(index)?;
            let at = names.checked_add(u64::from(u32_at(header, 0)?)).context("a name beyond all bounds")?;
            if self.text(at)? == name {
                return self.bytes(u64_at(header, 24)?, u64_at(header, 32)?).map(Some);
            }
        }
        Ok(None)
    }

    fn program_headers(self) -> Result<Vec<ProgramHeader>> {
        let (table, count) = (u64_at(self.0, 32)?, usize::from(u16_at(self.0, 56)?));
        let table = self.bytes(table, (count * PROGRAM_HEADER_BYTES) as u64)?;
        table
            .chunks_exact(PROGRAM_HEADER_BYTES)
            .map(|header| {
                Ok(ProgramHeader {
                    kind: u32_at(header, 0)?,
                    offset: u64_at(header, 8)?,
                    address: u64_at(header, 16)?,
                    size: u64_at(header, 32)?,
                })
            })
            .collect()
    }

    fn bytes(self, offset: u64, size: u64) -> Result<&'a [u8]> {
        let start = usize::try_from(offset)?;
        let end = start.checked_add(usize::try_from(size)?);
        end.and_then(|end| self.0.get(start..end)).context("an ELF file that is cut short")
    }

    fn text(self, offset: u64) -> Result<String> {
        let bytes = self.0.get(usize::try_from(offset)?..).context("a name outside of the file")?;
        let end = bytes.iter().position(|byte| *byte == 0).context("a name without an end")?;
        Ok(std::str::from_utf8(&bytes[..end])?.to_owned())
    }
}

struct ProgramHeader {
    kind: u32,
    offset: u64,
    address: u64,
    /// In the file.
    size: u64,
}

fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> Result<[u8; N]> {
    let found = bytes.get(offset..).and_then(|rest| rest.first_chunk());
    found.copied().context("an ELF file that is cut short")
}

fn u16_at(bytes: &[u8], offset: usize) -> Result<u16> {
    Ok(u16::from_le_bytes(array_at(bytes, offset)?))
}

fn u32_at(bytes: &[u8], offset: usize) -> Result<u32> {
    Ok(u32::from_le_bytes(array_at(bytes, offset)?))
}

fn u64_at(bytes: &[u8], offset: usize) -> Result<u64> {
    Ok(u64::from_le_bytes(array_at(bytes, offset)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn own_program() -> Vec<u8> {
        std::fs::read(std::env::current_exe().unwrap()).unwrap()
    }

    #[test]
    fn this_test_needs_the_c_library() {
        let program = own_program();
        let elf = Elf::of(&program).unwrap().unwrap();
        assert!(elf.needed().unwrap().contains(&"libc.so.6".to_owned()));
        assert_eq!(elf.section(".interp").unwrap().unwrap(), b"/lib64/ld-linux-x86-64.so.2\0");
        assert!(elf.section(".no-such-section").unwrap().is_none());
    }

    #[test]
    fn a_script_is_none_and_32_bits_are_an_error() {
        assert!(Elf::of(b"#!/bin/sh\n").unwrap().is_none());
        assert!(Elf::of(b"\x7fELF\x01\x01").is_err());
        assert!(Elf::of(b"\x7fELF").is_err());
    }

    #[test]
    fn cut_short_anywhere_in_its_headers_it_is_an_error() {
        let program = own_program();
        for length in (6..64).chain([64, 100, 1000]) {
            let elf = Elf::of(&program[..length]).unwrap().unwrap();
            assert!(elf.needed().is_err(), "{length}");
            assert!(elf.section(".interp").is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(changes in prop::collection::vec((0..4096_usize, any::<u8>()), 1..20)) {
            let mut program = own_program();
            program.truncate(1 << 16);
            for (offset, value) in changes {
                program[offset] = value;
            }
            if let Ok(Some(elf)) = Elf::of(&program) {
                let _ = (elf.needed(), elf.section(".interp"));
            }
        }
    }
}
