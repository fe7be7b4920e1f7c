use crate::disk::nbd::Export;
use crate::disk::nbd::fields::Fields;
use crate::disk::nbd::wire::{
    ALLOCATION, FIXED_NEWSTYLE, MAGIC, MAX_REQUEST_BYTES, NO_ZEROES, OPTION_MAGIC, OPTION_REPLY_MAGIC, can, info,
    option, reply,
};

/// The longest answer to an option: texts have at most 4096 bytes.
const MAX_REPLY_BYTES: u32 = 16 << 10;
/// The most answers to one option.
const MAX_REPLIES: usize = 64;
/// The least block size of a server can be no more than that.
const MAX_MINIMUM_BLOCK: u32 = 64 << 10;
const REPLY_HEAD_BYTES: usize = 20;
/// Zeroes behind the answer to `NBD_OPT_EXPORT_NAME`, if they were not agreed away.
const OLD_ZEROES: usize = 124;

/// What a server offers: an export, and what can be asked of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer {
    /// The export, under the name by which it was asked for.
    pub export: Export,
    /// No read or write may be longer, in bytes.
    pub maximum_block: u32,
    /// The server sends structured replies.
    pub is_structured: bool,
    /// By this number it tells what is allocated.
    pub allocation_id: Option<u32>,
    flags: u16,
}

impl Offer {
    /// It can make durable what was written.
    pub fn can_flush(&self) -> bool {
        self.flags & can::FLUSH != 0
    }

    /// It can be told what need not be kept.
    pub fn can_trim(&self) -> bool {
        self.flags & can::TRIM != 0
    }

    /// It makes zeroes itself.
    pub fn can_write_zeroes(&self) -> bool {
        self.flags & can::WRITE_ZEROES != 0
    }

    /// Whether it may take the place of that one, which was there before.
    pub(super) fn can_stand_in_for(&self, other: &Offer) -> bool {
        let abilities = can::FLUSH | can::TRIM | can::WRITE_ZEROES;
        self.export.size == other.export.size
            && self.export.is_read_only == other.export.is_read_only
            && self.export.minimum_block <= other.export.minimum_block
            && self.maximum_block >= other.maximum_block
            && (other.flags & abilities) & !self.flags == 0
            && (self.allocation_id.is_some() || other.allocation_id.is_none())
    }

    /// A flush over one connection is one for all.
    pub fn is_multi_connection(&self) -> bool {
        self.flags & can::MULTI_CONN != 0
    }
}

/// How far a negotiation is.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub enum ClientProgress {
    /// Send the output, and go on.
    More,
    /// Requests may follow.
    Agreed(Offer),
    /// Close the connection.
    Broken(NegotiationError),
}

/// Why a server is not one for this client.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum NegotiationError {
    /// It does not speak the protocol, or its old style alone.
    #[error("the server does not speak NBD's newstyle negotiation")]
    NotNbd,
    /// It has no such export.
    #[error("the server has no export {name:?}: {text}")]
    NoExport {
        /// What was asked for.
        name: String,
        /// What it says.
        text: String,
    },
    /// It does not want this client.
    #[error("the server refuses (error {code}): {text}")]
    Refused {
        /// Its reason, without the bit that all of them have.
        code: u32,
        /// What it says.
        text: String,
    },
    /// It answers what was not asked, or with what makes no sense.
    #[error("the server's answers make no sense: {0}")]
    Senseless(&'static str),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Greeting,
    Option(u32),
    /// The old way, which has an answer of its own.
    ExportName,
}

/// A client's side of the negotiation, without input and output.
#[derive(Debug)]
pub struct ClientHandshake {
    name: String,
    input: Vec<u8>,
    output: Vec<u8>,
    stage: Stage,
    has_no_zeroes: bool,
    is_structured: bool,
    allocation_id: Option<u32>,
    size_and_flags: Option<(u64, u16)>,
    blocks: [u32; 3],
    replies: usize,
}

impl ClientHandshake {
    /// Asks for that export; an empty name is the server's choice.
    pub fn new(name: &str) -> ClientHandshake {
        ClientHandshake {
            name: name.to_owned(),
            input: Vec::new(),
            output: Vec::new(),
            stage: Stage::Greeting,
            has_no_zeroes: false,
            is_structured: false,
            allocation_id: None,
            size_and_flags: None,
            // What a client may rely upon that is told nothing.
            blocks: [1, 4096, MAX_REQUEST_BYTES],
            replies: 0,
        }
    }

