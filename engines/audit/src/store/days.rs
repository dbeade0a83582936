//! The days of the ledger: contiguous ranges of leaves, closed when they are over.

use deltran_kernel::Timestamp;
use deltran_runtime::{Db, DbError};
use sqlx::{FromRow, PgConnection};

use super::instant::Instant;
use crate::domain::retention::{Archived, DayState};

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// A day (UTC, of recording) that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClosedDay {
    /// Its first moment.
    pub start: Timestamp,
    /// Its first leaf.
    pub from: u64,
    /// The first leaf after it.
    pub to: u64,
}

impl ClosedDay {
    /// Its name, such as 2025-11-06.
    pub fn name(&self) -> String {
        day_name(self.start)
    }

    pub(super) fn read((start, from, to): (Instant, i64, i64)) -> Result<Self, DbError> {
        let index = |n: i64| u64::try_from(n).map_err(DbError::corrupt);
        Ok(Self { start: start.0, from: index(from)?, to: index(to)? })
    }
}

/// A day of the ledger in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayRow {
    /// Its first moment.
    pub start: Timestamp,
    /// Its first leaf.
    pub from: u64,
    /// The first leaf after it, so far.
    pub to: u64,
    /// Whether it is over.
    pub closed: bool,
    /// Where it stands.
    pub state: DayState,
    /// What the archive has of it.
    pub archive: Option<Archived>,
    /// When it was detached.
    pub detached_at: Option<Timestamp>,
    /// Why it may not be detached now, by the rules of the database.
    pub stays_because: Option<String>,
}

impl DayRow {
    /// Its name, such as 2025-11-06.
    pub fn name(&self) -> String {
        day_name(self.start)
    }
}

#[derive(FromRow)]
struct Row {
    day: Instant,
    from_leaf: i64,
    to_leaf: i64,
    closed: bool,
    place: Option<String>,
    manifest_sha256: Option<Vec<u8>>,
    archived_at: Option<Instant>,
    verified_at: Option<Instant>,
    detached_at: Option<Instant>,
    stays_because: Option<String>,
}

impl Row {
    fn day(self) -> Result<DayRow, DbError> {
        let index = |n: i64| u64::try_from(n).map_err(DbError::corrupt);
        let (from, to) = (index(self.from_leaf)?, index(self.to_leaf)?);
        let written = self.archived_at.zip(self.verified_at);
        let archive = match (self.place, self.manifest_sha256, written) {
            (Some(place), Some(digest), Some((archived_at, verified_at))) => Some(Archived {
                day: self.day.0,
                from,
                to,
                place,
                manifest_sha256: digest.try_into().map_err(|_| DbError::corrupt("a digest does not have 32 bytes"))?,
                archived_at: archived_at.0,
                verified_at: verified_at.0,
            }),
            _ => None,
        };
        let state = match (&archive, self.detached_at) {
            (_, Some(_)) => DayState::Detached,
            (Some(_), None) => DayState::Archived,
            (None, None) => DayState::Online,
        };
        Ok(DayRow {
            start: self.day.0,
            from,
            to,
            closed: self.closed,
            state,
            archive,
            detached_at: self.detached_at.map(|at| at.0),
            stays_because: self.stays_because,
        })
    }
}

/// The first moment of a day by its name, such as 2025-11-06.
pub fn parse_day(name: &str) -> Option<Timestamp> {
    let start: Timestamp = format!("{name}T00:00:00Z").parse().ok()?;
    (day_name(start) == name).then_some(start)
}

/// The day of a moment, such as 2025-11-06.
pub fn day_name(at: Timestamp) -> String {
    at.to_string().chars().take(10).collect()
}

/// The first moment of the day of a moment.
pub fn day_start(at: Timestamp) -> Timestamp {
    Timestamp::from_micros(at.micros().div_euclid(MICROS_PER_DAY) * MICROS_PER_DAY)
}

/// The days of a ledger.
#[derive(Clone)]
pub struct Days {
    db: Db,
}

