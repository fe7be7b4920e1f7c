//! A question to a host that takes machines in, before anything is begun: could you take in this one?

use super::{CONNECT_TIMEOUT, SessionError};
use crate::domain::{DomainSpec, Host};
use crate::peer::{Facts, Message, PeerError, StateChannel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long the peer may take to answer: it asks its hypervisor's tools, which take a second or two on a busy host.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the peer may take no data.
const PATIENCE: Duration = CONNECT_TIMEOUT;

/// What a host says of itself, or why it does not.
pub(super) type Told = Result<Vec<(String, String)>, String>;

/// What a peer answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerAnswer {
    /// What its hypervisor says of it.
    pub facts: Vec<(String, String)>,
    /// How far the peer's wall clock is before this host's, in nanoseconds; negative when it is behind.
    pub clock_ahead_ns: i128,
    /// By how much that may be wrong: as long as it took to connect.
    pub clock_error: Duration,
}

/// Asks the host that runs `colo secondary` at `peer` (see [`StateChannel::connect`]) whether it could take that domain in. It
/// begins nothing there.
///
/// # Errors
/// [`SessionError::Peer`] when it cannot be reached, [`SessionError::Greeting`] when it does not answer in time (it may be busy with a
/// machine), [`SessionError::Refused`] with its words when it could not take in any such domain.
///
/// ```no_run
/// use colo_core::domain::DomainSpec;
/// use colo_core::session::inquire;
///
/// let spec = DomainSpec { name: "web".into(), hypervisor: "xen".into(), pfn_limit: 1, nics: vec![], disks: vec![], config: vec![] };
/// for (name, value) in inquire("other-host", &spec)?.facts {
///     println!("{name} = {value}");
/// }
/// # Ok::<(), colo_core::session::SessionError>(())
/// ```
pub fn inquire(peer: &str, spec: &DomainSpec) -> Result<PeerAnswer, SessionError> {
    let failed = |source| SessionError::Peer { peer: peer.to_owned(), source };
    let greeting = |what| SessionError::Greeting { peer: peer.to_owned(), what };
    let begun = Instant::now();
    let mut connection = StateChannel::connect(peer, PATIENCE, begun + CONNECT_TIMEOUT).map_err(failed)?;
    // The answer goes one way only: what a connection takes, there and back, is more than that.
    let clock_error = begun.elapsed();
    connection.send(&Message::Inquiry(spec.clone())).map_err(failed)?;
    match connection.recv(Instant::now() + ANSWER_TIMEOUT).map_err(failed)? {
        Some(Message::Facts(Facts { clock_ns, facts })) => {
            Ok(PeerAnswer { facts, clock_ahead_ns: i128::from(clock_ns) - i128::from(clock_ns_now()), clock_error })
        }
        Some(Message::Refused(reason)) => Err(SessionError::Refused { peer: peer.to_owned(), reason }),
        Some(_) => Err(greeting("it answered with something else")),
        None => Err(greeting("it did not answer in time")),
    }
}

/// What this host says to a question about that domain.
pub(super) fn facts(host: &mut dyn Host, spec: &DomainSpec) -> Told {
    check_hypervisor(spec, host.hypervisor())?;
    host.facts(spec).map_err(|error| error.to_string())
}

/// Whether the domain is of this host's hypervisor.
pub(super) fn check_hypervisor(spec: &DomainSpec, ours: &str) -> Result<(), String> {
    if spec.hypervisor != ours {
        return Err(format!("this host runs {ours}, domain {} needs {}", spec.name, spec.hypervisor));
    }
    Ok(())
}

/// Answers, and closes.
pub(super) fn answer(mut connection: StateChannel, told: Told) -> Result<(), PeerError> {
    let answer = match told {
        // As late as can be.
        Ok(facts) => Message::Facts(Facts { clock_ns: clock_ns_now(), facts }),
        Err(reason) => Message::Refused(reason),
    };
    match connection.send(&answer) {
        Err(PeerError::Payload { error, .. }) => {
            connection.send(&Message::Refused(format!("what is to be told of this host is too long: {error}")))
        }
        sent => sent,
    }
}

/// This host's wall clock, in nanoseconds since 1970. It fits for five centuries.
fn clock_ns_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}
