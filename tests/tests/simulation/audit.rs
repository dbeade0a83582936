//! The audit ledger's shell around its real domain: leaves, the tree in tiles, checkpoints, and the keeper of streams.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use deltran_audit::domain::check::{Checker, StoredLeaf};
use deltran_audit::domain::keep::{ABOVE, Known as KnownStream, Look, Others, Verdict, highest, judge};
use deltran_audit::domain::merkle::{
    Frontier, Hash, consistency_plan, empty_root, frontier_nodes, inclusion_plan, is_consistent, node_hash,
    root_of_inclusion,
};
use deltran_audit::domain::reconcile::Retention;
use deltran_audit::domain::sequence::{Arrival, Known, Placed, note_positions, sequence};
use deltran_audit::domain::tile::{Additions, Tile, filled};
use deltran_audit::domain::tree_check::hashes_of;
use deltran_audit::domain::{LeafHash, leaf_hash};
use deltran_events::data::audit::{LedgerMismatch, LedgerReconciled};
use deltran_kernel::Timestamp;
use deltran_messaging::ranges::Ranges;
use deltran_messaging::stored::Mark;
use deltran_messaging::{Delivery, Outgoing};

use super::Faults;
use super::broker::{Broker, Message};
use super::check::{Breach, Checked, breach, holds};
use super::op::Log;
use super::shell::Shell;

const USER: &str = "audit-engine";
const WEEK: i64 = 7 * 86_400_000_000;

/// A leaf as it is stored.
pub struct Leaf {
    pub placed: Placed,
    recorded_at: Timestamp,
    /// The message that it came of, to be published again.
    message: Rc<Message>,
}

/// What an append writes.
pub struct Append {
    leaves: Vec<Leaf>,
    frontier: Frontier,
    additions: Additions,
    received: BTreeMap<String, Ranges>,
}

/// The engine.
pub struct AuditEngine {
    pub leaves: Vec<Leaf>,
    frontier: Frontier,
    tiles: BTreeMap<Tile, Vec<Hash>>,
    /// Hashes of the leaves under a producer's number.
    numbered: BTreeMap<(String, u64), Vec<LeafHash>>,
    /// Numbers that stand, by producer.
    pub numbers: BTreeMap<String, Ranges>,
    /// What was received of each stream.
    received: BTreeMap<String, Ranges>,
    known: BTreeMap<Log, KnownStream>,
    /// Streams that are noted as lost.
    lost: BTreeSet<Log>,
    /// Streams that the last look of this process saw lost.
    suspected: BTreeSet<Log>,
    pub signed: Vec<(u64, Hash)>,
    pub shell: Shell,
    /// The tree once more, by another way: full levels from the leaves upwards.
    levels: Vec<Vec<Hash>>,
    checked: usize,
    pub mended: u64,
}

impl AuditEngine {
    pub fn new(shell: Shell) -> Self {
        Self {
            leaves: Vec::new(),
            frontier: Frontier::default(),
            tiles: BTreeMap::new(),
            numbered: BTreeMap::new(),
            numbers: BTreeMap::new(),
            received: BTreeMap::new(),
            known: BTreeMap::new(),
            lost: BTreeSet::new(),
            suspected: BTreeSet::new(),
            signed: Vec::new(),
            shell,
            levels: vec![Vec::new()],
            checked: 0,
            mended: 0,
        }
    }

    pub fn crash(&mut self) {
        self.suspected.clear();
    }

    /// What a batch of messages adds.
    pub fn append(&self, deliveries: &[(Delivery, Rc<Message>)], now: Timestamp) -> Append {
        let arrivals: Vec<Arrival<'_>> = deliveries.iter().map(|(delivery, _)| delivery.into()).collect();
        let mut known = Known::default();
        for producer in arrivals.iter().filter(|a| a.duplicate).filter_map(|a| a.producer) {
            known.numbered.extend(self.numbered.get(producer).map(|hashes| (producer.clone(), hashes.clone())));
        }
        let last = self.leaves.last().map_or(now, |leaf| leaf.recorded_at);
        let mut received = self.received.clone();
        note_positions(&arrivals, &mut received);
        let (mut frontier, mut additions) = (self.frontier.clone(), Additions::default());
        let leaves = sequence(&arrivals, &known)
            .filter_map(|placed| {
                let of = deliveries.iter().find(|(d, _)| d.producer == placed.leaf.columns.producer)?;
                frontier.append(placed.leaf.hash, |node, hash| additions.add(node, hash));
                Some(Leaf { placed, recorded_at: now.max(last), message: of.1.clone() })
            })
            .collect();
        Append { leaves, frontier, additions, received }
    }

