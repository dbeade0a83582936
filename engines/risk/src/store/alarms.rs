//! Rows of alarms that ring.

use std::collections::BTreeSet;

use deltran_events::data::risk::LimitKind;
use deltran_kernel::{Currency, ParticipantId, Timestamp};
use deltran_runtime::{Db, DbError};
use sqlx::PgConnection;

use super::parsed;

/// A threshold of what limits a participant, perhaps towards a counterparty, in a currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alarm {
    /// NET_DEBIT_CAP or BILATERAL.
    pub kind: LimitKind,
    /// Whom it limits.
    pub participant: ParticipantId,
    /// Towards whom.
    pub counterparty: Option<ParticipantId>,
    /// In which currency.
    pub currency: Currency,
    /// In ten-thousandths.
    pub threshold: u32,
}

/// Every alarm that rings.
pub async fn alarms(db: &Db) -> Result<BTreeSet<Alarm>, DbError> {
    let rows: Vec<(String, String, String, String, i32)> =
        sqlx::query_as("SELECT kind, participant, counterparty, currency, threshold FROM alarm")
            .fetch_all(db.pool())
            .await?;
    rows.into_iter()
        .map(|(kind, participant, counterparty, currency, threshold)| {
            Ok(Alarm {
                kind: LimitKind::from_word(&kind).ok_or_else(|| DbError::corrupt(format!("limit kind {kind:?}")))?,
                participant: parsed(&participant)?,
                counterparty: Some(counterparty).filter(|c| !c.is_empty()).as_deref().map(parsed).transpose()?,
                currency: parsed(&currency)?,
                threshold: u32::try_from(threshold).map_err(DbError::corrupt)?,
            })
        })
        .collect()
}

/// Writes alarms that ring from now on, and those that no longer do.
pub async fn set_alarms(tx: &mut PgConnection, changes: &[(Alarm, bool)], at: Timestamp) -> Result<(), DbError> {
    for (alarm, rings) in changes {
        let statement = if *rings {
            "INSERT INTO alarm (kind, participant, counterparty, currency, threshold, since)
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING"
        } else {
            "DELETE FROM alarm WHERE kind = $1 AND participant = $2 AND counterparty = $3 AND currency = $4
               AND threshold = $5 AND since <= $6"
        };
        sqlx::query(statement)
            .bind(alarm.kind.as_str())
            .bind(alarm.participant.to_string())
            .bind(alarm.counterparty.map(|c| c.to_string()).unwrap_or_default())
            .bind(alarm.currency.code())
            .bind(alarm.threshold as i32)
            .bind(at.micros())
            .execute(&mut *tx)
            .await?;
    }
    Ok(())
}
