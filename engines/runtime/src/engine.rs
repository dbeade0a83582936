//! What an engine hands to the process that runs it, and what it gets.

use std::future::Future;
use std::sync::Arc;

use deltran_kernel::{Clock, IdSource};
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;

use crate::config::Config;
use crate::db::Db;
use crate::health::Health;
use crate::lease::Lease;
use crate::metrics::Metrics;
use crate::peers::Peers;

/// What an engine is given at start.
#[derive(Clone)]
pub struct EngineContext {
    /// The engine's name.
    pub engine: &'static str,
    /// The whole configuration.
    pub config: Arc<Config>,
    /// The engine's door to Postgres.
    pub db: Db,
    /// The present time.
    pub clock: Arc<dyn Clock>,
    /// Fresh ids.
    pub ids: Arc<dyn IdSource>,
    /// The other engines.
    pub peers: Peers,
    /// Metrics of the process.
    pub metrics: Metrics,
    /// Readiness of the process.
    pub health: Health,
    /// Unique name of this process, for leases.
    pub holder: String,
    /// Cancelled when the process stops taking requests: endless answers end then.
    pub closing: CancellationToken,
}

impl EngineContext {
    /// A lease of this engine. Ask for it when its work begins: from then on the process knows its address.
    pub fn lease(&self, name: &'static str) -> Lease {
        Lease {
            db: self.db.clone(),
            name,
            holder: self.holder.clone(),
            address: self.peers.address(),
            leader: None,
            metrics: self.metrics.clone(),
            health: self.health.clone(),
        }
    }
}

/// A long-running part of an engine.
pub struct Worker {
    /// Its name within the process, such as `token.relay`.
    pub name: String,
    /// Runs until the token is cancelled; finishes what it has accepted.
    pub run: Box<dyn FnOnce(CancellationToken) -> BoxFuture<'static, ()> + Send>,
}

/// An engine, ready to run: its services and its workers.
pub struct Engine {
    /// Its name.
    pub name: &'static str,
    /// Adds its gRPC services.
    pub services: Box<dyn FnOnce(&mut RoutesBuilder) + Send>,
    /// Pages and streams that it adds to the HTTP door, if any. Handlers take [`crate::Caller`] as an argument.
    pub pages: axum::Router,
    /// Its consumers, schedules, relay and singletons.
    pub workers: Vec<Worker>,
    /// Called when no new requests arrive any more: finishes what was accepted (the writer's queue).
    pub drain: Option<BoxFuture<'static, ()>>,
}

impl Engine {
    /// An engine with its services and no workers yet.
    pub fn new(name: &'static str, services: impl FnOnce(&mut RoutesBuilder) + Send + 'static) -> Self {
        Self { name, services: Box::new(services), pages: axum::Router::new(), workers: Vec::new(), drain: None }
    }

    /// Adds pages to the HTTP door, under paths that begin with `/v1/`.
    #[must_use]
    pub fn pages(mut self, pages: axum::Router) -> Self {
        self.pages = self.pages.merge(pages);
        self
    }

    /// Adds a worker.
    #[must_use]
    pub fn worker<F>(mut self, name: &str, run: impl FnOnce(CancellationToken) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.workers.push(Worker {
            name: format!("{}.{name}", self.name),
            run: Box::new(move |shutdown| Box::pin(run(shutdown))),
        });
        self
    }
}
