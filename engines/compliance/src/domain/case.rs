//! Cases: what officers look into.
//!
//! ```text
//! OPEN → INVESTIGATING → CLOSED(confirmed | false_positive | valuable)
//!        INVESTIGATING ← CLOSED                                          reopened
//! ```
//! A case begins OPEN; assigning it begins the investigation. A subject has at most one case that is not
//! closed (K8). Steps are appended and never changed (K9).

use std::fmt;

use deltran_events::data::compliance::{CaseCause, CaseOutcome};
use deltran_kernel::{AlertId, CaseId, CommandId, HoldId, ParticipantId, Timestamp, TransactionId};

use super::Outcome;

/// What a case is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A participant.
    Participant(ParticipantId),
    /// A transaction.
    Transaction(TransactionId),
}

impl Subject {
    /// The participant, where it is one.
    pub const fn participant(self) -> Option<ParticipantId> {
        match self {
            Self::Participant(id) => Some(id),
            Self::Transaction(_) => None,
        }
    }

    /// The transaction, where it is one.
    pub const fn transaction(self) -> Option<TransactionId> {
        match self {
            Self::Participant(_) => None,
            Self::Transaction(id) => Some(id),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Participant(id) => write!(f, "participant {id}"),
            Self::Transaction(id) => write!(f, "transaction {id}"),
        }
    }
}

/// A case's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CaseState {
    /// Nobody has it yet.
    Open,
    /// Somebody looks into it.
    Investigating,
    /// It came to something.
    Closed,
}

impl CaseState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Open, Self::Investigating, Self::Closed];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "OPEN",
            Self::Investigating => "INVESTIGATING",
            Self::Closed => "CLOSED",
        }
    }

    /// The state of a word; `None` where there is no such word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// A case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Its id.
    pub case_id: CaseId,
    /// What it is about.
    pub subject: Subject,
    /// Its state.
    pub state: CaseState,
    /// What it came to, where it is closed.
    pub outcome: Option<CaseOutcome>,
    /// Who looks into it.
    pub assignee: Option<String>,
    /// Until when.
    pub due_at: Option<Timestamp>,
    /// Who has more to say, where it was brought to somebody.
    pub escalated_to: Option<String>,
    /// What opened it first.
    pub cause: CaseCause,
    /// When it was opened first.
    pub opened_at: Timestamp,
    /// Who opened it first.
    pub opened_by: String,
    /// Since when it is closed.
    pub closed_at: Option<Timestamp>,
}

/// What happens to a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It begins.
    Open {
        /// Why; personal data may stand in it.
        reason: String,
        /// Until when it should be closed.
        due_at: Option<Timestamp>,
    },
    /// An officer gets it.
    Assign {
        /// The officer.
        assignee: String,
        /// Until when it should be closed; `None` leaves that as it is.
        due_at: Option<Timestamp>,
    },
    /// An officer writes something down.
    Note {
        /// What; personal data may stand in it.
        text: String,
    },
    /// It is brought to somebody with more to say.
    Escalate {
        /// To whom.
        to: String,
        /// Why.
        reason: String,
    },
    /// It ends.
    Close {
        /// What it came to.
        outcome: CaseOutcome,
        /// Why.
        reason: String,
    },
    /// It goes on after it had ended, with the officer who had it.
    Reopen {
        /// Why.
        reason: String,
        /// Until when it should be closed.
        due_at: Option<Timestamp>,
    },
    /// A hold belongs to it.
    Hold(HoldId),
    /// An alert belongs to it.
    Alert(AlertId),
}

impl Action {
    /// The word for it in answers and stored rows.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Open { .. } => "OPENED",
            Self::Assign { .. } => "ASSIGNED",
            Self::Note { .. } => "NOTED",
            Self::Escalate { .. } => "ESCALATED",
            Self::Close { .. } => "CLOSED",
            Self::Reopen { .. } => "REOPENED",
            Self::Hold(_) => "HOLD",
            Self::Alert(_) => "ALERT",
        }
    }

    const fn due_at(&self) -> Option<Timestamp> {
        match self {
            Self::Open { due_at, .. } | Self::Assign { due_at, .. } | Self::Reopen { due_at, .. } => *due_at,
            _ => None,
        }
    }
}

/// What happened to a case, for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its number, which rises over all cases; 0 before it is stored.
    pub number: u64,
    /// The case.
    pub case_id: CaseId,
    /// The command that it carries out; `None` where the platform did it.
    pub command_id: Option<CommandId>,
    /// What happened.
    pub action: Action,
    /// The case's state after it.
    pub state: CaseState,
    /// Who did it.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// A command of an officer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Its idempotency key.
    pub command_id: CommandId,
    /// What is to happen.
    pub action: Action,
    /// Who wants it.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// A case as a command leaves it, with the step to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The case.
    pub case: Case,
    /// The step.
    pub step: Step,
}

