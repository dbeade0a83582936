//! Engines in this process, on a database and a broker of their own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use deltran_events::topology::{Profile, STREAMS};
use deltran_kernel::{Clock, IdSource, SystemClock, SystemIds};
use deltran_messaging::topology::Kind;
use deltran_messaging::{Broker, Outbox, SHARED_TABLES, platform, topology};
use deltran_runtime::boot::{self, BootError, Listeners, Shared};
use deltran_runtime::db::DbOptions;
use deltran_runtime::health::Health;
use deltran_runtime::identity::{PARTICIPANT_HEADER, ROLE_HEADER, USER_HEADER};
use deltran_runtime::metrics::Metrics;
use deltran_runtime::peers::Peers;
use deltran_runtime::{Db, EngineContext, db};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::backbone::connect;
use crate::engines::{Part, parts};
use crate::{Nats, Postgres, config, eventually};

/// What a stack runs with.
pub struct StackBuilder {
    engines: Vec<String>,
    toml: String,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    loose: bool,
}

/// Running engines.
pub struct Stack {
    /// The database.
    pub postgres: Postgres,
    /// The broker.
    pub nats: Nats,
    /// A connection of the test's own.
    pub broker: Broker,
    /// Metrics of the engines.
    pub metrics: Metrics,
    /// Readiness of the engines.
    pub health: Health,
    /// Where gRPC listens.
    pub grpc: SocketAddr,
    /// Where `/readyz` and `/metrics` listen.
    pub http: SocketAddr,
    /// Where the reporting engine keeps its files.
    pub reports: TempDir,
    builder: StackBuilder,
    running: Option<Running>,
}

struct Running {
    stop: CancellationToken,
    served: JoinHandle<Result<(), BootError>>,
}

impl StackBuilder {
    /// Configuration in TOML.
    #[must_use]
    pub fn config(mut self, toml: &str) -> Self {
        self.toml = toml.to_owned();
        self
    }

    /// Another clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Other ids.
    #[must_use]
    pub fn ids(mut self, ids: Arc<dyn IdSource>) -> Self {
        self.ids = ids;
        self
    }

    /// Streams that let messages be deleted, and that forget the id of a message after a tenth of a second.
    #[must_use]
    pub fn loose_streams(mut self) -> Self {
        self.loose = true;
        self
    }

    /// Starts database, broker and engines, and returns when all of them are ready.
    pub async fn start(self) -> Stack {
        let (postgres, nats) = tokio::join!(Postgres::fresh(), Nats::start());
        let broker = connect(&nats).await;
        if self.loose {
            create_loose_streams(&broker).await;
        }
        let mut plan = topology::plan(&broker, Profile::Development, None).await.unwrap_or_else(|e| panic!("{e}"));
        plan.changes.retain(|change| change.kind == Kind::Create);
        topology::apply(&broker, &plan, false).await.unwrap_or_else(|e| panic!("{e}"));
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut stack = Stack {
            postgres,
            nats,
            broker,
            metrics: Metrics::new().unwrap(),
            health: Health::default(),
            grpc: nowhere,
            http: nowhere,
            reports: tempfile::tempdir().unwrap(),
            builder: self,
            running: None,
        };
        stack.run().await;
        stack
    }
}

async fn create_loose_streams(broker: &Broker) {
    // As the catalog has them: those that are sourced come first.
    let (sourcing, plain): (Vec<_>, Vec<_>) = STREAMS.iter().partition(|spec| !spec.sources.is_empty());
    for spec in plain.into_iter().chain(sourcing) {
        let mut config = spec.config_json(Profile::Development);
        config["deny_delete"] = false.into();
        config["deny_purge"] = false.into();
        config["duplicate_window"] = 100_000_000.into();
        let subject = format!("STREAM.CREATE.{}", spec.name);
        let answer: serde_json::Value =
            broker.jetstream().request(subject, &config).await.unwrap_or_else(|e| panic!("{}: {e}", spec.name));
        assert!(answer.get("error").is_none(), "{}: {answer}", spec.name);
    }
}

impl Stack {
    /// A stack of these engines; none named means all.
    pub fn of(engines: &[&str]) -> StackBuilder {
        StackBuilder {
            engines: engines.iter().map(|e| (*e).to_owned()).collect(),
            toml: String::new(),
            clock: Arc::new(SystemClock),
            ids: Arc::new(SystemIds::new()),
            loose: false,
        }
    }

