//! Statements and reports on a whole platform: a small day ties out, nothing is reported in part, files are what they
//! say, and a bank reads its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod cli;
mod day;
mod download;
mod exact;
mod support;
