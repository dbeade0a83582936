//! Checks a stored ledger row by row, as an append must have left it.

use std::collections::BTreeMap;

use deltran_events::Event;
use deltran_events::data::transactions::LedgerRestored;
use deltran_kernel::Timestamp;
use deltran_messaging::ranges::Ranges;
use uuid::Uuid;

use super::books::Adder;
use super::leaf::{CONFLICT, Columns, Decoded, derive_again, leaf_hash};
use super::retention::Cut;
use super::tree_check::TreeChecker;
use super::wrapper::wrap;

/// Differences that are described; more are only counted.
const DESCRIBED: usize = 20;

/// A leaf as it is stored.
#[derive(Debug, Clone)]
pub struct StoredLeaf {
    /// Its place.
    pub leaf_index: i64,
    /// Its hash.
    pub leaf_hash: Vec<u8>,
    /// Its bytes.
    pub envelope: Vec<u8>,
    /// Whether a wrapper stands for other bytes.
    pub wrapped: bool,
    /// Those bytes.
    pub raw: Option<Vec<u8>>,
    /// The subject.
    pub subject: String,
    /// Derived columns.
    pub columns: Columns,
    /// Stream of origin.
    pub source_stream: String,
    /// Sequence there.
    pub source_sequence: u64,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// Whether it was judged valid.
    pub valid: bool,
}

/// Something in the stored ledger that an append cannot have left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The leaf.
    pub leaf_index: i64,
    /// What is wrong.
    pub what: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "leaf {}: {}", self.leaf_index, self.what)
    }
}

/// The current producer of the token ledger, whose numbers surround the moment at which the ledger was
/// counted: `before` was the last one when counting began, `after` when it had ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// `token-engine/<epoch>`.
    pub producer: String,
    /// The last number before.
    pub before: u64,
    /// The last number after.
    pub after: u64,
}

/// Goes over all leaves in order. Memory does not grow with the ledger.
#[derive(Debug, Default)]
pub struct Checker {
    /// The index that comes next.
    pub next: i64,
    /// Leaves that were seen.
    pub checked: u64,
    /// Leaves that are no valid events.
    pub invalid: u64,
    /// Of these, leaves that contradict an earlier one.
    pub conflicts: u64,
    /// Leaves recorded by a release that did not know their event or version; this one does.
    pub known_since: u64,
    /// Conflicts of events without number whose earlier leaf is archived, so that it is not seen here.
    pub with_archived: u64,
    /// All differences.
    pub differences: u64,
    /// The first of them.
    pub described: Vec<Difference>,
    /// Numbers that stand as leaves, by producer.
    pub producers: BTreeMap<String, Ranges>,
    /// Positions of leaves, by stream of origin.
    pub streams: BTreeMap<String, Ranges>,
    /// The tree over the leaves, grown again.
    pub tree: TreeChecker,
    /// Decided transactions published before the ledger was counted, and before counting had ended. Those that a restored
    /// ledger does not know of any more are left out.
    pub transactions: (u64, u64),
    /// What the leaves say was committed, minted and burnt, where that is compared.
    pub books: Option<Adder>,
    counted: Option<Counted>,
    /// Numbers of decided transactions by producer, 64 in a word, and where its numbers ended.
    decided: BTreeMap<String, BTreeMap<u64, u64>>,
    ended: BTreeMap<String, u64>,
    recorded_at: Option<Timestamp>,
    /// Where it began.
    cut: u64,
}

impl Checker {
    /// Begins before the first leaf.
    pub fn new(counted: Option<Counted>) -> Self {
        Self { counted, ..Self::default() }
    }

    /// Begins at a cut, with what the leaves below it came to.
    pub fn after(cut: &Cut, counted: Option<Counted>) -> Self {
        Self {
            next: i64::try_from(cut.leaf).unwrap_or(i64::MAX),
            invalid: cut.invalid,
            conflicts: cut.conflicts,
            producers: cut.producers.clone(),
            tree: TreeChecker::after(cut.frontier.clone()),
            transactions: (cut.transactions, cut.transactions),
            recorded_at: cut.until,
            cut: cut.leaf,
            counted,
            ..Self::default()
        }
    }

    /// Notes a difference.
    pub fn differs(&mut self, leaf_index: i64, what: impl Into<String>) {
        self.differences += 1;
        if self.described.len() < DESCRIBED {
            self.described.push(Difference { leaf_index, what: what.into() });
        }
    }

