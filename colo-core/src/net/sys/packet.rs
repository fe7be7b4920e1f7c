use super::backlog::Backlog;
use super::done;
use super::name::LinkName;
use super::slot::{Slot, Tag};
use crate::net::{Frame, MAX_BATCH_FRAMES, Offload, Port};
use rustix::io::Errno;
use rustix::net::netdevice::{index_to_name_inlined, name_to_index};
use rustix::net::sockopt::{set_socket_recv_buffer_size_force, set_socket_send_buffer_size_force};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::array::from_fn;
use std::ffi::{c_int, c_uint};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The most frames by one call: spreads its cost well. Each has a slot that stays.
const CALL_FRAMES: usize = 64;

/// What the kernel keeps of arrived frames until they are received, and of sent ones until the card has them. It counts a frame of
/// 64 KiB as somewhat more; its own default, 208 KiB, has room for three.
const BUFFER_BYTES: usize = 16 << 20;

const ETHERTYPE_VLAN: u16 = 0x8100;

/// A packet socket (`AF_PACKET`): the cable of a network card that is there already.
///
/// Everything that the card receives is [received](Port::receive) here, whatever else the host does with it; what is sent here leaves
/// through the card. What the host itself sends through it is not seen. For a Xen guest's vif that means: what the guest sends is
/// received, what is sent the guest gets.
///
/// A VLAN tag that the kernel has taken out of a frame is put back. Frames that are sent while the card is down are lost, as on a
/// cable that is not plugged in, and counted; those for which it has no room wait. Its queueing discipline (`tc`) is passed by.
#[derive(Debug)]
pub struct PacketSocket {
    socket: OwnedFd,
    index: u32,
    slots: Vec<Slot>,
    lost_frames: u64,
    /// What of the sent frames can be taken back.
    backlog: Option<Backlog>,
}

/// Whether a card shall receive what is meant for others, too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Promiscuous {
    /// Everything that comes over the cable.
    Yes,
    /// What is meant for the card, and for all.
    No,
}

