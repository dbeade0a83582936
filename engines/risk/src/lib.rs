//! The risk engine: limits that two people agreed on, breakers, and the gate of the submit path.
//!
//! It answers the gate from memory and fails closed: where it does not know what is in force, nothing
//! passes. Net debit caps are the ledger's to enforce; they reach it by `SetLimit`.
//!
//! It knows neither balances nor positions, and no names.

pub mod config;
pub mod domain;
pub mod gate;
pub mod grpc;
pub mod handle;
pub mod schedule;
pub mod store;

use std::sync::Arc;

use deltran_messaging::{Broker, Door, Outbox, Relay};
use deltran_runtime::boot::BootError;
use deltran_runtime::{Engine, EngineContext};

use crate::config::Settings;
use crate::gate::Gate;
use crate::grpc::Service;
use crate::handle::Desk;

/// The engine's name.
pub const NAME: &str = "risk";

/// The engine's tables.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// The part of the engine that readiness names.
pub(crate) const GATE: &str = "risk.gate";

/// The engine with its service and workers.
///
/// # Errors
/// Where its section of the configuration does not fit.
pub fn engine(context: EngineContext, broker: Broker, outbox: Outbox) -> Result<Engine, BootError> {
    let settings: Settings = context.config.section(NAME).map_err(|e| BootError::Other(e.to_string()))?;
    settings.check().map_err(BootError::Other)?;
    let maxima = settings.maxima().map_err(BootError::Other)?;
    let door = Door::new(context.db.clone(), outbox.clone());
    let gate = Gate::new(context.db.clone(), maxima, settings.stale_after());
    let desk = Arc::new(Desk::new(&context, door, gate, settings.approve_wait()));
    context.health.not_ready(GATE, "not loaded yet");

    let relay = Relay::new(context.clone(), broker, outbox);
    let service = Service::server(desk.clone());
    let (gate_context, gate_desk) = (context.clone(), desk.clone());
    Ok(Engine::new(NAME, move |routes| {
        routes.add_service(service);
    })
    .worker("relay", move |stop| relay.run(stop))
    .worker("gate", move |stop| schedule::keep_gate(gate_context, gate_desk, stop))
    .worker("limits", move |stop| schedule::drive_limits(context, desk, stop)))
}
