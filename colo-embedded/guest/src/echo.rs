//! The echo service (RFC 862), over TCP and UDP.

use smoltcp::socket::{tcp, udp};

use crate::{
    pool::{Session, Turn},
    service::Context,
};

/// The port of the echo service.
pub const ECHO_PORT: u16 = 7;
/// Datagrams that wait to be answered, and bytes in them: a burst's worth.
const DATAGRAMS: usize = 64;
const DATAGRAM_BYTES: usize = 32 << 10;

/// A connection whose bytes are sent back until the peer ends its side.
#[derive(Default)]
pub struct Echo;

impl Session for Echo {
    fn serve(&mut self, socket: &mut tcp::Socket<'_>, context: &mut Context<'_>) -> Turn {
        let mut turn = Turn::default();
        loop {
            let room = socket.send_capacity() - socket.send_queue();
            let wanted = room.min(context.scratch.len());
            let Ok(count @ 1..) = socket.recv_slice(&mut context.scratch[..wanted]) else {
                break;
            };
            turn.progress = true;
            if socket.send_slice(&context.scratch[..count]) != Ok(count) {
                socket.abort();
                return turn;
            }
        }
        if !socket.may_recv() && socket.recv_queue() == 0 {
            socket.close();
        }
        turn
    }
}

/// A socket for [`echo_datagrams`].
pub fn datagram_socket() -> udp::Socket<'static> {
    let buffer = || {
        udp::PacketBuffer::new(
            alloc::vec![udp::PacketMetadata::EMPTY; DATAGRAMS],
            alloc::vec![0; DATAGRAM_BYTES],
        )
    };
    udp::Socket::new(buffer(), buffer())
}

/// Sends back each datagram that waits, to its sender; what cannot be sent now stays where it is.
pub fn echo_datagrams(socket: &mut udp::Socket<'_>, context: &mut Context<'_>) {
    while socket.can_send() {
        let Ok((count, from)) = socket.recv_slice(&mut context.scratch[..]) else {
            return;
        };
        // A full buffer of bytes loses the datagram, as UDP may.
        let _ = socket.send_slice(&context.scratch[..count], from);
    }
}
