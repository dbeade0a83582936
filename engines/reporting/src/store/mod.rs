//! The only SQL of the reporting engine: applying facts, reading them for reports, reports and schedules.

mod apply;
mod facts;
mod jobs;
mod lines;
mod positions;
mod schedules;
mod settled;
mod trial;

pub use apply::{apply, pending_of};
pub use facts::{ClearingFacts, Netted, SettledBatch, apply_clearing, apply_settled};
pub use jobs::{
    Filter, Outcome, accept, accept_late, expire, expired, finish, insert, insert_many, list, open, report, set_state,
};
pub use lines::{
    Direct, direct_totals, lines_of_day, lines_of_window, moved_after, token_change, window_flow, windows_of_day,
};
pub use positions::{Applied, applied, fix_zone, positions, zone};
pub use schedules::{members, plant, ran, save_schedule, schedule, schedules, takes_part};
pub use settled::{batch_of, legs_of, netting_set, opened_at, set_of_window, window_facts, windows_of_group};
pub use trial::{balances_at, currencies, tokens_at};

use std::fmt::Display;
use std::str::FromStr;

use deltran_kernel::{Minor, Timestamp};
use deltran_runtime::DbError;
use rust_decimal::Decimal;

use crate::domain::day::Day;

/// Reads a stored text.
fn read<T: FromStr>(text: &str) -> Result<T, DbError>
where
    T::Err: Display,
{
    text.parse().map_err(DbError::corrupt)
}

fn currency(code: &str) -> Result<deltran_kernel::Currency, DbError> {
    deltran_kernel::Currency::new(code).map_err(DbError::corrupt)
}

fn minor(value: Decimal) -> Result<Minor, DbError> {
    Minor::from_decimal(value).map_err(DbError::corrupt)
}

fn units(value: i64) -> Result<Minor, DbError> {
    Minor::new(i128::from(value)).map_err(DbError::corrupt)
}

fn number(value: i64) -> Result<u64, DbError> {
    u64::try_from(value).map_err(DbError::corrupt)
}

fn bigint(value: impl TryInto<i64, Error: Display>) -> Result<i64, DbError> {
    value.try_into().map_err(DbError::corrupt)
}

fn day(value: i32) -> Result<Day, DbError> {
    Day::from_number(value).ok_or_else(|| DbError::corrupt(format!("day {value} is out of range")))
}

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}
