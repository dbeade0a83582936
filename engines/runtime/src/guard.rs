//! The layer that every request passes, from a socket or from the same process: rights, identity,
//! trace, metrics.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::{Request, Response};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};
use tracing::Instrument;

use crate::error::Failure;
use crate::identity::Caller;
use crate::metrics::Metrics;
use crate::rights::{Access, access};

/// Requests of a process that may be under way: each is a task with its message, and nobody reads an answer that comes
/// after ten thousand others.
const MOST: usize = 10_000;

/// Makes [`Guard`]s.
#[derive(Clone)]
pub struct GuardLayer {
    metrics: Metrics,
    room: Arc<Semaphore>,
}

impl GuardLayer {
    /// A layer that counts into `metrics`.
    pub fn new(metrics: Metrics) -> Self {
        Self { metrics, room: Arc::new(Semaphore::new(MOST)) }
    }
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;
    fn layer(&self, inner: S) -> Guard<S> {
        Guard { inner, metrics: self.metrics.clone(), room: self.room.clone() }
    }
}

/// A service behind the layer.
#[derive(Clone)]
pub struct Guard<S> {
    inner: S,
    metrics: Metrics,
    room: Arc<Semaphore>,
}

impl<S> Service<Request<Body>> for Guard<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let caller = match admit(&path, &request) {
            Ok(caller) => caller,
            Err(failure) => {
                let response = Status::from(failure).into_http();
                return Box::pin(async move { Ok(response) });
            }
        };
        let Ok(room) = self.room.clone().try_acquire_owned() else {
            self.metrics.overloads.with_label_values(&["requests"]).inc();
            let response = Status::from(Failure::overloaded("too many requests are under way: try again later"));
            return Box::pin(async move { Ok(response.into_http()) });
        };
        let span = tracing::info_span!(
            "rpc",
            rpc.method = %path,
            caller.user = caller.as_ref().map(|c| c.user.as_str()),
            trace_id = caller.as_ref().and_then(|c| c.trace.as_deref()).and_then(|t| t.split('-').nth(1)),
        );
        if let Some(caller) = caller {
            request.extensions_mut().insert(caller);
        }
        // The clone is the one that was polled ready; the fresh one takes its place.
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        let metrics = self.metrics.clone();
        let started = Instant::now();
        Box::pin(
            async move {
                // Given back with the answer's head: what comes after is a stream, which is read as it is taken.
                let _room = room;
                let response = inner.call(request).await?;
                let code = response.headers().get("grpc-status").and_then(|v| v.to_str().ok()).unwrap_or("0");
                let method = path.rsplit('/').next().unwrap_or_default();
                metrics.rpc_seconds.with_label_values(&[method, code]).observe(started.elapsed().as_secs_f64());
                Ok(response)
            }
            .instrument(span),
        )
    }
}

fn admit(path: &str, request: &Request<Body>) -> Result<Option<Caller>, Failure> {
    match access(path) {
        Access::Open => Ok(None),
        Access::Unknown => Err(Failure::unimplemented(path)),
        Access::Roles(roles) => {
            let caller = Caller::from_headers(request.headers())?;
            if roles.contains(&caller.role) {
                Ok(Some(caller))
            } else {
                let words: Vec<_> = roles.iter().map(|r| r.as_str()).collect();
                Err(Failure::unauthorised(format!(
                    "role {} may not call {path}: it is for {}",
                    caller.role.as_str(),
                    words.join(", ")
                )))
            }
        }
    }
}
