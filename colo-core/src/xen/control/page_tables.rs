//! Page tables of PV domains, the machine-to-physical table, and what else is done to frames.

use super::{Control, check};
use crate::ids::{DomId, Mfn, Pfn};
use crate::xen::foreign::{Access, ForeignMemory, Mapping};
use crate::xen::{XenError, log};
use std::cell::OnceCell;
use std::os::raw::c_ulong;
use std::ptr::NonNull;
use xen_sys::{call, consts, ctrl};

/// Operations in one hypercall.
const BATCH_OPERATIONS: usize = 1024;
/// The machine-to-physical table comes in pieces of 2 MiB.
const M2P_CHUNK_BYTES: u64 = 2 << 20;

/// What to do with a page table, or another page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MmuextOp {
    /// Check it, and keep it checked, as a table of level 1.
    PinL1(Mfn),
    /// As a table of level 2.
    PinL2(Mfn),
    /// As a table of level 3.
    PinL3(Mfn),
    /// As a table of level 4.
    PinL4(Mfn),
    /// Take a pin back.
    Unpin(Mfn),
    /// Fill it with zeroes. Of a translated guest (HVM, PVH) this is the page's own number.
    Clear(Mfn),
}

impl Control {
    /// Pins and unpins page tables, and clears pages (`xc_mmuext_op`), 1,024 at a time. An error means that one could not be done; those before it were.
    ///
    /// # Errors
    /// `EINVAL`: what is in the frame is no table of that level. `ESRCH`: no such domain.
    ///
    /// ```no_run
    /// # use colo_core::{ids::{DomId, Mfn}, xen::{Control, Xen, control::MmuextOp}};
    /// # let control = Control::open(Xen::open()?)?;
    /// control.mmuext(DomId(4), &[MmuextOp::PinL4(Mfn(0x1234))])?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn mmuext(&self, domid: DomId, operations: &[MmuextOp]) -> Result<(), XenError> {
        for batch in operations.chunks(BATCH_OPERATIONS) {
            let mut batch: Vec<_> = batch.iter().map(to_xen).collect();
            let count = batch.len() as u32;
            // SAFETY: the handle is open, and the array has so many operations.
            let result = unsafe { self.xen.ctrl.xc_mmuext_op(self.handle(), batch.as_mut_ptr(), count, domid.0) };
            check("xc_mmuext_op", domid, result)?;
        }
        Ok(())
    }

    /// Says which of the guest's pages a machine frame is (hypercall `mmu_update`, `MMU_MACHPHYS_UPDATE`), 1,024 at a time.
    ///
    /// # Errors
    /// `EINVAL`: a frame is not the domain's. `ESRCH`: no such domain.
    ///
    /// ```no_run
    /// # use colo_core::{ids::{DomId, Mfn, Pfn}, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// control.update_machphys(DomId(4), &[(Mfn(0x1234), Pfn(7))])?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn update_machphys(&self, domid: DomId, pages: &[(Mfn, Pfn)]) -> Result<(), XenError> {
        let call = "mmu_update";
        let hypercalls = Hypercalls::get(&self.hypercalls, self.xen)?;
        let mut kept = self.scratch.borrow_mut();
        let bytes = BATCH_OPERATIONS * size_of::<ctrl::mmu_update>();
        let buffer = kept.at_least(bytes, self.xen, self.handle)?.cast::<ctrl::mmu_update>();
        for batch in pages.chunks(BATCH_OPERATIONS) {
            for (index, (mfn, pfn)) in batch.iter().enumerate() {
                // The command is in the bits that a frame's address leaves free.
                let update = ctrl::mmu_update { ptr: mfn.0 << 12 | u64::from(ctrl::MMU_MACHPHYS_UPDATE), val: pfn.0 };
                // SAFETY: the buffer has room for a batch.
                unsafe { buffer.add(index).write(update) };
            }
            // SAFETY: the hypercall takes an array, its length, where to count (nowhere), and the domain; the buffer has so many.
            let result = unsafe {
                let number = ctrl::__HYPERVISOR_mmu_update;
                let (array, count) = (buffer.as_ptr() as u64, batch.len() as u64);
                self.xen.call.xencall4(hypercalls.pointer(), number, array, count, 0, domid.0.into())
            };
            check(call, domid, result)?;
        }
        Ok(())
    }

    /// The machine-to-physical table of the whole host, mapped to be read (`xc_maximum_ram_page`, `xc_machphys_mfn_list`). It is kept up to
    /// date by the hypervisor; memory that is added to the host later is not in it.
    ///
    /// # Errors
    /// Any; none is to be expected in a dom0.
    ///
    /// ```no_run
    /// # use colo_core::{ids::Mfn, xen::{Control, ForeignMemory, Xen}};
    /// # let xen = Xen::open()?;
    /// # let control = Control::open(xen)?;
    /// let table = control.mach_to_phys(&ForeignMemory::open(xen)?)?;
    /// println!("{:?}", table.get(0x1234));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn mach_to_phys(&self, memory: &ForeignMemory) -> Result<MachToPhys, XenError> {
        let mut highest: c_ulong = 0;
        // SAFETY: the handle is open, and the number is ours.
        let result = unsafe { self.xen.ctrl.xc_maximum_ram_page(self.handle(), &raw mut highest) };
        check("xc_maximum_ram_page", None, result)?;
        // The library makes the table's size from the highest frame as if it were their number; the last piece has room for one more.
        let entries = highest + 1;
        let chunks = (entries * 8).div_ceil(M2P_CHUNK_BYTES);
        let mut starts = vec![0_u64; chunks as usize];
        // SAFETY: the handle is open, and the array has so many elements.
        let result = unsafe { self.xen.ctrl.xc_machphys_mfn_list(self.handle(), chunks, starts.as_mut_ptr()) };
        check("xc_machphys_mfn_list", None, result)?;
        let pages = M2P_CHUNK_BYTES / 4096;
        let frames: Vec<u64> = starts.iter().flat_map(|start| *start..*start + pages).collect();
        let owner = DomId(consts::DOMID_XEN.into());
        Ok(MachToPhys { mapping: memory.map(owner, Access::Read, &frames)?, entries })
    }

    /// Where the table of 32-bit guests begins: its first machine frame, which stands in their page tables where the hypervisor put it
    /// (`XENMEM_machphys_compat_mfn_list`).
    ///
    /// # Errors
    /// [`XenError::is_unsupported`]: the hypervisor cannot run such guests.
    ///
    /// ```no_run
    /// # use colo_core::xen::{Control, Xen};
    /// # let control = Control::open(Xen::open()?)?;
    /// let frame = control.compat_machphys_frame()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn compat_machphys_frame(&self) -> Result<Mfn, XenError> {
        let call = "XENMEM_machphys_compat_mfn_list";
        let mut kept = self.scratch.borrow_mut();
        let buffer = kept.at_least(8, self.xen, self.handle)?.cast::<u64>();
        let extent_start = ctrl::__guest_handle_xen_pfn_t { p: buffer.as_ptr() };
        let mut list = ctrl::xen_machphys_mfn_list { max_extents: 1, extent_start, nr_extents: 0 };
        let command = ctrl::XENMEM_machphys_compat_mfn_list;
        let library = &self.xen.ctrl;
        let (argument, size) = ((&raw mut list).cast(), size_of_val(&list));
        // SAFETY: the handle is open, the structure is this command's, and the buffer has room for one frame.
        let result = unsafe { library.xc_memory_op(self.handle(), command, argument, size) };
        match (result, list.nr_extents) {
            // SAFETY: the hypervisor has written it, and is done.
            (0, 1) => Ok(Mfn(unsafe { buffer.read() })),
            (0, extents) => Err(XenError::bad_answer(call, None, format!("{extents} extents"))),
            _ => Err(XenError::last(call, None)),
        }
    }
}

