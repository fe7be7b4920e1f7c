//! A domain's PV devices, as xenstore shows them: taken from their backends, and given back, while the guest stands still and knows
//! nothing of it.
//!
//! Both ends of a device tell by a node `state` how far they are (`XenbusState*`); each end acts on the other's. Whoever writes the guest's
//! end, in the guest's stead, makes the backend let go of the guest's memory, or take hold of it.
//!
//! ```no_run
//! use colo_core::ids::DomId;
//! use colo_core::xen::{Xen, frontends::Frontends};
//! use std::time::{Duration, Instant};
//!
//! let mut frontends = Frontends::open(Xen::open()?, DomId(3))?;
//! let deadline = || Instant::now() + Duration::from_secs(5);
//! // ... the guest is suspended ...
//! let published = frontends.published()?;
//! frontends.disconnect(deadline())?;
//! frontends.connect(&published, deadline())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod device;
mod disk_ring;
mod nodes;
mod store_ring;

pub use disk_ring::{disk_rings, is_answered};
pub use nodes::is_live;
pub use store_ring::StoreRing;

use super::{Xen, XenStore};
use crate::domain::DomainError;
use crate::ids::DomId;
use crate::stream::{TwinFrontend, TwinFrontends};
use device::{Device, Told, note};
use nodes::{Found, find};
use std::collections::BTreeMap;
use std::time::Instant;

/// How far an end of a device is: `XenbusState` of `xen/include/public/io/xenbus.h`.
mod state {
    pub(super) const INITIALISING: u32 = 1;
    pub(super) const INIT_WAIT: u32 = 2;
    pub(super) const CONNECTED: u32 = 4;
    pub(super) const CLOSING: u32 = 5;
    pub(super) const CLOSED: u32 = 6;
}

/// The devices of a domain that have a backend.
pub struct Frontends {
    store: XenStore,
    domid: DomId,
    home: String,
    devices: Vec<Device>,
    /// Whether there may be others since they were looked for.
    is_stale: bool,
}

/// Watches, by what they are for.
const FRONTENDS: &str = "frontends";
const BACKEND: &str = "backend";

impl Frontends {
    /// Begins to watch a domain's devices.
    ///
    /// # Errors
    /// When xenstore refuses.
    pub fn open(xen: Xen, domid: DomId) -> Result<Frontends, DomainError> {
        let store = XenStore::open(xen)?;
        let home = store.domain_path(domid)?;
        store.watch(&format!("{home}/device"), FRONTENDS)?;
        Ok(Frontends { store, domid, home, devices: Vec::new(), is_stale: true })
    }

    /// How many there are.
    ///
    /// # Errors
    /// When xenstore refuses.
    pub fn count(&mut self) -> Result<usize, DomainError> {
        self.refresh()?;
        Ok(self.devices.len())
    }

    /// Checks that it is known of each device how it is taken from the guest, and comes back.
    ///
    /// # Errors
    /// When xenstore refuses; when there is another.
    pub fn check_known(&mut self) -> Result<(), DomainError> {
        self.refresh()?;
        let Some(other) = self.devices.iter().find(|device| !device.is_known()) else { return Ok(()) };
        let why = format!("{} has a device {}: only network cards and disks are known here", self.domid, other.path);
        Err(DomainError::Other(why))
    }

    /// What the drivers of the connected devices have told, of a guest that stands still.
    ///
    /// # Errors
    /// When xenstore refuses.
    pub fn published(&mut self) -> Result<TwinFrontends, DomainError> {
        self.refresh()?;
        let mut devices = Vec::with_capacity(self.devices.len());
        for device in &mut self.devices {
            let told = device.told(&self.store)?;
            if told.is_connected {
                let nodes = told.nodes.clone().into_iter().collect();
                devices.push(TwinFrontend { class: device.class.clone(), handle: device.handle, nodes });
            }
        }
        Ok(TwinFrontends { devices })
    }

    /// Waits until each network card and disk works. A console or a keyboard nobody waits for.
    ///
    /// # Errors
    /// When one does not before the deadline.
    pub fn wait_connected(&mut self, deadline: Instant) -> Result<(), DomainError> {
        self.refresh()?;
        let ends = |device: &Device| [format!("{}/state", device.path), format!("{}/state", device.backend)];
        let ends: Vec<String> = self.devices.iter().filter(|device| device.is_known()).flat_map(ends).collect();
        self.wait_states(ends.iter().map(|path| (path.as_str(), &[state::CONNECTED][..])).collect(), deadline)
    }

