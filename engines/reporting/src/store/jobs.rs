//! Reports as rows.

use deltran_events::data::reporting::{ReportFormat, ReportKind};
use deltran_kernel::{Currency, NettingSetId, ParticipantId, ReportId, Timestamp, WindowId};
use deltran_runtime::DbError;
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use super::{at, currency, day, read};
use crate::domain::day::Day;
use crate::domain::job::{Fields, File, Report, State, Subject};

#[derive(sqlx::FromRow)]
struct Row {
    report_id: Uuid,
    number: i64,
    kind: String,
    participant: Option<String>,
    currency: Option<String>,
    day: Option<i32>,
    window_id: Option<Uuid>,
    netting_set_id: Option<Uuid>,
    formats: Vec<String>,
    verify_ledger: bool,
    state: String,
    note: String,
    requested_by: String,
    schedule: Option<String>,
    requested_at: i64,
    completed_at: Option<i64>,
    expires_at: Option<i64>,
    files: String,
}

fn word<T>(what: &str, text: &str, known: fn(&str) -> Option<T>) -> Result<T, DbError> {
    known(text).ok_or_else(|| DbError::corrupt(format!("{what} {text:?}")))
}

impl TryFrom<Row> for Report {
    type Error = DbError;

    fn try_from(row: Row) -> Result<Self, DbError> {
        let formats = row.formats.iter().map(|f| word("format", f, ReportFormat::from_word));
        let fields = Fields {
            kind: Some(word("kind of report", &row.kind, ReportKind::from_word)?),
            participant: row.participant.map(|who| read(&who)).transpose()?,
            currency: row.currency.map(|code| currency(&code)).transpose()?,
            day: row.day.map(day).transpose()?,
            window: row.window_id.map(WindowId::new),
            set: row.netting_set_id.map(NettingSetId::new),
            formats: formats.collect::<Result<_, _>>()?,
            verify_ledger: row.verify_ledger,
        };
        // What was stored was found to fit then; a day that lay ahead then does not lie ahead now.
        let today = fields.day.unwrap_or_else(|| Day::of(at(row.requested_at), &jiff::tz::TimeZone::UTC));
        let subject =
            Subject::new(fields, today).map_err(|(field, what)| DbError::corrupt(format!("{field} {what}")))?;
        Ok(Self {
            id: ReportId::new(row.report_id),
            number: row.number,
            subject,
            state: word("state of a report", &row.state, State::from_word)?,
            note: row.note,
            requested_by: row.requested_by,
            schedule: row.schedule,
            requested_at: at(row.requested_at),
            completed_at: row.completed_at.map(at),
            expires_at: row.expires_at.map(at),
            files: serde_json::from_str(&row.files).map_err(DbError::corrupt)?,
        })
    }
}

/// Stores reports that were asked for, except those whose id is known; the ids of the new ones.
pub async fn insert_many(
    tx: &mut PgConnection,
    reports: &[(ReportId, Subject)],
    requested_by: &str,
    schedule: Option<&str>,
    requested_at: Timestamp,
) -> Result<Vec<ReportId>, DbError> {
    let mut new = Vec::new();
    for (id, subject) in reports {
        let fields = subject.about.fields();
        let formats: Vec<&str> = subject.formats.iter().map(|f| f.as_str()).collect();
        let done = sqlx::query(
            "INSERT INTO report (report_id, kind, participant, currency, day, window_id, netting_set_id, formats,
                                 verify_ledger, state, requested_by, schedule, requested_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'REQUESTED', $10, $11, $12) ON CONFLICT DO NOTHING",
        )
        .bind(id.uuid())
        .bind(subject.about.kind().as_str())
        .bind(fields.participant.map(|p| p.to_string()))
        .bind(fields.currency.map(|c| c.code().to_owned()))
        .bind(fields.day.map(Day::number))
        .bind(fields.window.map(WindowId::uuid))
        .bind(fields.set.map(NettingSetId::uuid))
        .bind(formats)
        .bind(fields.verify_ledger)
        .bind(requested_by)
        .bind(schedule)
        .bind(requested_at.micros())
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() == 1 {
            new.push(*id);
        }
    }
    Ok(new)
}

/// Stores a report that was asked for; false where its id is known.
pub async fn insert(
    tx: &mut PgConnection,
    id: ReportId,
    subject: &Subject,
    requested_by: &str,
    requested_at: Timestamp,
) -> Result<bool, DbError> {
    let new = insert_many(tx, &[(id, subject.clone())], requested_by, None, requested_at).await?;
    Ok(!new.is_empty())
}

/// A report.
pub async fn report(db: impl PgExecutor<'_>, id: ReportId) -> Result<Option<Report>, DbError> {
    let row: Option<Row> =
        sqlx::query_as("SELECT * FROM report WHERE report_id = $1").bind(id.uuid()).fetch_optional(db).await?;
    row.map(Report::try_from).transpose()
}

