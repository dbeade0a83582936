//! Rows of the use of liquidity by business day.

use std::collections::{BTreeMap, BTreeSet};

use deltran_kernel::{Currency, ParticipantId, Timestamp};
use deltran_runtime::{Db, DbError};
use rust_decimal::Decimal;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::{decimal, number, parsed, units};
use crate::domain::liquidity::{Day, PEAKS, Peak};

/// Whose day it is, in which currency, and which: such as `2026-11-20`.
pub type DayKey = (ParticipantId, Currency, String);

/// A participant's day as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayRow {
    /// Whose.
    pub participant: ParticipantId,
    /// In which currency.
    pub currency: Currency,
    /// The day.
    pub day: Day,
}

macro_rules! select_day {
    ($rest:literal) => {
        concat!(
            "SELECT d.participant, d.currency, d.day, sent, received, sent_count, received_count, peak_1, peak_1_at,
                    peak_2, peak_2_at, peak_3, peak_3_at, rising, rising_at, trough FROM liquidity_day d ",
            $rest
        )
    };
}

fn day(row: &PgRow) -> Result<(DayKey, Day), DbError> {
    let peak = |usage, at| -> Result<Option<Peak>, DbError> {
        let found: Option<(Decimal, i64)> =
            row.try_get::<Option<Decimal>, _>(usage)?.zip(row.try_get::<Option<i64>, _>(at)?);
        found.map(|(usage, at)| Ok(Peak { usage: units(usage)?, at: Timestamp::from_micros(at) })).transpose()
    };
    let kept = [("peak_1", "peak_1_at"), ("peak_2", "peak_2_at"), ("peak_3", "peak_3_at")];
    let peaks: Vec<Option<Peak>> = kept.into_iter().map(|(usage, at)| peak(usage, at)).collect::<Result<_, _>>()?;
    let day = Day {
        sent: units(row.try_get("sent")?)?,
        received: units(row.try_get("received")?)?,
        sent_count: number(row.try_get("sent_count")?)?,
        received_count: number(row.try_get("received_count")?)?,
        peaks: peaks.into_iter().flatten().collect(),
        rising: peak("rising", "rising_at")?,
        trough: row.try_get::<Option<Decimal>, _>("trough")?.map(units).transpose()?,
    };
    let (participant, currency): (String, String) = (row.try_get("participant")?, row.try_get("currency")?);
    Ok(((parsed(&participant)?, parsed(&currency)?, row.try_get("day")?), day))
}

/// These days, as far as there are rows. The book's version must be locked.
pub async fn lock_days(tx: &mut PgConnection, keys: &BTreeSet<DayKey>) -> Result<BTreeMap<DayKey, Day>, DbError> {
    let rows = sqlx::query(select_day!(
        "JOIN UNNEST($1::text[], $2::text[], $3::text[]) k (participant, currency, day)
           ON d.participant = k.participant AND d.currency = k.currency AND d.day = k.day"
    ))
    .bind(keys.iter().map(|(participant, ..)| participant.to_string()).collect::<Vec<_>>())
    .bind(keys.iter().map(|(_, currency, _)| currency.code().to_owned()).collect::<Vec<_>>())
    .bind(keys.iter().map(|(.., day)| day.clone()).collect::<Vec<_>>())
    .fetch_all(tx)
    .await?;
    rows.iter().map(day).collect()
}

/// Stores days.
pub async fn save_days(tx: &mut PgConnection, days: &BTreeMap<DayKey, Day>) -> Result<(), DbError> {
    if days.is_empty() {
        return Ok(());
    }
    let all: Vec<&Day> = days.values().collect();
    let amounts = |of: &dyn Fn(&Day) -> i128| all.iter().map(|d| decimal(of(d))).collect::<Result<Vec<Decimal>, _>>();
    let usages = |of: &dyn Fn(&Day) -> Option<i128>| {
        all.iter().map(|d| of(d).map(decimal).transpose()).collect::<Result<Vec<Option<Decimal>>, _>>()
    };
    let times = |of: &dyn Fn(&Day) -> Option<Peak>| {
        all.iter().map(|d| of(d).map(|p| p.at.micros())).collect::<Vec<Option<i64>>>()
    };
    let mut query = sqlx::query(
        "INSERT INTO liquidity_day (participant, currency, day, sent, received, sent_count, received_count, rising,
                                    rising_at, trough, peak_1, peak_1_at, peak_2, peak_2_at, peak_3, peak_3_at)
         SELECT * FROM UNNEST($1::text[], $2::text[], $3::text[], $4::numeric[], $5::numeric[], $6::bigint[],
                              $7::bigint[], $8::numeric[], $9::bigint[], $10::numeric[], $11::numeric[], $12::bigint[],
                              $13::numeric[], $14::bigint[], $15::numeric[], $16::bigint[])
         ON CONFLICT (day, participant, currency) DO UPDATE SET sent = excluded.sent, received = excluded.received,
             sent_count = excluded.sent_count, received_count = excluded.received_count, rising = excluded.rising,
             rising_at = excluded.rising_at, trough = excluded.trough, peak_1 = excluded.peak_1,
             peak_1_at = excluded.peak_1_at, peak_2 = excluded.peak_2, peak_2_at = excluded.peak_2_at,
             peak_3 = excluded.peak_3, peak_3_at = excluded.peak_3_at",
    )
    .bind(days.keys().map(|(participant, ..)| participant.to_string()).collect::<Vec<_>>())
    .bind(days.keys().map(|(_, currency, _)| currency.code().to_owned()).collect::<Vec<_>>())
    .bind(days.keys().map(|(.., day)| day.clone()).collect::<Vec<_>>())
    .bind(amounts(&|d| d.sent)?)
    .bind(amounts(&|d| d.received)?)
    .bind(all.iter().map(|d| d.sent_count as i64).collect::<Vec<_>>())
    .bind(all.iter().map(|d| d.received_count as i64).collect::<Vec<_>>())
    .bind(usages(&|d| d.rising.map(|p| p.usage))?)
    .bind(times(&|d| d.rising))
    .bind(usages(&|d| d.trough)?);
    for place in 0..PEAKS {
        let peak = move |d: &Day| d.peaks.get(place).copied();
        query = query.bind(usages(&move |d| peak(d).map(|p| p.usage))?).bind(times(&peak));
    }
    query.execute(tx).await?;
    Ok(())
}

/// A page of a day, by participant and currency.
pub async fn list_days(
    db: &Db,
    the_day: &str,
    participant: Option<ParticipantId>,
    currency: Option<Currency>,
    after: Option<(ParticipantId, Currency)>,
    size: i64,
) -> Result<Vec<DayRow>, DbError> {
    let rows = sqlx::query(select_day!(
        "WHERE d.day = $1 AND ($2::text IS NULL OR d.participant = $2) AND ($3::text IS NULL OR d.currency = $3)
           AND ($4::text IS NULL OR (d.participant COLLATE \"C\", d.currency COLLATE \"C\") > ($4, $5))
         ORDER BY d.participant COLLATE \"C\", d.currency COLLATE \"C\" LIMIT $6"
    ))
    .bind(the_day)
    .bind(participant.map(|p| p.to_string()))
    .bind(currency.map(|c| c.code().to_owned()))
    .bind(after.map(|(p, _)| p.to_string()))
    .bind(after.map(|(_, c)| c.code().to_owned()))
    .bind(size)
    .fetch_all(db.pool())
    .await?;
    rows.iter()
        .map(|row| {
            let ((participant, currency, _), day) = day(row)?;
            Ok(DayRow { participant, currency, day })
        })
        .collect()
}
