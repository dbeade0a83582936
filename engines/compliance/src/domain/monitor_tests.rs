//! Tests of monitoring against a reference: random transactions, late ones, crashes, restarts, batches of any
//! size.

use std::collections::BTreeSet;

use deltran_events::data::compliance::{RuleMode, RuleScope};
use deltran_kernel::{Currency, Money, ParticipantId};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::domain::rule::{Draft, SHORTEST_WINDOW};

const WIDTH: i64 = 1_000_000;

fn rule(kind: RuleKind, scope: Option<RuleScope>, amounts: &[(&str, &str)]) -> Applied {
    let velocity = kind == RuleKind::Velocity;
    let draft = Draft {
        name: "r".into(),
        kind,
        mode: RuleMode::Active,
        scope,
        window_seconds: SHORTEST_WINDOW,
        max_count: if velocity { 4 } else { 0 },
        min_count: if velocity { 0 } else { 3 },
        band: if velocity { 0 } else { 1_000 },
        amounts: amounts.iter().map(|(text, code)| money(text, code)).collect(),
    };
    let (set_at, set_by) = (Timestamp::from_micros(0), String::new());
    let rule = Rule { definition: draft.check().unwrap(), version: 1, command_id: None, set_at, set_by };
    Applied { rule, head: Head::default() }
}

fn rules() -> Vec<Applied> {
    vec![
        rule(RuleKind::Velocity, None, &[("2.00", "USD")]),
        rule(RuleKind::Velocity, Some(RuleScope::Pair), &[("1.50", "USD"), ("1.50", "EUR")]),
        rule(RuleKind::Structuring, None, &[("1.00", "USD")]),
    ]
}

fn money(text: &str, code: &str) -> Money {
    Money::parse(text, Currency::new(code).unwrap()).unwrap()
}

fn bank(n: usize) -> ParticipantId {
    ["ALFAAEXX", "BRAVINXX", "CHRLGB2L"][n].parse().unwrap()
}

/// What is stored, as the tables would have it.
#[derive(Clone)]
struct Stored {
    rules: Vec<Applied>,
    buckets: BTreeMap<(Key, i64), Bucket>,
}

impl Stored {
    fn monitor(&self) -> Monitor {
        Monitor::new(self.rules.clone())
    }

    fn read(&self, wanted: BTreeSet<Key>) -> Vec<(Key, Vec<(i64, Bucket)>)> {
        let of = |key| {
            let rows = self.buckets.range((key, i64::MIN)..=(key, i64::MAX));
            (key, rows.map(|((_, at), bucket)| (*at, bucket.clone())).collect())
        };
        wanted.into_iter().map(of).collect()
    }

    fn write(&mut self, taken: &Taken) {
        for (key, at, bucket) in &taken.buckets {
            self.buckets.insert((*key, *at), bucket.clone());
        }
        for (place, head) in &taken.heads {
            self.rules[*place].head = *head;
        }
        for (place, floor) in &taken.floors {
            self.buckets.retain(|(key, at), _| key.rule != *place || at >= floor);
        }
    }
}

/// Everything that was ever counted, by thread.
#[derive(Default)]
struct Naive {
    heads: BTreeMap<usize, i64>,
    late: BTreeMap<usize, u64>,
    counted: BTreeMap<Key, Vec<(i64, i128)>>,
}

impl Naive {
    fn sum(events: &[(i64, i128)], end: i64) -> Sum {
        let inside: Vec<i128> = events.iter().filter(|(at, _)| *at > end - 61 && *at <= end).map(|(_, n)| *n).collect();
        Sum { count: inside.len() as u64, amount: Minor::new(inside.iter().sum()).unwrap() }
    }

