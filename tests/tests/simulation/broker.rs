//! A broker that can forget everything: streams with their sequences, durable consumers, a stream that copies others.
//!
//! It promises no more than JetStream does, and less than it usually gives.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use deltran_kernel::Timestamp;
use deltran_messaging::Decoded;
use deltran_messaging::stored::Mark;

use super::op::{Engine, Feed, Log};

impl Log {
    pub fn name(self) -> &'static str {
        match self {
            Self::Transactions => "TRANSACTIONS",
            Self::Clearing => "CLEARING",
            Self::Settlement => "SETTLEMENT",
            Self::Audit => "AUDIT",
        }
    }

    /// The consumers that read it.
    fn feeds(self) -> impl Iterator<Item = Feed> {
        Feed::ALL.into_iter().filter(move |feed| feed.log() == self)
    }
}

impl Feed {
    pub fn log(self) -> Log {
        match self {
            Self::Obligations | Self::Exposures => Log::Transactions,
            Self::Batches => Log::Settlement,
            Self::Sets => Log::Clearing,
            Self::Leaves => Log::Audit,
        }
    }

    pub fn engine(self) -> Engine {
        match self {
            Self::Obligations | Self::Batches => Engine::Clearing,
            Self::Sets => Engine::Settlement,
            Self::Exposures => Engine::Risk,
            Self::Leaves => Engine::Audit,
        }
    }
}

/// An event as it was written: its exact bytes.
#[derive(Debug)]
pub struct Message {
    pub id: String,
    pub subject: String,
    pub payload: Bytes,
    pub producer: (String, u64),
    pub decoded: Arc<Decoded>,
}

/// A message in a stream, and where it came from first.
#[derive(Debug, Clone)]
pub struct Kept {
    pub message: Rc<Message>,
    pub origin: (Log, u64),
    /// When it was stored: no two messages of a stream have the same time.
    pub stored_at: Timestamp,
}

/// A durable consumer.
#[derive(Debug, Default)]
struct Durable {
    /// What comes next of what was never delivered.
    next: u64,
    /// Delivered and not acknowledged, with the number of deliveries.
    pending: BTreeMap<u64, u32>,
    /// Of these, those that are delivered again when something is fetched.
    again: BTreeSet<u64>,
}

/// A stream.
#[derive(Debug)]
pub struct Stream {
    pub created: u64,
    pub begins_at: u64,
    pub last: u64,
    pub kept: BTreeMap<u64, Kept>,
    pub mark: Option<Mark>,
    /// Messages that it ever stored.
    stored: i64,
    /// Ids that were stored of late.
    ids: BTreeMap<String, u64>,
    durables: BTreeMap<Feed, Durable>,
    /// Up to where it copied others.
    copied: BTreeMap<Log, u64>,
}

impl Stream {
    fn new(log: Log, created: u64, begins_at: u64) -> Self {
        let durables = log.feeds().map(|feed| (feed, Durable { next: begins_at, ..Durable::default() })).collect();
        Self {
            created,
            begins_at,
            last: begins_at.saturating_sub(1),
            kept: BTreeMap::new(),
            mark: None,
            stored: 0,
            ids: BTreeMap::new(),
            durables,
            copied: BTreeMap::new(),
        }
    }

    /// The lowest sequence that it holds; one above the last where it holds none.
    pub fn first(&self) -> u64 {
        self.kept.keys().next().copied().unwrap_or(self.last + 1)
    }

    fn store(&mut self, message: Rc<Message>, origin: Option<(Log, u64)>, log: Log) -> u64 {
        self.last += 1;
        self.ids.insert(message.id.clone(), self.last);
        self.stored += 1;
        let (origin, stored_at) = (origin.unwrap_or((log, self.last)), Timestamp::from_micros(self.stored));
        self.kept.insert(self.last, Kept { message, origin, stored_at });
        self.last
    }
}

/// What the broker says of a publication.
pub struct Ack {
    pub sequence: u64,
    pub duplicate: bool,
}

/// A delivered message.
#[derive(Debug, Clone)]
pub struct Delivered {
    pub sequence: u64,
    pub attempt: u32,
    pub kept: Kept,
}

/// Streams that are there.
#[derive(Debug, Default)]
pub struct Broker {
    pub streams: BTreeMap<Log, Stream>,
    creations: u64,
}

impl Broker {
    pub fn new() -> Self {
        let mut broker = Self::default();
        Log::ALL.into_iter().for_each(|log| broker.create(log, 1));
        broker
    }

    /// Deletes a stream, where it is there, and creates it to begin at a sequence, with its consumers.
    pub fn create(&mut self, log: Log, begins_at: u64) {
        self.creations += 1;
        self.streams.insert(log, Stream::new(log, self.creations, begins_at));
    }

    pub fn publish(&mut self, log: Log, message: &Rc<Message>) -> Option<Ack> {
        let stream = self.streams.get_mut(&log)?;
        if let Some(sequence) = stream.ids.get(&message.id) {
            return Some(Ack { sequence: *sequence, duplicate: true });
        }
        Some(Ack { sequence: stream.store(message.clone(), None, log), duplicate: false })
    }

