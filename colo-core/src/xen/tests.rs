use super::*;
use crate::ids::DomId;
use std::io;

/// The libraries where they are installed, whatever the machine runs. All tests that want them ask for the same version, and tests run
/// as threads of one process: the variable is set once.
pub(super) fn libraries() -> Option<Xen> {
    static LOADED: std::sync::OnceLock<Option<Xen>> = std::sync::OnceLock::new();
    *LOADED.get_or_init(|| match xen_sys::load_version(xen_sys::OLDEST) {
        Ok(xen) => Some(Xen(xen)),
        Err(error) => {
            eprintln!("SKIPPED: {error}");
            None
        }
    })
}

#[test]
fn errors_name_the_call_the_domain_and_the_reason() {
    let error = XenError::new("xc_domain_pause", DomId(3), io::Error::from_raw_os_error(3));
    assert_eq!(error.to_string(), "xc_domain_pause(domain 3): No such process (os error 3)");
    assert!(error.is_no_such_domain() && !error.is_unsupported());
    let error = XenError::new("xc_version", None, io::Error::from_raw_os_error(95));
    assert!(error.to_string().starts_with("xc_version: "), "{error}");
    assert!(error.is_unsupported());
    let error = XenError::new("xs_write", None, io::Error::from_raw_os_error(13)).at("/local/domain/3/name");
    assert_eq!(error.to_string(), "xs_write(/local/domain/3/name): Permission denied (os error 13)");
    let error = XenError::invalid("xc_x", None, "no".into());
    assert_eq!((error.errno(), error.to_string().as_str()), (None, "xc_x: no"));
}

/// Where there is no hypervisor a handle cannot be opened, and says so.
#[test]
fn without_a_hypervisor_no_handle_opens() {
    if is_xen_host() {
        eprintln!("SKIPPED: this is a Xen host");
        return;
    }
    let Some(xen) = libraries() else { return };
    let error = Control::open(xen).err().expect("there is no hypervisor");
    assert_eq!(error.call, "xc_interface_open");
    assert!(matches!(error.source.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied), "{error}");
    let error = ForeignMemory::open(xen).err().expect("there is no hypervisor");
    assert_eq!(error.call, "xenforeignmemory_open");
    let error = EventChannels::open(xen).err().expect("there is no hypervisor");
    assert_eq!(error.call, "xenevtchn_open");
    let error = GrantTable::open(xen).err().expect("there is no hypervisor");
    assert_eq!(error.call, "xengnttab_open");
    let error = DeviceModel::open(xen).err().expect("there is no hypervisor");
    assert_eq!(error.call, "xendevicemodel_open");
    let error = XenStore::open(xen).err().expect("there is no xenstored");
    assert_eq!(error.call, "xs_open");
}

#[test]
fn handles_may_move_to_another_thread() {
    fn may_move<T: Send>() {}
    may_move::<Control>();
    may_move::<ForeignMemory>();
    may_move::<EventChannels>();
    may_move::<GrantTable>();
    may_move::<DeviceModel>();
    may_move::<XenStore>();
    may_move::<Suspender>();
    may_move::<Mapping>();
}
