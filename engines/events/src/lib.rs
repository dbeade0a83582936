//! The event contract: every event once, the envelope, subject rules, the catalog of streams and
//! consumers, and validation against JSON Schema.
//!
//! This crate knows the shape of what is said. It does not know how a message travels.

mod amount;
pub mod artefacts;
mod asyncapi;
pub mod catalog;
pub mod compat;
pub mod data;
mod envelope;
mod exact;
mod json;
pub mod schema;
mod text;
pub mod topology;

pub use amount::{Amount, AmountError};
pub use catalog::{Event, EventSpec};
pub use data::Domain;
pub use envelope::{Context, DecodeError, Envelope, MAX_ENVELOPE_BYTES, MAX_PRODUCER_SEQ, Metadata, Stamp, encode};
pub use json::Json;
