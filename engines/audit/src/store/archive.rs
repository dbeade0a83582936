//! What the archive holds, and the days that may leave the database.

use deltran_kernel::Timestamp;
use deltran_runtime::{Db, DbError};
use sqlx::{FromRow, PgConnection};

use super::days::ClosedDay;
use super::instant::Instant;
use crate::domain::merkle::Frontier;
use crate::domain::retention::Archived;

/// SQLSTATE of a lock that did not come in time.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// How the reason begins why a day stays whose archive was verified too long ago (`day_stays`).
pub const READ_AGAIN: &str = "its archive was verified last";

/// What became of a day that was to be detached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Detaching {
    /// It is detached where the transaction commits.
    Done,
    /// A rule keeps it.
    Stays(String),
    /// Somebody works on the tables; the transaction is spent, another one may do it.
    Busy,
}

#[derive(FromRow)]
struct Row {
    day: Instant,
    from_leaf: i64,
    to_leaf: i64,
    place: String,
    manifest_sha256: Vec<u8>,
    archived_at: Instant,
    verified_at: Instant,
}

impl Row {
    fn archived(self) -> Result<Archived, DbError> {
        let index = |n: i64| u64::try_from(n).map_err(DbError::corrupt);
        let digest = self.manifest_sha256.try_into();
        Ok(Archived {
            day: self.day.0,
            from: index(self.from_leaf)?,
            to: index(self.to_leaf)?,
            place: self.place,
            manifest_sha256: digest.map_err(|_| DbError::corrupt("a digest does not have 32 bytes"))?,
            archived_at: self.archived_at.0,
            verified_at: self.verified_at.0,
        })
    }
}

const COLUMNS: &str = "SELECT day::timestamptz AS day, from_leaf, to_leaf, place, manifest_sha256, archived_at, verified_at FROM day_archive";

/// What a database says of the archive.
#[derive(Clone)]
pub struct Archives {
    db: Db,
}

impl Archives {
    /// That of a database.
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// The first closed day that has leaves and is not in the archive.
    pub async fn next(&self) -> Result<Option<ClosedDay>, DbError> {
        let row: Option<(Instant, i64, i64)> = sqlx::query_as(
            "SELECT day::timestamptz, from_leaf, to_leaf FROM ledger_day d
             WHERE to_leaf > from_leaf AND NOT EXISTS (SELECT FROM day_archive a WHERE a.day = d.day)
             ORDER BY day LIMIT 1",
        )
        .fetch_optional(self.db.pool())
        .await?;
        row.map(ClosedDay::read).transpose()
    }

    /// The oldest day in the database that is over.
    pub async fn oldest_online(&self) -> Result<Option<ClosedDay>, DbError> {
        let row: Option<(Instant, i64, i64)> = sqlx::query_as(
            "SELECT day::timestamptz, from_leaf, to_leaf FROM ledger_day
             WHERE day > coalesce((SELECT max(day) FROM ledger_cut), '-infinity') ORDER BY day LIMIT 1",
        )
        .fetch_optional(self.db.pool())
        .await?;
        row.map(ClosedDay::read).transpose()
    }

    /// A day in the archive.
    pub async fn of(&self, day: Timestamp) -> Result<Option<Archived>, DbError> {
        let row: Option<Row> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "{COLUMNS} WHERE day = ($1::timestamptz AT TIME ZONE 'UTC')::date"
        )))
        .bind(Instant(day))
        .fetch_optional(self.db.pool())
        .await?;
        row.map(Row::archived).transpose()
    }

    /// The days that left the database, oldest first.
    pub async fn detached(&self) -> Result<Vec<Archived>, DbError> {
        let rows: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "{COLUMNS} WHERE day IN (SELECT day FROM ledger_cut) ORDER BY day"
        )))
        .fetch_all(self.db.pool())
        .await?;
        rows.into_iter().map(Row::archived).collect()
    }

    /// Records that a day stands in the archive and was verified there. `false` where it was recorded before.
    pub async fn record(tx: &mut PgConnection, archived: &Archived) -> Result<bool, DbError> {
        let done = sqlx::query(
            "INSERT INTO day_archive (day, from_leaf, to_leaf, place, manifest_sha256, archived_at, verified_at)
             VALUES (($1::timestamptz AT TIME ZONE 'UTC')::date, $2, $3, $4, $5, $6, $7) ON CONFLICT (day) DO NOTHING",
        )
        .bind(Instant(archived.day))
        .bind(i64::try_from(archived.from).map_err(DbError::corrupt)?)
        .bind(i64::try_from(archived.to).map_err(DbError::corrupt)?)
        .bind(&archived.place)
        .bind(archived.manifest_sha256.as_slice())
        .bind(Instant(archived.archived_at))
        .bind(Instant(archived.verified_at))
        .execute(tx)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Notes that the archive of a day was read and verified again.
    pub async fn verified(tx: &mut PgConnection, day: Timestamp, at: Timestamp) -> Result<(), DbError> {
        sqlx::query(
            "UPDATE day_archive SET verified_at = greatest(verified_at, $2)
             WHERE day = ($1::timestamptz AT TIME ZONE 'UTC')::date",
        )
        .bind(Instant(day))
        .bind(Instant(at))
        .execute(tx)
        .await?;
        Ok(())
    }

    /// Why a day may not be detached now, by the rules of the database. `None` where it may.
    pub async fn stays(&self, day: Timestamp, retention_days: i32) -> Result<Option<String>, DbError> {
        Ok(sqlx::query_scalar("SELECT day_stays(($1::timestamptz AT TIME ZONE 'UTC')::date, $2)")
            .bind(Instant(day))
            .bind(retention_days)
            .fetch_one(self.db.pool())
            .await?)
    }

    /// Takes the oldest day out of the database, where every rule of the database allows it. `frontier` is that of the
    /// ledger at the end of the day.
    pub async fn detach(
        tx: &mut PgConnection,
        day: Timestamp,
        retention_days: i32,
        frontier: &Frontier,
        now: Timestamp,
    ) -> Result<Detaching, DbError> {
        let answer: Result<Option<String>, sqlx::Error> =
            sqlx::query_scalar("SELECT detach_day(($1::timestamptz AT TIME ZONE 'UTC')::date, $2, $3, $4)")
                .bind(Instant(day))
                .bind(retention_days)
                .bind(frontier.hashes().concat())
                .bind(Instant(now))
                .fetch_one(tx)
                .await;
        match answer {
            Ok(None) => Ok(Detaching::Done),
            Ok(Some(reason)) => Ok(Detaching::Stays(reason)),
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(LOCK_NOT_AVAILABLE) => {
                Ok(Detaching::Busy)
            }
            Err(error) => Err(error.into()),
        }
    }
}
