//! SQL of the holds and their steps.

use std::collections::BTreeSet;

use deltran_kernel::{HoldId, Timestamp, TransactionId};
use deltran_runtime::wire::PageOf;
use deltran_runtime::{Db, DbError};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::domain::hold::{Basis, Hold, HoldState};

macro_rules! select_hold {
    ($rest:literal) => {
        concat!(
            "SELECT hold_id, transaction_id, payer, state, evidence, matched_name, proposed_by, decided_by, reason,
                    placed_at, screened_at, outcome, score, list_versions, rule_version, matches FROM hold ",
            $rest
        )
    };
}

/// A hold to be placed, with the evidence.
#[derive(Debug, Clone)]
pub struct NewHold {
    /// The hold as it begins.
    pub hold: Hold,
    /// What it is placed on.
    pub basis: Basis,
}

/// Places holds with one statement; returns which of them are new, and those that their transactions had already, now
/// locked. `holds` name each transaction once and are in its order.
pub async fn place_holds(
    tx: &mut PgConnection,
    holds: &[NewHold],
) -> Result<(Vec<HoldId>, Vec<(Hold, Basis)>), DbError> {
    let placed: Vec<(Uuid,)> = sqlx::query_as(
        "INSERT INTO hold AS h (hold_id, transaction_id, payer, state, evidence, score, list_versions, rule_version,
                                matched_name, matches, placed_at, screened_at)
         SELECT hold_id, transaction_id, payer, 'PLACED', evidence, score, string_to_array(list_versions, ' '),
                rule_version, matched_name, matches, at, at
         FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::integer[], $6::text[], $7::text[], $8::text[],
                     $9::text[], $10::bigint[])
           AS n (hold_id, transaction_id, payer, evidence, score, list_versions, rule_version, matched_name, matches, at)
         ON CONFLICT (transaction_id) WHERE outcome IS DISTINCT FROM 'NOT_FOUND' DO UPDATE
           SET screened_at = GREATEST(h.screened_at, excluded.screened_at)
         RETURNING hold_id",
    )
    .bind(holds.iter().map(|n| n.hold.hold_id.uuid()).collect::<Vec<_>>())
    .bind(holds.iter().map(|n| n.hold.transaction_id.uuid()).collect::<Vec<_>>())
    .bind(holds.iter().map(|n| n.hold.payer.map(|p| p.to_string())).collect::<Vec<_>>())
    .bind(holds.iter().map(|n| n.hold.evidence.as_str()).collect::<Vec<_>>())
    .bind(holds.iter().map(|n| n.basis.score as i32).collect::<Vec<_>>())
    .bind(holds.iter().map(|n| n.basis.list_versions.join(" ")).collect::<Vec<_>>())
    .bind(holds.iter().map(|n| n.basis.rule_version.as_str()).collect::<Vec<_>>())
    .bind(holds.iter().map(|n| n.hold.matched_name.as_str()).collect::<Vec<_>>())
    .bind(holds.iter().map(|n| n.basis.matches.as_str()).collect::<Vec<_>>())
    .bind(holds.iter().map(|n| n.hold.placed_at.micros()).collect::<Vec<_>>())
    .fetch_all(&mut *tx)
    .await?;
    // A hold that existed comes back under its own id.
    let made: BTreeSet<Uuid> = holds.iter().map(|n| n.hold.hold_id.uuid()).collect();
    let (ids, there): (Vec<Uuid>, Vec<Uuid>) = placed.into_iter().map(|(id,)| id).partition(|id| made.contains(id));
    sqlx::query(
        "INSERT INTO hold_step (hold_id, state, by_user, reason, at)
         SELECT hold_id, state, 'compliance-engine', evidence, placed_at FROM hold WHERE hold_id = ANY($1) ORDER BY hold_id",
    )
    .bind(&ids)
    .execute(&mut *tx)
    .await?;
    let rows = if there.is_empty() {
        Vec::new()
    } else {
        sqlx::query(select_hold!("WHERE hold_id = ANY($1) ORDER BY hold_id")).bind(&there).fetch_all(tx).await?
    };
    let there = rows.iter().map(|row| Ok((hold(row)?, basis(row)?))).collect::<Result<_, DbError>>()?;
    Ok((ids.into_iter().map(HoldId::new).collect(), there))
}

/// Writes what a hold is placed on now, beside [`save_hold`] or instead of it.
pub async fn save_basis(tx: &mut PgConnection, hold: &Hold, basis: &Basis) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE hold SET evidence = $2, matched_name = $3, score = $4, list_versions = $5, rule_version = $6, matches = $7
         WHERE hold_id = $1",
    )
    .bind(hold.hold_id.uuid())
    .bind(&hold.evidence)
    .bind(&hold.matched_name)
    .bind(basis.score as i32)
    .bind(&basis.list_versions)
    .bind(&basis.rule_version)
    .bind(&basis.matches)
    .execute(tx)
    .await?;
    Ok(())
}

