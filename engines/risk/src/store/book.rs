//! Rows of what is counted: a fixed number of statements for a batch, whatever its size.

use std::collections::BTreeMap;

use deltran_kernel::TransactionId;
use deltran_runtime::{Db, DbError};
use rust_decimal::Decimal;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{decimal, money, number, parsed, uuids};
use crate::domain::count::{Payment, Sums, Waiting};
use crate::domain::scope::Scope;
use crate::domain::trigger::{Decisions, History};

/// What a batch adds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    /// The sums.
    pub sums: Sums,
    /// Transactions that are HELD or RESERVED after it; none where one no longer is.
    pub waiting: BTreeMap<TransactionId, Option<Waiting>>,
}

/// The next version of the book, which is locked until the transaction ends: batches are counted one after
/// another.
pub async fn next_version(tx: &mut PgConnection) -> Result<u64, DbError> {
    let version: i64 =
        sqlx::query_scalar("UPDATE book SET version = version + 1 RETURNING version").fetch_one(tx).await?;
    number(version)
}

/// Those of these transactions that are HELD or RESERVED.
pub async fn waiting_of(
    tx: &mut PgConnection,
    ids: &[TransactionId],
) -> Result<BTreeMap<TransactionId, Waiting>, DbError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
    let rows: Vec<WaitingRow> = sqlx::query_as(
        "SELECT transaction_id, payer, payee, currency, amount, gross, reserved FROM waiting
         WHERE transaction_id = ANY($1)",
    )
    .bind(ids)
    .fetch_all(tx)
    .await?;
    rows.into_iter().map(waiting).collect()
}

pub(super) type WaitingRow = (Uuid, String, String, String, Decimal, bool, bool);

pub(super) fn waiting(row: WaitingRow) -> Result<(TransactionId, Waiting), DbError> {
    let (id, payer, payee, currency, amount, gross, reserved) = row;
    let payment = Payment { payer: parsed(&payer)?, payee: parsed(&payee)?, amount: money(&currency, amount)? };
    Ok((TransactionId::new(id), Waiting { payment, gross, reserved }))
}

/// Adds a batch.
pub async fn count(tx: &mut PgConnection, version: u64, counted: &Counted) -> Result<(), DbError> {
    let sums = &counted.sums;
    windows(tx, version, sums).await?;
    members(tx, version, sums).await?;
    pairs(tx, version, sums).await?;
    corridors(tx, version, sums).await?;
    decided(tx, version, sums).await?;
    set_waiting(tx, &counted.waiting).await
}

async fn windows(tx: &mut PgConnection, version: u64, sums: &Sums) -> Result<(), DbError> {
    if sums.windows.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = sums.windows.values().collect();
    let gross = rows.iter().map(|w| decimal(w.gross)).collect::<Result<Vec<_>, _>>()?;
    sqlx::query(
        "INSERT INTO window_book AS w (window_id, currency, count, gross, sealed, settled, version)
         SELECT u.*, $7 FROM UNNEST($1::uuid[], $2::text[], $3::bigint[], $4::numeric[], $5::bool[], $6::bool[]) u
         ON CONFLICT (window_id) DO UPDATE SET count = w.count + excluded.count, gross = w.gross + excluded.gross,
             sealed = w.sealed OR excluded.sealed, settled = w.settled OR excluded.settled, version = excluded.version",
    )
    .bind(uuids(sums.windows.keys().copied()))
    .bind(rows.iter().map(|w| w.currency.code()).collect::<Vec<_>>())
    .bind(rows.iter().map(|w| w.count as i64).collect::<Vec<_>>())
    .bind(gross)
    .bind(rows.iter().map(|w| w.sealed).collect::<Vec<_>>())
    .bind(rows.iter().map(|w| w.settled).collect::<Vec<_>>())
    .bind(version as i64)
    .execute(tx)
    .await?;
    Ok(())
}

