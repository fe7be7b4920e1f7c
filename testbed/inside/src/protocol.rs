//! What the testbed says to the agent in a dom0 ([`Request`]), and what that says back ([`Report`]), over one byte stream.
//!
//! A frame is the length of what follows (`u32`), its kind (`u8`), and a body. Numbers are little-endian. Text and bytes are the
//! last field of a body, and end with it; a text before another field has its length (`u16`) in front.
//!
//! ```
//! use colo_testbed_inside::protocol::{Request, read_frame};
//! # fn main() -> Result<(), colo_testbed_inside::protocol::ProtocolError> {
//! let request = Request::Run { id: 1, timeout_ms: 60_000, command: "xl list".into() };
//! let bytes = request.encode()?;
//! let frame = read_frame(&mut bytes.as_slice())?.expect("one frame");
//! assert_eq!(Request::decode(&frame)?, request);
//! # Ok(())
//! # }
//! ```

use std::io::{self, ErrorKind, Read};

/// The longest frame, without its length. Output comes in pieces far smaller; a command longer than this is a script, and belongs
/// into a file.
pub const MAX_FRAME_BYTES: usize = 64 << 10;

/// The name of the virtio-serial port.
pub const PORT_NAME: &str = "colo.testbed";

/// What the testbed asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// Run a command with bash, in a process group of its own.
    Run {
        /// Chosen by the testbed; what the agent says about this command has it, too.
        id: u32,
        /// After so many milliseconds the process group is killed.
        timeout_ms: u64,
        /// The command.
        command: String,
    },
    /// Send a signal to a command's process group. Nothing happens if the command has ended.
    Signal {
        /// The command's.
        id: u32,
        /// The signal's number.
        signal: u8,
    },
    /// Switch the host off.
    Stop,
}

/// What the agent has to say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Report {
    /// The host is up: Xen's daemons run.
    Ready {
        /// Milliseconds since dom0's kernel started.
        uptime_ms: u64,
    },
    /// A command has begun.
    Started {
        /// The command's.
        id: u32,
        /// Its process, and its process group.
        pid: u32,
    },
    /// A command has written something.
    Output {
        /// The command's.
        id: u32,
        /// Where to.
        stream: Stream,
        /// What.
        bytes: Vec<u8>,
    },
    /// A command has ended. The last about this command.
    Exit {
        /// The command's.
        id: u32,
        /// How.
        outcome: Outcome,
        /// Microseconds from just before its start to just after its end, by dom0's monotonic clock.
        elapsed_us: u64,
    },
    /// One of Xen's logs in dom0 has grown.
    Log {
        /// The file's name, without a folder.
        name: String,
        /// What was added.
        bytes: Vec<u8>,
    },
}

/// A stream of output.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a command ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// By itself, with this code.
    Code(u8),
    /// By this signal.
    Signal(u8),
    /// Killed, because it took too long.
    TimedOut,
    /// It could not be run at all.
    NotRun(String),
}

/// Why bytes are no frame, or a frame has no meaning.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// The connection failed, or ended within a frame.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A frame is too long, or empty.
    #[error("a frame of {0} bytes; between 1 and {MAX_FRAME_BYTES} are possible")]
    Length(usize),
    /// A frame's kind is not known.
    #[error("a frame of the unknown kind {0}")]
    Kind(u8),
    /// A frame's body is not what its kind asks for.
    #[error("a frame of kind {0} with a bad body")]
    Body(u8),
}

mod kind {
    pub(super) const RUN: u8 = 1;
    pub(super) const SIGNAL: u8 = 2;
    pub(super) const STOP: u8 = 3;
    pub(super) const READY: u8 = 65;
    pub(super) const STARTED: u8 = 66;
    pub(super) const OUTPUT: u8 = 67;
    pub(super) const EXIT: u8 = 68;
    pub(super) const LOG: u8 = 69;
}

/// Reads one frame: its kind and its body. `None` if the stream ends before it.
///
/// # Errors
/// [`ProtocolError::Io`], [`ProtocolError::Length`].
pub fn read_frame(from: &mut impl Read) -> Result<Option<Vec<u8>>, ProtocolError> {
    let mut length = [0; 4];
    // The first byte alone: an end before it is no error.
    loop {
        match from.read(&mut length[..1]) {
            Ok(0) => return Ok(None),
            Ok(_) => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            Err(error) => return Err(error.into()),
        }
    }
    from.read_exact(&mut length[1..])?;
    let length = u32::from_le_bytes(length) as usize;
    if length == 0 || length > MAX_FRAME_BYTES {
        return Err(ProtocolError::Length(length));
    }
    let mut frame = vec![0; length];
    from.read_exact(&mut frame)?;
    Ok(Some(frame))
}

