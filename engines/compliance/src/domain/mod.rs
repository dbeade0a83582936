//! Decisions on names, lists and holds. Pure: time and ids come in as arguments, and what follows
//! from a decision is returned.

#![deny(clippy::float_arithmetic)]

pub mod alert;
pub mod allowance;
pub mod case;
pub mod hold;
pub mod list;
pub mod matcher;
pub mod monitor;
pub mod name;
pub mod rule;
pub mod screening;
pub mod window;

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
