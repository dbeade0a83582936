//! From a configuration to engines that run: what `up` and `serve` have in common.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use deltran_events::Domain;
use deltran_events::data::transactions::{EndedProducer, LedgerRestored};
use deltran_events::topology::Profile;
use deltran_kernel::{Clock, IdSource, SystemClock, SystemIds};
use deltran_messaging::outbox::restore::{self, Parts, RestoreError, Settled};
use deltran_messaging::topology::TopologyError;
use deltran_messaging::{Broker, Outbox, Outgoing, platform, topology};
use deltran_runtime::boot::{BootError, Listeners, Shared};
use deltran_runtime::config::Config;
use deltran_runtime::db::DbOptions;
use deltran_runtime::health::Health;
use deltran_runtime::metrics::Metrics;
use deltran_runtime::peers::Peers;
use deltran_runtime::{Db, Engine, EngineContext};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::engines::{ENGINES, Entry};
use crate::problem::Problem;

const CONFIG_FILE: &str = "deltran.toml";
/// How long Postgres and the broker may take to answer at the start.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the configuration is, and ports over it.
#[derive(Debug, Clone, Args)]
pub struct ConfigArgs {
    /// The configuration file [default: ./deltran.toml, where there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Port for gRPC; 0 picks a free one
    #[arg(long, value_name = "PORT")]
    pub grpc_port: Option<u16>,
    /// Port for /healthz, /readyz and /metrics; 0 picks a free one
    #[arg(long, value_name = "PORT")]
    pub http_port: Option<u16>,
}

impl ConfigArgs {
    /// The configuration: defaults, the file, `DELTRAN_…` variables, flags. Every engine's section is read, whether it
    /// is served or not.
    ///
    /// # Errors
    /// Wrong usage, naming the key.
    pub fn load(&self) -> Result<Config, Problem> {
        let mut config = load(self.config.as_deref())?;
        if let Some(port) = self.grpc_port {
            config.grpc.listen.set_port(port);
        }
        if let Some(port) = self.http_port {
            config.http.listen.set_port(port);
        }
        for entry in ENGINES {
            (entry.check)(&config)?;
        }
        Ok(config)
    }
}

/// The configuration of a file, or of the usual one, with the environment over it.
///
/// # Errors
/// Wrong usage, naming the key.
pub fn load(file: Option<&Path>) -> Result<Config, Problem> {
    let usual = Path::new(CONFIG_FILE);
    let file = file.or_else(|| usual.is_file().then_some(usual));
    let environment = std::env::vars_os().filter_map(|(name, value)| {
        let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
        name.starts_with("DELTRAN_").then_some((name, value))
    });
    Ok(Config::load(file, environment)?)
}

/// The profile that the configuration names.
///
/// # Errors
/// Wrong usage where there is no such profile.
pub fn profile(name: &str) -> Result<Profile, Problem> {
    Profile::from_name(name).ok_or_else(|| {
        let words: Vec<_> = Profile::ALL.iter().map(|p| p.name()).collect();
        Problem::usage(format!("there is no profile {name:?}: known are {}", words.join(", ")))
    })
}

/// A broker that answers.
///
/// # Errors
/// Unavailable where it does not answer in time, wrong usage where the URL is none.
pub async fn connect(url: &str, name: &str) -> Result<Broker, Problem> {
    let broker = Broker::connect(url, name).await.map_err(|e| Problem::usage(e.to_string()))?;
    // Flushing waits for the connection.
    match timeout(PATIENCE, broker.client().flush()).await {
        Ok(Ok(())) => Ok(broker),
        Ok(Err(error)) => Err(Problem::unavailable(format!("the broker at {} fails: {error}", without_password(url)))),
        Err(_) => Err(Problem::unavailable(format!(
            "the broker does not answer at {} within {} s: start it, or correct DELTRAN_NATS_URL",
            without_password(url),
            PATIENCE.as_secs()
        ))),
    }
}

/// A URL that may be shown.
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rsplit_once('@') {
        None => url.to_owned(),
        Some((credentials, host)) => {
            let user = credentials.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}@{host}{}", &rest[end..])
        }
    }
}

impl From<TopologyError> for Problem {
    fn from(error: TopologyError) -> Self {
        match error {
            TopologyError::Unavailable(_) => Self::unavailable(error.to_string()),
            TopologyError::Configuration { .. } => Self::usage(error.to_string()),
            _ => Self::refused(error.to_string()),
        }
    }
}

