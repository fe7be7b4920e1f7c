//! The smallest qcow2 image out of which QEMU loads a state: an empty disk of one cluster, and one internal snapshot of it that has
//! nothing but the state.
//!
//! The format is that of QEMU's `docs/interop/qcow2.txt`, version 2, with clusters of 64 KiB. Numbers are big-endian.
//!
//! ```text
//! cluster 0   header
//!         1   refcount table: one block
//!         2   refcount block: each cluster is used once
//!         3   the disk's L1 table: nothing is allocated
//!         4   snapshot table: one snapshot
//!         5   the snapshot's L1 table: behind the disk's end, its L2 table
//!         6   L2 table: the state's clusters
//!         7.. the state
//! ```
//!
//! A snapshot's state lies in it as if the disk went on behind its end, at the first address that an L2 table of its own covers.

use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Of all of QEMU's defaults the one that all of its versions know.
const CLUSTER_BITS: u32 = 16;
const CLUSTER_BYTES: usize = 1 << CLUSTER_BITS;

const REFCOUNT_TABLE: usize = 1;
const REFCOUNT_BLOCK: usize = 2;
const DISK_L1: usize = 3;
const SNAPSHOTS: usize = 4;
const SNAPSHOT_L1: usize = 5;
const L2: usize = 6;
const STATE: usize = 7;

/// The disk; one cluster, for an empty disk could have no snapshot.
const DISK_BYTES: u64 = CLUSTER_BYTES as u64;
/// Of both L1 tables: one for the disk, one for the state behind it.
const L1_ENTRIES: u32 = 2;

/// The name of the snapshot.
pub(crate) const SNAPSHOT_NAME: &str = "state";
const SNAPSHOT_ID: &str = "1";

/// The longest state: what one L2 table covers, 512 MiB.
const MAX_STATE_BYTES: usize = CLUSTER_BYTES / size_of::<u64>() * CLUSTER_BYTES;

/// As in the specification, "Header", up to where version 3 begins to have more.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 4],
    version: U32,
    backing_file_offset: U64,
    backing_file_size: U32,
    cluster_bits: U32,
    size: U64,
    crypt_method: U32,
    l1_size: U32,
    l1_table_offset: U64,
    refcount_table_offset: U64,
    refcount_table_clusters: U32,
    nb_snapshots: U32,
    snapshots_offset: U64,
}

/// As in the specification, "Snapshots", with the two fields of the extra data that QEMU since 1.1 has. The id and the name follow.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawSnapshot {
    l1_table_offset: U64,
    l1_size: U32,
    id_size: U16,
    name_size: U16,
    date_sec: U32,
    date_nsec: U32,
    vm_clock_nsec: U64,
    vm_state_size: U32,
    extra_data_size: U32,
    vm_state_size_large: U64,
    disk_size: U64,
}

/// Bytes of the last two fields.
const EXTRA_DATA_BYTES: u32 = 16;

/// The image.
///
/// # Panics
/// For a state that is empty, which would be none to QEMU, or longer than 512 MiB.
pub(crate) fn image(state: &[u8]) -> Vec<u8> {
    assert!((1..=MAX_STATE_BYTES).contains(&state.len()), "a state of {} bytes", state.len());
    let clusters = STATE + state.len().div_ceil(CLUSTER_BYTES);
    let mut image = vec![0; clusters * CLUSTER_BYTES];
    put(&mut image, 0, header().as_bytes());
    put(&mut image, REFCOUNT_TABLE, U64::from(offset(REFCOUNT_BLOCK)).as_bytes());
    put(&mut image, REFCOUNT_BLOCK, vec![U16::from(1); clusters].as_bytes());
    put(&mut image, SNAPSHOTS, &snapshot(state.len()));
    put(&mut image, SNAPSHOT_L1, [U64::from(0), U64::from(offset(L2))].as_bytes());
    let l2: Vec<U64> = (STATE..clusters).map(|cluster| U64::from(offset(cluster))).collect();
    put(&mut image, L2, l2.as_bytes());
    put(&mut image, STATE, state);
    image
}

