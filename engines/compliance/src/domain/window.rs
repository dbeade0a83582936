//! One rolling window: what was added up of a thread, bucket by bucket, and when that became too much.
//!
//! A bucket is a sixtieth of the window's length. The window that ends with bucket `e` has the buckets
//! `e - 60 ..= e`: 61 of them, because the last one is still filling, so that it covers at least its length
//! and at most a sixtieth more. Which windows exceed their limit is a function of what was added, whatever
//! the order (K10).
//!
//! Windows that exceed the limit one bucket after another are one crossing. An addition that makes a
//! crossing begin is told once; one that prolongs a crossing, or joins two, is not.

use std::collections::BTreeMap;

use deltran_kernel::{Minor, MoneyError, TransactionId};

use super::rule::{Limit, STEPS};

/// How many buckets a window has.
pub const SPAN: i64 = STEPS as i64 + 1;
/// The most transactions that are named with a crossing.
pub const MOST_NAMED: usize = 50;

/// What was added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum {
    /// Transactions.
    pub count: u64,
    /// Their amounts, where all are of one currency.
    pub amount: Minor,
}

impl Sum {
    fn and(self, other: Self) -> Result<Self, MoneyError> {
        let count = self.count.checked_add(other.count).ok_or(MoneyError::OutOfRange)?;
        Ok(Self { count, amount: self.amount.add(other.amount)? })
    }

    /// Whether this is too much.
    pub fn exceeds(self, limit: Limit) -> bool {
        match limit {
            Limit::CountOver(most) => self.count > most,
            Limit::CountReaches(least) => self.count >= least,
            Limit::AmountOver(most) => self.amount > most,
        }
    }
}

/// What falls into one bucket.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bucket {
    /// The sum.
    pub sum: Sum,
    /// The first of its transactions.
    pub first: Vec<TransactionId>,
}

/// A crossing that began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crossing {
    /// The last bucket of the first window that exceeds the limit.
    pub end: i64,
    /// What that window came to.
    pub sum: Sum,
    /// Transactions of that window, at most [`MOST_NAMED`]; the one that crossed comes last.
    pub transactions: Vec<TransactionId>,
}

/// What was added up of one thread, as far back as it can still matter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Series {
    buckets: BTreeMap<i64, Bucket>,
    /// The sums of the window that ends with the last bucket, and of the one before.
    latest: Option<Latest>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Latest {
    end: i64,
    sum: Sum,
    before: Sum,
}

impl Series {
    /// A series from stored buckets.
    pub fn of(buckets: impl IntoIterator<Item = (i64, Bucket)>) -> Self {
        Self { buckets: buckets.into_iter().collect(), latest: None }
    }

    /// A bucket, where anything falls into it.
    pub fn bucket(&self, at: i64) -> Option<&Bucket> {
        self.buckets.get(&at)
    }

    /// How many buckets it has.
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Forgets the buckets before `floor`; returns how many.
    pub fn forget_before(&mut self, floor: i64) -> usize {
        let before = self.buckets.len();
        if self.buckets.first_key_value().is_some_and(|(first, _)| *first < floor) {
            self.buckets = self.buckets.split_off(&floor);
        }
        before - self.buckets.len()
    }

    /// Adds a transaction to a bucket, of which at most `keep` stay named, and returns the crossings that
    /// begin by that.
    ///
    /// # Errors
    /// Where a sum leaves the range of money; nothing is added then.
    pub fn add(
        &mut self,
        at: i64,
        amount: Minor,
        id: TransactionId,
        keep: usize,
        limit: Limit,
    ) -> Result<Vec<Crossing>, MoneyError> {
        let one = Sum { count: 1, amount };
        let bucket = self.buckets.get(&at).map_or(Ok(one), |bucket| bucket.sum.and(one))?;
        let in_order = self.buckets.last_key_value().is_none_or(|(last, _)| at >= *last);
        let (begun, latest) = if in_order {
            let before = self.latest_at(at)?;
            let after = Latest { sum: before.sum.and(one)?, ..before };
            let begins = after.sum.exceeds(limit) && !before.sum.exceeds(limit) && !before.before.exceeds(limit);
            (begins.then_some((at, after.sum)).into_iter().collect(), Some(after))
        } else {
            (self.begun_late(at, one, limit)?, None)
        };
        // ---- nothing fails below ----
        let named: Vec<Vec<TransactionId>> = begun.iter().map(|(end, _)| self.named(*end, id)).collect();
        let entry = self.buckets.entry(at).or_default();
        entry.sum = bucket;
        if entry.first.len() < keep {
            entry.first.push(id);
        }
        self.latest = latest;
        Ok(begun.into_iter().zip(named).map(|((end, sum), transactions)| Crossing { end, sum, transactions }).collect())
    }

    /// The sum of the window that ends with bucket `end`.
    fn window(&self, end: i64) -> Result<Sum, MoneyError> {
        self.buckets.range(end - SPAN + 1..=end).try_fold(Sum::default(), |sum, (_, bucket)| sum.and(bucket.sum))
    }

    /// The sums as of a bucket that is the last one, or comes after it.
    fn latest_at(&self, end: i64) -> Result<Latest, MoneyError> {
        match self.latest {
            Some(latest) if latest.end == end => Ok(latest),
            _ => Ok(Latest { end, sum: self.window(end)?, before: self.window(end - 1)? }),
        }
    }

    /// The crossings that an addition to an earlier bucket begins: it raises every window that has the
    /// bucket. What exceeds the limit anew counts unless a window beside it did before.
    fn begun_late(&self, at: i64, one: Sum, limit: Limit) -> Result<Vec<(i64, Sum)>, MoneyError> {
        let mut begun = Vec::new();
        // The run of windows over the limit under way: where it began anew, and whether it is an old one.
        let mut run: Option<(Option<(i64, Sum)>, bool)> = self.window(at - 1)?.exceeds(limit).then_some((None, true));
        for end in at..=at + SPAN {
            let before = self.window(end)?;
            let after = if end < at + SPAN { before.and(one)? } else { before };
            if after.exceeds(limit) {
                let (first, old) = run.get_or_insert((Some((end, after)), false));
                first.get_or_insert((end, after));
                *old |= before.exceeds(limit);
            } else if let Some((Some(first), false)) = run.take() {
                begun.push(first);
            }
        }
        if let Some((Some(first), false)) = run {
            begun.push(first);
        }
        Ok(begun)
    }

    /// The latest named transactions of a window, in their order, with `id` at the end.
    fn named(&self, end: i64, id: TransactionId) -> Vec<TransactionId> {
        let buckets = self.buckets.range(end - SPAN + 1..=end).rev();
        let latest = buckets.flat_map(|(_, bucket)| bucket.first.iter().rev()).filter(|known| **known != id);
        let mut named: Vec<TransactionId> = latest.take(MOST_NAMED - 1).copied().collect();
        named.reverse();
        named.push(id);
        named
    }
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
