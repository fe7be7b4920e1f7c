use crate::domain::LentPages;
use crate::ids::{PAGE_SIZE, Page};
use std::io;
use std::marker::PhantomData;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Words of a page that are looked at before the rest: most pages that are not zero show it there.
const STEP_WORDS: usize = 8;
const PAGE_WORDS: usize = PAGE_SIZE / 8;

/// Pages of a guest, each where it is mapped, or a copy of ours where it had to be changed.
pub(super) struct Lent<'a> {
    places: Vec<Place>,
    /// The mappings.
    memory: PhantomData<&'a ()>,
}

pub(super) enum Place {
    /// In the guest, mapped for as long as the pages are lent.
    Guest(*const u8),
    /// A copy.
    Own(Box<Page>),
}

impl Lent<'_> {
    /// # Safety
    /// Every [`Place::Guest`] is the beginning of a page that is mapped for reading, and stays so for the lifetime. A page begins at a
    /// multiple of its size.
    pub(super) unsafe fn new(places: Vec<Place>) -> Self {
        Lent { places, memory: PhantomData }
    }

    fn pointer(&self, index: usize) -> *const u8 {
        match &self.places[index] {
            Place::Guest(pointer) => *pointer,
            Place::Own(page) => page.as_ptr(),
        }
    }
}

impl LentPages for Lent<'_> {
    fn count(&self) -> usize {
        self.places.len()
    }

    fn is_zero(&self, index: usize) -> bool {
        let words = match &self.places[index] {
            Place::Guest(pointer) => pointer.cast::<u64>(),
            Place::Own(page) => return page.iter().all(|byte| *byte == 0),
        };
        // SAFETY: the page is mapped, has so many words, and begins where one may; volatile, as others may write to it.
        let word = |index: usize| unsafe { words.add(index).read_volatile() };
        (0..PAGE_WORDS)
            .step_by(STEP_WORDS)
            .all(|first| (first..first + STEP_WORDS).fold(0, |any, at| any | word(at)) == 0)
    }

    fn copy(&self, index: usize, into: &mut Page) {
        // SAFETY: a page is mapped there, and `into` is not: bytes that change meanwhile are still bytes.
        unsafe { into.as_mut_ptr().copy_from_nonoverlapping(self.pointer(index), PAGE_SIZE) };
    }

    fn write_at(&self, pages: Range<usize>, file: BorrowedFd<'_>, mut offset: u64) -> io::Result<()> {
        let mut index = pages.start;
        while index < pages.end {
            let begin = self.pointer(index);
            // As many as lie one after the other.
            let follows = |next: &usize| self.pointer(*next) == begin.wrapping_add((next - index) * PAGE_SIZE);
            let count = (index..pages.end).take_while(follows).count();
            let mut done = 0;
            while done < count * PAGE_SIZE {
                let rest = count * PAGE_SIZE - done;
                let (fd, at) = (file.as_raw_fd(), offset as libc::off_t);
                // SAFETY: so many bytes are mapped from there on; the kernel copies what it finds.
                let written = unsafe { libc::pwrite(fd, begin.add(done).cast(), rest, at) };
                match usize::try_from(written) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => {
                        done += written;
                        offset += written as u64;
                    }
                    Err(_) => match io::Error::last_os_error() {
                        error if error.kind() == io::ErrorKind::Interrupted => {}
                        // Some file systems (9p, FUSE) pass on the pages that they get, and cannot have a guest's.
                        error if error.raw_os_error() == Some(libc::EFAULT) => {
                            // SAFETY: as above.
                            let written = unsafe { write_copy(begin.add(done), rest.min(PAGE_SIZE), file, offset)? };
                            done += written;
                            offset += written as u64;
                        }
                        error => return Err(error),
                    },
                }
            }
            index += count;
        }
        Ok(())
    }
}

/// Writes at most a page by way of memory of ours.
///
/// # Safety
/// So many bytes are mapped there.
unsafe fn write_copy(from: *const u8, bytes: usize, file: BorrowedFd<'_>, offset: u64) -> io::Result<usize> {
    let mut page = [0; PAGE_SIZE];
    let copy = &mut page[..bytes];
    // SAFETY: our caller's promise, and `copy` is ours alone.
    unsafe { copy.as_mut_ptr().copy_from_nonoverlapping(from, bytes) };
    match rustix::io::pwrite(file, copy, offset)? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        written => Ok(written),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Seek};
    use std::os::fd::AsFd;

    #[repr(align(4096))]
    struct Aligned<T>(T);

    #[test]
    fn pages_are_written_wherever_they_lie() {
        let Aligned(memory) = &Aligned(std::array::from_fn::<Page, 6, _>(|fill| [fill as u8; PAGE_SIZE]));
        let guest = |index: usize| Place::Guest(memory[index].as_ptr());
        let places = vec![guest(1), guest(2), Place::Own(Box::new([9; PAGE_SIZE])), guest(5), guest(0)];
        // SAFETY: they are pages of an array that lives longer.
        let lent = unsafe { Lent::new(places) };
        let mut file = File::from(rustix::fs::memfd_create("lent", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        lent.write_at(0..5, file.as_fd(), 3).unwrap();
        file.rewind().unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        let expected: Vec<u8> = [1, 2, 9, 5, 0].into_iter().flat_map(|fill| [fill; PAGE_SIZE]).collect();
        assert!(bytes[3..] == expected);

        assert_eq!((0..5).map(|index| lent.is_zero(index)).collect::<Vec<_>>(), [false, false, false, false, true]);
        let mut page = [0; PAGE_SIZE];
        lent.copy(3, &mut page);
        assert!(page == memory[5]);
    }

    #[test]
    fn a_part_of_a_page_is_written_by_way_of_a_copy() {
        let mut file = File::from(rustix::fs::memfd_create("copy", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        let page: Page = std::array::from_fn(|at| at as u8);
        // SAFETY: it is within the page.
        let written = unsafe { write_copy(page[4000..].as_ptr(), 96, file.as_fd(), 2) };
        assert_eq!(written.unwrap(), 96);
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!((&bytes[..2], &bytes[2..]), (&[0, 0][..], &page[4000..]));
    }

    #[test]
    fn a_page_with_one_byte_is_not_zero() {
        for at in [0, 7, 64, PAGE_SIZE - 1] {
            let mut page = Aligned([0; PAGE_SIZE]);
            page.0[at] = 1;
            // SAFETY: the page lives longer.
            assert!(!unsafe { Lent::new(vec![Place::Guest(page.0.as_ptr())]) }.is_zero(0), "{at}");
        }
    }
}
