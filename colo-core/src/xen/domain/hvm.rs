use super::populated::find_pages;
use super::{Incoming, XenDomain, bad_state, unmapped};
use crate::domain::{DirtyBitmap, DomainError, StateRecord};
use crate::ids::{DomId, Pfn};
use crate::stream::hvm::{HvmContext, HvmParam, HvmParams};
use crate::stream::{PageType, TscInfo, kind};
use crate::xen::{Control, XenError};
use xen_sys::ctrl;

/// The parameters that belong to the guest's state, in the order in which Xen's own tools write them; one that is 0 is left out.
const PARAMS: [u32; 16] = [
    ctrl::HVM_PARAM_STORE_PFN,
    ctrl::HVM_PARAM_IOREQ_PFN,
    ctrl::HVM_PARAM_BUFIOREQ_PFN,
    ctrl::HVM_PARAM_PAGING_RING_PFN,
    ctrl::HVM_PARAM_MONITOR_RING_PFN,
    ctrl::HVM_PARAM_SHARING_RING_PFN,
    ctrl::HVM_PARAM_VM86_TSS_SIZED,
    ctrl::HVM_PARAM_CONSOLE_PFN,
    ctrl::HVM_PARAM_ACPI_IOPORTS_LOCATION,
    ctrl::HVM_PARAM_VIRIDIAN,
    ctrl::HVM_PARAM_IDENT_PT,
    ctrl::HVM_PARAM_VM_GENERATION_ID_ADDR,
    ctrl::HVM_PARAM_IOREQ_SERVER_PFN,
    ctrl::HVM_PARAM_NR_IOREQ_SERVER_PAGES,
    ctrl::HVM_PARAM_X87_FIP_WIDTH,
    ctrl::HVM_PARAM_MCA_CAP,
];

/// Pages by which the guest talks to what is outside of it: in a restored guest they begin empty.
const RINGS: [u32; 4] =
    [ctrl::HVM_PARAM_STORE_PFN, ctrl::HVM_PARAM_CONSOLE_PFN, ctrl::HVM_PARAM_IOREQ_PFN, ctrl::HVM_PARAM_BUFIOREQ_PFN];

/// Which pages the guest has.
pub(super) fn populated(
    control: &Control,
    domid: DomId,
    gfn_limit: u64,
    into: &mut DirtyBitmap,
) -> Result<(), DomainError> {
    let owned = control.domain_info(domid)?.map_or(0, |info| info.total_pages);
    // A page that gets its memory by being looked at may take it from one that was counted before: then the number tells nothing.
    let tells = control.pod_pages(domid).is_ok_and(|untouched| untouched == 0);
    let owned = if tells { owned } else { u64::MAX };
    let (mut gfns, mut types) = (Vec::new(), Vec::new());
    let exists = |window: std::ops::Range<u64>| {
        gfns.clear();
        gfns.extend(window);
        types.resize(gfns.len(), 0);
        control.page_types(domid, &gfns, &mut types)?;
        Ok(types.iter().map(|page_type| *page_type != ctrl::XEN_DOMCTL_PFINFO_XTAB).collect())
    };
    find_pages(gfn_limit, owned, exists, into)
}

/// Those that say how the domain itself was made: another's mean nothing to it.
const OF_THE_DOMAIN: [u32; 6] = [
    ctrl::HVM_PARAM_STORE_PFN,
    ctrl::HVM_PARAM_CONSOLE_PFN,
    ctrl::HVM_PARAM_IOREQ_PFN,
    ctrl::HVM_PARAM_BUFIOREQ_PFN,
    ctrl::HVM_PARAM_IOREQ_SERVER_PFN,
    ctrl::HVM_PARAM_NR_IOREQ_SERVER_PAGES,
];

impl XenDomain {
    /// Puts another's vCPUs, platform devices and parameters into this domain, which has been made from the same guest and stands still.
    /// The counters of its vCPUs are among them; how the domain counts time is not.
    pub(in crate::xen) fn overlay_hvm_state(&self, state: &[StateRecord]) -> Result<(), DomainError> {
        let state = HvmState::parse(state)?;
        for index in PARAMS.into_iter().filter(|index| !OF_THE_DOMAIN.contains(index)) {
            let value = state.params.get(index.into()).unwrap_or(0);
            // Some can be set only once, and need not be twice.
            if self.control.hvm_param(self.domid, index)? != value {
                self.control.set_hvm_param(self.domid, index, value)?;
            }
        }
        Ok(self.control.set_hvm_context(self.domid, state.context)?)
    }

