use super::channel::LibxlChannel;
use crate::ids::DomId;
use crate::xen::poll::{ready, ready_one};
use rustix::event::PollFlags;
use rustix::fs::{CWD, Mode, OFlags, mkdirat, open};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, recv,
    recvmsg, sendmsg, socket_with, sockopt,
};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, geteuid, getpid, pidfd_getfd, pidfd_open};
use std::ffi::OsString;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Names the socket of the [`Handover`] to the helper.
pub const HANDOVER_VARIABLE: &str = "COLO_RESTORE_HANDOVER";

/// The first word of the handover's only message, with its version.
const MAGIC: u64 = u64::from_le_bytes(*b"COLO-RH1");
/// The magic and the arguments that follow the descriptors: domid, xenstore's port and domid, the console's port and domid, the
/// callbacks, the stream's kind.
const WORDS: usize = 8;
/// Standard input, standard output, the stream.
const FDS: usize = 3;

/// What libxl wants to have restored, with what its helper got.
#[derive(Debug)]
pub struct RestoreRequest {
    /// The domain: it exists, without memory, and is paused.
    pub domid: DomId,
    /// The domain's event channel for xenstore.
    pub store_evtchn: u32,
    /// The domain that serves xenstore.
    pub store_domid: DomId,
    /// The domain's event channel for its console.
    pub console_evtchn: u32,
    /// The domain that serves the console.
    pub console_domid: DomId,
    /// A bit for the number of each [`Message`](super::messages::Message) that libxl wants to be asked by.
    pub callbacks: u32,
    /// 0: a plain stream; 1: a checkpointed one (Remus); 2: COLO's.
    pub checkpointed: u32,
    /// The stream, after the LIBXC_CONTEXT record's header.
    pub stream: OwnedFd,
}

/// What goes wrong between the helper and the process that waits for it.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum HandoverError {
    /// There is no place for the socket.
    #[error("no socket for libxl's save helper in {place}: {errno}")]
    NoSocket {
        /// The folder that was tried.
        place: PathBuf,
        /// What the system said.
        errno: Errno,
    },
    /// The toolstack did not start the helper in time.
    #[error("the toolstack did not start its save helper in time")]
    TimedOut,
    /// The toolstack ended without having started the helper.
    #[error("the toolstack ended before it came to restore")]
    Ended,
    /// Something else than our helper connected.
    #[error("what connected as libxl's save helper is none ({0})")]
    NotOurs(&'static str),
    /// The system refused.
    #[error("{call}: {errno}")]
    Io {
        /// What was tried.
        call: &'static str,
        /// What the system said.
        errno: Errno,
    },
}

/// The end that waits for the helper. The socket is made in a folder of its own that only this user may enter, so that nobody else
/// can connect, nor put another socket in its place. Both are gone again at once: the helper finds the socket through this process's
/// descriptors, and nothing is left when this process is killed.
#[derive(Debug)]
pub struct Handover {
    socket: OwnedFd,
    /// What the path leads to.
    _place: OwnedFd,
    path: PathBuf,
}

impl Handover {
    /// Listens in `/run` (root) or in the user's `XDG_RUNTIME_DIR`, or where temporary files go.
    ///
    /// # Errors
    /// [`HandoverError::NoSocket`].
    pub fn listen() -> Result<Handover, HandoverError> {
        let place = match std::env::var_os("XDG_RUNTIME_DIR") {
            _ if geteuid().is_root() => PathBuf::from("/run"),
            Some(place) if !place.is_empty() => place.into(),
            _ => std::env::temp_dir(),
        };
        Self::listen_in(&place)
    }

    /// Listens in a new folder in `place`, which must be one where others may not remove or rename this user's files.
    ///
    /// # Errors
    /// [`HandoverError::NoSocket`].
    pub fn listen_in(place: &Path) -> Result<Handover, HandoverError> {
        // An existing folder is refused by mkdir, so a name that can be guessed does no harm.
        let number = crate::random::number();
        let folder = place.join(format!("colo-{number:016x}"));
        let path = folder.join("handover");
        let no_socket = |errno| HandoverError::NoSocket { place: place.to_owned(), errno };
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).map_err(no_socket)?;
        mkdirat(CWD, &folder, Mode::RWXU).map_err(no_socket)?;
        let bound = SocketAddrUnix::new(&path).and_then(|address| bind(&socket, &address));
        let listens = bound.and_then(|()| listen(&socket, 1));
        let found = listens.and_then(|()| open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()));
        // What cannot be removed is an empty folder in a place that the next start of the host empties.
        let _ = std::fs::remove_file(&path);
        let _ = std::fs::remove_dir(&folder);
        let found = found.map_err(no_socket)?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), found.as_raw_fd()).into();
        Ok(Handover { socket, _place: found, path })
    }

    /// What [`HANDOVER_VARIABLE`] must be for the toolstack that is started.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the helper. `toolstack` becomes readable when the toolstack has ended: a pidfd.
    ///
    /// # Errors
    /// [`HandoverError`].
    pub fn accept(
        &self,
        toolstack: BorrowedFd<'_>,
        deadline: Instant,
    ) -> Result<(RestoreRequest, LibxlChannel), HandoverError> {
        match ready([(self.socket.as_fd(), PollFlags::IN), (toolstack, PollFlags::IN)], deadline).map_err(io("poll"))? {
            [true, _] => {}
            [false, true] => return Err(HandoverError::Ended),
            [false, false] => return Err(HandoverError::TimedOut),
        }
        let helper = accept_with(&self.socket, SocketFlags::CLOEXEC).map_err(io("accept"))?;
        let user = sockopt::socket_peercred(&helper).map_err(io("getsockopt"))?.uid;
        if user != geteuid() && !user.is_root() {
            return Err(HandoverError::NotOurs("another user's"));
        }
        if !ready_one(&helper, PollFlags::IN, deadline).map_err(io("poll"))? {
            return Err(HandoverError::TimedOut);
        }
        receive(helper)
    }
}

