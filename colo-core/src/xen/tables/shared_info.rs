use crate::domain::DomainError;
use crate::ids::{DomId, PAGE_SIZE};
use crate::stream::TwinSharedInfo;
use crate::xen::foreign::Access;
use crate::xen::{Control, ForeignMemory};
use std::ops::Range;

/// `evtchn_mask` of a 64-bit guest: a bit for each port.
const MASKS: Range<usize> = 2560..3072;

/// The page that an HVM or PVH guest shares with the hypervisor.
///
/// # Errors
/// When the guest has not asked for it, or it cannot be mapped.
pub fn read_shared_info(
    control: &Control,
    foreign: &ForeignMemory,
    domid: DomId,
) -> Result<TwinSharedInfo, DomainError> {
    let mapping = foreign.map(domid, Access::Read, &[frame(control, domid)?])?;
    let mut page = Box::new([0; PAGE_SIZE]);
    mapping.read_page(0, &mut page);
    Ok(TwinSharedInfo::new(page))
}

/// Puts the primary's page into a domain that stands still, but for the clock, which is its host's.
///
/// # Errors
/// As for [`read_shared_info`].
pub fn write_shared_info(
    control: &Control,
    foreign: &ForeignMemory,
    domid: DomId,
    shared: &TwinSharedInfo,
) -> Result<(), DomainError> {
    // Not kept: a reset gives the guest another page in its place.
    let mut mapping = foreign.map(domid, Access::ReadWrite, &[frame(control, domid)?])?;
    let (before, after) = (..TwinSharedInfo::CLOCK.start, TwinSharedInfo::CLOCK.end..);
    mapping.write_bytes(0, 0, &shared.page()[before]);
    mapping.write_bytes(0, after.start, &shared.page()[after]);
    Ok(())
}

/// Masks all events of a guest that has the smaller interface for them, and stands still.
///
/// # Errors
/// As for [`read_shared_info`].
pub fn mask_shared_info(control: &Control, foreign: &ForeignMemory, domid: DomId) -> Result<(), DomainError> {
    let mut mapping = foreign.map(domid, Access::ReadWrite, &[frame(control, domid)?])?;
    mapping.write_bytes(0, MASKS.start, &[0xff; MASKS.end - MASKS.start]);
    Ok(())
}

fn frame(control: &Control, domid: DomId) -> Result<u64, DomainError> {
    let info = control.domain_info(domid)?.ok_or_else(|| DomainError::NotRunning(domid.to_string()))?;
    // A guest that has not asked for the page has it nowhere: then this is no number that a page may have.
    Ok(info.shared_info_frame.0)
}
