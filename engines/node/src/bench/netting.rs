//! `deltran bench netting`: from obligations to net positions, without a database.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use deltran_clearing::domain::netting::{PairTotal, net};
use deltran_clearing::domain::obligations::{Obligation, Tally, pair_totals, take};
use deltran_kernel::{
    Clock, Currency, IdSource, Minor, ParticipantId, SeededIds, SystemClock, TransactionId, WindowId,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use super::Setting;
use super::figure::Figure;
use super::load::CURRENCY;
use super::report::Report;
use super::stream::bank;
use crate::problem::Problem;

/// Measure netting
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Obligations between participants chosen by chance are counted once, added up by pairs, and netted \
multilaterally and pair by
pair; all of it is the engine's own code, on one core. In the platform the pairs are added up while the window is open, so
that closing it begins with their totals.

Examples:
  deltran bench netting
  deltran bench netting --obligations 100000 --participants 100"
)]
pub struct NettingBench {
    /// Obligations
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=50_000_000))]
    obligations: u32,
    /// Participants
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(2..=17_000))]
    participants: u32,
}

/// Measures.
///
/// # Errors
/// Where the engine refuses what was made here: a defect.
pub fn run(args: &NettingBench, setting: &Setting, report: &mut Report) -> Result<(), Problem> {
    report.set("netting.obligations", args.obligations);
    report.set("netting.participants", args.participants);
    let defect = |e: &dyn std::fmt::Display| Problem::refused(e.to_string());
    let currency = Currency::new(CURRENCY).map_err(|e| defect(&e))?;
    let ids = SeededIds::new(setting.seed);
    let window = WindowId::new(ids.next_id(SystemClock.now()));
    let obligations = made(args, setting.seed, currency, window, &ids)?;
    let (mut whole, mut from_pairs, mut pairs_count) = (Vec::new(), Vec::new(), 0);
    // The first round warms up.
    for run in 0..=setting.runs {
        let started = Instant::now();
        let taken = take(Tally::new(currency), &BTreeMap::new(), &obligations).map_err(|e| defect(&e))?;
        let totals = pair_totals(&obligations).map_err(|e| defect(&e))?;
        let pairs: Vec<PairTotal> = totals.into_iter().map(|(.., total)| total).collect();
        let counted = started.elapsed();
        let set = net(currency, BTreeSet::from([window]), &pairs).map_err(|e| defect(&e))?;
        let all = started.elapsed();
        if set.count != taken.tally.count || set.gross != taken.tally.gross {
            return Err(Problem::refused("netting and tally disagree: a defect"));
        }
        pairs_count = pairs.len();
        if run > 0 {
            whole.push(all.as_secs_f64() * 1e3);
            from_pairs.push((all - counted).as_secs_f64() * 1e3);
        }
    }
    report.set("netting.pairs", pairs_count as u64);
    report.add(Figure::cost("netting.whole", "netting: from single obligations", "ms", whole).target(1000.0));
    report.add(Figure::cost("netting.pairs", "netting: from totals of pairs", "ms", from_pairs).target(10.0));
    Ok(())
}

fn made(
    args: &NettingBench,
    seed: u64,
    currency: Currency,
    window: WindowId,
    ids: &SeededIds,
) -> Result<Vec<Obligation>, Problem> {
    let defect = |e: &dyn std::fmt::Display| Problem::refused(e.to_string());
    let many = args.participants as usize;
    let participants: Vec<ParticipantId> = (0..many).map(bank).collect::<Result<_, _>>().map_err(|e| defect(&e))?;
    let mut rng = StdRng::seed_from_u64(seed);
    (1..=u64::from(args.obligations))
        .map(|seq| {
            let payer = rng.random_range(0..many);
            let payee = (payer + rng.random_range(1..many)) % many;
            let amount = Minor::new(rng.random_range(1..10_000_000)).map_err(|e| defect(&e))?;
            let transaction = TransactionId::new(ids.next_id(SystemClock.now()));
            let (payer, payee) = (participants[payer], participants[payee]);
            Ok(Obligation { window, seq, transaction, payer, payee, currency, amount })
        })
        .collect()
}
