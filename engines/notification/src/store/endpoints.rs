//! Endpoints, their secrets, their health, and the commands that changed them.

use std::collections::BTreeMap;

use deltran_kernel::{CommandId, EndpointId, ParticipantId, Timestamp};
use deltran_runtime::wire::PageOf;
use deltran_runtime::{Db, DbError};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::domain::breaker::Health;
use crate::domain::endpoint::{Cause, Endpoint, EndpointState, SecretVersion, Wish};

/// A command that was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Of which endpoint.
    pub endpoint_id: EndpointId,
    /// What was asked.
    pub body: String,
    /// How many deliveries it concerned.
    pub deliveries: u64,
}

/// A secret as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSecret {
    /// Of which endpoint.
    pub endpoint_id: EndpointId,
    /// Its number and end.
    pub version: SecretVersion,
    /// Encrypted.
    pub sealed: Vec<u8>,
    /// `whpk_…`.
    pub public_key: String,
}

/// An endpoint with what the sender and lists need to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// How it fares.
    pub health: Health,
    /// Its secrets, the newest first.
    pub secrets: Vec<StoredSecret>,
}

macro_rules! select_endpoint {
    ($rest:literal) => {
        concat!(
            "SELECT e.endpoint_id, participant, url, kinds, in_order, state, cause, note, version, created_at,
                    changed_by, changed_at, failures, failing_since, paused_until
             FROM endpoint e LEFT JOIN endpoint_health h USING (endpoint_id) ",
            $rest
        )
    };
}

fn endpoint(row: &PgRow) -> Result<Endpoint, DbError> {
    let (state, cause): (String, Option<String>) = (row.try_get("state")?, row.try_get("cause")?);
    let participant: String = row.try_get("participant")?;
    let kinds: Vec<String> = row.try_get("kinds")?;
    let unknown = |word: &str| DbError::corrupt(format!("endpoint state {word:?}"));
    Ok(Endpoint {
        endpoint_id: EndpointId::new(row.try_get("endpoint_id")?),
        participant: participant.parse().map_err(DbError::corrupt)?,
        wish: Wish {
            url: row.try_get("url")?,
            kinds: kinds.iter().map(|word| word.parse()).collect::<Result<_, _>>().map_err(DbError::corrupt)?,
            in_order: row.try_get("in_order")?,
        },
        state: EndpointState::from_word(&state).ok_or_else(|| unknown(&state))?,
        cause: cause.map(|word| Cause::from_word(&word).ok_or_else(|| unknown(&word))).transpose()?,
        note: row.try_get("note")?,
        version: u64::try_from(row.try_get::<i64, _>("version")?).map_err(DbError::corrupt)?,
        created_at: Timestamp::from_micros(row.try_get("created_at")?),
        changed_by: row.try_get("changed_by")?,
        changed_at: Timestamp::from_micros(row.try_get("changed_at")?),
    })
}

fn health(row: &PgRow) -> Result<Health, DbError> {
    let failures: Option<i64> = row.try_get("failures")?;
    let (since, until): (Option<i64>, Option<i64>) = (row.try_get("failing_since")?, row.try_get("paused_until")?);
    Ok(Health {
        failures: u32::try_from(failures.unwrap_or(0)).map_err(DbError::corrupt)?,
        failing_since: since.map(Timestamp::from_micros),
        paused_until: until.map(Timestamp::from_micros),
    })
}

fn secret(row: &PgRow) -> Result<StoredSecret, DbError> {
    let expires_at: Option<i64> = row.try_get("expires_at")?;
    Ok(StoredSecret {
        endpoint_id: EndpointId::new(row.try_get("endpoint_id")?),
        version: SecretVersion {
            number: u32::try_from(row.try_get::<i32, _>("number")?).map_err(DbError::corrupt)?,
            expires_at: expires_at.map(Timestamp::from_micros),
        },
        sealed: row.try_get("sealed")?,
        public_key: row.try_get("public_key")?,
    })
}

/// Lets one transaction at a time register endpoints of a participant.
pub async fn lock_participant(tx: &mut PgConnection, participant: ParticipantId) -> Result<(), DbError> {
    sqlx::query("SELECT pg_advisory_xact_lock(hashtext('notification.endpoint'), hashtext($1))")
        .bind(participant.as_str())
        .execute(tx)
        .await?;
    Ok(())
}

/// How many endpoints a participant has.
pub async fn count(tx: &mut PgConnection, participant: ParticipantId) -> Result<usize, DbError> {
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM endpoint WHERE participant = $1 AND state <> 'DELETED'")
        .bind(participant.as_str())
        .fetch_one(tx)
        .await?;
    usize::try_from(count).map_err(DbError::corrupt)
}

/// What was done under an idempotency key.
pub async fn find_command(tx: &mut PgConnection, id: CommandId) -> Result<Option<Done>, DbError> {
    let row: Option<(Uuid, String, i64)> =
        sqlx::query_as("SELECT endpoint_id, body, deliveries FROM endpoint_command WHERE command_id = $1")
            .bind(id.uuid())
            .fetch_optional(tx)
            .await?;
    row.map(|(endpoint, body, deliveries)| {
        let deliveries = u64::try_from(deliveries).map_err(DbError::corrupt)?;
        Ok(Done { endpoint_id: EndpointId::new(endpoint), body, deliveries })
    })
    .transpose()
}

