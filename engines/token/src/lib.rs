//! The token engine: transactions and the double-entry token ledger.
//!
//! Start with `README.md` beside this crate, then `domain/`: what is decided. `writer` is how it is made
//! durable, `gate` what stands before it.

pub mod config;
pub mod domain;
mod gate;
mod grpc;
pub mod store;
pub mod turn;
pub mod writer;

use deltran_messaging::{Broker, Outbox, Relay};
use deltran_runtime::boot::BootError;
use deltran_runtime::{Engine, EngineContext};

/// The engine's name, and that of its schema.
pub const NAME: &str = "token";

/// The engine's own tables.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// The engine, ready to run.
///
/// # Errors
/// Where its settings cannot work.
pub fn engine(context: EngineContext, broker: Broker, outbox: Outbox) -> Result<Engine, BootError> {
    let settings: config::Settings = context.config.section(NAME).map_err(|e| BootError::Other(e.to_string()))?;
    settings.check().map_err(BootError::Other)?;
    let store = store::Store::new(context.db.clone());
    let (handle, writer) = writer::writer(context.clone(), store.clone(), outbox.clone(), settings.clone());
    let (submissions, gates) = gate::submissions(&context, handle.clone(), settings);
    let service = grpc::service(&context, broker.clone(), store, handle.clone(), submissions);
    context.health.not_ready("token.writer", "starting");
    let relay = Relay::new(context, broker, outbox);
    let mut engine = Engine::new(NAME, move |routes| {
        routes.add_service(service);
    })
    .worker("gates", move |stop| gates.run(stop))
    .worker("writer", move |stop| writer.run(stop))
    .worker("relay", move |stop| relay.run(stop));
    engine.drain = Some(Box::pin(handle.drained()));
    Ok(engine)
}
