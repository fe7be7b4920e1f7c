//! Which libraries, and in what order.

use crate::{call, ctrl, devicemodel, evtchn, foreignmemory, gnttab, guest, light, store, toollog};
use libloading::Library;
use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;
use std::sync::OnceLock;

/// The oldest release whose libraries the bindings fit.
pub const OLDEST: Version = Version { major: 4, minor: 17 };
/// The newest release whose libraries the bindings were checked against.
pub const NEWEST: Version = Version { major: 4, minor: 22 };
/// When set, the libraries of this version (as in `4.17`) are loaded whatever the hypervisor is. For tests: the libraries load
/// on a host without Xen, and every call that needs the hypervisor then fails.
pub const VERSION_VARIABLE: &str = "COLO_XEN_LIB_VERSION";

/// A release of Xen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Version {
    /// The 4 of 4.17.
    pub major: u32,
    /// The 17 of 4.17.
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for Version {
    type Err = ();

    /// Reads `4.17`, and nothing else.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (major, minor) = text.split_once('.').ok_or(())?;
        let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => text.parse().map_err(|_| ()),
            false => Err(()),
        };
        Ok(Version { major: number(major)?, minor: number(minor)? })
    }
}

/// Why Xen's libraries are not there. Each is one line that says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The machine runs no Xen, or its dom0 does not say so.
    #[error("this is not a Xen host ({0}): boot Xen, and run this in its dom0")]
    NotXen(String),
    /// `/sys/hypervisor` does not give the hypervisor's version.
    #[error("the hypervisor's version is unknown ({path}: {source}): is sysfs mounted at /sys?")]
    VersionUnknown {
        /// The file that should give it.
        path: String,
        /// Why it does not.
        source: io::Error,
    },
    /// The variable that overrides the version is no version.
    #[error("{VERSION_VARIABLE} is \"{0}\": set it to a version such as {OLDEST}, or unset it")]
    BadOverride(String),
    /// A release that the bindings do not fit, or may not.
    #[error("Xen {0} is not supported: {OLDEST} to {NEWEST} are")]
    Unsupported(Version),
    /// A library is not installed, or cannot be used.
    #[error("cannot load {file}: install the tools of Xen {version} ({source})")]
    Library {
        /// The file, as it is asked for.
        file: String,
        /// The release that it belongs to.
        version: Version,
        /// What the dynamic loader says.
        source: libloading::Error,
    },
    /// A library lacks a function.
    #[error("{file} is not what Xen {version} has: install its tools anew ({source})")]
    Symbol {
        /// The file, as it was asked for.
        file: String,
        /// The release that it belongs to.
        version: Version,
        /// What the dynamic loader says; it names the function.
        source: libloading::Error,
    },
}

/// Xen's libraries, with every function of the bindings.
pub struct Xen {
    /// The release that the libraries belong to.
    pub version: Version,
    /// `libxenguest`.
    pub guest: guest::XenGuest,
    /// `libxenctrl`.
    pub ctrl: ctrl::XenCtrl,
    /// `libxencall`.
    pub call: call::XenCall,
    /// `libxenevtchn`.
    pub evtchn: evtchn::XenEvtchn,
    /// `libxenforeignmemory`.
    pub foreignmemory: foreignmemory::XenForeignMemory,
    /// `libxengnttab`.
    pub gnttab: gnttab::XenGnttab,
    /// `libxendevicemodel`.
    pub devicemodel: devicemodel::XenDeviceModel,
    /// `libxenstore`.
    pub store: store::XenStore,
    /// `libxentoollog`.
    pub toollog: toollog::XenToollog,
}

impl fmt::Debug for Xen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Xen").field("version", &self.version).finish_non_exhaustive()
    }
}

/// The libraries of the running hypervisor, loaded once and kept for the life of the process: callbacks and thread-local
/// data of theirs must not outlive them.
///
/// The version comes from `/sys/hypervisor`: libraries of another release would load, and be refused by every hypercall.
///
/// # Errors
/// [`LoadError`]. A later call tries again.
pub fn load() -> Result<&'static Xen, LoadError> {
    static LOADED: OnceLock<&Xen> = OnceLock::new();
    if let Some(xen) = LOADED.get() {
        return Ok(xen);
    }
    let asked = match std::env::var_os(VERSION_VARIABLE) {
        Some(asked) => {
            let text = asked.to_string_lossy();
            text.parse().map_err(|()| LoadError::BadOverride(text.into_owned()))?
        }
        None => running_version(Path::new("/sys/hypervisor"))?,
    };
    let xen = load_version(asked)?;
    Ok(LOADED.get_or_init(|| xen))
}

