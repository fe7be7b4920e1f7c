use std::fmt;

/// The longest message: twice what any of them has, for those that are not known yet.
pub const MAX_MESSAGE_BYTES: usize = 64;

/// The shortest: enough to tell a text from a length.
const MIN_MESSAGE_BYTES: usize = LENGTH_BYTES;

/// Bytes of a length.
const LENGTH_BYTES: usize = 4;

/// The least value of four bytes of text.
const LEAST_TEXT: u32 = 0x2020_2020;

/// What a comparator and the toolstack say to each other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NotifyMessage {
    /// To the comparator: are you there?
    ProxyInit,
    /// From the comparator: yes.
    XenInit,
    /// From the comparator: the machines differ, take a checkpoint.
    DoCheckpoint,
    /// To the comparator: a checkpoint was taken.
    Checkpoint,
    /// Something else.
    Other(String),
}

/// Why a connection cannot be read on.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error, Debug)]
#[error("bad framing: a message of {bytes} bytes, where {MIN_MESSAGE_BYTES} to {MAX_MESSAGE_BYTES} can be")]
pub struct NotifyError {
    /// Its length.
    pub bytes: u32,
}

impl NotifyMessage {
    /// The message as it is sent, in one piece: libxl takes the length and the text by one call each, and does not ask again for a rest.
    pub fn encode(&self) -> Vec<u8> {
        let text = self.text().as_bytes();
        [&(text.len() as u32).to_be_bytes(), text].concat()
    }

    fn text(&self) -> &str {
        match self {
            NotifyMessage::ProxyInit => "COLO_USERSPACE_PROXY_INIT",
            NotifyMessage::XenInit => "COLO_COMPARE_GET_XEN_INIT",
            NotifyMessage::DoCheckpoint => "DO_CHECKPOINT",
            NotifyMessage::Checkpoint => "COLO_CHECKPOINT",
            NotifyMessage::Other(text) => text,
        }
    }

    fn parse(text: &[u8]) -> Self {
        let known = [Self::ProxyInit, Self::XenInit, Self::DoCheckpoint, Self::Checkpoint];
        let found = known.into_iter().find(|message| message.text().as_bytes() == text);
        found.unwrap_or_else(|| NotifyMessage::Other(String::from_utf8_lossy(text).into_owned()))
    }
}

impl fmt::Display for NotifyMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // May be anybody's words.
        write!(f, "{}", self.text().escape_default())
    }
}

/// Cuts messages from the bytes of a connection.
///
/// With `vnet_hdr_support`, QEMU's `colo-compare` wants a second length in the messages that it *gets*, though it sends none, and
/// libxl knows of none either. So both are taken here, whatever was agreed on for frames: a text cannot be mistaken for such a length.
/// Its value says nothing.
#[derive(Default, Debug)]
pub struct NotifyDecoder {
    bytes: Vec<u8>,
}

impl NotifyDecoder {
    /// For a new connection.
    pub fn new() -> Self {
        NotifyDecoder::default()
    }

    /// Takes bytes that have come. To be followed by [`next_message`](Self::next_message) until there is none.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next message, if all of it has come.
    ///
    /// # Errors
    /// When its length makes no sense. What follows cannot be understood, and the error comes again and again.
    pub fn next_message(&mut self) -> Result<Option<NotifyMessage>, NotifyError> {
        let number = |at: usize| self.bytes.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
        let Some(bytes) = number(0) else {
            return Ok(None);
        };
        let length = bytes as usize;
        if !(MIN_MESSAGE_BYTES..=MAX_MESSAGE_BYTES).contains(&length) {
            return Err(NotifyError { bytes });
        }
        let Some(second) = number(LENGTH_BYTES) else {
            return Ok(None);
        };
        let start = if second < LEAST_TEXT { 2 * LENGTH_BYTES } else { LENGTH_BYTES };
        let Some(text) = self.bytes.get(start..start + length) else {
            return Ok(None);
        };
        let message = NotifyMessage::parse(text);
        self.bytes.drain(..start + length);
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message() -> impl Strategy<Value = NotifyMessage> {
        use NotifyMessage::{Checkpoint, DoCheckpoint, Other, ProxyInit, XenInit};
        prop_oneof![Just(ProxyInit), Just(XenInit), Just(DoCheckpoint), Just(Checkpoint), "[ -~]{4,64}".prop_map(Other),]
    }

    fn all(decoder: &mut NotifyDecoder) -> Result<Vec<NotifyMessage>, NotifyError> {
        std::iter::from_fn(|| decoder.next_message().transpose()).collect()
    }

    proptest! {
        /// However the bytes are cut, with and without the second length.
        #[test]
        fn messages_come_as_they_were_sent(
            messages in proptest::collection::vec((message(), proptest::option::of(0u32..100)), 1..6),
            cuts in proptest::collection::vec(1usize..40, 1..20),
        ) {
            let mut wire = Vec::new();
            for (message, second) in &messages {
                let bytes = message.encode();
                wire.extend_from_slice(&bytes[..4]);
                wire.extend(second.iter().flat_map(|number| number.to_be_bytes()));
                wire.extend_from_slice(&bytes[4..]);
            }
            let (mut decoder, mut got) = (NotifyDecoder::new(), Vec::new());
            let (mut rest, mut cuts) = (&wire[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (now, later) = rest.split_at(cuts.next().map_or(1, |cut| *cut.min(&rest.len())));
                decoder.feed(now);
                got.extend(all(&mut decoder).unwrap());
                rest = later;
            }
            let sent: Vec<_> = messages.into_iter().map(|(message, _)| message).collect();
            prop_assert_eq!(got, sent);
        }
    }

    #[test]
    fn lengths_that_make_no_sense_are_refused() {
        for bytes in [0, MIN_MESSAGE_BYTES as u32 - 1, MAX_MESSAGE_BYTES as u32 + 1, u32::MAX] {
            let mut decoder = NotifyDecoder::new();
            decoder.feed(&NotifyMessage::Checkpoint.encode());
            decoder.feed(&bytes.to_be_bytes());
            assert_eq!(decoder.next_message(), Ok(Some(NotifyMessage::Checkpoint)));
            assert_eq!(decoder.next_message(), Err(NotifyError { bytes }));
        }
    }

    #[test]
    fn what_is_sent_is_what_libxl_and_qemu_compare_with() {
        assert_eq!(NotifyMessage::DoCheckpoint.encode(), b"\0\0\0\x0dDO_CHECKPOINT");
        assert_eq!(NotifyMessage::XenInit.encode(), b"\0\0\0\x19COLO_COMPARE_GET_XEN_INIT");
        assert_eq!(NotifyMessage::parse(b"COLO_USERSPACE_PROXY_INIT"), NotifyMessage::ProxyInit);
        assert_eq!(NotifyMessage::parse(b"COLO_CHECKPOINT"), NotifyMessage::Checkpoint);
        let other = NotifyMessage::parse(b"COLO_CHECKPOINT\0\n");
        assert_eq!(other.to_string(), "COLO_CHECKPOINT\\u{0}\\n");
    }
}
