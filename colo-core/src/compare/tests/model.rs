//! Two machines that cut, repeat, reorder, bundle and fragment as they like, and have more or less of a window open, and a comparator that is slow and plain: it keeps every byte in a map of
//! its own and looks at all of them each time. After every single event both must have decided the same.

use super::*;
use crate::net::ip::IpPacket;
use crate::net::testing::fragments;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The bytes of a connection's stream, in all epochs.
const STREAM_BYTES: usize = 600;
const EVENTS: usize = 400;
const PORTS: [u16; 3] = [80, 81, 82];

/// A generator of decisions: one seed repeats a whole history.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        // xorshift64 (Marsaglia 2003).
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % sides
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.roll(100) < percent
    }
}

/// What a machine says in one segment; places count from the first byte of the stream.
#[derive(Clone, Debug)]
struct Said {
    start: usize,
    bytes: Vec<u8>,
    fin: bool,
    ack: u32,
    window: u16,
    /// The packet comes in fragments, which have this in common.
    fragments: Option<u16>,
}

/// A machine's TCP: how far it has sent and acknowledged.
#[derive(Clone, Debug)]
struct Machine {
    stream: Vec<u8>,
    sent: usize,
    ack: u32,
    window: u16,
    fin_sent: bool,
}

impl Machine {
    const WINDOW: u16 = 8192;

    fn say(&mut self, dice: &mut Dice) -> Said {
        self.ack = (self.ack + [0, 0, 17, 60][dice.roll(4)] as u32).min(Connection::LAST_ACK);
        // None so narrow that it would have to be said again.
        self.window = [Self::WINDOW, 5000, 5001, 6000][dice.roll(4)];
        let (mut start, mut end) = (self.sent, self.sent);
        match dice.roll(10) {
            0 => {}                                                   // a bare acknowledgement
            1..=3 => start = self.sent.saturating_sub(dice.roll(60)), // from before, up to here or beyond
            _ => {}
        }
        if !self.fin_sent {
            end += [0, 1, 20, 60][dice.roll(4)];
        }
        self.segment(start, end.min(STREAM_BYTES), dice.chance(10), dice)
    }

    /// Says all that is left to be said.
    fn finish(&mut self, dice: &mut Dice) -> Option<Said> {
        if self.fin_sent && self.ack == Connection::LAST_ACK {
            return None;
        }
        (self.ack, self.window) = (Connection::LAST_ACK, Self::WINDOW);
        Some(self.segment(self.sent, (self.sent + 1 + dice.roll(90)).min(STREAM_BYTES), true, dice))
    }

    fn segment(&mut self, start: usize, end: usize, may_fin: bool, dice: &mut Dice) -> Said {
        self.sent = self.sent.max(end);
        let fin = end == STREAM_BYTES && (may_fin || self.fin_sent);
        self.fin_sent |= fin;
        let fragments = dice.chance(10).then(|| dice.roll(1 << 16) as u16);
        let bytes = self.stream[start..end].to_vec();
        Said { start, bytes, fin, ack: self.ack, window: self.window, fragments }
    }
}

/// A connection with both machines, and the reference's knowledge of it.
struct Connection {
    port: u16,
    isn: u32,
    client_isn: u32,
    primary: Machine,
    secondary: Machine,
    /// Frames that a machine has said and that are still in its card, where they may change places.
    cards: [VecDeque<Said>; 2],
    held: VecDeque<(usize, Said)>,
    left: BTreeSet<usize>,
    produced: BTreeMap<usize, u8>,
    /// The latest acknowledgement of each machine with the window that it said with it.
    secondary_ack: (u32, u16),
    primary_ack: (u32, u16),
    /// The same as the client has heard it.
    heard: (u32, u16),
    diverged: bool,
}

impl Connection {
    const LAST_ACK: u32 = 3000;
    /// The place that FIN takes.
    const FIN: usize = STREAM_BYTES;

    fn frames(&self, said: &Said) -> Vec<Frame> {
        let tcp = Tcp::new(self.port, 4000).seq(self.isn.wrapping_add(said.start as u32)).window(said.window);
        let tcp = tcp.ack(self.client_isn.wrapping_add(said.ack)).payload(&said.bytes);
        let frame = if said.fin { tcp.fin().frame() } else { tcp.frame() };
        match said.fragments {
            Some(identification) if said.bytes.len() > 4 => fragments(&frame, 24, identification),
            _ => vec![frame],
        }
    }

