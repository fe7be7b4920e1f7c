//! The numbers that cross public boundaries, each with a type of its own, so that a page number is never taken for an
//! address or an epoch.
//!
//! ```
//! use colo_core::ids::{Epoch, PAGE_SIZE, Pfn};
//!
//! assert_eq!(Pfn(3).byte_offset(), 3 * PAGE_SIZE as u64);
//! assert_eq!(Epoch::FIRST.next(), Epoch(2));
//! ```

use std::fmt;

/// Bytes in a page of guest memory: 4096 on every machine that colo drives.
pub const PAGE_SIZE: usize = 4096;

/// One page of guest memory, by value.
pub type Page = [u8; PAGE_SIZE];

/// A page frame number as the guest counts them: page 0 is its first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Pfn(pub u64);

impl Pfn {
    /// Where the page begins, in bytes from the start of guest memory.
    pub const fn byte_offset(self) -> u64 {
        self.0 * PAGE_SIZE as u64
    }
}

/// A machine frame number: a page as the hypervisor counts them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Mfn(pub u64);

/// The number by which a hypervisor knows a domain.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DomId(pub u32);

/// The number of a checkpoint's state. What the machine does *after* checkpoint *n* was taken belongs to epoch *n*;
/// epoch 0 is the time before the first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Epoch(pub u64);

impl Epoch {
    /// Before any checkpoint.
    pub const NONE: Epoch = Epoch(0);
    /// The first checkpoint: from here on the machine is protected, unless it is a rehearsal.
    pub const FIRST: Epoch = Epoch(1);

    /// The first epoch in which the machine is protected: the one after the rehearsal, if there is one. That takes two: in the first the
    /// secondary's machine gets to run, and the second is put over one that runs, as all later ones. The first time takes longer
    /// than any other, and nobody should have to wait for it.
    #[must_use]
    pub const fn first_protected(rehearse: bool) -> Epoch {
        if rehearse { Epoch::FIRST.next().next() } else { Epoch::FIRST }
    }

    /// The epoch after this one.
    #[must_use]
    pub const fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }
}

macro_rules! display_number {
    ($($name:ident: $prefix:literal),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    )*};
}
display_number!(Pfn: "pfn ", Mfn: "mfn ", DomId: "domain ", Epoch: "epoch ");
