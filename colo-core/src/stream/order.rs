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
mod tests;
