//! Cases: what officers do to them, and what there is to see.

use deltran_api::compliance::v1 as pb;
use deltran_events::data::compliance::CaseOutcome;
use deltran_kernel::{CaseId, Timestamp};
use deltran_runtime::{Caller, Failure, wire};
use prost_types::Timestamp as WireTimestamp;

use super::{MAX_REASON, by, optional_word, rules, word};
use crate::domain::case::{Action, Case, CaseState, Step, Subject};
use crate::handle::Desk;
use crate::store::{self, CaseFilter};

/// The longest note, in characters.
const MAX_NOTE: usize = 2_000;
/// The longest name of a user, in characters.
const MAX_USER: usize = 64;
/// The most alerts that come with a case.
const MOST_ALERTS: i64 = 100;

fn case(case: Case) -> pb::Case {
    pb::Case {
        case_id: case.case_id.to_string(),
        participant: case.subject.participant().map(|id| id.to_string()).unwrap_or_default(),
        transaction_id: case.subject.transaction().map(|id| id.to_string()).unwrap_or_default(),
        state: case.state.as_str().to_owned(),
        outcome: case.outcome.map(|outcome| outcome.as_str().to_owned()).unwrap_or_default(),
        assignee: case.assignee.unwrap_or_default(),
        due_at: case.due_at.map(wire::to_timestamp),
        escalated_to: case.escalated_to.unwrap_or_default(),
        cause: case.cause.as_str().to_owned(),
        opened_at: Some(wire::to_timestamp(case.opened_at)),
        opened_by: case.opened_by,
        closed_at: case.closed_at.map(wire::to_timestamp),
    }
}

fn answer(changed: Case) -> pb::CaseResponse {
    pb::CaseResponse { case: Some(case(changed)) }
}

fn step(step: Step) -> pb::CaseStep {
    let action = step.action.as_str().to_owned();
    let due = |due_at: Option<Timestamp>| due_at.map(wire::to_timestamp);
    let parts = match step.action {
        Action::Open { reason, due_at } | Action::Reopen { reason, due_at } => {
            pb::CaseStep { text: reason, due_at: due(due_at), ..pb::CaseStep::default() }
        }
        Action::Assign { assignee, due_at } => {
            pb::CaseStep { to_user: assignee, due_at: due(due_at), ..pb::CaseStep::default() }
        }
        Action::Note { text } => pb::CaseStep { text, ..pb::CaseStep::default() },
        Action::Escalate { to, reason } => pb::CaseStep { text: reason, to_user: to, ..pb::CaseStep::default() },
        Action::Close { outcome, reason } => {
            pb::CaseStep { text: reason, outcome: outcome.as_str().to_owned(), ..pb::CaseStep::default() }
        }
        Action::Hold(id) => pb::CaseStep { reference: id.to_string(), ..pb::CaseStep::default() },
        Action::Alert(id) => pb::CaseStep { reference: id.to_string(), ..pb::CaseStep::default() },
    };
    pb::CaseStep {
        step: step.number,
        action,
        state: step.state.as_str().to_owned(),
        by_user: step.by,
        at: Some(wire::to_timestamp(step.at)),
        command_id: step.command_id.map(|id| id.to_string()).unwrap_or_default(),
        ..parts
    }
}

/// The subject that a request names: none where both fields are empty.
fn subject(participant: &str, transaction_id: &str) -> Result<Option<Subject>, Failure> {
    match (participant, transaction_id) {
        ("", "") => Ok(None),
        (participant, "") => Ok(Some(Subject::Participant(wire::parse("participant", participant)?))),
        ("", id) => Ok(Some(Subject::Transaction(wire::parse("transaction_id", id)?))),
        _ => Err(Failure::malformed("participant", "is given beside transaction_id: a case is about one of the two")),
    }
}

fn due(value: Option<&WireTimestamp>) -> Result<Option<Timestamp>, Failure> {
    wire::timestamp("due_at", value)
}

/// Opens a case.
pub async fn open_case(desk: &Desk, caller: Caller, request: pb::OpenCaseRequest) -> Result<pb::CaseResponse, Failure> {
    let command_id = wire::parse("command_id", &request.command_id)?;
    let subject = subject(&request.participant, &request.transaction_id)?
        .ok_or_else(|| Failure::malformed("participant", "is missing: name it, or a transaction_id"))?;
    let reason = wire::required_text("reason", &request.reason, MAX_REASON)?;
    let action = Action::Open { reason, due_at: due(request.due_at.as_ref())? };
    Ok(answer(desk.open_case(command_id, subject, action, &by(caller)).await?))
}

