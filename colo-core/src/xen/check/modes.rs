//! Which mode of protection is possible for which guest. The one place that knows.
//!
//! | guest | Remus | COLO |
//! | --- | --- | --- |
//! | PVH | yes | a checkpoint goes unnoticed ([`ColoWay::Transparent`]) |
//! | PV | yes | the secondary's devices are connected anew at each checkpoint ([`ColoWay::Reset`]) |
//! | HVM without PV drivers | yes | the device model gets the primary's state ([`ColoWay::DeviceModel`]) |
//! | HVM with PV drivers | yes | no |

use crate::xen::GuestType;

/// What of a guest decides which modes are possible.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Guest {
    /// What kind of machine it has.
    pub guest_type: GuestType,
    /// Whether it talks to Xen by event channels: always for PV and PVH, and for HVM when `HVM_PARAM_CALLBACK_IRQ` is set.
    pub has_pv_drivers: bool,
}

/// How COLO puts a checkpoint into a secondary's guest that runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ColoWay {
    /// Memory and processors are replaced, event channels and grants stay: the guest does not notice.
    Transparent,
    /// The secondary's domain is reset at each checkpoint, and its guest connects its devices again.
    Reset,
    /// As [`ColoWay::Transparent`], and its device model is put into the state of the primary's.
    DeviceModel,
}

impl ColoWay {
    /// The way in a few words, for people.
    pub fn describe(self) -> &'static str {
        match self {
            ColoWay::Transparent => "checkpoints go unnoticed by the guest",
            ColoWay::Reset => {
                "its devices are connected anew at each checkpoint, which takes a few hundred milliseconds more"
            }
            ColoWay::DeviceModel => "at each checkpoint the device model's state is loaded, too",
        }
    }
}

/// How COLO protects such a guest.
///
/// # Errors
/// Why it cannot, as the end of a sentence. Remus protects every guest.
///
/// ```
/// use colo_core::xen::check::{ColoWay, Guest, colo_way};
/// use colo_core::xen::GuestType;
///
/// let hvm = |has_pv_drivers| Guest { guest_type: GuestType::Hvm, has_pv_drivers };
/// assert_eq!(colo_way(hvm(false)), Ok(ColoWay::DeviceModel));
/// assert!(colo_way(hvm(true)).is_err());
/// ```
pub fn colo_way(guest: Guest) -> Result<ColoWay, &'static str> {
    match (guest.guest_type, guest.has_pv_drivers) {
        (GuestType::Pvh, _) => Ok(ColoWay::Transparent),
        (GuestType::Pv, _) => Ok(ColoWay::Reset),
        (GuestType::Hvm, false) => Ok(ColoWay::DeviceModel),
        // Which event channels stand for which of its interrupts differs between a guest and its copy.
        (GuestType::Hvm, true) => Err("its PV drivers have bound the emulated devices' interrupts to event channels"),
    }
}
