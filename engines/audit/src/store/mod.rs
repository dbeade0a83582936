//! The only SQL of this engine.

mod append;
mod instant;
mod letters;
mod read;

pub use append::{Appended, Follower, append, ensure_partitions};
pub use letters::{LetterRow, Letters, NewLetter};
pub use read::{Filter, Ledger, Row};

/// The consumer whose received ranges tell what stands in the ledger.
pub const CONSUMER: &str = "audit-engine-consumer";
