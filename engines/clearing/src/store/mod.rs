//! The only SQL of the engine. Moments are microseconds, amounts minor units as `NUMERIC(38,0)`.

mod sets;
mod tallies;
mod windows;

use std::collections::BTreeSet;
use std::str::FromStr;

use deltran_kernel::{Currency, Minor};
use deltran_runtime::DbError;
use rust_decimal::Decimal;
use sqlx::PgConnection;

pub use sets::{
    StoredSet, currency_of_set, insert_set, pairs_of, positions_of_set, sealed_positions, set, windows_of_set,
};
pub use tallies::{Counted, counted, counted_of, lock_tallies, orphans, store_taken, waiting_of};
pub use windows::{
    Filter, apply, last_opens_at, list, live, set_note, state_counts, unfinished, window, window_for_update,
    windows_for_update,
};

/// Takes the locks of currencies, which every change of their windows begins with. Always in their order.
pub async fn lock_currencies(tx: &mut PgConnection, currencies: &BTreeSet<Currency>) -> Result<(), DbError> {
    for currency in currencies {
        sqlx::query("SELECT pg_advisory_xact_lock(hashtext('deltran.clearing'), hashtext($1))")
            .bind(currency.code())
            .execute(&mut *tx)
            .await?;
    }
    Ok(())
}

/// Takes the lock of one currency.
pub async fn lock_currency(tx: &mut PgConnection, currency: Currency) -> Result<(), DbError> {
    lock_currencies(tx, &BTreeSet::from([currency])).await
}

fn read<T: FromStr>(text: &str) -> Result<T, DbError>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(DbError::corrupt)
}

fn minor(value: Decimal) -> Result<Minor, DbError> {
    Minor::from_decimal(value).map_err(DbError::corrupt)
}

fn number(value: i64) -> Result<u64, DbError> {
    u64::try_from(value).map_err(|_| DbError::corrupt(format!("{value} is no count")))
}

fn to_bigint(value: u64) -> Result<i64, DbError> {
    i64::try_from(value).map_err(|_| DbError::Other(format!("{value} exceeds a bigint")))
}

fn digest(bytes: Vec<u8>) -> Result<[u8; 32], DbError> {
    bytes.try_into().map_err(|_| DbError::corrupt("a digest does not have 32 bytes"))
}
