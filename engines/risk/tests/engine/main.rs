//! The engine on a real Postgres, with a clock that stands still until it is moved.
#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

mod counting;
mod limits;
mod support;
mod watching;
