//! Deliveries and their attempts.

use std::collections::BTreeMap;

use deltran_kernel::{EndpointId, EventId, ParticipantId, Timestamp};
use deltran_runtime::wire::PageOf;
use deltran_runtime::{Db, DbError};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::domain::delivery::{Conclusion, Delivery, DeliveryState};
use crate::domain::notification::{Kind, Notification};

/// An attempt as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownAttempt {
    /// Rises with each attempt.
    pub attempt_id: u64,
    /// The `webhook-id`.
    pub notification_id: EventId,
    /// Of the notification.
    pub kind: Kind,
    /// From 1, within the delivery.
    pub number: u32,
    /// When it began.
    pub at: Timestamp,
    /// How long it took.
    pub duration_ms: u32,
    /// The HTTP status, where there was an answer.
    pub status: Option<u16>,
    /// Empty where it was taken.
    pub error: String,
    /// The beginning of the response, escaped.
    pub response: String,
    /// Where the delivery stands now.
    pub state: String,
    /// When it is tried again, where it is.
    pub next_at: Option<Timestamp>,
}

/// What is to be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// One notification, whether it was taken or not.
    One(EventId),
    /// What was not taken, of notifications since this time.
    FailedSince(Timestamp),
    /// What was not taken, of notifications from this position on.
    FailedFrom(u64),
}

/// Files notifications for every endpoint that wants them, each once, due at once. What an endpoint that is
/// disabled would have got is filed as failed, so that its owner can replay it. That a delivery failed is told
/// in the feed only: over webhooks it would cause itself again.
pub async fn file(tx: &mut PgConnection, notifications: &[Notification]) -> Result<(), DbError> {
    if notifications.is_empty() {
        return Ok(());
    }
    // Locked in the order of ids, against an endpoint that is disabled at this moment.
    let participants: Vec<&str> = notifications.iter().map(|n| n.participant.as_str()).collect();
    let endpoints: Vec<(Uuid,)> = sqlx::query_as(
        "SELECT endpoint_id FROM endpoint WHERE participant = ANY($1) AND state <> 'DELETED'
         ORDER BY endpoint_id FOR SHARE",
    )
    .bind(&participants)
    .fetch_all(&mut *tx)
    .await?;
    if endpoints.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO delivery (endpoint_id, position, notification_id, kind, notified_at, body, state, attempts,
                               attempts_before, due_at, ended_at)
         SELECT e.endpoint_id, n.position, n.id, n.kind, n.at, n.body,
                CASE WHEN e.state = 'ENABLED' THEN 'PENDING' ELSE 'FAILED' END, 0, 0, n.at,
                CASE WHEN e.state = 'ENABLED' THEN NULL ELSE n.at END
         FROM UNNEST($1::uuid[], $2::text[], $3::bigint[], $4::text[], $5::bigint[], $6::text[])
              AS n (id, participant, position, kind, at, body)
         JOIN endpoint e USING (participant)
         WHERE e.endpoint_id = ANY($7) AND (cardinality(e.kinds) = 0 OR n.kind = ANY(e.kinds))
           AND n.kind <> 'delivery.failed' AND (n.kind <> 'endpoint.disabled' OR e.state = 'ENABLED')
         ON CONFLICT DO NOTHING",
    )
    .bind(notifications.iter().map(|n| n.id.uuid()).collect::<Vec<_>>())
    .bind(&participants)
    .bind(notifications.iter().map(|n| n.position as i64).collect::<Vec<_>>())
    .bind(notifications.iter().map(|n| n.kind.as_str()).collect::<Vec<_>>())
    .bind(notifications.iter().map(|n| n.at.micros()).collect::<Vec<_>>())
    .bind(notifications.iter().map(|n| n.body.as_str()).collect::<Vec<_>>())
    .bind(endpoints.into_iter().map(|(id,)| id).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}

