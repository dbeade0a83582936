//! All engines' decisions in one process, through days on which everything goes wrong: processes die before and after
//! COMMIT, answers and acknowledgements are lost, messages come again, late and out of order, the broker forgets.
//!
//! A seed gives a list of operations; after each of them every invariant must hold, and each day must end well: everybody
//! is answered, every window settles, every event is a leaf. A list that fails is made short and printed as a test.
//!
//! `DELTRAN_SIMULATION_SEED`, `DELTRAN_SIMULATION_RUNS` and `DELTRAN_SIMULATION_MINUTES` say where to begin and how much to
//! run; see `tests/README.md`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

#[path = "simulation/audit.rs"]
mod audit;
#[path = "simulation/banks.rs"]
mod banks;
#[path = "simulation/broker.rs"]
mod broker;
#[path = "simulation/calm.rs"]
mod calm;
#[path = "simulation/check.rs"]
mod check;
#[path = "simulation/clearing.rs"]
mod clearing;
#[path = "simulation/drive.rs"]
mod drive;
#[path = "simulation/op.rs"]
mod op;
#[path = "simulation/risk.rs"]
mod risk;
#[path = "simulation/run.rs"]
mod run;
#[path = "simulation/settlement.rs"]
mod settlement;
#[path = "simulation/shell.rs"]
mod shell;
#[path = "simulation/token.rs"]
mod token;
#[path = "simulation/world.rs"]
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use op::{Call, Engine, Fate, Feed, Log, Op, Screen, Way};
use run::{processors, report, run, search, shrink};

/// Runs in `make test`.
const RUNS: u64 = 2_000;
/// Runs within which a fault of the harness must be found, and the operations that are left of it then.
const FOUND_WITHIN: u64 = 400;
const SHORT: usize = 24;

/// Faults that are switched on in the harness's own shells, to show that it would find such bugs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// A consumer acknowledges before its COMMIT.
    acknowledges_before_commit: bool,
    /// A consumer takes for a duplicate what is not above the highest stream sequence that it has seen.
    skips_by_stream_sequence: bool,
    /// The received ranges are not stored with the effects.
    loses_what_was_received: bool,
    /// Events are written after the COMMIT of what they tell of.
    outbox_in_another_transaction: bool,
    /// Whoever is frozen and wakes goes on writing.
    ledger_ignores_its_lease: bool,
    /// The ledger does not look whether it knows an id.
    ledger_forgets_ids: bool,
    /// Callers are answered before COMMIT.
    answers_before_commit: bool,
    /// Outbox rows go once they are published.
    relays_do_not_ask_the_audit_ledger: bool,
    /// Lost streams begin anew at sequence 1.
    streams_begin_anew_at_one: bool,
    /// An obligation is counted into the window that is open when it is consumed.
    clearing_counts_into_its_open_window: bool,
    /// The tree grows after the COMMIT of the leaves.
    tree_in_another_transaction: bool,
}

