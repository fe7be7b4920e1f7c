use crate::domain::DomainError;
use crate::ids::{DomId, Page};
use crate::xen::foreign::{Access, Mapping};
use crate::xen::{ForeignMemory, XenStore};

/// Where the indexes of what xenstored has said are in the page (`xenstore_domain_interface`): what the guest has read, and what there is.
const READ: usize = 2056;
const WRITTEN: usize = 2060;

/// How often xenstored is let go on: it has no more to say to a guest that asks nothing than a few events, and a ring has room for several.
const MAX_DRAINS: usize = 64;

/// The page by which a domain and xenstored talk, of a domain that stands still.
pub struct StoreRing {
    domid: DomId,
    mapping: Mapping,
}

impl StoreRing {
    /// Maps it.
    ///
    /// # Errors
    /// When the frame is none of the domain's.
    pub fn map(foreign: &ForeignMemory, domid: DomId, frame: u64) -> Result<StoreRing, DomainError> {
        Ok(StoreRing { domid, mapping: foreign.map(domid, Access::ReadWrite, &[frame])? })
    }

    /// Reads, in the guest's stead and into nothing, what xenstored says, until it has said all: half a message left in xenstored would
    /// come behind whatever stands in the ring then.
    ///
    /// # Errors
    /// When xenstored does not answer us, or does not stop.
    pub fn drain(&mut self, store: &XenStore) -> Result<(), DomainError> {
        // xenstored looks after every guest's ring when it has served anybody, so that an answer to us is as good as an event. What it
        // has read before our first question it may look after behind the answer to that, so there are two.
        let node = format!("/local/domain/{}/domid", self.domid.0);
        for _ in 0..MAX_DRAINS {
            store.read(&node)?;
            store.read(&node)?;
            let written = self.index(WRITTEN);
            if self.index(READ) == written {
                return Ok(());
            }
            self.mapping.write_bytes(0, READ, &written);
        }
        Err(DomainError::Other(format!("xenstored does not cease to speak to {}", self.domid)))
    }

    /// Puts another page in its place.
    pub fn replace(&mut self, page: &Page) {
        self.mapping.write_page(0, page);
    }

    /// The page.
    pub fn page(&self, into: &mut Page) {
        self.mapping.read_page(0, into);
    }

    fn index(&self, at: usize) -> [u8; 4] {
        let mut bytes = [0; 4];
        self.mapping.read_bytes(0, at, &mut bytes);
        bytes
    }
}