async fn members(tx: &mut PgConnection, version: u64, sums: &Sums) -> Result<(), DbError> {
    if sums.members.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = sums.members.values().collect();
    sqlx::query(
        "INSERT INTO window_member AS m (window_id, participant, sent, received, sent_count, received_count, version)
         SELECT u.*, $7 FROM UNNEST($1::uuid[], $2::text[], $3::numeric[], $4::numeric[], $5::bigint[], $6::bigint[]) u
         ON CONFLICT (window_id, participant) DO UPDATE SET sent = m.sent + excluded.sent,
             received = m.received + excluded.received, sent_count = m.sent_count + excluded.sent_count,
             received_count = m.received_count + excluded.received_count, version = excluded.version",
    )
    .bind(uuids(sums.members.keys().map(|(window, _)| *window)))
    .bind(sums.members.keys().map(|(_, participant)| participant.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|m| decimal(m.sent)).collect::<Result<Vec<_>, _>>()?)
    .bind(rows.iter().map(|m| decimal(m.received)).collect::<Result<Vec<_>, _>>()?)
    .bind(rows.iter().map(|m| m.sent_count as i64).collect::<Vec<_>>())
    .bind(rows.iter().map(|m| m.received_count as i64).collect::<Vec<_>>())
    .bind(version as i64)
    .execute(tx)
    .await?;
    Ok(())
}

async fn pairs(tx: &mut PgConnection, version: u64, sums: &Sums) -> Result<(), DbError> {
    if sums.pairs.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO window_pair AS p (window_id, payer, payee, gross, count, version)
         SELECT u.*, $6 FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::numeric[], $5::bigint[]) u
         ON CONFLICT (window_id, payer, payee) DO UPDATE SET gross = p.gross + excluded.gross,
             count = p.count + excluded.count, version = excluded.version",
    )
    .bind(uuids(sums.pairs.keys().map(|(window, ..)| *window)))
    .bind(sums.pairs.keys().map(|(_, payer, _)| payer.as_str()).collect::<Vec<_>>())
    .bind(sums.pairs.keys().map(|(.., payee)| payee.as_str()).collect::<Vec<_>>())
    .bind(sums.pairs.values().map(|f| decimal(f.gross)).collect::<Result<Vec<_>, _>>()?)
    .bind(sums.pairs.values().map(|f| f.count as i64).collect::<Vec<_>>())
    .bind(version as i64)
    .execute(tx)
    .await?;
    Ok(())
}

async fn corridors(tx: &mut PgConnection, version: u64, sums: &Sums) -> Result<(), DbError> {
    if sums.corridors.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO corridor_hour AS c (hour, corridor, currency, gross, count, version)
         SELECT u.*, $6 FROM UNNEST($1::bigint[], $2::text[], $3::text[], $4::numeric[], $5::bigint[]) u
         ON CONFLICT (hour, corridor, currency) DO UPDATE SET gross = c.gross + excluded.gross,
             count = c.count + excluded.count, version = excluded.version",
    )
    .bind(sums.corridors.keys().map(|(.., hour)| *hour).collect::<Vec<_>>())
    .bind(sums.corridors.keys().map(|(corridor, ..)| corridor.to_string()).collect::<Vec<_>>())
    .bind(sums.corridors.keys().map(|(_, currency, _)| currency.code()).collect::<Vec<_>>())
    .bind(sums.corridors.values().map(|f| decimal(f.gross)).collect::<Result<Vec<_>, _>>()?)
    .bind(sums.corridors.values().map(|f| f.count as i64).collect::<Vec<_>>())
    .bind(version as i64)
    .execute(tx)
    .await?;
    Ok(())
}

