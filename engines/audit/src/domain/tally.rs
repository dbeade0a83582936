//! Counts the differences of a comparison, by place and kind.

use std::collections::{BTreeMap, BTreeSet};

use super::reconcile::{Difference, Kind};

/// Differences of a class that are remembered from run to run; more are only counted.
pub const REMEMBERED: usize = 1000;
/// What this engine itself publishes about comparisons.
const OWN: &str = "events.audit.reconciliation.";

/// What was counted about a stream or a producer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// Messages, rows or numbers that were compared.
    pub compared: u64,
    /// Differences.
    pub differences: u64,
    /// Of these, events that were published again.
    pub repaired: u64,
    /// What else is to be known.
    pub notes: Vec<String>,
}

/// Differences of one kind at one place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Class {
    /// How many.
    pub differences: u64,
    /// The first of them, in words.
    pub first: String,
    /// Keys of the first [`REMEMBERED`] of them.
    pub found: BTreeSet<String>,
    /// Of these, keys of what was not repaired.
    pub left: BTreeSet<String>,
}

/// What a comparison counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// By stream and producer.
    pub places: BTreeMap<String, Place>,
    /// By place and kind.
    pub classes: BTreeMap<(String, Kind), Class>,
    /// Whether a place could not be compared.
    pub incomplete: bool,
}

impl Tally {
    /// Adds to what was compared at a place.
    pub fn compared(&mut self, place: &str, more: u64) {
        self.place(place).compared += more;
    }

    /// Says something about a place.
    pub fn note(&mut self, place: &str, note: impl Into<String>) {
        self.place(place).notes.push(note.into());
    }

    /// Says that a place could not be compared, and why.
    pub fn unknown(&mut self, place: &str, why: impl Into<String>) {
        self.incomplete = true;
        self.note(place, why);
    }

    fn place(&mut self, place: &str) -> &mut Place {
        self.places.entry(place.to_owned()).or_default()
    }

    /// Counts a difference.
    pub fn difference(&mut self, difference: &Difference, repaired: bool) {
        self.many(difference, 1, repaired);
    }

    /// Counts a difference that stands for `count` like it.
    pub fn many(&mut self, difference: &Difference, count: u64, repaired: bool) {
        let place = self.place(&difference.place);
        place.differences += count;
        place.repaired += if repaired { count } else { 0 };
        let class = self.classes.entry((difference.place.clone(), difference.kind)).or_default();
        if class.differences == 0 {
            class.first = words(difference);
        }
        class.differences += count;
        // What is published about a comparison must not be what the next one has to tell of.
        if class.found.len() < REMEMBERED && !difference.subject.starts_with(OWN) {
            let key = difference.key();
            if !repaired {
                class.left.insert(key.clone());
            }
            class.found.insert(key);
        }
    }

    /// Takes back that so many differences of a place are repaired.
    pub fn not_repaired(&mut self, place: &str, count: u64) {
        let place = self.place(place);
        place.repaired = place.repaired.saturating_sub(count);
    }

    /// Everything that was compared.
    pub fn total(&self) -> u64 {
        self.places.values().map(|place| place.compared).sum()
    }

    /// All differences.
    pub fn differences(&self) -> u64 {
        self.places.values().map(|place| place.differences).sum()
    }

    /// Those that were repaired.
    pub fn repaired(&self) -> u64 {
        self.places.values().map(|place| place.repaired).sum()
    }

    /// Whether all is equal, or is now.
    pub fn is_whole(&self) -> bool {
        !self.incomplete && self.differences() == self.repaired()
    }
}

/// A difference on one line.
pub fn words(difference: &Difference) -> String {
    let Difference { kind, place, sequence, producer, producer_seq, event_id, detail, .. } = difference;
    let mut text = format!("{} at {place}", kind.as_str());
    if *sequence > 0 {
        text.push_str(&format!(" {sequence}"));
    }
    if !producer.is_empty() {
        text.push_str(&format!(", {producer} {producer_seq}"));
    }
    if let Some(id) = event_id {
        text.push_str(&format!(", event {id}"));
    }
    format!("{text}: {detail}")
}

#[cfg(test)]
mod tests {
    use super::super::reconcile::number;
    use super::*;

    fn missing(seq: u64, subject: &str) -> Difference {
        Difference { subject: subject.into(), ..number(Kind::MissingInLedger, "risk-engine/1", seq, "gone") }
    }

    #[test]
    fn differences_are_counted_by_class_and_those_that_are_left_remembered() {
        let mut tally = Tally::default();
        tally.compared("RISK", 5);
        tally.difference(&missing(1, ""), true);
        tally.difference(&missing(2, ""), false);
        let class = &tally.classes[&("risk-engine/1".to_owned(), Kind::MissingInLedger)];
        assert_eq!((class.differences, class.found.len(), class.left.len()), (2, 2, 1));
        assert_eq!(class.first, "missing_in_ledger at risk-engine/1, risk-engine/1 1: gone");
        assert_eq!((tally.total(), tally.differences(), tally.repaired(), tally.is_whole()), (5, 2, 1, false));
        tally.not_repaired("risk-engine/1", 1);
        assert_eq!(tally.repaired(), 0);
    }

    #[test]
    fn what_a_comparison_publishes_is_no_news_to_the_next() {
        let mut tally = Tally::default();
        tally.difference(&missing(1, "events.audit.reconciliation.mismatch"), false);
        let class = tally.classes.values().next().unwrap();
        assert_eq!((class.differences, class.found.len()), (1, 0));
    }

    #[test]
    fn a_place_that_does_not_answer_is_no_equality() {
        let mut tally = Tally::default();
        assert!(tally.is_whole());
        tally.unknown("10.0.0.5", "no answer");
        assert!(!tally.is_whole());
    }

    #[test]
    fn only_so_many_are_remembered() {
        let mut tally = Tally::default();
        for seq in 1..=REMEMBERED as u64 + 5 {
            tally.difference(&missing(seq, ""), false);
        }
        let class = tally.classes.values().next().unwrap();
        assert_eq!((class.differences, class.found.len()), (REMEMBERED as u64 + 5, REMEMBERED));
    }
}
