//! What a primary says of its disks.

use super::shared::refuse;
use super::{Phase, Shared};
use crate::disk::replica::{PART_BYTES, hash_of};
use crate::disk::{Backend, Change, DiskError, FileBackend, Volume, VolumeError};
use crate::ids::Epoch;
use crate::peer::{Message, PeerError, StateReceiver, StateSender};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a wait for a message lasts at a time; the connection's end is heard at once.
pub(super) const WATCH: Duration = Duration::from_secs(3600);

/// So many writes that have come are taken at once.
const WRITES_AT_ONCE: usize = 64;

impl Shared {
    /// Until the connection ends.
    ///
    /// # Errors
    /// When it ends otherwise than by the primary's word.
    pub(super) fn receive(&self, mut receiver: StateReceiver, mut sender: StateSender) -> Result<(), ReceiveError> {
        let disks = self.files.backends()?;
        receiver.expect_bulk();
        let mut volume: Option<Arc<Volume>> = None;
        loop {
            let message = match receiver.recv(Instant::now() + WATCH) {
                Ok(None) => continue,
                Ok(Some(message)) => message,
                Err(PeerError::Closed) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let message = match said_by(message) {
                Said::Write(write) => match self.write(volume.as_deref(), &disks, write, &mut receiver)? {
                    Some(other) => other,
                    None => continue,
                },
                Said::Other(other) => other,
            };
            match message {
                Message::DiskBarrier { epoch, is_durable } => {
                    self.barrier(&mut volume, epoch, is_durable)?;
                }
                Message::DiskFlush { number, is_durable } => {
                    if let (true, Some(volume)) = (is_durable, &volume) {
                        volume.wait_durable()?;
                    }
                    sender.send(&Message::DiskFlushed { number })?;
                }
                Message::DiskHashesWanted { disk, offset, length, seed } => {
                    let range = offset..offset.saturating_add(length.into());
                    let backend = self.part_of(&disks, disk, &range)?;
                    let hashes = match &volume {
                        None => hashes(range, seed, |at, part| backend.read(at, part))?,
                        Some(volume) => known_hashes(range, seed, |at, part| volume.read_primary(disk, at, part))?,
                    };
                    sender.send(&Message::DiskHashes { disk, offset, hashes })?;
                }
                Message::DiskShared { .. } => {
                    refuse(&mut sender, &ReceiveError::NotSharedHere);
                    return Err(ReceiveError::NotSharedHere);
                }
                _ => return Err(ReceiveError::Unexpected("a message")),
            }
        }
    }

    /// What the primary's guest has written: this, and what else has come by now. Returns the message that came behind it, if there is one.
    fn write(
        &self,
        volume: Option<&Volume>,
        disks: &[FileBackend],
        first: Write,
        receiver: &mut StateReceiver,
    ) -> Result<Option<Message>, ReceiveError> {
        let Some(volume) = volume else { return self.write_through(disks, first).map(|()| None) };
        let mut writes = vec![first];
        let now = Instant::now();
        let mut other = None;
        while writes.len() < WRITES_AT_ONCE && other.is_none() {
            match receiver.recv(now)?.map(said_by) {
                None => break,
                Some(Said::Write(write)) => writes.push(write),
                Some(Said::Other(message)) => other = Some(message),
            }
        }
        volume.write_all(writes.into_iter())?;
        Ok(other)
    }

    /// Straight to the disks.
    fn write_through(&self, disks: &[FileBackend], (disk, range, change): Write) -> Result<(), ReceiveError> {
        let backend = self.part_of(disks, disk, &range)?;
        match change {
            Change::Data(data) => backend.write(range.start, &data)?,
            Change::Zeroes { may_unmap } => backend.write_zeroes(range.start, range.end - range.start, may_unmap)?,
        }
        Ok(())
    }

    /// An epoch is whole. With the first the disks are the primary's, and epochs begin.
    fn barrier(&self, volume: &mut Option<Arc<Volume>>, epoch: Epoch, is_durable: bool) -> Result<(), ReceiveError> {
        match &volume {
            Some(volume) => {
                volume.barrier(epoch)?;
                if is_durable {
                    volume.wait_durable()?;
                }
            }
            None if epoch == Epoch::FIRST => {
                self.files.disks.iter().try_for_each(File::sync_data)?;
                *volume = Some(self.begin_epochs(epoch)?);
            }
            None => return Err(ReceiveError::Unexpected("the end of an epoch")),
        }
        self.has_whole(epoch);
        Ok(())
    }

    /// From here on there are epochs, and this is the first.
    pub(super) fn begin_epochs(&self, epoch: Epoch) -> Result<Arc<Volume>, ReceiveError> {
        let (journal, disks) = self.files.clones()?;
        let begun = Arc::new(Volume::create(self.store, journal, disks, epoch)?);
        self.lock().phase = Phase::Epochs(begun.clone());
        Ok(begun)
    }

    /// That epoch is here.
    pub(super) fn has_whole(&self, epoch: Epoch) {
        self.lock().barrier = epoch;
        self.changed.notify_all();
    }

    fn part_of<'a>(
        &self,
        disks: &'a [FileBackend],
        disk: u8,
        range: &Range<u64>,
    ) -> Result<&'a FileBackend, ReceiveError> {
        let number = usize::from(disk);
        match (disks.get(number), self.sizes.get(number)) {
            (Some(backend), Some(size)) if range.end <= *size => Ok(backend),
            _ => Err(ReceiveError::Unexpected("a part of a disk that is not there")),
        }
    }
}