impl Days {
    /// Those in a database.
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// Closes every day before that of `now`, from that of the first leaf on; returns those that this closed. The head
    /// is moved to the beginning of today, so that an append under way under an earlier clock records no leaf in a
    /// closed day.
    pub async fn close(&self, tx: &mut PgConnection, now: Timestamp) -> Result<Vec<ClosedDay>, DbError> {
        let today = day_start(now);
        let (size, recorded_at): (i64, Instant) =
            sqlx::query_as("SELECT size, recorded_at FROM log_head FOR UPDATE").fetch_one(&mut *tx).await?;
        let last: Option<(Instant, i64)> =
            sqlx::query_as("SELECT day::timestamptz, to_leaf FROM ledger_day ORDER BY day DESC LIMIT 1")
                .fetch_optional(&mut *tx)
                .await?;
        let (mut start, mut from) = match last {
            Some((day, to)) => (day.0.plus_micros(MICROS_PER_DAY), to),
            None => {
                let first: Option<Instant> =
                    sqlx::query_scalar("SELECT min(recorded_at) FROM leaf").fetch_one(&mut *tx).await?;
                let Some(first) = first else { return Ok(Vec::new()) };
                (day_start(first.0), 0)
            }
        };
        let mut closed = Vec::new();
        while start < today {
            let end = start.plus_micros(MICROS_PER_DAY);
            // Leaves that were recorded later bound the day; without any, the head does.
            let to: i64 =
                sqlx::query_scalar("SELECT coalesce((SELECT min(leaf_index) FROM leaf WHERE recorded_at >= $1), $2)")
                    .bind(Instant(end))
                    .bind(size)
                    .fetch_one(&mut *tx)
                    .await?;
            closed.push((start, from, to));
            (start, from) = (end, to);
        }
        if closed.is_empty() {
            return Ok(Vec::new());
        }
        if recorded_at.0 < today {
            sqlx::query("UPDATE log_head SET recorded_at = $1").bind(Instant(today)).execute(&mut *tx).await?;
        }
        let (starts, rest): (Vec<Instant>, Vec<(i64, i64)>) =
            closed.iter().map(|(start, from, to)| (Instant(*start), (*from, *to))).unzip();
        let (froms, tos): (Vec<i64>, Vec<i64>) = rest.into_iter().unzip();
        sqlx::query(
            "INSERT INTO ledger_day (day, from_leaf, to_leaf, closed_at)
             SELECT (d.start AT TIME ZONE 'UTC')::date, d.from_leaf, d.to_leaf, $4
             FROM UNNEST($1::timestamptz[], $2::bigint[], $3::bigint[]) AS d (start, from_leaf, to_leaf)",
        )
        .bind(starts)
        .bind(froms)
        .bind(tos)
        .bind(Instant(now))
        .execute(&mut *tx)
        .await?;
        closed
            .into_iter()
            .map(|(start, from, to)| {
                let index = |n: i64| u64::try_from(n).map_err(DbError::corrupt);
                Ok(ClosedDay { start, from: index(from)?, to: index(to)? })
            })
            .collect()
    }

    /// A page of the days, newest first, before the day of a moment; the one under way is the first of all.
    pub async fn page(
        &self,
        before: Option<Timestamp>,
        state: Option<DayState>,
        retention_days: i32,
        limit: i64,
    ) -> Result<Vec<DayRow>, DbError> {
        let rows: Vec<Row> = sqlx::query_as(include_str!("days.sql"))
            .bind(before.map(Instant))
            .bind(state.map(DayState::as_str))
            .bind(retention_days)
            .bind(limit)
            .fetch_all(self.db.pool())
            .await?;
        rows.into_iter().map(Row::day).collect()
    }

    /// The size of the ledger at the end of the last closed day; `None` where none is closed.
    pub async fn last_end(&self) -> Result<Option<u64>, DbError> {
        let end: Option<i64> =
            sqlx::query_scalar("SELECT max(to_leaf) FROM ledger_day").fetch_one(self.db.pool()).await?;
        end.map(|n| u64::try_from(n).map_err(DbError::corrupt)).transpose()
    }
}
