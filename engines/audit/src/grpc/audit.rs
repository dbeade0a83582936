//! `AuditService`: the ledger for auditors and operators, and for the engines whose events stand in it.

use std::sync::Arc;

use deltran_api::audit::v1 as pb;
use deltran_api::audit::v1::audit_service_server::AuditService;
use deltran_kernel::{EventId, ParticipantId};
use deltran_messaging::Door;
use deltran_runtime::{Caller, EngineContext, Failure, FailureKind, wire};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::export::Exports;
use super::holds::Holds;
use super::proofs::Proofs;
use super::{archived, note_access};
use crate::archive::Archive;
use crate::checkpoints::Publisher;
use crate::config::Settings;
use crate::domain::check::StoredLeaf;
use crate::history::History;
use crate::reconcile::Reconciler;
use crate::store::{Cuts, Filter, Ledger};
use crate::verify::Verifier;

/// Events of a range read at once.
const RANGE: i64 = 500;
/// Answers under way to a slow reader.
const AHEAD: usize = 64;
/// Verifications at once.
const VERIFICATIONS: usize = 2;
/// Differences that a comparison lists at most; the others are counted.
const MOST_LISTED: u32 = 100_000;

/// The service.
pub struct Audit {
    context: EngineContext,
    door: Door,
    ledger: Ledger,
    cuts: Cuts,
    verifier: Verifier,
    verifications: Arc<Semaphore>,
    proofs: Proofs,
    exports: Exports,
    holds: Holds,
    reconciler: Reconciler,
}

impl Audit {
    /// The service. Older proofs come out of the archive.
    pub fn new(
        context: EngineContext,
        door: Door,
        verifier: Verifier,
        publisher: Publisher,
        reconciler: Reconciler,
        (settings, archive): (&Settings, Option<Archive>),
    ) -> Self {
        let (ledger, cuts) = (Ledger::new(context.db.clone()), Cuts::new(context.db.clone()));
        let holds = Holds::new(context.clone(), door.clone(), settings.clone());
        let history = History::new(context.db.clone(), archive);
        let exports = Exports::new(context.clone(), door.clone(), publisher.clone(), history.clone());
        let proofs = Proofs::new(context.clone(), door.clone(), publisher, history);
        let verifications = Arc::new(Semaphore::new(VERIFICATIONS));
        Self { context, door, ledger, cuts, verifier, verifications, proofs, exports, holds, reconciler }
    }

