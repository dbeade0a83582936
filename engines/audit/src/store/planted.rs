//! A large ledger for measurements: the whole tree through the code that grows every tree, and only those of its leaves
//! that will be asked for. `verify` finds the others missing.

use bytes::Bytes;
use deltran_events::Envelope;
use deltran_kernel::Timestamp;
use deltran_messaging::producer_of;
use deltran_runtime::{Db, DbError};

use super::append::ensure_partitions;
use super::{leaves, tree};
use crate::domain::sequence::Placed;
use crate::domain::{Leaf, LeafHash};

/// A leaf to be planted: its place, and the message.
#[derive(Debug, Clone)]
pub struct Seedling {
    /// Its index.
    pub index: u64,
    /// The subject it was published on.
    pub subject: String,
    /// Its bytes.
    pub payload: Bytes,
}

/// Grows the tree by these hashes in one transaction, as an append does.
///
/// # Errors
/// Where the tree has another size than `first`.
pub async fn grow_tree(db: &Db, first: u64, leaves: &[LeafHash]) -> Result<(), DbError> {
    let mut tx = db.begin().await?;
    let frontier = tree::frontier_in(&mut *tx).await?;
    tree::grow(&mut tx, frontier, first, leaves).await?;
    tx.commit().await
}

/// Stores some leaves of a ledger whose tree has `size` leaves, and says that it has them all.
///
/// # Errors
/// Where the ledger has leaves already.
pub async fn plant(db: &Db, size: u64, at: Timestamp, seedlings: &[Seedling]) -> Result<(), DbError> {
    let mut tx = db.begin().await?;
    let before: i64 = sqlx::query_scalar("SELECT size FROM log_head FOR UPDATE").fetch_one(&mut *tx).await?;
    if before != 0 {
        return Err(DbError::Other(format!("the ledger has {before} leaves: only an empty one is planted")));
    }
    ensure_partitions(&mut tx, at, 1).await?;
    for seedling in seedlings {
        let decoded = Envelope::decode(&seedling.subject, &seedling.payload);
        let producer = producer_of(&seedling.subject, &seedling.payload, decoded.as_ref().ok().map(|(e, _)| e));
        let leaf = std::sync::Arc::new(Leaf::of(&seedling.subject, &seedling.payload, &decoded, producer.as_ref()));
        let origin = ("AUDIT".to_owned(), seedling.index + 1);
        let index = i64::try_from(seedling.index).map_err(DbError::corrupt)?;
        let placed = Placed { leaf, origin, key: None, conflict: false };
        leaves::insert(&mut tx, index, at, std::iter::once(placed)).await?;
    }
    sqlx::query("UPDATE log_head SET size = $1, recorded_at = $2")
        .bind(i64::try_from(size).map_err(DbError::corrupt)?)
        .bind(super::instant::Instant(at))
        .execute(&mut *tx)
        .await?;
    tx.commit().await
}
