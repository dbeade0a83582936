//! Where the ledger in the database begins, and where the leaves below are.

use deltran_kernel::Timestamp;
use deltran_runtime::{Db, DbError};
use sqlx::{FromRow, PgConnection};

use super::days::day_name;
use super::instant::Instant;
use super::tree::hashes_of;
use crate::domain::retention::{Cut, Gone};

#[derive(FromRow)]
struct Row {
    day: Instant,
    from_leaf: i64,
    to_leaf: i64,
    frontier: Vec<u8>,
    invalid: i64,
    conflicts: i64,
    transactions: i64,
    closed_from: Option<i64>,
    closed_to: Option<i64>,
    root: Option<Vec<u8>>,
}

/// A number that no detachment writes becomes one that fits nothing.
fn number(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

impl Row {
    fn gone(self) -> Gone {
        Gone {
            day: self.day.0,
            from: number(self.from_leaf),
            to: number(self.to_leaf),
            frontier: hashes_of(&self.frontier).unwrap_or_default(),
            invalid: number(self.invalid),
            conflicts: number(self.conflicts),
            transactions: number(self.transactions),
            closed: self.closed_from.map(number).zip(self.closed_to.map(number)),
            signed: self.root.and_then(|root| root.try_into().ok()),
        }
    }
}

/// A day that a leaf went with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoneDay {
    /// Its first moment.
    pub day: Timestamp,
    /// Its first leaf.
    pub from: u64,
    /// The first leaf after it.
    pub to: u64,
    /// Where it is, below the archive's root.
    pub place: String,
}

impl GoneDay {
    /// Its name, such as 2025-11-06.
    pub fn name(&self) -> String {
        day_name(self.day)
    }
}

/// The cuts of a ledger.
#[derive(Clone)]
pub struct Cuts {
    db: Db,
}

impl Cuts {
    /// Those of a database.
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// The first leaf that is in the database, or will be.
    pub async fn leaf(&self) -> Result<u64, DbError> {
        let leaf: Option<i64> = sqlx::query_scalar("SELECT to_leaf FROM ledger_cut ORDER BY day DESC LIMIT 1")
            .fetch_optional(self.db.pool())
            .await?;
        u64::try_from(leaf.unwrap_or(0)).map_err(DbError::corrupt)
    }

    /// The moment from which on the recorded leaves are in the database. `None` where all are.
    pub async fn until(&self) -> Result<Option<Timestamp>, DbError> {
        let until: Option<Instant> =
            sqlx::query_scalar("SELECT (max(day) + 1)::timestamptz FROM ledger_cut").fetch_one(self.db.pool()).await?;
        Ok(until.map(|at| at.0))
    }

    /// Everything about the cut, as `verify` begins from it.
    pub(super) async fn read(tx: &mut PgConnection) -> Result<Cut, DbError> {
        let days: Vec<Row> = sqlx::query_as(
            "SELECT c.day::timestamptz AS day, c.from_leaf, c.to_leaf, c.frontier, c.invalid, c.conflicts, c.transactions,
                    d.from_leaf AS closed_from, d.to_leaf AS closed_to, k.root
             FROM ledger_cut c LEFT JOIN ledger_day d USING (day) LEFT JOIN checkpoint k ON k.size = c.to_leaf AND k.published
             ORDER BY c.day",
        )
        .fetch_all(&mut *tx)
        .await?;
        let numbers: Vec<(String, i64, i64)> =
            sqlx::query_as("SELECT producer, low, high FROM ledger_cut_producer").fetch_all(tx).await?;
        let days: Vec<Gone> = days.into_iter().map(Row::gone).collect();
        Ok(Cut::of(&days, numbers.into_iter().map(|(producer, low, high)| (producer, number(low), number(high)))))
    }

    /// The day that a leaf went with. `None` where it is in the database, or will be.
    pub async fn day_of(&self, leaf: u64) -> Result<Option<GoneDay>, DbError> {
        let row = sqlx::query_as(
            "SELECT c.day::timestamptz, c.from_leaf, c.to_leaf, a.place FROM ledger_cut c LEFT JOIN day_archive a USING (day)
             WHERE c.from_leaf <= $1 AND c.to_leaf > $1",
        )
        .bind(i64::try_from(leaf).unwrap_or(i64::MAX))
        .fetch_optional(self.db.pool())
        .await?;
        row.map(gone_day).transpose()
    }

    /// The day that a number of a producer went with. `None` where it did not.
    pub async fn day_of_number(&self, producer: &str, number: u64) -> Result<Option<GoneDay>, DbError> {
        let row = sqlx::query_as(
            "SELECT c.day::timestamptz, c.from_leaf, c.to_leaf, a.place
             FROM ledger_cut_producer p JOIN ledger_cut c USING (day) LEFT JOIN day_archive a USING (day)
             WHERE p.producer = $1 AND p.low <= $2 AND p.high >= $2 ORDER BY c.day LIMIT 1",
        )
        .bind(producer)
        .bind(i64::try_from(number).unwrap_or(i64::MAX))
        .fetch_optional(self.db.pool())
        .await?;
        row.map(gone_day).transpose()
    }
}

fn gone_day((day, from, to, place): (Instant, i64, i64, Option<String>)) -> Result<GoneDay, DbError> {
    let index = |n: i64| u64::try_from(n).map_err(DbError::corrupt);
    Ok(GoneDay { day: day.0, from: index(from)?, to: index(to)?, place: place.unwrap_or_default() })
}
