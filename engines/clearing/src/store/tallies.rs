//! Rows of what was consumed.

use std::collections::BTreeMap;

use deltran_kernel::{Currency, Minor, TransactionId, WindowId};
use deltran_runtime::DbError;
use rust_decimal::Decimal;
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use super::{minor, number, read, to_bigint};
use crate::domain::netting::PairTotal;
use crate::domain::obligations::{RunningDigest, Taken, Tally};

/// What was counted of a window so far, for showing.
#[derive(Debug, Clone)]
pub struct Counted {
    /// Number of obligations.
    pub count: u64,
    /// Their sum.
    pub gross: Minor,
}

type Row = (Uuid, String, i64, Decimal, i64, i64, Vec<u8>);

fn tally((id, currency, count, gross, folded, highest, state): Row) -> Result<(WindowId, Tally), DbError> {
    let digest = RunningDigest::from_bytes(&state)
        .ok_or_else(|| DbError::corrupt(format!("the digest of window {id} cannot be read")))?;
    let tally = Tally {
        currency: read(&currency)?,
        count: number(count)?,
        gross: minor(gross)?,
        folded: number(folded)?,
        highest: number(highest)?,
        digest,
    };
    Ok((WindowId::new(id), tally))
}

/// The tallies of windows, locked in the order of ids.
pub async fn lock_tallies(tx: &mut PgConnection, ids: &[WindowId]) -> Result<BTreeMap<WindowId, Tally>, DbError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT window_id, currency, count, gross, folded, highest, digest_state FROM tally
         WHERE window_id = ANY($1) ORDER BY window_id FOR UPDATE",
    )
    .bind(ids)
    .fetch_all(tx)
    .await?;
    rows.into_iter().map(tally).collect()
}

/// The tally of one window.
pub async fn counted_of(db: impl PgExecutor<'_>, id: WindowId) -> Result<Option<Tally>, DbError> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT window_id, currency, count, gross, folded, highest, digest_state FROM tally WHERE window_id = $1",
    )
    .bind(id.uuid())
    .fetch_optional(db)
    .await?;
    row.map(|row| Ok(tally(row)?.1)).transpose()
}

/// Counts of many windows.
pub async fn counted(db: impl PgExecutor<'_>, ids: &[WindowId]) -> Result<BTreeMap<WindowId, Counted>, DbError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
    let rows: Vec<(Uuid, i64, Decimal)> =
        sqlx::query_as("SELECT window_id, count, gross FROM tally WHERE window_id = ANY($1)")
            .bind(ids)
            .fetch_all(db)
            .await?;
    rows.into_iter()
        .map(|(id, count, gross)| Ok((WindowId::new(id), Counted { count: number(count)?, gross: minor(gross)? })))
        .collect()
}

/// Windows that the ledger counts into and that no row here knows.
pub async fn orphans(pool: &PgPool) -> Result<Vec<WindowId>, DbError> {
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "SELECT window_id FROM tally t WHERE NOT EXISTS (SELECT 1 FROM clearing_window w WHERE w.window_id = t.window_id)
         ORDER BY window_id LIMIT 20",
    )
    .fetch_all(pool)
    .await?;
    Ok(ids.into_iter().map(WindowId::new).collect())
}

/// Obligations of windows that wait for those before them.
pub async fn waiting_of(
    tx: &mut PgConnection,
    ids: &[WindowId],
) -> Result<BTreeMap<WindowId, BTreeMap<u64, TransactionId>>, DbError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
    let rows: Vec<(Uuid, i64, Uuid)> = sqlx::query_as(
        "SELECT window_id, window_seq, transaction_id FROM pending_obligation WHERE window_id = ANY($1)",
    )
    .bind(ids)
    .fetch_all(tx)
    .await?;
    let mut waiting: BTreeMap<WindowId, BTreeMap<u64, TransactionId>> = BTreeMap::new();
    for (window, seq, transaction) in rows {
        waiting.entry(WindowId::new(window)).or_default().insert(number(seq)?, TransactionId::new(transaction));
    }
    Ok(waiting)
}

