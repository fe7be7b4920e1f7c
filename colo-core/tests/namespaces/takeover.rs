//! A card taken out of its bridge and put back, in every way that a takeover can end. A veth stands in for a Xen guest's vif.

use crate::rig::namespace::{Namespace, possible};
use colo_core::domain::MacAddr;
use colo_core::ids::DomId;
use colo_core::net::sys::{BridgePort, LinkName, Links, PacketSocket, Promiscuous, Tap};
use colo_core::net::takeover::{CardGuard, Orphan, Repaired, Takeover, TakeoverError, repair, repair_kept_out};
use colo_core::net::testing::udp;
use colo_core::net::{Frame, Port};
use colo_core::xen::host::is_tap_of;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::TryRecvError;
use std::thread::JoinHandle;
use std::time::Duration;

/// Longer than anything takes that is not broken.
const PATIENCE: Duration = Duration::from_secs(60);

const SETTINGS: &str = "learning off hairpin on flood off mcast_flood off priority 7 cost 33 isolated on";

fn name(text: &str) -> LinkName {
    text.parse().unwrap()
}

/// Everything about a card that a takeover could change.
#[derive(Clone, PartialEq, Debug)]
struct State {
    /// Whether it is up, and whether the host speaks ARP there.
    flags: (bool, bool),
    mtu: u32,
    address: Option<MacAddr>,
    bridge: Option<String>,
    port: Option<BridgePort>,
    /// What the host's IP was told about it.
    host: [String; 2],
}

/// A host with two guests' cards in a bridge, and a folder for its records.
struct Host {
    network: Namespace,
    folder: PathBuf,
}

impl Host {
    fn new(test: &str) -> Host {
        let network = Namespace::new();
        network.run("ip link add xenbr0 type bridge");
        for nic in ["5.0", "5.1"] {
            network.run(&format!("ip link add vif{nic} mtu 9000 type veth peer name guest{nic}"));
            for change in [format!("vif{nic} master xenbr0"), format!("vif{nic} up"), format!("guest{nic} up")] {
                network.run(&format!("ip link set {change}"));
            }
        }
        network.run("ip link set xenbr0 up");
        network.run("ip link set vif5.1 arp off");
        network.run(&format!("bridge link set dev vif5.0 {SETTINGS}"));
        if has_vlans(&network) {
            network.run("bridge vlan add dev vif5.0 vid 5 pvid untagged");
            network.run("bridge vlan add dev vif5.0 vid 9");
            network.run("bridge vlan del dev vif5.0 vid 1");
        }
        network.set("ipv4/conf/vif5.0/rp_filter", "2");
        let folder = std::env::temp_dir().join(format!("colo-takeover-{test}-{}", std::process::id()));
        Host { network, folder }
    }

    fn state(&self, card: &str) -> State {
        let host = ["ipv6/conf/CARD/disable_ipv6", "ipv4/conf/CARD/rp_filter"];
        let host = host.map(|path| format!("/proc/sys/net/{}", path.replace("CARD", card)));
        self.network.enter(|| {
            let mut links = Links::open().unwrap();
            let link = links.find(&name(card)).unwrap();
            State {
                flags: (link.is_up, link.has_arp),
                mtu: link.mtu,
                address: link.address,
                bridge: link.master.map(|id| links.get(id).unwrap().name.to_string()),
                port: links.bridge_port(link.id).unwrap(),
                host: host.map(|path| std::fs::read_to_string(path).unwrap_or_default()),
            }
        })
    }

    fn has(&self, card: &str) -> bool {
        self.network.enter(|| Links::open().unwrap().find(&name(card)).is_ok())
    }

    fn master(&self, card: &str) -> String {
        word_after(&self.network.run(&format!("ip -o link show dev {card}")), "master")
    }

    fn start(&self, vif: &str, tap: &str) -> Result<(Takeover, PacketSocket, Tap), TakeoverError> {
        self.network.enter(|| Takeover::start_in(&self.folder, &name(vif), &name(tap)))
    }

    fn stop(&self, takeover: Takeover) -> Result<(), TakeoverError> {
        self.network.enter(|| takeover.stop())
    }