fn hold(row: &PgRow) -> Result<Hold, DbError> {
    let state: String = row.try_get("state")?;
    let payer: Option<String> = row.try_get("payer")?;
    Ok(Hold {
        hold_id: HoldId::new(row.try_get("hold_id")?),
        transaction_id: TransactionId::new(row.try_get("transaction_id")?),
        payer: payer.map(|p| p.parse().map_err(DbError::corrupt)).transpose()?,
        state: HoldState::from_word(&state).ok_or_else(|| DbError::corrupt(format!("hold state {state:?}")))?,
        evidence: row.try_get("evidence")?,
        matched_name: row.try_get("matched_name")?,
        proposed_by: row.try_get("proposed_by")?,
        decided_by: row.try_get("decided_by")?,
        reason: row.try_get("reason")?,
        placed_at: Timestamp::from_micros(row.try_get("placed_at")?),
        screened_at: Timestamp::from_micros(row.try_get("screened_at")?),
        outcome: row.try_get("outcome")?,
    })
}

fn basis(row: &PgRow) -> Result<Basis, DbError> {
    Ok(Basis {
        score: u32::try_from(row.try_get::<i32, _>("score")?).map_err(DbError::corrupt)?,
        list_versions: row.try_get("list_versions")?,
        rule_version: row.try_get("rule_version")?,
        matches: row.try_get("matches")?,
    })
}

/// A hold, locked until the transaction ends.
pub async fn lock_hold(tx: &mut PgConnection, id: HoldId) -> Result<Option<Hold>, DbError> {
    let row = sqlx::query(select_hold!("WHERE hold_id = $1 FOR UPDATE")).bind(id.uuid()).fetch_optional(tx).await?;
    row.as_ref().map(hold).transpose()
}

/// A hold.
pub async fn find_hold(db: &Db, id: HoldId) -> Result<Option<Hold>, DbError> {
    let row = sqlx::query(select_hold!("WHERE hold_id = $1")).bind(id.uuid()).fetch_optional(db.pool()).await?;
    row.as_ref().map(hold).transpose()
}

/// A hold with what it was placed on.
pub async fn find_hold_with_basis(db: &Db, id: HoldId) -> Result<Option<(Hold, Basis)>, DbError> {
    let row = sqlx::query(select_hold!("WHERE hold_id = $1")).bind(id.uuid()).fetch_optional(db.pool()).await?;
    row.map(|row| Ok((hold(&row)?, basis(&row)?))).transpose()
}

/// A page of holds, oldest first, of one state or of all.
pub async fn list_holds(db: &Db, page: &PageOf<HoldId>, state: Option<HoldState>) -> Result<Vec<Hold>, DbError> {
    let rows = sqlx::query(select_hold!(
        "WHERE ($1::uuid IS NULL OR hold_id > $1) AND ($2::text IS NULL OR state = $2) ORDER BY hold_id LIMIT $3"
    ))
    .bind(page.after.map(HoldId::uuid))
    .bind(state.map(HoldState::as_str))
    .bind(page.size)
    .fetch_all(db.pool())
    .await?;
    rows.iter().map(hold).collect()
}

/// Holds that two officers decided and the ledger has not answered yet, oldest decision first.
pub async fn holds_under_way(db: &Db) -> Result<Vec<Hold>, DbError> {
    let rows =
        sqlx::query(select_hold!("WHERE state IN ('RELEASING', 'REJECTING') ORDER BY decided_at, hold_id LIMIT 1000"))
            .fetch_all(db.pool())
            .await?;
    rows.iter().map(hold).collect()
}

/// Writes a hold's next state and records the step.
pub async fn save_hold(tx: &mut PgConnection, next: &Hold, by: &str, at: Timestamp) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE hold SET state = $2, proposed_by = $3, decided_by = $4, reason = $5, outcome = $6,
                         decided_at = CASE WHEN $2 IN ('RELEASING', 'REJECTING') THEN $7 ELSE decided_at END
         WHERE hold_id = $1",
    )
    .bind(next.hold_id.uuid())
    .bind(next.state.as_str())
    .bind(&next.proposed_by)
    .bind(&next.decided_by)
    .bind(&next.reason)
    .bind(&next.outcome)
    .bind(at.micros())
    .execute(&mut *tx)
    .await?;
    sqlx::query("INSERT INTO hold_step (hold_id, state, by_user, reason, at) VALUES ($1, $2, $3, $4, $5)")
        .bind(next.hold_id.uuid())
        .bind(next.state.as_str())
        .bind(by)
        .bind(&next.reason)
        .bind(at.micros())
        .execute(tx)
        .await?;
    Ok(())
}
