//! The only SQL of the engine.

use std::collections::BTreeMap;

use deltran_events::data::risk::LimitKind;
use deltran_kernel::{CommandId, Currency, Minor, Money, ParticipantId, Timestamp};
use deltran_runtime::wire::PageOf;
use deltran_runtime::{Db, DbError};
use rust_decimal::Decimal;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::domain::assess::Rules;
use crate::domain::breaker::{Breaker, BreakerState, Scope, SetBreaker};
use crate::domain::limit::{Limit, LimitState, Proposal};

/// The version of what is in force.
pub async fn version(db: &Db) -> Result<u64, DbError> {
    let version: i64 = sqlx::query_scalar("SELECT version FROM gate").fetch_one(db.pool()).await?;
    u64::try_from(version).map_err(DbError::corrupt)
}

/// The same, locked until the transaction ends.
pub async fn lock_version(tx: &mut PgConnection) -> Result<u64, DbError> {
    let version: i64 = sqlx::query_scalar("SELECT version FROM gate FOR UPDATE").fetch_one(tx).await?;
    u64::try_from(version).map_err(DbError::corrupt)
}

/// Raises the version.
pub async fn set_version(tx: &mut PgConnection, version: u64) -> Result<(), DbError> {
    sqlx::query("UPDATE gate SET version = $1").bind(version as i64).execute(tx).await?;
    Ok(())
}

/// Everything that is in force, from one snapshot of the database.
pub async fn rules(db: &Db) -> Result<Rules, DbError> {
    let mut tx = db.begin().await?;
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").execute(&mut *tx).await?;
    let version: i64 = sqlx::query_scalar("SELECT version FROM gate").fetch_one(&mut *tx).await?;
    let open: Vec<(String, String)> =
        sqlx::query_as("SELECT scope, reason FROM breaker WHERE state = 'OPEN'").fetch_all(&mut *tx).await?;
    let maxima: Vec<(Option<String>, String, Decimal)> = sqlx::query_as(
        "SELECT participant, currency, amount FROM limits WHERE state = 'ACTIVE' AND kind = 'SINGLE_TRANSACTION_MAXIMUM'",
    )
    .fetch_all(&mut *tx)
    .await?;
    tx.commit().await?;

    let mut rules = Rules { version: u64::try_from(version).map_err(DbError::corrupt)?, ..Rules::default() };
    for (scope, reason) in open {
        rules.open.insert(scope.parse().map_err(DbError::corrupt)?, reason);
    }
    for (participant, currency, amount) in maxima {
        let maximum = money(&currency, amount)?;
        match participant {
            None => rules.maxima.insert(maximum.currency(), maximum),
            Some(id) => {
                let id: ParticipantId = id.parse().map_err(DbError::corrupt)?;
                rules.maxima_of.insert((id, maximum.currency()), maximum)
            }
        };
    }
    Ok(rules)
}

fn money(currency: &str, amount: Decimal) -> Result<Money, DbError> {
    let currency = Currency::new(currency).map_err(DbError::corrupt)?;
    Ok(Money::new(Minor::from_decimal(amount).map_err(DbError::corrupt)?, currency))
}

macro_rules! select_limit {
    ($rest:literal) => {
        concat!(
            "SELECT limit_id, kind, participant, currency, amount, reason, state, proposed_by, approved_by,
                    proposed_at, effective_at, approval, refusal FROM limits ",
            $rest
        )
    };
}

fn limit(row: &PgRow) -> Result<Limit, DbError> {
    let (kind, state): (String, String) = (row.try_get("kind")?, row.try_get("state")?);
    let participant: Option<String> = row.try_get("participant")?;
    let effective_at: Option<i64> = row.try_get("effective_at")?;
    Ok(Limit {
        proposal: Proposal {
            limit_id: CommandId::new(row.try_get("limit_id")?),
            kind: LimitKind::from_word(&kind).ok_or_else(|| DbError::corrupt(format!("limit kind {kind:?}")))?,
            participant: participant.map(|p| p.parse().map_err(DbError::corrupt)).transpose()?,
            amount: money(row.try_get("currency")?, row.try_get("amount")?)?,
            reason: row.try_get("reason")?,
        },
        state: LimitState::from_word(&state).ok_or_else(|| DbError::corrupt(format!("limit state {state:?}")))?,
        proposed_by: row.try_get("proposed_by")?,
        approved_by: row.try_get("approved_by")?,
        proposed_at: Timestamp::from_micros(row.try_get("proposed_at")?),
        effective_at: effective_at.map(Timestamp::from_micros),
        approval: u64::try_from(row.try_get::<i64, _>("approval")?).map_err(DbError::corrupt)?,
        refusal: row.try_get("refusal")?,
    })
}

