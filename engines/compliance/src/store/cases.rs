//! SQL of the cases and their steps.

use std::collections::{BTreeMap, BTreeSet};

use deltran_events::data::compliance::{CaseCause, CaseOutcome};
use deltran_kernel::{AlertId, CaseId, CommandId, HoldId, Timestamp};
use deltran_runtime::wire::PageOf;
use deltran_runtime::{Db, DbError};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgExecutor, Row};
use uuid::Uuid;

use crate::domain::case::{Action, Case, CaseState, Step, Subject};

/// How often a case that was closed at the same moment is looked for again.
const TRIES: usize = 5;

/// Which cases to list.
#[derive(Debug, Clone, Default)]
pub struct CaseFilter {
    /// In this state.
    pub state: Option<CaseState>,
    /// Of this officer.
    pub assignee: Option<String>,
    /// About this.
    pub subject: Option<Subject>,
}

const PARTICIPANT: &str = "participant";
const TRANSACTION: &str = "transaction";

fn subject_columns(subject: Subject) -> (&'static str, String) {
    match subject {
        Subject::Participant(id) => (PARTICIPANT, id.to_string()),
        Subject::Transaction(id) => (TRANSACTION, id.to_string()),
    }
}

fn subject(kind: &str, id: &str) -> Result<Subject, DbError> {
    match kind {
        PARTICIPANT => Ok(Subject::Participant(id.parse().map_err(DbError::corrupt)?)),
        TRANSACTION => Ok(Subject::Transaction(id.parse().map_err(DbError::corrupt)?)),
        _ => Err(DbError::corrupt(format!("case subject {kind:?}"))),
    }
}

fn state(word: &str) -> Result<CaseState, DbError> {
    CaseState::from_word(word).ok_or_else(|| DbError::corrupt(format!("case state {word:?}")))
}

fn outcome(word: &str) -> Result<CaseOutcome, DbError> {
    CaseOutcome::from_word(word).ok_or_else(|| DbError::corrupt(format!("case outcome {word:?}")))
}

fn moment(micros: Option<i64>) -> Option<Timestamp> {
    micros.map(Timestamp::from_micros)
}

macro_rules! select_case {
    ($rest:literal) => {
        concat!(
            "SELECT case_id, subject_kind, subject, state, outcome, assignee, due_at, escalated_to, cause, opened_at,
                    opened_by, closed_at FROM case_file ",
            $rest
        )
    };
}

fn case(row: &PgRow) -> Result<Case, DbError> {
    let cause: &str = row.try_get("cause")?;
    let closed: Option<&str> = row.try_get("outcome")?;
    Ok(Case {
        case_id: CaseId::new(row.try_get("case_id")?),
        subject: subject(row.try_get("subject_kind")?, row.try_get("subject")?)?,
        state: state(row.try_get("state")?)?,
        outcome: closed.map(outcome).transpose()?,
        assignee: row.try_get("assignee")?,
        due_at: moment(row.try_get("due_at")?),
        escalated_to: row.try_get("escalated_to")?,
        cause: CaseCause::from_word(cause).ok_or_else(|| DbError::corrupt(format!("case cause {cause:?}")))?,
        opened_at: Timestamp::from_micros(row.try_get("opened_at")?),
        opened_by: row.try_get("opened_by")?,
        closed_at: moment(row.try_get("closed_at")?),
    })
}

/// A case.
pub async fn find_case(db: impl PgExecutor<'_>, id: CaseId) -> Result<Option<Case>, DbError> {
    let row = sqlx::query(select_case!("WHERE case_id = $1")).bind(id.uuid()).fetch_optional(db).await?;
    row.as_ref().map(case).transpose()
}

/// A case, locked until the transaction ends.
pub async fn lock_case(tx: &mut PgConnection, id: CaseId) -> Result<Option<Case>, DbError> {
    let row = sqlx::query(select_case!("WHERE case_id = $1 FOR UPDATE")).bind(id.uuid()).fetch_optional(tx).await?;
    row.as_ref().map(case).transpose()
}

