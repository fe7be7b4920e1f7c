//! Our own records of a domain that runs beside its twin on another host: what belongs to its state, beside memory and what Xen's
//! stream has, so that the twin can be given it while it stays the domain that its toolstack has made.
//!
//! | record | what it holds |
//! | --- | --- |
//! | [`kind::TWIN_PORTS`] | [`TwinPorts`]: its event channels |
//! | [`kind::TWIN_GRANTS`] | [`TwinGrants`]: its grant table |
//! | [`kind::TWIN_SHARED_INFO`] | [`TwinSharedInfo`]: the page that it shares with the hypervisor |
//! | [`kind::TWIN_FRONTENDS`] | [`TwinFrontends`]: what its devices' drivers have published |
//! | [`kind::TWIN_POPULATED`] | [`PfnRanges`]: which pages it has |
//!
//! ```
//! use colo_core::ids::Pfn;
//! use colo_core::stream::PfnRanges;
//!
//! let populated: PfnRanges = (0..0x10).chain(0x11..0x7fff).map(Pfn).collect();
//! let record = populated.to_record()?;
//! assert_eq!(PfnRanges::parse(&record.body)?, populated);
//! assert_eq!(populated.count(), 0x7ffe);
//! # Ok::<(), colo_core::stream::StreamError>(())
//! ```

mod frontends;
mod ranges;

pub use frontends::{TwinFrontend, TwinFrontends};
pub use ranges::PfnRanges;

use super::error::{Fault, StreamError};
use super::kind;
use crate::domain::StateRecord;
use crate::ids::{DomId, PAGE_SIZE, Page};
use crate::peer::PayloadError;
use crate::peer::wire::{Fields, check_limit};
use std::ops::Range;

/// What a port is connected with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PortUse {
    /// Nothing.
    Closed,
    /// Nothing yet: this domain may connect to it.
    Unbound(DomId),
    /// A port of another domain, by its number there.
    Interdomain(DomId, u32),
    /// An interrupt of a device.
    Pirq(u32),
    /// Something that the hypervisor tells.
    Virq(u32),
    /// Another vCPU.
    Ipi,
}

/// One end of an event channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TwinPort {
    /// What it is connected with.
    pub connected: PortUse,
    /// The vCPU that gets its events.
    pub vcpu: u32,
}

impl TwinPort {
    /// A port that is not used.
    pub const CLOSED: TwinPort = TwinPort { connected: PortUse::Closed, vcpu: 0 };
}

/// The event channels of a domain, by their numbers: the first is port 0.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct TwinPorts {
    /// All but the closed ones at the end.
    pub ports: Vec<TwinPort>,
}

impl TwinPorts {
    /// The most ports: what Xen's larger interface for events has.
    pub const MAX_PORTS: usize = 1 << 17;

    /// The TWIN_PORTS record.
    ///
    /// # Errors
    /// [`Fault::Body`]: more ports than the limit, or a domain that cannot be.
    pub fn to_record(&self) -> Result<StateRecord, StreamError> {
        self.encode().map(record(kind::TWIN_PORTS)).map_err(body_error(kind::TWIN_PORTS))
    }

    /// Reads the record's body.
    ///
    /// # Errors
    /// [`Fault::Body`].
    pub fn parse(body: &[u8]) -> Result<TwinPorts, StreamError> {
        Self::decode(body).map_err(body_error(kind::TWIN_PORTS))
    }

    fn encode(&self) -> Result<Vec<u8>, PayloadError> {
        check_limit("ports", Self::MAX_PORTS, self.ports.len())?;
        let mut body = (self.ports.len() as u32).to_le_bytes().to_vec();
        for TwinPort { connected, vcpu } in &self.ports {
            let (status, domain, number) = match *connected {
                PortUse::Closed => (0, DomId(0), 0),
                PortUse::Unbound(domain) => (1, domain, 0),
                PortUse::Interdomain(domain, port) => (2, domain, port),
                PortUse::Pirq(number) => (3, DomId(0), number),
                PortUse::Virq(number) => (4, DomId(0), number),
                PortUse::Ipi => (5, DomId(0), 0),
            };
            body.extend(u16::to_le_bytes(status));
            let domain = u16::try_from(domain.0);
            body.extend(domain.map_err(|_| bad("domain of a port", u64::MAX))?.to_le_bytes());
            body.extend(u32::to_le_bytes(number));
            body.extend(vcpu.to_le_bytes());
        }
        Ok(body)
    }

