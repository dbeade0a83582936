//! The pure core: what a leaf is, what becomes one, and what a stored ledger must look like. No SQL,
//! no network, no clock.
#![deny(clippy::float_arithmetic)]

pub mod advisory;
pub mod books;
pub mod check;
pub mod checkpoint;
pub mod export;
pub mod hold;
pub mod keep;
pub mod leaf;
pub mod letter;
pub mod merkle;
pub mod note;
pub mod reconcile;
pub mod report;
pub mod retention;
pub mod sequence;
pub mod tally;
pub mod tile;
pub mod tree_check;
pub mod wrapper;

pub use leaf::{Leaf, LeafHash, leaf_hash};
