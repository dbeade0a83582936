//! The ledger on a real Postgres.
#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

mod append;
mod cut_off;
mod export;
mod place;
mod signing;