macro_rules! load {
    ($order:literal) => {
        concat!(
            "SELECT e.endpoint_id, d.position, d.notification_id, d.kind, d.body, d.attempts, d.attempts_before, d.due_at
             FROM UNNEST($1::uuid[], $2::bigint[]) AS e (endpoint_id, room)
             CROSS JOIN LATERAL (
               SELECT * FROM delivery d WHERE d.endpoint_id = e.endpoint_id AND d.state = 'PENDING'
               ORDER BY ",
            $order,
            " LIMIT e.room) d"
        )
    };
}

/// The deliveries of endpoints that come next, for each at most as many as there is room: those that are due
/// first, or for `in_order` endpoints those of the lowest positions.
pub async fn next(
    db: &Db,
    rooms: &[(EndpointId, usize)],
    in_order: bool,
) -> Result<BTreeMap<EndpointId, Vec<Delivery>>, DbError> {
    let mut found: BTreeMap<EndpointId, Vec<Delivery>> = rooms.iter().map(|(id, _)| (*id, Vec::new())).collect();
    if rooms.is_empty() {
        return Ok(found);
    }
    let statement = if in_order { load!("d.position") } else { load!("d.due_at, d.position") };
    let rows = sqlx::query(statement)
        .bind(rooms.iter().map(|(id, _)| id.uuid()).collect::<Vec<_>>())
        .bind(rooms.iter().map(|(_, room)| *room as i64).collect::<Vec<_>>())
        .fetch_all(db.pool())
        .await?;
    for row in &rows {
        let delivery = delivery(row)?;
        found.entry(delivery.endpoint_id).or_default().push(delivery);
    }
    // A lateral join promises no order.
    for deliveries in found.values_mut() {
        if in_order {
            deliveries.sort_by_key(|d| d.position);
        } else {
            deliveries.sort_by_key(|d| (d.due_at, d.position));
        }
    }
    Ok(found)
}

fn kind(row: &PgRow) -> Result<Kind, DbError> {
    let word: String = row.try_get("kind")?;
    word.parse().map_err(DbError::corrupt)
}

fn delivery(row: &PgRow) -> Result<Delivery, DbError> {
    let number =
        |name: &str| -> Result<u32, DbError> { u32::try_from(row.try_get::<i32, _>(name)?).map_err(DbError::corrupt) };
    Ok(Delivery {
        endpoint_id: EndpointId::new(row.try_get("endpoint_id")?),
        position: u64::try_from(row.try_get::<i64, _>("position")?).map_err(DbError::corrupt)?,
        notification_id: EventId::new(row.try_get("notification_id")?),
        kind: kind(row)?,
        body: row.try_get("body")?,
        attempts: number("attempts")?,
        attempts_before: number("attempts_before")?,
        due_at: Timestamp::from_micros(row.try_get("due_at")?),
    })
}

/// Records what attempts came to, and returns those conclusions that were new, by endpoint and position. One
/// that was recorded before, where the answer to a COMMIT was lost, changes nothing. What was given up
/// meanwhile stays so, unless it was taken. Of one that is no longer kept nothing is recorded.
pub async fn conclude(
    tx: &mut PgConnection,
    conclusions: &[Conclusion],
    at: Timestamp,
) -> Result<Vec<(EndpointId, u64)>, DbError> {
    let endpoints: Vec<Uuid> = conclusions.iter().map(|c| c.delivery.endpoint_id.uuid()).collect();
    let positions: Vec<i64> = conclusions.iter().map(|c| c.delivery.position as i64).collect();
    let numbers: Vec<i32> = conclusions.iter().map(|c| c.number() as i32).collect();
    let new: Vec<(Uuid, i64)> = sqlx::query_as(
        "UPDATE delivery d
         SET attempts = c.number, due_at = COALESCE(c.due_at, d.due_at),
             state = CASE WHEN d.state = 'PENDING' OR c.state = 'DELIVERED' THEN c.state ELSE d.state END,
             ended_at = CASE WHEN d.state = 'PENDING' AND c.state = 'PENDING' THEN NULL
                             WHEN d.state = 'PENDING' OR c.state = 'DELIVERED' THEN $6 ELSE d.ended_at END
         FROM UNNEST($1::uuid[], $2::bigint[], $3::integer[], $4::text[], $5::bigint[])
              AS c (endpoint_id, position, number, state, due_at)
         WHERE d.endpoint_id = c.endpoint_id AND d.position = c.position AND d.attempts = c.number - 1
         RETURNING d.endpoint_id, d.position",
    )
    .bind(&endpoints)
    .bind(&positions)
    .bind(&numbers)
    .bind(conclusions.iter().map(|c| c.state.as_str()).collect::<Vec<_>>())
    .bind(conclusions.iter().map(|c| c.due_at.map(Timestamp::micros)).collect::<Vec<_>>())
    .bind(at.micros())
    .fetch_all(&mut *tx)
    .await?;
    sqlx::query(
        "INSERT INTO attempt (endpoint_id, position, number, at, duration_ms, status, error, response)
         SELECT a.* FROM UNNEST($1::uuid[], $2::bigint[], $3::integer[], $4::bigint[], $5::bigint[], $6::integer[],
                                $7::text[], $8::text[])
              AS a (endpoint_id, position, number, at, duration_ms, status, error, response)
         JOIN delivery d USING (endpoint_id, position)
         ON CONFLICT DO NOTHING",
    )
    .bind(&endpoints)
    .bind(&positions)
    .bind(&numbers)
    .bind(conclusions.iter().map(|c| c.attempt.at.micros()).collect::<Vec<_>>())
    .bind(conclusions.iter().map(|c| i64::from(c.attempt.duration_ms)).collect::<Vec<_>>())
    .bind(conclusions.iter().map(|c| c.attempt.answer.status().map(i32::from)).collect::<Vec<_>>())
    .bind(conclusions.iter().map(|c| c.attempt.answer.error()).collect::<Vec<_>>())
    .bind(conclusions.iter().map(|c| c.attempt.response.as_str()).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    new.into_iter()
        .map(|(id, position)| Ok((EndpointId::new(id), u64::try_from(position).map_err(DbError::corrupt)?)))
        .collect()
}

/// Gives up everything that an endpoint was still to get; how much that was.
pub async fn give_up(tx: &mut PgConnection, id: EndpointId, at: Timestamp) -> Result<u64, DbError> {
    let done =
        sqlx::query("UPDATE delivery SET state = 'FAILED', ended_at = $2 WHERE endpoint_id = $1 AND state = 'PENDING'")
            .bind(id.uuid())
            .bind(at.micros())
            .execute(tx)
            .await?;
    Ok(done.rows_affected())
}

/// Makes deliveries due again, with the whole schedule before them; how many. None where the one that is asked
/// for is not there.
pub async fn replay(
    tx: &mut PgConnection,
    id: EndpointId,
    what: Replay,
    at: Timestamp,
) -> Result<Option<u64>, DbError> {
    macro_rules! again {
        ($which:literal) => {
            concat!(
                "UPDATE delivery SET state = 'PENDING', attempts_before = attempts, due_at = $3, ended_at = NULL
                 WHERE endpoint_id = $1 AND ",
                $which
            )
        };
    }
    let done = match what {
        Replay::One(notification) => {
            let known: Option<i32> =
                sqlx::query_scalar("SELECT 1 FROM delivery WHERE endpoint_id = $1 AND notification_id = $2")
                    .bind(id.uuid())
                    .bind(notification.uuid())
                    .fetch_optional(&mut *tx)
                    .await?;
            if known.is_none() {
                return Ok(None);
            }
            sqlx::query(again!("notification_id = $2 AND state <> 'PENDING'")).bind(id.uuid()).bind(notification.uuid())
        }
        Replay::FailedSince(since) => {
            sqlx::query(again!("state = 'FAILED' AND notified_at >= $2")).bind(id.uuid()).bind(since.micros())
        }
        Replay::FailedFrom(position) => {
            let position = i64::try_from(position).unwrap_or(i64::MAX);
            sqlx::query(again!("state = 'FAILED' AND position >= $2")).bind(id.uuid()).bind(position)
        }
    };
    Ok(Some(done.bind(at.micros()).execute(tx).await?.rows_affected()))
}

/// Drops deliveries that ended before a time, with their attempts, the oldest first and at most so many; how many were
/// dropped. One that is replayed at this moment stays.
pub async fn drop_before(tx: &mut PgConnection, before: Timestamp, most: i64) -> Result<u64, DbError> {
    let done = sqlx::query(
        "DELETE FROM delivery WHERE (endpoint_id, position) IN (
           SELECT endpoint_id, position FROM delivery WHERE state <> 'PENDING' AND ended_at < $1
           ORDER BY ended_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
    )
    .bind(before.micros())
    .bind(most)
    .execute(tx)
    .await?;
    Ok(done.rows_affected())
}

/// A page of the attempts of an endpoint, the latest first.
pub async fn attempts(
    db: &Db,
    page: &PageOf<u64>,
    id: EndpointId,
    notification: Option<EventId>,
    failed: bool,
) -> Result<Vec<ShownAttempt>, DbError> {
    let rows = sqlx::query(
        "SELECT a.attempt_id, d.notification_id, d.kind, a.number, a.at, a.duration_ms, a.status, a.error, a.response,
                d.state, CASE WHEN d.state = 'PENDING' THEN d.due_at END AS next_at
         FROM attempt a JOIN delivery d USING (endpoint_id, position)
         WHERE a.endpoint_id = $1 AND ($2::bigint IS NULL OR a.attempt_id < $2)
           AND ($3::uuid IS NULL OR d.notification_id = $3) AND (NOT $4 OR a.error <> '')
         ORDER BY a.attempt_id DESC LIMIT $5",
    )
    .bind(id.uuid())
    .bind(page.after.map(|after| i64::try_from(after).unwrap_or(i64::MAX)))
    .bind(notification.map(EventId::uuid))
    .bind(failed)
    .bind(page.size)
    .fetch_all(db.pool())
    .await?;
    rows.iter().map(shown).collect()
}

fn shown(row: &PgRow) -> Result<ShownAttempt, DbError> {
    let next_at: Option<i64> = row.try_get("next_at")?;
    let status: Option<i32> = row.try_get("status")?;
    Ok(ShownAttempt {
        attempt_id: u64::try_from(row.try_get::<i64, _>("attempt_id")?).map_err(DbError::corrupt)?,
        notification_id: EventId::new(row.try_get("notification_id")?),
        kind: kind(row)?,
        number: u32::try_from(row.try_get::<i32, _>("number")?).map_err(DbError::corrupt)?,
        at: Timestamp::from_micros(row.try_get("at")?),
        duration_ms: u32::try_from(row.try_get::<i64, _>("duration_ms")?).map_err(DbError::corrupt)?,
        status: status.map(|code| u16::try_from(code).map_err(DbError::corrupt)).transpose()?,
        error: row.try_get("error")?,
        response: row.try_get("response")?,
        state: row.try_get("state")?,
        next_at: next_at.map(Timestamp::from_micros),
    })
}

/// How many deliveries of an endpoint stand where. For tests.
pub async fn standing(db: &Db, id: EndpointId, state: DeliveryState) -> Result<u64, DbError> {
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM delivery WHERE endpoint_id = $1 AND state = $2")
        .bind(id.uuid())
        .bind(state.as_str())
        .fetch_one(db.pool())
        .await?;
    u64::try_from(count).map_err(DbError::corrupt)
}

/// Whose an endpoint is, where there is one.
pub async fn owner(db: &Db, id: EndpointId) -> Result<Option<ParticipantId>, DbError> {
    let owner: Option<String> = sqlx::query_scalar("SELECT participant FROM endpoint WHERE endpoint_id = $1")
        .bind(id.uuid())
        .fetch_optional(db.pool())
        .await?;
    owner.map(|text| text.parse().map_err(DbError::corrupt)).transpose()
}
