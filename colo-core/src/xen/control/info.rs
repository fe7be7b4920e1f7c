//! Which domains there are, and how they are.

use super::{Control, check};
use crate::ids::{DomId, Mfn};
use crate::xen::XenError;
use std::fmt;
use xen_sys::ctrl;

/// Domains asked for in one call.
const BATCH_DOMAINS: usize = 256;

/// What kind of machine a guest has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum GuestType {
    /// Paravirtual.
    Pv,
    /// Hardware-virtualised, without a device model.
    Pvh,
    /// Hardware-virtualised, with a device model.
    Hvm,
}

impl GuestType {
    /// As Xen's configuration files have it: "pv", "pvh", "hvm".
    pub fn name(self) -> &'static str {
        match self {
            GuestType::Pv => "pv",
            GuestType::Pvh => "pvh",
            GuestType::Hvm => "hvm",
        }
    }
}

impl fmt::Display for GuestType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A domain, as the hypervisor sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DomainInfo {
    /// Its number.
    pub domid: DomId,
    /// Its identity, as the toolstack gave it.
    pub uuid: [u8; 16],
    /// Whether it is an HVM or a PVH domain; else it is a PV one.
    pub hvm: bool,
    /// Whether the hardware translates its addresses (HVM and PVH only).
    pub hap: bool,
    /// Which devices the hypervisor emulates for it (`XEN_X86_EMU_*`); the local APIC alone (1) means PVH.
    pub emulation_flags: u32,
    /// Whether the toolstack has paused it.
    pub paused: bool,
    /// Whether all its vCPUs wait.
    pub blocked: bool,
    /// Whether one of its vCPUs runs at this moment.
    pub running: bool,
    /// Whether it is being destroyed.
    pub dying: bool,
    /// Whether and why it has stopped by itself, or was made to.
    pub shutdown: Option<ShutdownReason>,
    /// Pages that it has.
    pub total_pages: u64,
    /// Pages that it may have.
    pub max_pages: u64,
    /// Where the page is that it shares with the hypervisor: a machine frame, for HVM and PVH a guest frame.
    pub shared_info_frame: Mfn,
    /// The highest number of a vCPU; none when it has no vCPU yet.
    pub max_vcpu_id: Option<u32>,
    /// vCPUs that are online.
    pub online_vcpus: u32,
    /// Time that its vCPUs have run, in nanoseconds.
    pub cpu_time_ns: u64,
    /// The pool of CPUs that it runs on.
    pub cpupool: u32,
}

impl DomainInfo {
    /// What kind of machine it has. dom0 counts as what it is built like.
    pub fn guest_type(&self) -> GuestType {
        /// `XEN_X86_EMU_LAPIC`: a PVH domain has a local APIC, and no other emulated device.
        const LAPIC_ONLY: u32 = 1;
        match (self.hvm, self.emulation_flags) {
            (false, _) => GuestType::Pv,
            (true, LAPIC_ONLY) => GuestType::Pvh,
            (true, _) => GuestType::Hvm,
        }
    }

    /// Whether it has suspended itself, or was suspended, and nothing else.
    pub fn is_suspended(&self) -> bool {
        self.shutdown == Some(ShutdownReason::SUSPEND)
    }
}

/// The share of the CPUs that a domain has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scheduler {
    /// `credit` or `credit2`.
    pub name: &'static str,
    /// The domain's share, relative to the others'.
    pub weight: u16,
    /// Its limit, in percent of a CPU; 0 for none.
    pub cap: u16,
}

/// Why a domain stopped: `SHUTDOWN_*` of `xen/include/public/sched.h`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct ShutdownReason(pub u8);

impl ShutdownReason {
    /// It is done.
    pub const POWEROFF: Self = Self(ctrl::SHUTDOWN_poweroff as u8);
    /// It wants to begin anew.
    pub const REBOOT: Self = Self(ctrl::SHUTDOWN_reboot as u8);
    /// It has made itself ready to be saved.
    pub const SUSPEND: Self = Self(ctrl::SHUTDOWN_suspend as u8);
    /// A fault of its own.
    pub const CRASH: Self = Self(ctrl::SHUTDOWN_crash as u8);
    /// It did not serve its watchdog.
    pub const WATCHDOG: Self = Self(ctrl::SHUTDOWN_watchdog as u8);
    /// It wants its devices and event channels anew, and keep its memory.
    pub const SOFT_RESET: Self = Self(ctrl::SHUTDOWN_soft_reset as u8);
}

impl fmt::Display for ShutdownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Self::POWEROFF => "poweroff",
            Self::REBOOT => "reboot",
            Self::SUSPEND => "suspend",
            Self::CRASH => "crash",
            Self::WATCHDOG => "watchdog",
            Self::SOFT_RESET => "soft reset",
            Self(other) => return write!(f, "reason {other}"),
        };
        f.write_str(name)
    }
}