impl Request {
    /// The frame, with its length.
    ///
    /// # Errors
    /// [`ProtocolError::Length`] when the command is too long.
    pub fn encode(&self) -> Result<Vec<u8>, ProtocolError> {
        match self {
            Request::Run { id, timeout_ms, command } => {
                frame(kind::RUN, &[&id.to_le_bytes(), &timeout_ms.to_le_bytes(), command.as_bytes()])
            }
            Request::Signal { id, signal } => frame(kind::SIGNAL, &[&id.to_le_bytes(), &[*signal]]),
            Request::Stop => frame(kind::STOP, &[]),
        }
    }

    /// What a frame means.
    ///
    /// # Errors
    /// [`ProtocolError::Kind`], [`ProtocolError::Body`].
    pub fn decode(frame: &[u8]) -> Result<Request, ProtocolError> {
        let mut body = Body::of(frame)?;
        let request = match body.kind {
            kind::RUN => Request::Run { id: body.u32()?, timeout_ms: body.u64()?, command: body.text()? },
            kind::SIGNAL => Request::Signal { id: body.u32()?, signal: body.u8()? },
            kind::STOP => Request::Stop,
            other => return Err(ProtocolError::Kind(other)),
        };
        body.end()?;
        Ok(request)
    }
}

impl Report {
    /// The frame, with its length.
    ///
    /// # Errors
    /// [`ProtocolError::Length`] when there are too many bytes in it.
    pub fn encode(&self) -> Result<Vec<u8>, ProtocolError> {
        match self {
            Report::Ready { uptime_ms } => frame(kind::READY, &[&uptime_ms.to_le_bytes()]),
            Report::Started { id, pid } => frame(kind::STARTED, &[&id.to_le_bytes(), &pid.to_le_bytes()]),
            Report::Output { id, stream, bytes } => {
                let stream = match stream {
                    Stream::Stdout => 1,
                    Stream::Stderr => 2,
                };
                frame(kind::OUTPUT, &[&id.to_le_bytes(), &[stream], bytes])
            }
            Report::Exit { id, outcome, elapsed_us } => {
                let (how, number, reason) = match outcome {
                    Outcome::Code(code) => (0, *code, ""),
                    Outcome::Signal(signal) => (1, *signal, ""),
                    Outcome::TimedOut => (2, 0, ""),
                    Outcome::NotRun(reason) => (3, 0, reason.as_str()),
                };
                frame(kind::EXIT, &[&id.to_le_bytes(), &elapsed_us.to_le_bytes(), &[how, number], reason.as_bytes()])
            }
            Report::Log { name, bytes } => {
                let length = u16::try_from(name.len()).map_err(|_| ProtocolError::Length(name.len()))?;
                frame(kind::LOG, &[&length.to_le_bytes(), name.as_bytes(), bytes])
            }
        }
    }

    /// What a frame means.
    ///
    /// # Errors
    /// [`ProtocolError::Kind`], [`ProtocolError::Body`].
    pub fn decode(frame: &[u8]) -> Result<Report, ProtocolError> {
        let mut body = Body::of(frame)?;
        let report = match body.kind {
            kind::READY => Report::Ready { uptime_ms: body.u64()? },
            kind::STARTED => Report::Started { id: body.u32()?, pid: body.u32()? },
            kind::OUTPUT => {
                let id = body.u32()?;
                let stream = match body.u8()? {
                    1 => Stream::Stdout,
                    2 => Stream::Stderr,
                    _ => return Err(ProtocolError::Body(body.kind)),
                };
                Report::Output { id, stream, bytes: body.rest() }
            }
            kind::EXIT => {
                let (id, elapsed_us, how, number) = (body.u32()?, body.u64()?, body.u8()?, body.u8()?);
                let outcome = match (how, number) {
                    (0, code) => Outcome::Code(code),
                    (1, signal) => Outcome::Signal(signal),
                    (2, 0) => Outcome::TimedOut,
                    (3, 0) => Outcome::NotRun(body.text()?),
                    _ => return Err(ProtocolError::Body(body.kind)),
                };
                Report::Exit { id, outcome, elapsed_us }
            }
            kind::LOG => {
                let length = usize::from(u16::from_le_bytes(body.array()?));
                let name = String::from_utf8(body.take(length)?.to_vec());
                Report::Log { name: name.map_err(|_| ProtocolError::Body(body.kind))?, bytes: body.rest() }
            }
            other => return Err(ProtocolError::Kind(other)),
        };
        body.end()?;
        Ok(report)
    }
}

fn frame(kind: u8, fields: &[&[u8]]) -> Result<Vec<u8>, ProtocolError> {
    let length = 1 + fields.iter().map(|field| field.len()).sum::<usize>();
    if length > MAX_FRAME_BYTES {
        return Err(ProtocolError::Length(length));
    }
    let mut frame = Vec::with_capacity(4 + length);
    frame.extend_from_slice(&(length as u32).to_le_bytes());
    frame.push(kind);
    for field in fields {
        frame.extend_from_slice(field);
    }
    Ok(frame)
}

