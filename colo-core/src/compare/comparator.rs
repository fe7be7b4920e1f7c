use super::CompareConfig;
use super::flow::{Content, Flow, FlowKey, Held, Outbox, Outgoing, Waiting, Witness, classify};
use super::verdict::{Counters, Divergence, Limit, Reason, Release};
use crate::ids::Epoch;
use crate::net::{Frame, LruTable, SlotId};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::time::Instant;

/// Decides which of the primary's frames may leave, by what the secondary says. See the [module](super) for the rules.
///
/// It begins closed: everything is held until [`begin_epoch`](Self::begin_epoch) and [`secondary_running`](Self::secondary_running).
pub struct Comparator {
    config: CompareConfig,
    flows: LruTable<FlowKey, Entry>,
    /// Every flow in which somebody waits, and some more, with the moment from which somebody waited when it was entered here.
    alarms: BinaryHeap<Reverse<(Instant, SlotId)>>,
    /// Frames of the primary for which the table had no room.
    homeless: Vec<(u8, Outgoing)>,
    epoch: Epoch,
    /// From when on the secondary has been running in this epoch.
    running_since: Option<Instant>,
    /// A frame of the secondary was forgotten: what it says is not known any more, and nothing leaves before the next epoch.
    is_blind: bool,
    has_diverged: bool,
    divergence: Option<Divergence>,
    out: Outbox,
    held: Held,
    next_order: u64,
    counters: Counters,
}

#[derive(Debug)]
struct Entry {
    flow: Flow,
    epoch: Epoch,
    has_alarm: bool,
    /// The two machines differ here: nothing leaves before the next epoch.
    has_diverged: bool,
}

impl Comparator {
    /// A comparator that knows no flow yet.
    pub fn new(config: CompareConfig) -> Self {
        Comparator {
            flows: LruTable::new(config.max_flows),
            config,
            alarms: BinaryHeap::new(),
            homeless: Vec::new(),
            epoch: Epoch::NONE,
            running_since: None,
            is_blind: false,
            has_diverged: false,
            divergence: None,
            out: Outbox::default(),
            held: Held::default(),
            next_order: 0,
            counters: Counters::default(),
        }
    }

    /// Takes a frame that the primary's guest sent. It is never dropped: it comes out of [`poll_release`](Self::poll_release) or
    /// [`begin_epoch`](Self::begin_epoch). The caller stops when [`is_full`](Self::is_full).
    pub fn handle_primary(&mut self, nic: u8, frame: Frame, now: Instant) {
        self.counters.primary_frames += 1;
        let outgoing = Outgoing { order: self.next_order, since: now, frame };
        self.next_order += 1;
        let (key, content) = classify(nic, &outgoing.frame);
        let Some(id) = self.flow(key) else {
            self.held.primary += super::flow::charge(&outgoing.frame);
            self.homeless.push((nic, outgoing));
            return self.diverge(None, Reason::QueueFull(Limit::Flows));
        };
        self.work(id, |flow, out| {
            flow.push_primary(outgoing, content);
            flow.advance(out)
        });
        // Until the secondary runs nothing can leave, and a checkpoint would not help: the caller's waiting for room will.
        if self.running_since.is_some() {
            self.check_limit(id, key, |held| held.primary);
        }
    }

    /// Takes frame `number` of the secondary's output in the current epoch, with sequence numbers already rewritten to the
    /// primary's. May be called before [`secondary_running`](Self::secondary_running).
    pub fn handle_secondary(&mut self, nic: u8, number: u64, frame: Frame, now: Instant) {
        self.counters.secondary_frames += 1;
        let witness = Witness { number, since: now, frame };
        let (key, content) = classify(nic, &witness.frame);
        if self.is_blind {
            self.counters.forgotten_frames += 1;
            return;
        }
        let Some(id) = self.flow(key) else {
            return self.forget(None, Limit::Flows);
        };
        if self.held.secondary >= self.config.max_held_bytes {
            return self.forget(Some(key), Limit::HeldBytes);
        }
        if self.flow_held(id).secondary >= self.config.max_flow_bytes {
            return self.forget(Some(key), Limit::FlowBytes);
        }
        self.work(id, |flow, out| push_secondary(flow, witness, content, out));
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
        self.out.consumed.pop_front()
    }

