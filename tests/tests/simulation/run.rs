//! Running lists of operations, searching for one that breaks an invariant, and making it short.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::Faults;
use super::check::{Breach, Checked};
use super::op::{Call, Fate, Op, ops};
use super::world::{Counts, World};

/// Operations of one run.
pub const LENGTH: usize = 160;
/// Runs that shrinking may take.
const TRIES: usize = 1_000;

/// A list that breaks an invariant.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The operation after which it was seen; none where the day did not end well.
    pub at: Option<usize>,
    pub breach: Breach,
}

/// Runs a list from the beginning of a day to its good end.
pub fn run(list: &[Op], faults: Faults) -> Result<Counts, Failure> {
    day(list, faults, true)
}

fn day(list: &[Op], faults: Faults, to_its_end: bool) -> Result<Counts, Failure> {
    let mut at = None;
    let whole = AssertUnwindSafe(|| -> Checked<Counts> {
        let mut world = World::new(faults)?;
        for (place, op) in list.iter().enumerate() {
            at = Some(place);
            world.apply(*op)?;
        }
        at = None;
        if to_its_end {
            world.finish()?;
        }
        Ok(world.counts)
    });
    let outcome = catch_unwind(whole).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Breach::new("panic", text.unwrap_or_default()))
    });
    outcome.map_err(|breach| Failure { at, breach })
}

/// The shortest list that was found to break the same invariant.
pub fn shrink(list: &[Op], failure: &Failure, faults: Faults) -> Vec<Op> {
    let mut tries = 0;
    let mut fails = |list: &[Op]| {
        tries += 1;
        // What was seen on the way needs no end.
        let again = |f: Failure| f.breach.rule == failure.breach.rule && f.at.is_some() == failure.at.is_some();
        tries <= TRIES && day(list, faults, failure.at.is_none()).is_err_and(again)
    };
    let mut best = list.to_vec();
    if let Some(at) = failure.at
        && fails(&list[..=at])
    {
        best.truncate(at + 1);
    }
    let mut size = best.len().div_ceil(2);
    while size > 0 {
        let (mut from, mut shorter) = (0, false);
        while from < best.len() {
            let mut without = best.clone();
            without.drain(from..(from + size).min(best.len()));
            if fails(&without) {
                best = without;
                shorter = true;
            } else {
                from += size;
            }
        }
        // Single operations once more, as long as that helps.
        size = if size == 1 && shorter { 1 } else { size / 2 };
    }
    for place in 0..best.len() {
        for simpler in simpler(best[place]) {
            let mut other = best.clone();
            other[place] = simpler;
            if other != best && fails(&other) {
                best = other;
            }
        }
    }
    best
}

/// The same without what goes wrong in it, one thing at a time.
fn simpler(op: Op) -> Vec<Op> {
    let done = Fate::Done;
    match op {
        Op::Write { most, .. } => vec![Op::Write { most, fate: done }],
        Op::Open { euro, .. } => vec![Op::Open { euro, fate: done }],
        Op::Close { euro, next, .. } => vec![Op::Close { euro, next, fate: done }],
        Op::Abort { euro, .. } => vec![Op::Abort { euro, fate: done }],
        Op::NetAgain { euro, all, .. } => vec![Op::NetAgain { euro, all, fate: done }],
        Op::Windows { nth, call, ledger, fate } => vec![
            Op::Windows { nth, call: Call::Answered, ledger, fate },
            Op::Windows { nth, call, ledger: done, fate },
            Op::Windows { nth, call, ledger, fate: done },
        ],
        Op::Batches { nth, call, ledger, fate } => vec![
            Op::Batches { nth, call: Call::Answered, ledger, fate },
            Op::Batches { nth, call, ledger: done, fate },
            Op::Batches { nth, call, ledger, fate: done },
        ],
        Op::Deliver { feed, skip, most, fate } => {
            vec![Op::Deliver { feed, skip: 0, most, fate }, Op::Deliver { feed, skip, most, fate: done }]
        }
        _ => Vec::new(),
    }
}

/// The processors of this machine.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What a search came to.
#[derive(Default)]
pub struct Searched {
    pub runs: u64,
    pub operations: u64,
    pub counts: Counts,
    /// The lowest seed that failed, with its list.
    pub failed: Option<(u64, Vec<Op>, Failure)>,
}

/// Runs the seeds from `first` on, on so many processors, until so many are run, `enough` says so, or one fails.
pub fn search(first: u64, runs: u64, faults: Faults, threads: usize, enough: impl Fn() -> bool + Sync) -> Searched {
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let all = Mutex::new(Searched::default());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) && !enough() {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    if place >= runs {
                        return;
                    }
                    let seed = first.wrapping_add(place);
                    let list = ops(seed, LENGTH);
                    let outcome = run(&list, faults);
                    let mut all = all.lock().unwrap();
                    all.runs += 1;
                    all.operations += list.len() as u64;
                    match outcome {
                        Ok(counts) => counts.into_iter().for_each(|(k, n)| *all.counts.entry(k).or_default() += n),
                        Err(failure) => {
                            stop.store(true, Ordering::Relaxed);
                            if all.failed.as_ref().is_none_or(|(before, ..)| seed < *before) {
                                all.failed = Some((seed, list, failure));
                            }
                        }
                    }
                }
            });
        }
    });
    all.into_inner().unwrap()
}

/// A failing list in words, ready to become a test.
pub fn report(seed: u64, list: &[Op], failure: &Failure) -> String {
    let lines: String = list.iter().map(|op| format!("        Op::{op:?},\n")).collect();
    let lines = qualified(&lines);
    format!(
        "seed {seed} breaks {}: {}\n#[test]\nfn name_of_what_was_wrong() {{\n    keeps_its_invariants(&[\n{lines}    ]);\n}}\n",
        failure.breach.rule, failure.breach.detail
    )
}

/// Names of variants with their types, as a test has to write them.
fn qualified(lines: &str) -> String {
    let mut text = lines.to_owned();
    for (field, of) in [
        ("fate: ", "Fate"),
        ("ledger: ", "Fate"),
        ("call: ", "Call"),
        ("engine: ", "Engine"),
        ("feed: ", "Feed"),
        ("log: ", "Log"),
        ("way: ", "Way"),
        ("screen: ", "Screen"),
    ] {
        text = text.replace(field, &format!("{field}{of}::"));
    }
    text
}