    /// COMMIT of an append; `whole` with the tree, as it must be.
    pub fn commit(&mut self, append: Append, whole: bool) {
        for leaf in append.leaves {
            if let Some(producer) = &leaf.placed.leaf.columns.producer {
                self.numbered.entry(producer.clone()).or_default().push(leaf.placed.leaf.hash);
                if !leaf.placed.conflict {
                    self.numbers.entry(producer.0.clone()).or_default().insert(producer.1);
                }
            }
            self.leaves.push(leaf);
        }
        self.received = append.received;
        if !whole {
            return;
        }
        self.frontier = append.frontier;
        for (tile, _, hashes) in append.additions.iter() {
            self.tiles.entry(tile).or_default().extend_from_slice(hashes);
        }
    }

    /// The highest n for which the producer's events 1 … n stand here.
    pub fn confirmed_through(&self, producer: &str) -> u64 {
        self.numbers.get(producer).map_or(0, Ranges::contiguous)
    }

    pub fn has(&self, producer: &str, number: u64) -> bool {
        self.numbers.get(producer).is_some_and(|ranges| ranges.contains(number))
    }

    /// Signs what stands now.
    pub fn sign(&mut self) {
        let size = self.frontier.size();
        if self.signed.last().is_none_or(|(last, _)| *last < size) {
            self.signed.push((size, self.frontier.root()));
        }
    }

    /// The root out of tiles alone.
    fn root_of_tiles(&self, size: u64) -> Option<Hash> {
        if size == 0 {
            return Some(empty_root());
        }
        let plan = vec![frontier_nodes(size)];
        filled(&plan, &self.tiles)?.pop()
    }

    /// A1, A2, A6, A10 to A12 over what is new since the last look.
    pub fn check(&mut self) -> Checked {
        let size = self.leaves.len() as u64;
        if self.checked == self.leaves.len() && self.frontier.size() == size {
            return Ok(());
        }
        for index in self.checked..self.leaves.len() {
            let leaf = &self.leaves[index].placed.leaf;
            holds(leaf.hash == leaf_hash(&leaf.envelope), "A2", || format!("leaf {index} has another hash"))?;
            let conflict = self.leaves[index].placed.conflict;
            holds(!conflict, "A6", || format!("leaf {index} is in conflict: {:?}", leaf.columns.invalid_reason))?;
            holds(leaf.is_valid(), "A7", || format!("leaf {index}: {:?}", leaf.columns.invalid_reason))?;
            if let Some(producer) = &leaf.columns.producer {
                let times = self.numbered.get(producer).map_or(0, Vec::len);
                holds(times == 1, "A6", || format!("{producer:?} has {times} leaves"))?;
            }
            let hash = leaf.hash;
            self.grow(hash);
        }
        self.checked = self.leaves.len();
        holds(self.frontier.size() == size, "A10", || {
            format!("the tree has {} leaves where the ledger has {size}", self.frontier.size())
        })?;
        let root = self.root();
        holds(self.frontier.root() == root, "A10", || format!("the root of {size} leaves is another one"))?;
        holds(self.root_of_tiles(size) == Some(root), "A10", || format!("tiles give another root of {size} leaves"))?;
        self.check_signed(size, &root)
    }

    /// A12: what was signed last is continued; its proof comes out of tiles.
    fn check_signed(&self, size: u64, root: &Hash) -> Checked {
        let Some((old, old_root)) = self.signed.last() else { return Ok(()) };
        let plan = consistency_plan(*old, size).ok_or_else(|| Breach::new("A12", "the ledger became shorter"))?;
        let proof = filled(&plan, &self.tiles).ok_or_else(|| Breach::new("A10", "a tile is missing for a proof"))?;
        holds(is_consistent(*old, old_root, size, root, &proof), "A12", || {
            format!("the ledger of {size} leaves does not continue the checkpoint of {old}")
        })
    }

    /// Adds a leaf to the tree as the definition has it: two hashes of a level make one of the next.
    fn grow(&mut self, leaf: Hash) {
        let (mut hash, mut height) = (leaf, 0);
        loop {
            if self.levels.len() == height {
                self.levels.push(Vec::new());
            }
            self.levels[height].push(hash);
            let row = &self.levels[height];
            if !row.len().is_multiple_of(2) {
                return;
            }
            hash = node_hash(&row[row.len() - 2], &row[row.len() - 1]);
            height += 1;
        }
    }

