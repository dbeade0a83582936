//! SQL of the allow-list.

use deltran_kernel::{AllowanceId, Timestamp};
use deltran_runtime::wire::PageOf;
use deltran_runtime::{Db, DbError};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::domain::allowance::{Allowance, AllowanceState, Revoked};
use crate::domain::list::Source;

macro_rules! select_allowance {
    ($rest:literal) => {
        concat!(
            "SELECT a.allowance_id, a.name, a.normal, a.source, a.entry_id, a.reason, a.added_by, a.added_at,
                    a.expires_at, e.revoked_by, e.revoked_at, e.reason AS revoke_reason
             FROM allowance a LEFT JOIN allowance_end e USING (allowance_id) ",
            $rest
        )
    };
}

fn allowance(row: &PgRow) -> Result<Allowance, DbError> {
    let word: String = row.try_get("source")?;
    let revoked_by: Option<String> = row.try_get("revoked_by")?;
    let revoked = match revoked_by {
        None => None,
        Some(by) => Some(Revoked {
            by,
            at: Timestamp::from_micros(row.try_get("revoked_at")?),
            reason: row.try_get("revoke_reason")?,
        }),
    };
    Ok(Allowance {
        allowance_id: AllowanceId::new(row.try_get("allowance_id")?),
        name: row.try_get("name")?,
        normal: row.try_get("normal")?,
        source: Source::from_word(&word).ok_or_else(|| DbError::corrupt(format!("list source {word:?}")))?,
        entry_id: row.try_get("entry_id")?,
        reason: row.try_get("reason")?,
        added_by: row.try_get("added_by")?,
        added_at: Timestamp::from_micros(row.try_get("added_at")?),
        expires_at: Timestamp::from_micros(row.try_get("expires_at")?),
        revoked,
    })
}

/// Locks the allow-list until the transaction ends.
pub async fn lock_allow_list(tx: &mut PgConnection) -> Result<(), DbError> {
    sqlx::query("SELECT revision FROM allow_list FOR UPDATE").fetch_one(tx).await?;
    Ok(())
}

/// An allowance.
pub async fn find_allowance(tx: &mut PgConnection, id: AllowanceId) -> Result<Option<Allowance>, DbError> {
    let row = sqlx::query(select_allowance!("WHERE a.allowance_id = $1")).bind(id.uuid()).fetch_optional(tx).await?;
    row.as_ref().map(allowance).transpose()
}

/// All allowances that may still count at `now`.
pub async fn allowances_in_force(db: &Db, now: Timestamp) -> Result<Vec<Allowance>, DbError> {
    let rows = sqlx::query(select_allowance!("WHERE e.allowance_id IS NULL AND a.expires_at > $1"))
        .bind(now.micros())
        .fetch_all(db.pool())
        .await?;
    rows.iter().map(allowance).collect()
}

/// A page of allowances, in the order of their ids, of one state at `now` or of all.
pub async fn list_allowances(
    db: &Db,
    page: &PageOf<AllowanceId>,
    state: Option<AllowanceState>,
    now: Timestamp,
) -> Result<Vec<Allowance>, DbError> {
    let rows = sqlx::query(select_allowance!(
        "WHERE ($1::uuid IS NULL OR a.allowance_id > $1)
           AND ($2::text IS NULL OR $2 = CASE WHEN e.allowance_id IS NOT NULL THEN 'REVOKED'
                                              WHEN a.expires_at <= $3 THEN 'EXPIRED' ELSE 'ACTIVE' END)
         ORDER BY a.allowance_id LIMIT $4"
    ))
    .bind(page.after.map(AllowanceId::uuid))
    .bind(state.map(AllowanceState::as_str))
    .bind(now.micros())
    .bind(page.size)
    .fetch_all(db.pool())
    .await?;
    rows.iter().map(allowance).collect()
}

/// Writes a new allowance.
pub async fn insert_allowance(tx: &mut PgConnection, new: &Allowance) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO allowance (allowance_id, name, normal, source, entry_id, reason, added_by, added_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(new.allowance_id.uuid())
    .bind(&new.name)
    .bind(&new.normal)
    .bind(new.source.as_str())
    .bind(&new.entry_id)
    .bind(&new.reason)
    .bind(&new.added_by)
    .bind(new.added_at.micros())
    .bind(new.expires_at.micros())
    .execute(&mut *tx)
    .await?;
    touch(tx).await
}

/// Writes that an allowance was taken back.
pub async fn end_allowance(tx: &mut PgConnection, id: AllowanceId, revoked: &Revoked) -> Result<(), DbError> {
    sqlx::query("INSERT INTO allowance_end (allowance_id, revoked_by, revoked_at, reason) VALUES ($1, $2, $3, $4)")
        .bind(id.uuid())
        .bind(&revoked.by)
        .bind(revoked.at.micros())
        .bind(&revoked.reason)
        .execute(&mut *tx)
        .await?;
    touch(tx).await
}

async fn touch(tx: &mut PgConnection) -> Result<(), DbError> {
    sqlx::query("UPDATE allow_list SET revision = revision + 1").execute(tx).await?;
    Ok(())
}
