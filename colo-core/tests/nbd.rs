//! The NBD server with real clients: QEMU's tools, libnbd's, and fio.

use colo_core::disk::FileBackend;
use colo_core::disk::nbd::{Export, serve};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const SIZE: u64 = 8 << 20;

/// A served file in a folder of its own.
struct Served {
    folder: PathBuf,
}

impl Served {
    fn new(change: impl FnOnce(Export) -> Export) -> Served {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("colo-nbd-{}-{number}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let served = Served { folder };
        File::create(served.file()).unwrap().set_len(SIZE).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(served.file()).unwrap();
        let (disk, export) = (Arc::new(FileBackend::new(file)), Arc::new(change(Export::new("disk", SIZE))));
        let listener = UnixListener::bind(served.socket()).unwrap();
        // Ends with the process: nobody connects any more by then.
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (disk, export) = (disk.clone(), export.clone());
                std::thread::spawn(move || serve(connection, &export, &*disk).map_err(|error| eprintln!("{error}")));
            }
        });
        served
    }

    fn file(&self) -> PathBuf {
        self.folder.join("disk")
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    fn address(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.socket().display())
    }

    /// Runs `qemu-io` with these commands.
    fn qemu_io(&self, commands: &[&str]) -> Option<Output> {
        let mut qemu_io = Command::new("qemu-io");
        qemu_io.args(commands.iter().flat_map(|command| ["-c", command]));
        run(qemu_io.args(["-f", "raw", &self.address("disk")]))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// What a program says; nothing where it is not installed, except where everything must be.
fn run(command: &mut Command) -> Option<Output> {
    match command.output() {
        Ok(output) => Some(output),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{command:?}: {error}");
            eprintln!("SKIPPED: {command:?}: {error}");
            None
        }
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

fn good(output: &Output) -> String {
    let text = text(output);
    assert!(output.status.success() && !text.contains("failed"), "{text}");
    text
}

#[test]
fn qemu_writes_reads_zeroes_and_discards() {
    let served = Served::new(|export| export);
    let Some(output) = served.qemu_io(&[
        "write -P 0xab 4k 64k",
        "read -P 0xab 4k 64k",
        "write -z 8k 4k",
        "write -z -u 12k 4k",
        "read -P 0 8k 8k",
        "discard 20k 4k",
        "read -P 0 20k 4k",
        "write -f -P 1 1M 4M",
        "aio_write -P 2 6M 64k",
        "aio_write -P 3 7M 64k",
        "aio_flush",
        "read -P 1 1M 4M",
        "flush",
    ]) else {
        return;
    };
    good(&output);
    let disk = fs::read(served.file()).unwrap();
    let part = |at: usize, bytes: usize, value: u8| disk[at..at + bytes].iter().all(|byte| *byte == value);
    assert!(part(4 << 10, 4 << 10, 0xab) && part(8 << 10, 8 << 10, 0) && part(24 << 10, 44 << 10, 0xab));
    assert!(part(1 << 20, 4 << 20, 1) && part(6 << 20, 64 << 10, 2) && part(7 << 20, 64 << 10, 3));
}

#[test]
fn what_is_allocated_is_what_the_file_system_says() {
    let served = Served::new(|export| export);
    let Some(output) = served.qemu_io(&["write -P 7 1M 1M", "write -P 8 5M 64k"]) else { return };
    good(&output);
    let map = |place: &str| {
        let output = run(Command::new("qemu-img").args(["map", "--output=json", "-f", "raw", place])).unwrap();
        let extents: serde_json::Value = serde_json::from_str(&good(&output)).unwrap();
        let field = |extent: &serde_json::Value, name: &str| extent[name].to_string();
        let extents = extents.as_array().unwrap();
        extents
            .iter()
            .map(|extent| ["start", "length", "zero", "data"].map(|name| field(extent, name)))
            .collect::<Vec<_>>()
    };
    assert_eq!(map(&served.address("disk")), map(&served.file().display().to_string()));
}

#[test]
fn a_whole_image_comes_over_and_is_the_same() {
    let served = Served::new(|export| export);
    let image = served.folder.join("image");
    let bytes: Vec<u8> = (0..SIZE).map(|at| if at / 65_536 % 3 == 0 { 0 } else { (at * 7 / 511) as u8 }).collect();
    fs::write(&image, bytes).unwrap();
    let qemu_img = |arguments: &[&str]| {
        let places = [image.display().to_string(), served.address("disk")];
        run(Command::new("qemu-img").args(arguments).args(places)).map(|output| good(&output))
    };
    let Some(_) = qemu_img(&["convert", "-n", "-f", "raw", "-O", "raw"]) else { return };
    assert!(qemu_img(&["compare", "-f", "raw", "-F", "raw"]).unwrap().contains("identical"));
    assert!(fs::read(&image).unwrap() == fs::read(served.file()).unwrap());
}

#[test]
fn many_requests_of_qemu_are_in_flight() {
    let served = Served::new(|export| export);
    let (mut writes, mut reads) = (Vec::new(), Vec::new());
    for at in 0..100 {
        writes.push(format!("aio_write -P {} {}k 16k", at + 1, at * 64));
        reads.push(format!("aio_read -P {} {}k 16k", at + 1, at * 64));
        if at % 10 == 9 {
            writes.push("flush".to_owned());
        }
    }
    let commands: Vec<String> = writes.into_iter().chain(["aio_flush".into()]).chain(reads).collect();
    let Some(output) = served.qemu_io(&commands.iter().map(String::as_str).collect::<Vec<_>>()) else { return };
    good(&output);
}

#[test]
fn libnbd_sees_what_there_is() {
    let served = Served::new(|export| Export { minimum_block: 512, ..export });
    let Some(output) = run(Command::new("nbdinfo").args(["--json", &served.address("disk")])) else { return };
    let told: serde_json::Value = serde_json::from_str(&good(&output)).unwrap();
    let export = &told["exports"][0];
    assert_eq!((&told["structured"], &export["export-size"]), (&true.into(), &SIZE.into()));
    assert_eq!(export["contexts"], serde_json::json!(["base:allocation"]));
    for able in ["can_flush", "can_fua", "can_trim", "can_zero", "can_multi_conn"] {
        assert_eq!(export[able], true, "{able}: {export}");
    }
}

#[test]
fn nbdcopy_brings_an_image_and_takes_it_back() {
    let served = Served::new(|export| export);
    let (image, back) = (served.folder.join("image"), served.folder.join("back"));
    let bytes: Vec<u8> = (0..SIZE).map(|at| if at / 65_536 % 3 == 0 { 0 } else { (at * 7 / 511) as u8 }).collect();
    fs::write(&image, &bytes).unwrap();
    let nbdcopy = |from: &str, to: &str| {
        run(Command::new("nbdcopy").args(["--flush", "--connections=4", "--requests=64", from, to]))
    };
    let (image, address) = (image.display().to_string(), served.address("disk"));
    let Some(output) = nbdcopy(&image, &address) else { return };
    good(&output);
    assert!(fs::read(served.file()).unwrap() == bytes);
    good(&nbdcopy(&address, &back.display().to_string()).unwrap());
    assert!(fs::read(&back).unwrap() == bytes);
}

#[test]
fn fio_finds_what_it_has_written() {
    let served = Served::new(|export| export);
    for (mode, block) in [("randwrite", "--bs=4k"), ("randrw", "--bsrange=512-64k"), ("write", "--bs=1m")] {
        let uri = format!("--uri={}", served.address("disk"));
        let mode = format!("--rw={mode}");
        let mut fio = Command::new("fio");
        fio.current_dir(&served.folder).args(["--name=verify", "--ioengine=nbd", "--iodepth=16", "--verify=crc32c"]);
        fio.args(["--size=8m", "--fsync=37", "--verify_fatal=1", "--do_verify=1", &uri, &mode, block]);
        let Some(output) = run(&mut fio) else { return };
        assert!(output.status.success(), "{}", text(&output));
    }
}

#[test]
fn what_cannot_be_is_said_and_nothing_is_written() {
    let served = Served::new(|export| Export { is_read_only: true, ..export });
    let Some(output) = served.qemu_io(&["write -P 1 0 4k"]) else { return };
    assert!(!output.status.success(), "{}", text(&output));
    let Some(output) =
        run(Command::new("qemu-io").args(["-r", "-c", "read 0 4k", "-f", "raw", &served.address("other")]))
    else {
        return;
    };
    assert!(!output.status.success() && text(&output).contains("there is no export \"other\""), "{}", text(&output));
    let read = run(Command::new("qemu-io").args(["-r", "-c", "read -P 0 0 4k", "-f", "raw", &served.address("disk")]));
    assert!(good(&read.unwrap()).contains("4 KiB"));
    assert!(fs::read(served.file()).unwrap().iter().all(|byte| *byte == 0));
}

#[test]
fn a_client_that_speaks_something_else_is_left_and_others_are_served() {
    let served = Served::new(|export| export);
    for nonsense in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0, 0, 0, 3, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 7, 0, 0, 0, 0]] {
        let mut client = UnixStream::connect(served.socket()).unwrap();
        client.write_all(nonsense).unwrap();
        let mut heard = Vec::new();
        // It may be reset, for what it has not read.
        let _ = client.read_to_end(&mut heard);
        assert!(heard.starts_with(b"NBDMAGICIHAVEOPT") && heard.len() == 18, "{heard:?}");
    }
    if let Some(output) = served.qemu_io(&["read -P 0 0 4k"]) {
        good(&output);
    }
}
