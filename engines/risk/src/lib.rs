//! The risk engine: limits that two people agreed on, breakers, exposures, and the gate of the submit path.
//!
//! It answers the gate from memory and fails closed: where it does not know what is in force or what
//! counts, nothing passes that needs it. Net debit caps are the ledger's to enforce; they reach it by
//! `SetLimit`. What is owed is counted from the ledger's events.
//!
//! It knows neither balances nor names.

pub mod config;
pub mod consume;
pub mod domain;
pub mod gate;
pub mod grpc;
pub mod handle;
pub mod schedule;
pub mod store;
pub mod watch;

use std::sync::Arc;

use deltran_events::topology;
use deltran_messaging::{Broker, Consumer, Door, Outbox, Relay};
use deltran_runtime::boot::BootError;
use deltran_runtime::{Engine, EngineContext};

use crate::config::{Checked, Settings};
use crate::consume::Transactions;
use crate::gate::{Gate, GateSettings};
use crate::grpc::Service;
use crate::handle::Desk;

/// The engine's name.
pub const NAME: &str = "risk";

/// The engine's tables.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// The part of the engine that readiness names.
pub(crate) const GATE: &str = "risk.gate";

/// The engine's desk, with a gate that knows nothing yet.
pub fn desk(context: &EngineContext, outbox: &Outbox, settings: Checked) -> Desk {
    let gate = GateSettings {
        maxima: settings.maxima.clone(),
        stale_after: settings.stale_after,
        recovery: settings.recovery,
    };
    let name = context.ids.next_id(context.clock.now()).to_string();
    let gate = Gate::new(name, context.db.clone(), context.clock.clone(), gate);
    Desk::new(context, Door::new(context.db.clone(), outbox.clone()), gate, settings)
}

/// The engine with its service and workers.
///
/// # Errors
/// Where its section of the configuration does not fit, or the catalog lacks its consumer.
pub fn engine(context: EngineContext, broker: Broker, outbox: Outbox) -> Result<Engine, BootError> {
    let settings: Settings = context.config.section(NAME).map_err(|e| BootError::Other(e.to_string()))?;
    let settings = settings.checked().map_err(BootError::Other)?;
    let desk = Arc::new(desk(&context, &outbox, settings));
    context.health.not_ready(GATE, "not loaded yet");

    let spec = topology::consumer("TRANSACTIONS", gate::CONSUMER)
        .ok_or_else(|| BootError::Other(format!("the catalog has no consumer {}", gate::CONSUMER)))?;
    let handler = Arc::new(Transactions::new(desk.clone()));
    let transactions = Consumer::new(context.clone(), broker.clone(), outbox.clone(), spec, handler);
    let relay = Relay::new(context.clone(), broker, outbox);
    let service = Service::server(desk.clone());
    let own = || (context.clone(), desk.clone());
    let (gate, marks, limits, watch) = (own(), own(), own(), own());
    Ok(Engine::new(NAME, move |routes| {
        routes.add_service(service);
    })
    .worker("relay", move |stop| relay.run(stop))
    .worker("transactions", move |stop| transactions.run(stop))
    .worker("gate", move |stop| schedule::keep_gate(gate.0, gate.1, stop))
    .worker("marks", move |stop| schedule::keep_marks(marks.0, marks.1, stop))
    .worker("limits", move |stop| schedule::drive_limits(limits.0, limits.1, stop))
    .worker("watch", move |stop| schedule::keep_watch(watch.0, watch.1, stop)))
}
