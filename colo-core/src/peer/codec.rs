//! What is inside each message. Fields stand in the order of [`Message`]'s, little-endian; counts and lengths are `u32`, lengths
//! of text `u16`.

use super::frame::{
    DISK_WRITE_HEAD_BYTES, HASHED_BYTES, MAX_DISK_HASHES, MAX_FACT_BYTES, MAX_FACT_NAME_BYTES, MAX_FACTS,
    MAX_MESSAGE_FRAME_BYTES, MAX_MESSAGE_FRAMES, MAX_RELEASED, MAX_TEXT_BYTES, MessageKind,
};
use super::wire::{
    ADDRESS_BYTES, FRAME_OVERHEAD_BYTES, Fields, PayloadError, check_limit, put_address, put_frame, put_text,
};
use super::{Channel, Facts, GoodbyeReason, Hello, Message, Mode, NetFrame};
use crate::disk::MAX_DISKS;
use crate::domain::{DiskSpec, DomainSpec, NicSpec};
use crate::ids::Epoch;
use bytes::Bytes;
use zerocopy::FromBytes;
use zerocopy::byteorder::little_endian::U64;

/// The longest specification, and so the longest `Inquiry`.
pub(super) const MAX_SPEC_BYTES: usize = (2 + DomainSpec::MAX_NAME_BYTES)
    + (2 + DomainSpec::MAX_HYPERVISOR_BYTES)
    + 8
    + (4 + DomainSpec::MAX_NICS * ADDRESS_BYTES)
    + (4 + MAX_DISKS * size_of::<u64>())
    + (4 + DomainSpec::MAX_CONFIG_BYTES);

/// The longest `Hello`.
pub(super) const MAX_HELLO_BYTES: usize = 1 + 8 + 1 + 4 + 1 + MAX_SPEC_BYTES;

/// The longest `Facts`.
pub(super) const MAX_FACTS_BYTES: usize = 8 + 4 + MAX_FACTS * (2 + MAX_FACT_NAME_BYTES + 2 + MAX_FACT_BYTES);

type Result<T> = std::result::Result<T, PayloadError>;

impl Message {
    /// Its kind.
    pub fn kind(&self) -> MessageKind {
        match self {
            Message::Hello(_) => MessageKind::Hello,
            Message::Welcome => MessageKind::Welcome,
            Message::Refused(_) => MessageKind::Refused,
            Message::Inquiry(_) => MessageKind::Inquiry,
            Message::Facts(_) => MessageKind::Facts,
            Message::Stream(_) => MessageKind::Stream,
            Message::EpochEnd { .. } => MessageKind::EpochEnd,
            Message::EpochStaged(_) => MessageKind::EpochStaged,
            Message::EpochApplied(_) => MessageKind::EpochApplied,
            Message::Likeness(_) => MessageKind::Likeness,
            Message::CheckpointWanted => MessageKind::CheckpointWanted,
            Message::Input { .. } => MessageKind::Input,
            Message::Output { .. } => MessageKind::Output,
            Message::Released { .. } => MessageKind::Released,
            Message::HeldReleased(_) => MessageKind::HeldReleased,
            Message::Heartbeat { .. } => MessageKind::Heartbeat,
            Message::DiskWrite { .. } => MessageKind::DiskWrite,
            Message::DiskZeroes { .. } => MessageKind::DiskZeroes,
            Message::DiskBarrier { .. } => MessageKind::DiskBarrier,
            Message::DiskFlush { .. } => MessageKind::DiskFlush,
            Message::DiskFlushed { .. } => MessageKind::DiskFlushed,
            Message::DiskHashesWanted { .. } => MessageKind::DiskHashesWanted,
            Message::DiskHashes { .. } => MessageKind::DiskHashes,
            Message::DiskShared { .. } => MessageKind::DiskShared,
            Message::DiskBefore { .. } => MessageKind::DiskBefore,
            Message::DiskBeforeZeroes { .. } => MessageKind::DiskBeforeZeroes,
            Message::DiskSame { .. } => MessageKind::DiskSame,
            Message::Goodbye(_) => MessageKind::Goodbye,
        }
    }
}

