use super::channel::{ChannelError, LibxlChannel};
use super::handover::{HANDOVER_VARIABLE, Handover, HandoverError, RestoreRequest};
use super::restore_error::RestoreToolstackError;
use super::restore_guard::RestoreGuard;
use super::target::Target;
use super::userdata::DomainUuid;
use super::xl::{Running, STDIN_PATH, Xl};
use crate::ids::DomId;
use crate::xen::poll::ready;
use rustix::event::PollFlags;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// What to restore, and how.
#[derive(Clone, Debug)]
pub struct RestoreOptions<'a> {
    /// What `xl` and libxl read before the domain's memory is wanted: `xl`'s file header with the configuration, libxl's
    /// stream header, the header of the LIBXC_CONTEXT record. `xl` builds the domain after the configuration in here.
    pub head: &'a [u8],
    /// The name that the configuration has.
    pub name: &'a str,
    /// The UUID that the configuration has.
    pub uuid: DomainUuid,
    /// Leave the domain paused (`xl restore -p`).
    pub paused: bool,
    /// The program that runs [`HelperRole`](super::HelperRole); `None` for this one.
    pub helper: Option<&'a Path>,
    /// How long `xl` may take until it wants the memory. It may have to make other domains give memory back.
    pub start_limit: Duration,
    /// How long it may take from there to the end: device model, devices, hotplug scripts.
    pub finish_limit: Duration,
}

impl<'a> RestoreOptions<'a> {
    /// For [`Self::start_limit`] and [`Self::finish_limit`]: more than libxl's own limits for their parts, so that libxl's
    /// errors come first.
    pub const DEFAULT_LIMIT: Duration = RestoreGuard::END_LIMIT;

    /// Not paused, with this program as the helper, and the limits at their default.
    pub fn new(head: &'a [u8], name: &'a str, uuid: DomainUuid) -> RestoreOptions<'a> {
        let (start_limit, finish_limit) = (Self::DEFAULT_LIMIT, Self::DEFAULT_LIMIT);
        RestoreOptions { head, name, uuid, paused: false, helper: None, start_limit, finish_limit }
    }
}

/// `xl restore` at work, with the memory and the processors left to us.
///
/// 1. [`XlRestore::start`]: `xl` reads the head, builds the domain, and hands it over.
/// 2. [`XlRestore::request`] says which domain to fill, [`XlRestore::channel`] what libxl must be told meanwhile:
///    [`LibxlChannel::static_data_done`], [`LibxlChannel::results`].
/// 3. [`XlRestore::finish`]: libxl gets the rest of its stream, starts the device model and the devices, and the domain runs.
///
/// A restore that fails, or that is dropped, leaves nothing: libxl destroys the domain, and if it cannot any more, `xl destroy`
/// does. (libxl takes the end of its input for an END record. So `xl` is killed before its pipe is closed too early.) A process that
/// is killed leaves it to libxl, and to its [`RestoreGuard`] when `xl` is killed, too. The caller must have given up its mappings of the
/// domain's memory before: with them the domain stays as a zombie.
///
/// ```no_run
/// use colo_core::ids::DomId;
/// use colo_core::xen::toolstack::{DomainUuid, RestoreOptions, Xl, XlRestore};
/// use std::error::Error;
///
/// /// `fill` puts the guest into the domain, and says where its xenstore and console pages are.
/// fn restore(
///     (head, tail): (&[u8], &[u8]),
///     fill: impl FnOnce(DomId) -> Result<(u64, u64), Box<dyn Error>>,
/// ) -> Result<DomId, Box<dyn Error>> {
///     let uuid = DomainUuid::parse("c68e58a4-e8f9-11f1-9b12-2bf4439fb59e").ok_or("no UUID")?;
///     let mut restore = XlRestore::start(&Xl::find()?, &RestoreOptions::new(head, "web", uuid), None)?;
///     restore.channel().static_data_done(0)?;
///     let (store_gfn, console_gfn) = fill(restore.request().domid)?;
///     restore.channel().results(store_gfn, console_gfn)?;
///     Ok(restore.finish(tail, || ())?)
/// }
/// ```
#[derive(Debug)]
pub struct XlRestore {
    xl: Xl,
    running: Running,
    /// `None` once the whole image is written.
    feed: Option<OwnedFd>,
    request: RestoreRequest,
    /// `None` once the restore is over, either way.
    channel: Option<LibxlChannel>,
    target: Target,
    /// `None` once there is nothing to watch over any more.
    guard: Option<RestoreGuard>,
    finish_limit: Duration,
}