    fn repair(&self) -> Vec<(String, Result<Repaired, String>)> {
        let repairs = self.network.enter(|| repair(&self.folder)).unwrap();
        repairs.into_iter().map(|one| (one.vif.to_string(), one.result.map_err(|error| error.to_string()))).collect()
    }

    fn records(&self) -> usize {
        std::fs::read_dir(&self.folder).map_or(0, Iterator::count)
    }

    /// A process that has taken these cards over.
    fn spawn(&self, cards: &[(&str, &str)]) -> Taker {
        self.spawn_with(cards, &[])
    }

    /// The same, with words in its environment.
    fn spawn_with(&self, cards: &[(&str, &str)], environment: &[(&str, &str)]) -> Taker {
        let cards: Vec<_> = cards.iter().map(|(vif, tap)| format!("{vif}={tap}")).collect();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "takeover::takes_over_until_it_is_killed", "--ignored", "--nocapture"]);
        command.env("COLO_TEST_FOLDER", &self.folder).env("COLO_TEST_CARDS", cards.join(" "));
        command.envs(environment.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut process = self.network.enter(|| command.spawn().unwrap());
        let mut said = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("taken over") {
            line.clear();
            assert_ne!(said.read_line(&mut line).unwrap(), 0, "it could not take over");
        }
        Taker::new(process, said)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn has_vlans(network: &Namespace) -> bool {
    !network.run("bridge vlan show dev vif5.1").lines().all(|line| line.starts_with("port"))
}

fn word_after(text: &str, word: &str) -> String {
    let mut words = text.split_whitespace().skip_while(|found| *found != word);
    words.nth(1).unwrap_or_default().to_owned()
}

/// A process that has taken cards over, in a group of its own.
struct Taker {
    process: Child,
    guards: Vec<(Pid, OwnedFd)>,
    _said: BufReader<ChildStdout>,
}

impl Taker {
    fn new(process: Child, said: BufReader<ChildStdout>) -> Taker {
        let parent = process.id();
        let children = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let id = entry.unwrap().file_name().to_str()?.parse::<i32>().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
            let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(1);
            (fields.next()?.parse() == Ok(parent)).then(|| Pid::from_raw(id).unwrap())
        });
        let guards = children.map(|id| (id, pidfd_open(id, PidfdFlags::empty()).unwrap())).collect();
        Taker { process, guards, _said: said }
    }

    fn id(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    /// Waits for the end of it and of its guards. That their output ends says less: they may have its record still.
    fn wait(mut self) {
        self.process.wait().unwrap();
        let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        for (id, guard) in &self.guards {
            let ended = poll(&mut [PollFd::new(guard, PollFlags::IN)], Some(&patience)).unwrap();
            assert_eq!(ended, 1, "guard {id:?} goes on");
        }
    }
}

#[test]
#[ignore = "is what other tests start as a process of its own"]
fn takes_over_until_it_is_killed() {
    let folder = PathBuf::from(std::env::var_os("COLO_TEST_FOLDER").expect("started by another test"));
    let cards = std::env::var("COLO_TEST_CARDS").unwrap();
    let pairs = cards.split(' ').map(|pair| pair.split_once('=').unwrap());
    let mut taken: Vec<_> =
        pairs.map(|(vif, tap)| Takeover::start_in(&folder, &name(vif), &name(tap)).unwrap()).collect();
    if std::env::var_os("COLO_TEST_STAY_OUT").is_some() {
        taken.iter_mut().for_each(|(takeover, ..)| takeover.set_orphan(Orphan::StayOut).unwrap());
    }
    println!("\ntaken over");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    drop(taken);
}

