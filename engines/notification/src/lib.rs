//! Notification: tells participants what concerns them, over streams and signed webhooks.
//!
//! Routers read what other engines publish and publish a notification for each participant that has subscribed to
//! it. One consumer files those: each gets the next position in its participant's feed, and goes to that
//! participant's webhook endpoints. From the feed it is read over gRPC, a WebSocket or server-sent events, from
//! any position on that is kept.

pub mod config;
mod consume;
pub mod domain;
mod feed;
mod grpc;
mod pages;
mod router;
mod schedule;
pub mod store;
mod subscriptions;
pub mod webhook;

use std::sync::Arc;

use deltran_api::notification::v1::notification_service_server::NotificationServiceServer;
use deltran_events::Domain;
use deltran_events::topology::{self, ConsumerSpec};
use deltran_messaging::{Broker, Consumer, Door, Handler, Outbox, Relay};
use deltran_runtime::boot::BootError;
use deltran_runtime::{Engine, EngineContext};

use crate::config::Settings;
use crate::feed::Pulse;
use crate::router::Router;
use crate::subscriptions::Subscriptions;
use crate::webhook::Webhooks;

/// The engine's name, and that of its schema.
pub const NAME: &str = "notification";

/// Its tables.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// The user in whose name it acts.
const USER: &str = "notification-engine";

/// The consumer that files notifications.
const FILING: &str = "notification-engine-consumer";

/// The consumers that route.
const ROUTING: [(Domain, &str); 4] = [
    (Domain::Transactions, "events_transactions_notification"),
    (Domain::Settlement, "events_settlement_notification"),
    (Domain::Clearing, "events_clearing_notification"),
    (Domain::Risk, "events_risk_notification"),
];

/// The engine with its service, pages, consumers, sender of webhooks, retention and relay.
///
/// # Errors
/// Where its section of the configuration does not fit, or the catalog lacks one of its consumers.
pub fn engine(context: EngineContext, broker: Broker, outbox: Outbox) -> Result<Engine, BootError> {
    let settings: Settings = context.config.section(NAME).map_err(|e| BootError::Other(e.to_string()))?;
    let settings = settings.checked()?;
    let door = Door::new(context.db.clone(), outbox.clone());
    let webhooks = Webhooks::new(&context, &door, &settings)?;
    let subscriptions = Arc::new(Subscriptions::new(context.db.clone(), context.clock.clone()));
    let most = usize::try_from(settings.streams_per_participant).unwrap_or(usize::MAX);
    let pulse = Arc::new(Pulse::new(context.db.clone(), most));

    let service = grpc::Service {
        subscriptions: subscriptions.clone(),
        pulse: pulse.clone(),
        closing: context.closing.clone(),
        desk: webhooks.desk,
    };
    let pages =
        pages::Pages { pulse: pulse.clone(), closing: context.closing.clone(), keep_alive: settings.keep_alive() };
    let mut engine = Engine::new(NAME, move |routes| {
        routes.add_service(NotificationServiceServer::new(service));
    })
    .pages(pages.router());

    let consumer = |stream: Domain, name: &'static str, handler: Arc<dyn Handler>| {
        let spec = spec(stream, name)?;
        Ok::<_, BootError>(Consumer::new(context.clone(), broker.clone(), outbox.clone(), spec, handler))
    };
    for (domain, name) in ROUTING {
        let router = Router { subscriptions: subscriptions.clone(), peers: context.peers.clone(), domain };
        let consumer = consumer(domain, name, Arc::new(router))?;
        engine = engine.worker(name, move |stop| consumer.run(stop));
    }
    let filing = consume::Filing { clock: context.clock.clone(), pulse: pulse.clone(), sender: webhooks.wake };
    let filing = consumer(Domain::Notifications, FILING, Arc::new(filing))?;
    let sender = webhooks.sender;
    let relay = Relay::new(context.clone(), broker, outbox);
    Ok(engine
        .worker("filing", move |stop| filing.run(stop))
        .worker("pulse", move |stop| pulse.run(stop))
        .worker("webhooks", move |stop| sender.run(stop))
        .worker("retention", move |stop| schedule::retain(context, settings, stop))
        .worker("relay", move |stop| relay.run(stop)))
}

fn spec(stream: Domain, name: &str) -> Result<&'static ConsumerSpec, BootError> {
    let stream = stream.stream();
    topology::consumer(stream, name)
        .ok_or_else(|| BootError::Other(format!("the catalog has no consumer {name} on {stream}")))
}