    /// The crossings that begin, as rule, thread, end of the window, count and sum.
    fn take(&mut self, place: usize, rule: &Rule, seen: &Seen) -> Vec<(Key, i64, Sum)> {
        let at = seen.at.micros().div_euclid(WIDTH);
        let mut begun = Vec::new();
        let threads: Vec<(Thread, Limit)> = rule.definition.threads(seen).into_iter().flatten().collect();
        if threads.is_empty() {
            return begun;
        }
        let head = self.heads.entry(place).or_insert(at);
        *head = (*head).max(at);
        if *head - at > 60 {
            *self.late.entry(place).or_default() += 1;
            return begun;
        }
        for (thread, limit) in threads {
            let key = Key { rule: place, thread };
            let units = if thread.currency.is_some() { seen.amount.minor().units() } else { 0 };
            let events = self.counted.entry(key).or_default();
            let over = |events: &[(i64, i128)]| -> BTreeSet<i64> {
                (at - 200..at + 200).filter(|end| Self::sum(events, *end).exceeds(limit)).collect()
            };
            let before = over(events);
            events.push((at, units));
            let after = over(events);
            for first in after.iter().filter(|end| !after.contains(&(*end - 1))) {
                let mut run = (*first..).take_while(|end| after.contains(end));
                if run.all(|end| !before.contains(&end)) {
                    begun.push((key, *first, Self::sum(events, *first)));
                }
            }
        }
        begun
    }
}

#[derive(Debug, Clone)]
struct Op {
    step: i64,
    payer: usize,
    payee: usize,
    cents: i128,
    euro: bool,
    /// After this one: nothing, the batch ends, it crashes before commit first, the process restarts.
    then: u8,
}

