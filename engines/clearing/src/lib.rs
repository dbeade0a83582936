//! Clearing: windows and netting.
//!
//! It owns clearing windows and netting sets. Windows open and close by schedules or by operators;
//! the ledger seals them; clearing counts their obligations from events, compares the ledger's control
//! totals with what it counted, and freezes net positions. It knows nothing of accounts, limits or
//! balances, and posts nothing.
//!
//! [`domain`] decides, [`store`] holds the SQL, [`commands`] bring the two together in transactions,
//! [`schedule`] drives every window forward by steps that survive a restart at any point.

pub mod commands;
pub mod config;
mod consume;
pub mod domain;
mod grpc;
mod ledger;
mod schedule;
pub mod store;

use std::sync::Arc;

use deltran_api::clearing::v1::clearing_service_server::ClearingServiceServer;
use deltran_events::topology;
use deltran_messaging::{Broker, Consumer, Outbox, Relay};
use deltran_runtime::boot::BootError;
use deltran_runtime::{Engine, EngineContext};

use crate::commands::Clearing;
use crate::config::{Schedules, Settings};

/// Name of the engine, its schema and its section of the configuration.
pub const NAME: &str = "clearing";

/// The engine's tables.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// The engine, ready to run.
///
/// # Errors
/// Where the section `[clearing]` does not fit, or the catalog lacks the engine's consumers.
pub fn engine(context: EngineContext, broker: Broker, outbox: Outbox) -> Result<Engine, BootError> {
    let other = BootError::Other;
    let settings: Settings = context.config.section(NAME).map_err(|e| other(e.to_string()))?;
    let schedules = Schedules::new(&settings, context.clock.now()).map_err(other)?;
    let clearing = Clearing::new(context.clone(), outbox.clone(), Arc::new(schedules));

    let consumer = |stream: &str, name: &str, handler| {
        let spec = topology::consumer(stream, name)
            .ok_or_else(|| other(format!("the catalog has no consumer {name} on {stream}")))?;
        Ok::<_, BootError>(Consumer::new(context.clone(), broker.clone(), outbox.clone(), spec, handler))
    };
    let transactions = consumer(
        "TRANSACTIONS",
        "events_transactions_clearing",
        Arc::new(consume::Transactions(clearing.clone())) as _,
    )?;
    let settlement =
        consumer("SETTLEMENT", "events_settlement_clearing", Arc::new(consume::Settlement(clearing.clone())) as _)?;
    let relay = Relay::new(context, broker.clone(), outbox);
    let service = ClearingServiceServer::new(grpc::Service::new(clearing.clone(), broker));

    Ok(Engine::new(NAME, move |routes| {
        routes.add_service(service);
    })
    .worker("relay", move |stop| relay.run(stop))
    .worker("transactions", move |stop| transactions.run(stop))
    .worker("settlement", move |stop| settlement.run(stop))
    .worker("windows", move |stop| schedule::run(clearing, stop)))
}
