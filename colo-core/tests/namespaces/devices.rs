//! TAPs, packet sockets, and what is asked and told about devices.

use crate::rig::namespace::{Namespace, possible};
use colo_core::domain::MacAddr;
use colo_core::net::sys::{
    Backlog, BridgePort, Link, LinkId, LinkName, Links, Offloads, PacketSocket, Promiscuous, Tap, open_bare_tap,
};
use colo_core::net::testing::{Tcp, tagged, udp};
use colo_core::net::{Frame, MAX_BATCH_FRAMES, Offload, Port};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io;
use std::slice::from_ref;
use std::time::{Duration, Instant};

/// Longer than anything takes that is not broken.
const PATIENCE: Duration = Duration::from_secs(60);

fn name(text: &str) -> LinkName {
    text.parse().unwrap()
}

fn find(links: &mut Links, text: &str) -> Link {
    links.find(&name(text)).unwrap()
}

/// Takes a device up, and waits until frames pass.
fn bring_up(links: &mut Links, id: LinkId) {
    links.set_up(id, true).unwrap();
    until(|| links.get(id).unwrap().is_running);
}

/// Waits for something that nobody tells.
fn until(mut happens: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !happens() {
        assert!(Instant::now() < end, "it does not happen");
        std::thread::yield_now();
    }
}

/// The next frames, of which there must be some: waits for them.
fn receive(port: &mut dyn Port) -> Vec<Frame> {
    let mut frames = Vec::new();
    while port.receive(&mut frames).unwrap() == 0 {
        let wait = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        let mut fds = [PollFd::from_borrowed_fd(port.poll_fd(), PollFlags::IN)];
        assert_eq!(poll(&mut fds, Some(&wait)).unwrap(), 1, "nothing came");
    }
    frames
}

/// So many frames that fulfil a condition.
fn receive_those(port: &mut dyn Port, count: usize, wanted: impl Fn(&Frame) -> bool) -> Vec<Frame> {
    let mut frames = Vec::new();
    while frames.len() < count {
        frames.extend(receive(port).into_iter().filter(|frame| wanted(frame)));
    }
    frames
}

/// A network in which no card says anything by itself.
fn in_network(work: impl FnOnce(&Namespace, &mut Links) + Send) {
    if !possible() {
        return;
    }
    let network = Namespace::new();
    for when in ["all", "default"] {
        network.set(&format!("ipv6/conf/{when}/disable_ipv6"), "1");
    }
    network.enter(|| work(&network, &mut Links::open().unwrap()));
}

/// Such a network with two cards that are connected by a cable, and up.
fn with_cable(work: impl FnOnce(&mut Links) + Send) {
    in_network(|network, links| {
        network.run("ip link add one type veth peer name other");
        for end in ["one", "other"] {
            let id = find(links, end).id;
            links.set_arp(id, false).unwrap();
            links.set_up(id, true).unwrap();
        }
        until(|| ["one", "other"].iter().all(|end| find(links, end).is_running));
        work(links);
    });
}

fn open(text: &str) -> PacketSocket {
    PacketSocket::open(&name(text), Promiscuous::Yes).unwrap()
}

#[test]
fn what_one_end_of_a_cable_sends_the_other_receives() {
    with_cable(|_| {
        let (mut one, mut other) = (open("one"), open("other"));
        // More than a batch, to be sent and to be received.
        let frames: Vec<Frame> = (0..600_u16).map(|n| udp(n, 9, b"numbered")).collect();
        assert_eq!(one.send(&frames).unwrap(), frames.len());
        let mut received = Vec::new();
        assert_eq!(other.receive(&mut received).unwrap(), MAX_BATCH_FRAMES);
        while received.len() < frames.len() {
            received.extend(receive(&mut other));
        }
        assert!(received == frames, "in order, as they were");
        // Nobody hears what he says himself.
        let mut nothing = Vec::new();
        assert_eq!((one.receive(&mut nothing).unwrap(), other.receive(&mut nothing).unwrap()), (0, 0));
        assert_eq!((one.lost_frames(), other.take_overrun().unwrap()), (0, 0));
    });
}

#[test]
fn what_is_left_to_do_goes_with_a_frame() {
    with_cable(|_| {
        let (mut one, mut other) = (open("one"), open("other"));
        let frame = Tcp::new(80, 4000).seq(1).ack(2).payload(&[7; 60_000]).frame();
        let offload = Offload {
            flags: 1,
            gso_type: 1,
            header_bytes: 54,
            gso_size: 1448,
            checksum_start: 34,
            checksum_offset: 16,
        };
        // Tags are taken out by the kernel on arrival, and come beside the frame.
        let tags = [(0x8100, 0x2005)];
        let behind_tag = Offload { header_bytes: 58, checksum_start: 38, ..offload };
        let small = udp(5, 6, b"small");
        let sent = [
            frame.clone().with_offload(offload),
            tagged(&frame, &tags).with_offload(behind_tag),
            tagged(&small, &tags),
            tagged(&small, &[(0x88A8, 7), (0x8100, 5)]),
        ];
        assert_eq!(one.send(&sent).unwrap(), sent.len());
        assert_eq!(receive_those(&mut other, sent.len(), |_| true), sent);
    });
}

