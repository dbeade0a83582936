//! Rows of breakers and of what set them.

use std::collections::BTreeMap;

use deltran_events::data::risk::BreakerTrigger;
use deltran_kernel::{CommandId, Timestamp};
use deltran_runtime::{Db, DbError};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgExecutor, Row};

use super::parsed;
use crate::domain::breaker::{Breaker, BreakerState, SetBreaker};
use crate::domain::scope::Scope;

macro_rules! select_breaker {
    ($rest:literal) => {
        concat!("SELECT scope, state, trigger, reason, changed_by, changed_at, open_until FROM ", $rest)
    };
}
pub(super) use select_breaker;

pub(super) fn breaker(row: &PgRow) -> Result<Breaker, DbError> {
    let (scope, state, trigger): (String, String, String) =
        (row.try_get("scope")?, row.try_get("state")?, row.try_get("trigger")?);
    Ok(Breaker {
        scope: parsed(&scope)?,
        state: BreakerState::from_word(&state).ok_or_else(|| DbError::corrupt(format!("breaker state {state:?}")))?,
        trigger: BreakerTrigger::from_word(&trigger).ok_or_else(|| DbError::corrupt(format!("trigger {trigger:?}")))?,
        reason: row.try_get("reason")?,
        changed_by: row.try_get("changed_by")?,
        changed_at: Timestamp::from_micros(row.try_get("changed_at")?),
        open_until: row.try_get::<Option<i64>, _>("open_until")?.map(Timestamp::from_micros),
    })
}

/// Every breaker that was ever set.
pub async fn all_breakers(db: impl PgExecutor<'_>) -> Result<BTreeMap<Scope, Breaker>, DbError> {
    let rows = sqlx::query(select_breaker!("breaker")).fetch_all(db).await?;
    rows.iter().map(|row| breaker(row).map(|b| (b.scope, b))).collect()
}

/// A page of breakers in the order of their scopes as texts.
pub async fn list_breakers(
    db: &Db,
    after: Option<Scope>,
    size: i64,
    state: Option<BreakerState>,
) -> Result<Vec<Breaker>, DbError> {
    let rows = sqlx::query(select_breaker!(
        "breaker
         WHERE ($1::text IS NULL OR scope COLLATE \"C\" > $1) AND ($2::text IS NULL OR state = $2)
         ORDER BY scope COLLATE \"C\" LIMIT $3"
    ))
    .bind(after.map(|scope| scope.to_string()))
    .bind(state.map(BreakerState::as_str))
    .bind(size)
    .fetch_all(db.pool())
    .await?;
    rows.iter().map(breaker).collect()
}

/// The breaker of a scope.
pub async fn find_breaker(db: &Db, scope: Scope) -> Result<Option<Breaker>, DbError> {
    one(db.pool(), scope).await
}

/// The same inside a transaction. The gate's version must be locked.
pub async fn lock_breaker(tx: &mut PgConnection, scope: Scope) -> Result<Option<Breaker>, DbError> {
    one(tx, scope).await
}

async fn one(db: impl PgExecutor<'_>, scope: Scope) -> Result<Option<Breaker>, DbError> {
    let row =
        sqlx::query(select_breaker!("breaker WHERE scope = $1")).bind(scope.to_string()).fetch_optional(db).await?;
    row.as_ref().map(breaker).transpose()
}

/// What is stored under a command's id: the command, and the breaker that it led to.
pub async fn find_breaker_command(
    tx: &mut PgConnection,
    command_id: CommandId,
) -> Result<Option<(SetBreaker, Breaker)>, DbError> {
    let row = sqlx::query(select_breaker!("breaker_command WHERE command_id = $1"))
        .bind(command_id.uuid())
        .fetch_optional(tx)
        .await?;
    let led_to = row.as_ref().map(breaker).transpose()?;
    Ok(led_to.map(|led_to| {
        let command = SetBreaker { command_id, scope: led_to.scope, to: led_to.state, reason: led_to.reason.clone() };
        (command, led_to)
    }))
}

/// Stores a breaker, and under `command_id` that it was set.
pub async fn save_breaker(tx: &mut PgConnection, command_id: CommandId, next: &Breaker) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO breaker_command (command_id, scope, state, trigger, reason, changed_by, changed_at, open_until)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(command_id.uuid())
    .bind(next.scope.to_string())
    .bind(next.state.as_str())
    .bind(next.trigger.as_str())
    .bind(&next.reason)
    .bind(&next.changed_by)
    .bind(next.changed_at.micros())
    .bind(next.open_until.map(Timestamp::micros))
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "INSERT INTO breaker (scope, state, trigger, reason, changed_by, changed_at, open_until)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (scope) DO UPDATE SET state = excluded.state, trigger = excluded.trigger, reason = excluded.reason,
             changed_by = excluded.changed_by, changed_at = excluded.changed_at, open_until = excluded.open_until",
    )
    .bind(next.scope.to_string())
    .bind(next.state.as_str())
    .bind(next.trigger.as_str())
    .bind(&next.reason)
    .bind(&next.changed_by)
    .bind(next.changed_at.micros())
    .bind(next.open_until.map(Timestamp::micros))
    .execute(tx)
    .await?;
    Ok(())
}

/// Keeps a breaker OPEN for longer.
pub async fn extend_breaker(tx: &mut PgConnection, breaker: &Breaker) -> Result<(), DbError> {
    sqlx::query("UPDATE breaker SET open_until = $2 WHERE scope = $1")
        .bind(breaker.scope.to_string())
        .bind(breaker.open_until.map(Timestamp::micros))
        .execute(tx)
        .await?;
    Ok(())
}
