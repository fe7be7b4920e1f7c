use super::abi::{BOOT_MAGIC, BootInfo, IMAGE_BASE, PAGE_BYTES, RAM_BASE};
use super::config::EmbeddedConfig;
use super::ram::GuestRam;
use super::registers::General;
use colo_core::domain::DomainError;

/// Memory that must be left above the program: for a stack, and a heap that is more than a name.
const MIN_FREE_BYTES: u64 = 1 << 20;
/// The most program headers: a linker makes a dozen.
const MAX_PROGRAM_HEADERS: u16 = 64;
/// Flags of a fresh processor: interrupts on, and the bit that is always 1.
const INITIAL_RFLAGS: u64 = 0x202;

// Fields of the ELF64 header and program header, by offset (System V ABI, chapters 4 and 5).
const EHDR_BYTES: usize = 64;
const PHDR_BYTES: usize = 56;
const ET_EXEC: u16 = 2;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;

/// Loads the guest program into fresh (zero) memory, tells it what it is, and returns the registers that it starts with.
///
/// # Errors
/// [`DomainError::BadSpec`] when `elf` is no static x86-64 program linked for `IMAGE_BASE`, or memory is too small for it.
pub(crate) fn load_program(ram: &GuestRam, elf: &[u8], config: &EmbeddedConfig) -> Result<General, DomainError> {
    let header = Header::parse(elf)?;
    let mut image_end = IMAGE_BASE;
    let mut entry_loaded = false;
    for index in 0..header.program_headers {
        let segment = Segment::parse(elf, header.program_header(index))?;
        match segment.kind {
            PT_LOAD => {
                image_end = image_end.max(segment.load(elf, ram)?);
                entry_loaded |= (segment.address..segment.address + segment.memory_bytes).contains(&header.entry);
            }
            PT_INTERP => return Err(bad("it wants a dynamic linker")),
            _ => (),
        }
    }
    if !entry_loaded {
        return Err(bad("its entry point lies outside it"));
    }
    write_boot_info(ram, config, image_end.next_multiple_of(PAGE_BYTES))?;
    Ok(General {
        rip: header.entry,
        rsp: RAM_BASE + ram.bytes() - 16,
        rdi: RAM_BASE,
        rflags: INITIAL_RFLAGS,
        ..General::default()
    })
}

struct Header {
    entry: u64,
    program_headers: u16,
    program_headers_at: u64,
}

impl Header {
    fn parse(elf: &[u8]) -> Result<Header, DomainError> {
        let header: &[u8; EHDR_BYTES] = elf.first_chunk().ok_or_else(|| bad("it is cut short"))?;
        // Magic, 64 bits, little-endian, version 1.
        if !header.starts_with(b"\x7fELF\x02\x01\x01") {
            return Err(bad("it is no 64-bit little-endian ELF file"));
        }
        if (u16_at(header, 16), u16_at(header, 18)) != (ET_EXEC, EM_X86_64) {
            return Err(bad("it is no static x86-64 executable"));
        }
        let program_headers = u16_at(header, 56);
        if usize::from(u16_at(header, 54)) != PHDR_BYTES || program_headers > MAX_PROGRAM_HEADERS {
            return Err(bad("its program headers are not of the usual form"));
        }
        Ok(Header { entry: u64_at(header, 24), program_headers, program_headers_at: u64_at(header, 32) })
    }

    fn program_header(&self, index: u16) -> u64 {
        self.program_headers_at.saturating_add(u64::from(index) * PHDR_BYTES as u64)
    }
}

struct Segment {
    kind: u32,
    file_offset: u64,
    file_bytes: u64,
    address: u64,
    memory_bytes: u64,
}

impl Segment {
    fn parse(elf: &[u8], at: u64) -> Result<Segment, DomainError> {
        let header = slice(elf, at, PHDR_BYTES as u64)?;
        Ok(Segment {
            kind: u32::from_le_bytes(std::array::from_fn(|i| header[i])),
            file_offset: u64_at(header, 8),
            address: u64_at(header, 16),
            file_bytes: u64_at(header, 32),
            memory_bytes: u64_at(header, 40),
        })
    }

    /// Copies the segment and returns its end; what is beyond the file's bytes is zero already.
    fn load(&self, elf: &[u8], ram: &GuestRam) -> Result<u64, DomainError> {
        let content = slice(elf, self.file_offset, self.file_bytes)?;
        let end = self.address.checked_add(self.memory_bytes).ok_or_else(|| bad("a segment without an end"))?;
        if self.address < IMAGE_BASE || self.memory_bytes < self.file_bytes {
            return Err(bad("a segment outside the place for programs"));
        }
        if end > RAM_BASE + ram.bytes() - MIN_FREE_BYTES || !ram.write_bytes(self.address - RAM_BASE, content) {
            return Err(bad("it does not fit into guest memory"));
        }
        Ok(end)
    }
}

