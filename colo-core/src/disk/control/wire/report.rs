//! What is told to whoever asks only.

use super::{MAX_TEXT_BYTES, Packet, Reported, bad, flag};
use crate::disk::{Compared, CopyProgress, Difference, DiskState, DiskStatus, MAX_DISKS};
use crate::ids::Epoch;
use crate::peer::PayloadError;
use crate::peer::wire::Fields;
use std::time::Duration;

/// Bytes of a difference: disk, whether it can be read, from where on, how long.
const DIFFERENCE_BYTES: usize = 4 + 4 + 8 + 8;

impl Packet {
    pub(super) fn reported(self, Reported { is_driven, disks }: &Reported) -> Packet {
        let packet = self
            .u32((*is_driven).into())
            .u64(disks.epoch.0)
            .u64(disks.whole_epoch.0)
            .u64(disks.waiting_bytes)
            .u64(disks.limit_bytes)
            .u64(disks.journal_bytes);
        match &disks.state {
            DiskState::Alone(why) => packet.u32(1).text(why.as_deref().unwrap_or_default()),
            DiskState::Copying(CopyProgress { done_bytes, all_bytes, sent_bytes, took }) => {
                let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                packet.u32(2).u64(*done_bytes).u64(*all_bytes).u64(*sent_bytes).u64(took)
            }
            DiskState::Receiving => packet.u32(3),
            DiskState::InStep => packet.u32(4),
            DiskState::Serving => packet.u32(5),
            DiskState::Held(why) => packet.u32(6).text(why.as_deref().unwrap_or_default()),
        }
    }

    pub(super) fn compared(self, compared: &Compared) -> Packet {
        let count = compared.differences.len().min(Compared::MAX_DIFFERENCES);
        let packet = self.u64(compared.compared_bytes).u64(compared.differing_parts).u32(count as u32);
        compared.differences[..count].iter().fold(packet, |packet, Difference { disk, range, is_unreadable }| {
            let packet = packet.u32((*disk).into()).u32((*is_unreadable).into());
            packet.u64(range.start).u64(range.end - range.start)
        })
    }
}

pub(super) fn reported(fields: &mut Fields<'_>) -> Result<Reported, PayloadError> {
    let is_driven = flag("driven", fields)?;
    let (epoch, whole_epoch) = (Epoch(fields.u64("epoch")?), Epoch(fields.u64("epoch")?));
    let (waiting_bytes, limit_bytes, journal_bytes) =
        (fields.u64("bytes")?, fields.u64("bytes")?, fields.u64("bytes")?);
    let state = match fields.u32("state")? {
        1 => DiskState::Alone(Some(fields.text("reason", MAX_TEXT_BYTES)?).filter(|why| !why.is_empty())),
        2 => DiskState::Copying(CopyProgress {
            done_bytes: fields.u64("bytes")?,
            all_bytes: fields.u64("bytes")?,
            sent_bytes: fields.u64("bytes")?,
            took: Duration::from_millis(fields.u64("time")?),
        }),
        3 => DiskState::Receiving,
        4 => DiskState::InStep,
        5 => DiskState::Serving,
        6 => DiskState::Held(Some(fields.text("reason", MAX_TEXT_BYTES)?).filter(|why| !why.is_empty())),
        other => return Err(bad("state", other)),
    };
    let disks = DiskStatus { state, epoch, whole_epoch, waiting_bytes, limit_bytes, journal_bytes };
    Ok(Reported { is_driven, disks })
}

pub(super) fn compared(fields: &mut Fields<'_>) -> Result<Compared, PayloadError> {
    let (compared_bytes, differing_parts) = (fields.u64("bytes")?, fields.u64("parts")?);
    let count = fields.count("differences", Compared::MAX_DIFFERENCES, DIFFERENCE_BYTES)?;
    let differences = (0..count).map(|_| difference(fields)).collect::<Result<_, _>>()?;
    Ok(Compared { compared_bytes, differing_parts, differences })
}

fn difference(fields: &mut Fields<'_>) -> Result<Difference, PayloadError> {
    let disk = match fields.u32("disk")? {
        disk if (disk as usize) < MAX_DISKS => disk as u8,
        other => return Err(bad("disk", other)),
    };
    let is_unreadable = flag("readable", fields)?;
    let (start, length) = (fields.u64("offset")?, fields.u64("length")?);
    let end = start.checked_add(length).ok_or(bad("length", length))?;
    Ok(Difference { disk, range: start..end, is_unreadable })
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::Said;
    use super::*;

    /// One of each.
    pub(in super::super) fn said() -> Vec<Said> {
        let progress = CopyProgress { done_bytes: 1, all_bytes: 2, sent_bytes: 3, took: Duration::from_millis(4) };
        let states = [
            DiskState::Alone(None),
            DiskState::Alone(Some("ä".repeat(MAX_TEXT_BYTES / 2))),
            DiskState::Copying(progress),
            DiskState::Receiving,
            DiskState::InStep,
            DiskState::Serving,
            DiskState::Held(None),
            DiskState::Held(Some("no heartbeat".into())),
        ];
        let status = |state| DiskStatus {
            state,
            epoch: Epoch(1),
            whole_epoch: Epoch(2),
            waiting_bytes: 3,
            limit_bytes: 4,
            journal_bytes: u64::MAX,
        };
        let reported = |state| Said::Status(7, Reported { is_driven: true, disks: status(state) });
        let difference = Difference { disk: 15, range: 9..u64::MAX, is_unreadable: true };
        let differences = vec![difference; Compared::MAX_DIFFERENCES];
        let rest = [
            Said::Comparing { number: 8, done_bytes: 1, all_bytes: 2, differing_parts: 3 },
            Said::Compared(9, Compared::default()),
            Said::Compared(9, Compared { compared_bytes: 1, differing_parts: 99, differences }),
            Said::NotCompared { number: 10, is_unprotected: true, why: "not protected".into() },
        ];
        states.map(reported).into_iter().chain(rest).collect()
    }
}
