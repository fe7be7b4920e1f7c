//! An address for a network card, by rtnetlink (`man 7 rtnetlink`): the image has no tools for it.

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::time::Duration;

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const NLMSG_ERROR: u16 = 2;
/// NLM_F_REQUEST and NLM_F_ACK.
const REQUEST_WITH_ANSWER: u16 = 1 | 4;
const IFF_UP: u32 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// RTMGRP_LINK: links that come and go.
const LINK_GROUP: u32 = 1;
/// How long a card may take: its other end lies in dom0, and is set up there by scripts.
const CARD_PATIENCE: Duration = Duration::from_secs(60);

/// Hears of cards that appear, from its making on.
pub(crate) struct Watch(OwnedFd);

impl Watch {
    pub(crate) fn new() -> io::Result<Watch> {
        let socket = open(LINK_GROUP)?;
        let patience = Some(CARD_PATIENCE);
        rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, patience)?;
        Ok(Watch(socket))
    }

    /// The number of a card, as soon as it is there.
    fn index_of(&self, card: &str) -> io::Result<u32> {
        let path = format!("/sys/class/net/{card}/ifindex");
        loop {
            if let Ok(index) = fs::read_to_string(&path) {
                return index.trim().parse().map_err(io::Error::other);
            }
            // What the message says does not matter: the folder is looked at again.
            let mut message = [0; 4096];
            recv(&self.0, &mut message, RecvFlags::TRUNC)
                .map_err(|error| io::Error::other(format!("no card {card}: {error}")))?;
        }
    }
}

/// Waits for a card, gives it an address, and switches it on.
pub(crate) fn up(watch: &Watch, card: &str, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
    let index = watch.index_of(card)?;
    let socket = open(0)?;
    request(&socket, &add_address(index, address, prefix))?;
    request(&socket, &switch_on(index))
}

fn open(groups: u32) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

fn request(socket: &OwnedFd, message: &[u8]) -> io::Result<()> {
    sendto(socket, message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut answer = [0; 1024];
    let (length, _) = recv(socket, &mut answer, RecvFlags::empty())?;
    error_of(&answer[..length])
}

/// `ifaddrmsg` (family, prefix length, flags, scope, index), and two attributes.
fn add_address(index: u32, address: Ipv4Addr, prefix: u8) -> Vec<u8> {
    let mut body = vec![AddressFamily::INET.as_raw() as u8, prefix, 0, 0];
    body.extend_from_slice(&index.to_ne_bytes());
    for attribute in [IFA_LOCAL, IFA_ADDRESS] {
        body.extend_from_slice(&8_u16.to_ne_bytes());
        body.extend_from_slice(&attribute.to_ne_bytes());
        body.extend_from_slice(&address.octets());
    }
    message(RTM_NEWADDR, &body)
}

/// `ifinfomsg` (family, padding, type, index, flags, which flags change).
fn switch_on(index: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    for number in [index, IFF_UP, IFF_UP] {
        body.extend_from_slice(&number.to_ne_bytes());
    }
    message(RTM_NEWLINK, &body)
}

/// `nlmsghdr` (length, type, flags, sequence number, port), and what follows it.
fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    message.extend_from_slice(&(16 + body.len() as u32).to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&REQUEST_WITH_ANSWER.to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(body);
    message
}

/// An answer is an `nlmsghdr` of the type NLMSG_ERROR and a negative errno, which is 0 if all went well.
fn error_of(answer: &[u8]) -> io::Result<()> {
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let errno = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, errno) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(errno)) => Err(io::Error::from_raw_os_error(errno.saturating_neg())),
        _ => Err(io::Error::other("an answer of rtnetlink that makes no sense")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_what_the_manual_says() {
        let address = add_address(2, Ipv4Addr::new(10, 9, 0, 11), 24);
        assert_eq!(address.len(), 40);
        assert_eq!(address[..4], 40_u32.to_ne_bytes());
        assert_eq!(address[16..18], [2, 24]);
        assert_eq!(address[36..], [10, 9, 0, 11]);
        assert_eq!(switch_on(2).len(), 32);
    }

    #[test]
    fn answers_are_understood() {
        let answer = |kind: u16, errno: i32| {
            let mut answer = message(kind, &errno.to_ne_bytes());
            answer.extend_from_slice(&[0; 16]);
            answer
        };
        assert!(error_of(&answer(NLMSG_ERROR, 0)).is_ok());
        // EEXIST.
        assert_eq!(error_of(&answer(NLMSG_ERROR, -17)).unwrap_err().raw_os_error(), Some(17));
        assert!(error_of(&answer(RTM_NEWLINK, 0)).is_err());
        assert!(error_of(&[1, 2, 3]).is_err());
    }
}