/// The toolstack's library of the same release, which is large and which only a few need: loaded when it is first asked for, and kept
/// for the life of the process.
///
/// # Errors
/// [`LoadError::Library`], [`LoadError::Symbol`]. A later call tries again.
pub fn load_light(xen: &Xen) -> Result<&'static light::XenLight, LoadError> {
    static LOADED: OnceLock<&light::XenLight> = OnceLock::new();
    if let Some(light) = LOADED.get() {
        return Ok(light);
    }
    let light = bind(xen.version, format!("libxenlight.so.{}", xen.version), light_functions)?;
    Ok(LOADED.get_or_init(|| Box::leak(Box::new(light))))
}

/// The libraries of this release, whatever hypervisor runs: for tests. Each call loads them, for the life of the process.
///
/// # Errors
/// [`LoadError`], but for those about the hypervisor.
pub fn load_version(version: Version) -> Result<&'static Xen, LoadError> {
    open_version(version).map(|xen| &*Box::leak(Box::new(xen)))
}

/// The hypervisor's version, by what the kernel says below `folder`.
fn running_version(folder: &Path) -> Result<Version, LoadError> {
    let kind_path = folder.join("type");
    match std::fs::read_to_string(&kind_path) {
        Ok(kind) if kind.trim_end() == "xen" => {}
        Ok(kind) => return Err(LoadError::NotXen(format!("{} is \"{}\"", kind_path.display(), kind.trim_end()))),
        Err(error) => return Err(LoadError::NotXen(format!("{}: {error}", kind_path.display()))),
    }
    let number = |name: &str| {
        let path = folder.join("version").join(name);
        let unknown = |source| LoadError::VersionUnknown { path: path.display().to_string(), source };
        let text = std::fs::read_to_string(&path).map_err(unknown)?;
        text.trim_end().parse().map_err(|error| unknown(io::Error::new(io::ErrorKind::InvalidData, error)))
    };
    Ok(Version { major: number("major")?, minor: number("minor")? })
}

fn open_version(version: Version) -> Result<Xen, LoadError> {
    if !(OLDEST..=NEWEST).contains(&version) {
        return Err(LoadError::Unsupported(version));
    }
    // The name of an unstable library is its release's, that of a stable one its interface's major number. libxenguest first: it
    // brings the libxenctrl that it was made with.
    let unstable = |name: &str| format!("{name}.so.{version}");
    Ok(Xen {
        version,
        guest: bind(version, unstable("libxenguest"), guest_functions)?,
        ctrl: bind(version, unstable("libxenctrl"), ctrl_functions)?,
        call: bind(version, "libxencall.so.1".into(), call_functions)?,
        evtchn: bind(version, "libxenevtchn.so.1".into(), evtchn_functions)?,
        foreignmemory: bind(version, "libxenforeignmemory.so.1".into(), foreignmemory_functions)?,
        gnttab: bind(version, "libxengnttab.so.1".into(), gnttab_functions)?,
        devicemodel: bind(version, "libxendevicemodel.so.1".into(), devicemodel_functions)?,
        store: bind(version, "libxenstore.so.4".into(), store_functions)?,
        toollog: bind(version, "libxentoollog.so.1".into(), toollog_functions)?,
    })
}

fn bind<T>(
    version: Version,
    file: String,
    functions: impl FnOnce(Library) -> Result<T, libloading::Error>,
) -> Result<T, LoadError> {
    // SAFETY: Xen's libraries have no initialisers that could be called at a wrong time, and whoever may put another file where the
    // system's libraries are may do anything.
    let library = unsafe { Library::new(&file) };
    let library = match library {
        Ok(library) => library,
        Err(source) => return Err(LoadError::Library { file, version, source }),
    };
    functions(library).map_err(|source| LoadError::Symbol { file, version, source })
}

macro_rules! functions {
    ($($name:ident => $bindings:ty),* $(,)?) => {$(
        fn $name(library: Library) -> Result<$bindings, libloading::Error> {
            // SAFETY: the types of the functions are those of the headers, in every release that passed the check of versions.
            unsafe { <$bindings>::from_library(library) }
        }
    )*};
}

functions! {
    guest_functions => guest::XenGuest,
    ctrl_functions => ctrl::XenCtrl,
    call_functions => call::XenCall,
    evtchn_functions => evtchn::XenEvtchn,
    foreignmemory_functions => foreignmemory::XenForeignMemory,
    gnttab_functions => gnttab::XenGnttab,
    devicemodel_functions => devicemodel::XenDeviceModel,
    store_functions => store::XenStore,
    toollog_functions => toollog::XenToollog,
    light_functions => light::XenLight,
}

#[cfg(test)]
mod tests;
