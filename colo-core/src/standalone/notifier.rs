//! Where the toolstack takes part.

use super::door::{Door, ended};
use crate::net::qemu::{NotifyDecoder, NotifyMessage};

/// The most bytes of answers that wait for somebody who does not read them.
const MAX_QUEUED_BYTES: usize = 4096;

/// The notify connection.
#[derive(Debug)]
pub(super) struct Notifier {
    pub(super) door: Door,
    decoder: NotifyDecoder,
    sending: Vec<u8>,
    /// A checkpoint is needed.
    is_needed: bool,
    /// Whoever is connected was told so.
    is_told: bool,
    /// Connections that were closed for what they carried.
    pub(super) bad_framings: u64,
}

impl Notifier {
    pub(super) fn new(door: Door) -> Self {
        Notifier {
            door,
            decoder: NotifyDecoder::new(),
            sending: Vec::new(),
            is_needed: false,
            is_told: false,
            bad_framings: 0,
        }
    }

    /// Asks for a checkpoint. When nobody is there, whoever comes is asked once he has spoken: libxl wants its greeting to be
    /// answered first.
    pub(super) fn ask_checkpoint(&mut self) {
        self.is_needed = true;
        if self.door.is_connected() {
            self.tell();
        } else {
            tracing::warn!("{}: a checkpoint is needed, and nobody is connected", self.door.name());
        }
    }

    /// Reads what has come; true when a checkpoint was taken. Of several, the last one counts.
    pub(super) fn read(&mut self) -> bool {
        let mut bytes = [0; 1024];
        match self.door.read(&mut bytes) {
            Ok(count) => self.decoder.feed(&bytes[..count.unwrap_or(0)]),
            Err(error) => self.close(&ended(&error)),
        }
        let mut is_taken = false;
        loop {
            match self.decoder.next_message() {
                Ok(None) => break,
                Ok(Some(message)) => is_taken |= self.handle(&message),
                Err(error) => {
                    self.bad_framings += 1;
                    self.close(&error);
                }
            }
        }
        is_taken
    }

    /// Sends as much as the socket takes.
    pub(super) fn write(&mut self) {
        match self.door.send(&self.sending) {
            Ok(count) => drop(self.sending.drain(..count.unwrap_or(0))),
            Err(error) => self.close(&ended(&error)),
        }
        if self.sending.len() > MAX_QUEUED_BYTES {
            self.close(&"the other side does not read what it asks for");
        }
    }

    pub(super) fn wants_write(&self) -> bool {
        !self.sending.is_empty()
    }

    /// True when it says that a checkpoint was taken.
    fn handle(&mut self, message: &NotifyMessage) -> bool {
        tracing::debug!("{}: {message}", self.door.name());
        match message {
            NotifyMessage::ProxyInit => self.say(&NotifyMessage::XenInit),
            NotifyMessage::Checkpoint => {
                (self.is_needed, self.is_told) = (false, false);
                return true;
            }
            other => tracing::warn!("{}: {other} is not understood, and left aside", self.door.name()),
        }
        if self.is_needed && !self.is_told {
            self.tell();
        }
        false
    }

    fn tell(&mut self) {
        self.is_told = true;
        self.say(&NotifyMessage::DoCheckpoint);
    }

    fn say(&mut self, message: &NotifyMessage) {
        self.sending.extend_from_slice(&message.encode());
    }

    fn close(&mut self, why: &dyn std::fmt::Display) {
        self.door.close(why);
        self.decoder = NotifyDecoder::new();
        self.sending.clear();
        self.is_told = false;
    }
}
