//! Reading a participant's notifications: a page, or on and on.

use deltran_api::notification::v1 as pb;
use deltran_runtime::{Caller, Failure, wire};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use tonic::Status;

use super::Service;
use crate::domain::Notification;
use crate::feed::{self, Asked, Item};
use crate::store::feed as store;

pub async fn list_notifications(
    service: &Service,
    caller: Caller,
    request: pb::ListNotificationsRequest,
) -> Result<pb::ListNotificationsResponse, Failure> {
    let page = wire::page::<u64>(request.page.as_ref())?;
    let participant = super::whose(&caller, &request.participant)?;
    let kinds = super::kinds(&request.kinds)?;
    let pool = service.subscriptions.db().pool();
    let rows = store::list(pool, participant, &kinds, page.after, page.size).await?;
    let extent = store::extent(pool, participant).await?;
    let next_page_token = wire::next_token(rows.len(), page.size, rows.last().map(|row| row.position));
    Ok(pb::ListNotificationsResponse {
        notifications: rows.into_iter().map(to_notification).collect(),
        next_page_token,
        oldest_position: if extent.last == 0 { 0 } else { extent.oldest },
        last_position: extent.last,
    })
}

pub async fn stream_notifications(
    service: &Service,
    caller: Caller,
    request: pb::StreamNotificationsRequest,
) -> Result<BoxStream<'static, Result<pb::StreamNotificationsResponse, Status>>, Failure> {
    let asked = Asked {
        participant: super::whose(&caller, &request.participant)?,
        after: request.after_position,
        kinds: super::kinds(&request.kinds)?,
    };
    let items = feed::open(&service.pulse, asked).await?;
    let answers = items.map_ok(|item| match item {
        Item::Notification(n) => {
            pb::StreamNotificationsResponse { position: n.position, notification: Some(to_notification(n)) }
        }
        Item::CaughtUp(position) => pb::StreamNotificationsResponse { position, notification: None },
    });
    Ok(answers.map_err(Status::from).take_until(service.closing.clone().cancelled_owned()).boxed())
}

fn to_notification(n: Notification) -> pb::Notification {
    pb::Notification {
        position: n.position,
        notification_id: n.id.to_string(),
        participant: n.participant.to_string(),
        kind: n.kind.to_string(),
        at: Some(wire::to_timestamp(n.at)),
        body: n.body,
    }
}
