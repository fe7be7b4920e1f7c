//! Real QEMU on both hosts: its filters feed the comparator, take what it lets out, and rewrite the secondary's sequence numbers.
//!
//! No machine runs in it. Where one would have its card there is another socket, through which the test is the guest:
//!
//! ```text
//! guest <-> hub <-> LAN, with filters      (for the primary, and again for the secondary)
//! ```

use crate::frames::mixture;
use crate::rig::{Link, Rig};
use colo_core::net::Frame;
use colo_core::net::qemu::NotifyMessage;
use colo_core::net::testing::{Tcp, ack_of, seq_of, udp};
use std::io::ErrorKind;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

/// The two machines' QEMU, in one process, and the test's ends of its sockets.
struct Qemu {
    child: Child,
    primary: Machine,
    secondary: Machine,
}

struct Machine {
    guest: Link,
    lan: Link,
}

impl Qemu {
    /// `None` where it is not installed.
    fn start(rig: &Rig, has_vnet_header: bool) -> Option<Qemu> {
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-machine", "none", "-nodefaults", "-nographic", "-monitor", "none", "-serial", "none"]);
        let mut listeners = Vec::new();
        for (hub, name) in [(0, "guest0"), (0, "lan0"), (1, "guest1"), (1, "lan1")] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            command.arg("-netdev").arg(format!("socket,id={name},connect={}", listener.local_addr().unwrap()));
            command.arg("-netdev").arg(format!("hubport,id=hub-{name},hubid={hub},netdev={name}"));
            listeners.push(listener);
        }
        for name in ["primary-in", "secondary-in", "out"] {
            command.arg("-chardev").arg(format!("socket,id={name},path={}", rig.address(name)));
        }
        let vnet = if has_vnet_header { ",vnet_hdr_support=on" } else { "" };
        // Frames go through the filters in this order: what is let out does not come back in.
        for filter in [
            "filter-redirector,id=f0,netdev=lan0,queue=rx,indev=out",
            "filter-redirector,id=f1,netdev=lan0,queue=rx,outdev=primary-in",
            "filter-redirector,id=f2,netdev=lan1,queue=rx,outdev=secondary-in",
            "filter-rewriter,id=f3,netdev=lan1,queue=all",
        ] {
            command.arg("-object").arg(format!("{filter}{vnet}"));
        }
        let mut child = match command.stdin(Stdio::null()).stderr(Stdio::null()).spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                eprintln!("SKIPPED: there is no qemu-system-x86_64");
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        let mut links = listeners.into_iter().map(|listener| accept(&listener, &mut child));
        let mut machine = || Machine { guest: links.next().unwrap(), lan: links.next().unwrap() };
        let (primary, secondary) = (machine(), machine());
        Some(Qemu { child, primary, secondary })
    }

    /// Both guests say this.
    fn both_say(&mut self, frames: &[Frame]) {
        self.primary.guest.send(frames);
        self.secondary.guest.send(frames);
    }

    /// A client says this, to both.
    fn client_says(&mut self, frame: &Frame) {
        for machine in [&mut self.primary, &mut self.secondary] {
            machine.lan.send(std::slice::from_ref(frame));
        }
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // Fails only when it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The connection that QEMU makes, which has the framing of its filters.
fn accept(listener: &TcpListener, child: &mut Child) -> Link {
    listener.set_nonblocking(true).unwrap();
    loop {
        match listener.accept() {
            Ok((connection, _)) => {
                connection.set_nonblocking(false).unwrap();
                return Link::new(connection.into(), false);
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        assert_eq!(child.try_wait().unwrap(), None, "QEMU has ended");
        std::thread::yield_now();
    }
}

#[test]
fn frames_go_through_qemus_filters() {
    for has_vnet_header in [false, true] {
        let rig = Rig::start(|config| config.vnet_header = has_vnet_header);
        let Some(mut qemu) = Qemu::start(&rig, has_vnet_header) else {
            return;
        };
        let frames = mixture(200);
        qemu.both_say(&frames);
        qemu.primary.lan.expect(&frames);
        let totals = rig.totals();
        assert_eq!((totals.counters.released_frames, totals.bad_framings), (200, 0), "{totals}");
    }
}

/// QEMU sends and receives in one thread: were it held back where it sends, it would never read what is let out.
#[test]
fn a_burst_does_not_lock_qemu_up() {
    let rig = Rig::start(|config| config.compare.max_flow_bytes = config.compare.max_held_bytes);
    let Some(mut qemu) = Qemu::start(&rig, false) else {
        return;
    };
    let frames: Vec<Frame> =
        (0..6000u16).map(|number| udp(53, 4000, &[&number.to_be_bytes()[..], &[7; 1400]].concat())).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| qemu.primary.guest.send(&frames));
        scope.spawn(|| qemu.secondary.guest.send(&frames));
        qemu.primary.lan.expect(&frames);
    });
    assert_eq!(rig.totals().lost_out_frames, 0);
}

/// The two guests choose different sequence numbers; QEMU's filter-rewriter makes up for that once the client has answered.
#[test]
fn a_connection_with_two_sequence_numbers() {
    const CLIENT: u32 = 1_000_000;
    const PRIMARY: u32 = 20_000;
    const SECONDARY: u32 = 4_294_967_000;
    let rig = Rig::start(|_| {});
    let Some(mut qemu) = Qemu::start(&rig, false) else {
        return;
    };
    let mut toolstack = rig.toolstack();

    let syn = Tcp::new(4000, 80).inbound().seq(CLIENT).syn().frame();
    qemu.client_says(&syn);
    qemu.primary.guest.expect(std::slice::from_ref(&syn));
    qemu.secondary.guest.expect(&[syn]);
    let segment = |isn: u32, at: u32| Tcp::new(80, 4000).seq(isn.wrapping_add(at)).ack(CLIENT + 1);
    let answer = segment(PRIMARY, 0).syn().frame();
    qemu.primary.guest.send(std::slice::from_ref(&answer));
    qemu.secondary.guest.send(&[segment(SECONDARY, 0).syn().frame()]);
    qemu.primary.lan.expect(&[answer]);

    let ack = Tcp::new(4000, 80).inbound().seq(CLIENT + 1).ack(PRIMARY + 1).frame();
    qemu.client_says(&ack);
    qemu.primary.guest.expect(std::slice::from_ref(&ack));
    let rewritten = qemu.secondary.guest.receive().unwrap();
    assert_eq!((seq_of(&rewritten).0, ack_of(&rewritten).0), (CLIENT + 1, SECONDARY + 1));

    // The same bytes, cut differently; the secondary's go past the wrap.
    let text = [b'x'; 1000];
    let data = |isn, from: usize, to: usize| segment(isn, 1 + from as u32).payload(&text[from..to]).frame();
    let said = [data(PRIMARY, 0, 400), data(PRIMARY, 400, 1000)];
    qemu.primary.guest.send(&said);
    qemu.secondary.guest.send(&[data(SECONDARY, 0, 700), data(SECONDARY, 700, 1000)]);
    qemu.primary.lan.expect(&said);
    assert_eq!(rig.totals().divergences, 0);

    // And then others.
    let said = [segment(PRIMARY, 1001).payload(b"10:15").frame()];
    qemu.primary.guest.send(&said);
    qemu.secondary.guest.send(&[segment(SECONDARY, 1001).payload(b"10:16").frame()]);
    assert_eq!(toolstack.hear(), NotifyMessage::DoCheckpoint);
    toolstack.say(&NotifyMessage::Checkpoint);
    qemu.primary.lan.expect(&said);
}
