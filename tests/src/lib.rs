//! The harness of the integration tests: a fresh database and a private broker per test, and engines
//! in this process on both.
//!
//! Nothing here is a stand-in: the servers are real and killed for real. Tests wait for conditions with
//! [`eventually`], never for a time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends here")]

mod backbone;
pub mod cluster;
mod engines;
mod fleet;
mod nats;
pub mod node;
pub mod ports;
mod postgres;
mod proxy;
pub mod python;
pub mod receiver;
mod stack;
pub mod tie_out;
mod wait;

pub use backbone::{Backbone, Node};
pub use engines::{Part, parts};
pub use fleet::{Fleet, compare};
pub use nats::{Nats, api, made_anew};
pub use postgres::Postgres;
pub use proxy::{Flow, Proxy, Way};
pub use stack::{As, Stack, StackBuilder};
pub use wait::{DEADLINE, eventually, within};

/// Configuration as a file would give it, with the addresses of the servers of a test.
fn config(
    toml: &str,
    database: &str,
    nats: &str,
    reports: &std::path::Path,
) -> std::sync::Arc<deltran_runtime::config::Config> {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), toml).expect("the temporary file can be written");
    let mut config = deltran_runtime::config::Config::load(Some(file.path()), []).unwrap_or_else(|e| panic!("{e}"));
    config.database.url = database.to_owned();
    config.nats.url = nats.to_owned();
    config.set_where_unset("reporting", "directory", reports.display().to_string());
    std::sync::Arc::new(config)
}
