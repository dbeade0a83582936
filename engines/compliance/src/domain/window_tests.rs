//! Tests of a rolling window against a reference that adds everything up anew.

use std::collections::BTreeSet;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn id(n: usize) -> TransactionId {
    TransactionId::new(Uuid::from_u128(n as u128 + 1))
}

fn minor(units: i128) -> Minor {
    Minor::new(units).unwrap()
}

/// Every transaction ever, and no cleverness.
#[derive(Default)]
struct Naive(Vec<(i64, i128)>);

impl Naive {
    fn window(&self, end: i64) -> Sum {
        let inside = self.0.iter().filter(|(at, _)| (end - 60..=end).contains(at));
        let units: Vec<i128> = inside.map(|(_, units)| *units).collect();
        Sum { count: units.len() as u64, amount: minor(units.iter().sum()) }
    }

    fn over(&self, limit: Limit, range: (i64, i64)) -> BTreeSet<i64> {
        (range.0..=range.1).filter(|end| self.window(*end).exceeds(limit)).collect()
    }

    /// Adds, and returns the first window of every run over the limit that has none that was over it before.
    fn add(&mut self, at: i64, units: i128, limit: Limit, range: (i64, i64)) -> Vec<(i64, Sum)> {
        let before = self.over(limit, range);
        self.0.push((at, units));
        let after = self.over(limit, range);
        let mut begun = Vec::new();
        for first in after.iter().filter(|end| !after.contains(&(*end - 1))) {
            let run = (*first..).take_while(|end| after.contains(end));
            if run.clone().all(|end| !before.contains(&end)) {
                begun.push((*first, self.window(*first)));
            }
        }
        begun
    }
}

fn limits() -> impl Strategy<Value = Limit> {
    prop_oneof![
        (0u64..8).prop_map(Limit::CountOver),
        (1u64..8).prop_map(Limit::CountReaches),
        (0i128..300).prop_map(|n| Limit::AmountOver(minor(n))),
    ]
}

proptest! {
    /// Early, late and far apart, in any order: the same crossings as the reference (K10).
    #[test]
    fn is_what_adding_up_anew_gives(
        limit in limits(),
        events in prop::collection::vec((0i64..200, 1i128..100), 0..60),
    ) {
        let (mut series, mut naive) = (Series::default(), Naive::default());
        for (n, (at, units)) in events.into_iter().enumerate() {
            let begun = series.add(at, minor(units), id(n), 3, limit).unwrap();
            let expected = naive.add(at, units, limit, (-70, 270));
            prop_assert_eq!(begun.iter().map(|c| (c.end, c.sum)).collect::<Vec<_>>(), expected);
            for crossing in begun {
                prop_assert_eq!(crossing.transactions.last(), Some(&id(n)));
                prop_assert!(crossing.transactions.len() <= MOST_NAMED);
                let distinct: BTreeSet<_> = crossing.transactions.iter().collect();
                prop_assert_eq!(distinct.len(), crossing.transactions.len());
            }
        }
    }

    /// In the order of time, with pauses: the quick way gives what the reference gives.
    #[test]
    fn is_what_adding_up_anew_gives_in_order(
        limit in limits(),
        steps in prop::collection::vec((prop_oneof![3 => 0i64..3, 1 => 0i64..130], 1i128..100), 0..80),
    ) {
        let (mut series, mut naive) = (Series::default(), Naive::default());
        let mut at = 0;
        for (n, (step, units)) in steps.into_iter().enumerate() {
            at += step;
            series.forget_before(at - 2 * SPAN + 1);
            let begun = series.add(at, minor(units), id(n), 3, limit).unwrap();
            let expected = naive.add(at, units, limit, (at - 1, at + 70));
            prop_assert_eq!(begun.iter().map(|c| (c.end, c.sum)).collect::<Vec<_>>(), expected);
            prop_assert!(series.len() as i64 <= 2 * SPAN);
        }
    }
}

#[test]
fn one_crossing_is_told_once_and_again_after_it_ended() {
    let mut series = Series::default();
    let mut add = |at, n| series.add(at, minor(1), id(n), 3, Limit::CountOver(2)).unwrap().len();
    assert_eq!([add(0, 0), add(0, 1), add(0, 2), add(5, 3)], [0, 0, 1, 0]);
    // Bucket 61: those of bucket 0 are out of the window, which is below by that. The one before was not.
    assert_eq!([add(61, 4), add(61, 5)], [0, 0]);
    // From bucket 66 on there are two in the window; a third one crosses anew, since that of 66 is below.
    assert_eq!(add(68, 6), 1);
}

#[test]
fn a_late_one_can_begin_a_crossing_of_its_own_time() {
    let mut series = Series::default();
    let limit = Limit::CountReaches(3);
    for (n, at) in [0, 40, 100].into_iter().enumerate() {
        assert!(series.add(at, minor(1), id(n), 3, limit).unwrap().is_empty());
    }
    let begun = series.add(50, minor(1), id(9), 3, limit).unwrap();
    assert_eq!(begun.iter().map(|c| (c.end, c.sum.count)).collect::<Vec<_>>(), [(50, 3), (100, 3)]);
    assert_eq!(begun[0].transactions, [id(0), id(1), id(9)]);
    assert_eq!(begun[1].transactions, [id(1), id(2), id(9)]);
}

#[test]
fn what_leaves_the_range_of_money_adds_nothing() {
    let mut series = Series::default();
    let most = minor(deltran_kernel::MAX_MINOR);
    let limit = Limit::CountOver(9);
    series.add(0, most, id(0), 3, limit).unwrap();
    let before = series.clone();
    for at in [0, 1, -1] {
        assert_eq!(series.add(at, minor(1), id(1), 3, limit), Err(MoneyError::OutOfRange));
        assert_eq!(series, before);
    }
    assert!(series.add(61, minor(1), id(1), 3, limit).is_ok());
}

#[test]
fn few_stay_named_and_the_last_one_crossed() {
    let mut series = Series::default();
    let limit = Limit::CountOver(100);
    let mut begun = Vec::new();
    for n in 0..=100 {
        begun.extend(series.add(i64::try_from(n).unwrap() / 5, minor(1), id(n), 3, limit).unwrap());
    }
    assert_eq!(begun.len(), 1);
    assert_eq!(begun[0].sum.count, 101);
    assert_eq!(begun[0].transactions.len(), 50);
    assert_eq!(begun[0].transactions.last(), Some(&id(100)));
    assert_eq!(series.bucket(3).unwrap().first, [id(15), id(16), id(17)]);
}