    /// Makes the backends let go of the guest's memory and event channels, and forget them: the devices can only
    /// [start over](Frontends::start_over).
    ///
    /// # Errors
    /// When one does not before the deadline, and as [`Frontends::check_known`].
    pub fn close(&mut self, deadline: Instant) -> Result<(), DomainError> {
        self.check_known()?;
        self.close_those(|_| true, deadline)
    }

    /// Makes the backends let go of the guest's memory and event channels, for [`Frontends::connect`] or [`Frontends::start_over`].
    ///
    /// # Errors
    /// When one does not before the deadline, and as [`Frontends::check_known`].
    pub fn disconnect(&mut self, deadline: Instant) -> Result<(), DomainError> {
        self.begin_disconnect()?;
        self.finish_disconnect(deadline)
    }

    /// The first half of [`Frontends::disconnect`]: backends begin to let go.
    ///
    /// # Errors
    /// As there.
    pub fn begin_disconnect(&mut self) -> Result<(), DomainError> {
        self.check_known()?;
        self.devices.iter().try_for_each(|device| self.set_state(device, state::CLOSING))
    }

    /// The second half: waits until they have.
    ///
    /// # Errors
    /// As there.
    pub fn finish_disconnect(&mut self, deadline: Instant) -> Result<(), DomainError> {
        self.wait_backends(|_| true, &[state::CLOSING, state::CLOSED], deadline)?;
        // A disk's backend lets go only then.
        self.close_those(Device::is_disk, deadline)
    }

    /// Whether there is a disk.
    pub fn has_disk(&self) -> bool {
        self.devices.iter().any(Device::is_disk)
    }

    /// Of disconnected devices: tells the disks' backends once more to let go. One says that it has as soon as it was told, and keeps what it
    /// has as long as a request is under way.
    ///
    /// # Errors
    /// When xenstore refuses.
    pub fn close_disks_again(&self) -> Result<(), DomainError> {
        self.say_closed(Device::is_disk)
    }

    /// Makes the backends take hold again, of rings and event channels as `published` names them; devices that are not named stay
    /// as they are.
    ///
    /// # Errors
    /// When one does not before the deadline, or the domain has no such device.
    pub fn connect(&mut self, published: &TwinFrontends, deadline: Instant) -> Result<(), DomainError> {
        let named = self.write_published(published)?;
        for index in &named {
            self.set_state(&self.devices[*index], state::CONNECTED)?;
        }
        let paths: Vec<String> = named.iter().map(|index| format!("{}/state", self.devices[*index].backend)).collect();
        self.wait_states(paths.iter().map(|path| (path.as_str(), &[state::CONNECTED][..])).collect(), deadline)
    }

    /// Puts disconnected devices back to where a driver begins with them.
    ///
    /// # Errors
    /// When a backend does not follow before the deadline.
    pub fn start_over(&mut self, deadline: Instant) -> Result<(), DomainError> {
        let mut open = Vec::with_capacity(self.devices.len());
        for device in &self.devices {
            if self.read_state(&format!("{}/state", device.backend))? != Some(state::CLOSED) {
                open.push(device.path.clone());
            }
        }
        self.close_those(|device| open.contains(&device.path), deadline)?;
        for device in &mut self.devices {
            device.told = None;
        }
        self.devices.iter().try_for_each(|device| self.set_state(device, state::INITIALISING))?;
        self.wait_backends(|_| true, &[state::INIT_WAIT], deadline)
    }

    fn close_those(&mut self, which: impl Fn(&Device) -> bool, deadline: Instant) -> Result<(), DomainError> {
        self.say_closed(&which)?;
        self.wait_backends(which, &[state::CLOSED], deadline)
    }

    fn say_closed(&self, which: impl Fn(&Device) -> bool) -> Result<(), DomainError> {
        let mut devices = self.devices.iter().filter(|device| which(device));
        devices.try_for_each(|device| self.set_state(device, state::CLOSED))
    }

