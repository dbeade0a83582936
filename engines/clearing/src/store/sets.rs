//! Rows of sealed positions, pair totals and netting sets.

use std::collections::BTreeMap;

use deltran_kernel::{Currency, Minor, NettingSetId, ParticipantId, Timestamp, WindowId};
use deltran_runtime::DbError;
use futures::TryStreamExt;
use rust_decimal::Decimal;
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::{digest, minor, number, read, to_bigint};
use crate::domain::netting::{Bilateral, NettingSet, PairTotal};

/// A frozen set as it is stored.
#[derive(Debug, Clone)]
pub struct StoredSet {
    /// Its id.
    pub id: NettingSetId,
    /// Its content.
    pub set: NettingSet,
    /// When it was frozen.
    pub netted_at: Timestamp,
}

/// Pair totals of windows of one currency, grouped by payer.
pub async fn pairs_of(db: impl PgExecutor<'_>, windows: &[WindowId]) -> Result<Vec<PairTotal>, DbError> {
    let ids: Vec<Uuid> = windows.iter().map(|id| id.uuid()).collect();
    let mut rows = sqlx::query_as::<_, (String, String, i64, Decimal)>(
        "SELECT payer, payee, count, gross FROM obligation_total WHERE window_id = ANY($1)
         ORDER BY window_id, currency, payer, payee",
    )
    .bind(ids)
    .fetch(db);
    let mut pairs = Vec::new();
    while let Some((payer, payee, count, gross)) = rows.try_next().await? {
        pairs.push(PairTotal {
            payer: read(&payer)?,
            payee: read(&payee)?,
            count: number(count)?,
            gross: minor(gross)?,
        });
    }
    Ok(pairs)
}

fn positions(rows: Vec<(String, Decimal)>) -> Result<BTreeMap<ParticipantId, Minor>, DbError> {
    rows.into_iter().map(|(participant, net)| Ok((read(&participant)?, minor(net)?))).collect()
}

/// The ledger's net per participant of a sealed window.
pub mod sealed_positions {
    use super::*;

    /// Stores them with the seal.
    pub async fn store(
        tx: &mut PgConnection,
        window: WindowId,
        net: &BTreeMap<ParticipantId, Minor>,
    ) -> Result<(), DbError> {
        sqlx::query(
            "INSERT INTO sealed_position (window_id, participant, net) SELECT $1, * FROM UNNEST($2::text[], $3::numeric[])",
        )
        .bind(window.uuid())
        .bind(net.keys().map(ParticipantId::as_str).collect::<Vec<_>>())
        .bind(net.values().map(|n| n.to_decimal()).collect::<Vec<_>>())
        .execute(tx)
        .await?;
        Ok(())
    }

    /// Reads them.
    pub async fn load(db: impl PgExecutor<'_>, window: WindowId) -> Result<BTreeMap<ParticipantId, Minor>, DbError> {
        let rows: Vec<(String, Decimal)> =
            sqlx::query_as("SELECT participant, net FROM sealed_position WHERE window_id = $1")
                .bind(window.uuid())
                .fetch_all(db)
                .await?;
        positions(rows)
    }
}

/// Freezes a set.
pub async fn insert_set(
    tx: &mut PgConnection,
    id: NettingSetId,
    set: &NettingSet,
    at: Timestamp,
) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO netting_set (netting_set_id, currency, count, gross, moved, efficiency, largest_debtor,
           bilateral_moved, bilateral_legs, digest, netted_at_us)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(id.uuid())
    .bind(set.currency.code())
    .bind(to_bigint(set.count)?)
    .bind(set.gross.to_decimal())
    .bind(set.moved.to_decimal())
    .bind(set.efficiency as i32)
    .bind(set.largest_debtor.map(|p| p.to_string()))
    .bind(set.bilateral.moved.to_decimal())
    .bind(to_bigint(set.bilateral.legs)?)
    .bind(set.digest.to_vec())
    .bind(at.micros())
    .execute(&mut *tx)
    .await?;
    sqlx::query("INSERT INTO netting_set_window (netting_set_id, window_id) SELECT $1, UNNEST($2::uuid[])")
        .bind(id.uuid())
        .bind(set.windows.iter().map(|w| w.uuid()).collect::<Vec<_>>())
        .execute(&mut *tx)
        .await?;
    sqlx::query("INSERT INTO net_position (netting_set_id, participant, net) SELECT $1, * FROM UNNEST($2::text[], $3::numeric[])")
        .bind(id.uuid())
        .bind(set.positions.keys().map(ParticipantId::as_str).collect::<Vec<_>>())
        .bind(set.positions.values().map(|n| n.to_decimal()).collect::<Vec<_>>())
        .execute(&mut *tx)
        .await?;
    Ok(())
}

type SetRow = (String, i64, Decimal, Decimal, i32, Option<String>, Decimal, i64, Vec<u8>, i64);

/// A set by its id.
pub async fn set(tx: &mut PgConnection, id: NettingSetId) -> Result<Option<StoredSet>, DbError> {
    let row: Option<SetRow> = sqlx::query_as(
        "SELECT currency, count, gross, moved, efficiency, largest_debtor, bilateral_moved, bilateral_legs, digest, netted_at_us
         FROM netting_set WHERE netting_set_id = $1",
    )
    .bind(id.uuid())
    .fetch_optional(&mut *tx)
    .await?;
    let Some((currency, count, gross, moved, efficiency, debtor, bilateral_moved, legs, bytes, at)) = row else {
        return Ok(None);
    };
    let set = NettingSet {
        currency: read(&currency)?,
        windows: windows_of_set(&mut *tx, id).await?.into_iter().collect(),
        count: number(count)?,
        gross: minor(gross)?,
        moved: minor(moved)?,
        efficiency: u32::try_from(efficiency).map_err(DbError::corrupt)?,
        positions: positions_of_set(&mut *tx, id).await?,
        largest_debtor: debtor.as_deref().map(read).transpose()?,
        bilateral: Bilateral { moved: minor(bilateral_moved)?, legs: number(legs)? },
        digest: digest(bytes)?,
    };
    Ok(Some(StoredSet { id, set, netted_at: Timestamp::from_micros(at) }))
}

/// The windows that a set covers; none where there is no such set.
pub async fn windows_of_set(db: impl PgExecutor<'_>, id: NettingSetId) -> Result<Vec<WindowId>, DbError> {
    let ids: Vec<Uuid> =
        sqlx::query_scalar("SELECT window_id FROM netting_set_window WHERE netting_set_id = $1 ORDER BY window_id")
            .bind(id.uuid())
            .fetch_all(db)
            .await?;
    Ok(ids.into_iter().map(WindowId::new).collect())
}

/// The net positions of a set.
pub async fn positions_of_set(
    db: impl PgExecutor<'_>,
    id: NettingSetId,
) -> Result<BTreeMap<ParticipantId, Minor>, DbError> {
    let rows: Vec<(String, Decimal)> =
        sqlx::query_as("SELECT participant, net FROM net_position WHERE netting_set_id = $1")
            .bind(id.uuid())
            .fetch_all(db)
            .await?;
    positions(rows)
}

/// The currency of a set, where there is one of this id.
pub async fn currency_of_set(db: impl PgExecutor<'_>, id: NettingSetId) -> Result<Option<Currency>, DbError> {
    let code: Option<String> = sqlx::query_scalar("SELECT currency FROM netting_set WHERE netting_set_id = $1")
        .bind(id.uuid())
        .fetch_optional(db)
        .await?;
    code.as_deref().map(read).transpose()
}