#[test]
fn a_card_is_taken_over_and_put_back_as_it_was() {
    if !possible() {
        return;
    }
    let host = Host::new("plain");
    let before = ["vif5.0", "vif5.1"].map(|card| host.state(card));
    assert_eq!((before[0].flags, before[1].flags, before[0].mtu), ((true, true), (true, false), 9000));
    assert_ne!(before[0].port, before[1].port);
    // Twice, as nothing of the first may be left; two at once, ended in either order.
    for turn in 0..2 {
        let (first, _guest, _clients) = host.start("vif5.0", "colo5.0").unwrap();
        let (second, _other_guest, _other_clients) = host.start("vif5.1", "colo5.1").unwrap();
        assert_eq!(
            ["vif5.0", "vif5.1", "colo5.0", "colo5.1"].map(|card| host.master(card)),
            ["", "", "xenbr0", "xenbr0"]
        );
        // The host is silent and deaf on both; all else of the TAP is what the card's was.
        let silent = |state: &State| State {
            flags: (true, false),
            host: state.host.each_ref().map(|value| if value.is_empty() { String::new() } else { "1\n".into() }),
            ..state.clone()
        };
        assert_eq!(host.state("colo5.0"), silent(&before[0]));
        assert_eq!(host.state("colo5.1"), silent(&before[1]));
        let out = |state: &State| State { bridge: None, port: None, ..silent(state) };
        assert_eq!(host.state("vif5.0"), out(&before[0]));
        assert_eq!(host.records(), 2);
        let mut both = [first, second];
        if turn == 1 {
            both.reverse();
        }
        let [one, other] = both;
        host.stop(one).unwrap();
        // By being dropped.
        host.network.enter(move || drop(other));
        assert_eq!(["vif5.0", "vif5.1"].map(|card| host.state(card)), before);
        // Both ports are open still: the device is gone all the same.
        assert!(!host.has("colo5.0") && !host.has("colo5.1"));
        assert_eq!(host.records(), 0);
    }
}

/// What the kernel tells of every change of a device, in its order.
struct Monitor {
    process: Child,
    lines: Option<JoinHandle<Vec<String>>>,
}

impl Monitor {
    fn start(network: &Namespace) -> Monitor {
        let mut command = Command::new("ip");
        command.args(["-o", "monitor", "link"]).stdout(Stdio::piped());
        let mut process = network.enter(|| command.spawn().unwrap());
        let mut said = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
        let (tell, is_listening) = std::sync::mpsc::channel();
        let lines = std::thread::spawn(move || {
            let first = said.next();
            tell.send(()).unwrap();
            first.into_iter().chain(said.take_while(|line| !line.contains(" the-end:"))).collect()
        });
        let monitor = Monitor { process, lines: Some(lines) };
        // It listens when it tells of something.
        let mut mtu = 2000;
        while is_listening.try_recv() == Err(TryRecvError::Empty) {
            mtu = 5000 - mtu;
            network.run(&format!("ip link set lo mtu {mtu}"));
        }
        monitor
    }

    /// What it has told until now.
    fn end(mut self, network: &Namespace) -> Vec<String> {
        network.run("ip link add the-end type bridge");
        self.lines.take().unwrap().join().unwrap()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A device model's TAP holds nobody back: what does not fit into its queue is dropped. Nor does ours, while nobody takes what clients say.
#[test]
fn what_clients_say_while_we_stand_still_is_not_lost() {
    const FRAMES: usize = 5000;
    if !possible() {
        return;
    }
    let host = Host::new("queue");
    let (takeover, _guest, mut clients) = host.start("vif5.1", "colo5.1").unwrap();
    let said: Vec<Frame> = (0..FRAMES).map(|number| udp(number as u16, 9, b"to whoever stands still")).collect();
    // Through the bridge: a sender of its own would be held back.
    let mut client = host.network.enter(|| PacketSocket::open(&name("guest5.0"), Promiscuous::No)).unwrap();
    let mut rest = &said[..];
    while !rest.is_empty() {
        wait_for(&client, PollFlags::OUT);
        rest = &rest[client.send(rest).unwrap()..];
    }
    let mut heard = Vec::new();
    while heard.len() < FRAMES {
        wait_for(&clients, PollFlags::IN);
        clients.receive(&mut heard).unwrap();
        heard.retain(|frame| said.contains(frame));
    }
    host.stop(takeover).unwrap();
}

fn wait_for(port: &impl Port, what: PollFlags) {
    let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::from_borrowed_fd(port.poll_fd(), what)], Some(&patience)).unwrap();
    assert_eq!(ready, 1, "no more comes");
}

