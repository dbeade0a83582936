//! Schedules as rows, and whom they are for.

use deltran_events::data::reporting::{ReportFormat, ReportKind};
use deltran_kernel::{Currency, ParticipantId, Timestamp};
use deltran_runtime::DbError;
use sqlx::{PgConnection, PgExecutor};

use super::{at, currency, read};
use crate::domain::day::Day;
use crate::domain::timetable::Schedule;

#[derive(sqlx::FromRow)]
struct Row {
    name: String,
    kind: String,
    cron: String,
    time_zone: String,
    formats: Vec<String>,
    enabled: bool,
    changed_by: String,
    last_at: i64,
}

impl TryFrom<Row> for Schedule {
    type Error = DbError;

    fn try_from(row: Row) -> Result<Self, DbError> {
        let corrupt = |what: &str| DbError::corrupt(format!("schedule {}: {what:?}", row.name));
        let formats = row.formats.iter().map(|f| ReportFormat::from_word(f).ok_or_else(|| corrupt(f)));
        Ok(Self {
            kind: ReportKind::from_word(&row.kind).ok_or_else(|| corrupt(&row.kind))?,
            formats: formats.collect::<Result<_, _>>()?,
            name: row.name,
            cron: row.cron,
            time_zone: row.time_zone,
            enabled: row.enabled,
            changed_by: row.changed_by,
            last_at: at(row.last_at),
        })
    }
}

/// A schedule, locked for a change.
pub async fn schedule(tx: &mut PgConnection, name: &str) -> Result<Option<Schedule>, DbError> {
    let row: Option<Row> =
        sqlx::query_as("SELECT * FROM schedule WHERE name = $1 FOR UPDATE").bind(name).fetch_optional(tx).await?;
    row.map(Schedule::try_from).transpose()
}

/// Schedules by name, after a name.
pub async fn schedules(db: impl PgExecutor<'_>, after: &str, size: i64) -> Result<Vec<Schedule>, DbError> {
    let rows: Vec<Row> = sqlx::query_as("SELECT * FROM schedule WHERE name > $1 ORDER BY name LIMIT $2")
        .bind(after)
        .bind(size)
        .fetch_all(db)
        .await?;
    rows.into_iter().map(Schedule::try_from).collect()
}

fn formats(schedule: &Schedule) -> Vec<&'static str> {
    schedule.formats.iter().map(|f| f.as_str()).collect()
}

/// Creates a schedule or changes it. Times that are done stay done.
pub async fn save_schedule(tx: &mut PgConnection, schedule: &Schedule) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO schedule (name, kind, cron, time_zone, formats, enabled, changed_by, last_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (name) DO UPDATE SET kind = EXCLUDED.kind, cron = EXCLUDED.cron, time_zone = EXCLUDED.time_zone,
             formats = EXCLUDED.formats, enabled = EXCLUDED.enabled, changed_by = EXCLUDED.changed_by,
             last_at = EXCLUDED.last_at",
    )
    .bind(&schedule.name)
    .bind(schedule.kind.as_str())
    .bind(&schedule.cron)
    .bind(&schedule.time_zone)
    .bind(formats(schedule))
    .bind(schedule.enabled)
    .bind(&schedule.changed_by)
    .bind(schedule.last_at.micros())
    .execute(tx)
    .await?;
    Ok(())
}

/// Creates a schedule of the configuration where there is none of its name; whether it is new.
pub async fn plant(tx: &mut PgConnection, schedule: &Schedule) -> Result<bool, DbError> {
    let done = sqlx::query(
        "INSERT INTO schedule (name, kind, cron, time_zone, formats, enabled, changed_by, last_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
    )
    .bind(&schedule.name)
    .bind(schedule.kind.as_str())
    .bind(&schedule.cron)
    .bind(&schedule.time_zone)
    .bind(formats(schedule))
    .bind(schedule.enabled)
    .bind(&schedule.changed_by)
    .bind(schedule.last_at.micros())
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Notes that a schedule's times up to one are done.
pub async fn ran(tx: &mut PgConnection, name: &str, last_at: Timestamp) -> Result<(), DbError> {
    sqlx::query("UPDATE schedule SET last_at = greatest(last_at, $2) WHERE name = $1")
        .bind(name)
        .bind(last_at.micros())
        .execute(tx)
        .await?;
    Ok(())
}

/// Participants with their currencies that have a statement of a day: those that may have tokens, and those that left
/// where tokens moved on it.
pub async fn members(db: impl PgExecutor<'_>, day: Day) -> Result<Vec<(ParticipantId, Currency)>, DbError> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT m.participant, m.currency FROM membership m JOIN participant p ON p.id = m.participant
         WHERE p.state IN ('ACTIVE', 'SUSPENDED', 'DEFAULTED')
            OR (p.state = 'EXITED' AND EXISTS (
                SELECT 1 FROM token_day t
                WHERE t.participant = m.participant AND t.currency = m.currency AND t.day = $1))
         ORDER BY m.participant, m.currency",
    )
    .bind(day.number())
    .fetch_all(db)
    .await?;
    rows.into_iter().map(|(who, code)| Ok((read(&who)?, currency(&code)?))).collect()
}

/// Whether a participant takes part in a currency, or did.
pub async fn takes_part(
    db: impl PgExecutor<'_>,
    participant: ParticipantId,
    currency: Currency,
) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM membership WHERE participant = $1 AND currency = $2)")
        .bind(participant.as_str())
        .bind(currency.code())
        .fetch_one(db)
        .await?)
}
