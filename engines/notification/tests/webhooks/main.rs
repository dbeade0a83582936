//! Webhooks on a real Postgres, to receivers that answer, fail, hang, redirect, disappear and come back.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails here says where")]

mod connecting;
mod delivering;
mod failing;
mod keeping;
mod place;
mod restarting;
mod sink;
