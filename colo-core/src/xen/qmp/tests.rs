//! The client against a real QEMU, and against peers that are none.

use super::*;
use crate::xen::toolstack::emulator::device_state;
use proptest::prelude::*;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command};

const LIMIT: Duration = Duration::from_secs(30);
const GREETING: &str = "{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\r\n";

/// A QEMU, and its monitor's socket; ended when dropped.
pub(in crate::xen) struct Qemu {
    process: Child,
    folder: PathBuf,
}

impl Qemu {
    /// With no machine. None, with a line that says so, when QEMU is not installed.
    fn start(test: &str) -> Option<Qemu> {
        Self::start_with(test, &["-machine", "none", "-nodefaults", "-nographic", "-S"])
    }

    /// With what these arguments say; likewise.
    pub(in crate::xen) fn start_with(test: &str, arguments: &[&str]) -> Option<Qemu> {
        let folder = std::env::temp_dir().join(format!("colo-qmp-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        // A socket that listens before QEMU runs: connecting needs no waiting for QEMU. It gets it as descriptor 0.
        let listener = std::os::unix::net::UnixListener::bind(folder.join("qmp")).unwrap();
        let process = Command::new("qemu-system-x86_64")
            .args(arguments)
            .args(["-chardev", "socket,id=qmp,fd=0,server=on,wait=off", "-mon", "qmp,mode=control"])
            .stdin(std::os::fd::OwnedFd::from(listener))
            .spawn();
        match process {
            Ok(process) => Some(Qemu { process, folder }),
            Err(error) => {
                eprintln!("SKIPPED: qemu-system-x86_64: {error}");
                std::fs::remove_dir_all(&folder).unwrap();
                None
            }
        }
    }

    pub(in crate::xen) fn connect(&self, limit: Duration) -> Result<QmpClient, QmpError> {
        QmpClient::connect(&self.folder.join("qmp"), limit)
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn a_real_qemu_does_what_it_is_told() {
    let Some(mut qemu) = Qemu::start("told") else { return };
    let mut qmp = qemu.connect(LIMIT).unwrap();
    let status = qmp.query_status().unwrap();
    assert_eq!((status.running, &*status.status), (false, "prelaunch"));
    qmp.cont().unwrap();
    assert!(qmp.query_status().unwrap().running);
    qmp.stop().unwrap();
    assert!(!qmp.query_status().unwrap().running);
    let names: Vec<String> = std::iter::from_fn(|| qmp.next_event()).map(|event| event.name).collect();
    assert_eq!(names, ["RESUME", "STOP"]);
    assert_eq!(qmp.query_cpus().unwrap(), Vec::<u32>::new(), "a machine of type none has no processor");

    // A refused command leaves the connection as it is.
    let refused = qmp.execute("no-such-command", None);
    assert!(matches!(refused, Err(QmpError::Command { class, .. }) if class == "CommandNotFound"));
    qmp.set_global_dirty_log(true).unwrap();
    qmp.set_global_dirty_log(false).unwrap();

    // Only QEMU's own client may be connected: another waits, and gets no greeting.
    assert!(matches!(qemu.connect(Duration::from_millis(50)), Err(QmpError::TimedOut { .. })));

    qmp.quit().unwrap();
    assert!(qemu.process.wait().unwrap().success());
    assert!(matches!(qmp.query_status(), Err(QmpError::Closed { .. })));
    assert!(matches!(qmp.query_status(), Err(QmpError::Failed)));
    assert!(matches!(qemu.connect(LIMIT), Err(QmpError::Unreachable { .. })));
}

#[test]
fn a_real_qemu_saves_its_devices_into_a_file_that_is_handed_to_it() {
    let Some(qemu) = Qemu::start("saves") else { return };
    let mut qmp = qemu.connect(LIMIT).unwrap();
    qmp.stop().unwrap();
    let state = device_state(&mut qmp).unwrap();
    assert!(state.starts_with(b"QEVM"));
    // And again: nothing is left of the first time.
    assert_eq!(device_state(&mut qmp).unwrap().len(), state.len());
    let refused = qmp.save_devices_state(Path::new("/nonexistent/state"), false);
    assert!(matches!(refused, Err(QmpError::Command { .. })), "{refused:?}");
}

/// A client over one end of a pair of sockets, while `peer` has the other.
pub(super) fn against(
    limit: Duration,
    peer: impl FnOnce(UnixStream) + Send,
    client: impl FnOnce(Result<QmpClient, QmpError>) + Send,
) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| peer(theirs));
        client(QmpClient::over(ours.into(), limit));
    });
}

/// Greets, answers the negotiation, and then `reply` to the next command.
fn scripted(stream: UnixStream, reply: &[u8]) {
    scripted_with(stream, |commands, stream| {
        commands.next().unwrap().unwrap();
        // The client may have had enough before the end.
        let _ = stream.write_all(reply);
    });
}

fn scripted_with(
    stream: UnixStream,
    then: impl FnOnce(&mut dyn Iterator<Item = std::io::Result<String>>, &mut UnixStream),
) {
    let mut commands = BufReader::new(stream.try_clone().unwrap()).lines();
    let mut stream = stream;
    stream.write_all(GREETING.as_bytes()).unwrap();
    commands.next().unwrap().unwrap();
    stream.write_all(b"{\"return\": {}, \"id\": 1}\n").unwrap();
    then(&mut commands, &mut stream);
}

