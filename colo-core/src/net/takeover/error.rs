use crate::net::sys::LinkName;
use std::io;
use std::path::PathBuf;

/// Why a card was not taken over, or not put back.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum TakeoverError {
    /// No such device.
    #[error("there is no network device {0}: `ip link` shows those that there are")]
    NoDevice(LinkName),
    /// It is a port of nothing.
    #[error("{0} is in no bridge: put it into its clients' first (ip link set {0} master BRIDGE)")]
    NotInBridge(LinkName),
    /// It belongs to something that is not a bridge of Linux' own.
    #[error("{vif} belongs to {master}, which is no Linux bridge: only a card in a Linux bridge can be taken over")]
    NoBridge {
        /// The card.
        vif: LinkName,
        /// What it belongs to.
        master: LinkName,
    },
    /// The name of the TAP is another's.
    #[error("there is a network device {0} already: remove it (ip link delete {0}), or give another name")]
    TapExists(LinkName),
    /// Another has it, or is about to put it back.
    #[error("{vif} is taken over by another colo{}: stop that one first", process.map_or(String::new(), |id| format!(" (process {id})")))]
    Busy {
        /// The card.
        vif: LinkName,
        /// Who; none if it has not said so yet.
        process: Option<u32>,
    },
    /// An earlier takeover's process died when another host could have taken the guest over.
    #[error(
        "{0} was left out of its bridge when its guest was protected and colo died; the other host may serve that guest: look there \
         first, then `colo cleanup` ends what is left here, or `colo net repair --kept-out` puts the card back"
    )]
    KeptOut(LinkName),
    /// The rights are missing.
    #[error("{0} needs CAP_NET_ADMIN and CAP_NET_RAW: run colo as root")]
    NotAllowed(String),
    /// There is nothing to put it back into.
    #[error(
        "the bridge {bridge} of {vif} is gone: make it again and run `colo net repair`, or put {vif} elsewhere (ip link set {vif} \
         master BRIDGE; ip link set {vif} up)"
    )]
    BridgeGone {
        /// The card.
        vif: LinkName,
        /// Its bridge.
        bridge: LinkName,
    },
    /// The card has another name now.
    #[error(
        "{vif} is called {now} now: put it back by hand (ip link set {now} master {bridge}; ip link set {now} up), and remove {file}"
    )]
    Renamed {
        /// The card.
        vif: LinkName,
        /// Its name now.
        now: LinkName,
        /// Its bridge.
        bridge: LinkName,
        /// The record of it.
        file: PathBuf,
    },
    /// It was taken over in another network namespace.
    #[error("{vif} was taken over in another network namespace: run `colo net repair` there")]
    OtherNamespace {
        /// The card.
        vif: LinkName,
    },
    /// The record is not one of this version's.
    #[error("{file}: {why}: put its card back by hand (docs/network.md), and remove the file")]
    BadRecord {
        /// The record.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The kernel refused.
    #[error("{doing}: {error}")]
    Kernel {
        /// What was to be done.
        doing: String,
        /// What it said.
        error: io::Error,
    },
    /// A file of ours.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Nobody could be left to put it back.
    #[error("a process to watch over this one: {0}")]
    Guard(io::Error),
}

/// Turns what the kernel says into what an operator can do about it.
pub(super) fn doing(what: impl FnOnce() -> String) -> impl FnOnce(io::Error) -> TakeoverError {
    move |error| match error.kind() {
        io::ErrorKind::PermissionDenied => TakeoverError::NotAllowed(what()),
        _ => TakeoverError::Kernel { doing: what(), error },
    }
}
