//! How far the events of each producer were applied.

use std::collections::BTreeMap;

use deltran_kernel::Timestamp;
use deltran_messaging::ranges::Ranges;
use deltran_messaging::received;
use deltran_runtime::DbError;
use sqlx::{PgConnection, PgExecutor};

use super::at;
use crate::domain::position::Position;

/// The consumers whose events are the read models.
const CONSUMERS: [&str; 3] =
    ["events_transactions_reporting", "events_clearing_reporting", "events_settlement_reporting"];

/// How far the ledger's events were applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// Every event up to this one.
    pub position: Position,
    /// When the last applied event happened; later ones may not be contiguous.
    pub last_at: Option<Timestamp>,
    /// Whether events are missing before the last one that was applied.
    pub gap: bool,
}

/// Per producer, the number up to which every event was applied.
pub async fn positions(db: impl PgExecutor<'_>) -> Result<BTreeMap<String, u64>, DbError> {
    let received = received(db, &CONSUMERS).await?;
    Ok(received.into_iter().map(|(producer, ranges)| (producer, ranges.contiguous())).collect())
}

/// How far the events of a source were applied. An epoch that is not whole hides the later ones.
pub async fn applied(db: impl PgExecutor<'_> + Copy, consumer: &'static str, source: &str) -> Result<Applied, DbError> {
    // Read before what was received, so that the event of that time is among those that are looked at for gaps.
    let last_at: Option<i64> = sqlx::query_scalar("SELECT max(last_at) FROM applied WHERE producer LIKE $1")
        .bind(format!("{source}/%"))
        .fetch_one(db)
        .await?;
    let mut epochs: BTreeMap<Position, Ranges> = BTreeMap::new();
    for (producer, ranges) in received(db, &[consumer]).await? {
        if let Some(epoch) = Position::of(source, &producer, 0) {
            epochs.insert(epoch, ranges);
        }
    }
    let mut applied = Applied { position: Position::default(), last_at: last_at.map(at), gap: false };
    for (epoch, ranges) in epochs {
        applied.position = Position { seq: ranges.contiguous(), ..epoch };
        if ranges.contiguous() < ranges.highest() {
            applied.gap = true;
            break;
        }
    }
    Ok(applied)
}

/// The time zone in which business days are counted, once something was.
pub async fn zone(db: impl PgExecutor<'_>) -> Result<Option<String>, DbError> {
    Ok(sqlx::query_scalar("SELECT time_zone FROM business_zone").fetch_optional(db).await?)
}

/// Fixes the time zone of business days with the first event that is counted; answers what it is.
pub async fn fix_zone(tx: &mut PgConnection, zone: &str) -> Result<String, DbError> {
    match self::zone(&mut *tx).await? {
        Some(fixed) if fixed == zone => Ok(fixed),
        _ => Ok(sqlx::query_scalar(
            "INSERT INTO business_zone (time_zone) VALUES ($1)
             ON CONFLICT (one) DO UPDATE SET time_zone = CASE
                 WHEN EXISTS (SELECT 1 FROM token_day) OR EXISTS (SELECT 1 FROM entry) THEN business_zone.time_zone
                 ELSE EXCLUDED.time_zone END
             RETURNING time_zone",
        )
        .bind(zone)
        .fetch_one(tx)
        .await?),
    }
}