impl PacketSocket {
    /// Opens a socket on the network device of this name.
    ///
    /// # Errors
    /// `PermissionDenied` without `CAP_NET_RAW` or `CAP_NET_ADMIN`; `ENODEV` when there is no such device.
    ///
    /// ```no_run
    /// use colo_core::net::Port;
    /// use colo_core::net::sys::{PacketSocket, Promiscuous};
    ///
    /// let mut guest = PacketSocket::open(&"vif5.0".parse()?, Promiscuous::Yes)?;
    /// let mut frames = Vec::new();
    /// guest.receive(&mut frames)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(name: &LinkName, promiscuous: Promiscuous) -> io::Result<PacketSocket> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Of no protocol, so that nothing comes from any device before it is bound to one.
        let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
        let index = name_to_index(&socket, name.as_str())?;
        set(&socket, libc::PACKET_VNET_HDR, &1_i32)?;
        set(&socket, libc::PACKET_AUXDATA, &1_i32)?;
        set(&socket, libc::PACKET_IGNORE_OUTGOING, &1_i32)?;
        // Straight to the device: its queue would take frames that are lost there without a word, above all for a moment after the card was
        // plugged in, as a secondary's is at each checkpoint.
        set(&socket, libc::PACKET_QDISC_BYPASS, &1_i32)?;
        set_socket_recv_buffer_size_force(&socket, BUFFER_BYTES)?;
        set_socket_send_buffer_size_force(&socket, BUFFER_BYTES)?;
        if promiscuous == Promiscuous::Yes {
            let mr_ifindex = index as c_int;
            let mr_type = libc::PACKET_MR_PROMISC as libc::c_ushort;
            let membership = libc::packet_mreq { mr_ifindex, mr_type, mr_alen: 0, mr_address: [0; 8] };
            set(&socket, libc::PACKET_ADD_MEMBERSHIP, &membership)?;
        }
        bind(&socket, index)?;
        let slots = std::iter::repeat_with(Slot::new).take(CALL_FRAMES).collect();
        Ok(PacketSocket { socket, index, slots, lost_frames: 0, backlog: None })
    }

    /// What is sent can be [taken back](Port::take_back) from there, until the guest's device model has read it.
    pub fn set_backlog(&mut self, backlog: Backlog) {
        self.backlog = Some(backlog);
    }

    /// How many frames were sent that the device could not take: it was down, or they were malformed or longer than its MTU.
    pub fn lost_frames(&self) -> u64 {
        self.lost_frames
    }

    /// How many frames had arrived and were lost because too many waited to be received; each is told once.
    ///
    /// # Errors
    /// Those of `getsockopt(2)`.
    pub fn take_overrun(&self) -> io::Result<u64> {
        let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut bytes = size_of_val(&statistics) as libc::socklen_t;
        let (level, option) = (libc::SOL_PACKET, libc::PACKET_STATISTICS);
        let value = (&raw mut statistics).cast();
        // SAFETY: the option fills in a `tpacket_stats`; it and its size live over the call.
        let result = unsafe { libc::getsockopt(self.socket.as_raw_fd(), level, option, value, &raw mut bytes) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(statistics.tp_drops.into()) }
    }

    /// Receives once, and returns how many frames came; those that are too long are left out.
    fn receive_some(&mut self, most: usize, frames: &mut Vec<Frame>) -> Result<usize, Errno> {
        let mut controls = [Control::EMPTY; CALL_FRAMES];
        let mut parts: [libc::iovec; CALL_FRAMES] = from_fn(|index| {
            let room = self.slots[index].room();
            libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.capacity() }
        });
        let mut messages: [libc::mmsghdr; CALL_FRAMES] =
            from_fn(|index| message(std::slice::from_mut(&mut parts[index]), Some(&mut controls[index])));
        let (socket, first, wait) = (self.socket.as_raw_fd(), messages.as_mut_ptr(), std::ptr::null_mut());
        // SAFETY: the messages point to `parts` and `controls`, the parts to distinct slots with so much room; all outlive the call, and
        // there are at least `most` of them.
        let count = unsafe { libc::recvmmsg(socket, first, most as c_uint, libc::MSG_DONTWAIT as _, wait) };
        let count = usize::try_from(count).map_err(|_| last_errno())?;
        for (slot, message) in self.slots.iter_mut().zip(&messages[..count]) {
            // SAFETY: the kernel has written so many bytes from the beginning of the room, which is no shorter than it was told.
            unsafe { slot.room().set_len(message.msg_len as usize) };
            frames.extend(slot.take(tag_of(&message.msg_hdr)));
        }
        Ok(count)
    }

    /// Sends a frame through the device's queue.
    fn send_by_queue(&mut self, frame: &Frame) -> io::Result<()> {
        set(&self.socket, libc::PACKET_QDISC_BYPASS, &0_i32)?;
        if send_some(&self.socket, std::slice::from_ref(frame)).is_err() {
            self.lost_frames += 1;
        }
        set(&self.socket, libc::PACKET_QDISC_BYPASS, &1_i32)
    }

    /// What an error of the socket means.
    fn judge(&self, errno: Errno) -> io::Result<()> {
        match errno {
            Errno::AGAIN | Errno::INTR => Ok(()),
            // Said when the device goes down, as it does before it goes for good.
            Errno::NETDOWN if index_to_name_inlined(&self.socket, self.index).is_ok() => Ok(()),
            errno => Err(errno.into()),
        }
    }
}

impl Port for PacketSocket {
    fn poll_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn has_left_guest(&self) -> bool {
        true
    }

    /// # Errors
    /// When the device is gone.
    fn receive(&mut self, frames: &mut Vec<Frame>) -> io::Result<usize> {
        let before = frames.len();
        let mut room = MAX_BATCH_FRAMES;
        while room > 0 {
            let most = room.min(CALL_FRAMES);
            match self.receive_some(most, frames) {
                Ok(count) if count < most => break,
                Ok(count) => room -= count,
                // What came before comes first; the next call says the rest.
                Err(_) if frames.len() > before => break,
                Err(errno) => {
                    self.judge(errno)?;
                    break;
                }
            }
        }
        Ok(frames.len() - before)
    }