    /// The frames of a segment that leaves: with no more of a window than both have open, if it can be changed.
    fn left(&self, said: &Said) -> Vec<Frame> {
        let mut left = said.clone();
        if self.frames(said).len() == 1 {
            left.window = said.window.min(self.secondary_ack.1);
        }
        self.frames(&left)
    }

    fn push(&mut self, side: usize, said: Said, dice: &mut Dice) {
        self.cards[side].push_back(said);
        let count = self.cards[side].len();
        if count > 1 && dice.chance(15) {
            self.cards[side].swap(count - 1, count - 2);
        }
    }

    /// The reference: releases from the front as long as all was produced, and finds the first difference.
    fn decide(&mut self, is_open: bool) -> (Vec<Frame>, bool) {
        let was_diverged = self.diverged;
        let mut verified = 0;
        'segments: for (_, said) in &self.held {
            let fin = said.fin.then_some((Self::FIN, 0));
            for (place, byte) in (said.start..).zip(said.bytes.iter().copied()).chain(fin) {
                match self.produced.get(&place) {
                    _ if self.left.contains(&place) => {}
                    Some(theirs) if *theirs == byte => {}
                    Some(_) => {
                        self.diverged = true;
                        break 'segments;
                    }
                    None => break 'segments,
                }
            }
            verified += 1;
        }
        let mut released = Vec::new();
        while is_open && !was_diverged && verified > 0 && self.held[0].1.ack <= self.secondary_ack.0 {
            let (_, said) = self.held.pop_front().unwrap();
            verified -= 1;
            self.mark_left(&said);
            released.extend(self.left(&said));
            let window =
                if self.frames(&said).len() == 1 { said.window.min(self.secondary_ack.1) } else { said.window };
            self.heard = later(self.heard, &Said { window, ..said });
        }
        (released, self.diverged && !was_diverged)
    }

    fn mark_left(&mut self, said: &Said) {
        self.left.extend(said.start..said.start + said.bytes.len());
        self.left.extend(said.fin.then_some(Self::FIN));
    }

    /// The secondary takes the primary's state.
    fn checkpoint(&mut self) {
        self.secondary = self.primary.clone();
        // What was in the primary's card comes out after the checkpoint, of either.
        self.cards[1] = self.cards[0].clone();
        self.produced.clear();
        self.secondary_ack = self.primary_ack;
        self.diverged = false;
    }
}

/// What a machine's latest acknowledgement and window are after a segment.
fn later(before: (u32, u16), said: &Said) -> (u32, u16) {
    if said.ack >= before.0 { (said.ack, said.window) } else { before }
}

/// Which connection a frame belongs to: later fragments do not tell, but the first one comes before them.
#[derive(Default)]
struct Ports {
    last: u16,
}

impl Ports {
    fn of(&mut self, frame: &[u8]) -> u16 {
        let fragment = IpPacket::parse(frame).unwrap().fragment;
        if fragment.is_none_or(|fragment| fragment.offset == 0) {
            self.last = u16::from_be_bytes([frame[34], frame[35]]);
        }
        self.last
    }
}

struct World {
    ports: Ports,
    comparator: Comparator,
    now: Instant,
    connections: Vec<Connection>,
    is_open: bool,
    order: usize,
    number: u64,
    consumed: BTreeSet<u64>,
    divergence_expected: bool,
}