#[test]
fn at_no_moment_are_both_in_the_bridge() {
    if !possible() {
        return;
    }
    let host = Host::new("order");
    let monitor = Monitor::start(&host.network);
    let (takeover, _guest, _clients) = host.start("vif5.0", "colo5.0").unwrap();
    host.stop(takeover).unwrap();
    let lines = monitor.end(&host.network);
    let (mut card, mut tap, mut moves) = (true, false, Vec::new());
    for line in lines {
        let is_in = !line.contains("Deleted") && line.contains("master xenbr0");
        if line.contains(" vif5.0@") && !line.contains("Deleted") {
            card = is_in;
        } else if line.contains(" colo5.0:") {
            tap = is_in;
        } else {
            continue;
        }
        assert!(!(card && tap), "{line}");
        if moves.last() != Some(&(card, tap)) {
            moves.push((card, tap));
        }
    }
    // The monitor has seen all of it.
    moves.dedup();
    assert_eq!(moves, [(true, false), (false, false), (false, true), (false, false), (true, false)]);
}

#[test]
fn a_killed_process_leaves_the_cards_in_their_bridge() {
    if !possible() {
        return;
    }
    let host = Host::new("killed");
    let before = ["vif5.0", "vif5.1"].map(|card| host.state(card));
    let cards = [("vif5.0", "colo5.0"), ("vif5.1", "colo5.1")];
    for whole_group in [false, true] {
        let taker = host.spawn(&cards);
        assert_eq!((host.master("vif5.0"), host.master("vif5.1")), (String::new(), String::new()));
        if whole_group {
            kill_process_group(taker.id(), Signal::KILL).unwrap();
        } else {
            kill_process(taker.id(), Signal::KILL).unwrap();
        }
        taker.wait();
        assert_eq!(["vif5.0", "vif5.1"].map(|card| host.state(card)), before);
        assert!(!host.has("colo5.0") && !host.has("colo5.1"));
        assert_eq!((host.records(), host.repair()), (0, vec![]));
    }
}

/// Kills a process that has taken cards over, and its guards before.
fn kill_with_guards(taker: Taker, guards: usize) {
    assert_eq!(taker.guards.len(), guards);
    for (guard, _) in &taker.guards {
        kill_process(*guard, Signal::KILL).unwrap();
    }
    kill_process(taker.id(), Signal::KILL).unwrap();
    taker.wait();
}

#[test]
fn what_a_killed_guard_leaves_is_repaired() {
    if !possible() {
        return;
    }
    let host = Host::new("repair");
    let before = ["vif5.0", "vif5.1"].map(|card| host.state(card));
    let taker = host.spawn(&[("vif5.0", "colo5.0"), ("vif5.1", "colo5.1")]);
    // As long as it lives it has the cards.
    let id = taker.process.id();
    let in_use = || Ok(Repaired::InUse { process: Some(id) });
    assert_eq!(host.repair(), [("vif5.0".into(), in_use()), ("vif5.1".into(), in_use())]);
    let busy = host.start("vif5.0", "other").unwrap_err().to_string();
    assert_eq!(busy, format!("vif5.0 is taken over by another colo (process {id}): stop that one first"));
    assert_eq!((host.master("vif5.0"), host.master("colo5.0")), (String::new(), "xenbr0".into()));

    kill_with_guards(taker, 2);
    assert_eq!((host.master("vif5.0"), host.records()), (String::new(), 2), "nobody was left to put it back");
    // In another network there are other devices of these numbers.
    let elsewhere = Namespace::new().enter(|| repair(&host.folder)).unwrap();
    assert!(
        elsewhere.iter().all(|one| matches!(one.result, Err(TakeoverError::OtherNamespace { .. }))),
        "{elsewhere:?}"
    );
    let put_back = || Ok(Repaired::PutBack { bridge: name("xenbr0") });
    assert_eq!(host.repair(), [("vif5.0".into(), put_back()), ("vif5.1".into(), put_back())]);
    assert_eq!(["vif5.0", "vif5.1"].map(|card| host.state(card)), before);
    assert_eq!((host.records(), host.repair()), (0, vec![]));

    // Or the next takeover does, and knows the settings of before.
    kill_with_guards(host.spawn(&[("vif5.0", "colo5.0")]), 1);
    let (takeover, ..) = host.start("vif5.0", "other").unwrap();
    host.stop(takeover).unwrap();
    assert_eq!(host.state("vif5.0"), before[0]);
}