fn header() -> RawHeader {
    RawHeader {
        magic: *b"QFI\xfb",
        version: 2.into(),
        backing_file_offset: 0.into(),
        backing_file_size: 0.into(),
        cluster_bits: CLUSTER_BITS.into(),
        size: DISK_BYTES.into(),
        crypt_method: 0.into(),
        l1_size: L1_ENTRIES.into(),
        l1_table_offset: offset(DISK_L1).into(),
        refcount_table_offset: offset(REFCOUNT_TABLE).into(),
        refcount_table_clusters: 1.into(),
        nb_snapshots: 1.into(),
        snapshots_offset: offset(SNAPSHOTS).into(),
    }
}

/// The table of snapshots.
fn snapshot(state_bytes: usize) -> Vec<u8> {
    let raw = RawSnapshot {
        l1_table_offset: offset(SNAPSHOT_L1).into(),
        l1_size: L1_ENTRIES.into(),
        id_size: (SNAPSHOT_ID.len() as u16).into(),
        name_size: (SNAPSHOT_NAME.len() as u16).into(),
        date_sec: 0.into(),
        date_nsec: 0.into(),
        vm_clock_nsec: 0.into(),
        // The larger field counts, where there is one.
        vm_state_size: (state_bytes as u32).into(),
        extra_data_size: EXTRA_DATA_BYTES.into(),
        vm_state_size_large: (state_bytes as u64).into(),
        disk_size: DISK_BYTES.into(),
    };
    [raw.as_bytes(), SNAPSHOT_ID.as_bytes(), SNAPSHOT_NAME.as_bytes()].concat()
}

/// Where a cluster begins, in bytes.
fn offset(cluster: usize) -> u64 {
    (cluster * CLUSTER_BYTES) as u64
}

