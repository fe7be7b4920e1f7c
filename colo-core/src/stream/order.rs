use super::error::{Fault, StreamError};
use super::{DomainKind, Headers, RecordRef, Version, kind};

/// What a stream is for, which decides what may be in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamUse {
    /// One state: a saved image or a migration.
    Plain,
    /// A state, and then another and another, each ended by a CHECKPOINT record.
    Checkpointed,
}

/// Checks the order of a stream's records.
///
/// The rules are the specification's ("Layout", "v3 compat with v2"), and where it is silent, what Xen's own tools write:
///
/// * Version 3: static data first (X86_PV_INFO, the two policies), then STATIC_DATA_END, before any memory or state. Version 2
///   has neither policies nor STATIC_DATA_END; its static data ends with the first other record.
/// * PV: X86_PV_INFO, then X86_PV_P2M_FRAMES, then PAGE_DATA, then vCPUs. HVM: HVM_PARAMS before HVM_CONTEXT in each state.
/// * A guest has only its own kind's records.
/// * VERIFY once, after memory, and only in a plain stream. CHECKPOINT only in a checkpointed one.
/// * CHECKPOINT_DIRTY_PFN_LIST travels the other way, on the back channel, never here.
/// * END last, and nothing after it.
///
/// Our own and other optional records may come anywhere before END.
///
/// ```
/// use colo_core::stream::{DomainHeader, Headers, OrderChecker, RecordRef, StreamUse};
///
/// let headers = Headers::new(DomainHeader::embedded());
/// let mut order = OrderChecker::new(&headers, StreamUse::Checkpointed);
/// assert!(order.check(&RecordRef::Checkpoint).is_err(), "static data must end first");
/// order.check(&RecordRef::StaticDataEnd)?;
/// order.check(&RecordRef::Checkpoint)?;
/// order.check(&RecordRef::End)?;
/// order.finish()?;
/// # Ok::<(), colo_core::stream::StreamError>(())
/// ```
#[derive(Clone, Debug)]
pub struct OrderChecker {
    domain: DomainKind,
    version: Version,
    stream_use: StreamUse,
    phase: Phase,
    seen: Seen,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    StaticData,
    Guest,
    Ended,
}

/// What has come. A checkpoint takes back `params`, which belongs to a state; the rest is for the whole stream.
#[derive(Clone, Copy, Default, Debug)]
struct Seen {
    pv_info: bool,
    p2m_frames: bool,
    pages: bool,
    params: bool,
    verify: bool,
}

impl OrderChecker {
    /// For a stream with these headers, of which no record has come yet.
    pub fn new(headers: &Headers, stream_use: StreamUse) -> OrderChecker {
        OrderChecker {
            domain: headers.domain.kind,
            version: headers.image.version,
            stream_use,
            phase: Phase::StaticData,
            seen: Seen::default(),
        }
    }

    /// Whether this record may come now. If so, it counts as come.
    ///
    /// # Errors
    /// [`Fault::OutOfOrder`], [`Fault::NotAllowed`], with offset 0; the record does not count then.
    pub fn check(&mut self, record: &RecordRef<'_>) -> Result<(), StreamError> {
        let mut next = self.clone();
        next.step(record).map_err(StreamError::at(0))?;
        *self = next;
        Ok(())
    }

    /// Whether the stream may end here.
    ///
    /// # Errors
    /// [`Fault::NoEnd`].
    pub fn finish(&self) -> Result<(), StreamError> {
        match self.phase {
            Phase::Ended => Ok(()),
            Phase::StaticData | Phase::Guest => Err(StreamError { offset: 0, fault: Fault::NoEnd }),
        }
    }

    fn step(&mut self, record: &RecordRef<'_>) -> Result<(), Fault> {
        let kind = record.kind();
        if self.phase == Phase::Ended {
            return Err(Fault::OutOfOrder { kind, expected: "nothing" });
        }
        match record {
            RecordRef::Own { .. } | RecordRef::Skipped { .. } => Ok(()),
            RecordRef::DirtyPfnList(_) => Err(Fault::NotAllowed { kind, stream: "a stream to the secondary" }),
            _ if is_static(kind) => self.static_data(kind),
            _ => {
                self.end_static_data(kind)?;
                self.guest_data(record)
            }
        }
    }

