//! Rows of limits and their steps.

use deltran_events::data::risk::LimitKind;
use deltran_kernel::{CommandId, Currency, ParticipantId, Timestamp};
use deltran_runtime::wire::PageOf;
use deltran_runtime::{Db, DbError};
use rust_decimal::Decimal;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::{money, number, parsed};
use crate::domain::limit::{Ended, Limit, LimitState, Proposal, Rate, Value};

macro_rules! select_limit {
    ($rest:literal) => {
        concat!(
            "SELECT limit_id, kind, participant, counterparty, corridor, currency, amount, transactions, window_seconds,
                    effective_from, reason, state, proposed_by, approved_by, proposed_at, due_at, effective_at,
                    approval, refusal, ended_by, ended_reason FROM limits ",
            $rest
        )
    };
}
pub(super) use select_limit;

pub(super) fn limit(row: &PgRow) -> Result<Limit, DbError> {
    let (kind, state): (String, String) = (row.try_get("kind")?, row.try_get("state")?);
    let optional = |column| row.try_get::<Option<String>, _>(column);
    let time = |column| row.try_get::<Option<i64>, _>(column).map(|at| at.map(Timestamp::from_micros));
    let amount: Option<(String, Decimal)> = optional("currency")?.zip(row.try_get("amount")?);
    let rate: Option<(i64, i32)> =
        row.try_get::<Option<i64>, _>("transactions")?.zip(row.try_get::<Option<i32>, _>("window_seconds")?);
    let value = match (amount, rate) {
        (Some((currency, amount)), None) => Value::Amount(money(&currency, amount)?),
        (None, Some((transactions, seconds))) => Value::Rate(Rate {
            transactions: number(transactions)?,
            window_seconds: u32::try_from(seconds).map_err(DbError::corrupt)?,
        }),
        _ => return Err(DbError::corrupt("a limit has an amount or a rate")),
    };
    let ended = optional("ended_by")?.zip(optional("ended_reason")?).map(|(by, reason)| Ended { by, reason });
    Ok(Limit {
        proposal: Proposal {
            limit_id: CommandId::new(row.try_get("limit_id")?),
            kind: kind_of(&kind)?,
            participant: optional("participant")?.as_deref().map(parsed).transpose()?,
            counterparty: optional("counterparty")?.as_deref().map(parsed).transpose()?,
            corridor: optional("corridor")?.as_deref().map(parsed).transpose()?,
            value,
            effective_from: time("effective_from")?,
            reason: row.try_get("reason")?,
        },
        state: LimitState::from_word(&state).ok_or_else(|| DbError::corrupt(format!("limit state {state:?}")))?,
        proposed_by: row.try_get("proposed_by")?,
        approved_by: row.try_get("approved_by")?,
        proposed_at: Timestamp::from_micros(row.try_get("proposed_at")?),
        due_at: time("due_at")?,
        effective_at: time("effective_at")?,
        approval: number(row.try_get("approval")?)?,
        refusal: row.try_get("refusal")?,
        ended,
    })
}

fn kind_of(word: &str) -> Result<LimitKind, DbError> {
    LimitKind::from_word(word).ok_or_else(|| DbError::corrupt(format!("limit kind {word:?}")))
}

/// Stores a proposal; false where its id is taken.
pub async fn insert_limit(tx: &mut PgConnection, new: &Limit) -> Result<bool, DbError> {
    let proposal = &new.proposal;
    let (amount, rate) = match proposal.value {
        Value::Amount(amount) => (Some(amount), None),
        Value::Rate(rate) => (None, Some(rate)),
    };
    let done = sqlx::query(
        "INSERT INTO limits (limit_id, kind, participant, counterparty, corridor, currency, amount, transactions,
                             window_seconds, effective_from, reason, state, proposed_by, proposed_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) ON CONFLICT DO NOTHING",
    )
    .bind(proposal.limit_id.uuid())
    .bind(proposal.kind.as_str())
    .bind(proposal.participant.map(|p| p.to_string()))
    .bind(proposal.counterparty.map(|p| p.to_string()))
    .bind(proposal.corridor.map(|c| c.to_string()))
    .bind(amount.map(|a| a.currency().code().to_owned()))
    .bind(amount.map(|a| a.minor().to_decimal()))
    .bind(rate.map(|r| r.transactions as i64))
    .bind(rate.map(|r| r.window_seconds as i32))
    .bind(proposal.effective_from.map(Timestamp::micros))
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

/// Which limits a list shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LimitFilter {
    /// Of this participant.
    pub participant: Option<ParticipantId>,
    /// In this state.
    pub state: Option<LimitState>,
    /// Of this kind.
    pub kind: Option<LimitKind>,
    /// Of this currency.
    pub currency: Option<Currency>,
}

/// A page of limits in the order of their ids.
pub async fn list_limits(db: &Db, page: &PageOf<CommandId>, filter: &LimitFilter) -> Result<Vec<Limit>, DbError> {
    let rows = sqlx::query(select_limit!(
        "WHERE ($1::uuid IS NULL OR limit_id > $1) AND ($2::text IS NULL OR participant = $2)
           AND ($3::text IS NULL OR state = $3) AND ($4::text IS NULL OR kind = $4)
           AND ($5::text IS NULL OR currency = $5) ORDER BY limit_id LIMIT $6"
    ))
    .bind(page.after.map(CommandId::uuid))
    .bind(filter.participant.map(|p| p.to_string()))
    .bind(filter.state.map(LimitState::as_str))
    .bind(filter.kind.map(LimitKind::as_str))
    .bind(filter.currency.map(|c| c.code().to_owned()))
    .bind(page.size)
    .fetch_all(db.pool())
    .await?;
    rows.iter().map(limit).collect()
}