/// Appends a message's payload.
pub(super) fn encode_payload(message: &Message, out: &mut Vec<u8>) -> Result<()> {
    match message {
        Message::Hello(hello) => put_hello(out, hello)?,
        Message::Welcome | Message::CheckpointWanted => {}
        Message::Refused(text) => put_text(out, "reason", MAX_TEXT_BYTES, cut_off(text))?,
        Message::Inquiry(spec) => put_spec(out, spec)?,
        Message::Facts(facts) => put_facts(out, facts)?,
        Message::Stream(bytes) | Message::Likeness(bytes) => out.extend_from_slice(bytes),
        Message::EpochEnd { epoch, stream_bytes, crc } => {
            put_u64(out, epoch.0);
            put_u64(out, *stream_bytes);
            put_u32(out, *crc);
        }
        Message::EpochStaged(epoch) | Message::EpochApplied(epoch) | Message::HeldReleased(epoch) => {
            put_u64(out, epoch.0);
        }
        Message::Input { epoch, again, frames } => {
            put_u64(out, epoch.0);
            out.push(u8::from(*again));
            put_frames(out, frames)?;
        }
        Message::Output { epoch, first, frames } => {
            put_u64(out, epoch.0);
            put_u64(out, *first);
            put_frames(out, frames)?;
        }
        Message::Released { epoch, numbers } => {
            put_u64(out, epoch.0);
            check_limit("released frames", MAX_RELEASED, numbers.len())?;
            put_u32(out, numbers.len() as u32);
            out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        }
        Message::Heartbeat { number } | Message::DiskFlushed { number } => put_u64(out, *number),
        Message::DiskWrite { disk, offset, data } | Message::DiskBefore { disk, offset, data } => {
            out.extend(disk_write_head(*disk, *offset));
            out.extend_from_slice(data);
        }
        Message::DiskZeroes { disk, offset, length, may_unmap } => {
            out.push(*disk);
            put_u64(out, *offset);
            put_u64(out, *length);
            out.push(u8::from(*may_unmap));
        }
        Message::DiskBarrier { epoch: Epoch(number), is_durable } | Message::DiskFlush { number, is_durable } => {
            put_u64(out, *number);
            out.push(u8::from(*is_durable));
        }
        Message::DiskHashesWanted { disk, offset, length, seed } => {
            out.push(*disk);
            put_u64(out, *offset);
            put_u32(out, *length);
            put_u64(out, *seed);
        }
        Message::DiskHashes { disk, offset, hashes } => {
            out.push(*disk);
            put_u64(out, *offset);
            check_limit("hashes", MAX_DISK_HASHES, hashes.len())?;
            put_u32(out, hashes.len() as u32);
            out.extend(hashes.iter().flat_map(|hash| hash.to_le_bytes()));
        }
        Message::DiskShared { sizes } => {
            check_limit("disks", MAX_DISKS, sizes.len())?;
            put_u32(out, sizes.len() as u32);
            sizes.iter().for_each(|size| put_u64(out, *size));
        }
        Message::DiskBeforeZeroes { disk, offset, length } => {
            out.push(*disk);
            put_u64(out, *offset);
            put_u64(out, *length);
        }
        Message::DiskSame { disk, offset, length, seed, hash } => {
            out.push(*disk);
            put_u64(out, *offset);
            put_u32(out, *length);
            put_u64(out, *seed);
            out.extend_from_slice(&hash.to_le_bytes());
        }
        Message::Goodbye(reason) => put_goodbye(out, reason)?,
    }
    Ok(())
}

/// Reads a payload. Frames and stream records are slices of it, not copies.
pub(super) fn decode_payload(kind: MessageKind, payload: &Bytes) -> Result<Message> {
    match kind {
        MessageKind::Stream => return Ok(Message::Stream(payload.clone())),
        MessageKind::Likeness => return Ok(Message::Likeness(payload.clone())),
        _ => {}
    }
    let mut fields = Fields::new(payload);
    let message = decode_fields(kind, payload, &mut fields)?;
    fields.end()?;
    Ok(message)
}

