//! `SettlementService`: reading batches, and watching them.

use deltran_api::settlement::v1 as pb;
use deltran_api::settlement::v1::settlement_service_server::SettlementService;
use deltran_events::{Domain, Envelope, Event};
use deltran_kernel::BatchId;
use deltran_messaging::Broker;
use deltran_messaging::watch::{self, Seen};
use deltran_runtime::{Caller, Db, Failure, wire};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::domain::{Batch, BatchState};
use crate::store::{self, Filter};

/// The service.
pub struct Service {
    /// The engine's database.
    pub db: Db,
    /// Where events are watched.
    pub broker: Broker,
    /// Cancelled when endless answers must end.
    pub closing: CancellationToken,
}

#[tonic::async_trait]
impl SettlementService for Service {
    type WatchSettlementsStream = BoxStream<'static, Result<pb::WatchSettlementsResponse, Status>>;

    async fn get_batch(&self, request: Request<pb::GetBatchRequest>) -> Result<Response<pb::GetBatchResponse>, Status> {
        let id: BatchId = wire::parse("batch_id", &request.into_inner().batch_id)?;
        let batch = self.batch(id).await?;
        Ok(Response::new(pb::GetBatchResponse { batch: Some(to_batch(&batch)) }))
    }

    async fn list_batches(
        &self,
        request: Request<pb::ListBatchesRequest>,
    ) -> Result<Response<pb::ListBatchesResponse>, Status> {
        let request = request.into_inner();
        let page = wire::page::<i64>(request.page.as_ref())?;
        let filter = Filter {
            currency: wire::parse_optional("currency", &request.currency)?,
            window: wire::parse_optional("window_id", &request.window_id)?,
            states: request.states.iter().map(|number| state(*number)).collect::<Result<_, _>>()?,
        };
        let rows = store::list(self.db.pool(), &filter, page.after, page.size).await.map_err(Failure::from)?;
        let next_page_token = wire::next_token(rows.len(), page.size, rows.last().map(|row| row.number));
        let batches = rows.iter().map(|row| to_batch(&row.batch)).collect();
        Ok(Response::new(pb::ListBatchesResponse { batches, next_page_token }))
    }

    async fn funding_status(
        &self,
        request: Request<pb::FundingStatusRequest>,
    ) -> Result<Response<pb::FundingStatusResponse>, Status> {
        let caller = Caller::of(&request)?;
        let id: BatchId = wire::parse("batch_id", &request.into_inner().batch_id)?;
        let batch = self.batch(id).await?;
        let legs = store::legs(self.db.pool(), id).await.map_err(Failure::from)?;
        let mut header = to_batch(&batch);
        if let Some(own) = caller.participant {
            // Who is not in the batch learns nothing of it, and nobody learns what others lack.
            if !legs.contains_key(&own) {
                return Err(Failure::not_found("batch", id).into());
            }
            header.note.clear();
        }
        let debtors = legs
            .iter()
            .filter(|(participant, leg)| leg.required().is_positive() && caller.may_see(**participant))
            .map(|(participant, leg)| pb::Funding {
                participant: participant.to_string(),
                required: Some(wire::to_money(batch.money(leg.required()))),
                reserved: Some(wire::to_money(batch.money(leg.reserved))),
                missing: Some(wire::to_money(batch.money(leg.missing()))),
            })
            .collect();
        Ok(Response::new(pb::FundingStatusResponse { batch: Some(header), debtors }))
    }

    async fn watch_settlements(
        &self,
        request: Request<pb::WatchSettlementsRequest>,
    ) -> Result<Response<Self::WatchSettlementsStream>, Status> {
        let from = watch::From::After(request.into_inner().after_position);
        let seen = watch::watch(&self.broker, Domain::Settlement.stream(), "events.settlement.batch.*", from)
            .await
            .map_err(|e| Failure::unavailable(e.to_string()))?;
        let db = self.db.clone();
        let answers = seen
            .map_err(|e| Status::from(Failure::unavailable(format!("{e}: resume after the last position"))))
            .and_then(move |seen| {
                let db = db.clone();
                async move { change(&db, &seen).await.map_err(Status::from) }
            })
            .try_filter_map(|change| async move { Ok(change) })
            .take_until(self.closing.clone().cancelled_owned());
        Ok(Response::new(answers.boxed()))
    }
}

