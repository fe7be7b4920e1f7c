//! What a save helper and libxl say to each other, over two pipes, in the machine's own byte order and word sizes (x86-64's here):
//!
//! ```text
//! helper -> libxl   length u16 | type u16 | arguments        (length: of what follows it)
//! libxl -> helper   reply i32                                (only after a message that wants one)
//!
//! string argument   length u32, with the NUL | bytes | NUL
//! ```
//!
//! A restoring helper sends what it wants logged; STATIC_DATA_DONE, as soon as it knows what kind of machine this is to be;
//! RESTORE_RESULTS and COMPLETE at its end, in this order, whether the domain was restored or not; and then ends with exit code 0. When
//! it ends otherwise, or when COMPLETE carries anything but 0, libxl destroys the domain.
//!
//! libxl's sources are the specification: `libxl_save_helper.c`, `libxl_save_callout.c`, `libxl_save_msgs_gen.pl`.
//!
//! ```
//! use colo_core::xen::toolstack::messages::Message;
//!
//! let message = Message::StaticDataDone { missing: 0 };
//! assert_eq!(message.encode(), [6, 0, 8, 0, 0, 0, 0, 0]);
//! assert!(message.wants_reply());
//! assert_eq!(Message::decode(&message.encode()[2..])?, message);
//! # Ok::<(), colo_core::xen::toolstack::messages::MessageError>(())
//! ```

/// The longest message, without its length: that is a u16.
pub const MAX_MESSAGE_BYTES: usize = u16::MAX as usize;
/// The longest string that [`Message::encode`] puts into a message, in bytes; it cuts longer ones. Two of these fit.
pub const MAX_STRING_BYTES: usize = 16 * 1024;

/// [`Message::StaticDataDone`]: the stream has no CPUID policy, libxl is to make one.
pub const MISSING_CPUID: u32 = 1 << 0;
/// [`Message::StaticDataDone`]: the stream has no MSR policy.
pub const MISSING_MSR: u32 = 1 << 1;

/// How important a line of log is, as `xentoollog.h` numbers them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u32)]
pub enum Level {
    /// For who looks for a fault in the program.
    Debug = 1,
    /// Much.
    Verbose = 2,
    /// More than most want to know.
    Detail = 3,
    /// How far it is.
    Progress = 4,
    /// Good to know.
    Info = 5,
    /// Worth a look.
    Notice = 6,
    /// May become a failure.
    Warn = 7,
    /// A failure.
    Error = 8,
    /// A failure of more than this.
    Critical = 9,
}

/// A message of a helper to libxl. Those that only a save, or only a checkpointed restore knows are here too, so that a whole
/// conversation can be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// 1: a line for the log.
    Log {
        /// A [`Level`].
        level: u32,
        /// An errno that the line is about, or `u32::MAX` for none.
        errno: u32,
        /// The program or the part of it.
        context: String,
        /// The line.
        text: String,
    },
    /// 2: how far it is.
    Progress {
        /// The program or the part of it.
        context: String,
        /// What it does.
        doing: String,
        /// How much of it is done.
        done: u64,
        /// Of how much.
        total: u64,
    },
    /// 3: suspend the domain (save), or the secondary (COLO restore).
    Suspend,
    /// 4: what comes after the copy.
    Postcopy,
    /// 5: a checkpoint is whole.
    Checkpoint,
    /// 6: wait for the next checkpoint.
    WaitCheckpoint,
    /// 7: the device model is to log what it writes.
    SwitchQemuLogdirty {
        /// The domain.
        domid: u32,
        /// 1 to begin, 0 to end.
        enable: u32,
    },
    /// 8: the static data is there.
    StaticDataDone {
        /// [`MISSING_CPUID`], [`MISSING_MSR`].
        missing: u32,
    },
    /// 9: the domain is restored.
    RestoreResults {
        /// Where the domain has its xenstore page: a gfn; for a PV domain an mfn.
        store_gfn: u64,
        /// Where it has its console page.
        console_gfn: u64,
    },
    /// 10: it is over.
    Complete {
        /// 0, or -1 for a failure.
        retval: i32,
        /// Why it failed.
        errno: i32,
    },
}

/// Why bytes are no message.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
pub enum MessageError {
    /// It ends within an argument.
    #[error("a message to libxl is cut off")]
    Truncated,
    /// Bytes come after its last argument.
    #[error("a message to libxl has {0} bytes too many")]
    TooLong(usize),
    /// A type that does not exist.
    #[error("message {0} to libxl is unknown")]
    UnknownType(u16),
    /// A string without its NUL, with one within, or not UTF-8.
    #[error("a string in a message to libxl is malformed")]
    BadString,
}