fn put(image: &mut [u8], cluster: usize, bytes: &[u8]) {
    image[cluster * CLUSTER_BYTES..][..bytes.len()].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::process::Command;

    fn u16_at(image: &[u8], at: u64) -> u64 {
        u16::from_be_bytes(image[at as usize..][..2].try_into().unwrap()).into()
    }

    fn u32_at(image: &[u8], at: u64) -> u64 {
        u32::from_be_bytes(image[at as usize..][..4].try_into().unwrap()).into()
    }

    fn u64_at(image: &[u8], at: u64) -> u64 {
        u64::from_be_bytes(image[at as usize..][..8].try_into().unwrap())
    }

    /// Reads an image by the specification's offsets, not by the structures above: the snapshot's name and its state. Each cluster that
    /// is used is counted, and compared with what the refcounts say.
    fn read(image: &[u8]) -> (String, Vec<u8>) {
        assert_eq!((&image[..4], u32_at(image, 4)), (&b"QFI\xfb"[..], 2));
        let cluster = 1_u64 << u32_at(image, 20);
        assert_eq!(image.len() as u64 % cluster, 0);
        let mut used = BTreeMap::new();
        let mut take = |at: u64| {
            assert!(at % cluster == 0 && at < image.len() as u64, "cluster at {at:#x}");
            *used.entry(at / cluster).or_insert(0_u64) += 1;
        };
        take(0);
        assert_eq!((u64_at(image, 8), u32_at(image, 32)), (0, 0), "no backing file, no encryption");
        let (disk_bytes, l1_entries, l1) = (u64_at(image, 24), u32_at(image, 36), u64_at(image, 40));
        let covered = cluster * (cluster / 8);
        assert_eq!(disk_bytes.div_ceil(covered), 1);
        take(l1);
        assert!((0..l1_entries).all(|entry| u64_at(image, l1 + 8 * entry) == 0), "the disk has nothing");
        let (refcounts, refcount_clusters) = (u64_at(image, 48), u32_at(image, 56));
        assert_eq!(refcount_clusters, 1);
        take(refcounts);
        let block = u64_at(image, refcounts);
        take(block);
        assert_eq!((u32_at(image, 60), u64_at(image, refcounts + 8)), (1, 0), "one snapshot, one block");

        let at = u64_at(image, 64);
        take(at);
        let (snapshot_l1, snapshot_entries) = (u64_at(image, at), u32_at(image, at + 8));
        let (id_bytes, name_bytes, extra) = (u16_at(image, at + 12), u16_at(image, at + 14), u32_at(image, at + 36));
        let state_bytes = u64_at(image, at + 40);
        assert_eq!((u32_at(image, at + 32), extra, u64_at(image, at + 48)), (state_bytes, 16, disk_bytes));
        let name_at = (at + 40 + extra + id_bytes) as usize;
        let name = String::from_utf8(image[name_at..][..name_bytes as usize].to_vec()).unwrap();
        take(snapshot_l1);
        assert_eq!((snapshot_entries, u64_at(image, snapshot_l1)), (2, 0));
        let l2 = u64_at(image, snapshot_l1 + 8);
        take(l2);
        let mut state = Vec::new();
        for index in 0..cluster / 8 {
            let at = u64_at(image, l2 + 8 * index);
            assert_eq!(at != 0, index < state_bytes.div_ceil(cluster), "cluster {index} of the state");
            if at != 0 {
                take(at);
                state.extend_from_slice(&image[at as usize..][..cluster as usize]);
            }
        }
        assert!(state[state_bytes as usize..].iter().all(|byte| *byte == 0));
        state.truncate(state_bytes as usize);
        for number in 0..cluster / 2 {
            let expected = used.get(&number).copied().unwrap_or(0);
            assert_eq!(u16_at(image, block + 2 * number), expected, "cluster {number}");
        }
        assert_eq!(used.len() as u64, image.len() as u64 / cluster, "nothing lies about");
        (name, state)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn an_image_holds_its_state_and_nothing_else(bytes in 1_usize..5 * CLUSTER_BYTES, seed: u8) {
            let state: Vec<u8> = (0..bytes).map(|at| (at as u8).wrapping_mul(31) ^ (at >> 8) as u8 ^ seed).collect();
            prop_assert_eq!(read(&image(&state)), ("state".to_owned(), state));
        }
    }

    #[test]
    fn whole_clusters_and_large_states() {
        for bytes in [1, CLUSTER_BYTES, CLUSTER_BYTES + 1, 3 * CLUSTER_BYTES, 64 << 20] {
            let state = vec![7; bytes];
            assert!(read(&image(&state)).1 == state, "{bytes}");
        }
    }

    /// By QEMU's own judgement, where its tool is installed. (That a QEMU loads it is tested beside this.)
    #[test]
    fn qemus_tool_finds_nothing_wrong() {
        let file = std::env::temp_dir().join(format!("colo-qcow2-{}", std::process::id()));
        std::fs::write(&file, image(&vec![7; 3 * CLUSTER_BYTES + 5])).unwrap();
        let checked = Command::new("qemu-img").args(["check", "-f", "qcow2"]).arg(&file).output();
        let listed = Command::new("qemu-img").args(["snapshot", "-l"]).arg(&file).output();
        std::fs::remove_file(&file).unwrap();
        let (checked, listed) = match (checked, listed) {
            (Ok(checked), Ok(listed)) => (checked, listed),
            (Err(error), _) | (_, Err(error)) => return eprintln!("SKIPPED: qemu-img: {error}"),
        };
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        let text = String::from_utf8_lossy(&checked.stdout).into_owned();
        assert!(text.contains("No errors were found on the image."), "{text}");
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(text.contains(SNAPSHOT_NAME) && text.contains("192 KiB"), "{text}");
    }
}