fn decode_fields(kind: MessageKind, payload: &Bytes, fields: &mut Fields<'_>) -> Result<Message> {
    Ok(match kind {
        MessageKind::Hello => Message::Hello(get_hello(fields)?),
        MessageKind::Welcome => Message::Welcome,
        MessageKind::Refused => Message::Refused(fields.text("reason", MAX_TEXT_BYTES)?),
        MessageKind::Inquiry => Message::Inquiry(get_spec(fields)?),
        MessageKind::Facts => Message::Facts(get_facts(fields)?),
        MessageKind::Stream => Message::Stream(payload.clone()),
        MessageKind::Likeness => Message::Likeness(payload.clone()),
        MessageKind::EpochEnd => Message::EpochEnd {
            epoch: get_epoch(fields)?,
            stream_bytes: fields.u64("length of the stream")?,
            crc: fields.u32("checksum")?,
        },
        MessageKind::EpochStaged => Message::EpochStaged(get_epoch(fields)?),
        MessageKind::EpochApplied => Message::EpochApplied(get_epoch(fields)?),
        MessageKind::CheckpointWanted => Message::CheckpointWanted,
        MessageKind::Input => Message::Input {
            epoch: get_epoch(fields)?,
            again: get_flag(fields, "again")?,
            frames: get_frames(fields, payload)?,
        },
        MessageKind::Output => {
            let (epoch, first) = (get_epoch(fields)?, fields.u64("first number")?);
            let frames = get_frames(fields, payload)?;
            // Each has a number.
            match first.checked_add(frames.len() as u64) {
                Some(_) => Message::Output { epoch, first, frames },
                None => return Err(PayloadError::BadValue { what: "first number", got: first }),
            }
        }
        MessageKind::Released => Message::Released { epoch: get_epoch(fields)?, numbers: get_numbers(fields)? },
        MessageKind::HeldReleased => Message::HeldReleased(get_epoch(fields)?),
        MessageKind::DiskWrite => Message::DiskWrite {
            disk: get_disk(fields)?,
            offset: fields.u64("offset")?,
            data: fields.rest(payload).into(),
        },
        MessageKind::DiskZeroes => Message::DiskZeroes {
            disk: get_disk(fields)?,
            offset: fields.u64("offset")?,
            length: fields.u64("length")?,
            may_unmap: get_flag(fields, "discard")?,
        },
        MessageKind::DiskBarrier => {
            Message::DiskBarrier { epoch: get_epoch(fields)?, is_durable: get_flag(fields, "durable")? }
        }
        MessageKind::DiskFlush => {
            Message::DiskFlush { number: fields.u64("number")?, is_durable: get_flag(fields, "durable")? }
        }
        MessageKind::DiskFlushed => Message::DiskFlushed { number: fields.u64("number")? },
        MessageKind::DiskHashesWanted => Message::DiskHashesWanted {
            disk: get_disk(fields)?,
            offset: fields.u64("offset")?,
            length: get_hashed_bytes(fields)?,
            seed: fields.u64("seed")?,
        },
        MessageKind::DiskHashes => {
            let (disk, offset) = (get_disk(fields)?, fields.u64("offset")?);
            let count = fields.count("hashes", MAX_DISK_HASHES, size_of::<u128>())?;
            let bytes = fields.bytes("hashes", count * size_of::<u128>())?;
            let hashes = bytes.chunks_exact(size_of::<u128>());
            Message::DiskHashes { disk, offset, hashes: hashes.map(hash_of_bytes).collect() }
        }
        MessageKind::DiskShared => {
            let count = fields.count("disks", MAX_DISKS, size_of::<u64>())?;
            let size = |_| fields.u64("size of a disk");
            Message::DiskShared { sizes: (0..count).map(size).collect::<Result<_>>()? }
        }
        MessageKind::DiskBefore => Message::DiskBefore {
            disk: get_disk(fields)?,
            offset: fields.u64("offset")?,
            data: fields.rest(payload).into(),
        },
        MessageKind::DiskBeforeZeroes => Message::DiskBeforeZeroes {
            disk: get_disk(fields)?,
            offset: fields.u64("offset")?,
            length: fields.u64("length")?,
        },
        MessageKind::DiskSame => Message::DiskSame {
            disk: get_disk(fields)?,
            offset: fields.u64("offset")?,
            length: get_hashed_bytes(fields)?,
            seed: fields.u64("seed")?,
            hash: hash_of_bytes(fields.bytes("hash", size_of::<u128>())?),
        },
        MessageKind::Heartbeat => Message::Heartbeat { number: fields.u64("number")? },
        MessageKind::Goodbye => Message::Goodbye(get_goodbye(fields)?),
    })
}

/// A hash, by its bytes.
fn hash_of_bytes(bytes: &[u8]) -> u128 {
    bytes.iter().rev().fold(0, |hash, byte| hash << 8 | u128::from(*byte))
}

/// What is before the data of a `DiskWrite` or a `DiskBefore`.
pub(super) fn disk_write_head(disk: u8, offset: u64) -> [u8; DISK_WRITE_HEAD_BYTES] {
    let mut head = [disk; DISK_WRITE_HEAD_BYTES];
    head[1..].copy_from_slice(&offset.to_le_bytes());
    head
}