impl Message {
    /// The type's number; bit `1 << number` in [`super::RestoreRequest::callbacks`] says that libxl wants to be asked.
    pub fn number(&self) -> u16 {
        match self {
            Message::Log { .. } => 1,
            Message::Progress { .. } => 2,
            Message::Suspend => 3,
            Message::Postcopy => 4,
            Message::Checkpoint => 5,
            Message::WaitCheckpoint => 6,
            Message::SwitchQemuLogdirty { .. } => 7,
            Message::StaticDataDone { .. } => 8,
            Message::RestoreResults { .. } => 9,
            Message::Complete { .. } => 10,
        }
    }

    /// Whether libxl answers.
    pub fn wants_reply(&self) -> bool {
        !matches!(self, Message::Log { .. } | Message::Progress { .. } | Message::RestoreResults { .. })
    }

    /// The message with its length in front.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; 2];
        out.extend_from_slice(&self.number().to_le_bytes());
        match self {
            Message::Log { level, errno, context, text } => {
                out.extend_from_slice(&level.to_le_bytes());
                out.extend_from_slice(&errno.to_le_bytes());
                put_string(&mut out, context);
                put_string(&mut out, text);
            }
            Message::Progress { context, doing, done, total } => {
                put_string(&mut out, context);
                put_string(&mut out, doing);
                out.extend_from_slice(&done.to_le_bytes());
                out.extend_from_slice(&total.to_le_bytes());
            }
            Message::Suspend | Message::Postcopy | Message::Checkpoint | Message::WaitCheckpoint => {}
            Message::SwitchQemuLogdirty { domid, enable } => {
                out.extend_from_slice(&domid.to_le_bytes());
                out.extend_from_slice(&enable.to_le_bytes());
            }
            Message::StaticDataDone { missing } => out.extend_from_slice(&missing.to_le_bytes()),
            Message::RestoreResults { store_gfn, console_gfn } => {
                out.extend_from_slice(&store_gfn.to_le_bytes());
                out.extend_from_slice(&console_gfn.to_le_bytes());
            }
            Message::Complete { retval, errno } => {
                out.extend_from_slice(&retval.to_le_bytes());
                out.extend_from_slice(&errno.to_le_bytes());
            }
        }
        // Two strings of the longest are far below 65535.
        let length = (out.len() - 2) as u16;
        out[..2].copy_from_slice(&length.to_le_bytes());
        out
    }

    /// Reads a message without its length, as libxl reads it.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn decode(bytes: &[u8]) -> Result<Message, MessageError> {
        let mut rest = bytes;
        let message = match u16::from_le_bytes(take(&mut rest)?) {
            1 => Message::Log {
                level: u32::from_le_bytes(take(&mut rest)?),
                errno: u32::from_le_bytes(take(&mut rest)?),
                context: take_string(&mut rest)?,
                text: take_string(&mut rest)?,
            },
            2 => Message::Progress {
                context: take_string(&mut rest)?,
                doing: take_string(&mut rest)?,
                done: u64::from_le_bytes(take(&mut rest)?),
                total: u64::from_le_bytes(take(&mut rest)?),
            },
            3 => Message::Suspend,
            4 => Message::Postcopy,
            5 => Message::Checkpoint,
            6 => Message::WaitCheckpoint,
            7 => Message::SwitchQemuLogdirty {
                domid: u32::from_le_bytes(take(&mut rest)?),
                enable: u32::from_le_bytes(take(&mut rest)?),
            },
            8 => Message::StaticDataDone { missing: u32::from_le_bytes(take(&mut rest)?) },
            9 => Message::RestoreResults {
                store_gfn: u64::from_le_bytes(take(&mut rest)?),
                console_gfn: u64::from_le_bytes(take(&mut rest)?),
            },
            10 => Message::Complete {
                retval: i32::from_le_bytes(take(&mut rest)?),
                errno: i32::from_le_bytes(take(&mut rest)?),
            },
            number => return Err(MessageError::UnknownType(number)),
        };
        if rest.is_empty() { Ok(message) } else { Err(MessageError::TooLong(rest.len())) }
    }
}