/// Records a command; false where its id was taken meanwhile.
pub async fn record_command(
    tx: &mut PgConnection,
    id: CommandId,
    done: &Done,
    by: &str,
    at: Timestamp,
) -> Result<bool, DbError> {
    let done = sqlx::query(
        "INSERT INTO endpoint_command (command_id, endpoint_id, body, deliveries, by_user, at)
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
    )
    .bind(id.uuid())
    .bind(done.endpoint_id.uuid())
    .bind(&done.body)
    .bind(i64::try_from(done.deliveries).map_err(DbError::corrupt)?)
    .bind(by)
    .bind(at.micros())
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Stores a new endpoint; false where its id is taken.
pub async fn insert(tx: &mut PgConnection, new: &Endpoint) -> Result<bool, DbError> {
    let done = sqlx::query(
        "INSERT INTO endpoint (endpoint_id, participant, url, kinds, in_order, state, cause, note, version, created_at,
                               changed_by, changed_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT DO NOTHING",
    )
    .bind(new.endpoint_id.uuid())
    .bind(new.participant.as_str())
    .bind(&new.wish.url)
    .bind(kinds(&new.wish))
    .bind(new.wish.in_order)
    .bind(new.state.as_str())
    .bind(new.cause.map(Cause::as_str))
    .bind(&new.note)
    .bind(new.version as i64)
    .bind(new.created_at.micros())
    .bind(&new.changed_by)
    .bind(new.changed_at.micros())
    .execute(&mut *tx)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    step(tx, new, "created").await?;
    Ok(true)
}

/// Stores an endpoint after a change.
pub async fn save(tx: &mut PgConnection, next: &Endpoint, change: &str) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE endpoint SET url = $2, kinds = $3, in_order = $4, state = $5, cause = $6, note = $7, version = $8,
                             changed_by = $9, changed_at = $10
         WHERE endpoint_id = $1",
    )
    .bind(next.endpoint_id.uuid())
    .bind(&next.wish.url)
    .bind(kinds(&next.wish))
    .bind(next.wish.in_order)
    .bind(next.state.as_str())
    .bind(next.cause.map(Cause::as_str))
    .bind(&next.note)
    .bind(next.version as i64)
    .bind(&next.changed_by)
    .bind(next.changed_at.micros())
    .execute(&mut *tx)
    .await?;
    step(tx, next, change).await
}

async fn step(tx: &mut PgConnection, next: &Endpoint, change: &str) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO endpoint_step (endpoint_id, version, change, url, kinds, in_order, state, cause, note, by_user, at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(next.endpoint_id.uuid())
    .bind(next.version as i64)
    .bind(change)
    .bind(&next.wish.url)
    .bind(kinds(&next.wish))
    .bind(next.wish.in_order)
    .bind(next.state.as_str())
    .bind(next.cause.map(Cause::as_str))
    .bind(&next.note)
    .bind(&next.changed_by)
    .bind(next.changed_at.micros())
    .execute(tx)
    .await?;
    Ok(())
}

fn kinds(wish: &Wish) -> Vec<&str> {
    wish.kinds.iter().map(|kind| kind.as_str()).collect()
}

/// An endpoint, locked until the transaction ends: nothing is filed for it meanwhile. Who needs deliveries or the
/// health of an endpoint as well takes this first, deliveries next, health last.
pub async fn lock(tx: &mut PgConnection, id: EndpointId) -> Result<Option<Endpoint>, DbError> {
    let row = sqlx::query(select_endpoint!("WHERE e.endpoint_id = $1 FOR NO KEY UPDATE OF e"))
        .bind(id.uuid())
        .fetch_optional(tx)
        .await?;
    row.as_ref().map(endpoint).transpose()
}

/// Versions of endpoints, none of which changes until the transaction ends; filing goes on meanwhile. Taken before
/// deliveries, as [`lock`] is, so that who gives up the deliveries of an endpoint waits here and not in their middle.
pub async fn hold(tx: &mut PgConnection, ids: &[EndpointId]) -> Result<BTreeMap<EndpointId, u64>, DbError> {
    let rows: Vec<(Uuid, i64)> = sqlx::query_as(
        "SELECT endpoint_id, version FROM endpoint WHERE endpoint_id = ANY($1) ORDER BY endpoint_id FOR SHARE",
    )
    .bind(ids.iter().map(|id| id.uuid()).collect::<Vec<_>>())
    .fetch_all(tx)
    .await?;
    versions(rows)
}

fn versions(rows: Vec<(Uuid, i64)>) -> Result<BTreeMap<EndpointId, u64>, DbError> {
    rows.into_iter()
        .map(|(id, version)| Ok((EndpointId::new(id), u64::try_from(version).map_err(DbError::corrupt)?)))
        .collect()
}

