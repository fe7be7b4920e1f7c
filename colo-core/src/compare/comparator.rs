use super::CompareConfig;
use super::classify::{Content, classify, reset_flow};
use super::datagram::Mask;
use super::flow::{AllSpares, Flow, Held, Outbox, Outgoing, Waiting, What, Witness, charge};
use super::fragments::{Assembled, Fragments, Part};
use super::key::{FlowKey, Key};
use super::rules::Action;
use super::verdict::{Counters, Divergence, Limit, Reason, Release};
use crate::ids::Epoch;
use crate::net::ip::IpPacket;
use crate::net::{Frame, LruTable, SlotId};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

/// How many flows are looked at in one call for whether they are idle: the work is spread.
const MAX_AGED_FLOWS: usize = 64;
/// How often it is tried, within the time after which a flow is idle, when nothing was found.
const AGEINGS: u32 = 64;

/// How long a segment of which a part has been said by both may wait for its rest. The rest may be waiting for the client to hear of the
/// part: so that is sent by itself then. Long against the moments by which two machines drift apart that do the same; nothing depends
/// on it.
const PART_DELAY: Duration = Duration::from_millis(1);

/// Decides which of the primary's frames may leave, by what the secondary says. See the [module](super) for the rules.
///
/// It begins closed: everything is held until [`begin_epoch`](Self::begin_epoch) and [`secondary_running`](Self::secondary_running).
pub struct Comparator {
    config: CompareConfig,
    flows: LruTable<Key, Entry>,
    /// Every flow in which somebody waits, and some more, with the moment from which somebody waited when it was entered here.
    alarms: BinaryHeap<Reverse<(Instant, SlotId)>>,
    /// Flows in which only a part of what is to leave next has been said by both, and since when.
    parts: VecDeque<(Instant, SlotId)>,
    /// Frames of the primary for which the table had no room, or their flow.
    homeless: Vec<(u8, Outgoing)>,
    fragments: Fragments,
    secondary_fragments: Fragments,
    /// The numbers of fragments of the secondary, by that of the one that stands for all of them.
    grouped: HashMap<u64, Box<[u64]>>,
    epoch: Epoch,
    /// When the primary first said something in this epoch.
    said_since: Option<Instant>,
    /// Until when the secondary, which runs in this epoch, has time to do what the primary had done before it ran.
    catches_up_until: Option<Instant>,
    /// A frame of the secondary was forgotten: what it says is not known any more, and nothing leaves before the next epoch.
    is_blind: bool,
    has_diverged: bool,
    divergence: Option<Divergence>,
    out: Outbox,
    /// In all flows; not the fragments of incomplete packets.
    held: Held,
    next_order: u64,
    next_ageing: Option<Instant>,
    counters: Counters,
}

#[derive(Debug)]
struct Entry {
    flow: Flow,
    epoch: Epoch,
    last_used: Instant,
    /// The number of the rule that holds.
    rule: Option<u16>,
    is_bypassed: bool,
    has_alarm: bool,
    /// Whether it is among the parts.
    has_part: bool,
    /// The two machines differ here: nothing leaves before the next epoch.
    has_diverged: bool,
}

impl Comparator {
    /// A comparator that knows no flow yet.
    pub fn new(config: CompareConfig) -> Self {
        Comparator {
            flows: LruTable::new(config.max_flows),
            alarms: BinaryHeap::new(),
            parts: VecDeque::new(),
            homeless: Vec::new(),
            fragments: Fragments::default(),
            secondary_fragments: Fragments::default(),
            grouped: HashMap::new(),
            epoch: Epoch::NONE,
            said_since: None,
            catches_up_until: None,
            is_blind: false,
            has_diverged: false,
            divergence: None,
            out: Outbox { keep_evidence: config.keep_evidence, rules: config.rules.clone(), ..Outbox::default() },
            held: Held::default(),
            next_order: 0,
            next_ageing: None,
            counters: Counters::default(),
            config,
        }
    }