    /// Of a guest that stands still, a page that could not be mapped must be one that is not there.
    pub(super) fn check_left_out(&self, pfns: &[Pfn], types: &[PageType]) -> Result<(), DomainError> {
        let left_out = pfns.iter().zip(types).filter(|(_, page_type)| **page_type == PageType::Invalid);
        let gfns: Vec<u64> = left_out.map(|(pfn, _)| pfn.0).collect();
        let mut there = vec![0; gfns.len()];
        self.control.page_types(self.domid, &gfns, &mut there)?;
        let lost = [ctrl::XEN_DOMCTL_PFINFO_XTAB, ctrl::XEN_DOMCTL_PFINFO_BROKEN];
        match gfns.iter().zip(there).find(|(_, page_type)| !lost.contains(page_type)) {
            Some((gfn, _)) => Err(unmapped(Pfn(*gfn), &self.spec.name)),
            None => Ok(()),
        }
    }
}

/// vCPUs, platform devices, parameters.
pub(super) fn save_state(control: &Control, domid: DomId) -> Result<Vec<StateRecord>, DomainError> {
    let tsc = control.tsc_info(domid)?;
    let mut context = StateRecord { kind: kind::HVM_CONTEXT, body: Vec::new() };
    control.hvm_context(domid, &mut context.body)?;
    let mut params = Vec::new();
    for index in PARAMS {
        let value = control.hvm_param(domid, index)?;
        if value != 0 {
            params.push(HvmParam { index: index.into(), value });
        }
    }
    Ok(vec![tsc.to_record(), context, HvmParams::record(&params)])
}

/// What a restored guest's state is made of.
pub(super) struct HvmState<'a> {
    tsc: Option<TscInfo>,
    params: HvmParams<'a>,
    context: &'a [u8],
}

impl<'a> HvmState<'a> {
    /// Finds the parts among the records of a checkpoint.
    pub(super) fn parse(state: &'a [StateRecord]) -> Result<Self, DomainError> {
        let body =
            |kind: u32| state.iter().rev().find(|record| record.kind == kind).map(|record| record.body.as_slice());
        let needed = |kind: u32| body(kind).ok_or_else(|| bad_state(format!("no {} record", kind::name(kind))));
        let context = needed(kind::HVM_CONTEXT)?;
        HvmContext::parse(context).map_err(bad_state)?;
        Ok(HvmState {
            tsc: body(kind::X86_TSC_INFO).map(TscInfo::parse).transpose().map_err(bad_state)?,
            params: HvmParams::parse(needed(kind::HVM_PARAMS)?).map_err(bad_state)?,
            context,
        })
    }

    /// Puts it into a domain that has just been made and whose memory is in place.
    pub(super) fn load(&self, control: &Control, domid: DomId, incoming: &mut Incoming) -> Result<(), XenError> {
        if let Some(tsc) = &self.tsc {
            control.set_tsc_info(domid, *tsc)?;
        }
        for param in self.params.iter() {
            let Ok(index) = u32::try_from(param.index) else {
                continue;
            };
            if RINGS.contains(&index) {
                // Older hypervisors take the pages of requests out of the guest: there is nothing to clear then.
                let cleared = control.clear_pages(domid, param.value, 1);
                let _ = cleared.inspect_err(|error| tracing::debug!("parameter {index}: {error}"));
            }
            // Only ever a message from an older toolstack to itself.
            if index != ctrl::HVM_PARAM_PAE_ENABLED {
                control.set_hvm_param(domid, index, param.value)?;
            }
        }
        let gfn = |index: u32| self.params.get(index.into()).unwrap_or(0);
        (incoming.store_gfn, incoming.console_gfn) = (gfn(ctrl::HVM_PARAM_STORE_PFN), gfn(ctrl::HVM_PARAM_CONSOLE_PFN));
        control.set_hvm_param(domid, ctrl::HVM_PARAM_STORE_EVTCHN, incoming.store_evtchn.into())?;
        control.set_hvm_param(domid, ctrl::HVM_PARAM_CONSOLE_EVTCHN, incoming.console_evtchn.into())?;
        control.set_hvm_context(domid, self.context)?;
        incoming.seed_grants(control, domid, true)
    }
}
