//! Decisions: no async, no SQL, no clock, no randomness.

pub mod book;
pub mod day;
pub mod fold;
pub mod job;
pub mod manifest;
pub mod position;
pub mod settled;
pub mod statement;
pub mod timetable;
pub mod trial;

/// What was consumed contradicts itself, or cannot be what it is. Nothing is concluded from it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Contradiction(pub String);

impl Contradiction {
    /// Something about a thing.
    pub fn of(what: impl std::fmt::Display) -> Self {
        Self(what.to_string())
    }
}

/// Whether a report can be written now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Everything that it needs has arrived and agrees.
    Ready,
    /// Something has not arrived yet; what.
    Waits(String),
    /// What has arrived contradicts itself, or can never become what was asked for; how.
    Never(String),
}

#[cfg(test)]
mod model_test;