/// Appends a string, cut at a character, and without the NULs that C's would end at.
fn put_string(out: &mut Vec<u8>, string: &str) {
    let mut end = string.len().min(MAX_STRING_BYTES);
    while !string.is_char_boundary(end) {
        end -= 1;
    }
    let bytes = string.as_bytes()[..end].iter().copied().filter(|byte| *byte != 0);
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend(bytes);
    out.push(0);
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], MessageError> {
    let (value, after) = rest.split_first_chunk().ok_or(MessageError::Truncated)?;
    *rest = after;
    Ok(*value)
}

fn take_string(rest: &mut &[u8]) -> Result<String, MessageError> {
    let length = u32::from_le_bytes(take(rest)?) as usize;
    let (bytes, after) = rest.split_at_checked(length).ok_or(MessageError::Truncated)?;
    *rest = after;
    match bytes.split_last() {
        Some((0, string)) if !string.contains(&0) => {
            String::from_utf8(string.to_vec()).map_err(|_| MessageError::BadString)
        }
        _ => Err(MessageError::BadString),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_messages() {
        let log = Message::Log { level: 8, errno: 5, context: "xc".into(), text: "no".into() };
        assert_eq!(
            log.encode(),
            [24, 0, 1, 0, 8, 0, 0, 0, 5, 0, 0, 0, 3, 0, 0, 0, b'x', b'c', 0, 3, 0, 0, 0, b'n', b'o', 0]
        );
        let results = Message::RestoreResults { store_gfn: 0xfeffc, console_gfn: 0x1_0000_0001 };
        assert_eq!(results.encode(), [18, 0, 9, 0, 0xfc, 0xef, 0xf, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
        let complete = Message::Complete { retval: -1, errno: 22 };
        assert_eq!(complete.encode(), [10, 0, 10, 0, 0xff, 0xff, 0xff, 0xff, 22, 0, 0, 0]);
        assert_eq!(Message::Checkpoint.encode(), [2, 0, 5, 0]);
    }

    #[test]
    fn strings_are_cut_to_what_fits() {
        let long = "é".repeat(MAX_MESSAGE_BYTES);
        let message = Message::Log { level: 5, errno: 0, context: long.clone(), text: format!("a\0b{long}") };
        let bytes = message.encode();
        assert_eq!(usize::from(u16::from_le_bytes([bytes[0], bytes[1]])), bytes.len() - 2);
        let Ok(Message::Log { context, text, .. }) = Message::decode(&bytes[2..]) else { panic!("no log message") };
        assert_eq!(context.len(), MAX_STRING_BYTES);
        assert!(text.starts_with("abé"));
    }

    fn string() -> impl Strategy<Value = String> {
        proptest::collection::vec(proptest::char::any().prop_filter("C ends there", |c| *c != '\0'), 0..40)
            .prop_map(|chars| chars.into_iter().collect())
    }

    fn message() -> impl Strategy<Value = Message> {
        prop_oneof![
            (any::<u32>(), any::<u32>(), string(), string()).prop_map(|(level, errno, context, text)| Message::Log {
                level,
                errno,
                context,
                text
            }),
            (string(), string(), any::<u64>(), any::<u64>())
                .prop_map(|(context, doing, done, total)| Message::Progress { context, doing, done, total }),
            Just(Message::Suspend),
            Just(Message::Postcopy),
            Just(Message::Checkpoint),
            Just(Message::WaitCheckpoint),
            any::<(u32, u32)>().prop_map(|(domid, enable)| Message::SwitchQemuLogdirty { domid, enable }),
            any::<u32>().prop_map(|missing| Message::StaticDataDone { missing }),
            any::<(u64, u64)>().prop_map(|(store_gfn, console_gfn)| Message::RestoreResults { store_gfn, console_gfn }),
            any::<(i32, i32)>().prop_map(|(retval, errno)| Message::Complete { retval, errno }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(message in message()) {
            let bytes = message.encode();
            prop_assert_eq!(usize::from(u16::from_le_bytes([bytes[0], bytes[1]])), bytes.len() - 2);
            prop_assert_eq!(Message::decode(&bytes[2..]), Ok(message));
        }

        #[test]
        fn a_message_cut_off_or_with_more_is_none(message in message(), at in any::<prop::sample::Index>()) {
            let bytes = &message.encode()[2..];
            prop_assert!(Message::decode(&bytes[..at.index(bytes.len())]).is_err());
            prop_assert!(Message::decode(&[bytes, &[0]].concat()).is_err());
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100), kind in 0_u8..12) {
            let _ = Message::decode(&[&[kind, 0], &bytes[..]].concat());
        }
    }
}
