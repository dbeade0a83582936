//! Decisions on limits, breakers and transactions. Pure: time and ids come in as arguments, and what
//! follows from a decision is returned.

#![deny(clippy::float_arithmetic)]

pub mod assess;
pub mod breaker;
pub mod limit;

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<T> {
    /// It took effect.
    Executed(T),
    /// It had taken effect before: this is what it led to.
    AlreadyApplied(T),
}

impl<T> Outcome<T> {
    /// What the command led to, either way.
    pub fn into_inner(self) -> T {
        match self {
            Self::Executed(value) | Self::AlreadyApplied(value) => value,
        }
    }
}
