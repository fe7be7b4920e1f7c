//! Xen's own toolstack at work for us: a domain that is restored is built by `xl` and libxl, not by a home-made builder.
//!
//! libxl leaves the memory and the processors of a domain to a program of its own, the *save helper*, and the environment variable
//! `LIBXL_SAVE_HELPER` names another. Ours does nothing but hand over: it passes its pipes to the process that wants the domain,
//! and ends when that tells it to.
//!
//! ```text
//!   colo restore  --starts-->  xl restore  --starts-->  save helper (colo again, in its other role)
//!        |  ^                    |    ^                        |
//!        |  |   file header,     |    |   log, results,        |
//!        |  |   LIBXC_CONTEXT,   |    |   completion           |
//!        |  `--------------------'    |   (messages)           |
//!        |       a pipe               |                        |
//!        |`---------------------------'                        |
//!        `<--- libxl's two pipes and its arguments ------------'   (a socket)
//! ```
//!
//! * [`messages`]: what a save helper and libxl say to each other. [`LibxlChannel`] says it, with a deadline for each word.
//! * [`HelperRole`] is the helper, [`Handover`] its other end.
//! * [`XlRestore`]: all of it, from the start of `xl` to a domain that runs, or to none, whatever is killed meanwhile ([`RestoreGuard`]).
//! * [`Xl`]: other commands of `xl`.
//! * [`Libxl`]: the library itself, to end a domain.
//! * [`DomainConfig`]: what a domain is built after, and what it is like by now.
//! * [`emulator`]: what of an HVM domain's state the device model has.
//! * [`DomainLock`]: libxl's locks, so that we and `xl` do not get in each other's way.
//!
//! All of this is the same in Xen 4.17 to 4.22 (`tools/libs/light/libxl_save_callout.c`, `libxl_save_msgs_gen.pl`).

mod channel;
mod config;
mod device_model;
pub mod emulator;
mod handover;
mod light;
pub mod messages;
mod restore;
mod restore_error;
mod restore_guard;
mod target;
#[cfg(test)]
mod tests;
mod userdata;
mod xl;

pub use channel::{ChannelError, LibxlChannel};
pub use config::{ConfigError, Disk, DomainConfig, LiveState, MAX_CONFIG_BYTES, Nic, XenstoreView};
pub use handover::{HANDOVER_VARIABLE, Handover, HandoverError, HelperRole, RestoreRequest};
pub use light::{Libxl, LibxlError};
pub use restore::{RestoreOptions, XlRestore};
pub use restore_error::RestoreToolstackError;
pub use restore_guard::RestoreGuard;
pub use userdata::{DomainLock, DomainUuid, LockError, LockKind};
pub use xl::{ListedDomain, Xl, XlError};
