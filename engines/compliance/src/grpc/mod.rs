//! The gRPC service: decodes, hands over to the desk, encodes. A room per noun; here only who calls what.

mod allowances;
mod cases;
mod holds;
mod lists;
mod rules;
mod screening;

use std::sync::Arc;

use deltran_api::compliance::v1 as pb;
use deltran_api::compliance::v1::compliance_service_server::{ComplianceService, ComplianceServiceServer};
use deltran_runtime::{Caller, Failure};
use tonic::{Request, Response, Status, Streaming};

use crate::handle::{By, Desk};

/// The longest reason, in characters.
const MAX_REASON: usize = 300;
/// The largest message: a batch of 10,000 subjects. Lists come in pieces.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// The service.
pub struct Service {
    desk: Arc<Desk>,
}

impl Service {
    /// The service in front of a desk.
    pub fn server(desk: Arc<Desk>) -> ComplianceServiceServer<Self> {
        ComplianceServiceServer::new(Self { desk })
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }
}

fn by(caller: Caller) -> By {
    By { user: caller.user, trace: caller.trace }
}

/// The value of a word, or what would be one.
fn word<T: Copy>(field: &str, word: &str, all: &[T], name: fn(T) -> &'static str) -> Result<T, Failure> {
    let known = || all.iter().copied().map(name).collect::<Vec<_>>().join(", ");
    let unknown = || Failure::malformed(field, format!("{} is none: expected one of {}", shown(word), known()));
    all.iter().copied().find(|value| name(*value) == word).ok_or_else(unknown)
}

/// The value of a word that may be left out.
fn optional_word<T: Copy>(
    field: &str,
    text: &str,
    all: &[T],
    name: fn(T) -> &'static str,
) -> Result<Option<T>, Failure> {
    if text.is_empty() { Ok(None) } else { word(field, text, all, name).map(Some) }
}

/// What was sent, for an error that says so: quoted, and not without end.
fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(64).collect::<String>())
}

#[tonic::async_trait]
impl ComplianceService for Service {
    async fn screen_batch(
        &self,
        request: Request<pb::ScreenBatchRequest>,
    ) -> Result<Response<pb::ScreenBatchResponse>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(screening::screen_batch(&self.desk, caller, request.into_inner()).await?))
    }

    async fn screen(&self, request: Request<pb::ScreenRequest>) -> Result<Response<pb::ScreenResponse>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(screening::screen(&self.desk, caller, request.into_inner()).await?))
    }

    async fn search(&self, request: Request<pb::SearchRequest>) -> Result<Response<pb::SearchResponse>, Status> {
        Ok(Response::new(screening::search(&self.desk, request.into_inner()).await?))
    }

    async fn load_list(
        &self,
        request: Request<Streaming<pb::LoadListRequest>>,
    ) -> Result<Response<pb::LoadListResponse>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(lists::load_list(&self.desk, caller, request.into_inner()).await?))
    }

    async fn add_allowance(
        &self,
        request: Request<pb::AddAllowanceRequest>,
    ) -> Result<Response<pb::AddAllowanceResponse>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(allowances::add_allowance(&self.desk, caller, request.into_inner()).await?))
    }

    async fn revoke_allowance(
        &self,
        request: Request<pb::RevokeAllowanceRequest>,
    ) -> Result<Response<pb::RevokeAllowanceResponse>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(allowances::revoke_allowance(&self.desk, caller, request.into_inner()).await?))
    }

    async fn list_allowances(
        &self,
        request: Request<pb::ListAllowancesRequest>,
    ) -> Result<Response<pb::ListAllowancesResponse>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(allowances::list_allowances(&self.desk, &caller, request.into_inner()).await?))
    }

    async fn get_hold(&self, request: Request<pb::GetHoldRequest>) -> Result<Response<pb::GetHoldResponse>, Status> {
        Ok(Response::new(holds::get_hold(&self.desk, request.into_inner()).await?))
    }

    async fn list_lists(
        &self,
        request: Request<pb::ListListsRequest>,
    ) -> Result<Response<pb::ListListsResponse>, Status> {
        Ok(Response::new(lists::list_lists(&self.desk, request.into_inner()).await?))
    }

    async fn list_holds(
        &self,
        request: Request<pb::ListHoldsRequest>,
    ) -> Result<Response<pb::ListHoldsResponse>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(holds::list_holds(&self.desk, &caller, request.into_inner()).await?))
    }

    async fn propose_hold(
        &self,
        request: Request<pb::ProposeHoldRequest>,
    ) -> Result<Response<pb::ProposeHoldResponse>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(holds::propose_hold(&self.desk, caller, request.into_inner()).await?))
    }

    async fn decide_hold(
        &self,
        request: Request<pb::DecideHoldRequest>,
    ) -> Result<Response<pb::DecideHoldResponse>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(holds::decide_hold(&self.desk, caller, request.into_inner()).await?))
    }

    async fn open_case(&self, request: Request<pb::OpenCaseRequest>) -> Result<Response<pb::CaseResponse>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(cases::open_case(&self.desk, caller, request.into_inner()).await?))
    }

    async fn assign_case(&self, request: Request<pb::AssignCaseRequest>) -> Result<Response<pb::CaseResponse>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(cases::assign_case(&self.desk, caller, request.into_inner()).await?))
    }

    async fn note_case(&self, request: Request<pb::NoteCaseRequest>) -> Result<Response<pb::CaseResponse>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(cases::note_case(&self.desk, caller, request.into_inner()).await?))
    }

    async fn escalate_case(
        &self,
        request: Request<pb::EscalateCaseRequest>,
    ) -> Result<Response<pb::CaseResponse>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(cases::escalate_case(&self.desk, caller, request.into_inner()).await?))
    }

    async fn close_case(&self, request: Request<pb::CloseCaseRequest>) -> Result<Response<pb::CaseResponse>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(cases::close_case(&self.desk, caller, request.into_inner()).await?))
    }

    async fn reopen_case(&self, request: Request<pb::ReopenCaseRequest>) -> Result<Response<pb::CaseResponse>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(cases::reopen_case(&self.desk, caller, request.into_inner()).await?))
    }

    async fn get_case(&self, request: Request<pb::GetCaseRequest>) -> Result<Response<pb::GetCaseResponse>, Status> {
        Ok(Response::new(cases::get_case(&self.desk, request.into_inner()).await?))
    }

    async fn list_cases(
        &self,
        request: Request<pb::ListCasesRequest>,
    ) -> Result<Response<pb::ListCasesResponse>, Status> {
        Ok(Response::new(cases::list_cases(&self.desk, request.into_inner()).await?))
    }

    async fn list_alerts(
        &self,
        request: Request<pb::ListAlertsRequest>,
    ) -> Result<Response<pb::ListAlertsResponse>, Status> {
        Ok(Response::new(rules::list_alerts(&self.desk, request.into_inner()).await?))
    }

    async fn set_rule(&self, request: Request<pb::SetRuleRequest>) -> Result<Response<pb::SetRuleResponse>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(rules::set_rule(&self.desk, caller, request.into_inner()).await?))
    }

    async fn list_rules(
        &self,
        request: Request<pb::ListRulesRequest>,
    ) -> Result<Response<pb::ListRulesResponse>, Status> {
        Ok(Response::new(rules::list_rules(&self.desk, request.into_inner()).await?))
    }
}