    /// Writes what differs; which devices were named.
    fn write_published(&mut self, published: &TwinFrontends) -> Result<Vec<usize>, DomainError> {
        let mut named = Vec::with_capacity(published.devices.len());
        for TwinFrontend { class, handle, nodes } in &published.devices {
            let found = self.devices.iter().position(|device| device.class == *class && device.handle == *handle);
            let index = found.ok_or_else(|| {
                DomainError::BadState(format!("the primary has a device {class}/{handle}, {} has not", self.domid))
            })?;
            let device = &mut self.devices[index];
            let home = device.path.clone();
            let told = device.told(&self.store)?;
            let live = nodes.iter().filter(|(path, _)| is_live(path)).cloned();
            let nodes: BTreeMap<String, String> = live.collect();
            for (path, value) in nodes.iter().filter(|(path, value)| told.nodes.get(*path) != Some(*value)) {
                self.store.write(&format!("{home}/{path}"), value.as_bytes())?;
            }
            for path in told.nodes.keys().filter(|path| !nodes.contains_key(*path)) {
                self.store.rm(&format!("{home}/{path}"))?;
            }
            // Its state is ours from here on: what we write there is nothing new.
            *told = Told { nodes, is_connected: true };
            named.push(index);
        }
        Ok(named)
    }

    fn set_state(&self, device: &Device, state: u32) -> Result<(), DomainError> {
        Ok(self.store.write(&format!("{}/state", device.path), state.to_string().as_bytes())?)
    }

    fn wait_backends(
        &mut self,
        which: impl Fn(&Device) -> bool,
        states: &[u32],
        deadline: Instant,
    ) -> Result<(), DomainError> {
        let which = self.devices.iter().filter(|device| which(device));
        let paths: Vec<String> = which.map(|device| format!("{}/state", device.backend)).collect();
        self.wait_states(paths.iter().map(|path| (path.as_str(), states)).collect(), deadline)
    }

    fn read_state(&self, path: &str) -> Result<Option<u32>, DomainError> {
        Ok(self.store.read_text(path)?.and_then(|state| state.parse().ok()))
    }

    /// Waits until each of the nodes is in one of its states.
    fn wait_states(&mut self, mut waiting: Vec<(&str, &[u32])>, deadline: Instant) -> Result<(), DomainError> {
        loop {
            let mut still = Vec::with_capacity(waiting.len());
            for (path, states) in waiting {
                let state = self.read_state(path)?;
                if !state.is_some_and(|state| states.contains(&state)) {
                    still.push((path, states, state));
                }
            }
            let Some(&(path, states, state)) = still.first() else { return Ok(()) };
            if !self.wait_state(deadline)? {
                let now = state.map_or("not there".into(), |state| format!("in state {state}"));
                return Err(DomainError::Other(format!("{path} is still {now}, and should be in state {}", states[0])));
            }
            waiting = still.into_iter().map(|(path, states, _)| (path, states)).collect();
        }
    }

    /// Waits for a change of some device's state; false when there is none before the deadline. A driver writes many other nodes, and each
    /// look takes from the time of the guest that does so.
    fn wait_state(&mut self, deadline: Instant) -> Result<bool, DomainError> {
        while let Some(event) = self.store.wait(deadline)? {
            self.is_stale |= event.token == FRONTENDS && note(&mut self.devices, &event.path);
            if event.path.ends_with("/state") {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Looks for them anew if there may be others.
    fn refresh(&mut self) -> Result<(), DomainError> {
        // What happened before an answer is told before it.
        self.store.read(&format!("{}/domid", self.home))?;
        while let Some(event) = self.store.check_watch()? {
            self.is_stale |= event.token == FRONTENDS && note(&mut self.devices, &event.path);
        }
        if !std::mem::take(&mut self.is_stale) {
            return Ok(());
        }
        for device in self.devices.drain(..) {
            self.store.unwatch(&format!("{}/state", device.backend), BACKEND)?;
        }
        for Found { class, handle, path, backend } in find(&self.store, &self.home)? {
            self.store.watch(&format!("{backend}/state"), BACKEND)?;
            self.devices.push(Device { class, handle, path, backend, told: None });
        }
        Ok(())
    }
}
