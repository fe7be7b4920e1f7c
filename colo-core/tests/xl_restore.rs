//! A restore by the toolstack from its beginning to its end, without Xen: this program plays `xl` and libxl when it is started under
//! the name `xl`, libxl's save helper when that `xl` starts it, and otherwise the process that wants a domain.

use colo_core::ids::DomId;
use colo_core::xen::toolstack::messages::{MISSING_CPUID, Message};
use colo_core::xen::toolstack::{
    ChannelError, DomainUuid, HandoverError, HelperRole, RestoreGuard, RestoreOptions, RestoreToolstackError, Xl,
    XlError, XlRestore,
};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

const UUID: &str = "c68e58a4-e8f9-11f1-9b12-2bf4439fb59e";
const OTHER_UUID: &str = "c68e58a4-e8f9-11f1-9b12-2bf4439fb59f";
const TAIL: &[u8] = b"the device model's state, and the end";

fn main() -> ExitCode {
    if let Some(helper) = HelperRole::detect() {
        return helper.run();
    }
    let program = PathBuf::from(std::env::args_os().next().unwrap());
    if program.file_name() == Some("xl".as_ref()) {
        return fake_xl(program.parent().unwrap());
    }
    if let Some(folder) = std::env::var_os(VICTIM) {
        return victim(folder.as_ref());
    }
    let tests: [(&str, fn()); 9] = [
        ("a_domain_is_restored", a_domain_is_restored),
        ("a_restore_that_is_given_up_leaves_nothing", a_restore_that_is_given_up_leaves_nothing),
        ("a_restore_given_up_after_its_completion_leaves_nothing", given_up_after_its_completion),
        ("xl_that_fails_before_the_helper", xl_that_fails_before_the_helper),
        ("xl_that_hangs_before_the_helper", xl_that_hangs_before_the_helper),
        ("xl_that_dies_and_leaves_its_domain", xl_that_dies_and_leaves_its_domain),
        ("xl_that_fails_at_the_end", xl_that_fails_at_the_end),
        ("libxl_that_refuses", libxl_that_refuses),
        ("a_guard_destroys_what_a_killed_group_leaves", a_guard_destroys_what_a_killed_group_leaves),
    ];
    // As the usual harness does it, a word names the tests that are wanted.
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    for (name, test) in tests {
        if wanted.as_ref().is_none_or(|wanted| name.contains(&**wanted)) {
            println!("test {name} ...");
            test();
        }
    }
    ExitCode::SUCCESS
}

/// A place with an `xl` that behaves in one way, and a file with the domains that there are.
struct Host {
    folder: PathBuf,
    head: Vec<u8>,
}

