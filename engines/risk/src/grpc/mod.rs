//! The gRPC service: decodes, hands over to the desk, encodes.

mod decode;
mod encode;

use std::sync::Arc;

use deltran_api::risk::v1 as pb;
use deltran_api::risk::v1::risk_service_server::{RiskService, RiskServiceServer};
use deltran_kernel::{CommandId, Currency, ParticipantId};
use deltran_runtime::{Caller, Failure, wire};
use tonic::{Request, Response, Status};

use crate::domain::breaker::BreakerState;
use crate::domain::limit::End;
use crate::domain::scope::Scope;
use crate::handle::{By, Desk};
use crate::store::{self, LimitFilter, StepFilter};
use decode::Pair;

/// The most subjects of one batch.
const MAX_BATCH: usize = 10_000;
/// The largest request: a full batch.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// The service.
pub struct Service {
    desk: Arc<Desk>,
}

impl Service {
    /// The service in front of a desk.
    pub fn server(desk: Arc<Desk>) -> RiskServiceServer<Self> {
        RiskServiceServer::new(Self { desk })
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    async fn end(&self, id: &str, reason: &str, how: End, by: By) -> Result<pb::Limit, Failure> {
        let id: CommandId = wire::parse("limit_id", id)?;
        let reason = decode::reason(reason)?;
        Ok(encode::limit(self.desk.end(id, how, &reason, &by).await?.into_inner()))
    }
}

fn by<T>(request: &Request<T>) -> Result<By, Failure> {
    let caller = Caller::of(request)?;
    Ok(By { user: caller.user, trace: caller.trace })
}

#[tonic::async_trait]
impl RiskService for Service {
    async fn assess_batch(
        &self,
        request: Request<pb::AssessBatchRequest>,
    ) -> Result<Response<pb::AssessBatchResponse>, Status> {
        let pb::AssessBatchRequest { subjects, turn } = request.into_inner();
        let gate = self.desk.gate.name().to_owned();
        let Some(turn) = turn.filter(|turn| turn.gate == gate) else {
            return Ok(Response::new(pb::AssessBatchResponse { verdicts: Vec::new(), gate }));
        };
        if subjects.len() > MAX_BATCH {
            let message = format!("has {} entries: at most {MAX_BATCH} are allowed", subjects.len());
            return Err(Failure::malformed("subjects", message).into());
        }
        let asked = subjects.iter().map(decode::subject).collect::<Result<Vec<_>, _>>()?;
        let (version, verdicts) = self.desk.gate.admit(&decode::turn(turn), &asked).await?;
        let verdicts = asked.iter().zip(verdicts).map(|(s, v)| encode::verdict(s, v, version)).collect();
        Ok(Response::new(pb::AssessBatchResponse { verdicts, gate }))
    }

    async fn assess(&self, request: Request<pb::AssessRequest>) -> Result<Response<pb::AssessResponse>, Status> {
        let subject = request.into_inner().subject.ok_or_else(|| Failure::malformed("subject", "is missing"))?;
        let asked = decode::subject(&subject)?;
        let (version, verdict) = self.desk.gate.judge(&asked)?;
        Ok(Response::new(pb::AssessResponse { verdict: Some(encode::verdict(&asked, verdict, version)) }))
    }

    async fn propose_limit(
        &self,
        request: Request<pb::ProposeLimitRequest>,
    ) -> Result<Response<pb::ProposeLimitResponse>, Status> {
        let by = by(&request)?;
        let proposal = decode::proposal(request.into_inner())?;
        let proposed = self.desk.propose(&proposal, &by).await.map_err(Failure::from)?.into_inner();
        Ok(Response::new(pb::ProposeLimitResponse { limit: Some(encode::limit(proposed)) }))
    }

    async fn approve_limit(
        &self,
        request: Request<pb::ApproveLimitRequest>,
    ) -> Result<Response<pb::ApproveLimitResponse>, Status> {
        let by = by(&request)?;
        let id: CommandId = wire::parse("limit_id", &request.into_inner().limit_id)?;
        let approved = self.desk.approve(id, &by).await?;
        Ok(Response::new(pb::ApproveLimitResponse { limit: Some(encode::limit(approved)) }))
    }

    async fn reject_limit(
        &self,
        request: Request<pb::RejectLimitRequest>,
    ) -> Result<Response<pb::RejectLimitResponse>, Status> {
        let by = by(&request)?;
        let pb::RejectLimitRequest { limit_id, reason } = request.into_inner();
        let limit = self.end(&limit_id, &reason, End::Reject, by).await?;
        Ok(Response::new(pb::RejectLimitResponse { limit: Some(limit) }))
    }

    async fn withdraw_limit(
        &self,
        request: Request<pb::WithdrawLimitRequest>,
    ) -> Result<Response<pb::WithdrawLimitResponse>, Status> {
        let by = by(&request)?;
        let pb::WithdrawLimitRequest { limit_id, reason } = request.into_inner();
        let limit = self.end(&limit_id, &reason, End::Withdraw, by).await?;
        Ok(Response::new(pb::WithdrawLimitResponse { limit: Some(limit) }))
    }

    async fn list_limits(
        &self,
        request: Request<pb::ListLimitsRequest>,
    ) -> Result<Response<pb::ListLimitsResponse>, Status> {
        let request = request.into_inner();
        let page = wire::page::<CommandId>(request.page.as_ref())?;
        let filter = LimitFilter {
            participant: wire::parse_optional("participant", &request.participant)?,
            state: decode::limit_state(&request.state)?,
            kind: decode::kind_filter(request.kind())?,
            currency: wire::parse_optional("currency", &request.currency)?,
        };
        let limits = store::list_limits(self.desk.door.db(), &page, &filter).await.map_err(Failure::from)?;
        let next_page_token = wire::next_token(limits.len(), page.size, limits.last().map(|l| l.proposal.limit_id));
        let limits = limits.into_iter().map(encode::limit).collect();
        Ok(Response::new(pb::ListLimitsResponse { limits, next_page_token }))
    }

