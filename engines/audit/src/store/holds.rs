//! Legal holds.

use deltran_kernel::{HoldId, Timestamp};
use deltran_runtime::{Db, DbError};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::instant::Instant;
use crate::domain::hold::{Hold, Release, Scope, Wanted};

#[derive(FromRow)]
struct Row {
    hold_id: Uuid,
    number: i64,
    participant_id: Option<String>,
    correlation_id: Option<String>,
    since: Option<Instant>,
    until: Option<Instant>,
    reason: String,
    placed_by: String,
    placed_at: Instant,
    released_by: Option<String>,
    released_at: Option<Instant>,
    release_reason: Option<String>,
}

impl Row {
    fn hold(self) -> Result<Hold, DbError> {
        let participant = self.participant_id.map(|p| p.parse()).transpose().map_err(DbError::corrupt)?;
        let ended = self.released_by.zip(self.released_at).zip(self.release_reason);
        let wanted = Wanted {
            id: HoldId::new(self.hold_id),
            scope: Scope {
                participant,
                correlation_id: self.correlation_id,
                from: self.since.map(|at| at.0),
                to: self.until.map(|at| at.0),
            },
            reason: self.reason,
        };
        Ok(Hold {
            number: u64::try_from(self.number).map_err(DbError::corrupt)?,
            wanted,
            placed_by: self.placed_by,
            placed_at: self.placed_at.0,
            release: ended.map(|((by, at), reason)| Release { reason, by, at: at.0 }),
        })
    }
}

/// The holds in a database.
#[derive(Clone)]
pub struct Holds {
    db: Db,
}

impl Holds {
    /// Those in a database.
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// A hold, locked until the transaction ends.
    pub async fn lock(tx: &mut PgConnection, id: HoldId) -> Result<Option<Hold>, DbError> {
        let row: Option<Row> = sqlx::query_as("SELECT * FROM legal_hold WHERE hold_id = $1 FOR UPDATE")
            .bind(id.uuid())
            .fetch_optional(tx)
            .await?;
        row.map(Row::hold).transpose()
    }

    /// Places a hold. `None` where its id was taken meanwhile.
    pub async fn place(
        tx: &mut PgConnection,
        wanted: &Wanted,
        user: &str,
        now: Timestamp,
    ) -> Result<Option<Hold>, DbError> {
        let Wanted { id, scope, reason } = wanted;
        let row: Option<Row> = sqlx::query_as(
            "INSERT INTO legal_hold (hold_id, participant_id, correlation_id, since, until, reason, placed_by, placed_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (hold_id) DO NOTHING RETURNING *",
        )
        .bind(id.uuid())
        .bind(scope.participant.map(|p| p.to_string()))
        .bind(scope.correlation_id.as_deref())
        .bind(scope.from.map(Instant))
        .bind(scope.to.map(Instant))
        .bind(reason)
        .bind(user)
        .bind(Instant(now))
        .fetch_optional(tx)
        .await?;
        row.map(Row::hold).transpose()
    }

    /// Releases a hold that is active.
    pub async fn release(tx: &mut PgConnection, id: HoldId, release: &Release) -> Result<(), DbError> {
        sqlx::query("UPDATE legal_hold SET released_by = $2, released_at = $3, release_reason = $4 WHERE hold_id = $1")
            .bind(id.uuid())
            .bind(&release.by)
            .bind(Instant(release.at))
            .bind(&release.reason)
            .execute(tx)
            .await?;
        Ok(())
    }

    /// A page of them, newest first, below a number.
    pub async fn page(&self, below: Option<u64>, active_only: bool, limit: i64) -> Result<Vec<Hold>, DbError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT * FROM legal_hold WHERE number < $1 AND (released_at IS NULL OR NOT $2) ORDER BY number DESC LIMIT $3",
        )
        .bind(below.map_or(i64::MAX, |n| i64::try_from(n).unwrap_or(i64::MAX)))
        .bind(active_only)
        .bind(limit)
        .fetch_all(self.db.pool())
        .await?;
        rows.into_iter().map(Row::hold).collect()
    }
}
