//! Images of domains in files, as `xl save` and `xl restore` have them.

mod restore;
mod save;
mod taken;

pub(super) use restore::head_of;
pub use restore::{RestoreImageOptions, Restored, restore_image, restore_image_with};
pub use save::{SaveImageOptions, SaveProgress, Saved, save_image};
pub(super) use taken::ensure_free;

use crate::domain::DomainError;
use crate::ids::DomId;
use crate::restore::RestoreError;
use crate::save::SaveError;
use crate::stream::image::ImageReadError;
use crate::stream::libxl::LibxlFault;
use crate::stream::xl::XlFault;
use crate::xen::toolstack::{ConfigError, DomainUuid, RestoreToolstackError};
use std::io;

/// Why a domain has not been saved. It runs as before, unless it has ended by itself.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum SaveImageError {
    /// The domain could not be read, or the image not be written.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// The domain's configuration cannot stand in an image.
    #[error("the domain's configuration: {0}")]
    Config(#[from] XlFault),
    /// The device model's state cannot stand in an image.
    #[error("the device model's state: {0}")]
    Emulator(#[from] LibxlFault),
    /// The image could not be written.
    #[error("writing the image: {0}")]
    Sink(#[from] io::Error),
    /// The caller wanted no more of it.
    #[error("interrupted")]
    Interrupted,
}

/// Why an image has not been restored. Nothing is left of the domain.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum RestoreImageError {
    /// The image is wrong, or cannot be read.
    #[error(transparent)]
    Image(#[from] ImageReadError),
    /// The image has no configuration of its domain in front, or one that only a person can read: it is not a file that `xl save`
    /// or `colo save` wrote.
    #[error("the image has no configuration of its domain: it is no file that `xl save` or `colo save` wrote")]
    NoConfig,
    /// The configuration is none of libxl's.
    #[error(transparent)]
    BadConfig(#[from] ConfigError),
    /// The new configuration cannot stand in an image.
    #[error("the domain's configuration: {0}")]
    Config(#[from] XlFault),
    /// A record of libxl's that cannot be passed on.
    #[error("passing on a record of libxl's: {0}")]
    Libxl(#[from] LibxlFault),
    /// More records of libxl's than makes sense.
    #[error("more than {limit_bytes} bytes of the device model's")]
    TooMuch {
        /// The limit.
        limit_bytes: usize,
    },
    /// There is no domain in the image.
    #[error("the image holds no domain")]
    NoDomain,
    /// Another domain has the name.
    #[error("there is a domain {0} already")]
    NameTaken(String),
    /// A domain has the UUID: the very domain of the image, most likely.
    #[error("its domain is there already: {name} ({domid}) has its UUID, {uuid}")]
    UuidTaken {
        /// Its number.
        domid: DomId,
        /// Its name.
        name: String,
        /// The UUID.
        uuid: DomainUuid,
    },
    /// The guest does not fit the domain.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The hypervisor refused.
    #[error(transparent)]
    Domain(#[from] DomainError),
    /// The toolstack did not make the domain.
    #[error(transparent)]
    Toolstack(#[from] RestoreToolstackError),
    /// The caller wanted no more of it.
    #[error("interrupted")]
    Interrupted,
}
