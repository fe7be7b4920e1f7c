use super::comment::Comment;
use super::error::{RecordError, RecordErrorKind};
use super::pcapng::{Block, Blocks, Packet};
use super::{MAX_FILE_BYTES, Miscompare, PRIMARY, SECONDARY, explain};
use crate::compare::FlowKey;
use crate::net::Frame;
use std::collections::{HashMap, VecDeque};
use std::io::Read;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The most bytes of frames that are held at a time: as many as a whole recording of ours may have.
const MAX_HELD_BYTES: usize = MAX_FILE_BYTES as usize;

/// Reads a recording, one miscompare after the other. See the [module](super) for what it makes of other files.
pub struct RecordReader<R> {
    blocks: Blocks<R>,
    /// Names of this section's interfaces; `None` before the first section.
    interfaces: Option<Vec<Option<String>>>,
    /// The miscompare whose frames are being read.
    open: Option<Miscompare>,
    /// Frames without a comment of ours.
    flows: Flows,
    held_bytes: usize,
    /// Whole ones that were not given out yet.
    ready: VecDeque<Miscompare>,
    end: Option<End>,
}

enum End {
    Reached,
    Wrong(RecordError),
}

/// Frames by their flow, in the order in which the flows were first seen.
#[derive(Default)]
struct Flows {
    index: HashMap<FlowKey, usize>,
    list: Vec<Miscompare>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Primary,
    Secondary,
}

impl<R: Read> RecordReader<R> {
    /// Nothing is read yet.
    pub fn new(source: R) -> Self {
        RecordReader {
            blocks: Blocks::new(source),
            interfaces: None,
            open: None,
            flows: Flows::default(),
            held_bytes: 0,
            ready: VecDeque::new(),
            end: None,
        }
    }

    /// The next miscompare; `None` at the end. What the file has before it ends in disorder comes before the error.
    ///
    /// # Errors
    /// [`RecordError`] when the file is no recording, or is damaged. Nothing follows it.
    pub fn next_miscompare(&mut self) -> Result<Option<Miscompare>, RecordError> {
        while self.ready.is_empty() {
            match self.end.take() {
                None => self.end = self.step().unwrap_or_else(|error| Some(End::Wrong(error))),
                Some(End::Reached) => {
                    self.end = Some(End::Reached);
                    return Ok(None);
                }
                Some(End::Wrong(error)) => {
                    self.end = Some(End::Reached);
                    return Err(error);
                }
            }
            if self.end.is_some() {
                self.close();
                self.ready.extend(self.flows.take_different());
            }
        }
        Ok(self.ready.pop_front())
    }

    /// Reads one block.
    fn step(&mut self) -> Result<Option<End>, RecordError> {
        let at = self.blocks.offset();
        let wrong = |kind| RecordError { offset: at, kind };
        match self.blocks.next_block()? {
            Some(Block::Section) => {
                self.end_section().map_err(wrong)?;
                self.interfaces = Some(Vec::new());
                self.close();
            }
            Some(Block::Interface { name }) => {
                let interfaces = self.interfaces.get_or_insert_default();
                interfaces.push(name);
                if interfaces.len() > 2 {
                    return Err(wrong(RecordErrorKind::Interfaces(interfaces.len())));
                }
            }
            Some(Block::Packet(packet)) => self.packet(packet).map_err(wrong)?,
            None => {
                self.end_section().map_err(wrong)?;
                return Ok(Some(End::Reached));
            }
        }
        Ok(None)
    }

    fn end_section(&self) -> Result<(), RecordErrorKind> {
        match &self.interfaces {
            Some(interfaces) if interfaces.len() != 2 => Err(RecordErrorKind::Interfaces(interfaces.len())),
            _ => Ok(()),
        }
    }

    fn packet(&mut self, packet: Packet) -> Result<(), RecordErrorKind> {
        let side = self.side(packet.interface);
        let comment = packet.comments.iter().find_map(|comment| Comment::parse(comment));
        let same =
            self.open.as_ref().zip(comment.as_ref()).is_some_and(|(open, comment)| open.number == comment.number);
        if comment.is_some() && !same {
            self.close();
        }
        self.held_bytes += packet.data.len();
        if self.held_bytes > MAX_HELD_BYTES {
            return Err(RecordErrorKind::TooMuch(MAX_HELD_BYTES));
        }
        let time = UNIX_EPOCH + Duration::from_nanos(packet.nanos);
        let frame = Frame::from(packet.data);
        let into = match comment {
            Some(comment) => self.open.get_or_insert_with(|| Miscompare {
                number: comment.number,
                time,
                epoch: comment.epoch,
                what: comment.what,
                primary: Vec::new(),
                secondary: Vec::new(),
                frames: comment.frames,
            }),
            None => self.flows.of(&frame, time),
        };
        match side {
            Side::Primary => into.primary.push(frame),
            Side::Secondary => into.secondary.push(frame),
        }
        Ok(())
    }

    /// The first is the primary's, unless a name says otherwise.
    fn side(&self, interface: u32) -> Side {
        let name = |interface: usize| self.interfaces.as_ref()?.get(interface)?.as_deref();
        let swapped = name(0) == Some(SECONDARY) || name(1) == Some(PRIMARY);
        if (interface == 0) != swapped { Side::Primary } else { Side::Secondary }
    }

    /// The open miscompare has no more frames.
    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            self.held_bytes -= open.primary.iter().chain(&open.secondary).map(|frame| frame.len()).sum::<usize>();
            self.ready.push_back(open);
        }
    }
}

impl Flows {
    fn of(&mut self, frame: &Frame, time: SystemTime) -> &mut Miscompare {
        let key = FlowKey::of(0, frame);
        let index = *self.index.entry(key).or_insert_with(|| {
            self.list.push(Miscompare {
                number: 0,
                time,
                epoch: None,
                what: key.kind.to_string(),
                primary: Vec::new(),
                secondary: Vec::new(),
                frames: 0,
            });
            self.list.len() - 1
        });
        self.list[index].frames += 1;
        &mut self.list[index]
    }

    /// Those flows in which the two sides differ, numbered.
    fn take_different(&mut self) -> impl Iterator<Item = Miscompare> {
        self.index.clear();
        let different = std::mem::take(&mut self.list).into_iter().filter(|flow| !explain(flow).differences.is_empty());
        different.zip(1..).map(|(flow, number)| Miscompare { number, ..flow })
    }
}
