//! What is known of the streams, and what is done about those that the broker forgot.

use std::collections::BTreeMap;

use deltran_kernel::Timestamp;
use deltran_messaging::consumer::to_ranges;
use deltran_messaging::ranges::Ranges;
use deltran_messaging::stored::{StoredMessage, StreamState};
use deltran_runtime::{Db, DbError};
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::{FromRow, PgConnection};

use super::append::{note_received, received};
use super::instant::Instant;
use crate::domain::keep::Known;

/// A stream at the last look, with what it is made anew from.
#[derive(Debug, Clone, PartialEq)]
pub struct KnownStream {
    /// What it was.
    pub known: Known,
    /// How it was configured.
    pub config: Option<Value>,
}

#[derive(FromRow)]
struct Row {
    stream: String,
    created: String,
    highest: i64,
    highest_at: Option<Instant>,
    first: Option<i64>,
    first_at: Option<Instant>,
    config: String,
}

/// What the ledger's database knows of streams.
#[derive(Clone)]
pub struct Streams {
    db: Db,
}

impl Streams {
    /// In a database.
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// Every stream that was seen.
    pub async fn known(&self) -> Result<BTreeMap<String, KnownStream>, DbError> {
        let rows: Vec<Row> =
            sqlx::query_as("SELECT stream, created, highest, highest_at, first, first_at, config FROM stream_known")
                .fetch_all(self.db.pool())
                .await?;
        Ok(rows
            .into_iter()
            .map(|row| {
                let first = row.first.map(|n| n as u64).zip(row.first_at.map(|at| at.0));
                let (highest, highest_at) = (row.highest as u64, row.highest_at.map(|at| at.0));
                let known = Known { created: row.created, highest, highest_at, first };
                (row.stream, KnownStream { known, config: serde_json::from_str(&row.config).ok() })
            })
            .collect())
    }

    /// The highest sequence of each stream that came to this engine, and where streams are known to be empty.
    pub async fn received(&self) -> Result<(BTreeMap<String, u64>, BTreeMap<String, Ranges>), DbError> {
        let mut highest: BTreeMap<String, u64> = BTreeMap::new();
        let rows: Vec<(String, i64)> = sqlx::query_as(
            "SELECT stream, ranges[cardinality(ranges)] FROM stream_received WHERE cardinality(ranges) > 0
             UNION ALL SELECT 'DEADLETTERS', coalesce(max(dead_letter_id), 0) FROM dead_letter",
        )
        .fetch_all(self.db.pool())
        .await?;
        for (stream, last) in rows {
            highest.insert(stream, last as u64);
        }
        let holes: Vec<(String, Vec<i64>)> =
            sqlx::query_as("SELECT stream, ranges FROM stream_hole").fetch_all(self.db.pool()).await?;
        Ok((highest, to_ranges(holes)?))
    }

    /// Notes how a stream is now.
    pub async fn note(tx: &mut PgConnection, stream: &str, state: &StreamState) -> Result<(), DbError> {
        let first = state.first_at.map(|_| state.first_sequence as i64);
        sqlx::query(
            "INSERT INTO stream_known (stream, created, highest, highest_at, first, first_at, config)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (stream) DO UPDATE SET created = EXCLUDED.created, highest = EXCLUDED.highest,
                 highest_at = EXCLUDED.highest_at, first = EXCLUDED.first, first_at = EXCLUDED.first_at, config = EXCLUDED.config",
        )
        .bind(stream)
        .bind(&state.created)
        .bind(state.last_sequence as i64)
        .bind(state.last_at.map(Instant))
        .bind(first)
        .bind(state.first_at.map(Instant))
        .bind(state.config.to_string())
        .execute(tx)
        .await?;
        Ok(())
    }

    /// Notes that a stream that copies others was made anew when the ledger had so many leaves.
    pub async fn anew(tx: &mut PgConnection, stream: &str) -> Result<(), DbError> {
        sqlx::query("UPDATE stream_known SET since_leaf = (SELECT size FROM log_head) WHERE stream = $1")
            .bind(stream)
            .execute(tx)
            .await?;
        Ok(())
    }

    /// From which leaf on streams are expected to hold what others do.
    pub async fn since(&self) -> Result<BTreeMap<String, u64>, DbError> {
        let rows: Vec<(String, i64)> =
            sqlx::query_as("SELECT stream, since_leaf FROM stream_known").fetch_all(self.db.pool()).await?;
        Ok(rows.into_iter().map(|(stream, leaf)| (stream, leaf as u64)).collect())
    }

    /// Notes that sequences of streams hold what stands in the ledger, because this engine published it there: a stream
    /// that copies them may take it for the repetition that it is, and pass it over.
    pub async fn published(&self, positions: &BTreeMap<String, Vec<u64>>) -> Result<(), DbError> {
        if positions.is_empty() {
            return Ok(());
        }
        let mut tx = self.db.begin().await?;
        // As each append does, so that neither overwrites what the other noted.
        sqlx::query("SELECT FROM log_head FOR UPDATE").execute(&mut *tx).await?;
        let mut received = received(&mut tx, positions.keys().cloned().collect()).await?;
        for (stream, sequences) in positions {
            let ranges = received.entry(stream.clone()).or_default();
            for sequence in sequences {
                ranges.insert(*sequence);
            }
        }
        note_received(&mut tx, &received).await?;
        tx.commit().await
    }

    /// Notes that a stream is lost; `false` where it was noted before.
    pub async fn lost(tx: &mut PgConnection, stream: &str, reason: &str, now: Timestamp) -> Result<bool, DbError> {
        let done = sqlx::query(
            "INSERT INTO stream_mended (stream, reason, noticed_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        )
        .bind(stream)
        .bind(reason)
        .bind(Instant(now))
        .execute(tx)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Notes that a stream has what it should again.
    pub async fn mended(tx: &mut PgConnection, stream: &str) -> Result<(), DbError> {
        sqlx::query("DELETE FROM stream_mended WHERE stream = $1").bind(stream).execute(&mut *tx).await?;
        sqlx::query("DELETE FROM stream_carried WHERE stream = $1").bind(stream).execute(tx).await?;
        Ok(())
    }

    /// Keeps messages of a stream that is about to be made anew.
    pub async fn carry(&self, stream: &str, messages: &[&StoredMessage]) -> Result<(), DbError> {
        for message in messages {
            sqlx::query(
                "INSERT INTO stream_carried (stream, subject, digest, payload, place) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT DO NOTHING",
            )
            .bind(stream)
            .bind(&message.subject)
            .bind(Sha256::digest(&message.payload).as_slice())
            .bind(message.payload.as_ref())
            .bind(message.sequence as i64)
            .execute(self.db.pool())
            .await?;
        }
        Ok(())
    }

    /// What was kept of a stream, in its order: subject and bytes.
    pub async fn carried(&self, stream: &str) -> Result<Vec<(String, Vec<u8>)>, DbError> {
        Ok(sqlx::query_as("SELECT subject, payload FROM stream_carried WHERE stream = $1 ORDER BY place")
            .bind(stream)
            .fetch_all(self.db.pool())
            .await?)
    }
}
