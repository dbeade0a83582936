//! The gRPC service: decodes, hands over to the desk, encodes.

use std::sync::Arc;

use deltran_api::compliance::v1 as pb;
use deltran_api::compliance::v1::compliance_service_server::{ComplianceService, ComplianceServiceServer};
use deltran_api::token::v1::Party;
use deltran_kernel::HoldId;
use deltran_runtime::{Caller, Failure, Role, wire};
use tonic::{Request, Response, Status};

use crate::domain::Outcome;
use crate::domain::hold::{Hold, HoldState};
use crate::domain::list::{MAX_BYTES, OPERATOR};
use crate::domain::screening::{Decision, RULE_VERSION, Screened};
use crate::handle::{Answers, By, Desk, Subject};
use crate::store::{self, ListHead};

/// The most subjects of one batch.
const MAX_BATCH: usize = 10_000;
/// The longest reason, in characters.
const MAX_REASON: usize = 300;
/// The largest request: a list and a little around it.
const MAX_MESSAGE: usize = MAX_BYTES + 64 * 1024;

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

fn name_of(party: Option<Party>) -> String {
    party.map(|party| party.name).unwrap_or_default()
}

fn subject(subject: pb::ScreenSubject) -> Result<Subject, Failure> {
    Ok(Subject {
        transaction_id: wire::parse("transaction_id", &subject.transaction_id)?,
        payer: wire::parse_optional("payer", &subject.payer)?,
        parties: [name_of(subject.originator), name_of(subject.beneficiary)],
    })
}

fn result(transaction_id: String, screened: &Screened, list_version: Option<&String>) -> pb::ScreenResult {
    pb::ScreenResult {
        transaction_id,
        decision: match screened.decision {
            Decision::Approve => pb::Decision::Approve,
            Decision::Review => pb::Decision::Review,
            Decision::BlockAndReview => pb::Decision::BlockAndReview,
            Decision::Decline => pb::Decision::Decline,
        }
        .into(),
        evidence: screened.evidence.as_str().to_owned(),
        list_versions: list_version.cloned().into_iter().collect(),
        rule_version: RULE_VERSION.to_owned(),
        score: screened.score,
    }
}

fn results(subjects: &[Subject], answers: &Answers) -> Vec<pb::ScreenResult> {
    subjects
        .iter()
        .zip(&answers.screened)
        .map(|(subject, screened)| result(subject.transaction_id.to_string(), screened, answers.list_version.as_ref()))
        .collect()
}

fn list(head: ListHead) -> Option<pb::ListVersion> {
    let ListHead { source, list, .. } = head;
    list.map(|list| pb::ListVersion {
        source,
        version: list.version,
        names: list.names,
        loaded_at: Some(wire::to_timestamp(list.at)),
        loaded_by: list.by,
    })
}

fn hold(hold: Hold) -> pb::Hold {
    pb::Hold {
        hold_id: hold.hold_id.to_string(),
        transaction_id: hold.transaction_id.to_string(),
        state: hold.state.as_str().to_owned(),
        evidence: hold.evidence,
        matched_name: hold.matched_name,
        proposed_by: hold.proposed_by.unwrap_or_default(),
        decided_by: hold.decided_by.unwrap_or_default(),
        placed_at: Some(wire::to_timestamp(hold.placed_at)),
        reason: hold.reason,
    }
}

fn state(word: &str) -> Result<Option<HoldState>, Failure> {
    if word.is_empty() {
        return Ok(None);
    }
    let words = HoldState::ALL.map(HoldState::as_str).join(", ");
    let unknown = || Failure::malformed("state", format!("{word:?} is no state: expected one of {words}"));
    HoldState::from_word(word).map(Some).ok_or_else(unknown)
}

