//! The records that only an HVM or PVH guest has: its vCPUs and platform devices, and its parameters.
//!
//! ```
//! use colo_core::stream::hvm::{HvmContext, HvmParam, HvmParams, entry};
//!
//! let record = HvmParams::record(&[HvmParam { index: 1, value: 0xFEFFC }]);
//! let params = HvmParams::parse(&record.body)?;
//! assert_eq!((params.get(1), params.iter().next().unwrap().name()), (Some(0xFEFFC), "STORE_PFN"));
//!
//! let context = HvmContext::record(&[(entry::HEADER, 0, &HvmContext::header(0, 0)), (entry::CPU, 0, b"registers")]);
//! let kinds: Vec<_> = HvmContext::parse(&context.body)?.entries().map(|entry| entry.name()).collect();
//! assert_eq!(kinds, ["HEADER", "CPU"]);
//! # Ok::<(), colo_core::stream::StreamError>(())
//! ```

use super::error::{Fault, StreamError};
use super::kind;
use crate::domain::StateRecord;
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The types of entries in an HVM context, by their names in Xen's public headers (`public/hvm/save.h`).
pub mod entry {
    macro_rules! entries {
        ($($name:ident = $value:literal;)*) => {
            $(#[allow(missing_docs)] pub const $name: u16 = $value;)*

            /// The name of an entry's type, for people.
            pub fn name(kind: u16) -> &'static str {
                match kind {
                    $($name => stringify!($name),)*
                    _ => "unknown",
                }
            }
        };
    }

    entries! {
        END = 0; HEADER = 1; CPU = 2; PIC = 3; IOAPIC = 4; LAPIC = 5; LAPIC_REGS = 6; PCI_IRQ = 7; ISA_IRQ = 8; PCI_LINK = 9;
        PIT = 10; RTC = 11; HPET = 12; PMTIMER = 13; MTRR = 14; VIRIDIAN_DOMAIN = 15; CPU_XSAVE = 16; VIRIDIAN_VCPU = 17;
        VMCE_VCPU = 18; TSC_ADJUST = 19; CPU_MSR = 20;
    }
}

/// One entry of an HVM context.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HvmContextEntry<'a> {
    /// What it is: one of [`entry`].
    pub kind: u16,
    /// Which of several: the vCPU, or the chip.
    pub instance: u16,
    /// The state, as the hypervisor gives and takes it.
    pub state: &'a [u8],
}

impl HvmContextEntry<'_> {
    /// Its type's name.
    pub fn name(&self) -> &'static str {
        entry::name(self.kind)
    }
}

/// `hvm_save_descriptor`.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawDescriptor {
    kind: U16,
    instance: U16,
    length: U32,
}

/// `hvm_save_header`, the state of the first entry.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawContextHeader {
    magic: U32,
    version: U32,
    changeset: U64,
    cpuid: U32,
    gtsc_khz: U32,
}

/// `HVM_FILE_MAGIC`.
const CONTEXT_MAGIC: u32 = 0x5438_1286;
/// `HVM_FILE_VERSION`.
const CONTEXT_VERSION: u32 = 1;

/// HVM_CONTEXT: vCPUs and platform devices, a list of entries for the hypervisor to read. It begins with a header and ends with
/// an end, both checked here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HvmContext<'a> {
    body: &'a [u8],
}