/// Adds a secret, the newest; those before it sign until `others_until` at most.
pub async fn add_secret(
    tx: &mut PgConnection,
    new: &StoredSecret,
    others_until: Timestamp,
    at: Timestamp,
) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE endpoint_secret SET expires_at = LEAST(expires_at, $2)
         WHERE endpoint_id = $1 AND (expires_at IS NULL OR expires_at > $2)",
    )
    .bind(new.endpoint_id.uuid())
    .bind(others_until.micros())
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "INSERT INTO endpoint_secret (endpoint_id, number, sealed, public_key, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(new.endpoint_id.uuid())
    .bind(i32::try_from(new.version.number).map_err(DbError::corrupt)?)
    .bind(&new.sealed)
    .bind(&new.public_key)
    .bind(at.micros())
    .bind(new.version.expires_at.map(Timestamp::micros))
    .execute(tx)
    .await?;
    Ok(())
}

/// The secrets of an endpoint, the newest first.
pub async fn secrets(tx: &mut PgConnection, id: EndpointId) -> Result<Vec<StoredSecret>, DbError> {
    let rows = sqlx::query(
        "SELECT endpoint_id, number, sealed, public_key, expires_at FROM endpoint_secret
         WHERE endpoint_id = $1 ORDER BY number DESC",
    )
    .bind(id.uuid())
    .fetch_all(tx)
    .await?;
    rows.iter().map(secret).collect()
}

/// Stores how endpoints fare; in the order of ids.
pub async fn save_health(tx: &mut PgConnection, fared: &[(EndpointId, Health)]) -> Result<(), DbError> {
    let micros = |at: Option<Timestamp>| at.map(Timestamp::micros);
    sqlx::query(
        "INSERT INTO endpoint_health (endpoint_id, failures, failing_since, paused_until)
         SELECT * FROM UNNEST($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[])
         ON CONFLICT (endpoint_id) DO UPDATE
           SET failures = excluded.failures, failing_since = excluded.failing_since,
               paused_until = excluded.paused_until",
    )
    .bind(fared.iter().map(|(id, _)| id.uuid()).collect::<Vec<_>>())
    .bind(fared.iter().map(|(_, health)| i64::from(health.failures)).collect::<Vec<_>>())
    .bind(fared.iter().map(|(_, health)| micros(health.failing_since)).collect::<Vec<_>>())
    .bind(fared.iter().map(|(_, health)| micros(health.paused_until)).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}

/// Ids and versions of all endpoints that are sent to.
pub async fn enabled(db: &Db) -> Result<BTreeMap<EndpointId, u64>, DbError> {
    let rows: Vec<(Uuid, i64)> = sqlx::query_as("SELECT endpoint_id, version FROM endpoint WHERE state = 'ENABLED'")
        .fetch_all(db.pool())
        .await?;
    versions(rows)
}

/// Endpoints with their health and secrets.
pub async fn whole(db: &Db, ids: &[EndpointId]) -> Result<Vec<Whole>, DbError> {
    let uuids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
    let rows = sqlx::query(select_endpoint!("WHERE e.endpoint_id = ANY($1) ORDER BY e.endpoint_id"))
        .bind(&uuids)
        .fetch_all(db.pool())
        .await?;
    with_secrets(db, &rows).await
}

/// A page of endpoints by id: of one participant or of all, in one state or in all but DELETED.
pub async fn list(
    db: &Db,
    page: &PageOf<EndpointId>,
    participant: Option<ParticipantId>,
    state: Option<EndpointState>,
) -> Result<Vec<Whole>, DbError> {
    let rows = sqlx::query(select_endpoint!(
        "WHERE ($1::uuid IS NULL OR e.endpoint_id > $1) AND ($2::text IS NULL OR participant = $2)
           AND (state = $3 OR ($3::text IS NULL AND state <> 'DELETED'))
         ORDER BY e.endpoint_id LIMIT $4"
    ))
    .bind(page.after.map(EndpointId::uuid))
    .bind(participant.map(|p| p.to_string()))
    .bind(state.map(EndpointState::as_str))
    .bind(page.size)
    .fetch_all(db.pool())
    .await?;
    with_secrets(db, &rows).await
}

async fn with_secrets(db: &Db, rows: &[PgRow]) -> Result<Vec<Whole>, DbError> {
    let mut all = rows
        .iter()
        .map(|row| Ok(Whole { endpoint: endpoint(row)?, health: health(row)?, secrets: Vec::new() }))
        .collect::<Result<Vec<_>, DbError>>()?;
    let ids: Vec<Uuid> = all.iter().map(|whole| whole.endpoint.endpoint_id.uuid()).collect();
    let stored = sqlx::query(
        "SELECT endpoint_id, number, sealed, public_key, expires_at FROM endpoint_secret
         WHERE endpoint_id = ANY($1) ORDER BY number DESC",
    )
    .bind(ids)
    .fetch_all(db.pool())
    .await?;
    for row in &stored {
        let secret = secret(row)?;
        // Rows come in the order of ids.
        if let Ok(place) = all.binary_search_by_key(&secret.endpoint_id, |whole| whole.endpoint.endpoint_id) {
            all[place].secrets.push(secret);
        }
    }
    Ok(all)
}