/// Creates the schemas of these engines and brings them up to date.
///
/// # Errors
/// Unavailable where a database does not answer, refused where a migration fails.
pub async fn migrate(config: &Config, entries: &[&'static Entry]) -> Result<(), Problem> {
    for entry in entries {
        let url = config.database_url(entry.name);
        match timeout(PATIENCE * 6, (entry.migrate)(url.to_owned())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let mut problem = Problem::from(error);
                // What sqlx says of a schema that another version has made.
                let hint = if problem.message.contains("previously applied") {
                    "; another version of DelTran made it: use that version, or an empty database or data folder"
                } else {
                    ""
                };
                problem.message =
                    format!("engine {} at {}: {}{hint}", entry.name, without_password(url), problem.message);
                return Err(problem);
            }
            Err(_) => {
                return Err(Problem::unavailable(format!(
                    "the database of engine {} does not answer at {}: start it, or correct DELTRAN_DATABASE_URL",
                    entry.name,
                    without_password(url)
                )));
            }
        }
    }
    Ok(())
}

/// Brings streams and consumers into line with the catalog.
///
/// # Errors
/// Where the broker does not answer or refuses.
pub async fn apply_topology(config: &Config, broker: &Broker) -> Result<(), Problem> {
    let plan = topology::plan(broker, profile(&config.nats.profile)?, None).await?;
    for line in topology::apply(broker, &plan, false).await? {
        tracing::info!(change = line, "topology");
    }
    Ok(())
}

/// Says in the log where streams and consumers differ from the catalog.
///
/// # Errors
/// Where the broker does not answer.
pub async fn warn_of_drift(config: &Config, broker: &Broker) -> Result<(), Problem> {
    for change in topology::plan(broker, profile(&config.nats.profile)?, None).await?.changes {
        tracing::warn!(%change, "streams and consumers are not as configured: run `deltran topology apply`");
    }
    Ok(())
}

/// Engines with what they share.
pub struct Assembled {
    /// The engines' databases with their outboxes.
    pub outboxes: Vec<(Db, Outbox)>,
    /// The engines, and the platform's own service.
    pub engines: Vec<Engine>,
    /// What they share.
    pub shared: Shared,
}

/// Makes the engines. Their databases are migrated and the broker answers.
///
/// # Errors
/// Where a schema does not compile, a setting cannot work or a URL is none.
pub fn assemble(config: Config, entries: &[&'static Entry], broker: &Broker) -> Result<Assembled, Problem> {
    deltran_events::schema::compile_all()
        .map_err(|e| Problem::refused(format!("an event's schema is not valid: {e}")))?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let ids: Arc<dyn IdSource> = Arc::new(SystemIds::new());
    let metrics = Metrics::new().map_err(|e| Problem::refused(format!("metrics: {e}")))?;
    metrics.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
    let shared = Shared {
        peers: Peers::new(entries.iter().map(|e| e.name).collect(), &config.peers).map_err(Problem::usage)?,
        metrics,
        health: Health::default(),
        closing: CancellationToken::new(),
    };
    let holder = holder(&*clock, &*ids);
    let config = Arc::new(config);
    let mut engines = Vec::with_capacity(entries.len() + 1);
    let mut outboxes = Vec::with_capacity(entries.len());
    for entry in entries {
        let options = DbOptions {
            url: config.database_url(entry.name).to_owned(),
            max_connections: config.database.max_connections,
            acquire_timeout: Duration::from_millis(config.database.acquire_timeout_ms),
        };
        let db = Db::open(entry.name, &options, shared.metrics.clone())?;
        let domain = Domain::of_engine(entry.name)
            .ok_or_else(|| Problem::refused(format!("engine {} has no domain of events", entry.name)))?;
        let outbox = Outbox::new(domain, clock.clone(), ids.clone());
        outboxes.push((db.clone(), outbox.clone()));
        let context = EngineContext {
            engine: entry.name,
            config: config.clone(),
            db,
            clock: clock.clone(),
            ids: ids.clone(),
            peers: shared.peers.clone(),
            metrics: shared.metrics.clone(),
            health: shared.health.clone(),
            holder: holder.clone(),
            closing: shared.closing.clone(),
        };
        let engine = (entry.engine)(context, broker.clone(), outbox)
            .map_err(|e| Problem::usage(format!("engine {}: {e}", entry.name)))?;
        engines.push(engine);
    }
    engines.push(platform::engine(config.deployment.clone(), shared.health.clone(), outboxes.clone()));
    Ok(Assembled { outboxes, engines, shared })
}

/// Puts right what a restored database needs, before anything runs.
///
/// # Errors
/// Unavailable where database or broker do not answer, refused where other engines are needed for it.
pub async fn settle(config: &Config, broker: &Broker, assembled: &Assembled) -> Result<(), Problem> {
    let parts = Parts {
        ledger: deltran_token::NAME,
        recorder: deltran_audit::NAME,
        whole: assembled.outboxes.len() == ENGINES.len(),
        say: restored,
    };
    let settled = restore::settle(broker, profile(&config.nats.profile)?, &assembled.outboxes, parts).await;
    let settled = settled.map_err(|error| match error {
        RestoreError::Db(error) => Problem::from(error),
        RestoreError::Broker(error) => Problem::unavailable(format!("the broker does not answer: {error}")),
        error @ RestoreError::Partial(_) => Problem::refused(error.to_string()),
    })?;
    if settled.waits {
        tracing::error!(
            "the database was restored to an earlier moment: the ledger waits for an operator (`deltran restored list`, then \
             `deltran restored resume`)"
        );
    }
    Ok(())
}

/// What the ledger says about a restore.
fn restored(settled: &Settled) -> Outgoing {
    let beyond: u64 = settled.ended.iter().map(|ended| ended.beyond).sum();
    let reason = match settled.ended.first() {
        Some(first) if beyond == 0 => first.reason.clone(),
        _ => format!("the streams have {beyond} events that the database does not know of"),
    };
    let producers = settled.ended.iter().map(|ended| EndedProducer {
        producer: ended.producer.clone(),
        last: ended.last,
        beyond: ended.beyond,
        next: ended.next.clone(),
    });
    let event = LedgerRestored { reason, producers: producers.collect(), waits: settled.waits };
    Outgoing::new(event, "ledger", Domain::Transactions.source())
}

/// A name that no other process has: host, process, and a random part for what a reused number would confuse.
fn holder(clock: &dyn Clock, ids: &dyn IdSource) -> String {
    let host =
        nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_else(|| "host".into());
    let id = ids.next_id(clock.now()).simple().to_string();
    format!("{host}-{}-{}", std::process::id(), &id[24..])
}

/// Binds both listeners. A usual port that is taken gives way to a free one where `or_free` says so, and a note tells.
///
/// # Errors
/// Where an address cannot be listened on.
pub async fn bind(config: &Config, or_free: (bool, bool)) -> Result<(Listeners, Vec<String>), Problem> {
    let (mut grpc, mut http) = (config.grpc.listen, config.http.listen);
    let mut taken = Vec::new();
    let listeners = loop {
        let error = match Listeners::bind(grpc, http).await {
            Ok(listeners) => break listeners,
            Err(error) => error,
        };
        match &error {
            BootError::Listen { what: "grpc", .. } if or_free.0 && grpc.port() != 0 => {
                give_way(&mut grpc, "gRPC", &mut taken)
            }
            BootError::Listen { what: "http", .. } if or_free.1 && http.port() != 0 => {
                give_way(&mut http, "HTTP", &mut taken)
            }
            _ => return Err(error.into()),
        }
    };
    let notes = taken
        .into_iter()
        .map(|(what, port)| {
            let instead = if what == "gRPC" { listeners.grpc_address } else { listeners.http_address };
            format!("port {port} is taken: {what} listens on {}", instead.port())
        })
        .collect();
    Ok((listeners, notes))
}

fn give_way(address: &mut SocketAddr, what: &'static str, taken: &mut Vec<(&'static str, u16)>) {
    taken.push((what, address.port()));
    address.set_port(0);
}

