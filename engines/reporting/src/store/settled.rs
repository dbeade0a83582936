//! What is known of windows, netting sets and batches.

use std::collections::BTreeMap;

use deltran_kernel::{BatchId, NettingSetId, ParticipantId, PostingGroupId, Timestamp, WindowId};
use deltran_runtime::DbError;
use futures::TryStreamExt;
use rust_decimal::Decimal;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{at, currency, minor, number, read};
use crate::domain::book::{Flow, Sealed};
use crate::domain::settled::{BatchFacts, Leg, PostedBy, SetFacts, WindowFacts};

/// What the ledger's events tell of a window. The digest of its payments is computed once they are all there.
pub async fn window_facts(tx: &mut PgConnection, id: WindowId) -> Result<Option<WindowFacts>, DbError> {
    type Row = (
        String,
        i64,
        Decimal,
        Option<i64>,
        Option<Decimal>,
        Option<String>,
        Option<i64>,
        Option<String>,
        Option<Uuid>,
        Option<i64>,
    );
    let row: Option<Row> = sqlx::query_as(
        "SELECT currency, count, gross, sealed_count, sealed_gross, sealed_digest, sealed_at, digest, group_id, posted_at
         FROM ledger_window WHERE window_id = $1",
    )
    .bind(id.uuid())
    .fetch_optional(&mut *tx)
    .await?;
    let Some((code, count, gross, sealed_count, sealed_gross, sealed_digest, sealed_at, digest, group, posted)) = row
    else {
        return Ok(None);
    };
    let sealed = match (sealed_count, sealed_gross, sealed_digest, sealed_at) {
        (Some(count), Some(gross), Some(digest), Some(sealed_at)) => Some(Sealed {
            window: id,
            currency: currency(&code)?,
            count: number(count)?,
            gross: minor(gross)?,
            digest,
            at: at(sealed_at),
        }),
        _ => None,
    };
    let mut facts = WindowFacts {
        count: number(count)?,
        gross: minor(gross)?,
        sealed,
        posted: group.zip(posted).map(|(group, posted)| PostedBy { group: PostingGroupId::new(group), at: at(posted) }),
        digest,
        flows: flows_of(&mut *tx, id).await?,
    };
    if facts.digest.is_none() && facts.sealed.as_ref().is_some_and(|sealed| sealed.count == facts.count) {
        facts.digest = Some(digest_of(tx, id).await?);
    }
    Ok(Some(facts))
}

async fn flows_of(tx: &mut PgConnection, id: WindowId) -> Result<BTreeMap<ParticipantId, Flow>, DbError> {
    let rows: Vec<(String, i64, Decimal, i64, Decimal)> =
        sqlx::query_as("SELECT participant, paid_count, paid, received_count, received FROM flow WHERE window_id = $1")
            .bind(id.uuid())
            .fetch_all(tx)
            .await?;
    rows.into_iter()
        .map(|(who, paid_count, paid, received_count, received)| {
            let flow = Flow {
                paid_count: number(paid_count)?,
                paid: minor(paid)?,
                received_count: number(received_count)?,
                received: minor(received)?,
            };
            Ok((read(&who)?, flow))
        })
        .collect()
}

/// SHA-256 over the ids of a window's payments in their order, kept for the next time.
async fn digest_of(tx: &mut PgConnection, id: WindowId) -> Result<String, DbError> {
    let mut digest = Sha256::new();
    let mut ids = sqlx::query_scalar::<_, Uuid>("SELECT id FROM entry WHERE window_id = $1 ORDER BY window_seq")
        .bind(id.uuid())
        .fetch(&mut *tx);
    while let Some(payment) = ids.try_next().await? {
        digest.update(payment.as_bytes());
    }
    drop(ids);
    let digest = hex::encode(digest.finalize());
    sqlx::query("UPDATE ledger_window SET digest = $2 WHERE window_id = $1 AND digest IS NULL")
        .bind(id.uuid())
        .bind(&digest)
        .execute(tx)
        .await?;
    Ok(digest)
}

