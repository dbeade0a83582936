//! Reading the ledger.

use std::collections::BTreeMap;

use deltran_kernel::Timestamp;
use deltran_messaging::consumer::{received, to_ranges};
use deltran_messaging::ranges::Ranges;
use deltran_runtime::{Db, DbError};
use sqlx::{FromRow, PgExecutor};
use uuid::Uuid;

use super::CONSUMER;
use super::cuts::Cuts;
use super::instant::Instant;
use crate::domain::check::StoredLeaf;
use crate::domain::leaf::Columns;
use crate::domain::report::Snapshot;

/// A row of the ledger.
#[derive(Debug, Clone, FromRow)]
pub struct Row {
    leaf_index: i64,
    leaf_hash: Vec<u8>,
    envelope: Vec<u8>,
    wrapped: bool,
    event_id: Option<Uuid>,
    subject: String,
    domain: String,
    event_type: String,
    occurred_at: Option<Instant>,
    source: String,
    participant_id: Option<String>,
    correlation_id: Option<String>,
    producer: Option<String>,
    producer_seq: Option<i64>,
    source_stream: String,
    source_sequence: i64,
    recorded_at: Instant,
    valid: bool,
    invalid_reason: Option<String>,
}

impl Row {
    /// As the core knows it. A negative number, which nothing here writes, becomes one that nothing has.
    pub fn stored(self, raw: Option<Vec<u8>>) -> StoredLeaf {
        let number = |n: i64| u64::try_from(n).unwrap_or(u64::MAX - 1);
        StoredLeaf {
            leaf_index: self.leaf_index,
            leaf_hash: self.leaf_hash,
            envelope: self.envelope,
            wrapped: self.wrapped,
            raw,
            subject: self.subject,
            columns: Columns {
                event_id: self.event_id,
                domain: self.domain,
                event_type: self.event_type,
                occurred_at: self.occurred_at.map(|at| at.0),
                source: self.source,
                participant_id: self.participant_id,
                correlation_id: self.correlation_id,
                producer: self.producer.zip(self.producer_seq.map(number)),
                invalid_reason: self.invalid_reason,
            },
            source_stream: self.source_stream,
            source_sequence: number(self.source_sequence),
            recorded_at: self.recorded_at.0,
            valid: self.valid,
        }
    }
}

/// What a list is limited to. Times are those of recording; `from` counts in, `to` does not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only this domain.
    pub domain: Option<String>,
    /// Only this type.
    pub event_type: Option<String>,
    /// Only this participant.
    pub participant: Option<String>,
    /// Only this correlation id.
    pub correlation_id: Option<String>,
    /// Recorded at or after.
    pub from: Option<Timestamp>,
    /// Recorded before.
    pub to: Option<Timestamp>,
}

/// The ledger, for reading.
#[derive(Clone)]
pub struct Ledger {
    db: Db,
}

impl Ledger {
    /// The ledger in a database.
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// Leaves after `after` that pass the filter, by index.
    pub async fn list(&self, filter: &Filter, after: Option<u64>, limit: i64) -> Result<Vec<StoredLeaf>, DbError> {
        let after = after.map_or(-1, |index| i64::try_from(index).unwrap_or(i64::MAX));
        // Planned for these values, so that the fitting index is used.
        let rows: Vec<Row> = sqlx::query_as(include_str!("list.sql"))
            .bind(after)
            .bind(limit)
            .bind(filter.domain.as_deref())
            .bind(filter.event_type.as_deref())
            .bind(filter.participant.as_deref())
            .bind(filter.correlation_id.as_deref())
            .bind(filter.from.map(Instant))
            .bind(filter.to.map(Instant))
            .persistent(false)
            .fetch_all(self.db.pool())
            .await?;
        Ok(rows.into_iter().map(|row| row.stored(None)).collect())
    }

    /// The leaf at an index.
    pub async fn at(&self, index: i64) -> Result<Option<StoredLeaf>, DbError> {
        let row: Option<Row> = sqlx::query_as("SELECT * FROM leaf WHERE leaf_index = $1")
            .bind(index)
            .fetch_optional(self.db.pool())
            .await?;
        Ok(row.map(|row| row.stored(None)))
    }

    /// The leaf of an event: where several have its id, a valid one before others, then the first.
    pub async fn by_event(&self, id: Uuid) -> Result<Option<StoredLeaf>, DbError> {
        let row: Option<Row> =
            sqlx::query_as("SELECT * FROM leaf WHERE event_id = $1 ORDER BY valid DESC, leaf_index LIMIT 1")
                .bind(id)
                .fetch_optional(self.db.pool())
                .await?;
        Ok(row.map(|row| row.stored(None)))
    }

    /// The highest n for which events 1 … n of a producer stand in the ledger.
    pub async fn confirmed_through(&self, producer: &str) -> Result<u64, DbError> {
        let rows = sqlx::query_as("SELECT producer, ranges FROM received WHERE consumer = $1 AND producer = $2")
            .bind(CONSUMER)
            .bind(producer)
            .fetch_all(self.db.pool())
            .await?;
        Ok(to_ranges(rows)?.get(producer).map_or(0, Ranges::contiguous))
    }

    /// Number, subject and exact bytes of a producer's events `from` to `to`, at most `limit`, in the order
    /// of numbers. Where a number stands more than once, its first leaf counts.
    pub async fn range(
        &self,
        producer: &str,
        from: u64,
        to: u64,
        limit: i64,
    ) -> Result<Vec<(u64, String, Vec<u8>)>, DbError> {
        let bound = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let rows: Vec<(i64, String, Vec<u8>)> = sqlx::query_as(
            "SELECT DISTINCT ON (producer_seq) producer_seq, subject, envelope FROM leaf
             WHERE producer = $1 AND producer_seq BETWEEN $2 AND $3 ORDER BY producer_seq, leaf_index LIMIT $4",
        )
        .bind(producer)
        .bind(bound(from))
        .bind(bound(to))
        .bind(limit)
        .fetch_all(self.db.pool())
        .await?;
        Ok(rows.into_iter().map(|(seq, subject, envelope)| (seq as u64, subject, envelope)).collect())
    }