impl Host {
    fn new(behaviour: &str) -> Host {
        let folder = std::env::temp_dir().join(format!("colo-xl-restore-{}-{behaviour}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        std::os::unix::fs::symlink(std::env::current_exe().unwrap(), folder.join("xl")).unwrap();
        // The second has our name, the third our UUID: neither is ours.
        let others = format!("{OTHER_UUID} 1 web\n{UUID} 2 another\n");
        fs::write(folder.join("domains"), others).unwrap();
        Host { folder, head: Host::head(behaviour) }
    }

    fn head(behaviour: &str) -> Vec<u8> {
        let length = 100_000_u32;
        // More than a pipe takes at once.
        [behaviour.as_bytes(), b"\n", &length.to_le_bytes(), &vec![7; length as usize]].concat()
    }

    fn start(&self, change: impl FnOnce(&mut RestoreOptions<'_>)) -> Result<XlRestore, RestoreToolstackError> {
        let mut options = RestoreOptions::new(&self.head, "web", DomainUuid::parse(UUID).unwrap());
        change(&mut options);
        XlRestore::start(&Xl::at(self.folder.join("xl")), &options, None)
    }

    /// The numbers of the domains, after the two that were there.
    fn new_domains(&self) -> Vec<u32> {
        let numbers = domains(&self.folder).into_iter().map(|(_, number, _)| number);
        let numbers: Vec<u32> = numbers.collect();
        assert_eq!(numbers[..2], [1, 2], "domains of others are left alone");
        numbers[2..].to_vec()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn a_domain_is_restored() {
    let host = Host::new("good");
    let mut restore = host.start(|options| options.paused = true).unwrap();
    let request = restore.request();
    assert_eq!((request.domid, request.store_evtchn, request.console_evtchn), (DomId(9), 1, 2));
    assert_eq!(host.new_domains(), [9]);
    restore.channel().static_data_done(MISSING_CPUID).unwrap();
    restore.channel().results(0xfeffc, 0xfefff).unwrap();
    assert_eq!(restore.finish(TAIL, || ()).unwrap(), DomId(9));
    assert_eq!(host.new_domains(), [9]);
    let said = fs::read_to_string(host.folder.join("said")).unwrap();
    let expected = "restore -p\nmissing 1\nresults feffc fefff\ncomplete 0 0\nhelper exit status: 0\ntail\n";
    assert_eq!(said, expected);
}

fn a_restore_that_is_given_up_leaves_nothing() {
    let host = Host::new("good");
    host.start(|_| ()).unwrap().abort(Errno::NOMEM).unwrap();
    assert_eq!(host.new_domains(), [0_u32; 0]);
    let said = fs::read_to_string(host.folder.join("said")).unwrap();
    assert_eq!(said, "restore\nresults 0 0\ncomplete -1 12\nhelper exit status: 0\n");
    drop(host.start(|_| ()).unwrap());
    assert_eq!(host.new_domains(), [0_u32; 0]);
}

fn given_up_after_its_completion() {
    let host = Host::new("good");
    let mut restore = host.start(|_| ()).unwrap();
    restore.channel().results(1, 2).unwrap();
    restore.channel().complete_ok().unwrap();
    restore.abort(Errno::IO).unwrap();
    assert_eq!(host.new_domains(), [0_u32; 0]);
}

fn xl_that_fails_before_the_helper() {
    let host = Host::new("early");
    let error = host.start(|_| ()).unwrap_err();
    let RestoreToolstackError::Xl(XlError::Failed { line, .. }) = &error else { panic!("{error}") };
    assert_eq!(line, "libxl: error: no memory");
    let host = Host::new("good");
    let error = host.start(|options| options.helper = Some("/nonexistent".as_ref())).unwrap_err();
    assert!(error.to_string().contains("cannot execute"), "{error}");
    assert_eq!(host.new_domains(), [0_u32; 0]);
}

/// Its domain is half built, and known by name and UUID only.
fn xl_that_hangs_before_the_helper() {
    let host = Host::new("hang");
    let error = host.start(|options| options.start_limit = Duration::from_secs(2)).unwrap_err();
    assert!(matches!(error, RestoreToolstackError::Handover(HandoverError::TimedOut)), "{error}");
    assert_eq!(host.new_domains(), [0_u32; 0]);
}

fn xl_that_dies_and_leaves_its_domain() {
    let host = Host::new("vanish");
    let mut restore = host.start(|_| ()).unwrap();
    let error = restore.channel().static_data_done(0).unwrap_err();
    assert!(matches!(error, ChannelError::Gone { .. } | ChannelError::HelperGone { .. }), "{error}");
    let error = restore.channel_error(error);
    assert!(error.to_string().contains("said: libxl: error: dying"), "{error}");
    assert_eq!(host.new_domains(), [9]);
    drop(restore);
    assert_eq!(host.new_domains(), [0_u32; 0]);
}

fn xl_that_fails_at_the_end() {
    let host = Host::new("late");
    let mut restore = host.start(|_| ()).unwrap();
    restore.channel().results(1, 2).unwrap();
    let error = restore.finish(TAIL, || ()).unwrap_err();
    assert!(error.to_string().contains("libxl: error: device model did not start"), "{error}");
    assert_eq!(host.new_domains(), [0_u32; 0]);
    // Without results nothing can be completed.
    let error = host.start(|_| ()).unwrap().finish(TAIL, || ()).unwrap_err();
    assert!(matches!(error, RestoreToolstackError::Channel { error: ChannelError::OutOfOrder { .. }, .. }), "{error}");
    assert_eq!(host.new_domains(), [0_u32; 0]);
}

fn libxl_that_refuses() {
    let host = Host::new("refuse");
    let mut restore = host.start(|_| ()).unwrap();
    let error = restore.channel().static_data_done(MISSING_CPUID).unwrap_err();
    assert!(matches!(error, ChannelError::Refused { reply: -3, .. }), "{error}");
    restore.abort(Errno::INVAL).unwrap();
    assert_eq!(host.new_domains(), [0_u32; 0]);
}

/// In the environment of a process that is to be killed: the folder of its host.
const VICTIM: &str = "COLO_TEST_VICTIM";

/// Killed alone, it leaves the domain to `xl`; killed with `xl`, to its guard.
fn a_guard_destroys_what_a_killed_group_leaves() {
    for with_group in [false, true] {
        let host = Host::new("good");
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .env(VICTIM, &host.folder)
            .env("PATH", &host.folder)
            .process_group(0)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = victim.stdout.take().unwrap();
        said.read_exact(&mut [0]).unwrap();
        assert_eq!(host.new_domains(), [9]);
        let process = Pid::from_child(&victim);
        if with_group {
            kill_process_group(process, Signal::KILL).unwrap();
        } else {
            kill_process(process, Signal::KILL).unwrap();
        }
        victim.wait().unwrap();
        // Its guard has a copy of the other end.
        said.read_to_end(&mut Vec::new()).unwrap();
        assert_eq!(host.new_domains(), [0_u32; 0], "with its group: {with_group}");
        assert_eq!(host.folder.join("said").exists(), !with_group, "xl has come to an end of its own");
    }
}

/// Restores a domain, but does not come to the end.
fn victim(folder: &Path) -> ExitCode {
    let guard = RestoreGuard::start(false).unwrap();
    let host = Host { folder: folder.to_owned(), head: Host::head("good") };
    let options = RestoreOptions::new(&host.head, "web", DomainUuid::parse(UUID).unwrap());
    let _restore = XlRestore::start(&Xl::find().unwrap(), &options, Some(guard)).unwrap();
    std::io::stdout().write_all(b".").and_then(|()| std::io::stdout().flush()).unwrap();
    loop {
        std::thread::park();
    }
}

/// UUID, number, name.
fn domains(folder: &Path) -> Vec<(String, u32, String)> {
    let text = fs::read_to_string(folder.join("domains")).unwrap();
    let domain = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        (words[0].to_owned(), words[1].parse().unwrap(), words[2].to_owned())
    };
    text.lines().map(domain).collect()
}

fn set_domains(folder: &Path, domains: &[(String, u32, String)]) {
    let lines = domains.iter().map(|(uuid, number, name)| format!("{uuid} {number} {name}\n"));
    fs::write(folder.join("domains"), lines.collect::<String>()).unwrap();
}

fn remove_domain(folder: &Path, domid: u32) {
    let mut left = domains(folder);
    left.retain(|(_, number, _)| *number != domid);
    set_domains(folder, &left);
}

fn fake_xl(folder: &Path) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(|argument| &**argument).collect();
    match &arguments[..] {
        ["vm-list"] => {
            println!("UUID                                  ID    name");
            for (uuid, number, name) in domains(folder) {
                println!("{uuid}  {number}    {name:30}");
            }
            ExitCode::SUCCESS
        }
        ["destroy", domid] => {
            remove_domain(folder, domid.parse().unwrap());
            ExitCode::SUCCESS
        }
        ["restore", options @ .., image] => match fake_restore(folder, options, image) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("{why}");
                eprintln!("xl: restore failed");
                ExitCode::FAILURE
            }
        },
        _ => panic!("{arguments:?}"),
    }
}

/// As `xl restore` does it: on a failure the domain is destroyed, but where it is the behaviour not to.
fn fake_restore(folder: &Path, options: &[&str], image: &str) -> Result<(), String> {
    let mut image = fs::File::open(image).unwrap();
    let mut behaviour = Vec::new();
    let mut byte = [0];
    while image.read_exact(&mut byte).is_ok() && byte != *b"\n" {
        behaviour.extend_from_slice(&byte);
    }
    let mut length = [0; 4];
    image.read_exact(&mut length).unwrap();
    let mut head = vec![0; u32::from_le_bytes(length) as usize];
    image.read_exact(&mut head).unwrap();
    assert!(head.iter().all(|byte| *byte == 7));
    if behaviour == b"early" {
        return Err("libxl: error: no memory".into());
    }

    let mut all = domains(folder);
    all.push((UUID.into(), 9, "web".into()));
    set_domains(folder, &all);
    if behaviour == b"hang" {
        // Until it is killed: its image does not end before that.
        let _ = image.read(&mut byte);
        return Ok(());
    }
    let mut said = vec![[&["restore"], options].concat().join(" ")];
    let result = restored(&behaviour, &mut said, &mut image);
    fs::write(folder.join("said"), said.join("\n") + "\n").unwrap();
    if result.is_err() && behaviour != b"vanish" {
        remove_domain(folder, 9);
    }
    result
}

fn restored(behaviour: &[u8], said: &mut Vec<String>, image: &mut fs::File) -> Result<(), String> {
    let mut helper = Command::new(std::env::var_os("LIBXL_SAVE_HELPER").unwrap())
        .args(["--restore-domain", "0", "-1", "9", "1", "0", "2", "0", "768", "0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("libxl: cannot execute: {error}"))?;
    let (mut to_helper, mut from_helper) = (helper.stdin.take().unwrap(), helper.stdout.take().unwrap());
    let mut retval = None;
    while retval.is_none() {
        let mut length = [0; 2];
        if from_helper.read_exact(&mut length).is_err() {
            break;
        }
        let mut body = vec![0; u16::from_le_bytes(length).into()];
        from_helper.read_exact(&mut body).unwrap();
        let message = Message::decode(&body).unwrap();
        let mut reply = 0_i32;
        match &message {
            Message::Log { text, .. } => said.push(format!("log {text}")),
            Message::StaticDataDone { .. } if behaviour == b"vanish" => return Err("libxl: error: dying".into()),
            Message::StaticDataDone { missing } => {
                said.push(format!("missing {missing}"));
                reply = if behaviour == b"refuse" { -3 } else { 0 };
            }
            Message::RestoreResults { store_gfn, console_gfn } => {
                said.push(format!("results {store_gfn:x} {console_gfn:x}"));
            }
            Message::Complete { retval: value, errno } => {
                said.push(format!("complete {value} {errno}"));
                retval = Some(*value);
            }
            other => panic!("{other:?}"),
        }
        if message.wants_reply() {
            to_helper.write_all(&reply.to_le_bytes()).unwrap();
        }
    }
    let status = helper.wait().unwrap();
    said.push(format!("helper {status}"));
    if !status.success() || retval != Some(0) {
        return Err("libxl: error: restoring domain".into());
    }
    // Like libxl, it takes the end of its input for the end of the image.
    let mut tail = Vec::new();
    image.take(TAIL.len() as u64).read_to_end(&mut tail).unwrap();
    if behaviour == b"late" {
        return Err("libxl: error: device model did not start".into());
    }
    if tail == TAIL {
        said.push("tail".into());
    }
    Ok(())
}
