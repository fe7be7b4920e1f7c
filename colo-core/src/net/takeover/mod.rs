//! A guest's network card, taken out of its bridge and given a TAP in its place, and put back.
//!
//! ```text
//! before:      clients === xenbr0 === vif5.0 --- guest
//!
//! taken over:  clients === xenbr0 === colo5.0 (Tap) <- this process -> (PacketSocket) vif5.0 --- guest
//! ```
//!
//! At no moment are both in the bridge: no frame goes in a circle, and none comes twice. The TAP has the card's place in the bridge with
//! all its settings (VLANs, isolation, flooding, spanning tree), its MTU and its address; the host itself is silent and deaf on both.
//!
//! The guest must not lose its network for ever, however this ends:
//!
//! * [`Takeover::stop`] puts the card back; dropping it does what would be done if this process died:
//! * When this process is killed, its [`Guard`] does; unless it was told that the card must [stay out](Orphan::StayOut), because another
//!   host may serve the guest by then.
//! * When the guard was killed, too, there is a record in [`STATE_FOLDER`], from which [`repair`] does, or the next
//!   [`Takeover::start`] of that card. A record is locked by whoever has the card: it is not touched while its process or its guard lives.
//!
//! Several cards at once are several takeovers. Everything happens in the network namespace of the calling thread, which must be the
//! same for start and stop. The guards make copies of this process: begin before there is much to copy.
//!
//! ```no_run
//! use colo_core::net::Port;
//! use colo_core::net::takeover::Takeover;
//!
//! let (takeover, mut guest, mut clients) = Takeover::start(&"vif5.0".parse()?, &"colo5.0".parse()?)?;
//! let mut frames = Vec::new();
//! guest.receive(&mut frames)?;
//! clients.send(&frames)?;
//! takeover.stop()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod put_back;
mod quiet;
mod record;
mod state_file;

pub use error::TakeoverError;
pub use record::Orphan;

use crate::guard::Guard;
use crate::net::sys::{Link, LinkName, Links, Offloads, PacketSocket, Promiscuous, Tap};
use error::doing;
use put_back::{put_back, settle};
use record::{Device, Record, Written};
use rustix::io::Errno;
use state_file::StateFile;
use std::ffi::OsStr;
use std::fmt;
use std::fs::read_dir;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where it is written down which cards are taken over: a file for each, of its name. Gone with the next start of the host, as all
/// that they are about.
pub const STATE_FOLDER: &str = "/run/colo/net";

/// So many frames may wait for us in a TAP, as they do when a pause is long. What a bridge sends into a full one is dropped unseen.
const QUEUE_FRAMES: u32 = 8192;

/// Somebody to put a card back when this process is killed: for a takeover to come.
///
/// It has a copy of all that this process had in memory when it was started ([`Guard::start`]). Of a guest's memory that would be as much again,
/// and nothing else in this process could go on while it is made: so start it before there is any.
#[derive(Debug)]
#[must_use]
pub struct CardGuard(Guard);

impl CardGuard {
    /// Starts it, in the network namespace of the cards.
    ///
    /// # Errors
    /// [`TakeoverError::Guard`]: when there can be no more processes.
    pub fn start() -> Result<CardGuard, TakeoverError> {
        Guard::start(put_back_after_death).map(CardGuard).map_err(TakeoverError::Guard)
    }
}

/// A card that is taken over, until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Takeover {
    record: Record,
    /// None once it is over.
    held: Option<(StateFile, Guard)>,
}

impl Takeover {
    /// Takes a card over: takes it out of its bridge, puts a new TAP there, and returns the guest's side and the clients'. Nothing passes
    /// between them but what the caller carries. If an earlier takeover of the card was never ended, that is done first.
    ///
    /// What is under way at that moment is lost, as when a cable is moved.
    ///
    /// # Errors
    /// [`TakeoverError`]. Everything is as it was before, then.
    pub fn start(vif: &LinkName, tap: &LinkName) -> Result<(Takeover, PacketSocket, Tap), TakeoverError> {
        Self::start_in(Path::new(STATE_FOLDER), vif, tap)
    }