#[test]
fn what_has_changed_meanwhile_is_told_or_left_alone() {
    if !possible() {
        return;
    }
    let host = Host::new("changed");
    let leave = || kill_with_guards(host.spawn(&[("vif5.0", "colo5.0")]), 1);
    let before = host.state("vif5.0");
    let outcome = || host.repair().pop().unwrap().1;

    leave();
    host.network.run("ip link set vif5.0 name vif6.0");
    let told = outcome().unwrap_err();
    assert!(
        told.starts_with("vif5.0 is called vif6.0 now: put it back by hand (ip link set vif6.0 master xenbr0"),
        "{told}"
    );
    host.network.run("ip link set vif6.0 name vif5.0");
    // A bridge that has another name is the same.
    host.network.run("ip link set xenbr0 name lan");
    assert_eq!(outcome(), Ok(Repaired::PutBack { bridge: name("lan") }));
    host.network.run("ip link set lan name xenbr0");
    assert_eq!(host.state("vif5.0"), before);

    leave();
    host.network.run("ip link delete xenbr0");
    let told = outcome().unwrap_err();
    assert!(told.starts_with("the bridge xenbr0 of vif5.0 is gone: make it again and run `colo net repair`"), "{told}");
    assert_eq!(host.records(), 1, "for the next try");
    host.network.run("ip link add xenbr0 type bridge");
    host.network.run("ip link set vif5.1 master xenbr0");
    assert_eq!(outcome(), Ok(Repaired::PutBack { bridge: name("xenbr0") }));
    assert_eq!(host.state("vif5.0"), before);

    leave();
    host.network.run("ip link add other type bridge");
    host.network.run("ip link set vif5.0 master other");
    assert_eq!(outcome(), Ok(Repaired::Elsewhere));
    assert_eq!(host.master("vif5.0"), "other");
    assert_eq!(host.state("vif5.0").flags, (true, true));
    host.network.run("ip link set vif5.0 master xenbr0");

    leave();
    host.network.run("ip link delete vif5.0");
    assert_eq!(outcome(), Ok(Repaired::Gone));
    assert_eq!(host.records(), 0);

    // What a full disk leaves, and what is of another version.
    std::fs::write(host.folder.join("vif5.1"), "colo-takeover 2\nprocess 1\n").unwrap();
    assert_eq!(host.repair(), [("vif5.1".into(), Ok(Repaired::Untouched))]);
    std::fs::write(host.folder.join("vif5.1"), "colo-takeover 3\nend\n").unwrap();
    let told = outcome().unwrap_err();
    assert!(told.contains("vif5.1: not a record of this version of colo: put its card back by hand"), "{told}");
    assert!(matches!(host.start("vif5.1", "colo5.1"), Err(TakeoverError::BadRecord { .. })));
    assert_eq!((host.records(), host.master("vif5.1")), (1, "xenbr0".into()));
}

#[test]
fn a_guest_that_goes_meanwhile_needs_nothing() {
    if !possible() {
        return;
    }
    let host = Host::new("gone");
    let (takeover, mut guest, _clients) = host.start("vif5.0", "colo5.0").unwrap();
    host.network.run("ip link delete vif5.0");
    assert!(guest.receive(&mut Vec::new()).is_err());
    host.stop(takeover).unwrap();
    assert!(!host.has("colo5.0"));
    assert_eq!(host.records(), 0);
}

