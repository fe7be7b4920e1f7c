//! The types of records, by their names in Xen's specification; and our own.
//!
//! ```
//! use colo_core::stream::kind;
//!
//! assert_eq!(kind::name(kind::PAGE_DATA), "PAGE_DATA");
//! assert!(kind::is_optional(kind::MEMORY_HASH));
//! ```

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        $($(#[$doc])* pub const $name: u32 = $value;)*

        /// The name of a record type, for people.
        pub fn name(kind: u32) -> &'static str {
            match kind {
                $($name => stringify!($name),)*
                _ if is_own(kind) => "private",
                _ if is_optional(kind) => "unknown optional",
                _ => "unknown",
            }
        }
    };
}

kinds! {
    /// The last record of a stream.
    END = 0x0;
    /// Pages of guest memory.
    PAGE_DATA = 0x1;
    /// Width and page-table levels of a PV guest.
    X86_PV_INFO = 0x2;
    /// Where a PV guest keeps its table of frames.
    X86_PV_P2M_FRAMES = 0x3;
    /// A PV vCPU's registers.
    X86_PV_VCPU_BASIC = 0x4;
    /// A PV vCPU's extended context.
    X86_PV_VCPU_EXTENDED = 0x5;
    /// A PV vCPU's extended registers.
    X86_PV_VCPU_XSAVE = 0x6;
    /// A PV guest's shared info page.
    SHARED_INFO = 0x7;
    /// The guest's time stamp counter.
    X86_TSC_INFO = 0x8;
    /// An HVM guest's vCPUs and platform devices.
    HVM_CONTEXT = 0x9;
    /// An HVM guest's parameters.
    HVM_PARAMS = 0xA;
    /// Deprecated by the specification, and refused.
    TOOLSTACK = 0xB;
    /// A PV vCPU's model-specific registers.
    X86_PV_VCPU_MSRS = 0xC;
    /// From here on all memory is sent a second time, to be compared.
    VERIFY = 0xD;
    /// What came so far is a consistent state.
    CHECKPOINT = 0xE;
    /// COLO's back channel: the pages that the secondary has dirtied.
    CHECKPOINT_DIRTY_PFN_LIST = 0xF;
    /// The end of what never changes while the guest runs. Since version 3.
    STATIC_DATA_END = 0x10;
    /// CPUID policy. Since version 3.
    X86_CPUID_POLICY = 0x11;
    /// MSR policy. Since version 3.
    X86_MSR_POLICY = 0x12;

    /// Ours: a vCPU of the embedded hypervisor. Only it reads the body.
    EMBEDDED_VCPU = 0x8000_C001;
    /// Ours: the devices of the embedded hypervisor. Only it reads the body.
    EMBEDDED_DEVICES = 0x8000_C002;
    /// Ours: a [`super::TwinPorts`].
    TWIN_PORTS = 0x8000_C003;
    /// Ours: a [`super::TwinGrants`].
    TWIN_GRANTS = 0x8000_C004;
    /// Ours: a [`super::TwinSharedInfo`].
    TWIN_SHARED_INFO = 0x8000_C005;
    /// Ours: a [`super::TwinFrontends`].
    TWIN_FRONTENDS = 0x8000_C006;
    /// Ours: the [pages](super::PfnRanges) that a domain with a twin has.
    TWIN_POPULATED = 0x8000_C007;
    /// Ours: what an HVM guest's device model keeps in xenstore; see [`super::EmulatorState`].
    EMULATOR_XENSTORE = 0x8000_C00A;
    /// Ours: a part of the state of an HVM guest's device model; see [`super::EmulatorState`].
    EMULATOR_CONTEXT = 0x8000_C00B;
    /// Ours: a part of a [`super::NetState`].
    NET_STATE = 0x8000_C010;
    /// Ours: a [`super::MemoryHash`].
    MEMORY_HASH = 0x8000_C011;
}

/// Whether a reader that does not know this type may skip the record: bit 31 says so.
pub const fn is_optional(kind: u32) -> bool {
    kind & 0x8000_0000 != 0
}

/// Whether the type is one of ours that hold a domain's own state, vCPUs and devices: `0x8000_C000..=0x8000_C00F`.
pub const fn is_domain_state(kind: u32) -> bool {
    matches!(kind, 0x8000_C000..=0x8000_C00F)
}

/// Whether the type is one of ours: `0x8000_C000..=0x8000_C0FF`, a corner of the optional types that Xen does not use, so that
/// Xen's own tools skip our records.
pub const fn is_own(kind: u32) -> bool {
    matches!(kind, 0x8000_C000..=0x8000_C0FF)
}

/// Whether the type is one of ours that has a meaning today.
pub(super) const fn is_known_own(kind: u32) -> bool {
    matches!(kind, EMBEDDED_VCPU..=TWIN_POPULATED | EMULATOR_XENSTORE | EMULATOR_CONTEXT | NET_STATE | MEMORY_HASH)
}
