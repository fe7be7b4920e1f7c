//! The clock and the CPU that a domain believes to have.

use super::{Control, check};
use crate::ids::DomId;
use crate::stream::{CpuidLeaf, MsrEntry, TscInfo};
use crate::xen::XenError;
use std::ptr::NonNull;
use xen_sys::guest;

/// The most entries of either half of a policy that are believed: today's hypervisors have below 100 leaves and 3 MSRs.
const MAX_ENTRIES: usize = 4096;

/// What a domain is told about its CPU.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CpuPolicy {
    /// What CPUID answers, as the record X86_CPUID_POLICY carries it.
    pub cpuid: Vec<CpuidLeaf>,
    /// What its MSRs say, as the record X86_MSR_POLICY carries it.
    pub msrs: Vec<MsrEntry>,
}

impl Control {
    /// The domain's time stamp counter (`xc_domain_get_tsc_info`).
    ///
    /// # Errors
    /// `ESRCH`: no such domain.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// println!("{} kHz", control.tsc_info(DomId(3))?.khz);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn tsc_info(&self, domid: DomId) -> Result<TscInfo, XenError> {
        let mut info = TscInfo { mode: 0, khz: 0, nsec: 0, incarnation: 0 };
        // SAFETY: the handle is open, and the numbers are ours.
        let result = unsafe {
            self.xen.ctrl.xc_domain_get_tsc_info(
                self.handle(),
                domid.0,
                &raw mut info.mode,
                &raw mut info.nsec,
                &raw mut info.khz,
                &raw mut info.incarnation,
            )
        };
        check("xc_domain_get_tsc_info", domid, result)?;
        Ok(info)
    }

    /// Sets the domain's time stamp counter (`xc_domain_set_tsc_info`). The domain must not run. The hypervisor counts one incarnation more
    /// than it is given.
    ///
    /// # Errors
    /// `ESRCH`: no such domain. `EINVAL`: no such mode.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// let tsc = control.tsc_info(DomId(3))?;
    /// control.set_tsc_info(DomId(4), tsc)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_tsc_info(&self, domid: DomId, info: TscInfo) -> Result<(), XenError> {
        let TscInfo { mode, khz, nsec, incarnation } = info;
        let library = &self.xen.ctrl;
        // SAFETY: the handle is open.
        let result = unsafe { library.xc_domain_set_tsc_info(self.handle(), domid.0, mode, nsec, khz, incarnation) };
        check("xc_domain_set_tsc_info", domid, result).map(drop)
    }

    /// What the domain is told about its CPU (`xc_cpu_policy_get_domain`, `xc_cpu_policy_serialise`).
    ///
    /// # Errors
    /// `ESRCH`: no such domain.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// let leaves = control.cpu_policy(DomId(3))?.cpuid.len();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cpu_policy(&self, domid: DomId) -> Result<CpuPolicy, XenError> {
        let (mut leaves, mut msrs) = (0, 0);
        // SAFETY: the handle is open, and the numbers are ours.
        let result = unsafe { self.xen.guest.xc_cpu_policy_get_size(self.handle(), &raw mut leaves, &raw mut msrs) };
        check("xc_cpu_policy_get_size", domid, result)?;
        if leaves as usize > MAX_ENTRIES || msrs as usize > MAX_ENTRIES {
            let why = format!("{leaves} leaves, {msrs} MSRs");
            return Err(XenError::bad_answer("xc_cpu_policy_get_size", domid, why));
        }
        let policy = Policy::new(self.xen)?;
        // SAFETY: the handle is open, and the policy is one of the library's.
        let result = unsafe { self.xen.guest.xc_cpu_policy_get_domain(self.handle(), domid.0, policy.pointer()) };
        check("xc_cpu_policy_get_domain", domid, result)?;
        let mut cpuid = vec![guest::xen_cpuid_leaf_t { leaf: 0, subleaf: 0, a: 0, b: 0, c: 0, d: 0 }; leaves as usize];
        let mut entries = vec![guest::xen_msr_entry_t { idx: 0, flags: 0, val: 0 }; msrs as usize];
        // SAFETY: the handle is open, the policy is one of the library's, and the arrays are as long as the numbers say.
        let result = unsafe {
            self.xen.guest.xc_cpu_policy_serialise(
                self.handle(),
                policy.pointer(),
                cpuid.as_mut_ptr(),
                &raw mut leaves,
                entries.as_mut_ptr(),
                &raw mut msrs,
            )
        };
        check("xc_cpu_policy_serialise", domid, result)?;
        cpuid.truncate(leaves as usize);
        entries.truncate(msrs as usize);
        Ok(CpuPolicy {
            cpuid: cpuid.iter().map(leaf_of).collect(),
            msrs: entries.iter().map(|entry| MsrEntry { index: entry.idx, value: entry.val }).collect(),
        })
    }

    /// Sets what the domain is told about its CPU (`xc_set_domain_cpu_policy`). The domain must not have run yet.
    ///
    /// # Errors
    /// `ESRCH`: no such domain. `InvalidInput`: more entries than any policy has. Else the hypervisor refuses a leaf or an MSR; the error
    /// says which.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// let policy = control.cpu_policy(DomId(3))?;
    /// control.set_cpu_policy(DomId(4), &policy)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_cpu_policy(&self, domid: DomId, policy: &CpuPolicy) -> Result<(), XenError> {
        let call = "xc_set_domain_cpu_policy";
        if policy.cpuid.len() > MAX_ENTRIES || policy.msrs.len() > MAX_ENTRIES {
            let why = format!("{} leaves, {} MSRs", policy.cpuid.len(), policy.msrs.len());
            return Err(XenError::invalid(call, domid, why));
        }
        let mut leaves: Vec<_> = policy.cpuid.iter().map(leaf_to_xen).collect();
        let msr = |entry: &MsrEntry| guest::xen_msr_entry_t { idx: entry.index, flags: 0, val: entry.value };
        let mut msrs: Vec<_> = policy.msrs.iter().map(msr).collect();
        let (mut leaf, mut subleaf, mut msr) = (u32::MAX, u32::MAX, u32::MAX);
        // SAFETY: the handle is open, and the arrays are as long as told (at most `MAX_ENTRIES`).
        let result = unsafe {
            self.xen.guest.xc_set_domain_cpu_policy(
                self.handle(),
                domid.0,
                leaves.len() as u32,
                leaves.as_mut_ptr(),
                msrs.len() as u32,
                msrs.as_mut_ptr(),
                &raw mut leaf,
                &raw mut subleaf,
                &raw mut msr,
            )
        };
        check(call, domid, result).map(drop).map_err(|error| {
            // All ones means that it is not the one to blame.
            let place = match (leaf, msr) {
                (u32::MAX, u32::MAX) => return error,
                (u32::MAX, msr) => format!("MSR {msr:#x}"),
                (leaf, _) => format!("CPUID leaf {leaf:#x}, subleaf {subleaf:#x}"),
            };
            let source = std::io::Error::new(error.source.kind(), format!("{place}: {}", error.source));
            XenError { source, ..error }
        })
    }
}