impl<'a> HvmContext<'a> {
    /// Reads the record's body, and walks the list.
    ///
    /// # Errors
    /// [`Fault::BadLength`] when it is empty; [`Fault::HvmContext`] when the list is cut off, does not begin with Xen's header, has
    /// no end, or has something behind it.
    pub fn parse(body: &'a [u8]) -> Result<HvmContext<'a>, StreamError> {
        if body.is_empty() {
            return Err(Fault::BadLength { kind: kind::HVM_CONTEXT, length: 0 }.at_start());
        }
        let mut rest = body;
        loop {
            let at = body.len() - rest.len();
            let fault = |what| Fault::HvmContext { at, what }.at_start();
            let (found, after) = split_entry(rest).ok_or_else(|| fault("an entry is cut off"))?;
            if (at == 0) != (found.kind == entry::HEADER) {
                return Err(fault("a header must come first, and only there"));
            }
            match found.kind {
                entry::HEADER => check_header(found.state).map_err(fault)?,
                entry::END if !found.state.is_empty() => return Err(fault("an end that is not empty")),
                entry::END if !after.is_empty() => return Err(fault("something comes after the end")),
                entry::END => return Ok(HvmContext { body }),
                _ => {}
            }
            if after.is_empty() {
                return Err(fault("there is no end"));
            }
            rest = after;
        }
    }

    /// The entries, but for the last, which is the end.
    pub fn entries(&self) -> impl Iterator<Item = HvmContextEntry<'a>> + use<'a> {
        let mut rest = self.body;
        std::iter::from_fn(move || {
            let (found, after) = split_entry(rest)?;
            rest = after;
            (found.kind != entry::END).then_some(found)
        })
    }

    /// The state of an entry, if there is such.
    pub fn find(&self, kind: u16, instance: u16) -> Option<&'a [u8]> {
        self.entries().find(|entry| (entry.kind, entry.instance) == (kind, instance)).map(|entry| entry.state)
    }

    /// The record for these entries (type, instance, state), of which the first must be a header; the end is added.
    ///
    /// # Panics
    /// When an entry is of 4 GiB or more.
    pub fn record(entries: &[(u16, u16, &[u8])]) -> StateRecord {
        let mut body = Vec::new();
        for (kind, instance, state) in entries.iter().chain([&(entry::END, 0, &[][..])]) {
            let length = u32::try_from(state.len()).expect("an entry is shorter than 4 GiB");
            let raw = RawDescriptor { kind: (*kind).into(), instance: (*instance).into(), length: length.into() };
            body.extend_from_slice(raw.as_bytes());
            body.extend_from_slice(state);
        }
        StateRecord { kind: kind::HVM_CONTEXT, body }
    }

    /// The state of a header entry: what CPUID leaf 1 says in EAX on the machine that writes it, and the frequency of the guest's
    /// time stamp counter in kHz.
    pub fn header(cpuid: u32, gtsc_khz: u32) -> [u8; 24] {
        let raw = RawContextHeader {
            magic: CONTEXT_MAGIC.into(),
            version: CONTEXT_VERSION.into(),
            changeset: 0.into(),
            cpuid: cpuid.into(),
            gtsc_khz: gtsc_khz.into(),
        };
        zerocopy::transmute!(raw)
    }
}

fn split_entry(bytes: &[u8]) -> Option<(HvmContextEntry<'_>, &[u8])> {
    let (raw, rest) = RawDescriptor::ref_from_prefix(bytes).ok()?;
    let (state, rest) = rest.split_at_checked(raw.length.get() as usize)?;
    Some((HvmContextEntry { kind: raw.kind.get(), instance: raw.instance.get(), state }, rest))
}

fn check_header(state: &[u8]) -> Result<(), &'static str> {
    let raw = RawContextHeader::ref_from_bytes(state).map_err(|_| "a header of another length than Xen's")?;
    match (raw.magic.get(), raw.version.get()) {
        (CONTEXT_MAGIC, CONTEXT_VERSION) => Ok(()),
        (CONTEXT_MAGIC, _) => Err("a header of an unknown version"),
        _ => Err("a header without Xen's magic number"),
    }
}

/// One of an HVM guest's parameters (`HVM_PARAM_*` in `public/hvm/params.h`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HvmParam {
    /// Which.
    pub index: u64,
    /// Its value.
    pub value: u64,
}

impl HvmParam {
    /// Its name in Xen's headers, without `HVM_PARAM_`.
    pub fn name(&self) -> &'static str {
        usize::try_from(self.index).ok().and_then(|index| PARAM_NAMES.get(index)).copied().unwrap_or("unknown")
    }
}