    async fn list(&self, request: Request<pb::ListEventsRequest>) -> Result<pb::ListEventsResponse, Failure> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let page = wire::page::<u64>(request.page.as_ref())?;
        let filter = filter(&request)?;
        note_access(&self.context, &self.door, &caller, describe(&filter, page.after)).await?;
        if let Some(from) = filter.from
            && let Some(until) = self.cuts.until().await?
            && from < until
        {
            let message = format!(
                "events recorded before {until} are archived: ask from then on; `deltran audit days` says where they are"
            );
            return Err(Failure::new(FailureKind::WrongState, "archived", message).with("until", until));
        }
        let leaves = self.ledger.list(&filter, page.after, page.size).await?;
        let last = leaves.last().map(|leaf| leaf.leaf_index);
        let next_page_token = wire::next_token(leaves.len(), page.size, last);
        Ok(pb::ListEventsResponse { events: leaves.into_iter().map(encode).collect(), next_page_token })
    }

    async fn get(&self, request: Request<pb::GetEventRequest>) -> Result<pb::GetEventResponse, Failure> {
        use pb::get_event_request::Key;
        let caller = Caller::of(&request)?;
        let key = request
            .into_inner()
            .key
            .ok_or_else(|| Failure::malformed("key", "is missing: give leaf_index or event_id"))?;
        let (query, id) = match &key {
            Key::LeafIndex(index) => (format!("GetEvent leaf_index={index}"), None),
            Key::EventId(id) => (format!("GetEvent event_id={id}"), Some(wire::parse::<EventId>("event_id", id)?)),
        };
        note_access(&self.context, &self.door, &caller, query).await?;
        let (leaf, name) = match (key, id) {
            (Key::LeafIndex(index), _) => {
                let leaf = self.ledger.at(i64::try_from(index).unwrap_or(i64::MAX)).await?;
                if leaf.is_none()
                    && let Some(gone) = self.cuts.day_of(index).await?
                {
                    return Err(archived(format_args!("leaf {index}"), &gone));
                }
                (leaf, format!("at leaf_index {index}"))
            }
            (_, Some(id)) => (self.ledger.by_event(id.uuid()).await?, self.online(id.to_string()).await?),
            (Key::EventId(text), None) => (None, text),
        };
        let leaf = leaf.ok_or_else(|| Failure::not_found("event", name))?;
        Ok(pb::GetEventResponse { event: Some(encode(leaf)) })
    }

    /// What is not found by its id may be archived.
    async fn online(&self, name: String) -> Result<String, Failure> {
        Ok(match self.cuts.leaf().await? {
            0 => name,
            cut => format!("{name} in the database; leaves below {cut} are archived"),
        })
    }

    async fn start_verification(
        &self,
        request: Request<pb::VerifyRequest>,
    ) -> Result<ReceiverStream<Result<pb::VerifyResponse, Status>>, Failure> {
        let caller = Caller::of(&request)?;
        let database_only = request.into_inner().database_only;
        let permit = self.verifications.clone().try_acquire_owned().map_err(|_| {
            Failure::overloaded(format!("{VERIFICATIONS} verifications run already: try again when one has ended"))
        })?;
        note_access(&self.context, &self.door, &caller, format!("Verify database_only={database_only}")).await?;
        let (sender, receiver) = mpsc::channel(AHEAD);
        let (verifier, closing) = (self.verifier.clone(), self.context.closing.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let outcome = tokio::select! {
                outcome = verifier.run(database_only, &sender) => outcome,
                () = sender.closed() => return,
                () = closing.cancelled() => Err(Failure::unavailable("the process stops: verify again")),
            };
            let last = outcome.map_err(Status::from).map(|report| {
                let leaves = report.leaves;
                pb::VerifyResponse { checked: leaves, total: leaves, report: Some(report) }
            });
            // Where the caller went away, nobody is left to be told.
            let _nobody = sender.send(last).await;
        });
        Ok(ReceiverStream::new(receiver))
    }

    async fn start_reconciliation(
        &self,
        request: Request<pb::ReconcileRequest>,
    ) -> Result<ReceiverStream<Result<pb::ReconcileResponse, Status>>, Failure> {
        let caller = Caller::of(&request)?;
        let pb::ReconcileRequest { repair, limit } = request.into_inner();
        if limit > MOST_LISTED {
            return Err(Failure::malformed("limit", format!("{limit} is too large: at most {MOST_LISTED} are listed")));
        }
        let turn = self
            .reconciler
            .turn
            .clone()
            .try_acquire_owned()
            .map_err(|_| Failure::overloaded("a comparison runs already: try again when it has ended"))?;
        note_access(&self.context, &self.door, &caller, format!("Reconcile repair={repair} limit={limit}")).await?;
        let (sender, receiver) = mpsc::channel(AHEAD);
        let (reconciler, closing) = (self.reconciler.clone(), self.context.closing.clone());
        tokio::spawn(async move {
            let work = async {
                let _turn = if repair { reconciler.keeper.before_repair(turn).await? } else { turn };
                reconciler.run(repair, limit, &caller.user, Some(&sender), None).await
            };
            let outcome = tokio::select! {
                outcome = work => outcome,
                () = sender.closed() => return,
                () = closing.cancelled() => Err(Failure::unavailable("the process stops: reconcile again")),
            };
            let last = outcome
                .map_err(Status::from)
                .map(|summary| pb::ReconcileResponse { part: Some(pb::reconcile_response::Part::Summary(summary)) });
            // Where the caller went away, nobody is left to be told.
            let _nobody = sender.send(last).await;
        });
        Ok(ReceiverStream::new(receiver))
    }

    fn start_range(
        &self,
        request: pb::ReadRangeRequest,
    ) -> Result<ReceiverStream<Result<pb::ReadRangeResponse, Status>>, Failure> {
        let producer = wire::required_text("producer", &request.producer, 128)?;
        let (from, to) = (request.from, request.to);
        if from == 0 || from > to {
            return Err(Failure::malformed("from", format!("{from} to {to} is no range: numbers begin at 1")));
        }
        let (sender, receiver) = mpsc::channel(AHEAD);
        let (ledger, cuts, closing) = (self.ledger.clone(), self.cuts.clone(), self.context.closing.clone());
        tokio::spawn(async move {
            let sent = tokio::select! {
                sent = send_range((&ledger, &cuts), &producer, from, to, &sender) => sent,
                () = closing.cancelled() => Err(Failure::unavailable("the process stops: read on from the last number")),
            };
            if let Err(failure) = sent {
                let _nobody = sender.send(Err(failure.into())).await;
            }
        });
        Ok(ReceiverStream::new(receiver))
    }
}

