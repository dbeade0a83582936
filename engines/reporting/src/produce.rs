//! From a report that was asked for to its files: first everything that it says is gathered and compared, then it is
//! written, a page of entries at a time.

mod gather;
mod proofs;
mod put;

use std::sync::Arc;

use deltran_kernel::{Timestamp, WindowId};
use deltran_runtime::{DbError, EngineContext, Failure};
use tokio::sync::Notify;

use crate::config::Checked;
use crate::domain::Readiness;
use crate::domain::settled::Settled;
use crate::domain::statement::Head;
use crate::domain::trial::Trial;
use crate::files::{FileError, Files};
use crate::store::Direct;
use crate::write;

pub use proofs::Proofs;

/// Why a report is not written now.
#[derive(Debug)]
pub enum Halt {
    /// Something has not arrived; it is tried again.
    Waits(String),
    /// It can never be written.
    Never(String),
    /// It can never be written, because an invariant does not hold.
    Breach(&'static str, String),
    /// Something does not answer; it is tried again.
    Later(String),
    /// Another process leads.
    NotLeader,
}

impl Halt {
    /// What has not arrived, or breaks an invariant.
    fn unless_ready(readiness: Readiness, invariant: &'static str) -> Result<(), Self> {
        match readiness {
            Readiness::Ready => Ok(()),
            Readiness::Waits(what) => Err(Self::Waits(what)),
            Readiness::Never(what) => Err(Self::Breach(invariant, what)),
        }
    }
}

impl From<DbError> for Halt {
    fn from(error: DbError) -> Self {
        match error {
            DbError::NotLeader => Self::NotLeader,
            other => Self::Later(other.to_string()),
        }
    }
}

impl From<sqlx::Error> for Halt {
    fn from(error: sqlx::Error) -> Self {
        DbError::from(error).into()
    }
}

impl From<Failure> for Halt {
    fn from(failure: Failure) -> Self {
        Self::Later(failure.message)
    }
}

impl From<FileError> for Halt {
    fn from(error: FileError) -> Self {
        Self::Later(format!("a file cannot be written: {error}"))
    }
}

/// A stretch of a statement.
#[derive(Debug, Clone, Copy)]
pub enum Segment {
    /// Entries that moved tokens by themselves.
    Direct(Direct),
    /// The payments of a window, at its finality.
    Window(WindowId, Timestamp),
}

/// Everything that a report says, but for a statement's entries.
#[derive(Debug)]
pub enum Plan {
    /// A statement, and where its entries are.
    Statement(Box<Head>, Vec<Segment>),
    /// A settlement, and the window that was asked for.
    Settlement(Box<Settled>, Option<WindowId>),
    /// Trial balances, and what the ledger says of its invariants.
    Trial(Vec<Trial>, Vec<write::Checked>),
}

/// Makes reports.
#[derive(Clone)]
pub struct Producer {
    /// The engine's context.
    pub context: EngineContext,
    /// Where files go.
    pub files: Files,
    /// How reports are made.
    pub checked: Arc<Checked>,
    /// Told when events of the ledger were applied.
    pub applied: Arc<Notify>,
}
