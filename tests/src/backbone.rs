//! Database and broker with the streams of the catalog, and any number of "processes" on them, for
//! tests of what lies below the engines.

use std::sync::Arc;

use deltran_events::Domain;
use deltran_events::topology::Profile;
use deltran_kernel::{SystemClock, SystemIds};
use deltran_messaging::{Broker, Door, Outbox, SHARED_TABLES, topology};
use deltran_runtime::config::Config;
use deltran_runtime::db::DbOptions;
use deltran_runtime::health::Health;
use deltran_runtime::metrics::Metrics;
use deltran_runtime::peers::Peers;
use deltran_runtime::{Db, EngineContext, db};
use sqlx::migrate::Migrator;
use tokio_util::sync::CancellationToken;

use crate::{Nats, Postgres, config, eventually};

/// The servers, with the schema of one engine that has only the shared tables.
pub struct Backbone {
    /// The database.
    pub postgres: Postgres,
    /// The broker.
    pub nats: Nats,
    /// A connection of the test's own.
    pub broker: Broker,
    /// The engine whose schema it is.
    pub engine: &'static str,
    /// The configuration of every process.
    pub config: Arc<Config>,
}

/// What one process would have: its own connections, metrics and name.
#[derive(Clone)]
pub struct Node {
    /// What an engine is given.
    pub context: EngineContext,
    /// Its connection to the broker.
    pub broker: Broker,
    /// Its outbox.
    pub outbox: Outbox,
    /// Its way to write.
    pub door: Door,
}

impl Backbone {
    /// Starts the servers, creates the shared tables for the engine and the streams of the catalog.
    pub async fn start(engine: &'static str) -> Self {
        Self::with(engine, "").await
    }

    /// The same with configuration in TOML.
    pub async fn with(engine: &'static str, toml: &str) -> Self {
        let (postgres, nats) = tokio::join!(Postgres::fresh(), Nats::start());
        let none = Migrator::with_migrations(Vec::new());
        db::migrate(engine, postgres.url(), &SHARED_TABLES, &none).await.unwrap_or_else(|e| panic!("{e}"));
        let broker = connect(&nats).await;
        let plan = topology::plan(&broker, Profile::Development, None).await.unwrap_or_else(|e| panic!("{e}"));
        topology::apply(&broker, &plan, false).await.unwrap_or_else(|e| panic!("{e}"));
        let config = config(toml, postgres.url(), &nats.url(), &std::env::temp_dir());
        Self { postgres, nats, broker, engine, config }
    }

    /// Another process by name.
    pub async fn node(&self, holder: &str) -> Node {
        let metrics = Metrics::new().unwrap();
        let options = DbOptions {
            url: self.postgres.url().to_owned(),
            max_connections: self.config.database.max_connections,
            acquire_timeout: std::time::Duration::from_millis(self.config.database.acquire_timeout_ms),
        };
        let db = Db::open(self.engine, &options, metrics.clone()).unwrap();
        let context = EngineContext {
            engine: self.engine,
            config: self.config.clone(),
            db: db.clone(),
            clock: Arc::new(SystemClock),
            ids: Arc::new(SystemIds::new()),
            peers: Peers::new(Vec::new(), &self.config.peers).unwrap(),
            metrics,
            health: Health::default(),
            holder: holder.to_owned(),
            closing: CancellationToken::new(),
        };
        let domain = Domain::of_engine(self.engine).expect("an engine publishes in a domain");
        let outbox = Outbox::new(domain, context.clock.clone(), context.ids.clone());
        let door = Door::new(db, outbox.clone());
        Node { context, broker: connect(&self.nats).await, outbox, door }
    }
}

/// Connects and waits until JetStream answers.
pub(crate) async fn connect(nats: &Nats) -> Broker {
    let broker = Broker::connect(&nats.url(), "test").await.unwrap_or_else(|e| panic!("{e}"));
    eventually("a connection to the broker", async || broker.jetstream().query_account().await.ok()).await;
    broker
}