impl XlRestore {
    /// Once it has been told that the restore has failed, `xl` needs but to destroy the domain.
    const CLEANUP_LIMIT: Duration = Duration::from_secs(60);
    /// One that has closed its end of the pipe ends by itself within this.
    const CLOSE_LIMIT: Duration = Duration::from_secs(10);
    /// One that has gone away from the channel says why, if it does, within this.
    const LAST_WORDS_LIMIT: Duration = Duration::from_secs(5);

    /// Starts `xl` and waits until it hands the domain over. Without a guard a kill of this process and of `xl` may leave the domain
    /// half made.
    ///
    /// # Errors
    /// [`RestoreToolstackError`]; no domain is left then.
    pub fn start(
        xl: &Xl,
        options: &RestoreOptions<'_>,
        mut guard: Option<RestoreGuard>,
    ) -> Result<XlRestore, RestoreToolstackError> {
        let deadline = Instant::now() + options.start_limit;
        // By our number, so that it is this very program even when its file has been replaced meanwhile.
        let own = format!("/proc/{}/exe", std::process::id());
        let helper = options.helper.unwrap_or(own.as_ref());
        let handover = Handover::listen()?;
        let mut command = xl.command(["restore"]);
        if options.paused {
            command.arg("-p");
        }
        // xl opens a path; this one is the pipe that it has as its standard input.
        command.arg(STDIN_PATH).stdin(Stdio::piped());
        command.env("LIBXL_SAVE_HELPER", helper).env(HANDOVER_VARIABLE, handover.path());
        let mut running = Running::start(command)?;
        let mut target = Target { name: options.name.into(), uuid: options.uuid, domid: None };
        if let Some(guard) = &mut guard {
            // Before xl has read what it could make a domain of.
            guard.begin(&target, running.ended()).map_err(RestoreToolstackError::Guard)?;
        }

        let mut feed = None;
        match Self::start_inner(&mut running, &mut feed, &handover, options, deadline) {
            Ok((request, channel)) => {
                target.domid = Some(request.domid);
                if let Some(guard) = &mut guard {
                    guard.update(&target);
                }
                let (xl, finish_limit) = (xl.clone(), options.finish_limit);
                Ok(XlRestore { xl, running, feed, request, channel: Some(channel), target, guard, finish_limit })
            }
            Err(error) => {
                if matches!(error, RestoreToolstackError::Feed { .. }) {
                    running.give_up_on(Self::CLOSE_LIMIT);
                }
                // A helper that comes late finds nobody, fails, and libxl destroys what it has built.
                drop((handover, feed));
                let ended = running.wait(Instant::now() + Self::CLEANUP_LIMIT, Self::CLEANUP_LIMIT);
                // The first error is the one to tell; what is left is told in the log.
                let _ = target.destroy_left_over(xl).inspect_err(|error| tracing::error!("{error}"));
                if let Some(guard) = guard {
                    guard.gone();
                }
                // An xl that ended by itself has said why.
                match (error, ended) {
                    (
                        RestoreToolstackError::Handover(HandoverError::Ended) | RestoreToolstackError::Feed { .. },
                        Err(error),
                    ) => Err(error.into()),
                    (error, _) => Err(error),
                }
            }
        }
    }

    fn start_inner(
        running: &mut Running,
        feed: &mut Option<OwnedFd>,
        handover: &Handover,
        options: &RestoreOptions<'_>,
        deadline: Instant,
    ) -> Result<(RestoreRequest, LibxlChannel), RestoreToolstackError> {
        let pipe = running.take_stdin().ok_or_else(|| feed_error(running, "it has no input"))?;
        let pipe = feed.insert(pipe);
        let flags = fcntl_getfl(&*pipe).and_then(|flags| fcntl_setfl(&*pipe, flags | OFlags::NONBLOCK));
        flags.map_err(|errno| feed_error(running, &errno.to_string()))?;
        write_all(running, pipe, options.head, deadline)?;
        let (request, channel) = handover.accept(running.ended(), deadline)?;
        running.log();
        Ok((request, channel))
    }

    /// What libxl wants to have restored.
    pub fn request(&self) -> &RestoreRequest {
        &self.request
    }

    /// The way to libxl.
    ///
    /// # Panics
    /// Never: the channel is there as long as this is.
    pub fn channel(&mut self) -> &mut LibxlChannel {
        self.channel.as_mut().expect("it is taken only by what consumes the restore")
    }

    /// Completes the restore, if the channel has not yet been used for that, and gives libxl the rest of its stream: the device
    /// model's records, if there are any, and END. On return the domain is built, and runs unless it is to be paused; an `xl` in
    /// the background looks after it as after every domain.
    ///
    /// Should it fail, `let_go` is called before the domain is destroyed: whoever maps its memory gives that up there.
    ///
    /// # Errors
    /// [`RestoreToolstackError`]; no domain is left then.
    pub fn finish(mut self, tail: &[u8], let_go: impl FnOnce()) -> Result<DomId, RestoreToolstackError> {
        match self.finish_inner(tail) {
            Ok(()) => {
                self.channel = None;
                if let Some(guard) = self.guard.take() {
                    guard.finished();
                }
                Ok(self.request.domid)
            }
            Err(error) => {
                let_go();
                let _ = self.clean_up(Errno::IO).inspect_err(|error| tracing::error!("{error}"));
                Err(error)
            }
        }
    }