    fn decode(body: &[u8]) -> Result<TwinPorts, PayloadError> {
        let mut fields = Fields::new(body);
        let count = fields.count("ports", Self::MAX_PORTS, 12)?;
        let ports = (0..count).map(|_| {
            let (status, domain) = (fields.u16("port")?, DomId(fields.u16("port")?.into()));
            let (number, vcpu) = (fields.u32("port")?, fields.u32("port")?);
            let connected = match (status, domain.0, number) {
                (0, 0, 0) => PortUse::Closed,
                (1, _, 0) => PortUse::Unbound(domain),
                (2, _, _) => PortUse::Interdomain(domain, number),
                (3, 0, _) => PortUse::Pirq(number),
                (4, 0, _) => PortUse::Virq(number),
                (5, 0, 0) => PortUse::Ipi,
                _ => return Err(bad("use of a port", status.into())),
            };
            Ok(TwinPort { connected, vcpu })
        });
        let ports = ports.collect::<Result<_, _>>()?;
        fields.end()?;
        Ok(TwinPorts { ports })
    }
}

/// An entry of a grant table of version 1, as Xen's public headers have it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct GrantEntry {
    /// What may be done, and what is being done.
    pub flags: u16,
    /// By whom.
    pub domain: u16,
    /// With which of the guest's frames.
    pub frame: u32,
}

/// The grant table of a domain, by the entries' numbers.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct TwinGrants {
    /// All but the unused ones at the end.
    pub entries: Vec<GrantEntry>,
}

impl TwinGrants {
    /// The most entries: 512 frames of them, 8 times what Xen gives a domain unless it is told otherwise.
    pub const MAX_ENTRIES: usize = 512 * PAGE_SIZE / 8;

    /// The TWIN_GRANTS record.
    ///
    /// # Errors
    /// [`Fault::Body`]: more entries than the limit.
    pub fn to_record(&self) -> Result<StateRecord, StreamError> {
        let kind = kind::TWIN_GRANTS;
        check_limit("grants", Self::MAX_ENTRIES, self.entries.len()).map_err(body_error(kind))?;
        let mut body = (self.entries.len() as u32).to_le_bytes().to_vec();
        for GrantEntry { flags, domain, frame } in &self.entries {
            body.extend(flags.to_le_bytes());
            body.extend(domain.to_le_bytes());
            body.extend(frame.to_le_bytes());
        }
        Ok(StateRecord { kind, body })
    }

    /// Reads the record's body.
    ///
    /// # Errors
    /// [`Fault::Body`].
    pub fn parse(body: &[u8]) -> Result<TwinGrants, StreamError> {
        Self::decode(body).map_err(body_error(kind::TWIN_GRANTS))
    }

    fn decode(body: &[u8]) -> Result<TwinGrants, PayloadError> {
        let mut fields = Fields::new(body);
        let count = fields.count("grants", Self::MAX_ENTRIES, 8)?;
        let what = "grant";
        let entry =
            |_| Ok(GrantEntry { flags: fields.u16(what)?, domain: fields.u16(what)?, frame: fields.u32(what)? });
        let entries = (0..count).map(entry).collect::<Result<_, _>>()?;
        fields.end()?;
        Ok(TwinGrants { entries })
    }
}

/// The page that a domain shares with the hypervisor, without the host's own clock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TwinSharedInfo(Box<Page>);

impl TwinSharedInfo {
    /// Where the hypervisor keeps what the wall clock was when its host started: each host's own.
    pub const CLOCK: Range<usize> = 3072..3088;

    /// From the page as it is.
    pub fn new(mut page: Box<Page>) -> TwinSharedInfo {
        page[Self::CLOCK].fill(0);
        TwinSharedInfo(page)
    }

    /// The page, with zeroes for the clock.
    pub fn page(&self) -> &Page {
        &self.0
    }

    /// The TWIN_SHARED_INFO record.
    pub fn to_record(&self) -> StateRecord {
        StateRecord { kind: kind::TWIN_SHARED_INFO, body: self.0.to_vec() }
    }

    /// Reads the record's body.
    ///
    /// # Errors
    /// [`Fault::BadLength`]; [`Fault::NotZero`] when there is a clock in it.
    pub fn parse(body: &[u8]) -> Result<TwinSharedInfo, StreamError> {
        let kind = kind::TWIN_SHARED_INFO;
        let page = <&Page>::try_from(body).map_err(|_| Fault::BadLength { kind, length: body.len() }.at_start())?;
        match page[Self::CLOCK].iter().all(|byte| *byte == 0) {
            true => Ok(TwinSharedInfo(Box::new(*page))),
            false => Err(Fault::NotZero { kind, what: "the clock" }.at_start()),
        }
    }
}

