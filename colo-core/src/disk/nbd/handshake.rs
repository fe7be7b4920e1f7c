use super::Export;
use super::fields::Fields;
use super::wire::{
    ALLOCATION, ALLOCATION_ID, FIXED_NEWSTYLE, MAGIC, NO_ZEROES, OPTION_MAGIC, OPTION_REPLY_MAGIC, info, option, reply,
};

/// The longest option that is looked at: a name may have 4096 bytes, and there may be a few queries.
const MAX_OPTION_BYTES: u32 = 16 << 10;
const OPTION_HEAD_BYTES: usize = 16;

/// What was agreed upon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Session {
    /// Which export, by its number in the list.
    pub export: usize,
    /// The client takes structured replies.
    pub is_structured: bool,
    /// The client may ask what of the disk is allocated.
    pub has_allocation: bool,
}

/// How far a negotiation is.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub enum Progress {
    /// Send the output, and go on.
    More,
    /// Send the output; requests follow.
    Chosen(Session),
    /// Send the output; the client wants no more.
    Aborted,
    /// It speaks something else, or wants what there is not in a way that has no answer. Close the connection.
    Broken(HandshakeError),
}

/// What a client has done wrong.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum HandshakeError {
    /// It does not speak the protocol.
    #[error("the client does not speak NBD's fixed newstyle negotiation")]
    NotNbd,
    /// It has asked for an export that there is not, in the old way, which knows no refusal.
    #[error("the client asks for the export {0:?}, which there is not")]
    NoExport(String),
}

/// A server's side of the negotiation, without input and output.
#[derive(Debug)]
pub struct Handshake {
    exports: Vec<Export>,
    input: Vec<u8>,
    output: Vec<u8>,
    client_flags: Option<u32>,
    is_structured: bool,
    /// Of this export.
    allocation_of: Option<String>,
    /// Bytes of an option that is too long, still to come.
    skip: u64,
}

