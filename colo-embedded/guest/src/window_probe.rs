//! The persist timer that smoltcp 0.12 lacks (RFC 9293, 3.8.6.1): when a peer has closed its window and the segment that opens it
//! again is lost, only a question brings the two together. smoltcp's keep-alive is such a question, for its answer tells
//! the window; so keep-alive is on while data waits for a window, and only then.
//!
//! The switch includes this file as it is, for its own TCP.

use smoltcp::socket::tcp::Socket;
use smoltcp::time::{Duration, Instant};

/// How long data may wait for the peer's window before the peer is asked, and then between questions.
const PATIENCE: Duration = Duration::from_millis(500);

/// One connection's timer. [`WindowProbe::update`] before smoltcp's deadline is asked for, [`WindowProbe::deadline`] after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowProbe(State);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Nothing waits for a window.
    #[default]
    Off,
    /// So many bytes have been waiting, and the peer will be asked at that time.
    Waiting(usize, Instant),
    /// The peer is being asked.
    Asking(usize),
}

impl WindowProbe {
    /// Begins or ends the asking, as the socket's state and the time demand.
    pub fn update(&mut self, socket: &mut Socket<'_>, now: Instant) {
        let queued = socket.send_queue();
        match self.0 {
            State::Waiting(before, _) | State::Asking(before) if before != queued => {
                socket.set_keep_alive(None);
                self.0 = State::Off;
            }
            State::Waiting(_, at) if at <= now => {
                socket.set_keep_alive(Some(PATIENCE));
                self.0 = State::Asking(queued);
            }
            _ => {}
        }
    }

    /// When to look again, given smoltcp's own deadline. Data in the queue and no timer for it: that is what waiting for a
    /// window looks like from outside.
    pub fn deadline(
        &mut self,
        socket: &Socket<'_>,
        now: Instant,
        smoltcp: Option<Instant>,
    ) -> Option<Instant> {
        if self.0 == State::Off && smoltcp.is_none() && socket.send_queue() != 0 {
            self.0 = State::Waiting(socket.send_queue(), now + PATIENCE);
        }
        match self.0 {
            State::Waiting(_, at) => Some(smoltcp.map_or(at, |deadline| deadline.min(at))),
            _ => smoltcp,
        }
    }
}
