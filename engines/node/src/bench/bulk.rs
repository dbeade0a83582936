//! `deltran bench bulk`: payments in streams of many, from the first byte sent to the last event audited.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Args;
use deltran_api::token::v1::submit_item::Result as Decided;
use deltran_api::token::v1::{SubmitItem, SubmitTransactionsRequest, TransactionState};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use super::Setting;
use super::figure::Figure;
use super::load::Load;
use super::machine;
use super::platform::Platform;
use super::report::Report;
use crate::client::Session;
use crate::problem::Problem;

/// Messages of one bank under way at once.
const WINDOW: usize = 2;

/// Measure payments that are submitted in streams
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Each bank has a stream of its own, and the streams run side by side. Every payment names an originator and a \
beneficiary out
of 100,000 names, and is screened. All-in is the time from the first message until clearing has counted every payment, and
every event stands in the audit ledger under a signed checkpoint. Afterwards half of all payments go to one bank.

Examples:
  deltran bench bulk
  deltran bench bulk --runs 1 --count 1000 --banks 4 --accounts uniform --json
  deltran bench bulk --preload 5000000"
)]
pub struct BulkBench {
    /// Payments of a run
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    count: u32,
    /// Payments per message
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(1..=1000))]
    batch: u16,
    /// Banks that pay each other
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(2..=5000))]
    banks: u16,
    /// Streams at once
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1000))]
    streams: u16,
    /// Payments that are stored before anything is measured
    #[arg(long, default_value_t = 0, value_name = "N")]
    preload: u32,
    /// How payments are spread: over all banks, half of them to one, or first one and then the other
    #[arg(long, default_value = "both")]
    accounts: Accounts,
}

/// How payments are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Accounts {
    /// Over all banks alike.
    Uniform,
    /// Half of them to one bank.
    Hot,
    /// Both, one after the other.
    Both,
}

/// What a run found.
struct Run {
    answered: f64,
    all_in: f64,
}

/// Measures.
///
/// # Errors
/// Where something does not start or a payment is not decided.
pub async fn run(args: &BulkBench, setting: &Setting, report: &mut Report) -> Result<(), Problem> {
    report.set("bulk.count", args.count);
    report.set("bulk.batch", args.batch);
    report.set("bulk.banks", args.banks);
    report.set("bulk.streams", args.streams);
    report.set("bulk.preload", args.preload);
    report.set("seed", setting.seed);
    let folder = setting.data.join("bulk");
    let load = Load::new(setting.seed, args.banks.into(), false)?;
    let platform = Platform::start(&folder, load.banks()).await?;
    let done = measure(args, setting, load, &platform, report).await;
    platform.describe(report);
    platform.stop(setting.keep_data).await?;
    done
}

async fn measure(
    args: &BulkBench,
    setting: &Setting,
    mut load: Load,
    platform: &Platform,
    report: &mut Report,
) -> Result<(), Problem> {
    let mut left = args.preload;
    while left > 0 {
        let some = left.min(args.count);
        once(args, some, &mut load, platform).await?;
        left -= some;
    }
    // What starts slowly is not measured: statements that are planned, tables that are empty.
    once(args, args.count.div_ceil(4), &mut load, platform).await?;
    let mut uniform = None;
    for hot in [false, true] {
        if args.accounts == (if hot { Accounts::Uniform } else { Accounts::Hot }) {
            continue;
        }
        let name = if hot { "hot" } else { "bulk" };
        if hot {
            load = Load::new(setting.seed.wrapping_add(1), args.banks.into(), true)?;
        }
        let (mut answered, mut all_in) = (Vec::new(), Vec::new());
        let before = platform.processes();
        for _ in 0..setting.runs {
            let run = once(args, args.count, &mut load, platform).await?;
            answered.push(run.answered);
            all_in.push(run.all_in);
        }
        let payments = f64::from(args.count) * f64::from(setting.runs);
        let costs = machine::cost(&before, &platform.processes(), payments);
        report.set(&format!("{name}.cpu_us_a_payment"), machine::costs_json(&costs));
        let what = if hot { "bulk, half of it to one bank" } else { "bulk" };
        let answered = Figure::rate(&format!("{name}.answered"), &format!("{what}: answered"), "payments/s", answered);
        let mut all_in = Figure::rate(&format!("{name}.all_in"), &format!("{what}: all-in"), "payments/s", all_in);
        if hot {
            if let Some(uniform) = uniform {
                let shares = all_in.values.iter().map(|rate| rate * 100.0 / uniform).collect();
                let what = "hot account: all-in, as a share of uniform";
                report.add(Figure::rate("hot.share", what, "%", shares).target(80.0));
            }
        } else {
            all_in = all_in.target(20_000.0);
            uniform = Some(all_in.median());
        }
        report.add(answered);
        report.add(all_in);
    }
    report.add(
        Figure::cost("bulk.memory", "process of all engines: memory at most", "MiB", vec![platform.peak_memory()])
            .target(500.0),
    );
    Ok(())
}

