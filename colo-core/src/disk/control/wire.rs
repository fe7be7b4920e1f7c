//! What is said on a control socket, packet by packet.

mod report;

use super::{ControlError, VERSION};
use crate::disk::{Compared, DiskError, DiskEvent, DiskStatus, MAX_DISKS};
use crate::ids::Epoch;
use crate::peer::PayloadError;
use crate::peer::wire::{Fields, check_limit};
use std::fmt;
use std::time::Duration;

/// The longest packet: that of an event with the longest text.
pub const MAX_PACKET_BYTES: usize = 2048;
/// The longest text, of why disks are lost. A longer one is cut off.
const MAX_TEXT_BYTES: usize = 1024;
/// The longest that a server is asked to wait for an epoch at a time: it hears nothing else meanwhile.
pub(super) const MAX_WAIT: Duration = Duration::from_millis(250);
/// The longest patience of a connection that is handed over.
const MAX_PATIENCE_MS: u32 = 3_600_000;

/// Whose disks they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Those of the machine that serves.
    Primary,
    /// Those of the one that follows.
    Secondary,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Primary => "primary",
            Role::Secondary => "secondary",
        })
    }
}

/// What is asked for: by whoever drives, but for the last three. With `Attach`, and with nothing else, comes a descriptor. The rest is what
/// [`PrimaryDisks`](crate::disk::PrimaryDisks) and [`SecondaryDisks`](crate::disk::SecondaryDisks) have.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "they are described at those traits")]
pub enum Request {
    Attach {
        patience: Duration,
        sent: u64,
        received: u64,
    },
    Detach,
    Freeze,
    Thaw,
    Barrier(Epoch),
    Committed(Epoch),
    WaitBarrier(Epoch, Duration),
    Release,
    WantsCheckpoint,
    Commit(Epoch),
    FailOver,
    Alone,
    Fenced,
    /// To look out for a read from that place, and for no other one any more.
    ExpectRead {
        disk: u8,
        offset: u64,
    },
    /// Whether it has come.
    WasRead,
    /// To drive the disks from here on: `No` while another does.
    Drive,
    /// What the disks are doing: `Status`.
    Status,
    /// To compare both hosts' disks: `Comparing` now and then, and at the end `Compared` or `NotCompared`.
    Verify,
}

/// What is said to that, with its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Also: yes, or it is here.
    Done,
    /// Or: not yet.
    No,
    /// It will not come.
    Never,
    /// It cannot be done.
    Failed(DiskError),
}

/// What a server says. Answers have the number of what they answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// First: whose disks they are, and how large.
    Hello {
        /// Whose.
        role: Role,
        /// Both hosts have the same ones.
        is_shared: bool,
        /// In bytes.
        sizes: Vec<u64>,
    },
    /// To most requests.
    Answer(u64, Answer),
    /// To `Status`.
    Status(u64, Reported),
    /// To `Verify`: it goes on.
    Comparing {
        /// Of which request.
        number: u64,
        /// So many bytes were compared.
        done_bytes: u64,
        /// Of so many.
        all_bytes: u64,
        /// So many parts differ.
        differing_parts: u64,
    },
    /// To `Verify`: it is over.
    Compared(u64, Compared),
    /// To `Verify`: it cannot be done, or not to its end.
    NotCompared {
        /// Of which request.
        number: u64,
        /// Because there is no secondary, or none any more.
        is_unprotected: bool,
        /// Why.
        why: String,
    },
    /// To whoever drives, at any time.
    Event(DiskEvent),
}

/// What the disks are doing, and whether somebody drives them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reported {
    /// Somebody does.
    pub is_driven: bool,
    /// What they are doing.
    pub disks: DiskStatus,
}

/// A packet that is being written.
struct Packet(Vec<u8>);

impl Packet {
    fn new(kind: u8, number: u64) -> Packet {
        Packet(vec![VERSION, kind]).u64(number)
    }