/// Hands reports whose event came back to the worker: REQUESTED becomes WAITING.
pub async fn accept(tx: &mut PgConnection, ids: &[ReportId]) -> Result<(), DbError> {
    sqlx::query("UPDATE report SET state = 'WAITING' WHERE report_id = ANY($1) AND state = 'REQUESTED'")
        .bind(ids.iter().map(|id| id.uuid()).collect::<Vec<_>>())
        .execute(tx)
        .await?;
    Ok(())
}

/// Hands reports to the worker whose event has not come back since `before`: the stream drops its oldest messages when
/// it is full. How many there were.
pub async fn accept_late(tx: &mut PgConnection, before: Timestamp) -> Result<u64, DbError> {
    let done = sqlx::query("UPDATE report SET state = 'WAITING' WHERE state = 'REQUESTED' AND requested_at < $1")
        .bind(before.micros())
        .execute(tx)
        .await?;
    Ok(done.rows_affected())
}

/// Reports that are to be written, in the order in which they were asked for, after a number.
pub async fn open(pool: &PgPool, after: i64, size: i64) -> Result<Vec<Report>, DbError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT * FROM report WHERE state IN ('WAITING', 'WRITING') AND number > $1 ORDER BY number LIMIT $2",
    )
    .bind(after)
    .bind(size)
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(Report::try_from).collect()
}

/// Brings a report from one state to another, with a note; false where it is in another state meanwhile.
pub async fn set_state(
    tx: &mut PgConnection,
    id: ReportId,
    from: State,
    to: State,
    note: &str,
) -> Result<bool, DbError> {
    let done = sqlx::query("UPDATE report SET state = $3, note = $4 WHERE report_id = $1 AND state = $2")
        .bind(id.uuid())
        .bind(from.as_str())
        .bind(to.as_str())
        .bind(note)
        .execute(tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// How a report ended well.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// When it was completed.
    pub at: Timestamp,
    /// When its files are removed.
    pub expires_at: Option<Timestamp>,
    /// Its files, the manifest last.
    pub files: Vec<File>,
    /// What is to be said about it, such as a difference that it shows.
    pub note: String,
}

/// Completes a report that was being written; false where it is in another state meanwhile.
pub async fn finish(tx: &mut PgConnection, id: ReportId, outcome: &Outcome) -> Result<bool, DbError> {
    let files = serde_json::to_string(&outcome.files).map_err(DbError::corrupt)?;
    let done = sqlx::query(
        "UPDATE report SET state = 'COMPLETED', note = $2, completed_at = $3, expires_at = $4, files = $5
         WHERE report_id = $1 AND state = 'WRITING'",
    )
    .bind(id.uuid())
    .bind(&outcome.note)
    .bind(outcome.at.micros())
    .bind(outcome.expires_at.map(Timestamp::micros))
    .bind(files)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Completed reports whose time is over.
pub async fn expired(pool: &PgPool, now: Timestamp, size: i64) -> Result<Vec<Report>, DbError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT * FROM report WHERE state = 'COMPLETED' AND expires_at <= $1 ORDER BY expires_at, number LIMIT $2",
    )
    .bind(now.micros())
    .bind(size)
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(Report::try_from).collect()
}

/// Marks a report whose files were removed.
pub async fn expire(tx: &mut PgConnection, id: ReportId) -> Result<bool, DbError> {
    set_state(tx, id, State::Completed, State::Expired, "its files were removed after the time of retention").await
}

/// Which reports a list shows.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub kind: Option<ReportKind>,
    pub states: Vec<State>,
    pub participant: Option<ParticipantId>,
    pub currency: Option<Currency>,
    pub day: Option<Day>,
    pub window: Option<WindowId>,
    pub schedule: Option<String>,
}

/// A page of reports, the newest first; `after` is the number of the last one of the page before.
pub async fn list(pool: &PgPool, filter: &Filter, after: Option<i64>, size: i64) -> Result<Vec<Report>, DbError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT * FROM report
         WHERE ($1::text IS NULL OR kind = $1)
           AND (cardinality($2::text[]) = 0 OR state = ANY($2))
           AND ($3::text IS NULL OR participant = $3)
           AND ($4::text IS NULL OR currency = $4)
           AND ($5::integer IS NULL OR day = $5)
           AND ($6::uuid IS NULL OR window_id = $6)
           AND ($7::text IS NULL OR schedule = $7)
           AND ($8::bigint IS NULL OR number < $8)
         ORDER BY number DESC LIMIT $9",
    )
    .bind(filter.kind.map(|kind| kind.as_str()))
    .bind(filter.states.iter().map(|state| state.as_str()).collect::<Vec<_>>())
    .bind(filter.participant.map(|p| p.to_string()))
    .bind(filter.currency.map(|c| c.code().to_owned()))
    .bind(filter.day.map(Day::number))
    .bind(filter.window.map(WindowId::uuid))
    .bind(filter.schedule.as_deref())
    .bind(after)
    .bind(size)
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(Report::try_from).collect()
}
