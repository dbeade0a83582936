//! Compares outboxes, streams and ledger event by event: what one side has and another lacks, and what may be done
//! about it.
//!
//! Each side is walked once, in its own order and in windows. What was met is kept as ranges of numbers, so that memory
//! grows with gaps and not with events.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use deltran_events::Envelope;
use deltran_kernel::Timestamp;
use deltran_messaging::producer_of;
use deltran_messaging::ranges::Ranges;
use uuid::Uuid;

use super::leaf::{Leaf, LeafHash};
use super::sequence::{AUDIT, UnnumberedKey};

/// What is near the end of its time in a stream may be let go of while it is looked for.
const MARGIN_MICROS: i64 = 60_000_000;
/// A stream that lets the oldest go is full when less than the largest message has room.
const LARGEST_MESSAGE: u64 = 2 << 20;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An outbox or a stream has it, the ledger does not.
    MissingInLedger,
    /// The ledger has it, and a stream that should still hold it does not.
    MissingInStream,
    /// The ledger has it, and its engine does not know of it.
    MissingInOutbox,
    /// The same number with other bytes.
    Differs,
}

impl Kind {
    /// Its word in events and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MissingInLedger => "missing_in_ledger",
            Self::MissingInStream => "missing_in_stream",
            Self::MissingInOutbox => "missing_in_outbox",
            Self::Differs => "differs",
        }
    }
}

/// What an event is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// Producer and number.
    Number(String, u64),
    /// Id and bytes.
    Key(UnnumberedKey),
}

/// An event as an outbox or a stream has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its place there.
    pub sequence: u64,
    /// The subject.
    pub subject: String,
    /// What it is known by.
    pub name: Name,
    /// The hash of its bytes as a leaf.
    pub hash: LeafHash,
    /// Its id, where the bytes have one.
    pub event_id: Option<Uuid>,
    /// Whether it is a valid event.
    pub valid: bool,
}

impl Item {
    /// Reads it out of the bytes, as the ledger does.
    pub fn of(sequence: u64, subject: &str, payload: &Bytes) -> Self {
        let decoded = Envelope::decode(subject, payload);
        let producer = producer_of(subject, payload, decoded.as_ref().ok().map(|(envelope, _)| envelope));
        let leaf = Leaf::of(subject, payload, &decoded, producer.as_ref());
        let event_id = leaf.columns.event_id;
        let name = match producer {
            Some((producer, seq)) => Name::Number(producer, seq),
            None => Name::Key((event_id.unwrap_or_default(), leaf.hash, leaf.raw.is_some())),
        };
        let valid = leaf.is_valid();
        Self { sequence, subject: leaf.subject, name, hash: leaf.hash, event_id, valid }
    }

    fn number(&self) -> (String, u64) {
        match &self.name {
            Name::Number(producer, seq) => (producer.clone(), *seq),
            Name::Key(_) => Default::default(),
        }
    }
}

/// What the ledger has of the names that a window mentions.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// Hash of the first leaf of a number.
    pub numbers: BTreeMap<(String, u64), LeafHash>,
    /// Index and hash of the leaves of an id.
    pub events: BTreeMap<Uuid, Vec<(u64, LeafHash)>>,
    /// Keys of events without number that were recorded.
    pub keys: BTreeSet<UnnumberedKey>,
}

/// What was recorded of each producer, and what of that is online.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    /// Numbers that the sequencer has received.
    pub numbers: BTreeMap<String, Ranges>,
    /// When the oldest leaf that is online was recorded, where earlier ones are not online any more.
    pub online_since: Option<Timestamp>,
}

impl Recorded {
    fn has(&self, producer: &str, seq: u64) -> bool {
        self.numbers.get(producer).is_some_and(|ranges| ranges.contains(seq))
    }
}

/// Something that is not everywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What is wrong.
    pub kind: Kind,
    /// The stream or producer that has it or lacks it.
    pub place: String,
    /// The sequence in the stream; 0 where it has none.
    pub sequence: u64,
    /// Its producer; empty where it has none.
    pub producer: String,
    /// Its number there.
    pub producer_seq: u64,
    /// Its id.
    pub event_id: Option<Uuid>,
    /// Its subject, as far as it is known.
    pub subject: String,
    /// In words.
    pub detail: String,
    /// The id under which it may be published again; none where that is not safe, and `detail` says why.
    pub remedy: Option<Uuid>,
}

impl Difference {
    fn of(kind: Kind, place: &str, item: &Item, detail: &str, safe: bool) -> Self {
        let (producer, producer_seq) = item.number();
        Self {
            kind,
            place: place.to_owned(),
            sequence: item.sequence,
            producer,
            producer_seq,
            event_id: item.event_id,
            subject: item.subject.clone(),
            detail: detail.to_owned(),
            remedy: item.event_id.filter(|_| safe),
        }
    }