fn get_disk(fields: &mut Fields<'_>) -> Result<u8> {
    match fields.u8("disk")? {
        disk if usize::from(disk) < MAX_DISKS => Ok(disk),
        got => Err(PayloadError::BadValue { what: "disk", got: got.into() }),
    }
}

fn get_flag(fields: &mut Fields<'_>, what: &'static str) -> Result<bool> {
    match fields.u8(what)? {
        0 => Ok(false),
        1 => Ok(true),
        got => Err(PayloadError::BadValue { what, got: got.into() }),
    }
}

fn get_hashed_bytes(fields: &mut Fields<'_>) -> Result<u32> {
    match fields.u32("length")? {
        length if (1..=MAX_DISK_HASHES * HASHED_BYTES).contains(&(length as usize)) => Ok(length),
        got => Err(PayloadError::BadValue { what: "length", got: got.into() }),
    }
}

fn put_u32(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn get_epoch(fields: &mut Fields<'_>) -> Result<Epoch> {
    fields.u64("epoch").map(Epoch)
}

fn put_hello(out: &mut Vec<u8>, hello: &Hello) -> Result<()> {
    out.push(match hello.channel {
        Channel::State => 1,
        Channel::Net => 2,
        Channel::Disk => 3,
    });
    put_u64(out, hello.session);
    out.push(match hello.mode {
        Mode::Colo => 1,
        Mode::Remus => 2,
    });
    put_u32(out, hello.heartbeat_ms);
    out.push(u8::from(hello.rehearse));
    put_spec(out, &hello.spec)
}

fn get_hello(fields: &mut Fields<'_>) -> Result<Hello> {
    let channel = match fields.u8("channel")? {
        1 => Channel::State,
        2 => Channel::Net,
        3 => Channel::Disk,
        got => {
            return Err(PayloadError::BadValue { what: "channel", got: got.into() });
        }
    };
    let session = fields.u64("session")?;
    let mode = match fields.u8("mode")? {
        1 => Mode::Colo,
        2 => Mode::Remus,
        got => {
            return Err(PayloadError::BadValue { what: "mode", got: got.into() });
        }
    };
    let heartbeat_ms = fields.u32("heartbeat")?;
    let rehearse = get_flag(fields, "rehearsal")?;
    Ok(Hello { channel, session, mode, heartbeat_ms, rehearse, spec: get_spec(fields)? })
}

fn put_spec(out: &mut Vec<u8>, spec: &DomainSpec) -> Result<()> {
    put_text(out, "name", DomainSpec::MAX_NAME_BYTES, &spec.name)?;
    put_text(out, "hypervisor", DomainSpec::MAX_HYPERVISOR_BYTES, &spec.hypervisor)?;
    check_pfn_limit(spec.pfn_limit)?;
    put_u64(out, spec.pfn_limit);
    check_limit("network cards", DomainSpec::MAX_NICS, spec.nics.len())?;
    put_u32(out, spec.nics.len() as u32);
    for nic in &spec.nics {
        put_address(out, nic.mac, nic.ipv4);
    }
    check_limit("disks", MAX_DISKS, spec.disks.len())?;
    put_u32(out, spec.disks.len() as u32);
    for disk in &spec.disks {
        put_u64(out, disk.size_bytes);
    }
    check_limit("bytes of configuration", DomainSpec::MAX_CONFIG_BYTES, spec.config.len())?;
    put_u32(out, spec.config.len() as u32);
    out.extend_from_slice(&spec.config);
    Ok(())
}

fn get_spec(fields: &mut Fields<'_>) -> Result<DomainSpec> {
    let name = fields.text("name", DomainSpec::MAX_NAME_BYTES)?;
    let hypervisor = fields.text("hypervisor", DomainSpec::MAX_HYPERVISOR_BYTES)?;
    let pfn_limit = fields.u64("number of pages")?;
    check_pfn_limit(pfn_limit)?;
    let nic_count = fields.count("network cards", DomainSpec::MAX_NICS, ADDRESS_BYTES)?;
    let nics = (0..nic_count).map(|_| get_nic(fields)).collect::<Result<_>>()?;
    let disk_count = fields.count("disks", MAX_DISKS, size_of::<u64>())?;
    let disk = |_| Ok(DiskSpec { size_bytes: fields.u64("size of a disk")? });
    let disks = (0..disk_count).map(disk).collect::<Result<_>>()?;
    let config_bytes = fields.count("bytes of configuration", DomainSpec::MAX_CONFIG_BYTES, 1)?;
    let config = fields.bytes("configuration", config_bytes)?.to_vec();
    Ok(DomainSpec { name, hypervisor, pfn_limit, nics, disks, config })
}

fn put_facts(out: &mut Vec<u8>, facts: &Facts) -> Result<()> {
    put_u64(out, facts.clock_ns);
    check_limit("facts", MAX_FACTS, facts.facts.len())?;
    put_u32(out, facts.facts.len() as u32);
    facts.facts.iter().try_for_each(|(name, value)| {
        put_text(out, "name of a fact", MAX_FACT_NAME_BYTES, name)?;
        put_text(out, "fact", MAX_FACT_BYTES, value)
    })
}

fn get_facts(fields: &mut Fields<'_>) -> Result<Facts> {
    let clock_ns = fields.u64("clock")?;
    let count = fields.count("facts", MAX_FACTS, 2 + 2)?;
    let fact = |_| Ok((fields.text("name of a fact", MAX_FACT_NAME_BYTES)?, fields.text("fact", MAX_FACT_BYTES)?));
    Ok(Facts { clock_ns, facts: (0..count).map(fact).collect::<Result<_>>()? })
}

fn check_pfn_limit(pfn_limit: u64) -> Result<()> {
    match pfn_limit {
        1..=DomainSpec::MAX_PFN_LIMIT => Ok(()),
        got => Err(PayloadError::BadValue { what: "the number of pages", got }),
    }
}

fn get_nic(fields: &mut Fields<'_>) -> Result<NicSpec> {
    fields.address().map(|(mac, ipv4)| NicSpec { mac, ipv4 })
}

fn put_frames(out: &mut Vec<u8>, frames: &[NetFrame]) -> Result<()> {
    check_limit("frames", MAX_MESSAGE_FRAMES, frames.len())?;
    check_limit("bytes of frames", MAX_MESSAGE_FRAME_BYTES, frame_bytes(frames))?;
    put_u32(out, frames.len() as u32);
    frames.iter().try_for_each(|frame| put_frame(out, frame))
}

fn get_frames(fields: &mut Fields<'_>, payload: &Bytes) -> Result<Vec<NetFrame>> {
    let count = fields.count("frames", MAX_MESSAGE_FRAMES, FRAME_OVERHEAD_BYTES)?;
    let mut frames = Vec::with_capacity(count);
    for _ in 0..count {
        frames.push(fields.frame(payload)?);
    }
    check_limit("bytes of frames", MAX_MESSAGE_FRAME_BYTES, frame_bytes(&frames))?;
    Ok(frames)
}

fn frame_bytes(frames: &[NetFrame]) -> usize {
    frames.iter().map(|frame| frame.frame.len()).sum()
}

fn get_numbers(fields: &mut Fields<'_>) -> Result<Vec<u64>> {
    let count = fields.count("released frames", MAX_RELEASED, size_of::<u64>())?;
    let bytes = fields.bytes("released frames", count * size_of::<u64>())?;
    let numbers = <[U64]>::ref_from_bytes(bytes).map_err(|_| PayloadError::Short { what: "released frames" })?;
    Ok(numbers.iter().map(|number| number.get()).collect())
}

fn put_goodbye(out: &mut Vec<u8>, reason: &GoodbyeReason) -> Result<()> {
    match reason {
        GoodbyeReason::Stopped => out.push(1),
        GoodbyeReason::Promoted => out.push(2),
        GoodbyeReason::GuestEnded => out.push(3),
        GoodbyeReason::Failed(text) => {
            out.push(4);
            put_text(out, "reason", MAX_TEXT_BYTES, cut_off(text))?;
        }
    }
    Ok(())
}

fn get_goodbye(fields: &mut Fields<'_>) -> Result<GoodbyeReason> {
    Ok(match fields.u8("reason")? {
        1 => GoodbyeReason::Stopped,
        2 => GoodbyeReason::Promoted,
        3 => GoodbyeReason::GuestEnded,
        4 => GoodbyeReason::Failed(fields.text("reason", MAX_TEXT_BYTES)?),
        got => {
            return Err(PayloadError::BadValue { what: "reason", got: got.into() });
        }
    })
}

/// As much of the text as may be sent: what goes wrong must not go unsaid for being told at length.
fn cut_off(text: &str) -> &str {
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
