//! The notification engine on real servers: what other engines publish reaches those who subscribed, once and in
//! order, over every way.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on ends here")]

mod day;
mod feeds;
mod retention;
mod subscribing;
mod support;
