//! What every engine runs on: boot, configuration, telemetry, health, the door to Postgres, leases,
//! identity and the gRPC server stack.
//!
//! It knows no engine and no event, and never touches NATS.

mod beside;
pub mod boot;
pub mod config;
pub mod csv;
pub mod db;
pub mod embedded;
pub mod engine;
pub mod error;
pub mod files;
pub mod guard;
pub mod health;
pub mod http;
pub mod identity;
pub mod lease;
pub mod metrics;
pub mod peers;
pub mod primary;
mod renewal;
pub mod rights;
pub mod telemetry;
pub mod wire;

pub use beside::beside;
pub use db::{Db, DbError};
pub use engine::{Engine, EngineContext};
pub use error::{Failure, FailureKind};
pub use identity::{Caller, Role};
