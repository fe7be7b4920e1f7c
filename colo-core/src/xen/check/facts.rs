//! A host's facts as names and values, in which they go to another host (`Facts` of the peer protocol):
//!
//! ```text
//! colo = 0.1.0                  cpu.vendor = AuthenticAMD        name_taken_by = 5
//! xen = 4.17                    cpu.family = 15                  uuid_taken_by = 5
//! can = pv hvm shadow           cpu.model = 107                  domids = 0 2 5
//! free_kib = 441344             cpu.name = QEMU Virtual CPU      bridge.xenbr0 = up 1500
//! dom0_available_kib = 310000   cpu.features = 178bf3fd:...      disk.xvda = 1048576
//! disk_server = fits
//! ```
//!
//! What is not so is left out; a name that is not known says nothing.

use super::{BridgeFacts, CpuFacts, DiskServerFit, FactsError, HostFacts};
use crate::ids::DomId;
use crate::peer::MAX_FACT_BYTES;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

/// The value of a disk server that has what the domain writes to. Of another it is the reason, which is never this word.
const FITS: &str = "fits";
/// The same of one whose disks both hosts have.
const SHARED: &str = "shared";

impl HostFacts {
    /// As names and values. Texts that are too long for a message are cut off; domains that there is no room for are left out.
    pub fn to_facts(&self) -> Vec<(String, String)> {
        let mut facts = Vec::new();
        let mut put = |name: &str, value: &dyn Display| facts.push((name.to_owned(), cut_off(value.to_string())));
        put("colo", &self.colo);
        put("xen", &format_args!("{}.{}", self.xen.0, self.xen.1));
        let abilities = [("pv", self.has_pv), ("hvm", self.has_hvm), ("shadow", self.has_shadow)];
        let abilities: Vec<&str> = abilities.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect();
        put("can", &abilities.join(" "));
        put("free_kib", &self.free_kib);
        put("dom0_available_kib", &self.dom0_available_kib);
        put("cpu.vendor", &self.cpu.vendor);
        put("cpu.family", &self.cpu.family_model.0);
        put("cpu.model", &self.cpu.family_model.1);
        put("cpu.name", &self.cpu.name);
        put("cpu.features", &self.cpu.features);
        for (name, taken_by) in [("name_taken_by", self.name_taken_by), ("uuid_taken_by", self.uuid_taken_by)] {
            if let Some(domid) = taken_by {
                put(name, &domid.0);
            }
        }
        put("domids", &domids(&self.domids));
        for (name, bridge) in &self.bridges {
            let state = if bridge.is_up { "up" } else { "down" };
            put(&format!("bridge.{name}"), &format_args!("{state} {}", bridge.mtu));
        }
        for (vdev, size_bytes) in &self.disks {
            put(&format!("disk.{vdev}"), size_bytes);
        }
        match &self.disk_server {
            None => {}
            Some(DiskServerFit::Fits) => put("disk_server", &FITS),
            Some(DiskServerFit::Shared) => put("disk_server", &SHARED),
            Some(DiskServerFit::Not(why)) => put("disk_server", why),
        }
        facts
    }

    /// What another host has told.
    ///
    /// # Errors
    /// [`FactsError`] when something is missing, or not to be understood.
    ///
    /// ```
    /// use colo_core::xen::check::HostFacts;
    ///
    /// let error = HostFacts::from_facts(&[("xen".into(), "4.17".into())]).unwrap_err();
    /// assert_eq!(error.to_string(), "the peer's answer has no valid can: run the same release of colo on both hosts");
    /// ```
    pub fn from_facts(facts: &[(String, String)]) -> Result<HostFacts, FactsError> {
        let facts = Facts(facts);
        let can: Vec<&str> = facts.need("can")?.split(' ').collect();
        let (major, minor) = facts.need("xen")?.split_once('.').ok_or_else(|| FactsError("xen".into()))?;
        Ok(HostFacts {
            colo: facts.need("colo")?.to_owned(),
            xen: (parse("xen", major)?, parse("xen", minor)?),
            has_pv: can.contains(&"pv"),
            has_hvm: can.contains(&"hvm"),
            has_shadow: can.contains(&"shadow"),
            free_kib: facts.number("free_kib")?,
            dom0_available_kib: facts.number("dom0_available_kib")?,
            cpu: CpuFacts {
                vendor: facts.need("cpu.vendor")?.to_owned(),
                family_model: (facts.number("cpu.family")?, facts.number("cpu.model")?),
                name: facts.need("cpu.name")?.to_owned(),
                features: facts.number("cpu.features")?,
            },
            name_taken_by: facts.domid("name_taken_by")?,
            uuid_taken_by: facts.domid("uuid_taken_by")?,
            domids: numbers(facts.need("domids")?)?,
            bridges: facts.all("bridge.", bridge)?,
            disks: facts.all("disk.", parse)?,
            disk_server: facts.find("disk_server").map(|value| match value {
                FITS => DiskServerFit::Fits,
                SHARED => DiskServerFit::Shared,
                why => DiskServerFit::Not(why.to_owned()),
            }),
        })
    }
}

struct Facts<'a>(&'a [(String, String)]);

