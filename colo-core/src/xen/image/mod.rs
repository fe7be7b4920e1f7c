//! Images of domains in files, as `xl save` and `xl restore` have them.

mod save;

pub use save::{SaveImageOptions, Saved, save_image};

use crate::domain::DomainError;
use crate::save::SaveError;
use crate::stream::StreamError;
use crate::stream::libxl::LibxlFault;
use crate::stream::xl::XlFault;
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