/// A number that is missing ends the answer with an error, so that nobody republishes a range with a hole.
async fn send_range(
    (ledger, cuts): (&Ledger, &Cuts),
    producer: &str,
    from: u64,
    to: u64,
    sender: &mpsc::Sender<Result<pb::ReadRangeResponse, Status>>,
) -> Result<(), Failure> {
    let mut next = from;
    loop {
        let events = ledger.range(producer, next, to, RANGE).await?;
        if events.is_empty() {
            return Err(missing(cuts, producer, next).await?);
        }
        for (producer_seq, subject, envelope) in events {
            if producer_seq != next {
                return Err(missing(cuts, producer, next).await?);
            }
            let event = pb::ReadRangeResponse { producer_seq, subject, envelope };
            if sender.send(Ok(event)).await.is_err() || next == to {
                return Ok(());
            }
            next += 1;
        }
    }
}

/// A number that is not in the database is archived or was never received.
async fn missing(cuts: &Cuts, producer: &str, number: u64) -> Result<Failure, Failure> {
    Ok(match cuts.day_of_number(producer, number).await? {
        Some(gone) => archived(format_args!("{producer} {number}"), &gone),
        None => Failure::not_found("event", format!("{producer} {number} in the ledger")),
    })
}

fn filter(request: &pb::ListEventsRequest) -> Result<Filter, Failure> {
    let text = |field: &str, value: &str| wire::text(field, value, 256).map(|v| Some(v).filter(|v| !v.is_empty()));
    let participant = wire::parse_optional::<ParticipantId>("participant", &request.participant)?;
    let filter = Filter {
        domain: text("domain", &request.domain)?,
        event_type: text("event_type", &request.event_type)?,
        participant: participant.map(|p| p.to_string()),
        correlation_id: text("correlation_id", &request.correlation_id)?,
        from: wire::timestamp("from", request.from.as_ref())?,
        to: wire::timestamp("to", request.to.as_ref())?,
    };
    match (filter.from, filter.to) {
        (Some(from), Some(to)) if from >= to => {
            Err(Failure::malformed("to", format!("{to} is not after from, {from}")))
        }
        _ => Ok(filter),
    }
}

fn describe(filter: &Filter, after: Option<u64>) -> String {
    let times = [("from", filter.from), ("to", filter.to)].map(|(name, at)| (name, at.map(|at| at.to_string())));
    let texts = [
        ("domain", filter.domain.clone()),
        ("event_type", filter.event_type.clone()),
        ("participant", filter.participant.clone()),
        ("correlation_id", filter.correlation_id.clone()),
        ("after", after.map(|index| index.to_string())),
    ];
    let parts = texts.into_iter().chain(times).filter_map(|(name, value)| Some(format!(" {name}={}", value?)));
    format!("ListEvents{}", parts.collect::<String>())
}

fn encode(leaf: StoredLeaf) -> pb::AuditEvent {
    let (producer, producer_seq) = leaf.columns.producer.unwrap_or_default();
    pb::AuditEvent {
        leaf_index: leaf.leaf_index as u64,
        leaf_hash: leaf.leaf_hash,
        envelope: leaf.envelope,
        event_id: leaf.columns.event_id.map(|id| id.to_string()).unwrap_or_default(),
        subject: leaf.subject,
        domain: leaf.columns.domain,
        event_type: leaf.columns.event_type,
        occurred_at: leaf.columns.occurred_at.map(wire::to_timestamp),
        source: leaf.columns.source,
        participant_id: leaf.columns.participant_id.unwrap_or_default(),
        correlation_id: leaf.columns.correlation_id.unwrap_or_default(),
        source_stream: leaf.source_stream,
        source_sequence: leaf.source_sequence,
        recorded_at: Some(wire::to_timestamp(leaf.recorded_at)),
        valid: leaf.valid,
        invalid_reason: leaf.columns.invalid_reason.unwrap_or_default(),
        producer,
        producer_seq,
    }
}

