//! Xen's migration stream, read and written: the form in which a domain's state travels and is kept.
//!
//! The format is that of `docs/specs/libxc-migration-stream.pandoc` in Xen's sources ("LibXenCtrl Domain Image Format"),
//! versions 2 (read) and 3 (read and written), little-endian:
//!
//! ```text
//! stream  = image header, domain header, record, record, ... END
//! record  = type u32 | body length u32 | body | padding to 8 bytes
//!
//! plain         static data, STATIC_DATA_END, PAGE_DATA ..., state ..., END
//! checkpointed  static data, STATIC_DATA_END, { PAGE_DATA ..., state ..., CHECKPOINT } ..., END
//! ```
//!
//! * [`Headers`] stand at the beginning. [`kind`] names the types of records.
//! * [`Records`] reads whole records from a buffer, without a copy; [`RecordReader`] from anything that can be read. Both check
//!   everything that can be checked: lengths, page numbers, page types.
//! * [`OrderChecker`] checks the records' order.
//! * [`StateRef`] reads the bodies of a Xen domain's state: those of [`pv`] and [`hvm`] guests, and what both have ([`TscInfo`],
//!   [`CpuidPolicy`], [`MsrPolicy`]). Each has its `parse`, and a way to the record.
//! * [`write_record`] and [`page_data_prefix`] write; pages need not be copied.
//! * [`libxl`] and [`xl`] are the layers around this stream in a file of Xen's toolstack; [`image`] reads them all.
//! * [`own`], [`twin`], [`emulator`]: the records that are ours. `docs/stream-format.md` describes them all.
//!
//! All of it takes bytes and gives bytes, and does nothing else. Nothing here trusts a byte of what it reads.
//!
//! ```
//! use colo_core::ids::{PAGE_SIZE, Pfn};
//! use colo_core::stream::{Limits, PageType, RecordRef, Records, kind, page_data_prefix, write_record};
//!
//! // One page, as a save loop writes it: the prefix, then the page from where it is.
//! let page = [7; PAGE_SIZE];
//! let mut bytes = Vec::new();
//! page_data_prefix([(Pfn(3), PageType::Normal)], &mut bytes);
//! bytes.extend_from_slice(&page);
//! write_record(&mut bytes, kind::CHECKPOINT, &[])?;
//!
//! for record in Records::new(&bytes, Limits::new(16)) {
//!     match record? {
//!         RecordRef::PageData(pages) => {
//!             let entry = pages.pages().next().unwrap();
//!             assert_eq!((entry.pfn, entry.data), (Pfn(3), Some(&page)));
//!         }
//!         other => assert_eq!(other, RecordRef::Checkpoint),
//!     }
//! }
//! # Ok::<(), colo_core::stream::StreamError>(())
//! ```

pub mod emulator;
mod error;
mod header;
pub mod hvm;
pub mod image;
mod input;
pub mod kind;
pub mod libxl;
mod order;
pub mod own;
mod pages;
mod policy;
pub mod pv;
mod reader;
mod record;
mod state;
#[cfg(test)]
mod tests;
pub mod twin;
pub mod xl;

pub use emulator::EmulatorState;
pub use error::{Fault, StreamError};
pub use header::{DomainHeader, DomainKind, Headers, ImageHeader, Version};
pub use hvm::{HvmContext, HvmContextEntry, HvmParam, HvmParams};
pub use order::{OrderChecker, StreamUse};
pub use own::{MemoryHash, NetState};
pub use pages::{PageData, PageEntry, PageList, PageType, page_data_prefix};
pub use policy::{CpuidLeaf, CpuidPolicy, MsrEntry, MsrPolicy, TscInfo};
pub use pv::{P2mFrames, PvInfo, VcpuBlob, VcpuPart};
pub use reader::{ReadError, RecordReader};
pub use record::{
    Limits, MAX_BODY_BYTES, MAX_PFN_LIMIT, PfnList, RECORD_HEADER_BYTES, RecordRef, Records, write_dirty_pfn_list,
    write_record,
};
pub use state::StateRef;
pub use twin::{
    GrantEntry, PfnRanges, PortUse, TwinFrontend, TwinFrontends, TwinGrants, TwinPort, TwinPorts, TwinSharedInfo,
};

use record::{PfnWord, RawRecordHeader};
