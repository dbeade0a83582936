//! Facts of clearing and of settlement: windows, netting sets, settled batches.

use deltran_events::data::clearing::WindowState;
use deltran_kernel::{BatchId, Currency, Minor, NettingSetId, ParticipantId, Timestamp, WindowId};
use deltran_runtime::DbError;
use sqlx::PgConnection;
use uuid::Uuid;

use super::apply::applied_at;
use super::bigint;

/// A frozen netting set.
#[derive(Debug, Clone)]
pub struct Netted {
    pub id: NettingSetId,
    pub currency: Currency,
    pub windows: Vec<WindowId>,
    pub count: u64,
    pub gross: Minor,
    pub moved: Minor,
    pub efficiency: u32,
    pub participants: u32,
    pub largest_debtor: Option<ParticipantId>,
    pub digest: String,
    pub at: Timestamp,
}

/// A settled batch.
#[derive(Debug, Clone)]
pub struct SettledBatch {
    pub id: BatchId,
    pub set: NettingSetId,
    pub windows: Vec<WindowId>,
    pub currency: Currency,
    pub moved: Minor,
    pub final_at: Timestamp,
}

/// What some of clearing's events say.
#[derive(Debug, Clone, Default)]
pub struct ClearingFacts {
    /// Windows: state, and with the opening their schedule and time; with netting their set. In order.
    pub windows: Vec<WindowFact>,
    /// Netting sets that were frozen.
    pub sets: Vec<Netted>,
}

/// A change of a window: its id, currency and state, its schedule and opening time, its netting set.
pub type WindowFact = (WindowId, Currency, WindowState, Option<(String, Timestamp)>, Option<NettingSetId>);

fn uuids(windows: &[WindowId]) -> Vec<Uuid> {
    windows.iter().map(|w| w.uuid()).collect()
}

/// Writes what clearing's events say.
pub async fn apply_clearing(
    tx: &mut PgConnection,
    facts: &ClearingFacts,
    producer: &str,
    last_at: Timestamp,
) -> Result<(), DbError> {
    for (window, currency, state, opened, set) in &facts.windows {
        sqlx::query(
            "INSERT INTO clearing_window AS w (window_id, currency, state, schedule, opened_at, netting_set_id)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (window_id) DO UPDATE SET state = EXCLUDED.state,
                 schedule = coalesce(EXCLUDED.schedule, w.schedule),
                 opened_at = coalesce(EXCLUDED.opened_at, w.opened_at),
                 netting_set_id = coalesce(EXCLUDED.netting_set_id, w.netting_set_id)",
        )
        .bind(window.uuid())
        .bind(currency.code())
        .bind(state.as_str())
        .bind(opened.as_ref().map(|(schedule, _)| schedule.as_str()))
        .bind(opened.as_ref().map(|(_, at)| at.micros()))
        .bind(set.map(NettingSetId::uuid))
        .execute(&mut *tx)
        .await?;
    }
    for set in &facts.sets {
        sqlx::query(
            "INSERT INTO netting_set (netting_set_id, currency, window_ids, count, gross, moved, efficiency, participants,
                                      largest_debtor, digest, netted_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(set.id.uuid())
        .bind(set.currency.code())
        .bind(uuids(&set.windows))
        .bind(bigint(set.count)?)
        .bind(set.gross.to_decimal())
        .bind(set.moved.to_decimal())
        .bind(i32::try_from(set.efficiency).map_err(DbError::corrupt)?)
        .bind(i32::try_from(set.participants).map_err(DbError::corrupt)?)
        .bind(set.largest_debtor.map(|d| d.to_string()))
        .bind(&set.digest)
        .bind(set.at.micros())
        .execute(&mut *tx)
        .await?;
    }
    applied_at(tx, producer, last_at).await
}

/// Writes settled batches.
pub async fn apply_settled(
    tx: &mut PgConnection,
    batches: &[SettledBatch],
    producer: &str,
    last_at: Timestamp,
) -> Result<(), DbError> {
    for batch in batches {
        sqlx::query(
            "INSERT INTO settled_batch (batch_id, netting_set_id, window_ids, currency, moved, final_at)
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(batch.id.uuid())
        .bind(batch.set.uuid())
        .bind(uuids(&batch.windows))
        .bind(batch.currency.code())
        .bind(batch.moved.to_decimal())
        .bind(batch.final_at.micros())
        .execute(&mut *tx)
        .await?;
    }
    applied_at(tx, producer, last_at).await
}