/// The netting set that a window is in, the latest where it was netted again.
pub async fn set_of_window(tx: &mut PgConnection, id: WindowId) -> Result<Option<NettingSetId>, DbError> {
    let set: Option<Option<Uuid>> =
        sqlx::query_scalar("SELECT netting_set_id FROM clearing_window WHERE window_id = $1")
            .bind(id.uuid())
            .fetch_optional(tx)
            .await?;
    Ok(set.flatten().map(NettingSetId::new))
}

/// A netting set.
pub async fn netting_set(tx: &mut PgConnection, id: NettingSetId) -> Result<Option<SetFacts>, DbError> {
    type Row = (String, Vec<Uuid>, i64, Decimal, Decimal, i32, i32, Option<String>, String, i64);
    let row: Option<Row> = sqlx::query_as(
        "SELECT currency, window_ids, count, gross, moved, efficiency, participants, largest_debtor, digest, netted_at
         FROM netting_set WHERE netting_set_id = $1",
    )
    .bind(id.uuid())
    .fetch_optional(tx)
    .await?;
    let Some((code, windows, count, gross, moved, efficiency, participants, debtor, digest, netted_at)) = row else {
        return Ok(None);
    };
    Ok(Some(SetFacts {
        id,
        currency: currency(&code)?,
        windows: windows.into_iter().map(WindowId::new).collect(),
        count: number(count)?,
        gross: minor(gross)?,
        moved: minor(moved)?,
        efficiency: u32::try_from(efficiency).map_err(DbError::corrupt)?,
        participants: u32::try_from(participants).map_err(DbError::corrupt)?,
        largest_debtor: debtor.map(|who| read(&who)).transpose()?,
        digest,
        netted_at: at(netted_at),
    }))
}

/// The settled batch of a netting set.
pub async fn batch_of(tx: &mut PgConnection, set: NettingSetId) -> Result<Option<BatchFacts>, DbError> {
    let row: Option<(Uuid, Vec<Uuid>, Decimal, i64)> =
        sqlx::query_as("SELECT batch_id, window_ids, moved, final_at FROM settled_batch WHERE netting_set_id = $1")
            .bind(set.uuid())
            .fetch_optional(tx)
            .await?;
    let Some((id, windows, moved, final_at)) = row else { return Ok(None) };
    Ok(Some(BatchFacts {
        id: BatchId::new(id),
        windows: windows.into_iter().map(WindowId::new).collect(),
        moved: minor(moved)?,
        final_at: at(final_at),
    }))
}

/// The windows that a posting settled.
pub async fn windows_of_group(tx: &mut PgConnection, group: PostingGroupId) -> Result<Vec<WindowId>, DbError> {
    let windows: Option<Vec<Uuid>> = sqlx::query_scalar("SELECT window_ids FROM posted_group WHERE group_id = $1")
        .bind(group.uuid())
        .fetch_optional(tx)
        .await?;
    Ok(windows.unwrap_or_default().into_iter().map(WindowId::new).collect())
}

/// When clearing opened a window.
pub async fn opened_at(tx: &mut PgConnection, id: WindowId) -> Result<Option<Timestamp>, DbError> {
    let opened: Option<Option<i64>> = sqlx::query_scalar("SELECT opened_at FROM clearing_window WHERE window_id = $1")
        .bind(id.uuid())
        .fetch_optional(tx)
        .await?;
    Ok(opened.flatten().map(at))
}

/// The legs of a posted settlement.
pub async fn legs_of(tx: &mut PgConnection, group: PostingGroupId) -> Result<BTreeMap<ParticipantId, Leg>, DbError> {
    let rows: Vec<(String, Decimal, Decimal)> =
        sqlx::query_as("SELECT participant, net, given_back FROM settled_leg WHERE group_id = $1")
            .bind(group.uuid())
            .fetch_all(tx)
            .await?;
    rows.into_iter()
        .map(|(who, net, back)| Ok((read(&who)?, Leg { net: minor(net)?, given_back: minor(back)? })))
        .collect()
}
