//! Runs engines in one process: listeners, workers, and an orderly end.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tower::Layer;

use crate::engine::{Engine, Worker};
use crate::guard::GuardLayer;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::peers::Peers;

/// Time for requests under way to end after the process was told to stop.
const GRACE: Duration = Duration::from_secs(10);

/// Why a process could not start.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for {what}: {cause}; choose another with --{what}-port, or 0 for a free one")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// `grpc` or `http`.
        what: &'static str,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Something else; the text says what and where.
    #[error("{0}")]
    Other(String),
}

/// Listeners, bound before anything else so that a taken port stops the start at once.
pub struct Listeners {
    grpc: TcpListener,
    http: TcpListener,
    /// Where gRPC listens.
    pub grpc_address: SocketAddr,
    /// Where the operator's pages listen.
    pub http_address: SocketAddr,
}

impl Listeners {
    /// Binds both addresses.
    ///
    /// # Errors
    /// [`BootError::Listen`] where one is taken.
    pub async fn bind(grpc: SocketAddr, http: SocketAddr) -> Result<Self, BootError> {
        let (grpc, grpc_address) = bind(grpc, "grpc").await?;
        let (http, http_address) = bind(http, "http").await?;
        Ok(Self { grpc, http, grpc_address, http_address })
    }
}

async fn bind(address: SocketAddr, what: &'static str) -> Result<(TcpListener, SocketAddr), BootError> {
    let failed = |cause| BootError::Listen { address, what, cause };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// What all engines of a process share.
pub struct Shared {
    /// The way to other engines; gets the local services here.
    pub peers: Peers,
    /// Metrics.
    pub metrics: Metrics,
    /// Readiness.
    pub health: Health,
    /// Cancelled when requests stop being taken.
    pub closing: CancellationToken,
}

/// Serves until `stop` completes; then finishes what was accepted and returns.
///
/// `started` is called once requests are taken.
///
/// # Errors
/// Where reflection cannot be built or a listener fails.
pub async fn serve(
    engines: Vec<Engine>,
    listeners: Listeners,
    shared: Shared,
    started: impl FnOnce() + Send,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), BootError> {
    let other = |e: &dyn std::fmt::Display| BootError::Other(e.to_string());
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(deltran_api::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    // Many clients know only the older name of the same service.
    let reflection_v1alpha = reflection().build_v1alpha().map_err(|e| other(&e))?;
    let reflection_v1 = reflection().build_v1().map_err(|e| other(&e))?;
    let (health_reporter, health_service) = tonic_health::server::health_reporter();

    let mut routes = Routes::builder();
    routes.add_service(reflection_v1).add_service(reflection_v1alpha).add_service(health_service);
    let mut workers: Vec<Worker> = Vec::new();
    let mut names = Vec::new();
    let mut drains = Vec::new();
    let mut app = crate::http::router(shared.health.clone(), shared.metrics.clone());
    for engine in engines {
        (engine.services)(&mut routes);
        app = app.merge(engine.pages);
        workers.extend(engine.workers);
        drains.extend(engine.drain);
        names.push(engine.name);
    }
    let services = services_of(&names);
    let guard = GuardLayer::new(shared.metrics.clone());
    let routes = routes.routes().prepare();
    // Calls within the process have room of their own: those from outside cannot keep engines from each other.
    let within = GuardLayer::new(shared.metrics.clone());
    shared.peers.set_local(within.layer(routes.clone()), format!("http://{}", listeners.grpc_address));

    let working = CancellationToken::new();
    let mut running = JoinSet::new();
    for worker in workers {
        let token = working.clone();
        let health = shared.health.clone();
        running.spawn(async move {
            (worker.run)(token.clone()).await;
            if !token.is_cancelled() {
                health.not_ready(&worker.name, "stopped by itself: see the log");
            }
        });
    }

    let told = tokio::spawn(tell_health(health_reporter, shared.health.clone(), services));
    let closing = shared.closing.clone();
    let grpc = Server::builder()
        .layer(guard)
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .add_routes(routes)
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listeners.grpc).with_nodelay(Some(true)),
            closing.clone().cancelled_owned(),
        );
    let mut grpc = tokio::spawn(grpc);
    let http_closing = working.clone();
    let http = tokio::spawn(async move {
        axum::serve(listeners.http, app).with_graceful_shutdown(http_closing.cancelled_owned()).await
    });
    started();

    let early = tokio::select! {
        () = stop => None,
        ended = &mut grpc => Some(match ended {
            Ok(Ok(())) => "the gRPC server ended".to_owned(),
            Ok(Err(e)) => format!("the gRPC server failed: {e}"),
            Err(e) => format!("the gRPC server failed: {e}"),
        }),
    };
    tracing::info!("stopping: no new requests, finishing what was accepted");
    closing.cancel();
    if early.is_none() && tokio::time::timeout(GRACE, &mut grpc).await.is_err() {
        tracing::warn!(grace_seconds = GRACE.as_secs(), "requests still under way are cut off");
        grpc.abort();
    }
    for drain in drains {
        if tokio::time::timeout(GRACE, drain).await.is_err() {
            tracing::warn!("not everything that was accepted could be finished in time");
        }
    }
    working.cancel();
    let all_ended = async { while running.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, all_ended).await.is_err() {
        tracing::warn!(grace_seconds = GRACE.as_secs(), "workers still running are cut off");
    }
    http.abort();
    told.abort();
    match early {
        None => Ok(()),
        Some(reason) => Err(BootError::Other(reason)),
    }
}

/// Names under which `grpc.health.v1` knows an engine: its own, and those of its services.
fn services_of(engines: &[&'static str]) -> Vec<(&'static str, Vec<String>)> {
    use prost::Message;
    // The contract is compiled into this program and tested; without it only the engines' names are known.
    let contract = prost_types::FileDescriptorSet::decode(deltran_api::DESCRIPTORS).unwrap_or_default();
    let of = |engine: &&'static str| {
        let package = format!("deltran.{engine}.v1");
        let files = contract.file.iter().filter(|file| file.package() == package);
        let services = files.flat_map(|file| &file.service).map(|service| format!("{package}.{}", service.name()));
        (*engine, std::iter::once((*engine).to_owned()).chain(services).collect())
    };
    engines.iter().map(of).collect()
}

/// Keeps `grpc.health.v1` at what the parts say of themselves.
async fn tell_health(
    reporter: tonic_health::server::HealthReporter,
    health: Health,
    services: Vec<(&'static str, Vec<String>)>,
) {
    use tonic_health::ServingStatus::{NotServing, Serving};
    let mut ticks = tokio::time::interval(Duration::from_millis(500));
    loop {
        ticks.tick().await;
        for (engine, names) in &services {
            let status = if health.problems_of(engine).is_empty() { Serving } else { NotServing };
            for name in names {
                reporter.set_service_status(name, status).await;
            }
        }
    }
}

/// Completes on SIGINT or SIGTERM.
///
/// # Errors
/// Where the process cannot listen for signals.
pub fn stop_signal() -> std::io::Result<impl Future<Output = ()> + Send> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
