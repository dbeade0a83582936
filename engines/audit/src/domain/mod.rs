//! The pure core: what a leaf is, what becomes one, and what a stored ledger must look like. No SQL,
//! no network, no clock.
#![deny(clippy::float_arithmetic)]

pub mod advisory;
pub mod check;
pub mod leaf;
pub mod letter;
pub mod report;
pub mod sequence;
pub mod wrapper;

pub use leaf::{Leaf, LeafHash, leaf_hash};