fn op() -> impl Strategy<Value = Op> {
    let step = prop_oneof![6 => 0i64..4, 2 => -90i64..0, 1 => 0i64..150];
    (step, 0usize..2, 0usize..2, prop_oneof![Just(95i128), 1i128..120], any::<bool>(), 0u8..8).prop_map(
        |(step, payer, payee, cents, euro, then)| Op {
            step,
            payer,
            payee: payee + 1,
            cents,
            euro: euro && cents % 2 == 0,
            then,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// In whatever batches, however often a batch is tried before it is committed, and wherever the process
    /// restarts: each crossing of the reference once, and the rows stay within their bound (K10).
    #[test]
    fn each_crossing_once(ops in prop::collection::vec(op(), 0..120)) {
        let mut stored = Stored { rules: rules(), buckets: BTreeMap::new() };
        let mut monitor = stored.monitor();
        let mut naive = Naive::default();
        let (mut now, mut batch) = (1_000i64, Vec::new());
        let (mut told, mut expected) = (Vec::new(), Vec::new());
        let last = ops.len();
        for (n, op) in ops.into_iter().enumerate() {
            let at = now + op.step;
            now = now.max(at);
            let currency = Currency::new(if op.euro { "EUR" } else { "USD" }).unwrap();
            batch.push(Seen {
                transaction_id: TransactionId::new(Uuid::from_u128(n as u128 + 1)),
                payer: bank(op.payer),
                payee: bank(op.payee),
                amount: Money::new(Minor::new(op.cents).unwrap(), currency),
                at: Timestamp::from_micros(at * WIDTH + n as i64),
            });
            if op.then == 0 && n + 1 < last {
                continue;
            }
            if op.then == 1 {
                // A process that dies before COMMIT leaves nothing behind.
                let mut dying = monitor.clone();
                dying.know(stored.read(dying.wanted(&batch)));
                dying.take(&batch).unwrap();
                monitor = stored.monitor();
            }
            if op.then == 2 {
                monitor.forget();
            }
            monitor.know(stored.read(monitor.wanted(&batch)));
            let taken = monitor.take(&batch).unwrap();
            stored.write(&taken);
            told.extend(taken.crossed.iter().map(|c| {
                (Key { rule: c.rule, thread: c.thread }, c.to.micros() / WIDTH - 1, c.sum, c.transaction_id)
            }));
            for (place, applied) in rules().iter().enumerate() {
                for seen in &batch {
                    let begun = naive.take(place, &applied.rule, seen);
                    expected.extend(begun.into_iter().map(|(key, end, sum)| (key, end, sum, seen.transaction_id)));
                }
            }
            batch.clear();
            if op.then == 3 {
                monitor = stored.monitor();
            }
            let mut rows: BTreeMap<Key, i64> = BTreeMap::new();
            for (key, _) in stored.buckets.keys() {
                *rows.entry(*key).or_default() += 1;
            }
            prop_assert!(rows.values().all(|rows| *rows <= 2 * SPAN), "{:?}", rows);
            prop_assert_eq!(monitor.len(), monitor.series.values().map(Series::len).sum::<usize>());
        }
        prop_assert_eq!(&told, &expected);
        for (place, applied) in stored.rules.iter().enumerate() {
            prop_assert_eq!(applied.head.late, naive.late.get(&place).copied().unwrap_or(0));
            prop_assert_eq!(applied.head.latest, naive.heads.get(&place).copied());
        }
        let distinct: BTreeSet<_> = told.iter().map(|(key, end, _, _)| (key, end)).collect();
        prop_assert_eq!(distinct.len(), told.len(), "no window is told twice");
    }
}

#[test]
fn three_just_under_a_threshold_cross_and_tell_the_figures() {
    let mut monitor = Monitor::new(vec![rule(RuleKind::Structuring, None, &[("1.00", "USD")])]);
    let seen = |n: u128, text: &str, at: i64| Seen {
        transaction_id: TransactionId::new(Uuid::from_u128(n)),
        payer: bank(0),
        payee: bank(1),
        amount: money(text, "USD"),
        at: Timestamp::from_micros(at),
    };
    let batch = [
        seen(1, "0.95", 100 * WIDTH),
        seen(2, "0.50", 100 * WIDTH),
        seen(3, "0.99", 101 * WIDTH + 5),
        seen(4, "1.00", 101 * WIDTH),
        seen(5, "0.90", 160 * WIDTH),
    ];
    let taken = monitor.take(&batch).unwrap();
    let [crossed] = &taken.crossed[..] else { panic!("{:?}", taken.crossed) };
    assert_eq!((crossed.sum.count, crossed.sum.amount), (3, Minor::new(284).unwrap()));
    assert_eq!((crossed.from.micros(), crossed.to.micros()), (100 * WIDTH, 161 * WIDTH));
    let ids: Vec<u128> = crossed.transactions.iter().map(|id| id.uuid().as_u128()).collect();
    assert_eq!((ids, crossed.transaction_id), (vec![1, 3, 5], batch[4].transaction_id));
    assert_eq!(taken.buckets.len(), 3);
    assert_eq!(taken.heads, [(0, Head { latest: Some(160), late: 0 })]);
}

/// The oldest transaction that still counts prolongs a crossing that only the oldest bucket kept tells of.
#[test]
fn what_is_kept_reaches_as_far_back_as_a_late_one() {
    let mut stored = Stored { rules: vec![rule(RuleKind::Velocity, None, &[])], buckets: BTreeMap::new() };
    let mut n = 0;
    let mut take = |stored: &mut Stored, payer: usize, at: i64| {
        n += 1;
        let seen = Seen {
            transaction_id: TransactionId::new(Uuid::from_u128(n)),
            payer: bank(payer),
            payee: bank(2),
            amount: money("1.00", "USD"),
            at: Timestamp::from_micros(at * WIDTH),
        };
        let mut monitor = stored.monitor();
        monitor.know(stored.read(monitor.wanted(&[seen])));
        let taken = monitor.take(&[seen]).unwrap();
        stored.write(&taken);
        taken.crossed.len()
    };
    let told: Vec<usize> = [79, 130, 130, 130, 130].map(|at| take(&mut stored, 0, at)).into();
    assert_eq!(told, [0, 0, 0, 0, 1]);
    assert_eq!(take(&mut stored, 1, 200), 0);
    assert_eq!(take(&mut stored, 0, 140), 0, "the window that ends with 139 exceeds the limit by bucket 79");
    assert_eq!(take(&mut stored, 0, 139), 0, "too late");
    assert_eq!(stored.rules[0].head, Head { latest: Some(200), late: 1 });
}
