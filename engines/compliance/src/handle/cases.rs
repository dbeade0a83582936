//! Cases: what officers do to them, and how holds and alerts come to them.

use std::collections::{BTreeMap, BTreeSet};

use deltran_events::data::compliance::{CaseCause, CaseClosed, CaseEscalated, CaseOpened};
use deltran_kernel::{CaseId, CommandId, HoldId, IdSource, Timestamp, TransactionId};
use deltran_messaging::Outgoing;
use deltran_runtime::{DbError, Failure, FailureKind};
use sqlx::PgConnection;

use super::{By, Desk};
use crate::domain::Outcome;
use crate::domain::case::{self, Action, Case, CaseError, Changed, Command, Step, Subject};
use crate::store;

/// How often a command that met another one at the same moment is tried.
const TRIES: usize = 5;

/// Who does what nobody asked for.
pub(crate) const PLATFORM: &str = "compliance-engine";

/// Why a command on a case was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum CaseFailure {
    /// The database did not do it.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The case does not allow it.
    #[error(transparent)]
    Case(#[from] CaseError),
    /// Others change the same case all the time.
    #[error("the case is being changed by others: try again with the same id")]
    Busy,
}

impl From<CaseFailure> for Failure {
    fn from(failure: CaseFailure) -> Self {
        let text = failure.to_string();
        match failure {
            CaseFailure::Db(error) => error.into(),
            CaseFailure::Busy => Failure::unavailable(text),
            CaseFailure::Case(error) => match error {
                CaseError::Conflict(id) => Failure::conflict("command", id),
                CaseError::NotFound(id) => Failure::not_found("case", id),
                CaseError::WrongState { state, .. } => Failure::wrong_state(text, state.as_str()),
                CaseError::AlreadyOpen { case_id, state, .. } => {
                    Failure::wrong_state(text, state.as_str()).with("case_id", case_id)
                }
                CaseError::PastDue { due_at } => {
                    Failure::new(FailureKind::Malformed, "malformed", format!("due_at: {text}"))
                        .with("field", "due_at")
                        .with("due_at", due_at)
                }
            },
        }
    }
}

impl Desk {
    /// Opens a case.
    ///
    /// # Errors
    /// `conflict`, `wrong_state` with the `case_id` where the subject has a case that is not closed, `malformed`.
    pub async fn open_case(
        &self,
        command_id: CommandId,
        subject: Subject,
        action: Action,
        by: &By,
    ) -> Result<Case, CaseFailure> {
        for _ in 0..TRIES {
            let at = self.clock.now();
            let case_id = CaseId::new(self.ids.next_id(at));
            let command = Command { command_id, action: action.clone(), by: by.user.clone(), at };
            let mut tx = self.door.begin("command").await?;
            // In this order: where the command has opened the case, its step is seen with it.
            let present = store::find_open_case(&mut tx, subject).await?;
            let step = store::step_of_command(&mut *tx, command_id).await?;
            let before = match &step {
                Some(step) => store::find_case(&mut *tx, step.case_id).await?,
                None => None,
            };
            let outcome = case::open(step.as_ref().zip(before.as_ref()), present.as_ref(), case_id, subject, &command)?;
            let Outcome::Executed(Changed { case, step }) = outcome else { return Ok(outcome.into_inner().case) };
            // Another command was first, with the same subject or the same id: what it did decides.
            if store::insert_cases(&mut tx, &[&case]).await?.is_empty()
                || store::append_steps(&mut tx, std::slice::from_ref(&step)).await? == 0
            {
                continue;
            }
            tx.commit(&[opened(&case, CaseCause::Officer, &by.user).traced(by.trace.clone())]).await?;
            return Ok(case);
        }
        Err(CaseFailure::Busy)
    }

    /// Does something to a case.
    ///
    /// # Errors
    /// `not_found`, `conflict`, `wrong_state`, `malformed`.
    pub async fn change_case(
        &self,
        command_id: CommandId,
        case_id: CaseId,
        action: Action,
        by: &By,
    ) -> Result<Case, CaseFailure> {
        for _ in 0..TRIES {
            let command = Command { command_id, action: action.clone(), by: by.user.clone(), at: self.clock.now() };
            let mut tx = self.door.begin("command").await?;
            let present = store::lock_case(&mut tx, case_id).await?.ok_or(CaseError::NotFound(case_id))?;
            let earlier = store::step_of_command(&mut *tx, command_id).await?;
            let outcome = case::change(&present, earlier.as_ref(), &command)?;
            let Outcome::Executed(Changed { case, step }) = outcome else { return Ok(outcome.into_inner().case) };
            if let Action::Reopen { .. } = &step.action
                && let Some(other) = store::find_open_case(&mut tx, case.subject).await?
            {
                let (subject, case_id, state) = (case.subject, other.case_id, other.state);
                return Err(CaseError::AlreadyOpen { subject, case_id, state }.into());
            }
            if !store::save_case(&mut tx, &case).await?
                || store::append_steps(&mut tx, std::slice::from_ref(&step)).await? == 0
            {
                continue;
            }
            let event = event_of(&case, &step, &by.user).map(|event| event.traced(by.trace.clone()));
            tx.commit(&Vec::from_iter(event)).await?;
            return Ok(case);
        }
        Err(CaseFailure::Busy)
    }

