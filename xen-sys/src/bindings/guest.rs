// Made by regenerate.sh: do not edit.

pub type xen_pfn_t = ::std::os::raw::c_ulong;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct xen_cpuid_leaf {
    pub leaf: u32,
    pub subleaf: u32,
    pub a: u32,
    pub b: u32,
    pub c: u32,
    pub d: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of xen_cpuid_leaf"][::std::mem::size_of::<xen_cpuid_leaf>() - 24usize];
    ["Alignment of xen_cpuid_leaf"][::std::mem::align_of::<xen_cpuid_leaf>() - 4usize];
    ["Offset of field: xen_cpuid_leaf::leaf"][::std::mem::offset_of!(xen_cpuid_leaf, leaf) - 0usize];
    ["Offset of field: xen_cpuid_leaf::subleaf"][::std::mem::offset_of!(xen_cpuid_leaf, subleaf) - 4usize];
    ["Offset of field: xen_cpuid_leaf::a"][::std::mem::offset_of!(xen_cpuid_leaf, a) - 8usize];
    ["Offset of field: xen_cpuid_leaf::b"][::std::mem::offset_of!(xen_cpuid_leaf, b) - 12usize];
    ["Offset of field: xen_cpuid_leaf::c"][::std::mem::offset_of!(xen_cpuid_leaf, c) - 16usize];
    ["Offset of field: xen_cpuid_leaf::d"][::std::mem::offset_of!(xen_cpuid_leaf, d) - 20usize];
};
pub type xen_cpuid_leaf_t = xen_cpuid_leaf;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct xen_msr_entry {
    pub idx: u32,
    pub flags: u32,
    pub val: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of xen_msr_entry"][::std::mem::size_of::<xen_msr_entry>() - 16usize];
    ["Alignment of xen_msr_entry"][::std::mem::align_of::<xen_msr_entry>() - 8usize];
    ["Offset of field: xen_msr_entry::idx"][::std::mem::offset_of!(xen_msr_entry, idx) - 0usize];
    ["Offset of field: xen_msr_entry::flags"][::std::mem::offset_of!(xen_msr_entry, flags) - 4usize];
    ["Offset of field: xen_msr_entry::val"][::std::mem::offset_of!(xen_msr_entry, val) - 8usize];
};
pub type xen_msr_entry_t = xen_msr_entry;
#[repr(C)]
#[derive(Debug)]
pub struct xc_cpu_policy {
    _unused: [u8; 0],
}
pub type xc_cpu_policy_t = xc_cpu_policy;
pub struct XenGuest {
    __library: ::libloading::Library,
    pub xc_dom_gnttab_seed: unsafe extern "C" fn(
        xch: *mut xc_interface,
        guest_domid: u32,
        is_hvm: bool,
        console_gfn: xen_pfn_t,
        xenstore_gfn: xen_pfn_t,
        console_domid: u32,
        xenstore_domid: u32,
    ) -> ::std::os::raw::c_int,
    pub xc_suspend_evtchn_release: unsafe extern "C" fn(
        xch: *mut xc_interface,
        xce: *mut xenevtchn_handle,
        domid: u32,
        suspend_evtchn: ::std::os::raw::c_int,
        lockfd: *mut ::std::os::raw::c_int,
    ) -> ::std::os::raw::c_int,
    pub xc_suspend_evtchn_init_sane: unsafe extern "C" fn(
        xch: *mut xc_interface,
        xce: *mut xenevtchn_handle,
        domid: u32,
        port: ::std::os::raw::c_int,
        lockfd: *mut ::std::os::raw::c_int,
    ) -> ::std::os::raw::c_int,
    pub xc_domain_resume:
        unsafe extern "C" fn(xch: *mut xc_interface, domid: u32, fast: ::std::os::raw::c_int) -> ::std::os::raw::c_int,
    pub xc_cpu_policy_init: unsafe extern "C" fn() -> *mut xc_cpu_policy_t,
    pub xc_cpu_policy_destroy: unsafe extern "C" fn(policy: *mut xc_cpu_policy_t),
    pub xc_cpu_policy_get_domain:
        unsafe extern "C" fn(xch: *mut xc_interface, domid: u32, policy: *mut xc_cpu_policy_t) -> ::std::os::raw::c_int,
    pub xc_cpu_policy_serialise: unsafe extern "C" fn(
        xch: *mut xc_interface,
        policy: *const xc_cpu_policy_t,
        leaves: *mut xen_cpuid_leaf_t,
        nr_leaves: *mut u32,
        msrs: *mut xen_msr_entry_t,
        nr_msrs: *mut u32,
    ) -> ::std::os::raw::c_int,
    pub xc_cpu_policy_get_size:
        unsafe extern "C" fn(xch: *mut xc_interface, nr_leaves: *mut u32, nr_msrs: *mut u32) -> ::std::os::raw::c_int,
    pub xc_set_domain_cpu_policy: unsafe extern "C" fn(
        xch: *mut xc_interface,
        domid: u32,
        nr_leaves: u32,
        leaves: *mut xen_cpuid_leaf_t,
        nr_msrs: u32,
        msrs: *mut xen_msr_entry_t,
        err_leaf_p: *mut u32,
        err_subleaf_p: *mut u32,
        err_msr_p: *mut u32,
    ) -> ::std::os::raw::c_int,
}
impl XenGuest {
    pub unsafe fn new<P>(path: P) -> Result<Self, ::libloading::Error>
    where
        P: AsRef<::std::ffi::OsStr>,
    {
        let path = path.as_ref();
        let library = ::libloading::Library::new(path)?;
        Self::from_library(library)
    }
    pub unsafe fn from_library<L>(library: L) -> Result<Self, ::libloading::Error>
    where
        L: Into<::libloading::Library>,
    {
        let __library = library.into();
        let xc_dom_gnttab_seed = __library.get(b"xc_dom_gnttab_seed\0").map(|sym| *sym)?;
        let xc_suspend_evtchn_release = __library.get(b"xc_suspend_evtchn_release\0").map(|sym| *sym)?;
        let xc_suspend_evtchn_init_sane = __library.get(b"xc_suspend_evtchn_init_sane\0").map(|sym| *sym)?;
        let xc_domain_resume = __library.get(b"xc_domain_resume\0").map(|sym| *sym)?;
        let xc_cpu_policy_init = __library.get(b"xc_cpu_policy_init\0").map(|sym| *sym)?;
        let xc_cpu_policy_destroy = __library.get(b"xc_cpu_policy_destroy\0").map(|sym| *sym)?;
        let xc_cpu_policy_get_domain = __library.get(b"xc_cpu_policy_get_domain\0").map(|sym| *sym)?;
        let xc_cpu_policy_serialise = __library.get(b"xc_cpu_policy_serialise\0").map(|sym| *sym)?;
        let xc_cpu_policy_get_size = __library.get(b"xc_cpu_policy_get_size\0").map(|sym| *sym)?;
        let xc_set_domain_cpu_policy = __library.get(b"xc_set_domain_cpu_policy\0").map(|sym| *sym)?;
        Ok(XenGuest {
            __library,
            xc_dom_gnttab_seed,
            xc_suspend_evtchn_release,
            xc_suspend_evtchn_init_sane,
            xc_domain_resume,
            xc_cpu_policy_init,
            xc_cpu_policy_destroy,
            xc_cpu_policy_get_domain,
            xc_cpu_policy_serialise,
            xc_cpu_policy_get_size,
            xc_set_domain_cpu_policy,
        })
    }
    pub unsafe fn xc_dom_gnttab_seed(
        &self,
        xch: *mut xc_interface,
        guest_domid: u32,
        is_hvm: bool,
        console_gfn: xen_pfn_t,
        xenstore_gfn: xen_pfn_t,
        console_domid: u32,
        xenstore_domid: u32,
    ) -> ::std::os::raw::c_int {
        (self.xc_dom_gnttab_seed)(xch, guest_domid, is_hvm, console_gfn, xenstore_gfn, console_domid, xenstore_domid)
    }
    pub unsafe fn xc_suspend_evtchn_release(
        &self,
        xch: *mut xc_interface,
        xce: *mut xenevtchn_handle,
        domid: u32,
        suspend_evtchn: ::std::os::raw::c_int,
        lockfd: *mut ::std::os::raw::c_int,
    ) -> ::std::os::raw::c_int {
        (self.xc_suspend_evtchn_release)(xch, xce, domid, suspend_evtchn, lockfd)
    }
    pub unsafe fn xc_suspend_evtchn_init_sane(
        &self,
        xch: *mut xc_interface,
        xce: *mut xenevtchn_handle,
        domid: u32,
        port: ::std::os::raw::c_int,
        lockfd: *mut ::std::os::raw::c_int,
    ) -> ::std::os::raw::c_int {
        (self.xc_suspend_evtchn_init_sane)(xch, xce, domid, port, lockfd)
    }
    pub unsafe fn xc_domain_resume(
        &self,
        xch: *mut xc_interface,
        domid: u32,
        fast: ::std::os::raw::c_int,
    ) -> ::std::os::raw::c_int {
        (self.xc_domain_resume)(xch, domid, fast)
    }
    pub unsafe fn xc_cpu_policy_init(&self) -> *mut xc_cpu_policy_t {
        (self.xc_cpu_policy_init)()
    }
    pub unsafe fn xc_cpu_policy_destroy(&self, policy: *mut xc_cpu_policy_t) {
        (self.xc_cpu_policy_destroy)(policy)
    }
    pub unsafe fn xc_cpu_policy_get_domain(
        &self,
        xch: *mut xc_interface,
        domid: u32,
        policy: *mut xc_cpu_policy_t,
    ) -> ::std::os::raw::c_int {
        (self.xc_cpu_policy_get_domain)(xch, domid, policy)
    }
    pub unsafe fn xc_cpu_policy_serialise(
        &self,
        xch: *mut xc_interface,
        policy: *const xc_cpu_policy_t,
        leaves: *mut xen_cpuid_leaf_t,
        nr_leaves: *mut u32,
        msrs: *mut xen_msr_entry_t,
        nr_msrs: *mut u32,
    ) -> ::std::os::raw::c_int {
        (self.xc_cpu_policy_serialise)(xch, policy, leaves, nr_leaves, msrs, nr_msrs)
    }
    pub unsafe fn xc_cpu_policy_get_size(
        &self,
        xch: *mut xc_interface,
        nr_leaves: *mut u32,
        nr_msrs: *mut u32,
    ) -> ::std::os::raw::c_int {
        (self.xc_cpu_policy_get_size)(xch, nr_leaves, nr_msrs)
    }
    pub unsafe fn xc_set_domain_cpu_policy(
        &self,
        xch: *mut xc_interface,
        domid: u32,
        nr_leaves: u32,
        leaves: *mut xen_cpuid_leaf_t,
        nr_msrs: u32,
        msrs: *mut xen_msr_entry_t,
        err_leaf_p: *mut u32,
        err_subleaf_p: *mut u32,
        err_msr_p: *mut u32,
    ) -> ::std::os::raw::c_int {
        (self.xc_set_domain_cpu_policy)(
            xch,
            domid,
            nr_leaves,
            leaves,
            nr_msrs,
            msrs,
            err_leaf_p,
            err_subleaf_p,
            err_msr_p,
        )
    }
}