    fn static_data(&mut self, kind: u32) -> Result<(), Fault> {
        self.of_domain(kind)?;
        if self.version == Version::V2 && kind != kind::X86_PV_INFO {
            return Err(Fault::NotAllowed { kind, stream: "a stream of version 2" });
        }
        if self.phase != Phase::StaticData {
            return Err(Fault::OutOfOrder { kind, expected: "memory or state" });
        }
        match kind {
            kind::X86_PV_INFO if self.seen.pv_info => {
                return Err(Fault::OutOfOrder { kind, expected: "STATIC_DATA_END" });
            }
            kind::X86_PV_INFO => self.seen.pv_info = true,
            kind::STATIC_DATA_END => {
                self.pv_needs(self.seen.pv_info, kind, "X86_PV_INFO")?;
                self.phase = Phase::Guest;
            }
            _ => {}
        }
        Ok(())
    }

    /// Called at every record that is not static data: in a version 2 stream the first one ends the static data.
    fn end_static_data(&mut self, kind: u32) -> Result<(), Fault> {
        match (self.phase, self.version) {
            (Phase::StaticData, Version::V3) => Err(Fault::OutOfOrder { kind, expected: "STATIC_DATA_END" }),
            (Phase::StaticData, Version::V2) => {
                self.pv_needs(self.seen.pv_info, kind, "X86_PV_INFO")?;
                self.phase = Phase::Guest;
                Ok(())
            }
            (Phase::Guest | Phase::Ended, _) => Ok(()),
        }
    }

    fn guest_data(&mut self, record: &RecordRef<'_>) -> Result<(), Fault> {
        let kind = record.kind();
        self.of_domain(kind)?;
        match kind {
            kind::PAGE_DATA => {
                self.pv_needs(self.seen.p2m_frames, kind, "X86_PV_P2M_FRAMES")?;
                self.seen.pages = true;
            }
            kind::X86_PV_P2M_FRAMES => self.seen.p2m_frames = true,
            kind::X86_PV_VCPU_BASIC..=kind::X86_PV_VCPU_XSAVE | kind::X86_PV_VCPU_MSRS => {
                self.pv_needs(self.seen.pages, kind, "PAGE_DATA")?;
            }
            kind::HVM_PARAMS => self.seen.params = true,
            kind::HVM_CONTEXT if !self.seen.params => {
                return Err(Fault::OutOfOrder { kind, expected: "HVM_PARAMS" });
            }
            kind::VERIFY => self.verify()?,
            kind::CHECKPOINT if self.stream_use == StreamUse::Plain => {
                return Err(Fault::NotAllowed { kind, stream: "a plain stream" });
            }
            kind::CHECKPOINT => self.seen.params = false,
            kind::END => self.phase = Phase::Ended,
            _ => {}
        }
        Ok(())
    }

    fn verify(&mut self) -> Result<(), Fault> {
        let kind = kind::VERIFY;
        if self.stream_use == StreamUse::Checkpointed {
            return Err(Fault::NotAllowed { kind, stream: "a checkpointed stream" });
        }
        if self.seen.verify {
            return Err(Fault::OutOfOrder { kind, expected: "memory or state" });
        }
        if !self.seen.pages {
            return Err(Fault::OutOfOrder { kind, expected: "PAGE_DATA" });
        }
        self.seen.verify = true;
        Ok(())
    }

    fn pv_needs(&self, seen: bool, kind: u32, expected: &'static str) -> Result<(), Fault> {
        if self.domain == DomainKind::X86Pv && !seen {
            return Err(Fault::OutOfOrder { kind, expected });
        }
        Ok(())
    }

    /// Whether this kind of domain has such records at all.
    fn of_domain(&self, kind: u32) -> Result<(), Fault> {
        let fits = match kind {
            kind::X86_PV_INFO..=kind::SHARED_INFO | kind::X86_PV_VCPU_MSRS => self.domain == DomainKind::X86Pv,
            kind::HVM_CONTEXT | kind::HVM_PARAMS => self.domain == DomainKind::X86Hvm,
            kind::X86_TSC_INFO | kind::X86_CPUID_POLICY | kind::X86_MSR_POLICY => self.domain != DomainKind::Embedded,
            _ => true,
        };
        let stream = match self.domain {
            DomainKind::X86Pv => "the stream of a PV guest",
            DomainKind::X86Hvm => "the stream of an HVM guest",
            DomainKind::Embedded => "the stream of an embedded guest",
        };
        if fits { Ok(()) } else { Err(Fault::NotAllowed { kind, stream }) }
    }
}

fn is_static(kind: u32) -> bool {
    matches!(kind, kind::X86_PV_INFO | kind::X86_CPUID_POLICY | kind::X86_MSR_POLICY | kind::STATIC_DATA_END)
}

#[cfg(test)]
<<<<<<< HEAD
mod tests {
    use super::*;
    use crate::ids::{PAGE_SIZE, Pfn};
    use crate::stream::{DomainHeader, ImageHeader, Limits, PageType, Records, page_data_prefix, write_record};
    use proptest::prelude::*;

