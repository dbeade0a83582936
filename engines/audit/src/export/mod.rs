//! Exports: a range of the ledger as files that prove themselves, in one pass with flat memory.

pub mod check;
pub mod files;
pub mod lines;
pub mod pass;

use std::collections::{BTreeMap, BTreeSet};

use deltran_api::audit::v1 as pb;
use deltran_events::data::audit::ExportCompleted;
use deltran_kernel::Timestamp;
use deltran_messaging::ranges::Ranges;
use deltran_messaging::{Door, Outgoing};
use deltran_runtime::{EngineContext, Failure, FailureKind};
use tokio::sync::mpsc;
use tonic::Status;

use self::files::{Files, Piece};
use self::pass::{Formats, Pass, PassError};
use crate::checkpoints::Publisher;
use crate::domain::check::StoredLeaf;
use crate::domain::checkpoint::{Checkpoint, ConsistencyProof, InclusionProof};
use crate::domain::export::manifest::{COMPLETE, Filter, INCLUDED, Manifest, Range, signed_text};
use crate::domain::export::{
    BESIDE, CSV, END, EVENTS, FRONTIER, MANIFEST, PARQUET, README, SIGNATURE, SINCE, START, proof_file, readme,
};
use crate::domain::merkle::{Frontier, consistency_plan, inclusion_plan};
use crate::domain::tile::{filled, tiles_for};
use crate::history::History;
use crate::notary::one_history;
use crate::store::{Cuts, Kept, Ledger, Tree};

/// Leaves read at once.
const WINDOW: i64 = 2000;

/// Where an export goes.
pub type Sender = mpsc::Sender<Result<pb::ExportEventsResponse, Status>>;

/// What is exported, and for whom.
#[derive(Debug, Clone)]
pub struct Order {
    /// Which leaves.
    pub range: Range,
    /// Which of them.
    pub filter: Filter,
    /// Which tables beside the exact bytes.
    pub formats: Formats,
    /// A checkpoint that the receiver holds.
    pub since: Option<Checkpoint>,
    /// Bytes that the receiver has of each file.
    pub have: BTreeMap<String, u64>,
    /// Who asks.
    pub user: String,
    /// In which role.
    pub role: String,
}

/// What was exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The manifest.
    pub manifest: Manifest,
    /// SHA-256 of its file, hexadecimal.
    pub manifest_sha256: String,
}

/// Writes exports.
#[derive(Clone)]
pub struct Exporter {
    context: EngineContext,
    door: Door,
    publisher: Publisher,
    ledger: Ledger,
    tree: Tree,
    cuts: Cuts,
    history: History,
}

/// The signed ends of a range.
struct Ends {
    start: Kept,
    end: Kept,
    frontier: Frontier,
    since: Option<ConsistencyProof>,
}

impl Exporter {
    /// An exporter.
    pub fn new(context: EngineContext, door: Door, publisher: Publisher, history: History) -> Self {
        let db = context.db.clone();
        let (ledger, tree, cuts) = (Ledger::new(db.clone()), Tree::new(db.clone()), Cuts::new(db));
        Self { context, door, publisher, ledger, tree, cuts, history }
    }

    /// Writes an export: plan, pieces, outcome. It is announced by an event, unless it is the platform's own archive.
    ///
    /// # Errors
    /// Where the ledger does not verify, there is no key, or nobody listens.
    pub async fn run(&self, order: &Order, announce: bool, to: &Sender) -> Result<Exported, Failure> {
        let ends = self.ends(order, if announce { "export" } else { "archive" }).await?;
        send(to, pb::export_events_response::Part::Plan(self.plan(order))).await?;
        let files = Files::new(order.have.clone());
        let pass = Pass::new(ends.frontier.clone(), order.filter.clone(), order.formats, files).map_err(refused)?;
        let mut pass = self.leaves(order, &ends, pass, to).await?;
        if pass.frontier().root() != ends.end.root {
            let leaf = order.range.to_leaf;
            let what = "the leaves of the range do not lead to the root that was signed".to_owned();
            return Err(refused(PassError::Leaf { leaf, what }));
        }
        let exported = self.conclude(order, &ends, &mut pass)?;
        self.pieces(&mut pass, order.range.to_leaf - order.range.from_leaf, to).await?;
        if announce {
            self.announce(order, &exported).await?;
        }
        let outcome = pb::ExportOutcome {
            leaves: order.range.to_leaf - order.range.from_leaf,
            events: exported.manifest.summary.events,
            manifest_sha256: exported.manifest_sha256.clone(),
        };
        send(to, pb::export_events_response::Part::Outcome(outcome)).await?;
        Ok(exported)
    }

