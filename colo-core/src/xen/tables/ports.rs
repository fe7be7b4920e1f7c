use crate::domain::DomainError;
use crate::ids::DomId;
use crate::stream::{PortUse, TwinPort, TwinPorts};
use crate::xen::control::ChannelStatus;
use crate::xen::evtchn::EventPort;
use crate::xen::{Control, XenError};
use rustix::io::Errno;

/// All event channels of a domain. Each port is a hypercall; a small guest has 64 that may be.
///
/// # Errors
/// When the hypervisor refuses, or knows a use for a port that is not known here.
pub fn read_ports(control: &Control, domid: DomId) -> Result<TwinPorts, DomainError> {
    let mut ports = Vec::new();
    while ports.len() < TwinPorts::MAX_PORTS {
        let port = EventPort(ports.len() as u32);
        match control.evtchn_status(domid, port) {
            Ok((status, vcpu)) => ports.push(TwinPort { connected: port_use(status, port)?, vcpu }),
            Err(error) if is_beyond(&error) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let used = ports.iter().rposition(|port| port.connected != PortUse::Closed).map_or(0, |last| last + 1);
    ports.truncate(used);
    Ok(TwinPorts { ports })
}

fn is_beyond(error: &XenError) -> bool {
    error.errno() == Some(Errno::INVAL.raw_os_error())
}

fn port_use(status: ChannelStatus, port: EventPort) -> Result<PortUse, DomainError> {
    Ok(match status {
        ChannelStatus::Closed => PortUse::Closed,
        ChannelStatus::Unbound(domain) => PortUse::Unbound(domain),
        ChannelStatus::Interdomain(domain, remote) => PortUse::Interdomain(domain, remote.0),
        ChannelStatus::Pirq(number) => PortUse::Pirq(number),
        ChannelStatus::Virq(number) => PortUse::Virq(number),
        ChannelStatus::Ipi => PortUse::Ipi,
        ChannelStatus::Other(status) => {
            return Err(DomainError::Other(format!("{port} is of a kind that is not known here ({status})")));
        }
    })
}

/// The first port that is not used in the same way by both, in words. The number of another domain's port is that domain's own, and a
/// channel that nobody has taken yet is as good as one. Which vCPU another domain's events go to is told only if `vcpus_matter`: a
/// guest with the smaller interface for events (2-level) masks by it.
pub fn first_difference(primary: &TwinPorts, secondary: &TwinPorts, vcpus_matter: bool) -> Option<String> {
    let at = |ports: &TwinPorts, number: usize| ports.ports.get(number).copied().unwrap_or(TwinPort::CLOSED);
    let count = primary.ports.len().max(secondary.ports.len());
    (0..count).find_map(|number| {
        let (primary, secondary) = (at(primary, number), at(secondary, number));
        let same = alike(primary.connected, secondary.connected)
            && (primary.vcpu == secondary.vcpu || !(vcpus_matter || is_of_vcpu(primary.connected)));
        let difference = || format!("port {number} is {}, the twin's is {}", tell(primary), tell(secondary));
        (!same).then(difference)
    })
}

fn alike(one: PortUse, other: PortUse) -> bool {
    let with = |port| match port {
        PortUse::Unbound(domain) | PortUse::Interdomain(domain, _) => Some(domain),
        _ => None,
    };
    match (with(one), with(other)) {
        (None, None) => one == other,
        (one, other) => one == other,
    }
}

/// Whether the port belongs to a vCPU, so that another vCPU's is another.
fn is_of_vcpu(connected: PortUse) -> bool {
    matches!(connected, PortUse::Virq(_) | PortUse::Ipi)
}

fn tell(port: TwinPort) -> String {
    match port.connected {
        PortUse::Closed => "closed".into(),
        PortUse::Unbound(domain) => format!("kept for {domain}"),
        PortUse::Interdomain(domain, _) => format!("connected with {domain}, for vCPU {}", port.vcpu),
        PortUse::Pirq(number) => format!("interrupt {number}, for vCPU {}", port.vcpu),
        PortUse::Virq(number) => format!("VIRQ {number} of vCPU {}", port.vcpu),
        PortUse::Ipi => format!("an IPI of vCPU {}", port.vcpu),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Table = Vec<(PortUse, u32)>;

    fn ports(ports: &[(PortUse, u32)]) -> TwinPorts {
        TwinPorts { ports: ports.iter().map(|&(connected, vcpu)| TwinPort { connected, vcpu }).collect() }
    }

    const DOM0: DomId = DomId(0);

    /// As a PVH guest of one vCPU has them, with the remote ports of its host.
    fn small(remote: u32) -> Table {
        let mut ports = vec![
            (PortUse::Closed, 0),
            (PortUse::Interdomain(DOM0, remote), 0),
            (PortUse::Interdomain(DOM0, remote + 1), 0),
            (PortUse::Virq(0), 0),
        ];
        ports.extend([(PortUse::Ipi, 0); 3]);
        ports
    }

    #[test]
    fn twins_have_the_same_ports_whatever_their_hosts_call_theirs() {
        let (one, mut other) = (small(20), small(31));
        assert_eq!(first_difference(&ports(&one), &ports(&other), true), None);
        other[2] = (PortUse::Unbound(DOM0), 0);
        assert_eq!(first_difference(&ports(&one), &ports(&other), true), None, "its backend has let go of it");
        other[1].1 = 1;
        assert_eq!(first_difference(&ports(&one), &ports(&other), false), None);
        assert!(first_difference(&ports(&one), &ports(&other), true).is_some());
    }

    #[test]
    fn any_other_difference_is_told() {
        let one = small(20);
        let differs = |change: &dyn Fn(&mut Table)| {
            let mut other = one.clone();
            change(&mut other);
            let told = first_difference(&ports(&one), &ports(&other), false).unwrap();
            // Both ways round.
            assert!(first_difference(&ports(&other), &ports(&one), false).is_some());
            told
        };
        assert_eq!(differs(&|ports| ports[4].1 = 1), "port 4 is an IPI of vCPU 0, the twin's is an IPI of vCPU 1");
        assert_eq!(
            differs(&|ports| ports.push((PortUse::Unbound(DOM0), 0))),
            "port 7 is closed, the twin's is kept for domain 0"
        );
        assert_eq!(
            differs(&|ports| ports[3].0 = PortUse::Virq(1)),
            "port 3 is VIRQ 0 of vCPU 0, the twin's is VIRQ 1 of vCPU 0"
        );
        differs(&|ports| ports[1].0 = PortUse::Interdomain(DomId(4), 20));
        differs(&|ports| ports[1].0 = PortUse::Closed);
        differs(&|ports| ports[3].0 = PortUse::Pirq(0));
        differs(&|ports| ports.truncate(6));
    }
}
