//! Rows of windows.

use deltran_kernel::{Currency, NettingSetId, Timestamp, WindowId};
use deltran_runtime::DbError;
use deltran_runtime::wire::PageOf;
use rust_decimal::Decimal;
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use super::{digest, minor, number, read, to_bigint};
use crate::domain::window::{Seal, Window, WindowState, Write};

/// Selects windows: the columns of [`Row`].
macro_rules! select {
    ($tail:literal) => {
        concat!(
            "SELECT window_id, number, schedule, currency, state, opens_at_us, closes_at_us, extended, opened_at_us, ",
            "closed_at_us, settled_at_us, open_ordered_by, close_ordered_by, next_window_id, abort_reason, sealed_count, ",
            "sealed_gross, sealed_digest, netting_set_id, note FROM clearing_window ",
            $tail
        )
    };
}

#[derive(sqlx::FromRow)]
struct Row {
    window_id: Uuid,
    number: i64,
    schedule: String,
    currency: String,
    state: String,
    opens_at_us: i64,
    closes_at_us: Option<i64>,
    extended: bool,
    opened_at_us: Option<i64>,
    closed_at_us: Option<i64>,
    settled_at_us: Option<i64>,
    open_ordered_by: Option<String>,
    close_ordered_by: Option<String>,
    next_window_id: Option<Uuid>,
    abort_reason: Option<String>,
    sealed_count: Option<i64>,
    sealed_gross: Option<Decimal>,
    sealed_digest: Option<Vec<u8>>,
    netting_set_id: Option<Uuid>,
    note: Option<String>,
}

impl Row {
    fn window(self) -> Result<Window, DbError> {
        let state = WindowState::from_word(&self.state)
            .ok_or_else(|| DbError::corrupt(format!("window {} has state {:?}", self.window_id, self.state)))?;
        let sealed = match (self.sealed_count, self.sealed_gross, self.sealed_digest) {
            (Some(count), Some(gross), Some(bytes)) => {
                Some(Seal { count: number(count)?, gross: minor(gross)?, digest: digest(bytes)? })
            }
            _ => None,
        };
        Ok(Window {
            id: WindowId::new(self.window_id),
            schedule: self.schedule,
            currency: read(&self.currency)?,
            state,
            opens_at: Timestamp::from_micros(self.opens_at_us),
            closes_at: self.closes_at_us.map(Timestamp::from_micros),
            extended: self.extended,
            opened_at: self.opened_at_us.map(Timestamp::from_micros),
            closed_at: self.closed_at_us.map(Timestamp::from_micros),
            settled_at: self.settled_at_us.map(Timestamp::from_micros),
            open_ordered_by: self.open_ordered_by,
            close_ordered_by: self.close_ordered_by,
            next: self.next_window_id.map(WindowId::new),
            abort_reason: self.abort_reason,
            sealed,
            netting_set: self.netting_set_id.map(NettingSetId::new),
            note: self.note,
        })
    }
}

fn windows(rows: Vec<Row>) -> Result<Vec<Window>, DbError> {
    rows.into_iter().map(Row::window).collect()
}

/// A window by its id.
pub async fn window(db: impl PgExecutor<'_>, id: WindowId) -> Result<Option<Window>, DbError> {
    let row: Option<Row> = sqlx::query_as(select!("WHERE window_id = $1")).bind(id.uuid()).fetch_optional(db).await?;
    row.map(Row::window).transpose()
}

/// A window by its id, locked. Its currency must be locked first.
pub async fn window_for_update(tx: &mut PgConnection, id: WindowId) -> Result<Option<Window>, DbError> {
    let row: Option<Row> =
        sqlx::query_as(select!("WHERE window_id = $1 FOR UPDATE")).bind(id.uuid()).fetch_optional(tx).await?;
    row.map(Row::window).transpose()
}

/// Windows by their ids, locked, in order of planning. Their currency must be locked first.
pub async fn windows_for_update(tx: &mut PgConnection, ids: &[WindowId]) -> Result<Vec<Window>, DbError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
    windows(
        sqlx::query_as(select!("WHERE window_id = ANY($1) ORDER BY number FOR UPDATE")).bind(ids).fetch_all(tx).await?,
    )
}

/// The windows of a currency that the ledger has not sealed, in order of planning.
pub async fn live(db: impl PgExecutor<'_>, currency: Currency) -> Result<Vec<Window>, DbError> {
    let sql = select!("WHERE currency = $1 AND state IN ('SCHEDULED', 'OPEN', 'CLOSING') ORDER BY number");
    windows(sqlx::query_as(sql).bind(currency.code()).fetch_all(db).await?)
}

/// Every window that the driver works on, in order of planning.
pub async fn unfinished(pool: &PgPool) -> Result<Vec<Window>, DbError> {
    let sql = select!("WHERE state IN ('SCHEDULED', 'OPEN', 'CLOSING', 'CLOSED') ORDER BY number");
    windows(sqlx::query_as(sql).fetch_all(pool).await?)
}

