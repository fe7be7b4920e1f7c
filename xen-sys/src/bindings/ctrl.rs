// Made by regenerate.sh: do not edit.

#[derive(PartialEq, Eq, Copy, Clone, Debug, Hash)]
#[repr(C, align(8))]
pub struct __BindgenOpaqueArray8<T>(pub T);
impl<T: Copy + Default, const N: usize> Default for __BindgenOpaqueArray8<[T; N]> {
    fn default() -> Self {
        Self([<T as Default>::default(); N])
    }
}
pub const VGCF_i387_valid: u32 = 1;
pub const VGCF_in_kernel: u32 = 4;
pub const VGCF_failsafe_disables_events: u32 = 8;
pub const VGCF_syscall_disables_events: u32 = 16;
pub const VGCF_online: u32 = 32;
pub const __HYPERVISOR_mmu_update: u32 = 1;
pub const __HYPERVISOR_memory_op: u32 = 12;
pub const __HYPERVISOR_grant_table_op: u32 = 20;
pub const __HYPERVISOR_event_channel_op: u32 = 32;
pub const MMU_NORMAL_PT_UPDATE: u32 = 0;
pub const MMU_MACHPHYS_UPDATE: u32 = 1;
pub const MMU_PT_UPDATE_PRESERVE_AD: u32 = 2;
pub const MMU_PT_UPDATE_NO_TRANSLATE: u32 = 3;
pub const MMUEXT_PIN_L1_TABLE: u32 = 0;
pub const MMUEXT_PIN_L2_TABLE: u32 = 1;
pub const MMUEXT_PIN_L3_TABLE: u32 = 2;
pub const MMUEXT_PIN_L4_TABLE: u32 = 3;
pub const MMUEXT_UNPIN_TABLE: u32 = 4;
pub const MMUEXT_CLEAR_PAGE: u32 = 16;
pub const EVTCHNOP_send: u32 = 4;
pub const EVTCHNSTAT_closed: u32 = 0;
pub const EVTCHNSTAT_unbound: u32 = 1;
pub const EVTCHNSTAT_interdomain: u32 = 2;
pub const EVTCHNSTAT_pirq: u32 = 3;
pub const EVTCHNSTAT_virq: u32 = 4;
pub const EVTCHNSTAT_ipi: u32 = 5;
pub const GNTTABOP_query_size: u32 = 6;
pub const GNTTABOP_get_version: u32 = 10;
pub const XENMEMF_populate_on_demand: u32 = 65536;
pub const XENMEMF_exact_node_request: u32 = 131072;
pub const XENMEMF_vnode: u32 = 262144;
pub const XENMEM_machphys_compat_mfn_list: u32 = 25;
pub const XEN_DOMINF_dying: u32 = 1;
pub const XEN_DOMINF_hvm_guest: u32 = 2;
pub const XEN_DOMINF_shutdown: u32 = 4;
pub const XEN_DOMINF_paused: u32 = 8;
pub const XEN_DOMINF_blocked: u32 = 16;
pub const XEN_DOMINF_running: u32 = 32;
pub const XEN_DOMINF_debugged: u32 = 64;
pub const XEN_DOMINF_xs_domain: u32 = 128;
pub const XEN_DOMINF_hap: u32 = 256;
pub const XEN_DOMINF_shutdownmask: u32 = 255;
pub const XEN_DOMINF_shutdownshift: u32 = 16;
pub const XEN_DOMCTL_PFINFO_LTAB_SHIFT: u32 = 28;
pub const XEN_DOMCTL_PFINFO_NOTAB: u32 = 0;
pub const XEN_DOMCTL_PFINFO_L1TAB: u32 = 268435456;
pub const XEN_DOMCTL_PFINFO_L2TAB: u32 = 536870912;
pub const XEN_DOMCTL_PFINFO_L3TAB: u32 = 805306368;
pub const XEN_DOMCTL_PFINFO_L4TAB: u32 = 1073741824;
pub const XEN_DOMCTL_PFINFO_LTABTYPE_MASK: u32 = 1879048192;
pub const XEN_DOMCTL_PFINFO_LPINTAB: u32 = 2147483648;
pub const XEN_DOMCTL_PFINFO_XTAB: u32 = 4026531840;
pub const XEN_DOMCTL_PFINFO_XALLOC: u32 = 3758096384;
pub const XEN_DOMCTL_PFINFO_BROKEN: u32 = 3489660928;
pub const XEN_DOMCTL_PFINFO_LTAB_MASK: u32 = 4026531840;
pub const XEN_DOMCTL_SHADOW_OP_OFF: u32 = 0;
pub const XEN_DOMCTL_SHADOW_OP_ENABLE: u32 = 32;
pub const XEN_DOMCTL_SHADOW_OP_CLEAN: u32 = 11;
pub const XEN_DOMCTL_SHADOW_OP_PEEK: u32 = 12;
pub const XEN_DOMCTL_SHADOW_OP_GET_ALLOCATION: u32 = 30;
pub const XEN_DOMCTL_SHADOW_OP_SET_ALLOCATION: u32 = 31;
pub const XEN_DOMCTL_SHADOW_OP_ENABLE_TEST: u32 = 1;
pub const XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY: u32 = 2;
pub const XEN_DOMCTL_SHADOW_LOGDIRTY_FINAL: u32 = 1;
pub const XEN_DOMCTL_resumedomain: u32 = 27;
pub const XEN_DOMCTL_set_address_size: u32 = 35;
pub const XEN_DOMCTL_set_ext_vcpucontext: u32 = 42;
pub const XEN_DOMCTL_get_ext_vcpucontext: u32 = 43;
pub const XEN_DOMCTL_getpageframeinfo3: u32 = 61;
pub const XEN_DOMCTL_setvcpuextstate: u32 = 62;
pub const XEN_DOMCTL_getvcpuextstate: u32 = 63;
pub const XEN_DOMCTL_get_vcpu_msrs: u32 = 72;
pub const XEN_DOMCTL_set_vcpu_msrs: u32 = 73;
pub const XENVER_version: u32 = 0;
pub const XENVER_extraversion: u32 = 1;
pub const XENVER_capabilities: u32 = 3;
pub const XENVER_platform_parameters: u32 = 5;
pub const SHUTDOWN_poweroff: u32 = 0;
pub const SHUTDOWN_reboot: u32 = 1;
pub const SHUTDOWN_suspend: u32 = 2;
pub const SHUTDOWN_crash: u32 = 3;
pub const SHUTDOWN_watchdog: u32 = 4;
pub const SHUTDOWN_soft_reset: u32 = 5;
pub const SHUTDOWN_MAX: u32 = 5;
pub const HVM_PARAM_PAE_ENABLED: u32 = 4;
pub const HVM_PARAM_DM_DOMAIN: u32 = 13;
pub const HVM_PARAM_MEMORY_EVENT_CR0: u32 = 20;
pub const HVM_PARAM_MEMORY_EVENT_CR3: u32 = 21;
pub const HVM_PARAM_MEMORY_EVENT_CR4: u32 = 22;
pub const HVM_PARAM_MEMORY_EVENT_INT3: u32 = 23;
pub const HVM_PARAM_NESTEDHVM: u32 = 24;
pub const HVM_PARAM_MEMORY_EVENT_SINGLE_STEP: u32 = 25;
pub const HVM_PARAM_BUFIOREQ_EVTCHN: u32 = 26;
pub const HVM_PARAM_MEMORY_EVENT_MSR: u32 = 30;
pub const HVM_PARAM_CALLBACK_IRQ: u32 = 0;
pub const HVM_PARAM_CALLBACK_TYPE_GSI: u32 = 0;
pub const HVM_PARAM_CALLBACK_TYPE_PCI_INTX: u32 = 1;
pub const HVM_PARAM_CALLBACK_TYPE_VECTOR: u32 = 2;
pub const HVM_PARAM_STORE_PFN: u32 = 1;
pub const HVM_PARAM_STORE_EVTCHN: u32 = 2;
pub const HVM_PARAM_IOREQ_PFN: u32 = 5;
pub const HVM_PARAM_BUFIOREQ_PFN: u32 = 6;
pub const HVM_PARAM_VIRIDIAN: u32 = 9;
pub const HVM_PARAM_TIMER_MODE: u32 = 10;
pub const HVM_PARAM_HPET_ENABLED: u32 = 11;
pub const HVM_PARAM_IDENT_PT: u32 = 12;
pub const HVM_PARAM_ACPI_S_STATE: u32 = 14;
pub const HVM_PARAM_VM86_TSS: u32 = 15;
pub const HVM_PARAM_VPT_ALIGN: u32 = 16;
pub const HVM_PARAM_CONSOLE_PFN: u32 = 17;
pub const HVM_PARAM_CONSOLE_EVTCHN: u32 = 18;
pub const HVM_PARAM_ACPI_IOPORTS_LOCATION: u32 = 19;
pub const HVM_PARAM_PAGING_RING_PFN: u32 = 27;
pub const HVM_PARAM_MONITOR_RING_PFN: u32 = 28;
pub const HVM_PARAM_SHARING_RING_PFN: u32 = 29;
pub const HVM_PARAM_TRIPLE_FAULT_REASON: u32 = 31;
pub const HVM_PARAM_IOREQ_SERVER_PFN: u32 = 32;
pub const HVM_PARAM_NR_IOREQ_SERVER_PAGES: u32 = 33;
pub const HVM_PARAM_VM_GENERATION_ID_ADDR: u32 = 34;
pub const HVM_PARAM_ALTP2M: u32 = 35;
pub const HVM_PARAM_X87_FIP_WIDTH: u32 = 36;
pub const HVM_PARAM_VM86_TSS_SIZED: u32 = 37;
pub const HVM_PARAM_MCA_CAP: u32 = 38;
pub const HVM_NR_PARAMS: u32 = 39;
pub type xen_pfn_t = ::std::os::raw::c_ulong;
pub type xen_ulong_t = ::std::os::raw::c_ulong;
#[repr(C)]
#[repr(align(8))]
#[derive(Debug, Copy, Clone)]
pub struct vcpu_guest_context {
    pub _bindgen_opaque_blob: __BindgenOpaqueArray8<[u8; 5168usize]>,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct vcpu_guest_context__bindgen_ty_1 {
    pub x: [::std::os::raw::c_char; 512usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of vcpu_guest_context__bindgen_ty_1"][::std::mem::size_of::<vcpu_guest_context__bindgen_ty_1>() - 512usize];
    ["Alignment of vcpu_guest_context__bindgen_ty_1"]
        [::std::mem::align_of::<vcpu_guest_context__bindgen_ty_1>() - 1usize];
    ["Offset of field: vcpu_guest_context__bindgen_ty_1::x"]
        [::std::mem::offset_of!(vcpu_guest_context__bindgen_ty_1, x) - 0usize];
};
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of vcpu_guest_context"][::std::mem::size_of::<vcpu_guest_context>() - 5168usize];
    ["Alignment of vcpu_guest_context"][::std::mem::align_of::<vcpu_guest_context>() - 8usize];
};
pub type vcpu_guest_context_t = vcpu_guest_context;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct xen_arch_domainconfig {
    pub emulation_flags: u32,
    pub misc_flags: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of xen_arch_domainconfig"][::std::mem::size_of::<xen_arch_domainconfig>() - 8usize];
    ["Alignment of xen_arch_domainconfig"][::std::mem::align_of::<xen_arch_domainconfig>() - 4usize];
    ["Offset of field: xen_arch_domainconfig::emulation_flags"]
        [::std::mem::offset_of!(xen_arch_domainconfig, emulation_flags) - 0usize];
    ["Offset of field: xen_arch_domainconfig::misc_flags"]
        [::std::mem::offset_of!(xen_arch_domainconfig, misc_flags) - 4usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct __guest_handle_const_void {
    pub p: *const ::std::os::raw::c_void,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of __guest_handle_const_void"][::std::mem::size_of::<__guest_handle_const_void>() - 8usize];
    ["Alignment of __guest_handle_const_void"][::std::mem::align_of::<__guest_handle_const_void>() - 8usize];
    ["Offset of field: __guest_handle_const_void::p"][::std::mem::offset_of!(__guest_handle_const_void, p) - 0usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct __guest_handle_xen_pfn_t {
    pub p: *mut xen_pfn_t,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of __guest_handle_xen_pfn_t"][::std::mem::size_of::<__guest_handle_xen_pfn_t>() - 8usize];
    ["Alignment of __guest_handle_xen_pfn_t"][::std::mem::align_of::<__guest_handle_xen_pfn_t>() - 8usize];
    ["Offset of field: __guest_handle_xen_pfn_t::p"][::std::mem::offset_of!(__guest_handle_xen_pfn_t, p) - 0usize];
};
#[repr(C)]
#[derive(Copy, Clone)]
pub struct mmuext_op {
    pub cmd: ::std::os::raw::c_uint,
    pub arg1: mmuext_op__bindgen_ty_1,
    pub arg2: mmuext_op__bindgen_ty_2,
}
#[repr(C)]
#[derive(Copy, Clone)]
pub union mmuext_op__bindgen_ty_1 {
    pub mfn: xen_pfn_t,
    pub linear_addr: ::std::os::raw::c_ulong,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of mmuext_op__bindgen_ty_1"][::std::mem::size_of::<mmuext_op__bindgen_ty_1>() - 8usize];
    ["Alignment of mmuext_op__bindgen_ty_1"][::std::mem::align_of::<mmuext_op__bindgen_ty_1>() - 8usize];
    ["Offset of field: mmuext_op__bindgen_ty_1::mfn"][::std::mem::offset_of!(mmuext_op__bindgen_ty_1, mfn) - 0usize];
    ["Offset of field: mmuext_op__bindgen_ty_1::linear_addr"]
        [::std::mem::offset_of!(mmuext_op__bindgen_ty_1, linear_addr) - 0usize];
};
#[repr(C)]
#[derive(Copy, Clone)]
pub union mmuext_op__bindgen_ty_2 {
    pub nr_ents: ::std::os::raw::c_uint,
    pub vcpumask: __guest_handle_const_void,
    pub src_mfn: xen_pfn_t,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of mmuext_op__bindgen_ty_2"][::std::mem::size_of::<mmuext_op__bindgen_ty_2>() - 8usize];
    ["Alignment of mmuext_op__bindgen_ty_2"][::std::mem::align_of::<mmuext_op__bindgen_ty_2>() - 8usize];
    ["Offset of field: mmuext_op__bindgen_ty_2::nr_ents"]
        [::std::mem::offset_of!(mmuext_op__bindgen_ty_2, nr_ents) - 0usize];
    ["Offset of field: mmuext_op__bindgen_ty_2::vcpumask"]
        [::std::mem::offset_of!(mmuext_op__bindgen_ty_2, vcpumask) - 0usize];
    ["Offset of field: mmuext_op__bindgen_ty_2::src_mfn"]
        [::std::mem::offset_of!(mmuext_op__bindgen_ty_2, src_mfn) - 0usize];
};
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of mmuext_op"][::std::mem::size_of::<mmuext_op>() - 24usize];
    ["Alignment of mmuext_op"][::std::mem::align_of::<mmuext_op>() - 8usize];
    ["Offset of field: mmuext_op::cmd"][::std::mem::offset_of!(mmuext_op, cmd) - 0usize];
    ["Offset of field: mmuext_op::arg1"][::std::mem::offset_of!(mmuext_op, arg1) - 8usize];
    ["Offset of field: mmuext_op::arg2"][::std::mem::offset_of!(mmuext_op, arg2) - 16usize];
};
pub type domid_t = u16;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct mmu_update {
    pub ptr: u64,
    pub val: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of mmu_update"][::std::mem::size_of::<mmu_update>() - 16usize];
    ["Alignment of mmu_update"][::std::mem::align_of::<mmu_update>() - 8usize];
    ["Offset of field: mmu_update::ptr"][::std::mem::offset_of!(mmu_update, ptr) - 0usize];
    ["Offset of field: mmu_update::val"][::std::mem::offset_of!(mmu_update, val) - 8usize];
};
#[repr(C)]
#[repr(align(8))]
#[derive(Debug, Copy, Clone)]
pub struct shared_info {
    pub _bindgen_opaque_blob: __BindgenOpaqueArray8<[u8; 3136usize]>,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of shared_info"][::std::mem::size_of::<shared_info>() - 3136usize];
    ["Alignment of shared_info"][::std::mem::align_of::<shared_info>() - 8usize];
};
pub type shared_info_t = shared_info;
#[repr(C)]
#[repr(align(8))]
#[derive(Debug, Copy, Clone)]
pub struct start_info {
    pub _bindgen_opaque_blob: __BindgenOpaqueArray8<[u8; 1168usize]>,
}
#[repr(C)]
#[derive(Copy, Clone)]
pub union start_info__bindgen_ty_1 {
    pub domU: start_info__bindgen_ty_1__bindgen_ty_1,
    pub dom0: start_info__bindgen_ty_1__bindgen_ty_2,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct start_info__bindgen_ty_1__bindgen_ty_1 {
    pub mfn: xen_pfn_t,
    pub evtchn: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of start_info__bindgen_ty_1__bindgen_ty_1"]
        [::std::mem::size_of::<start_info__bindgen_ty_1__bindgen_ty_1>() - 16usize];
    ["Alignment of start_info__bindgen_ty_1__bindgen_ty_1"]
        [::std::mem::align_of::<start_info__bindgen_ty_1__bindgen_ty_1>() - 8usize];
    ["Offset of field: start_info__bindgen_ty_1__bindgen_ty_1::mfn"]
        [::std::mem::offset_of!(start_info__bindgen_ty_1__bindgen_ty_1, mfn) - 0usize];
    ["Offset of field: start_info__bindgen_ty_1__bindgen_ty_1::evtchn"]
        [::std::mem::offset_of!(start_info__bindgen_ty_1__bindgen_ty_1, evtchn) - 8usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct start_info__bindgen_ty_1__bindgen_ty_2 {
    pub info_off: u32,
    pub info_size: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of start_info__bindgen_ty_1__bindgen_ty_2"]
        [::std::mem::size_of::<start_info__bindgen_ty_1__bindgen_ty_2>() - 8usize];
    ["Alignment of start_info__bindgen_ty_1__bindgen_ty_2"]
        [::std::mem::align_of::<start_info__bindgen_ty_1__bindgen_ty_2>() - 4usize];
    ["Offset of field: start_info__bindgen_ty_1__bindgen_ty_2::info_off"]
        [::std::mem::offset_of!(start_info__bindgen_ty_1__bindgen_ty_2, info_off) - 0usize];
    ["Offset of field: start_info__bindgen_ty_1__bindgen_ty_2::info_size"]
        [::std::mem::offset_of!(start_info__bindgen_ty_1__bindgen_ty_2, info_size) - 4usize];
};
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of start_info__bindgen_ty_1"][::std::mem::size_of::<start_info__bindgen_ty_1>() - 16usize];
    ["Alignment of start_info__bindgen_ty_1"][::std::mem::align_of::<start_info__bindgen_ty_1>() - 8usize];
    ["Offset of field: start_info__bindgen_ty_1::domU"]
        [::std::mem::offset_of!(start_info__bindgen_ty_1, domU) - 0usize];
    ["Offset of field: start_info__bindgen_ty_1::dom0"]
        [::std::mem::offset_of!(start_info__bindgen_ty_1, dom0) - 0usize];
};
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of start_info"][::std::mem::size_of::<start_info>() - 1168usize];
    ["Alignment of start_info"][::std::mem::align_of::<start_info>() - 8usize];
};
pub type start_info_t = start_info;
pub type xen_domain_handle_t = [u8; 16usize];
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct __guest_handle_uint64 {
    pub p: *mut u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of __guest_handle_uint64"][::std::mem::size_of::<__guest_handle_uint64>() - 8usize];
    ["Alignment of __guest_handle_uint64"][::std::mem::align_of::<__guest_handle_uint64>() - 8usize];
    ["Offset of field: __guest_handle_uint64::p"][::std::mem::offset_of!(__guest_handle_uint64, p) - 0usize];
};
pub type evtchn_port_t = u32;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct evtchn_send {
    pub port: evtchn_port_t,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of evtchn_send"][::std::mem::size_of::<evtchn_send>() - 4usize];
    ["Alignment of evtchn_send"][::std::mem::align_of::<evtchn_send>() - 4usize];
    ["Offset of field: evtchn_send::port"][::std::mem::offset_of!(evtchn_send, port) - 0usize];
};
#[repr(C)]
#[derive(Copy, Clone)]
pub struct evtchn_status {
    pub dom: domid_t,
    pub port: evtchn_port_t,
    pub status: u32,
    pub vcpu: u32,
    pub u: evtchn_status__bindgen_ty_1,
}
#[repr(C)]
#[derive(Copy, Clone)]
pub union evtchn_status__bindgen_ty_1 {
    pub unbound: evtchn_status__bindgen_ty_1__bindgen_ty_1,
    pub interdomain: evtchn_status__bindgen_ty_1__bindgen_ty_2,
    pub pirq: u32,
    pub virq: u32,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct evtchn_status__bindgen_ty_1__bindgen_ty_1 {
    pub dom: domid_t,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of evtchn_status__bindgen_ty_1__bindgen_ty_1"]
        [::std::mem::size_of::<evtchn_status__bindgen_ty_1__bindgen_ty_1>() - 2usize];
    ["Alignment of evtchn_status__bindgen_ty_1__bindgen_ty_1"]
        [::std::mem::align_of::<evtchn_status__bindgen_ty_1__bindgen_ty_1>() - 2usize];
    ["Offset of field: evtchn_status__bindgen_ty_1__bindgen_ty_1::dom"]
        [::std::mem::offset_of!(evtchn_status__bindgen_ty_1__bindgen_ty_1, dom) - 0usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct evtchn_status__bindgen_ty_1__bindgen_ty_2 {
    pub dom: domid_t,
    pub port: evtchn_port_t,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of evtchn_status__bindgen_ty_1__bindgen_ty_2"]
        [::std::mem::size_of::<evtchn_status__bindgen_ty_1__bindgen_ty_2>() - 8usize];
    ["Alignment of evtchn_status__bindgen_ty_1__bindgen_ty_2"]
        [::std::mem::align_of::<evtchn_status__bindgen_ty_1__bindgen_ty_2>() - 4usize];
    ["Offset of field: evtchn_status__bindgen_ty_1__bindgen_ty_2::dom"]
        [::std::mem::offset_of!(evtchn_status__bindgen_ty_1__bindgen_ty_2, dom) - 0usize];
    ["Offset of field: evtchn_status__bindgen_ty_1__bindgen_ty_2::port"]
        [::std::mem::offset_of!(evtchn_status__bindgen_ty_1__bindgen_ty_2, port) - 4usize];
};
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of evtchn_status__bindgen_ty_1"][::std::mem::size_of::<evtchn_status__bindgen_ty_1>() - 8usize];
    ["Alignment of evtchn_status__bindgen_ty_1"][::std::mem::align_of::<evtchn_status__bindgen_ty_1>() - 4usize];
    ["Offset of field: evtchn_status__bindgen_ty_1::unbound"]
        [::std::mem::offset_of!(evtchn_status__bindgen_ty_1, unbound) - 0usize];
    ["Offset of field: evtchn_status__bindgen_ty_1::interdomain"]
        [::std::mem::offset_of!(evtchn_status__bindgen_ty_1, interdomain) - 0usize];
    ["Offset of field: evtchn_status__bindgen_ty_1::pirq"]
        [::std::mem::offset_of!(evtchn_status__bindgen_ty_1, pirq) - 0usize];
    ["Offset of field: evtchn_status__bindgen_ty_1::virq"]
        [::std::mem::offset_of!(evtchn_status__bindgen_ty_1, virq) - 0usize];
};
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of evtchn_status"][::std::mem::size_of::<evtchn_status>() - 24usize];
    ["Alignment of evtchn_status"][::std::mem::align_of::<evtchn_status>() - 4usize];
    ["Offset of field: evtchn_status::dom"][::std::mem::offset_of!(evtchn_status, dom) - 0usize];
    ["Offset of field: evtchn_status::port"][::std::mem::offset_of!(evtchn_status, port) - 4usize];
    ["Offset of field: evtchn_status::status"][::std::mem::offset_of!(evtchn_status, status) - 8usize];
    ["Offset of field: evtchn_status::vcpu"][::std::mem::offset_of!(evtchn_status, vcpu) - 12usize];
    ["Offset of field: evtchn_status::u"][::std::mem::offset_of!(evtchn_status, u) - 16usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gnttab_query_size {
    pub dom: domid_t,
    pub nr_frames: u32,
    pub max_nr_frames: u32,
    pub status: i16,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gnttab_query_size"][::std::mem::size_of::<gnttab_query_size>() - 16usize];
    ["Alignment of gnttab_query_size"][::std::mem::align_of::<gnttab_query_size>() - 4usize];
    ["Offset of field: gnttab_query_size::dom"][::std::mem::offset_of!(gnttab_query_size, dom) - 0usize];
    ["Offset of field: gnttab_query_size::nr_frames"][::std::mem::offset_of!(gnttab_query_size, nr_frames) - 4usize];
    ["Offset of field: gnttab_query_size::max_nr_frames"]
        [::std::mem::offset_of!(gnttab_query_size, max_nr_frames) - 8usize];
    ["Offset of field: gnttab_query_size::status"][::std::mem::offset_of!(gnttab_query_size, status) - 12usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct gnttab_get_version {
    pub dom: domid_t,
    pub pad: u16,
    pub version: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of gnttab_get_version"][::std::mem::size_of::<gnttab_get_version>() - 8usize];
    ["Alignment of gnttab_get_version"][::std::mem::align_of::<gnttab_get_version>() - 4usize];
    ["Offset of field: gnttab_get_version::dom"][::std::mem::offset_of!(gnttab_get_version, dom) - 0usize];
    ["Offset of field: gnttab_get_version::pad"][::std::mem::offset_of!(gnttab_get_version, pad) - 2usize];
    ["Offset of field: gnttab_get_version::version"][::std::mem::offset_of!(gnttab_get_version, version) - 4usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct hvm_vmce_vcpu {
    pub caps: u64,
    pub mci_ctl2_bank0: u64,
    pub mci_ctl2_bank1: u64,
    pub mcg_ext_ctl: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of hvm_vmce_vcpu"][::std::mem::size_of::<hvm_vmce_vcpu>() - 32usize];
    ["Alignment of hvm_vmce_vcpu"][::std::mem::align_of::<hvm_vmce_vcpu>() - 8usize];
    ["Offset of field: hvm_vmce_vcpu::caps"][::std::mem::offset_of!(hvm_vmce_vcpu, caps) - 0usize];
    ["Offset of field: hvm_vmce_vcpu::mci_ctl2_bank0"][::std::mem::offset_of!(hvm_vmce_vcpu, mci_ctl2_bank0) - 8usize];
    ["Offset of field: hvm_vmce_vcpu::mci_ctl2_bank1"][::std::mem::offset_of!(hvm_vmce_vcpu, mci_ctl2_bank1) - 16usize];
    ["Offset of field: hvm_vmce_vcpu::mcg_ext_ctl"][::std::mem::offset_of!(hvm_vmce_vcpu, mcg_ext_ctl) - 24usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct xen_machphys_mfn_list {
    pub max_extents: ::std::os::raw::c_uint,
    pub extent_start: __guest_handle_xen_pfn_t,
    pub nr_extents: ::std::os::raw::c_uint,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of xen_machphys_mfn_list"][::std::mem::size_of::<xen_machphys_mfn_list>() - 24usize];
    ["Alignment of xen_machphys_mfn_list"][::std::mem::align_of::<xen_machphys_mfn_list>() - 8usize];
    ["Offset of field: xen_machphys_mfn_list::max_extents"]
        [::std::mem::offset_of!(xen_machphys_mfn_list, max_extents) - 0usize];
    ["Offset of field: xen_machphys_mfn_list::extent_start"]
        [::std::mem::offset_of!(xen_machphys_mfn_list, extent_start) - 8usize];
    ["Offset of field: xen_machphys_mfn_list::nr_extents"]
        [::std::mem::offset_of!(xen_machphys_mfn_list, nr_extents) - 16usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct xen_domctl_getdomaininfo {
    pub domain: domid_t,
    pub pad1: u16,
    pub flags: u32,
    pub tot_pages: u64,
    pub max_pages: u64,
    pub outstanding_pages: u64,
    pub shr_pages: u64,
    pub paged_pages: u64,
    pub shared_info_frame: u64,
    pub cpu_time: u64,
    pub nr_online_vcpus: u32,
    pub max_vcpu_id: u32,
    pub ssidref: u32,
    pub handle: xen_domain_handle_t,
    pub cpupool: u32,
    pub gpaddr_bits: u8,
    pub pad2: [u8; 7usize],
    pub arch_config: xen_arch_domainconfig,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of xen_domctl_getdomaininfo"][::std::mem::size_of::<xen_domctl_getdomaininfo>() - 112usize];
    ["Alignment of xen_domctl_getdomaininfo"][::std::mem::align_of::<xen_domctl_getdomaininfo>() - 8usize];
    ["Offset of field: xen_domctl_getdomaininfo::domain"]
        [::std::mem::offset_of!(xen_domctl_getdomaininfo, domain) - 0usize];
    ["Offset of field: xen_domctl_getdomaininfo::pad1"]
        [::std::mem::offset_of!(xen_domctl_getdomaininfo, pad1) - 2usize];
    ["Offset of field: xen_domctl_getdomaininfo::flags"]
        [::std::mem::offset_of!(xen_domctl_getdomaininfo, flags) - 4usize];
    ["Offset of field: xen_domctl_getdomaininfo::tot_pages"]
        [::std::mem::offset_of!(xen_domctl_getdomaininfo, tot_pages) - 8usize];
    ["Offset of field: xen_domctl_getdomaininfo::max_pages"]
        [::std::mem::offset_of!(xen_domctl_getdomaininfo, max_pages) - 16usize];
    ["Offset of field: xen_domctl_getdomaininfo::outstanding_pages"]
        [::std::mem::offset_of!(xen_domctl_getdomaininfo, outstanding_pages) - 24usize];
    ["Offset of field: xen_domctl_getdomaininfo::shr_pages"]
        [::std::mem::offset_of!(xen_domctl_getdomaininfo, shr_pages) - 32usize];
    ["Offset of field: xen_domctl_getdomaininfo::paged_pages"]
        [::std::mem::offset_of!(xen_domctl_getdomaininfo, paged_pages) - 40usize];
    ["Offset of field: xen_domctl_getdomaininfo::shared_info_frame"]
        [::std::mem::offset_of!(xen_domctl_getdomaininfo, shared_info_frame) - 48usize];
    ["Offset of field: xen_domctl_getdomaininfo::cpu_time"]
        [::std::mem::offset_of!(xen_domctl_getdomaininfo, cpu_time) - 56usize];
    ["Offset of field: xen_domctl_getdomaininfo::nr_online_vcpus"]
        [::std::mem::offset_of!(xen_domctl_getdomaininfo, nr_online_vcpus) - 64usize];
    ["Offset of field: xen_domctl_getdomaininfo::max_vcpu_id"]
        [::std::mem::offset_of!(xen_domctl_getdomaininfo, max_vcpu_id) - 68usize];
    ["Offset of field: xen_domctl_getdomaininfo::ssidref"]
        [::std::mem::offset_of!(xen_domctl_getdomaininfo, ssidref) - 72usize];
    ["Offset of field: xen_domctl_getdomaininfo::handle"]
        [::std::mem::offset_of!(xen_domctl_getdomaininfo, handle) - 76usize];
    ["Offset of field: xen_domctl_getdomaininfo::cpupool"]
        [::std::mem::offset_of!(xen_domctl_getdomaininfo, cpupool) - 92usize];
    ["Offset of field: xen_domctl_getdomaininfo::gpaddr_bits"]
        [::std::mem::offset_of!(xen_domctl_getdomaininfo, gpaddr_bits) - 96usize];
    ["Offset of field: xen_domctl_getdomaininfo::pad2"]
        [::std::mem::offset_of!(xen_domctl_getdomaininfo, pad2) - 97usize];
    ["Offset of field: xen_domctl_getdomaininfo::arch_config"]
        [::std::mem::offset_of!(xen_domctl_getdomaininfo, arch_config) - 104usize];
};
pub type xen_domctl_getdomaininfo_t = xen_domctl_getdomaininfo;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct xen_domctl_getpageframeinfo3 {
    pub num: u64,
    pub array: __guest_handle_xen_pfn_t,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of xen_domctl_getpageframeinfo3"][::std::mem::size_of::<xen_domctl_getpageframeinfo3>() - 16usize];
    ["Alignment of xen_domctl_getpageframeinfo3"][::std::mem::align_of::<xen_domctl_getpageframeinfo3>() - 8usize];
    ["Offset of field: xen_domctl_getpageframeinfo3::num"]
        [::std::mem::offset_of!(xen_domctl_getpageframeinfo3, num) - 0usize];
    ["Offset of field: xen_domctl_getpageframeinfo3::array"]
        [::std::mem::offset_of!(xen_domctl_getpageframeinfo3, array) - 8usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct xen_domctl_shadow_op_stats {
    pub fault_count: u32,
    pub dirty_count: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of xen_domctl_shadow_op_stats"][::std::mem::size_of::<xen_domctl_shadow_op_stats>() - 8usize];
    ["Alignment of xen_domctl_shadow_op_stats"][::std::mem::align_of::<xen_domctl_shadow_op_stats>() - 4usize];
    ["Offset of field: xen_domctl_shadow_op_stats::fault_count"]
        [::std::mem::offset_of!(xen_domctl_shadow_op_stats, fault_count) - 0usize];
    ["Offset of field: xen_domctl_shadow_op_stats::dirty_count"]
        [::std::mem::offset_of!(xen_domctl_shadow_op_stats, dirty_count) - 4usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct xen_domctl_getvcpuinfo {
    pub vcpu: u32,
    pub online: u8,
    pub blocked: u8,
    pub running: u8,
    pub cpu_time: u64,
    pub cpu: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of xen_domctl_getvcpuinfo"][::std::mem::size_of::<xen_domctl_getvcpuinfo>() - 24usize];
    ["Alignment of xen_domctl_getvcpuinfo"][::std::mem::align_of::<xen_domctl_getvcpuinfo>() - 8usize];
    ["Offset of field: xen_domctl_getvcpuinfo::vcpu"][::std::mem::offset_of!(xen_domctl_getvcpuinfo, vcpu) - 0usize];
    ["Offset of field: xen_domctl_getvcpuinfo::online"]
        [::std::mem::offset_of!(xen_domctl_getvcpuinfo, online) - 4usize];
    ["Offset of field: xen_domctl_getvcpuinfo::blocked"]
        [::std::mem::offset_of!(xen_domctl_getvcpuinfo, blocked) - 5usize];
    ["Offset of field: xen_domctl_getvcpuinfo::running"]
        [::std::mem::offset_of!(xen_domctl_getvcpuinfo, running) - 6usize];
    ["Offset of field: xen_domctl_getvcpuinfo::cpu_time"]
        [::std::mem::offset_of!(xen_domctl_getvcpuinfo, cpu_time) - 8usize];
    ["Offset of field: xen_domctl_getvcpuinfo::cpu"][::std::mem::offset_of!(xen_domctl_getvcpuinfo, cpu) - 16usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct xen_domctl_sched_credit {
    pub weight: u16,
    pub cap: u16,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of xen_domctl_sched_credit"][::std::mem::size_of::<xen_domctl_sched_credit>() - 4usize];
    ["Alignment of xen_domctl_sched_credit"][::std::mem::align_of::<xen_domctl_sched_credit>() - 2usize];
    ["Offset of field: xen_domctl_sched_credit::weight"]
        [::std::mem::offset_of!(xen_domctl_sched_credit, weight) - 0usize];
    ["Offset of field: xen_domctl_sched_credit::cap"][::std::mem::offset_of!(xen_domctl_sched_credit, cap) - 2usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct xen_domctl_sched_credit2 {
    pub weight: u16,
    pub cap: u16,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of xen_domctl_sched_credit2"][::std::mem::size_of::<xen_domctl_sched_credit2>() - 4usize];
    ["Alignment of xen_domctl_sched_credit2"][::std::mem::align_of::<xen_domctl_sched_credit2>() - 2usize];
    ["Offset of field: xen_domctl_sched_credit2::weight"]
        [::std::mem::offset_of!(xen_domctl_sched_credit2, weight) - 0usize];
    ["Offset of field: xen_domctl_sched_credit2::cap"][::std::mem::offset_of!(xen_domctl_sched_credit2, cap) - 2usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct xen_domctl_address_size {
    pub size: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of xen_domctl_address_size"][::std::mem::size_of::<xen_domctl_address_size>() - 4usize];
    ["Alignment of xen_domctl_address_size"][::std::mem::align_of::<xen_domctl_address_size>() - 4usize];
    ["Offset of field: xen_domctl_address_size::size"][::std::mem::offset_of!(xen_domctl_address_size, size) - 0usize];
};
#[repr(C)]
#[derive(Copy, Clone)]
pub struct xen_domctl_ext_vcpucontext {
    pub vcpu: u32,
    pub size: u32,
    pub syscall32_callback_eip: u64,
    pub sysenter_callback_eip: u64,
    pub syscall32_callback_cs: u16,
    pub sysenter_callback_cs: u16,
    pub syscall32_disables_events: u8,
    pub sysenter_disables_events: u8,
    pub __bindgen_anon_1: xen_domctl_ext_vcpucontext__bindgen_ty_1,
}
#[repr(C)]
#[derive(Copy, Clone)]
pub union xen_domctl_ext_vcpucontext__bindgen_ty_1 {
    pub mcg_cap: u64,
    pub vmce: hvm_vmce_vcpu,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of xen_domctl_ext_vcpucontext__bindgen_ty_1"]
        [::std::mem::size_of::<xen_domctl_ext_vcpucontext__bindgen_ty_1>() - 32usize];
    ["Alignment of xen_domctl_ext_vcpucontext__bindgen_ty_1"]
        [::std::mem::align_of::<xen_domctl_ext_vcpucontext__bindgen_ty_1>() - 8usize];
    ["Offset of field: xen_domctl_ext_vcpucontext__bindgen_ty_1::mcg_cap"]
        [::std::mem::offset_of!(xen_domctl_ext_vcpucontext__bindgen_ty_1, mcg_cap) - 0usize];
    ["Offset of field: xen_domctl_ext_vcpucontext__bindgen_ty_1::vmce"]
        [::std::mem::offset_of!(xen_domctl_ext_vcpucontext__bindgen_ty_1, vmce) - 0usize];
};
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of xen_domctl_ext_vcpucontext"][::std::mem::size_of::<xen_domctl_ext_vcpucontext>() - 64usize];
    ["Alignment of xen_domctl_ext_vcpucontext"][::std::mem::align_of::<xen_domctl_ext_vcpucontext>() - 8usize];
    ["Offset of field: xen_domctl_ext_vcpucontext::vcpu"]
        [::std::mem::offset_of!(xen_domctl_ext_vcpucontext, vcpu) - 0usize];
    ["Offset of field: xen_domctl_ext_vcpucontext::size"]
        [::std::mem::offset_of!(xen_domctl_ext_vcpucontext, size) - 4usize];
    ["Offset of field: xen_domctl_ext_vcpucontext::syscall32_callback_eip"]
        [::std::mem::offset_of!(xen_domctl_ext_vcpucontext, syscall32_callback_eip) - 8usize];
    ["Offset of field: xen_domctl_ext_vcpucontext::sysenter_callback_eip"]
        [::std::mem::offset_of!(xen_domctl_ext_vcpucontext, sysenter_callback_eip) - 16usize];
    ["Offset of field: xen_domctl_ext_vcpucontext::syscall32_callback_cs"]
        [::std::mem::offset_of!(xen_domctl_ext_vcpucontext, syscall32_callback_cs) - 24usize];
    ["Offset of field: xen_domctl_ext_vcpucontext::sysenter_callback_cs"]
        [::std::mem::offset_of!(xen_domctl_ext_vcpucontext, sysenter_callback_cs) - 26usize];
    ["Offset of field: xen_domctl_ext_vcpucontext::syscall32_disables_events"]
        [::std::mem::offset_of!(xen_domctl_ext_vcpucontext, syscall32_disables_events) - 28usize];
    ["Offset of field: xen_domctl_ext_vcpucontext::sysenter_disables_events"]
        [::std::mem::offset_of!(xen_domctl_ext_vcpucontext, sysenter_disables_events) - 29usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct xen_domctl_vcpuextstate {
    pub vcpu: u32,
    pub xfeature_mask: u64,
    pub size: u64,
    pub buffer: __guest_handle_uint64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of xen_domctl_vcpuextstate"][::std::mem::size_of::<xen_domctl_vcpuextstate>() - 32usize];
    ["Alignment of xen_domctl_vcpuextstate"][::std::mem::align_of::<xen_domctl_vcpuextstate>() - 8usize];
    ["Offset of field: xen_domctl_vcpuextstate::vcpu"][::std::mem::offset_of!(xen_domctl_vcpuextstate, vcpu) - 0usize];
    ["Offset of field: xen_domctl_vcpuextstate::xfeature_mask"]
        [::std::mem::offset_of!(xen_domctl_vcpuextstate, xfeature_mask) - 8usize];
    ["Offset of field: xen_domctl_vcpuextstate::size"][::std::mem::offset_of!(xen_domctl_vcpuextstate, size) - 16usize];
    ["Offset of field: xen_domctl_vcpuextstate::buffer"]
        [::std::mem::offset_of!(xen_domctl_vcpuextstate, buffer) - 24usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct xen_domctl_vcpu_msr {
    pub index: u32,
    pub reserved: u32,
    pub value: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of xen_domctl_vcpu_msr"][::std::mem::size_of::<xen_domctl_vcpu_msr>() - 16usize];
    ["Alignment of xen_domctl_vcpu_msr"][::std::mem::align_of::<xen_domctl_vcpu_msr>() - 8usize];
    ["Offset of field: xen_domctl_vcpu_msr::index"][::std::mem::offset_of!(xen_domctl_vcpu_msr, index) - 0usize];
    ["Offset of field: xen_domctl_vcpu_msr::reserved"][::std::mem::offset_of!(xen_domctl_vcpu_msr, reserved) - 4usize];
    ["Offset of field: xen_domctl_vcpu_msr::value"][::std::mem::offset_of!(xen_domctl_vcpu_msr, value) - 8usize];
};
pub type xen_domctl_vcpu_msr_t = xen_domctl_vcpu_msr;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct __guest_handle_xen_domctl_vcpu_msr_t {
    pub p: *mut xen_domctl_vcpu_msr_t,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of __guest_handle_xen_domctl_vcpu_msr_t"]
        [::std::mem::size_of::<__guest_handle_xen_domctl_vcpu_msr_t>() - 8usize];
    ["Alignment of __guest_handle_xen_domctl_vcpu_msr_t"]
        [::std::mem::align_of::<__guest_handle_xen_domctl_vcpu_msr_t>() - 8usize];
    ["Offset of field: __guest_handle_xen_domctl_vcpu_msr_t::p"]
        [::std::mem::offset_of!(__guest_handle_xen_domctl_vcpu_msr_t, p) - 0usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct xen_domctl_vcpu_msrs {
    pub vcpu: u32,
    pub msr_count: u32,
    pub msrs: __guest_handle_xen_domctl_vcpu_msr_t,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of xen_domctl_vcpu_msrs"][::std::mem::size_of::<xen_domctl_vcpu_msrs>() - 16usize];
    ["Alignment of xen_domctl_vcpu_msrs"][::std::mem::align_of::<xen_domctl_vcpu_msrs>() - 8usize];
    ["Offset of field: xen_domctl_vcpu_msrs::vcpu"][::std::mem::offset_of!(xen_domctl_vcpu_msrs, vcpu) - 0usize];
    ["Offset of field: xen_domctl_vcpu_msrs::msr_count"]
        [::std::mem::offset_of!(xen_domctl_vcpu_msrs, msr_count) - 4usize];
    ["Offset of field: xen_domctl_vcpu_msrs::msrs"][::std::mem::offset_of!(xen_domctl_vcpu_msrs, msrs) - 8usize];
};
#[repr(C)]
#[derive(Copy, Clone)]
pub struct xen_domctl {
    pub cmd: u32,
    pub interface_version: u32,
    pub domain: domid_t,
    pub _pad: [u16; 3usize],
    pub u: xen_domctl__bindgen_ty_1,
}
#[repr(C)]
#[repr(align(8))]
#[derive(Copy, Clone)]
pub union xen_domctl__bindgen_ty_1 {
    pub _bindgen_opaque_blob: __BindgenOpaqueArray8<[u8; 128usize]>,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of xen_domctl__bindgen_ty_1"][::std::mem::size_of::<xen_domctl__bindgen_ty_1>() - 128usize];
    ["Alignment of xen_domctl__bindgen_ty_1"][::std::mem::align_of::<xen_domctl__bindgen_ty_1>() - 8usize];
};
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of xen_domctl"][::std::mem::size_of::<xen_domctl>() - 144usize];
    ["Alignment of xen_domctl"][::std::mem::align_of::<xen_domctl>() - 8usize];
    ["Offset of field: xen_domctl::cmd"][::std::mem::offset_of!(xen_domctl, cmd) - 0usize];
    ["Offset of field: xen_domctl::interface_version"][::std::mem::offset_of!(xen_domctl, interface_version) - 4usize];
    ["Offset of field: xen_domctl::domain"][::std::mem::offset_of!(xen_domctl, domain) - 8usize];
    ["Offset of field: xen_domctl::_pad"][::std::mem::offset_of!(xen_domctl, _pad) - 10usize];
    ["Offset of field: xen_domctl::u"][::std::mem::offset_of!(xen_domctl, u) - 16usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct xen_platform_parameters {
    pub virt_start: xen_ulong_t,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of xen_platform_parameters"][::std::mem::size_of::<xen_platform_parameters>() - 8usize];
    ["Alignment of xen_platform_parameters"][::std::mem::align_of::<xen_platform_parameters>() - 8usize];
    ["Offset of field: xen_platform_parameters::virt_start"]
        [::std::mem::offset_of!(xen_platform_parameters, virt_start) - 0usize];
};
#[repr(C)]
#[derive(Copy, Clone)]
pub struct start_info_x86_32 {
    pub magic: [::std::os::raw::c_char; 32usize],
    pub nr_pages: u32,
    pub shared_info: u32,
    pub flags: u32,
    pub store_mfn: u32,
    pub store_evtchn: u32,
    pub console: start_info_x86_32__bindgen_ty_1,
    pub pt_base: u32,
    pub nr_pt_frames: u32,
    pub mfn_list: u32,
    pub mod_start: u32,
    pub mod_len: u32,
    pub cmd_line: [i8; 1024usize],
    pub first_p2m_pfn: u32,
    pub nr_p2m_frames: u32,
}
#[repr(C)]
#[derive(Copy, Clone)]
pub union start_info_x86_32__bindgen_ty_1 {
    pub domU: start_info_x86_32__bindgen_ty_1__bindgen_ty_1,
    pub dom0: start_info_x86_32__bindgen_ty_1__bindgen_ty_2,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct start_info_x86_32__bindgen_ty_1__bindgen_ty_1 {
    pub mfn: u32,
    pub evtchn: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of start_info_x86_32__bindgen_ty_1__bindgen_ty_1"]
        [::std::mem::size_of::<start_info_x86_32__bindgen_ty_1__bindgen_ty_1>() - 8usize];
    ["Alignment of start_info_x86_32__bindgen_ty_1__bindgen_ty_1"]
        [::std::mem::align_of::<start_info_x86_32__bindgen_ty_1__bindgen_ty_1>() - 4usize];
    ["Offset of field: start_info_x86_32__bindgen_ty_1__bindgen_ty_1::mfn"]
        [::std::mem::offset_of!(start_info_x86_32__bindgen_ty_1__bindgen_ty_1, mfn) - 0usize];
    ["Offset of field: start_info_x86_32__bindgen_ty_1__bindgen_ty_1::evtchn"]
        [::std::mem::offset_of!(start_info_x86_32__bindgen_ty_1__bindgen_ty_1, evtchn) - 4usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct start_info_x86_32__bindgen_ty_1__bindgen_ty_2 {
    pub info_off: u32,
    pub info_size: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of start_info_x86_32__bindgen_ty_1__bindgen_ty_2"]
        [::std::mem::size_of::<start_info_x86_32__bindgen_ty_1__bindgen_ty_2>() - 8usize];
    ["Alignment of start_info_x86_32__bindgen_ty_1__bindgen_ty_2"]
        [::std::mem::align_of::<start_info_x86_32__bindgen_ty_1__bindgen_ty_2>() - 4usize];
    ["Offset of field: start_info_x86_32__bindgen_ty_1__bindgen_ty_2::info_off"]
        [::std::mem::offset_of!(start_info_x86_32__bindgen_ty_1__bindgen_ty_2, info_off) - 0usize];
    ["Offset of field: start_info_x86_32__bindgen_ty_1__bindgen_ty_2::info_size"]
        [::std::mem::offset_of!(start_info_x86_32__bindgen_ty_1__bindgen_ty_2, info_size) - 4usize];
};
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of start_info_x86_32__bindgen_ty_1"][::std::mem::size_of::<start_info_x86_32__bindgen_ty_1>() - 8usize];
    ["Alignment of start_info_x86_32__bindgen_ty_1"]
        [::std::mem::align_of::<start_info_x86_32__bindgen_ty_1>() - 4usize];
    ["Offset of field: start_info_x86_32__bindgen_ty_1::domU"]
        [::std::mem::offset_of!(start_info_x86_32__bindgen_ty_1, domU) - 0usize];
    ["Offset of field: start_info_x86_32__bindgen_ty_1::dom0"]
        [::std::mem::offset_of!(start_info_x86_32__bindgen_ty_1, dom0) - 0usize];
};
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of start_info_x86_32"][::std::mem::size_of::<start_info_x86_32>() - 1112usize];
    ["Alignment of start_info_x86_32"][::std::mem::align_of::<start_info_x86_32>() - 4usize];
    ["Offset of field: start_info_x86_32::magic"][::std::mem::offset_of!(start_info_x86_32, magic) - 0usize];
    ["Offset of field: start_info_x86_32::nr_pages"][::std::mem::offset_of!(start_info_x86_32, nr_pages) - 32usize];
    ["Offset of field: start_info_x86_32::shared_info"]
        [::std::mem::offset_of!(start_info_x86_32, shared_info) - 36usize];
    ["Offset of field: start_info_x86_32::flags"][::std::mem::offset_of!(start_info_x86_32, flags) - 40usize];
    ["Offset of field: start_info_x86_32::store_mfn"][::std::mem::offset_of!(start_info_x86_32, store_mfn) - 44usize];
    ["Offset of field: start_info_x86_32::store_evtchn"]
        [::std::mem::offset_of!(start_info_x86_32, store_evtchn) - 48usize];
    ["Offset of field: start_info_x86_32::console"][::std::mem::offset_of!(start_info_x86_32, console) - 52usize];
    ["Offset of field: start_info_x86_32::pt_base"][::std::mem::offset_of!(start_info_x86_32, pt_base) - 60usize];
    ["Offset of field: start_info_x86_32::nr_pt_frames"]
        [::std::mem::offset_of!(start_info_x86_32, nr_pt_frames) - 64usize];
    ["Offset of field: start_info_x86_32::mfn_list"][::std::mem::offset_of!(start_info_x86_32, mfn_list) - 68usize];
    ["Offset of field: start_info_x86_32::mod_start"][::std::mem::offset_of!(start_info_x86_32, mod_start) - 72usize];
    ["Offset of field: start_info_x86_32::mod_len"][::std::mem::offset_of!(start_info_x86_32, mod_len) - 76usize];
    ["Offset of field: start_info_x86_32::cmd_line"][::std::mem::offset_of!(start_info_x86_32, cmd_line) - 80usize];
    ["Offset of field: start_info_x86_32::first_p2m_pfn"]
        [::std::mem::offset_of!(start_info_x86_32, first_p2m_pfn) - 1104usize];
    ["Offset of field: start_info_x86_32::nr_p2m_frames"]
        [::std::mem::offset_of!(start_info_x86_32, nr_p2m_frames) - 1108usize];
};
pub type start_info_x86_32_t = start_info_x86_32;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct trap_info_x86_32 {
    pub vector: u8,
    pub flags: u8,
    pub cs: u16,
    pub address: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of trap_info_x86_32"][::std::mem::size_of::<trap_info_x86_32>() - 8usize];
    ["Alignment of trap_info_x86_32"][::std::mem::align_of::<trap_info_x86_32>() - 4usize];
    ["Offset of field: trap_info_x86_32::vector"][::std::mem::offset_of!(trap_info_x86_32, vector) - 0usize];
    ["Offset of field: trap_info_x86_32::flags"][::std::mem::offset_of!(trap_info_x86_32, flags) - 1usize];
    ["Offset of field: trap_info_x86_32::cs"][::std::mem::offset_of!(trap_info_x86_32, cs) - 2usize];
    ["Offset of field: trap_info_x86_32::address"][::std::mem::offset_of!(trap_info_x86_32, address) - 4usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct cpu_user_regs_x86_32 {
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
    pub esi: u32,
    pub edi: u32,
    pub ebp: u32,
    pub eax: u32,
    pub error_code: u16,
    pub entry_vector: u16,
    pub eip: u32,
    pub cs: u16,
    pub saved_upcall_mask: u8,
    pub _pad0: u8,
    pub eflags: u32,
    pub esp: u32,
    pub ss: u16,
    pub _pad1: u16,
    pub es: u16,
    pub _pad2: u16,
    pub ds: u16,
    pub _pad3: u16,
    pub fs: u16,
    pub _pad4: u16,
    pub gs: u16,
    pub _pad5: u16,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of cpu_user_regs_x86_32"][::std::mem::size_of::<cpu_user_regs_x86_32>() - 68usize];
    ["Alignment of cpu_user_regs_x86_32"][::std::mem::align_of::<cpu_user_regs_x86_32>() - 4usize];
    ["Offset of field: cpu_user_regs_x86_32::ebx"][::std::mem::offset_of!(cpu_user_regs_x86_32, ebx) - 0usize];
    ["Offset of field: cpu_user_regs_x86_32::ecx"][::std::mem::offset_of!(cpu_user_regs_x86_32, ecx) - 4usize];
    ["Offset of field: cpu_user_regs_x86_32::edx"][::std::mem::offset_of!(cpu_user_regs_x86_32, edx) - 8usize];
    ["Offset of field: cpu_user_regs_x86_32::esi"][::std::mem::offset_of!(cpu_user_regs_x86_32, esi) - 12usize];
    ["Offset of field: cpu_user_regs_x86_32::edi"][::std::mem::offset_of!(cpu_user_regs_x86_32, edi) - 16usize];
    ["Offset of field: cpu_user_regs_x86_32::ebp"][::std::mem::offset_of!(cpu_user_regs_x86_32, ebp) - 20usize];
    ["Offset of field: cpu_user_regs_x86_32::eax"][::std::mem::offset_of!(cpu_user_regs_x86_32, eax) - 24usize];
    ["Offset of field: cpu_user_regs_x86_32::error_code"]
        [::std::mem::offset_of!(cpu_user_regs_x86_32, error_code) - 28usize];
    ["Offset of field: cpu_user_regs_x86_32::entry_vector"]
        [::std::mem::offset_of!(cpu_user_regs_x86_32, entry_vector) - 30usize];
    ["Offset of field: cpu_user_regs_x86_32::eip"][::std::mem::offset_of!(cpu_user_regs_x86_32, eip) - 32usize];
    ["Offset of field: cpu_user_regs_x86_32::cs"][::std::mem::offset_of!(cpu_user_regs_x86_32, cs) - 36usize];
    ["Offset of field: cpu_user_regs_x86_32::saved_upcall_mask"]
        [::std::mem::offset_of!(cpu_user_regs_x86_32, saved_upcall_mask) - 38usize];
    ["Offset of field: cpu_user_regs_x86_32::_pad0"][::std::mem::offset_of!(cpu_user_regs_x86_32, _pad0) - 39usize];
    ["Offset of field: cpu_user_regs_x86_32::eflags"][::std::mem::offset_of!(cpu_user_regs_x86_32, eflags) - 40usize];
    ["Offset of field: cpu_user_regs_x86_32::esp"][::std::mem::offset_of!(cpu_user_regs_x86_32, esp) - 44usize];
    ["Offset of field: cpu_user_regs_x86_32::ss"][::std::mem::offset_of!(cpu_user_regs_x86_32, ss) - 48usize];
    ["Offset of field: cpu_user_regs_x86_32::_pad1"][::std::mem::offset_of!(cpu_user_regs_x86_32, _pad1) - 50usize];
    ["Offset of field: cpu_user_regs_x86_32::es"][::std::mem::offset_of!(cpu_user_regs_x86_32, es) - 52usize];
    ["Offset of field: cpu_user_regs_x86_32::_pad2"][::std::mem::offset_of!(cpu_user_regs_x86_32, _pad2) - 54usize];
    ["Offset of field: cpu_user_regs_x86_32::ds"][::std::mem::offset_of!(cpu_user_regs_x86_32, ds) - 56usize];
    ["Offset of field: cpu_user_regs_x86_32::_pad3"][::std::mem::offset_of!(cpu_user_regs_x86_32, _pad3) - 58usize];
    ["Offset of field: cpu_user_regs_x86_32::fs"][::std::mem::offset_of!(cpu_user_regs_x86_32, fs) - 60usize];
    ["Offset of field: cpu_user_regs_x86_32::_pad4"][::std::mem::offset_of!(cpu_user_regs_x86_32, _pad4) - 62usize];
    ["Offset of field: cpu_user_regs_x86_32::gs"][::std::mem::offset_of!(cpu_user_regs_x86_32, gs) - 64usize];
    ["Offset of field: cpu_user_regs_x86_32::_pad5"][::std::mem::offset_of!(cpu_user_regs_x86_32, _pad5) - 66usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct vcpu_guest_context_x86_32 {
    pub fpu_ctxt: vcpu_guest_context_x86_32__bindgen_ty_1,
    pub flags: u32,
    pub user_regs: cpu_user_regs_x86_32,
    pub trap_ctxt: [trap_info_x86_32; 256usize],
    pub ldt_base: u32,
    pub ldt_ents: u32,
    pub gdt_frames: [u32; 16usize],
    pub gdt_ents: u32,
    pub kernel_ss: u32,
    pub kernel_sp: u32,
    pub ctrlreg: [u32; 8usize],
    pub debugreg: [u32; 8usize],
    pub event_callback_cs: u32,
    pub event_callback_eip: u32,
    pub failsafe_callback_cs: u32,
    pub failsafe_callback_eip: u32,
    pub vm_assist: u32,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct vcpu_guest_context_x86_32__bindgen_ty_1 {
    pub x: [::std::os::raw::c_char; 512usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of vcpu_guest_context_x86_32__bindgen_ty_1"]
        [::std::mem::size_of::<vcpu_guest_context_x86_32__bindgen_ty_1>() - 512usize];
    ["Alignment of vcpu_guest_context_x86_32__bindgen_ty_1"]
        [::std::mem::align_of::<vcpu_guest_context_x86_32__bindgen_ty_1>() - 1usize];
    ["Offset of field: vcpu_guest_context_x86_32__bindgen_ty_1::x"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_32__bindgen_ty_1, x) - 0usize];
};
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of vcpu_guest_context_x86_32"][::std::mem::size_of::<vcpu_guest_context_x86_32>() - 2800usize];
    ["Alignment of vcpu_guest_context_x86_32"][::std::mem::align_of::<vcpu_guest_context_x86_32>() - 4usize];
    ["Offset of field: vcpu_guest_context_x86_32::fpu_ctxt"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_32, fpu_ctxt) - 0usize];
    ["Offset of field: vcpu_guest_context_x86_32::flags"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_32, flags) - 512usize];
    ["Offset of field: vcpu_guest_context_x86_32::user_regs"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_32, user_regs) - 516usize];
    ["Offset of field: vcpu_guest_context_x86_32::trap_ctxt"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_32, trap_ctxt) - 584usize];
    ["Offset of field: vcpu_guest_context_x86_32::ldt_base"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_32, ldt_base) - 2632usize];
    ["Offset of field: vcpu_guest_context_x86_32::ldt_ents"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_32, ldt_ents) - 2636usize];
    ["Offset of field: vcpu_guest_context_x86_32::gdt_frames"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_32, gdt_frames) - 2640usize];
    ["Offset of field: vcpu_guest_context_x86_32::gdt_ents"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_32, gdt_ents) - 2704usize];
    ["Offset of field: vcpu_guest_context_x86_32::kernel_ss"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_32, kernel_ss) - 2708usize];
    ["Offset of field: vcpu_guest_context_x86_32::kernel_sp"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_32, kernel_sp) - 2712usize];
    ["Offset of field: vcpu_guest_context_x86_32::ctrlreg"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_32, ctrlreg) - 2716usize];
    ["Offset of field: vcpu_guest_context_x86_32::debugreg"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_32, debugreg) - 2748usize];
    ["Offset of field: vcpu_guest_context_x86_32::event_callback_cs"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_32, event_callback_cs) - 2780usize];
    ["Offset of field: vcpu_guest_context_x86_32::event_callback_eip"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_32, event_callback_eip) - 2784usize];
    ["Offset of field: vcpu_guest_context_x86_32::failsafe_callback_cs"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_32, failsafe_callback_cs) - 2788usize];
    ["Offset of field: vcpu_guest_context_x86_32::failsafe_callback_eip"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_32, failsafe_callback_eip) - 2792usize];
    ["Offset of field: vcpu_guest_context_x86_32::vm_assist"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_32, vm_assist) - 2796usize];
};
pub type vcpu_guest_context_x86_32_t = vcpu_guest_context_x86_32;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct arch_vcpu_info_x86_32 {
    pub cr2: u32,
    pub pad: [u32; 5usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of arch_vcpu_info_x86_32"][::std::mem::size_of::<arch_vcpu_info_x86_32>() - 24usize];
    ["Alignment of arch_vcpu_info_x86_32"][::std::mem::align_of::<arch_vcpu_info_x86_32>() - 4usize];
    ["Offset of field: arch_vcpu_info_x86_32::cr2"][::std::mem::offset_of!(arch_vcpu_info_x86_32, cr2) - 0usize];
    ["Offset of field: arch_vcpu_info_x86_32::pad"][::std::mem::offset_of!(arch_vcpu_info_x86_32, pad) - 4usize];
};
#[repr(C, packed(4))]
#[derive(Debug, Copy, Clone)]
pub struct vcpu_time_info_x86_32 {
    pub version: u32,
    pub pad0: u32,
    pub tsc_timestamp: u64,
    pub system_time: u64,
    pub tsc_to_system_mul: u32,
    pub tsc_shift: i8,
    pub flags: u8,
    pub pad1: [u8; 2usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of vcpu_time_info_x86_32"][::std::mem::size_of::<vcpu_time_info_x86_32>() - 32usize];
    ["Alignment of vcpu_time_info_x86_32"][::std::mem::align_of::<vcpu_time_info_x86_32>() - 4usize];
    ["Offset of field: vcpu_time_info_x86_32::version"]
        [::std::mem::offset_of!(vcpu_time_info_x86_32, version) - 0usize];
    ["Offset of field: vcpu_time_info_x86_32::pad0"][::std::mem::offset_of!(vcpu_time_info_x86_32, pad0) - 4usize];
    ["Offset of field: vcpu_time_info_x86_32::tsc_timestamp"]
        [::std::mem::offset_of!(vcpu_time_info_x86_32, tsc_timestamp) - 8usize];
    ["Offset of field: vcpu_time_info_x86_32::system_time"]
        [::std::mem::offset_of!(vcpu_time_info_x86_32, system_time) - 16usize];
    ["Offset of field: vcpu_time_info_x86_32::tsc_to_system_mul"]
        [::std::mem::offset_of!(vcpu_time_info_x86_32, tsc_to_system_mul) - 24usize];
    ["Offset of field: vcpu_time_info_x86_32::tsc_shift"]
        [::std::mem::offset_of!(vcpu_time_info_x86_32, tsc_shift) - 28usize];
    ["Offset of field: vcpu_time_info_x86_32::flags"][::std::mem::offset_of!(vcpu_time_info_x86_32, flags) - 29usize];
    ["Offset of field: vcpu_time_info_x86_32::pad1"][::std::mem::offset_of!(vcpu_time_info_x86_32, pad1) - 30usize];
};
pub type vcpu_time_info_x86_32_t = vcpu_time_info_x86_32;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct vcpu_info_x86_32 {
    pub evtchn_upcall_pending: u8,
    pub evtchn_upcall_mask: u8,
    pub evtchn_pending_sel: u32,
    pub arch: arch_vcpu_info_x86_32,
    pub time: vcpu_time_info_x86_32_t,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of vcpu_info_x86_32"][::std::mem::size_of::<vcpu_info_x86_32>() - 64usize];
    ["Alignment of vcpu_info_x86_32"][::std::mem::align_of::<vcpu_info_x86_32>() - 4usize];
    ["Offset of field: vcpu_info_x86_32::evtchn_upcall_pending"]
        [::std::mem::offset_of!(vcpu_info_x86_32, evtchn_upcall_pending) - 0usize];
    ["Offset of field: vcpu_info_x86_32::evtchn_upcall_mask"]
        [::std::mem::offset_of!(vcpu_info_x86_32, evtchn_upcall_mask) - 1usize];
    ["Offset of field: vcpu_info_x86_32::evtchn_pending_sel"]
        [::std::mem::offset_of!(vcpu_info_x86_32, evtchn_pending_sel) - 4usize];
    ["Offset of field: vcpu_info_x86_32::arch"][::std::mem::offset_of!(vcpu_info_x86_32, arch) - 8usize];
    ["Offset of field: vcpu_info_x86_32::time"][::std::mem::offset_of!(vcpu_info_x86_32, time) - 32usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct arch_shared_info_x86_32 {
    pub max_pfn: u32,
    pub pfn_to_mfn_frame_list_list: u32,
    pub nmi_reason: u32,
    pub p2m_cr3: u32,
    pub p2m_vaddr: u32,
    pub p2m_generation: u32,
    pub wc_sec_hi: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of arch_shared_info_x86_32"][::std::mem::size_of::<arch_shared_info_x86_32>() - 28usize];
    ["Alignment of arch_shared_info_x86_32"][::std::mem::align_of::<arch_shared_info_x86_32>() - 4usize];
    ["Offset of field: arch_shared_info_x86_32::max_pfn"]
        [::std::mem::offset_of!(arch_shared_info_x86_32, max_pfn) - 0usize];
    ["Offset of field: arch_shared_info_x86_32::pfn_to_mfn_frame_list_list"]
        [::std::mem::offset_of!(arch_shared_info_x86_32, pfn_to_mfn_frame_list_list) - 4usize];
    ["Offset of field: arch_shared_info_x86_32::nmi_reason"]
        [::std::mem::offset_of!(arch_shared_info_x86_32, nmi_reason) - 8usize];
    ["Offset of field: arch_shared_info_x86_32::p2m_cr3"]
        [::std::mem::offset_of!(arch_shared_info_x86_32, p2m_cr3) - 12usize];
    ["Offset of field: arch_shared_info_x86_32::p2m_vaddr"]
        [::std::mem::offset_of!(arch_shared_info_x86_32, p2m_vaddr) - 16usize];
    ["Offset of field: arch_shared_info_x86_32::p2m_generation"]
        [::std::mem::offset_of!(arch_shared_info_x86_32, p2m_generation) - 20usize];
    ["Offset of field: arch_shared_info_x86_32::wc_sec_hi"]
        [::std::mem::offset_of!(arch_shared_info_x86_32, wc_sec_hi) - 24usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct shared_info_x86_32 {
    pub vcpu_info: [vcpu_info_x86_32; 32usize],
    pub evtchn_pending: [u32; 32usize],
    pub evtchn_mask: [u32; 32usize],
    pub wc_version: u32,
    pub wc_sec: u32,
    pub wc_nsec: u32,
    pub arch: arch_shared_info_x86_32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of shared_info_x86_32"][::std::mem::size_of::<shared_info_x86_32>() - 2344usize];
    ["Alignment of shared_info_x86_32"][::std::mem::align_of::<shared_info_x86_32>() - 4usize];
    ["Offset of field: shared_info_x86_32::vcpu_info"][::std::mem::offset_of!(shared_info_x86_32, vcpu_info) - 0usize];
    ["Offset of field: shared_info_x86_32::evtchn_pending"]
        [::std::mem::offset_of!(shared_info_x86_32, evtchn_pending) - 2048usize];
    ["Offset of field: shared_info_x86_32::evtchn_mask"]
        [::std::mem::offset_of!(shared_info_x86_32, evtchn_mask) - 2176usize];
    ["Offset of field: shared_info_x86_32::wc_version"]
        [::std::mem::offset_of!(shared_info_x86_32, wc_version) - 2304usize];
    ["Offset of field: shared_info_x86_32::wc_sec"][::std::mem::offset_of!(shared_info_x86_32, wc_sec) - 2308usize];
    ["Offset of field: shared_info_x86_32::wc_nsec"][::std::mem::offset_of!(shared_info_x86_32, wc_nsec) - 2312usize];
    ["Offset of field: shared_info_x86_32::arch"][::std::mem::offset_of!(shared_info_x86_32, arch) - 2316usize];
};
pub type shared_info_x86_32_t = shared_info_x86_32;
#[repr(C)]
#[derive(Copy, Clone)]
pub struct start_info_x86_64 {
    pub magic: [::std::os::raw::c_char; 32usize],
    pub nr_pages: u64,
    pub shared_info: u64,
    pub flags: u32,
    pub store_mfn: u64,
    pub store_evtchn: u32,
    pub console: start_info_x86_64__bindgen_ty_1,
    pub pt_base: u64,
    pub nr_pt_frames: u64,
    pub mfn_list: u64,
    pub mod_start: u64,
    pub mod_len: u64,
    pub cmd_line: [i8; 1024usize],
    pub first_p2m_pfn: u64,
    pub nr_p2m_frames: u64,
}
#[repr(C)]
#[derive(Copy, Clone)]
pub union start_info_x86_64__bindgen_ty_1 {
    pub domU: start_info_x86_64__bindgen_ty_1__bindgen_ty_1,
    pub dom0: start_info_x86_64__bindgen_ty_1__bindgen_ty_2,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct start_info_x86_64__bindgen_ty_1__bindgen_ty_1 {
    pub mfn: u64,
    pub evtchn: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of start_info_x86_64__bindgen_ty_1__bindgen_ty_1"]
        [::std::mem::size_of::<start_info_x86_64__bindgen_ty_1__bindgen_ty_1>() - 16usize];
    ["Alignment of start_info_x86_64__bindgen_ty_1__bindgen_ty_1"]
        [::std::mem::align_of::<start_info_x86_64__bindgen_ty_1__bindgen_ty_1>() - 8usize];
    ["Offset of field: start_info_x86_64__bindgen_ty_1__bindgen_ty_1::mfn"]
        [::std::mem::offset_of!(start_info_x86_64__bindgen_ty_1__bindgen_ty_1, mfn) - 0usize];
    ["Offset of field: start_info_x86_64__bindgen_ty_1__bindgen_ty_1::evtchn"]
        [::std::mem::offset_of!(start_info_x86_64__bindgen_ty_1__bindgen_ty_1, evtchn) - 8usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct start_info_x86_64__bindgen_ty_1__bindgen_ty_2 {
    pub info_off: u32,
    pub info_size: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of start_info_x86_64__bindgen_ty_1__bindgen_ty_2"]
        [::std::mem::size_of::<start_info_x86_64__bindgen_ty_1__bindgen_ty_2>() - 8usize];
    ["Alignment of start_info_x86_64__bindgen_ty_1__bindgen_ty_2"]
        [::std::mem::align_of::<start_info_x86_64__bindgen_ty_1__bindgen_ty_2>() - 4usize];
    ["Offset of field: start_info_x86_64__bindgen_ty_1__bindgen_ty_2::info_off"]
        [::std::mem::offset_of!(start_info_x86_64__bindgen_ty_1__bindgen_ty_2, info_off) - 0usize];
    ["Offset of field: start_info_x86_64__bindgen_ty_1__bindgen_ty_2::info_size"]
        [::std::mem::offset_of!(start_info_x86_64__bindgen_ty_1__bindgen_ty_2, info_size) - 4usize];
};
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of start_info_x86_64__bindgen_ty_1"][::std::mem::size_of::<start_info_x86_64__bindgen_ty_1>() - 16usize];
    ["Alignment of start_info_x86_64__bindgen_ty_1"]
        [::std::mem::align_of::<start_info_x86_64__bindgen_ty_1>() - 8usize];
    ["Offset of field: start_info_x86_64__bindgen_ty_1::domU"]
        [::std::mem::offset_of!(start_info_x86_64__bindgen_ty_1, domU) - 0usize];
    ["Offset of field: start_info_x86_64__bindgen_ty_1::dom0"]
        [::std::mem::offset_of!(start_info_x86_64__bindgen_ty_1, dom0) - 0usize];
};
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of start_info_x86_64"][::std::mem::size_of::<start_info_x86_64>() - 1168usize];
    ["Alignment of start_info_x86_64"][::std::mem::align_of::<start_info_x86_64>() - 8usize];
    ["Offset of field: start_info_x86_64::magic"][::std::mem::offset_of!(start_info_x86_64, magic) - 0usize];
    ["Offset of field: start_info_x86_64::nr_pages"][::std::mem::offset_of!(start_info_x86_64, nr_pages) - 32usize];
    ["Offset of field: start_info_x86_64::shared_info"]
        [::std::mem::offset_of!(start_info_x86_64, shared_info) - 40usize];
    ["Offset of field: start_info_x86_64::flags"][::std::mem::offset_of!(start_info_x86_64, flags) - 48usize];
    ["Offset of field: start_info_x86_64::store_mfn"][::std::mem::offset_of!(start_info_x86_64, store_mfn) - 56usize];
    ["Offset of field: start_info_x86_64::store_evtchn"]
        [::std::mem::offset_of!(start_info_x86_64, store_evtchn) - 64usize];
    ["Offset of field: start_info_x86_64::console"][::std::mem::offset_of!(start_info_x86_64, console) - 72usize];
    ["Offset of field: start_info_x86_64::pt_base"][::std::mem::offset_of!(start_info_x86_64, pt_base) - 88usize];
    ["Offset of field: start_info_x86_64::nr_pt_frames"]
        [::std::mem::offset_of!(start_info_x86_64, nr_pt_frames) - 96usize];
    ["Offset of field: start_info_x86_64::mfn_list"][::std::mem::offset_of!(start_info_x86_64, mfn_list) - 104usize];
    ["Offset of field: start_info_x86_64::mod_start"][::std::mem::offset_of!(start_info_x86_64, mod_start) - 112usize];
    ["Offset of field: start_info_x86_64::mod_len"][::std::mem::offset_of!(start_info_x86_64, mod_len) - 120usize];
    ["Offset of field: start_info_x86_64::cmd_line"][::std::mem::offset_of!(start_info_x86_64, cmd_line) - 128usize];
    ["Offset of field: start_info_x86_64::first_p2m_pfn"]
        [::std::mem::offset_of!(start_info_x86_64, first_p2m_pfn) - 1152usize];
    ["Offset of field: start_info_x86_64::nr_p2m_frames"]
        [::std::mem::offset_of!(start_info_x86_64, nr_p2m_frames) - 1160usize];
};
pub type start_info_x86_64_t = start_info_x86_64;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct trap_info_x86_64 {
    pub vector: u8,
    pub flags: u8,
    pub cs: u16,
    pub address: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of trap_info_x86_64"][::std::mem::size_of::<trap_info_x86_64>() - 16usize];
    ["Alignment of trap_info_x86_64"][::std::mem::align_of::<trap_info_x86_64>() - 8usize];
    ["Offset of field: trap_info_x86_64::vector"][::std::mem::offset_of!(trap_info_x86_64, vector) - 0usize];
    ["Offset of field: trap_info_x86_64::flags"][::std::mem::offset_of!(trap_info_x86_64, flags) - 1usize];
    ["Offset of field: trap_info_x86_64::cs"][::std::mem::offset_of!(trap_info_x86_64, cs) - 2usize];
    ["Offset of field: trap_info_x86_64::address"][::std::mem::offset_of!(trap_info_x86_64, address) - 8usize];
};
#[repr(C)]
#[derive(Copy, Clone)]
pub struct cpu_user_regs_x86_64 {
    pub __bindgen_anon_1: cpu_user_regs_x86_64__bindgen_ty_1,
    pub __bindgen_anon_2: cpu_user_regs_x86_64__bindgen_ty_2,
    pub __bindgen_anon_3: cpu_user_regs_x86_64__bindgen_ty_3,
    pub __bindgen_anon_4: cpu_user_regs_x86_64__bindgen_ty_4,
    pub __bindgen_anon_5: cpu_user_regs_x86_64__bindgen_ty_5,
    pub __bindgen_anon_6: cpu_user_regs_x86_64__bindgen_ty_6,
    pub __bindgen_anon_7: cpu_user_regs_x86_64__bindgen_ty_7,
    pub __bindgen_anon_8: cpu_user_regs_x86_64__bindgen_ty_8,
    pub __bindgen_anon_9: cpu_user_regs_x86_64__bindgen_ty_9,
    pub __bindgen_anon_10: cpu_user_regs_x86_64__bindgen_ty_10,
    pub __bindgen_anon_11: cpu_user_regs_x86_64__bindgen_ty_11,
    pub __bindgen_anon_12: cpu_user_regs_x86_64__bindgen_ty_12,
    pub __bindgen_anon_13: cpu_user_regs_x86_64__bindgen_ty_13,
    pub __bindgen_anon_14: cpu_user_regs_x86_64__bindgen_ty_14,
    pub __bindgen_anon_15: cpu_user_regs_x86_64__bindgen_ty_15,
    pub error_code: u32,
    pub entry_vector: u32,
    pub __bindgen_anon_16: cpu_user_regs_x86_64__bindgen_ty_16,
    pub cs: u16,
    pub _pad0: [u16; 1usize],
    pub saved_upcall_mask: u8,
    pub _pad1: [u8; 3usize],
    pub __bindgen_anon_17: cpu_user_regs_x86_64__bindgen_ty_17,
    pub __bindgen_anon_18: cpu_user_regs_x86_64__bindgen_ty_18,
    pub ss: u16,
    pub _pad2: [u16; 3usize],
    pub es: u16,
    pub _pad3: [u16; 3usize],
    pub ds: u16,
    pub _pad4: [u16; 3usize],
    pub fs: u16,
    pub _pad5: [u16; 3usize],
    pub gs: u16,
    pub _pad6: [u16; 3usize],
}
#[repr(C)]
#[derive(Copy, Clone)]
pub union cpu_user_regs_x86_64__bindgen_ty_1 {
    pub r15: u64,
    pub e15: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of cpu_user_regs_x86_64__bindgen_ty_1"]
        [::std::mem::size_of::<cpu_user_regs_x86_64__bindgen_ty_1>() - 8usize];
    ["Alignment of cpu_user_regs_x86_64__bindgen_ty_1"]
        [::std::mem::align_of::<cpu_user_regs_x86_64__bindgen_ty_1>() - 8usize];
    ["Offset of field: cpu_user_regs_x86_64__bindgen_ty_1::r15"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64__bindgen_ty_1, r15) - 0usize];
    ["Offset of field: cpu_user_regs_x86_64__bindgen_ty_1::e15"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64__bindgen_ty_1, e15) - 0usize];
};
#[repr(C)]
#[derive(Copy, Clone)]
pub union cpu_user_regs_x86_64__bindgen_ty_2 {
    pub r14: u64,
    pub e14: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of cpu_user_regs_x86_64__bindgen_ty_2"]
        [::std::mem::size_of::<cpu_user_regs_x86_64__bindgen_ty_2>() - 8usize];
    ["Alignment of cpu_user_regs_x86_64__bindgen_ty_2"]
        [::std::mem::align_of::<cpu_user_regs_x86_64__bindgen_ty_2>() - 8usize];
    ["Offset of field: cpu_user_regs_x86_64__bindgen_ty_2::r14"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64__bindgen_ty_2, r14) - 0usize];
    ["Offset of field: cpu_user_regs_x86_64__bindgen_ty_2::e14"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64__bindgen_ty_2, e14) - 0usize];
};
#[repr(C)]
#[derive(Copy, Clone)]
pub union cpu_user_regs_x86_64__bindgen_ty_3 {
    pub r13: u64,
    pub e13: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of cpu_user_regs_x86_64__bindgen_ty_3"]
        [::std::mem::size_of::<cpu_user_regs_x86_64__bindgen_ty_3>() - 8usize];
    ["Alignment of cpu_user_regs_x86_64__bindgen_ty_3"]
        [::std::mem::align_of::<cpu_user_regs_x86_64__bindgen_ty_3>() - 8usize];
    ["Offset of field: cpu_user_regs_x86_64__bindgen_ty_3::r13"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64__bindgen_ty_3, r13) - 0usize];
    ["Offset of field: cpu_user_regs_x86_64__bindgen_ty_3::e13"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64__bindgen_ty_3, e13) - 0usize];
};
#[repr(C)]
#[derive(Copy, Clone)]
pub union cpu_user_regs_x86_64__bindgen_ty_4 {
    pub r12: u64,
    pub e12: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of cpu_user_regs_x86_64__bindgen_ty_4"]
        [::std::mem::size_of::<cpu_user_regs_x86_64__bindgen_ty_4>() - 8usize];
    ["Alignment of cpu_user_regs_x86_64__bindgen_ty_4"]
        [::std::mem::align_of::<cpu_user_regs_x86_64__bindgen_ty_4>() - 8usize];
    ["Offset of field: cpu_user_regs_x86_64__bindgen_ty_4::r12"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64__bindgen_ty_4, r12) - 0usize];
    ["Offset of field: cpu_user_regs_x86_64__bindgen_ty_4::e12"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64__bindgen_ty_4, e12) - 0usize];
};
#[repr(C)]
#[derive(Copy, Clone)]
pub union cpu_user_regs_x86_64__bindgen_ty_5 {
    pub rbp: u64,
    pub ebp: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of cpu_user_regs_x86_64__bindgen_ty_5"]
        [::std::mem::size_of::<cpu_user_regs_x86_64__bindgen_ty_5>() - 8usize];
    ["Alignment of cpu_user_regs_x86_64__bindgen_ty_5"]
        [::std::mem::align_of::<cpu_user_regs_x86_64__bindgen_ty_5>() - 8usize];
    ["Offset of field: cpu_user_regs_x86_64__bindgen_ty_5::rbp"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64__bindgen_ty_5, rbp) - 0usize];
    ["Offset of field: cpu_user_regs_x86_64__bindgen_ty_5::ebp"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64__bindgen_ty_5, ebp) - 0usize];
};
#[repr(C)]
#[derive(Copy, Clone)]
pub union cpu_user_regs_x86_64__bindgen_ty_6 {
    pub rbx: u64,
    pub ebx: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of cpu_user_regs_x86_64__bindgen_ty_6"]
        [::std::mem::size_of::<cpu_user_regs_x86_64__bindgen_ty_6>() - 8usize];
    ["Alignment of cpu_user_regs_x86_64__bindgen_ty_6"]
        [::std::mem::align_of::<cpu_user_regs_x86_64__bindgen_ty_6>() - 8usize];
    ["Offset of field: cpu_user_regs_x86_64__bindgen_ty_6::rbx"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64__bindgen_ty_6, rbx) - 0usize];
    ["Offset of field: cpu_user_regs_x86_64__bindgen_ty_6::ebx"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64__bindgen_ty_6, ebx) - 0usize];
};
#[repr(C)]
#[derive(Copy, Clone)]
pub union cpu_user_regs_x86_64__bindgen_ty_7 {
    pub r11: u64,
    pub e11: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of cpu_user_regs_x86_64__bindgen_ty_7"]
        [::std::mem::size_of::<cpu_user_regs_x86_64__bindgen_ty_7>() - 8usize];
    ["Alignment of cpu_user_regs_x86_64__bindgen_ty_7"]
        [::std::mem::align_of::<cpu_user_regs_x86_64__bindgen_ty_7>() - 8usize];
    ["Offset of field: cpu_user_regs_x86_64__bindgen_ty_7::r11"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64__bindgen_ty_7, r11) - 0usize];
    ["Offset of field: cpu_user_regs_x86_64__bindgen_ty_7::e11"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64__bindgen_ty_7, e11) - 0usize];
};
#[repr(C)]
#[derive(Copy, Clone)]
pub union cpu_user_regs_x86_64__bindgen_ty_8 {
    pub r10: u64,
    pub e10: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of cpu_user_regs_x86_64__bindgen_ty_8"]
        [::std::mem::size_of::<cpu_user_regs_x86_64__bindgen_ty_8>() - 8usize];
    ["Alignment of cpu_user_regs_x86_64__bindgen_ty_8"]
        [::std::mem::align_of::<cpu_user_regs_x86_64__bindgen_ty_8>() - 8usize];
    ["Offset of field: cpu_user_regs_x86_64__bindgen_ty_8::r10"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64__bindgen_ty_8, r10) - 0usize];
    ["Offset of field: cpu_user_regs_x86_64__bindgen_ty_8::e10"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64__bindgen_ty_8, e10) - 0usize];
};
#[repr(C)]
#[derive(Copy, Clone)]
pub union cpu_user_regs_x86_64__bindgen_ty_9 {
    pub r9: u64,
    pub e9: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of cpu_user_regs_x86_64__bindgen_ty_9"]
        [::std::mem::size_of::<cpu_user_regs_x86_64__bindgen_ty_9>() - 8usize];
    ["Alignment of cpu_user_regs_x86_64__bindgen_ty_9"]
        [::std::mem::align_of::<cpu_user_regs_x86_64__bindgen_ty_9>() - 8usize];
    ["Offset of field: cpu_user_regs_x86_64__bindgen_ty_9::r9"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64__bindgen_ty_9, r9) - 0usize];
    ["Offset of field: cpu_user_regs_x86_64__bindgen_ty_9::e9"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64__bindgen_ty_9, e9) - 0usize];
};
#[repr(C)]
#[derive(Copy, Clone)]
pub union cpu_user_regs_x86_64__bindgen_ty_10 {
    pub r8: u64,
    pub e8: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of cpu_user_regs_x86_64__bindgen_ty_10"]
        [::std::mem::size_of::<cpu_user_regs_x86_64__bindgen_ty_10>() - 8usize];
    ["Alignment of cpu_user_regs_x86_64__bindgen_ty_10"]
        [::std::mem::align_of::<cpu_user_regs_x86_64__bindgen_ty_10>() - 8usize];
    ["Offset of field: cpu_user_regs_x86_64__bindgen_ty_10::r8"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64__bindgen_ty_10, r8) - 0usize];
    ["Offset of field: cpu_user_regs_x86_64__bindgen_ty_10::e8"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64__bindgen_ty_10, e8) - 0usize];
};
#[repr(C)]
#[derive(Copy, Clone)]
pub union cpu_user_regs_x86_64__bindgen_ty_11 {
    pub rax: u64,
    pub eax: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of cpu_user_regs_x86_64__bindgen_ty_11"]
        [::std::mem::size_of::<cpu_user_regs_x86_64__bindgen_ty_11>() - 8usize];
    ["Alignment of cpu_user_regs_x86_64__bindgen_ty_11"]
        [::std::mem::align_of::<cpu_user_regs_x86_64__bindgen_ty_11>() - 8usize];
    ["Offset of field: cpu_user_regs_x86_64__bindgen_ty_11::rax"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64__bindgen_ty_11, rax) - 0usize];
    ["Offset of field: cpu_user_regs_x86_64__bindgen_ty_11::eax"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64__bindgen_ty_11, eax) - 0usize];
};
#[repr(C)]
#[derive(Copy, Clone)]
pub union cpu_user_regs_x86_64__bindgen_ty_12 {
    pub rcx: u64,
    pub ecx: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of cpu_user_regs_x86_64__bindgen_ty_12"]
        [::std::mem::size_of::<cpu_user_regs_x86_64__bindgen_ty_12>() - 8usize];
    ["Alignment of cpu_user_regs_x86_64__bindgen_ty_12"]
        [::std::mem::align_of::<cpu_user_regs_x86_64__bindgen_ty_12>() - 8usize];
    ["Offset of field: cpu_user_regs_x86_64__bindgen_ty_12::rcx"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64__bindgen_ty_12, rcx) - 0usize];
    ["Offset of field: cpu_user_regs_x86_64__bindgen_ty_12::ecx"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64__bindgen_ty_12, ecx) - 0usize];
};
#[repr(C)]
#[derive(Copy, Clone)]
pub union cpu_user_regs_x86_64__bindgen_ty_13 {
    pub rdx: u64,
    pub edx: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of cpu_user_regs_x86_64__bindgen_ty_13"]
        [::std::mem::size_of::<cpu_user_regs_x86_64__bindgen_ty_13>() - 8usize];
    ["Alignment of cpu_user_regs_x86_64__bindgen_ty_13"]
        [::std::mem::align_of::<cpu_user_regs_x86_64__bindgen_ty_13>() - 8usize];
    ["Offset of field: cpu_user_regs_x86_64__bindgen_ty_13::rdx"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64__bindgen_ty_13, rdx) - 0usize];
    ["Offset of field: cpu_user_regs_x86_64__bindgen_ty_13::edx"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64__bindgen_ty_13, edx) - 0usize];
};
#[repr(C)]
#[derive(Copy, Clone)]
pub union cpu_user_regs_x86_64__bindgen_ty_14 {
    pub rsi: u64,
    pub esi: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of cpu_user_regs_x86_64__bindgen_ty_14"]
        [::std::mem::size_of::<cpu_user_regs_x86_64__bindgen_ty_14>() - 8usize];
    ["Alignment of cpu_user_regs_x86_64__bindgen_ty_14"]
        [::std::mem::align_of::<cpu_user_regs_x86_64__bindgen_ty_14>() - 8usize];
    ["Offset of field: cpu_user_regs_x86_64__bindgen_ty_14::rsi"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64__bindgen_ty_14, rsi) - 0usize];
    ["Offset of field: cpu_user_regs_x86_64__bindgen_ty_14::esi"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64__bindgen_ty_14, esi) - 0usize];
};
#[repr(C)]
#[derive(Copy, Clone)]
pub union cpu_user_regs_x86_64__bindgen_ty_15 {
    pub rdi: u64,
    pub edi: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of cpu_user_regs_x86_64__bindgen_ty_15"]
        [::std::mem::size_of::<cpu_user_regs_x86_64__bindgen_ty_15>() - 8usize];
    ["Alignment of cpu_user_regs_x86_64__bindgen_ty_15"]
        [::std::mem::align_of::<cpu_user_regs_x86_64__bindgen_ty_15>() - 8usize];
    ["Offset of field: cpu_user_regs_x86_64__bindgen_ty_15::rdi"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64__bindgen_ty_15, rdi) - 0usize];
    ["Offset of field: cpu_user_regs_x86_64__bindgen_ty_15::edi"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64__bindgen_ty_15, edi) - 0usize];
};
#[repr(C)]
#[derive(Copy, Clone)]
pub union cpu_user_regs_x86_64__bindgen_ty_16 {
    pub rip: u64,
    pub eip: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of cpu_user_regs_x86_64__bindgen_ty_16"]
        [::std::mem::size_of::<cpu_user_regs_x86_64__bindgen_ty_16>() - 8usize];
    ["Alignment of cpu_user_regs_x86_64__bindgen_ty_16"]
        [::std::mem::align_of::<cpu_user_regs_x86_64__bindgen_ty_16>() - 8usize];
    ["Offset of field: cpu_user_regs_x86_64__bindgen_ty_16::rip"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64__bindgen_ty_16, rip) - 0usize];
    ["Offset of field: cpu_user_regs_x86_64__bindgen_ty_16::eip"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64__bindgen_ty_16, eip) - 0usize];
};
#[repr(C)]
#[derive(Copy, Clone)]
pub union cpu_user_regs_x86_64__bindgen_ty_17 {
    pub rflags: u64,
    pub eflags: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of cpu_user_regs_x86_64__bindgen_ty_17"]
        [::std::mem::size_of::<cpu_user_regs_x86_64__bindgen_ty_17>() - 8usize];
    ["Alignment of cpu_user_regs_x86_64__bindgen_ty_17"]
        [::std::mem::align_of::<cpu_user_regs_x86_64__bindgen_ty_17>() - 8usize];
    ["Offset of field: cpu_user_regs_x86_64__bindgen_ty_17::rflags"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64__bindgen_ty_17, rflags) - 0usize];
    ["Offset of field: cpu_user_regs_x86_64__bindgen_ty_17::eflags"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64__bindgen_ty_17, eflags) - 0usize];
};
#[repr(C)]
#[derive(Copy, Clone)]
pub union cpu_user_regs_x86_64__bindgen_ty_18 {
    pub rsp: u64,
    pub esp: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of cpu_user_regs_x86_64__bindgen_ty_18"]
        [::std::mem::size_of::<cpu_user_regs_x86_64__bindgen_ty_18>() - 8usize];
    ["Alignment of cpu_user_regs_x86_64__bindgen_ty_18"]
        [::std::mem::align_of::<cpu_user_regs_x86_64__bindgen_ty_18>() - 8usize];
    ["Offset of field: cpu_user_regs_x86_64__bindgen_ty_18::rsp"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64__bindgen_ty_18, rsp) - 0usize];
    ["Offset of field: cpu_user_regs_x86_64__bindgen_ty_18::esp"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64__bindgen_ty_18, esp) - 0usize];
};
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of cpu_user_regs_x86_64"][::std::mem::size_of::<cpu_user_regs_x86_64>() - 200usize];
    ["Alignment of cpu_user_regs_x86_64"][::std::mem::align_of::<cpu_user_regs_x86_64>() - 8usize];
    ["Offset of field: cpu_user_regs_x86_64::error_code"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64, error_code) - 120usize];
    ["Offset of field: cpu_user_regs_x86_64::entry_vector"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64, entry_vector) - 124usize];
    ["Offset of field: cpu_user_regs_x86_64::cs"][::std::mem::offset_of!(cpu_user_regs_x86_64, cs) - 136usize];
    ["Offset of field: cpu_user_regs_x86_64::_pad0"][::std::mem::offset_of!(cpu_user_regs_x86_64, _pad0) - 138usize];
    ["Offset of field: cpu_user_regs_x86_64::saved_upcall_mask"]
        [::std::mem::offset_of!(cpu_user_regs_x86_64, saved_upcall_mask) - 140usize];
    ["Offset of field: cpu_user_regs_x86_64::_pad1"][::std::mem::offset_of!(cpu_user_regs_x86_64, _pad1) - 141usize];
    ["Offset of field: cpu_user_regs_x86_64::ss"][::std::mem::offset_of!(cpu_user_regs_x86_64, ss) - 160usize];
    ["Offset of field: cpu_user_regs_x86_64::_pad2"][::std::mem::offset_of!(cpu_user_regs_x86_64, _pad2) - 162usize];
    ["Offset of field: cpu_user_regs_x86_64::es"][::std::mem::offset_of!(cpu_user_regs_x86_64, es) - 168usize];
    ["Offset of field: cpu_user_regs_x86_64::_pad3"][::std::mem::offset_of!(cpu_user_regs_x86_64, _pad3) - 170usize];
    ["Offset of field: cpu_user_regs_x86_64::ds"][::std::mem::offset_of!(cpu_user_regs_x86_64, ds) - 176usize];
    ["Offset of field: cpu_user_regs_x86_64::_pad4"][::std::mem::offset_of!(cpu_user_regs_x86_64, _pad4) - 178usize];
    ["Offset of field: cpu_user_regs_x86_64::fs"][::std::mem::offset_of!(cpu_user_regs_x86_64, fs) - 184usize];
    ["Offset of field: cpu_user_regs_x86_64::_pad5"][::std::mem::offset_of!(cpu_user_regs_x86_64, _pad5) - 186usize];
    ["Offset of field: cpu_user_regs_x86_64::gs"][::std::mem::offset_of!(cpu_user_regs_x86_64, gs) - 192usize];
    ["Offset of field: cpu_user_regs_x86_64::_pad6"][::std::mem::offset_of!(cpu_user_regs_x86_64, _pad6) - 194usize];
};
#[repr(C)]
#[derive(Copy, Clone)]
pub struct vcpu_guest_context_x86_64 {
    pub fpu_ctxt: vcpu_guest_context_x86_64__bindgen_ty_1,
    pub flags: u64,
    pub user_regs: cpu_user_regs_x86_64,
    pub trap_ctxt: [trap_info_x86_64; 256usize],
    pub ldt_base: u64,
    pub ldt_ents: u64,
    pub gdt_frames: [u64; 16usize],
    pub gdt_ents: u64,
    pub kernel_ss: u64,
    pub kernel_sp: u64,
    pub ctrlreg: [u64; 8usize],
    pub debugreg: [u64; 8usize],
    pub event_callback_eip: u64,
    pub failsafe_callback_eip: u64,
    pub syscall_callback_eip: u64,
    pub vm_assist: u64,
    pub fs_base: u64,
    pub gs_base_kernel: u64,
    pub gs_base_user: u64,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct vcpu_guest_context_x86_64__bindgen_ty_1 {
    pub x: [::std::os::raw::c_char; 512usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of vcpu_guest_context_x86_64__bindgen_ty_1"]
        [::std::mem::size_of::<vcpu_guest_context_x86_64__bindgen_ty_1>() - 512usize];
    ["Alignment of vcpu_guest_context_x86_64__bindgen_ty_1"]
        [::std::mem::align_of::<vcpu_guest_context_x86_64__bindgen_ty_1>() - 1usize];
    ["Offset of field: vcpu_guest_context_x86_64__bindgen_ty_1::x"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_64__bindgen_ty_1, x) - 0usize];
};
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of vcpu_guest_context_x86_64"][::std::mem::size_of::<vcpu_guest_context_x86_64>() - 5168usize];
    ["Alignment of vcpu_guest_context_x86_64"][::std::mem::align_of::<vcpu_guest_context_x86_64>() - 8usize];
    ["Offset of field: vcpu_guest_context_x86_64::fpu_ctxt"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_64, fpu_ctxt) - 0usize];
    ["Offset of field: vcpu_guest_context_x86_64::flags"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_64, flags) - 512usize];
    ["Offset of field: vcpu_guest_context_x86_64::user_regs"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_64, user_regs) - 520usize];
    ["Offset of field: vcpu_guest_context_x86_64::trap_ctxt"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_64, trap_ctxt) - 720usize];
    ["Offset of field: vcpu_guest_context_x86_64::ldt_base"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_64, ldt_base) - 4816usize];
    ["Offset of field: vcpu_guest_context_x86_64::ldt_ents"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_64, ldt_ents) - 4824usize];
    ["Offset of field: vcpu_guest_context_x86_64::gdt_frames"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_64, gdt_frames) - 4832usize];
    ["Offset of field: vcpu_guest_context_x86_64::gdt_ents"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_64, gdt_ents) - 4960usize];
    ["Offset of field: vcpu_guest_context_x86_64::kernel_ss"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_64, kernel_ss) - 4968usize];
    ["Offset of field: vcpu_guest_context_x86_64::kernel_sp"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_64, kernel_sp) - 4976usize];
    ["Offset of field: vcpu_guest_context_x86_64::ctrlreg"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_64, ctrlreg) - 4984usize];
    ["Offset of field: vcpu_guest_context_x86_64::debugreg"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_64, debugreg) - 5048usize];
    ["Offset of field: vcpu_guest_context_x86_64::event_callback_eip"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_64, event_callback_eip) - 5112usize];
    ["Offset of field: vcpu_guest_context_x86_64::failsafe_callback_eip"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_64, failsafe_callback_eip) - 5120usize];
    ["Offset of field: vcpu_guest_context_x86_64::syscall_callback_eip"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_64, syscall_callback_eip) - 5128usize];
    ["Offset of field: vcpu_guest_context_x86_64::vm_assist"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_64, vm_assist) - 5136usize];
    ["Offset of field: vcpu_guest_context_x86_64::fs_base"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_64, fs_base) - 5144usize];
    ["Offset of field: vcpu_guest_context_x86_64::gs_base_kernel"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_64, gs_base_kernel) - 5152usize];
    ["Offset of field: vcpu_guest_context_x86_64::gs_base_user"]
        [::std::mem::offset_of!(vcpu_guest_context_x86_64, gs_base_user) - 5160usize];
};
pub type vcpu_guest_context_x86_64_t = vcpu_guest_context_x86_64;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct arch_vcpu_info_x86_64 {
    pub cr2: u64,
    pub pad: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of arch_vcpu_info_x86_64"][::std::mem::size_of::<arch_vcpu_info_x86_64>() - 16usize];
    ["Alignment of arch_vcpu_info_x86_64"][::std::mem::align_of::<arch_vcpu_info_x86_64>() - 8usize];
    ["Offset of field: arch_vcpu_info_x86_64::cr2"][::std::mem::offset_of!(arch_vcpu_info_x86_64, cr2) - 0usize];
    ["Offset of field: arch_vcpu_info_x86_64::pad"][::std::mem::offset_of!(arch_vcpu_info_x86_64, pad) - 8usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct vcpu_time_info_x86_64 {
    pub version: u32,
    pub pad0: u32,
    pub tsc_timestamp: u64,
    pub system_time: u64,
    pub tsc_to_system_mul: u32,
    pub tsc_shift: i8,
    pub flags: u8,
    pub pad1: [u8; 2usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of vcpu_time_info_x86_64"][::std::mem::size_of::<vcpu_time_info_x86_64>() - 32usize];
    ["Alignment of vcpu_time_info_x86_64"][::std::mem::align_of::<vcpu_time_info_x86_64>() - 8usize];
    ["Offset of field: vcpu_time_info_x86_64::version"]
        [::std::mem::offset_of!(vcpu_time_info_x86_64, version) - 0usize];
    ["Offset of field: vcpu_time_info_x86_64::pad0"][::std::mem::offset_of!(vcpu_time_info_x86_64, pad0) - 4usize];
    ["Offset of field: vcpu_time_info_x86_64::tsc_timestamp"]
        [::std::mem::offset_of!(vcpu_time_info_x86_64, tsc_timestamp) - 8usize];
    ["Offset of field: vcpu_time_info_x86_64::system_time"]
        [::std::mem::offset_of!(vcpu_time_info_x86_64, system_time) - 16usize];
    ["Offset of field: vcpu_time_info_x86_64::tsc_to_system_mul"]
        [::std::mem::offset_of!(vcpu_time_info_x86_64, tsc_to_system_mul) - 24usize];
    ["Offset of field: vcpu_time_info_x86_64::tsc_shift"]
        [::std::mem::offset_of!(vcpu_time_info_x86_64, tsc_shift) - 28usize];
    ["Offset of field: vcpu_time_info_x86_64::flags"][::std::mem::offset_of!(vcpu_time_info_x86_64, flags) - 29usize];
    ["Offset of field: vcpu_time_info_x86_64::pad1"][::std::mem::offset_of!(vcpu_time_info_x86_64, pad1) - 30usize];
};
pub type vcpu_time_info_x86_64_t = vcpu_time_info_x86_64;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct vcpu_info_x86_64 {
    pub evtchn_upcall_pending: u8,
    pub evtchn_upcall_mask: u8,
    pub evtchn_pending_sel: u64,
    pub arch: arch_vcpu_info_x86_64,
    pub time: vcpu_time_info_x86_64_t,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of vcpu_info_x86_64"][::std::mem::size_of::<vcpu_info_x86_64>() - 64usize];
    ["Alignment of vcpu_info_x86_64"][::std::mem::align_of::<vcpu_info_x86_64>() - 8usize];
    ["Offset of field: vcpu_info_x86_64::evtchn_upcall_pending"]
        [::std::mem::offset_of!(vcpu_info_x86_64, evtchn_upcall_pending) - 0usize];
    ["Offset of field: vcpu_info_x86_64::evtchn_upcall_mask"]
        [::std::mem::offset_of!(vcpu_info_x86_64, evtchn_upcall_mask) - 1usize];
    ["Offset of field: vcpu_info_x86_64::evtchn_pending_sel"]
        [::std::mem::offset_of!(vcpu_info_x86_64, evtchn_pending_sel) - 8usize];
    ["Offset of field: vcpu_info_x86_64::arch"][::std::mem::offset_of!(vcpu_info_x86_64, arch) - 16usize];
    ["Offset of field: vcpu_info_x86_64::time"][::std::mem::offset_of!(vcpu_info_x86_64, time) - 32usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct arch_shared_info_x86_64 {
    pub max_pfn: u64,
    pub pfn_to_mfn_frame_list_list: u64,
    pub nmi_reason: u64,
    pub p2m_cr3: u64,
    pub p2m_vaddr: u64,
    pub p2m_generation: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of arch_shared_info_x86_64"][::std::mem::size_of::<arch_shared_info_x86_64>() - 48usize];
    ["Alignment of arch_shared_info_x86_64"][::std::mem::align_of::<arch_shared_info_x86_64>() - 8usize];
    ["Offset of field: arch_shared_info_x86_64::max_pfn"]
        [::std::mem::offset_of!(arch_shared_info_x86_64, max_pfn) - 0usize];
    ["Offset of field: arch_shared_info_x86_64::pfn_to_mfn_frame_list_list"]
        [::std::mem::offset_of!(arch_shared_info_x86_64, pfn_to_mfn_frame_list_list) - 8usize];
    ["Offset of field: arch_shared_info_x86_64::nmi_reason"]
        [::std::mem::offset_of!(arch_shared_info_x86_64, nmi_reason) - 16usize];
    ["Offset of field: arch_shared_info_x86_64::p2m_cr3"]
        [::std::mem::offset_of!(arch_shared_info_x86_64, p2m_cr3) - 24usize];
    ["Offset of field: arch_shared_info_x86_64::p2m_vaddr"]
        [::std::mem::offset_of!(arch_shared_info_x86_64, p2m_vaddr) - 32usize];
    ["Offset of field: arch_shared_info_x86_64::p2m_generation"]
        [::std::mem::offset_of!(arch_shared_info_x86_64, p2m_generation) - 40usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct shared_info_x86_64 {
    pub vcpu_info: [vcpu_info_x86_64; 32usize],
    pub evtchn_pending: [u64; 64usize],
    pub evtchn_mask: [u64; 64usize],
    pub wc_version: u32,
    pub wc_sec: u32,
    pub wc_nsec: u32,
    pub wc_sec_hi: u32,
    pub arch: arch_shared_info_x86_64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of shared_info_x86_64"][::std::mem::size_of::<shared_info_x86_64>() - 3136usize];
    ["Alignment of shared_info_x86_64"][::std::mem::align_of::<shared_info_x86_64>() - 8usize];
    ["Offset of field: shared_info_x86_64::vcpu_info"][::std::mem::offset_of!(shared_info_x86_64, vcpu_info) - 0usize];
    ["Offset of field: shared_info_x86_64::evtchn_pending"]
        [::std::mem::offset_of!(shared_info_x86_64, evtchn_pending) - 2048usize];
    ["Offset of field: shared_info_x86_64::evtchn_mask"]
        [::std::mem::offset_of!(shared_info_x86_64, evtchn_mask) - 2560usize];
    ["Offset of field: shared_info_x86_64::wc_version"]
        [::std::mem::offset_of!(shared_info_x86_64, wc_version) - 3072usize];
    ["Offset of field: shared_info_x86_64::wc_sec"][::std::mem::offset_of!(shared_info_x86_64, wc_sec) - 3076usize];
    ["Offset of field: shared_info_x86_64::wc_nsec"][::std::mem::offset_of!(shared_info_x86_64, wc_nsec) - 3080usize];
    ["Offset of field: shared_info_x86_64::wc_sec_hi"]
        [::std::mem::offset_of!(shared_info_x86_64, wc_sec_hi) - 3084usize];
    ["Offset of field: shared_info_x86_64::arch"][::std::mem::offset_of!(shared_info_x86_64, arch) - 3088usize];
};
pub type shared_info_x86_64_t = shared_info_x86_64;
#[repr(C)]
#[derive(Debug)]
pub struct xc_interface_core {
    _unused: [u8; 0],
}
pub type xc_interface = xc_interface_core;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct xc_hypercall_buffer {
    pub hbuf: *mut ::std::os::raw::c_void,
    pub param_shadow: *mut xc_hypercall_buffer,
    pub dir: ::std::os::raw::c_int,
    pub ubuf: *mut ::std::os::raw::c_void,
    pub sz: usize,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of xc_hypercall_buffer"][::std::mem::size_of::<xc_hypercall_buffer>() - 40usize];
    ["Alignment of xc_hypercall_buffer"][::std::mem::align_of::<xc_hypercall_buffer>() - 8usize];
    ["Offset of field: xc_hypercall_buffer::hbuf"][::std::mem::offset_of!(xc_hypercall_buffer, hbuf) - 0usize];
    ["Offset of field: xc_hypercall_buffer::param_shadow"]
        [::std::mem::offset_of!(xc_hypercall_buffer, param_shadow) - 8usize];
    ["Offset of field: xc_hypercall_buffer::dir"][::std::mem::offset_of!(xc_hypercall_buffer, dir) - 16usize];
    ["Offset of field: xc_hypercall_buffer::ubuf"][::std::mem::offset_of!(xc_hypercall_buffer, ubuf) - 24usize];
    ["Offset of field: xc_hypercall_buffer::sz"][::std::mem::offset_of!(xc_hypercall_buffer, sz) - 32usize];
};
pub type xc_hypercall_buffer_t = xc_hypercall_buffer;
pub type xc_domaininfo_t = xen_domctl_getdomaininfo_t;
#[repr(C)]
#[derive(Copy, Clone)]
pub union vcpu_guest_context_any_t {
    pub x64: vcpu_guest_context_x86_64_t,
    pub x32: vcpu_guest_context_x86_32_t,
    pub c: vcpu_guest_context_t,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of vcpu_guest_context_any_t"][::std::mem::size_of::<vcpu_guest_context_any_t>() - 5168usize];
    ["Alignment of vcpu_guest_context_any_t"][::std::mem::align_of::<vcpu_guest_context_any_t>() - 8usize];
    ["Offset of field: vcpu_guest_context_any_t::x64"][::std::mem::offset_of!(vcpu_guest_context_any_t, x64) - 0usize];
    ["Offset of field: vcpu_guest_context_any_t::x32"][::std::mem::offset_of!(vcpu_guest_context_any_t, x32) - 0usize];
    ["Offset of field: vcpu_guest_context_any_t::c"][::std::mem::offset_of!(vcpu_guest_context_any_t, c) - 0usize];
};
#[repr(C)]
#[derive(Copy, Clone)]
pub union shared_info_any_t {
    pub x64: shared_info_x86_64_t,
    pub x32: shared_info_x86_32_t,
    pub s: shared_info_t,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of shared_info_any_t"][::std::mem::size_of::<shared_info_any_t>() - 3136usize];
    ["Alignment of shared_info_any_t"][::std::mem::align_of::<shared_info_any_t>() - 8usize];
    ["Offset of field: shared_info_any_t::x64"][::std::mem::offset_of!(shared_info_any_t, x64) - 0usize];
    ["Offset of field: shared_info_any_t::x32"][::std::mem::offset_of!(shared_info_any_t, x32) - 0usize];
    ["Offset of field: shared_info_any_t::s"][::std::mem::offset_of!(shared_info_any_t, s) - 0usize];
};
#[repr(C)]
#[derive(Copy, Clone)]
pub union start_info_any_t {
    pub x64: start_info_x86_64_t,
    pub x32: start_info_x86_32_t,
    pub s: start_info_t,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of start_info_any_t"][::std::mem::size_of::<start_info_any_t>() - 1168usize];
    ["Alignment of start_info_any_t"][::std::mem::align_of::<start_info_any_t>() - 8usize];
    ["Offset of field: start_info_any_t::x64"][::std::mem::offset_of!(start_info_any_t, x64) - 0usize];
    ["Offset of field: start_info_any_t::x32"][::std::mem::offset_of!(start_info_any_t, x32) - 0usize];
    ["Offset of field: start_info_any_t::s"][::std::mem::offset_of!(start_info_any_t, s) - 0usize];
};
pub type xc_vcpuinfo_t = xen_domctl_getvcpuinfo;
pub type xc_shadow_op_stats_t = xen_domctl_shadow_op_stats;
pub type xc_evtchn_port_or_error_t = ::std::os::raw::c_int;
pub type xc_evtchn_status_t = evtchn_status;
pub const header_DOMID_FIRST_RESERVED: domid_t = 32752;
pub const header_DOMID_SELF: domid_t = 32752;
pub const header_DOMID_IO: domid_t = 32753;
pub const header_DOMID_XEN: domid_t = 32754;
pub const header_DOMID_COW: domid_t = 32755;
pub const header_DOMID_INVALID: domid_t = 32756;
pub const header_DOMID_IDLE: domid_t = 32767;
pub const header_INVALID_MFN: ::std::os::raw::c_ulong = 18446744073709551615;
pub const header_XEN_INVALID_MAX_VCPU_ID: u32 = 4294967295;
pub const header_XC_PAGE_SIZE: u32 = 4096;
pub struct XenCtrl {
    __library: ::libloading::Library,
    pub xc_interface_open: unsafe extern "C" fn(
        logger: *mut xentoollog_logger,
        dombuild_logger: *mut xentoollog_logger,
        open_flags: ::std::os::raw::c_uint,
    ) -> *mut xc_interface,
    pub xc_interface_close: unsafe extern "C" fn(xch: *mut xc_interface) -> ::std::os::raw::c_int,
    pub xc__hypercall_buffer_alloc_pages: unsafe extern "C" fn(
        xch: *mut xc_interface,
        b: *mut xc_hypercall_buffer_t,
        nr_pages: ::std::os::raw::c_int,
    ) -> *mut ::std::os::raw::c_void,
    pub xc__hypercall_buffer_free_pages:
        unsafe extern "C" fn(xch: *mut xc_interface, b: *mut xc_hypercall_buffer_t, nr_pages: ::std::os::raw::c_int),
    pub xc_domain_pause: unsafe extern "C" fn(xch: *mut xc_interface, domid: u32) -> ::std::os::raw::c_int,
    pub xc_domain_unpause: unsafe extern "C" fn(xch: *mut xc_interface, domid: u32) -> ::std::os::raw::c_int,
    pub xc_domain_destroy: unsafe extern "C" fn(xch: *mut xc_interface, domid: u32) -> ::std::os::raw::c_int,
    pub xc_domain_shutdown: unsafe extern "C" fn(
        xch: *mut xc_interface,
        domid: u32,
        reason: ::std::os::raw::c_int,
    ) -> ::std::os::raw::c_int,
    pub xc_domain_get_guest_width: unsafe extern "C" fn(
        xch: *mut xc_interface,
        domid: u32,
        guest_width: *mut ::std::os::raw::c_uint,
    ) -> ::std::os::raw::c_int,
    pub xc_vcpu_setcontext: unsafe extern "C" fn(
        xch: *mut xc_interface,
        domid: u32,
        vcpu: u32,
        ctxt: *mut vcpu_guest_context_any_t,
    ) -> ::std::os::raw::c_int,
    pub xc_domain_getinfolist: unsafe extern "C" fn(
        xch: *mut xc_interface,
        first_domain: u32,
        max_domains: ::std::os::raw::c_uint,
        info: *mut xc_domaininfo_t,
    ) -> ::std::os::raw::c_int,
    pub xc_domain_hvm_getcontext:
        unsafe extern "C" fn(xch: *mut xc_interface, domid: u32, ctxt_buf: *mut u8, size: u32) -> ::std::os::raw::c_int,
    pub xc_domain_hvm_setcontext:
        unsafe extern "C" fn(xch: *mut xc_interface, domid: u32, hvm_ctxt: *mut u8, size: u32) -> ::std::os::raw::c_int,
    pub xc_vcpu_getcontext: unsafe extern "C" fn(
        xch: *mut xc_interface,
        domid: u32,
        vcpu: u32,
        ctxt: *mut vcpu_guest_context_any_t,
    ) -> ::std::os::raw::c_int,
    pub xc_vcpu_getinfo: unsafe extern "C" fn(
        xch: *mut xc_interface,
        domid: u32,
        vcpu: u32,
        info: *mut xc_vcpuinfo_t,
    ) -> ::std::os::raw::c_int,
    pub xc_shadow_control: unsafe extern "C" fn(
        xch: *mut xc_interface,
        domid: u32,
        sop: ::std::os::raw::c_uint,
        mb: *mut ::std::os::raw::c_uint,
        mode: ::std::os::raw::c_uint,
    ) -> ::std::os::raw::c_int,
    pub xc_logdirty_control: unsafe extern "C" fn(
        xch: *mut xc_interface,
        domid: u32,
        sop: ::std::os::raw::c_uint,
        dirty_bitmap: *mut xc_hypercall_buffer_t,
        pages: ::std::os::raw::c_ulong,
        mode: ::std::os::raw::c_uint,
        stats: *mut xc_shadow_op_stats_t,
    ) -> ::std::os::raw::c_longlong,
    pub xc_sched_credit_domain_get: unsafe extern "C" fn(
        xch: *mut xc_interface,
        domid: u32,
        sdom: *mut xen_domctl_sched_credit,
    ) -> ::std::os::raw::c_int,
    pub xc_sched_credit2_domain_get: unsafe extern "C" fn(
        xch: *mut xc_interface,
        domid: u32,
        sdom: *mut xen_domctl_sched_credit2,
    ) -> ::std::os::raw::c_int,
    pub xc_evtchn_alloc_unbound:
        unsafe extern "C" fn(xch: *mut xc_interface, dom: u32, remote_dom: u32) -> xc_evtchn_port_or_error_t,
    pub xc_evtchn_reset: unsafe extern "C" fn(xch: *mut xc_interface, dom: u32) -> ::std::os::raw::c_int,
    pub xc_evtchn_status:
        unsafe extern "C" fn(xch: *mut xc_interface, status: *mut xc_evtchn_status_t) -> ::std::os::raw::c_int,
    pub xc_machphys_mfn_list: unsafe extern "C" fn(
        xch: *mut xc_interface,
        max_extents: ::std::os::raw::c_ulong,
        extent_start: *mut xen_pfn_t,
    ) -> ::std::os::raw::c_int,
    pub xc_domain_setmaxmem:
        unsafe extern "C" fn(xch: *mut xc_interface, domid: u32, max_memkb: u64) -> ::std::os::raw::c_int,
    pub xc_domain_soft_reset: unsafe extern "C" fn(xch: *mut xc_interface, domid: u32) -> ::std::os::raw::c_int,
    pub xc_domain_set_tsc_info: unsafe extern "C" fn(
        xch: *mut xc_interface,
        domid: u32,
        tsc_mode: u32,
        elapsed_nsec: u64,
        gtsc_khz: u32,
        incarnation: u32,
    ) -> ::std::os::raw::c_int,
    pub xc_domain_get_tsc_info: unsafe extern "C" fn(
        xch: *mut xc_interface,
        domid: u32,
        tsc_mode: *mut u32,
        elapsed_nsec: *mut u64,
        gtsc_khz: *mut u32,
        incarnation: *mut u32,
    ) -> ::std::os::raw::c_int,
    pub xc_domain_maximum_gpfn:
        unsafe extern "C" fn(xch: *mut xc_interface, domid: u32, gpfns: *mut xen_pfn_t) -> ::std::os::raw::c_int,
    pub xc_domain_nr_gpfns:
        unsafe extern "C" fn(xch: *mut xc_interface, domid: u32, gpfns: *mut xen_pfn_t) -> ::std::os::raw::c_int,
    pub xc_domain_decrease_reservation: unsafe extern "C" fn(
        xch: *mut xc_interface,
        domid: u32,
        nr_extents: ::std::os::raw::c_ulong,
        extent_order: ::std::os::raw::c_uint,
        extent_start: *mut xen_pfn_t,
    ) -> ::std::os::raw::c_int,
    pub xc_domain_populate_physmap: unsafe extern "C" fn(
        xch: *mut xc_interface,
        domid: u32,
        nr_extents: ::std::os::raw::c_ulong,
        extent_order: ::std::os::raw::c_uint,
        mem_flags: ::std::os::raw::c_uint,
        extent_start: *mut xen_pfn_t,
    ) -> ::std::os::raw::c_int,
    pub xc_domain_populate_physmap_exact: unsafe extern "C" fn(
        xch: *mut xc_interface,
        domid: u32,
        nr_extents: ::std::os::raw::c_ulong,
        extent_order: ::std::os::raw::c_uint,
        mem_flags: ::std::os::raw::c_uint,
        extent_start: *mut xen_pfn_t,
    ) -> ::std::os::raw::c_int,
    pub xc_domain_get_pod_target: unsafe extern "C" fn(
        xch: *mut xc_interface,
        domid: u32,
        tot_pages: *mut u64,
        pod_cache_pages: *mut u64,
        pod_entries: *mut u64,
    ) -> ::std::os::raw::c_int,
    pub xc_clear_domain_pages: unsafe extern "C" fn(
        xch: *mut xc_interface,
        domid: u32,
        dst_pfn: ::std::os::raw::c_ulong,
        num: ::std::os::raw::c_int,
    ) -> ::std::os::raw::c_int,
    pub xc_mmuext_op: unsafe extern "C" fn(
        xch: *mut xc_interface,
        op: *mut mmuext_op,
        nr_ops: ::std::os::raw::c_uint,
        dom: u32,
    ) -> ::std::os::raw::c_int,
    pub xc_maximum_ram_page:
        unsafe extern "C" fn(xch: *mut xc_interface, max_mfn: *mut ::std::os::raw::c_ulong) -> ::std::os::raw::c_int,
    pub xc_domctl: unsafe extern "C" fn(xch: *mut xc_interface, domctl: *mut xen_domctl) -> ::std::os::raw::c_int,
    pub xc_memory_op: unsafe extern "C" fn(
        xch: *mut xc_interface,
        cmd: ::std::os::raw::c_uint,
        arg: *mut ::std::os::raw::c_void,
        len: usize,
    ) -> ::std::os::raw::c_long,
    pub xc_version: unsafe extern "C" fn(
        xch: *mut xc_interface,
        cmd: ::std::os::raw::c_int,
        arg: *mut ::std::os::raw::c_void,
    ) -> ::std::os::raw::c_int,
    pub xc_hvm_param_set:
        unsafe extern "C" fn(handle: *mut xc_interface, dom: u32, param: u32, value: u64) -> ::std::os::raw::c_int,
    pub xc_hvm_param_get:
        unsafe extern "C" fn(handle: *mut xc_interface, dom: u32, param: u32, value: *mut u64) -> ::std::os::raw::c_int,
}
impl XenCtrl {
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
        let xc_interface_open = __library.get(b"xc_interface_open\0").map(|sym| *sym)?;
        let xc_interface_close = __library.get(b"xc_interface_close\0").map(|sym| *sym)?;
        let xc__hypercall_buffer_alloc_pages = __library.get(b"xc__hypercall_buffer_alloc_pages\0").map(|sym| *sym)?;
        let xc__hypercall_buffer_free_pages = __library.get(b"xc__hypercall_buffer_free_pages\0").map(|sym| *sym)?;
        let xc_domain_pause = __library.get(b"xc_domain_pause\0").map(|sym| *sym)?;
        let xc_domain_unpause = __library.get(b"xc_domain_unpause\0").map(|sym| *sym)?;
        let xc_domain_destroy = __library.get(b"xc_domain_destroy\0").map(|sym| *sym)?;
        let xc_domain_shutdown = __library.get(b"xc_domain_shutdown\0").map(|sym| *sym)?;
        let xc_domain_get_guest_width = __library.get(b"xc_domain_get_guest_width\0").map(|sym| *sym)?;
        let xc_vcpu_setcontext = __library.get(b"xc_vcpu_setcontext\0").map(|sym| *sym)?;
        let xc_domain_getinfolist = __library.get(b"xc_domain_getinfolist\0").map(|sym| *sym)?;
        let xc_domain_hvm_getcontext = __library.get(b"xc_domain_hvm_getcontext\0").map(|sym| *sym)?;
        let xc_domain_hvm_setcontext = __library.get(b"xc_domain_hvm_setcontext\0").map(|sym| *sym)?;
        let xc_vcpu_getcontext = __library.get(b"xc_vcpu_getcontext\0").map(|sym| *sym)?;
        let xc_vcpu_getinfo = __library.get(b"xc_vcpu_getinfo\0").map(|sym| *sym)?;
        let xc_shadow_control = __library.get(b"xc_shadow_control\0").map(|sym| *sym)?;
        let xc_logdirty_control = __library.get(b"xc_logdirty_control\0").map(|sym| *sym)?;
        let xc_sched_credit_domain_get = __library.get(b"xc_sched_credit_domain_get\0").map(|sym| *sym)?;
        let xc_sched_credit2_domain_get = __library.get(b"xc_sched_credit2_domain_get\0").map(|sym| *sym)?;
        let xc_evtchn_alloc_unbound = __library.get(b"xc_evtchn_alloc_unbound\0").map(|sym| *sym)?;
        let xc_evtchn_reset = __library.get(b"xc_evtchn_reset\0").map(|sym| *sym)?;
        let xc_evtchn_status = __library.get(b"xc_evtchn_status\0").map(|sym| *sym)?;
        let xc_machphys_mfn_list = __library.get(b"xc_machphys_mfn_list\0").map(|sym| *sym)?;
        let xc_domain_setmaxmem = __library.get(b"xc_domain_setmaxmem\0").map(|sym| *sym)?;
        let xc_domain_soft_reset = __library.get(b"xc_domain_soft_reset\0").map(|sym| *sym)?;
        let xc_domain_set_tsc_info = __library.get(b"xc_domain_set_tsc_info\0").map(|sym| *sym)?;
        let xc_domain_get_tsc_info = __library.get(b"xc_domain_get_tsc_info\0").map(|sym| *sym)?;
        let xc_domain_maximum_gpfn = __library.get(b"xc_domain_maximum_gpfn\0").map(|sym| *sym)?;
        let xc_domain_nr_gpfns = __library.get(b"xc_domain_nr_gpfns\0").map(|sym| *sym)?;
        let xc_domain_decrease_reservation = __library.get(b"xc_domain_decrease_reservation\0").map(|sym| *sym)?;
        let xc_domain_populate_physmap = __library.get(b"xc_domain_populate_physmap\0").map(|sym| *sym)?;
        let xc_domain_populate_physmap_exact = __library.get(b"xc_domain_populate_physmap_exact\0").map(|sym| *sym)?;
        let xc_domain_get_pod_target = __library.get(b"xc_domain_get_pod_target\0").map(|sym| *sym)?;
        let xc_clear_domain_pages = __library.get(b"xc_clear_domain_pages\0").map(|sym| *sym)?;
        let xc_mmuext_op = __library.get(b"xc_mmuext_op\0").map(|sym| *sym)?;
        let xc_maximum_ram_page = __library.get(b"xc_maximum_ram_page\0").map(|sym| *sym)?;
        let xc_domctl = __library.get(b"xc_domctl\0").map(|sym| *sym)?;
        let xc_memory_op = __library.get(b"xc_memory_op\0").map(|sym| *sym)?;
        let xc_version = __library.get(b"xc_version\0").map(|sym| *sym)?;
        let xc_hvm_param_set = __library.get(b"xc_hvm_param_set\0").map(|sym| *sym)?;
        let xc_hvm_param_get = __library.get(b"xc_hvm_param_get\0").map(|sym| *sym)?;
        Ok(XenCtrl {
            __library,
            xc_interface_open,
            xc_interface_close,
            xc__hypercall_buffer_alloc_pages,
            xc__hypercall_buffer_free_pages,
            xc_domain_pause,
            xc_domain_unpause,
            xc_domain_destroy,
            xc_domain_shutdown,
            xc_domain_get_guest_width,
            xc_vcpu_setcontext,
            xc_domain_getinfolist,
            xc_domain_hvm_getcontext,
            xc_domain_hvm_setcontext,
            xc_vcpu_getcontext,
            xc_vcpu_getinfo,
            xc_shadow_control,
            xc_logdirty_control,
            xc_sched_credit_domain_get,
            xc_sched_credit2_domain_get,
            xc_evtchn_alloc_unbound,
            xc_evtchn_reset,
            xc_evtchn_status,
            xc_machphys_mfn_list,
            xc_domain_setmaxmem,
            xc_domain_soft_reset,
            xc_domain_set_tsc_info,
            xc_domain_get_tsc_info,
            xc_domain_maximum_gpfn,
            xc_domain_nr_gpfns,
            xc_domain_decrease_reservation,
            xc_domain_populate_physmap,
            xc_domain_populate_physmap_exact,
            xc_domain_get_pod_target,
            xc_clear_domain_pages,
            xc_mmuext_op,
            xc_maximum_ram_page,
            xc_domctl,
            xc_memory_op,
            xc_version,
            xc_hvm_param_set,
            xc_hvm_param_get,
        })
    }
    pub unsafe fn xc_interface_open(
        &self,
        logger: *mut xentoollog_logger,
        dombuild_logger: *mut xentoollog_logger,
        open_flags: ::std::os::raw::c_uint,
    ) -> *mut xc_interface {
        (self.xc_interface_open)(logger, dombuild_logger, open_flags)
    }
    pub unsafe fn xc_interface_close(&self, xch: *mut xc_interface) -> ::std::os::raw::c_int {
        (self.xc_interface_close)(xch)
    }
    pub unsafe fn xc__hypercall_buffer_alloc_pages(
        &self,
        xch: *mut xc_interface,
        b: *mut xc_hypercall_buffer_t,
        nr_pages: ::std::os::raw::c_int,
    ) -> *mut ::std::os::raw::c_void {
        (self.xc__hypercall_buffer_alloc_pages)(xch, b, nr_pages)
    }
    pub unsafe fn xc__hypercall_buffer_free_pages(
        &self,
        xch: *mut xc_interface,
        b: *mut xc_hypercall_buffer_t,
        nr_pages: ::std::os::raw::c_int,
    ) {
        (self.xc__hypercall_buffer_free_pages)(xch, b, nr_pages)
    }
    pub unsafe fn xc_domain_pause(&self, xch: *mut xc_interface, domid: u32) -> ::std::os::raw::c_int {
        (self.xc_domain_pause)(xch, domid)
    }
    pub unsafe fn xc_domain_unpause(&self, xch: *mut xc_interface, domid: u32) -> ::std::os::raw::c_int {
        (self.xc_domain_unpause)(xch, domid)
    }
    pub unsafe fn xc_domain_destroy(&self, xch: *mut xc_interface, domid: u32) -> ::std::os::raw::c_int {
        (self.xc_domain_destroy)(xch, domid)
    }
    pub unsafe fn xc_domain_shutdown(
        &self,
        xch: *mut xc_interface,
        domid: u32,
        reason: ::std::os::raw::c_int,
    ) -> ::std::os::raw::c_int {
        (self.xc_domain_shutdown)(xch, domid, reason)
    }
    pub unsafe fn xc_domain_get_guest_width(
        &self,
        xch: *mut xc_interface,
        domid: u32,
        guest_width: *mut ::std::os::raw::c_uint,
    ) -> ::std::os::raw::c_int {
        (self.xc_domain_get_guest_width)(xch, domid, guest_width)
    }
    pub unsafe fn xc_vcpu_setcontext(
        &self,
        xch: *mut xc_interface,
        domid: u32,
        vcpu: u32,
        ctxt: *mut vcpu_guest_context_any_t,
    ) -> ::std::os::raw::c_int {
        (self.xc_vcpu_setcontext)(xch, domid, vcpu, ctxt)
    }
    pub unsafe fn xc_domain_getinfolist(
        &self,
        xch: *mut xc_interface,
        first_domain: u32,
        max_domains: ::std::os::raw::c_uint,
        info: *mut xc_domaininfo_t,
    ) -> ::std::os::raw::c_int {
        (self.xc_domain_getinfolist)(xch, first_domain, max_domains, info)
    }
    pub unsafe fn xc_domain_hvm_getcontext(
        &self,
        xch: *mut xc_interface,
        domid: u32,
        ctxt_buf: *mut u8,
        size: u32,
    ) -> ::std::os::raw::c_int {
        (self.xc_domain_hvm_getcontext)(xch, domid, ctxt_buf, size)
    }
    pub unsafe fn xc_domain_hvm_setcontext(
        &self,
        xch: *mut xc_interface,
        domid: u32,
        hvm_ctxt: *mut u8,
        size: u32,
    ) -> ::std::os::raw::c_int {
        (self.xc_domain_hvm_setcontext)(xch, domid, hvm_ctxt, size)
    }
    pub unsafe fn xc_vcpu_getcontext(
        &self,
        xch: *mut xc_interface,
        domid: u32,
        vcpu: u32,
        ctxt: *mut vcpu_guest_context_any_t,
    ) -> ::std::os::raw::c_int {
        (self.xc_vcpu_getcontext)(xch, domid, vcpu, ctxt)
    }
    pub unsafe fn xc_vcpu_getinfo(
        &self,
        xch: *mut xc_interface,
        domid: u32,
        vcpu: u32,
        info: *mut xc_vcpuinfo_t,
    ) -> ::std::os::raw::c_int {
        (self.xc_vcpu_getinfo)(xch, domid, vcpu, info)
    }
    pub unsafe fn xc_shadow_control(
        &self,
        xch: *mut xc_interface,
        domid: u32,
        sop: ::std::os::raw::c_uint,
        mb: *mut ::std::os::raw::c_uint,
        mode: ::std::os::raw::c_uint,
    ) -> ::std::os::raw::c_int {
        (self.xc_shadow_control)(xch, domid, sop, mb, mode)
    }
    pub unsafe fn xc_logdirty_control(
        &self,
        xch: *mut xc_interface,
        domid: u32,
        sop: ::std::os::raw::c_uint,
        dirty_bitmap: *mut xc_hypercall_buffer_t,
        pages: ::std::os::raw::c_ulong,
        mode: ::std::os::raw::c_uint,
        stats: *mut xc_shadow_op_stats_t,
    ) -> ::std::os::raw::c_longlong {
        (self.xc_logdirty_control)(xch, domid, sop, dirty_bitmap, pages, mode, stats)
    }
    pub unsafe fn xc_sched_credit_domain_get(
        &self,
        xch: *mut xc_interface,
        domid: u32,
        sdom: *mut xen_domctl_sched_credit,
    ) -> ::std::os::raw::c_int {
        (self.xc_sched_credit_domain_get)(xch, domid, sdom)
    }
    pub unsafe fn xc_sched_credit2_domain_get(
        &self,
        xch: *mut xc_interface,
        domid: u32,
        sdom: *mut xen_domctl_sched_credit2,
    ) -> ::std::os::raw::c_int {
        (self.xc_sched_credit2_domain_get)(xch, domid, sdom)
    }
    pub unsafe fn xc_evtchn_alloc_unbound(
        &self,
        xch: *mut xc_interface,
        dom: u32,
        remote_dom: u32,
    ) -> xc_evtchn_port_or_error_t {
        (self.xc_evtchn_alloc_unbound)(xch, dom, remote_dom)
    }
    pub unsafe fn xc_evtchn_reset(&self, xch: *mut xc_interface, dom: u32) -> ::std::os::raw::c_int {
        (self.xc_evtchn_reset)(xch, dom)
    }
    pub unsafe fn xc_evtchn_status(
        &self,
        xch: *mut xc_interface,
        status: *mut xc_evtchn_status_t,
    ) -> ::std::os::raw::c_int {
        (self.xc_evtchn_status)(xch, status)
    }
    pub unsafe fn xc_machphys_mfn_list(
        &self,
        xch: *mut xc_interface,
        max_extents: ::std::os::raw::c_ulong,
        extent_start: *mut xen_pfn_t,
    ) -> ::std::os::raw::c_int {
        (self.xc_machphys_mfn_list)(xch, max_extents, extent_start)
    }
    pub unsafe fn xc_domain_setmaxmem(
        &self,
        xch: *mut xc_interface,
        domid: u32,
        max_memkb: u64,
    ) -> ::std::os::raw::c_int {
        (self.xc_domain_setmaxmem)(xch, domid, max_memkb)
    }
    pub unsafe fn xc_domain_soft_reset(&self, xch: *mut xc_interface, domid: u32) -> ::std::os::raw::c_int {
        (self.xc_domain_soft_reset)(xch, domid)
    }
    pub unsafe fn xc_domain_set_tsc_info(
        &self,
        xch: *mut xc_interface,
        domid: u32,
        tsc_mode: u32,
        elapsed_nsec: u64,
        gtsc_khz: u32,
        incarnation: u32,
    ) -> ::std::os::raw::c_int {
        (self.xc_domain_set_tsc_info)(xch, domid, tsc_mode, elapsed_nsec, gtsc_khz, incarnation)
    }
    pub unsafe fn xc_domain_get_tsc_info(
        &self,
        xch: *mut xc_interface,
        domid: u32,
        tsc_mode: *mut u32,
        elapsed_nsec: *mut u64,
        gtsc_khz: *mut u32,
        incarnation: *mut u32,
    ) -> ::std::os::raw::c_int {
        (self.xc_domain_get_tsc_info)(xch, domid, tsc_mode, elapsed_nsec, gtsc_khz, incarnation)
    }
    pub unsafe fn xc_domain_maximum_gpfn(
        &self,
        xch: *mut xc_interface,
        domid: u32,
        gpfns: *mut xen_pfn_t,
    ) -> ::std::os::raw::c_int {
        (self.xc_domain_maximum_gpfn)(xch, domid, gpfns)
    }
    pub unsafe fn xc_domain_nr_gpfns(
        &self,
        xch: *mut xc_interface,
        domid: u32,
        gpfns: *mut xen_pfn_t,
    ) -> ::std::os::raw::c_int {
        (self.xc_domain_nr_gpfns)(xch, domid, gpfns)
    }
    pub unsafe fn xc_domain_decrease_reservation(
        &self,
        xch: *mut xc_interface,
        domid: u32,
        nr_extents: ::std::os::raw::c_ulong,
        extent_order: ::std::os::raw::c_uint,
        extent_start: *mut xen_pfn_t,
    ) -> ::std::os::raw::c_int {
        (self.xc_domain_decrease_reservation)(xch, domid, nr_extents, extent_order, extent_start)
    }
    pub unsafe fn xc_domain_populate_physmap(
        &self,
        xch: *mut xc_interface,
        domid: u32,
        nr_extents: ::std::os::raw::c_ulong,
        extent_order: ::std::os::raw::c_uint,
        mem_flags: ::std::os::raw::c_uint,
        extent_start: *mut xen_pfn_t,
    ) -> ::std::os::raw::c_int {
        (self.xc_domain_populate_physmap)(xch, domid, nr_extents, extent_order, mem_flags, extent_start)
    }
    pub unsafe fn xc_domain_populate_physmap_exact(
        &self,
        xch: *mut xc_interface,
        domid: u32,
        nr_extents: ::std::os::raw::c_ulong,
        extent_order: ::std::os::raw::c_uint,
        mem_flags: ::std::os::raw::c_uint,
        extent_start: *mut xen_pfn_t,
    ) -> ::std::os::raw::c_int {
        (self.xc_domain_populate_physmap_exact)(xch, domid, nr_extents, extent_order, mem_flags, extent_start)
    }
    pub unsafe fn xc_domain_get_pod_target(
        &self,
        xch: *mut xc_interface,
        domid: u32,
        tot_pages: *mut u64,
        pod_cache_pages: *mut u64,
        pod_entries: *mut u64,
    ) -> ::std::os::raw::c_int {
        (self.xc_domain_get_pod_target)(xch, domid, tot_pages, pod_cache_pages, pod_entries)
    }
    pub unsafe fn xc_clear_domain_pages(
        &self,
        xch: *mut xc_interface,
        domid: u32,
        dst_pfn: ::std::os::raw::c_ulong,
        num: ::std::os::raw::c_int,
    ) -> ::std::os::raw::c_int {
        (self.xc_clear_domain_pages)(xch, domid, dst_pfn, num)
    }
    pub unsafe fn xc_mmuext_op(
        &self,
        xch: *mut xc_interface,
        op: *mut mmuext_op,
        nr_ops: ::std::os::raw::c_uint,
        dom: u32,
    ) -> ::std::os::raw::c_int {
        (self.xc_mmuext_op)(xch, op, nr_ops, dom)
    }
    pub unsafe fn xc_maximum_ram_page(
        &self,
        xch: *mut xc_interface,
        max_mfn: *mut ::std::os::raw::c_ulong,
    ) -> ::std::os::raw::c_int {
        (self.xc_maximum_ram_page)(xch, max_mfn)
    }
    pub unsafe fn xc_domctl(&self, xch: *mut xc_interface, domctl: *mut xen_domctl) -> ::std::os::raw::c_int {
        (self.xc_domctl)(xch, domctl)
    }
    pub unsafe fn xc_memory_op(
        &self,
        xch: *mut xc_interface,
        cmd: ::std::os::raw::c_uint,
        arg: *mut ::std::os::raw::c_void,
        len: usize,
    ) -> ::std::os::raw::c_long {
        (self.xc_memory_op)(xch, cmd, arg, len)
    }
    pub unsafe fn xc_version(
        &self,
        xch: *mut xc_interface,
        cmd: ::std::os::raw::c_int,
        arg: *mut ::std::os::raw::c_void,
    ) -> ::std::os::raw::c_int {
        (self.xc_version)(xch, cmd, arg)
    }
    pub unsafe fn xc_hvm_param_set(
        &self,
        handle: *mut xc_interface,
        dom: u32,
        param: u32,
        value: u64,
    ) -> ::std::os::raw::c_int {
        (self.xc_hvm_param_set)(handle, dom, param, value)
    }
    pub unsafe fn xc_hvm_param_get(
        &self,
        handle: *mut xc_interface,
        dom: u32,
        param: u32,
        value: *mut u64,
    ) -> ::std::os::raw::c_int {
        (self.xc_hvm_param_get)(handle, dom, param, value)
    }
}
