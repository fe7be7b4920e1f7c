//! What is written down of a card before it is touched: everything that it takes to put it back.
//!
//! Lines of words, for an operator to read, too. The last line is `end`: a record without it was never complete, and its card
//! never touched.
//!
//! ```text
//! colo-takeover 2
//! process 4711
//! namespace 4026531840
//! orphan put-back
//! vif 7 vif5.0
//! tap 9 colo5.0
//! bridge 3 xenbr0
//! up 1
//! arp 0
//! host disable_ipv6 0
//! host rp_filter 2
//! setting 5 0100
//! vlan 6 5
//! end
//! ```

use crate::net::sys::{BridgePort, LinkId, LinkName};
use std::fmt::{self, Write};
use std::str::FromStr;

/// A device: the number is what counts, the name is for its reader, and shows whether it is still that one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Device {
    pub(super) id: LinkId,
    pub(super) name: LinkName,
}

/// What is to become of a card whose process has died.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Orphan {
    /// It goes back into its bridge: its guest shall serve on.
    PutBack,
    /// It stays out of its bridge: its guest may be served by another host by now, and must not be seen twice.
    StayOut,
}

/// A card that is taken over, as it was before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Record {
    /// Who has it.
    pub(super) process: u32,
    /// What if that dies.
    pub(super) orphan: Orphan,
    /// The network namespace that the numbers are of.
    pub(super) namespace: u64,
    pub(super) vif: Device,
    pub(super) tap: Device,
    pub(super) bridge: Device,
    pub(super) is_up: bool,
    pub(super) has_arp: bool,
    /// What the host's IP was told about the card: see [`super::quiet`].
    pub(super) host: Vec<(String, i32)>,
    pub(super) port: BridgePort,
}

const TITLE: &str = "colo-takeover 2";
const END: &str = "end";
/// More than a port with all the VLANs that there are needs.
pub(super) const MAX_BYTES: usize = 128 << 10;

/// What became of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Written {
    /// The whole of it.
    Whole(Record),
    /// Its writer died, or the disk was full, before anything was touched.
    Part,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{TITLE}\nprocess {}\nnamespace {}", self.process, self.namespace)?;
        // Both are of one length, so that the one can be written over the other.
        let orphan = if self.orphan == Orphan::PutBack { "put-back" } else { "stay-out" };
        writeln!(f, "orphan {orphan}")?;
        for (role, device) in [("vif", &self.vif), ("tap", &self.tap), ("bridge", &self.bridge)] {
            writeln!(f, "{role} {} {}", device.id, device.name)?;
        }
        writeln!(f, "up {}\narp {}", u8::from(self.is_up), u8::from(self.has_arp))?;
        for (name, value) in &self.host {
            writeln!(f, "host {name} {value}")?;
        }
        for (kind, value) in &self.port.settings {
            writeln!(f, "setting {kind} {}", hex(value))?;
        }
        for (flags, number) in &self.port.vlans {
            writeln!(f, "vlan {flags} {number}")?;
        }
        writeln!(f, "{END}")
    }
}

impl FromStr for Written {
    type Err = String;

    fn from_str(text: &str) -> Result<Written, String> {
        let Some(text) = text.strip_suffix(&format!("{END}\n")) else { return Ok(Written::Part) };
        let mut lines = text.lines();
        if lines.next() != Some(TITLE) {
            return Err("not a record of this version of colo".into());
        }
        let (mut process, mut namespace, mut is_up, mut has_arp) = (None, None, None, None);
        let (mut vif, mut tap, mut bridge, mut orphan) = (None, None, None, None);
        let (mut host, mut port) = (Vec::new(), BridgePort::default());
        for line in lines {
            let known = match line.split(' ').collect::<Vec<_>>()[..] {
                ["process", id] => set(&mut process, id.parse().ok()),
                ["namespace", id] => set(&mut namespace, id.parse().ok()),
                ["orphan", "put-back"] => set(&mut orphan, Some(Orphan::PutBack)),
                ["orphan", "stay-out"] => set(&mut orphan, Some(Orphan::StayOut)),
                ["vif", id, name] => set(&mut vif, device(id, name)),
                ["tap", id, name] => set(&mut tap, device(id, name)),
                ["bridge", id, name] => set(&mut bridge, device(id, name)),
                ["up", value] => set(&mut is_up, flag(value)),
                ["arp", value] => set(&mut has_arp, flag(value)),
                ["host", name, value] => value.parse().ok().map(|value| host.push((name.to_owned(), value))),
                ["setting", kind, value] => {
                    pair(kind.parse().ok(), unhex(value)).map(|setting| port.settings.push(setting))
                }
                ["vlan", flags, number] => {
                    pair(flags.parse().ok(), number.parse().ok()).map(|vlan| port.vlans.push(vlan))
                }
                _ => None,
            };
            known.ok_or_else(|| format!("{line:?} makes no sense"))?;
        }
        let missing = |what: &str| format!("no line {what:?}");
        Ok(Written::Whole(Record {
            process: process.ok_or_else(|| missing("process"))?,
            namespace: namespace.ok_or_else(|| missing("namespace"))?,
            orphan: orphan.ok_or_else(|| missing("orphan"))?,
            vif: vif.ok_or_else(|| missing("vif"))?,
            tap: tap.ok_or_else(|| missing("tap"))?,
            bridge: bridge.ok_or_else(|| missing("bridge"))?,
            is_up: is_up.ok_or_else(|| missing("up"))?,
            has_arp: has_arp.ok_or_else(|| missing("arp"))?,
            host,
            port,
        }))
    }
}

