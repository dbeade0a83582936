//! How a command ends when it does not succeed: its exit code and the one line it says.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::io::Write as _;

use deltran_runtime::DbError;
use deltran_runtime::boot::BootError;
use deltran_runtime::config::ConfigError;
use deltran_runtime::embedded::EmbeddedError;
use serde_json::json;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::client::deepest;

/// What went wrong, as far as scripts tell it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Refused, or a check failed: exit code 1.
    Refused,
    /// Wrong usage: exit code 2.
    Usage,
    /// Something this depends on is not there: exit code 3.
    Unavailable,
}

impl Kind {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Refused => 1,
            Self::Usage => 2,
            Self::Unavailable => 3,
        }
    }
}

/// Why a command did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// The kind.
    pub kind: Kind,
    /// A fixed machine-readable word.
    pub reason: String,
    /// For people: what was wrong, with the value, and what to do.
    pub message: String,
    /// Machine-readable values.
    pub details: BTreeMap<String, String>,
}

impl Problem {
    fn new(kind: Kind, reason: &str, message: impl Into<String>) -> Self {
        Self { kind, reason: reason.to_owned(), message: message.into(), details: BTreeMap::new() }
    }

    /// Refused, or a check failed.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(Kind::Refused, "refused", message)
    }

    /// Wrong usage.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, "usage", message)
    }

    /// Something this depends on is not there.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, "unavailable", message)
    }

    /// A part of the product that this release does not have.
    pub fn not_in_this_release(what: &str) -> Self {
        Self::new(Kind::Refused, "unimplemented", format!("{what} is not part of this release"))
    }

    /// Says it on standard error: a line for people, a JSON document for machines. Where nobody reads any more, the exit
    /// code tells.
    pub fn tell(&self, as_json: bool) {
        let text = if as_json {
            let error = json!({"reason": self.reason, "message": self.message, "details": self.details});
            json!({ "error": error }).to_string()
        } else {
            format!("error: {}{}", self.message, self.details_in_words())
        };
        let _nobody_reads = writeln!(std::io::stderr(), "{text}");
    }

    /// Values that the message does not say already.
    fn details_in_words(&self) -> String {
        let unsaid: Vec<String> = self
            .details
            .iter()
            .filter(|(_, value)| !value.is_empty() && !self.message.contains(value.as_str()))
            .map(|(key, value)| format!("{key}: {value}"))
            .collect();
        if unsaid.is_empty() { String::new() } else { format!(" ({})", unsaid.join(", ")) }
    }
}

/// The one mapping of gRPC status to exit codes.
fn kind_of(status: &Status) -> Kind {
    // The transport's own words about a connection that broke, under whatever code: nothing that the platform answered.
    if status.source().is_some() {
        return Kind::Unavailable;
    }
    match status.code() {
        // CANCELLED is what the transport says when a call ran out of time on this side. UNKNOWN is what it makes of an answer
        // that ended without a status; the platform answers nothing so.
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::ResourceExhausted | Code::Unknown => {
            Kind::Unavailable
        }
        _ => Kind::Refused,
    }
}

/// Whether the connection is what failed, and not the time that an answer may take.
fn broke(status: &Status) -> bool {
    status.code() == Code::Unknown || (status.source().is_some() && status.message() != TIMEOUT)
}

/// What the transport says where there was no answer in time.
const TIMEOUT: &str = "Timeout expired";

impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        let kind = kind_of(&status);
        if broke(&status) {
            let cause = match status.source() {
                Some(cause) => deepest(cause),
                None => status.message().to_owned(),
            };
            return Self::unavailable(format!(
                "the connection to the platform broke ({cause}): try again, the ids of a repeated command make it harmless"
            ));
        }
        let (reason, details) = match status.get_details_error_info() {
            Some(info) => (info.reason, info.metadata.into_iter().collect()),
            None => (word_of(status.code()).to_owned(), BTreeMap::new()),
        };
        let message = match status.code() {
            Code::Cancelled if status.message() == TIMEOUT => {
                "no answer in time: try again, the ids of a repeated command make it harmless".to_owned()
            }
            _ if status.message().is_empty() => reason.clone(),
            _ => status.message().to_owned(),
        };
        Self { kind, reason, message, details }
    }
}

