//! The state of an HVM guest's device model, as it travels with a checkpoint: two types of records of our own. In a file the same two
//! things are libxl's EMULATOR_XENSTORE_DATA and EMULATOR_CONTEXT ([`super::libxl`]), which come once, behind the whole stream.
//!
//! ```
//! use colo_core::stream::EmulatorState;
//!
//! let state = EmulatorState { xenstore: Vec::new(), context: b"QEVM...\0".to_vec() };
//! let records = state.to_records()?;
//! assert_eq!(EmulatorState::from_records(&records)?, Some(state));
//! # Ok::<(), colo_core::stream::StreamError>(())
//! ```

use super::error::{Fault, StreamError};
use super::libxl::{LibxlFault, XenstoreData, encode_xenstore_data};
use super::{MAX_BODY_BYTES, kind};
use crate::domain::StateRecord;

/// What a device model knows, at the moment at which its guest was suspended.
///
/// Travels as at most one EMULATOR_XENSTORE record, the keys and values each ended by a NUL, and one or more EMULATOR_CONTEXT
/// records, whose bodies are the parts of the context.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EmulatorState {
    /// What it keeps in xenstore: keys, relative to its own folder, and values.
    pub xenstore: Vec<(String, String)>,
    /// Its devices, which only it reads.
    pub context: Vec<u8>,
}

impl EmulatorState {
    /// The most bytes of context. A usual device model has some hundred kilobytes, with an emulated video card some hundred more: the
    /// video memory is guest memory.
    pub const MAX_CONTEXT_BYTES: usize = 64 << 20;
    /// The most bytes of keys and values: each video memory or ROM that was moved takes three, of some dozen bytes each.
    pub const MAX_XENSTORE_BYTES: usize = 256 << 10;

    /// The records.
    ///
    /// # Errors
    /// [`Fault::Emulator`] for what [`EmulatorState::from_records`] would not take.
    pub fn to_records(&self) -> Result<Vec<StateRecord>, StreamError> {
        check_context(&self.context)?;
        let entries = self.xenstore.iter().map(|(key, value)| (key.as_str(), value.as_bytes()));
        let body = encode_xenstore_data(entries).map_err(bad_xenstore)?;
        check_xenstore_length(body.len())?;
        let mut records = Vec::new();
        if !body.is_empty() {
            records.push(StateRecord { kind: kind::EMULATOR_XENSTORE, body });
        }
        let parts = self.context.chunks(MAX_BODY_BYTES);
        records.extend(parts.map(|part| StateRecord { kind: kind::EMULATOR_CONTEXT, body: part.to_vec() }));
        Ok(records)
    }

    /// What these records among others hold; nothing if there are none.
    ///
    /// # Errors
    /// [`Fault::Emulator`] for what no device model has written, [`Fault::OutOfOrder`] for what one keeps in xenstore without its context.
    pub fn from_records(records: &[StateRecord]) -> Result<Option<EmulatorState>, StreamError> {
        let bodies = |kind| records.iter().filter(move |record| record.kind == kind).map(|record| &record.body);
        let mut stores = bodies(kind::EMULATOR_XENSTORE);
        let store = stores.next();
        if stores.next().is_some() {
            return Err(fault(kind::EMULATOR_XENSTORE, "there is another one"));
        }
        if bodies(kind::EMULATOR_CONTEXT).next().is_none() {
            let (kind, expected) = (kind::EMULATOR_XENSTORE, "EMULATOR_CONTEXT");
            return store.map_or(Ok(None), |_| Err(Fault::OutOfOrder { kind, expected }.at_start()));
        }
        // What is in memory already, a second time at most.
        if bodies(kind::EMULATOR_CONTEXT).map(Vec::len).sum::<usize>() > Self::MAX_CONTEXT_BYTES {
            return Err(too_long());
        }
        let context = bodies(kind::EMULATOR_CONTEXT).flatten().copied().collect::<Vec<u8>>();
        check_context(&context)?;
        let xenstore = store.map_or(Ok(Vec::new()), |body| parse_xenstore(body))?;
        Ok(Some(EmulatorState { xenstore, context }))
    }
}

fn parse_xenstore(body: &[u8]) -> Result<Vec<(String, String)>, StreamError> {
    check_xenstore_length(body.len())?;
    let data = XenstoreData::parse(body).map_err(bad_xenstore)?;
    let entry = |(key, value): (&str, &[u8])| {
        let value =
            std::str::from_utf8(value).map_err(|_| fault(kind::EMULATOR_XENSTORE, "a value that is no text"))?;
        Ok((key.to_owned(), value.to_owned()))
    };
    data.entries().map(entry).collect()
}

/// Whether it begins and ends as all that QEMU saves (`QEMU_VM_FILE_MAGIC`, `QEMU_VM_EOF`): what was cut off must not be loaded.
fn check_context(context: &[u8]) -> Result<(), StreamError> {
    if context.len() > EmulatorState::MAX_CONTEXT_BYTES {
        return Err(too_long());
    }
    if !context.starts_with(b"QEVM") || context.last() != Some(&0) {
        return Err(fault(kind::EMULATOR_CONTEXT, "it is no state of QEMU's"));
    }
    Ok(())
}

fn check_xenstore_length(bytes: usize) -> Result<(), StreamError> {
    if bytes > EmulatorState::MAX_XENSTORE_BYTES {
        return Err(fault(kind::EMULATOR_XENSTORE, "it is longer than 256 KiB"));
    }
    Ok(())
}

fn too_long() -> StreamError {
    fault(kind::EMULATOR_CONTEXT, "they are longer than 64 MiB")
}

