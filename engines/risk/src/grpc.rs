//! The gRPC service: decodes, hands over to the desk, encodes.

use std::sync::Arc;

use deltran_api::common::v1::Refusal;
use deltran_api::risk::v1 as pb;
use deltran_api::risk::v1::risk_service_server::{RiskService, RiskServiceServer};
use deltran_events::data::risk::LimitKind;
use deltran_kernel::{CommandId, ParticipantId};
use deltran_runtime::{Caller, Failure, wire};
use tonic::{Request, Response, Status};

use crate::domain::assess::{Rules, Stop, Subject, assess};
use crate::domain::breaker::{Breaker, BreakerState, SetBreaker};
use crate::domain::limit::{Limit, LimitState, Proposal};
use crate::handle::{By, Desk};
use crate::store;

/// The most subjects of one batch.
const MAX_BATCH: usize = 10_000;
/// The longest reason, in characters.
const MAX_REASON: usize = 300;
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
}

fn by(caller: Caller) -> By {
    By { user: caller.user, trace: caller.trace }
}

fn verdict(rules: &Rules, subject: pb::AssessSubject) -> Result<pb::Verdict, Failure> {
    let asked = Subject {
        payer: wire::parse("payer", &subject.payer)?,
        payee: wire::parse("payee", &subject.payee)?,
        amount: wire::money("amount", subject.amount.as_ref())?,
    };
    let refusal = assess(rules, &asked).map(|stop| refusal(&asked, stop));
    Ok(pb::Verdict { transaction_id: subject.transaction_id, refusal, version: rules.version })
}

fn refusal(subject: &Subject, stop: Stop) -> Refusal {
    let (code, message, details) = match stop {
        Stop::BreakerOpen { scope, reason } => (
            "breaker_open",
            format!("the breaker of {scope} is open: {reason}"),
            vec![("scope", scope.to_string()), ("reason", reason)],
        ),
        Stop::SingleTransactionMaximum { maximum } => (
            "limit",
            format!("{} is more than a single transaction may be: the maximum is {maximum}", subject.amount),
            vec![
                ("limit", "single_transaction_maximum".to_owned()),
                ("maximum", maximum.amount()),
                ("headroom", maximum.amount()),
            ],
        ),
    };
    let details = details.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    Refusal { code: code.to_owned(), message, details }
}

fn proposal(request: pb::ProposeLimitRequest) -> Result<Proposal, Failure> {
    let kind = match request.kind() {
        pb::LimitKind::NetDebitCap => LimitKind::NetDebitCap,
        pb::LimitKind::SingleTransactionMaximum => LimitKind::SingleTransactionMaximum,
        pb::LimitKind::Unspecified => {
            let message =
                format!("{} is not understood: expected NET_DEBIT_CAP or SINGLE_TRANSACTION_MAXIMUM", request.kind);
            return Err(Failure::malformed("kind", message));
        }
    };
    Ok(Proposal {
        limit_id: wire::parse("limit_id", &request.limit_id)?,
        kind,
        participant: wire::parse_optional("participant", &request.participant)?,
        amount: wire::money("amount", request.amount.as_ref())?,
        reason: wire::text("reason", &request.reason, MAX_REASON)?,
    })
}

fn limit(limit: Limit) -> pb::Limit {
    let Proposal { limit_id, kind, participant, amount, reason } = limit.proposal;
    pb::Limit {
        limit_id: limit_id.to_string(),
        kind: match kind {
            LimitKind::NetDebitCap => pb::LimitKind::NetDebitCap,
            LimitKind::SingleTransactionMaximum => pb::LimitKind::SingleTransactionMaximum,
        }
        .into(),
        participant: participant.map(|p| p.to_string()).unwrap_or_default(),
        amount: Some(wire::to_money(amount)),
        state: limit.state.as_str().to_owned(),
        proposed_by: limit.proposed_by,
        approved_by: limit.approved_by.unwrap_or_default(),
        proposed_at: Some(wire::to_timestamp(limit.proposed_at)),
        effective_at: limit.effective_at.map(wire::to_timestamp),
        reason,
    }
}

fn state(word: &str) -> Result<Option<LimitState>, Failure> {
    if word.is_empty() {
        return Ok(None);
    }
    let words = LimitState::ALL.map(LimitState::as_str).join(", ");
    let unknown = || Failure::malformed("state", format!("{word:?} is no state: expected one of {words}"));
    LimitState::from_word(word).map(Some).ok_or_else(unknown)
}

fn set_breaker(command_id: &str, scope: &str, reason: &str, to: BreakerState) -> Result<SetBreaker, Failure> {
    Ok(SetBreaker {
        command_id: wire::parse("command_id", command_id)?,
        scope: wire::parse("scope", scope)?,
        to,
        reason: wire::required_text("reason", reason, MAX_REASON)?,
    })
}