/// Sets a value that must come once.
fn set<T>(place: &mut Option<T>, value: Option<T>) -> Option<()> {
    let is_new = place.is_none();
    *place = value;
    (is_new && place.is_some()).then_some(())
}

fn pair<A, B>(a: Option<A>, b: Option<B>) -> Option<(A, B)> {
    a.zip(b)
}

fn device(id: &str, name: &str) -> Option<Device> {
    Some(Device { id: LinkId(id.parse().ok()?), name: name.parse().ok()? })
}

fn flag(text: &str) -> Option<bool> {
    match text {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    // No word is empty.
    if text.is_empty() { "-".into() } else { text }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text == "-" {
        return Some(Vec::new());
    }
    let digits: Vec<u8> =
        text.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect::<Option<_>>()?;
    let whole = !digits.is_empty() && digits.len() % 2 == 0;
    whole.then(|| digits.chunks_exact(2).map(|two| two[0] << 4 | two[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn any_device() -> impl Strategy<Value = Device> {
        (any::<u32>(), "[a-z][a-z0-9.-]{0,14}")
            .prop_map(|(id, name)| Device { id: LinkId(id), name: name.parse().unwrap() })
    }

    fn any_record() -> impl Strategy<Value = Record> {
        let devices = (any_device(), any_device(), any_device());
        let orphan = prop_oneof![Just(Orphan::PutBack), Just(Orphan::StayOut)];
        let flags = (any::<u32>(), any::<u64>(), any::<bool>(), any::<bool>(), orphan);
        let host = vec(("[a-z_]{1,12}", any::<i32>()), 0..3);
        let port = (vec((any::<u16>(), vec(any::<u8>(), 0..9)), 0..20), vec(any::<(u16, u16)>(), 0..9));
        (devices, flags, host, port).prop_map(|(devices, flags, host, (settings, vlans))| {
            let ((vif, tap, bridge), (process, namespace, is_up, has_arp, orphan)) = (devices, flags);
            let port = BridgePort { settings, vlans };
            Record { process, namespace, orphan, vif, tap, bridge, is_up, has_arp, host, port }
        })
    }

    proptest! {
        #[test]
        fn a_record_is_read_as_it_was_written(record in any_record(), cut in any::<prop::sample::Index>()) {
            let text = record.to_string();
            prop_assert_eq!(text.parse(), Ok(Written::Whole(record)));
            // Wherever its writer died.
            prop_assert_eq!(text[..cut.index(text.len())].parse(), Ok(Written::Part));
        }

        #[test]
        fn bad_records_are_errors(record in any_record(), at in any::<prop::sample::Index>(), with in "\\PC{0,3}|\n| ") {
            let mut text = record.to_string();
            let at = at.index(text.len() - END.len() - 1);
            text.replace_range(at..=at, &with);
            if let Ok(Written::Whole(read)) = text.parse() {
                // Then it says something else, or the same in another way; a third there is not.
                prop_assert!(read.to_string().parse() == Ok(Written::Whole(read)));
            }
        }

        #[test]
        fn arbitrary_text_does_no_harm(text in "\\PC{0,200}", lines in vec("(process|vif|setting|vlan|up|end|) ?[0-9a-f]{0,9}", 0..9)) {
            for text in [text, format!("{TITLE}\n{}\n{END}\n", lines.join("\n"))] {
                prop_assert!(!matches!(text.parse(), Ok(Written::Whole(_))), "a record has three devices");
            }
        }
    }

    proptest! {
        #[test]
        fn the_one_fate_can_be_written_over_the_other(record in any_record()) {
            let length = |orphan| Record { orphan, ..record.clone() }.to_string().len();
            prop_assert_eq!(length(Orphan::PutBack), length(Orphan::StayOut));
        }
    }

    #[test]
    fn what_is_missing_doubled_or_unknown_is_told() {
        let whole = "colo-takeover 2\nprocess 1\nnamespace 2\norphan put-back\nvif 7 vif5.0\ntap 9 colo5.0\nbridge 3 xenbr0\nup 1\narp 0\nend\n";
        assert!(matches!(whole.parse(), Ok(Written::Whole(_))));
        for (from, to, told) in [
            ("takeover 2", "takeover 3", "not a record of this version of colo"),
            ("up 1\n", "", "no line \"up\""),
            ("up 1\n", "up 1\nup 0\n", "\"up 0\" makes no sense"),
            ("put-back", "put-away", "\"orphan put-away\" makes no sense"),
            ("arp 0", "arp 2", "\"arp 2\" makes no sense"),
            ("vif 7 vif5.0", "vif 7 a/b", "\"vif 7 a/b\" makes no sense"),
            ("arp 0", "arp 0\nsetting 5 012", "\"setting 5 012\" makes no sense"),
            ("arp 0", "arp 0\nvlan 6", "\"vlan 6\" makes no sense"),
        ] {
            let text = whole.replace(from, to);
            assert_eq!(text.parse::<Written>(), Err(told.to_owned()), "{text}");
        }
    }
}
