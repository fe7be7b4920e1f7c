//! Rtnetlink (RFC 3549, rtnetlink(7)): what the kernel is asked and told about network devices.

use rustix::io::retry_on_intr;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};
use std::io;
use std::os::fd::OwnedFd;

/// Of `nlmsghdr`.
const HEADER_BYTES: usize = 16;
/// Of `ifinfomsg`.
const LINK_HEADER_BYTES: usize = 16;
const ATTRIBUTE_HEADER_BYTES: usize = 4;
/// The kernel's own are up to 32 KiB.
const ANSWER_BYTES: usize = 64 << 10;

pub(super) const RTM_NEWLINK: u16 = 16;
pub(super) const RTM_DELLINK: u16 = 17;
pub(super) const RTM_GETLINK: u16 = 18;
pub(super) const RTM_SETLINK: u16 = 19;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLA_F_NESTED: u16 = 1 << 15;
/// The bits of an attribute's number that are the number.
const NLA_TYPE_MASK: u16 = 0x3FFF;

/// A socket to the kernel.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

/// The head of a message about a network device: `ifinfomsg`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct LinkHeader {
    pub(super) family: u8,
    /// 0 when the device is named by an attribute.
    pub(super) index: u32,
    pub(super) flags: u32,
    /// Which of the flags are meant.
    pub(super) mask: u32,
}

impl LinkHeader {
    pub(super) fn of(index: u32) -> Self {
        LinkHeader { index, ..LinkHeader::default() }
    }

    fn read(bytes: &[u8; LINK_HEADER_BYTES]) -> Self {
        let field = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        LinkHeader { family: bytes[0], index: field(4), flags: field(8), mask: field(12) }
    }
}

/// A message to the kernel.
#[derive(Debug)]
pub(super) struct Request {
    kind: u16,
    bytes: Vec<u8>,
}

impl Request {
    pub(super) fn new(kind: u16, header: LinkHeader) -> Self {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes.extend_from_slice(&[header.family, 0, 0, 0]);
        for field in [header.index, header.flags, header.mask] {
            bytes.extend_from_slice(&field.to_ne_bytes());
        }
        Request { kind, bytes }
    }

    /// Adds an attribute.
    ///
    /// # Panics
    /// When it is longer than its length can say.
    pub(super) fn put(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(ATTRIBUTE_HEADER_BYTES + value.len()).expect("attributes are short");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    /// Adds an attribute that consists of others.
    ///
    /// # Panics
    /// When it is longer than its length can say.
    pub(super) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let at = self.bytes.len();
        self.put(kind | NLA_F_NESTED, &[]);
        fill(self);
        let length = u16::try_from(self.bytes.len() - at).expect("attributes are short");
        self.bytes[at..at + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }
}

/// The attributes of a message, or of one of them. Ends early at one whose length lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// The first of this kind.
    pub(super) fn find(mut self, kind: u16) -> Option<&'a [u8]> {
        self.find_map(|(found, value)| (found == kind).then_some(value))
    }

    /// The attributes in the first of this kind; none when there is none.
    pub(super) fn nested(self, kind: u16) -> Attributes<'a> {
        Attributes(self.find(kind).unwrap_or_default())
    }

    /// The first of this kind, a number.
    pub(super) fn number(self, kind: u16) -> Option<u32> {
        Some(u32::from_ne_bytes(self.find(kind)?.try_into().ok()?))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let length = usize::from(u16::from_ne_bytes(*self.0.first_chunk()?));
        let kind = u16::from_ne_bytes(*self.0.get(2..)?.first_chunk()?) & NLA_TYPE_MASK;
        let value = self.0.get(ATTRIBUTE_HEADER_BYTES..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        // No number of a protocol: that of `NETLINK_ROUTE` is 0.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        Ok(Netlink { socket, sequence: 0 })
    }

    /// Has something done.
    pub(super) fn tell(&mut self, request: Request) -> io::Result<()> {
        self.ask(request, 0, &mut |_, _| ())
    }

    /// Has a question about one device answered.
    pub(super) fn get<T>(
        &mut self,
        request: Request,
        mut read: impl FnMut(LinkHeader, Attributes<'_>) -> T,
    ) -> io::Result<T> {
        let mut answer = None;
        self.ask(request, 0, &mut |header, attributes| answer = Some(read(header, attributes)))?;
        answer.ok_or_else(malformed)
    }

    /// Has a question about all devices answered.
    pub(super) fn dump(
        &mut self,
        request: Request,
        mut read: impl FnMut(LinkHeader, Attributes<'_>),
    ) -> io::Result<()> {
        self.ask(request, NLM_F_DUMP, &mut read)
    }

    fn ask(
        &mut self,
        mut request: Request,
        flags: u16,
        read: &mut dyn FnMut(LinkHeader, Attributes<'_>),
    ) -> io::Result<()> {
        self.sequence += 1;
        let length = request.bytes.len() as u32;
        request.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        request.bytes[4..6].copy_from_slice(&request.kind.to_ne_bytes());
        request.bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
        request.bytes[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        retry_on_intr(|| send(&self.socket, &request.bytes, SendFlags::empty()))?;
        let mut answer = vec![0; ANSWER_BYTES];
        loop {
            let (bytes, _) = retry_on_intr(|| recv(&self.socket, &mut answer[..], RecvFlags::empty()))?;
            if self.hear(&answer[..bytes], read)? {
                return Ok(());
            }
        }
    }

    /// Reads the messages of an answer; true when it is complete.
    fn hear(&self, mut answer: &[u8], read: &mut dyn FnMut(LinkHeader, Attributes<'_>)) -> io::Result<bool> {
        while !answer.is_empty() {
            let head: &[u8; HEADER_BYTES] = answer.first_chunk().ok_or_else(malformed)?;
            let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
            let body = answer.get(HEADER_BYTES..length).ok_or_else(malformed)?;
            let is_ours = head[8..12] == self.sequence.to_ne_bytes();
            match u16::from_ne_bytes([head[4], head[5]]) {
                // What is left of an answer whose reading was given up.
                _ if !is_ours => {}
                NLMSG_DONE => return Ok(true),
                NLMSG_ERROR => return error_of(body).map(|()| true),
                _ => {
                    let (head, attributes) = body.split_first_chunk::<LINK_HEADER_BYTES>().ok_or_else(malformed)?;
                    read(LinkHeader::read(head), Attributes(attributes));
                }
            }
            answer = answer.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(false)
    }
}

fn error_of(body: &[u8]) -> io::Result<()> {
    match i32::from_ne_bytes(*body.first_chunk().ok_or_else(malformed)?) {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer makes no sense")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_put_is_found() {
        let mut request = Request::new(RTM_SETLINK, LinkHeader::of(7));
        request.put(1, b"odd").nest(2, |inner| {
            inner.put(3, &5_u32.to_ne_bytes());
        });
        let attributes = Attributes(&request.bytes[HEADER_BYTES + LINK_HEADER_BYTES..]);
        assert_eq!(attributes.find(1), Some(&b"odd"[..]));
        assert_eq!(attributes.nested(2).number(3), Some(5));
        assert_eq!((attributes.find(3), attributes.number(1), attributes.nested(4).count()), (None, None, 0));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(Attributes(&bytes).count() <= bytes.len() / ATTRIBUTE_HEADER_BYTES);
        }
    }
}