/// For each machine frame, which page of its domain it is.
pub struct MachToPhys {
    mapping: Mapping,
    entries: u64,
}

impl MachToPhys {
    /// How many machine frames there are.
    pub fn len(&self) -> u64 {
        self.entries
    }

    /// Never: a host has memory.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Which page of its domain the frame is, as far as the hypervisor knows; none beyond the end, or when it is no domain's. The guest
    /// itself may have set it: it is to be trusted only when the guest's own table says the same.
    pub fn get(&self, frame: u64) -> Option<Pfn> {
        if frame >= self.entries {
            return None;
        }
        let (page, offset) = ((frame / 512) as usize, (frame % 512) as usize);
        let entry = self.mapping.page_ptr(page).wrapping_add(offset * 8);
        // Mapped pages are aligned, and so are the entries in them.
        #[allow(clippy::cast_ptr_alignment)]
        // SAFETY: within the page, and aligned; the hypervisor writes whole entries at a time.
        let pfn = unsafe { entry.cast::<u64>().read_volatile() };
        // INVALID_M2P_ENTRY and SHARED_M2P_ENTRY, and whatever else is no number of a page.
        (pfn < 1 << 52).then_some(Pfn(pfn))
    }
}

/// A handle of `libxencall`, opened when a hypercall is needed that no other library makes for others.
pub(super) struct Hypercalls {
    xen: &'static xen_sys::Xen,
    pointer: NonNull<call::xencall_handle>,
}

impl Hypercalls {
    pub(super) fn get<'a>(
        cell: &'a OnceCell<Hypercalls>,
        xen: &'static xen_sys::Xen,
    ) -> Result<&'a Hypercalls, XenError> {
        if let Some(open) = cell.get() {
            return Ok(open);
        }
        // SAFETY: the logger lives as long as the process.
        let pointer = NonNull::new(unsafe { xen.call.xencall_open(log::logger(), 0) });
        let pointer = pointer.ok_or_else(|| XenError::last("xencall_open", None))?;
        Ok(cell.get_or_init(|| Hypercalls { xen, pointer }))
    }

    pub(super) fn pointer(&self) -> *mut call::xencall_handle {
        self.pointer.as_ptr()
    }
}

impl Drop for Hypercalls {
    fn drop(&mut self) {
        // SAFETY: it is open, and is not used after.
        unsafe { self.xen.call.xencall_close(self.pointer()) };
    }
}

fn to_xen(operation: &MmuextOp) -> ctrl::mmuext_op {
    let (cmd, mfn) = match *operation {
        MmuextOp::PinL1(mfn) => (ctrl::MMUEXT_PIN_L1_TABLE, mfn),
        MmuextOp::PinL2(mfn) => (ctrl::MMUEXT_PIN_L2_TABLE, mfn),
        MmuextOp::PinL3(mfn) => (ctrl::MMUEXT_PIN_L3_TABLE, mfn),
        MmuextOp::PinL4(mfn) => (ctrl::MMUEXT_PIN_L4_TABLE, mfn),
        MmuextOp::Unpin(mfn) => (ctrl::MMUEXT_UNPIN_TABLE, mfn),
        MmuextOp::Clear(mfn) => (ctrl::MMUEXT_CLEAR_PAGE, mfn),
    };
    // SAFETY: numbers, and an address that may be null: these commands do not look at it.
    let mut raw: ctrl::mmuext_op = unsafe { std::mem::zeroed() };
    raw.cmd = cmd;
    raw.arg1.mfn = mfn.0;
    raw
}