/// Submits so many payments and waits for all that follows from them.
async fn once(args: &BulkBench, count: u32, load: &mut Load, platform: &Platform) -> Result<Run, Problem> {
    let lanes = lanes(args, count, load);
    let queue = Arc::new(Mutex::new(lanes));
    let accepted = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let mut streams = JoinSet::new();
    for _ in 0..args.streams {
        let (queue, accepted, session) = (queue.clone(), accepted.clone(), platform.session.clone());
        streams.spawn(async move {
            loop {
                let next = queue.lock().await.pop();
                let Some((bank, messages)) = next else { return Ok::<_, Problem>(()) };
                accepted.fetch_add(stream(&session, &bank, messages).await?, Ordering::Relaxed);
            }
        });
    }
    while let Some(ended) = streams.join_next().await {
        ended.map_err(|e| Problem::refused(format!("a stream: {e}")))??;
    }
    let answered = started.elapsed().as_secs_f64();
    let all_in = (platform.all_in(accepted.load(Ordering::Relaxed)).await? - started).as_secs_f64();
    let rate = |seconds: f64| f64::from(count) / seconds;
    Ok(Run { answered: rate(answered), all_in: rate(all_in) })
}

type Lane = (String, Vec<SubmitTransactionsRequest>);

/// Messages by bank, made before the clock runs; each bank has about as many.
fn lanes(args: &BulkBench, count: u32, load: &mut Load) -> Vec<Lane> {
    let banks = load.banks().to_vec();
    let mut lanes: Vec<Lane> = banks.into_iter().map(|bank| (bank, Vec::new())).collect();
    let (mut left, mut payer) = (count as usize, 0);
    while left > 0 {
        let some = left.min(args.batch.into());
        let sequence = lanes[payer].1.len() as u64;
        lanes[payer].1.push(load.message(sequence, payer, some));
        left -= some;
        payer = (payer + 1) % lanes.len();
    }
    lanes
}

/// Sends a bank's messages and reads the answers; how many payments were committed.
async fn stream(session: &Session, bank: &str, messages: Vec<SubmitTransactionsRequest>) -> Result<u64, Problem> {
    let mut client = session.token(session.bank(bank)?.patient());
    let (sender, receiver) = mpsc::channel(WINDOW);
    let sending = tokio::spawn(async move {
        for message in messages {
            if sender.send(message).await.is_err() {
                return;
            }
        }
    });
    let mut answers = client.submit_transactions(ReceiverStream::new(receiver)).await?.into_inner();
    let mut committed = 0;
    while let Some(answer) = answers.message().await? {
        for item in answer.items {
            committed += u64::from(is_committed(item)?);
        }
    }
    sending.await.map_err(|e| Problem::refused(format!("a stream: {e}")))?;
    Ok(committed)
}

/// Whether a payment was committed; it may be held.
fn is_committed(item: SubmitItem) -> Result<bool, Problem> {
    match item.result {
        Some(Decided::Outcome(outcome)) => match outcome.state() {
            TransactionState::Committed => Ok(true),
            TransactionState::Held => Ok(false),
            state => {
                let why = outcome.refusal.map(|r| format!("{}: {}", r.code, r.message)).unwrap_or_default();
                Err(Problem::refused(format!("payment {} is {}: {why}", item.transaction_id, state.as_str_name())))
            }
        },
        Some(Decided::Error(error)) => {
            Err(Problem::refused(format!("payment {}: {}: {}", item.transaction_id, error.code, error.message)))
        }
        None => Err(Problem::refused(format!("payment {} has no answer", item.transaction_id))),
    }
}
