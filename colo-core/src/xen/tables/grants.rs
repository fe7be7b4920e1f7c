use crate::domain::DomainError;
use crate::ids::{DomId, PAGE_SIZE};
use crate::stream::{GrantEntry, TwinGrants};
use crate::xen::foreign::{Access, Mapping, Resource};
use crate::xen::{Control, ForeignMemory};

/// What kind of grant an entry is: the low two bits of its flags.
const KIND: u16 = 3;
/// `GTF_permit_access`.
const PERMIT_ACCESS: u16 = 1;
/// `GTF_readonly`.
const READ_ONLY: u16 = 1 << 2;
/// `GTF_reading` and `GTF_writing`: the hypervisor's own, while the page is mapped.
const IN_USE: u16 = READING | WRITING;
const READING: u16 = 1 << 3;
const WRITING: u16 = 1 << 4;

/// The first entry that is a guest's own: those before are for the store, the console and other servers that never let go.
const OWN: usize = 8;

/// Bytes of an entry of version 1.
const ENTRY_BYTES: usize = 8;
const FRAME_ENTRIES: usize = PAGE_SIZE / ENTRY_BYTES;

/// Whether somebody has the page mapped.
pub fn is_in_use(entry: GrantEntry) -> bool {
    entry.flags & IN_USE != 0
}

/// Whether somebody has the page mapped for writing: what is written so is not in the dirty log before it is unmapped.
pub fn is_written(entry: GrantEntry) -> bool {
    entry.flags & WRITING != 0
}

/// Whether the page may be written by another domain at any time.
pub fn is_writable(entry: GrantEntry) -> bool {
    entry.flags & KIND == PERMIT_ACCESS && entry.flags & READ_ONLY == 0
}

/// Whether a page of the guest's own choice is mapped by somebody.
pub fn is_any_in_use(grants: &TwinGrants) -> bool {
    grants.entries.iter().skip(OWN).any(|entry| is_in_use(*entry))
}

/// The primary's entry in the secondary's table: whether its page is in use is the secondary's host's to say. `None` where that cannot
/// be: what is mapped there is another page, or not to be granted at all.
pub fn put_over(primary: GrantEntry, secondary: GrantEntry) -> Option<GrantEntry> {
    let used = secondary.flags & IN_USE;
    let entry = GrantEntry { flags: primary.flags & !IN_USE | used, ..primary };
    let fits =
        used == 0 || GrantEntry { flags: entry.flags, ..secondary } == entry && entry.flags & KIND == PERMIT_ACCESS;
    fits.then_some(entry)
}

/// A domain's grant table, mapped and kept.
pub struct GrantFrames {
    domid: DomId,
    mapping: Option<Mapping>,
}

impl GrantFrames {
    /// Nothing is mapped yet.
    pub fn new(domid: DomId) -> GrantFrames {
        GrantFrames { domid, mapping: None }
    }

    /// All entries. Of a domain that runs they may change meanwhile.
    ///
    /// # Errors
    /// When the guest uses a table of version 2 (no Linux does by itself), or the hypervisor refuses.
    pub fn read(&mut self, control: &Control, foreign: &ForeignMemory) -> Result<TwinGrants, DomainError> {
        let frames = self.frames(control)?;
        let mapping = self.map(foreign, frames)?;
        let mut entries = Vec::with_capacity(frames * FRAME_ENTRIES);
        let mut page = [0; PAGE_SIZE];
        for frame in 0..frames {
            mapping.read_page(frame, &mut page);
            entries.extend(page.chunks_exact(ENTRY_BYTES).map(decode));
        }
        let used = entries.iter().rposition(|entry| *entry != GrantEntry::default()).map_or(0, |last| last + 1);
        entries.truncate(used);
        Ok(TwinGrants { entries })
    }

    /// Puts the primary's entries into the table of a domain that stands still; the table grows where it must. The number of the first
    /// entry that [does not fit](put_over), if there is one: then nothing was changed.
    ///
    /// # Errors
    /// As for [`GrantFrames::read`].
    pub fn put(
        &mut self,
        control: &Control,
        foreign: &ForeignMemory,
        primary: &TwinGrants,
    ) -> Result<Option<usize>, DomainError> {
        let own = self.read(control, foreign)?;
        let count = primary.entries.len().max(own.entries.len());
        let at = |grants: &TwinGrants, number: usize| grants.entries.get(number).copied().unwrap_or_default();
        let entry = |number| put_over(at(primary, number), at(&own, number)).ok_or(number);
        let entries: Vec<GrantEntry> = match (0..count).map(entry).collect() {
            Ok(entries) => entries,
            Err(number) => return Ok(Some(number)),
        };
        let frames = self.frames(control)?.max(count.div_ceil(FRAME_ENTRIES));
        let mapping = self.map(foreign, frames)?;
        for (number, entry) in entries.into_iter().enumerate().filter(|(number, entry)| at(&own, *number) != *entry) {
            mapping.write_bytes(number / FRAME_ENTRIES, number % FRAME_ENTRIES * ENTRY_BYTES, &encode(entry));
        }
        Ok(None)
    }