async fn decided(tx: &mut PgConnection, version: u64, sums: &Sums) -> Result<(), DbError> {
    if sums.decisions.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO decision AS d (bucket, scope, accepted, refused, version)
         SELECT u.*, $5 FROM UNNEST($1::bigint[], $2::text[], $3::bigint[], $4::bigint[]) u
         ON CONFLICT (bucket, scope) DO UPDATE SET accepted = d.accepted + excluded.accepted,
             refused = d.refused + excluded.refused, version = excluded.version",
    )
    .bind(sums.decisions.keys().map(|(bucket, _)| *bucket).collect::<Vec<_>>())
    .bind(sums.decisions.keys().map(|(_, scope)| scope.to_string()).collect::<Vec<_>>())
    .bind(sums.decisions.values().map(|d| d.accepted as i64).collect::<Vec<_>>())
    .bind(sums.decisions.values().map(|d| d.refused as i64).collect::<Vec<_>>())
    .bind(version as i64)
    .execute(tx)
    .await?;
    Ok(())
}

async fn set_waiting(tx: &mut PgConnection, waiting: &BTreeMap<TransactionId, Option<Waiting>>) -> Result<(), DbError> {
    let over: Vec<Uuid> = waiting.iter().filter(|(_, w)| w.is_none()).map(|(id, _)| id.uuid()).collect();
    if !over.is_empty() {
        sqlx::query("DELETE FROM waiting WHERE transaction_id = ANY($1)").bind(over).execute(&mut *tx).await?;
    }
    let rows: Vec<(Uuid, &Waiting)> = waiting.iter().filter_map(|(id, w)| Some((id.uuid(), w.as_ref()?))).collect();
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO waiting (transaction_id, payer, payee, currency, amount, gross, reserved)
         SELECT * FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::text[], $5::numeric[], $6::bool[], $7::bool[])
         ON CONFLICT (transaction_id) DO UPDATE SET reserved = excluded.reserved",
    )
    .bind(rows.iter().map(|(id, _)| *id).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, w)| w.payment.payer.to_string()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, w)| w.payment.payee.to_string()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, w)| w.payment.currency().code().to_owned()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, w)| w.payment.amount.minor().to_decimal()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, w)| w.gross).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, w)| w.reserved).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}

/// Decisions by scope that are newer than a version, from a bucket on, with the version of the book. All of
/// them where the database was restored to an earlier version.
pub async fn decisions(db: &Db, newer: u64, from: i64) -> Result<(u64, BTreeMap<Scope, History>), DbError> {
    let mut tx = db.begin().await?;
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").execute(&mut *tx).await?;
    let version: i64 = sqlx::query_scalar("SELECT version FROM book").fetch_one(&mut *tx).await?;
    let version = number(version)?;
    let mut found: BTreeMap<Scope, History> = BTreeMap::new();
    if version != newer {
        let rows: Vec<(i64, String, i64, i64)> =
            sqlx::query_as("SELECT bucket, scope, accepted, refused FROM decision WHERE bucket >= $1 AND version > $2")
                .bind(from)
                .bind(if version < newer { 0 } else { newer as i64 })
                .fetch_all(&mut *tx)
                .await?;
        for (bucket, scope, accepted, refused) in rows {
            let decisions = Decisions { accepted: number(accepted)?, refused: number(refused)? };
            found.entry(parsed(&scope)?).or_default().insert(bucket, decisions);
        }
    }
    tx.commit().await?;
    Ok((version, found))
}

/// Deletes flows and decisions that count nowhere any more, and what participants owed in windows that are
/// settled. The windows themselves stay.
pub async fn forget(tx: &mut PgConnection, hour: i64, bucket: i64) -> Result<(), DbError> {
    sqlx::query("DELETE FROM corridor_hour WHERE hour < $1").bind(hour).execute(&mut *tx).await?;
    sqlx::query("DELETE FROM decision WHERE bucket < $1").bind(bucket).execute(&mut *tx).await?;
    for statement in [
        "DELETE FROM window_pair p USING window_book w WHERE w.window_id = p.window_id AND w.settled",
        "DELETE FROM window_member m USING window_book w WHERE w.window_id = m.window_id AND w.settled",
    ] {
        sqlx::query(statement).execute(&mut *tx).await?;
    }
    Ok(())
}