    /// As [`Takeover::start`], with another folder for records, which is made where it is not there.
    ///
    /// # Errors
    /// As [`Takeover::start`].
    pub fn start_in(
        folder: &Path,
        vif: &LinkName,
        tap: &LinkName,
    ) -> Result<(Takeover, PacketSocket, Tap), TakeoverError> {
        let (takeover, guest, clients) = Self::take(folder, vif, tap, Orphan::PutBack, CardGuard::start()?)?;
        takeover.join()?;
        Ok((takeover, guest, clients))
    }

    /// As [`Takeover::start`], but nothing enters the bridge: the guest is not to be seen there until [`Takeover::join`]. Nor if this
    /// process dies before: the card [stays out](Orphan::StayOut).
    ///
    /// # Errors
    /// As [`Takeover::start`].
    pub fn start_aside(
        vif: &LinkName,
        tap: &LinkName,
        guard: CardGuard,
    ) -> Result<(Takeover, PacketSocket, Tap), TakeoverError> {
        Self::start_aside_in(Path::new(STATE_FOLDER), vif, tap, guard)
    }

    /// As [`Takeover::start_aside`], with another folder for records.
    ///
    /// # Errors
    /// As [`Takeover::start`].
    pub fn start_aside_in(
        folder: &Path,
        vif: &LinkName,
        tap: &LinkName,
        guard: CardGuard,
    ) -> Result<(Takeover, PacketSocket, Tap), TakeoverError> {
        Self::take(folder, vif, tap, Orphan::StayOut, guard)
    }

    /// The TAP enters the bridge, in the card's place.
    ///
    /// # Errors
    /// [`TakeoverError`].
    pub fn join(&self) -> Result<(), TakeoverError> {
        let Record { vif, tap, bridge, port, .. } = &self.record;
        let what = || format!("putting {} into {} for {}", tap.name, bridge.name, vif.name);
        let mut links = Links::open().map_err(doing(what))?;
        // Up at the end, so that nothing passes before the port is what the card's was.
        links.set_master(tap.id, Some(bridge.id)).map_err(doing(what))?;
        links.set_bridge_port(tap.id, port).map_err(doing(what))?;
        links.set_up(tap.id, true).map_err(doing(what))
    }

    /// Says what is to become of the card if this process dies. On return it is sure.
    ///
    /// # Errors
    /// [`TakeoverError::File`]: it is as it was before.
    pub fn set_orphan(&mut self, orphan: Orphan) -> Result<(), TakeoverError> {
        let record = Record { orphan, ..self.record.clone() };
        if let Some((file, _)) = &self.held {
            file.overwrite(&record)?;
        }
        self.record = record;
        Ok(())
    }

    fn take(
        folder: &Path,
        vif: &LinkName,
        tap: &LinkName,
        orphan: Orphan,
        CardGuard(mut guard): CardGuard,
    ) -> Result<(Takeover, PacketSocket, Tap), TakeoverError> {
        let what = || format!("taking {vif} over");
        let mut links = Links::open().map_err(doing(what))?;
        find(&mut links, vif)?;
        let mut file = StateFile::take(folder, vif)?;
        if let Written::Whole(left) = file.read()? {
            if settle(&left, file.path())? == Repaired::KeptOut {
                return Err(TakeoverError::KeptOut(vif.clone()));
            }
            file.set_obsolete();
        }
        let card = find(&mut links, vif)?;
        let bridge = bridge_of(&mut links, &card)?;
        let port = links.bridge_port(card.id).map_err(doing(what))?;
        let port = port.ok_or_else(|| TakeoverError::NotInBridge(vif.clone()))?;
        if links.find(tap).is_ok() {
            return Err(TakeoverError::TapExists(tap.clone()));
        }
        guard.keep(&file).map_err(TakeoverError::Guard)?;
        let clients = Tap::open(tap, Offloads::On).map_err(|error| match error.kind() {
            io::ErrorKind::ResourceBusy | io::ErrorKind::InvalidInput => TakeoverError::TapExists(tap.clone()),
            _ => doing(what)(error),
        })?;
        let tap = links.find(tap).map_err(doing(what))?;
        dress(&mut links, &tap, &card).map_err(doing(what))?;

        let record = Record {
            process: std::process::id(),
            orphan,
            namespace: namespace()?,
            vif: Device { id: card.id, name: card.name.clone() },
            tap: Device { id: tap.id, name: tap.name },
            bridge: Device { id: bridge.id, name: bridge.name },
            is_up: card.is_up,
            has_arp: card.has_arp,
            host: quiet::settings(vif).map_err(doing(what))?,
            port,
        };
        file.write(&record)?;
        if let Err(error) = guard.watch(file.path().as_os_str().as_bytes()) {
            file.remove();
            return Err(TakeoverError::Guard(error));
        }
        // Nothing was touched so far. From here on it is put back in any case.
        let takeover = Takeover { record, held: Some((file, guard)) };
        takeover.take_out(&mut links).map_err(doing(what))?;
        // Not earlier: what came to the card in the bridge has passed there.
        let guest = PacketSocket::open(vif, Promiscuous::Yes).map_err(doing(what))?;
        Ok((takeover, guest, clients))
    }

