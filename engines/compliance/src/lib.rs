//! The compliance engine: screens the parties of a transaction, and keeps the holds that follow.
//!
//! It answers the submit path from a list in memory and fails closed: what it cannot check it holds, and
//! what it cannot record it refuses to answer. Personal data stays in its schema.
//!
//! After the fact it watches committed transactions by versioned rules, and keeps the cases of what was held
//! or came up.
//!
//! It knows neither accounts nor limits; it never decides what a released transaction becomes.

pub mod config;
pub mod consume;
pub mod domain;
pub mod grpc;
pub mod handle;
pub mod lists;
pub mod schedule;
pub mod store;

use std::sync::Arc;

use deltran_events::topology;
use deltran_messaging::{Broker, Consumer, Door, Outbox, Relay};
use deltran_runtime::boot::BootError;
use deltran_runtime::{Engine, EngineContext};

use crate::config::Settings;
use crate::consume::Watch;
use crate::grpc::Service;
use crate::handle::Desk;
use crate::lists::Lists;

/// The engine's name.
pub const NAME: &str = "compliance";

/// The engine's tables.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// The consumer that monitors committed transactions.
const CONSUMER: &str = "compliance-engine-consumer";

/// The list that ships with the product.
pub const BUNDLED_LIST: &[u8] = include_bytes!("../data/operator-list.txt");

/// The alert that names cannot be checked for want of a list.
pub(crate) const NO_LIST: &str = "no_list";

/// The engine with its service and workers.
///
/// # Errors
/// Where its section of the configuration does not fit.
pub fn engine(context: EngineContext, broker: Broker, outbox: Outbox) -> Result<Engine, BootError> {
    let settings: Settings = context.config.section(NAME).map_err(|e| BootError::Other(e.to_string()))?;
    settings.check().map_err(BootError::Other)?;
    let door = Door::new(context.db.clone(), outbox.clone());
    let lists = Lists::new(context.db.clone(), context.clock.clone(), settings.stale_after(), settings.thresholds());
    let desk = Arc::new(Desk::new(&context, door, lists, settings.decide_wait()));
    context.health.not_ready("compliance.list", "not loaded yet");

    let spec = topology::consumer("TRANSACTIONS", CONSUMER)
        .ok_or_else(|| BootError::Other(format!("the catalog has no consumer {CONSUMER} on TRANSACTIONS")))?;
    let watch = Arc::new(Watch::new(desk.clone()));
    let monitor = Consumer::new(context.clone(), broker.clone(), outbox.clone(), spec, watch);
    let relay = Relay::new(context.clone(), broker, outbox);
    let service = Service::server(desk.clone());
    let (list_context, list_desk) = (context.clone(), desk.clone());
    Ok(Engine::new(NAME, move |routes| {
        routes.add_service(service);
    })
    .worker("relay", move |stop| relay.run(stop))
    .worker("list", move |stop| schedule::keep_list(list_context, list_desk, settings.bundled_list, stop))
    .worker("monitor", move |stop| monitor.run(stop))
    .worker("holds", move |stop| schedule::drive_holds(context, desk, stop)))
}
