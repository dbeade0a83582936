//! Checkpoints, proofs and tiles: what an outsider checks the ledger with.

use std::collections::{BTreeMap, BTreeSet};

use deltran_api::audit::v1 as pb;
use deltran_kernel::EventId;
use deltran_messaging::Door;
use deltran_runtime::{Caller, EngineContext, Failure, FailureKind, wire};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};

use super::entries::Entries;
use super::{archived, note_access};
use crate::checkpoints::Publisher;
use crate::domain::checkpoint::{Checkpoint, InclusionProof};
use crate::domain::merkle::{Frontier, Hash, Plan, consistency_plan, frontier_nodes, inclusion_plan};
use crate::domain::retention::root_of_tile;
use crate::domain::tile::{HEIGHT, Tile, TilePath, WIDTH, tiles_of};
use crate::history::History;
use crate::notary::one_history;
use crate::store::{Checkpoints, Cuts, Kept, Ledger};

/// Files of a log under way to a slow reader.
const AHEAD: usize = 16;
/// Tiles read at once.
const TILES: usize = 64;

/// Answers about the tree.
#[derive(Clone)]
pub struct Proofs {
    context: EngineContext,
    door: Door,
    publisher: Publisher,
    ledger: Ledger,
    history: History,
    checkpoints: Checkpoints,
    cuts: Cuts,
}

impl Proofs {
    /// Answers out of the engine's database, and below the cut out of the archive.
    pub fn new(context: EngineContext, door: Door, publisher: Publisher, history: History) -> Self {
        let db = context.db.clone();
        let (ledger, checkpoints, cuts) = (Ledger::new(db.clone()), Checkpoints::new(db.clone()), Cuts::new(db));
        Self { context, door, publisher, ledger, history, checkpoints, cuts }
    }

    async fn note(&self, caller: &Caller, query: String) -> Result<(), Failure> {
        note_access(&self.context, &self.door, caller, query).await
    }

    /// The checkpoint of a size, 0 for the latest, as something that leaves the system.
    async fn hand_out(&self, size: u64) -> Result<Kept, Failure> {
        let notary = self.publisher.notary();
        let now = self.context.clock.now();
        let kept = match (size, self.checkpoints.latest().await?) {
            (0, Some(latest)) => latest,
            (0, None) => match notary.sign_growth(now).await? {
                Some(first) => first,
                None => return Err(Failure::not_found("checkpoint", "yet: the ledger has no leaves")),
            },
            (size, _) => notary.sign(size, now).await?,
        };
        self.publisher.hand_out(kept).await
    }

    fn keys(&self) -> Vec<String> {
        self.publisher.notary().verifiers().iter().map(ToString::to_string).collect()
    }

    /// `GetCheckpoint`.
    pub async fn checkpoint(
        &self,
        request: Request<pb::GetCheckpointRequest>,
    ) -> Result<pb::GetCheckpointResponse, Failure> {
        let caller = Caller::of(&request)?;
        let size = request.into_inner().size;
        self.note(&caller, format!("GetCheckpoint size={size}")).await?;
        let kept = self.hand_out(size).await?;
        Ok(pb::GetCheckpointResponse { checkpoint: Some(encode(kept)), keys: self.keys() })
    }