#[tonic::async_trait]
impl ComplianceService for Service {
    async fn screen_batch(
        &self,
        request: Request<pb::ScreenBatchRequest>,
    ) -> Result<Response<pb::ScreenBatchResponse>, Status> {
        let caller = Caller::of(&request)?;
        let subjects = request.into_inner().subjects;
        if subjects.len() > MAX_BATCH {
            let message = format!("has {} entries: at most {MAX_BATCH} are allowed", subjects.len());
            return Err(Failure::malformed("subjects", message).into());
        }
        let subjects = subjects.into_iter().map(subject).collect::<Result<Vec<_>, _>>()?;
        let answers = self.desk.screen(&subjects, &by(caller)).await?;
        Ok(Response::new(pb::ScreenBatchResponse { results: results(&subjects, &answers) }))
    }

    async fn screen(&self, request: Request<pb::ScreenRequest>) -> Result<Response<pb::ScreenResponse>, Status> {
        let caller = Caller::of(&request)?;
        let asked = request.into_inner().subject.ok_or_else(|| Failure::malformed("subject", "is missing"))?;
        // An officer who tries a name holds nothing by that.
        if caller.role != Role::Engine {
            let id = asked.transaction_id;
            let answers = self.desk.look_up(&[name_of(asked.originator), name_of(asked.beneficiary)])?;
            let result = answers.screened.first().map(|found| result(id, found, answers.list_version.as_ref()));
            return Ok(Response::new(pb::ScreenResponse { result }));
        }
        let subjects = [subject(asked)?];
        let answers = self.desk.screen(&subjects, &by(caller)).await?;
        Ok(Response::new(pb::ScreenResponse { result: results(&subjects, &answers).pop() }))
    }

    async fn load_list(&self, request: Request<pb::LoadListRequest>) -> Result<Response<pb::LoadListResponse>, Status> {
        let caller = Caller::of(&request)?;
        let pb::LoadListRequest { source, content } = request.into_inner();
        if source != OPERATOR {
            let source: String = source.chars().take(64).collect();
            let message = format!("{source:?} is not understood: this release takes lists of source {OPERATOR:?} only");
            return Err(Failure::malformed("source", message).into());
        }
        let (head, unchanged) = match self.desk.load_list(content, &by(caller)).await? {
            Outcome::Executed(head) => (head, false),
            Outcome::AlreadyApplied(head) => (head, true),
        };
        Ok(Response::new(pb::LoadListResponse { list: list(head), unchanged }))
    }

    async fn list_lists(&self, _: Request<pb::ListListsRequest>) -> Result<Response<pb::ListListsResponse>, Status> {
        let head = store::list_head(self.desk.door.db(), OPERATOR).await.map_err(Failure::from)?;
        Ok(Response::new(pb::ListListsResponse { lists: list(head).into_iter().collect() }))
    }

    async fn list_holds(
        &self,
        request: Request<pb::ListHoldsRequest>,
    ) -> Result<Response<pb::ListHoldsResponse>, Status> {
        let request = request.into_inner();
        let page = wire::page::<HoldId>(request.page.as_ref())?;
        let state = state(&request.state)?;
        let holds = store::list_holds(self.desk.door.db(), &page, state).await.map_err(Failure::from)?;
        let next_page_token = wire::next_token(holds.len(), page.size, holds.last().map(|hold| hold.hold_id));
        Ok(Response::new(pb::ListHoldsResponse { holds: holds.into_iter().map(hold).collect(), next_page_token }))
    }

    async fn propose_hold(
        &self,
        request: Request<pb::ProposeHoldRequest>,
    ) -> Result<Response<pb::ProposeHoldResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let id = wire::parse("hold_id", &request.hold_id)?;
        let reason = wire::required_text("reason", &request.reason, MAX_REASON)?;
        let proposed = self.desk.propose(id, request.release, &reason, &by(caller)).await?;
        Ok(Response::new(pb::ProposeHoldResponse { hold: Some(hold(proposed)) }))
    }

    async fn decide_hold(
        &self,
        request: Request<pb::DecideHoldRequest>,
    ) -> Result<Response<pb::DecideHoldResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let id = wire::parse("hold_id", &request.hold_id)?;
        let reason = wire::text("reason", &request.reason, MAX_REASON)?;
        let decided = self.desk.decide(id, request.approve, &reason, &by(caller)).await?;
        Ok(Response::new(pb::DecideHoldResponse { hold: Some(hold(decided)) }))
    }
}