    /// Puts the card back. Both ports are of no use from then on: frames that were received, and not sent on yet, are lost.
    ///
    /// # Errors
    /// [`TakeoverError`]: the guard has tried, too, and the record is still there for [`repair`].
    pub fn stop(mut self) -> Result<(), TakeoverError> {
        self.end(put_back)
    }

    /// The card leaves its bridge.
    fn take_out(&self, links: &mut Links) -> io::Result<()> {
        let vif = &self.record.vif;
        // The host's IP would get to see it as soon as it is in no bridge.
        quiet::silence(&vif.name)?;
        links.set_arp(vif.id, false)?;
        links.set_master(vif.id, None)
    }

    fn end(
        &mut self,
        how: impl FnOnce(&Record, &Path) -> Result<Repaired, TakeoverError>,
    ) -> Result<(), TakeoverError> {
        let Some((file, guard)) = self.held.take() else { return Ok(()) };
        match how(&self.record, file.path()) {
            Ok(ended) => {
                guard.dismiss();
                if ended != Repaired::KeptOut {
                    file.remove();
                }
                Ok(())
            }
            Err(error) => {
                // It tries once more.
                drop(guard);
                if file.is_removed() { Ok(()) } else { Err(error) }
            }
        }
    }
}

impl Drop for Takeover {
    fn drop(&mut self) {
        if let Err(error) = self.end(settle) {
            tracing::error!(vif = %self.record.vif.name, %error, "not put back");
        }
    }
}

/// What became of a card that a takeover had left behind.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Repaired {
    /// It is in its bridge.
    PutBack {
        /// Its bridge.
        bridge: LinkName,
    },
    /// Somebody has put it into another one; there it stays.
    Elsewhere,
    /// It is gone, with its guest.
    Gone,
    /// It is still there, and out of its bridge: its process died when another host could have taken its guest over.
    KeptOut,
    /// It had not been touched.
    Untouched,
    /// It is not left behind: whoever has taken it over is alive, or its guard is about to put it back.
    InUse {
        /// Who; none if it has not said so yet.
        process: Option<u32>,
    },
}

/// What [`Repaired::KeptOut`] says.
const KEPT_OUT: &str = "left out of its bridge: its guest was protected, and the other host may serve it by now; `colo cleanup` ends \
    what is left of it here, `colo net repair --kept-out` puts the card back all the same";

impl fmt::Display for Repaired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Repaired::PutBack { bridge } => write!(f, "put back into {bridge}"),
            Repaired::Elsewhere => f.write_str("in another bridge meanwhile: stays there"),
            Repaired::Gone => f.write_str("gone, with its guest: nothing to put back"),
            Repaired::KeptOut => f.write_str(KEPT_OUT),
            Repaired::Untouched => f.write_str("had not been touched"),
            Repaired::InUse { process: Some(id) } => write!(f, "in use by process {id}: left alone"),
            Repaired::InUse { process: None } => f.write_str("in use: left alone"),
        }
    }
}

/// What [`repair`] did about one card.
#[derive(Debug)]
pub struct Repair {
    /// The card.
    pub vif: LinkName,
    /// What became of it.
    pub result: Result<Repaired, TakeoverError>,
}

/// Puts back what killed takeovers whose guards were killed, too, have left; all of it, whatever goes wrong with one. The folder is
/// [`STATE_FOLDER`], unless they were started with another. Nothing to be done is no error.
///
/// # Errors
/// When the folder cannot be read.
///
/// ```
/// use colo_core::net::takeover::repair;
///
/// assert!(repair("/nonexistent/colo".as_ref())?.is_empty());
/// # Ok::<(), colo_core::net::takeover::TakeoverError>(())
/// ```
pub fn repair(folder: &Path) -> Result<Vec<Repair>, TakeoverError> {
    repair_with(folder, &settle)
}

