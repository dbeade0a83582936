//! Monitoring: what every rule has added up so far, in memory, and what a batch of transactions makes of it.
//!
//! The memory is a copy of what is stored: whatever a batch changes is returned with it, to be written in
//! the transaction that records the batch as received. Threads that are not in memory are read first
//! ([`Monitor::wanted`], [`Monitor::know`]).
//!
//! Time is the time of events. A transaction that comes later than one window behind the latest that its
//! rule has seen is not counted but told ([`Head::late`]): buckets are kept for two windows, as far back as
//! a late one can reach.

use std::collections::{BTreeMap, BTreeSet};

use deltran_events::data::compliance::RuleKind;
use deltran_kernel::{Minor, MoneyError, Timestamp, TransactionId};

use super::rule::{Limit, Rule, Seen, Thread};
use super::window::{Bucket, Crossing, SPAN, Series, Sum};

/// How far a rule has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    /// The latest bucket that it has seen.
    pub latest: Option<i64>,
    /// Transactions that came too late to be counted.
    pub late: u64,
}

/// A rule that is applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The rule.
    pub rule: Rule,
    /// How far it has come.
    pub head: Head,
}

/// A thread of a rule, by the rule's place in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The rule's place.
    pub rule: usize,
    /// The thread.
    pub thread: Thread,
}

/// A rule that was crossed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crossed {
    /// The rule's place.
    pub rule: usize,
    /// Whose transactions crossed it.
    pub thread: Thread,
    /// What was exceeded.
    pub limit: Limit,
    /// The transaction that did.
    pub transaction_id: TransactionId,
    /// The beginning of the window.
    pub from: Timestamp,
    /// Its end, exclusive.
    pub to: Timestamp,
    /// What it came to.
    pub sum: Sum,
    /// Transactions of the window; see [`Crossing::transactions`].
    pub transactions: Vec<TransactionId>,
}

/// What a batch changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Taken {
    /// Crossings that began, rule by rule, in the order of the batch.
    pub crossed: Vec<Crossed>,
    /// Buckets as they are now.
    pub buckets: Vec<(Key, i64, Bucket)>,
    /// Heads as they are now, by the rule's place.
    pub heads: Vec<(usize, Head)>,
    /// Rules whose buckets before this one are not needed any more.
    pub floors: Vec<(usize, i64)>,
}

/// What rules have added up.
#[derive(Debug, Clone, Default)]
pub struct Monitor {
    rules: Vec<Applied>,
    series: BTreeMap<Key, Series>,
    buckets: usize,
}

/// How many transactions stay named in a bucket: few where everything counts.
const fn kept(kind: RuleKind) -> usize {
    match kind {
        RuleKind::Velocity => 3,
        RuleKind::Structuring => 10,
    }
}

/// The first bucket that is needed while `latest` is the head.
const fn floor(latest: i64) -> i64 {
    // A transaction counts down to `latest - SPAN + 1`; whether it prolongs a crossing shows in the window
    // that ends one bucket before.
    latest - 2 * SPAN + 1
}

impl Monitor {
    /// A monitor of rules that remembers no thread yet.
    pub fn new(rules: Vec<Applied>) -> Self {
        Self { rules, series: BTreeMap::new(), buckets: 0 }
    }

    /// The rules.
    pub fn rules(&self) -> &[Applied] {
        &self.rules
    }

    /// How many buckets it remembers.
    pub fn len(&self) -> usize {
        self.buckets
    }

    /// Whether it remembers none.
    pub fn is_empty(&self) -> bool {
        self.buckets == 0
    }

    /// Forgets every thread; they are read again when they are needed.
    pub fn forget(&mut self) {
        self.series.clear();
        self.buckets = 0;
    }

    /// The threads of transactions that are not in memory.
    pub fn wanted(&self, seen: &[Seen]) -> BTreeSet<Key> {
        let mut wanted = BTreeSet::new();
        for (place, applied) in self.rules.iter().enumerate() {
            for seen in seen {
                for (thread, _) in applied.rule.definition.threads(seen).into_iter().flatten() {
                    let key = Key { rule: place, thread };
                    if !self.series.contains_key(&key) {
                        wanted.insert(key);
                    }
                }
            }
        }
        wanted
    }

    /// Puts threads in memory as they are stored; those without buckets are new.
    pub fn know(&mut self, threads: impl IntoIterator<Item = (Key, Vec<(i64, Bucket)>)>) {
        for (key, buckets) in threads {
            let series = Series::of(buckets);
            self.buckets += series.len();
            self.series.insert(key, series);
        }
    }

    /// Takes a batch, whose threads must all be in memory: nothing is in it twice.
    ///
    /// # Errors
    /// Where a sum leaves the range of money. What is in memory is of no use then.
    pub fn take(&mut self, seen: &[Seen]) -> Result<Taken, MoneyError> {
        let mut taken = Taken::default();
        let mut touched: BTreeSet<(Key, i64)> = BTreeSet::new();
        for (place, applied) in self.rules.iter_mut().enumerate() {
            let head = applied.head;
            let definition = &applied.rule.definition;
            let (width, keep) = (definition.bucket_micros(), kept(definition.kind()));
            for seen in seen {
                let threads = definition.threads(seen);
                if threads.iter().all(Option::is_none) {
                    continue;
                }
                let at = seen.at.micros().div_euclid(width);
                let latest = applied.head.latest.map_or(at, |latest| latest.max(at));
                if at <= latest - SPAN {
                    applied.head.late += 1;
                    continue;
                }
                applied.head.latest = Some(latest);
                for (thread, limit) in threads.into_iter().flatten() {
                    let key = Key { rule: place, thread };
                    let amount = if thread.currency.is_some() { seen.amount.minor() } else { Minor::ZERO };
                    let series = self.series.entry(key).or_default();
                    let length = series.len();
                    let begun = series.add(at, amount, seen.transaction_id, keep, limit)?;
                    self.buckets += series.len() - length;
                    touched.insert((key, at));
                    let crossed = |Crossing { end, sum, transactions }| Crossed {
                        rule: place,
                        thread,
                        limit,
                        transaction_id: seen.transaction_id,
                        from: Timestamp::from_micros((end - SPAN + 1) * width),
                        to: Timestamp::from_micros((end + 1) * width),
                        sum,
                        transactions,
                    };
                    taken.crossed.extend(begun.into_iter().map(crossed));
                }
            }
            if applied.head != head {
                taken.heads.push((place, applied.head));
            }
            if let Some(latest) = applied.head.latest
                && applied.head.latest != head.latest
            {
                taken.floors.push((place, floor(latest)));
            }
        }
        self.forget_before(&taken.floors);
        // What was added to buckets that are not needed any more is not written.
        let written = |(key, at): (Key, i64)| Some((key, at, self.series.get(&key)?.bucket(at)?.clone()));
        taken.buckets = touched.into_iter().filter_map(written).collect();
        Ok(taken)
    }

    fn forget_before(&mut self, floors: &[(usize, i64)]) {
        if floors.is_empty() {
            return;
        }
        let floors: BTreeMap<usize, i64> = floors.iter().copied().collect();
        self.series.retain(|key, series| {
            if let Some(floor) = floors.get(&key.rule) {
                self.buckets -= series.forget_before(*floor);
            }
            !series.is_empty()
        });
    }
}

#[cfg(test)]
#[path = "monitor_tests.rs"]
mod tests;