impl Control {
    /// The domain, or none when there is no such (`xc_domain_getinfolist`).
    ///
    /// # Errors
    /// `EACCES`: the library does not fit the hypervisor; `EPERM`: not a dom0.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// let dom0 = control.domain_info(DomId(0))?.expect("dom0 is there");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn domain_info(&self, domid: DomId) -> Result<Option<DomainInfo>, XenError> {
        // The call answers with the first domain from this number on.
        let found = self.info_list(domid, 1)?;
        Ok(found.into_iter().find(|info| info.domid == domid))
    }

    /// All domains, in the order of their numbers (`xc_domain_getinfolist`). Not at one moment when there are more than 256.
    ///
    /// # Errors
    /// As for [`Control::domain_info`].
    ///
    /// ```no_run
    /// # use colo_core::xen::{Control, Xen};
    /// # let control = Control::open(Xen::open()?)?;
    /// let paused = control.domains()?.iter().filter(|domain| domain.paused).count();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn domains(&self) -> Result<Vec<DomainInfo>, XenError> {
        let mut domains = Vec::new();
        let mut first = DomId(0);
        loop {
            let found = self.info_list(first, BATCH_DOMAINS)?;
            let full = found.len() == BATCH_DOMAINS;
            domains.extend(found);
            match domains.last() {
                Some(last) if full => first = DomId(last.domid.0 + 1),
                _ => return Ok(domains),
            }
        }
    }

    /// How the domain is scheduled (`xc_sched_credit2_domain_get`, `xc_sched_credit_domain_get`); `None` where that is in other terms than a
    /// weight and a cap.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// if let Some(scheduler) = control.scheduler(DomId(4)) {
    ///     println!("{} of weight {}", scheduler.name, scheduler.weight);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn scheduler(&self, domid: DomId) -> Option<Scheduler> {
        let library = &self.xen.ctrl;
        let mut credit2 = ctrl::xen_domctl_sched_credit2 { weight: 0, cap: 0 };
        // A scheduler that is not the domain's refuses.
        // SAFETY: the handle is open, and the structure is ours to be filled.
        if unsafe { library.xc_sched_credit2_domain_get(self.handle(), domid.0, &raw mut credit2) } == 0 {
            return Some(Scheduler { name: "credit2", weight: credit2.weight, cap: credit2.cap });
        }
        let mut credit = ctrl::xen_domctl_sched_credit { weight: 0, cap: 0 };
        // SAFETY: as above.
        let result = unsafe { library.xc_sched_credit_domain_get(self.handle(), domid.0, &raw mut credit) };
        (result == 0).then_some(Scheduler { name: "credit", weight: credit.weight, cap: credit.cap })
    }

    fn info_list(&self, first: DomId, limit: usize) -> Result<Vec<DomainInfo>, XenError> {
        let call = "xc_domain_getinfolist";
        let mut infos: Vec<ctrl::xc_domaininfo_t> = Vec::with_capacity(limit);
        let library = &self.xen.ctrl;
        // SAFETY: the handle is open, and there is room for `limit` structures, which is at most 256.
        let count = unsafe { library.xc_domain_getinfolist(self.handle(), first.0, limit as u32, infos.as_mut_ptr()) };
        let count = check(call, first, count)? as usize;
        if count > limit {
            return Err(XenError::bad_answer(call, first, format!("{count} domains for {limit}")));
        }
        // SAFETY: so many were filled in, and there is room for them.
        unsafe { infos.set_len(count) };
        Ok(infos.iter().map(from_xen).collect())
    }
}

fn from_xen(info: &ctrl::xc_domaininfo_t) -> DomainInfo {
    let has = |flag: u32| info.flags & flag != 0;
    let reason = info.flags >> ctrl::XEN_DOMINF_shutdownshift & ctrl::XEN_DOMINF_shutdownmask;
    DomainInfo {
        domid: DomId(info.domain.into()),
        uuid: info.handle,
        hvm: has(ctrl::XEN_DOMINF_hvm_guest),
        hap: has(ctrl::XEN_DOMINF_hap),
        emulation_flags: info.arch_config.emulation_flags,
        paused: has(ctrl::XEN_DOMINF_paused),
        blocked: has(ctrl::XEN_DOMINF_blocked),
        running: has(ctrl::XEN_DOMINF_running),
        dying: has(ctrl::XEN_DOMINF_dying),
        // The mask leaves 8 bits.
        shutdown: has(ctrl::XEN_DOMINF_shutdown).then_some(ShutdownReason(reason as u8)),
        total_pages: info.tot_pages,
        max_pages: info.max_pages,
        shared_info_frame: Mfn(info.shared_info_frame),
        max_vcpu_id: (info.max_vcpu_id != xen_sys::consts::XEN_INVALID_MAX_VCPU_ID).then_some(info.max_vcpu_id),
        online_vcpus: info.nr_online_vcpus,
        cpu_time_ns: info.cpu_time,
        cpupool: info.cpupool,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_taken_apart() {
        // SAFETY: numbers only.
        let mut raw: ctrl::xc_domaininfo_t = unsafe { std::mem::zeroed() };
        raw.domain = 7;
        raw.flags = ctrl::XEN_DOMINF_hvm_guest | ctrl::XEN_DOMINF_shutdown | ctrl::SHUTDOWN_suspend << 16;
        raw.max_vcpu_id = u32::MAX;
        let info = from_xen(&raw);
        assert_eq!((info.domid, info.hvm, info.hap, info.paused), (DomId(7), true, false, false));
        assert_eq!((info.shutdown, info.max_vcpu_id), (Some(ShutdownReason::SUSPEND), None));
        assert!(info.is_suspended());

        // A reason without the flag is left over from before.
        raw.flags = ctrl::XEN_DOMINF_paused | ctrl::SHUTDOWN_crash << 16;
        raw.max_vcpu_id = 1;
        let info = from_xen(&raw);
        assert_eq!((info.hvm, info.paused, info.shutdown, info.max_vcpu_id), (false, true, None, Some(1)));
    }

    #[test]
    fn reasons_have_names() {
        assert_eq!(ShutdownReason::CRASH.to_string(), "crash");
        assert_eq!(ShutdownReason(77).to_string(), "reason 77");
    }
}
