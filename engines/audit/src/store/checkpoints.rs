//! Signed checkpoints.

use deltran_kernel::Timestamp;
use deltran_runtime::{Db, DbError};
use sqlx::{FromRow, PgConnection};

use super::instant::Instant;
use crate::domain::merkle::Hash;

/// A checkpoint as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Number of leaves.
    pub size: u64,
    /// Root over them.
    pub root: Hash,
    /// The signed note.
    pub note: String,
    /// When it was signed.
    pub signed_at: Timestamp,
    /// Whether it has left the system.
    pub published: bool,
}

#[derive(FromRow)]
struct Row {
    size: i64,
    root: Vec<u8>,
    note: String,
    signed_at: Instant,
    published: bool,
}

impl Row {
    fn kept(self) -> Result<Kept, DbError> {
        Ok(Kept {
            size: u64::try_from(self.size).map_err(DbError::corrupt)?,
            root: self.root.try_into().map_err(|_| DbError::corrupt("a root does not have 32 bytes"))?,
            note: self.note,
            signed_at: self.signed_at.0,
            published: self.published,
        })
    }
}

/// The checkpoints in a database.
#[derive(Clone)]
pub struct Checkpoints {
    db: Db,
}

impl Checkpoints {
    /// Those in a database.
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// The one with the most leaves.
    pub async fn latest(&self) -> Result<Option<Kept>, DbError> {
        let row: Option<Row> = sqlx::query_as("SELECT * FROM checkpoint ORDER BY size DESC LIMIT 1")
            .fetch_optional(self.db.pool())
            .await?;
        row.map(Row::kept).transpose()
    }

    /// The one of a size.
    pub async fn at(&self, size: u64) -> Result<Option<Kept>, DbError> {
        let row: Option<Row> = sqlx::query_as("SELECT * FROM checkpoint WHERE size = $1")
            .bind(number(size))
            .fetch_optional(self.db.pool())
            .await?;
        row.map(Row::kept).transpose()
    }

    /// Those with sizes from `from` up to but without `to`, by size: what `verify` checks.
    pub async fn between(&self, from: u64, to: u64) -> Result<Vec<Kept>, DbError> {
        let rows: Vec<Row> = sqlx::query_as("SELECT * FROM checkpoint WHERE size >= $1 AND size < $2 ORDER BY size")
            .bind(number(from))
            .bind(number(to))
            .fetch_all(self.db.pool())
            .await?;
        rows.into_iter().map(Row::kept).collect()
    }

    /// A page of them, newest first, below a size.
    pub async fn page(&self, below: Option<u64>, published: bool, limit: i64) -> Result<Vec<Kept>, DbError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT * FROM checkpoint WHERE size < $1 AND (published OR NOT $2) ORDER BY size DESC LIMIT $3",
        )
        .bind(below.map_or(i64::MAX, number))
        .bind(published)
        .bind(limit)
        .fetch_all(self.db.pool())
        .await?;
        rows.into_iter().map(Row::kept).collect()
    }

    /// How many there are.
    pub async fn count(&self) -> Result<u64, DbError> {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM checkpoint").fetch_one(self.db.pool()).await?;
        u64::try_from(count).map_err(DbError::corrupt)
    }

    /// Keeps one. What is kept of that size already stays, with its signatures; `false` then.
    pub async fn keep(&self, kept: &Kept) -> Result<bool, DbError> {
        let done = sqlx::query(
            "INSERT INTO checkpoint (size, root, note, signed_at, published) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (size) DO NOTHING",
        )
        .bind(number(kept.size))
        .bind(kept.root.as_slice())
        .bind(&kept.note)
        .bind(Instant(kept.signed_at))
        .bind(kept.published)
        .execute(self.db.pool())
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Adds signature lines at the end of a note, where it is still as it was.
    pub async fn add_signatures(&self, size: u64, note: &str, lines: &str) -> Result<bool, DbError> {
        let done = sqlx::query("UPDATE checkpoint SET note = note || $3 WHERE size = $1 AND note = $2")
            .bind(number(size))
            .bind(note)
            .bind(lines)
            .execute(self.db.pool())
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Marks one as having left the system. `false` where it had already.
    pub async fn publish(tx: &mut PgConnection, size: u64) -> Result<bool, DbError> {
        let done = sqlx::query("UPDATE checkpoint SET published = true WHERE size = $1 AND NOT published")
            .bind(number(size))
            .execute(tx)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Lets go of those that never left the system and were signed before a moment, but for the latest one.
    pub async fn thin(&self, before: Timestamp) -> Result<u64, DbError> {
        let done = sqlx::query(
            "DELETE FROM checkpoint WHERE NOT published AND signed_at < $1 AND size < (SELECT max(size) FROM checkpoint)",
        )
        .bind(Instant(before))
        .execute(self.db.pool())
        .await?;
        Ok(done.rows_affected())
    }
}

fn number(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}
