//! The commands: each reads, lets the domain decide, and writes the result with its events in one
//! transaction. A room per noun.

mod cases;
mod holds;
mod lists;
mod rules;
mod screening;

use std::sync::Arc;
use std::time::Duration;

use deltran_events::data::compliance::AlertRaised;
use deltran_kernel::{Clock, IdSource};
use deltran_messaging::{Door, Outgoing};
use deltran_runtime::{DbError, EngineContext, Failure, FailureKind};
use tokio::sync::Notify;

use crate::domain::hold::HoldError;
use crate::domain::list::ListError;
use crate::lists::Lists;

pub use cases::CaseFailure;
pub(crate) use cases::{PLATFORM, bring_to_cases};
pub use rules::RuleFailure;
pub use screening::{Answers, Subject};

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The database did not do it.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The hold does not allow it.
    #[error(transparent)]
    Hold(#[from] HoldError),
    /// The list is not good.
    #[error(transparent)]
    List(#[from] ListError),
}

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Db(error) => error.into(),
            CommandError::List(error) => Failure::malformed("content", error),
            CommandError::Hold(error) => {
                let text = error.to_string();
                match error {
                    HoldError::NotFound(_) => Failure::new(FailureKind::NotFound, "not_found", text),
                    HoldError::SameOfficer { proposed_by, decided_by, .. } => {
                        Failure::unauthorised(text).with("proposed_by", proposed_by).with("decided_by", decided_by)
                    }
                    HoldError::WrongState { state, .. } => Failure::wrong_state(text, state.as_str()),
                }
            }
        }
    }
}

/// The caller of a command, as far as it goes on record.
#[derive(Debug, Clone)]
pub struct By {
    /// The user.
    pub user: String,
    /// W3C `traceparent` of the call.
    pub trace: Option<String>,
}

/// Carries out the commands of the engine.
pub struct Desk {
    pub(crate) door: Door,
    pub(crate) lists: Lists,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn IdSource>,
    decide_wait: Duration,
    /// A hold was decided: the driver has work.
    pub(crate) decided: Arc<Notify>,
    /// The driver ended a hold.
    pub(crate) finished: Notify,
}

impl Desk {
    /// The desk of an engine.
    pub fn new(context: &EngineContext, door: Door, lists: Lists, decide_wait: Duration) -> Self {
        Self {
            door,
            lists,
            clock: context.clock.clone(),
            ids: context.ids.clone(),
            decide_wait,
            decided: Arc::default(),
            finished: Notify::new(),
        }
    }
}

fn alert(kind: &str, message: &str, by: &By) -> Outgoing {
    let event = AlertRaised::new(kind, message);
    Outgoing::new(event, kind, &by.user).traced(by.trace.clone())
}
