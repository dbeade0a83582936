//! Reporting: statements and reports, from read models of its own.
//!
//! It consumes the events of the ledger, of clearing and of settlement, and keeps what they say as entries, balances and
//! facts. A report is written when everything that it says has arrived and agrees; it is never of a part that passes for
//! the whole. It reads no other engine's tables and knows no names.
//!
//! [`domain`] decides, [`store`] holds the SQL, [`consume`] turns events into read models, [`produce`] makes reports from
//! them, [`worker`] and [`schedule`] say when, [`write`] gives them their form.

pub mod config;
mod consume;
pub mod domain;
mod files;
mod grpc;
mod http;
mod ledger;
mod produce;
mod schedule;
mod store;
mod worker;
pub mod write;

use std::sync::Arc;

use deltran_api::reporting::v1::reporting_service_server::ReportingServiceServer;
use deltran_events::{Domain, topology};
use deltran_messaging::{Broker, Consumer, Door, Handler, Outbox, Relay};
use deltran_runtime::boot::BootError;
use deltran_runtime::{Engine, EngineContext};
use tokio::sync::Notify;

use crate::config::Settings;
use crate::produce::Producer;

/// The engine's name, and that of its schema.
pub const NAME: &str = "reporting";

/// Its tables.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// The user in whose name it acts.
const USER: &str = "reporting-engine";

/// The engine with its service, pages, consumers, worker, schedules and relay.
///
/// # Errors
/// Where its section of the configuration does not fit, its folder cannot be created, or the catalog lacks its
/// consumers.
pub fn engine(context: EngineContext, broker: Broker, outbox: Outbox) -> Result<Engine, BootError> {
    let other = BootError::Other;
    let settings: Settings = context.config.section(NAME).map_err(|e| other(e.to_string()))?;
    let checked = Arc::new(settings.checked(context.clock.now())?);
    let files =
        files::Files::in_folder(&checked.settings.directory).map_err(|e| other(format!("reporting.directory: {e}")))?;
    let (applied, wake) = (Arc::new(Notify::new()), Arc::new(Notify::new()));

    let consumer = |domain: Domain, name: &str, handler: Arc<dyn Handler>| {
        let spec = topology::consumer(domain.stream(), name)
            .ok_or_else(|| other(format!("the catalog has no consumer {name} on {}", domain.stream())))?;
        Ok::<_, BootError>(Consumer::new(context.clone(), broker.clone(), outbox.clone(), spec, handler))
    };
    let transactions = consume::Transactions::new(&checked, applied.clone());
    let transactions = consumer(Domain::Transactions, "events_transactions_reporting", Arc::new(transactions))?;
    let clearing = consumer(Domain::Clearing, "events_clearing_reporting", Arc::new(consume::Clearing))?;
    let settlement = consume::Settlement { reports: checked.settings.settlement_reports, clock: context.clock.clone() };
    let settlement = consumer(Domain::Settlement, "events_settlement_reporting", Arc::new(settlement))?;
    let requests = consume::Requests { wake: wake.clone() };
    let requests = consumer(Domain::Reporting, "reporting-engine-consumer", Arc::new(requests))?;

    let door = Door::new(context.db.clone(), outbox.clone());
    let scheduled = Arc::new(Notify::new());
    let service = grpc::Service {
        context: context.clone(),
        door: door.clone(),
        checked: checked.clone(),
        files: files.clone(),
        scheduled: scheduled.clone(),
    };
    let pages = http::pages(service.clone());
    let producer = Producer { context: context.clone(), files: files.clone(), checked: checked.clone(), applied };
    let worker = worker::Worker { producer, door: door.clone(), wake };
    let timer = schedule::Timer { context: context.clone(), door, checked, files, wake: scheduled };
    let retention = timer.clone();
    let relay = Relay::new(context, broker, outbox);
    Ok(Engine::new(NAME, move |routes| {
        routes.add_service(ReportingServiceServer::new(service));
    })
    .pages(pages)
    .worker("transactions", move |stop| transactions.run(stop))
    .worker("clearing", move |stop| clearing.run(stop))
    .worker("settlement", move |stop| settlement.run(stop))
    .worker("requests", move |stop| requests.run(stop))
    .worker("reports", move |stop| worker.run(stop))
    .worker("schedules", move |stop| timer.run(stop))
    .worker("retention", move |stop| retention.run_retention(stop))
    .worker("relay", move |stop| relay.run(stop)))
}