#[test]
fn what_cannot_be_taken_over_is_told_and_left_alone() {
    if !possible() {
        return;
    }
    let host = Host::new("errors");
    host.network.run("ip link add lonely type veth peer name friend");
    host.network.run("ip link add bond0 type bridge");
    let before = host.state("vif5.0");
    for (vif, tap, told) in [
        ("none", "tap", "there is no network device none: `ip link` shows those that there are"),
        ("lonely", "tap", "lonely is in no bridge: put it into its clients' first (ip link set lonely master BRIDGE)"),
        (
            "vif5.0",
            "bond0",
            "there is a network device bond0 already: remove it (ip link delete bond0), or give another name",
        ),
    ] {
        assert_eq!(host.start(vif, tap).unwrap_err().to_string(), told);
        assert!(!host.has("tap"));
        assert_eq!((host.records(), host.state("vif5.0")), (0, before.clone()));
    }
    let file = host.network.enter(|| Takeover::start_in(Path::new("/proc/colo"), &name("vif5.0"), &name("tap")));
    assert!(file.unwrap_err().to_string().starts_with("/proc/colo: "));
    // Without the rights to change anything.
    let told = host.network.enter(|| {
        let none = rustix::thread::CapabilitySet::empty();
        let sets = rustix::thread::CapabilitySets { effective: none, permitted: none, inheritable: none };
        rustix::thread::set_capabilities(None, sets).unwrap();
        Takeover::start_in(&host.folder, &name("vif5.0"), &name("tap")).unwrap_err().to_string()
    });
    assert_eq!(told, "taking vif5.0 over needs CAP_NET_ADMIN and CAP_NET_RAW: run colo as root");
    assert_eq!((host.records(), host.state("vif5.0")), (0, before));
}

/// Carries frames between the two ports until it is told to end; returns the longest that went each way.
fn carry(mut guest: PacketSocket, mut clients: Tap, end: &UnixStream) -> [usize; 2] {
    let mut longest = [0; 2];
    let mut frames: Vec<Frame> = Vec::new();
    loop {
        let wait = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        let fds = [guest.poll_fd(), clients.poll_fd(), end.as_fd()];
        let mut fds = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        assert_ne!(poll(&mut fds, Some(&wait)).unwrap(), 0, "nothing came");
        if !fds[2].revents().is_empty() {
            return longest;
        }
        pass(&mut guest, &mut clients, &mut frames, &mut longest[0]);
        pass(&mut clients, &mut guest, &mut frames, &mut longest[1]);
    }
}

fn pass(from: &mut dyn Port, to: &mut dyn Port, frames: &mut Vec<Frame>, longest: &mut usize) {
    frames.clear();
    from.receive(frames).unwrap();
    *longest = frames.iter().map(|frame| frame.len()).fold(*longest, usize::max);
    // What it does not take is lost, as on a cable: TCP sends it again.
    to.send(frames).unwrap();
}

/// A megabyte or some there and back, over a connection from a client to the guest.
fn talk(client: &Namespace, guest: &Namespace) {
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let listener = guest.enter(|| TcpListener::bind("10.9.0.2:80").unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut connection, _) = listener.accept().unwrap();
            connection.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut got = vec![0; bytes.len()];
            connection.read_exact(&mut got).unwrap();
            connection.write_all(&got).unwrap();
        });
        let address = "10.9.0.2:80".parse().unwrap();
        let mut connection = client.enter(|| TcpStream::connect_timeout(&address, PATIENCE).unwrap());
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut got = vec![0; bytes.len()];
        connection.write_all(&bytes).unwrap();
        connection.read_exact(&mut got).unwrap();
        assert!(got == bytes);
    });
}

#[test]
fn guest_and_clients_talk_before_while_and_after() {
    if !possible() {
        return;
    }
    let (host, client, guest) = (Host::new("traffic"), Namespace::new(), Namespace::new());
    // The settings of the port are for the other tests: this one learns nothing of where the guest is.
    host.network.run("bridge link set dev vif5.0 learning on hairpin off flood on isolated off");
    if has_vlans(&host.network) {
        host.network.run("bridge vlan add dev vif5.0 vid 1 pvid untagged");
    }
    host.network.run("ip link add uplink type veth peer name lan");
    host.network.run("ip link set uplink master xenbr0");
    host.network.run("ip link set uplink up");
    for (card, network, address) in [("lan", &client, "10.9.0.1/24"), ("guest5.0", &guest, "10.9.0.2/24")] {
        host.network.run(&format!("ip link set {card} netns {}", network.path()));
        network.run(&format!("ip address add {address} dev {card}"));
        network.run(&format!("ip link set {card} mtu 1500 up"));
    }
    talk(&client, &guest);
    let (takeover, guests, clients) = host.start("vif5.0", "colo5.0").unwrap();
    let (end, tell) = UnixStream::pair().unwrap();
    let longest = std::thread::scope(|scope| {
        let carrier = scope.spawn(|| carry(guests, clients, &end));
        talk(&client, &guest);
        drop(tell);
        carrier.join().unwrap()
    });
    // Segments that a card would cut, with what is left to do: as one frame, either way.
    assert!(longest.iter().all(|bytes| *bytes > 1514), "{longest:?}");
    host.stop(takeover).unwrap();
    talk(&client, &guest);
}