    /// Why a checkpoint is needed; at most once in an epoch.
    pub fn poll_divergence(&mut self) -> Option<Divergence> {
        self.divergence.take()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called. May be earlier than necessary.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.has_diverged {
            return None;
        }
        let Reverse((since, _)) = self.alarms.peek()?;
        self.deadline(*since)
    }

    /// Looks for frames that have waited too long. May be called at any time.
    pub fn handle_timeout(&mut self, now: Instant) {
        while !self.has_diverged && self.alarms.peek().is_some_and(|Reverse((since, _))| self.is_late(*since, now)) {
            let Some(Reverse((_, id))) = self.alarms.pop() else {
                return;
            };
            let Some((key, entry)) = self.flows.get_mut(id) else {
                continue;
            };
            entry.has_alarm = false;
            let (key, waiting) = (*key, entry.flow.waiting());
            self.set_alarm(id);
            if let Some(Waiting { since, is_primary }) = waiting.filter(|waiting| self.is_late(waiting.since, now)) {
                let waited = now.saturating_duration_since(since);
                let reason = if is_primary { Reason::Unmatched { waited } } else { Reason::OnlySecondary { waited } };
                self.diverge(Some(key), reason);
            }
        }
    }

    /// Whether the caller must stop taking the primary's output until something has left.
    pub fn is_full(&self) -> bool {
        self.held.primary >= self.config.max_held_bytes || !self.homeless.is_empty()
    }

    /// Whether the next frame of the secondary may be forgotten because so much of it is held. A caller that can hold it back does.
    pub fn is_secondary_full(&self) -> bool {
        self.held.secondary >= self.config.max_flow_bytes.min(self.config.max_held_bytes)
    }

    /// The primary was captured. Returns all its frames that have not left, in the order in which it made them: they belong to the
    /// ended epoch, and the caller sends them once the checkpoint is acknowledged. The secondary's are forgotten.
    ///
    /// From here on nothing leaves until [`secondary_running`](Self::secondary_running).
    pub fn begin_epoch(&mut self, epoch: Epoch) -> Vec<Release> {
        let mut ended: Vec<(u64, Release)> = Vec::new();
        let mut of_flow = Vec::new();
        for Reverse((_, id)) in self.alarms.drain() {
            let Some((key, entry)) = self.flows.get_mut(id) else {
                continue;
            };
            entry.has_alarm = false;
            entry.begin_epoch(epoch, &mut of_flow);
            let nic = key.nic;
            ended.extend(of_flow.drain(..).map(|Outgoing { order, frame, .. }| (order, Release { nic, frame })));
        }
        let homeless = self.homeless.drain(..);
        ended.extend(homeless.map(|(nic, Outgoing { order, frame, .. })| (order, Release { nic, frame })));
        ended.sort_unstable_by_key(|(order, _)| *order);
        self.counters.handed_back_frames += ended.len() as u64;

        self.epoch = epoch;
        self.held = Held::default();
        (self.is_blind, self.has_diverged, self.running_since) = (false, false, None);
        self.divergence = None;
        self.out.consumed.clear();
        // What may leave and was not fetched yet was decided on before.
        self.out.released.drain(..).chain(ended.into_iter().map(|(_, release)| release)).collect()
    }

    /// The secondary runs in this epoch, and all that [`begin_epoch`](Self::begin_epoch) returned has left. No frame of the primary
    /// has waited longer than from now on.
    pub fn secondary_running(&mut self, now: Instant) {
        if self.running_since.is_some() {
            return;
        }
        self.running_since = Some(now);
        let mut waiting: Vec<(Instant, SlotId)> = self.alarms.iter().map(|Reverse(alarm)| *alarm).collect();
        waiting.sort_unstable();
        for (_, id) in waiting {
            self.work(id, Flow::advance);
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
            held_bytes: self.held.primary,
            flows: self.flows.len(),
            ..self.counters
        }
    }

