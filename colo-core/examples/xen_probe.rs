//! Tries every handle of `colo_core::xen` on a real host: `xen_probe` lists domains, `xen_probe DOMID...` looks into them, suspends
//! and resumes them. The guests go on as if nothing had been.

use colo_core::ids::{DomId, Mfn, PAGE_SIZE, Pfn};
use colo_core::xen::control::{MachToPhys, MmuextOp};
use colo_core::xen::evtchn::EventPort;
use colo_core::xen::foreign::Resource;
use colo_core::xen::suspend::{SuspendWay, Timeouts};
use colo_core::xen::{
    Access, Control, DeviceModel, DomainInfo, EventChannels, ForeignMemory, GrantTable, ShutdownReason, Suspender, Xen,
    XenStore,
};
use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant};
use xen_sys::ctrl::{arch_shared_info_x86_64, shared_info_x86_64};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

struct Handles {
    xen: Xen,
    control: Control,
    memory: ForeignMemory,
    store: XenStore,
    model: DeviceModel,
    grants: GrantTable,
    table: MachToPhys,
}

fn main() -> Result {
    tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(std::io::stderr).init();
    let xen = Xen::open()?;
    let control = Control::open(xen)?;
    println!("libraries {}, hypervisor {:?}, {}", xen.version(), control.version()?, control.capabilities()?);
    println!("virt start {:#x}, compat m2p at {:?}", control.virt_start()?, control.compat_machphys_frame());
    let memory = ForeignMemory::open(xen)?;
    let table = timed("map the machine-to-physical table", || control.mach_to_phys(&memory))?;
    println!("  {} frames", table.len());
    let handles = Handles {
        xen,
        store: XenStore::open(xen)?,
        model: DeviceModel::open(xen)?,
        grants: GrantTable::open(xen)?,
        control,
        memory,
        table,
    };
    for info in handles.control.domains()? {
        let home = handles.store.domain_path(info.domid)?;
        println!("{}: {:?}\n  {info:?}", info.domid, handles.store.read_text(&format!("{home}/name"))?);
    }
    println!("no such domain: {}", handles.control.pause(DomId(999)).unwrap_err());
    println!("no such domain: {:?}", handles.control.domain_info(DomId(999))?);
    store_and_channels(&handles)?;
    let mut failed = 0;
    for argument in std::env::args().skip(1) {
        let domid = DomId(argument.parse()?);
        if let Err(error) = look_into(&handles, domid) {
            println!("{domid} FAILED: {error}");
            failed += 1;
        }
    }
    println!("probe done, {failed} failed");
    if failed > 0 { Err("some failed".into()) } else { Ok(()) }
}

fn store_and_channels(handles: &Handles) -> Result {
    let store = &handles.store;
    store.watch("/tool/xen_probe", "mine")?;
    store.write("/tool/xen_probe/a", b"1")?;
    store.mkdir("/tool/xen_probe/b")?;
    let mut events = Vec::new();
    while let Some(event) = store.wait(Instant::now() + Duration::from_millis(100))? {
        events.push(event.path);
    }
    assert!(events.contains(&"/tool/xen_probe/a".into()), "{events:?}");
    let sum = store.transaction(|transaction| {
        let value: u32 = transaction.read_text("/tool/xen_probe/a")?.unwrap_or_default().parse().unwrap_or(0);
        transaction.write("/tool/xen_probe/a", (value + 1).to_string().as_bytes())?;
        Ok(value + 1)
    })?;
    assert_eq!((sum, store.read_text("/tool/xen_probe/a")?.as_deref()), (2, Some("2")));
    // A transaction that loses a race is done again.
    let mut tries = 0;
    store.transaction(|transaction| {
        tries += 1;
        transaction.read("/tool/xen_probe/a")?;
        if tries == 1 {
            store.write("/tool/xen_probe/a", b"7")?;
        }
        transaction.write("/tool/xen_probe/a", b"8")
    })?;
    assert_eq!((tries, store.read_text("/tool/xen_probe/a")?.as_deref()), (2, Some("8")));
    assert_eq!(store.directory("/tool/xen_probe")?, Some(vec!["a".into(), "b".into()]));
    println!("permissions: {:?}", store.permissions("/tool/xen_probe/a")?);
    assert!(store.rm("/tool/xen_probe")?);
    assert_eq!((store.read("/tool/xen_probe/a")?, store.directory("/tool/xen_probe")?), (None, None));
    store.unwatch("/tool/xen_probe", "mine")?;
    println!("zero byte: {}", store.read("/a\0b").unwrap_err());

    // Both ends of a channel in dom0.
    let (ours, theirs) = (EventChannels::open(handles.xen)?, EventChannels::open(handles.xen)?);
    let first = ours.bind_unbound(DomId(0))?;
    let second = theirs.bind_interdomain(DomId(0), first)?;
    // A fresh interdomain port is pending; take what is there.
    while let Some(port) = theirs.wait(Instant::now())? {
        theirs.unmask(port)?;
    }
    ours.notify(first)?;
    assert_eq!(theirs.wait(Instant::now() + Duration::from_secs(5))?, Some(second));
    assert_eq!(theirs.wait(Instant::now())?, None);
    println!("port in dom0: {:?}", handles.control.evtchn_status(DomId(0), first)?);
    println!("not ours: {}", ours.notify(EventPort(4000)).unwrap_err());
    Ok(())
}