fn bad_xenstore(error: LibxlFault) -> StreamError {
    let what = if let LibxlFault::Xenstore(what) = error { what } else { "no keys and values" };
    fault(kind::EMULATOR_XENSTORE, what)
}

fn fault(kind: u32, what: &'static str) -> StreamError {
    Fault::Emulator { kind, what }.at_start()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(kind: u32, body: &[u8]) -> StateRecord {
        StateRecord { kind, body: body.to_vec() }
    }

    fn context() -> StateRecord {
        record(kind::EMULATOR_CONTEXT, b"QEVM\0\0\0\x03\0")
    }

    fn refused(records: &[StateRecord]) -> Fault {
        EmulatorState::from_records(records).unwrap_err().fault
    }

    prop_compose! {
        fn emulator_state()(
            xenstore in prop::collection::vec(("[a-z0-9][a-z0-9/_-]{0,20}", "[^\0]{0,20}"), 0..9),
            devices in prop::collection::vec(any::<u8>(), 0..300),
        ) -> EmulatorState {
            EmulatorState { xenstore, context: [b"QEVM", &devices[..], &[0]].concat() }
        }
    }

    proptest! {
        #[test]
        fn states_round_trip_among_other_records(state in emulator_state()) {
            let mut records = state.to_records().unwrap();
            records.insert(0, record(kind::HVM_CONTEXT, b"other"));
            records.push(record(kind::MEMORY_HASH, b"other"));
            prop_assert_eq!(EmulatorState::from_records(&records).unwrap(), Some(state));
        }

        /// In whatever parts it comes.
        #[test]
        fn parts_add_up(state in emulator_state(), at in any::<prop::sample::Index>()) {
            let (one, other) = state.context.split_at(at.index(state.context.len()));
            let records = [one, other].map(|part| record(kind::EMULATOR_CONTEXT, part));
            let read = EmulatorState::from_records(&records).unwrap().unwrap();
            prop_assert_eq!(read.context, state.context);
        }

        #[test]
        fn any_bytes_are_an_error_or_the_same_again(store: Vec<u8>, devices: Vec<u8>) {
            let records =
                [record(kind::EMULATOR_XENSTORE, &store), record(kind::EMULATOR_CONTEXT, &[b"QEVM", &devices[..]].concat())];
            if let Ok(Some(state)) = EmulatorState::from_records(&records) {
                let again = state.to_records().unwrap();
                prop_assert_eq!(&again[again.len() - 1], &records[1]);
                prop_assert_eq!(again.len() == 2, !store.is_empty());
                prop_assert!(store.is_empty() || again[0] == records[0]);
            }
        }
    }

    #[test]
    fn a_long_context_travels_in_several_records() {
        let mut context = vec![7; 2 * MAX_BODY_BYTES + 5];
        context[..4].copy_from_slice(b"QEVM");
        *context.last_mut().unwrap() = 0;
        let state = EmulatorState { xenstore: Vec::new(), context };
        let records = state.to_records().unwrap();
        assert_eq!(
            records.iter().map(|record| record.body.len()).collect::<Vec<_>>(),
            [MAX_BODY_BYTES, MAX_BODY_BYTES, 5]
        );
        assert!(EmulatorState::from_records(&records).unwrap() == Some(state));
    }

    #[test]
    fn what_no_device_model_has_written() {
        assert_eq!(EmulatorState::from_records(&[]), Ok(None));
        assert_eq!(EmulatorState::from_records(&[record(kind::HVM_CONTEXT, b"x")]), Ok(None));
        for bad in [&b""[..], b"QEV", b"QEVM", b"QEVM\x03", b"xQEVM\0"] {
            let fault = refused(&[record(kind::EMULATOR_CONTEXT, bad)]);
            assert!(matches!(fault, Fault::Emulator { kind: kind::EMULATOR_CONTEXT, .. }), "{bad:?}: {fault}");
        }
        for bad in [&b"a"[..], b"a\0", b"a\0b", b"/a\0b\0", b"\0b\0", b"a\0\xff\0"] {
            let fault = refused(&[record(kind::EMULATOR_XENSTORE, bad), context()]);
            assert!(matches!(fault, Fault::Emulator { kind: kind::EMULATOR_XENSTORE, .. }), "{bad:?}: {fault}");
        }
        let store = record(kind::EMULATOR_XENSTORE, b"a\0b\0");
        assert!(matches!(refused(std::slice::from_ref(&store)), Fault::OutOfOrder { .. }));
        assert!(matches!(refused(&[store.clone(), store, context()]), Fault::Emulator { .. }));
    }

    #[test]
    fn limits() {
        let part = record(kind::EMULATOR_CONTEXT, &[0; MAX_BODY_BYTES]);
        let mut records = vec![context()];
        records.resize(1 + EmulatorState::MAX_CONTEXT_BYTES / MAX_BODY_BYTES, part);
        assert_eq!(refused(&records), too_long().fault);
        let value = "x".repeat(EmulatorState::MAX_XENSTORE_BYTES);
        let state = EmulatorState { xenstore: vec![("a".into(), value.clone())], context: context().body };
        assert!(state.to_records().is_err());
        let store = record(kind::EMULATOR_XENSTORE, format!("a\0{value}\0").as_bytes());
        assert!(matches!(refused(&[store, context()]), Fault::Emulator { kind: kind::EMULATOR_XENSTORE, .. }));
        let state = EmulatorState { xenstore: Vec::new(), context: b"none".to_vec() };
        assert!(state.to_records().is_err());
    }
}
