use crate::domain::{DirtyBitmap, DomainError};
use crate::ids::Pfn;

/// How many page types one call asks for.
pub(super) const WINDOW_PAGES: u64 = 1024;

/// Finds the pages that a translated guest (HVM, PVH) has, `owned_pages` of them, among millions of numbers that could be one: in
/// 4 GiB of such numbers a small guest has a piece at the bottom and another below the top. Looks there first, and ends as soon as
/// it has them all; else it looks everywhere.
///
/// `exists` says which of a window's pages are there.
pub(super) fn find_pages(
    gfn_limit: u64,
    owned_pages: u64,
    mut exists: impl FnMut(std::ops::Range<u64>) -> Result<Vec<bool>, DomainError>,
    into: &mut DirtyBitmap,
) -> Result<(), DomainError> {
    let windows = gfn_limit.div_ceil(WINDOW_PAGES);
    let mut found = 0;
    let mut look = |window: u64| {
        let first = window * WINDOW_PAGES;
        let here = exists(first..gfn_limit.min(first + WINDOW_PAGES))?;
        let pages = (first..).zip(here).filter(|(_, here)| *here).map(|(gfn, _)| into.set(Pfn(gfn))).count() as u64;
        found += pages;
        Ok::<_, DomainError>((pages, found == owned_pages))
    };

    let mut bottom = 0;
    while bottom < windows {
        let (pages, all) = look(bottom)?;
        bottom += 1;
        match (pages, all) {
            (_, true) => return Ok(()),
            (0, false) => break,
            _ => {}
        }
    }
    for window in (bottom..windows).rev() {
        if look(window)?.1 {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// What is found, and how many windows were looked at.
    fn find(limit: u64, owned: u64, pages: &BTreeSet<u64>) -> (BTreeSet<u64>, u64) {
        let mut into = DirtyBitmap::new(limit);
        let mut looks = 0;
        let exists = |window: std::ops::Range<u64>| {
            looks += 1;
            Ok(window.map(|gfn| pages.contains(&gfn)).collect())
        };
        find_pages(limit, owned, exists, &mut into).unwrap();
        (into.iter().map(|pfn| pfn.0).collect(), looks)
    }

    proptest! {
        #[test]
        fn all_pages_are_found(
            limit in 1_u64..20_000,
            runs in prop::collection::vec((0_u64..20_000, 1_u64..3000), 0..5),
            more in 0_u64..3,
        ) {
            let pages: BTreeSet<u64> =
                runs.iter().flat_map(|(first, pages)| *first..first + pages).filter(|gfn| *gfn < limit).collect();
            // Also when the domain owns pages that have no number.
            let (found, _) = find(limit, pages.len() as u64 + more, &pages);
            prop_assert_eq!(found, pages);
        }
    }

    #[test]
    fn a_small_guest_is_found_by_few_looks() {
        // As a PVH guest of 128 MiB has them.
        let pages: BTreeSet<u64> =
            (0..0x10).chain(0x11..0x7fff).chain(0xfc000..0xfc009).chain(0xfeff8..0xff000).collect();
        let (found, looks) = find(0xff000, pages.len() as u64, &pages);
        assert_eq!(found, pages);
        assert!(looks < 50, "{looks}");
    }
}
