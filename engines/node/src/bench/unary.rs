//! `deltran bench unary`: payments one a call, from many callers at once or at a given pace.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use deltran_api::token::v1::{SubmitTransactionRequest, TransactionInstruction, TransactionState};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::Setting;
use super::figure::{Figure, percentiles};
use super::load::Load;
use super::machine;
use super::platform::Platform;
use super::report::Report;
use crate::client::{ClientArgs, Session};
use crate::output::Output;
use crate::problem::Problem;

/// Measure payments that are submitted one by one
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "First --in-flight callers at once, each with its next payment as soon as it is answered; then --rate payments a \
second,
whether the ones before are answered or not, so that a slow answer is not hidden by fewer questions. A time is that from
asking to the answer, which comes after COMMIT.

Examples:
  deltran bench unary
  deltran bench unary --in-flight 64 --rate 1000
  deltran bench unary --runs 1 --count 1000 --seconds 1 --json"
)]
pub struct UnaryBench {
    /// Payments of a run
    #[arg(long, default_value_t = 60_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    count: u32,
    /// Callers at once
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=10000))]
    in_flight: u16,
    /// Connections of the callers
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1000))]
    connections: u16,
    /// Banks that pay each other
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(2..=5000))]
    banks: u16,
    /// Payments a second of the paced part
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// How long a run of the paced part is
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
}

/// Measures.
///
/// # Errors
/// Where something does not start or a payment is not decided.
pub async fn run(args: &UnaryBench, setting: &Setting, report: &mut Report) -> Result<(), Problem> {
    report.set("unary.count", args.count);
    report.set("unary.in_flight", args.in_flight);
    report.set("unary.connections", args.connections);
    report.set("unary.rate", args.rate);
    report.set("unary.seconds", args.seconds);
    report.set("seed", setting.seed);
    let folder = setting.data.join("unary");
    let mut load = Load::new(setting.seed, args.banks.into(), false)?;
    let platform = Platform::start(&folder, load.banks()).await?;
    let done = async {
        let mut sessions = Vec::new();
        for _ in 0..args.connections {
            sessions.push(Session::open(&ClientArgs::at(platform.endpoint()), Output { json: false }).await?);
        }
        crowded(args, setting, &mut load, &platform, &sessions, report).await?;
        paced(args, setting, &mut load, &platform, &sessions, report).await
    };
    let done = done.await;
    platform.describe(report);
    platform.stop(setting.keep_data).await?;
    done
}

/// Times in milliseconds of payments that were answered, and how many of them were committed.
#[derive(Default)]
struct Answers {
    times: Vec<f64>,
    committed: u64,
}

async fn call(session: &Session, payment: TransactionInstruction, asked: Instant) -> Result<(f64, bool), Problem> {
    let mut client = session.token(session.bank(&payment.payer)?);
    let request = SubmitTransactionRequest { transaction: Some(payment) };
    let outcome = client.submit_transaction(request).await?.into_inner().outcome.unwrap_or_default();
    match outcome.state() {
        TransactionState::Committed => Ok((asked.elapsed().as_secs_f64() * 1e3, true)),
        TransactionState::Held => Ok((asked.elapsed().as_secs_f64() * 1e3, false)),
        state => Err(Problem::refused(format!("payment {} is {}", outcome.transaction_id, state.as_str_name()))),
    }
}

/// Payments of the next run, made before the clock runs.
fn made(load: &mut Load, count: u32) -> Vec<TransactionInstruction> {
    (0..count).map(|_| load.anybody()).collect()
}

async fn crowded(
    args: &UnaryBench,
    setting: &Setting,
    load: &mut Load,
    platform: &Platform,
    sessions: &[Session],
    report: &mut Report,
) -> Result<(), Problem> {
    let (mut rates, mut middle, mut slow) = (Vec::new(), Vec::new(), Vec::new());
    let mut before = platform.processes();
    // The first round warms up.
    for run in 0..=setting.runs {
        let count = if run == 0 { args.count.div_ceil(4) } else { args.count };
        if run == 1 {
            before = platform.processes();
        }
        let payments = Arc::new(made(load, count));
        let next = Arc::new(AtomicU64::new(0));
        let started = Instant::now();
        let mut callers = JoinSet::new();
        for caller in 0..usize::from(args.in_flight) {
            let (payments, next, session) = (payments.clone(), next.clone(), sessions[caller % sessions.len()].clone());
            callers.spawn(async move {
                let mut answers = Answers::default();
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed) as usize;
                    let Some(payment) = payments.get(place) else { return Ok::<_, Problem>(answers) };
                    let (time, accepted) = call(&session, payment.clone(), Instant::now()).await?;
                    answers.times.push(time);
                    answers.committed += u64::from(accepted);
                }
            });
        }
        let (mut times, mut committed) = (Vec::with_capacity(count as usize), 0);
        while let Some(ended) = callers.join_next().await {
            let answers = ended.map_err(|e| Problem::refused(format!("a caller: {e}")))??;
            times.extend(answers.times);
            committed += answers.committed;
        }
        let seconds = started.elapsed().as_secs_f64();
        platform.all_in(committed).await?;
        if run > 0 {
            rates.push(times.len() as f64 / seconds);
            let [p50, p99] = percentiles(&mut times, [0.5, 0.99]);
            middle.push(p50);
            slow.push(p99);
        }
    }
    let payments = f64::from(args.count) * f64::from(setting.runs);
    let costs = machine::cost(&before, &platform.processes(), payments);
    report.set("unary.cpu_us_a_payment", machine::costs_json(&costs));
    let what = format!("unary, {} in flight", args.in_flight);
    report.add(Figure::rate("unary.rate", &format!("{what}: answered"), "payments/s", rates).target(10_000.0));
    report.add(Figure::cost("unary.p50", &format!("{what}: p50"), "ms", middle));
    report.add(Figure::cost("unary.p99", &format!("{what}: p99"), "ms", slow).target(50.0));
    Ok(())
}

async fn paced(
    args: &UnaryBench,
    setting: &Setting,
    load: &mut Load,
    platform: &Platform,
    sessions: &[Session],
    report: &mut Report,
) -> Result<(), Problem> {
    let (mut middle, mut slow) = (Vec::new(), Vec::new());
    for run in 0..=setting.runs {
        let seconds = if run == 0 { 1 } else { args.seconds };
        let payments = made(load, args.rate * seconds);
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / args.rate);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for (number, payment) in payments.into_iter().enumerate() {
            // The time at which it was to be asked: a late start is part of its time.
            let asked = ticks.tick().await;
            let (sender, session) = (sender.clone(), sessions[number % sessions.len()].clone());
            tokio::spawn(async move { sender.send(call(&session, payment, asked).await) });
        }
        drop(sender);
        let (mut times, mut committed) = (Vec::new(), 0);
        while let Some(answer) = receiver.recv().await {
            let (time, accepted) = answer?;
            times.push(time);
            committed += u64::from(accepted);
        }
        platform.all_in(committed).await?;
        if run > 0 {
            let [p50, p99] = percentiles(&mut times, [0.5, 0.99]);
            middle.push(p50);
            slow.push(p99);
        }
    }
    let what = format!("unary, {} a second", args.rate);
    report.add(Figure::cost("paced.p50", &format!("{what}: p50"), "ms", middle).target(2.0));
    report.add(Figure::cost("paced.p99", &format!("{what}: p99"), "ms", slow).target(10.0));
    Ok(())
}
