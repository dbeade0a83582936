//! What a measurement stands on: real private servers in a folder of their own, and engines on them in this process.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use deltran_messaging::Broker;
use deltran_runtime::Db;
use deltran_runtime::boot::Listeners;
use deltran_runtime::config::Config;
use deltran_runtime::embedded::{self, Embedded};
use deltran_runtime::metrics::Metrics;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::machine::{self, Part};
use super::report::Report;
use crate::engines::Entry;
use crate::problem::Problem;
use crate::up::prepare_audit;
use crate::{boot, stage};

/// Says that a folder is a measurement's, so that nothing else is ever emptied.
const MARK: &str = "bench.mark";
/// Every wait ends by then.
const PATIENCE: Duration = Duration::from_secs(600);

/// An empty folder for a measurement.
///
/// # Errors
/// Where it holds something else, or cannot be made.
pub fn empty(folder: &Path) -> Result<(), Problem> {
    stage::empty(folder, MARK, "a measurement")?;
    std::fs::write(folder.join(MARK), "").map_err(|e| Problem::refused(format!("{}: {e}", folder.display())))
}

/// Waits until there is an answer.
///
/// # Errors
/// Where there is none for ten minutes.
pub async fn until<T>(what: &str, every: Duration, ask: impl AsyncFnMut() -> Option<T>) -> Result<T, Problem> {
    stage::until(what, every, PATIENCE, ask).await
}

/// Servers, and the configuration that names them.
pub struct Ground {
    /// The configuration of the engines.
    pub config: Config,
    /// A connection to the broker.
    pub broker: Broker,
    servers: Embedded,
}

impl Ground {
    /// Starts broker and database in an emptied folder, with all streams and the tables of these engines.
    ///
    /// # Errors
    /// Where something does not start.
    pub async fn start(folder: &Path, entries: &[&'static Entry]) -> Result<Self, Problem> {
        empty(folder)?;
        let options = embedded::Options {
            data: folder.to_owned(),
            nats_port: Some(0),
            nats_monitor_port: Some(0),
            postgres_port: Some(0),
            ..embedded::Options::default()
        };
        let servers = Embedded::start(options).await?;
        match Self::prepare(folder, &servers, entries).await {
            Ok((config, broker)) => Ok(Self { config, broker, servers }),
            Err(problem) => {
                servers.stop().await;
                Err(problem)
            }
        }
    }

    async fn prepare(
        folder: &Path,
        servers: &Embedded,
        entries: &[&'static Entry],
    ) -> Result<(Config, Broker), Problem> {
        let mut config = Config::default();
        config.deployment = "bench".to_owned();
        config.nats.url = servers.nats_url().to_owned();
        config.database.url = servers.database_url().to_owned();
        prepare_audit(&mut config, folder)?;
        let broker = boot::connect(&config.nats.url, "bench").await?;
        boot::migrate(&config, entries).await?;
        boot::apply_topology(&config, &broker).await?;
        Ok((config, broker))
    }

    /// The database of the first of these engines, without the engine.
    ///
    /// # Errors
    /// Where its URL is none.
    pub fn database(&self, entries: &[&'static Entry]) -> Result<Db, Problem> {
        let assembled = boot::assemble(self.config.clone(), entries, &self.broker)?;
        assembled.outboxes.into_iter().next().map(|(db, _)| db).ok_or_else(|| Problem::refused("no engine was named"))
    }

    /// Runs engines on it, ready when this returns.
    ///
    /// # Errors
    /// Where they do not start.
    pub async fn run(&self, entries: &[&'static Entry]) -> Result<Running, Problem> {
        let assembled = boot::assemble(self.config.clone(), entries, &self.broker)?;
        let databases = assembled.outboxes.iter().map(|(db, _)| db.clone()).collect();
        let metrics = assembled.shared.metrics.clone();
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let listeners = Listeners::bind(free, free).await?;
        let grpc = listeners.grpc_address;
        let stop = CancellationToken::new();
        let (ready, waiting) = tokio::sync::oneshot::channel();
        let stopping = stop.clone().cancelled_owned();
        let served = tokio::spawn(async move {
            let announce = move || {
                let _gone = ready.send(());
            };
            boot::serve(assembled, listeners, announce, stopping).await
        });
        let running = Running { databases, grpc: format!("http://{grpc}"), metrics, stop, served };
        if waiting.await.is_ok() {
            return Ok(running);
        }
        running.stop().await?;
        Err(Problem::unavailable("the engines did not become ready"))
    }

    /// Notes versions and what the machine takes for one fsync.
    pub fn describe(&self, folder: &Path, report: &mut Report) {
        describe(std::process::id(), folder, report);
    }

    /// Stops the servers, and removes the folder unless it is to be kept.
    pub async fn stop(self, folder: &Path, keep: bool) {
        self.servers.stop().await;
        if !keep && let Err(error) = std::fs::remove_dir_all(folder) {
            tracing::warn!(folder = %folder.display(), %error, "the measurement's folder was not removed");
        }
    }
}

/// Notes versions of the servers of a process, their settings, and what the machine takes for one fsync.
pub fn describe(root: u32, folder: &Path, report: &mut Report) {
    let of = machine::processes(root);
    report.set("Postgres", machine::version(&of, Part::Postgres));
    report.set("broker", machine::version(&of, Part::Broker));
    report.set("fsync", "on, synchronous_commit on");
    if let Some(time) = machine::fsync(folder) {
        report.set("fsync_ms", (time.as_secs_f64() * 100_000.0).round() / 100.0);
    }
}

/// Engines that run in this process.
pub struct Running {
    /// Their databases, in the order of the engines.
    pub databases: Vec<Db>,
    /// Their gRPC address.
    pub grpc: String,
    /// Their metrics.
    pub metrics: Metrics,
    stop: CancellationToken,
    served: JoinHandle<Result<(), Problem>>,
}

impl Running {
    /// Stops them in an orderly way.
    ///
    /// # Errors
    /// Where they failed meanwhile.
    pub async fn stop(self) -> Result<(), Problem> {
        self.stop.cancel();
        self.served.await.map_err(|e| Problem::refused(format!("the engines: {e}")))?
    }
}
