//! Faults of every kind under load, on real servers: nothing that a bank was told is lost, nothing is done twice.
//!
//! One process serves every engine, behind proxies between it and banks, broker and Postgres. Banks pay all the time,
//! windows close and open, and one fault after the other is made, as a seed says; after each the platform must serve
//! again. At the end everything is compared with everything. `make test` runs the short form; `make chaos` the long one:
//!
//! | variable | |
//! |---|---|
//! | `DELTRAN_CHAOS_MINUTES` | how long; without it the short form |
//! | `DELTRAN_CHAOS_SEED` | what the run follows from |
//! | `DELTRAN_CHAOS_WITHOUT` | words such as `disk,clock`: kinds of faults that may be left out where they cannot be made |
//! | `DELTRAN_CHAOS_RESULTS` | the file that the table is written to |
//! | `DELTRAN_CHAOS_LOGS` | a folder for the logs of a run that went wrong |

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod check;
mod ears;
mod faults;
mod journal;
mod load;
mod means;
mod plan;
mod proxying;
mod pulse;
mod random;
mod report;
mod rig;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use deltran_tests::node::PATIENCE;
use deltran_tests::within;
use tokio::time::{Instant, sleep};

use crate::ears::Ears;
use crate::faults::text;
use crate::journal::Journal;
use crate::plan::{Fault, Kind, Plan};
use crate::pulse::Pulse;
use crate::random::Random;
use crate::report::{Report, Stat};
use crate::rig::Rig;

const SEED: u64 = 2026;

/// What all parts of a run share.
pub struct World {
    /// What the run follows from.
    pub seed: u64,
    /// What runs.
    pub rig: Rig,
    /// What banks sent and were told.
    pub journal: Journal,
    /// Whether payments are taken.
    pub pulse: Pulse,
    over: AtomicBool,
    silent: AtomicBool,
    unready: Mutex<BTreeSet<String>>,
}

impl World {
    /// Parts say that they are not ready though everything works. Each is a breach once, where it is `late`; whether
    /// all of them are known as such.
    fn say_unready(&self, problems: &[String], late: bool) -> bool {
        let mut known = self.unready.lock().expect("no panic");
        for problem in problems {
            let part = problem.split(": ").next().unwrap_or_default();
            if known.contains(part) {
                continue;
            }
            if !late {
                return false;
            }
            known.insert(part.to_owned());
            self.journal.breach(format!("everything works, and a part stays not ready: {problem}"));
        }
        true
    }

    /// Whether the load is over.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Whether nobody needs to listen any more.
    pub fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn number(name: &str) -> Option<u64> {
    variable(name).map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value:?} is no number: give one")))
}

/// The kinds that are left out with leave; the others that cannot be made end the run before it begins.
fn leave_out(rig: &Rig) -> BTreeMap<Kind, String> {
    let leave = variable("DELTRAN_CHAOS_WITHOUT").unwrap_or_default();
    let words: Vec<&str> = leave.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    let mut without = rig.without.clone();
    for kind in Kind::ALL {
        if words.iter().any(|word| kind.name().contains(word)) {
            without.entry(*kind).or_insert_with(|| "DELTRAN_CHAOS_WITHOUT".to_owned());
        }
    }
    for (kind, why) in &without {
        let left = words.iter().any(|word| kind.name().contains(word));
        assert!(
            left,
            "{:?} cannot be made here: {why}; run as root where file systems are wanted, with a C compiler where clocks \
             are, or leave it out with DELTRAN_CHAOS_WITHOUT=disk,clock",
            kind.name()
        );
        println!("LEFT OUT: {}: {why}", kind.name());
    }
    without
}

