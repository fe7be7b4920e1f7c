use super::{LibxlFault, LibxlRecord};

/// Checks the order of a libxl stream's records, plain or checkpointed.
///
/// libxl itself takes the emulator's records in any order; so does this. Everything else has its place.
///
/// ```
/// use colo_core::stream::libxl::{LibxlOrder, LibxlRecord};
///
/// let mut order = LibxlOrder::default();
/// order.check(&LibxlRecord::LibxcContext)?;
/// assert!(order.is_libxc(), "now libxc's stream comes");
/// order.libxc_ended(true);
/// order.check(&LibxlRecord::End)?;
/// assert!(order.has_ended());
/// # Ok::<(), colo_core::stream::libxl::LibxlFault>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LibxlOrder {
    phase: Phase,
    /// Whether the domain is one that has no device model.
    pv: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Phase {
    /// Nothing has come.
    #[default]
    Start,
    /// Within libxc's stream.
    Libxc,
    /// Behind libxc's stream.
    Tail,
    /// Behind a libxc CHECKPOINT.
    Checkpoint,
    /// Behind a CHECKPOINT_END: libxc goes on, but first COLO may say that it does.
    Between,
    Ended,
}

impl LibxlOrder {
    /// Whether this record may come now. If so, it counts as come.
    ///
    /// # Errors
    /// [`LibxlFault::OutOfOrder`], [`LibxlFault::NotAllowed`]; the record does not count then.
    pub fn check(&mut self, record: &LibxlRecord<'_>) -> Result<(), LibxlFault> {
        let kind = record.kind();
        self.phase = match (self.phase, record) {
            (Phase::Start, LibxlRecord::LibxcContext) => Phase::Libxc,
            (phase @ (Phase::Tail | Phase::Checkpoint), record) if is_emulators(record) => {
                if self.pv {
                    return Err(LibxlFault::NotAllowed { kind });
                }
                phase
            }
            (Phase::Tail, LibxlRecord::End) => Phase::Ended,
            (Phase::Checkpoint, LibxlRecord::CheckpointEnd) => Phase::Between,
            (Phase::Between, LibxlRecord::CheckpointState(_)) => Phase::Libxc,
            (phase, _) => {
                let expected = match phase {
                    Phase::Start => "LIBXC_CONTEXT",
                    Phase::Libxc | Phase::Between => "a libxc record",
                    Phase::Tail => "an emulator's record or END",
                    Phase::Checkpoint => "an emulator's record or CHECKPOINT_END",
                    Phase::Ended => "nothing",
                };
                return Err(LibxlFault::OutOfOrder { kind, expected });
            }
        };
        Ok(())
    }

    /// libxc's stream has come to its END; `device_model` says whether its domain is of a kind that may have one.
    pub fn libxc_ended(&mut self, device_model: bool) {
        self.pv = !device_model;
        self.phase = Phase::Tail;
    }

    /// libxc's stream has come to a CHECKPOINT; `device_model` says whether its domain is of a kind that may have one.
    pub fn libxc_checkpoint(&mut self, device_model: bool) {
        self.pv = !device_model;
        self.phase = Phase::Checkpoint;
    }

    /// libxc's stream has gone on with a record, after a CHECKPOINT_END perhaps.
    pub fn libxc_goes_on(&mut self) {
        if self.phase == Phase::Between {
            self.phase = Phase::Libxc;
        }
    }

    /// Whether what comes next is libxc's: its headers after LIBXC_CONTEXT, or its records.
    pub fn is_libxc(&self) -> bool {
        matches!(self.phase, Phase::Libxc | Phase::Between)
    }

    /// Whether a CHECKPOINT_END was the last record, so that COLO's CHECKPOINT_STATE may come before libxc goes on.
    pub fn is_between_checkpoints(&self) -> bool {
        self.phase == Phase::Between
    }

    /// Whether the stream's END record has come.
    pub fn has_ended(&self) -> bool {
        self.phase == Phase::Ended
    }
}

fn is_emulators(record: &LibxlRecord<'_>) -> bool {
    matches!(record, LibxlRecord::EmulatorXenstoreData(..) | LibxlRecord::EmulatorContext(..))
}
