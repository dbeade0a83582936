//! Decisions on limits, breakers, exposures and transactions. Pure: time and ids come in as arguments, and
//! what follows from a decision is returned.
//!
//! Sums of amounts are `i128` minor units: half a million amounts of the largest size (10^27) stay far
//! within its range.

#![deny(clippy::float_arithmetic)]

pub mod alarm;
pub mod assess;
pub mod book;
pub mod breaker;
pub mod count;
pub mod flight;
pub mod limit;
pub mod liquidity;
pub mod rules;
pub mod scope;
pub mod trigger;
pub mod turn;

#[cfg(test)]
mod model_test;

/// Ten-thousandths: 1.
pub const WHOLE: i128 = 10_000;

/// Seconds of one bucket in which decisions are counted.
pub const BUCKET_SECONDS: i64 = 5;

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