    /// Finds or makes the flow, in the current epoch. `None` when there are too many in which somebody waits.
    fn flow(&mut self, key: FlowKey) -> Option<SlotId> {
        if let Some(id) = self.flows.find(&key) {
            let (_, entry) = self.flows.get_mut(id)?;
            if entry.epoch != self.epoch {
                // Nobody waited there when the epoch began.
                entry.begin_epoch(self.epoch, &mut Vec::new());
            }
            return Some(id);
        }
        let entry = Entry { flow: Flow::new(&key), epoch: self.epoch, has_alarm: false, has_diverged: false };
        let inserted = self.flows.insert(key, entry, |entry| entry.flow.waiting().is_none()).ok()?;
        self.counters.evicted_flows += u64::from(inserted.evicted.is_some());
        Some(inserted.id)
    }

    /// Lets a flow do something, and keeps the sums and the alarms right.
    fn work(&mut self, id: SlotId, step: impl FnOnce(&mut Flow, &mut Outbox) -> Result<(), Reason>) {
        let open = self.running_since.is_some() && !self.is_blind;
        let Some((key, entry)) = self.flows.get_mut(id) else {
            return;
        };
        let key = *key;
        self.out.nic = key.nic;
        self.out.open = open && !entry.has_diverged;
        let before = entry.flow.held();
        let verdict = step(&mut entry.flow, &mut self.out);
        entry.has_diverged |= verdict.is_err();
        let after = entry.flow.held();
        let is_over = entry.flow.is_closed() && after == Held::default();
        self.held.primary = self.held.primary - before.primary + after.primary;
        self.held.secondary = self.held.secondary - before.secondary + after.secondary;
        if let Err(reason) = verdict {
            self.diverge(Some(key), reason);
        }
        self.set_alarm(id);
        if is_over {
            self.flows.demote(id);
        }
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

    /// When somebody who waits since then has waited too long; `None` while the secondary does not run.
    fn deadline(&self, since: Instant) -> Option<Instant> {
        Some(since.max(self.running_since?) + self.config.timeout)
    }

    fn is_late(&self, since: Instant, now: Instant) -> bool {
        self.deadline(since).is_some_and(|deadline| deadline <= now)
    }

    fn flow_held(&mut self, id: SlotId) -> Held {
        self.flows.get_mut(id).map_or(Held::default(), |(_, entry)| entry.flow.held())
    }

    fn check_limit(&mut self, id: SlotId, key: FlowKey, side: impl Fn(Held) -> usize) {
        if side(self.held) >= self.config.max_held_bytes {
            self.diverge(Some(key), Reason::QueueFull(Limit::HeldBytes));
        } else if side(self.flow_held(id)) >= self.config.max_flow_bytes {
            self.diverge(Some(key), Reason::QueueFull(Limit::FlowBytes));
        }
    }

    fn forget(&mut self, flow: Option<FlowKey>, limit: Limit) {
        self.is_blind = true;
        self.counters.forgotten_frames += 1;
        self.diverge(flow, Reason::QueueFull(limit));
    }

    fn diverge(&mut self, flow: Option<FlowKey>, reason: Reason) {
        if !self.has_diverged {
            self.has_diverged = true;
            self.counters.count(&reason);
            self.divergence = Some(Divergence { flow, reason, evidence: None });
        }
    }
}

impl Entry {
    fn begin_epoch(&mut self, epoch: Epoch, ended: &mut Vec<Outgoing>) {
        self.flow.begin_epoch(ended);
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

fn push_secondary(flow: &mut Flow, witness: Witness, content: Content, out: &mut Outbox) -> Result<(), Reason> {
    flow.push_secondary(witness, content, out)?;
    flow.advance(out)
}