/// Makes one fault and waits until all is well; whether it came to be.
async fn one(world: &World, mut fault: Fault, long: bool, report: &mut Report) -> bool {
    let kind = fault.kind;
    let quiet = Instant::now();
    sleep(fault.random.time(1_000, 4_000)).await;
    let began = Instant::now();
    report.quiet = report.quiet.max(world.pulse.longest(quiet, began));
    println!("{}  #{} {}", world.pulse.clock(), fault.number, kind.name());
    let made = faults::make(world, &mut fault, long).await;
    let ended = Instant::now();
    println!("{}  #{}   {}", world.pulse.clock(), fault.number, made.what);
    let well = faults::served_again(world, &made, ended).await;
    let unavailable = world.pulse.longest(began, Instant::now());
    let stat: &mut Stat = report.stats.entry(kind).or_default();
    stat.count += 1;
    stat.lasted = stat.lasted.max(ended - began);
    stat.unavailable = stat.unavailable.max(unavailable);
    match well {
        Ok((served, audited)) => {
            stat.audited = stat.audited.max(audited);
            println!(
                "{}  #{}   without a committed payment for {}; served {} after it ended, all audited {} after",
                world.pulse.clock(),
                fault.number,
                text(unavailable),
                text(served),
                text(audited)
            );
            true
        }
        Err(missing) => {
            stat.audited = stat.audited.max(ended.elapsed());
            world.journal.breach(format!("not well again after {}, {}: {missing}", kind.name(), made.what));
            false
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_whatever_dies() {
    let seed = number("DELTRAN_CHAOS_SEED").unwrap_or(SEED);
    let minutes = number("DELTRAN_CHAOS_MINUTES");
    let long = minutes.is_some();
    println!("seed {seed}: DELTRAN_CHAOS_SEED={seed} makes the same plan");
    let rig = Rig::prepare(seed, long).await;
    let without = leave_out(&rig);
    rig.start_node();
    let world = Arc::new(World {
        seed,
        rig,
        journal: Journal::default(),
        pulse: Pulse::new(),
        over: AtomicBool::new(false),
        silent: AtomicBool::new(false),
        unready: Mutex::default(),
    });
    within(PATIENCE, "every engine to be ready", async || {
        let engines = world.rig.status().await?;
        engines.iter().all(|engine| engine.ready).then_some(())
    })
    .await;
    load::begin(&world).await;
    let ears = Arc::new(Ears::open(&world).await);
    let listening = ears::listen(&world, &ears);

    let begun = Instant::now();
    let banks: Vec<_> = (0..load::BANKS.len()).map(|which| tokio::spawn(load::bank(world.clone(), which))).collect();
    let windows: Vec<_> =
        load::CURRENCIES.map(|currency| tokio::spawn(load::windows(world.clone(), currency))).into_iter().collect();
    let beating = tokio::spawn(pulse::beat(world.clone()));
    within(PATIENCE, "payments", async || (world.pulse.since(begun) > 10).then_some(())).await;

    let mut report = Report {
        seed,
        minutes,
        took: Duration::ZERO,
        stats: BTreeMap::new(),
        quiet: Duration::ZERO,
        without: if long { without.clone() } else { BTreeMap::new() },
    };
    let plan = if long { Plan::long(seed, &without) } else { Plan::short(seed) };
    let until = begun + Duration::from_secs(60 * minutes.unwrap_or(60));
    for fault in plan {
        let well = one(&world, fault, long, &mut report).await;
        let taken = || world.pulse.since(Instant::now() - Duration::from_secs(10)) > 0;
        if Instant::now() >= until || (!well && !taken()) {
            break;
        }
    }
    // A while of its own without faults, so that the last one is followed by work too.
    sleep(Random::of(seed, "end").time(1_000, 2_000)).await;
    world.over.store(true, Ordering::Relaxed);
    report.took = begun.elapsed();
    for task in banks {
        task.await.unwrap();
    }
    for (task, currency) in windows.into_iter().zip(load::CURRENCIES) {
        println!("{}  windows of {currency} closed one after the other: {}", world.pulse.clock(), task.await.unwrap());
    }
    beating.await.unwrap();
    println!("{}  the load is over; everything is compared", world.pulse.clock());

    let checked = tokio::select! {
        checked = check::check(&world, &ears) => checked,
        // A check that cannot be done is a breach as well; its logs are wanted.
        () = sleep(PATIENCE * 5) => panic!("the check did not end"),
    };
    world.silent.store(true, Ordering::Relaxed);
    for task in listening {
        task.abort();
        // Aborted on purpose.
        let _ = task.await;
    }
    let text = report.text(&world.journal, &checked);
    println!("{}  done\n\n{text}", world.pulse.clock());
    let breaches = world.journal.breaches();
    if let (false, Some(folder)) = (breaches.is_empty(), variable("DELTRAN_CHAOS_LOGS")) {
        world.rig.keep_logs(Path::new(&folder));
    }
    if let Some(file) = variable("DELTRAN_CHAOS_RESULTS") {
        report::keep(Path::new(&file), &text);
    }
    assert!(breaches.is_empty(), "seed {seed}: {} breaches:\n{}", breaches.len(), breaches.join("\n"));
    assert!(checked.states.get("Committed").is_some_and(|n| *n > 100), "{checked:?}");
    drop(ears);
    let Ok(world) = Arc::try_unwrap(world).map_err(|_| "somebody still uses it") else { panic!("a task is left") };
    world.rig.close().await;
}