async fn change(
    desk: &Desk,
    caller: Caller,
    (command_id, case_id): (String, String),
    action: Action,
) -> Result<pb::CaseResponse, Failure> {
    let command_id = wire::parse("command_id", &command_id)?;
    let case_id = wire::parse("case_id", &case_id)?;
    Ok(answer(desk.change_case(command_id, case_id, action, &by(caller)).await?))
}

/// Gives a case to an officer.
pub async fn assign_case(
    desk: &Desk,
    caller: Caller,
    request: pb::AssignCaseRequest,
) -> Result<pb::CaseResponse, Failure> {
    let assignee = wire::required_text("assignee", &request.assignee, MAX_USER)?;
    let action = Action::Assign { assignee, due_at: due(request.due_at.as_ref())? };
    change(desk, caller, (request.command_id, request.case_id), action).await
}

/// Writes something down.
pub async fn note_case(desk: &Desk, caller: Caller, request: pb::NoteCaseRequest) -> Result<pb::CaseResponse, Failure> {
    let action = Action::Note { text: wire::required_text("text", &request.text, MAX_NOTE)? };
    change(desk, caller, (request.command_id, request.case_id), action).await
}

/// Brings a case to somebody with more to say.
pub async fn escalate_case(
    desk: &Desk,
    caller: Caller,
    request: pb::EscalateCaseRequest,
) -> Result<pb::CaseResponse, Failure> {
    let to = wire::required_text("to_user", &request.to_user, MAX_USER)?;
    let action = Action::Escalate { to, reason: wire::required_text("reason", &request.reason, MAX_REASON)? };
    change(desk, caller, (request.command_id, request.case_id), action).await
}

/// Ends a case.
pub async fn close_case(
    desk: &Desk,
    caller: Caller,
    request: pb::CloseCaseRequest,
) -> Result<pb::CaseResponse, Failure> {
    let outcome = word("outcome", &request.outcome, CaseOutcome::ALL, CaseOutcome::as_str)?;
    let action = Action::Close { outcome, reason: wire::required_text("reason", &request.reason, MAX_REASON)? };
    change(desk, caller, (request.command_id, request.case_id), action).await
}

/// Goes on with a case that had ended.
pub async fn reopen_case(
    desk: &Desk,
    caller: Caller,
    request: pb::ReopenCaseRequest,
) -> Result<pb::CaseResponse, Failure> {
    let reason = wire::required_text("reason", &request.reason, MAX_REASON)?;
    let action = Action::Reopen { reason, due_at: due(request.due_at.as_ref())? };
    change(desk, caller, (request.command_id, request.case_id), action).await
}

/// One case, a page of its steps, and its latest alerts.
pub async fn get_case(desk: &Desk, request: pb::GetCaseRequest) -> Result<pb::GetCaseResponse, Failure> {
    let id: CaseId = wire::parse("case_id", &request.case_id)?;
    let page = wire::page::<u64>(request.page.as_ref())?;
    let db = desk.door.db();
    let found = store::find_case(db.pool(), id).await?.ok_or_else(|| Failure::not_found("case", id))?;
    let steps = store::list_steps(db, id, &page).await?;
    let alerts = store::latest_alerts(db, id, MOST_ALERTS).await?;
    Ok(pb::GetCaseResponse {
        next_page_token: wire::next_token(steps.len(), page.size, steps.last().map(|step| step.number)),
        case: Some(case(found)),
        steps: steps.into_iter().map(step).collect(),
        alerts: alerts.into_iter().map(rules::alert).collect(),
    })
}

/// A page of cases.
pub async fn list_cases(desk: &Desk, request: pb::ListCasesRequest) -> Result<pb::ListCasesResponse, Failure> {
    let page = wire::page::<CaseId>(request.page.as_ref())?;
    let state = optional_word("state", &request.state, &CaseState::ALL, CaseState::as_str)?;
    let assignee = wire::text("assignee", &request.assignee, MAX_USER)?;
    let filter = CaseFilter {
        state,
        assignee: (!assignee.is_empty()).then_some(assignee),
        subject: subject(&request.participant, &request.transaction_id)?,
    };
    let cases = store::list_cases(desk.door.db(), &page, &filter).await?;
    let next_page_token = wire::next_token(cases.len(), page.size, cases.last().map(|case| case.case_id));
    Ok(pb::ListCasesResponse { cases: cases.into_iter().map(case).collect(), next_page_token })
}
