//! The ledger's decisions: pure, in memory, one command after the other.
//!
//! A command is checked first, in the documented order; then it is applied, which cannot fail. What
//! must be stored and published comes back as data ([`effects::Effects`]). Time and everything read
//! from storage come in as arguments.
//!
//! The domain knows nothing of batches, Postgres or gRPC.

#![deny(clippy::float_arithmetic)]

pub mod account;
pub mod admin;
pub mod command;
pub mod effects;
pub mod ledger;
pub mod phases;
pub mod refusal;
pub mod transact;
pub mod window;

#[cfg(test)]
mod model_test;
#[cfg(test)]
mod table_test;