/// Reads a record's body, if it is one of those here.
pub(super) fn check(kind: u32, body: &[u8]) -> Result<(), StreamError> {
    match kind {
        kind::TWIN_PORTS => TwinPorts::parse(body).map(drop),
        kind::TWIN_GRANTS => TwinGrants::parse(body).map(drop),
        kind::TWIN_SHARED_INFO => TwinSharedInfo::parse(body).map(drop),
        kind::TWIN_FRONTENDS => TwinFrontends::parse(body).map(drop),
        kind::TWIN_POPULATED => PfnRanges::parse(body).map(drop),
        _ => Ok(()),
    }
}

fn record(kind: u32) -> impl Fn(Vec<u8>) -> StateRecord {
    move |body| StateRecord { kind, body }
}

fn body_error(kind: u32) -> impl Fn(PayloadError) -> StreamError {
    move |error| Fault::Body { kind, error }.at_start()
}

fn bad(what: &'static str, got: u64) -> PayloadError {
    PayloadError::BadValue { what, got }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn port() -> impl Strategy<Value = TwinPort> {
        let domain = || any::<u16>().prop_map(|domain| DomId(domain.into()));
        let connected = prop_oneof![
            Just(PortUse::Closed),
            Just(PortUse::Ipi),
            domain().prop_map(PortUse::Unbound),
            (domain(), any::<u32>()).prop_map(|(domain, port)| PortUse::Interdomain(domain, port)),
            any::<u32>().prop_map(PortUse::Pirq),
            any::<u32>().prop_map(PortUse::Virq),
        ];
        (connected, any::<u32>()).prop_map(|(connected, vcpu)| TwinPort { connected, vcpu })
    }

    fn grant() -> impl Strategy<Value = GrantEntry> {
        any::<(u16, u16, u32)>().prop_map(|(flags, domain, frame)| GrantEntry { flags, domain, frame })
    }

    /// Cut off anywhere, or with something behind it, a body is refused.
    fn refused<T>(body: &[u8], parse: impl Fn(&[u8]) -> Result<T, StreamError>) -> bool {
        (0..body.len()).all(|length| parse(&body[..length]).is_err()) && parse(&[body, &[0]].concat()).is_err()
    }

    proptest! {
        #[test]
        fn ports_round_trip(ports in prop::collection::vec(port(), 0..70)) {
            let ports = TwinPorts { ports };
            let record = ports.to_record().unwrap();
            prop_assert_eq!(TwinPorts::parse(&record.body), Ok(ports));
            prop_assert!(refused(&record.body, TwinPorts::parse));
        }

        #[test]
        fn grants_round_trip(entries in prop::collection::vec(grant(), 0..70)) {
            let grants = TwinGrants { entries };
            let record = grants.to_record().unwrap();
            prop_assert_eq!(TwinGrants::parse(&record.body), Ok(grants));
            prop_assert!(refused(&record.body, TwinGrants::parse));
        }

        #[test]
        fn bytes_of_any_kind_are_no_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (TwinPorts::parse(&body), TwinGrants::parse(&body), TwinSharedInfo::parse(&body));
            if let Ok(ports) = TwinPorts::parse(&body) {
                prop_assert_eq!(ports.to_record().unwrap().body, body);
            }
        }
    }

    #[test]
    fn a_use_that_means_nothing_is_refused() {
        let body = |status: u16, domain: u16, number: u32| {
            let mut body = 1_u32.to_le_bytes().to_vec();
            body.extend([status.to_le_bytes(), domain.to_le_bytes()].concat());
            body.extend([number, 0].map(u32::to_le_bytes).concat());
            TwinPorts::parse(&body)
        };
        assert!(body(5, 0, 0).is_ok());
        for (status, domain, number) in [(6, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (4, 1, 0), (5, 0, 1)] {
            assert!(body(status, domain, number).is_err(), "{status} {domain} {number}");
        }
    }

    #[test]
    fn a_count_that_lies_makes_no_room() {
        let body = u32::MAX.to_le_bytes();
        assert!(TwinPorts::parse(&body).is_err() && TwinGrants::parse(&body).is_err());
        let body = (TwinPorts::MAX_PORTS as u32).to_le_bytes();
        assert!(TwinPorts::parse(&body).is_err() && TwinGrants::parse(&body).is_err());
    }

    #[test]
    fn the_clock_stays_at_home() {
        let shared = TwinSharedInfo::new(Box::new([7; PAGE_SIZE]));
        assert_eq!((shared.page()[3071], shared.page()[3072], shared.page()[3088]), (7, 0, 7));
        let mut record = shared.to_record();
        assert_eq!(TwinSharedInfo::parse(&record.body), Ok(shared));
        record.body[3080] = 1;
        assert!(TwinSharedInfo::parse(&record.body).is_err());
        assert!(TwinSharedInfo::parse(&record.body[1..]).is_err());
    }
}