/// As [`repair`], those included that were to [stay out](Orphan::StayOut) and `which` says yes to, by the name of the TAP that was in
/// their place: for an operator who knows that no other host serves their guests.
///
/// # Errors
/// As [`repair`].
pub fn repair_kept_out(folder: &Path, which: impl Fn(&LinkName) -> bool) -> Result<Vec<Repair>, TakeoverError> {
    repair_with(folder, &|record, file| {
        if which(&record.tap.name) { put_back(record, file) } else { settle(record, file) }
    })
}

/// How a card is put back.
type Way<'a> = &'a dyn Fn(&Record, &Path) -> Result<Repaired, TakeoverError>;

fn repair_with(folder: &Path, way: Way<'_>) -> Result<Vec<Repair>, TakeoverError> {
    let failed = |error| TakeoverError::File { path: folder.to_owned(), error };
    let entries = match read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut cards = Vec::new();
    for entry in entries {
        // What is no card's name is no record of ours.
        cards.extend(entry.map_err(failed)?.file_name().to_str().and_then(|name| name.parse::<LinkName>().ok()));
    }
    cards.sort();
    Ok(cards.into_iter().map(|vif| Repair { result: repair_one(folder, &vif, way), vif }).collect())
}

fn repair_one(folder: &Path, vif: &LinkName, way: Way<'_>) -> Result<Repaired, TakeoverError> {
    match StateFile::take(folder, vif) {
        Ok(file) => put_back_from(file, way),
        Err(TakeoverError::Busy { process, .. }) => Ok(Repaired::InUse { process }),
        Err(error) => Err(error),
    }
}

fn put_back_from(mut file: StateFile, way: Way<'_>) -> Result<Repaired, TakeoverError> {
    let repaired = match file.read()? {
        Written::Whole(record) => way(&record, file.path())?,
        Written::Part => Repaired::Untouched,
    };
    if repaired != Repaired::KeptOut {
        file.remove();
    }
    Ok(repaired)
}

/// What a guard does: it was told where the record is, and has been given it open and locked.
fn put_back_after_death(path: &[u8], mut kept: Vec<OwnedFd>) {
    let path = PathBuf::from(OsStr::from_bytes(path));
    let Some(file) = kept.pop() else { return };
    if let Err(error) = put_back_from(StateFile::taken_over(file, path), &settle) {
        // Not by a log, whose lock may have been another thread's when this process was made.
        let _ = rustix::io::write(io::stderr(), format!("colo: {error}\n").as_bytes());
    }
}

fn find(links: &mut Links, vif: &LinkName) -> Result<Link, TakeoverError> {
    links.find(vif).map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::NODEV) => TakeoverError::NoDevice(vif.clone()),
        _ => doing(|| format!("asking for {vif}"))(error),
    })
}

fn bridge_of(links: &mut Links, card: &Link) -> Result<Link, TakeoverError> {
    let vif = card.name.clone();
    let master = card.master.ok_or_else(|| TakeoverError::NotInBridge(vif.clone()))?;
    let bridge = links.get(master).map_err(doing(|| format!("asking for the bridge of {vif}")))?;
    if bridge.is_bridge() { Ok(bridge) } else { Err(TakeoverError::NoBridge { vif, master: bridge.name }) }
}

/// Makes a new TAP look like the card.
fn dress(links: &mut Links, tap: &Link, card: &Link) -> io::Result<()> {
    quiet::silence(&tap.name)?;
    links.set_arp(tap.id, false)?;
    links.set_mtu(tap.id, card.mtu)?;
    links.set_queue_frames(tap.id, QUEUE_FRAMES)?;
    // A bridge that was given no address of its own has its lowest port's: it must not change.
    card.address.map_or(Ok(()), |address| links.set_address(tap.id, address))
}

/// The number of this thread's network namespace.
fn namespace() -> Result<u64, TakeoverError> {
    let path = Path::new("/proc/thread-self/ns/net");
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(metadata.ino()),
        Err(error) => Err(TakeoverError::File { path: path.to_owned(), error }),
    }
}