#[test]
fn a_card_whose_guest_another_host_may_serve_stays_out() {
    if !possible() {
        return;
    }
    let host = Host::new("orphan");
    let taker = host.spawn_with(&[("vif5.0", "colo5.0")], &[("COLO_TEST_STAY_OUT", "1")]);
    kill_process(taker.id(), Signal::KILL).unwrap();
    taker.wait();
    assert_eq!(host.state("vif5.0").port, None, "it is in no bridge");
    assert!(!host.has("colo5.0"), "the TAP is gone");
    assert_eq!(host.repair(), [("vif5.0".into(), Ok(Repaired::KeptOut))]);
    let refused = host.start("vif5.0", "colo5.0").unwrap_err();
    assert!(matches!(refused, TakeoverError::KeptOut(_)), "{refused}");
    assert_eq!(host.state("vif5.0").port, None, "still");
    let put_back = host.network.enter(|| repair_kept_out(&host.folder, |tap| tap.as_str() == "colo5.0")).unwrap();
    assert!(matches!(put_back[0].result, Ok(Repaired::PutBack { .. })), "{put_back:?}");
    assert!(host.state("vif5.0").port.is_some());
    assert_eq!(host.records(), 0);
}

#[test]
fn one_guests_cards_are_put_back_whatever_they_are_called() {
    if !possible() {
        return;
    }
    let host = Host::new("named");
    host.network.run("ip link set vif5.0 down");
    host.network.run("ip link set vif5.0 name web0 up");
    let before = host.state("web0");
    let cards = [("web0", "colo5.0"), ("vif5.1", "colo51.0")];
    let taker = host.spawn_with(&cards, &[("COLO_TEST_STAY_OUT", "1")]);
    kill_process(taker.id(), Signal::KILL).unwrap();
    taker.wait();
    let put_back = host.network.enter(|| repair_kept_out(&host.folder, |tap| is_tap_of(DomId(5), tap))).unwrap();
    let put_back: Vec<_> = put_back.into_iter().map(|one| (one.vif.to_string(), one.result.unwrap())).collect();
    let bridge = name("xenbr0");
    assert_eq!(
        put_back,
        [("vif5.1".into(), Repaired::KeptOut), ("web0".into(), Repaired::PutBack { bridge })],
        "another guest's stays out"
    );
    assert_eq!((host.state("web0"), host.state("vif5.1").port), (before, None));
}

#[test]
fn a_guest_that_is_not_to_be_seen_yet_joins_later() {
    if !possible() {
        return;
    }
    let host = Host::new("aside");
    let before = host.state("vif5.0");
    let aside = || {
        host.network.enter(|| {
            let guard = CardGuard::start()?;
            Takeover::start_aside_in(&host.folder, &name("vif5.0"), &name("colo5.0"), guard)
        })
    };
    let (takeover, guest, clients) = aside().unwrap();
    assert_eq!((host.state("vif5.0").port, host.state("colo5.0").port), (None, None));
    host.network.enter(|| takeover.join()).unwrap();
    assert_eq!(host.state("colo5.0").port, before.port, "in the card's place");
    drop((guest, clients));
    // Not told otherwise, it does not go back by itself.
    host.network.enter(|| drop(takeover));
    assert_eq!(host.state("vif5.0").port, None);
    assert_eq!(host.repair(), [("vif5.0".into(), Ok(Repaired::KeptOut))]);
    host.network.enter(|| repair_kept_out(&host.folder, |tap| tap.as_str() == "colo5.0")).unwrap();
    let (mut takeover, ..) = aside().unwrap();
    takeover.set_orphan(Orphan::PutBack).unwrap();
    host.network.enter(|| drop(takeover));
    assert_eq!(host.state("vif5.0").port, before.port);
    assert_eq!(host.records(), 0);
}
