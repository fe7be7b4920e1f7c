//! The clock and the CPU that a domain believes to have.

use super::{Control, check};
use crate::ids::DomId;
use crate::stream::TscInfo;
use crate::xen::XenError;
use std::ptr::NonNull;
use xen_sys::guest;

/// The most entries of either half of a policy that are believed: today's hypervisors have below 100 leaves and 3 MSRs.
const MAX_ENTRIES: usize = 4096;

/// What a domain is told about its CPU, as the records X86_CPUID_POLICY and X86_MSR_POLICY carry it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CpuPolicy {
    /// CPUID leaves, of 24 bytes each (`xen_cpuid_leaf_t`).
    pub cpuid: Vec<u8>,
    /// MSRs, of 16 bytes each (`xen_msr_entry_t`).
    pub msrs: Vec<u8>,
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
    /// let leaves = control.cpu_policy(DomId(3))?.cpuid.len() / 24;
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
            cpuid: cpuid.iter().flat_map(leaf_bytes).collect(),
            msrs: entries.iter().flat_map(msr_bytes).collect(),
        })
    }

    /// Sets what the domain is told about its CPU (`xc_set_domain_cpu_policy`). The domain must not have run yet.
    ///
    /// # Errors
    /// `ESRCH`: no such domain. `InvalidInput`: a length that does not fit. Else the hypervisor refuses a leaf or an MSR; the error
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
        let (leaf_size, msr_size) = (size_of::<guest::xen_cpuid_leaf_t>(), size_of::<guest::xen_msr_entry_t>());
        let whole = |bytes: &[u8], size: usize| bytes.len() % size == 0 && bytes.len() / size <= MAX_ENTRIES;
        if !whole(&policy.cpuid, leaf_size) || !whole(&policy.msrs, msr_size) {
            let why = format!("{} bytes of leaves, {} of MSRs", policy.cpuid.len(), policy.msrs.len());
            return Err(XenError::invalid(call, domid, why));
        }
        let mut leaves: Vec<_> = policy.cpuid.chunks_exact(leaf_size).map(leaf_from).collect();
        let mut msrs: Vec<_> = policy.msrs.chunks_exact(msr_size).map(msr_from).collect();
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

fn leaf_bytes(leaf: &guest::xen_cpuid_leaf_t) -> impl Iterator<Item = u8> + use<> {
    [leaf.leaf, leaf.subleaf, leaf.a, leaf.b, leaf.c, leaf.d].into_iter().flat_map(u32::to_le_bytes)
}

fn leaf_from(bytes: &[u8]) -> guest::xen_cpuid_leaf_t {
    let word = |index: usize| u32_at(bytes, 4 * index);
    guest::xen_cpuid_leaf_t { leaf: word(0), subleaf: word(1), a: word(2), b: word(3), c: word(4), d: word(5) }
}

fn msr_bytes(entry: &guest::xen_msr_entry_t) -> impl Iterator<Item = u8> + use<> {
    let words = [entry.idx, entry.flags, entry.val as u32, (entry.val >> 32) as u32];
    words.into_iter().flat_map(u32::to_le_bytes)
}

fn msr_from(bytes: &[u8]) -> guest::xen_msr_entry_t {
    let value = u64::from(u32_at(bytes, 8)) | u64::from(u32_at(bytes, 12)) << 32;
    guest::xen_msr_entry_t { idx: u32_at(bytes, 0), flags: u32_at(bytes, 4), val: value }
}

/// # Panics
/// Beyond the end: the callers take pieces of a fixed size.
fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let (word, _) = bytes[offset..].split_first_chunk().expect("four bytes");
    u32::from_le_bytes(*word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_keep_their_bytes() {
        let bytes: Vec<u8> = (1..=24).collect();
        let leaf = leaf_from(&bytes);
        assert_eq!((leaf.leaf, leaf.d), (0x0403_0201, 0x1817_1615));
        assert_eq!(leaf_bytes(&leaf).collect::<Vec<_>>(), bytes);
        let msr = msr_from(&bytes[..16]);
        assert_eq!((msr.idx, msr.flags, msr.val), (0x0403_0201, 0x0807_0605, 0x100f_0e0d_0c0b_0a09));
        assert_eq!(msr_bytes(&msr).collect::<Vec<_>>(), bytes[..16]);
    }
}