/// A policy of the library's.
struct Policy {
    xen: &'static xen_sys::Xen,
    pointer: NonNull<guest::xc_cpu_policy_t>,
}

impl Policy {
    fn new(xen: &'static xen_sys::Xen) -> Result<Self, XenError> {
        // SAFETY: it allocates, and nothing else.
        let pointer = NonNull::new(unsafe { xen.guest.xc_cpu_policy_init() });
        Ok(Policy { xen, pointer: pointer.ok_or_else(|| XenError::last("xc_cpu_policy_init", None))? })
    }

    fn pointer(&self) -> *mut guest::xc_cpu_policy_t {
        self.pointer.as_ptr()
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        // SAFETY: it comes from the library, and is not used after.
        unsafe { self.xen.guest.xc_cpu_policy_destroy(self.pointer()) };
    }
}

fn leaf_of(leaf: &guest::xen_cpuid_leaf_t) -> CpuidLeaf {
    CpuidLeaf::from_words([leaf.leaf, leaf.subleaf, leaf.a, leaf.b, leaf.c, leaf.d])
}

fn leaf_to_xen(leaf: &CpuidLeaf) -> guest::xen_cpuid_leaf_t {
    let [leaf, subleaf, a, b, c, d] = leaf.to_words();
    guest::xen_cpuid_leaf_t { leaf, subleaf, a, b, c, d }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_keep_their_words() {
        for subleaf in [2, u32::MAX] {
            let leaf = leaf_to_xen(&leaf_of(&guest::xen_cpuid_leaf_t { leaf: 1, subleaf, a: 3, b: 4, c: 5, d: 6 }));
            let words = [leaf.leaf, leaf.subleaf, leaf.a, leaf.b, leaf.c, leaf.d];
            assert_eq!(words, [1, subleaf, 3, 4, 5, 6]);
        }
    }
}