fn look_into(handles: &Handles, domid: DomId) -> Result {
    let control = &handles.control;
    let info = control.domain_info(domid)?.ok_or("no such domain")?;
    println!("== {domid}, {}", if info.hvm { "HVM or PVH" } else { "PV" });
    println!("tsc {:?}", control.tsc_info(domid)?);
    let policy = control.cpu_policy(domid)?;
    println!("policy: {} leaves, {} MSRs", policy.cpuid.len(), policy.msrs.len());
    println!("vcpu 0: {:?}", control.vcpu_info(domid, 0)?);
    println!("{} gpfns, highest {:#x}", control.nr_gpfns(domid)?, control.max_gpfn(domid)?);
    for port in 0..12 {
        if let Ok((status, vcpu)) = control.evtchn_status(domid, EventPort(port)) {
            print!("  {port}: {status:?}@{vcpu}");
        }
    }
    println!();
    memory(handles, &info)?;
    log_dirty(handles, &info)?;
    if info.hvm {
        println!("ioreq servers: {:?}", (0..8).map(|id| handles.model.ioreq_server(domid, id)).collect::<Vec<_>>());
        println!("{} vcpus at most", handles.model.nr_vcpus(domid)?);
    }

    let mut suspender = Suspender::open(handles.xen, domid)?;
    for round in 0..3 {
        let way = timed("suspend", || suspender.suspend(Timeouts::default()))?;
        println!("  {way}: {:?}", control.domain_info(domid)?.and_then(|info| info.shutdown));
        assert_eq!(suspender.suspend(Timeouts::default())?, SuspendWay::Already);
        if round == 0 {
            state(handles, &info)?;
        }
        timed("resume", || suspender.resume())?;
        // It must have run before it can be asked again.
        let_run(control, domid)?;
    }
    let way = timed("forced suspend", || suspender.force(Duration::from_secs(10)))?;
    assert_eq!(way, SuspendWay::Forced);
    if info.hvm {
        // Whoever was halted would sleep on: an interrupt, the vector of Linux's event channels.
        handles.model.inject_msi(domid, 0xfee0_0000, 0xf3)?;
    }
    timed("resume", || suspender.resume())?;
    // Paused, it cannot answer: the request is taken back.
    control.pause(domid)?;
    let short = Timeouts { acknowledge: Duration::from_millis(500), suspend: Duration::from_millis(500) };
    println!("paused: {:?}", suspender.suspend(short).map_err(|error| error.to_string()));
    let request = format!("{}/control/shutdown", handles.store.domain_path(domid)?);
    println!("  the request is {:?}", handles.store.read_text(&request)?);
    control.unpause(domid)?;
    assert_eq!(
        control.domain_info(domid)?.map(|info| (info.paused, info.shutdown)),
        Some((false, None::<ShutdownReason>))
    );
    Ok(())
}

/// Returns when the domain has run for 50 ms.
fn let_run(control: &Control, domid: DomId) -> Result {
    let used = || control.domain_info(domid).map(|info| info.map_or(0, |info| info.cpu_time_ns));
    let (before, deadline) = (used()?, Instant::now() + Duration::from_secs(20));
    while used()? < before + 50_000_000 {
        if Instant::now() > deadline {
            return Err("it does not run".into());
        }
        std::thread::yield_now();
    }
    Ok(())
}