    /// `ListCheckpoints`. A list shows sizes and roots that may be thinned out; the notes of those that have left the
    /// system are with them.
    pub async fn checkpoints(
        &self,
        request: Request<pb::ListCheckpointsRequest>,
    ) -> Result<pb::ListCheckpointsResponse, Failure> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let page = wire::page::<u64>(request.page.as_ref())?;
        self.note(&caller, format!("ListCheckpoints published_only={}", request.published_only)).await?;
        let kept = self.checkpoints.page(page.after, request.published_only, page.size).await?;
        let next_page_token = wire::next_token(kept.len(), page.size, kept.last().map(|k| k.size));
        let without_note = |kept: Kept| pb::Checkpoint {
            note: if kept.published { kept.note.clone() } else { String::new() },
            ..encode(kept)
        };
        Ok(pb::ListCheckpointsResponse {
            checkpoints: kept.into_iter().map(without_note).collect(),
            next_page_token,
            keys: self.keys(),
        })
    }

    /// `GetInclusionProof`.
    pub async fn inclusion(
        &self,
        request: Request<pb::GetInclusionProofRequest>,
    ) -> Result<pb::GetInclusionProofResponse, Failure> {
        use pb::get_inclusion_proof_request::Leaf as Key;
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let key = request.leaf.ok_or_else(|| Failure::malformed("leaf", "is missing: give leaf_index or event_id"))?;
        let asked = match &key {
            Key::LeafIndex(index) => format!("leaf_index={index}"),
            Key::EventId(id) => format!("event_id={}", wire::parse::<EventId>("event_id", id)?),
        };
        // The access is on record before anything leaves; what is read meanwhile only waits for that.
        let query = format!("GetInclusionProof {asked} size={}", request.size);
        let (noted, proof) = tokio::join!(self.note(&caller, query), self.proof(&key, request.size));
        noted?;
        proof
    }

    async fn proof(
        &self,
        key: &pb::get_inclusion_proof_request::Leaf,
        size: u64,
    ) -> Result<pb::GetInclusionProofResponse, Failure> {
        let (found, kept) = tokio::join!(self.leaf(key), self.hand_out(size));
        let (index, envelope) = found?;
        let kept = kept?;
        let Some(plan) = inclusion_plan(index, kept.size) else {
            return Err(Failure::new(
                FailureKind::WrongState,
                "not_covered",
                format!(
                    "leaf {index} is not in the ledger of size {}: ask again when a later checkpoint is signed",
                    kept.size
                ),
            ));
        };
        let hashes = self.history.hashes(&plan).await?;
        let proof = InclusionProof { index, hashes, checkpoint: kept.note };
        let leaf_hash = crate::domain::leaf_hash(&envelope);
        proof.verify(&leaf_hash, self.publisher.notary().origin(), self.publisher.notary().verifiers()).map_err(
            |e| {
                tracing::error!(leaf = index, error = %e, "a stored leaf does not stand in the signed tree");
                Failure::new(
                    FailureKind::WrongState,
                    "not_included",
                    format!("leaf {index}: {e}; `deltran audit verify` tells more"),
                )
            },
        )?;
        Ok(pb::GetInclusionProofResponse {
            leaf_index: index,
            leaf_hash: leaf_hash.to_vec(),
            proof: proof.text(),
            envelope,
        })
    }

    /// Index and bytes of a leaf.
    async fn leaf(&self, key: &pb::get_inclusion_proof_request::Leaf) -> Result<(u64, Vec<u8>), Failure> {
        use pb::get_inclusion_proof_request::Leaf as Key;
        let (found, name) = match key {
            Key::LeafIndex(index) => {
                let found = self.ledger.at(i64::try_from(*index).unwrap_or(i64::MAX)).await?;
                if found.is_none()
                    && let Some(gone) = self.cuts.day_of(*index).await?
                {
                    let Some(archive) = self.history.archive().filter(|_| !gone.place.is_empty()) else {
                        return Err(archived(format_args!("leaf {index}"), &gone));
                    };
                    let envelope = archive.envelope(&gone.place, index - gone.from).await?;
                    let missing = || Failure::not_found("event", format!("at leaf_index {index} in {}", gone.place));
                    return Ok((*index, envelope.ok_or_else(missing)?));
                }
                (found, format!("at leaf_index {index}"))
            }
            Key::EventId(text) => {
                let id = wire::parse::<EventId>("event_id", text)?;
                (self.ledger.by_event(id.uuid()).await?, text.clone())
            }
        };
        let found = found.ok_or_else(|| Failure::not_found("event", name))?;
        Ok((u64::try_from(found.leaf_index).map_err(Failure::internal)?, found.envelope))
    }

    /// Without an archive only what is in the database can be answered: tiles that end beyond the cut, and bundles of entries
    /// that begin there.
    async fn check_tiles_from(&self, request: &pb::GetTilesRequest) -> Result<(), Failure> {
        if self.history.archive().is_some() {
            return Ok(());
        }
        let cut = self.cuts.leaf().await?;
        let first = if request.hashes_only { cut } else { cut.next_multiple_of(WIDTH) };
        if request.from_leaf >= first {
            return Ok(());
        }
        let message = format!(
            "what ends before leaf {first} is archived: ask from there on; `deltran audit days` says where it is"
        );
        Err(Failure::new(FailureKind::WrongState, "archived", message).with("from_leaf", first))
    }

    /// `GetConsistencyProof`.
    pub async fn consistency(
        &self,
        request: Request<pb::GetConsistencyProofRequest>,
    ) -> Result<pb::GetConsistencyProofResponse, Failure> {
        use pb::get_consistency_proof_request::From as Key;
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let notary = self.publisher.notary().clone();
        let (from, note) = match request.from {
            None => return Err(Failure::malformed("from", "is missing: give from_size or from_checkpoint")),
            Some(Key::FromSize(size)) => (size, None),
            Some(Key::FromCheckpoint(note)) => {
                let held = Checkpoint::verify(&note, notary.origin(), notary.verifiers())
                    .map_err(|e| Failure::malformed("from_checkpoint", e))?;
                (held.size, Some((held, note)))
            }
        };
        self.note(&caller, format!("GetConsistencyProof from={from} to={}", request.to_size)).await?;
        let to = self.hand_out(request.to_size).await?;
        let Some(plan) = consistency_plan(from, to.size) else {
            let message = format!("{from} leaves is more than {}: the earlier size comes first", to.size);
            return Err(Failure::malformed("from", message));
        };
        let hashes = self.history.hashes(&plan).await?;
        let from_checkpoint = match note {
            Some((held, note)) => {
                one_history(&held, to.size, &to.root, &hashes)?;
                note
            }
            None if from == 0 => String::new(),
            None => self.hand_out(from).await?.note,
        };
        Ok(pb::GetConsistencyProofResponse {
            hashes: hashes.iter().map(|hash| hash.to_vec()).collect(),
            from_checkpoint,
            to_checkpoint: to.note,
        })
    }

    /// `GetTiles`.
    pub async fn tiles(
        &self,
        request: Request<pb::GetTilesRequest>,
    ) -> Result<ReceiverStream<Result<pb::GetTilesResponse, Status>>, Failure> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let query = format!("GetTiles size={} from_leaf={}", request.size, request.from_leaf);
        self.note(&caller, query).await?;
        let kept = self.hand_out(request.size).await?;
        if request.from_leaf > kept.size {
            let message = format!("{} is beyond the ledger of size {}", request.from_leaf, kept.size);
            return Err(Failure::malformed("from_leaf", message));
        }
        self.check_tiles_from(&request).await?;
        let (sender, receiver) = mpsc::channel(AHEAD);
        let proofs = self.clone();
        tokio::spawn(async move {
            let closing = proofs.context.closing.clone();
            let sent = tokio::select! {
                sent = proofs.send_tiles(&request, &kept, &sender) => sent,
                () = closing.cancelled() => Err(Failure::unavailable("the process stops: ask again")),
            };
            if let Err(failure) = sent {
                let _nobody = sender.send(Err(failure.into())).await;
            }
        });
        Ok(ReceiverStream::new(receiver))
    }

    /// Entries and tiles first, the checkpoint last: who finds a checkpoint finds everything that it covers.
    async fn send_tiles(
        &self,
        request: &pb::GetTilesRequest,
        kept: &Kept,
        sender: &mpsc::Sender<Result<pb::GetTilesResponse, Status>>,
    ) -> Result<(), Failure> {
        let leaves_total = kept.size;
        let send = async |path: String, content: Vec<u8>, leaves_done: u64| {
            let file = pb::GetTilesResponse { path, content, leaves_done, leaves_total };
            sender.send(Ok(file)).await.map_err(|_| Failure::unavailable("nobody listens"))
        };
        // What is not full stands in the right edge, and every full tile in the one above it: nothing is answered that does
        // not lead to the checkpoint.
        let edge: Plan = frontier_nodes(kept.size).into_iter().map(|node| vec![node]).collect();
        let edge = Frontier::new(kept.size, self.history.hashes(&edge).await?);
        if edge.map(|edge| edge.root()) != Some(kept.root) {
            return Err(not_signed("the right edge of the tree"));
        }
        let mut entries = Entries::new(self.context.db.clone(), self.history.clone());
        let all = tiles_of(request.from_leaf, kept.size);
        for some in all.chunks(TILES) {
            let above = some.iter().filter(|(_, width)| *width == WIDTH).map(|(tile, _)| tile.above().0);
            let wanted: BTreeSet<Tile> = some.iter().map(|(tile, _)| *tile).chain(above).collect();
            let found = self.history.tiles(&wanted).await?;
            for (tile, width) in some {
                let wide = usize::try_from(*width).map_err(Failure::internal)?;
                let hashes = found.get(tile).and_then(|hashes| hashes.get(..wide)).ok_or_else(|| {
                    let path = tile.path(*width);
                    let message = format!("{path} is neither in the database nor in the archive");
                    Failure::new(FailureKind::WrongState, "not_online", message)
                })?;
                if *width == WIDTH && !stands_above(*tile, hashes, &found) {
                    return Err(not_signed(&tile.path(*width).to_string()));
                }
                let done = ((tile.index * WIDTH + width) << (tile.level * HEIGHT)).min(kept.size);
                send(tile.path(*width).to_string(), hashes.concat(), if tile.level == 0 { done } else { kept.size })
                    .await?;
                if tile.level == 0 && !request.hashes_only {
                    let bundle = entries.bundle(tile.index * WIDTH, hashes).await?;
                    send(TilePath::of_entries(tile.index, *width).to_string(), bundle, done).await?;
                }
            }
        }
        send("checkpoint".to_owned(), kept.note.clone().into_bytes(), kept.size).await
    }
}

/// Whether the hash over a full tile is the one that stands in the tile above it.
fn stands_above(tile: Tile, hashes: &[Hash], found: &BTreeMap<Tile, Vec<Hash>>) -> bool {
    let (above, place) = tile.above();
    let stands = usize::try_from(place).ok().and_then(|place| found.get(&above)?.get(place));
    stands.is_some() && stands == root_of_tile(hashes).as_ref()
}

/// Hashes that are stored and do not lead to the checkpoint.
fn not_signed(what: &str) -> Failure {
    let message = format!("{what} does not lead to the signed checkpoint: `deltran audit verify` tells more");
    tracing::error!(why = %message, "tiles of the log cannot be served");
    Failure::new(FailureKind::WrongState, "not_included", message)
}

fn encode(kept: Kept) -> pb::Checkpoint {
    pb::Checkpoint {
        size: kept.size,
        root: kept.root.to_vec(),
        note: kept.note,
        signed_at: Some(wire::to_timestamp(kept.signed_at)),
        published: kept.published,
    }
}