    fn plan(&self, order: &Order) -> pb::ExportPlan {
        let formats = [(order.formats.csv, CSV), (order.formats.parquet, PARQUET), (order.since.is_some(), SINCE)];
        let always = [EVENTS, BESIDE, START, END, FRONTIER, README, MANIFEST, SIGNATURE];
        let extra = formats.iter().filter(|(wanted, _)| *wanted).map(|(_, name)| *name);
        pb::ExportPlan {
            from_leaf: order.range.from_leaf,
            to_leaf: order.range.to_leaf,
            filtered: !order.filter.is_empty(),
            files: always.into_iter().chain(extra).map(str::to_owned).collect(),
        }
    }

    /// Checkpoints of exactly the sizes at which the range begins and ends, published, and what leads to them.
    async fn ends(&self, order: &Order, reason: &str) -> Result<Ends, Failure> {
        let (from, to) = (order.range.from_leaf, order.range.to_leaf);
        let start = self.publisher.publish(from, reason, &order.user).await?;
        let end = self.publisher.publish(to, reason, &order.user).await?;
        let gone = || not_online(format!("hashes of the ledger of size {from} are not in the database"));
        let frontier = self.tree.frontier_at(from).await?.ok_or_else(gone)?;
        if frontier.root() != start.root {
            let what = format!("the ledger of size {from} has another root than the checkpoint that was signed");
            return Err(refused(PassError::Leaf { leaf: from, what }));
        }
        let since = match &order.since {
            None => None,
            Some(held) => {
                let Some(plan) = consistency_plan(held.size, to) else {
                    let message = format!("the checkpoint has {} leaves, the range ends at {to}", held.size);
                    return Err(Failure::malformed("since", message));
                };
                let hashes = self.history.hashes(&plan).await?;
                one_history(held, to, &end.root, &hashes)?;
                Some(ConsistencyProof { old: held.size, hashes, checkpoint: end.note.clone() })
            }
        };
        Ok(Ends { start, end, frontier, since })
    }

    /// Goes over the range; the next leaves are read while these are written.
    async fn leaves(&self, order: &Order, ends: &Ends, mut pass: Pass, to: &Sender) -> Result<Pass, Failure> {
        let bound = |leaf: u64| i64::try_from(leaf).map_err(Failure::internal);
        let (mut from, last) = (bound(order.range.from_leaf)?, bound(order.range.to_leaf)?);
        let read = async |from: i64| -> Result<Vec<StoredLeaf>, Failure> {
            Ok(if from < last { self.ledger.window(from, (from + WINDOW).min(last)).await? } else { Vec::new() })
        };
        let mut next = read(from).await?;
        while from < last {
            let (rows, until) = (next, (from + WINDOW).min(last));
            let step = move || {
                rows.iter().try_for_each(|row| pass.step(row))?;
                Ok::<_, PassError>(pass)
            };
            let (fetched, stepped) = tokio::join!(read(until), tokio::task::spawn_blocking(step));
            pass = stepped.map_err(Failure::internal)?.map_err(refused)?;
            if pass.next() != until as u64 {
                let what = "it is missing".to_owned();
                return Err(refused(PassError::Leaf { leaf: pass.next(), what }));
            }
            self.prove(ends, &mut pass).await?;
            self.pieces(&mut pass, (until as u64).saturating_sub(order.range.from_leaf), to).await?;
            next = fetched?;
            from = until;
        }
        pass.finish().map_err(refused)?;
        Ok(pass)
    }

    /// Inclusion proofs of what passed a filter, with one read of tiles for all of them.
    async fn prove(&self, ends: &Ends, pass: &mut Pass) -> Result<(), Failure> {
        let passed = pass.passed();
        let plans: Vec<_> = passed.iter().filter_map(|leaf| inclusion_plan(*leaf, ends.end.size)).collect();
        let wanted: BTreeSet<_> = plans.iter().flat_map(tiles_for).collect();
        let tiles = self.tree.tiles(&wanted).await?;
        for (index, plan) in passed.into_iter().zip(plans) {
            let gone = || not_online(format!("hashes that the proof of leaf {index} needs are not in the database"));
            let hashes = filled(&plan, &tiles).ok_or_else(gone)?;
            let proof = InclusionProof { index, hashes, checkpoint: ends.end.note.clone() };
            pass.files().put(&proof_file(index), proof.text().as_bytes());
        }
        Ok(())
    }

