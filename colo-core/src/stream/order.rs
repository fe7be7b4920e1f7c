use super::error::{Fault, StreamError};
use super::{DomainKind, Headers, PvInfo, RecordRef, VcpuBlob, VcpuPart, Version, kind};

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
/// * PV: X86_PV_INFO, then X86_PV_P2M_FRAMES, then PAGE_DATA, then vCPUs. HVM: HVM_PARAMS and HVM_CONTEXT in either order: the
///   specification wants the parameters first, all of Xen's tools write them last, and its restore keeps the context until the end.
/// * What a restore cannot do without must have come when a state ends, at CHECKPOINT, or at END if there has been no CHECKPOINT: a
///   PV guest's vCPU 0, an HVM guest's HVM_CONTEXT.
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
    /// `None` as long as either is possible.
    stream_use: Option<StreamUse>,
    phase: Phase,
    seen: Seen,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    StaticData,
    Guest,
    Ended,
}

/// What has come. A checkpoint takes back `machine`, which belongs to a state; the rest is for the whole stream.
#[derive(Clone, Copy, Default, Debug)]
struct Seen {
    pv_info: Option<PvInfo>,
    p2m_frames: bool,
    pages: bool,
    /// Of the guest's own state what no restore can do without.
    machine: bool,
    verify: bool,
    checkpoint: bool,
}

impl OrderChecker {
    /// For a stream with these headers, of which no record has come yet.
    pub fn new(headers: &Headers, stream_use: StreamUse) -> OrderChecker {
        OrderChecker { stream_use: Some(stream_use), ..OrderChecker::for_any_use(headers) }
    }

    /// As [`OrderChecker::new`], for a stream that is either plain or checkpointed: its first CHECKPOINT or VERIFY shows which.
    pub fn for_any_use(headers: &Headers) -> OrderChecker {
        OrderChecker {
            domain: headers.domain.kind,
            version: headers.image.version,
            stream_use: None,
            phase: Phase::StaticData,
            seen: Seen::default(),
        }
    }

    /// Whether this record may come now. If so, it counts as come.
    ///
    /// # Errors
    /// [`Fault::OutOfOrder`], [`Fault::NotAllowed`]; those of [`PvInfo::parse`] and [`VcpuBlob::parse`] for the bodies on which
    /// the order depends. All with offset 0; the record does not count then.
    pub fn check(&mut self, record: &RecordRef<'_>) -> Result<(), StreamError> {
        let mut next = self.clone();
        next.step(record).map_err(StreamError::at(0))?;
        *self = next;
        Ok(())
    }

    /// What the stream's X86_PV_INFO record has said, if it has come.
    pub fn pv_info(&self) -> Option<PvInfo> {
        self.seen.pv_info
    }

    /// Whether the stream's END record has come.
    pub fn has_ended(&self) -> bool {
        self.phase == Phase::Ended
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
            _ if is_static(kind) => self.static_data(record),
            _ => {
                self.end_static_data(kind)?;
                self.guest_data(record)
            }
        }
    }

    fn static_data(&mut self, record: &RecordRef<'_>) -> Result<(), Fault> {
        let kind = record.kind();
        self.of_domain(kind)?;
        if self.version == Version::V2 && kind != kind::X86_PV_INFO {
            return Err(Fault::NotAllowed { kind, stream: "a stream of version 2" });
        }
        if self.phase != Phase::StaticData {
            return Err(Fault::OutOfOrder { kind, expected: "memory or state" });
        }
        match record {
            RecordRef::State { kind: kind::X86_PV_INFO, .. } if self.seen.pv_info.is_some() => {
                return Err(Fault::OutOfOrder { kind, expected: "STATIC_DATA_END" });
            }
            RecordRef::State { kind: kind::X86_PV_INFO, body } => {
                self.seen.pv_info = Some(PvInfo::parse(body).map_err(|error| error.fault)?);
            }
            RecordRef::StaticDataEnd => {
                self.pv_needs(self.seen.pv_info.is_some(), kind, "X86_PV_INFO")?;
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
                self.pv_needs(self.seen.pv_info.is_some(), kind, "X86_PV_INFO")?;
                self.phase = Phase::Guest;
                Ok(())
            }
            (Phase::Guest | Phase::Ended, _) => Ok(()),
        }
    }

    fn guest_data(&mut self, record: &RecordRef<'_>) -> Result<(), Fault> {
        let kind = record.kind();
        self.of_domain(kind)?;
        match record {
            RecordRef::PageData(_) => {
                self.pv_needs(self.seen.p2m_frames, kind, "X86_PV_P2M_FRAMES")?;
                self.seen.pages = true;
            }
            RecordRef::State { body, .. } => self.state(kind, body)?,
            RecordRef::Verify => self.verify()?,
            RecordRef::Checkpoint => self.checkpoint()?,
            RecordRef::End => {
                if !self.seen.checkpoint {
                    self.complete(kind)?;
                }
                self.phase = Phase::Ended;
            }
            _ => {}
        }
        Ok(())
    }

    fn state(&mut self, kind: u32, body: &[u8]) -> Result<(), Fault> {
        if VcpuPart::of_kind(kind).is_some() {
            self.pv_needs(self.seen.pages, kind, "PAGE_DATA")?;
        }
        match kind {
            kind::X86_PV_P2M_FRAMES => self.seen.p2m_frames = true,
            kind::X86_PV_VCPU_BASIC => {
                let blob = VcpuBlob::parse_any(kind, body).map_err(|error| error.fault)?;
                self.seen.machine |= blob.vcpu == 0 && !blob.context.is_empty();
            }
            kind::HVM_CONTEXT => self.seen.machine = true,
            _ => {}
        }
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), Fault> {
        let kind = kind::CHECKPOINT;
        if self.stream_use == Some(StreamUse::Plain) {
            return Err(Fault::NotAllowed { kind, stream: "a plain stream" });
        }
        self.complete(kind)?;
        self.stream_use = Some(StreamUse::Checkpointed);
        self.seen.machine = false;
        self.seen.checkpoint = true;
        Ok(())
    }

    /// Whether a state may end here, with this record.
    fn complete(&self, kind: u32) -> Result<(), Fault> {
        let expected = match self.domain {
            DomainKind::X86Pv => "X86_PV_VCPU_BASIC of vCPU 0",
            DomainKind::X86Hvm => "HVM_CONTEXT",
            DomainKind::Embedded => return Ok(()),
        };
        if self.seen.machine { Ok(()) } else { Err(Fault::OutOfOrder { kind, expected }) }
    }

    fn verify(&mut self) -> Result<(), Fault> {
        let kind = kind::VERIFY;
        if self.stream_use == Some(StreamUse::Checkpointed) {
            return Err(Fault::NotAllowed { kind, stream: "a checkpointed stream" });
        }
        if self.seen.verify {
            return Err(Fault::OutOfOrder { kind, expected: "memory or state" });
        }
        if !self.seen.pages {
            return Err(Fault::OutOfOrder { kind, expected: "PAGE_DATA" });
        }
        self.stream_use = Some(StreamUse::Plain);
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