    fn root(&self) -> Hash {
        let odd = self.levels.iter().filter(|row| !row.len().is_multiple_of(2)).filter_map(|row| row.last());
        odd.copied().reduce(|right, left| node_hash(&left, &right)).unwrap_or_else(empty_root)
    }

    /// `verify` over the whole ledger, every checkpoint and a proof of every so-many-th leaf.
    pub fn verify(&self) -> Checked {
        let mut checker = Checker::default();
        let none = BTreeMap::new();
        for (index, leaf) in self.leaves.iter().enumerate() {
            let stored = StoredLeaf {
                leaf_index: index as i64,
                leaf_hash: leaf.placed.leaf.hash.to_vec(),
                envelope: leaf.placed.leaf.envelope.to_vec(),
                wrapped: leaf.placed.leaf.raw.is_some(),
                raw: leaf.placed.leaf.raw.as_ref().map(|raw| raw.to_vec()),
                subject: leaf.placed.leaf.subject.clone(),
                columns: leaf.placed.leaf.columns.clone(),
                source_stream: leaf.placed.origin.0.clone(),
                source_sequence: leaf.placed.origin.1,
                recorded_at: leaf.recorded_at,
                valid: leaf.placed.leaf.is_valid(),
            };
            checker.step(&stored, &none);
        }
        if let Some(first) = checker.described.first() {
            return breach("A3", first.to_string());
        }
        checker.tree.compare(&self.tiles);
        if let Some(problem) = checker.tree.problem() {
            return breach("A10", problem.to_owned());
        }
        let stored: u64 = self.tiles.values().map(|hashes| hashes.len() as u64).sum();
        let size = self.leaves.len() as u64;
        holds(stored == hashes_of(size), "A10", || format!("{stored} hashes stand in tiles"))?;
        for (old, root) in &self.signed {
            holds(self.root_of_tiles(*old) == Some(*root), "A11", || format!("the checkpoint of {old} is another's"))?;
        }
        let root = self.frontier.root();
        for index in (0..size).step_by(37) {
            let proof = inclusion_plan(index, size).and_then(|plan| filled(&plan, &self.tiles));
            let leaf = &self.leaves[index as usize].placed.leaf.hash;
            let found = proof.and_then(|proof| root_of_inclusion(index, size, leaf, &proof));
            holds(found == Some(root), "A10", || format!("leaf {index} cannot be proven"))?;
        }
        Ok(())
    }

    fn look(&self, broker: &Broker, log: Log) -> Option<Look> {
        let stream = broker.streams.get(&log)?;
        let known = self.known.get(&log).and_then(|known| stream.kept.get(&known.highest));
        Some(Look {
            created: stream.created.to_string(),
            begins_at: stream.begins_at,
            messages: stream.kept.len() as u64,
            first: stream.first(),
            last: stream.last,
            known_at: known.map(|kept| kept.stored_at),
            retention: Retention { max_age: Some(WEEK), evicts: false },
            mark: stream.mark,
        })
    }

    /// Notes how a stream is now.
    fn note(&mut self, broker: &Broker, log: Log, now: Timestamp) {
        if let Some(stream) = broker.streams.get(&log) {
            let first = stream.kept.keys().next().map(|first| (*first, now));
            let highest_at = stream.kept.get(&stream.last).map(|kept| kept.stored_at);
            let known = KnownStream { created: stream.created.to_string(), highest: stream.last, highest_at, first };
            self.known.insert(log, known);
        }
    }