    /// Says that leaves up to `end` should have come; those that did not are missing.
    pub fn end_of(&mut self, end: i64) {
        if self.next < end {
            let (first, last) = (self.next, end - 1);
            self.differs(
                first,
                if first == last { "is missing".to_owned() } else { format!("is missing, and all up to {last}") },
            );
            self.next = end;
        }
    }

    /// Checks the next leaf. `first_with_id` gives the first leaf of the ids of events without number.
    pub fn step(&mut self, row: &StoredLeaf, first_with_id: &BTreeMap<Uuid, i64>) {
        let index = row.leaf_index;
        if index < self.next {
            return self.differs(index, "stands more than once");
        }
        self.end_of(index);
        self.next = index + 1;
        self.checked += 1;

        let hash = leaf_hash(&row.envelope);
        self.tree.leaf(index, hash);
        if row.leaf_hash != hash {
            self.differs(index, "leaf_hash is not the hash of its envelope");
        }
        if self.recorded_at.is_some_and(|before| row.recorded_at < before) {
            self.differs(index, "recorded_at is earlier than that of the leaf before");
        }
        self.recorded_at = self.recorded_at.max(Some(row.recorded_at));
        match (&row.raw, row.wrapped) {
            (Some(raw), true) if wrap(&row.subject, raw) == row.envelope => {}
            (None, false) => {}
            (Some(_), true) => self.differs(index, "its wrapper does not fit the bytes that it stands for"),
            (None, true) => self.differs(index, "the bytes that its wrapper stands for are missing"),
            (Some(_), false) => self.differs(index, "has bytes beside it and is no wrapper"),
        }
        let (derived, decoded) = derive_again(&row.subject, &row.envelope, row.wrapped);
        for column in differing(&row.columns, &derived) {
            self.differs(index, format!("column {column} is not what the envelope says"));
        }
        self.judge(row, &derived, &decoded, first_with_id);
        // A broker that rolled back gives a sequence out again: that is no difference.
        match self.streams.get_mut(&row.source_stream) {
            Some(positions) => drop(positions.insert(row.source_sequence)),
            None => drop(self.streams.entry(row.source_stream.clone()).or_default().insert(row.source_sequence)),
        }
    }

    fn judge(&mut self, row: &StoredLeaf, derived: &Columns, decoded: &Decoded, first_with_id: &BTreeMap<Uuid, i64>) {
        let index = row.leaf_index;
        let contradicts = match (&derived.producer, &derived.event_id) {
            (Some((producer, seq)), _) => !self.producers.entry(producer.clone()).or_default().insert(*seq),
            (None, Some(id)) => first_with_id.get(id).is_some_and(|first| *first < index),
            (None, None) => false,
        };
        let reason = row.columns.invalid_reason.as_deref().unwrap_or_default();
        let marked = reason.starts_with(CONFLICT);
        let is_event = decoded.is_ok() && !row.wrapped;
        let unknown_then = reason.starts_with("unknown event ") || reason.starts_with("unknown schema version ");
        if row.valid != row.columns.invalid_reason.is_none() {
            self.differs(index, "valid and invalid_reason contradict each other");
        }
        self.invalid += u64::from(!row.valid);
        self.conflicts += u64::from(marked);
        match (contradicts, marked) {
            (true, false) => self.differs(index, "contradicts an earlier leaf and is not marked so"),
            (false, true) if self.cut > 0 && derived.producer.is_none() => self.with_archived += 1,
            (false, true) => self.differs(index, "is marked as a conflict, and no earlier leaf contradicts it"),
            (true, true) => {}
            (false, false) => match (row.valid, is_event) {
                (true, false) => self.differs(index, "is marked valid and is no valid event"),
                (false, true) if unknown_then => self.known_since += 1,
                (false, true) => self.differs(index, "is marked invalid and is a valid event"),
                _ => {}
            },
        }
        if let (Ok((envelope, _)), Some((producer, seq)), false) = (decoded, &derived.producer, marked)
            && producer.starts_with("token-engine/")
        {
            if let Some(books) = &mut self.books {
                books.event(index, &envelope.event_type, (producer.as_str(), *seq), &row.envelope);
            }
            match &envelope.data {
                Event::TransactionCreated(_) => self.decided(producer, *seq),
                Event::TransactionRejected(rejected) if !rejected.was_held => self.decided(producer, *seq),
                Event::LedgerRestored(restored) => self.restored(restored),
                _ => {}
            }
        }
    }

