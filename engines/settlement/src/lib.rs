//! Settlement: takes netting sets to finality.
//!
//! A netting set that clearing froze becomes one settlement batch. The batch has the ledger lock every
//! net debit, then post all legs in one linked posting: all or nothing, final at the time of the posting.
//! A debtor that is short may top up until a deadline; after it the batch is given up and its windows are
//! netted again. Settlement knows no account: balances, locks and postings are the ledger's.

mod calls;
pub mod config;
mod consume;
pub mod domain;
mod grpc;
mod schedule;
mod store;

use std::sync::Arc;

use deltran_api::settlement::v1::settlement_service_server::SettlementServiceServer;
use deltran_events::Domain;
use deltran_events::topology;
use deltran_messaging::{Broker, Consumer, Door, Outbox, Relay};
use deltran_runtime::boot::BootError;
use deltran_runtime::{Engine, EngineContext};
use tokio::sync::Notify;

use crate::config::Settings;

/// The engine's name, and that of its schema.
pub const NAME: &str = "settlement";

/// Its tables.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// The user in whose name it acts.
const USER: &str = "settlement-engine";

/// The engine with its service, consumer, driver and relay.
///
/// # Errors
/// Where its section of the configuration does not fit, or the catalog lacks its consumer.
pub fn engine(context: EngineContext, broker: Broker, outbox: Outbox) -> Result<Engine, BootError> {
    let settings: Settings = context.config.section(NAME).map_err(|e| BootError::Other(e.to_string()))?;
    let settings = settings.checked()?;
    let (stream, name) = (Domain::Clearing.stream(), "settlement-engine-consumer");
    let spec = topology::consumer(stream, name)
        .ok_or_else(|| BootError::Other(format!("the catalog has no consumer {name} on {stream}")))?;

    let wake = Arc::new(Notify::new());
    let service = grpc::Service { db: context.db.clone(), broker: broker.clone(), closing: context.closing.clone() };
    let handler =
        consume::Announcements { clock: context.clock.clone(), metrics: context.metrics.clone(), wake: wake.clone() };
    let consumer = Consumer::new(context.clone(), broker.clone(), outbox.clone(), spec, Arc::new(handler));
    let door = Door::new(context.db.clone(), outbox.clone());
    let driver = schedule::Driver { context: context.clone(), door, settings, wake };
    let relay = Relay::new(context, broker, outbox);
    Ok(Engine::new(NAME, move |routes| {
        routes.add_service(SettlementServiceServer::new(service));
    })
    .worker("consumer", move |stop| consumer.run(stop))
    .worker("driver", move |stop| driver.run(stop))
    .worker("relay", move |stop| relay.run(stop)))
}