/// What is left of a frame's body.
struct Body<'a> {
    kind: u8,
    bytes: &'a [u8],
}

impl<'a> Body<'a> {
    fn of(frame: &'a [u8]) -> Result<Body<'a>, ProtocolError> {
        let (kind, bytes) = frame.split_first().ok_or(ProtocolError::Length(0))?;
        Ok(Body { kind: *kind, bytes })
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], ProtocolError> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(ProtocolError::Body(self.kind))?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ProtocolError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, ProtocolError> {
        Ok(self.array::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32, ProtocolError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, ProtocolError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes).to_vec()
    }

    fn text(&mut self) -> Result<String, ProtocolError> {
        String::from_utf8(self.rest()).map_err(|_| ProtocolError::Body(self.kind))
    }

    fn end(self) -> Result<(), ProtocolError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(ProtocolError::Body(self.kind)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn request() -> impl Strategy<Value = Request> {
        prop_oneof![
            (any::<u32>(), any::<u64>(), ".{0,80}").prop_map(|(id, timeout_ms, command)| Request::Run {
                id,
                timeout_ms,
                command
            }),
            (any::<u32>(), any::<u8>()).prop_map(|(id, signal)| Request::Signal { id, signal }),
            Just(Request::Stop),
        ]
    }

    fn outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            any::<u8>().prop_map(Outcome::Code),
            any::<u8>().prop_map(Outcome::Signal),
            Just(Outcome::TimedOut),
            ".{0,40}".prop_map(Outcome::NotRun),
        ]
    }

    fn report() -> impl Strategy<Value = Report> {
        let stream = prop_oneof![Just(Stream::Stdout), Just(Stream::Stderr)];
        prop_oneof![
            any::<u64>().prop_map(|uptime_ms| Report::Ready { uptime_ms }),
            (any::<u32>(), any::<u32>()).prop_map(|(id, pid)| Report::Started { id, pid }),
            (any::<u32>(), stream, vec(any::<u8>(), 0..300)).prop_map(|(id, stream, bytes)| Report::Output {
                id,
                stream,
                bytes
            }),
            (any::<u32>(), outcome(), any::<u64>()).prop_map(|(id, outcome, elapsed_us)| Report::Exit {
                id,
                outcome,
                elapsed_us
            }),
            (".{0,40}", vec(any::<u8>(), 0..300)).prop_map(|(name, bytes)| Report::Log { name, bytes }),
        ]
    }

    /// A reader that gives one byte at a time.
    struct Drip<'a>(&'a [u8]);

    impl Read for Drip<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let count = into.len().min(1);
            self.0.read(&mut into[..count])
        }
    }

    proptest! {
        #[test]
        fn what_is_said_is_understood(requests in vec(request(), 0..5), reports in vec(report(), 0..5)) {
            let bytes: Vec<u8> = requests.iter().flat_map(|request| request.encode().unwrap()).collect();
            let mut stream = Drip(&bytes);
            for request in &requests {
                prop_assert_eq!(&Request::decode(&read_frame(&mut stream).unwrap().unwrap()).unwrap(), request);
            }
            prop_assert!(read_frame(&mut stream).unwrap().is_none());

            let bytes: Vec<u8> = reports.iter().flat_map(|report| report.encode().unwrap()).collect();
            let mut stream = bytes.as_slice();
            for report in &reports {
                prop_assert_eq!(&Report::decode(&read_frame(&mut stream).unwrap().unwrap()).unwrap(), report);
            }
        }

        #[test]
        fn a_frame_cut_short_is_an_error(report in report(), cut in any::<prop::sample::Index>()) {
            let bytes = report.encode().unwrap();
            let cut = 1 + cut.index(bytes.len() - 1);
            prop_assert!(read_frame(&mut &bytes[..cut]).is_err());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..64)) {
            let _ = read_frame(&mut bytes.as_slice());
            // What is understood is said in the same way.
            if let Ok(request) = Request::decode(&bytes) {
                prop_assert_eq!(&request.encode().unwrap()[4..], &bytes);
            }
            if let Ok(report) = Report::decode(&bytes) {
                prop_assert_eq!(&report.encode().unwrap()[4..], &bytes);
            }
        }
    }

    #[test]
    fn lengths_have_limits() {
        let too_long = Request::Run { id: 1, timeout_ms: 1, command: "x".repeat(MAX_FRAME_BYTES) };
        assert!(matches!(too_long.encode(), Err(ProtocolError::Length(_))));
        let lie = (MAX_FRAME_BYTES as u32 + 1).to_le_bytes();
        assert!(matches!(read_frame(&mut lie.as_slice()), Err(ProtocolError::Length(_))));
        assert!(matches!(read_frame(&mut [0; 4].as_slice()), Err(ProtocolError::Length(0))));
    }
}