/// A step of a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRow {
    /// Its number; later steps have higher ones.
    pub step: u64,
    /// The limit.
    pub limit_id: CommandId,
    /// The state that it led to.
    pub state: String,
    /// Who took it.
    pub by: String,
    /// The reason, the ledger's refusal, or the limit that took its place.
    pub note: String,
    /// When.
    pub at: Timestamp,
    /// What the limit limits.
    pub kind: LimitKind,
    /// Whom it limits.
    pub participant: Option<String>,
}

/// Which steps a list shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepFilter {
    /// Of this limit.
    pub limit_id: Option<CommandId>,
    /// Of limits of this participant.
    pub participant: Option<ParticipantId>,
    /// Of limits of this kind.
    pub kind: Option<LimitKind>,
}

/// A page of steps, the oldest first.
pub async fn list_steps(db: &Db, page: &PageOf<u64>, filter: &StepFilter) -> Result<Vec<StepRow>, DbError> {
    type Row = (i64, Uuid, String, String, String, i64, String, Option<String>);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT s.step, s.limit_id, s.state, s.by_user, s.note, s.at, l.kind, l.participant
         FROM limit_step s JOIN limits l USING (limit_id)
         WHERE s.step > $1 AND ($2::uuid IS NULL OR s.limit_id = $2) AND ($3::text IS NULL OR l.participant = $3)
           AND ($4::text IS NULL OR l.kind = $4) ORDER BY s.step LIMIT $5",
    )
    .bind(page.after.map_or(0, |step| i64::try_from(step).unwrap_or(i64::MAX)))
    .bind(filter.limit_id.map(CommandId::uuid))
    .bind(filter.participant.map(|p| p.to_string()))
    .bind(filter.kind.map(LimitKind::as_str))
    .bind(page.size)
    .fetch_all(db.pool())
    .await?;
    rows.into_iter()
        .map(|(step, id, state, by, note, at, kind, participant)| {
            let (step, limit_id, at) = (number(step)?, CommandId::new(id), Timestamp::from_micros(at));
            Ok(StepRow { step, limit_id, state, by, note, at, kind: kind_of(&kind)?, participant })
        })
        .collect()
}

/// Caps whose time has come and that are on their way to the ledger, in the order in which it came.
pub async fn caps_on_their_way(db: &Db, at: Timestamp) -> Result<Vec<Limit>, DbError> {
    let rows = sqlx::query(select_limit!(
        "WHERE state = 'APPROVED' AND kind = 'NET_DEBIT_CAP' AND due_at <= $1 ORDER BY due_at, approval LIMIT 1000"
    ))
    .bind(at.micros())
    .fetch_all(db.pool())
    .await?;
    rows.iter().map(limit).collect()
}

/// Other approved limits whose time has come, in the order in which it came. The gate's version must be
/// locked.
pub async fn due_limits(tx: &mut PgConnection, at: Timestamp) -> Result<Vec<Limit>, DbError> {
    let rows = sqlx::query(select_limit!(
        "WHERE state = 'APPROVED' AND kind <> 'NET_DEBIT_CAP' AND due_at <= $1
         ORDER BY due_at, approval LIMIT 1000 FOR UPDATE"
    ))
    .bind(at.micros())
    .fetch_all(tx)
    .await?;
    rows.iter().map(limit).collect()
}

/// Writes a limit's next state and records the step. What was in force for the same thing is superseded
/// where the limit comes into force.
pub async fn save_limit(
    tx: &mut PgConnection,
    next: &Limit,
    by: &str,
    note: &str,
    at: Timestamp,
) -> Result<(), DbError> {
    if next.state == LimitState::Active {
        supersede(tx, next, by, at).await?;
    }
    sqlx::query(
        "UPDATE limits SET state = $2, approved_by = $3, due_at = $4, effective_at = $5, approval = $6, refusal = $7,
                           ended_by = $8, ended_reason = $9 WHERE limit_id = $1",
    )
    .bind(next.proposal.limit_id.uuid())
    .bind(next.state.as_str())
    .bind(&next.approved_by)
    .bind(next.due_at.map(Timestamp::micros))
    .bind(next.effective_at.map(Timestamp::micros))
    .bind(next.approval as i64)
    .bind(&next.refusal)
    .bind(next.ended.as_ref().map(|e| &e.by))
    .bind(next.ended.as_ref().map(|e| &e.reason))
    .execute(&mut *tx)
    .await?;
    step(tx, next, by, note, at).await
}

async fn supersede(tx: &mut PgConnection, next: &Limit, by: &str, at: Timestamp) -> Result<(), DbError> {
    let key = next.proposal.key();
    sqlx::query(
        "WITH old AS (
             UPDATE limits SET state = 'SUPERSEDED'
             WHERE state = 'ACTIVE' AND kind = $1 AND coalesce(participant, '') = coalesce($2, '')
               AND coalesce(counterparty, '') = coalesce($3, '') AND coalesce(corridor, '') = coalesce($4, '')
               AND coalesce(currency, '') = coalesce($5, '')
             RETURNING limit_id)
         INSERT INTO limit_step (limit_id, state, by_user, note, at)
         SELECT limit_id, 'SUPERSEDED', $6, 'by ' || $7, $8 FROM old",
    )
    .bind(key.kind.as_str())
    .bind(key.participant.map(|p| p.to_string()))
    .bind(key.counterparty.map(|p| p.to_string()))
    .bind(key.corridor.map(|c| c.to_string()))
    .bind(key.currency.map(|c| c.code().to_owned()))
    .bind(by)
    .bind(next.proposal.limit_id.to_string())
    .bind(at.micros())
    .execute(tx)
    .await?;
    Ok(())
}
