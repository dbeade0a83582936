//! Everything that touches NATS: the outbox and its relay, the consumer loop, dead letters and the
//! topology of streams and consumers. It exists once, so that every engine delivers and receives
//! in the same way.
//!
//! It knows events only as envelopes, and no engine.

pub mod broker;
pub mod consumer;
pub mod dead_letter;
pub mod decoder;
mod delivery;
pub mod door;
pub mod outbox;
pub mod platform;
pub mod points;
pub mod publish;
pub mod ranges;
pub mod rebuild;
pub mod relay;
pub mod stored;
pub mod topology;
pub mod watch;

pub use broker::{Broker, BrokerError};
pub use consumer::{ApplyError, Consumer, Handler, received};
pub use decoder::{Decoded, Decoder};
pub use delivery::{Delivery, Prepared, producer_of};
pub use door::{Door, DoorTx};
pub use outbox::{Outbox, Outgoing};
pub use relay::Relay;

/// The tables that every engine's schema has, for [`deltran_runtime::db::migrate`].
pub const SHARED_TABLES: [(&str, &str); 2] =
    [("lease", deltran_runtime::lease::TABLES), ("messaging", include_str!("tables.sql"))];
