//! The allow-list: add, revoke, list.

use deltran_api::compliance::v1 as pb;
use deltran_kernel::{AllowanceId, Timestamp};
use deltran_runtime::{Caller, Failure, Role, wire};

use super::{MAX_REASON, by, optional_word, word};
use crate::domain::allowance::{Allowance, AllowanceState};
use crate::domain::list::Source;
use crate::handle::Desk;
use crate::store;

/// The longest name, in characters.
const MAX_NAME: usize = 350;
/// The longest id of an entry, in characters: the operator's entries are known by their names.
const MAX_ENTRY: usize = 400;

fn allowance(allowance: Allowance, now: Timestamp) -> pb::Allowance {
    let state = allowance.state(now).as_str().to_owned();
    let (revoked_by, revoked_at, revoke_reason) = match allowance.revoked {
        None => (String::new(), None, String::new()),
        Some(revoked) => (revoked.by, Some(wire::to_timestamp(revoked.at)), revoked.reason),
    };
    pb::Allowance {
        allowance_id: allowance.allowance_id.to_string(),
        name: allowance.name,
        normalised_name: allowance.normal,
        source: allowance.source.as_str().to_owned(),
        entry_id: allowance.entry_id,
        state,
        reason: allowance.reason,
        added_by: allowance.added_by,
        added_at: Some(wire::to_timestamp(allowance.added_at)),
        expires_at: Some(wire::to_timestamp(allowance.expires_at)),
        revoked_by,
        revoked_at,
        revoke_reason,
    }
}

/// Lets a name pass an entry until a day.
pub async fn add_allowance(
    desk: &Desk,
    caller: Caller,
    request: pb::AddAllowanceRequest,
) -> Result<pb::AddAllowanceResponse, Failure> {
    let by = by(caller);
    let expires_at = wire::timestamp("expires_at", request.expires_at.as_ref())?;
    let now = desk.clock.now();
    let wanted = Allowance {
        allowance_id: wire::parse("allowance_id", &request.allowance_id)?,
        name: wire::required_text("name", &request.name, MAX_NAME)?,
        normal: String::new(),
        source: word("source", &request.source, &Source::ALL, Source::as_str)?,
        entry_id: wire::required_text("entry_id", &request.entry_id, MAX_ENTRY)?,
        reason: wire::required_text("reason", &request.reason, MAX_REASON)?,
        added_by: by.user,
        added_at: now,
        expires_at: expires_at.ok_or_else(|| Failure::malformed("expires_at", "is missing"))?,
        revoked: None,
    };
    let added = desk.add_allowance(wanted).await?;
    Ok(pb::AddAllowanceResponse { allowance: Some(allowance(added, now)) })
}

/// Takes an allowance back.
pub async fn revoke_allowance(
    desk: &Desk,
    caller: Caller,
    request: pb::RevokeAllowanceRequest,
) -> Result<pb::RevokeAllowanceResponse, Failure> {
    let id = wire::parse("allowance_id", &request.allowance_id)?;
    let reason = wire::required_text("reason", &request.reason, MAX_REASON)?;
    let revoked = desk.revoke_allowance(id, &reason, &by(caller)).await?;
    Ok(pb::RevokeAllowanceResponse { allowance: Some(allowance(revoked, desk.clock.now())) })
}

/// A page of allowances. Names are for compliance officers only.
pub async fn list_allowances(
    desk: &Desk,
    caller: &Caller,
    request: pb::ListAllowancesRequest,
) -> Result<pb::ListAllowancesResponse, Failure> {
    let page = wire::page::<AllowanceId>(request.page.as_ref())?;
    let state = optional_word("state", &request.state, &AllowanceState::ALL, AllowanceState::as_str)?;
    let now = desk.clock.now();
    let mut found = store::list_allowances(desk.door.db(), &page, state, now).await?;
    let next_page_token = wire::next_token(found.len(), page.size, found.last().map(|a| a.allowance_id));
    if caller.role != Role::Compliance {
        for allowance in &mut found {
            allowance.name.clear();
            allowance.normal.clear();
            // The operator's entries are known by their names.
            if allowance.source == Source::Operator {
                allowance.entry_id.clear();
            }
        }
    }
    let allowances = found.into_iter().map(|found| allowance(found, now)).collect();
    Ok(pb::ListAllowancesResponse { allowances, next_page_token })
}
