//! A device model's state, put into a device model that runs.
//!
//! QEMU takes another's state when it is started for that (`-incoming`), and later only as a *snapshot* of a disk: QMP's
//! `snapshot-load`. So the state becomes an image that holds nothing else, in memory of ours that QEMU is handed; no disk of the guest's
//! is in it, and none is touched. `xen-load-devices-state`, which is meant for this, ends QEMU 7.2 by an assertion.
//!
//! ```no_run
//! use colo_core::ids::DomId;
//! use colo_core::xen::qmp::QmpClient;
//! use colo_core::xen::snapshot;
//! use colo_core::xen::toolstack::{DomainUuid, emulator};
//! use std::time::Duration;
//!
//! # let [uuid, other_uuid] = ["c68e58a4-e8f9-11f1-9b12-2bf4439fb59e"; 2].map(|uuid| DomainUuid::parse(uuid).unwrap());
//! let limit = Duration::from_secs(10);
//! let mut from = QmpClient::connect_domain(DomId(3), uuid, limit)?;
//! from.stop()?;
//! let state = emulator::device_state(&mut from)?;
//! from.cont()?;
//! let mut into = QmpClient::connect_domain(DomId(4), other_uuid, limit)?;
//! into.stop()?;
//! snapshot::load_into(&mut into, &state)?;
//! into.cont()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod qcow2;
#[cfg(test)]
mod tests;

use super::qmp::{QmpClient, QmpError};
use super::toolstack::emulator::MAX_DEVICE_STATE_BYTES;
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

/// The number of the set of files by which QEMU knows ours: not the one by which a state is taken.
const FD_SET: u32 = 0xC011;
/// The names of what there is in QEMU meanwhile.
const NODE: &str = "colo-state";
const JOB: &str = "colo-load-state";

/// Behind a state QEMU looks for a description of it, which nobody reads, and writes a line to its log each time that there is none:
/// `QEMU_VM_VMDESCRIPTION`, and its length.
const NO_DESCRIPTION: &[u8] = &[6, 0, 0, 0, 0];

/// Why a state was not loaded.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The device model did not do what it was asked. After a [`QmpError::Job`] its devices are in no state to go on.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// More state than there can be.
    #[error("a device model's state of {0} bytes; the limit is {MAX_DEVICE_STATE_BYTES}")]
    TooLong(usize),
    /// The system refused.
    #[error("the device model's state cannot be handed over: {0}")]
    Io(#[from] io::Error),
}

/// Loads what [`device_state`](super::toolstack::emulator::device_state) has taken of a device model into another with the same
/// devices. A state that was cut off may well be taken. The device model must have been stopped, and is to be told to go on. Nothing is left of it in the device model, nor of an attempt that did
/// not come to its end.
///
/// # Errors
/// [`SnapshotError`].
pub fn load_into(qmp: &mut QmpClient, state: &[u8]) -> Result<(), SnapshotError> {
    if state.len() as u64 > MAX_DEVICE_STATE_BYTES {
        return Err(SnapshotError::TooLong(state.len()));
    }
    let mut image = File::from(memfd_create("device-state", MemfdFlags::CLOEXEC).map_err(io::Error::from)?);
    image.write_all(&qcow2::image(&[state, NO_DESCRIPTION].concat()))?;
    match add(qmp, &image) {
        // Somebody died over it.
        Err(QmpError::Command { .. }) => {
            remove_left(qmp)?;
            add(qmp, &image)?;
        }
        added => added?,
    }
    let loaded = qmp.load_snapshot(JOB, NODE, qcow2::SNAPSHOT_NAME);
    let removed = qmp.remove_node(NODE).and(qmp.remove_fd(FD_SET));
    Ok(loaded.and(removed)?)
}

fn add(qmp: &mut QmpClient, image: &File) -> Result<(), QmpError> {
    qmp.add_fd(FD_SET, image.as_fd())?;
    qmp.add_qcow2(NODE, format!("/dev/fdset/{FD_SET}").as_ref())
}

/// Removes what there may be; an error that says that there is none is none.
fn remove_left(qmp: &mut QmpClient) -> Result<(), QmpError> {
    for removed in [qmp.dismiss_job(JOB), qmp.remove_node(NODE), qmp.remove_fd(FD_SET)] {
        match removed {
            Err(QmpError::Command { .. }) | Ok(()) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
