//! What a guest's CPU can do, and its time stamp counter: the records that PV and HVM guests share.
//!
//! ```
//! use colo_core::stream::{CpuidLeaf, CpuidPolicy};
//!
//! let record = CpuidPolicy::record(&[CpuidLeaf { leaf: 7, subleaf: Some(0), eax: 1, ebx: 2, ecx: 3, edx: 4 }]);
//! let policy = CpuidPolicy::parse(&record.body)?;
//! assert_eq!(policy.leaves().next().unwrap().ebx, 2);
//! # Ok::<(), colo_core::stream::StreamError>(())
//! ```

use super::error::{Fault, StreamError};
use super::kind;
use crate::domain::StateRecord;
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What CPUID answers for one leaf, or one subleaf of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuidLeaf {
    /// What the guest puts in EAX.
    pub leaf: u32,
    /// What it puts in ECX, where the leaf heeds it.
    pub subleaf: Option<u32>,
    /// The answer in EAX.
    pub eax: u32,
    /// In EBX.
    pub ebx: u32,
    /// In ECX.
    pub ecx: u32,
    /// In EDX.
    pub edx: u32,
}

impl CpuidLeaf {
    /// From the fields of a `xen_cpuid_leaf_t`: leaf, subleaf, the four answers.
    pub(crate) fn from_words([leaf, subleaf, eax, ebx, ecx, edx]: [u32; 6]) -> CpuidLeaf {
        CpuidLeaf { leaf, subleaf: Some(subleaf).filter(|subleaf| *subleaf != NO_SUBLEAF), eax, ebx, ecx, edx }
    }

    /// The same fields.
    pub(crate) fn to_words(self) -> [u32; 6] {
        [self.leaf, self.subleaf.unwrap_or(NO_SUBLEAF), self.eax, self.ebx, self.ecx, self.edx]
    }
}

/// `xen_cpuid_leaf_t`.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, PartialEq, Eq, Clone, Copy, Debug)]
#[repr(C)]
struct RawLeaf([U32; 6]);

/// `XEN_CPUID_NO_SUBLEAF`.
const NO_SUBLEAF: u32 = u32::MAX;

/// X86_CPUID_POLICY: what CPUID answers the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuidPolicy<'a>(&'a [RawLeaf]);

impl<'a> CpuidPolicy<'a> {
    /// Bytes of a leaf.
    pub const LEAF_BYTES: usize = size_of::<RawLeaf>();

    /// Reads the record's body.
    ///
    /// # Errors
    /// [`Fault::BadLength`] unless it is one or more whole leaves.
    pub fn parse(body: &'a [u8]) -> Result<CpuidPolicy<'a>, StreamError> {
        entries(kind::X86_CPUID_POLICY, body).map(CpuidPolicy)
    }

    /// The leaves, in the order of the record.
    pub fn leaves(&self) -> impl ExactSizeIterator<Item = CpuidLeaf> + use<'a> {
        self.0.iter().map(|RawLeaf(words)| CpuidLeaf::from_words(words.map(U32::get)))
    }

    /// The record for these leaves. A stream has none rather than an empty one.
    pub fn record(leaves: &[CpuidLeaf]) -> StateRecord {
        let raw = |leaf: &CpuidLeaf| leaf.to_words().map(u32::to_le_bytes);
        StateRecord { kind: kind::X86_CPUID_POLICY, body: leaves.iter().flat_map(raw).flatten().collect() }
    }
}

/// A model-specific register: `xen_msr_entry_t` in a policy, `xen_domctl_vcpu_msr_t` of a PV vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MsrEntry {
    /// Its number.
    pub index: u32,
    /// What is in it.
    pub value: u64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, PartialEq, Eq, Clone, Copy, Debug)]
#[repr(C)]
struct RawMsr {
    index: U32,
    reserved: U32,
    value: U64,
}

impl MsrEntry {
    /// Bytes of one.
    pub const BYTES: usize = size_of::<RawMsr>();

    /// These registers, as they are in a record's body.
    pub fn encode(entries: &[MsrEntry]) -> Vec<u8> {
        let raw =
            |entry: &MsrEntry| RawMsr { index: entry.index.into(), reserved: 0.into(), value: entry.value.into() };
        entries.iter().map(raw).flat_map(|raw| raw.as_bytes().to_vec()).collect()
    }
}

/// X86_MSR_POLICY: what the guest's model-specific registers say of its CPU. Also the context of an X86_PV_VCPU_MSRS record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MsrPolicy<'a>(&'a [RawMsr]);

impl<'a> MsrPolicy<'a> {
    /// Reads the record's body.
    ///
    /// # Errors
    /// [`Fault::BadLength`] unless it is one or more whole entries, [`Fault::NotZero`] for flags, of which there are none.
    pub fn parse(body: &'a [u8]) -> Result<MsrPolicy<'a>, StreamError> {
        let entries: &[RawMsr] = entries(kind::X86_MSR_POLICY, body)?;
        if entries.iter().any(|entry| entry.reserved.get() != 0) {
            return Err(Fault::NotZero { kind: kind::X86_MSR_POLICY, what: "an entry's flags field" }.at_start());
        }
        Ok(MsrPolicy(entries))
    }

    /// The registers, in the order of the record.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = MsrEntry> + use<'a> {
        self.0.iter().map(|raw| MsrEntry { index: raw.index.get(), value: raw.value.get() })
    }