    /// What is to be sent.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// What has come behind the negotiation.
    pub fn into_rest(self) -> Vec<u8> {
        self.input
    }

    /// Takes what the server has sent.
    pub fn feed(&mut self, bytes: &[u8]) -> ClientProgress {
        self.input.extend_from_slice(bytes);
        loop {
            let step = match self.stage {
                Stage::Greeting => self.greeting(),
                Stage::Option(option) => self.option_reply(option),
                Stage::ExportName => self.export_name(),
            };
            match step {
                Ok(Some(ClientProgress::More)) => {}
                Ok(Some(progress)) => return progress,
                Ok(None) => return ClientProgress::More,
                Err(error) => return ClientProgress::Broken(error),
            }
        }
    }

    fn greeting(&mut self) -> Result<Option<ClientProgress>, NegotiationError> {
        // Something else is known by its first bytes: it may never send as many as these.
        let expected = [MAGIC.to_be_bytes(), OPTION_MAGIC.to_be_bytes()].concat();
        if self.input.iter().zip(&expected).any(|(is, expected)| is != expected) {
            return Err(NegotiationError::NotNbd);
        }
        let Some(greeting) = self.input.first_chunk::<18>() else { return Ok(None) };
        let flags = u32::from(u16::from_be_bytes([greeting[16], greeting[17]]));
        self.input.drain(..18);
        self.has_no_zeroes = flags & NO_ZEROES != 0;
        self.output.extend((flags & (FIXED_NEWSTYLE | NO_ZEROES)).to_be_bytes());
        if flags & FIXED_NEWSTYLE == 0 {
            self.ask_by_name();
        } else {
            self.ask(option::STRUCTURED_REPLY, &[]);
        }
        Ok(Some(ClientProgress::More))
    }

    fn option_reply(&mut self, asked: u32) -> Result<Option<ClientProgress>, NegotiationError> {
        let Some(head) = self.input.first_chunk::<REPLY_HEAD_BYTES>() else { return Ok(None) };
        let mut fields = Fields(head);
        let head = (fields.u64(), fields.u32(), fields.u32(), fields.u32());
        let (Some(OPTION_REPLY_MAGIC), Some(option), Some(kind), Some(length)) = head else {
            return Err(NegotiationError::Senseless("an option's reply without its magic number"));
        };
        if option != asked {
            return Err(NegotiationError::Senseless("a reply to another option"));
        }
        if length > MAX_REPLY_BYTES {
            return Err(NegotiationError::Senseless("an option's reply that is too long"));
        }
        let end = REPLY_HEAD_BYTES + length as usize;
        let Some(data) = self.input.get(REPLY_HEAD_BYTES..end).map(<[u8]>::to_vec) else { return Ok(None) };
        self.input.drain(..end);
        self.replies += 1;
        if self.replies > MAX_REPLIES {
            return Err(NegotiationError::Senseless("endless replies to an option"));
        }
        match asked {
            option::STRUCTURED_REPLY => self.structured(kind),
            option::SET_META_CONTEXT => self.context(kind, &data),
            _ => self.go(kind, &data),
        }
    }

    fn structured(&mut self, kind: u32) -> Result<Option<ClientProgress>, NegotiationError> {
        self.is_structured = kind == reply::ACK;
        if self.is_structured {
            let mut query = self.name_field();
            query.extend(1_u32.to_be_bytes());
            query.extend((ALLOCATION.len() as u32).to_be_bytes());
            query.extend(ALLOCATION.as_bytes());
            self.ask(option::SET_META_CONTEXT, &query);
        } else if kind & reply::ERROR_BIT != 0 {
            self.ask_to_go();
        } else {
            return Err(NegotiationError::Senseless("an answer that NBD_OPT_STRUCTURED_REPLY does not have"));
        }
        Ok(Some(ClientProgress::More))
    }

    fn context(&mut self, kind: u32, data: &[u8]) -> Result<Option<ClientProgress>, NegotiationError> {
        let mut fields = Fields(data);
        match kind {
            reply::META_CONTEXT => {
                let id = fields.u32().filter(|_| fields.0 == ALLOCATION.as_bytes() && self.allocation_id.is_none());
                self.allocation_id = Some(id.ok_or(NegotiationError::Senseless("a context that was not asked for"))?);
            }
            reply::ACK => self.ask_to_go(),
            // It knows none, or not this export: the next option says which.
            kind if kind & reply::ERROR_BIT != 0 => {
                self.allocation_id = None;
                self.ask_to_go();
            }
            _ => return Err(NegotiationError::Senseless("an answer that NBD_OPT_SET_META_CONTEXT does not have")),
        }
        Ok(Some(ClientProgress::More))
    }

