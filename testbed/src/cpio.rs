//! Archives that the kernel unpacks into its first file system: cpio's "new ASCII" format, as Linux's
//! `Documentation/driver-api/early-userspace/buffer-format.rst` describes it.
//!
//! Written here and not by a program, so that everything belongs to root and devices can be in it, whoever writes it.

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::io::{self, Write};

const REGULAR: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;
const LINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// Files by their paths; folders come into being with what lies in them.
#[derive(Default)]
pub(crate) struct Tree(BTreeMap<String, Node>);

enum Node {
    Folder,
    File { mode: u32, bytes: Vec<u8> },
    Link { target: String },
    Device { major: u32, minor: u32 },
}

impl Tree {
    /// A folder, if there is nothing yet.
    pub(crate) fn folder(&mut self, path: &str) {
        let path = path.trim_matches('/');
        let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
        for end in ends.filter(|end| *end > 0) {
            self.0.entry(path[..end].to_owned()).or_insert(Node::Folder);
        }
    }

    /// A file that may be run.
    pub(crate) fn program(&mut self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.put(path, Node::File { mode: 0o755, bytes: bytes.into() });
    }

    /// A file.
    pub(crate) fn file(&mut self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.put(path, Node::File { mode: 0o644, bytes: bytes.into() });
    }

    /// A symbolic link.
    pub(crate) fn link(&mut self, path: &str, target: &str) {
        self.put(path, Node::Link { target: target.to_owned() });
    }

    /// A character device.
    pub(crate) fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.put(path, Node::Device { major, minor });
    }

    /// What came before under the same path is replaced.
    fn put(&mut self, path: &str, node: Node) {
        let path = path.trim_matches('/');
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.folder(folder);
        }
        self.0.insert(path.to_owned(), node);
    }

    /// The archive.
    pub(crate) fn write(&self, out: &mut impl Write) -> Result<()> {
        for (number, (path, node)) in self.0.iter().enumerate() {
            // A link on the way: the kernel would follow it, or fail, by the order of its entries.
            let ends = path.match_indices('/').map(|(end, _)| end);
            for end in ends {
                if !matches!(self.0.get(&path[..end]), Some(Node::Folder)) {
                    bail!("{path} does not lie in a folder");
                }
            }
            let number = u32::try_from(number + 1)?;
            match node {
                Node::Folder => entry(out, number, path, FOLDER | 0o755, (0, 0), &[]),
                Node::File { mode, bytes } => entry(out, number, path, REGULAR | mode, (0, 0), bytes),
                Node::Link { target } => entry(out, number, path, LINK | 0o777, (0, 0), target.as_bytes()),
                Node::Device { major, minor } => {
                    entry(out, number, path, CHARACTER_DEVICE | 0o600, (*major, *minor), &[])
                }
            }
            .with_context(|| format!("{path} cannot be archived"))?;
        }
        Ok(entry(out, 0, "TRAILER!!!", 0, (0, 0), &[])?)
    }
}

/// A header of 13 hexadecimal numbers, the name with a zero, and the content, both filled up to a multiple of four bytes.
fn entry(out: &mut impl Write, number: u32, path: &str, mode: u32, device: (u32, u32), bytes: &[u8]) -> io::Result<()> {
    let too_large = |_| io::Error::other("too large for the format");
    let size = u32::try_from(bytes.len()).map_err(too_large)?;
    let name_size = u32::try_from(path.len() + 1).map_err(too_large)?;
    out.write_all(b"070701")?;
    // inode, mode, uid, gid, links, mtime, size, the file system's device, the device, the name's size, a checksum that is not used.
    for field in [number, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0] {
        write!(out, "{field:08X}")?;
    }
    out.write_all(path.as_bytes())?;
    out.write_all(&[0])?;
    pad(out, 110 + path.len() + 1)?;
    out.write_all(bytes)?;
    pad(out, bytes.len())
}

fn pad(out: &mut impl Write, written: usize) -> io::Result<()> {
    out.write_all(&[0; 3][..written.next_multiple_of(4) - written])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// A header's fields, the name, the content.
    type Entry = (Vec<u32>, String, Vec<u8>);

    fn read(mut archive: &[u8]) -> Vec<Entry> {
        let mut entries = Vec::new();
        let whole = archive.len();
        while !archive.is_empty() {
            let (header, rest) = archive.split_at(110);
            assert_eq!(&header[..6], b"070701");
            let field = |field: &[u8]| u32::from_str_radix(std::str::from_utf8(field).unwrap(), 16).unwrap();
            let fields: Vec<u32> = header[6..].chunks(8).map(field).collect();
            let (name, rest) = rest.split_at(fields[11] as usize);
            let name = std::str::from_utf8(name.strip_suffix(&[0]).unwrap()).unwrap();
            let rest = &rest[(whole - rest.len()).next_multiple_of(4) - (whole - rest.len())..];
            let (bytes, rest) = rest.split_at(fields[6] as usize);
            archive = &rest[(whole - rest.len()).next_multiple_of(4) - (whole - rest.len())..];
            entries.push((fields, name.to_owned(), bytes.to_vec()));
        }
        entries
    }

    fn tree() -> Tree {
        let mut tree = Tree::default();
        tree.program("/usr/bin/xl", *b"first");
        tree.program("/usr/bin/xl", *b"\x7fELF");
        tree.file("init", *b"12345");
        tree.link("/usr/bin/link", "xl");
        tree.device("/dev/console", 5, 1);
        tree.folder("/proc/");
        tree.folder("/usr");
        tree
    }

    #[test]
    fn what_was_written_is_read() {
        let mut archive = Vec::new();
        tree().write(&mut archive).unwrap();
        let entries = read(&archive);
        let names: Vec<&str> = entries.iter().map(|(_, name, _)| name.as_str()).collect();
        // Every folder before what lies in it.
        let expected =
            ["dev", "dev/console", "init", "proc", "usr", "usr/bin", "usr/bin/link", "usr/bin/xl", "TRAILER!!!"];
        assert_eq!(names, expected);
        let of = |name: &str| entries.iter().find(|entry| entry.1 == name).unwrap();
        assert_eq!(of("usr/bin/xl").2, b"\x7fELF");
        assert_eq!(of("usr/bin/xl").0[1], 0o100_755);
        assert_eq!(of("init").0[1], 0o100_644);
        assert_eq!(of("usr/bin/link").2, b"xl");
        assert_eq!(of("dev/console").0[1], 0o020_600);
        assert_eq!(of("dev/console").0[9..11], [5, 1]);
        assert!(entries.iter().all(|(fields, ..)| fields[2..4] == [0, 0]), "all is root's");
    }

    #[test]
    fn cpio_reads_it_too() {
        let child = Command::new("cpio").args(["-t", "--quiet"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        // Not everywhere there is one; the test above knows the format, too.
        let Ok(mut child) = child else { return };
        let mut archive = Vec::new();
        tree().write(&mut archive).unwrap();
        child.stdin.take().unwrap().write_all(&archive).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        let listed = String::from_utf8(output.stdout).unwrap();
        assert_eq!(listed, "dev\ndev/console\ninit\nproc\nusr\nusr/bin\nusr/bin/link\nusr/bin/xl\n");
    }

    #[test]
    fn nothing_lies_in_a_file() {
        let mut tree = Tree::default();
        tree.file("/lib", *b"");
        tree.file("/lib/x", *b"");
        assert!(tree.write(&mut Vec::new()).is_err());
    }
}
