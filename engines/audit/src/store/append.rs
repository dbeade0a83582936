//! Appending: a batch of leaves in one transaction, with a fixed number of statements.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use deltran_kernel::Timestamp;
use deltran_messaging::consumer::{texts, to_ranges};
use deltran_messaging::ranges::Ranges;
use deltran_runtime::DbError;
use sqlx::PgConnection;
use uuid::Uuid;

use super::instant::Instant;
use crate::domain::LeafHash;
use crate::domain::merkle::Frontier;
use crate::domain::sequence::{Arrival, Known, Placed, note_positions, sequence, streams_of};

/// What a batch left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Appended {
    /// New leaves.
    pub leaves: u64,
    /// New leaves that contradict an earlier one.
    pub conflicts: u64,
    /// Leaves of the whole ledger.
    pub size: u64,
    /// Of these, invalid ones.
    pub invalid: u64,
}

/// Makes the partitions of `days` days from the day of `at` on, as far as they are missing.
pub async fn ensure_partitions(tx: &mut PgConnection, at: Timestamp, days: i32) -> Result<i32, DbError> {
    Ok(sqlx::query_scalar("SELECT ensure_partitions(($1::timestamptz AT TIME ZONE 'UTC')::date, $2)")
        .bind(Instant(at))
        .bind(days)
        .fetch_one(tx)
        .await?)
}