    fn headers(domain: DomainKind, version: Version) -> Headers {
        Headers {
            image: ImageHeader { version },
            domain: DomainHeader { kind: domain, page_shift: 12, xen_major: 4, xen_minor: 17 },
        }
    }

    /// Where the first record that may not come stands, and why it may not.
    fn check(headers: &Headers, stream_use: StreamUse, kinds: &[u32]) -> Result<(), (usize, Fault)> {
        let mut order = OrderChecker::new(headers, stream_use);
        for (index, &kind) in kinds.iter().enumerate() {
            let mut bytes = Vec::new();
            if kind == kind::PAGE_DATA {
                page_data_prefix([(Pfn(0), PageType::Normal)], &mut bytes);
                bytes.extend([0; PAGE_SIZE]);
            } else {
                write_record(&mut bytes, kind, &[]).unwrap();
            }
            let record = Records::new(&bytes, Limits::new(1)).next().unwrap().unwrap();
            order.check(&record).map_err(|error| (index, error.fault))?;
        }
        order.finish().map_err(|error| (kinds.len(), error.fault))
    }

    const PV: &[u32] = &[
        kind::X86_PV_INFO,
        kind::X86_CPUID_POLICY,
        kind::STATIC_DATA_END,
        kind::X86_PV_P2M_FRAMES,
        kind::PAGE_DATA,
        kind::X86_TSC_INFO,
        kind::SHARED_INFO,
        kind::X86_PV_VCPU_BASIC,
        kind::X86_PV_VCPU_MSRS,
        kind::END,
    ];
    const HVM: &[u32] = &[
        kind::X86_MSR_POLICY,
        kind::STATIC_DATA_END,
        kind::PAGE_DATA,
        kind::X86_TSC_INFO,
        kind::HVM_PARAMS,
        kind::HVM_CONTEXT,
        kind::END,
    ];
    const EMBEDDED: &[u32] = &[
        kind::STATIC_DATA_END,
        kind::PAGE_DATA,
        kind::EMBEDDED_VCPU,
        kind::NET_STATE,
        kind::CHECKPOINT,
        kind::PAGE_DATA,
        kind::EMBEDDED_VCPU,
        kind::CHECKPOINT,
        kind::END,
    ];

    #[test]
    fn streams_as_the_specification_shows_them() {
        assert_eq!(check(&headers(DomainKind::X86Pv, Version::V3), StreamUse::Plain, PV), Ok(()));
        assert_eq!(check(&headers(DomainKind::X86Hvm, Version::V3), StreamUse::Plain, HVM), Ok(()));
        let embedded = headers(DomainKind::Embedded, Version::V3);
        assert_eq!(check(&embedded, StreamUse::Checkpointed, EMBEDDED), Ok(()));
    }

    #[test]
    fn version_2_has_no_static_data_end() {
        let old: Vec<u32> = PV
            .iter()
            .copied()
            .filter(|kind| !matches!(*kind, kind::X86_CPUID_POLICY | kind::STATIC_DATA_END))
            .collect();
        assert_eq!(check(&headers(DomainKind::X86Pv, Version::V2), StreamUse::Plain, &old), Ok(()));
        let stream = "a stream of version 2";
        let refused = |index, kind| Err((index, Fault::NotAllowed { kind, stream }));
        let v2 = headers(DomainKind::X86Hvm, Version::V2);
        assert_eq!(check(&v2, StreamUse::Plain, HVM), refused(0, kind::X86_MSR_POLICY));
        assert_eq!(check(&v2, StreamUse::Plain, &HVM[1..]), refused(0, kind::STATIC_DATA_END));
        assert_eq!(check(&v2, StreamUse::Plain, &HVM[2..]), Ok(()));
    }

