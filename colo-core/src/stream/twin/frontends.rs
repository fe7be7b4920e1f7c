use super::{bad, body_error, record};
use crate::domain::StateRecord;
use crate::peer::PayloadError;
use crate::peer::wire::{Fields, check_limit, put_text};
use crate::stream::{StreamError, kind};

/// What a driver in the guest has told of itself in xenstore: where its rings are, and what it can do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TwinFrontend {
    /// The class of its device: "vif", "vbd".
    pub class: String,
    /// Which of the class.
    pub handle: u32,
    /// Paths below the device's folder, and values; in the order of the paths.
    pub nodes: Vec<(String, String)>,
}

/// What all of a domain's drivers have told, in the order of their classes and numbers.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct TwinFrontends {
    /// Of each connected device.
    pub devices: Vec<TwinFrontend>,
}

impl TwinFrontends {
    /// The most devices: 16 cards, and disks.
    pub const MAX_DEVICES: usize = 128;
    /// The most nodes of one: a card with 32 queues has as many.
    pub const MAX_NODES: usize = 256;
    /// The longest path below a device, in bytes.
    pub const MAX_PATH_BYTES: usize = 64;
    /// The longest value, in bytes: all that drivers publish are numbers and names.
    pub const MAX_VALUE_BYTES: usize = 128;

    /// The TWIN_FRONTENDS record.
    ///
    /// # Errors
    /// [`Fault::Body`](crate::stream::Fault::Body): more of anything than the limits, or a path that is none.
    pub fn to_record(&self) -> Result<StateRecord, StreamError> {
        self.encode().map(record(kind::TWIN_FRONTENDS)).map_err(body_error(kind::TWIN_FRONTENDS))
    }

    /// Reads the record's body.
    ///
    /// # Errors
    /// [`Fault::Body`](crate::stream::Fault::Body). A class or a path that is read is one of xenstore's, and leads nowhere but
    /// downwards; a value is text of one line.
    pub fn parse(body: &[u8]) -> Result<TwinFrontends, StreamError> {
        Self::decode(body).map_err(body_error(kind::TWIN_FRONTENDS))
    }

    fn encode(&self) -> Result<Vec<u8>, PayloadError> {
        check_limit("devices", Self::MAX_DEVICES, self.devices.len())?;
        let mut body = (self.devices.len() as u32).to_le_bytes().to_vec();
        for TwinFrontend { class, handle, nodes } in &self.devices {
            put_text(&mut body, "class of a device", Self::MAX_PATH_BYTES, check_class(class)?)?;
            body.extend(handle.to_le_bytes());
            check_limit("nodes of a device", Self::MAX_NODES, nodes.len())?;
            body.extend((nodes.len() as u32).to_le_bytes());
            for (path, value) in nodes {
                put_text(&mut body, "path", Self::MAX_PATH_BYTES, check_path(path)?)?;
                put_text(&mut body, "value", Self::MAX_VALUE_BYTES, check_value(value)?)?;
            }
        }
        Ok(body)
    }

    fn decode(body: &[u8]) -> Result<TwinFrontends, PayloadError> {
        let mut fields = Fields::new(body);
        let count = fields.count("devices", Self::MAX_DEVICES, 10)?;
        let devices = (0..count).map(|_| Self::device(&mut fields)).collect::<Result<_, _>>()?;
        fields.end()?;
        Ok(TwinFrontends { devices })
    }

    fn device(fields: &mut Fields<'_>) -> Result<TwinFrontend, PayloadError> {
        let class = fields.text("class of a device", Self::MAX_PATH_BYTES)?;
        check_class(&class)?;
        let handle = fields.u32("device")?;
        let count = fields.count("nodes of a device", Self::MAX_NODES, 4)?;
        let node = |_| {
            let path = fields.text("path", Self::MAX_PATH_BYTES)?;
            let value = fields.text("value", Self::MAX_VALUE_BYTES)?;
            check_path(&path)?;
            check_value(&value)?;
            Ok((path, value))
        };
        let nodes = (0..count).map(node).collect::<Result<_, _>>()?;
        Ok(TwinFrontend { class, handle, nodes })
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

fn check_class(class: &str) -> Result<&str, PayloadError> {
    if is_name(class) { Ok(class) } else { Err(bad("the class of a device", class.len() as u64)) }
}

fn check_path(path: &str) -> Result<&str, PayloadError> {
    if path.split('/').all(is_name) { Ok(path) } else { Err(bad("the path of a node", path.len() as u64)) }
}

fn check_value(value: &str) -> Result<&str, PayloadError> {
    let printable = value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if printable { Ok(value) } else { Err(bad("the value of a node", value.len() as u64)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frontends() -> impl Strategy<Value = TwinFrontends> {
        let node = ("[a-z0-9_-]{1,9}(/[a-z-]{1,9})?", "[ -~]{0,12}");
        let device = ("v[a-z]{2}", any::<u32>(), prop::collection::vec(node, 0..9));
        let device = device.prop_map(|(class, handle, nodes)| TwinFrontend { class, handle, nodes });
        prop::collection::vec(device, 0..5).prop_map(|devices| TwinFrontends { devices })
    }

    proptest! {
        #[test]
        fn they_round_trip(frontends in frontends()) {
            let body = frontends.to_record().unwrap().body;
            prop_assert_eq!(TwinFrontends::parse(&body), Ok(frontends));
            prop_assert!((0..body.len()).all(|length| TwinFrontends::parse(&body[..length]).is_err()));
            prop_assert!(TwinFrontends::parse(&[body.as_slice(), &[0]].concat()).is_err());
        }

        #[test]
        fn bytes_of_any_kind_are_no_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(frontends) = TwinFrontends::parse(&body) {
                prop_assert_eq!(frontends.to_record().unwrap().body, body);
            }
        }
    }

    #[test]
    fn nothing_leads_out_of_the_device() {
        let with = |class: &str, path: &str, value: &str| {
            let nodes = vec![(path.to_owned(), value.to_owned())];
            let mut body = 1_u32.to_le_bytes().to_vec();
            put_text(&mut body, "class", 64, class).unwrap();
            body.extend([0, nodes.len() as u32].map(u32::to_le_bytes).concat());
            put_text(&mut body, "path", 64, path).unwrap();
            put_text(&mut body, "value", 128, value).unwrap();
            let written = TwinFrontends { devices: vec![TwinFrontend { class: class.to_owned(), handle: 0, nodes }] };
            assert_eq!(written.to_record().is_ok(), TwinFrontends::parse(&body).is_ok());
            TwinFrontends::parse(&body).is_ok()
        };
        assert!(with("vif", "queue-0/tx-ring-ref", "8"));
        for path in ["", "/", "../../control/shutdown", "a//b", "/a", "a/", "a\0b", "a.b", "@a"] {
            assert!(!with("vif", path, "8"), "{path:?}");
        }
        assert!(!with("", "a", "8") && !with("vif/0", "a", "8") && !with("..", "a", "8"));
        assert!(!with("vif", "a", "8\n") && !with("vif", "a", "\0"));
    }
}