/// Appends what is new among `arrivals`, in their order, and grows the tree over it. The caller holds the
/// lease and commits. The partition of `now` must be there.
pub async fn append(tx: &mut PgConnection, arrivals: &[Arrival<'_>], now: Timestamp) -> Result<Appended, DbError> {
    let head = Head::lock(&mut *tx).await?;
    let recorded_at = now.max(head.recorded_at);
    let known = known(&mut *tx, arrivals, recorded_at).await?;
    let mut received = received(&mut *tx, streams_of(arrivals).into_iter().collect()).await?;
    note_positions(arrivals, &mut received);
    note_received(&mut *tx, &received).await?;
    let mut new = New::default();
    let leaves = sequence(arrivals, &known).inspect(|placed| new.count(placed));
    let leaves = super::leaves::insert(&mut *tx, head.size as i64, recorded_at, leaves).await?;
    let appended =
        Appended { leaves, conflicts: new.conflicts, size: head.size + leaves, invalid: head.invalid + new.invalid };
    if leaves == 0 {
        return Ok(appended);
    }
    insert_raw(&mut *tx, head.size as i64, recorded_at, &new.raw).await?;
    super::tree::grow(&mut *tx, head.frontier, head.size, &new.hashes).await?;
    sqlx::query("UPDATE log_head SET size = $1, recorded_at = $2, invalid = $3, conflicts = conflicts + $4")
        .bind(appended.size as i64)
        .bind(Instant(recorded_at))
        .bind(appended.invalid as i64)
        .bind(appended.conflicts as i64)
        .execute(tx)
        .await?;
    Ok(appended)
}

/// Where the ledger and its tree end.
struct Head {
    size: u64,
    recorded_at: Timestamp,
    invalid: u64,
    frontier: Frontier,
}

impl Head {
    /// Held until the end of the transaction, so that nobody else appends.
    async fn lock(tx: &mut PgConnection) -> Result<Self, DbError> {
        let (size, recorded_at, invalid, tree, frontier): (i64, Instant, i64, i64, Vec<u8>) = sqlx::query_as(
            "SELECT h.size, h.recorded_at, h.invalid, t.size, t.frontier FROM log_head h, tree_head t FOR UPDATE",
        )
        .fetch_one(tx)
        .await?;
        Ok(Self {
            size: u64::try_from(size).map_err(DbError::corrupt)?,
            recorded_at: recorded_at.0,
            invalid: u64::try_from(invalid).map_err(DbError::corrupt)?,
            frontier: super::tree::frontier_of(tree, &frontier)?,
        })
    }
}

/// What the leaves of a batch leave behind for the tables beside theirs.
#[derive(Default)]
struct New {
    hashes: Vec<LeafHash>,
    /// Messages that a wrapper stands for, by the place of their leaf in the batch.
    raw: Vec<(i64, Bytes)>,
    invalid: u64,
    conflicts: u64,
}

impl New {
    fn count(&mut self, placed: &Placed) {
        if let Some(raw) = &placed.leaf.raw {
            self.raw.push((self.hashes.len() as i64, raw.clone()));
        }
        self.hashes.push(placed.leaf.hash);
        self.invalid += u64::from(!placed.leaf.is_valid());
        self.conflicts += u64::from(placed.conflict);
    }
}

/// Looks up what this batch may meet. Batches of new, numbered events ask nothing.
async fn known(tx: &mut PgConnection, arrivals: &[Arrival<'_>], recorded_at: Timestamp) -> Result<Known, DbError> {
    let mut known = Known::default();
    let repeated: BTreeSet<&(String, u64)> =
        arrivals.iter().filter(|a| a.duplicate).filter_map(|a| a.producer).collect();
    if !repeated.is_empty() {
        let producers: Vec<&str> = repeated.iter().map(|(producer, _)| producer.as_str()).collect();
        let seqs: Vec<i64> = repeated.iter().map(|(_, seq)| *seq as i64).collect();
        let rows: Vec<(String, i64, Vec<u8>)> = sqlx::query_as(
            "SELECT l.producer, l.producer_seq, l.leaf_hash
             FROM UNNEST($1::text[], $2::bigint[]) AS r (producer, producer_seq)
             JOIN leaf l ON l.producer = r.producer AND l.producer_seq = r.producer_seq",
        )
        .bind(producers)
        .bind(seqs)
        .fetch_all(&mut *tx)
        .await?;
        for (producer, seq, hash) in rows {
            known.numbered.entry((producer, seq as u64)).or_default().push(leaf_hash(hash)?);
        }
    }
    let keys: BTreeSet<_> = arrivals.iter().filter_map(Arrival::unnumbered_key).collect();
    if !keys.is_empty() {
        let ids: Vec<Uuid> = keys.iter().map(|(id, _, _)| *id).collect();
        let hashes: Vec<&[u8]> = keys.iter().map(|(_, hash, _)| hash.as_slice()).collect();
        let wrapped: Vec<bool> = keys.iter().map(|(_, _, wrapped)| *wrapped).collect();
        let new: Vec<(Uuid, Vec<u8>, bool)> = sqlx::query_as(
            "INSERT INTO unnumbered (event_id, leaf_hash, wrapped, recorded_at)
             SELECT k.*, $4 FROM UNNEST($1::uuid[], $2::bytea[], $3::bool[]) AS k
             ON CONFLICT DO NOTHING RETURNING event_id, leaf_hash, wrapped",
        )
        .bind(&ids)
        .bind(hashes)
        .bind(wrapped)
        .bind(Instant(recorded_at))
        .fetch_all(&mut *tx)
        .await?;
        let new = new.into_iter().map(|(id, hash, wrapped)| Ok((id, leaf_hash(hash)?, wrapped)));
        let new: BTreeSet<_> = new.collect::<Result<_, DbError>>()?;
        known.unnumbered = keys.difference(&new).copied().collect();
        // Also where the leaf is archived.
        let taken: Vec<Uuid> = sqlx::query_scalar(
            "SELECT event_id FROM leaf WHERE event_id = ANY($1)
             UNION
             SELECT event_id FROM unnumbered WHERE event_id = ANY($1)
                 AND recorded_at < (SELECT (max(day) + 1)::timestamptz FROM ledger_cut)",
        )
        .bind(ids.into_iter().filter(|id| !id.is_nil()).collect::<Vec<_>>())
        .fetch_all(&mut *tx)
        .await?;
        known.ids = taken.into_iter().collect();
    }
    Ok(known)
}

/// What was received of streams, as far as anything was. Whoever adds to it holds `log_head`.
pub(super) async fn received(tx: &mut PgConnection, streams: Vec<String>) -> Result<BTreeMap<String, Ranges>, DbError> {
    let rows: Vec<(String, Vec<i64>)> =
        sqlx::query_as("SELECT stream, ranges FROM stream_received WHERE stream = ANY($1)")
            .bind(streams)
            .fetch_all(tx)
            .await?;
    to_ranges(rows)
}

/// Notes what was received of streams.
pub(super) async fn note_received(tx: &mut PgConnection, received: &BTreeMap<String, Ranges>) -> Result<(), DbError> {
    let (streams, ranges) = texts(received);
    sqlx::query(
        "INSERT INTO stream_received (stream, ranges)
         SELECT r.stream, r.ranges::bigint[] FROM UNNEST($1::text[], $2::text[]) AS r (stream, ranges)
         ON CONFLICT (stream) DO UPDATE SET ranges = EXCLUDED.ranges",
    )
    .bind(streams)
    .bind(ranges)
    .execute(tx)
    .await?;
    Ok(())
}

async fn insert_raw(
    tx: &mut PgConnection,
    first: i64,
    recorded_at: Timestamp,
    raw: &[(i64, Bytes)],
) -> Result<(), DbError> {
    if raw.is_empty() {
        return Ok(());
    }
    let (indexes, raw): (Vec<i64>, Vec<&[u8]>) = raw.iter().map(|(place, raw)| (first + place, raw.as_ref())).unzip();
    sqlx::query(
        "INSERT INTO leaf_raw (leaf_index, recorded_at, raw)
         SELECT r.leaf_index, $3, r.raw FROM UNNEST($1::bigint[], $2::bytea[]) AS r (leaf_index, raw)",
    )
    .bind(indexes)
    .bind(raw)
    .bind(Instant(recorded_at))
    .execute(tx)
    .await?;
    Ok(())
}

/// A leaf hash as it is stored.
pub(super) fn leaf_hash(stored: Vec<u8>) -> Result<LeafHash, DbError> {
    stored.try_into().map_err(|_| DbError::corrupt("a leaf hash does not have 32 bytes"))
}