/// When the window of a currency that was opened last should have opened.
pub async fn last_opens_at(db: impl PgExecutor<'_>, currency: Currency) -> Result<Option<Timestamp>, DbError> {
    let at: Option<i64> = sqlx::query_scalar(
        "SELECT opens_at_us FROM clearing_window WHERE currency = $1 AND opened_at_us IS NOT NULL ORDER BY number DESC LIMIT 1",
    )
    .bind(currency.code())
    .fetch_optional(db)
    .await?;
    Ok(at.map(Timestamp::from_micros))
}

/// Which windows a list shows.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this currency.
    pub currency: Option<Currency>,
    /// Of this schedule.
    pub schedule: Option<String>,
    /// In one of these states; empty is all.
    pub states: Vec<WindowState>,
}

/// A page of windows, newest first, each with the key that the next page begins after.
pub async fn list(pool: &PgPool, filter: &Filter, page: &PageOf<i64>) -> Result<Vec<(i64, Window)>, DbError> {
    let states: Vec<&str> = filter.states.iter().map(|s| s.as_str()).collect();
    let sql = select!(
        "WHERE ($1::bigint IS NULL OR number < $1) AND ($2::text IS NULL OR currency = $2)
           AND ($3::text IS NULL OR schedule = $3) AND (cardinality($4::text[]) = 0 OR state = ANY($4))
         ORDER BY number DESC LIMIT $5"
    );
    let rows: Vec<Row> = sqlx::query_as(sql)
        .bind(page.after)
        .bind(filter.currency.map(|c| c.code().to_owned()))
        .bind(filter.schedule.as_deref())
        .bind(states)
        .bind(page.size)
        .fetch_all(pool)
        .await?;
    rows.into_iter().map(|row| Ok((row.number, row.window()?))).collect()
}

/// Number of windows by state.
pub async fn state_counts(pool: &PgPool) -> Result<Vec<(String, i64)>, DbError> {
    Ok(sqlx::query_as("SELECT state, count(*) FROM clearing_window GROUP BY state").fetch_all(pool).await?)
}

/// Writes what a decision says about windows, in its order.
///
/// # Errors
/// [`DbError::Other`] where a window is not in the state that the decision saw: a defect, since its
/// currency was locked.
pub async fn apply(tx: &mut PgConnection, writes: &[Write]) -> Result<(), DbError> {
    for write in writes {
        match write {
            Write::Insert(window) => insert(tx, window).await?,
            Write::Update { from, window } => update(tx, *from, window).await?,
        }
    }
    Ok(())
}

async fn insert(tx: &mut PgConnection, w: &Window) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO clearing_window (window_id, schedule, currency, state, opens_at_us, closes_at_us, open_ordered_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(w.id.uuid())
    .bind(&w.schedule)
    .bind(w.currency.code())
    .bind(w.state.as_str())
    .bind(w.opens_at.micros())
    .bind(w.closes_at.map(Timestamp::micros))
    .bind(w.open_ordered_by.as_deref())
    .execute(tx)
    .await?;
    Ok(())
}

async fn update(tx: &mut PgConnection, from: WindowState, w: &Window) -> Result<(), DbError> {
    let seal = w.sealed.as_ref();
    let done = sqlx::query(
        "UPDATE clearing_window SET state = $3, opens_at_us = $4, closes_at_us = $5, extended = $6, opened_at_us = $7,
           closed_at_us = $8, settled_at_us = $9, open_ordered_by = $10, close_ordered_by = $11, next_window_id = $12,
           abort_reason = $13, sealed_count = $14, sealed_gross = $15, sealed_digest = $16, netting_set_id = $17, note = $18
         WHERE window_id = $1 AND state = $2",
    )
    .bind(w.id.uuid())
    .bind(from.as_str())
    .bind(w.state.as_str())
    .bind(w.opens_at.micros())
    .bind(w.closes_at.map(Timestamp::micros))
    .bind(w.extended)
    .bind(w.opened_at.map(Timestamp::micros))
    .bind(w.closed_at.map(Timestamp::micros))
    .bind(w.settled_at.map(Timestamp::micros))
    .bind(w.open_ordered_by.as_deref())
    .bind(w.close_ordered_by.as_deref())
    .bind(w.next.map(WindowId::uuid))
    .bind(w.abort_reason.as_deref())
    .bind(seal.map(|s| to_bigint(s.count)).transpose()?)
    .bind(seal.map(|s| s.gross.to_decimal()))
    .bind(seal.map(|s| s.digest.to_vec()))
    .bind(w.netting_set.map(NettingSetId::uuid))
    .bind(w.note.as_deref())
    .execute(tx)
    .await?;
    match done.rows_affected() {
        1 => Ok(()),
        _ => Err(DbError::Other(format!("window {} is not {from} any more", w.id))),
    }
}

/// Says why a window waits, or that it does not any more; `true` where that was news.
pub async fn set_note(tx: &mut PgConnection, id: WindowId, note: Option<&str>) -> Result<bool, DbError> {
    let done = sqlx::query("UPDATE clearing_window SET note = $2 WHERE window_id = $1 AND note IS DISTINCT FROM $2")
        .bind(id.uuid())
        .bind(note)
        .execute(tx)
        .await?;
    Ok(done.rows_affected() > 0)
}
