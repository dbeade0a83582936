//! The rows of feeds.

use std::collections::{BTreeMap, BTreeSet};

use deltran_kernel::{EventId, ParticipantId, Timestamp};
use deltran_runtime::DbError;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::domain::{Kind, Notification};

/// How far a feed goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The oldest position that is kept; one above the last where none is.
    pub oldest: u64,
    /// The last position; 0 where nothing was ever filed.
    pub last: u64,
}

impl Extent {
    /// Of a feed that nothing was ever filed in.
    pub const EMPTY: Self = Self { oldest: 1, last: 0 };
}

fn place(position: i64) -> Result<u64, DbError> {
    u64::try_from(position).map_err(DbError::corrupt)
}

fn number(position: u64) -> i64 {
    i64::try_from(position).unwrap_or(i64::MAX)
}

/// Those of these notifications that were filed before.
pub async fn known(tx: &mut PgConnection, ids: &[EventId]) -> Result<BTreeSet<EventId>, DbError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
    let known: Vec<Uuid> =
        sqlx::query_scalar("SELECT notification_id FROM notification WHERE notification_id = ANY($1)")
            .bind(ids)
            .fetch_all(tx)
            .await?;
    Ok(known.into_iter().map(EventId::new).collect())
}

/// Gives out positions: so many to each participant. The answer is the first of each.
pub async fn advance(
    tx: &mut PgConnection,
    counts: &BTreeMap<ParticipantId, u64>,
) -> Result<BTreeMap<ParticipantId, u64>, DbError> {
    let round: i64 =
        sqlx::query_scalar("UPDATE filing SET round = round + 1 RETURNING round").fetch_one(&mut *tx).await?;
    let participants: Vec<&str> = counts.keys().map(ParticipantId::as_str).collect();
    let numbers: Vec<i64> = counts.values().map(|count| number(*count)).collect();
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "INSERT INTO feed AS f (participant, last_position, oldest_position, round)
         SELECT participant, count, 1, $3 FROM UNNEST($1::text[], $2::bigint[]) AS n (participant, count)
         ORDER BY participant
         ON CONFLICT (participant) DO UPDATE SET last_position = f.last_position + EXCLUDED.last_position, round = $3
         RETURNING participant, last_position",
    )
    .bind(participants)
    .bind(numbers)
    .bind(round)
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|(participant, last)| {
            let participant: ParticipantId = participant.parse().map_err(DbError::corrupt)?;
            let count = counts.get(&participant).copied().unwrap_or(0);
            Ok((participant, place(last)? + 1 - count))
        })
        .collect()
}

/// Files notifications under positions that were given out.
pub async fn file(tx: &mut PgConnection, notifications: &[Notification], at: Timestamp) -> Result<(), DbError> {
    let participants: Vec<&str> = notifications.iter().map(|n| n.participant.as_str()).collect();
    let positions: Vec<i64> = notifications.iter().map(|n| number(n.position)).collect();
    let ids: Vec<Uuid> = notifications.iter().map(|n| n.id.uuid()).collect();
    let kinds: Vec<&str> = notifications.iter().map(|n| n.kind.as_str()).collect();
    let times: Vec<i64> = notifications.iter().map(|n| n.at.micros()).collect();
    let bodies: Vec<&str> = notifications.iter().map(|n| n.body.as_str()).collect();
    sqlx::query(
        "INSERT INTO notification (participant, position, notification_id, kind, at, body, filed_at)
         SELECT n.*, $7 FROM UNNEST($1::text[], $2::bigint[], $3::uuid[], $4::text[], $5::bigint[], $6::text[]) AS n",
    )
    .bind(participants)
    .bind(positions)
    .bind(ids)
    .bind(kinds)
    .bind(times)
    .bind(bodies)
    .bind(at.micros())
    .execute(tx)
    .await?;
    Ok(())
}

/// How far a participant's feed goes.
pub async fn extent(pool: &PgPool, participant: ParticipantId) -> Result<Extent, DbError> {
    let row: Option<(i64, i64)> =
        sqlx::query_as("SELECT oldest_position, last_position FROM feed WHERE participant = $1")
            .bind(participant.as_str())
            .fetch_optional(pool)
            .await?;
    row.map_or(Ok(Extent::EMPTY), |(oldest, last)| Ok(Extent { oldest: place(oldest)?, last: place(last)? }))
}

