//! Outboxes, streams and ledger: compared, repaired, and streams that the broker forgot made anew.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod comparing;
mod keeping;
mod support;