    fn finish_inner(&mut self, tail: &[u8]) -> Result<(), RestoreToolstackError> {
        let deadline = Instant::now() + self.finish_limit;
        // libxl takes the end of its input for an END record. So something of the tail must be there before it looks: were this
        // process killed in between, libxl would give the domain a device model without its state.
        let written = self.feed.as_ref().map_or(0, |feed| write_what_fits(feed, tail));
        let channel = self.channel();
        if !channel.is_complete() {
            if let Err(error) = channel.complete_ok() {
                return Err(self.channel_error(error));
            }
        }
        if let Some(feed) = self.feed.take() {
            if let Err(error) = write_all(&self.running, &feed, &tail[written..], deadline) {
                self.running.give_up_on(Self::CLOSE_LIMIT);
                // An xl that ended by itself has said why.
                self.running.wait(Instant::now() + Self::CLEANUP_LIMIT, Self::CLEANUP_LIMIT)?;
                return Err(error);
            }
        }
        Ok(self.running.wait(deadline, self.finish_limit)?)
    }

    /// Gives up: libxl is told why, and destroys the domain.
    ///
    /// # Errors
    /// [`RestoreToolstackError::LeftBehind`], or what prevented a look at what is left.
    pub fn abort(mut self, why: Errno) -> Result<(), RestoreToolstackError> {
        self.clean_up(why)
    }

    /// Wraps an error of the channel with what `xl` has said, which tells more. An `xl` that has gone away from the channel may
    /// be about to say it: it is given a moment.
    pub fn channel_error(&self, error: ChannelError) -> RestoreToolstackError {
        if matches!(error, ChannelError::Gone { .. } | ChannelError::HelperGone { .. }) {
            self.running.wait_for_words(Self::LAST_WORDS_LIMIT);
        }
        let (command, line) = (self.running.name().to_owned(), self.running.telling_line());
        RestoreToolstackError::Channel { error, command, line }
    }

    fn clean_up(&mut self, why: Errno) -> Result<(), RestoreToolstackError> {
        if let Some(mut channel) = self.channel.take() {
            if channel.is_complete() {
                // libxl believes in this domain.
                self.running.give_up_on(Duration::ZERO);
            } else {
                // Without it, or when it cannot be sent, the helper fails, which comes to the same.
                let _ = channel.complete_failed(why);
            }
            self.feed = None;
            drop(channel);
            // That it fails is what is wanted; that it does not end, too, as it is killed then.
            let _ = self.running.wait(Instant::now() + Self::CLEANUP_LIMIT, Self::CLEANUP_LIMIT);
            // A guard that is not dismissed tries once more.
            self.target.destroy_left_over(&self.xl)?;
            if let Some(guard) = self.guard.take() {
                guard.gone();
            }
        }
        Ok(())
    }
}

impl Drop for XlRestore {
    fn drop(&mut self) {
        if let Err(error) = self.clean_up(Errno::CANCELED) {
            tracing::error!("{error}");
        }
    }
}

fn feed_error(running: &Running, reason: &str) -> RestoreToolstackError {
    let (command, line) = (running.name().to_owned(), running.telling_line());
    RestoreToolstackError::Feed { command, reason: reason.to_owned(), line }
}

/// Writes as much as nobody must have read before. What goes wrong is seen by whoever writes the rest.
fn write_what_fits(feed: &OwnedFd, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match write(feed, &bytes[written..]) {
            Ok(more) => written += more,
            Err(Errno::INTR) => {}
            Err(_) => break,
        }
    }
    written
}

/// Writes to `xl` as fast as it reads.
fn write_all(running: &Running, feed: &OwnedFd, bytes: &[u8], deadline: Instant) -> Result<(), RestoreToolstackError> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match write(feed, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::AGAIN | Errno::INTR) => {
                let fds = [(feed.as_fd(), PollFlags::OUT), (running.ended(), PollFlags::IN)];
                match ready(fds, deadline).map_err(|errno| feed_error(running, &errno.to_string()))? {
                    [true, _] => {}
                    [false, true] => return Err(feed_error(running, "it has ended")),
                    [false, false] => return Err(feed_error(running, "the time is up")),
                }
            }
            Err(Errno::PIPE) => return Err(feed_error(running, "it has closed it")),
            Err(errno) => return Err(feed_error(running, &errno.to_string())),
        }
    }
    Ok(())
}