impl Service {
    async fn batch(&self, id: BatchId) -> Result<Batch, Failure> {
        let stored = store::batch(self.db.pool(), id).await?;
        stored.map(|stored| stored.batch).ok_or_else(|| Failure::not_found("batch", id))
    }
}

/// A stored event as a change of its batch; `None` for what this engine did not publish.
async fn change(db: &Db, seen: &Seen) -> Result<Option<pb::WatchSettlementsResponse>, Failure> {
    let Ok((envelope, _)) = Envelope::decode(&seen.subject, &seen.payload) else { return Ok(None) };
    if envelope.metadata.producer.is_none() || envelope.source != Domain::Settlement.source() {
        return Ok(None);
    }
    let Some(id) = batch_of(&envelope.data) else { return Ok(None) };
    let stored = store::batch(db.pool(), id).await?;
    let Some(stored) = stored else {
        return Err(Failure::internal(format!("batch {id} was published and is not stored")));
    };
    let batch = Some(to_batch(&as_of(stored.batch, &envelope.data)));
    Ok(Some(pb::WatchSettlementsResponse { position: seen.position, batch, event_type: envelope.event_type }))
}

fn batch_of(event: &Event) -> Option<BatchId> {
    match event {
        Event::BatchCreated(e) => Some(e.batch_id),
        Event::BatchReserved(e) => Some(e.batch_id),
        Event::BatchAwaitingFunds(e) => Some(e.batch_id),
        Event::BatchSettled(e) => Some(e.batch_id),
        Event::BatchAborted(e) => Some(e.batch_id),
        _ => None,
    }
}

/// The batch as it was with that event, whatever became of it since.
fn as_of(mut batch: Batch, event: &Event) -> Batch {
    batch.funding_deadline = None;
    batch.final_at = None;
    batch.note.clear();
    batch.state = match event {
        Event::BatchReserved(_) => BatchState::Reserved,
        Event::BatchAwaitingFunds(e) => {
            batch.funding_deadline = Some(e.funding_deadline);
            batch.note = format!("{} debtor(s) are short", e.short_debtors);
            BatchState::AwaitingFunds
        }
        Event::BatchSettled(e) => {
            batch.final_at = Some(e.final_at);
            BatchState::Settled
        }
        Event::BatchAborted(e) => {
            batch.note.clone_from(&e.reason);
            BatchState::Aborted
        }
        _ => BatchState::Pending,
    };
    batch
}

fn to_batch(batch: &Batch) -> pb::Batch {
    let terms = &batch.terms;
    pb::Batch {
        batch_id: batch.id.to_string(),
        netting_set_id: terms.netting_set_id.to_string(),
        window_ids: terms.window_ids.iter().map(ToString::to_string).collect(),
        currency: terms.currency.to_string(),
        state: to_state(batch.state).into(),
        gross: Some(wire::to_money(batch.money(terms.gross))),
        moved: Some(wire::to_money(batch.money(terms.moved))),
        participants: terms.participants,
        created_at: Some(wire::to_timestamp(batch.created_at)),
        funding_deadline: batch.funding_deadline.map(wire::to_timestamp),
        final_at: batch.final_at.map(wire::to_timestamp),
        note: batch.note.clone(),
    }
}

const fn to_state(state: BatchState) -> pb::BatchState {
    match state {
        BatchState::Pending => pb::BatchState::Pending,
        BatchState::Reserved => pb::BatchState::Reserved,
        BatchState::Settled => pb::BatchState::Settled,
        BatchState::AwaitingFunds => pb::BatchState::AwaitingFunds,
        BatchState::Recast => pb::BatchState::Recast,
        BatchState::Aborted => pb::BatchState::Aborted,
    }
}

fn state(number: i32) -> Result<BatchState, Failure> {
    let known = BatchState::ALL.iter().copied().find(|state| i32::from(to_state(*state)) == number);
    known.ok_or_else(|| Failure::malformed("states", format!("{number} is no state of a batch")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_its_number_and_nothing_else_has() {
        for known in BatchState::ALL {
            assert_eq!(state(to_state(*known).into()).unwrap(), *known);
            assert_eq!(to_state(*known).as_str_name(), known.as_str());
        }
        assert!(state(0).is_err() && state(7).is_err());
    }
}
