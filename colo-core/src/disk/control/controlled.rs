use super::client::Client;
use super::wire::{Answer, MAX_WAIT, Request, Role};
use super::{ANSWER_WITHIN, ControlError, FAIL_OVER_WITHIN};
use crate::disk::{DiskError, OnDiskEvent, PrimaryDisks, SecondaryDisks};
use crate::ids::Epoch;
use crate::peer::StateChannel;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// The disks of a machine that serves, which another process has: it has a [`Tap`](crate::disk::Tap) and a
/// [`ControlServer`](super::ControlServer). When that process ends, or does not answer, the secondary's disks count as lost; the end of this
/// one is a [`PrimaryDisks::detach`].
pub struct ControlledPrimary {
    client: Client,
    is_attached: bool,
}

/// The disks of a machine that follows another, which another process has: it has a [`Replica`](crate::disk::Replica) and a
/// [`ControlServer`](super::ControlServer). When that process ends, or does not answer, every call fails from there on.
pub struct ControlledSecondary {
    client: Client,
}

impl ControlledPrimary {
    /// Connects to the disk server at that path.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn connect(path: &Path) -> Result<ControlledPrimary, ControlError> {
        ControlledPrimary::connect_within(path, ANSWER_WITHIN)
    }

    /// The same, with so much time for each answer instead of [`ANSWER_WITHIN`].
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn connect_within(path: &Path, within: Duration) -> Result<ControlledPrimary, ControlError> {
        let client = Client::connect(path, Role::Primary, within)?;
        Ok(ControlledPrimary { client, is_attached: false })
    }

    /// The disks' sizes in bytes.
    pub fn sizes(&self) -> &[u64] {
        self.client.sizes()
    }

    /// What fails here has been told as an event.
    fn ask(&self, request: &Request) {
        match self.client.ask(request, None) {
            Ok(Answer::Done) | Err(ControlError::Closed) => {}
            Ok(other) => tracing::error!("the disk server answers {other:?} to {request:?}"),
            Err(error) => tracing::error!("the disk server: {error}"),
        }
    }

    fn tell(&self, request: &Request) {
        match self.client.tell(request) {
            Ok(()) | Err(ControlError::Closed) => {}
            Err(error) => tracing::error!("the disk server: {error}"),
        }
    }
}

/// A disk server that tells what is read from its disks: by that one finds out whether a device is one of them.
pub trait Witness {
    /// Has a read from that place of that disk looked out for, and no other one any more.
    ///
    /// # Errors
    /// When the disk server does not answer.
    fn expect_read(&self, disk: u8, offset: u64) -> Result<(), ControlError>;

    /// Whether the expected read has come.
    ///
    /// # Errors
    /// When the disk server does not answer.
    fn was_read(&self) -> Result<bool, ControlError>;

    /// Whether the other host has the same disks.
    fn is_shared(&self) -> bool;
}

impl Witness for ControlledPrimary {
    fn expect_read(&self, disk: u8, offset: u64) -> Result<(), ControlError> {
        self.client.expect_read(disk, offset)
    }

    fn was_read(&self) -> Result<bool, ControlError> {
        self.client.was_read()
    }

    fn is_shared(&self) -> bool {
        self.client.is_shared()
    }
}

impl Witness for ControlledSecondary {
    fn expect_read(&self, disk: u8, offset: u64) -> Result<(), ControlError> {
        self.client.expect_read(disk, offset)
    }

    fn was_read(&self) -> Result<bool, ControlError> {
        self.client.was_read()
    }

    fn is_shared(&self) -> bool {
        self.client.is_shared()
    }
}

impl PrimaryDisks for ControlledPrimary {
    fn attach(&mut self, channel: StateChannel, on_event: OnDiskEvent) -> Result<(), DiskError> {
        // So that nothing which is still said of the last connection counts for this one.
        self.detach();
        self.client.set_on_event(Some(on_event));
        let attached = attach(&self.client, channel);
        match attached {
            Ok(()) => self.is_attached = true,
            Err(_) => self.client.set_on_event(None),
        }
        attached
    }

    fn freeze(&mut self) {
        self.ask(&Request::Freeze);
    }

    fn barrier(&mut self, epoch: Epoch) {
        self.ask(&Request::Barrier(epoch));
    }

    fn thaw(&mut self) {
        self.tell(&Request::Thaw);
    }