/// Greets, answers the negotiation, and then each command with the next reply, in which ID is the command's; and waits for the end.
pub(super) fn converse(stream: UnixStream, replies: &[String]) {
    scripted_with(stream, |commands, stream| {
        for (number, reply) in replies.iter().enumerate() {
            if commands.next().is_none() {
                return;
            }
            let id = (number + 2).to_string();
            let _ = stream.write_all(format!("{}\n", reply.replace("ID", &id)).as_bytes());
        }
        commands.for_each(drop);
    });
}

#[test]
fn replies_that_are_none() {
    let long = [&b"{\"return\": \""[..], &vec![b'x'; MAX_LINE_BYTES + 32 * 1024]].concat();
    let deep = [&b"["[..]; 1000].concat();
    let cases: [(&[u8], &str); 10] = [
        (b"{\"return\": {}, \"id\": 1}\n", "something else"),
        (b"{\"return\": {}}\n", "something else"),
        (b"{\"error\": {\"class\": \"GenericError\", \"desc\": \"x\"}}\n", "something else"),
        (b"{\"id\": 2}\n", "without a result"),
        (b"{\"return\": {}, \"error\": {}, \"id\": 2}\n", "without a result"),
        (b"{\"event\": 7}\n", "no known kind"),
        (b"[]\n", "no known kind"),
        (b"\xff\xfe\n", "no JSON"),
        (&[&deep[..], b"\n"].concat(), "no JSON"),
        (&long, "too long"),
    ];
    for (reply, expected) in cases {
        against(
            LIMIT,
            |stream| scripted(stream, reply),
            |client| {
                let mut client = client.unwrap();
                let error = client.execute("x", None).unwrap_err();
                assert!(matches!(error, QmpError::Protocol { .. }) && error.to_string().contains(expected), "{error}");
                assert!(matches!(client.execute("x", None), Err(QmpError::Failed)));
            },
        );
    }
}

#[test]
fn peers_that_are_silent_or_go_away() {
    let silent = |stream: UnixStream| BufReader::new(stream).lines().for_each(drop);
    against(Duration::from_millis(20), silent, |client| {
        assert!(matches!(client.map(drop), Err(QmpError::TimedOut { doing, .. }) if doing == "its greeting"));
    });
    against(LIMIT, drop, |client| assert!(matches!(client.map(drop), Err(QmpError::Closed { .. }))));
    against(
        LIMIT,
        |stream| scripted(stream, b"{\"return\""),
        |client| assert!(matches!(client.unwrap().execute("x", None), Err(QmpError::Closed { .. }))),
    );
    against(
        LIMIT,
        |mut stream| drop(stream.write_all(b"{\"return\": {}}\n")),
        |client| assert!(matches!(client.map(drop), Err(QmpError::Protocol { what: "no greeting", .. }))),
    );
}

#[test]
fn only_the_last_events_are_kept() {
    let mut reply = Vec::new();
    for number in 0..MAX_EVENTS + 3 {
        writeln!(reply, "{{\"event\": \"E\", \"data\": {number}}}").unwrap();
    }
    reply.extend_from_slice(b"{\"return\": 5, \"id\": 2}\r\n");
    against(
        LIMIT,
        |stream| scripted(stream, &reply),
        |client| {
            let mut client = client.unwrap();
            assert_eq!(client.execute("x", None).unwrap(), 5);
            assert_eq!(client.lost_events(), 3);
            let events: Vec<Event> = std::iter::from_fn(|| client.next_event()).collect();
            assert_eq!(events.len(), MAX_EVENTS);
            assert_eq!(events[0], Event { name: "E".into(), data: 3.into() });
        },
    );
}

#[test]
fn events_without_end_are_no_reply() {
    let chatter = |stream: UnixStream| {
        scripted(stream.try_clone().unwrap(), b"");
        let mut stream = stream;
        while stream.write_all(b"{\"event\": \"E\"}\n").is_ok() {}
    };
    against(Duration::from_millis(50), chatter, |client| {
        let mut client = client.unwrap();
        assert!(matches!(client.execute("x", None), Err(QmpError::TimedOut { .. })));
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A good conversation, cut into any pieces, is understood.
    #[test]
    fn lines_may_come_in_pieces(cuts in proptest::collection::vec(1_usize..9, 1..20)) {
        let reply = b"{\"event\": \"A\"}\r\n{\"return\": {\"x\": [1, \"\\u00e9\\n\"]}, \"id\": 2}\r\n";
        against(LIMIT, |stream| {
            scripted(stream.try_clone().unwrap(), b"");
            let mut stream = stream;
            let mut rest = &reply[..];
            for cut in cuts.iter().cycle() {
                let (part, after) = rest.split_at((*cut).min(rest.len()));
                stream.write_all(part).unwrap();
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
        }, |client| {
            let mut client = client.unwrap();
            assert_eq!(client.execute("x", None).unwrap(), json!({ "x": [1, "é\n"] }));
            assert_eq!(client.next_event().unwrap().name, "A");
        });
    }

    /// Any bytes are an error, without a panic.
    #[test]
    fn garbage_is_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        against(LIMIT, |stream| scripted(stream, &bytes), |client| {
            assert!(client.unwrap().execute("x", None).is_err());
        });
    }

    /// Good lines, with bytes changed: an error or an answer, never a panic.
    #[test]
    fn damaged_lines(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut reply = b"{\"timestamp\": {\"seconds\": 1}, \"event\": \"A\", \"data\": {}}\n{\"return\": {}, \"id\": 2}\n".to_vec();
        let at = at.index(reply.len());
        reply[at] = byte;
        against(LIMIT, |stream| scripted(stream, &reply), |client| {
            let _ = client.unwrap().execute("x", None);
        });
    }
}