    /// # Errors
    /// When the device is gone.
    fn send(&mut self, frames: &[Frame]) -> io::Result<usize> {
        let mut sent = 0;
        while sent < frames.len() {
            match send_some(&self.socket, &frames[sent..]) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                // Or it cannot cut a large frame into pieces, which is done on the way through its queue.
                Err(Errno::NOBUFS) if frames[sent].offload.gso_type != 0 => {
                    self.send_by_queue(&frames[sent])?;
                    sent += 1;
                }
                // The device has no room, or its other end is not plugged in yet.
                Err(Errno::AGAIN | Errno::NOBUFS) => break,
                // Too long for this device, or malformed; or the kernel is short of memory: the frame is lost, as on a cable.
                Err(Errno::MSGSIZE | Errno::INVAL | Errno::NOMEM) => {
                    self.lost_frames += 1;
                    sent += 1;
                }
                Err(_) if sent > 0 => break,
                Err(errno) => {
                    self.judge(errno)?;
                    self.lost_frames += frames.len() as u64;
                    return Ok(frames.len());
                }
            }
        }
        Ok(sent)
    }

    fn take_back(&mut self, frames: &mut Vec<Frame>) -> io::Result<usize> {
        self.backlog.as_mut().map_or(Ok(0), |backlog| backlog.take(frames))
    }
}

/// Sends once, and returns how many frames the socket took.
fn send_some(socket: &OwnedFd, frames: &[Frame]) -> Result<usize, Errno> {
    let count = frames.len().min(CALL_FRAMES);
    let mut headers: [_; CALL_FRAMES] =
        from_fn(|index| frames.get(index).map_or([0; Offload::HEADER_BYTES], |frame| frame.offload.to_header()));
    let mut parts: [[libc::iovec; 2]; CALL_FRAMES] = from_fn(|index| {
        let frame = frames.get(index).map_or(&[][..], |frame| frame);
        let header = &mut headers[index];
        // The kernel only reads what it sends; the pointers are mutable because the structure serves both ways.
        [
            libc::iovec { iov_base: header.as_mut_ptr().cast(), iov_len: header.len() },
            libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() },
        ]
    });
    let mut messages: [libc::mmsghdr; CALL_FRAMES] = from_fn(|index| message(&mut parts[index], None));
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the messages point to `parts`, those to `headers` and the frames; all outlive the call, and there are at least `count`.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), count as c_uint, flags as _) };
    usize::try_from(sent).map_err(|_| last_errno())
}

/// What comes with a received frame: one `tpacket_auxdata`.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 64]);

impl Control {
    const EMPTY: Control = Control([0; 64]);
}

fn message(parts: &mut [libc::iovec], control: Option<&mut Control>) -> libc::mmsghdr {
    // SAFETY: plain C data, for which all bits zero is a valid value.
    let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
    message.msg_hdr.msg_iov = parts.as_mut_ptr();
    message.msg_hdr.msg_iovlen = parts.len() as _;
    if let Some(control) = control {
        message.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
        message.msg_hdr.msg_controllen = control.0.len() as _;
    }
    message
}

/// The VLAN tag that came beside a frame.
fn tag_of(message: &libc::msghdr) -> Option<Tag> {
    // SAFETY: the message was filled in by the kernel, and its control data are still there.
    let mut at = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !at.is_null() {
        // SAFETY: such a pointer is to a whole header within the control data, which are aligned as it is.
        let header = unsafe { &*at };
        if (header.cmsg_level, header.cmsg_type) == (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
            // SAFETY: what follows this header is a `tpacket_auxdata`, of which any bits are valid.
            let data = unsafe { libc::CMSG_DATA(at).cast::<libc::tpacket_auxdata>().read_unaligned() };
            let has = |bit: u32| data.tp_status & bit != 0;
            let ethertype = if has(libc::TP_STATUS_VLAN_TPID_VALID) { data.tp_vlan_tpid } else { ETHERTYPE_VLAN };
            return has(libc::TP_STATUS_VLAN_VALID).then_some(Tag { ethertype, control: data.tp_vlan_tci });
        }
        // SAFETY: as for the first one.
        at = unsafe { libc::CMSG_NXTHDR(message, at) };
    }
    None
}

/// Binds the socket to a device, for all protocols.
fn bind(socket: &OwnedFd, index: u32) -> io::Result<()> {
    // SAFETY: plain C data, for which all bits zero is a valid value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as libc::c_ushort;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index as c_int;
    let bytes = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address and its size live over the call.
    done(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), bytes) })
}

fn set<T>(socket: &OwnedFd, option: c_int, value: &T) -> io::Result<()> {
    let (value, bytes) = (std::ptr::from_ref(value).cast(), size_of::<T>() as libc::socklen_t);
    // SAFETY: the kernel reads so many bytes of the value, which lives over the call.
    done(unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, option, value, bytes) })
}

fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}
