//! The small closed set of failures that a caller may see, and their one mapping to gRPC status.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use deltran_api::common::v1::Refusal;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::db::DbError;

/// What kind of failure it is; decides the gRPC code and whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The request itself is wrong.
    Malformed,
    /// The caller did not say who it is, or not in a way that counts.
    Unauthenticated,
    /// The caller may not do this.
    Unauthorised,
    /// There is no such thing.
    NotFound,
    /// The id is taken by something else.
    Conflict,
    /// The thing is in a state that does not allow it.
    WrongState,
    /// Something this depends on does not answer; try again.
    Unavailable,
    /// Too much is waiting already; try again later.
    Overloaded,
    /// Not there yet.
    Unimplemented,
    /// A defect. Details are in the log, never in the answer.
    Internal,
}

/// A failure with what was wrong, the value, and what to do.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The kind.
    pub kind: FailureKind,
    /// A fixed machine-readable word, such as `conflict`.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// Machine-readable values.
    pub details: BTreeMap<String, String>,
    /// When to try again, where that helps.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure of a kind, with its fixed reason and a message.
    pub fn new(kind: FailureKind, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, reason, message: message.into(), details: BTreeMap::new(), retry_after: None }
    }

    /// The request is wrong in `field`.
    pub fn malformed(field: &str, message: impl std::fmt::Display) -> Self {
        Self::new(FailureKind::Malformed, "malformed", format!("{field}: {message}")).with("field", field)
    }

    /// The caller may not do this.
    pub fn unauthorised(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Unauthorised, "unauthorised", message)
    }

    /// There is no such thing.
    pub fn not_found(what: &str, id: impl std::fmt::Display) -> Self {
        Self::new(FailureKind::NotFound, "not_found", format!("there is no {what} {id}"))
    }

    /// The id is in use with another body.
    pub fn conflict(what: &str, id: impl std::fmt::Display) -> Self {
        Self::new(
            FailureKind::Conflict,
            "conflict",
            format!("{what} {id} was used before with another body: use a new id, or send the first body"),
        )
    }

    /// The thing is in a state that does not allow it.
    pub fn wrong_state(message: impl Into<String>, state: impl std::fmt::Display) -> Self {
        Self::new(FailureKind::WrongState, "wrong_state", message).with("state", state)
    }

    /// Something does not answer; the caller may try again with the same id.
    pub fn unavailable(message: impl Into<String>) -> Self {
        let mut failure = Self::new(FailureKind::Unavailable, "unavailable", message);
        failure.retry_after = Some(Duration::from_secs(1));
        failure
    }

    /// Too much is waiting; the caller should slow down.
    pub fn overloaded(message: impl Into<String>) -> Self {
        let mut failure = Self::new(FailureKind::Overloaded, "overloaded", message);
        failure.retry_after = Some(Duration::from_millis(200));
        failure
    }

    /// Part of the contract that this release does not do.
    pub fn unimplemented(what: &str) -> Self {
        Self::new(FailureKind::Unimplemented, "unimplemented", format!("{what} is not part of this release"))
    }

    /// A defect: `cause` is logged here and only here, the answer does not show it.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(error = %cause, "internal failure");
        Self::new(FailureKind::Internal, "internal", "internal failure: the operator's log has the details")
    }

    /// Adds a machine-readable value.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        self.details.insert(key.to_owned(), value.to_string());
        self
    }

    /// The failure as an item inside an answer to many.
    pub fn to_refusal(&self) -> Refusal {
        Refusal { code: self.reason.to_owned(), message: self.message.clone(), details: self.details.clone() }
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let code = match failure.kind {
            FailureKind::Malformed => Code::InvalidArgument,
            FailureKind::Unauthenticated => Code::Unauthenticated,
            FailureKind::Unauthorised => Code::PermissionDenied,
            FailureKind::NotFound => Code::NotFound,
            FailureKind::Conflict => Code::AlreadyExists,
            FailureKind::WrongState => Code::FailedPrecondition,
            FailureKind::Unavailable => Code::Unavailable,
            FailureKind::Overloaded => Code::ResourceExhausted,
            FailureKind::Unimplemented => Code::Unimplemented,
            FailureKind::Internal => Code::Internal,
        };
        let metadata: HashMap<String, String> = failure.details.into_iter().collect();
        let mut details = ErrorDetails::with_error_info(failure.reason, "deltran", metadata);
        if let Some(after) = failure.retry_after {
            details.set_retry_info(Some(after));
        }
        Status::with_error_details(code, failure.message, details)
    }
}

impl From<DbError> for Failure {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Unavailable(cause) => {
                tracing::warn!(error = %cause, "database does not answer");
                Self::unavailable("the database does not answer: try again with the same id")
            }
            DbError::NotLeader => Self::unavailable("another process leads at present: try again with the same id"),
            DbError::Corrupt(cause) | DbError::Other(cause) => Self::internal(cause),
        }
    }
}

/// Reads the failure of another engine's answer back into ours: what may pass later stays that,
/// everything else keeps its words.
impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let (kind, fallback) = match status.code() {
            Code::InvalidArgument | Code::OutOfRange => (FailureKind::Malformed, "malformed"),
            Code::Unauthenticated => (FailureKind::Unauthenticated, "unauthenticated"),
            Code::PermissionDenied => (FailureKind::Unauthorised, "unauthorised"),
            Code::NotFound => (FailureKind::NotFound, "not_found"),
            Code::AlreadyExists => (FailureKind::Conflict, "conflict"),
            Code::FailedPrecondition | Code::Aborted => (FailureKind::WrongState, "wrong_state"),
            Code::ResourceExhausted => (FailureKind::Overloaded, "overloaded"),
            Code::Unimplemented => (FailureKind::Unimplemented, "unimplemented"),
            Code::Internal | Code::DataLoss => (FailureKind::Internal, "internal"),
            _ => (FailureKind::Unavailable, "unavailable"),
        };
        let mut failure = Self::new(kind, fallback, status.message());
        if let Some(info) = status.get_details_error_info() {
            failure.details = info.metadata.into_iter().collect();
            failure.details.insert("reason".into(), info.reason);
        }
        if matches!(kind, FailureKind::Unavailable | FailureKind::Overloaded) {
            failure.retry_after = Some(Duration::from_millis(500));
        }
        failure
    }
}