/// The hashes of a part of a disk.
fn hashes<E>(range: Range<u64>, seed: u64, read: impl Fn(u64, &mut [u8]) -> Result<(), E>) -> Result<Vec<u128>, E> {
    let mut part = vec![0; PART_BYTES];
    let parts = range.clone().step_by(PART_BYTES);
    parts
        .map(|offset| {
            let part = &mut part[..PART_BYTES.min((range.end - offset) as usize)];
            read(offset, part)?;
            Ok(hash_of(part, seed))
        })
        .collect()
}

/// The same for a comparison, which is told where a disk cannot be read: none then. That ends nothing, for what is there is not wanted now.
fn known_hashes(
    range: Range<u64>,
    seed: u64,
    read: impl Fn(u64, &mut [u8]) -> Result<(), VolumeError>,
) -> Result<Vec<u128>, VolumeError> {
    match hashes(range, seed, read) {
        Err(VolumeError::Io(error)) => {
            tracing::warn!("a disk of this host cannot be read: {error}");
            Ok(Vec::new())
        }
        hashes => hashes,
    }
}

/// Something that was written, on which disk and where.
type Write = (u8, Range<u64>, Change);

/// What a message is.
enum Said {
    Write(Write),
    Other(Message),
}

/// Which of them it is.
fn said_by(message: Message) -> Said {
    match message {
        Message::DiskWrite { disk, offset, data } => {
            Said::Write((disk, offset..offset.saturating_add(data.len() as u64), Change::Data(data)))
        }
        Message::DiskZeroes { disk, offset, length, may_unmap } => {
            Said::Write((disk, offset..offset.saturating_add(length), Change::Zeroes { may_unmap }))
        }
        other => Said::Other(other),
    }
}

/// Why nothing more is received.
#[derive(thiserror::Error, Debug)]
pub(super) enum ReceiveError {
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error("a disk of this host: {0}")]
    Disk(#[from] DiskError),
    #[error("a disk of this host: {0}")]
    File(#[from] io::Error),
    #[error(
        "the primary's disks are shared, and this host's are not: serve them with --shared on both hosts, or on none"
    )]
    NotSharedHere,
    #[error(
        "the secondary's disks are shared, and the primary's are not: serve them with --shared on both hosts, or on none"
    )]
    NotSharedThere,
    #[error(
        "shared disks have {theirs:?} bytes on the primary's host and {ours:?} on the secondary's: they are not the same ones"
    )]
    OtherSizes { theirs: Vec<u64>, ours: Vec<u64> },
    #[error(
        "disk {disk} is not the same one on both hosts: what the primary has at byte {offset} is not there on the secondary's"
    )]
    OtherDisk { disk: u8, offset: u64 },
    #[error("{0} does not belong there")]
    Unexpected(&'static str),
}