#[test]
fn frames_that_no_card_can_take_are_lost_and_counted() {
    with_cable(|links| {
        let (mut one, mut other) = (open("one"), open("other"));
        let (good, long) = (udp(5, 6, b"good"), udp(5, 6, &[7; 3000]));
        let lies = good.clone().with_offload(Offload { flags: 1, checksum_start: 9000, ..Offload::default() });
        assert_eq!(one.send(&[long, good.clone(), lies, good.clone()]).unwrap(), 4);
        assert_eq!((receive_those(&mut other, 2, |_| true), one.lost_frames()), (vec![good.clone(), good.clone()], 2));
        // As on a cable that is not plugged in, and is again.
        let id = find(links, "one").id;
        links.set_up(id, false).unwrap();
        assert_eq!(one.receive(&mut Vec::new()).unwrap(), 0);
        assert_eq!((one.send(from_ref(&good)).unwrap(), one.lost_frames()), (1, 3));
        bring_up(links, id);
        assert_eq!(one.send(from_ref(&good)).unwrap(), 1);
        assert_eq!(receive(&mut other), *from_ref(&good));
        // And when there is none any more.
        links.remove(id).unwrap();
        assert!(one.receive(&mut Vec::new()).is_err());
        assert!(one.send(&[good]).is_err());
    });
}

#[test]
fn a_card_hears_everything_as_long_as_somebody_wants_to() {
    with_cable(|_| {
        let hears_all = || {
            let output = std::process::Command::new("ip").args(["-d", "link", "show", "one"]).output().unwrap();
            let told = String::from_utf8(output.stdout).unwrap();
            assert!(told.contains("promiscuity"), "{told}");
            !told.contains("promiscuity 0")
        };
        let plain = PacketSocket::open(&name("one"), Promiscuous::No).unwrap();
        assert!(!hears_all());
        let curious = open("one");
        assert!(hears_all());
        drop(curious);
        // A child of another test's may have its descriptor until it has become another program.
        until(|| !hears_all());
        drop(plain);
        let none = PacketSocket::open(&name("no-such-device"), Promiscuous::No).unwrap_err();
        assert_eq!(none.raw_os_error(), Some(Errno::NODEV.raw_os_error()));
    });
}

#[test]
fn a_tap_is_a_card_with_its_cable_here() {
    in_network(|_, links| {
        let mut tap = Tap::open(&name("colo-test"), Offloads::On).unwrap();
        let busy = Tap::open(&name("colo-test"), Offloads::On).unwrap_err();
        assert_eq!(busy.kind(), io::ErrorKind::ResourceBusy);
        let id = find(links, "colo-test").id;
        let frame = udp(5, 6, b"frame");
        assert_eq!((tap.send(from_ref(&frame)).unwrap(), tap.lost_frames()), (1, 1), "it is down");
        links.set_arp(id, false).unwrap();
        bring_up(links, id);

        // The host's own end of the card.
        let mut host = open("colo-test");
        let large = Tcp::new(80, 4000).seq(1).ack(2).payload(&[7; 60_000]).frame().with_offload(Offload {
            flags: 1,
            gso_type: 1,
            header_bytes: 54,
            gso_size: 1448,
            checksum_start: 34,
            checksum_offset: 16,
        });
        let sent = [frame.clone(), large.clone(), tagged(&frame, &[(0x8100, 5)])];
        assert_eq!(tap.send(&sent).unwrap(), sent.len());
        assert_eq!(receive_those(&mut host, sent.len(), |_| true), sent);
        assert_eq!(host.send(&sent).unwrap(), sent.len());
        assert_eq!(receive_those(&mut tap, sent.len(), |_| true), sent);

        // Without offloads the same comes as it is on the cable: in pieces, with their sums.
        let mut tap = Tap::open(&name("colo-plain"), Offloads::Off).unwrap();
        let id = find(links, "colo-plain").id;
        links.set_arp(id, false).unwrap();
        bring_up(links, id);
        let mut host = open("colo-plain");
        assert_eq!(host.send(&[large]).unwrap(), 1);
        let pieces = receive_those(&mut tap, 60_000_usize.div_ceil(1448), |_| true);
        assert!(pieces.iter().all(|piece| piece.offload == Offload::default() && piece.len() <= 54 + 1448));
        assert_eq!(pieces.iter().map(|piece| piece.len() - 54).sum::<usize>(), 60_000);

        links.remove(id).unwrap();
        assert!(tap.receive(&mut Vec::new()).is_err());
        assert!(tap.send(&[frame]).is_err());
    });
}