    async fn list_limit_history(
        &self,
        request: Request<pb::ListLimitHistoryRequest>,
    ) -> Result<Response<pb::ListLimitHistoryResponse>, Status> {
        let request = request.into_inner();
        let page = wire::page::<u64>(request.page.as_ref())?;
        let filter = StepFilter {
            limit_id: wire::parse_optional("limit_id", &request.limit_id)?,
            participant: wire::parse_optional("participant", &request.participant)?,
            kind: decode::kind_filter(request.kind())?,
        };
        let steps = store::list_steps(self.desk.door.db(), &page, &filter).await.map_err(Failure::from)?;
        let next_page_token = wire::next_token(steps.len(), page.size, steps.last().map(|s| s.step));
        let steps = steps.into_iter().map(encode::step).collect();
        Ok(Response::new(pb::ListLimitHistoryResponse { steps, next_page_token }))
    }

    async fn trip_breaker(
        &self,
        request: Request<pb::TripBreakerRequest>,
    ) -> Result<Response<pb::TripBreakerResponse>, Status> {
        let by = by(&request)?;
        let request = request.into_inner();
        let to = match request.mode() {
            pb::BreakerMode::Reducing => BreakerState::Reducing,
            pb::BreakerMode::Open | pb::BreakerMode::Unspecified => BreakerState::Open,
        };
        let command = decode::set_breaker(&request.command_id, &request.scope, &request.reason, to)?;
        let tripped = self.desk.set_breaker(&command, &by).await?;
        Ok(Response::new(pb::TripBreakerResponse { breaker: Some(encode::breaker(tripped)) }))
    }

    async fn close_breaker(
        &self,
        request: Request<pb::CloseBreakerRequest>,
    ) -> Result<Response<pb::CloseBreakerResponse>, Status> {
        let by = by(&request)?;
        let pb::CloseBreakerRequest { command_id, scope, reason } = request.into_inner();
        let command = decode::set_breaker(&command_id, &scope, &reason, BreakerState::Closed)?;
        let closed = self.desk.set_breaker(&command, &by).await?;
        Ok(Response::new(pb::CloseBreakerResponse { breaker: Some(encode::breaker(closed)) }))
    }

    async fn list_breakers(
        &self,
        request: Request<pb::ListBreakersRequest>,
    ) -> Result<Response<pb::ListBreakersResponse>, Status> {
        let request = request.into_inner();
        let page = wire::page::<Scope>(request.page.as_ref())?;
        let state = decode::breaker_state(&request.state)?;
        let breakers =
            store::list_breakers(self.desk.door.db(), page.after, page.size, state).await.map_err(Failure::from)?;
        let next_page_token = wire::next_token(breakers.len(), page.size, breakers.last().map(|b| b.scope));
        let breakers = breakers.into_iter().map(encode::breaker).collect();
        Ok(Response::new(pb::ListBreakersResponse { breakers, next_page_token }))
    }

    async fn get_exposures(
        &self,
        request: Request<pb::GetExposuresRequest>,
    ) -> Result<Response<pb::GetExposuresResponse>, Status> {
        let request = request.into_inner();
        let page = wire::page::<Pair>(request.page.as_ref())?;
        let participant: Option<ParticipantId> = wire::parse_optional("participant", &request.participant)?;
        let currency: Option<Currency> = wire::parse_optional("currency", &request.currency)?;
        let db = self.desk.door.db();
        let after = page.after.map(|Pair(participant, currency)| (participant, currency));
        let (version, rows) =
            store::exposures(db, participant, currency, after, page.size).await.map_err(Failure::from)?;
        let keys: Vec<_> = rows.iter().map(|row| (row.participant, row.currency)).collect();
        let mut largest = store::largest_of(db, &keys).await.map_err(Failure::from)?;
        let last = keys.last().map(|(participant, currency)| Pair(*participant, *currency));
        let next_page_token = wire::next_token(rows.len(), page.size, last);
        let exposures = rows
            .into_iter()
            .map(|row| {
                let largest = largest.remove(&(row.participant, row.currency)).unwrap_or_default();
                encode::exposure(&row, largest)
            })
            .collect();
        Ok(Response::new(pb::GetExposuresResponse { exposures, next_page_token, version }))
    }

    async fn get_liquidity(
        &self,
        request: Request<pb::GetLiquidityRequest>,
    ) -> Result<Response<pb::GetLiquidityResponse>, Status> {
        let request = request.into_inner();
        let page = wire::page::<Pair>(request.page.as_ref())?;
        let participant: Option<ParticipantId> = wire::parse_optional("participant", &request.participant)?;
        let currency: Option<Currency> = wire::parse_optional("currency", &request.currency)?;
        let day = match decode::day(&request.day)? {
            Some(day) => day,
            None => self.desk.settings.day_of(self.desk.clock.now()),
        };
        let after = page.after.map(|Pair(participant, currency)| (participant, currency));
        let rows = store::list_days(self.desk.door.db(), &day, participant, currency, after, page.size)
            .await
            .map_err(Failure::from)?;
        let last = rows.last().map(|row| Pair(row.participant, row.currency));
        let next_page_token = wire::next_token(rows.len(), page.size, last);
        let rows = rows.iter().map(encode::liquidity).collect();
        Ok(Response::new(pb::GetLiquidityResponse { rows, next_page_token, day }))
    }
}