/// Stores what was counted: a fixed number of statements, whatever the size of the batch.
pub async fn store_taken(
    tx: &mut PgConnection,
    taken: &BTreeMap<WindowId, Taken>,
    pairs: &[(WindowId, Currency, PairTotal)],
) -> Result<(), DbError> {
    store_tallies(tx, taken).await?;
    store_waiting(tx, taken).await?;
    store_pairs(tx, pairs).await
}

async fn store_tallies(tx: &mut PgConnection, taken: &BTreeMap<WindowId, Taken>) -> Result<(), DbError> {
    let ids: Vec<Uuid> = taken.keys().map(|id| id.uuid()).collect();
    let tallies: Vec<&Tally> = taken.values().map(|t| &t.tally).collect();
    let numbers = |of: fn(&Tally) -> u64| tallies.iter().map(|t| to_bigint(of(t))).collect::<Result<Vec<i64>, _>>();
    sqlx::query(
        "INSERT INTO tally (window_id, currency, count, gross, folded, highest, digest_state)
         SELECT * FROM UNNEST($1::uuid[], $2::text[], $3::bigint[], $4::numeric[], $5::bigint[], $6::bigint[], $7::bytea[])
         ON CONFLICT (window_id) DO UPDATE SET count = EXCLUDED.count, gross = EXCLUDED.gross, folded = EXCLUDED.folded,
           highest = EXCLUDED.highest, digest_state = EXCLUDED.digest_state",
    )
    .bind(ids)
    .bind(tallies.iter().map(|t| t.currency.code()).collect::<Vec<_>>())
    .bind(numbers(|t| t.count)?)
    .bind(tallies.iter().map(|t| t.gross.to_decimal()).collect::<Vec<_>>())
    .bind(numbers(|t| t.folded)?)
    .bind(numbers(|t| t.highest)?)
    .bind(tallies.iter().map(|t| t.digest.to_bytes()).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}

async fn store_waiting(tx: &mut PgConnection, taken: &BTreeMap<WindowId, Taken>) -> Result<(), DbError> {
    let (mut ids, mut seqs, mut transactions) = (Vec::new(), Vec::new(), Vec::new());
    let (mut released_ids, mut released_seqs) = (Vec::new(), Vec::new());
    for (window, taken) in taken {
        for (seq, transaction) in &taken.waiting {
            ids.push(window.uuid());
            seqs.push(to_bigint(*seq)?);
            transactions.push(transaction.uuid());
        }
        for seq in &taken.released {
            released_ids.push(window.uuid());
            released_seqs.push(to_bigint(*seq)?);
        }
    }
    if !ids.is_empty() {
        sqlx::query(
            "INSERT INTO pending_obligation (window_id, window_seq, transaction_id)
             SELECT * FROM UNNEST($1::uuid[], $2::bigint[], $3::uuid[])",
        )
        .bind(ids)
        .bind(seqs)
        .bind(transactions)
        .execute(&mut *tx)
        .await?;
    }
    if !released_ids.is_empty() {
        sqlx::query(
            "DELETE FROM pending_obligation WHERE (window_id, window_seq) IN (SELECT * FROM UNNEST($1::uuid[], $2::bigint[]))",
        )
        .bind(released_ids)
        .bind(released_seqs)
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

async fn store_pairs(tx: &mut PgConnection, pairs: &[(WindowId, Currency, PairTotal)]) -> Result<(), DbError> {
    let counts = pairs.iter().map(|(.., p)| to_bigint(p.count)).collect::<Result<Vec<i64>, _>>()?;
    sqlx::query(
        "INSERT INTO obligation_total AS o (window_id, currency, payer, payee, count, gross)
         SELECT * FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::numeric[])
         ON CONFLICT (window_id, currency, payer, payee)
         DO UPDATE SET count = o.count + EXCLUDED.count, gross = o.gross + EXCLUDED.gross",
    )
    .bind(pairs.iter().map(|(window, ..)| window.uuid()).collect::<Vec<_>>())
    .bind(pairs.iter().map(|(_, currency, _)| currency.code()).collect::<Vec<_>>())
    .bind(pairs.iter().map(|(.., p)| p.payer.as_str()).collect::<Vec<_>>())
    .bind(pairs.iter().map(|(.., p)| p.payee.as_str()).collect::<Vec<_>>())
    .bind(counts)
    .bind(pairs.iter().map(|(.., p)| p.gross.to_decimal()).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}