impl<'a> Facts<'a> {
    fn find(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    fn need(&self, name: &str) -> Result<&'a str, FactsError> {
        self.find(name).ok_or_else(|| FactsError(name.to_owned()))
    }

    fn number<T: FromStr>(&self, name: &str) -> Result<T, FactsError> {
        parse(name, self.need(name)?)
    }

    fn domid(&self, name: &str) -> Result<Option<DomId>, FactsError> {
        self.find(name).map(|value| parse(name, value).map(DomId)).transpose()
    }

    /// Those whose names begin so, by the rest of their names.
    fn all<T>(
        &self,
        prefix: &str,
        read: impl Fn(&str, &str) -> Result<T, FactsError>,
    ) -> Result<BTreeMap<String, T>, FactsError> {
        let named = self.0.iter().filter_map(|(name, value)| Some((name, name.strip_prefix(prefix)?, value)));
        named.map(|(name, rest, value)| Ok((rest.to_owned(), read(name, value)?))).collect()
    }
}

fn parse<T: FromStr>(name: &str, value: &str) -> Result<T, FactsError> {
    value.parse().map_err(|_| FactsError(name.to_owned()))
}

fn bridge(name: &str, value: &str) -> Result<BridgeFacts, FactsError> {
    let (state, mtu) = value.split_once(' ').ok_or_else(|| FactsError(name.to_owned()))?;
    let is_up = match state {
        "up" => true,
        "down" => false,
        _ => return Err(FactsError(name.to_owned())),
    };
    Ok(BridgeFacts { is_up, mtu: parse(name, mtu)? })
}

/// As many as there is room for.
fn domids(domids: &[u32]) -> String {
    let mut text = String::new();
    for domid in domids {
        let more = if text.is_empty() { domid.to_string() } else { format!(" {domid}") };
        if text.len() + more.len() > MAX_FACT_BYTES {
            break;
        }
        text += &more;
    }
    text
}

fn numbers(text: &str) -> Result<Vec<u32>, FactsError> {
    text.split_whitespace().map(|number| parse("domids", number)).collect()
}

fn cut_off(mut text: String) -> String {
    let mut end = text.len().min(MAX_FACT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::{Facts as Message, FrameEncoder, Message as PeerMessage};
    use crate::xen::check::testing::host;
    use proptest::prelude::*;

    #[test]
    fn facts_round_trip() {
        let all = host();
        assert_eq!(HostFacts::from_facts(&all.to_facts()), Ok(all.clone()));
        for fit in [DiskServerFit::Fits, DiskServerFit::Shared, DiskServerFit::Not("no server".into())] {
            let one = HostFacts { disk_server: Some(fit), ..all.clone() };
            assert_eq!(HostFacts::from_facts(&one.to_facts()), Ok(one));
        }
        let none = HostFacts {
            has_shadow: false,
            has_hvm: false,
            has_pv: false,
            bridges: BTreeMap::new(),
            disks: BTreeMap::new(),
            disk_server: None,
            name_taken_by: Some(DomId(3)),
            uuid_taken_by: Some(DomId(4)),
            ..all
        };
        assert_eq!(HostFacts::from_facts(&none.to_facts()), Ok(none));
    }

    #[test]
    fn what_is_missing_is_named() {
        let facts = host().to_facts();
        let needed = ["colo", "xen", "can", "free_kib", "dom0_available_kib", "cpu.features", "domids"];
        for name in needed {
            let rest: Vec<_> = facts.iter().filter(|(found, _)| found != name).cloned().collect();
            assert_eq!(HostFacts::from_facts(&rest), Err(FactsError(name.to_owned())));
        }
        let text = HostFacts::from_facts(&[]).unwrap_err().to_string();
        assert_eq!(text, "the peer's answer has no valid can: run the same release of colo on both hosts");
    }

    #[test]
    fn the_largest_host_fits_a_message() {
        let large = HostFacts {
            colo: "é".repeat(MAX_FACT_BYTES),
            domids: (0..100_000).collect(),
            bridges: (0..16).map(|n| (format!("{n:015}"), BridgeFacts { is_up: true, mtu: u32::MAX })).collect(),
            disks: (0..384).map(|n| (format!("{n:064}"), u64::MAX)).collect(),
            ..host()
        };
        let facts = large.to_facts();
        let message = PeerMessage::Facts(Message { clock_ns: 0, facts: facts.clone() });
        FrameEncoder::new().encode(&message, &mut Vec::new()).unwrap();
        let read = HostFacts::from_facts(&facts).unwrap();
        assert_eq!((read.disks, read.bridges), (large.disks, large.bridges));
        assert!(read.domids.iter().copied().eq(0..read.domids.len() as u32) && read.domids.len() > 100);
    }

    proptest! {
        #[test]
        fn no_facts_do_harm(at in any::<prop::sample::Index>(), value in "\\PC{0,20}") {
            let mut facts = host().to_facts();
            let at = at.index(facts.len());
            facts[at].1 = value;
            // Read or not: what was read is what would have been told, but for how it is written.
            if let Ok(read) = HostFacts::from_facts(&facts) {
                prop_assert_eq!(HostFacts::from_facts(&read.to_facts()), Ok(read));
            }
        }
    }
}
