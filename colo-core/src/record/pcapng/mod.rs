//! As much of pcapng (draft-ietf-opsawg-pcapng) as a recording has, and as `colo why` wants of other programs' captures.
//!
//! A file is a row of blocks: `type, length, body, length`, all multiples of four bytes, in the byte order that the first block of its
//! section tells. Written is little-endian; read is either. Blocks and options that are not known are skipped, as the format wants it.

mod read;
mod write;

pub(super) use read::{Block, Blocks, Packet};
pub(super) use write::{write_interface, write_packet, write_section};

const SECTION_HEADER: u32 = 0x0A0D_0D0A;
const INTERFACE_DESCRIPTION: u32 = 1;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

const BYTE_ORDER_MAGIC: u32 = 0x1A2B_3C4D;
const MAJOR_VERSION: u16 = 1;
const LINKTYPE_ETHERNET: u16 = 1;

const OPTION_END: u16 = 0;
const OPTION_COMMENT: u16 = 1;
const SECTION_APPLICATION: u16 = 4;
const INTERFACE_NAME: u16 = 2;
const INTERFACE_RESOLUTION: u16 = 9;
const INTERFACE_TIME_OFFSET: u16 = 14;

/// Type, and the length twice.
const FRAMING_BYTES: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RecordError;
    use proptest::prelude::*;

    /// Reads everything, until the end or until something is wrong.
    fn read(bytes: &[u8]) -> (Vec<Block>, Option<RecordError>) {
        let mut blocks = Blocks::new(bytes);
        let mut read = Vec::new();
        loop {
            match blocks.next_block() {
                Ok(Some(block)) => read.push(block),
                Ok(None) => return (read, None),
                Err(error) => return (read, Some(error)),
            }
        }
    }

    fn header() -> Vec<u8> {
        let mut bytes = Vec::new();
        write_section(&mut bytes, "colo");
        write_interface(&mut bytes, "primary");
        write_interface(&mut bytes, "secondary");
        bytes
    }

    /// Byte by byte, as the draft draws it.
    #[test]
    fn blocks_look_as_in_the_draft() {
        let mut bytes = Vec::new();
        write_section(&mut bytes, "colo!");
        let section = [
            &[0x0A, 0x0D, 0x0D, 0x0A, 44, 0, 0, 0, 0x4D, 0x3C, 0x2B, 0x1A, 1, 0, 0, 0][..],
            &[0xFF; 8],
            &[4, 0, 5, 0, b'c', b'o', b'l', b'o', b'!', 0, 0, 0, 0, 0, 0, 0, 44, 0, 0, 0],
        ];
        assert_eq!(bytes, section.concat());
        bytes.clear();
        write_interface(&mut bytes, "eth0");
        let interface = [
            &[1, 0, 0, 0, 40, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0][..],
            &[2, 0, 4, 0, b'e', b't', b'h', b'0', 9, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0, 40, 0, 0, 0],
        ];
        assert_eq!(bytes, interface.concat());
        bytes.clear();
        write_packet(&mut bytes, 1, 0x0102_0304_0506_0708, &[0xAA; 5], "hi");
        let packet = [
            &[6, 0, 0, 0, 52, 0, 0, 0, 1, 0, 0, 0, 4, 3, 2, 1, 8, 7, 6, 5, 5, 0, 0, 0, 5, 0, 0, 0][..],
            &[0xAA, 0xAA, 0xAA, 0xAA, 0xAA, 0, 0, 0],
            &[1, 0, 2, 0, b'h', b'i', 0, 0, 0, 0, 0, 0, 52, 0, 0, 0],
        ];
        assert_eq!(bytes, packet.concat());
    }

    /// Blocks in a chosen byte order, with options that say other things than ours do.
    struct Other {
        big: bool,
        bytes: Vec<u8>,
    }

    impl Other {
        fn new(big: bool) -> Other {
            let mut other = Other { big, bytes: Vec::new() };
            let body = [other.u32(BYTE_ORDER_MAGIC), other.u16(1), other.u16(0), vec![0xFF; 8]].concat();
            other.block(SECTION_HEADER, &body);
            other
        }

        fn u16(&self, value: u16) -> Vec<u8> {
            if self.big { value.to_be_bytes() } else { value.to_le_bytes() }.to_vec()
        }

        fn u32(&self, value: u32) -> Vec<u8> {
            if self.big { value.to_be_bytes() } else { value.to_le_bytes() }.to_vec()
        }

        fn block(&mut self, kind: u32, body: &[u8]) {
            let length = self.u32((body.len() + FRAMING_BYTES) as u32);
            let block = [self.u32(kind), length.clone(), body.to_vec(), length].concat();
            self.bytes.extend(block);
        }

        fn interface(&mut self, options: &[(u16, &[u8])]) {
            let mut body = [self.u16(LINKTYPE_ETHERNET), self.u16(0), self.u32(96)].concat();
            for (code, value) in options {
                body.extend([self.u16(*code), self.u16(value.len() as u16), value.to_vec()].concat());
                body.resize(body.len().next_multiple_of(4), 0);
            }
            self.block(INTERFACE_DESCRIPTION, &body);
        }

        fn packet(&mut self, interface: u32, high: u32, low: u32, data: &[u8]) {
            let words = [interface, high, low, data.len() as u32, data.len() as u32];
            let mut body = words.map(|word| self.u32(word)).concat();
            body.extend_from_slice(data);
            body.resize(body.len().next_multiple_of(4), 0);
            self.block(ENHANCED_PACKET, &body);
        }
    }

    fn nanos(blocks: &[Block]) -> Vec<u64> {
        let packets = blocks.iter().filter_map(|block| match block {
            Block::Packet(packet) => Some(packet.nanos),
            _ => None,
        });
        packets.collect()
    }

    #[test]
    fn reads_both_byte_orders_and_what_it_need_not_know() {
        for big in [false, true] {
            let mut other = Other::new(big);
            let offset = if big { 7i64.to_be_bytes() } else { 7i64.to_le_bytes() };
            other.interface(&[(3, b"a description"), (INTERFACE_NAME, b"tap0"), (INTERFACE_TIME_OFFSET, &offset)]);
            other.block(5, &[0; 20]);
            other.interface(&[(INTERFACE_RESOLUTION, &[0x80 | 10])]);
            other.packet(0, 1, 5, b"abc");
            other.packet(1, 0, 1 << 9, b"");
            let length = other.u32(3);
            other.block(SIMPLE_PACKET, &[length, b"xyz\0".to_vec()].concat());
            let (blocks, error) = read(&other.bytes);
            assert!(error.is_none(), "{error:?}");
            let name = |name: Option<&str>| Block::Interface { name: name.map(str::to_owned) };
            assert_eq!(blocks[..3], [Block::Section, name(Some("tap0")), name(None)]);
            let packet = |interface, nanos, data: &[u8]| {
                Block::Packet(Packet { interface, nanos, data: data.to_vec(), comments: Vec::new() })
            };
            // Microseconds unless told otherwise, and seven seconds.
            let first = ((1u64 << 32) + 5) * 1000 + 7_000_000_000;
            assert_eq!(blocks[3..], [packet(0, first, b"abc"), packet(1, 500_000_000, b""), packet(0, 0, b"xyz")]);
        }
    }

    #[test]
    fn every_resolution_of_time_is_understood() {
        let read_one = |resolution: u8, high, low| {
            let mut other = Other::new(true);
            other.interface(&[(INTERFACE_RESOLUTION, &[resolution])]);
            other.packet(0, high, low, b"");
            nanos(&read(&other.bytes).0)[0]
        };
        assert_eq!(read_one(0, 0, 3), 3_000_000_000);
        assert_eq!(read_one(3, 0, 1500), 1_500_000_000);
        assert_eq!(read_one(9, 2, 1), (2 << 32) + 1);
        assert_eq!(read_one(12, 0, 3_000), 3);
        assert_eq!(read_one(0x7F, u32::MAX, u32::MAX), 0);
        assert_eq!(read_one(0x80, 0, 2), 2_000_000_000);
        assert_eq!(read_one(0xFF, u32::MAX, u32::MAX), 0);
        // More than there are nanoseconds in 64 bits: the last one.
        assert_eq!(read_one(0, u32::MAX, u32::MAX), u64::MAX);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let good = header();
        let complaint = |bytes: &[u8]| read(bytes).1.expect("something is wrong").to_string();
        assert_eq!(complaint(b""), "at byte 0: the file is empty");
        assert_eq!(complaint(b"GET / HTTP/1.1\r\n"), "at byte 0: this is no pcapng file");
        let pcap = "at byte 0: this is a pcap file, which cannot say which machine a frame is from; pcapng can";
        assert_eq!(complaint(&[0xD4, 0xC3, 0xB2, 0xA1, 2, 0, 4, 0]), pcap);
        assert_eq!(complaint(&[0xA1, 0xB2, 0x3C, 0x4D, 0, 2, 0, 4]), pcap);
        let changed = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            bytes
        };
        assert_eq!(complaint(&changed(8, 0)), "at byte 0: this is no pcapng file");
        assert_eq!(complaint(&changed(12, 2)), "at byte 0: version 2 of pcapng is not known");
        let first = u32::from_le_bytes(good[4..8].try_into().unwrap()) as usize;
        assert_eq!(complaint(&changed(4, 41)), "at byte 0: a block whose length cannot be");
        assert_eq!(complaint(&changed(first - 4, 0)), "at byte 0: a block whose two lengths differ");
        assert_eq!(complaint(&changed(first + 8, 101)), format!("at byte {first}: the link type is 101, not Ethernet"));
        assert_eq!(
            complaint(&changed(first + 7, 1)),
            format!("at byte {first}: a block of 16777260 bytes, but at most 1048576 are read")
        );
        let mut stray = Other::new(false);
        stray.packet(0, 0, 0, b"x");
        assert_eq!(complaint(&stray.bytes), "at byte 28: a packet of an interface that was not described");
        let mut lying = good.clone();
        let at = lying.len();
        write_packet(&mut lying, 0, 0, b"abcd", "");
        lying[at + 20] = 99;
        assert_eq!(complaint(&lying), format!("at byte {at}: a packet that is longer than its block"));
    }

    #[test]
    fn a_file_cut_anywhere_tells_where() {
        let mut bytes = header();
        let at = bytes.len();
        write_packet(&mut bytes, 0, 1, b"frame", "comment");
        for end in at + 1..bytes.len() {
            let (blocks, error) = read(&bytes[..end]);
            assert_eq!(blocks.len(), 3);
            assert_eq!(error.unwrap().to_string(), format!("at byte {at}: the file ends in the middle of a block"));
        }
        assert_eq!(read(&bytes[..at]).0.len(), 3);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            packets in prop::collection::vec(
                (0..2u32, any::<u64>(), prop::collection::vec(any::<u8>(), 0..70), "\\PC{0,40}"),
                0..8,
            ),
        ) {
            let mut bytes = header();
            for (interface, nanos, data, comment) in &packets {
                write_packet(&mut bytes, *interface, *nanos, data, comment);
            }
            let (blocks, error) = read(&bytes);
            prop_assert!(error.is_none());
            let expected: Vec<Block> = packets
                .into_iter()
                .map(|(interface, nanos, data, comment)| {
                    Block::Packet(Packet { interface, nanos, data, comments: vec![comment] })
                })
                .collect();
            prop_assert_eq!(&blocks[3..], expected);
        }

        #[test]
        fn arbitrary_bytes_are_no_danger(mut bytes in prop::collection::vec(any::<u8>(), 0..300), at: prop::sample::Index) {
            let _ = read(&bytes);
            if let Some(byte) = bytes.first().copied() {
                let mut good = header();
                write_packet(&mut good, 0, 1, &bytes, "comment");
                let at = at.index(good.len());
                good[at] = byte;
                let _ = read(&good);
                bytes.splice(0..0, header());
                let _ = read(&bytes);
            }
        }
    }
}
