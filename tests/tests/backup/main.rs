//! Backup and restore, by the scripts of `ops/backup` on real servers: both to another place, Postgres to an earlier moment
//! than the broker, and the broker to an earlier moment than Postgres.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod restoring;
mod scripts;
mod support;
