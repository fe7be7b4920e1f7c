//! The fields that messages and our own records are made of: little-endian numbers, counted bytes, frames. Every count is
//! checked against its limit, and against the bytes that are there, before anything is allocated for it.

use super::NetFrame;
use crate::domain::{DomainSpec, MacAddr};
use crate::net::{Frame, MAX_FRAME_BYTES, Offload};
use bytes::Bytes;
use std::net::Ipv4Addr;

/// In the byte that tells a frame's network card: what is left for a card to do follows, as [`Offload::to_header`] writes it.
const OFFLOAD_FOLLOWS: u8 = 0x80;

/// What is wrong with the inside of a message or a record whose outside is right.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PayloadError {
    /// It ends too early.
    #[error("it ends in the middle of its {what}")]
    Short {
        /// What was being read.
        what: &'static str,
    },
    /// It goes on after its end.
    #[error("{bytes} bytes too many")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// A length or a count beyond its limit.
    #[error("{what}: {got}, but the limit is {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: u64,
        /// The number found.
        got: u64,
    },
    /// A value that means nothing.
    #[error("{what} cannot be {got}")]
    BadValue {
        /// Of what.
        what: &'static str,
        /// The value found.
        got: u64,
    },
    /// Text that is not UTF-8.
    #[error("the {what} is not UTF-8")]
    NotUtf8 {
        /// Which text.
        what: &'static str,
    },
}

/// Bytes of an Ethernet address, whether there is an IPv4 address (0 or 1), and that (zeroes if none).
pub(crate) const ADDRESS_BYTES: usize = 6 + 1 + 4;
/// Bytes a frame takes beside its own: its length (`u32`) and its network card (`u8`).
pub(crate) const FRAME_OVERHEAD_BYTES: usize = 5;

/// Checks that `got` is not above `limit`.
pub(crate) fn check_limit(what: &'static str, limit: usize, got: usize) -> Result<(), PayloadError> {
    if got > limit {
        return Err(PayloadError::TooMany { what, limit: limit as u64, got: got as u64 });
    }
    Ok(())
}

/// Checks that a domain can have a card of this index.
pub(crate) fn check_nic(nic: u8) -> Result<(), PayloadError> {
    if usize::from(nic) >= DomainSpec::MAX_NICS {
        return Err(PayloadError::BadValue { what: "network card", got: nic.into() });
    }
    Ok(())
}

/// Reads fields from the front of a payload.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(payload: &'a [u8]) -> Self {
        Fields { rest: payload }
    }

    pub(crate) fn bytes(&mut self, what: &'static str, count: usize) -> Result<&'a [u8], PayloadError> {
        let (bytes, rest) = self.rest.split_at_checked(count).ok_or(PayloadError::Short { what })?;
        self.rest = rest;
        Ok(bytes)
    }

    pub(crate) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], PayloadError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(PayloadError::Short { what })?;
        self.rest = rest;
        Ok(*array)
    }

    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8, PayloadError> {
        self.array(what).map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self, what: &'static str) -> Result<u16, PayloadError> {
        self.array(what).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, PayloadError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, PayloadError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A number of things (`u32`), each of at least `least_bytes`: so a count that lies is found before room is made for it.
    pub(crate) fn count(
        &mut self,
        what: &'static str,
        limit: usize,
        least_bytes: usize,
    ) -> Result<usize, PayloadError> {
        let count = self.u32(what)? as usize;
        check_limit(what, limit, count)?;
        if count * least_bytes > self.rest.len() {
            return Err(PayloadError::Short { what });
        }
        Ok(count)
    }

    /// Text: its length in bytes (`u16`), then UTF-8.
    pub(crate) fn text(&mut self, what: &'static str, limit: usize) -> Result<String, PayloadError> {
        let length = usize::from(self.u16(what)?);
        check_limit(what, limit, length)?;
        let text = std::str::from_utf8(self.bytes(what, length)?).map_err(|_| PayloadError::NotUtf8 { what })?;
        Ok(text.to_owned())
    }

    /// The index of a network card.
    pub(crate) fn nic(&mut self) -> Result<u8, PayloadError> {
        let nic = self.u8("network card")?;
        check_nic(nic)?;
        Ok(nic)
    }

    /// An Ethernet address, and the IPv4 address that goes with it.
    pub(crate) fn address(&mut self) -> Result<(MacAddr, Option<Ipv4Addr>), PayloadError> {
        let mac = MacAddr(self.array("address")?);
        let has_ipv4 = self.u8("address")?;
        let ipv4: [u8; 4] = self.array("address")?;
        match has_ipv4 {
            0 if ipv4 == [0; 4] => Ok((mac, None)),
            1 => Ok((mac, Some(Ipv4Addr::from(ipv4)))),
            got => Err(PayloadError::BadValue { what: "the mark of an IPv4 address", got: got.into() }),
        }
    }

    /// A frame, as a slice of `payload`, which these fields are read from.
    pub(crate) fn frame(&mut self, payload: &Bytes) -> Result<NetFrame, PayloadError> {
        let length = self.u32("frame length")? as usize;
        check_limit("frame bytes", MAX_FRAME_BYTES, length)?;
        let mark = self.u8("network card")?;
        let nic = mark & !OFFLOAD_FOLLOWS;
        check_nic(nic)?;
        let offload = match mark & OFFLOAD_FOLLOWS {
            0 => Offload::default(),
            _ => match Offload::from_header(self.array("offload")?) {
                none if none == Offload::default() => {
                    return Err(PayloadError::BadValue { what: "offload", got: 0 });
                }
                offload => offload,
            },
        };
        let frame = Frame::from(payload.slice_ref(self.bytes("frame", length)?)).with_offload(offload);
        Ok(NetFrame { nic, frame })
    }

    /// All that is left, as a slice of `payload`, which these fields are read from.
    pub(crate) fn rest(&mut self, payload: &Bytes) -> Bytes {
        payload.slice_ref(std::mem::take(&mut self.rest))
    }

    /// Whether everything has been read.
    pub(crate) fn end(self) -> Result<(), PayloadError> {
        match self.rest.len() {
            0 => Ok(()),
            bytes => Err(PayloadError::Trailing { bytes }),
        }
    }
}

/// Appends text as [`Fields::text`] reads it. `limit` is at most 65,535.
pub(crate) fn put_text(out: &mut Vec<u8>, what: &'static str, limit: usize, text: &str) -> Result<(), PayloadError> {
    check_limit(what, limit, text.len())?;
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

/// Appends addresses as [`Fields::address`] reads them.
pub(crate) fn put_address(out: &mut Vec<u8>, mac: MacAddr, ipv4: Option<Ipv4Addr>) {
    out.extend_from_slice(&mac.0);
    out.push(u8::from(ipv4.is_some()));
    out.extend_from_slice(&ipv4.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
}

/// Appends a frame as [`Fields::frame`] reads it.
pub(crate) fn put_frame(out: &mut Vec<u8>, frame: &NetFrame) -> Result<(), PayloadError> {
    check_limit("frame bytes", MAX_FRAME_BYTES, frame.frame.len())?;
    check_nic(frame.nic)?;
    out.extend_from_slice(&(frame.frame.len() as u32).to_le_bytes());
    if frame.frame.offload == Offload::default() {
        out.push(frame.nic);
    } else {
        out.push(frame.nic | OFFLOAD_FOLLOWS);
        out.extend_from_slice(&frame.frame.offload.to_header());
    }
    out.extend_from_slice(&frame.frame);
    Ok(())
}
