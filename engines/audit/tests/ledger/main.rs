//! The ledger on a real Postgres.
#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

mod aged;
mod append;
mod archive;
mod holds;
mod place;
mod retention;
mod signing;