    fn go(&mut self, kind: u32, data: &[u8]) -> Result<Option<ClientProgress>, NegotiationError> {
        let text = || String::from_utf8_lossy(data).into_owned();
        match kind {
            reply::INFO => {
                self.information(data).ok_or(NegotiationError::Senseless("information about an export"))?;
                Ok(Some(ClientProgress::More))
            }
            reply::ACK => self.offer().map(Some),
            reply::UNSUPPORTED => {
                self.ask_by_name();
                Ok(Some(ClientProgress::More))
            }
            reply::UNKNOWN => Err(NegotiationError::NoExport { name: self.name.clone(), text: text() }),
            kind if kind & reply::ERROR_BIT != 0 => {
                Err(NegotiationError::Refused { code: kind & !reply::ERROR_BIT, text: text() })
            }
            _ => Err(NegotiationError::Senseless("an answer that NBD_OPT_GO does not have")),
        }
    }

    fn information(&mut self, data: &[u8]) -> Option<()> {
        let mut fields = Fields(data);
        match fields.u16()? {
            info::EXPORT => {
                self.size_and_flags = Some((fields.u64()?, fields.u16()?));
                fields.end()
            }
            info::BLOCK_SIZE => {
                self.blocks = [fields.u32()?, fields.u32()?, fields.u32()?];
                fields.end()
            }
            // What was not asked for may be told, too.
            _ => Some(()),
        }
    }

    fn export_name(&mut self) -> Result<Option<ClientProgress>, NegotiationError> {
        let length = 10 + if self.has_no_zeroes { 0 } else { OLD_ZEROES };
        let Some(mut fields) = self.input.get(..length).map(Fields) else { return Ok(None) };
        self.size_and_flags = fields.u64().zip(fields.u16());
        self.input.drain(..length);
        self.offer().map(Some)
    }

    fn offer(&self) -> Result<ClientProgress, NegotiationError> {
        let (size, flags) = self.size_and_flags.ok_or(NegotiationError::Senseless("an export without a size"))?;
        let [minimum, preferred, maximum] = self.blocks;
        let is_sound = minimum.is_power_of_two()
            && minimum <= MAX_MINIMUM_BLOCK
            && preferred.is_power_of_two()
            && preferred >= minimum
            && maximum >= minimum;
        if !is_sound {
            return Err(NegotiationError::Senseless("impossible block sizes"));
        }
        if flags & can::HAS_FLAGS == 0 || i64::try_from(size).is_err() {
            return Err(NegotiationError::Senseless("impossible flags, or an impossible size"));
        }
        let export = Export {
            minimum_block: minimum,
            preferred_block: preferred,
            is_read_only: flags & can::READ_ONLY != 0,
            ..Export::new(&self.name, size)
        };
        let maximum = maximum.min(MAX_REQUEST_BYTES);
        Ok(ClientProgress::Agreed(Offer {
            export,
            maximum_block: maximum - maximum % minimum,
            is_structured: self.is_structured,
            allocation_id: self.allocation_id,
            flags,
        }))
    }

    fn ask_to_go(&mut self) {
        let mut data = self.name_field();
        data.extend(1_u16.to_be_bytes());
        data.extend(info::BLOCK_SIZE.to_be_bytes());
        self.ask(option::GO, &data);
    }

    fn ask_by_name(&mut self) {
        let name = self.name.clone();
        self.ask(option::EXPORT_NAME, name.as_bytes());
        self.stage = Stage::ExportName;
    }

    fn ask(&mut self, option: u32, data: &[u8]) {
        self.output.extend(OPTION_MAGIC.to_be_bytes());
        self.output.extend(option.to_be_bytes());
        self.output.extend((data.len() as u32).to_be_bytes());
        self.output.extend_from_slice(data);
        self.stage = Stage::Option(option);
        self.replies = 0;
    }

    fn name_field(&self) -> Vec<u8> {
        [&(self.name.len() as u32).to_be_bytes(), self.name.as_bytes()].concat()
    }
}
