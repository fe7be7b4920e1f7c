//! The commands for domains of Xen.

mod check;
mod cleanup;
mod info;
mod list;
mod primary;
mod restore;
mod resume;
mod save;

pub(crate) use check::run as check;
pub(crate) use cleanup::run as cleanup;
pub(crate) use info::run as info;
pub(crate) use list::run as list;
pub(crate) use primary::run as primary;
pub(crate) use restore::run as restore;
pub(crate) use resume::run as resume;
pub(crate) use save::run as save;

use anyhow::{Result, bail};
use colo_core::ids::DomId;
use colo_core::xen::control::DomainInfo;
use colo_core::xen::{Control, Xen, XenStore};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;

/// A domain, and the handles by which it was found.
struct Found {
    control: Control,
    store: XenStore,
    info: DomainInfo,
    name: String,
}

/// The domain that is meant by a name or a number.
fn find(xen: Xen, domain: &str) -> Result<Found> {
    let control = Control::open(xen)?;
    let store = XenStore::open(xen)?;
    let number = domain.parse().ok().map(DomId);
    for info in control.domains()? {
        let name = name(&store, info.domid)?;
        // A name may be a number, but no sane one is.
        if number == Some(info.domid) || name == domain {
            return Ok(Found { control, store, info, name });
        }
    }
    bail!("there is no domain {domain} (`colo list` shows those that there are)")
}

fn name(store: &XenStore, domid: DomId) -> Result<String> {
    Ok(store.read_text(&format!("/local/domain/{}/name", domid.0))?.unwrap_or_else(|| "(null)".into()))
}

/// A bar that shows how far bytes have got, with their rate and the time left; none unless somebody looks.
fn progress_bar(json: bool) -> ProgressBar {
    if json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = "{msg} [{bar:40}] {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";
    let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style)
}