    /// Takes a frame that the primary's guest sent. It is never dropped: it comes out of [`poll_release`](Self::poll_release) or
    /// [`begin_epoch`](Self::begin_epoch). The caller stops when [`is_full`](Self::is_full).
    pub fn handle_primary(&mut self, nic: u8, frame: Frame, now: Instant) {
        self.counters.primary_frames += 1;
        self.said_since.get_or_insert(now);
        let (key, content) = &classify(nic, &frame);
        let outgoing = Outgoing { order: self.next_order, since: now, frame, fragments: None };
        self.next_order += 1;
        match content {
            Content::Fragment(packet) => self.primary_fragment(packet, outgoing, nic, now),
            content => self.push_primary(key, content, outgoing, now),
        }
    }

    /// Takes frame `number` of the secondary's output in the current epoch, with sequence numbers already rewritten to the
    /// primary's. May be called before [`secondary_running`](Self::secondary_running).
    pub fn handle_secondary(&mut self, nic: u8, number: u64, frame: Frame, now: Instant) {
        self.counters.secondary_frames += 1;
        let (key, content) = &classify(nic, &frame);
        let witness = Witness { number, since: now, frame };
        match content {
            _ if self.is_blind => self.counters.forgotten_frames += 1,
            Content::Fragment(packet) => self.secondary_fragment(packet, witness, nic, now),
            content => self.push_secondary(key, content, witness, now),
        }
    }

    /// A client's frame is on its way to both guests. Only one thing is to be learnt from it: that a client has reset a connection. Then
    /// nobody is to hear any more what waits there, and no checkpoint is asked for it: it waits for the next epoch. A reset that the
    /// guests do not believe (its numbers may be wrong) thus costs the connection the time until then, at worst.
    pub fn handle_input(&mut self, nic: u8, frame: &[u8]) {
        let Some(id) = reset_flow(nic, frame).and_then(|key| self.flows.find(&key)) else {
            return;
        };
        if let Some((_, entry)) = self.flows.get_mut(id) {
            entry.flow.client_reset();
        }
    }

    /// The next frame that leaves now, in order.
    pub fn poll_release(&mut self) -> Option<Release> {
        self.out.released.pop_front()
    }

    /// The number of a frame of the secondary of which nothing is left to say, in this epoch: all of its content has left in frames
    /// that [`poll_release`](Self::poll_release) gives, or needs no leaving.
    ///
    /// Numbers come in no order, each once. To be reported to the secondary after those frames were sent.
    pub fn poll_consumed(&mut self) -> Option<u64> {
        let number = self.out.consumed.pop_front()?;
        if !self.grouped.is_empty() {
            if let Some(others) = self.grouped.remove(&number) {
                self.out.consumed.extend(others);
            }
        }
        Some(number)
    }

    /// Why a checkpoint is needed; at most once in an epoch.
    pub fn poll_divergence(&mut self) -> Option<Divergence> {
        self.divergence.take()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called. May be earlier than necessary.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let part = self.parts.front().map(|(since, _)| *since + PART_DELAY);
        if self.has_diverged {
            return part;
        }
        let flow = self.alarms.peek().map(|Reverse((since, _))| *since);
        let fragments = [&self.fragments, &self.secondary_fragments].map(|f| f.waiting().map(|(since, _)| since));
        let first = fragments.into_iter().flatten().chain(flow).min();
        first.and_then(|first| self.deadline(first)).into_iter().chain(part).min()
    }