fn setting(name: &str) -> Option<u64> {
    let name = format!("DELTRAN_SIMULATION_{name}");
    let text = std::env::var(&name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number: give a whole number")))
}

/// A list that once broke an invariant, or could.
fn keeps_its_invariants(list: &[Op]) {
    if let Err(failure) = run(list, Faults::default()) {
        panic!("after operation {:?}: {} {}", failure.at, failure.breach.rule, failure.breach.detail);
    }
}

#[test]
fn whatever_happens_every_invariant_holds_and_the_day_ends_well() {
    let first = setting("SEED").unwrap_or(1);
    let minutes = setting("MINUTES");
    let runs = setting("RUNS").unwrap_or(if minutes.is_some() { u64::MAX } else { RUNS });
    let begun = tokio::time::Instant::now();
    let enough = || minutes.is_some_and(|minutes| begun.elapsed() >= Duration::from_secs(60 * minutes));
    let searched = search(first, runs, Faults::default(), processors(), enough);
    let seconds = begun.elapsed().as_secs_f64().max(0.001);
    println!(
        "seed {first}: {} runs, {} operations in {seconds:.0} s, {:.0} runs a second",
        searched.runs,
        searched.operations,
        searched.runs as f64 / seconds
    );
    for (what, count) in &searched.counts {
        println!("  {count:>12} {what}");
    }
    if let Some((seed, list, failure)) = &searched.failed {
        let short = shrink(list, failure, Faults::default());
        let again = run(&short, Faults::default()).err();
        panic!("{}", report(*seed, &short, again.as_ref().unwrap_or(failure)));
    }
    // Days on which nothing happens would show nothing.
    if searched.runs >= 200 {
        let wanted = ["windows settled", "batches given up", "streams made anew", "crashes", "take-overs", "repairs"];
        for what in wanted {
            assert!(searched.counts.get(what).is_some_and(|n| *n > 0), "{what}: none in {} runs", searched.runs);
        }
    }
}

#[test]
fn a_seed_gives_the_same_day_again() {
    for seed in [3, 44] {
        let list = op::ops(seed, run::LENGTH);
        assert_eq!(list, op::ops(seed, run::LENGTH));
        let day = || {
            let mut world = world::World::new(Faults::default()).unwrap();
            list.iter().for_each(|op| world.apply(*op).unwrap());
            world.finish().unwrap();
            (world.counts.clone(), world.audit.signed.clone())
        };
        assert_eq!(day(), day(), "seed {seed}");
    }
}

/// Each fault is found, by one of the invariants that it must break, and what is left of the list is short.
#[test]
fn what_could_be_wrong_is_found_and_made_short() {
    let none = Faults::default();
    let faults: [(&str, Faults, &[&str]); 11] = [
        (
            "acknowledged before commit",
            Faults { acknowledges_before_commit: true, ..none },
            &["B1", "B3", "C1", "A6", "S6"],
        ),
        (
            "skipped by stream sequence",
            Faults { skips_by_stream_sequence: true, ..none },
            &["B3", "C1", "C3", "A6", "B6", "S6"],
        ),
        ("received ranges lost", Faults { loses_what_was_received: true, ..none }, &["B1", "C3", "A6", "S1", "C1"]),
        ("outbox apart", Faults { outbox_in_another_transaction: true, ..none }, &["C1", "S6", "B3"]),
        ("no look at the lease", Faults { ledger_ignores_its_lease: true, ..none }, &["L1", "L6", "L7", "L8", "B5"]),
        ("ids forgotten", Faults { ledger_forgets_ids: true, ..none }, &["L6"]),
        ("answered before commit", Faults { answers_before_commit: true, ..none }, &["B1"]),
        ("rows let go of", Faults { relays_do_not_ask_the_audit_ledger: true, ..none }, &["A6"]),
        ("anew at one", Faults { streams_begin_anew_at_one: true, ..none }, &["A6", "B3", "B6", "C1"]),
        ("counted where it is open", Faults { clearing_counts_into_its_open_window: true, ..none }, &["C1", "C3"]),
        ("the tree apart", Faults { tree_in_another_transaction: true, ..none }, &["A10"]),
    ];
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..processors() {
            scope.spawn(|| {
                while let Some((what, fault, rules)) = faults.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(why) = is_found(*fault, rules) {
                        wrong.lock().unwrap().push(format!("{what}: {why}"));
                    }
                }
            });
        }
    });
    assert_eq!(wrong.into_inner().unwrap(), Vec::<String>::new());
}

fn is_found(fault: Faults, rules: &[&str]) -> Result<(), String> {
    let searched = search(1, FOUND_WITHIN, fault, 1, || false);
    let (seed, list, failure) = searched.failed.ok_or_else(|| format!("not found in {FOUND_WITHIN} runs"))?;
    let short = shrink(&list, &failure, fault);
    let (rule, detail, left, of) = (failure.breach.rule, &failure.breach.detail, short.len(), list.len());
    let found = format!("seed {seed}, {left} of {of} operations are left: {rule}: {detail}\n    {short:?}");
    println!("{found}");
    if !rules.contains(&rule) || left > SHORT {
        return Err(found);
    }
    run(&short, Faults::default()).map(|_| ()).map_err(|_| format!("fails without the fault as well: {found}"))
}

/// The ledger opens the next window with the seal: its end cannot be ordered before that is known.
#[test]
fn the_next_window_of_one_that_closes_cannot_be_ended() {
    let done = Fate::Done;
    for (call, abort) in [(Call::NeverArrives, true), (Call::AnswerLost, true), (Call::AnswerLost, false)] {
        let mut list = vec![Op::Close { euro: false, next: true, fate: done }];
        list.push(Op::Windows { nth: 0, call, ledger: done, fate: done });
        if abort {
            list.push(Op::Abort { euro: false, fate: done });
        }
        list.extend([pays(3, 2, 22), writes(done)]);
        keeps_its_invariants(&list);
    }
}

fn pays(payer: u8, payee: u8, units: u16) -> Op {
    Op::Submit { payer, payee, units, euro: false, way: Way::Net, screen: Screen::Approve }
}

fn writes(fate: Fate) -> Op {
    Op::Write { most: 8, fate }
}

/// Everything that is written goes to the broker, to AUDIT and to all who read.
fn travels() -> Vec<Op> {
    let relays = Engine::SPEAKERS.map(|engine| Op::Relay { engine, most: 200, marked: true });
    let copies = Log::SOURCES.map(|log| Op::Copy { log, most: 200 });
    let deliveries = Feed::ALL.map(|feed| Op::Deliver { feed, skip: 0, most: 200, fate: Fate::Done });
    relays.into_iter().chain(copies).chain(deliveries).collect()
}

