//! Restores an image of `xl save` through the seam that colo uses, but has Xen's own save helper fill the domain: tells whether
//! a toolstack hands over as it should, and what is left when a restore fails at one place or another. Needs a Xen host and root.
//!
//! ```text
//! xl_restore IMAGE [--paused] [--name NAME] [--fail PLACE]
//!   PLACE: start (a helper that does not exist), tell (libxl is told of a failure), drop (nothing is told), half (the helper that
//!          works is killed at its work), xl (xl is killed), die (this program ends), tail (given up before the rest of the image)
//! ```

use colo_core::xen::toolstack::{DomainUuid, HelperRole, RestoreOptions, RestoreRequest, Xl, XlRestore};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::error::Error;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

const HELPER: &str = "/usr/lib/xen-4.17/bin/libxl-save-helper";
/// Far more than a configuration needs.
const MAX_OPTIONAL_BYTES: u32 = 1 << 20;

fn main() -> ExitCode {
    if let Some(helper) = HelperRole::detect() {
        return helper.run();
    }
    let begun = Instant::now();
    match run() {
        Ok(done) => {
            println!("{done} after {} ms", begun.elapsed().as_millis());
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("failed after {} ms: {error}", begun.elapsed().as_millis());
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<String, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (mut image, mut paused, mut name, mut fail) = (None, false, None, String::new());
    while let Some(argument) = arguments.next() {
        match &*argument {
            "--paused" => paused = true,
            "--name" => name = arguments.next(),
            "--fail" => fail = arguments.next().unwrap_or_default(),
            _ => image = Some(argument),
        }
    }
    let mut image = Image::open(&image.ok_or("which image?")?, name)?;
    let mut options = RestoreOptions::new(&image.head, &image.name, image.uuid);
    options.paused = paused;
    if fail == "start" {
        options.helper = Some("/nonexistent".as_ref());
    }
    let xl = Xl::find()?;
    let mut restore = XlRestore::start(&xl, &options, None)?;
    println!("handed over: {:?}", restore.request());
    match &*fail {
        "tell" => return Ok(restore.abort(Errno::NOMEM).map(|()| "told".to_owned())?),
        "drop" => return Ok("dropped".into()),
        "die" => std::process::exit(9),
        "xl" => {
            let parent = std::fs::read_dir("/proc")?.flatten().find_map(|entry| {
                let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
                let line = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
                line.contains("xl\0restore").then_some(pid)
            });
            kill_process(parent.and_then(Pid::from_raw).ok_or("no xl")?, Signal::KILL)?;
        }
        _ => {}
    }
    let code = work(&mut restore, &mut image.file, image.libxc_at, fail == "half")?;
    if fail == "xl" {
        return Ok(restore.abort(Errno::IO).map(|()| "xl was killed".to_owned())?);
    }
    restore.channel().forwarded(code)?;
    if code != 0 {
        restore.abort(Errno::IO)?;
        return Err(format!("Xen's helper ended with {code}").into());
    }
    if fail == "tail" {
        return Ok(restore.abort(Errno::IO).map(|()| "given up after the completion".to_owned())?);
    }
    Ok(format!("{} restored", restore.finish(&image.tail, || ())?))
}

/// Lets Xen's helper fill the domain. The exit code.
fn work(restore: &mut XlRestore, file: &mut File, libxc_at: u64, kill: bool) -> Result<u8, Box<dyn Error>> {
    file.seek(SeekFrom::Start(libxc_at))?;
    fcntl_setfd(&*file, FdFlags::empty())?;
    let request: &RestoreRequest = restore.request();
    let words = [
        request.domid.0,
        request.store_evtchn,
        request.store_domid.0,
        request.console_evtchn,
        request.console_domid.0,
        request.callbacks,
        request.checkpointed,
    ];
    let (to_libxl, from_libxl) = restore.channel().pipes();
    let blocking = |fd: BorrowedFd<'_>| fcntl_setfl(fd, fcntl_getfl(fd)? - OFlags::NONBLOCK);
    blocking(to_libxl)?;
    blocking(from_libxl)?;
    let mut child = Command::new(HELPER)
        .args(["--restore-domain", &file.as_raw_fd().to_string(), "-1"])
        .args(words.map(|word| word.to_string()))
        .stdin(Stdio::from(from_libxl.try_clone_to_owned()?))
        .stdout(Stdio::from(to_libxl.try_clone_to_owned()?))
        .spawn()?;
    if kill {
        // It has begun when it has read the first of the image.
        while file.stream_position()? == libxc_at {
            std::thread::yield_now();
        }
        child.kill()?;
    }
    let status = child.wait()?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// An image of `xl save`, in its parts.
struct Image {
    file: File,
    head: Vec<u8>,
    tail: Vec<u8>,
    libxc_at: u64,
    name: String,
    uuid: DomainUuid,
}

impl Image {
    fn open(path: &str, rename: Option<String>) -> Result<Image, Box<dyn Error>> {
        let mut file = File::open(path)?;
        // Magic, byte order, two sets of flags, the length of the configuration and of its length.
        let mut header = [0; 48];
        file.read_exact(&mut header)?;
        let length = u32::from_le_bytes(header[44..].try_into()?);
        if !header.starts_with(b"Xen saved domain, xl format") || !(4..MAX_OPTIONAL_BYTES).contains(&length) {
            return Err("no image of xl's".into());
        }
        let mut optional = vec![0; length as usize];
        file.read_exact(&mut optional)?;
        let mut config: Value =
            serde_json::from_slice(optional[4..].trim_ascii_end().strip_suffix(&[0]).unwrap_or(&optional[4..]))?;
        if let Some(name) = rename {
            config["c_info"]["name"] = name.into();
        }
        let text = |key: &str| config["c_info"][key].as_str().map(str::to_owned).ok_or("no name or UUID");
        let (name, uuid) = (text("name")?, DomainUuid::parse(&text("uuid")?).ok_or("a strange UUID")?);
        let json = format!("{config}\0");
        let json_length = u32::try_from(json.len())?;

        let mut head = header[..44].to_vec();
        head.extend_from_slice(&(json_length + 4).to_le_bytes());
        head.extend_from_slice(&json_length.to_le_bytes());
        head.extend_from_slice(json.as_bytes());
        // libxl's header, and that of its first record, which is LIBXC_CONTEXT.
        let mut libxl = [0; 24];
        file.read_exact(&mut libxl)?;
        head.extend_from_slice(&libxl);

        let libxc_at = file.stream_position()?;
        file.seek(SeekFrom::Current(40))?;
        loop {
            let mut record = [0; 8];
            file.read_exact(&mut record)?;
            let (kind, length) = record.split_at(4);
            let (kind, length) = (u32::from_le_bytes(kind.try_into()?), u32::from_le_bytes(length.try_into()?));
            if kind == 0 {
                break;
            }
            file.seek(SeekFrom::Current(i64::from(length.next_multiple_of(8))))?;
        }
        let mut tail = Vec::new();
        file.read_to_end(&mut tail)?;
        Ok(Image { file, head, tail, libxc_at, name, uuid })
    }
}
