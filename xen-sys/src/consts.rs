//! Constants of Xen's headers that bindgen loses or gets wrong: macros which are more than a number.
//!
//! The values are from `xen/include/public/xen.h` and `tools/include/xenctrl.h`; a test compares them with what the compiler made of
//! those headers.

/// Ids from here on are not ordinary domains.
pub const DOMID_FIRST_RESERVED: u16 = 0x7ff0;
/// The calling domain, where a call allows it.
pub const DOMID_SELF: u16 = 0x7ff0;
/// The owner of I/O memory.
pub const DOMID_IO: u16 = 0x7ff1;
/// The hypervisor, as the owner of memory that privileged domains may map (the machine-to-physical table).
pub const DOMID_XEN: u16 = 0x7ff2;
/// The owner of sharable pages.
pub const DOMID_COW: u16 = 0x7ff3;
/// No domain.
pub const DOMID_INVALID: u16 = 0x7ff4;
/// The idle domain.
pub const DOMID_IDLE: u16 = 0x7fff;

/// No frame (bindgen makes it an `i32`).
pub const INVALID_MFN: u64 = !0;
/// In a domain's information: it has no vCPU (bindgen makes it an `i32`).
pub const XEN_INVALID_MAX_VCPU_ID: u32 = !0;
/// Bytes in a page (bindgen drops it).
pub const XC_PAGE_SIZE: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctrl;

    #[test]
    fn the_constants_are_the_headers() {
        assert_eq!(DOMID_FIRST_RESERVED, ctrl::header_DOMID_FIRST_RESERVED);
        assert_eq!(DOMID_SELF, ctrl::header_DOMID_SELF);
        assert_eq!(DOMID_IO, ctrl::header_DOMID_IO);
        assert_eq!(DOMID_XEN, ctrl::header_DOMID_XEN);
        assert_eq!(DOMID_COW, ctrl::header_DOMID_COW);
        assert_eq!(DOMID_INVALID, ctrl::header_DOMID_INVALID);
        assert_eq!(DOMID_IDLE, ctrl::header_DOMID_IDLE);
        assert_eq!(INVALID_MFN, ctrl::header_INVALID_MFN);
        assert_eq!(XEN_INVALID_MAX_VCPU_ID, ctrl::header_XEN_INVALID_MAX_VCPU_ID);
        assert_eq!(XC_PAGE_SIZE, ctrl::header_XC_PAGE_SIZE as usize);
    }

    /// A hypercall carries these as they are: their sizes are Xen's interface. A size is the same in Xen 4.17 to 4.22.
    #[test]
    fn what_a_domctl_carries_has_the_interfaces_size_and_fits() {
        assert_eq!(size_of::<ctrl::xen_domctl>(), 16 + 128);
        assert_eq!(std::mem::offset_of!(ctrl::xen_domctl, u), 16);
        assert_eq!(size_of::<ctrl::xen_domctl_getpageframeinfo3>(), 16);
        assert_eq!(size_of::<ctrl::xen_domctl_vcpuextstate>(), 32);
        assert_eq!(size_of::<ctrl::xen_domctl_vcpu_msrs>(), 16);
        assert_eq!(size_of::<ctrl::xen_domctl_vcpu_msr>(), 16);
        assert_eq!(size_of::<ctrl::xen_domctl_address_size>(), 4);
        // "up to 128 bytes" in the header.
        assert!(size_of::<ctrl::xen_domctl_ext_vcpucontext>() <= 128);
        assert_eq!(size_of::<ctrl::vcpu_guest_context_x86_64>(), 5168);
        assert_eq!(size_of::<ctrl::vcpu_guest_context_x86_32>(), 2800);
    }
}