/// Serves until `stop`; calls `ready` once requests are taken and every part says that it is ready.
///
/// # Errors
/// Where a listener fails.
pub async fn serve(
    assembled: Assembled,
    listeners: Listeners,
    ready: impl FnOnce() + Send + 'static,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), Problem> {
    let health = assembled.shared.health.clone();
    let closing = assembled.shared.closing.clone();
    let watch = CancellationToken::new();
    let started = watch.clone();
    let announce = tokio::spawn(async move {
        started.cancelled().await;
        while !health.problems().is_empty() {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
                () = closing.cancelled() => return,
            }
        }
        ready();
    });
    let served =
        deltran_runtime::boot::serve(assembled.engines, listeners, assembled.shared, move || watch.cancel(), stop)
            .await;
    announce.abort();
    Ok(served?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        for (url, shown) in [
            ("postgres://u:secret@h:5432/d?x=1", "postgres://u@h:5432/d?x=1"),
            ("nats://token@h:4222", "nats://token@h:4222"),
            ("nats://h:4222", "nats://h:4222"),
            ("h:4222", "h:4222"),
            ("postgres://u:p%40@h/d", "postgres://u@h/d"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }

    #[tokio::test]
    async fn a_usual_port_gives_way_and_a_given_one_does_not() {
        let holder = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let held = holder.local_addr().unwrap();
        let mut config = Config::default();
        config.grpc.listen = held;
        config.http.listen.set_port(0);
        let (listeners, notes) = bind(&config, (true, true)).await.unwrap();
        assert_ne!(listeners.grpc_address.port(), held.port());
        assert!(notes[0].starts_with(&format!("port {} is taken: gRPC", held.port())), "{notes:?}");
        let error = bind(&config, (false, true)).await.err().unwrap();
        assert!(error.message.contains("--grpc-port"), "{error}");
    }
}