fn word_of(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled | Code::DeadlineExceeded => "timeout",
        Code::InvalidArgument | Code::OutOfRange => "malformed",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "conflict",
        Code::PermissionDenied => "unauthorised",
        Code::ResourceExhausted => "overloaded",
        Code::FailedPrecondition | Code::Aborted => "wrong_state",
        Code::Unimplemented => "unimplemented",
        Code::Internal | Code::DataLoss | Code::Unknown => "internal",
        Code::Unavailable => "unavailable",
        Code::Unauthenticated => "unauthenticated",
    }
}

impl From<ConfigError> for Problem {
    fn from(error: ConfigError) -> Self {
        Self::new(Kind::Usage, "configuration", error.to_string())
    }
}

impl From<BootError> for Problem {
    fn from(error: BootError) -> Self {
        Self::refused(error.to_string())
    }
}

impl From<EmbeddedError> for Problem {
    fn from(error: EmbeddedError) -> Self {
        match error {
            EmbeddedError::Locked { .. } | EmbeddedError::PortTaken { .. } | EmbeddedError::File { .. } => {
                Self::refused(error.to_string())
            }
            _ => Self::unavailable(error.to_string()),
        }
    }
}

impl From<DbError> for Problem {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Unavailable(_) => Self::unavailable(error.to_string()),
            _ => Self::refused(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use deltran_runtime::Failure;

    use super::*;

    #[test]
    fn every_status_has_its_exit_code() {
        for (code, exit) in [
            (Code::Unavailable, 3),
            (Code::DeadlineExceeded, 3),
            (Code::Cancelled, 3),
            (Code::ResourceExhausted, 3),
            (Code::InvalidArgument, 1),
            (Code::NotFound, 1),
            (Code::AlreadyExists, 1),
            (Code::FailedPrecondition, 1),
            (Code::PermissionDenied, 1),
            (Code::Unauthenticated, 1),
            (Code::Unimplemented, 1),
            (Code::OutOfRange, 1),
            (Code::Aborted, 1),
            (Code::DataLoss, 1),
            (Code::Internal, 1),
            (Code::Unknown, 3),
        ] {
            assert_eq!(Problem::from(Status::new(code, "x")).kind.code(), exit, "{code:?}");
        }
    }

    #[test]
    fn a_connection_that_breaks_is_unavailable_under_whatever_code() {
        let broken = || std::io::Error::new(std::io::ErrorKind::ConnectionReset, "connection reset by peer");
        for code in [Code::Unknown, Code::Internal, Code::Cancelled, Code::Unavailable, Code::PermissionDenied] {
            let mut status = Status::new(code, "transport error");
            status.set_source(std::sync::Arc::new(broken()));
            let problem = Problem::from(status);
            assert_eq!((problem.kind.code(), problem.reason.as_str()), (3, "unavailable"), "{code:?}");
            assert!(problem.message.contains("connection reset by peer"), "{}", problem.message);
        }
        let mut late = Status::cancelled(TIMEOUT);
        late.set_source(std::sync::Arc::new(broken()));
        let late = Problem::from(late);
        assert_eq!((late.kind.code(), late.reason.as_str()), (3, "timeout"), "{late}");
    }

    #[test]
    fn reason_and_values_come_from_the_error_details() {
        let failure = Failure::wrong_state("the window is not open", "SETTLED").with("window_id", "w-1");
        let problem = Problem::from(Status::from(failure));
        assert_eq!(problem.reason, "wrong_state");
        assert_eq!(problem.details_in_words(), " (state: SETTLED, window_id: w-1)");
        let said = Problem::from(Status::from(Failure::not_found("window", "w-1").with("window_id", "w-1")));
        assert_eq!(said.details_in_words(), "");
    }
}