fn breaker(breaker: Breaker) -> pb::Breaker {
    pb::Breaker {
        scope: breaker.scope.to_string(),
        state: breaker.state.as_str().to_owned(),
        reason: breaker.reason,
        changed_by: breaker.changed_by,
        changed_at: Some(wire::to_timestamp(breaker.changed_at)),
    }
}

#[tonic::async_trait]
impl RiskService for Service {
    async fn assess_batch(
        &self,
        request: Request<pb::AssessBatchRequest>,
    ) -> Result<Response<pb::AssessBatchResponse>, Status> {
        let subjects = request.into_inner().subjects;
        if subjects.len() > MAX_BATCH {
            let message = format!("has {} entries: at most {MAX_BATCH} are allowed", subjects.len());
            return Err(Failure::malformed("subjects", message).into());
        }
        let rules = self.desk.gate.current()?;
        let verdicts = subjects.into_iter().map(|s| verdict(&rules, s)).collect::<Result<Vec<_>, _>>()?;
        Ok(Response::new(pb::AssessBatchResponse { verdicts }))
    }

    async fn assess(&self, request: Request<pb::AssessRequest>) -> Result<Response<pb::AssessResponse>, Status> {
        let subject = request.into_inner().subject.ok_or_else(|| Failure::malformed("subject", "is missing"))?;
        let rules = self.desk.gate.current()?;
        Ok(Response::new(pb::AssessResponse { verdict: Some(verdict(&rules, subject)?) }))
    }

    async fn propose_limit(
        &self,
        request: Request<pb::ProposeLimitRequest>,
    ) -> Result<Response<pb::ProposeLimitResponse>, Status> {
        let by = by(Caller::of(&request)?);
        let proposal = proposal(request.into_inner())?;
        let proposed = self.desk.propose(&proposal, &by).await.map_err(Failure::from)?.into_inner();
        Ok(Response::new(pb::ProposeLimitResponse { limit: Some(limit(proposed)) }))
    }

    async fn approve_limit(
        &self,
        request: Request<pb::ApproveLimitRequest>,
    ) -> Result<Response<pb::ApproveLimitResponse>, Status> {
        let by = by(Caller::of(&request)?);
        let id: CommandId = wire::parse("limit_id", &request.into_inner().limit_id)?;
        let approved = self.desk.approve(id, &by).await?;
        Ok(Response::new(pb::ApproveLimitResponse { limit: Some(limit(approved)) }))
    }

    async fn list_limits(
        &self,
        request: Request<pb::ListLimitsRequest>,
    ) -> Result<Response<pb::ListLimitsResponse>, Status> {
        let request = request.into_inner();
        let page = wire::page::<CommandId>(request.page.as_ref())?;
        let participant: Option<ParticipantId> = wire::parse_optional("participant", &request.participant)?;
        let state = state(&request.state)?;
        let limits = store::list_limits(self.desk.door.db(), &page, participant, state).await.map_err(Failure::from)?;
        let next_page_token = wire::next_token(limits.len(), page.size, limits.last().map(|l| l.proposal.limit_id));
        Ok(Response::new(pb::ListLimitsResponse { limits: limits.into_iter().map(limit).collect(), next_page_token }))
    }

    async fn trip_breaker(
        &self,
        request: Request<pb::TripBreakerRequest>,
    ) -> Result<Response<pb::TripBreakerResponse>, Status> {
        let by = by(Caller::of(&request)?);
        let pb::TripBreakerRequest { command_id, scope, reason } = request.into_inner();
        let command = set_breaker(&command_id, &scope, &reason, BreakerState::Open)?;
        let tripped = self.desk.set_breaker(&command, &by).await?;
        Ok(Response::new(pb::TripBreakerResponse { breaker: Some(breaker(tripped)) }))
    }

    async fn close_breaker(
        &self,
        request: Request<pb::CloseBreakerRequest>,
    ) -> Result<Response<pb::CloseBreakerResponse>, Status> {
        let by = by(Caller::of(&request)?);
        let pb::CloseBreakerRequest { command_id, scope, reason } = request.into_inner();
        let command = set_breaker(&command_id, &scope, &reason, BreakerState::Closed)?;
        let closed = self.desk.set_breaker(&command, &by).await?;
        Ok(Response::new(pb::CloseBreakerResponse { breaker: Some(breaker(closed)) }))
    }

    async fn list_breakers(
        &self,
        _: Request<pb::ListBreakersRequest>,
    ) -> Result<Response<pb::ListBreakersResponse>, Status> {
        let breakers = store::breakers(self.desk.door.db()).await.map_err(Failure::from)?;
        Ok(Response::new(pb::ListBreakersResponse { breakers: breakers.into_iter().map(breaker).collect() }))
    }
}
