//! Webhook endpoints: decodes, hands over to the desk, encodes.

use deltran_api::notification::v1 as pb;
use deltran_api::notification::v1::replay_deliveries_request::What;
use deltran_kernel::{CommandId, EndpointId, EventId, Timestamp};
use deltran_runtime::{Caller, Failure, wire};

use super::Service;
use crate::domain::endpoint::{Change, EndpointState, Wish};
use crate::store::deliveries::{self, Replay, ShownAttempt};
use crate::store::endpoints::{self, Whole};
use crate::webhook::desk::{Edit, Told};

/// The longest reason, in characters.
const MAX_REASON: usize = 300;

pub async fn create_endpoint(
    service: &Service,
    caller: Caller,
    request: pb::CreateEndpointRequest,
) -> Result<pb::CreateEndpointResponse, Failure> {
    let id: EndpointId = wire::parse("endpoint_id", &request.endpoint_id)?;
    let participant = super::whose(&caller, "")?;
    let wish = Wish { url: request.url, kinds: super::kinds(&request.kinds)?, in_order: request.in_order };
    let (whole, told) = service.desk.create(id, participant, wish, &caller.into()).await?;
    Ok(pb::CreateEndpointResponse { endpoint: Some(shown(service, whole)), secret: told.map(secret) })
}

pub async fn update_endpoint(
    service: &Service,
    caller: Caller,
    request: pb::UpdateEndpointRequest,
) -> Result<pb::UpdateEndpointResponse, Failure> {
    let (command, id) = ids(&request.command_id, &request.endpoint_id)?;
    let kinds = request.kinds.map(|kinds| super::kinds(&kinds.kinds)).transpose()?;
    let edit = Edit { url: request.url, kinds, in_order: request.in_order };
    if edit == Edit::default() {
        return Err(Failure::malformed("url", "nothing is to be changed: set url, kinds or in_order"));
    }
    let whole = service.desk.update(command, id, edit, &caller.into()).await?;
    Ok(pb::UpdateEndpointResponse { endpoint: Some(shown(service, whole)) })
}

pub async fn disable_endpoint(
    service: &Service,
    caller: Caller,
    request: pb::DisableEndpointRequest,
) -> Result<pb::DisableEndpointResponse, Failure> {
    let pb::DisableEndpointRequest { command_id, endpoint_id, reason } = request;
    let endpoint = switch(service, caller, &Change::Disable, &command_id, &endpoint_id, &reason).await?;
    Ok(pb::DisableEndpointResponse { endpoint: Some(endpoint) })
}

pub async fn enable_endpoint(
    service: &Service,
    caller: Caller,
    request: pb::EnableEndpointRequest,
) -> Result<pb::EnableEndpointResponse, Failure> {
    let pb::EnableEndpointRequest { command_id, endpoint_id, reason } = request;
    let endpoint = switch(service, caller, &Change::Enable, &command_id, &endpoint_id, &reason).await?;
    Ok(pb::EnableEndpointResponse { endpoint: Some(endpoint) })
}

pub async fn delete_endpoint(
    service: &Service,
    caller: Caller,
    request: pb::DeleteEndpointRequest,
) -> Result<pb::DeleteEndpointResponse, Failure> {
    let pb::DeleteEndpointRequest { command_id, endpoint_id, reason } = request;
    let endpoint = switch(service, caller, &Change::Delete, &command_id, &endpoint_id, &reason).await?;
    Ok(pb::DeleteEndpointResponse { endpoint: Some(endpoint) })
}

async fn switch(
    service: &Service,
    caller: Caller,
    change: &Change,
    command: &str,
    endpoint: &str,
    reason: &str,
) -> Result<pb::Endpoint, Failure> {
    let (command, id) = ids(command, endpoint)?;
    let reason = wire::text("reason", reason, MAX_REASON)?;
    let whole = service.desk.switch(command, id, change, &reason, &caller.into()).await?;
    Ok(shown(service, whole))
}

pub async fn rotate_secret(
    service: &Service,
    caller: Caller,
    request: pb::RotateSecretRequest,
) -> Result<pb::RotateSecretResponse, Failure> {
    let (command, id) = ids(&request.command_id, &request.endpoint_id)?;
    let overlap = request.overlap_seconds.map(|seconds| i64::from(seconds).saturating_mul(1_000_000));
    let (whole, told) = service.desk.rotate(command, id, overlap, &caller.into()).await?;
    Ok(pb::RotateSecretResponse { endpoint: Some(shown(service, whole)), secret: told.map(secret) })
}

