//! What settlement decides: pure functions of a batch, an answer, the rules and the time.
//!
//! It knows no account and no balance: the ledger says what is reserved and what is posted.

#![deny(clippy::float_arithmetic)]

mod batch;
mod decide;
mod legs;
#[cfg(test)]
mod model;
#[cfg(test)]
mod table;

pub use batch::{Applied, Batch, Command, Contradiction, Terms, announce};
pub use decide::{Answer, Decision, NotDrawn, Pace, Rules, decide};
pub use deltran_events::data::settlement::BatchState;
pub use legs::{FundingLine, Leg, Legs, Mismatch, NettingSet};

/// A named invariant that does not hold, with what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// S1 to S5, as the README numbers them.
    pub invariant: &'static str,
    /// What was seen.
    pub detail: String,
}
