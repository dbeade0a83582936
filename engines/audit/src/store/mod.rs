//! The only SQL of this engine.

mod append;
mod archive;
mod checkpoints;
mod cuts;
mod days;
mod holds;
mod instant;
mod keep;
mod leaves;
mod letters;
pub mod planted;
mod read;
mod reconcile;
mod tree;

pub use append::{Appended, append, ensure_partitions};
pub use archive::{Archives, Detaching, READ_AGAIN};
pub use checkpoints::{Checkpoints, Kept};
pub use cuts::{Cuts, GoneDay};
pub use days::{ClosedDay, DayRow, Days, day_name, day_start, parse_day};
pub use holds::Holds;
pub use keep::{KnownStream, Streams};
pub use letters::{LetterRow, Letters, NewLetter};
pub use read::{Filter, Ledger, Row};
pub use reconcile::Comparison;
pub use tree::Tree;

/// The consumer whose received ranges tell what stands in the ledger.
pub const CONSUMER: &str = "audit-engine-consumer";