/// Stores a proposal; false where its id is taken.
pub async fn insert_limit(tx: &mut PgConnection, new: &Limit) -> Result<bool, DbError> {
    let proposal = &new.proposal;
    let done = sqlx::query(
        "INSERT INTO limits (limit_id, kind, participant, currency, amount, reason, state, proposed_by, proposed_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING",
    )
    .bind(proposal.limit_id.uuid())
    .bind(proposal.kind.as_str())
    .bind(proposal.participant.map(|p| p.to_string()))
    .bind(proposal.amount.currency().code())
    .bind(proposal.amount.minor().to_decimal())
    .bind(&proposal.reason)
    .bind(new.state.as_str())
    .bind(&new.proposed_by)
    .bind(new.proposed_at.micros())
    .execute(&mut *tx)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    step(tx, new, &new.proposed_by, &proposal.reason, new.proposed_at).await?;
    Ok(true)
}

async fn step(tx: &mut PgConnection, limit: &Limit, by: &str, note: &str, at: Timestamp) -> Result<(), DbError> {
    sqlx::query("INSERT INTO limit_step (limit_id, state, by_user, note, at) VALUES ($1, $2, $3, $4, $5)")
        .bind(limit.proposal.limit_id.uuid())
        .bind(limit.state.as_str())
        .bind(by)
        .bind(note)
        .bind(at.micros())
        .execute(tx)
        .await?;
    Ok(())
}

/// A limit, locked until the transaction ends.
pub async fn lock_limit(tx: &mut PgConnection, id: CommandId) -> Result<Option<Limit>, DbError> {
    let row = sqlx::query(select_limit!("WHERE limit_id = $1 FOR UPDATE")).bind(id.uuid()).fetch_optional(tx).await?;
    row.as_ref().map(limit).transpose()
}

/// A limit.
pub async fn find_limit(db: &Db, id: CommandId) -> Result<Option<Limit>, DbError> {
    let row = sqlx::query(select_limit!("WHERE limit_id = $1")).bind(id.uuid()).fetch_optional(db.pool()).await?;
    row.as_ref().map(limit).transpose()
}

/// A page of limits in the order of their ids.
pub async fn list_limits(
    db: &Db,
    page: &PageOf<CommandId>,
    participant: Option<ParticipantId>,
    state: Option<LimitState>,
) -> Result<Vec<Limit>, DbError> {
    let rows = sqlx::query(select_limit!(
        "WHERE ($1::uuid IS NULL OR limit_id > $1) AND ($2::text IS NULL OR participant = $2)
           AND ($3::text IS NULL OR state = $3) ORDER BY limit_id LIMIT $4"
    ))
    .bind(page.after.map(CommandId::uuid))
    .bind(participant.map(|p| p.to_string()))
    .bind(state.map(LimitState::as_str))
    .bind(page.size)
    .fetch_all(db.pool())
    .await?;
    rows.iter().map(limit).collect()
}

/// Limits that are on their way to the ledger, in the order of their approvals.
pub async fn limits_on_their_way(db: &Db) -> Result<Vec<Limit>, DbError> {
    let rows = sqlx::query(select_limit!("WHERE state = 'APPROVED' ORDER BY approval LIMIT 1000"))
        .fetch_all(db.pool())
        .await?;
    rows.iter().map(limit).collect()
}