    fn u64(mut self, value: u64) -> Packet {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn u32(mut self, value: u32) -> Packet {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// As much of it as there is room for.
    fn text(mut self, text: &str) -> Packet {
        let mut end = text.len().min(MAX_TEXT_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.0.extend_from_slice(&(end as u16).to_le_bytes());
        self.0.extend_from_slice(&text.as_bytes()[..end]);
        self
    }
}

/// What is before the fields of a packet: its kind and its number.
fn open(packet: &[u8]) -> Result<(u8, u64, Fields<'_>), ControlError> {
    let mut fields = Fields::new(packet);
    match fields.u8("version")? {
        VERSION => {}
        other => return Err(ControlError::Version(other)),
    }
    Ok((fields.u8("kind")?, fields.u64("number")?, fields))
}

fn bad(what: &'static str, got: impl Into<u64>) -> PayloadError {
    PayloadError::BadValue { what, got: got.into() }
}

fn flag(what: &'static str, fields: &mut Fields<'_>) -> Result<bool, PayloadError> {
    match fields.u32(what)? {
        0 => Ok(false),
        1 => Ok(true),
        got => Err(bad(what, got)),
    }
}

fn millis(what: &'static str, fields: &mut Fields<'_>, limit: u32) -> Result<Duration, PayloadError> {
    let got = fields.u32(what)?;
    check_limit(what, limit as usize, got as usize)?;
    Ok(Duration::from_millis(got.into()))
}

/// A duration in whole milliseconds, rounded up, and no more than that.
fn to_millis(duration: Duration, limit: u32) -> u32 {
    let whole = duration.as_nanos().div_ceil(1_000_000);
    u32::try_from(whole).unwrap_or(u32::MAX).min(limit)
}

const MAX_WAIT_MS: u32 = MAX_WAIT.as_millis() as u32;

impl Request {
    /// As a packet, with its number.
    pub fn encode(&self, number: u64) -> Vec<u8> {
        let packet = |kind| Packet::new(kind, number);
        let packet = match *self {
            Request::Attach { patience, sent, received } => {
                packet(1).u32(to_millis(patience, MAX_PATIENCE_MS).max(1)).u64(sent).u64(received)
            }
            Request::Detach => packet(2),
            Request::Freeze => packet(3),
            Request::Thaw => packet(4),
            Request::Barrier(epoch) => packet(16).u64(epoch.0),
            Request::Committed(epoch) => packet(17).u64(epoch.0),
            Request::Alone => packet(18),
            Request::WaitBarrier(epoch, wait) => packet(32).u64(epoch.0).u32(to_millis(wait, MAX_WAIT_MS)),
            Request::Release => packet(33),
            Request::WantsCheckpoint => packet(34),
            Request::Commit(epoch) => packet(35).u64(epoch.0),
            Request::FailOver => packet(36),
            Request::Fenced => packet(37),
            Request::ExpectRead { disk, offset } => packet(5).u32(disk.into()).u64(offset),
            Request::WasRead => packet(6),
            Request::Drive => packet(48),
            Request::Status => packet(49),
            Request::Verify => packet(50),
        };
        packet.0
    }

    /// The request and its number.
    ///
    /// # Errors
    /// [`ControlError::Version`], [`ControlError::Malformed`].
    pub fn decode(packet: &[u8]) -> Result<(u64, Request), ControlError> {
        let (kind, number, mut fields) = open(packet)?;
        let epoch = |fields: &mut Fields<'_>| fields.u64("epoch").map(Epoch);
        let request = match kind {
            1 => {
                let patience = millis("patience", &mut fields, MAX_PATIENCE_MS)?;
                if patience.is_zero() {
                    return Err(bad("patience", 0_u64).into());
                }
                Request::Attach { patience, sent: fields.u64("messages")?, received: fields.u64("messages")? }
            }
            2 => Request::Detach,
            3 => Request::Freeze,
            4 => Request::Thaw,
            5 => Request::ExpectRead {
                disk: match fields.u32("disk")? {
                    disk if (disk as usize) < MAX_DISKS => disk as u8,
                    other => return Err(bad("disk", other).into()),
                },
                offset: fields.u64("offset")?,
            },
            6 => Request::WasRead,
            16 => Request::Barrier(epoch(&mut fields)?),
            17 => Request::Committed(epoch(&mut fields)?),
            18 => Request::Alone,
            32 => Request::WaitBarrier(epoch(&mut fields)?, millis("wait", &mut fields, MAX_WAIT_MS)?),
            33 => Request::Release,
            34 => Request::WantsCheckpoint,
            35 => Request::Commit(epoch(&mut fields)?),
            36 => Request::FailOver,
            37 => Request::Fenced,
            48 => Request::Drive,
            49 => Request::Status,
            50 => Request::Verify,
            other => return Err(bad("kind of request", other).into()),
        };
        fields.end()?;
        Ok((number, request))
    }
}

impl Said {
    /// As a packet. Texts that are too long are cut off.
    pub fn encode(&self) -> Vec<u8> {
        let packet = match self {
            Said::Hello { role, is_shared, sizes } => {
                let role = match role {
                    Role::Primary => 1,
                    Role::Secondary => 2,
                };
                let packet = Packet::new(64, 0).u32(role).u32((*is_shared).into()).u32(sizes.len() as u32);
                sizes.iter().fold(packet, |packet, size| packet.u64(*size))
            }
            Said::Answer(number, answer) => {
                let (answer, error) = match answer {
                    Answer::Done => (1, 0),
                    Answer::No => (2, 0),
                    Answer::Never => (3, 0),
                    Answer::Failed(error) => (4, *error as u32),
                };
                Packet::new(66, *number).u32(answer).u32(error)
            }
            Said::Status(number, reported) => Packet::new(67, *number).reported(reported),
            Said::Comparing { number, done_bytes, all_bytes, differing_parts } => {
                Packet::new(68, *number).u64(*done_bytes).u64(*all_bytes).u64(*differing_parts)
            }
            Said::Compared(number, compared) => Packet::new(69, *number).compared(compared),
            Said::NotCompared { number, is_unprotected, why } => {
                Packet::new(70, *number).u32((*is_unprotected).into()).text(why)
            }
            Said::Event(DiskEvent::Copying { done_bytes, all_bytes, sent_bytes }) => {
                Packet::new(80, 0).u64(*done_bytes).u64(*all_bytes).u64(*sent_bytes)
            }
            Said::Event(DiskEvent::InStep) => Packet::new(81, 0),
            Said::Event(DiskEvent::WantsCheckpoint) => Packet::new(82, 0),
            Said::Event(DiskEvent::Lost(why)) => Packet::new(83, 0).text(why),
            // One that does not know it takes it for nonsense, and leaves: protection ends then, and the guest hears of it.
            Said::Event(DiskEvent::Failed(why)) => Packet::new(84, 0).text(why),
        };
        packet.0
    }

    /// What is in a packet.
    ///
    /// # Errors
    /// [`ControlError::Version`], [`ControlError::Malformed`].
    pub fn decode(packet: &[u8]) -> Result<Said, ControlError> {
        let (kind, number, mut fields) = open(packet)?;
        if (number == 0) == (66..80).contains(&kind) {
            return Err(bad("number", number).into());
        }
        let said = match kind {
            64 => {
                let role = match fields.u32("role")? {
                    1 => Role::Primary,
                    2 => Role::Secondary,
                    other => return Err(bad("role", other).into()),
                };
                let is_shared = flag("shared", &mut fields)?;
                let count = fields.count("disks", MAX_DISKS, 8)?;
                Said::Hello {
                    role,
                    is_shared,
                    sizes: (0..count).map(|_| fields.u64("size")).collect::<Result<_, _>>()?,
                }
            }
            66 => match (fields.u32("answer")?, fields.u32("error")?) {
                (1, 0) => Said::Answer(number, Answer::Done),
                (2, 0) => Said::Answer(number, Answer::No),
                (3, 0) => Said::Answer(number, Answer::Never),
                (4, error) => Said::Answer(number, Answer::Failed(error_of(error)?)),
                (other, _) => return Err(bad("answer", other).into()),
            },
            67 => Said::Status(number, report::reported(&mut fields)?),
            68 => Said::Comparing {
                number,
                done_bytes: fields.u64("bytes")?,
                all_bytes: fields.u64("bytes")?,
                differing_parts: fields.u64("parts")?,
            },
            69 => Said::Compared(number, report::compared(&mut fields)?),
            70 => Said::NotCompared {
                number,
                is_unprotected: flag("reason", &mut fields)?,
                why: fields.text("reason", MAX_TEXT_BYTES)?,
            },
            80 => Said::Event(DiskEvent::Copying {
                done_bytes: fields.u64("bytes")?,
                all_bytes: fields.u64("bytes")?,
                sent_bytes: fields.u64("bytes")?,
            }),
            81 => Said::Event(DiskEvent::InStep),
            82 => Said::Event(DiskEvent::WantsCheckpoint),
            83 => Said::Event(DiskEvent::Lost(fields.text("reason", MAX_TEXT_BYTES)?)),
            84 => Said::Event(DiskEvent::Failed(fields.text("reason", MAX_TEXT_BYTES)?)),
            other => return Err(bad("kind of message", other).into()),
        };
        fields.end()?;
        Ok(said)
    }
}

fn error_of(number: u32) -> Result<DiskError, PayloadError> {
    use DiskError::*;
    let all = [NotPermitted, Io, Invalid, NoSpace, Overflow, NotSupported];
    all.into_iter().find(|error| *error as u32 == number).ok_or(bad("error", number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn requests() -> Vec<Request> {
        use Request::*;
        let (patience, epoch) = (Duration::from_secs(5), Epoch(7));
        let attach = Attach { patience, sent: 1, received: 2 };
        let waits = [WaitBarrier(epoch, Duration::ZERO), WaitBarrier(epoch, MAX_WAIT)];
        let expect = ExpectRead { disk: MAX_DISKS as u8 - 1, offset: 9 };
        let rest = [attach, Detach, Freeze, Thaw, expect, WasRead, Barrier(epoch), Committed(epoch)];
        rest.into_iter()
            .chain(waits)
            .chain([Release, WantsCheckpoint, Commit(epoch), FailOver, Alone, Fenced, Drive, Status, Verify])
            .collect()
    }

    fn said() -> Vec<Said> {
        let events = [
            DiskEvent::Copying { done_bytes: 1, all_bytes: u64::MAX, sent_bytes: 2 },
            DiskEvent::InStep,
            DiskEvent::WantsCheckpoint,
            DiskEvent::Lost("gone".into()),
            DiskEvent::Failed("a disk".into()),
        ];
        let answers = [Answer::Done, Answer::No, Answer::Never, Answer::Failed(DiskError::NoSpace)];
        let answers = answers.into_iter().zip(1..).map(|(answer, number)| Said::Answer(number, answer));
        let hello = Said::Hello { role: Role::Secondary, is_shared: true, sizes: vec![512; MAX_DISKS] };
        [hello].into_iter().chain(answers).chain(report::tests::said()).chain(events.map(Said::Event)).collect()
    }

    #[test]
    fn everything_arrives_as_it_was_and_has_one_form() {
        for request in requests() {
            let packet = request.encode(9);
            assert_eq!(Request::decode(&packet).unwrap(), (9, request));
            check_form(&packet, |packet| Request::decode(packet).is_ok());
        }
        for said in said() {
            let packet = said.encode();
            assert!(packet.len() <= MAX_PACKET_BYTES);
            assert_eq!(Said::decode(&packet).unwrap(), said);
            check_form(&packet, |packet| Said::decode(packet).is_ok());
        }
    }

    /// Neither shorter nor longer, nor of another version.
    fn check_form(packet: &[u8], is_read: impl Fn(&[u8]) -> bool) {
        assert!((0..packet.len()).all(|length| !is_read(&packet[..length])));
        assert!(!is_read(&[packet, &[0]].concat()));
        assert!(!is_read(&[&[VERSION + 1], &packet[1..]].concat()));
    }

    #[test]
    fn a_long_reason_is_cut_off_between_two_letters() {
        let packet = Said::Event(DiskEvent::Lost("ä".repeat(2000) + "x")).encode();
        assert!(packet.len() <= MAX_PACKET_BYTES);
        assert_eq!(Said::decode(&packet).unwrap(), Said::Event(DiskEvent::Lost("ä".repeat(512))));
    }

    proptest! {
        #[test]
        fn anything_else_is_an_error(kind in any::<u8>(), rest in prop::collection::vec(any::<u8>(), 0..200)) {
            let packet = [&[VERSION, kind][..], &rest].concat();
            if let Ok((number, request)) = Request::decode(&packet) {
                prop_assert_eq!(request.encode(number), packet.clone());
            }
            if let Ok(said) = Said::decode(&packet) {
                prop_assert_eq!(said.encode(), packet);
            }
        }
    }
}