    /// What tells it from others of its kind and place.
    pub fn key(&self) -> String {
        let id = self.event_id.map(|id| id.to_string()).unwrap_or_default();
        format!("{} {} {} {id}", self.sequence, self.producer, self.producer_seq)
    }
}

enum Verdict {
    /// It is the leaf of this index, where its number does not say which.
    Stands(Option<u64>),
    Absent,
    Differs,
}

fn judge(item: &Item, standing: &Standing) -> Verdict {
    match &item.name {
        Name::Number(producer, seq) => match standing.numbers.get(&(producer.clone(), *seq)) {
            None => Verdict::Absent,
            Some(hash) if *hash == item.hash => Verdict::Stands(None),
            Some(_) => Verdict::Differs,
        },
        Name::Key((id, hash, _)) if !id.is_nil() => {
            let leaves = standing.events.get(id).map_or(&[][..], Vec::as_slice);
            match leaves.iter().find(|(_, other)| other == hash) {
                Some((index, _)) => Verdict::Stands(Some(*index)),
                None => Verdict::Absent,
            }
        }
        Name::Key(key) if standing.keys.contains(key) => Verdict::Stands(None),
        Name::Key(_) => Verdict::Absent,
    }
}

/// Whether an item stands in the ledger, under its number with whatever bytes.
pub fn stands(item: &Item, standing: &Standing) -> bool {
    !matches!(judge(item, standing), Verdict::Absent)
}

/// What a stream holds of the ledger.
#[derive(Debug, Clone, Default)]
pub struct Held {
    /// Sequences at which there is a message.
    pub positions: Ranges,
    /// Numbers by producer.
    numbers: BTreeMap<String, Ranges>,
    /// Leaves without number: their index and one, since ranges begin at 1.
    leaves: Ranges,
}

/// Numbers that the ledger was found to lack, so that no place tells of one twice.
pub type Absent = BTreeMap<String, Ranges>;

impl Held {
    /// Takes the next message of `stream`, which the broker stored at `stored_at`.
    pub fn message(
        &mut self,
        stream: &str,
        item: &Item,
        stored_at: Timestamp,
        standing: &Standing,
        recorded: &Recorded,
        absent: &mut Absent,
    ) -> Option<Difference> {
        self.positions.insert(item.sequence);
        let verdict = judge(item, standing);
        match (&item.name, &verdict) {
            (Name::Number(producer, seq), Verdict::Stands(_) | Verdict::Absent) => {
                self.numbers.entry(producer.clone()).or_default().insert(*seq);
            }
            (Name::Key(_), Verdict::Stands(Some(index))) => {
                self.leaves.insert(index + 1);
            }
            _ => {}
        }
        match verdict {
            Verdict::Stands(_) => None,
            Verdict::Differs => Some(Difference::of(
                Kind::Differs,
                stream,
                item,
                "its number stands in the ledger with other bytes",
                false,
            )),
            Verdict::Absent => {
                let known = match &item.name {
                    Name::Number(producer, seq) => recorded.has(producer, *seq),
                    Name::Key(key) => standing.keys.contains(key),
                };
                if known && recorded.online_since.is_some_and(|since| stored_at < since) {
                    return None;
                }
                if let Name::Number(producer, seq) = &item.name
                    && !absent.entry(producer.clone()).or_default().insert(*seq)
                {
                    return None;
                }
                let (detail, safe) = absence(known, item.valid, "the stream has it");
                Some(Difference::of(Kind::MissingInLedger, stream, item, detail, safe))
            }
        }
    }

    /// Whether a leaf is among what was taken.
    pub fn has(&self, leaf: &LeafHead) -> bool {
        match &leaf.producer {
            Some((producer, seq)) => self.numbers.get(producer).is_some_and(|ranges| ranges.contains(*seq)),
            None => self.leaves.contains(leaf.index + 1),
        }
    }
}

/// Why the ledger lacks something, and whether publishing it again is safe.
fn absence(recorded: bool, valid: bool, otherwise: &'static str) -> (&'static str, bool) {
    match (recorded, valid) {
        // The sequencer would take it for a repetition.
        (true, _) => ("it was recorded, and its leaf is gone: `deltran audit verify` tells more", false),
        // Consumers would put it among the dead letters once more.
        (false, false) => ("it is no valid event: it is not published again", false),
        (false, true) => (otherwise, true),
    }
}

/// How long a stream keeps what it stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Microseconds; `None` for ever.
    pub max_age: Option<i64>,
    /// Whether it is full and lets the oldest go.
    pub evicts: bool,
}

impl Retention {
    /// From what the broker says.
    pub fn new(max_age: Option<i64>, bytes: u64, max_bytes: Option<u64>, discards_old: bool) -> Self {
        // Messages leave in their order. After one was let go of for room, only later ones can have made room again, by
        // age, and then it would have left by age as well.
        let evicts = discards_old && max_bytes.is_some_and(|most| bytes.saturating_add(LARGEST_MESSAGE) >= most);
        Self { max_age, evicts }
    }

