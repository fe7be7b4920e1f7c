use super::error::{Fault, StreamError};
use super::hvm::{HvmContext, HvmParams};
use super::policy::{CpuidPolicy, MsrPolicy, TscInfo};
use super::pv::{P2mFrames, PvInfo, VcpuBlob, shared_info};
use super::{VcpuPart, kind};
use crate::ids::Page;

/// What a record of a domain's state says, checked as far as it can be without a hypervisor.
///
/// ```
/// use colo_core::stream::{StateRef, TscInfo};
///
/// let tsc = TscInfo { mode: 2, khz: 0, nsec: 0, incarnation: 3 };
/// let record = tsc.to_record();
/// assert_eq!(StateRef::parse(record.kind, &record.body, None)?, StateRef::Tsc(tsc));
/// # Ok::<(), colo_core::stream::StreamError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StateRef<'a> {
    /// X86_PV_INFO.
    PvInfo(PvInfo),
    /// X86_PV_P2M_FRAMES.
    P2mFrames(P2mFrames<'a>),
    /// X86_PV_VCPU_BASIC, EXTENDED, XSAVE, MSRS.
    Vcpu(VcpuBlob<'a>),
    /// SHARED_INFO.
    SharedInfo(&'a Page),
    /// X86_TSC_INFO.
    Tsc(TscInfo),
    /// HVM_CONTEXT.
    HvmContext(HvmContext<'a>),
    /// HVM_PARAMS.
    HvmParams(HvmParams<'a>),
    /// X86_CPUID_POLICY.
    CpuidPolicy(CpuidPolicy<'a>),
    /// X86_MSR_POLICY.
    MsrPolicy(MsrPolicy<'a>),
}

impl<'a> StateRef<'a> {
    /// Reads the body of a record of this type. `pv` is what the stream's X86_PV_INFO record has said, if it has come
    /// ([`super::OrderChecker::pv_info`]).
    ///
    /// # Errors
    /// Those of the `parse` functions; [`Fault::OutOfOrder`] for a record that only X86_PV_INFO explains when that has not come,
    /// [`Fault::UnknownMandatory`] for a type that is no state.
    pub fn parse(kind: u32, body: &'a [u8], pv: Option<PvInfo>) -> Result<StateRef<'a>, StreamError> {
        let width = || pv.ok_or_else(|| Fault::OutOfOrder { kind, expected: "X86_PV_INFO" }.at_start());
        match kind {
            kind::X86_PV_INFO => PvInfo::parse(body).map(StateRef::PvInfo),
            kind::X86_PV_P2M_FRAMES => P2mFrames::parse(body, width()?).map(StateRef::P2mFrames),
            _ if VcpuPart::of_kind(kind).is_some() => VcpuBlob::parse(kind, body, width()?).map(StateRef::Vcpu),
            kind::SHARED_INFO => shared_info(body).map(StateRef::SharedInfo),
            kind::X86_TSC_INFO => TscInfo::parse(body).map(StateRef::Tsc),
            kind::HVM_CONTEXT => HvmContext::parse(body).map(StateRef::HvmContext),
            kind::HVM_PARAMS => HvmParams::parse(body).map(StateRef::HvmParams),
            kind::X86_CPUID_POLICY => CpuidPolicy::parse(body).map(StateRef::CpuidPolicy),
            kind::X86_MSR_POLICY => MsrPolicy::parse(body).map(StateRef::MsrPolicy),
            _ => Err(Fault::UnknownMandatory(kind).at_start()),
        }
    }
}
