use super::DiskGate;
use colo_core::disk::{DiskError, DiskEvent, OnDiskEvent, PrimaryDisks, Tap};
use colo_core::ids::Epoch;
use colo_core::peer::StateChannel;

/// A machine's disk as its protection has it: a [`Tap`], and the gate before it. The machine is suspended for a checkpoint only when its last
/// request is done, so that it does not stand still for as long as a disk takes.
///
/// ```no_run
/// use colo_core::disk::{FileBackend, Tap, TapConfig};
/// use colo_core::domain::{Disks, Machine};
/// use colo_embedded::machine::{EmbeddedConfig, EmbeddedDomain, GatedTap};
/// use std::sync::Arc;
///
/// let (file, disk_bytes) = FileBackend::open("db.img".as_ref())?;
/// let tap = Tap::new(vec![(Arc::new(file), disk_bytes)], TapConfig::default());
/// let config = EmbeddedConfig { disk_bytes, ..EmbeddedConfig::named("db") };
/// let (domain, card) = EmbeddedDomain::boot_with(&config, Some(Arc::new(tap.disk(0))))?;
/// let gate = domain.disk_gate().expect("it has a disk");
/// let disks = Disks::Primary(Box::new(GatedTap::new(gate, tap)));
/// let machine = Machine { domain: Box::new(domain), nics: vec![Box::new(card)], disks };
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct GatedTap {
    gate: DiskGate,
    tap: Tap,
}

impl GatedTap {
    /// Of the machine whose gate that is, and which has the tap's disk 0.
    pub fn new(gate: DiskGate, tap: Tap) -> GatedTap {
        GatedTap { gate, tap }
    }
}

impl PrimaryDisks for GatedTap {
    /// [`DiskError::NotSupported`] for disks that both hosts have: a request of this machine's could wait for a word of the very thread that waits
    /// for the request before it takes a checkpoint.
    fn attach(&mut self, channel: StateChannel, on_event: OnDiskEvent) -> Result<(), DiskError> {
        if self.tap.is_shared() {
            return Err(DiskError::NotSupported);
        }
        let gate = self.gate.clone();
        let on_event = move |event| {
            if let DiskEvent::Failed(_) = event {
                // It is told by the disk's thread, which comes back only when nothing is attached any more.
                gate.abandon();
            }
            on_event(event);
        };
        self.tap.attach(channel, Box::new(on_event))
    }

    fn freeze(&mut self) {
        // In this order: a request that waits for a checkpoint would never be done.
        self.tap.freeze();
        self.gate.freeze();
    }

    fn barrier(&mut self, epoch: Epoch) {
        self.tap.barrier(epoch);
    }

    fn thaw(&mut self) {
        self.gate.thaw();
        self.tap.thaw();
    }

    fn committed(&mut self, epoch: Epoch) {
        self.tap.committed(epoch);
    }

    fn detach(&mut self) {
        self.tap.detach();
    }
}