fn memory(handles: &Handles, info: &DomainInfo) -> Result {
    let (control, domid) = (&handles.control, info.domid);
    let frames = frames(handles, info)?;
    let mut types = vec![0; frames.len()];
    timed("page types", || control.page_types(domid, &frames, &mut types))?;
    let mut summary = BTreeMap::new();
    for kind in &types {
        *summary.entry(kind >> 28).or_insert(0) += 1;
    }
    println!("  {} frames: {summary:x?}", frames.len());
    let present: Vec<u64> =
        frames.iter().zip(&types).filter(|(_, kind)| **kind >> 28 != 0xf).map(|(frame, _)| *frame).take(8192).collect();
    if !info.hvm {
        let agree = frames.iter().zip(0..).filter(|(frame, pfn)| handles.table.get(**frame) == Some(Pfn(*pfn))).count();
        println!("  {agree} of {} agree with the machine-to-physical table", frames.len());
    }
    let mapping = timed("map", || handles.memory.map_partial(domid, Access::Read, &present))?;
    let bad = (0..mapping.len()).filter(|page| mapping.page_error(*page).is_some()).count();
    let mut page = [0; PAGE_SIZE];
    let zeroes = timed("read", || -> Result<usize> {
        let good = (0..mapping.len()).filter(|page| mapping.page_error(*page).is_none());
        Ok(good
            .filter(|index| {
                mapping.read_page(*index, &mut page);
                page.iter().all(|byte| *byte == 0)
            })
            .count())
    })?;
    println!("  {} pages mapped, {bad} not, {zeroes} are zeroes", mapping.len() - bad);
    println!(
        "  a frame that is not there: {}",
        handles.memory.map(domid, Access::Read, &[1 << 40]).err().ok_or("mapped")?
    );

    change_memory(handles, info)?;
    let grants = handles.memory.map_resource(domid, Resource::GrantTable, 0, 1, Access::Read)?;
    let mut entry = [0; 8];
    let mut used = Vec::new();
    for reference in 0..64 {
        grants.read_bytes(0, 8 * reference, &mut entry);
        if entry[0] & 3 == 1 {
            used.push(reference as u32);
        }
    }
    println!("  grants in use: {used:?}");
    if let Some(first) = used.first() {
        println!(
            "  grant {first}: {:?}",
            handles
                .grants
                .map(domid, Access::Read, &[*first])
                .map(|mapping| mapping.len())
                .map_err(|error| error.to_string())
        );
    }
    println!("  grant 9999: {}", handles.grants.map(domid, Access::Read, &[9999]).err().ok_or("mapped")?);
    Ok(())
}

/// A page more, written, cleared and taken away again.
fn change_memory(handles: &Handles, info: &DomainInfo) -> Result {
    let (control, domid) = (&handles.control, info.domid);
    let gfn = if info.hvm { 0xfe000 } else { control.nr_gpfns(domid)? + 10 };
    let mut frames = [gfn];
    control.populate_physmap_exact(domid, 0, 0, &mut frames)?;
    println!("  gfn {gfn:#x} is frame {:#x} now", frames[0]);
    let mut types = [u32::MAX];
    control.page_types(domid, &frames, &mut types)?;
    assert_eq!(types, [0]);
    let mut mapping = handles.memory.map(domid, Access::ReadWrite, &frames)?;
    mapping.write_page(0, &[7; PAGE_SIZE]);
    mapping.write_bytes(0, 100, &[8, 9]);
    let mut bytes = [0; 4];
    mapping.read_bytes(0, 99, &mut bytes);
    assert_eq!(bytes, [7, 8, 9, 7]);
    control.clear_pages(domid, frames[0], 1)?;
    mapping.read_bytes(0, 99, &mut bytes);
    assert_eq!(bytes, [0; 4]);
    mapping.write_page(0, &[7; PAGE_SIZE]);
    mapping.zero_page(0);
    mapping.read_bytes(0, 99, &mut bytes);
    assert_eq!(bytes, [0; 4]);
    drop(mapping);
    assert_eq!(control.decrease_reservation(domid, 0, &frames)?, 1);
    assert!(handles.memory.map(domid, Access::Read, &frames).is_err());
    // Only as much as it may have.
    let mut many: Vec<u64> = (0..1000).map(|index| gfn + index).collect();
    let done = control.populate_physmap(domid, 0, 0, &mut many)?;
    println!(
        "  {done} of 1000 more pages; exactly: {}",
        control.populate_physmap_exact(domid, 0, 0, &mut many[done..]).unwrap_err()
    );
    assert_eq!(control.decrease_reservation(domid, 0, &many[..done])?, done);
    let port = control.evtchn_alloc_unbound(domid, DomId(0))?;
    println!("  {port}: {:?}", control.evtchn_status(domid, port)?);
    Ok(())
}

