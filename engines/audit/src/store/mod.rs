//! The only SQL of this engine.

mod append;
mod checkpoints;
mod days;
mod instant;
mod leaves;
mod letters;
pub mod planted;
mod read;
mod tree;

pub use append::{Appended, append, ensure_partitions};
pub use checkpoints::{Checkpoints, Kept};
pub use days::{ClosedDay, Days, day_name, day_start};
pub use letters::{LetterRow, Letters, NewLetter};
pub use read::{Filter, Ledger, Row};
pub use tree::Tree;

/// The consumer whose received ranges tell what stands in the ledger.
pub const CONSUMER: &str = "audit-engine-consumer";
