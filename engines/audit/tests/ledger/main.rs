//! The ledger on a real Postgres.
#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

mod aged;
mod append;
mod archive;
mod archive_s3;
mod books;
mod bucket;
mod cut_off;
mod export;
mod holds;
mod kept;
mod place;
mod retention;
mod signing;
mod tiles;