/// The case of a subject that is not closed.
pub async fn find_open_case(tx: &mut PgConnection, subject: Subject) -> Result<Option<Case>, DbError> {
    let (kind, id) = subject_columns(subject);
    let row = sqlx::query(select_case!("WHERE subject_kind = $1 AND subject = $2 AND state <> 'CLOSED'"))
        .bind(kind)
        .bind(id)
        .fetch_optional(tx)
        .await?;
    row.as_ref().map(case).transpose()
}

/// Stores new cases, each of its own subject; returns those that are stored. The others' subjects have a
/// case that is not closed.
pub async fn insert_cases(tx: &mut PgConnection, cases: &[&Case]) -> Result<Vec<CaseId>, DbError> {
    let subjects: Vec<(&str, String)> = cases.iter().map(|case| subject_columns(case.subject)).collect();
    let stored: Vec<Uuid> = sqlx::query_scalar(
        "INSERT INTO case_file (case_id, subject_kind, subject, state, cause, opened_at, opened_by, due_at)
         SELECT case_id, kind, subject, 'OPEN', cause, at, by_user, due_at
         FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::bigint[])
           AS n (case_id, kind, subject, cause, at, by_user, due_at)
         ON CONFLICT DO NOTHING RETURNING case_id",
    )
    .bind(cases.iter().map(|case| case.case_id.uuid()).collect::<Vec<_>>())
    .bind(subjects.iter().map(|(kind, _)| *kind).collect::<Vec<_>>())
    .bind(subjects.iter().map(|(_, id)| id.as_str()).collect::<Vec<_>>())
    .bind(cases.iter().map(|case| case.cause.as_str()).collect::<Vec<_>>())
    .bind(cases.iter().map(|case| case.opened_at.micros()).collect::<Vec<_>>())
    .bind(cases.iter().map(|case| case.opened_by.as_str()).collect::<Vec<_>>())
    .bind(cases.iter().map(|case| case.due_at.map(Timestamp::micros)).collect::<Vec<_>>())
    .fetch_all(tx)
    .await?;
    Ok(stored.into_iter().map(CaseId::new).collect())
}

/// The cases of subjects that are not closed, locked in the order of subjects.
async fn lock_open_cases(tx: &mut PgConnection, subjects: &[Subject]) -> Result<Vec<Case>, DbError> {
    let subjects: Vec<(&str, String)> = subjects.iter().map(|subject| subject_columns(*subject)).collect();
    let rows = sqlx::query(select_case!(
        "WHERE (subject_kind, subject) IN (SELECT * FROM UNNEST($1::text[], $2::text[])) AND state <> 'CLOSED'
         ORDER BY subject_kind, subject FOR UPDATE"
    ))
    .bind(subjects.iter().map(|(kind, _)| *kind).collect::<Vec<_>>())
    .bind(subjects.iter().map(|(_, id)| id.as_str()).collect::<Vec<_>>())
    .fetch_all(tx)
    .await?;
    rows.iter().map(case).collect()
}

/// Opens the given cases, in the order of their subjects, or finds the open ones in their place. Returns
/// each subject's case, locked, and whether it is the one given.
pub async fn open_or_join(
    tx: &mut PgConnection,
    given: &BTreeMap<Subject, Case>,
) -> Result<BTreeMap<Subject, (Case, bool)>, DbError> {
    let mut found: BTreeMap<Subject, (Case, bool)> = BTreeMap::new();
    for _ in 0..TRIES {
        let missing: Vec<&Case> = given.values().filter(|case| !found.contains_key(&case.subject)).collect();
        if missing.is_empty() {
            return Ok(found);
        }
        let stored: BTreeSet<CaseId> = insert_cases(tx, &missing).await?.into_iter().collect();
        let (new, there): (Vec<&Case>, Vec<&Case>) =
            missing.into_iter().partition(|case| stored.contains(&case.case_id));
        found.extend(new.into_iter().map(|case| (case.subject, (case.clone(), true))));
        let subjects: Vec<Subject> = there.iter().map(|case| case.subject).collect();
        if !subjects.is_empty() {
            // One that was closed in the meantime is not among them: the next round opens a new one.
            let cases = lock_open_cases(tx, &subjects).await?;
            found.extend(cases.into_iter().map(|case| (case.subject, (case, false))));
        }
    }
    if found.len() == given.len() {
        return Ok(found);
    }
    Err(DbError::Unavailable("cases are opened and closed at the same moment".into()))
}