    fn committed(&mut self, epoch: Epoch) {
        self.tell(&Request::Committed(epoch));
    }

    fn detach(&mut self) {
        self.client.set_on_event(None);
        if std::mem::take(&mut self.is_attached) {
            self.ask(&Request::Detach);
        }
    }

    fn is_shared(&self) -> bool {
        self.client.is_shared()
    }

    fn alone(&mut self) {
        match self.client.ask(&Request::Alone, None) {
            Ok(Answer::Done) => {}
            Err(error) if self.client.is_shared() => {
                tracing::error!(
                    "writes wait until the disk server is told that the other host is out: colo disk release ({error})"
                );
            }
            Err(ControlError::Closed) => {}
            other => tracing::error!("the disk server: {other:?}"),
        }
    }
}

impl ControlledSecondary {
    /// Connects to the disk server at that path.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn connect(path: &Path) -> Result<ControlledSecondary, ControlError> {
        ControlledSecondary::connect_within(path, ANSWER_WITHIN)
    }

    /// The same, with so much time for each answer instead of [`ANSWER_WITHIN`].
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn connect_within(path: &Path, within: Duration) -> Result<ControlledSecondary, ControlError> {
        Client::connect(path, Role::Secondary, within).map(|client| ControlledSecondary { client })
    }

    /// The disks' sizes in bytes.
    pub fn sizes(&self) -> &[u64] {
        self.client.sizes()
    }

    fn ask(&self, request: &Request) -> Result<(), DiskError> {
        done(self.client.ask(request, None))
    }

    /// What has no way to say that it fails: the next that has one does.
    fn tell(&self, request: &Request) {
        if let Err(error) = self.client.tell(request) {
            tracing::error!("the disk server: {error}");
        }
    }
}

impl SecondaryDisks for ControlledSecondary {
    fn attach(&mut self, channel: StateChannel) -> Result<(), DiskError> {
        attach(&self.client, channel)
    }

    fn wait_barrier(&mut self, epoch: Epoch, deadline: Instant) -> bool {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.client.ask(&Request::WaitBarrier(epoch, left.min(MAX_WAIT)), None) {
                Ok(Answer::Done) => return true,
                Ok(Answer::No) if !left.is_zero() => {}
                Ok(_) => return false,
                Err(error) => {
                    tracing::error!("the disk server: {error}");
                    return false;
                }
            }
        }
    }

    fn release(&mut self) {
        self.tell(&Request::Release);
    }

    /// One that fails is followed by a [`SecondaryDisks::commit`] that fails, too.
    fn freeze(&mut self) {
        // It has been logged.
        let _ = self.ask(&Request::Freeze);
    }

    fn thaw(&mut self) {
        self.tell(&Request::Thaw);
    }

    fn wants_checkpoint(&self) -> bool {
        matches!(self.client.ask(&Request::WantsCheckpoint, None), Ok(Answer::Done))
    }

    fn commit(&mut self, epoch: Epoch) -> Result<(), DiskError> {
        self.ask(&Request::Commit(epoch))
    }

    fn needs_fence(&self) -> bool {
        self.client.is_shared()
    }

    /// One that fails is followed by a [`SecondaryDisks::fail_over`] that fails, too.
    fn fenced(&mut self) {
        self.tell(&Request::Fenced);
    }

    fn fail_over(&mut self) -> Result<(), DiskError> {
        done(self.client.ask_within(FAIL_OVER_WITHIN, &Request::FailOver, None))
    }
}

/// Gives the connection to the disk server, and with it all that this process has of it.
fn attach(client: &Client, channel: StateChannel) -> Result<(), DiskError> {
    let handover = channel.into_handover().map_err(|error| {
        tracing::error!("the connection for disks: {error}");
        DiskError::Io
    })?;
    let (patience, sent, received) = (handover.patience, handover.sent, handover.received);
    done(client.ask(&Request::Attach { patience, sent, received }, Some(handover.socket.as_fd())))
}

fn done(answer: Result<Answer, ControlError>) -> Result<(), DiskError> {
    match answer {
        Ok(Answer::Done) => Ok(()),
        Ok(Answer::Failed(error)) => Err(error),
        Ok(Answer::No | Answer::Never) => {
            tracing::error!("the disk server gives the answer to another question");
            Err(DiskError::Io)
        }
        Err(error) => {
            tracing::error!("the disk server: {error}");
            Err(DiskError::Io)
        }
    }
}
