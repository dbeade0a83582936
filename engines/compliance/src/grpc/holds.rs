//! Holds: list, propose, decide.

use deltran_api::compliance::v1 as pb;
use deltran_kernel::HoldId;
use deltran_runtime::{Caller, Failure, Role, wire};

use super::screening::encode_match;
use super::{MAX_REASON, by, optional_word};
use crate::domain::hold::{Hold, HoldState};
use crate::domain::matcher::Match;
use crate::handle::Desk;
use crate::store;

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
        ..pb::Hold::default()
    }
}

/// A page of holds, of one state or of all. Names are for compliance officers only.
pub async fn list_holds(
    desk: &Desk,
    caller: &Caller,
    request: pb::ListHoldsRequest,
) -> Result<pb::ListHoldsResponse, Failure> {
    let page = wire::page::<HoldId>(request.page.as_ref())?;
    let state = optional_word("state", &request.state, &HoldState::ALL, HoldState::as_str)?;
    let mut holds = store::list_holds(desk.door.db(), &page, state).await?;
    if caller.role != Role::Compliance {
        holds.iter_mut().for_each(|hold| hold.matched_name.clear());
    }
    let next_page_token = wire::next_token(holds.len(), page.size, holds.last().map(|hold| hold.hold_id));
    Ok(pb::ListHoldsResponse { holds: holds.into_iter().map(hold).collect(), next_page_token })
}

/// One hold, with the matches that led to it.
pub async fn get_hold(desk: &Desk, request: pb::GetHoldRequest) -> Result<pb::GetHoldResponse, Failure> {
    let id: HoldId = wire::parse("hold_id", &request.hold_id)?;
    let (found, basis) =
        store::find_hold_with_basis(desk.door.db(), id).await?.ok_or_else(|| Failure::not_found("hold", id))?;
    let matches: Vec<Match> = serde_json::from_str(&basis.matches).map_err(Failure::internal)?;
    let thresholds = desk.lists.thresholds;
    let hold = pb::Hold {
        score: basis.score,
        list_versions: basis.list_versions,
        rule_version: basis.rule_version,
        matches: matches.into_iter().map(|found| encode_match(thresholds.decide(&found), None, found)).collect(),
        ..hold(found)
    };
    Ok(pb::GetHoldResponse { hold: Some(hold) })
}

/// What an officer wants to become of a hold.
pub async fn propose_hold(
    desk: &Desk,
    caller: Caller,
    request: pb::ProposeHoldRequest,
) -> Result<pb::ProposeHoldResponse, Failure> {
    let id = wire::parse("hold_id", &request.hold_id)?;
    let reason = wire::required_text("reason", &request.reason, MAX_REASON)?;
    let proposed = desk.propose(id, request.release, &reason, &by(caller)).await?;
    Ok(pb::ProposeHoldResponse { hold: Some(hold(proposed)) })
}

/// What another officer decides.
pub async fn decide_hold(
    desk: &Desk,
    caller: Caller,
    request: pb::DecideHoldRequest,
) -> Result<pb::DecideHoldResponse, Failure> {
    let id = wire::parse("hold_id", &request.hold_id)?;
    let reason = wire::text("reason", &request.reason, MAX_REASON)?;
    let decided = desk.decide(id, request.approve, &reason, &by(caller)).await?;
    Ok(pb::DecideHoldResponse { hold: Some(hold(decided)) })
}