/// Writes a case's next state; false where its subject has another case that is not closed: the
/// transaction is of no use then.
pub async fn save_case(tx: &mut PgConnection, next: &Case) -> Result<bool, DbError> {
    let saved = sqlx::query(
        "UPDATE case_file SET state = $2, outcome = $3, assignee = $4, due_at = $5, escalated_to = $6, closed_at = $7
         WHERE case_id = $1",
    )
    .bind(next.case_id.uuid())
    .bind(next.state.as_str())
    .bind(next.outcome.map(CaseOutcome::as_str))
    .bind(&next.assignee)
    .bind(next.due_at.map(Timestamp::micros))
    .bind(&next.escalated_to)
    .bind(next.closed_at.map(Timestamp::micros))
    .execute(tx)
    .await;
    match saved {
        Ok(_) => Ok(true),
        Err(error) if error.as_database_error().is_some_and(|e| e.is_unique_violation()) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The columns of a step that depend on what happened.
#[derive(Default)]
struct Columns<'a> {
    written: &'a str,
    to_user: Option<&'a str>,
    due_at: Option<i64>,
    outcome: Option<&'static str>,
    reference: Option<Uuid>,
}

fn columns(action: &Action) -> Columns<'_> {
    let due = |due_at: &Option<Timestamp>| due_at.map(Timestamp::micros);
    match action {
        Action::Open { reason, due_at } | Action::Reopen { reason, due_at } => {
            Columns { written: reason, due_at: due(due_at), ..Columns::default() }
        }
        Action::Assign { assignee, due_at } => {
            Columns { to_user: Some(assignee), due_at: due(due_at), ..Columns::default() }
        }
        Action::Note { text } => Columns { written: text, ..Columns::default() },
        Action::Escalate { to, reason } => Columns { written: reason, to_user: Some(to), ..Columns::default() },
        Action::Close { outcome, reason } => {
            Columns { written: reason, outcome: Some(outcome.as_str()), ..Columns::default() }
        }
        Action::Hold(id) => Columns { reference: Some(id.uuid()), ..Columns::default() },
        Action::Alert(id) => Columns { reference: Some(id.uuid()), ..Columns::default() },
    }
}

/// Appends steps, in their order; returns how many. Fewer where a command's id is in use already.
pub async fn append_steps(tx: &mut PgConnection, steps: &[Step]) -> Result<u64, DbError> {
    let parts: Vec<Columns<'_>> = steps.iter().map(|step| columns(&step.action)).collect();
    let done = sqlx::query(
        "INSERT INTO case_step (case_id, command_id, action, state, by_user, written, to_user, due_at, outcome,
                                reference, at)
         SELECT case_id, command_id, action, state, by_user, written, to_user, due_at, outcome, reference, at
         FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[],
                     $9::text[], $10::uuid[], $11::bigint[])
           WITH ORDINALITY AS n (case_id, command_id, action, state, by_user, written, to_user, due_at, outcome,
                                 reference, at, place)
         ORDER BY place ON CONFLICT (command_id) DO NOTHING",
    )
    .bind(steps.iter().map(|step| step.case_id.uuid()).collect::<Vec<_>>())
    .bind(steps.iter().map(|step| step.command_id.map(CommandId::uuid)).collect::<Vec<_>>())
    .bind(steps.iter().map(|step| step.action.as_str()).collect::<Vec<_>>())
    .bind(steps.iter().map(|step| step.state.as_str()).collect::<Vec<_>>())
    .bind(steps.iter().map(|step| step.by.as_str()).collect::<Vec<_>>())
    .bind(parts.iter().map(|part| part.written).collect::<Vec<_>>())
    .bind(parts.iter().map(|part| part.to_user).collect::<Vec<_>>())
    .bind(parts.iter().map(|part| part.due_at).collect::<Vec<_>>())
    .bind(parts.iter().map(|part| part.outcome).collect::<Vec<_>>())
    .bind(parts.iter().map(|part| part.reference).collect::<Vec<_>>())
    .bind(steps.iter().map(|step| step.at.micros()).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(done.rows_affected())
}