impl World {
    fn new(dice: &mut Dice) -> Self {
        let mut comparator = Comparator::new(CompareConfig::default());
        let now = Instant::now();
        comparator.begin_epoch(Epoch::FIRST);
        comparator.secondary_running(now);
        let connections = PORTS.map(|port| {
            // Near a wrap-around of either number as often as not.
            let number = |dice: &mut Dice| (dice.roll(1 << 32) as u32) | if dice.chance(50) { 0xffff_ff00 } else { 0 };
            let stream = (0..STREAM_BYTES).map(|_| dice.roll(256) as u8).collect();
            let machine = Machine { stream, sent: 0, ack: 1, window: Machine::WINDOW, fin_sent: false };
            Connection {
                port,
                isn: number(dice),
                client_isn: number(dice),
                primary: machine.clone(),
                secondary: machine,
                cards: Default::default(),
                held: VecDeque::new(),
                left: BTreeSet::new(),
                produced: BTreeMap::new(),
                secondary_ack: (0, 0),
                primary_ack: (0, 0),
                heard: (0, 0),
                diverged: false,
            }
        });
        World {
            ports: Ports::default(),
            comparator,
            now,
            connections: connections.into(),
            is_open: true,
            order: 0,
            number: 0,
            consumed: BTreeSet::new(),
            divergence_expected: false,
        }
    }

    fn primary_arrives(&mut self, index: usize) {
        let Some(said) = self.connections[index].cards[0].pop_front() else {
            return;
        };
        let connection = &mut self.connections[index];
        for frame in connection.frames(&said) {
            self.comparator.handle_primary(0, frame, self.now);
        }
        connection.primary_ack = later(connection.primary_ack, &said);
        connection.held.push_back((self.order, said));
        self.order += 1;
        self.check(&[index]);
    }

    fn secondary_arrives(&mut self, index: usize) {
        let Some(said) = self.connections[index].cards[1].pop_front() else {
            return;
        };
        let connection = &mut self.connections[index];
        for frame in connection.frames(&said) {
            self.comparator.handle_secondary(0, self.number, frame, self.now);
            self.number += 1;
        }
        connection.secondary_ack = later(connection.secondary_ack, &said);
        let fin = said.fin.then_some((Connection::FIN, 0));
        for (place, byte) in (said.start..).zip(said.bytes.iter().copied()).chain(fin) {
            connection.produced.entry(place).or_insert(byte);
        }
        self.check(&[index]);
    }

    fn check(&mut self, indices: &[usize]) {
        let mut expected: BTreeMap<u16, Vec<Frame>> = BTreeMap::new();
        for index in indices {
            let connection = &mut self.connections[*index];
            let (released, diverged) = connection.decide(self.is_open);
            self.divergence_expected |= diverged;
            if !released.is_empty() {
                expected.insert(connection.port, released);
            }
        }
        let mut actual: BTreeMap<u16, Vec<Frame>> = BTreeMap::new();
        while let Some(release) = self.comparator.poll_release() {
            actual.entry(self.ports.of(&release.frame)).or_default().push(release.frame);
        }
        assert_eq!(actual, expected);
        while let Some(number) = self.comparator.poll_consumed() {
            assert!(number < self.number && self.consumed.insert(number), "number {number} twice");
        }
    }

    fn checkpoint(&mut self) {
        assert_eq!(self.comparator.poll_divergence().is_some(), self.divergence_expected);
        let back = self.comparator.begin_epoch(self.comparator.epoch().next());
        let mut expected: Vec<(usize, Frame)> = Vec::new();
        for connection in &mut self.connections {
            let held: Vec<_> = connection.held.drain(..).collect();
            for (order, said) in held {
                connection.mark_left(&said);
                connection.heard = later(connection.heard, &said);
                expected.extend(connection.frames(&said).into_iter().map(|frame| (order, frame)));
            }
            connection.checkpoint();
        }
        expected.sort_by_key(|(order, _)| *order);
        let expected: Vec<Frame> = expected.into_iter().map(|(_, frame)| frame).collect();
        assert_eq!(back.into_iter().map(|release| release.frame).collect::<Vec<_>>(), expected);
        (self.is_open, self.divergence_expected, self.number) = (false, false, 0);
        self.consumed.clear();
    }

    fn run_secondary(&mut self) {
        self.comparator.secondary_running(self.now);
        self.is_open = true;
        let all: Vec<usize> = (0..self.connections.len()).collect();
        self.check(&all);
    }