    /// A channel to the engines, over a socket.
    pub fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.grpc)).unwrap().connect_lazy()
    }

    /// A channel that calls as a bank.
    pub fn bank(&self, participant: &str) -> InterceptedService<Channel, As> {
        InterceptedService::new(self.channel(), As::bank(participant))
    }

    /// A channel that calls in a role, such as `operator`, as a user.
    pub fn role(&self, role: &str, user: &str) -> InterceptedService<Channel, As> {
        InterceptedService::new(self.channel(), As::role(role, user))
    }

    /// Stops the engines in an orderly way and starts them again on the same data, under other ports.
    pub async fn restart_engines(&mut self) {
        self.stop_engines().await;
        self.run().await;
    }

    /// Stops the engines in an orderly way.
    pub async fn stop_engines(&mut self) {
        let Some(running) = self.running.take() else { return };
        running.stop.cancel();
        let served = running.served.await.expect("the server does not panic");
        served.unwrap_or_else(|e| panic!("{e}"));
    }

    /// Ends everything in an orderly way.
    pub async fn stop(mut self) {
        self.stop_engines().await;
    }

    async fn run(&mut self) {
        let chosen: Vec<Part> = parts()
            .into_iter()
            .filter(|part| self.builder.engines.is_empty() || self.builder.engines.iter().any(|e| e == part.name))
            .collect();
        for name in &self.builder.engines {
            assert!(chosen.iter().any(|part| part.name == name), "the harness knows no engine {name:?}");
        }
        let config = config(&self.builder.toml, self.postgres.url(), &self.nats.url(), self.reports.path());
        self.metrics = Metrics::new().unwrap();
        self.health = Health::default();
        let closing = CancellationToken::new();
        let local: Vec<&'static str> = chosen.iter().map(|part| part.name).collect();
        let peers = Peers::new(local, &config.peers).unwrap();
        let broker = connect(&self.nats).await;
        let holder = format!("test/{}", self.builder.ids.next_id(self.builder.clock.now()));
        let mut engines = Vec::new();
        let mut outboxes = Vec::new();
        for part in &chosen {
            let url = config.database_url(part.name).to_owned();
            db::migrate(part.name, &url, &SHARED_TABLES, part.migrator)
                .await
                .unwrap_or_else(|e| panic!("{}: {e}", part.name));
            let options = DbOptions {
                url,
                max_connections: config.database.max_connections,
                acquire_timeout: Duration::from_millis(config.database.acquire_timeout_ms),
            };
            let db = Db::open(part.name, &options, self.metrics.clone()).unwrap();
            let outbox = Outbox::new(part.domain, self.builder.clock.clone(), self.builder.ids.clone());
            outboxes.push((db.clone(), outbox.clone()));
            let context = EngineContext {
                engine: part.name,
                config: config.clone(),
                db,
                clock: self.builder.clock.clone(),
                ids: self.builder.ids.clone(),
                peers: peers.clone(),
                metrics: self.metrics.clone(),
                health: self.health.clone(),
                holder: holder.clone(),
                closing: closing.clone(),
            };
            let engine = (part.build)(context, broker.clone(), outbox).unwrap_or_else(|e| panic!("{}: {e}", part.name));
            engines.push(engine);
        }
        engines.push(platform::engine(config.deployment.clone(), self.health.clone(), outboxes));

        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let listeners = Listeners::bind(free, free).await.unwrap_or_else(|e| panic!("{e}"));
        (self.grpc, self.http) = (listeners.grpc_address, listeners.http_address);
        let shared = Shared { peers, metrics: self.metrics.clone(), health: self.health.clone(), closing };
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        let served =
            tokio::spawn(
                async move { boot::serve(engines, listeners, shared, || {}, stopping.cancelled_owned()).await },
            );
        self.running = Some(Running { stop, served });
        let health = self.health.clone();
        eventually("every part to be ready", async || health.problems().is_empty().then_some(())).await;
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop.cancel();
            running.served.abort();
        }
    }
}

/// Names the caller in each request.
#[derive(Debug, Clone)]
pub struct As(Vec<(&'static str, AsciiMetadataValue)>);

impl As {
    /// A bank.
    pub fn bank(participant: &str) -> Self {
        Self(vec![(PARTICIPANT_HEADER, value(participant))])
    }

    /// A user in a role.
    pub fn role(role: &str, user: &str) -> Self {
        Self(vec![(ROLE_HEADER, value(role)), (USER_HEADER, value(user))])
    }
}

fn value(text: &str) -> AsciiMetadataValue {
    text.parse().unwrap_or_else(|_| panic!("{text:?} cannot be a header"))
}

impl Interceptor for As {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for (name, value) in &self.0 {
            request.metadata_mut().insert(*name, value.clone());
        }
        Ok(request)
    }
}