macro_rules! select_step {
    ($rest:literal) => {
        concat!(
            "SELECT step, case_id, command_id, action, state, by_user, written, to_user, due_at, outcome, reference, at
             FROM case_step ",
            $rest
        )
    };
}

fn step(row: &PgRow) -> Result<Step, DbError> {
    let word: &str = row.try_get("action")?;
    let written: String = row.try_get("written")?;
    let due_at = moment(row.try_get("due_at")?);
    let to_user = || Ok::<String, DbError>(row.try_get::<Option<String>, _>("to_user")?.unwrap_or_default());
    let reference = || Ok::<Uuid, DbError>(row.try_get::<Option<Uuid>, _>("reference")?.unwrap_or_default());
    let action = match word {
        "OPENED" => Action::Open { reason: written, due_at },
        "ASSIGNED" => Action::Assign { assignee: to_user()?, due_at },
        "NOTED" => Action::Note { text: written },
        "ESCALATED" => Action::Escalate { to: to_user()?, reason: written },
        "CLOSED" => {
            let word: Option<&str> = row.try_get("outcome")?;
            Action::Close { outcome: outcome(word.unwrap_or_default())?, reason: written }
        }
        "REOPENED" => Action::Reopen { reason: written, due_at },
        "HOLD" => Action::Hold(HoldId::new(reference()?)),
        "ALERT" => Action::Alert(AlertId::new(reference()?)),
        _ => return Err(DbError::corrupt(format!("case action {word:?}"))),
    };
    let number: i64 = row.try_get("step")?;
    let command_id: Option<Uuid> = row.try_get("command_id")?;
    Ok(Step {
        number: u64::try_from(number).map_err(DbError::corrupt)?,
        case_id: CaseId::new(row.try_get("case_id")?),
        command_id: command_id.map(CommandId::new),
        action,
        state: state(row.try_get("state")?)?,
        by: row.try_get("by_user")?,
        at: Timestamp::from_micros(row.try_get("at")?),
    })
}

/// What a command did before, where it did.
pub async fn step_of_command(tx: impl PgExecutor<'_>, id: CommandId) -> Result<Option<Step>, DbError> {
    let row = sqlx::query(select_step!("WHERE command_id = $1")).bind(id.uuid()).fetch_optional(tx).await?;
    row.as_ref().map(step).transpose()
}

/// A page of a case's steps, oldest first.
pub async fn list_steps(db: &Db, id: CaseId, page: &PageOf<u64>) -> Result<Vec<Step>, DbError> {
    let after = page.after.map_or(Ok(0), i64::try_from).unwrap_or(i64::MAX);
    let rows = sqlx::query(select_step!("WHERE case_id = $1 AND step > $2 ORDER BY step LIMIT $3"))
        .bind(id.uuid())
        .bind(after)
        .bind(page.size)
        .fetch_all(db.pool())
        .await?;
    rows.iter().map(step).collect()
}

/// A page of cases, oldest first.
pub async fn list_cases(db: &Db, page: &PageOf<CaseId>, filter: &CaseFilter) -> Result<Vec<Case>, DbError> {
    let subject = filter.subject.map(subject_columns);
    let rows = sqlx::query(select_case!(
        "WHERE ($1::uuid IS NULL OR case_id > $1) AND ($2::text IS NULL OR state = $2)
           AND ($3::text IS NULL OR assignee = $3) AND ($4::text IS NULL OR (subject_kind = $4 AND subject = $5))
         ORDER BY case_id LIMIT $6"
    ))
    .bind(page.after.map(CaseId::uuid))
    .bind(filter.state.map(CaseState::as_str))
    .bind(filter.assignee.as_deref())
    .bind(subject.as_ref().map(|(kind, _)| *kind))
    .bind(subject.as_ref().map(|(_, id)| id.as_str()))
    .bind(page.size)
    .fetch_all(db.pool())
    .await?;
    rows.iter().map(case).collect()
}