/// Why a command on a case was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaseError {
    /// The command's id is in use with another body.
    #[error("command {0} was used before with another body: use a new id, or send the first body")]
    Conflict(CommandId),
    /// There is no such case.
    #[error("there is no case {0}")]
    NotFound(CaseId),
    /// The subject has a case that is not closed.
    #[error("{subject} has case {case_id}, which is {}: go on with that one", .state.as_str())]
    AlreadyOpen {
        /// The subject.
        subject: Subject,
        /// Its case.
        case_id: CaseId,
        /// That case's state.
        state: CaseState,
    },
    /// The case is in a state that does not allow it.
    #[error("case {case_id} is {}: {expected}", .state.as_str())]
    WrongState {
        /// The case.
        case_id: CaseId,
        /// Its state.
        state: CaseState,
        /// What would be needed.
        expected: &'static str,
    },
    /// The due date has passed.
    #[error("{due_at} has passed: a due date lies ahead")]
    PastDue {
        /// The due date.
        due_at: Timestamp,
    },
}

/// A case that the platform or an officer opens.
pub fn new_case(case_id: CaseId, subject: Subject, cause: CaseCause, by: &str, at: Timestamp) -> Case {
    Case {
        case_id,
        subject,
        state: CaseState::Open,
        outcome: None,
        assignee: None,
        due_at: None,
        escalated_to: None,
        cause,
        opened_at: at,
        opened_by: by.to_owned(),
        closed_at: None,
    }
}

/// An officer opens a case about `subject` under `case_id`. `earlier` is what the command did before, with the
/// case; `present` the case of the subject that is not closed.
///
/// # Errors
/// In this order: `Conflict`, `AlreadyOpen` (K8), `PastDue`.
pub fn open(
    earlier: Option<(&Step, &Case)>,
    present: Option<&Case>,
    case_id: CaseId,
    subject: Subject,
    command: &Command,
) -> Result<Outcome<Changed>, CaseError> {
    if let Some((step, case)) = earlier {
        return if case.subject == subject { repeated(step, case, command) } else { conflict(command) };
    }
    if let Some(Case { case_id, state, .. }) = present {
        return Err(CaseError::AlreadyOpen { subject, case_id: *case_id, state: *state });
    }
    check_due(command)?;
    // ---- nothing fails below ----
    let mut case = new_case(case_id, subject, CaseCause::Officer, &command.by, command.at);
    case.due_at = command.action.due_at();
    Ok(Outcome::Executed(changed(case, command)))
}

/// An officer does something to a case. `earlier` is what the command did before. Whether a case may be
/// opened again beside another one of its subject is for the caller to see (K8).
///
/// # Errors
/// In this order: `Conflict`, `WrongState`, `PastDue`.
pub fn change(case: &Case, earlier: Option<&Step>, command: &Command) -> Result<Outcome<Changed>, CaseError> {
    if let Some(step) = earlier {
        return if step.case_id == case.case_id { repeated(step, case, command) } else { conflict(command) };
    }
    let wrong = |expected| Err(CaseError::WrongState { case_id: case.case_id, state: case.state, expected });
    match (&command.action, case.state) {
        (Action::Reopen { .. }, CaseState::Closed) => {}
        (Action::Reopen { .. }, _) => return wrong("only a case that is CLOSED can be opened again"),
        (_, CaseState::Closed) => return wrong("open it again first"),
        (Action::Close { .. }, CaseState::Open) => return wrong("somebody must look into it first: assign it"),
        (Action::Open { .. } | Action::Hold(_) | Action::Alert(_), _) => return wrong("it is there already"),
        _ => {}
    }
    check_due(command)?;
    // ---- nothing fails below ----
    let mut next = case.clone();
    match &command.action {
        Action::Assign { assignee, due_at } => {
            next.state = CaseState::Investigating;
            next.assignee = Some(assignee.clone());
            next.due_at = due_at.or(case.due_at);
        }
        Action::Escalate { to, .. } => next.escalated_to = Some(to.clone()),
        Action::Close { outcome, .. } => {
            next.state = CaseState::Closed;
            next.outcome = Some(*outcome);
            next.closed_at = Some(command.at);
        }
        Action::Reopen { due_at, .. } => {
            next.state = CaseState::Investigating;
            next.outcome = None;
            next.closed_at = None;
            next.due_at = *due_at;
        }
        Action::Note { .. } | Action::Open { .. } | Action::Hold(_) | Action::Alert(_) => {}
    }
    Ok(Outcome::Executed(changed(next, command)))
}

fn changed(case: Case, command: &Command) -> Changed {
    let step = Step {
        number: 0,
        case_id: case.case_id,
        command_id: Some(command.command_id),
        action: command.action.clone(),
        state: case.state,
        by: command.by.clone(),
        at: command.at,
    };
    Changed { case, step }
}

/// The command was carried out before; the answer shows the case as it is now.
fn repeated(step: &Step, case: &Case, command: &Command) -> Result<Outcome<Changed>, CaseError> {
    if step.action == command.action && step.by == command.by {
        Ok(Outcome::AlreadyApplied(Changed { case: case.clone(), step: step.clone() }))
    } else {
        conflict(command)
    }
}

fn conflict<T>(command: &Command) -> Result<T, CaseError> {
    Err(CaseError::Conflict(command.command_id))
}

fn check_due(command: &Command) -> Result<(), CaseError> {
    match command.action.due_at() {
        Some(due_at) if due_at <= command.at => Err(CaseError::PastDue { due_at }),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "case_tests.rs"]
mod tests;