    /// Takes back what a guest that will grant anew has granted, but for what is in use.
    ///
    /// # Errors
    /// As for [`GrantFrames::read`].
    pub fn clear_unused(&mut self, control: &Control, foreign: &ForeignMemory) -> Result<(), DomainError> {
        let own = self.read(control, foreign)?;
        let frames = self.frames(control)?;
        let mapping = self.map(foreign, frames)?;
        for (number, _) in own.entries.iter().enumerate().filter(|(_, entry)| !is_in_use(**entry)) {
            mapping.write_bytes(number / FRAME_ENTRIES, number % FRAME_ENTRIES * ENTRY_BYTES, &[0; ENTRY_BYTES]);
        }
        Ok(())
    }

    fn frames(&self, control: &Control) -> Result<usize, DomainError> {
        let version = control.grant_version(self.domid)?;
        if version != 1 {
            let why = format!("{} uses a grant table of version {version}: only version 1 is known here", self.domid);
            return Err(DomainError::Other(why));
        }
        let frames = control.grant_frames(self.domid)? as usize;
        if frames * FRAME_ENTRIES > TwinGrants::MAX_ENTRIES {
            return Err(DomainError::Other(format!("{} has a grant table of {frames} pages", self.domid)));
        }
        Ok(frames)
    }

    /// Mapping more frames than there are makes more.
    fn map(&mut self, foreign: &ForeignMemory, frames: usize) -> Result<&mut Mapping, DomainError> {
        let mapping = match self.mapping.take() {
            Some(mapping) if mapping.len() == frames => mapping,
            _ => foreign.map_resource(self.domid, Resource::GrantTable, 0, frames, Access::ReadWrite)?,
        };
        Ok(self.mapping.insert(mapping))
    }
}

fn decode(bytes: &[u8]) -> GrantEntry {
    let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let frame = u32::from(half(4)) | u32::from(half(6)) << 16;
    GrantEntry { flags: half(0), domain: half(2), frame }
}

fn encode(entry: GrantEntry) -> [u8; ENTRY_BYTES] {
    let mut bytes = [0; ENTRY_BYTES];
    bytes[..2].copy_from_slice(&entry.flags.to_le_bytes());
    bytes[2..4].copy_from_slice(&entry.domain.to_le_bytes());
    bytes[4..].copy_from_slice(&entry.frame.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn grant(flags: u16, frame: u32) -> GrantEntry {
        GrantEntry { flags, domain: 0, frame }
    }

    #[test]
    fn what_is_in_use_stays_in_use() {
        // The store's page, mapped on both hosts; a ring that is mapped on one of them; an unused entry.
        assert_eq!(put_over(grant(0x19, 7), grant(0x19, 7)), Some(grant(0x19, 7)));
        assert_eq!(put_over(grant(0x01, 7), grant(0x19, 7)), Some(grant(0x19, 7)));
        assert_eq!(put_over(grant(0x19, 7), grant(0x01, 9)), Some(grant(0x01, 7)));
        assert_eq!(put_over(grant(0, 0), grant(0x01, 9)), Some(grant(0, 0)));
        assert_eq!(put_over(grant(0x05, 7), grant(0, 0)), Some(grant(0x05, 7)));
    }

    #[test]
    fn a_page_that_is_mapped_cannot_become_another() {
        assert_eq!(put_over(grant(0x01, 8), grant(0x19, 7)), None);
        assert_eq!(put_over(grant(0, 0), grant(0x19, 7)), None);
        let other = GrantEntry { domain: 3, ..grant(0x01, 7) };
        assert_eq!(put_over(other, grant(0x19, 7)), None);
    }

    #[test]
    fn flags_tell_who_may_write_and_who_does() {
        assert!(is_writable(grant(0x01, 1)) && is_writable(grant(0x19, 1)));
        assert!(!is_writable(grant(0x05, 1)) && !is_writable(grant(0, 1)) && !is_writable(grant(0x02, 1)));
        assert!(is_written(grant(0x19, 1)) && !is_written(grant(0x0d, 1)));
        assert!(is_in_use(grant(0x0d, 1)) && !is_in_use(grant(0x05, 1)));
    }

    #[test]
    fn what_never_lets_go_does_not_count() {
        let mut entries = vec![grant(0x19, 1); 2];
        entries.resize(9, grant(0x01, 2));
        assert!(!is_any_in_use(&TwinGrants { entries: entries.clone() }));
        entries[8] = grant(0x0d, 2);
        assert!(is_any_in_use(&TwinGrants { entries }));
    }

    #[test]
    fn entries_are_as_xen_has_them() {
        let entry = GrantEntry { flags: 0x0119, domain: 0x0203, frame: 0xfeffc };
        let bytes = [0x19, 0x01, 0x03, 0x02, 0xfc, 0xef, 0x0f, 0];
        assert_eq!((encode(entry), decode(&bytes)), (bytes, entry));
    }
}