    /// Looks for frames that have waited too long, and for flows that are idle. May be called at any time.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((_, id)) = self.parts.front().copied().filter(|(since, _)| *since + PART_DELAY <= now) {
            self.parts.pop_front();
            if let Some((_, entry)) = self.flows.get_mut(id) {
                entry.has_part = false;
            }
            self.work(id, now, |flow, out| {
                flow.release_part(out);
                Ok(())
            });
        }
        let mut unheard = Vec::new();
        while !self.has_diverged && self.alarms.peek().is_some_and(|Reverse((since, _))| self.is_late(*since, now)) {
            let Some(Reverse((_, id))) = self.alarms.pop() else { break };
            let Some((key, entry)) = self.flows.get_mut(id) else {
                continue;
            };
            entry.has_alarm = false;
            let (key, waiting, is_notice) = (*key, entry.flow.waiting(), entry.flow.secondary_has_notice());
            if waiting.is_some_and(|waiting| waiting.what == What::Nobody) {
                // It stays among the alarms, for the next epoch.
                entry.has_alarm = true;
                unheard.push(id);
                continue;
            }
            let late_one = waiting.filter(|waiting| self.is_late(waiting.since, now));
            if is_notice && late_one.is_some_and(|late| late.what == What::Secondary) {
                self.work(id, now, |flow, out| {
                    flow.forget_notice(out);
                    Ok(())
                });
                continue;
            }
            self.set_alarm(id);
            if let Some(reason) = late_one.and_then(|late_one| late(late_one, now)) {
                self.differ(id, key, reason);
            }
        }
        self.alarms.extend(unheard.into_iter().map(|id| Reverse((now, id))));
        let fragments =
            [(self.fragments.waiting(), What::Primary), (self.secondary_fragments.waiting(), What::Secondary)];
        for (waiting, what) in fragments {
            let Some((since, flow)) = waiting.filter(|(since, _)| self.is_late(*since, now)) else { continue };
            if let Some(reason) = late(Waiting { since, what }, now) {
                self.diverge(Some(flow), reason);
            }
        }
        self.forget_idle(now);
    }

    /// Whether the caller must stop taking the primary's output until something has left.
    pub fn is_full(&self) -> bool {
        self.held_bytes().primary >= self.config.max_held_bytes || !self.homeless.is_empty()
    }

    /// Whether the next frame of the secondary may be forgotten because so much of it is held. A caller that can hold it back does.
    pub fn is_secondary_full(&self) -> bool {
        self.held_bytes().secondary >= self.config.max_flow_bytes.min(self.config.max_held_bytes)
    }

    /// The primary was captured. Returns all its frames that have not left, in the order in which it made them: they belong to the
    /// ended epoch, and the caller sends them once the checkpoint is acknowledged. The secondary's are forgotten.
    ///
    /// From here on nothing leaves until [`secondary_running`](Self::secondary_running).
    pub fn begin_epoch(&mut self, epoch: Epoch) -> Vec<Release> {
        let mut ended: Vec<(u64, Release)> = Vec::new();
        let mut put = |nic: u8, outgoing: Outgoing| {
            ended.extend(outgoing.into_frames().map(|(order, frame)| (order, Release { nic, frame })));
        };
        let mut of_flow = Vec::new();
        for Reverse((_, id)) in std::mem::take(&mut self.alarms) {
            let Some((key, entry)) = self.flows.get_mut(id) else {
                continue;
            };
            entry.has_alarm = false;
            entry.begin_epoch(epoch, &mut of_flow, &mut self.out.spares);
            of_flow.drain(..).for_each(|outgoing| put(key.nic(), outgoing));
            // A client that was told of a closed window still waits.
            self.set_alarm(id);
        }
        self.homeless.drain(..).for_each(|(nic, outgoing)| put(nic, outgoing));
        let fragments = self.fragments.begin_epoch(self.out.now).into_iter();
        ended.extend(fragments.map(|(nic, Part { number, frame, .. })| (number, Release { nic, frame })));
        self.secondary_fragments.become_primary(&self.fragments);
        ended.sort_unstable_by_key(|(order, _)| *order);
        self.counters.handed_back_frames += ended.len() as u64;

        self.epoch = epoch;
        self.held = Held::default();
        (self.is_blind, self.has_diverged) = (false, false);
        (self.said_since, self.catches_up_until) = (None, None);
        self.divergence = None;
        self.out.consumed.clear();
        self.grouped.clear();
        // What may leave and was not fetched yet was decided on before.
        self.out.released.drain(..).chain(ended.into_iter().map(|(_, release)| release)).collect()
    }

    /// The secondary runs in this epoch, and all that [`begin_epoch`](Self::begin_epoch) returned has left. No frame of the primary
    /// has waited longer than from the moment on at which it may have caught up: it has as long for that as it is behind now.
    pub fn secondary_running(&mut self, now: Instant) {
        if self.is_running() {
            return;
        }
        let behind = self.said_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.catches_up_until = Some(now + behind);
        let mut waiting: Vec<(Instant, SlotId)> = self.alarms.iter().map(|Reverse(alarm)| *alarm).collect();
        waiting.sort_unstable();
        for (_, id) in waiting {
            self.work(id, now, Flow::advance);
        }
    }

    /// The current epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// What was done so far.
    pub fn counters(&self) -> Counters {
        Counters {
            released_frames: self.out.released_frames,
            compared_bytes: self.out.compared_bytes,
            clamped_windows: self.out.clamped_windows,
            cut_frames: self.out.cut_frames,
            reopened_windows: self.out.reopened_windows,
            held_bytes: self.held_bytes().primary,
            flows: self.flows.len(),
            ..self.counters
        }
    }

    fn push_primary(&mut self, key: &Key, content: &Content, outgoing: Outgoing, now: Instant) {
        let Some(id) = self.flow(key, now) else {
            self.held.primary += outgoing.charge();
            self.homeless.push((key.nic(), outgoing));
            self.diverge(None, Reason::QueueFull(Limit::Flows));
            return;
        };
        let Some((_, entry)) = self.flows.get_mut(id) else { return };
        if entry.is_bypassed {
            self.counters.bypassed_frames += 1;
            self.out.nic = key.nic();
            return self.out.release(outgoing);
        }
        if !entry.flow.has_room_for_primary(content) {
            self.held.primary += outgoing.charge();
            self.homeless.push((key.nic(), outgoing));
            self.diverge(Some((*key).into()), Reason::QueueFull(Limit::Connections));
            return;
        }
        let held = self.work(id, now, |flow, out| {
            flow.push_primary(outgoing, content, &mut out.spares);
            flow.advance(out)?;
            flow.overtake(out);
            Ok(())
        });
        // Until the secondary runs nothing can leave, and a checkpoint would not help: the caller's waiting for room will.
        if !self.is_running() {
            return;
        }
        if self.held_bytes().primary >= self.config.max_held_bytes {
            self.diverge(Some((*key).into()), Reason::QueueFull(Limit::HeldBytes));
        } else if held.primary >= self.config.max_flow_bytes {
            self.diverge(Some((*key).into()), Reason::QueueFull(Limit::FlowBytes));
        }
    }

    fn push_secondary(&mut self, key: &Key, content: &Content, witness: Witness, now: Instant) {
        let Some(id) = self.flow(key, now) else {
            return self.forget(None, Limit::Flows);
        };
        let Some((_, entry)) = self.flows.get_mut(id) else { return };
        if entry.is_bypassed {
            return self.out.consumed.push_back(witness.number);
        }
        if !entry.flow.has_room_for_secondary(content) {
            return self.forget(Some(*key), Limit::Connections);
        }
        let is_flow_full = entry.flow.held().secondary >= self.config.max_flow_bytes;
        if self.held_bytes().secondary >= self.config.max_held_bytes {
            return self.forget(Some(*key), Limit::HeldBytes);
        }
        if is_flow_full {
            return self.forget(Some(*key), Limit::FlowBytes);
        }
        self.work(id, now, |flow, out| {
            flow.push_secondary(witness, content, out)?;
            flow.advance(out)
        });
    }

    #[cold]
    fn primary_fragment(&mut self, packet: &IpPacket, outgoing: Outgoing, nic: u8, now: Instant) {
        let Some(fragment) = packet.fragment else { return };
        let Outgoing { order, since, frame, .. } = outgoing;
        match self.fragments.insert(nic, packet, fragment, Part { number: order, since, frame }) {
            Assembled::Incomplete => {}
            Assembled::Whole(frame, parts) => {
                self.counters.reassembled_packets += 1;
                let (key, content) = opaque(nic, &frame);
                let fragments = Some(parts.into_iter().map(|part| (part.number, part.frame)).collect());
                self.push_primary(&key, &content, Outgoing { order, since, frame, fragments }, now);
            }
            Assembled::Apart(parts) => {
                for Part { number, since, frame } in parts {
                    let (key, content) = opaque(nic, &frame);
                    let outgoing = Outgoing { order: number, since, frame, fragments: None };
                    self.push_primary(&key, &content, outgoing, now);
                }
            }
        }
    }

    #[cold]
    fn secondary_fragment(&mut self, packet: &IpPacket, witness: Witness, nic: u8, now: Instant) {
        let Some(fragment) = packet.fragment else { return };
        if self.held_bytes().secondary + charge(&witness.frame) > self.config.max_held_bytes {
            return self.forget(None, Limit::HeldBytes);
        }
        let Witness { number, since, frame } = witness;
        match self.secondary_fragments.insert(nic, packet, fragment, Part { number, since, frame }) {
            Assembled::Incomplete => {}
            Assembled::Whole(frame, parts) => {
                let (key, content) = opaque(nic, &frame);
                let others = parts.iter().map(|part| part.number).filter(|other| *other != number).collect();
                self.grouped.insert(number, others);
                self.push_secondary(&key, &content, Witness { number, since, frame }, now);
            }
            Assembled::Apart(parts) => {
                for Part { number, since, frame } in parts {
                    let (key, content) = opaque(nic, &frame);
                    self.push_secondary(&key, &content, Witness { number, since, frame }, now);
                }
            }
        }
    }

    /// Finds or makes the flow, in the current epoch. `None` when there are too many in which somebody waits.
    fn flow(&mut self, key: &Key, now: Instant) -> Option<SlotId> {
        if let Some(id) = self.flows.find(key) {
            let (_, entry) = self.flows.get_mut(id)?;
            entry.last_used = now;
            if entry.epoch != self.epoch {
                // Nobody waited there when the epoch began.
                entry.begin_epoch(self.epoch, &mut Vec::new(), &mut self.out.spares);
            }
            return Some(id);
        }
        let rule = self.config.rules.find(|| (*key).into());
        let entry = Entry {
            flow: Flow::new(key),
            epoch: self.epoch,
            last_used: now,
            rule,
            is_bypassed: rule.is_some_and(|rule| *self.config.rules.action(rule) == Action::Bypass),
            has_alarm: false,
            has_part: false,
            has_diverged: false,
        };
        let inserted = self.flows.insert(*key, entry, |entry| entry.flow.waiting().is_none()).ok()?;
        self.counters.evicted_flows += u64::from(inserted.evicted.is_some());
        Some(inserted.id)
    }

    /// Forgets flows that nobody has used for long.
    fn forget_idle(&mut self, now: Instant) {
        if self.next_ageing.is_some_and(|next| now < next) {
            return;
        }
        let before = self.counters.aged_flows;
        for _ in 0..MAX_AGED_FLOWS {
            let Some(id) = self.flows.oldest() else { break };
            let Some((_, entry)) = self.flows.get_mut(id) else { break };
            let is_idle = now.saturating_duration_since(entry.last_used) >= self.config.idle_timeout;
            if is_idle && entry.flow.waiting().is_none() {
                self.flows.remove(id);
                self.counters.aged_flows += 1;
            } else {
                // The table's order is not exact.
                self.flows.promote(id);
            }
        }
        if self.counters.aged_flows == before {
            self.next_ageing = Some(now + self.config.idle_timeout / AGEINGS);
        }
    }

    /// Lets a flow do something, and keeps the sums and the alarms right. Returns what the flow holds then.
    fn work(
        &mut self,
        id: SlotId,
        now: Instant,
        step: impl FnOnce(&mut Flow, &mut Outbox) -> Result<(), Reason>,
    ) -> Held {
        let open = self.is_running() && !self.is_blind;
        let Some((key, entry)) = self.flows.get_mut(id) else {
            return Held::default();
        };
        (self.out.nic, self.out.now, self.out.rule) = (key.nic(), Some(now), entry.rule);
        self.out.open = open && !entry.has_diverged;
        let before = entry.flow.held();
        let verdict = step(&mut entry.flow, &mut self.out);
        entry.has_diverged |= verdict.is_err();
        if self.out.open && !entry.has_part && entry.flow.has_part() {
            entry.has_part = true;
            self.parts.push_back((now, id));
        }
        let after = entry.flow.held();
        let is_over = entry.flow.is_closed() && after == Held::default();
        self.held.primary = self.held.primary - before.primary + after.primary;
        self.held.secondary = self.held.secondary - before.secondary + after.secondary;
        if let Err(reason) = verdict {
            let key = *key;
            self.differ(id, key, reason);
        }
        self.set_alarm(id);
        if is_over {
            self.flows.demote(id);
        }
        after
    }

    fn set_alarm(&mut self, id: SlotId) {
        let Some((_, entry)) = self.flows.get_mut(id) else {
            return;
        };
        if entry.has_alarm {
            return;
        }
        if let Some(waiting) = entry.flow.waiting() {
            entry.has_alarm = true;
            self.alarms.push(Reverse((waiting.since, id)));
        }
    }

    /// Whether the secondary runs in this epoch.
    fn is_running(&self) -> bool {
        self.catches_up_until.is_some()
    }

    /// When somebody who waits since then has waited too long; `None` while the secondary does not run.
    fn deadline(&self, since: Instant) -> Option<Instant> {
        Some(since.max(self.catches_up_until?) + self.config.timeout)
    }

    fn is_late(&self, since: Instant, now: Instant) -> bool {
        self.deadline(since).is_some_and(|deadline| deadline <= now)
    }

    fn held_bytes(&self) -> Held {
        Held {
            primary: self.held.primary + self.fragments.held_bytes(),
            secondary: self.held.secondary + self.secondary_fragments.held_bytes(),
        }
    }

    fn forget(&mut self, flow: Option<Key>, limit: Limit) {
        self.is_blind = true;
        self.counters.forgotten_frames += 1;
        self.diverge(flow.map(FlowKey::from), Reason::QueueFull(limit));
    }

    /// The machines differ in a flow.
    fn differ(&mut self, id: SlotId, key: Key, reason: Reason) {
        if self.diverge(Some(key.into()), reason) && self.config.keep_evidence {
            let evidence = self.flows.get_mut(id).map(|(_, entry)| Box::new(entry.flow.evidence()));
            if let Some(divergence) = &mut self.divergence {
                divergence.evidence = evidence;
            }
        }
    }

    /// A checkpoint is needed. Returns whether this is the first reason for it.
    fn diverge(&mut self, flow: Option<FlowKey>, reason: Reason) -> bool {
        if self.has_diverged {
            return false;
        }
        self.has_diverged = true;
        self.counters.count(&reason);
        self.divergence = Some(Divergence { flow, reason, evidence: None });
        true
    }
}

impl Entry {
    fn begin_epoch(&mut self, epoch: Epoch, ended: &mut Vec<Outgoing>, spares: &mut AllSpares) {
        self.flow.begin_epoch(ended, spares);
        self.epoch = epoch;
        self.has_diverged = false;
    }
}

impl fmt::Debug for Comparator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Comparator")
            .field("epoch", &self.epoch)
            .field("counters", &self.counters())
            .finish_non_exhaustive()
    }
}

/// How a frame is compared that is not put together with others.
fn opaque(nic: u8, frame: &[u8]) -> (Key, Content) {
    match classify(nic, frame) {
        (key, Content::Fragment(packet)) => (key, Content::Datagram(Mask::of(&packet, None))),
        other => other,
    }
}

/// Why a checkpoint is needed when something has waited too long.
fn late(Waiting { since, what }: Waiting, now: Instant) -> Option<Reason> {
    let waited = now.saturating_duration_since(since);
    Some(match what {
        What::Primary => Reason::Unmatched { waited },
        What::Secondary => Reason::OnlySecondary { waited },
        What::Window => Reason::WindowClosed { waited },
        What::Nobody => return None,
    })
}
