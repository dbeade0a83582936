//! The ledger on a real Postgres.
#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

mod aged;
mod append;
mod archive;
mod cut_off;
mod export;
mod holds;
mod place;
mod retention;
mod signing;