fn write_boot_info(ram: &GuestRam, config: &EmbeddedConfig, heap_start: u64) -> Result<(), DomainError> {
    let [m0, m1, m2, m3, m4, m5] = config.mac.0;
    let info = BootInfo {
        magic: BOOT_MAGIC,
        ram_bytes: ram.bytes(),
        heap_start,
        seed: config.seed,
        mac: [m0, m1, m2, m3, m4, m5, 0, 0],
        ipv4: config.ipv4.octets(),
        gateway: config.gateway.octets(),
        prefix_len: config.prefix_len,
        reserved: 0,
        disk_bytes: config.disk_bytes,
    };
    if ram.write_bytes(0, &boot_info_bytes(&info)) { Ok(()) } else { Err(bad("guest memory has no room for it")) }
}

/// The structure's bytes in its C layout, which has no padding: four words of 8 bytes, then 8, 4, 4, 4, 4 and 8.
fn boot_info_bytes(info: &BootInfo) -> [u8; size_of::<BootInfo>()] {
    let parts: [&[u8]; 10] = [
        &info.magic.to_le_bytes(),
        &info.ram_bytes.to_le_bytes(),
        &info.heap_start.to_le_bytes(),
        &info.seed.to_le_bytes(),
        &info.mac,
        &info.ipv4,
        &info.gateway,
        &info.prefix_len.to_le_bytes(),
        &info.reserved.to_le_bytes(),
        &info.disk_bytes.to_le_bytes(),
    ];
    let mut bytes = [0; size_of::<BootInfo>()];
    let mut at = 0;
    for part in parts {
        bytes[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    bytes
}

fn slice(elf: &[u8], offset: u64, len: u64) -> Result<&[u8], DomainError> {
    let cut_short = || bad("it is cut short");
    let start = usize::try_from(offset).map_err(|_| cut_short())?;
    let end = start.checked_add(usize::try_from(len).map_err(|_| cut_short())?).ok_or_else(cut_short)?;
    elf.get(start..end).ok_or_else(cut_short)
}

fn bad(reason: &str) -> DomainError {
    DomainError::BadSpec(format!("the guest program: {reason}"))
}

/// The field at that offset of a header whose length has been checked.
fn u16_at(header: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes([header[offset], header[offset + 1]])
}

fn u64_at(header: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| header[offset + i]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RAM: u64 = 16 << 20;

    /// A program of one segment: `code`, and a page of zeroes after it.
    fn elf(code: &[u8]) -> Vec<u8> {
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(16, 0);
        elf.extend([ET_EXEC, EM_X86_64].iter().flat_map(|v| v.to_le_bytes()));
        elf.extend(1_u32.to_le_bytes());
        elf.extend([IMAGE_BASE, EHDR_BYTES as u64, 0].iter().flat_map(|v| v.to_le_bytes()));
        elf.extend(0_u32.to_le_bytes());
        elf.extend([EHDR_BYTES as u16, PHDR_BYTES as u16, 1, 64, 0, 0].iter().flat_map(|v| v.to_le_bytes()));
        elf.extend([PT_LOAD, 5].iter().flat_map(|v| v.to_le_bytes()));
        let len = code.len() as u64;
        let fields = [(EHDR_BYTES + PHDR_BYTES) as u64, IMAGE_BASE, IMAGE_BASE, len, len + PAGE_BYTES, PAGE_BYTES];
        elf.extend(fields.iter().flat_map(|v| v.to_le_bytes()));
        elf.extend(code);
        elf
    }

    #[test]
    fn loads_the_program_and_tells_it_what_it_is() {
        let ram = GuestRam::new(RAM).unwrap();
        let config = EmbeddedConfig { seed: 0x0102, disk_bytes: 0x30_0000, ..EmbeddedConfig::named("test") };
        let registers = load_program(&ram, &elf(b"code"), &config).unwrap();
        assert_eq!((registers.rip, registers.rdi, registers.rsp), (IMAGE_BASE, RAM_BASE, RAM_BASE + RAM - 16));
        let mut code = [0; 4];
        assert!(ram.read_bytes(IMAGE_BASE - RAM_BASE, &mut code));
        assert_eq!(&code, b"code");
        let mut info = [0; 64];
        assert!(ram.read_bytes(0, &mut info));
        assert_eq!(&info[..8], b"COLOBOOT");
        assert_eq!(u64_at(&info, 8), RAM);
        assert_eq!(u64_at(&info, 16), IMAGE_BASE + 2 * PAGE_BYTES);
        assert_eq!(u64_at(&info, 24), 0x0102);
        assert_eq!(info[32..48], [2, 0x43, 0x4f, 0x4c, 0x4f, 0x0a, 0, 0, 10, 77, 0, 10, 10, 77, 0, 1]);
        assert_eq!(info[48..56], [24, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(u64_at(&info, 56), 0x30_0000);
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(at in 0_usize..130, value: u8, cut in 0_usize..130, more: u64) {
            let ram = GuestRam::new(RAM).unwrap();
            let config = EmbeddedConfig::named("test");
            let whole = elf(b"some code");
            prop_assert!(load_program(&ram, &whole[..cut.min(whole.len() - 1)], &config).is_err(), "cut short");
            let mut spoilt = whole;
            if let Some(byte) = spoilt.get_mut(at) {
                *byte = value;
            }
            let _ = load_program(&ram, &spoilt, &config);
            if at + 8 <= spoilt.len() {
                spoilt[at..at + 8].copy_from_slice(&more.to_le_bytes());
            }
            let _ = load_program(&ram, &spoilt, &config);
        }
    }
}
