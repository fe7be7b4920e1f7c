//! `colo inspect` and Xen's own verifier agree: on what `xl` has written, and on what has been damaged.

use super::Scenario;
use crate::context::Context;
use crate::guest::{Guest, GuestConfig};
use crate::host::{Host, HostConfig};
use crate::process::tied;
use crate::records::Records;
use crate::verify::{ensure_refused, ensure_valid};
use anyhow::{Context as _, Result, ensure};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "inspect-agrees",
    about: "one host: colo inspect and Xen's verify-stream-v2 agree on images of xl's, whole and damaged",
    limit: Duration::from_secs(600),
    needs_root: false,
    run,
};

const LIMIT: Duration = Duration::from_secs(60);

fn run(context: &Context) -> Result<()> {
    let host = Host::boot(context, HostConfig::alone())?;
    for kind in context.guest_types() {
        context.say(&format!("a {} guest", kind.name()));
        let (guest, _) = host.guest(&GuestConfig::new(kind))?;
        let image = save(&host, &guest)?;
        guest.destroy()?;
        ensure_valid(context, &image).context("an image of xl's")?;
        damage(context, &image).with_context(|| format!("an image of a {} guest", kind.name()))?;
        std::fs::remove_file(image)?;
    }
    Ok(())
}

/// By `xl`; the guest runs on.
fn save(host: &Host, guest: &Guest<'_>) -> Result<std::path::PathBuf> {
    host.sh(&format!("xl save -c {} /tmp/image", guest.name()))?;
    let image = host.fetch("/tmp/image")?;
    host.sh("rm /tmp/image")?;
    Ok(image)
}

/// Damages the image in many ways, one after the other; the last of them for good.
fn damage(context: &Context, image: &Path) -> Result<()> {
    let mut colo = tied(context.colo());
    colo.args(["inspect", "--records", "--json"]).arg(image);
    let records = Records::parse(&context.stopper().run(colo, "colo inspect --records", LIMIT)?)?;
    let file = OpenOptions::new().read(true).write(true).open(image)?;
    let pages = records.middle("PAGE_DATA")?;
    let libxc = records.first("libxc", "headers")?;
    let libxl = records.first("libxl", "header")?;
    let tsc = records.first("libxc", "X86_TSC_INFO")?;
    let xl = records.first("xl", "header")?;
    // A record begins with its type and its length, 4 bytes each.
    let patches: [(&str, u64, &[u8]); 8] = [
        ("xl's magic", xl, b"Y"),
        ("libxl's magic", libxl, b"Y"),
        ("libxc's marker", libxc, &[0]),
        ("libxc's version", libxc + 12, &[0, 0, 0, 9]),
        ("the type of a record", tsc, &[0x7f, 0, 0, 0]),
        ("the length of a record", tsc + 4, &[0x10, 0, 0, 0]),
        ("the length of a record of pages", pages + 4, &[16]),
        ("the number of pages of a record", pages + 8, &[1, 0]),
    ];
    for (what, offset, bytes) in patches {
        let mut before = vec![0; bytes.len()];
        file.read_exact_at(&mut before, offset)?;
        ensure!(before != bytes, "{what}: it is that already");
        file.write_all_at(bytes, offset)?;
        refused(context, image, what)?;
        file.write_all_at(&before, offset)?;
    }
    ensure_valid(context, image).context("what was damaged is repaired again")?;
    let length = file.metadata()?.len();
    for (what, length) in [
        ("without its last byte", length - 1),
        ("without its end", records.last("libxl", "END")?),
        ("cut in its tail", records.last("libxc", "END")? - 8),
        ("cut within pages", pages + 5000),
        ("cut within its head", libxl + 4),
        ("empty", 0),
    ] {
        cut(&file, length)?;
        refused(context, image, what)?;
    }
    Ok(())
}

fn cut(file: &File, length: u64) -> Result<()> {
    ensure!(length < file.metadata()?.len(), "it is as short as {length} already");
    Ok(file.set_len(length)?)
}

fn refused(context: &Context, image: &Path, what: &str) -> Result<()> {
    let said = ensure_refused(context, image).with_context(|| what.to_owned())?;
    // Without the file's name.
    println!("{what:<36} {}", said.split_once("image: ").map_or(&*said, |(_, said)| said));
    Ok(())
}
