//! The audit engine: every event of every stream, once, in one order, as the exact bytes published,
//! in tables that only grow; and what no consumer could process.
//!
//! It knows events as envelopes and by their catalog. It decides nothing about money, and no engine
//! waits for it but to let its outbox rows go.

pub mod archive;
pub mod checkpoints;
pub mod config;
pub mod consume;
pub mod domain;
pub mod export;
pub mod grpc;
pub mod history;
pub mod keeper;
pub mod notary;
mod producers;
pub mod reconcile;
pub mod retention;
mod schedule;
mod settled;
pub mod store;
mod survey;
pub mod tie;
pub mod verify;

use std::sync::Arc;

use deltran_api::audit::v1::audit_service_server::AuditServiceServer;
use deltran_api::audit::v1::dead_letter_service_server::DeadLetterServiceServer;
use deltran_events::topology::{self, ConsumerSpec};
use deltran_messaging::{Broker, Consumer, Door, Handler, Outbox, Relay};
use deltran_runtime::boot::BootError;
use deltran_runtime::{Engine, EngineContext};
use tokio::sync::Notify;

use crate::archive::{Archive, Archiver};
use crate::checkpoints::{Calendar, Publisher, Signing};
use crate::config::Settings;
use crate::notary::Notary;
use crate::reconcile::Reconciler;
use crate::verify::Verifier;

/// The engine's name: of its schema, its role and its section of the configuration.
pub const NAME: &str = "audit";

/// The engine's tables.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// The engine, ready to run.
///
/// # Errors
/// Where a consumer is missing in the catalog or an event schema does not compile.
pub fn engine(context: EngineContext, broker: Broker, outbox: Outbox) -> Result<Engine, BootError> {
    deltran_events::schema::compile_all().map_err(|e| BootError::Other(e.to_string()))?;
    let settings: Settings = context.config.section(NAME).map_err(|e| BootError::Other(e.to_string()))?;
    let settings = settings.checked()?;
    let notary = Notary::new(&settings, &context.config.deployment, context.db.clone(), context.metrics.clone())?;
    let notary = Arc::new(notary);
    let door = Door::new(context.db.clone(), outbox.clone());
    let publisher = Publisher::new(context.clone(), door.clone(), notary.clone(), &settings);
    let archive = Archive::open(&settings, &|name| std::env::var(name).ok(), context.closing.clone());
    let archive = archive.map_err(|e| BootError::Other(e.to_string()))?;
    let archiver = archive.clone().map(|a| Archiver::new(context.clone(), door.clone(), publisher.clone(), a));
    let retention = retention::Retention::new(context.clone(), door.clone(), archiver, &settings);
    let signing = Signing::new(context.clone(), notary, &settings);
    let calendar = Calendar::new(context.clone(), publisher.clone());
    let appended = Arc::new(Notify::new());
    let given_up = Arc::new(Notify::new());

    let consumer = |spec: &'static ConsumerSpec, handler: Arc<dyn Handler>| {
        Consumer::new(context.clone(), broker.clone(), outbox.clone(), spec, handler)
    };
    let sequencer = consume::Sequencer::new(&context, appended.clone());
    let ledger = consumer(spec("AUDIT", store::CONSUMER)?, Arc::new(sequencer));
    let letters =
        consumer(spec("DEADLETTERS", "dead_letters_audit")?, Arc::new(consume::LetterRecorder::new(&context)));
    let advisories = consumer(
        spec("ADVISORIES", "advisories_audit")?,
        Arc::new(consume::AdvisoryReader::new(&context, given_up.clone())),
    );
    let relay = Relay::new(context.clone(), broker.clone(), outbox.clone());
    let partitions = schedule::Partitions::new(context.clone());
    let burial = schedule::Burial::new(context.clone(), broker.clone(), given_up);
    let reconciler = Reconciler::new(context.clone(), broker.clone(), door.clone(), appended.clone());
    let rounds = schedule::Reconciliations::new(context.clone(), reconciler.clone(), settings.reconcile_minutes);
    let verifier =
        Verifier::new(context.clone(), broker.clone(), (publisher.notary().clone(), archive.clone()), appended);
    let keeper = reconciler.keeper.clone();
    let audit = grpc::Audit::new(context.clone(), door.clone(), verifier, publisher, reconciler, (&settings, archive));
    let audit = AuditServiceServer::new(audit);
    let dead_letters = DeadLetterServiceServer::new(grpc::DeadLetters::new(context, broker, door));

    Ok(Engine::new(NAME, move |routes| {
        routes.add_service(audit).add_service(dead_letters);
    })
    .worker("relay", move |stop| relay.run(stop))
    .worker("partitions", move |stop| partitions.run(stop))
    .worker("consumer", move |stop| ledger.run(stop))
    .worker("dead_letters", move |stop| letters.run(stop))
    .worker("advisories", move |stop| advisories.run(stop))
    .worker("burial", move |stop| burial.run(stop))
    .worker("reconciliations", move |stop| rounds.run(stop))
    .worker("streams", move |stop| keeper.run(stop))
    .worker("signer", move |stop| signing.run(stop))
    .worker("days", move |stop| calendar.run(stop))
    .worker("retention", move |stop| retention.run(stop)))
}

fn spec(stream: &str, name: &str) -> Result<&'static ConsumerSpec, BootError> {
    topology::consumer(stream, name)
        .ok_or_else(|| BootError::Other(format!("the catalog has no consumer {name} of {stream}")))
}
