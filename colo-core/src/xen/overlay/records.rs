use crate::domain::{DomainError, StateRecord};
use crate::stream::{HvmContext, PfnRanges, StreamError, TwinFrontends, TwinGrants, TwinPorts, TwinSharedInfo, kind};

/// What a PVH guest is given at a checkpoint, beside its memory.
#[derive(Debug)]
pub(super) struct TwinState {
    pub(super) ports: TwinPorts,
    pub(super) grants: TwinGrants,
    pub(super) shared_info: TwinSharedInfo,
    pub(super) frontends: TwinFrontends,
    pub(super) populated: PfnRanges,
    pub(super) context: Vec<u8>,
}

impl TwinState {
    /// Finds the parts among the records of a checkpoint.
    pub(super) fn parse(state: &[StateRecord]) -> Result<TwinState, DomainError> {
        let body = |kind: u32| {
            let found = state.iter().rev().find(|record| record.kind == kind).map(|record| record.body.as_slice());
            found.ok_or_else(|| DomainError::BadState(format!("no {} record", kind::name(kind))))
        };
        let context = body(kind::HVM_CONTEXT)?;
        HvmContext::parse(context).map_err(bad)?;
        Ok(TwinState {
            ports: TwinPorts::parse(body(kind::TWIN_PORTS)?).map_err(bad)?,
            grants: TwinGrants::parse(body(kind::TWIN_GRANTS)?).map_err(bad)?,
            shared_info: TwinSharedInfo::parse(body(kind::TWIN_SHARED_INFO)?).map_err(bad)?,
            frontends: TwinFrontends::parse(body(kind::TWIN_FRONTENDS)?).map_err(bad)?,
            populated: PfnRanges::parse(body(kind::TWIN_POPULATED)?).map_err(bad)?,
            context: context.to_vec(),
        })
    }
}

fn bad(error: StreamError) -> DomainError {
    DomainError::BadState(error.fault.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PAGE_SIZE;
    use crate::stream::hvm::entry;

    #[test]
    fn each_part_is_needed_and_must_be_right() {
        let whole = vec![
            HvmContext::record(&[(entry::HEADER, 0, &HvmContext::header(0, 0)), (entry::CPU, 0, b"registers")]),
            TwinPorts::default().to_record().unwrap(),
            TwinGrants::default().to_record().unwrap(),
            TwinFrontends::default().to_record().unwrap(),
            PfnRanges::default().to_record().unwrap(),
            TwinSharedInfo::new(Box::new([0; PAGE_SIZE])).to_record(),
        ];
        assert!(TwinState::parse(&whole).is_ok());
        for index in 0..whole.len() {
            let mut less = whole.clone();
            let missing = kind::name(less.remove(index).kind);
            let error = TwinState::parse(&less).unwrap_err().to_string();
            assert_eq!(error, format!("cannot load this state: no {missing} record"));
            let mut broken = whole.clone();
            broken[index].body.push(0);
            assert!(TwinState::parse(&broken).is_err(), "{missing}");
        }
    }
}
