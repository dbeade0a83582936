//! The only SQL of the engine.

mod alarms;
mod book;
mod breakers;
mod exposures;
mod limits;
mod liquidity;
mod read;

pub use alarms::{Alarm, alarms, set_alarms};
pub use book::{Counted, count, decisions, forget, next_version, waiting_of};
pub use breakers::{
    all_breakers, extend_breaker, find_breaker, find_breaker_command, list_breakers, lock_breaker, save_breaker,
};
pub use exposures::{Exposure, exposures, largest_of, snapshot};
pub use limits::{
    LimitFilter, StepFilter, StepRow, caps_on_their_way, due_limits, find_limit, insert_limit, list_limits, list_steps,
    lock_limit, save_limit,
};
pub use liquidity::{DayRow, list_days, lock_days, save_days};
pub use read::{BookRows, Read, read};

use deltran_kernel::{Currency, Minor, Money, WindowId};
use deltran_runtime::DbError;
use rust_decimal::Decimal;
use sqlx::PgConnection;

/// The version of what is in force, locked until the transaction ends.
pub async fn lock_version(tx: &mut PgConnection) -> Result<u64, DbError> {
    let version: i64 = sqlx::query_scalar("SELECT version FROM gate FOR UPDATE").fetch_one(tx).await?;
    number(version)
}

/// Raises the version.
pub async fn set_version(tx: &mut PgConnection, version: u64) -> Result<(), DbError> {
    sqlx::query("UPDATE gate SET version = $1").bind(version as i64).execute(tx).await?;
    Ok(())
}

fn number(value: i64) -> Result<u64, DbError> {
    u64::try_from(value).map_err(DbError::corrupt)
}

fn parsed<T: std::str::FromStr>(text: &str) -> Result<T, DbError>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(DbError::corrupt)
}

fn minor(amount: Decimal) -> Result<Minor, DbError> {
    Minor::from_decimal(amount).map_err(DbError::corrupt)
}

fn units(amount: Decimal) -> Result<i128, DbError> {
    Ok(minor(amount)?.units())
}

fn decimal(units: i128) -> Result<Decimal, DbError> {
    Ok(Minor::new(units).map_err(DbError::corrupt)?.to_decimal())
}

fn money(currency: &str, amount: Decimal) -> Result<Money, DbError> {
    Ok(Money::new(minor(amount)?, parsed::<Currency>(currency)?))
}

fn uuids(ids: impl IntoIterator<Item = WindowId>) -> Vec<uuid::Uuid> {
    ids.into_iter().map(WindowId::uuid).collect()
}
