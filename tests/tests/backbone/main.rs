//! The backbone on real servers: outbox, relay, consumers, leases and streams, with faults.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod consuming;
mod leases;
mod publishing;
mod strict;
mod support;
mod topology;
mod transactions;
