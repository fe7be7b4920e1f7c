//! Bindings of Xen's C libraries (`libxenctrl` and its kin), loaded at run time, so that one binary runs on hosts with and
//! without Xen.
//!
//! * The modules named like the libraries ([`ctrl`], [`guest`], ...) are what bindgen makes of Xen 4.17's headers: types, constants,
//!   and one structure of functions for each library. They fit Xen 4.17 to 4.22; the README says how that was checked.
//! * [`load`] finds the libraries that fit the running hypervisor, and every function in them, or says what is missing.
//! * [`consts`]: what bindgen loses.
//!
//! There is no logic here. The safe handles over these bindings are `colo_core::xen`.
//!
//! ```
//! match xen_sys::load() {
//!     Ok(xen) => println!("libraries of Xen {}", xen.version),
//!     // "this is not a Xen host: ..."
//!     Err(error) => println!("{error}"),
//! }
//! ```

pub mod consts;
mod load;
pub mod sys;

pub use load::{LoadError, NEWEST, OLDEST, VERSION_VARIABLE, Version, Xen, load, load_light, load_version};

/// The bindings of one library: checked in, or made just now.
macro_rules! bindings {
    ($(#[$doc:meta])* $name:ident, uses $($used:path),*) => {
        $(#[$doc])*
        #[allow(missing_docs, non_camel_case_types, non_snake_case, non_upper_case_globals, unreachable_pub)]
        #[allow(unsafe_op_in_unsafe_fn, clippy::all, clippy::pedantic, clippy::undocumented_unsafe_blocks)]
        #[allow(unused_imports)]
        pub mod $name {
            $(use $used;)*

            #[cfg(not(feature = "generate"))]
            include!(concat!("bindings/", stringify!($name), ".rs"));
            #[cfg(feature = "generate")]
            include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".rs"));
        }
    };
}

bindings!(
    /// `libxentoollog`: where the libraries' messages go.
    toollog, uses
);
bindings!(
    /// `libxenlight`: the toolstack. Its name changes with every release of Xen. Of it only what ends a domain.
    light, uses super::toollog::xentoollog_logger
);
bindings!(
    /// `libxencall`: bare hypercalls.
    call, uses super::toollog::xentoollog_logger
);
bindings!(
    /// `libxenctrl`: domains. Its name changes with every release of Xen.
    ctrl, uses super::toollog::xentoollog_logger
);
bindings!(
    /// `libxenguest`: what takes more than one hypercall. Its name changes with every release of Xen.
    guest, uses super::ctrl::xc_interface, super::evtchn::xenevtchn_handle
);
bindings!(
    /// `libxenforeignmemory`: mappings of other domains' memory.
    foreignmemory, uses super::toollog::xentoollog_logger
);
bindings!(
    /// `libxenevtchn`: event channels.
    evtchn, uses super::toollog::xentoollog_logger
);
bindings!(
    /// `libxengnttab`: mappings of granted pages.
    gnttab, uses super::toollog::xentoollog_logger
);
bindings!(
    /// `libxendevicemodel`: what a device model may do.
    devicemodel, uses super::toollog::xentoollog_logger
);
bindings!(
    /// `libxenstore`: the store that domains and toolstack share.
    store, uses
);

/// What the headers of this machine make is what is checked in: anything else is a header of another Xen, or a list that was changed and
/// not followed by `regenerate.sh`.
#[cfg(all(test, feature = "generate"))]
mod generated {
    macro_rules! same {
        ($($name:ident)*) => {$(
            #[test]
            fn $name() {
                let checked_in = include_str!(concat!("bindings/", stringify!($name), ".rs"));
                let made = include_str!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".rs"));
                let mut lines = checked_in.lines().zip(made.lines());
                assert_eq!(lines.find(|(checked_in, made)| checked_in != made), None);
                assert_eq!(checked_in, made);
            }
        )*};
    }

    same!(call ctrl devicemodel evtchn foreignmemory gnttab guest light store toollog);
}

/// The README's example is kept working.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
