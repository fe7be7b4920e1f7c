//! What a primary says of disks that this host has, too.

use super::Shared;
use super::receive::{ReceiveError, WATCH};
use crate::disk::replica::hash_of;
use crate::disk::{Change, Volume};
use crate::ids::Epoch;
use crate::peer::{Message, PeerError, StateReceiver, StateSender};
use std::sync::Arc;
use std::time::Instant;

impl Shared {
    /// Until the connection ends, or something comes that cannot be done: that is told.
    pub(super) fn receive_shared(
        &self,
        mut receiver: StateReceiver,
        mut sender: StateSender,
    ) -> Result<(), ReceiveError> {
        let mut volume = None;
        loop {
            let message = match receiver.recv(Instant::now() + WATCH) {
                Ok(None) => continue,
                Ok(Some(message)) => message,
                Err(PeerError::Closed) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            if let Err(error) = self.take_shared(message, &mut volume, &mut sender) {
                refuse(&mut sender, &error);
                return Err(error);
            }
        }
    }

    fn take_shared(
        &self,
        message: Message,
        volume: &mut Option<Arc<Volume>>,
        sender: &mut StateSender,
    ) -> Result<(), ReceiveError> {
        match message {
            Message::DiskShared { sizes } if sizes == self.sizes => sender.send(&Message::DiskShared { sizes })?,
            Message::DiskShared { sizes: theirs } => {
                return Err(ReceiveError::OtherSizes { theirs, ours: self.sizes.clone() });
            }
            Message::DiskBefore { disk, offset, data } => {
                let range = offset..offset.saturating_add(data.len() as u64);
                begun(volume)?.write(disk, range, Change::Data(data))?;
            }
            Message::DiskBeforeZeroes { disk, offset, length } => {
                let range = offset..offset.saturating_add(length);
                begun(volume)?.write(disk, range, Change::Zeroes { may_unmap: false })?;
            }
            // What was said before has been taken.
            Message::DiskFlush { number, .. } => sender.send(&Message::DiskFlushed { number })?,
            Message::DiskSame { disk, offset, length, seed, hash } => {
                let size = self.sizes.get(usize::from(disk)).copied().unwrap_or(0);
                if offset.saturating_add(length.into()) > size {
                    return Err(ReceiveError::Unexpected("a part of a disk that is not there"));
                }
                let mut part = vec![0; length as usize];
                self.direct[usize::from(disk)].read_exact_at(&mut part, offset)?;
                if hash_of(&part, seed) != hash {
                    return Err(ReceiveError::OtherDisk { disk, offset });
                }
            }
            Message::DiskBarrier { epoch, .. } => self.barrier_shared(volume, epoch)?,
            Message::DiskHashesWanted { .. } | Message::DiskWrite { .. } | Message::DiskZeroes { .. } => {
                return Err(ReceiveError::NotSharedThere);
            }
            _ => return Err(ReceiveError::Unexpected("a message")),
        }
        Ok(())
    }

    /// An epoch is whole. With the first the machine's is that of the disks, and what stands on them is said before it is changed.
    fn barrier_shared(&self, volume: &mut Option<Arc<Volume>>, epoch: Epoch) -> Result<(), ReceiveError> {
        match &volume {
            Some(volume) => volume.barrier(epoch)?,
            None if epoch == Epoch::FIRST => *volume = Some(self.begin_epochs(epoch)?),
            None => return Err(ReceiveError::Unexpected("the end of an epoch")),
        }
        self.has_whole(epoch);
        Ok(())
    }
}

fn begun(volume: &Option<Arc<Volume>>) -> Result<&Volume, ReceiveError> {
    volume.as_deref().ok_or(ReceiveError::Unexpected("what a disk was before there are epochs"))
}

/// Tells the primary why this is the end, unless it is that of the connection.
pub(super) fn refuse(sender: &mut StateSender, why: &ReceiveError) {
    if !matches!(why, ReceiveError::Peer(_)) {
        // It is told as well by the end.
        let _ = sender.send(&Message::Refused(why.to_string()));
    }
}