/// The parameters' names, by their numbers.
const PARAM_NAMES: [&str; 39] = [
    "CALLBACK_IRQ",
    "STORE_PFN",
    "STORE_EVTCHN",
    "unused",
    "PAE_ENABLED",
    "IOREQ_PFN",
    "BUFIOREQ_PFN",
    "unused",
    "unused",
    "VIRIDIAN",
    "TIMER_MODE",
    "HPET_ENABLED",
    "IDENT_PT",
    "DM_DOMAIN",
    "ACPI_S_STATE",
    "VM86_TSS",
    "VPT_ALIGN",
    "CONSOLE_PFN",
    "CONSOLE_EVTCHN",
    "ACPI_IOPORTS_LOCATION",
    "MEMORY_EVENT_CR0",
    "MEMORY_EVENT_CR3",
    "MEMORY_EVENT_CR4",
    "MEMORY_EVENT_INT3",
    "NESTEDHVM",
    "MEMORY_EVENT_SINGLE_STEP",
    "BUFIOREQ_EVTCHN",
    "PAGING_RING_PFN",
    "MONITOR_RING_PFN",
    "SHARING_RING_PFN",
    "MEMORY_EVENT_MSR",
    "TRIPLE_FAULT_REASON",
    "IOREQ_SERVER_PFN",
    "NR_IOREQ_SERVER_PAGES",
    "VM_GENERATION_ID_ADDR",
    "ALTP2M",
    "X87_FIP_WIDTH",
    "VM86_TSS_SIZED",
    "MCA_CAP",
];

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, PartialEq, Eq, Clone, Copy, Debug)]
#[repr(C)]
struct RawParam {
    index: U64,
    value: U64,
}

/// As in the specification, "HVM_PARAMS", without the array.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawParams {
    count: U32,
    reserved: U32,
}

/// HVM_PARAMS: a guest's parameters, those that are not zero. Older tools wrote empty records ("Errata").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HvmParams<'a>(&'a [RawParam]);

impl<'a> HvmParams<'a> {
    /// Reads the record's body.
    ///
    /// # Errors
    /// [`Fault::BadLength`]; [`Fault::Size`] unless it is as long as its count says.
    pub fn parse(body: &'a [u8]) -> Result<HvmParams<'a>, StreamError> {
        let kind = kind::HVM_PARAMS;
        let bad_length = || Fault::BadLength { kind, length: body.len() }.at_start();
        let (raw, rest) = RawParams::ref_from_prefix(body).map_err(|_| bad_length())?;
        let expected = size_of::<RawParams>() + raw.count.get() as usize * size_of::<RawParam>();
        if body.len() != expected {
            return Err(Fault::Size { kind, expected, length: body.len() }.at_start());
        }
        <[RawParam]>::ref_from_bytes(rest).map(HvmParams).map_err(|_| bad_length())
    }

    /// The parameters, in the order of the record.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = HvmParam> + use<'a> {
        self.0.iter().map(|raw| HvmParam { index: raw.index.get(), value: raw.value.get() })
    }

    /// The value of a parameter; that of the last, if it is there more than once, as a restore would have it.
    pub fn get(&self, index: u64) -> Option<u64> {
        self.0.iter().rev().find(|raw| raw.index.get() == index).map(|raw| raw.value.get())
    }