#[test]
fn a_frozen_writer_that_wakes_writes_nothing() {
    let wakes = Op::Wake { fate: Fate::Done };
    let done = Fate::Done;
    keeps_its_invariants(&[
        pays(0, 1, 40),
        Op::TakeOver,
        pays(0, 1, 50),
        writes(done),
        wakes,
        pays(1, 0, 9),
        writes(done),
    ]);
}

#[test]
fn a_window_is_sealed_once_among_its_last_payments_whatever_is_lost() {
    let fates = [Fate::Done, Fate::DiesBefore, Fate::DiesAfter, Fate::AnswerLost, Fate::Fails];
    let calls = [Call::Answered, Call::NeverArrives, Call::AnswerLost];
    for (ledger, fate) in fates.iter().flat_map(|ledger| fates.iter().map(|fate| (*ledger, *fate))) {
        for call in calls {
            let close = Op::Close { euro: false, next: true, fate: Fate::Done };
            let seal = Op::Windows { nth: 0, call, ledger, fate };
            keeps_its_invariants(&[pays(0, 1, 40), writes(Fate::Done), pays(1, 2, 30), close, pays(2, 3, 20), seal]);
        }
    }
}

#[test]
fn a_transaction_is_released_and_cancelled_in_one_batch() {
    let (done, way) = (Fate::Done, Way::GrossHold);
    keeps_its_invariants(&[
        Op::Submit { payer: 2, payee: 3, units: 109, euro: false, way, screen: Screen::Review },
        writes(done),
        Op::Release { which: 57688, release: true },
        Op::Cancel { which: 39896 },
        writes(done),
    ]);
}

/// A relay that died before it noted what was acknowledged learns that when it publishes the same once more.
#[test]
fn a_stream_is_known_to_be_as_high_as_what_is_acknowledged_as_published_before() {
    let pays = |payer, payee, way, screen| Op::Submit { payer, payee, units: 40, euro: false, way, screen };
    let writes = |most| Op::Write { most, fate: Fate::Done };
    keeps_its_invariants(&[
        Op::Abort { euro: false, fate: Fate::Done },
        pays(0, 1, Way::Gross, Screen::Approve),
        pays(2, 0, Way::Net, Screen::Decline),
        pays(3, 0, Way::Net, Screen::Approve),
        pays(2, 0, Way::Net, Screen::Approve),
        writes(6),
        pays(3, 2, Way::Net, Screen::Approve),
        pays(1, 3, Way::GrossHold, Screen::Approve),
        pays(2, 2, Way::GrossHold, Screen::Approve),
        writes(4),
        Op::Relay { engine: Engine::Token, most: 29, marked: false },
        Op::Relay { engine: Engine::Token, most: 12, marked: true },
        Op::Deliver { feed: Feed::Obligations, skip: 0, most: 9, fate: Fate::Done },
        Op::Rollback { log: Log::Transactions, last: 7, cursors: false },
    ]);
}

/// The keeper alone knows how high it was: nothing was published there but what was refilled, so no relay meets a sequence
/// twice, and what is published next lifts it above its height.
#[test]
fn a_stream_that_was_made_anew_and_is_rolled_back_is_told_from_one_that_goes_on() {
    let (done, keep) = (Fate::Done, Op::Keep { steps: u8::MAX });
    let pays = |payer, payee, euro, way| Op::Submit { payer, payee, units: 50, euro, way, screen: Screen::Approve };
    let reads = |most| Op::Deliver { feed: Feed::Obligations, skip: 0, most, fate: done };
    keeps_its_invariants(&[
        pays(1, 1, true, Way::Net),
        pays(2, 3, false, Way::Net),
        Op::Close { euro: false, next: true, fate: done },
        Op::Remake { log: Log::Transactions },
        keep,
        pays(2, 1, false, Way::Net),
        pays(0, 2, false, Way::NetHold),
        Op::Commit { which: 35215 },
        keep,
        Op::Windows { nth: 0, call: Call::Answered, ledger: done, fate: done },
        pays(2, 2, true, Way::Net),
        pays(2, 2, false, Way::Net),
        pays(1, 0, false, Way::NetHold),
        pays(2, 1, false, Way::Net),
        reads(12),
        reads(2),
        Op::Rollback { log: Log::Transactions, last: 12, cursors: false },
        pays(2, 0, false, Way::Net),
    ]);
}

#[test]
fn a_broker_that_loses_everything_at_once_gets_it_back() {
    let mut list = vec![pays(0, 1, 40), pays(2, 3, 30), writes(Fate::Done)];
    list.extend(travels());
    list.extend([pays(1, 2, 20), writes(Fate::Done)]);
    for loss in [|log| Op::Wipe { log }, |log| Op::Delete { log }, |log| Op::Remake { log }] {
        let mut list = list.clone();
        list.extend(Log::ALL.map(loss));
        list.extend([Op::Keep { steps: u8::MAX }, Op::Keep { steps: 3 }, Op::Keep { steps: u8::MAX }]);
        list.extend(travels());
        keeps_its_invariants(&list);
    }
}
