//! The machine: interface, services, and what one round of its loop does.

use alloc::{boxed::Box, vec, vec::Vec};

use smoltcp::{
    iface::{Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet},
    phy::Device,
    socket::udp,
    time::{Duration, Instant},
    wire::{EthernetAddress, IpCidr, Ipv4Address},
};

use crate::{
    abi::BootInfo,
    disk::Disk,
    echo::{self, ECHO_PORT, Echo},
    http::HEAD_LIMIT,
    layout::Layout,
    nudge::{self, Connection, Watch, Watched},
    pool::{BACKLOG, Pool, Turn},
    service::{Context, State},
    session::{HTTP_PORT, Http},
};

/// What the machine wants after a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another round at once.
    Again,
    /// Sleep until a frame comes, or the disk has done something, or for so many ns.
    Sleep(Option<u64>),
}

/// The machine without its card: given a device and the time, it does everything else.
pub struct Machine {
    interface: Interface,
    sockets: SocketSet<'static>,
    http: Pool<Http>,
    echo: Pool<Echo>,
    datagrams: SocketHandle,
    state: State,
    clock: fn() -> u64,
    scratch: Box<[u8; HEAD_LIMIT]>,
    watch: Watch,
    /// Connections to be nudged in this round.
    stalled: Vec<Connection>,
}

impl Machine {
    /// A machine with the addresses of `boot` and memory divided as `layout` says; `clock` reads its time in ns.
    ///
    /// # Panics
    /// If `boot`'s Ethernet address is a group's, or its prefix longer than 32 bits: the monitor checks them.
    pub fn new(
        boot: &BootInfo,
        layout: &Layout,
        state: State,
        device: &mut impl Device,
        clock: fn() -> u64,
    ) -> Self {
        let mac = EthernetAddress([
            boot.mac[0],
            boot.mac[1],
            boot.mac[2],
            boot.mac[3],
            boot.mac[4],
            boot.mac[5],
        ]);
        let mut config = Config::new(mac.into());
        config.random_seed = boot.seed;
        let mut interface = Interface::new(config, device, instant(clock()));
        let prefix_len = u8::try_from(boot.prefix_len).expect("prefix of at most 32 bits");
        interface.update_ip_addrs(|addresses| {
            // The list has room for its first address.
            let _ = addresses.push(IpCidr::new(Ipv4Address::from(boot.ipv4).into(), prefix_len));
        });
        if boot.gateway != [0; 4] {
            // Likewise the table for its first route.
            let _ = interface
                .routes_mut()
                .add_default_ipv4_route(Ipv4Address::from(boot.gateway));
        }
        let mut sockets = SocketSet::new(vec![]);
        let mut datagrams: udp::Socket<'static> = echo::datagram_socket();
        // An unbound socket and a port other than 0 leave nothing to fail.
        let _ = datagrams.bind(ECHO_PORT);
        let datagrams = sockets.add(datagrams);
        Self {
            interface,
            sockets,
            http: Pool::new(HTTP_PORT, layout.http),
            echo: Pool::new(ECHO_PORT, layout.echo),
            datagrams,
            state,
            clock,
            scratch: Box::new([0; HEAD_LIMIT]),
            watch: Watch::default(),
            stalled: Vec::new(),
        }
    }

    /// One round: takes frames in, serves, sends.
    ///
    /// At most [`BACKLOG`] frames are taken in, so that the sockets that listen cannot run out within a round. Sending comes
    /// after serving, so that acknowledgements travel with the answers.
    pub fn round(&mut self, device: &mut impl Device) -> Next {
        let now_ns = (self.clock)();
        let now = instant(now_ns);
        self.state.pump();
        let mut frames = 0;
        let mut watched = Watched(device, &mut self.watch);
        while frames < BACKLOG {
            match self
                .interface
                .poll_ingress_single(now, &mut watched, &mut self.sockets)
            {
                PollIngressSingleResult::None => break,
                _ => frames += 1,
            }
        }
        let turn = self.serve(now_ns);
        let disk_done = self.state.pump();
        for connection in self.stalled.drain(..) {
            nudge::nudge(
                &self.watch,
                &connection,
                now,
                &mut self.interface,
                device,
                &mut self.sockets,
            );
        }
        while self.interface.poll_egress(now, device, &mut self.sockets)
            == PollResult::SocketStateChanged
        {}
        if turn.again || disk_done || frames == BACKLOG {
            return Next::Again;
        }
        let network_ns = self
            .interface
            .poll_delay(now, &self.sockets)
            .map(|delay| delay.total_micros() * 1000);
        let service_ns = turn
            .deadline_ns
            .map(|deadline_ns| deadline_ns.saturating_sub(now_ns));
        Next::Sleep(match (network_ns, service_ns) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        })
    }

    /// Whether the disk has done something that nobody has looked at.
    pub fn has_disk_work(&self) -> bool {
        self.state.disk.as_ref().is_some_and(Disk::has_done)
    }

    fn serve(&mut self, now_ns: u64) -> Turn {
        let mut context = Context {
            now_ns,
            clock: self.clock,
            state: &mut self.state,
            scratch: &mut self.scratch,
            watch: &mut self.watch,
            stalled: &mut self.stalled,
        };
        let mut turn = self.http.serve(&mut self.sockets, &mut context);
        turn.merge(self.echo.serve(&mut self.sockets, &mut context));
        echo::echo_datagrams(self.sockets.get_mut(self.datagrams), &mut context);
        turn
    }
}

fn instant(ns: u64) -> Instant {
    Instant::ZERO + Duration::from_micros(ns / 1000)
}

#[cfg(test)]
mod tests;