/// What a TAP has for its reader is taken away from it, whether that one asked for a header or not.
#[test]
fn what_a_device_model_has_not_read_is_taken_back() {
    in_network(|_, links| {
        for (text, header_bytes) in [("back-bare", 0), ("back-virtio", Offload::HEADER_BYTES)] {
            let process = std::process::id();
            let missing = Backlog::open(process, &name(text)).unwrap_err();
            assert_eq!(missing.kind(), io::ErrorKind::NotFound, "{missing}");
            // As QEMU opens one.
            let device = match header_bytes {
                0 => open_bare_tap(&name(text)).unwrap(),
                _ => Tap::open(&name(text), Offloads::Off).unwrap().poll_fd().try_clone_to_owned().unwrap(),
            };
            let id = find(links, text).id;
            links.set_arp(id, false).unwrap();
            bring_up(links, id);
            let mut card = open(text);
            assert_eq!(card.take_back(&mut Vec::new()).unwrap(), 0, "nobody can tell");
            card.set_backlog(Backlog::open(process, &name(text)).unwrap());

            let frames: Vec<Frame> = (0..300_u16).map(|n| udp(n, 9, b"on its way")).collect();
            assert_eq!(card.send(&frames).unwrap(), frames.len());
            let mut first = [0; 2048];
            let length = rustix::io::read(&device, &mut first).unwrap();
            assert_eq!(first[header_bytes..length], frames[0][..]);
            let mut back = Vec::new();
            assert_eq!(card.take_back(&mut back).unwrap(), frames.len() - 1);
            assert!(back == frames[1..]);
            assert_eq!(rustix::io::read(&device, &mut first).unwrap_err(), Errno::AGAIN);
            // It goes with its reader: nobody else keeps it. (But a child of another test's may have a copy until it is another program.)
            drop(device);
            until(|| links.get(id).is_err());
        }
    });
}

#[test]
fn devices_are_found_and_changed() {
    with_cable(|links| {
        let tap = Tap::open(&name("colo-test"), Offloads::On).unwrap();
        let Link { id, kind, is_up, has_arp, master, .. } = find(links, "colo-test");
        assert_eq!((kind.as_deref(), is_up, has_arp, master), (Some("tun"), false, true, None));
        links.set_up(id, true).unwrap();
        links.set_arp(id, false).unwrap();
        links.set_mtu(id, 9000).unwrap();
        links.set_address(id, MacAddr([0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF])).unwrap();
        let link = links.get(id).unwrap();
        assert_eq!((link.is_up, link.has_arp, link.mtu), (true, false, 9000));
        assert_eq!(link.address, Some(MacAddr([0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF])));
        links.set_up(id, false).unwrap();
        links.set_arp(id, true).unwrap();
        let link = links.get(id).unwrap();
        assert_eq!((link.is_up, link.has_arp), (false, true));
        drop(tap);
        // A child of another test's may have its descriptor until it has become another program.
        until(|| links.get(id).is_err());
        let error = links.find(&name("colo-test")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::NODEV.raw_os_error()));
        assert!(links.set_up(id, true).is_err());
    });
}

#[test]
fn a_bridges_port_hands_its_settings_on() {
    if !possible() {
        return;
    }
    let network = Namespace::new();
    network.run("ip link add bridge0 type bridge");
    network.run("ip link add one type veth peer name other");
    network.run("ip link set one master bridge0");
    let settings = "learning off hairpin on flood off mcast_flood off priority 7 cost 33 isolated on";
    network.run(&format!("bridge link set dev one {settings}"));
    // Where the kernel knows VLANs.
    let has_vlans = !network.run("bridge vlan show dev one").lines().all(|line| line.starts_with("port"));
    if has_vlans {
        network.run("bridge vlan add dev one vid 5 pvid untagged");
        network.run("bridge vlan add dev one vid 9");
        network.run("bridge vlan del dev one vid 1");
    }
    network.enter(|| {
        let mut links = Links::open().unwrap();
        let (bridge, one, other) = (find(&mut links, "bridge0"), find(&mut links, "one"), find(&mut links, "other"));
        assert!(bridge.is_bridge() && !one.is_bridge());
        assert_eq!((one.master, other.master), (Some(bridge.id), None));
        let port: BridgePort = links.bridge_port(one.id).unwrap().unwrap();
        assert_eq!(links.bridge_port(other.id).unwrap(), None);
        assert_eq!(port.vlans, if has_vlans { vec![(6, 5), (0, 9)] } else { Vec::new() });
        links.set_master(one.id, None).unwrap();
        links.set_master(other.id, Some(bridge.id)).unwrap();
        assert_ne!(links.bridge_port(other.id).unwrap().unwrap(), port);
        links.set_bridge_port(other.id, &port).unwrap();
        assert_eq!(links.bridge_port(other.id).unwrap().unwrap(), port);
        assert_eq!(links.bridge_port(one.id).unwrap(), None);
    });
    let shown = network.run("bridge -d link show dev other");
    for setting in
        ["learning off", "hairpin on", "flood off", "mcast_flood off", "priority 7", "cost 33", "isolated on"]
    {
        assert!(shown.contains(setting), "{setting}: {shown}");
    }
}