/// The frames of a domain's pages, in their order: guest frames for HVM and PVH; for PV the machine frames of the guest's own table, which
/// its shared page leads to in three steps.
fn frames(handles: &Handles, info: &DomainInfo) -> Result<Vec<u64>> {
    let limit = handles.control.nr_gpfns(info.domid)?;
    if info.hvm {
        return Ok((0..limit).collect());
    }
    let words = |frames: &[u64]| -> Result<Vec<u64>> {
        let mapping = handles.memory.map(info.domid, Access::Read, frames)?;
        let mut bytes = vec![0; frames.len() * PAGE_SIZE];
        mapping.read_pages(0, &mut bytes);
        Ok(bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes"))).collect())
    };
    let arch = std::mem::offset_of!(shared_info_x86_64, arch);
    let list = arch + std::mem::offset_of!(arch_shared_info_x86_64, pfn_to_mfn_frame_list_list);
    let top = words(&[info.shared_info_frame.0])?[list / 8];
    let middle = words(&[top])?;
    let leaves = limit.div_ceil(512) as usize;
    let list = words(&middle[..leaves.div_ceil(512)])?;
    let mut frames = words(&list[..leaves])?;
    frames.truncate(limit as usize);
    Ok(frames)
}

fn log_dirty(handles: &Handles, info: &DomainInfo) -> Result {
    let (control, domid) = (&handles.control, info.domid);
    if let Err(error) = timed("enable log-dirty", || control.enable_log_dirty(domid)) {
        println!("  {error}; unsupported: {}", error.is_unsupported());
        return Ok(());
    }
    println!("  again: {:?}", control.enable_log_dirty(domid).map_err(|error| error.to_string()));
    let pages = control.nr_gpfns(domid)?;
    let mut words = vec![0; pages.div_ceil(64) as usize];
    for _ in 0..3 {
        let_run(control, domid)?;
        let peeked = control.peek_log_dirty(domid, pages, &mut words)?;
        let set: u32 = words.iter().map(|word| word.count_ones()).sum();
        let stats = timed("clean", || control.clean_log_dirty(domid, pages, &mut words, false))?;
        let cleaned: u32 = words.iter().map(|word| word.count_ones()).sum();
        println!("  peek {peeked:?} ({set} bits), clean {stats:?} ({cleaned} bits)");
    }
    control.disable_log_dirty(domid)?;
    println!(
        "  off, then: {:?}",
        control.clean_log_dirty(domid, pages, &mut words, false).map_err(|error| error.to_string())
    );
    Ok(())
}

/// The state of a suspended domain, read and set again.
fn state(handles: &Handles, info: &DomainInfo) -> Result {
    let (control, domid) = (&handles.control, info.domid);
    let tsc = control.tsc_info(domid)?;
    if info.hvm {
        let mut context = Vec::new();
        timed("get HVM context", || control.hvm_context(domid, &mut context))?;
        timed("set HVM context", || control.set_hvm_context(domid, &context))?;
        let mut again = Vec::new();
        control.hvm_context(domid, &mut again)?;
        println!("  {} bytes, the same again: {}", context.len(), context == again);
        for (name, index) in [("store", 1), ("console", 17), ("callback irq", 0), ("nested", 24)] {
            println!("  param {name}: {:?}", control.hvm_param(domid, index).map_err(|error| error.to_string()));
        }
        println!("  no such param: {}", control.hvm_param(domid, 9999).unwrap_err());
        let store = control.hvm_param(domid, 1)?;
        control.set_hvm_param(domid, 1, store)?;
        println!("  broken context: {}", control.set_hvm_context(domid, &context[..100]).unwrap_err());
        control.set_hvm_context(domid, &context)?;
    } else {
        let width = control.guest_width(domid)?;
        for vcpu in 0..=info.max_vcpu_id.ok_or("no vCPU")? {
            let context = control.vcpu_context(domid, vcpu, width)?;
            let extended = control.vcpu_ext_context(domid, vcpu)?;
            let xsave = control.vcpu_xsave(domid, vcpu)?;
            let msrs = control.vcpu_msrs(domid, vcpu)?;
            println!(
                "  vcpu {vcpu}: {} extended {} xsave {} msrs {}",
                context.len(),
                extended.len(),
                xsave.len(),
                msrs.len()
            );
            control.set_vcpu_context(domid, vcpu, None)?;
            println!("  reset: {}", control.vcpu_context(domid, vcpu, width).unwrap_err());
            control.set_vcpu_context(domid, vcpu, Some(&context))?;
            println!("  the same again: {}", control.vcpu_context(domid, vcpu, width)? == context);
            control.set_vcpu_ext_context(domid, vcpu, &extended)?;
            // The hypervisor makes selectors those of a guest's privilege.
            println!("  extended the same again: {}", control.vcpu_ext_context(domid, vcpu)? == extended);
            if !xsave.is_empty() {
                control.set_vcpu_xsave(domid, vcpu, &xsave)?;
            }
            if !msrs.is_empty() {
                control.set_vcpu_msrs(domid, vcpu, &msrs)?;
            }
        }
        let shared = handles.memory.map(domid, Access::Read, &[info.shared_info_frame.0])?;
        println!("  shared info mapped, {} page", shared.len());
        println!(
            "  width {width}; again: {:?}",
            control.set_guest_width(domid, width).map_err(|error| error.to_string())
        );
        page_tables(handles, info)?;
    }
    control.set_tsc_info(domid, tsc)?;
    println!("  tsc set: {:?}", control.tsc_info(domid)?);
    Ok(())
}

/// Every pinned table of level 4 is unpinned and pinned again; every page's entry in the machine-to-physical table is set to what it is.
fn page_tables(handles: &Handles, info: &DomainInfo) -> Result {
    let (control, domid) = (&handles.control, info.domid);
    let frames = frames(handles, info)?;
    let mut types = vec![0; frames.len()];
    control.page_types(domid, &frames, &mut types)?;
    let pinned: Vec<u64> =
        frames.iter().zip(&types).filter(|(_, kind)| **kind >> 28 == 0xc).map(|(frame, _)| *frame).collect();
    let unpin: Vec<_> = pinned.iter().map(|frame| MmuextOp::Unpin(Mfn(*frame))).collect();
    let pin: Vec<_> = pinned.iter().map(|frame| MmuextOp::PinL4(Mfn(*frame))).collect();
    timed("unpin", || control.mmuext(domid, &unpin))?;
    println!("  unpin again: {:?}", control.mmuext(domid, &unpin[..1]).map_err(|error| error.to_string()));
    timed("pin", || control.mmuext(domid, &pin))?;
    println!("  {} tables", pinned.len());
    let own = frames.iter().zip(&types).filter(|(_, kind)| **kind >> 28 != 0xf);
    let pages: Vec<_> = own.filter_map(|(frame, _)| Some((Mfn(*frame), handles.table.get(*frame)?))).collect();
    timed("update machphys", || control.update_machphys(domid, &pages))?;
    assert!(pages.iter().all(|(frame, pfn)| handles.table.get(frame.0) == Some(*pfn)));
    println!(
        "  {} entries; of another's frame: {:?}",
        pages.len(),
        control.update_machphys(domid, &[(Mfn(1), pages[0].1)]).map_err(|error| error.to_string())
    );
    Ok(())
}

fn timed<T, E>(what: &str, work: impl FnOnce() -> std::result::Result<T, E>) -> std::result::Result<T, E> {
    let start = Instant::now();
    let result = work();
    println!("{what}: {:.2} ms{}", start.elapsed().as_secs_f64() * 1e3, if result.is_err() { ", failed" } else { "" });
    result
}
