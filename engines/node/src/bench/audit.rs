//! `deltran bench audit`: how fast the audit ledger takes events in, and how fast it proves one.

use std::time::Duration;

use clap::Args;
use deltran_audit::domain::merkle::Frontier;
use deltran_audit::domain::tile::Additions;
use deltran_audit::domain::{LeafHash, leaf_hash};
use deltran_messaging::publish::publish;
use serde_json::Value;
use tokio::time::Instant;

use super::Setting;
use super::exports;
use super::figure::Figure;
use super::ground::{Ground, Running, until};
use super::machine;
use super::proofs;
use super::report::Report;
use super::stream::Events;
use crate::engines::{Entry, named};
use crate::problem::Problem;

/// Events on their way to the broker at once.
const IN_FLIGHT: usize = 5_000;
/// This share of a run is warm-up.
const WARM: f64 = 0.1;
/// Leaves that the tree grows by at a time, as the consumer hands them over.
pub const BATCH: usize = 2_000;

/// Measure the audit ledger
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Fills AUDIT through a real broker first, then lets the audit engine take it in: consumer, sequencer, leaves, \
tree and
signed checkpoints, into a real Postgres with fsync. Then makes a tree of --tree leaves and asks for inclusion proofs of
leaves all over it, through gRPC; of that ledger only the leaves that are asked for are stored, the tree is whole.

Examples:
  deltran bench audit
  deltran bench audit --runs 1 --count 10000 --tree 10000 --proofs 100 --json"
)]
pub struct AuditBench {
    /// Events of a run
    #[arg(long, default_value_t = 300_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    count: u32,
    /// Leaves of the tree that proofs are asked of
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u32).range(1_000..=100_000_000))]
    tree: u32,
    /// Proofs of a run
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    proofs: u32,
}

/// The audit engine's entry.
///
/// # Errors
/// None: it is in the list.
pub fn engine() -> Result<Vec<&'static Entry>, Problem> {
    named(&[deltran_audit::NAME.to_owned()])
}

/// Measures.
///
/// # Errors
/// Where something does not start or does not answer.
pub async fn run(args: &AuditBench, setting: &Setting, report: &mut Report) -> Result<(), Problem> {
    report.set("audit.count", args.count);
    report.set("audit.tree", args.tree);
    report.set("seed", setting.seed);
    merkle(args, setting, report);
    let folder = setting.data.join("audit");
    let ground = Ground::start(&folder, &engine()?).await?;
    report.set("consumer_batch", ground.config.messaging.consumer_batch as u64);
    let done = appended(args, setting, &ground, report).await;
    ground.describe(&folder, report);
    ground.stop(&folder, setting.keep_data).await;
    done?;
    proofs::run(args.tree, args.proofs, setting, report).await
}

/// The tree's hashing alone, without a database.
fn merkle(args: &AuditBench, setting: &Setting, report: &mut Report) {
    let leaves: Vec<LeafHash> = (0..args.count).map(|n| leaf_hash(&n.to_be_bytes())).collect();
    let micros = (0..setting.runs).map(|_| {
        let mut frontier = Frontier::default();
        let started = Instant::now();
        for batch in leaves.chunks(BATCH) {
            let mut added = Additions::default();
            for leaf in batch {
                frontier.append(*leaf, |node, hash| added.add(node, hash));
            }
            std::hint::black_box(&added);
        }
        started.elapsed().as_secs_f64() * 1e6 / f64::from(args.count)
    });
    let micros = micros.collect();
    report.add(Figure::cost("audit.merkle", "Merkle tree: hashing alone, one core", "µs/leaf", micros));
}

async fn appended(args: &AuditBench, setting: &Setting, ground: &Ground, report: &mut Report) -> Result<(), Problem> {
    let mut events = Events::new(setting.seed)?;
    let (mut rates, mut shares) = (Vec::new(), Value::Null);
    let mut stored = 0u64;
    for run in 0..setting.runs {
        let bytes = fill(ground, &mut events, args.count as usize).await?;
        stored += u64::from(args.count);
        until("the events in AUDIT", Duration::from_millis(100), async || {
            let info = ground.broker.stream_info("AUDIT").await.ok()??;
            (info.messages >= stored).then_some(())
        })
        .await?;
        report.set("audit.bytes_an_event", (bytes as f64 / f64::from(args.count)).round());
        let running = ground.run(&engine()?).await?;
        let timed = timed(&running, stored, args.count).await;
        // All that was stored, once, with the leaves of every run.
        let exported = match (&timed, run + 1 == setting.runs) {
            (Ok(_), true) => exports::run(&running, &setting.data.join("audit"), stored, setting, report).await,
            _ => Ok(()),
        };
        running.stop().await?;
        let (rate, costs) = timed?;
        exported?;
        tracing::info!(run, rate, "appended");
        rates.push(rate);
        shares = costs;
    }
    report.set("audit.cpu_us_a_leaf", shares);
    report.add(Figure::rate("audit.append", "audit ledger: leaves appended", "leaves/s", rates).target(50_000.0));
    Ok(())
}

/// Publishes the next events as the ledger's relay does; their bytes.
async fn fill(ground: &Ground, events: &mut Events, count: usize) -> Result<usize, Problem> {
    let mut bytes = 0;
    let mut left = count;
    while left > 0 {
        let rows = events.take(left.min(IN_FLIGHT))?;
        left -= rows.len();
        bytes += rows.iter().map(|row| row.envelope.len()).sum::<usize>();
        let acks = publish(&ground.broker, rows).await.map_err(|e| Problem::unavailable(e.to_string()))?;
        acks.all().await.map_err(|e| Problem::unavailable(e.to_string()))?;
    }
    Ok(bytes)
}

/// Leaves a second from the end of the warm-up on, and the processor time that one leaf costs each part.
async fn timed(running: &Running, stored: u64, count: u32) -> Result<(f64, Value), Problem> {
    let warm = stored - (f64::from(count) * (1.0 - WARM)) as u64;
    let size = |least: u64| {
        let gauge = |label| running.metrics.audit_leaves.with_label_values(&[label]).get();
        let size = u64::try_from(gauge("valid") + gauge("invalid")).unwrap_or_default();
        (size >= least).then(|| (size, Instant::now()))
    };
    let root = std::process::id();
    let (from, started) = until("the first leaves", Duration::from_millis(5), async || size(warm)).await?;
    if from == stored {
        return Err(Problem::refused(format!("{count} events were appended at the first look: take more by --count")));
    }
    let before = machine::processes(root);
    let (to, ended) = until("the last leaves", Duration::from_millis(5), async || size(stored)).await?;
    let work = (to - from) as f64;
    let costs = machine::cost(&before, &machine::processes(root), work);
    Ok((work / (ended - started).as_secs_f64(), machine::costs_json(&costs)))
}