    /// One round of the keeper: looks at every stream, and mends what two looks in a row saw lost. It dies after `steps`
    /// steps of mending. `told` is what relays have had acknowledged, and whether one met a sequence twice.
    pub fn keep(
        &mut self,
        broker: &mut Broker,
        told: &BTreeMap<Log, (u64, bool)>,
        mut steps: u64,
        now: Timestamp,
        faults: &Faults,
    ) -> Checked<bool> {
        let mut lost = Vec::new();
        let before = std::mem::take(&mut self.suspected);
        for log in Log::ALL {
            let (acknowledged, repeated) = told.get(&log).copied().unwrap_or_default();
            let received = self.received.get(log.name()).map_or(0, Ranges::highest);
            let others = Others { highest: acknowledged.max(received), holes: Ranges::default(), repeated };
            let look = self.look(broker, log);
            let verdict = judge(self.known.get(&log), look.as_ref(), &others, now);
            match &verdict {
                Verdict::Lost(why) if before.contains(&log) => lost.push((log, others, Some(why.clone()))),
                Verdict::Lost(_) => drop(self.suspected.insert(log)),
                Verdict::Resume => lost.push((log, others, None)),
                Verdict::Well | Verdict::Adopt => self.note(broker, log, now),
            }
        }
        if lost.is_empty() {
            return Ok(!self.suspected.is_empty());
        }
        let mut step = || {
            steps = steps.saturating_sub(1);
            steps > 0
        };
        for (log, _, why) in &lost {
            let Some(why) = why else { continue };
            if self.lost.insert(*log) {
                let first = format!("the broker forgot what it had: {why}");
                let (place, kind) = (log.name().to_owned(), "missing_in_stream".to_owned());
                self.say(LedgerMismatch { place, kind, differences: 1, first }, *log, now)?;
            }
            if let Some(stream) = broker.streams.get_mut(log) {
                stream.mark = Some(Mark::Held);
            }
            if !step() {
                return Ok(true);
            }
        }
        for (log, others, why) in &lost {
            if why.is_none() {
                continue;
            }
            let last = broker.streams.get(log).map_or(0, |stream| stream.last);
            let above = highest(self.known.get(log), others).max(last) + ABOVE;
            broker.create(*log, if faults.streams_begin_anew_at_one { 1 } else { above });
            if let Some(stream) = broker.streams.get_mut(log) {
                stream.mark = Some(Mark::Refilled);
            }
            self.note(broker, *log, now);
            if !step() {
                return Ok(true);
            }
        }
        for (log, ..) in &lost {
            let refilled = self.refill(broker, *log, &mut step);
            let Some(refilled) = refilled else { return Ok(true) };
            if let Some(stream) = broker.streams.get_mut(log) {
                stream.mark = None;
            }
            self.note(broker, *log, now);
            self.lost.remove(log);
            self.mended += 1;
            let user = USER.to_owned();
            let event = LedgerReconciled { compared: refilled, differences: refilled, repaired: refilled, user };
            self.say(event, *log, now)?;
        }
        Ok(true)
    }

    /// Publishes the leaves of a stream that it does not hold; none where the process dies on the way.
    fn refill(&mut self, broker: &mut Broker, log: Log, step: &mut impl FnMut() -> bool) -> Option<u64> {
        let held: BTreeSet<String> = broker.streams.get(&log)?.kept.values().map(|k| k.message.id.clone()).collect();
        let own = self.leaves.iter().filter(|leaf| leaf.placed.origin.0 == log.name() && leaf.placed.leaf.is_valid());
        let wanted: Vec<Rc<Message>> = own.map(|l| l.message.clone()).filter(|m| !held.contains(&m.id)).collect();
        let mut published = 0;
        for message in wanted {
            if let Some(ack) = broker.publish(log, &message) {
                self.received.entry(log.name().to_owned()).or_default().insert(ack.sequence);
                published += 1;
            }
            if published % 16 == 0 && !step() {
                return None;
            }
        }
        Some(published)
    }

    /// An operator has everything compared and repaired: what stands in a stream, or is counted as published in an outbox,
    /// and is no leaf; and leaves that their stream should hold. `outboxes` are rows that count as published.
    pub fn repair(&mut self, broker: &mut Broker, outboxes: &[(Log, Rc<Message>)]) -> bool {
        let mut again: Vec<(Log, Rc<Message>)> = Vec::new();
        for stream in broker.streams.values().filter(|stream| stream.mark.is_none()) {
            let only_here = stream.kept.values().filter(|k| !self.has(&k.message.producer.0, k.message.producer.1));
            again.extend(only_here.map(|kept| (kept.origin.0, kept.message.clone())));
        }
        let lacking = outboxes.iter().filter(|(_, m)| !self.has(&m.producer.0, m.producer.1));
        again.extend(lacking.cloned());
        for log in Log::ALL {
            let Some(stream) = broker.streams.get(&log) else { continue };
            let held: BTreeSet<&str> = stream.kept.values().map(|kept| kept.message.id.as_str()).collect();
            let own = self.leaves.iter().filter(|leaf| leaf.placed.origin.0 == log.name());
            again.extend(own.filter(|l| !held.contains(l.message.id.as_str())).map(|l| (log, l.message.clone())));
        }
        let mut stored = false;
        for (log, message) in again {
            stored |= broker.publish(log, &message).is_some_and(|ack| !ack.duplicate);
        }
        stored
    }

    fn say(&mut self, event: impl Into<deltran_events::Event>, log: Log, now: Timestamp) -> Checked {
        let event = Outgoing::new(event, format!("stream-{}", log.name()), USER);
        let rows = self.shell.encode_outgoing(now, &[event])?;
        self.shell.append(rows)
    }
}
