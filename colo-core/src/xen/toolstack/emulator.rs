//! The device model's part of an HVM domain's state, as libxl's stream keeps it: what the device model has in xenstore
//! ([`physmap`], the EMULATOR_XENSTORE_DATA record), and its own state ([`device_state`], the EMULATOR_CONTEXT record). Both are to
//! be taken while the domain is suspended and the device model stopped; a PVH or PV domain has neither.

use super::config::XenstoreView;
use crate::ids::DomId;
use crate::stream::EmulatorState;
use crate::xen::qmp::{QmpClient, QmpError};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};

/// The most state that is taken from a device model.
pub const MAX_DEVICE_STATE_BYTES: u64 = EmulatorState::MAX_CONTEXT_BYTES as u64;
/// The most entries of the physmap: QEMU makes one for each video memory or ROM that it has moved.
pub const MAX_PHYSMAP_ENTRIES: usize = 256;

/// The number of the set of files by which QEMU knows ours; one that libxl does not use, which leaves the choice to QEMU.
const FD_SET: u32 = 0xC010;

/// Why the device model's state could not be taken.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum EmulatorError {
    /// The device model did not do what it was asked.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// Xenstore could not be read.
    #[error("cannot read xenstore's {path}: {source}")]
    Xenstore {
        /// The node.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The device model's nodes are not what libxl knows.
    #[error("xenstore's {0} is not as a device model writes it")]
    BadPhysmap(String),
    /// There is more state than can be.
    #[error("the device model's state has {0} bytes; the limit is {MAX_DEVICE_STATE_BYTES}")]
    TooLong(u64),
    /// The state is not QEMU's.
    #[error("what the device model has saved is no state of QEMU's")]
    NotAState,
    /// The system refused.
    #[error("the device model's state cannot be kept: {0}")]
    Io(#[from] io::Error),
}

/// What the device model has written to xenstore of the guest memory that it has moved: keys, relative to its folder, and values, in
/// the order in which libxl keeps them. Empty for most domains, which get no EMULATOR_XENSTORE_DATA record then.
///
/// # Errors
/// [`EmulatorError::Xenstore`], [`EmulatorError::BadPhysmap`].
pub fn physmap(domain: DomId, xenstore: &dyn XenstoreView) -> Result<Vec<(String, String)>, EmulatorError> {
    // Of a device model in domain 0: stub domains are not supported.
    let folder = format!("/local/domain/0/device-model/{}", domain.0);
    let path = format!("{folder}/physmap");
    let names = xenstore.list(&path).map_err(|source| EmulatorError::Xenstore { path: path.clone(), source })?;
    if names.len() > MAX_PHYSMAP_ENTRIES {
        return Err(EmulatorError::BadPhysmap(path));
    }
    let mut entries = Vec::new();
    for name in names {
        for part in ["start_addr", "size", "name"] {
            let key = format!("physmap/{name}/{part}");
            let path = format!("{folder}/{key}");
            let value = match xenstore.read(&path) {
                Ok(Some(value)) if !value.contains('\0') => value,
                Ok(_) => return Err(EmulatorError::BadPhysmap(path)),
                Err(source) => return Err(EmulatorError::Xenstore { path, source }),
            };
            entries.push((key, value));
        }
    }
    Ok(entries)
}

/// Takes the state of a device model that has been stopped: what an EMULATOR_CONTEXT record holds after its header. QEMU
/// writes it into memory of ours that it is handed, so that it may run without any right to files.
///
/// # Errors
/// [`EmulatorError`].
pub fn device_state(qmp: &mut QmpClient) -> Result<Vec<u8>, EmulatorError> {
    let memory = File::from(memfd_create("device-state", MemfdFlags::CLOEXEC).map_err(io::Error::from)?);
    // QEMU opens for writing only, and takes nothing else for that.
    let for_qemu = File::options().write(true).open(format!("/proc/self/fd/{}", memory.as_raw_fd()))?;
    qmp.add_fd(FD_SET, for_qemu.as_fd())?;
    let saved = qmp.save_devices_state(format!("/dev/fdset/{FD_SET}").as_ref(), false);
    // A connection that has failed takes its files along.
    let removed = qmp.remove_fd(FD_SET);
    saved.and(removed)?;
    let length = memory.metadata()?.len();
    if length > MAX_DEVICE_STATE_BYTES {
        return Err(EmulatorError::TooLong(length));
    }
    let mut state = Vec::new();
    memory.take(length).read_to_end(&mut state)?;
    if state.starts_with(b"QEVM") { Ok(state) } else { Err(EmulatorError::NotAState) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    struct Fake(BTreeMap<&'static str, &'static str>);

    impl XenstoreView for Fake {
        fn read(&self, path: &str) -> io::Result<Option<String>> {
            Ok(self.0.get(path).map(|value| (*value).to_owned()))
        }

        fn list(&self, path: &str) -> io::Result<Vec<String>> {
            if path.ends_with("/4/physmap") {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            Ok(if path.ends_with("/3/physmap") { vec!["f0000000".into()] } else { Vec::new() })
        }
    }

    #[test]
    fn the_physmap_in_libxls_order() {
        let mut nodes = BTreeMap::from([
            ("/local/domain/0/device-model/3/physmap/f0000000/name", "vga.vram"),
            ("/local/domain/0/device-model/3/physmap/f0000000/size", "1000000"),
            ("/local/domain/0/device-model/3/physmap/f0000000/start_addr", "f1000000"),
        ]);
        let entries = physmap(DomId(3), &Fake(nodes.clone())).unwrap();
        let entries: Vec<(&str, &str)> = entries.iter().map(|(key, value)| (&**key, &**value)).collect();
        let prefix = "physmap/f0000000";
        let expected = [("start_addr", "f1000000"), ("size", "1000000"), ("name", "vga.vram")];
        assert_eq!(entries, expected.map(|(key, value)| (&*format!("{prefix}/{key}").leak(), value)));
        assert_eq!(physmap(DomId(30), &Fake(nodes.clone())).unwrap(), []);
        nodes.remove("/local/domain/0/device-model/3/physmap/f0000000/size");
        assert!(
            matches!(physmap(DomId(3), &Fake(nodes)), Err(EmulatorError::BadPhysmap(path)) if path.ends_with("size"))
        );
        assert!(matches!(physmap(DomId(4), &Fake(BTreeMap::new())), Err(EmulatorError::Xenstore { .. })));
    }
}