    /// Whether it still holds at `now` what it stored at `earliest` or later.
    pub fn keeps(&self, earliest: Timestamp, now: Timestamp) -> bool {
        let aged = |age| now.micros().saturating_sub(earliest.micros()).saturating_add(MARGIN_MICROS) >= age;
        !self.evicts && !self.max_age.is_some_and(aged)
    }
}

/// A leaf without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafHead {
    /// Its index.
    pub index: u64,
    /// The subject.
    pub subject: String,
    /// The stream that it came from, and its sequence there.
    pub origin: (String, u64),
    /// Producer and number.
    pub producer: Option<(String, u64)>,
    /// Its id.
    pub event_id: Option<Uuid>,
    /// It was not stored by any stream before this.
    pub earliest: Timestamp,
    /// Whether it is a valid event.
    pub valid: bool,
}

/// A stream as the ledger is compared with it.
#[derive(Debug, Clone, Default)]
pub struct StreamSide {
    /// What it holds.
    pub held: Held,
    /// How long it keeps things; `None` where it could not be asked: then nothing is expected of it.
    pub retention: Option<Retention>,
    /// Invalid leaves that it does not hold. They are no events, and nobody is told of them again.
    pub invalid_gone: u64,
    /// Leaves before this one are expected in it only as far as their own stream should hold them: it was made anew
    /// then, out of the others.
    pub since_leaf: u64,
}

/// The streams that lack a leaf that was in them before all of them were looked at.
pub fn lacking(leaf: &LeafHead, sides: &mut BTreeMap<String, StreamSide>, now: Timestamp) -> Vec<Difference> {
    let own = leaf.origin.0.as_str();
    let keeps = |side: &StreamSide| side.retention.is_some_and(|retention| retention.keeps(leaf.earliest, now));
    let own_keeps = sides.get(own).is_some_and(keeps);
    let places: &[&str] = if own == AUDIT { &[AUDIT] } else { &[own, AUDIT] };
    let mut differences = Vec::new();
    for place in places {
        let Some(side) = sides.get_mut(*place) else { continue };
        let expected = keeps(side) && (*place == own || leaf.index >= side.since_leaf || own_keeps);
        if !expected || side.held.has(leaf) {
            continue;
        }
        if !leaf.valid {
            side.invalid_gone += 1;
            continue;
        }
        let (producer, producer_seq) = leaf.producer.clone().unwrap_or_default();
        differences.push(Difference {
            kind: Kind::MissingInStream,
            place: (*place).to_owned(),
            sequence: if *place == own { leaf.origin.1 } else { 0 },
            producer,
            producer_seq,
            event_id: leaf.event_id,
            subject: leaf.subject.clone(),
            detail: format!("leaf {} stands in the ledger, and the stream should still hold it", leaf.index),
            remedy: leaf.event_id,
        });
    }
    differences
}

/// A row of the outbox of `producer`, whose engine has published numbers up to `published`.
pub fn outbox_row(
    producer: &str,
    published: u64,
    item: &Item,
    standing: &Standing,
    recorded: &Recorded,
    absent: &mut Absent,
) -> Option<Difference> {
    let seq = item.sequence;
    let differs = |detail: &str| {
        let own = Difference::of(Kind::Differs, producer, item, detail, false);
        Some(Difference { sequence: 0, producer: producer.to_owned(), producer_seq: seq, ..own })
    };
    if item.name != Name::Number(producer.to_owned(), seq) {
        return differs("the bytes of its outbox row carry another number");
    }
    match judge(item, standing) {
        Verdict::Stands(_) => None,
        Verdict::Differs => differs("its number stands in the ledger with other bytes than in its outbox"),
        Verdict::Absent => {
            if !absent.entry(producer.to_owned()).or_default().insert(seq) {
                return None;
            }
            let known = recorded.has(producer, seq);
            let (detail, safe) = match absence(known, item.valid, "its outbox has it, published as its engine says") {
                (_, true) if seq > published => (
                    "its engine has not published it yet: deltran_alert{alert=\"relay_…\"} tells whether it can",
                    false,
                ),
                other => other,
            };
            let own = Difference::of(Kind::MissingInLedger, producer, item, detail, safe);
            Some(Difference { sequence: 0, ..own })
        }
    }
}

/// The numbers 1 … `assigned` of a producer that are neither in `standing`, nor told of in `absent`.
pub fn nowhere(assigned: u64, standing: Option<&Ranges>, absent: Option<&Ranges>) -> Ranges {
    standing.into_iter().chain(absent).fold(Ranges::up_to(assigned), |left, known| left.without(known))
}

/// A number that a producer gave out and that is found nowhere, or one that stands and that it never gave out.
pub fn number(kind: Kind, producer: &str, seq: u64, detail: &str) -> Difference {
    Difference {
        kind,
        place: producer.to_owned(),
        sequence: 0,
        producer: producer.to_owned(),
        producer_seq: seq,
        event_id: None,
        subject: String::new(),
        detail: detail.to_owned(),
        remedy: None,
    }
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