    /// The files that speak of the range as a whole; the manifest and its signature last.
    fn conclude(&self, order: &Order, ends: &Ends, pass: &mut Pass) -> Result<Exported, Failure> {
        let notary = self.publisher.notary();
        let whole = order.filter.is_empty();
        let (tally, none) = (pass.tally(), Ranges::default());
        let left = pass.all().iter().map(|(name, all)| {
            let left = all.without(tally.producers().get(name).unwrap_or(&none));
            (name.clone(), left.iter().collect::<Vec<_>>())
        });
        let mut manifest = Manifest {
            version: Manifest::version(),
            origin: notary.origin().to_owned(),
            software: concat!("deltran ", env!("CARGO_PKG_VERSION")).to_owned(),
            generated_at: self.context.clock.now(),
            requested_by: order.user.clone(),
            role: order.role.clone(),
            range: order.range.clone(),
            filter: (!whole).then(|| order.filter.clone()),
            proves: if whole { COMPLETE } else { INCLUDED }.to_owned(),
            summary: tally.summary(order.range.from_leaf, whole),
            left_out: left.filter(|(_, ranges)| !ranges.is_empty()).collect(),
            since: order.since.as_ref().map(|held| held.size),
            files: Vec::new(),
        };
        let files = pass.files();
        files.put(README, readme::readme(&manifest).as_bytes());
        files.put(START, ends.start.note.as_bytes());
        files.put(END, ends.end.note.as_bytes());
        let frontier: String = ends.frontier.hashes().iter().map(|hash| hex::encode(hash) + "\n").collect();
        files.put(FRONTIER, frontier.as_bytes());
        if let Some(proof) = &ends.since {
            files.put(SINCE, proof.text().as_bytes());
        }
        manifest.files = files.entries();
        let bytes = manifest.to_bytes().map_err(Failure::internal)?;
        let signature = notary.note(&signed_text(notary.origin(), &bytes))?;
        files.put(MANIFEST, &bytes);
        files.put(SIGNATURE, signature.as_bytes());
        let written = files.entries().into_iter().find(|entry| entry.name == MANIFEST);
        Ok(Exported { manifest, manifest_sha256: written.map(|entry| entry.sha256).unwrap_or_default() })
    }

    async fn pieces(&self, pass: &mut Pass, leaves_done: u64, to: &Sender) -> Result<(), Failure> {
        for Piece { file, offset, data } in pass.pieces() {
            let piece = pb::ExportPiece { file, offset, data, leaves_done };
            send(to, pb::export_events_response::Part::Piece(piece)).await?;
        }
        Ok(())
    }

    async fn announce(&self, order: &Order, exported: &Exported) -> Result<(), Failure> {
        let filter = order.filter.words();
        let event = ExportCompleted {
            from_leaf: order.range.from_leaf,
            to_leaf: order.range.to_leaf,
            events: exported.manifest.summary.events,
            filter: (!filter.is_empty()).then_some(filter),
            user: order.user.clone(),
            role: order.role.clone(),
            manifest_sha256: exported.manifest_sha256.clone(),
        };
        let correlation = format!("export-{}", self.context.ids.next_id(self.context.clock.now()));
        let outgoing = [Outgoing::new(event, correlation, order.user.clone())];
        Ok(self.door.begin("export").await?.commit(&outgoing).await?)
    }

    /// The leaves that were recorded from one moment up to another, the last not included.
    ///
    /// # Errors
    /// `archived` where some of them left the database, and where they are.
    pub async fn range(&self, from: Option<Timestamp>, to: Option<Timestamp>) -> Result<Range, Failure> {
        let to_leaf = match to {
            Some(at) => self.ledger.end_before(at).await?,
            None => self.ledger.size().await?.0,
        };
        let from_leaf = match from {
            Some(at) => self.ledger.first_since(at).await?.min(to_leaf),
            None => 0,
        };
        if let Some(at) = from
            && let Some(until) = self.cuts.until().await?
            && at < until
        {
            return Err(self.below_the_cut(format!("what was recorded from {at} up to {until}")).await?);
        }
        Ok(Range { from_leaf, to_leaf, from, to })
    }

    /// Checks that a range by leaf is in the database.
    ///
    /// # Errors
    /// `archived` where it is not, and where it is.
    pub async fn check_online(&self, from_leaf: u64) -> Result<(), Failure> {
        match self.cuts.day_of(from_leaf).await? {
            None => Ok(()),
            Some(gone) => {
                Err(self.below_the_cut(format!("leaf {from_leaf} ({}, {})", gone.name(), gone.place)).await?)
            }
        }
    }

    async fn below_the_cut(&self, what: String) -> Result<Failure, Failure> {
        let cut = self.cuts.leaf().await?;
        let message = format!(
            "{what} left the database, which begins at leaf {cut}, and is archived: each archived day is an export of its own; `deltran audit days` says where"
        );
        Ok(Failure::new(FailureKind::WrongState, "archived", message).with("from_leaf", cut))
    }
}

async fn send(to: &Sender, part: pb::export_events_response::Part) -> Result<(), Failure> {
    let gone = |_| Failure::unavailable("the export stopped: nobody listens");
    to.send(Ok(pb::ExportEventsResponse { part: Some(part) })).await.map_err(gone)
}

/// Nothing is handed out that does not verify.
fn refused(error: PassError) -> Failure {
    match error {
        PassError::Leaf { .. } => {
            tracing::error!(%error, "an export stopped: the ledger does not verify");
            let message = format!(
                "{error}: the ledger does not verify, so nothing is handed out; `deltran audit verify --database` tells more"
            );
            Failure::new(FailureKind::WrongState, "not_verified", message)
        }
        PassError::Parquet(error) => Failure::internal(error),
    }
}

fn not_online(message: String) -> Failure {
    Failure::new(FailureKind::WrongState, "not_online", message)
}
