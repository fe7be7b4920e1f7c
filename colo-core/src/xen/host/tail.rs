use crate::domain::{DomainError, StateRecord};
use crate::stream::libxl::LibxlRecord;

/// What the toolstack reads behind a guest's memory, for a domain with this state.
pub(super) fn tail_of(state: &[StateRecord]) -> Result<Vec<u8>, DomainError> {
    let _ = state;
    let mut tail = Vec::new();
    LibxlRecord::End.encode(&mut tail).map_err(|error| DomainError::BadState(error.to_string()))?;
    Ok(tail)
}