    /// The record for these parameters. A stream has none rather than an empty one.
    pub fn record(params: &[HvmParam]) -> StateRecord {
        let mut body = RawParams { count: (params.len() as u32).into(), reserved: 0.into() }.as_bytes().to_vec();
        for param in params {
            body.extend_from_slice(RawParam { index: param.index.into(), value: param.value.into() }.as_bytes());
        }
        StateRecord { kind: kind::HVM_PARAMS, body }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_bodies() {
        let params = HvmParams::record(&[HvmParam { index: 17, value: 0x1234 }]);
        let golden = [1, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0, 0x34, 0x12, 0, 0, 0, 0, 0, 0];
        assert_eq!(params, StateRecord { kind: 0xA, body: golden.to_vec() });

        let context = HvmContext::record(&[(1, 0, &HvmContext::header(6, 7)), (2, 3, &[9, 9])]);
        let golden: [&[u8]; 6] = [
            &[1, 0, 0, 0, 24, 0, 0, 0],
            &[0x86, 0x12, 0x38, 0x54, 1, 0, 0, 0],
            &[0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 7, 0, 0, 0],
            &[2, 0, 3, 0, 2, 0, 0, 0],
            &[9, 9],
            &[0, 0, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(context, StateRecord { kind: 9, body: golden.concat() });
        assert_eq!(HvmContext::parse(&context.body).unwrap().find(2, 3), Some(&[9, 9][..]));
    }

    #[test]
    fn names_by_number() {
        let name = |index| HvmParam { index, value: 0 }.name();
        assert_eq!((name(5), name(33), name(38)), ("IOREQ_PFN", "NR_IOREQ_SERVER_PAGES", "MCA_CAP"));
        assert_eq!((name(39), name(u64::MAX), entry::name(21)), ("unknown", "unknown", "unknown"));
    }

    #[test]
    fn contexts_that_are_wrong() {
        let header = HvmContext::header(0, 0);
        let fault = |entries: &[(u16, u16, &[u8])]| match HvmContext::parse(&HvmContext::record(entries).body) {
            Err(StreamError { fault: Fault::HvmContext { at, what }, .. }) => (at, what),
            other => panic!("{other:?}"),
        };
        let first = "a header must come first, and only there";
        assert_eq!(fault(&[]), (0, first));
        assert_eq!(fault(&[(2, 0, b"cpu")]), (0, first));
        assert_eq!(fault(&[(1, 0, &header), (1, 0, &header)]), (32, first));
        assert_eq!(fault(&[(1, 0, &header[1..])]), (0, "a header of another length than Xen's"));
        assert_eq!(fault(&[(1, 0, &[1; 24])]), (0, "a header without Xen's magic number"));
        assert_eq!(fault(&[(1, 0, &header), (0, 0, &[1])]), (32, "an end that is not empty"));
        assert_eq!(fault(&[(1, 0, &header), (0, 0, &[])]), (32, "something comes after the end"));

        let body = HvmContext::record(&[(1, 0, &header), (2, 0, b"cpu")]).body;
        for length in 0..body.len() {
            assert!(HvmContext::parse(&body[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn params_are_counted() {
        let mut body = HvmParams::record(&[HvmParam { index: 1, value: 2 }; 2]).body;
        assert!(HvmParams::parse(&body).is_ok());
        body[0] = 3;
        let fault = HvmParams::parse(&body).unwrap_err().fault;
        assert_eq!(fault, Fault::Size { kind: 0xA, expected: 56, length: 40 });
        assert!(HvmParams::parse(&body[..7]).is_err());
        body[..4].fill(0xFF);
        assert!(HvmParams::parse(&body).is_err());
        assert_eq!(HvmParams::parse(&[0; 8]).unwrap().iter().len(), 0, "older tools wrote empty records");
    }

    proptest! {
        #[test]
        fn round_trips(
            entries in prop::collection::vec((2_u16..40, any::<u16>(), prop::collection::vec(any::<u8>(), 0..40)), 0..10),
            params in prop::collection::vec((any::<u64>(), any::<u64>()), 0..20),
        ) {
            let header = HvmContext::header(1, 2);
            let list: Vec<(u16, u16, &[u8])> = [(1, 0, header.as_slice())].into_iter()
                .chain(entries.iter().map(|(kind, instance, state)| (*kind, *instance, state.as_slice()))).collect();
            let record = HvmContext::record(&list);
            let context = HvmContext::parse(&record.body).unwrap();
            prop_assert!(context.entries().map(|entry| (entry.kind, entry.instance, entry.state)).eq(list));

            let params: Vec<_> = params.into_iter().map(|(index, value)| HvmParam { index, value }).collect();
            let record = HvmParams::record(&params);
            prop_assert!(HvmParams::parse(&record.body).unwrap().iter().eq(params));
        }
    }
}
