//! Inclusion proofs out of a ledger of millions of leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use deltran_api::audit::v1::{GetCheckpointRequest, GetInclusionProofRequest, get_inclusion_proof_request::Leaf};
use deltran_audit::domain::merkle::inclusion_plan;
use deltran_audit::domain::{LeafHash, leaf_hash};
use deltran_audit::store::Tree;
use deltran_audit::store::planted::{Seedling, grow_tree, plant};
use deltran_kernel::{Clock, SystemClock};
use deltran_messaging::outbox::Row;
use deltran_runtime::Db;
use deltran_runtime::identity::Role;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use super::Setting;
use super::audit::{BATCH, engine};
use super::figure::{Figure, percentiles};
use super::ground::{Ground, Running, until};
use super::report::Report;
use super::stream::Events;
use crate::client::{ClientArgs, Session};
use crate::output::Output;
use crate::problem::Problem;

/// What no one measures is grown in steps of this size.
const STEP: usize = 200_000;
/// Transactions of the measured part, a run.
const MEASURED: u64 = 100;

/// Measures.
///
/// # Errors
/// Where something does not start or does not answer.
pub async fn run(size: u32, proofs: u32, setting: &Setting, report: &mut Report) -> Result<(), Problem> {
    let folder = setting.data.join("proofs");
    let entries = engine()?;
    let ground = Ground::start(&folder, &entries).await?;
    let done = async {
        // Only the pool is wanted here: engines that do not run yet write nothing.
        let db = ground.database(&entries)?;
        let asked = grown(&db, size.into(), proofs, setting, report).await?;
        let running = ground.run(&entries).await?;
        let measured = measure(&running, &asked, size.into(), setting, report).await;
        running.stop().await?;
        measured
    };
    let done = done.await;
    ground.stop(&folder, setting.keep_data).await;
    done
}

/// Grows the tree, the first part as appends do and timed; the indexes of the leaves that are stored.
async fn grown(db: &Db, size: u64, proofs: u32, setting: &Setting, report: &mut Report) -> Result<Vec<u64>, Problem> {
    let mut rng = StdRng::seed_from_u64(setting.seed);
    let indexes: BTreeSet<u64> = (0..proofs).map(|_| rng.random_range(0..size)).collect();
    let rows: BTreeMap<u64, Row> =
        indexes.iter().copied().zip(Events::new(setting.seed)?.take(indexes.len())?).collect();
    let hash = |index: u64| -> LeafHash {
        match rows.get(&index) {
            Some(row) => leaf_hash(&row.envelope),
            None => leaf_hash(&index.to_be_bytes()),
        }
    };
    let mut at = 0u64;
    let mut rates = Vec::new();
    for _ in 0..setting.runs {
        let batches = MEASURED.min((size - at) / BATCH as u64);
        if batches == 0 {
            break;
        }
        let leaves: Vec<LeafHash> = (at..at + batches * BATCH as u64).map(hash).collect();
        let started = Instant::now();
        for batch in leaves.chunks(BATCH) {
            grow_tree(db, at, batch).await?;
            at += batch.len() as u64;
        }
        rates.push(leaves.len() as f64 / started.elapsed().as_secs_f64());
    }
    if !rates.is_empty() {
        let what = "Merkle tree: hashing, tiles and COMMIT, without leaves";
        report.add(Figure::rate("audit.tree", what, "leaves/s", rates));
    }
    while at < size {
        let leaves: Vec<LeafHash> = (at..size.min(at + STEP as u64)).map(hash).collect();
        grow_tree(db, at, &leaves).await?;
        at += leaves.len() as u64;
    }
    let seedlings: Vec<Seedling> =
        rows.into_iter().map(|(index, row)| Seedling { index, subject: row.subject, payload: row.envelope }).collect();
    plant(db, size, SystemClock.now(), &seedlings).await?;
    let mut asked: Vec<u64> = indexes.into_iter().collect();
    // Asked all over the tree, not from left to right.
    for place in (1..asked.len()).rev() {
        asked.swap(place, rng.random_range(0..=place));
    }
    Ok(asked)
}

async fn measure(
    running: &Running,
    asked: &[u64],
    size: u64,
    setting: &Setting,
    report: &mut Report,
) -> Result<(), Problem> {
    let tree = Tree::new(running.databases[0].clone());
    let session = Session::open(&ClientArgs::at(&running.grpc), Output { json: false }).await?;
    let mut client = session.audit(session.caller_named(Role::Auditor, "bench")?);
    until("a signed checkpoint", Duration::from_millis(50), async || {
        client.get_checkpoint(GetCheckpointRequest { size: 0 }).await.ok()
    })
    .await?;
    let (mut middle, mut slow, mut stored) = (Vec::new(), Vec::new(), Vec::new());
    // The first round warms up.
    for run in 0..=setting.runs {
        let (mut times, mut store_times) = (Vec::with_capacity(asked.len()), Vec::with_capacity(asked.len()));
        for index in asked {
            let request = GetInclusionProofRequest { leaf: Some(Leaf::LeafIndex(*index)), size: 0 };
            let started = Instant::now();
            client.get_inclusion_proof(request).await?;
            times.push(started.elapsed().as_secs_f64() * 1e3);
            let started = Instant::now();
            let plan = inclusion_plan(*index, size).unwrap_or_default();
            tree.fill(&plan).await?.ok_or_else(|| Problem::refused("a hash of the tree is missing"))?;
            store_times.push(started.elapsed().as_secs_f64() * 1e3);
        }
        if run > 0 {
            let [p50, p99] = percentiles(&mut times, [0.5, 0.99]);
            middle.push(p50);
            slow.push(p99);
            let [store_p99] = percentiles(&mut store_times, [0.99]);
            stored.push(store_p99);
        }
    }
    report.add(Figure::cost("audit.proof_p50", "inclusion proof over gRPC, p50", "ms", middle).target(5.0));
    report.add(Figure::cost("audit.proof_p99", "inclusion proof over gRPC, p99", "ms", slow).target(5.0));
    report.add(Figure::cost("audit.proof_store_p99", "inclusion proof: its hashes out of tiles, p99", "ms", stored));
    Ok(())
}