    /// A transaction was decided.
    fn decided(&mut self, producer: &str, seq: u64) {
        if self.ended.get(producer).is_some_and(|last| seq > *last) {
            return;
        }
        *self.decided.entry(producer.to_owned()).or_default().entry(seq / 64).or_default() |= 1 << (seq % 64);
        let counted = self.counted.as_ref();
        let within =
            |last: fn(&Counted) -> u64| u64::from(counted.is_none_or(|c| c.producer != producer || seq <= last(c)));
        self.transactions.0 += within(|c| c.before);
        self.transactions.1 += within(|c| c.after);
    }

    /// The ledger was restored: it does not know of what its earlier producers decided after their last numbers.
    fn restored(&mut self, restored: &LedgerRestored) {
        for ended in &restored.producers {
            let (producer, last) = (ended.producer.as_str(), ended.last);
            let mut unknown = 0;
            let words = self.decided.get_mut(producer).into_iter();
            for (word, bits) in words.flat_map(|words| words.range_mut(last / 64..)) {
                let first = if *word == last / 64 { last % 64 + 1 } else { 0 };
                let later = if first > 63 { 0 } else { u64::MAX << first };
                unknown += u64::from((*bits & later).count_ones());
                *bits &= !later;
            }
            self.transactions.0 = self.transactions.0.saturating_sub(unknown);
            self.transactions.1 = self.transactions.1.saturating_sub(unknown);
            self.ended.insert(producer.to_owned(), last);
        }
    }
}