fn receive(helper: OwnedFd) -> Result<(RestoreRequest, LibxlChannel), HandoverError> {
    let mut bytes = [0; WORDS * 8];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(&helper, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
        .map_err(io("recvmsg"))?;
    if got.bytes != bytes.len() || got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(HandoverError::NotOurs("a message of another length"));
    }
    let mut fds = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => fds.collect(),
        _ => Vec::new(),
    });
    let (Some(stdin), Some(stdout), Some(stream), None) = (fds.next(), fds.next(), fds.next(), fds.next()) else {
        return Err(HandoverError::NotOurs("a message with other descriptors"));
    };
    let mut words = bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()));
    if words.next() != Some(MAGIC) {
        return Err(HandoverError::NotOurs("another version's"));
    }
    let mut word =
        || words.next().and_then(|word| u32::try_from(word).ok()).ok_or(HandoverError::NotOurs("a number too large"));
    let request = RestoreRequest {
        domid: DomId(word()?),
        store_evtchn: word()?,
        store_domid: DomId(word()?),
        console_evtchn: word()?,
        console_domid: DomId(word()?),
        callbacks: word()?,
        checkpointed: word()?,
        stream,
    };
    let channel = LibxlChannel::new(stdout, stdin, helper).map_err(io("fcntl"))?;
    Ok((request, channel))
}

/// This process, when libxl has started it as its save helper: to be looked for at the very beginning of `main`.
///
/// ```no_run
/// use colo_core::xen::toolstack::HelperRole;
///
/// fn main() -> std::process::ExitCode {
///     if let Some(helper) = HelperRole::detect() {
///         return helper.run();
///     }
///     // ... what the program is for ...
///     std::process::ExitCode::SUCCESS
/// }
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HelperRole {
    handover: PathBuf,
    arguments: Vec<OsString>,
}

impl HelperRole {
    /// The role, when [`HANDOVER_VARIABLE`] is set and libxl's first argument is there. A program further down that finds the
    /// variable in its environment does not have that.
    pub fn detect() -> Option<HelperRole> {
        Self::from_parts(std::env::var_os(HANDOVER_VARIABLE), std::env::args_os().skip(1))
    }

    fn from_parts(handover: Option<OsString>, arguments: impl Iterator<Item = OsString>) -> Option<HelperRole> {
        let handover = PathBuf::from(handover?);
        let arguments: Vec<OsString> = arguments.collect();
        let mode = arguments.first()?;
        (mode == "--restore-domain" || mode == "--save-domain").then_some(HelperRole { handover, arguments })
    }

    /// Hands over, waits for the exit code, and gives it back. It is 1 when the other end goes away, and when nothing could be
    /// handed over; a line on standard error says why.
    pub fn run(&self) -> ExitCode {
        match self.hand_over() {
            Ok(code) => ExitCode::from(code),
            Err(why) => {
                eprintln!("colo: cannot hand over to {}: {why}", self.handover.display());
                ExitCode::FAILURE
            }
        }
    }

    fn hand_over(&self) -> Result<u8, String> {
        let (stream, words) = self.words()?;
        let call = |call: &'static str| move |errno: Errno| format!("{call}: {errno}");
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(call("socket"))?;
        let address = SocketAddrUnix::new(&self.handover).map_err(call("its path"))?;
        connect(&socket, &address).map_err(call("connect"))?;

        let stream = inherited(stream)?;
        let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
        let fds = [stdin.as_fd(), stdout.as_fd(), stream.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&fds));
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        sendmsg(&socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL).map_err(call("sendmsg"))?;
        drop(stream);

        // As long as the restore takes; the other end's death ends it, and so does libxl, by a signal.
        let mut code = [0];
        loop {
            match recv(&socket, &mut code, RecvFlags::empty()) {
                Ok((1, _)) => return Ok(code[0]),
                Ok(_) => return Err("it went away".into()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(format!("recv: {errno}")),
            }
        }
    }

    /// The stream's descriptor, and the message.
    fn words(&self) -> Result<(RawFd, [u64; WORDS]), String> {
        let mut arguments = self.arguments.iter().map(|argument| argument.to_str().ok_or("an argument is not UTF-8"));
        if arguments.next() != Some(Ok("--restore-domain")) {
            return Err("only restores are handed over".into());
        }
        let stream = arguments.next().ok_or("no stream")??;
        let stream = stream.parse().map_err(|_| format!("the stream is no descriptor: {stream:?}"))?;
        // The back channel: COLO's own in libxl, which we do not use.
        arguments.next().ok_or("no back channel")??;
        let mut words = [MAGIC; WORDS];
        for word in &mut words[1..] {
            let argument = arguments.next().ok_or("an argument is missing")??;
            *word = argument.parse().map_err(|_| format!("no number: {argument:?}"))?;
        }
        match arguments.next() {
            None => Ok((stream, words)),
            Some(_) => Err("an argument too many".into()),
        }
    }
}

/// A copy of the descriptor that libxl has named by its number.
fn inherited(fd: RawFd) -> Result<OwnedFd, String> {
    let copy = pidfd_open(getpid(), PidfdFlags::empty()).and_then(|own| pidfd_getfd(own, fd, PidfdGetfdFlags::empty()));
    copy.map_err(|errno| format!("stream descriptor {fd}: {errno}"))
}

fn io(call: &'static str) -> impl Fn(Errno) -> HandoverError {
    move |errno| HandoverError::Io { call, errno }
}