impl Handshake {
    /// Offers these. The first is what a client gets that names none.
    pub fn new(exports: Vec<Export>) -> Handshake {
        let mut output = MAGIC.to_be_bytes().to_vec();
        output.extend(OPTION_MAGIC.to_be_bytes());
        output.extend(((FIXED_NEWSTYLE | NO_ZEROES) as u16).to_be_bytes());
        Handshake {
            exports,
            input: Vec::new(),
            output,
            client_flags: None,
            is_structured: false,
            allocation_of: None,
            skip: 0,
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

    /// Takes what the client has sent.
    pub fn feed(&mut self, bytes: &[u8]) -> Progress {
        let skipped = self.skip.min(bytes.len() as u64) as usize;
        self.skip -= skipped as u64;
        self.input.extend_from_slice(&bytes[skipped..]);
        loop {
            match self.step() {
                Some(Progress::More) => {}
                Some(progress) => return progress,
                None => return Progress::More,
            }
        }
    }

    /// Takes the next thing that is there as a whole.
    fn step(&mut self) -> Option<Progress> {
        let Some(flags) = self.client_flags else {
            let flags = u32::from_be_bytes(*self.input.first_chunk()?);
            self.input.drain(..4);
            if flags & FIXED_NEWSTYLE == 0 || flags & !(FIXED_NEWSTYLE | NO_ZEROES) != 0 {
                return Some(Progress::Broken(HandshakeError::NotNbd));
            }
            self.client_flags = Some(flags);
            return Some(Progress::More);
        };
        let head: [u8; OPTION_HEAD_BYTES] = *self.input.first_chunk()?;
        let mut fields = Fields(&head);
        let (magic, option, length) = (fields.u64()?, fields.u32()?, fields.u32()?);
        if magic != OPTION_MAGIC {
            return Some(Progress::Broken(HandshakeError::NotNbd));
        }
        if length > MAX_OPTION_BYTES {
            self.reply(option, reply::TOO_BIG, b"the option is too long");
            let here = (self.input.len() - OPTION_HEAD_BYTES).min(length as usize);
            self.input.drain(..OPTION_HEAD_BYTES + here);
            self.skip = u64::from(length) - here as u64;
            return Some(Progress::More);
        }
        let end = OPTION_HEAD_BYTES + length as usize;
        let data = self.input.get(OPTION_HEAD_BYTES..end)?.to_vec();
        self.input.drain(..end);
        Some(self.option(option, &data, flags))
    }

    fn option(&mut self, option: u32, data: &[u8], flags: u32) -> Progress {
        match option {
            option::EXPORT_NAME => return self.export_name(data, flags),
            option::ABORT => {
                self.reply(option, reply::ACK, &[]);
                return Progress::Aborted;
            }
            option::LIST if data.is_empty() => {
                for export in self.exports.clone() {
                    let name = [&(export.name.len() as u32).to_be_bytes(), export.name.as_bytes()].concat();
                    self.reply(option, reply::SERVER, &name);
                }
                self.reply(option, reply::ACK, &[]);
            }
            option::STRUCTURED_REPLY if data.is_empty() => {
                self.is_structured = true;
                self.reply(option, reply::ACK, &[]);
            }
            option::LIST | option::STRUCTURED_REPLY => self.reply(option, reply::INVALID, b"this option has no data"),
            option::INFO | option::GO => return self.go(option, data),
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => self.meta_context(option, data),
            _ => self.reply(option, reply::UNSUPPORTED, &[]),
        }
        Progress::More
    }

    /// The old way to choose.
    fn export_name(&mut self, data: &[u8], flags: u32) -> Progress {
        let name = String::from_utf8_lossy(data).into_owned();
        let Some(number) = self.find(&name) else {
            return Progress::Broken(HandshakeError::NoExport(name));
        };
        let export = &self.exports[number];
        self.output.extend(export.size.to_be_bytes());
        self.output.extend(export.flags(self.is_structured).to_be_bytes());
        if flags & NO_ZEROES == 0 {
            self.output.extend([0; 124]);
        }
        Progress::Chosen(self.session(number))
    }

    fn go(&mut self, option: u32, data: &[u8]) -> Progress {
        let Some((name, wanted)) = go_fields(data) else {
            self.reply(option, reply::INVALID, b"the option's data make no sense");
            return Progress::More;
        };
        let Some(number) = self.find(&name) else {
            self.reply(option, reply::UNKNOWN, format!("there is no export {name:?}").as_bytes());
            return Progress::More;
        };
        let export = self.exports[number].clone();
        let information = |kind: u16, rest: &[u8]| [&kind.to_be_bytes(), rest].concat();
        let flags = export.flags(self.is_structured);
        let size = [&export.size.to_be_bytes()[..], &flags.to_be_bytes()].concat();
        self.reply(option, reply::INFO, &information(info::EXPORT, &size));
        let blocks: Vec<u8> = export.block_sizes().iter().flat_map(|size| size.to_be_bytes()).collect();
        // Told unasked, too: a client that cannot keep to it finds that out by its errors, and others need not guess.
        self.reply(option, reply::INFO, &information(info::BLOCK_SIZE, &blocks));
        for kind in wanted {
            match kind {
                info::NAME => self.reply(option, reply::INFO, &information(kind, export.name.as_bytes())),
                info::DESCRIPTION if !export.description.is_empty() => {
                    self.reply(option, reply::INFO, &information(kind, export.description.as_bytes()));
                }
                _ => {}
            }
        }
        self.reply(option, reply::ACK, &[]);
        if option == option::GO { Progress::Chosen(self.session(number)) } else { Progress::More }
    }

    fn meta_context(&mut self, option: u32, data: &[u8]) {
        let Some((name, queries)) = context_fields(data) else {
            return self.reply(option, reply::INVALID, b"the option's data make no sense");
        };
        if !self.is_structured {
            return self.reply(option, reply::INVALID, b"structured replies come first");
        }
        let Some(number) = self.find(&name) else {
            return self.reply(option, reply::UNKNOWN, format!("there is no export {name:?}").as_bytes());
        };
        let sets = option == option::SET_META_CONTEXT;
        // To list without a query is to ask for all.
        let is_wanted = queries.iter().any(|query| query == ALLOCATION || (!sets && query == "base:"))
            || (!sets && queries.is_empty());
        if sets {
            self.allocation_of = is_wanted.then(|| self.exports[number].name.clone());
        }
        if is_wanted {
            let id = if sets { ALLOCATION_ID } else { 0 };
            self.reply(option, reply::META_CONTEXT, &[&id.to_be_bytes(), ALLOCATION.as_bytes()].concat());
        }
        self.reply(option, reply::ACK, &[]);
    }

    fn find(&self, name: &str) -> Option<usize> {
        let is_default = name.is_empty() && !self.exports.is_empty();
        self.exports.iter().position(|export| export.name == name).or(is_default.then_some(0))
    }

    fn session(&self, export: usize) -> Session {
        let has_allocation = self.allocation_of.as_ref() == Some(&self.exports[export].name);
        Session { export, is_structured: self.is_structured, has_allocation }
    }

    fn reply(&mut self, option: u32, kind: u32, data: &[u8]) {
        self.output.extend(OPTION_REPLY_MAGIC.to_be_bytes());
        for number in [option, kind, data.len() as u32] {
            self.output.extend(number.to_be_bytes());
        }
        self.output.extend_from_slice(data);
    }
}

fn go_fields(data: &[u8]) -> Option<(String, Vec<u16>)> {
    let mut fields = Fields(data);
    let (name, count) = (fields.text()?, fields.u16()?);
    let wanted = (0..count).map(|_| fields.u16()).collect::<Option<_>>()?;
    fields.end()?;
    Some((name, wanted))
}

fn context_fields(data: &[u8]) -> Option<(String, Vec<String>)> {
    let mut fields = Fields(data);
    let (name, count) = (fields.text()?, fields.u32()?);
    let queries = (0..count).map(|_| fields.text()).collect::<Option<_>>()?;
    fields.end()?;
    Some((name, queries))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn exports() -> Vec<Export> {
        let other = Export { description: "a second one".into(), is_read_only: true, ..Export::new("b", 512) };
        vec![Export::new("a", 4096), other]
    }

    fn begun() -> Handshake {
        let mut handshake = Handshake::new(exports());
        handshake.take_output();
        assert_eq!(handshake.feed(&3_u32.to_be_bytes()), Progress::More);
        handshake
    }

    fn option(kind: u32, data: &[u8]) -> Vec<u8> {
        [&OPTION_MAGIC.to_be_bytes()[..], &kind.to_be_bytes(), &(data.len() as u32).to_be_bytes(), data].concat()
    }

    fn name(text: &str) -> Vec<u8> {
        [&(text.len() as u32).to_be_bytes(), text.as_bytes()].concat()
    }

    /// Kinds and data of the replies that wait.
    fn replies(handshake: &mut Handshake) -> Vec<(u32, Vec<u8>)> {
        let output = handshake.take_output();
        let (mut fields, mut replies) = (Fields(&output), Vec::new());
        while !fields.0.is_empty() {
            assert_eq!(fields.u64(), Some(OPTION_REPLY_MAGIC));
            let (_, kind, length) = (fields.u32(), fields.u32().unwrap(), fields.u32().unwrap());
            replies.push((kind, fields.bytes(length as usize).unwrap().to_vec()));
        }
        replies
    }

    #[test]
    fn a_client_chooses() {
        let mut handshake = begun();
        assert_eq!(handshake.feed(&option(option::STRUCTURED_REPLY, &[])), Progress::More);
        let query = [name("b"), 1_u32.to_be_bytes().to_vec(), name(ALLOCATION)].concat();
        assert_eq!(handshake.feed(&option(option::SET_META_CONTEXT, &query)), Progress::More);
        assert_eq!(replies(&mut handshake).iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [1, 4, 1]);
        let go = [name("b"), 1_u16.to_be_bytes().to_vec(), info::DESCRIPTION.to_be_bytes().to_vec()].concat();
        let session = Session { export: 1, is_structured: true, has_allocation: true };
        assert_eq!(handshake.feed(&[option(option::GO, &go), b"more".to_vec()].concat()), Progress::Chosen(session));
        let replies = replies(&mut handshake);
        let size = [&[0, 0][..], &512_u64.to_be_bytes(), &exports()[1].flags(true).to_be_bytes()].concat();
        assert_eq!(replies[0], (reply::INFO, size));
        assert_eq!(replies[2], (reply::INFO, b"\0\x02a second one".to_vec()));
        assert_eq!(handshake.into_rest(), b"more");
    }

    #[test]
    fn what_there_is_not_is_refused_and_the_client_goes_on() {
        let mut handshake = begun();
        let go = [name("c"), 0_u16.to_be_bytes().to_vec()].concat();
        let early = [name("a"), 0_u32.to_be_bytes().to_vec()].concat();
        for (kind, data, refusal) in [
            (option::GO, &go[..], reply::UNKNOWN),
            (option::GO, &go[..3], reply::INVALID),
            (option::SET_META_CONTEXT, &early, reply::INVALID),
            (option::LIST, b"x", reply::INVALID),
            (5, &[], reply::UNSUPPORTED),
            (option::INFO, &vec![0; MAX_OPTION_BYTES as usize + 1], reply::TOO_BIG),
        ] {
            assert_eq!(handshake.feed(&option(kind, data)), Progress::More);
            assert_eq!(replies(&mut handshake).iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [refusal], "{kind}");
        }
        assert_eq!(handshake.feed(&option(option::LIST, &[])), Progress::More);
        assert_eq!(replies(&mut handshake), [(2, name("a")), (2, name("b")), (1, vec![])]);
        assert_eq!(handshake.feed(&option(option::ABORT, &[])), Progress::Aborted);
    }

    #[test]
    fn who_speaks_something_else_is_left() {
        let flags = |flags: u32| Handshake::new(exports()).feed(&flags.to_be_bytes());
        for bad in [0, 2, 7] {
            assert_eq!(flags(bad), Progress::Broken(HandshakeError::NotNbd));
        }
        assert_eq!(begun().feed(b"GET / HTTP/1.1\r\n"), Progress::Broken(HandshakeError::NotNbd));
        let unknown = begun().feed(&option(option::EXPORT_NAME, b"c"));
        assert_eq!(unknown, Progress::Broken(HandshakeError::NoExport("c".into())));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_the_bytes_are_cut(
            cuts in prop::collection::vec(1..40_usize, 1..40), long in 0..2_u32,
        ) {
            let too_long = option(option::INFO, &vec![1; (MAX_OPTION_BYTES * long + long * 9) as usize]);
            let go = [name("a"), 0_u16.to_be_bytes().to_vec()].concat();
            let all = [option(option::LIST, &[]), too_long, option(9, &[]), option(option::GO, &go)].concat();
            let mut whole = begun();
            let session = Session { export: 0, is_structured: false, has_allocation: false };
            prop_assert_eq!(whole.feed(&all), Progress::Chosen(session));
            let (mut cut, mut rest, mut cuts) = (begun(), &all[..], cuts.into_iter().cycle());
            let mut progress = Progress::More;
            while !rest.is_empty() {
                prop_assert_eq!(&progress, &Progress::More);
                let (now, later) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                (progress, rest) = (cut.feed(now), later);
            }
            prop_assert_eq!(progress, Progress::Chosen(session));
            prop_assert_eq!(cut.take_output(), whole.take_output());
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), is_begun in any::<bool>()) {
            let mut handshake = if is_begun { begun() } else { Handshake::new(exports()) };
            let bytes = if is_begun { option(u32::from(bytes.len() as u8 % 12), &bytes) } else { bytes };
            let _ = handshake.feed(&bytes);
        }
    }
}