#[tonic::async_trait]
impl AuditService for Audit {
    type VerifyStream = ReceiverStream<Result<pb::VerifyResponse, Status>>;
    type ReadRangeStream = ReceiverStream<Result<pb::ReadRangeResponse, Status>>;
    type GetTilesStream = ReceiverStream<Result<pb::GetTilesResponse, Status>>;
    type ExportEventsStream = ReceiverStream<Result<pb::ExportEventsResponse, Status>>;
    type ReconcileStream = ReceiverStream<Result<pb::ReconcileResponse, Status>>;

    async fn list_events(
        &self,
        request: Request<pb::ListEventsRequest>,
    ) -> Result<Response<pb::ListEventsResponse>, Status> {
        Ok(Response::new(self.list(request).await?))
    }

    async fn get_event(&self, request: Request<pb::GetEventRequest>) -> Result<Response<pb::GetEventResponse>, Status> {
        Ok(Response::new(self.get(request).await?))
    }

    async fn verify(&self, request: Request<pb::VerifyRequest>) -> Result<Response<Self::VerifyStream>, Status> {
        Ok(Response::new(self.start_verification(request).await?))
    }

    async fn get_checkpoint(
        &self,
        request: Request<pb::GetCheckpointRequest>,
    ) -> Result<Response<pb::GetCheckpointResponse>, Status> {
        Ok(Response::new(self.proofs.checkpoint(request).await?))
    }

    async fn list_checkpoints(
        &self,
        request: Request<pb::ListCheckpointsRequest>,
    ) -> Result<Response<pb::ListCheckpointsResponse>, Status> {
        Ok(Response::new(self.proofs.checkpoints(request).await?))
    }

    async fn get_inclusion_proof(
        &self,
        request: Request<pb::GetInclusionProofRequest>,
    ) -> Result<Response<pb::GetInclusionProofResponse>, Status> {
        Ok(Response::new(self.proofs.inclusion(request).await?))
    }

    async fn get_consistency_proof(
        &self,
        request: Request<pb::GetConsistencyProofRequest>,
    ) -> Result<Response<pb::GetConsistencyProofResponse>, Status> {
        Ok(Response::new(self.proofs.consistency(request).await?))
    }

    async fn get_tiles(&self, request: Request<pb::GetTilesRequest>) -> Result<Response<Self::GetTilesStream>, Status> {
        Ok(Response::new(self.proofs.tiles(request).await?))
    }

    async fn export_events(
        &self,
        request: Request<pb::ExportEventsRequest>,
    ) -> Result<Response<Self::ExportEventsStream>, Status> {
        Ok(Response::new(self.exports.start(request).await?))
    }

    async fn place_hold(
        &self,
        request: Request<pb::PlaceHoldRequest>,
    ) -> Result<Response<pb::PlaceHoldResponse>, Status> {
        Ok(Response::new(self.holds.place(request).await?))
    }

    async fn release_hold(
        &self,
        request: Request<pb::ReleaseHoldRequest>,
    ) -> Result<Response<pb::ReleaseHoldResponse>, Status> {
        Ok(Response::new(self.holds.release(request).await?))
    }

    async fn list_holds(
        &self,
        request: Request<pb::ListHoldsRequest>,
    ) -> Result<Response<pb::ListHoldsResponse>, Status> {
        Ok(Response::new(self.holds.list(request).await?))
    }

    async fn list_days(&self, request: Request<pb::ListDaysRequest>) -> Result<Response<pb::ListDaysResponse>, Status> {
        Ok(Response::new(self.holds.list_days(request).await?))
    }

    async fn reconcile(
        &self,
        request: Request<pb::ReconcileRequest>,
    ) -> Result<Response<Self::ReconcileStream>, Status> {
        Ok(Response::new(self.start_reconciliation(request).await?))
    }

    async fn confirmed_through(
        &self,
        request: Request<pb::ConfirmedThroughRequest>,
    ) -> Result<Response<pb::ConfirmedThroughResponse>, Status> {
        let producer = wire::required_text("producer", &request.into_inner().producer, 128)?;
        let producer_seq = self.ledger.confirmed_through(&producer).await.map_err(Failure::from)?;
        Ok(Response::new(pb::ConfirmedThroughResponse { producer_seq }))
    }

    async fn read_range(
        &self,
        request: Request<pb::ReadRangeRequest>,
    ) -> Result<Response<Self::ReadRangeStream>, Status> {
        Ok(Response::new(self.start_range(request.into_inner())?))
    }
}