/// The names of the columns that differ. The words of a reason may change from release to release: whether
/// there is one is judged apart.
fn differing(stored: &Columns, derived: &Columns) -> Vec<&'static str> {
    let checks = [
        ("event_id", stored.event_id == derived.event_id),
        ("domain", stored.domain == derived.domain),
        ("event_type", stored.event_type == derived.event_type),
        ("occurred_at", stored.occurred_at == derived.occurred_at),
        ("source", stored.source == derived.source),
        ("participant_id", stored.participant_id == derived.participant_id),
        ("correlation_id", stored.correlation_id == derived.correlation_id),
        ("producer", stored.producer == derived.producer),
    ];
    checks.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::super::leaf::tests::{SUBJECT, leaf, line};
    use super::super::leaf::{Leaf, leaf_hash};
    use deltran_events::data::transactions::EndedProducer;

    use super::*;

    fn stored(index: i64, leaf: Leaf) -> StoredLeaf {
        StoredLeaf {
            leaf_index: index,
            leaf_hash: leaf.hash.to_vec(),
            valid: leaf.is_valid(),
            wrapped: leaf.raw.is_some(),
            envelope: leaf.envelope.to_vec(),
            raw: leaf.raw.map(Vec::from),
            subject: leaf.subject,
            columns: leaf.columns,
            source_stream: "AUDIT".into(),
            source_sequence: index as u64 + 1,
            recorded_at: Timestamp::from_micros(index),
        }
    }

    fn ledger() -> Vec<StoredLeaf> {
        vec![
            stored(0, leaf(SUBJECT, &line(1, "a"))),
            stored(1, leaf(SUBJECT, &line(2, "b"))),
            stored(2, leaf("events.reporting.x.y", b"junk")),
            stored(3, leaf("events.reporting.x.y", b"two\nlines")),
            stored(4, leaf(SUBJECT, &line(2, "other")).conflicting("audit-engine/1 2")),
            stored(5, leaf(SUBJECT, &line(3, "c"))),
        ]
    }

    fn check(rows: &[StoredLeaf], size: i64) -> Checker {
        let mut checker = Checker::new(None);
        for row in rows {
            checker.step(row, &BTreeMap::new());
        }
        checker.end_of(size);
        checker
    }

    #[test]
    fn what_an_append_leaves_passes() {
        let checker = check(&ledger(), 6);
        assert_eq!(checker.described, []);
        assert_eq!((checker.checked, checker.invalid, checker.conflicts), (6, 3, 1));
        assert_eq!(checker.producers["audit-engine/1"].contiguous(), 3);
    }

    #[test]
    fn tampering_is_found_and_the_first_leaf_named() {
        type Tamper = fn(&mut Vec<StoredLeaf>);
        let cases: [(&str, i64, Tamper); 18] = [
            ("one flipped byte", 1, |l| l[1].envelope[40] ^= 1),
            ("a flipped byte with its hash made to fit", 1, |l| {
                let at = l[1].envelope.len() - 6;
                l[1].envelope[at] ^= 1;
                l[1].leaf_hash = leaf_hash(&l[1].envelope).to_vec();
            }),
            ("a deleted row", 1, |l| drop(l.remove(1))),
            ("a row deleted at the end", 5, |l| drop(l.pop())),
            ("an inserted row", 1, |l| l.insert(2, l[1].clone())),
            ("a row repeated under a new index", 6, |l| {
                let last = StoredLeaf { leaf_index: 6, ..l[5].clone() };
                l.push(StoredLeaf { recorded_at: Timestamp::from_micros(6), ..last });
            }),
            ("event id", 0, |l| l[0].columns.event_id = Some(Uuid::max())),
            ("domain", 0, |l| l[0].columns.domain = "risk".into()),
            ("type", 0, |l| l[0].columns.event_type = "x.y".into()),
            ("time", 0, |l| l[0].columns.occurred_at = None),
            ("source", 0, |l| l[0].columns.source = "acme".into()),
            ("participant", 0, |l| l[0].columns.participant_id = Some("ALFAAEXX".into())),
            ("correlation", 0, |l| l[0].columns.correlation_id = None),
            ("number", 0, |l| l[0].columns.producer = Some(("audit-engine/1".into(), 9))),
            ("valid made invalid", 0, |l| {
                l[0].valid = false;
                l[0].columns.invalid_reason = Some("not an envelope: no".into());
            }),
            ("invalid made valid", 2, |l| {
                l[2].valid = true;
                l[2].columns.invalid_reason = None;
            }),
            ("a conflict hidden", 4, |l| {
                l[4].valid = true;
                l[4].columns.invalid_reason = None;
            }),
            ("wrapped bytes changed", 3, |l| l[3].raw = Some(b"other\nlines".to_vec())),
        ];
        for (what, index, tamper) in cases {
            let mut rows = ledger();
            tamper(&mut rows);
            let size = if what == "a row repeated under a new index" { 7 } else { 6 };
            let checker = check(&rows, size);
            assert_eq!(checker.described.first().map(|d| d.leaf_index), Some(index), "{what}: {:?}", checker.described);
        }
    }

    #[test]
    fn a_swapped_pair_is_found() {
        let mut rows = ledger();
        (rows[0].leaf_index, rows[1].leaf_index) = (1, 0);
        rows.swap(0, 1);
        // The bytes stand whole at another place: the time of recording tells, and each tile once there are tiles.
        assert_eq!(check(&rows, 6).described.first().map(|d| d.leaf_index), Some(1));
    }

    #[test]
    fn what_an_earlier_release_did_not_know_is_no_difference() {
        let mut rows = ledger();
        rows[0].valid = false;
        rows[0].columns.invalid_reason = Some("unknown event \"access.granted\" on subject \"x\"".into());
        let checker = check(&rows, 6);
        assert_eq!((checker.differences, checker.known_since), (0, 1));
    }

    #[test]
    fn an_event_without_number_is_judged_by_the_first_with_its_id() {
        let event = |what: &str| format!(r#"{{"event_id":"0190c3d5-0000-7000-8000-000000000001","x":"{what}"}}"#);
        let of = |what: &str| leaf("events.reporting.x.y", event(what).as_bytes());
        let first = BTreeMap::from([("0190c3d5-0000-7000-8000-000000000001".parse().unwrap(), 0)]);
        for (second, differences) in [(of("b").conflicting("id"), 0), (of("b"), 1)] {
            let mut checker = Checker::new(None);
            checker.step(&stored(0, of("a")), &first);
            checker.step(&stored(1, second), &first);
            assert_eq!(checker.differences, differences);
        }
    }

    fn restored(producers: &[(&str, u64)]) -> LedgerRestored {
        let ended = |(producer, last): &(&str, u64)| EndedProducer {
            producer: (*producer).to_owned(),
            last: *last,
            beyond: 1,
            next: String::new(),
        };
        let producers = producers.iter().map(ended).collect();
        LedgerRestored { reason: "a test".to_owned(), producers, waits: false }
    }

    #[test]
    fn what_a_restored_ledger_does_not_know_of_is_not_counted() {
        let mut checker = Checker::new(None);
        for seq in [1, 2, 63, 64, 65, 128, 300] {
            checker.decided("token-engine/1", seq);
        }
        checker.restored(&restored(&[("token-engine/1", 63), ("clearing-engine/1", 5)]));
        assert_eq!(checker.transactions, (3, 3));
        checker.decided("token-engine/1", 301);
        checker.decided("token-engine/2", 1);
        assert_eq!(checker.transactions, (4, 4), "what comes late of the old numbers does not count either");
        let mut checker = Checker::new(None);
        (1..=130).for_each(|seq| checker.decided("token-engine/1", seq));
        checker.restored(&restored(&[("token-engine/1", 70)]));
        assert_eq!(checker.transactions, (70, 70));
    }
}
