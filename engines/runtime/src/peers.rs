//! The way to another engine: straight to its service where it runs in this process, over a
//! channel where it does not. Callers see the same generated client either way.
//!
//! Where several processes run an engine of which one leads, the way goes to that one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response};
use tokio::sync::watch;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tower::Service;

use crate::error::Failure;
use crate::guard::Guard;
use crate::identity::{ROLE_HEADER, USER_HEADER};
use crate::lease::Leader;

/// An error of the way, not of the other side.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

type Local = Arc<OnceLock<Guard<Routes>>>;

/// Who leads an engine that runs here, and the channel to it where that is another process.
struct Led {
    leader: watch::Receiver<Leader>,
    channel: Option<(String, Channel)>,
}

/// All engines that can be called.
#[derive(Clone)]
pub struct Peers {
    local: Local,
    local_engines: Arc<Vec<&'static str>>,
    remote: Arc<BTreeMap<String, Channel>>,
    led: Arc<Mutex<BTreeMap<&'static str, Led>>>,
    address: Arc<OnceLock<String>>,
}

impl Peers {
    /// Engines of this process by name, and the addresses of the others.
    ///
    /// # Errors
    /// Where an address is no URI.
    pub fn new(local_engines: Vec<&'static str>, remote: &BTreeMap<String, String>) -> Result<Self, String> {
        let mut channels = BTreeMap::new();
        for (engine, uri) in remote {
            let channel = channel_to(uri).map_err(|e| format!("peers.{engine} = {uri:?} is not a URI: {e}"))?;
            channels.insert(engine.clone(), channel);
        }
        Ok(Self {
            local: Arc::default(),
            local_engines: Arc::new(local_engines),
            remote: Arc::new(channels),
            led: Arc::default(),
            address: Arc::default(),
        })
    }

    /// Fills in the services of this process, once they exist, and where it takes requests.
    pub fn set_local(&self, routes: Guard<Routes>, address: String) {
        let _already_set = (self.local.set(routes), self.address.set(address));
    }

    /// Where this process takes requests; empty where it takes none yet.
    pub fn address(&self) -> String {
        self.address.get().cloned().unwrap_or_default()
    }

    /// From now on the way to an engine of this process goes to whoever leads it.
    pub fn follow(&self, engine: &'static str, leader: watch::Receiver<Leader>) {
        self.led.lock().unwrap_or_else(PoisonError::into_inner).insert(engine, Led { leader, channel: None });
    }

    /// The way to another process that leads an engine of this one.
    fn leading(&self, engine: &str) -> Option<Way> {
        let mut led = self.led.lock().unwrap_or_else(PoisonError::into_inner);
        let led = led.get_mut(engine)?;
        let Leader::At(address) = led.leader.borrow_and_update().clone() else { return None };
        if led.channel.as_ref().is_none_or(|(last, _)| *last != address) {
            led.channel = Some((address.clone(), channel_to(&address).ok()?));
        }
        let (_, channel) = led.channel.clone()?;
        Some(Way::Leader(channel, led.leader.clone()))
    }

    /// The way from engine `from` to engine `to`.
    ///
    /// # Errors
    /// `unavailable` where no address is configured for it.
    pub fn to(&self, from: &'static str, to: &str) -> Result<Peer, Failure> {
        let way = if self.local_engines.contains(&to) {
            self.leading(to).unwrap_or_else(|| Way::Local(self.local.clone()))
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
        Peer::new(from, way)
    }

    /// Every place where engines run: this process once, and each remote address.
    pub fn everywhere(&self, from: &'static str) -> Vec<(String, Peer)> {
        let mut all = Vec::new();
        if !self.local_engines.is_empty() {
            all.extend(Peer::new(from, Way::Local(self.local.clone())).ok().map(|peer| ("local".to_owned(), peer)));
        }
        for engine in self.remote.keys().filter(|e| !self.local_engines.contains(&e.as_str())) {
            all.extend(self.to(from, engine).ok().map(|peer| (engine.clone(), peer)));
        }
        all
    }
}

fn channel_to(uri: &str) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(uri.to_owned())?
        .connect_timeout(Duration::from_secs(2))
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(5))
        .tcp_nodelay(true);
    Ok(endpoint.connect_lazy())
}

#[derive(Clone)]
enum Way {
    Local(Local),
    Remote(Channel),
    /// To the process that leads, as long as it does.
    Leader(Channel, watch::Receiver<Leader>),
}

/// The transport to one engine, for a generated client.
#[derive(Clone)]
pub struct Peer {
    way: Way,
    user: HeaderValue,
}

impl Peer {
    fn new(from: &str, way: Way) -> Result<Self, Failure> {
        let user = HeaderValue::from_str(&format!("{from}-engine")).map_err(Failure::internal)?;
        Ok(Self { way, user })
    }
}

impl Service<Request<Body>> for Peer {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match &mut self.way {
            Way::Local(_) => Poll::Ready(Ok(())),
            Way::Remote(channel) | Way::Leader(channel, _) => channel.poll_ready(cx).map_err(Into::into),
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
            Way::Leader(channel, leader) => {
                let response = channel.call(request);
                let mut leader = leader.clone();
                Box::pin(async move {
                    // One that was stopped never answers; once another leads, it is the one to be asked.
                    tokio::select! {
                        response = response => Ok(response?),
                        _ = leader.changed() => Err("another process leads by now: what it did is not known".into()),
                    }
                })
            }
        }
    }
}