    /// The record for these registers. A stream has none rather than an empty one.
    pub fn record(entries: &[MsrEntry]) -> StateRecord {
        StateRecord { kind: kind::X86_MSR_POLICY, body: MsrEntry::encode(entries) }
    }
}

/// X86_TSC_INFO: the guest's time stamp counter (`XEN_DOMCTL_gettscinfo`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TscInfo {
    /// How the guest gets the counter: one of Xen's `TSC_MODE_*`.
    pub mode: u32,
    /// Its frequency.
    pub khz: u32,
    /// How long the guest has run, in nanoseconds.
    pub nsec: u64,
    /// How often it has been moved.
    pub incarnation: u32,
}

/// As in the specification, "X86_TSC_INFO".
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawTscInfo {
    mode: U32,
    khz: U32,
    nsec: U64,
    incarnation: U32,
    reserved: U32,
}

impl TscInfo {
    /// Reads the record's body.
    ///
    /// # Errors
    /// [`Fault::Size`].
    pub fn parse(body: &[u8]) -> Result<TscInfo, StreamError> {
        let raw = RawTscInfo::ref_from_bytes(body).map_err(|_| {
            Fault::Size { kind: kind::X86_TSC_INFO, expected: size_of::<RawTscInfo>(), length: body.len() }.at_start()
        })?;
        Ok(TscInfo {
            mode: raw.mode.get(),
            khz: raw.khz.get(),
            nsec: raw.nsec.get(),
            incarnation: raw.incarnation.get(),
        })
    }

    /// The record.
    pub fn to_record(&self) -> StateRecord {
        let raw = RawTscInfo {
            mode: self.mode.into(),
            khz: self.khz.into(),
            nsec: self.nsec.into(),
            incarnation: self.incarnation.into(),
            reserved: 0.into(),
        };
        StateRecord { kind: kind::X86_TSC_INFO, body: raw.as_bytes().to_vec() }
    }
}

/// A body that is nothing but one or more whole entries.
fn entries<T: FromBytes + Immutable + KnownLayout + Unaligned>(kind: u32, body: &[u8]) -> Result<&[T], StreamError> {
    let entries = <[T]>::ref_from_bytes(body).ok().filter(|entries| !entries.is_empty());
    entries.ok_or_else(|| Fault::BadLength { kind, length: body.len() }.at_start())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_bodies() {
        let tsc = TscInfo { mode: 2, khz: 0x0102_0304, nsec: 5, incarnation: 3 };
        let golden = [2, 0, 0, 0, 4, 3, 2, 1, 5, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(tsc.to_record(), StateRecord { kind: 8, body: golden.to_vec() });

        let leaf = CpuidLeaf { leaf: 0x8000_0000, subleaf: None, eax: 1, ebx: 2, ecx: 3, edx: 4 };
        let golden = [0, 0, 0, 0x80, 255, 255, 255, 255, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0];
        assert_eq!(CpuidPolicy::record(&[leaf]), StateRecord { kind: 0x11, body: golden.to_vec() });

        let golden = [0xCE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0];
        let entry = MsrEntry { index: 0xCE, value: 1 << 31 };
        assert_eq!(MsrPolicy::record(&[entry]), StateRecord { kind: 0x12, body: golden.to_vec() });
    }

    #[test]
    fn impossible_lengths() {
        for length in [0, 23, 25] {
            assert!(CpuidPolicy::parse(&vec![0; length]).is_err(), "{length}");
            assert!(TscInfo::parse(&vec![0; length]).is_err(), "{length}");
        }
        for length in [0, 15, 17] {
            assert!(MsrPolicy::parse(&vec![0; length]).is_err(), "{length}");
        }
        let fault = MsrPolicy::parse(&[0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap_err().fault;
        assert!(matches!(fault, Fault::NotZero { .. }), "{fault}");
    }

    proptest! {
        #[test]
        fn round_trips(mode: u32, khz: u32, nsec: u64, incarnation: u32, words in prop::collection::vec(any::<[u32; 6]>(), 1..20)) {
            let tsc = TscInfo { mode, khz, nsec, incarnation };
            prop_assert_eq!(TscInfo::parse(&tsc.to_record().body), Ok(tsc));

            let leaves: Vec<_> = words.iter().map(|&[leaf, subleaf, eax, ebx, ecx, edx]| {
                CpuidLeaf { leaf, subleaf: (subleaf % 2 == 0).then_some(subleaf), eax, ebx, ecx, edx }
            }).collect();
            let record = CpuidPolicy::record(&leaves);
            prop_assert!(CpuidPolicy::parse(&record.body).unwrap().leaves().eq(leaves));

            let msrs: Vec<_> = words.iter().map(|word| MsrEntry { index: word[0], value: u64::from(word[1]) << 32 }).collect();
            let record = MsrPolicy::record(&msrs);
            prop_assert!(MsrPolicy::parse(&record.body).unwrap().entries().eq(msrs));
        }
    }
}