    fn step(&mut self, dice: &mut Dice, divergent: bool) {
        let index = dice.roll(self.connections.len());
        match dice.roll(100) {
            0..=1 => {
                self.checkpoint();
                // The primary runs on; the secondary begins later.
                for _ in 0..dice.roll(12) {
                    self.primary_steps(dice.roll(PORTS.len()), dice);
                }
                self.run_secondary();
            }
            2 if divergent => {
                // From here on the secondary's application has something else to say.
                let secondary = &mut self.connections[index].secondary;
                if let Some(byte) = secondary.stream[secondary.sent..].first_mut() {
                    *byte ^= 1;
                }
            }
            2..=50 => self.primary_steps(index, dice),
            _ => {
                let connection = &mut self.connections[index];
                let said = connection.secondary.say(dice);
                connection.push(1, said, dice);
                self.secondary_arrives(index);
            }
        }
    }

    fn primary_steps(&mut self, index: usize, dice: &mut Dice) {
        let connection = &mut self.connections[index];
        let said = connection.primary.say(dice);
        connection.push(0, said, dice);
        if dice.chance(80) {
            self.primary_arrives(index);
        }
    }

    /// Both say all they have, and all of it arrives.
    fn finish(&mut self, dice: &mut Dice) {
        for index in 0..self.connections.len() {
            for side in [0, 1] {
                loop {
                    let connection = &mut self.connections[index];
                    let machine = if side == 0 { &mut connection.primary } else { &mut connection.secondary };
                    let Some(said) = machine.finish(dice) else {
                        break;
                    };
                    connection.push(side, said, dice);
                }
            }
            while !self.connections[index].cards.iter().all(VecDeque::is_empty) {
                if dice.chance(50) { self.primary_arrives(index) } else { self.secondary_arrives(index) }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Two machines that say the same: everything leaves, and nothing is a difference.
    #[test]
    fn equal_streams_are_released(seed in 1u64..) {
        let mut dice = Dice(seed);
        let mut world = World::new(&mut dice);
        for _ in 0..EVENTS {
            world.step(&mut dice, false);
        }
        world.finish(&mut dice);
        for connection in &world.connections {
            prop_assert!(connection.held.is_empty());
            prop_assert!((0..=Connection::FIN).all(|place| connection.left.contains(&place)));
        }
        prop_assert_eq!(world.comparator.poll_divergence(), None);
        // But a window that the primary had before the secondary, and does not say again.
        let unheard = world.connections.iter().filter(|connection| connection.heard.1 < connection.secondary_ack.1).count();
        prop_assert_eq!(world.consumed.len() + unheard, world.number as usize, "every frame of the secondary has been said");
        world.comparator.handle_timeout(world.now + Duration::from_secs(9));
        prop_assert_eq!(world.comparator.poll_divergence(), None);
    }

    /// Two machines that say different things now and then: not one of those bytes leaves, and each is noticed.
    #[test]
    fn different_bytes_never_leave(seed in 1u64..) {
        let mut dice = Dice(seed);
        let mut world = World::new(&mut dice);
        for _ in 0..EVENTS {
            world.step(&mut dice, true);
        }
        world.finish(&mut dice);
        world.checkpoint();
    }
}

/// The generator does what its name says: without this the tests above could pass by saying nothing.
#[test]
fn histories_are_varied() {
    let (mut repeated, mut reordered, mut diverged, mut late, mut fragmented, mut narrowed) = (0, 0, 0, 0, 0, 0);
    for seed in 1..50 {
        let mut dice = Dice(seed * 0x9e37_79b9);
        let mut world = World::new(&mut dice);
        for _ in 0..EVENTS {
            world.step(&mut dice, true);
            diverged += usize::from(world.divergence_expected);
            for connection in &world.connections {
                let starts: Vec<usize> = connection.held.iter().map(|(_, said)| said.start).collect();
                repeated += starts.windows(2).filter(|pair| pair[0] == pair[1]).count();
                reordered += starts.windows(2).filter(|pair| pair[0] > pair[1]).count();
                let frames = connection.held.iter().map(|(_, said)| connection.frames(said).len());
                fragmented += frames.filter(|frames| *frames > 1).count();
                let clamped = |(_, said): &&(usize, Said)| connection.left(said) != connection.frames(said);
                narrowed += connection.held.iter().filter(clamped).count();
                late += usize::from(connection.held.len() > 3);
            }
        }
    }
    assert!(
        [repeated, reordered, diverged, late, fragmented, narrowed].iter().all(|count| *count > 100),
        "{repeated} {reordered} {diverged} {late} {fragmented} {narrowed}"
    );
}