/// Feeds that were filed in after a round, and the last round of each; the earliest first.
pub async fn filed_after(pool: &PgPool, round: i64) -> Result<Vec<(ParticipantId, u64, i64)>, DbError> {
    let rows: Vec<(String, i64, i64)> =
        sqlx::query_as("SELECT participant, last_position, round FROM feed WHERE round > $1 ORDER BY round")
            .bind(round)
            .fetch_all(pool)
            .await?;
    rows.into_iter()
        .map(|(participant, last, round)| Ok((participant.parse().map_err(DbError::corrupt)?, place(last)?, round)))
        .collect()
}

#[derive(sqlx::FromRow)]
struct Row {
    participant: String,
    position: i64,
    notification_id: Uuid,
    kind: String,
    at: i64,
    body: String,
}

impl TryFrom<Row> for Notification {
    type Error = DbError;
    fn try_from(row: Row) -> Result<Self, DbError> {
        Ok(Self {
            id: EventId::new(row.notification_id),
            participant: row.participant.parse().map_err(DbError::corrupt)?,
            kind: row.kind.parse().map_err(DbError::corrupt)?,
            position: place(row.position)?,
            at: Timestamp::from_micros(row.at),
            body: row.body,
        })
    }
}

fn words(kinds: &BTreeSet<Kind>) -> Vec<&'static str> {
    kinds.iter().map(|kind| kind.as_str()).collect()
}

/// The notifications of a participant after one position and through another, of these kinds; none is all.
pub async fn between(
    pool: &PgPool,
    participant: ParticipantId,
    after: u64,
    through: u64,
    kinds: &BTreeSet<Kind>,
) -> Result<Vec<Notification>, DbError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT participant, position, notification_id, kind, at, body FROM notification
         WHERE participant = $1 AND position > $2 AND position <= $3 AND (cardinality($4::text[]) = 0 OR kind = ANY($4))
         ORDER BY position",
    )
    .bind(participant.as_str())
    .bind(number(after))
    .bind(number(through))
    .bind(words(kinds))
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(Notification::try_from).collect()
}

/// A page of a participant's notifications, the newest first, before a position.
pub async fn list(
    pool: &PgPool,
    participant: ParticipantId,
    kinds: &BTreeSet<Kind>,
    before: Option<u64>,
    size: i64,
) -> Result<Vec<Notification>, DbError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT participant, position, notification_id, kind, at, body FROM notification
         WHERE participant = $1 AND ($2::bigint IS NULL OR position < $2)
           AND (cardinality($3::text[]) = 0 OR kind = ANY($3))
         ORDER BY position DESC LIMIT $4",
    )
    .bind(participant.as_str())
    .bind(before.map(number))
    .bind(words(kinds))
    .bind(size)
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(Notification::try_from).collect()
}

/// Drops what was filed before a time, from the oldest on, at most about so many; how many were dropped.
pub async fn drop_before(tx: &mut PgConnection, before: Timestamp, most: i64) -> Result<u64, DbError> {
    let cuts: Vec<(String, i64)> = sqlx::query_as(
        "SELECT participant, max(position) FROM
           (SELECT participant, position FROM notification WHERE filed_at < $1 ORDER BY filed_at LIMIT $2) AS old
         GROUP BY participant",
    )
    .bind(before.micros())
    .bind(most)
    .fetch_all(&mut *tx)
    .await?;
    let (participants, positions): (Vec<String>, Vec<i64>) = cuts.into_iter().unzip();
    // In the order in which filing locks them.
    sqlx::query("SELECT FROM feed WHERE participant = ANY($1) ORDER BY participant FOR UPDATE")
        .bind(&participants)
        .execute(&mut *tx)
        .await?;
    let dropped = sqlx::query(
        "DELETE FROM notification n USING UNNEST($1::text[], $2::bigint[]) AS cut (participant, position)
         WHERE n.participant = cut.participant AND n.position <= cut.position",
    )
    .bind(&participants)
    .bind(&positions)
    .execute(&mut *tx)
    .await?
    .rows_affected();
    sqlx::query(
        "UPDATE feed f SET oldest_position = GREATEST(f.oldest_position, cut.position + 1)
         FROM UNNEST($1::text[], $2::bigint[]) AS cut (participant, position) WHERE f.participant = cut.participant",
    )
    .bind(&participants)
    .bind(&positions)
    .execute(tx)
    .await?;
    Ok(dropped)
}