    /// Brings new holds to the cases of their transactions, in the caller's transaction. Returns what is
    /// published about it.
    pub(crate) async fn cases_of_holds(
        &self,
        tx: &mut PgConnection,
        holds: impl IntoIterator<Item = (TransactionId, HoldId)>,
        at: Timestamp,
    ) -> Result<Vec<Outgoing>, DbError> {
        let brought: Vec<(Subject, Action)> = holds
            .into_iter()
            .map(|(transaction, hold)| (Subject::Transaction(transaction), Action::Hold(hold)))
            .collect();
        Ok(bring_to_cases(tx, &*self.ids, at, CaseCause::Hold, &brought).await?.1)
    }
}

/// What is published about a step of an officer, where others need to know.
fn event_of(case: &Case, step: &Step, user: &str) -> Option<Outgoing> {
    let (case_id, participant) = (case.case_id, case.subject.participant());
    let transaction_id = case.subject.transaction();
    let event = match &step.action {
        Action::Reopen { .. } => return Some(opened(case, CaseCause::Reopened, user)),
        Action::Escalate { to, .. } => {
            let (escalated_to, escalated_by) = (to.clone(), user.to_owned());
            let event = CaseEscalated { case_id, participant, transaction_id, escalated_to, escalated_by };
            Outgoing::new(event, case_id, user)
        }
        Action::Close { outcome, .. } => {
            let (outcome, closed_by) = (*outcome, user.to_owned());
            Outgoing::new(CaseClosed { case_id, participant, transaction_id, outcome, closed_by }, case_id, user)
        }
        _ => return None,
    };
    Some(about(case, event))
}

fn opened(case: &Case, cause: CaseCause, user: &str) -> Outgoing {
    let event = CaseOpened {
        case_id: case.case_id,
        participant: case.subject.participant(),
        transaction_id: case.subject.transaction(),
        cause,
        opened_by: user.to_owned(),
    };
    about(case, Outgoing::new(event, case.case_id, user))
}

fn about(case: &Case, event: Outgoing) -> Outgoing {
    match case.subject.participant() {
        Some(participant) => event.of(participant),
        None => event,
    }
}

/// Brings holds or alerts to the cases of their subjects, in the caller's transaction; subjects without an
/// open case get one. Returns the case of each subject and what is published about new ones.
pub(crate) async fn bring_to_cases(
    tx: &mut PgConnection,
    ids: &dyn IdSource,
    at: Timestamp,
    cause: CaseCause,
    brought: &[(Subject, Action)],
) -> Result<(BTreeMap<Subject, CaseId>, Vec<Outgoing>), DbError> {
    if brought.is_empty() {
        return Ok((BTreeMap::new(), Vec::new()));
    }
    let subjects: BTreeSet<Subject> = brought.iter().map(|(subject, _)| *subject).collect();
    let given = subjects
        .into_iter()
        .map(|subject| (subject, case::new_case(CaseId::new(ids.next_id(at)), subject, cause, PLATFORM, at)));
    let cases = store::open_or_join(tx, &given.collect()).await?;
    let step = |case: &Case, action: Action| Step {
        number: 0,
        case_id: case.case_id,
        command_id: None,
        action,
        state: case.state,
        by: PLATFORM.to_owned(),
        at,
    };
    let new: Vec<&Case> = cases.values().filter(|(_, new)| *new).map(|(case, _)| case).collect();
    let begin = || Action::Open { reason: String::new(), due_at: None };
    let mut steps: Vec<Step> = new.iter().map(|case| step(case, begin())).collect();
    steps.extend(brought.iter().filter_map(|(subject, action)| Some(step(&cases.get(subject)?.0, action.clone()))));
    store::append_steps(tx, &steps).await?;
    let events = new.into_iter().map(|case| opened(case, cause, PLATFORM)).collect();
    Ok((cases.into_iter().map(|(subject, (case, _))| (subject, case.case_id)).collect(), events))
}