    /// AUDIT copies up to so many messages. True where there was something.
    pub fn copy(&mut self, from: Log, most: usize) -> bool {
        let Some(source) = self.streams.get(&from) else { return false };
        let Some(audit) = self.streams.get(&Log::Audit) else { return false };
        let after = audit.copied.get(&from).copied().unwrap_or(0);
        let some: Vec<Kept> = source.kept.range(after + 1..).take(most).map(|(_, kept)| kept.clone()).collect();
        let last = source.kept.range(after + 1..).take(most).last().map(|(sequence, _)| *sequence);
        let Some(audit) = self.streams.get_mut(&Log::Audit) else { return false };
        for kept in some {
            if !audit.ids.contains_key(&kept.message.id) {
                audit.store(kept.message, Some(kept.origin), Log::Audit);
            }
        }
        if let Some(last) = last {
            audit.copied.insert(from, last);
        }
        last.is_some()
    }

    /// Hands messages out: what comes again first, then what is new. The first `skip` of them are on their way for longer.
    pub fn fetch(&mut self, feed: Feed, skip: usize, most: usize) -> Vec<Delivered> {
        let Some(stream) = self.streams.get_mut(&feed.log()) else { return Vec::new() };
        let Some(durable) = stream.durables.get_mut(&feed) else { return Vec::new() };
        let mut sequences: Vec<u64> = durable.again.iter().copied().take(skip + most).collect();
        let room = skip + most - sequences.len();
        sequences.extend(stream.kept.range(durable.next..).take(room).map(|(sequence, _)| *sequence));
        let mut out = Vec::new();
        for (place, sequence) in sequences.into_iter().enumerate() {
            durable.again.remove(&sequence);
            durable.next = durable.next.max(sequence + 1);
            let Some(kept) = stream.kept.get(&sequence) else {
                durable.pending.remove(&sequence);
                continue;
            };
            let attempt = durable.pending.entry(sequence).or_insert(0);
            *attempt += 1;
            if place >= skip {
                out.push(Delivered { sequence, attempt: *attempt, kept: kept.clone() });
            }
        }
        out
    }

    pub fn acknowledge(&mut self, feed: Feed, sequences: &[u64]) {
        if let Some(durable) = self.durable(feed) {
            for sequence in sequences {
                durable.pending.remove(sequence);
                durable.again.remove(sequence);
            }
        }
    }

    /// The consumer could not take these: they come again.
    pub fn refuse(&mut self, feed: Feed, sequences: &[u64]) {
        if let Some(durable) = self.durable(feed) {
            durable.again.extend(sequences.iter().filter(|s| durable.pending.contains_key(s)));
        }
    }

    /// What was not acknowledged is delivered again: first, or (`in_order`) from its place on with all that follows.
    pub fn redeliver(&mut self, feed: Feed, in_order: bool) {
        let Some(durable) = self.durable(feed) else { return };
        if !in_order {
            durable.again = durable.pending.keys().copied().collect();
            return;
        }
        if let Some(first) = durable.pending.keys().next() {
            durable.next = *first;
            durable.pending.clear();
            durable.again.clear();
        }
    }

    fn durable(&mut self, feed: Feed) -> Option<&mut Durable> {
        self.streams.get_mut(&feed.log())?.durables.get_mut(&feed)
    }

    /// The last messages of a stream are gone, and their sequences are given out again.
    pub fn roll_back(&mut self, log: Log, last: u64, cursors: bool) {
        let Some(stream) = self.streams.get_mut(&log) else { return };
        stream.last = stream.last.saturating_sub(last).max(stream.begins_at.saturating_sub(1));
        let gone = stream.kept.split_off(&(stream.last + 1));
        for kept in gone.values() {
            stream.ids.remove(&kept.message.id);
        }
        // It finds out from what it holds how far it had copied.
        for (from, copied) in &mut stream.copied {
            let held = stream.kept.values().filter(|kept| kept.origin.0 == *from).map(|kept| kept.origin.1);
            *copied = held.max().unwrap_or(0);
        }
        if cursors {
            for durable in stream.durables.values_mut() {
                durable.next = durable.next.min(stream.last + 1);
                durable.pending.retain(|sequence, _| *sequence <= stream.last);
                durable.again.retain(|sequence| *sequence <= stream.last);
            }
        }
    }

    /// Every message of a stream is gone; its sequences go on.
    pub fn wipe(&mut self, log: Log) {
        if let Some(stream) = self.streams.get_mut(&log) {
            stream.kept.clear();
        }
    }

    pub fn delete(&mut self, log: Log) {
        self.streams.remove(&log);
    }

    /// The duplicate window has passed.
    pub fn forget_ids(&mut self) {
        self.streams.values_mut().for_each(|stream| stream.ids.clear());
    }
}