    /// Leaves `from` up to but without `to`, with the bytes that wrappers stand for.
    pub async fn window(&self, from: i64, to: i64) -> Result<Vec<StoredLeaf>, DbError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT * FROM leaf WHERE leaf_index >= $1 AND leaf_index < $2 ORDER BY leaf_index, recorded_at",
        )
        .bind(from)
        .bind(to)
        .fetch_all(self.db.pool())
        .await?;
        let mut raw = BTreeMap::new();
        if rows.iter().any(|row| row.wrapped) {
            let found: Vec<(i64, Vec<u8>)> =
                sqlx::query_as("SELECT leaf_index, raw FROM leaf_raw WHERE leaf_index >= $1 AND leaf_index < $2")
                    .bind(from)
                    .bind(to)
                    .fetch_all(self.db.pool())
                    .await?;
            raw.extend(found);
        }
        Ok(rows.into_iter().map(|row| (raw.remove(&row.leaf_index), row)).map(|(raw, row)| row.stored(raw)).collect())
    }

    /// The first leaf of each of these event ids; -1 where it is that of an event without number that is archived.
    pub async fn first_with_ids(&self, ids: &[Uuid]) -> Result<BTreeMap<Uuid, i64>, DbError> {
        if ids.is_empty() {
            return Ok(BTreeMap::new());
        }
        let rows: Vec<(Uuid, i64)> = sqlx::query_as(
            "SELECT event_id, min(leaf_index) FROM (
                 SELECT event_id, leaf_index FROM leaf WHERE event_id = ANY($1)
                 UNION ALL
                 SELECT event_id, -1 FROM unnumbered WHERE event_id = ANY($1)
                     AND recorded_at < (SELECT (max(day) + 1)::timestamptz FROM ledger_cut)
             ) e GROUP BY event_id",
        )
        .bind(ids)
        .fetch_all(self.db.pool())
        .await?;
        Ok(rows.into_iter().collect())
    }

    /// Leaves, and how many of them are no valid events.
    pub async fn size(&self) -> Result<(u64, u64), DbError> {
        let (size, invalid): (i64, i64) =
            sqlx::query_as("SELECT size, invalid FROM log_head").fetch_one(self.db.pool()).await?;
        Ok((u64::try_from(size).map_err(DbError::corrupt)?, u64::try_from(invalid).map_err(DbError::corrupt)?))
    }

    /// The first leaf recorded at or after a moment; the size where there is none yet.
    pub async fn first_since(&self, at: Timestamp) -> Result<u64, DbError> {
        first_at_or_after(self.db.pool(), at).await
    }

    /// The first leaf recorded at or after a moment that is over: no leaf is recorded before it any more, because the
    /// head is moved there.
    pub async fn end_before(&self, at: Timestamp) -> Result<u64, DbError> {
        let mut tx = self.db.begin().await?;
        sqlx::query("SELECT FROM log_head FOR UPDATE").execute(&mut *tx).await?;
        sqlx::query("UPDATE log_head SET recorded_at = $1 WHERE recorded_at < $1")
            .bind(Instant(at))
            .execute(&mut *tx)
            .await?;
        let leaf = first_at_or_after(&mut *tx, at).await?;
        tx.commit().await?;
        Ok(leaf)
    }

    /// What the ledger's own tables say at one moment.
    pub async fn snapshot(&self) -> Result<Snapshot, DbError> {
        let mut tx = self.db.begin().await?;
        sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY").execute(&mut *tx).await?;
        let (size, invalid, conflicts): (i64, i64, i64) =
            sqlx::query_as("SELECT size, invalid, conflicts FROM log_head").fetch_one(&mut *tx).await?;
        let bounds: (Option<i64>, Option<i64>) =
            sqlx::query_as("SELECT min(leaf_index), max(leaf_index) FROM leaf").fetch_one(&mut *tx).await?;
        let producers = received(&mut *tx, &[CONSUMER]).await?;
        let streams: Vec<(String, Vec<i64>)> =
            sqlx::query_as("SELECT stream, ranges FROM stream_received").fetch_all(&mut *tx).await?;
        let cut = Cuts::read(&mut tx).await?;
        let holes: Vec<(String, Vec<i64>)> =
            sqlx::query_as("SELECT stream, ranges FROM stream_hole").fetch_all(&mut *tx).await?;
        tx.commit().await?;
        let count = |n: i64| u64::try_from(n).map_err(DbError::corrupt);
        Ok(Snapshot {
            size: count(size)?,
            invalid: count(invalid)?,
            conflicts: count(conflicts)?,
            bounds: bounds.0.zip(bounds.1),
            producers,
            streams: to_ranges(streams)?,
            cut,
            holes: to_ranges(holes)?,
        })
    }
}

async fn first_at_or_after(from: impl PgExecutor<'_>, at: Timestamp) -> Result<u64, DbError> {
    let leaf: i64 = sqlx::query_scalar(
        "SELECT coalesce((SELECT min(leaf_index) FROM leaf WHERE recorded_at >= $1), (SELECT size FROM log_head))",
    )
    .bind(Instant(at))
    .fetch_one(from)
    .await?;
    u64::try_from(leaf).map_err(DbError::corrupt)
}