    #[test]
    fn records_where_they_may_not_be() {
        use kind::*;
        let pv = |kinds: &[u32]| check(&headers(DomainKind::X86Pv, Version::V3), StreamUse::Plain, kinds);
        let hvm = |stream_use, kinds: &[u32]| check(&headers(DomainKind::X86Hvm, Version::V3), stream_use, kinds);
        let out_of_order = |index, kind, expected| Err((index, Fault::OutOfOrder { kind, expected }));
        let not_allowed = |index, kind, stream| Err((index, Fault::NotAllowed { kind, stream }));
        let (plain, checkpointed) = (StreamUse::Plain, StreamUse::Checkpointed);
        let static_end = STATIC_DATA_END;

        assert_eq!(hvm(plain, &[PAGE_DATA]), out_of_order(0, PAGE_DATA, "STATIC_DATA_END"));
        assert_eq!(hvm(plain, &[END]), out_of_order(0, END, "STATIC_DATA_END"));
        assert_eq!(hvm(plain, &[static_end, static_end]), out_of_order(1, static_end, "memory or state"));
        assert_eq!(hvm(plain, &[static_end, HVM_CONTEXT]), out_of_order(1, HVM_CONTEXT, "HVM_PARAMS"));
        assert_eq!(hvm(plain, &[static_end, END, END]), out_of_order(2, END, "nothing"));
        assert_eq!(hvm(plain, &[static_end, END, NET_STATE]), out_of_order(2, NET_STATE, "nothing"));
        assert_eq!(hvm(plain, &[static_end, PAGE_DATA]), Err((2, Fault::NoEnd)));
        assert_eq!(hvm(plain, &[static_end, CHECKPOINT]), not_allowed(1, CHECKPOINT, "a plain stream"));
        assert_eq!(hvm(checkpointed, &[static_end, VERIFY]), not_allowed(1, VERIFY, "a checkpointed stream"));
        assert_eq!(hvm(plain, &[static_end, VERIFY]), out_of_order(1, VERIFY, "PAGE_DATA"));
        let twice = [static_end, PAGE_DATA, VERIFY, PAGE_DATA, VERIFY];
        assert_eq!(hvm(plain, &twice), out_of_order(4, VERIFY, "memory or state"));
        let second = [static_end, HVM_PARAMS, HVM_CONTEXT, CHECKPOINT, HVM_CONTEXT];
        assert_eq!(hvm(checkpointed, &second), out_of_order(4, HVM_CONTEXT, "HVM_PARAMS"));
        let list = CHECKPOINT_DIRTY_PFN_LIST;
        assert_eq!(hvm(checkpointed, &[static_end, list]), not_allowed(1, list, "a stream to the secondary"));
        assert_eq!(hvm(plain, &[X86_PV_INFO]), not_allowed(0, X86_PV_INFO, "the stream of an HVM guest"));

        assert_eq!(pv(&[static_end]), out_of_order(0, static_end, "X86_PV_INFO"));
        assert_eq!(pv(&[X86_PV_INFO, X86_PV_INFO]), out_of_order(1, X86_PV_INFO, "STATIC_DATA_END"));
        let begun = [X86_PV_INFO, static_end];
        let then = |kinds: &[u32]| pv(&[&begun, kinds].concat());
        assert_eq!(then(&[PAGE_DATA]), out_of_order(2, PAGE_DATA, "X86_PV_P2M_FRAMES"));
        assert_eq!(then(&[X86_PV_VCPU_XSAVE]), out_of_order(2, X86_PV_VCPU_XSAVE, "PAGE_DATA"));
        assert_eq!(then(&[HVM_PARAMS]), not_allowed(2, HVM_PARAMS, "the stream of a PV guest"));
    }

    #[test]
    fn a_refused_record_does_not_count() {
        let mut order = OrderChecker::new(&headers(DomainKind::Embedded, Version::V3), StreamUse::Plain);
        assert!(order.check(&RecordRef::End).is_err());
        order.check(&RecordRef::StaticDataEnd).unwrap();
        order.check(&RecordRef::End).unwrap();
        order.finish().unwrap();
    }

    /// What a checkpointed embedded stream may be, said as a whole rather than step by step.
    fn is_embedded_stream(kinds: &[u32]) -> bool {
        let needed: Vec<u32> = kinds.iter().copied().filter(|kind| !kind::is_optional(*kind)).collect();
        let [kind::STATIC_DATA_END, middle @ .., kind::END] = needed.as_slice() else {
            return false;
        };
        kinds.last() == Some(&kind::END)
            && middle.iter().all(|kind| matches!(*kind, kind::PAGE_DATA | kind::CHECKPOINT))
    }

    proptest! {
        #[test]
        fn embedded_streams_by_a_model(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..3), 0..4),
        ) {
            let mut kinds = EMBEDDED.to_vec();
            for (at, other, change) in changes {
                let (at, other) = (at.index(kinds.len()), other.index(kinds.len()));
                match change {
                    0 => kinds.swap(at, other),
                    1 => kinds.insert(at, kinds[other]),
                    _ if kinds.len() > 1 => drop(kinds.remove(at)),
                    _ => {}
                }
            }
            let result = check(&headers(DomainKind::Embedded, Version::V3), StreamUse::Checkpointed, &kinds);
            prop_assert_eq!(result.is_ok(), is_embedded_stream(&kinds), "{:?}: {:?}", kinds, result);
        }
    }
}
=======
mod tests;
>>>>>>> stream