/// Writes a limit's next state and records the step. What was in force for the same thing is superseded
/// where the limit comes into force.
pub async fn save_limit(tx: &mut PgConnection, next: &Limit, by: &str, at: Timestamp) -> Result<(), DbError> {
    let key = next.proposal.key();
    if next.state == LimitState::Active {
        let superseded = sqlx::query(
            "WITH old AS (
                 UPDATE limits SET state = 'SUPERSEDED'
                 WHERE kind = $1 AND coalesce(participant, '') = coalesce($2, '') AND currency = $3 AND state = 'ACTIVE'
                 RETURNING limit_id)
             INSERT INTO limit_step (limit_id, state, by_user, note, at)
             SELECT limit_id, 'SUPERSEDED', $4, 'by ' || $5, $6 FROM old",
        )
        .bind(key.kind.as_str())
        .bind(key.participant.map(|p| p.to_string()))
        .bind(key.currency.code())
        .bind(by)
        .bind(next.proposal.limit_id.to_string())
        .bind(at.micros())
        .execute(&mut *tx)
        .await?;
        tracing::debug!(limit_id = %next.proposal.limit_id, superseded = superseded.rows_affected(), "limit comes into force");
    }
    sqlx::query(
        "UPDATE limits SET state = $2, approved_by = $3, effective_at = $4, approval = $5, refusal = $6 WHERE limit_id = $1",
    )
    .bind(next.proposal.limit_id.uuid())
    .bind(next.state.as_str())
    .bind(&next.approved_by)
    .bind(next.effective_at.map(Timestamp::micros))
    .bind(next.approval as i64)
    .bind(&next.refusal)
    .execute(&mut *tx)
    .await?;
    step(tx, next, by, next.refusal.as_deref().unwrap_or_default(), at).await
}

fn breaker(row: &PgRow) -> Result<Breaker, DbError> {
    let (scope, state): (String, String) = (row.try_get("scope")?, row.try_get("state")?);
    Ok(Breaker {
        scope: scope.parse().map_err(DbError::corrupt)?,
        state: BreakerState::from_word(&state).ok_or_else(|| DbError::corrupt(format!("breaker state {state:?}")))?,
        reason: row.try_get("reason")?,
        changed_by: row.try_get("changed_by")?,
        changed_at: Timestamp::from_micros(row.try_get("changed_at")?),
    })
}

/// Every breaker that was ever set, in the order of its scope.
pub async fn breakers(db: &Db) -> Result<Vec<Breaker>, DbError> {
    let rows =
        sqlx::query("SELECT scope, state, reason, changed_by, changed_at FROM breaker").fetch_all(db.pool()).await?;
    let breakers = rows.iter().map(|row| breaker(row).map(|b| (b.scope, b))).collect::<Result<BTreeMap<_, _>, _>>()?;
    Ok(breakers.into_values().collect())
}

/// The breaker of a scope. The gate's version must be locked.
pub async fn find_breaker(tx: &mut PgConnection, scope: Scope) -> Result<Option<Breaker>, DbError> {
    let row = sqlx::query("SELECT scope, state, reason, changed_by, changed_at FROM breaker WHERE scope = $1")
        .bind(scope.to_string())
        .fetch_optional(tx)
        .await?;
    row.as_ref().map(breaker).transpose()
}

/// What is stored under a command's id: the command, and the breaker that it led to.
pub async fn find_breaker_command(
    tx: &mut PgConnection,
    command_id: CommandId,
) -> Result<Option<(SetBreaker, Breaker)>, DbError> {
    let row =
        sqlx::query("SELECT scope, state, reason, changed_by, changed_at FROM breaker_command WHERE command_id = $1")
            .bind(command_id.uuid())
            .fetch_optional(tx)
            .await?;
    let led_to = row.as_ref().map(breaker).transpose()?;
    Ok(led_to.map(|led_to| {
        let command = SetBreaker { command_id, scope: led_to.scope, to: led_to.state, reason: led_to.reason.clone() };
        (command, led_to)
    }))
}

/// Stores a breaker and the command that set it.
pub async fn save_breaker(tx: &mut PgConnection, command_id: CommandId, next: &Breaker) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO breaker_command (command_id, scope, state, reason, changed_by, changed_at) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(command_id.uuid())
    .bind(next.scope.to_string())
    .bind(next.state.as_str())
    .bind(&next.reason)
    .bind(&next.changed_by)
    .bind(next.changed_at.micros())
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "INSERT INTO breaker (scope, state, reason, changed_by, changed_at) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (scope) DO UPDATE SET state = excluded.state, reason = excluded.reason,
             changed_by = excluded.changed_by, changed_at = excluded.changed_at",
    )
    .bind(next.scope.to_string())
    .bind(next.state.as_str())
    .bind(&next.reason)
    .bind(&next.changed_by)
    .bind(next.changed_at.micros())
    .execute(tx)
    .await?;
    Ok(())
}