pub async fn list_endpoints(
    service: &Service,
    caller: Caller,
    request: pb::ListEndpointsRequest,
) -> Result<pb::ListEndpointsResponse, Failure> {
    let page = wire::page::<EndpointId>(request.page.as_ref())?;
    let participant = caller.scope(wire::parse_optional("participant", &request.participant)?)?;
    let rows = endpoints::list(service.desk.door.db(), &page, participant, state(&request.state)?).await?;
    let next_page_token = wire::next_token(rows.len(), page.size, rows.last().map(|whole| whole.endpoint.endpoint_id));
    let endpoints = rows.into_iter().map(|whole| shown(service, whole)).collect();
    Ok(pb::ListEndpointsResponse { endpoints, next_page_token })
}

pub async fn list_attempts(
    service: &Service,
    caller: Caller,
    request: pb::ListAttemptsRequest,
) -> Result<pb::ListAttemptsResponse, Failure> {
    let page = wire::page::<u64>(request.page.as_ref())?;
    let id: EndpointId = wire::parse("endpoint_id", &request.endpoint_id)?;
    let notification: Option<EventId> = wire::parse_optional("notification_id", &request.notification_id)?;
    let db = service.desk.door.db();
    match deliveries::owner(db, id).await? {
        Some(owner) if caller.may_see(owner) => {}
        _ => return Err(Failure::not_found("endpoint", id)),
    }
    let rows = deliveries::attempts(db, &page, id, notification, request.failed).await?;
    let next_page_token = wire::next_token(rows.len(), page.size, rows.last().map(|row| row.attempt_id));
    let attempts = rows.into_iter().map(|row| attempt(id, row)).collect();
    Ok(pb::ListAttemptsResponse { attempts, next_page_token })
}

pub async fn replay_deliveries(
    service: &Service,
    caller: Caller,
    request: pb::ReplayDeliveriesRequest,
) -> Result<pb::ReplayDeliveriesResponse, Failure> {
    let (command, id) = ids(&request.command_id, &request.endpoint_id)?;
    let nothing =
        || Failure::malformed("what", "is missing: set notification_id, failed_since or failed_from_position");
    let what = match request.what {
        Some(What::NotificationId(text)) => Replay::One(wire::parse("notification_id", &text)?),
        Some(What::FailedSince(at)) => {
            Replay::FailedSince(wire::timestamp("failed_since", Some(&at))?.ok_or_else(nothing)?)
        }
        Some(What::FailedFromPosition(position)) => Replay::FailedFrom(position),
        None => return Err(nothing()),
    };
    let deliveries = service.desk.replay(command, id, what, &caller.into()).await?;
    Ok(pb::ReplayDeliveriesResponse { deliveries })
}

fn ids(command: &str, endpoint: &str) -> Result<(CommandId, EndpointId), Failure> {
    Ok((wire::parse("command_id", command)?, wire::parse("endpoint_id", endpoint)?))
}

fn state(word: &str) -> Result<Option<EndpointState>, Failure> {
    if word.is_empty() {
        return Ok(None);
    }
    let words = EndpointState::ALL.map(EndpointState::as_str).join(", ");
    let unknown = || Failure::malformed("state", format!("{word:?} is no state: expected one of {words}"));
    EndpointState::from_word(word).map(Some).ok_or_else(unknown)
}

fn secret(told: Told) -> pb::EndpointSecret {
    pb::EndpointSecret { secret: told.shared, public_key: told.public_key }
}

fn shown(service: &Service, whole: Whole) -> pb::Endpoint {
    let Whole { endpoint, health, secrets } = whole;
    let now = service.desk.now();
    let signing = secrets.into_iter().filter(|secret| secret.version.signs(now));
    let at = |at: Option<Timestamp>| at.map(wire::to_timestamp);
    pb::Endpoint {
        endpoint_id: endpoint.endpoint_id.to_string(),
        participant: endpoint.participant.to_string(),
        url: endpoint.wish.url,
        kinds: endpoint.wish.kinds.iter().map(ToString::to_string).collect(),
        in_order: endpoint.wish.in_order,
        state: endpoint.state.to_string(),
        cause: endpoint.cause.map(|cause| cause.to_string()).unwrap_or_default(),
        note: endpoint.note,
        public_keys: signing.map(|secret| secret.public_key).collect(),
        failures: health.failures,
        failing_since: at(health.failing_since),
        paused_until: at(health.paused_until.filter(|until| *until > now)),
        created_at: at(Some(endpoint.created_at)),
        changed_by: endpoint.changed_by,
        changed_at: at(Some(endpoint.changed_at)),
    }
}

fn attempt(id: EndpointId, row: ShownAttempt) -> pb::Attempt {
    pb::Attempt {
        endpoint_id: id.to_string(),
        notification_id: row.notification_id.to_string(),
        kind: row.kind.to_string(),
        number: row.number,
        at: Some(wire::to_timestamp(row.at)),
        duration_ms: row.duration_ms,
        status: row.status.map(u32::from).unwrap_or_default(),
        error: row.error,
        response: row.response,
        delivery_state: row.state,
        next_at: row.next_at.map(wire::to_timestamp),
    }
}
