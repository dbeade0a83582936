//! The way to another engine: straight to its service where it runs in this process, over a
//! channel where it does not. Callers see the same generated client either way.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response};
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tower::Service;

use crate::error::Failure;
use crate::guard::Guard;
use crate::identity::{ROLE_HEADER, USER_HEADER};

/// An error of the way, not of the other side.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

type Local = Arc<OnceLock<Guard<Routes>>>;

/// All engines that can be called.
#[derive(Clone)]
pub struct Peers {
    local: Local,
    local_engines: Arc<Vec<&'static str>>,
    remote: Arc<BTreeMap<String, Channel>>,
}

impl Peers {
    /// Engines of this process by name, and the addresses of the others.
    ///
    /// # Errors
    /// Where an address is no URI.
    pub fn new(local_engines: Vec<&'static str>, remote: &BTreeMap<String, String>) -> Result<Self, String> {
        let mut channels = BTreeMap::new();
        for (engine, uri) in remote {
            let endpoint = Endpoint::from_shared(uri.clone())
                .map_err(|e| format!("peers.{engine} = {uri:?} is not a URI: {e}"))?
                .connect_timeout(Duration::from_secs(2))
                .http2_keep_alive_interval(Duration::from_secs(5))
                .keep_alive_timeout(Duration::from_secs(5))
                .tcp_nodelay(true);
            channels.insert(engine.clone(), endpoint.connect_lazy());
        }
        Ok(Self { local: Arc::default(), local_engines: Arc::new(local_engines), remote: Arc::new(channels) })
    }

    /// Fills in the services of this process, once they exist.
    pub fn set_local(&self, routes: Guard<Routes>) {
        let _already_set = self.local.set(routes);
    }

    /// The way from engine `from` to engine `to`.
    ///
    /// # Errors
    /// `unavailable` where no address is configured for it.
    pub fn to(&self, from: &'static str, to: &str) -> Result<Peer, Failure> {
        let way = if self.local_engines.contains(&to) {
            Way::Local(self.local.clone())
        } else {
            match self.remote.get(to) {
                Some(channel) => Way::Remote(channel.clone()),
                None => {
                    return Err(Failure::unavailable(format!(
                        "engine {to} does not run here and peers.{to} is not configured"
                    )));
                }
            }
        };
        let user = HeaderValue::from_str(&format!("{from}-engine")).map_err(Failure::internal)?;
        Ok(Peer { way, user })
    }

    /// Every place where engines run: this process once, and each remote address.
    pub fn everywhere(&self, from: &'static str) -> Vec<(String, Peer)> {
        let mut all = Vec::new();
        if let Some(engine) = self.local_engines.first() {
            all.extend(self.to(from, engine).ok().map(|peer| ("local".to_owned(), peer)));
        }
        for engine in self.remote.keys().filter(|e| !self.local_engines.contains(&e.as_str())) {
            all.extend(self.to(from, engine).ok().map(|peer| (engine.clone(), peer)));
        }
        all
    }
}

#[derive(Clone)]
enum Way {
    Local(Local),
    Remote(Channel),
}

/// The transport to one engine, for a generated client.
#[derive(Clone)]
pub struct Peer {
    way: Way,
    user: HeaderValue,
}

impl Service<Request<Body>> for Peer {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match &mut self.way {
            Way::Local(_) => Poll::Ready(Ok(())),
            Way::Remote(channel) => channel.poll_ready(cx).map_err(Into::into),
        }
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request.headers_mut().insert(ROLE_HEADER, HeaderValue::from_static("engine"));
        request.headers_mut().insert(USER_HEADER, self.user.clone());
        match &mut self.way {
            Way::Local(local) => match local.get().cloned() {
                Some(mut routes) => Box::pin(async move { Ok(routes.call(request).await?) }),
                None => Box::pin(std::future::ready(Err("the process is still starting".into()))),
            },
            Way::Remote(channel) => {
                let response = channel.call(request);
                Box::pin(async move { Ok(response.await?) })
            }
        }
    }
}
