use crate::domain::{DomainError, StateRecord};
use crate::stream::EmulatorState;
use crate::stream::libxl::{Emulator, LibxlRecord, XenstoreData, encode_xenstore_data};
use crate::xen::domain::XenDomain;

/// What the toolstack reads behind the memory of a guest in this state: the device model's part, if it has one, and the end.
pub(super) fn tail_of(state: &[StateRecord]) -> Result<Vec<u8>, DomainError> {
    let mut tail = Vec::new();
    if let Some(emulator) = emulator_of(state)? {
        if !emulator.xenstore.is_empty() {
            let entries = emulator.xenstore.iter().map(|(key, value)| (key.as_str(), value.as_bytes()));
            let data = encode_xenstore_data(entries).map_err(bad)?;
            let data = XenstoreData::parse(&data).map_err(bad)?;
            LibxlRecord::EmulatorXenstoreData(Emulator::QEMU, data).encode(&mut tail).map_err(bad)?;
        }
        LibxlRecord::EmulatorContext(Emulator::QEMU, &emulator.context).encode(&mut tail).map_err(bad)?;
    }
    LibxlRecord::End.encode(&mut tail).map_err(bad)?;
    Ok(tail)
}

/// Brings the device model of a guest that stands still to this state, if it has one; it stands still, too, then.
pub(super) fn load_device_model(domain: &mut XenDomain, state: &[StateRecord]) -> Result<(), DomainError> {
    let Some(emulator) = emulator_of(state)? else { return Ok(()) };
    domain.stop_device_model()?;
    domain.load_emulator_state(&emulator)
}

fn emulator_of(state: &[StateRecord]) -> Result<Option<EmulatorState>, DomainError> {
    EmulatorState::from_records(state).map_err(|error| bad(error.fault))
}

fn bad(error: impl std::fmt::Display) -> DomainError {
    DomainError::BadState(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_without_a_device_model_has_nothing_but_an_end() {
        let mut end = Vec::new();
        LibxlRecord::End.encode(&mut end).unwrap();
        assert_eq!(tail_of(&[]).unwrap(), end);
    }

    #[test]
    fn the_device_model_comes_before_the_end() {
        let xenstore = vec![("physmap/f0/name".to_owned(), "vga.vram".to_owned())];
        let state = EmulatorState { xenstore, context: b"QEVM state\0".to_vec() };
        let tail = tail_of(&state.to_records().unwrap()).unwrap();
        let position = |needle: &[u8]| tail.windows(needle.len()).position(|window| window == needle);
        let (Some(store), Some(context)) = (position(b"vga.vram"), position(b"QEVM state")) else { panic!("{tail:?}") };
        assert!(store < context);
        assert!(tail_of(&state.to_records().unwrap()[..1]).is_err(), "its store without its context");
    }
}
