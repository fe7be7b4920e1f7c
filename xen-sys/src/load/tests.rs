use super::*;
use std::fs;
use std::path::PathBuf;

/// A folder that looks like /sys/hypervisor, and is gone when dropped.
struct Hypervisor(PathBuf);

impl Hypervisor {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let folder = std::env::temp_dir().join(format!("xen-sys-{}-{name}", std::process::id()));
        fs::create_dir_all(folder.join("version")).unwrap();
        for (name, content) in files {
            fs::write(folder.join(name), content).unwrap();
        }
        Hypervisor(folder)
    }
}

impl Drop for Hypervisor {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn versions_are_read_strictly() {
    assert_eq!("4.17".parse(), Ok(Version { major: 4, minor: 17 }));
    for text in ["", "4", "4.", ".17", "4.17.0", "+4.17", "4.-1", "4.17 ", "4.99999999999"] {
        assert_eq!(text.parse::<Version>(), Err(()), "{text}");
    }
}

#[test]
fn the_running_version_comes_from_sysfs() {
    let xen = Hypervisor::new("xen", &[("type", "xen\n"), ("version/major", "4\n"), ("version/minor", "19\n")]);
    assert_eq!(running_version(&xen.0).unwrap(), Version { major: 4, minor: 19 });
}

#[test]
fn a_host_without_xen_is_told_in_one_line() {
    let none = Hypervisor::new("none", &[]);
    let other = Hypervisor::new("other", &[("type", "lguest\n")]);
    for folder in [&none, &other] {
        let error = running_version(&folder.0).unwrap_err();
        assert!(matches!(error, LoadError::NotXen(_)), "{error:?}");
        let line = error.to_string();
        assert!(
            line.starts_with("this is not a Xen host (") && line.ends_with("): boot Xen, and run this in its dom0"),
            "{line}"
        );
        assert_eq!(line.lines().count(), 1);
    }
}

#[test]
fn a_version_that_cannot_be_read_is_told() {
    for (name, minor) in [("absent", None), ("text", Some("many\n"))] {
        let mut files = vec![("type", "xen\n"), ("version/major", "4\n")];
        files.extend(minor.map(|minor| ("version/minor", minor)));
        let folder = Hypervisor::new(name, &files);
        let error = running_version(&folder.0).unwrap_err();
        assert!(matches!(error, LoadError::VersionUnknown { .. }), "{error:?}");
        assert!(error.to_string().contains("version/minor"), "{error}");
    }
}

#[test]
fn releases_that_the_bindings_do_not_fit_are_refused() {
    for (major, minor) in [(4, 16), (4, 23), (3, 20), (5, 0)] {
        let version = Version { major, minor };
        let error = load_version(version).unwrap_err();
        assert_eq!(error.to_string(), format!("Xen {version} is not supported: 4.17 to 4.22 are"));
    }
}

#[test]
fn a_missing_library_is_named() {
    let version = Version { major: 4, minor: 20 };
    let error = bind(version, "libxenabsent.so.4.20".into(), ctrl_functions).err().unwrap();
    let line = error.to_string();
    assert!(line.starts_with("cannot load libxenabsent.so.4.20: install the tools of Xen 4.20 ("), "{line}");
    assert_eq!(line.lines().count(), 1);
}

#[test]
fn a_missing_function_is_named() {
    // The C library is everywhere, and has none of Xen's functions.
    let error = bind(OLDEST, "libc.so.6".into(), gnttab_functions).err().unwrap();
    assert!(matches!(error, LoadError::Symbol { .. }), "{error:?}");
    let line = error.to_string();
    assert!(line.starts_with("libc.so.6 is not what Xen 4.17 has") && line.contains("xengnttab_"), "{line}");
}

/// Where they are installed, the libraries have all the functions; where they are not, the error says which one is missing.
#[test]
fn the_oldest_release_loads_where_it_is_installed() {
    match load_version(OLDEST) {
        Ok(xen) => assert_eq!(xen.version, OLDEST),
        Err(LoadError::Library { file, .. }) => {
            assert_eq!(file, "libxenguest.so.4.17");
            eprintln!("SKIPPED: Xen 4.17's libraries are not installed (Debian 12: libxenmisc4.17 libxendevicemodel1)");
        }
        Err(error) => panic!("{error}"),
    }
}
