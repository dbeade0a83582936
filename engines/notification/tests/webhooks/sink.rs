//! A receiver of webhooks in this process, that does what it is told and remembers what came.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use ed25519_dalek::{Signature, VerifyingKey};
use http_body_util::BodyExt;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What a receiver does with a request.
#[derive(Debug, Clone)]
pub enum Does {
    /// Answers with a status.
    Answers(u16),
    /// Answers with a status and a header.
    Says(u16, &'static str, String),
    /// Answers with a status and a body.
    Tells(u16, Vec<u8>),
    /// Answers 200, only when it is let go.
    Hangs,
    /// The same with another status.
    HangsThen(u16),
}

/// A request that came.
#[derive(Debug, Clone)]
pub struct Arrival {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Arrival {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub fn id(&self) -> String {
        self.header("webhook-id").to_owned()
    }

    pub fn timestamp(&self) -> i64 {
        self.header("webhook-timestamp").parse().unwrap()
    }

    /// Whether a `v1` signature is of this secret, by the published library.
    pub fn is_of_secret(&self, secret: &str) -> bool {
        standardwebhooks::Webhook::new(secret).unwrap().verify(&self.body, &self.headers).is_ok()
    }

    /// Whether a `v1a` signature is of this key.
    pub fn is_of_key(&self, key: &str) -> bool {
        let raw = BASE64_STANDARD.decode(key.strip_prefix("whpk_").unwrap()).unwrap();
        let key = VerifyingKey::from_bytes(&raw.try_into().unwrap()).unwrap();
        let content = [format!("{}.{}.", self.id(), self.timestamp()).as_bytes(), &self.body].concat();
        self.header("webhook-signature").split(' ').filter_map(|part| part.strip_prefix("v1a,")).any(|signature| {
            let raw = BASE64_STANDARD.decode(signature).unwrap();
            key.verify_strict(&content, &Signature::from_slice(&raw).unwrap()).is_ok()
        })
    }
}

struct Inner {
    arrivals: Mutex<Vec<Arrival>>,
    orders: Mutex<VecDeque<Does>>,
    usual: Mutex<Does>,
    count: watch::Sender<usize>,
    let_go: CancellationToken,
}

/// What ends it, and its end.
type Open = (CancellationToken, JoinHandle<()>);

/// A receiver.
#[derive(Clone)]
pub struct Sink {
    pub address: SocketAddr,
    inner: Arc<Inner>,
    open: Arc<Mutex<Option<Open>>>,
}

impl Sink {
    /// A receiver on a free port of the loopback interface that does this.
    pub async fn new(usual: Does) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sink = Self {
            address: listener.local_addr().unwrap(),
            inner: Arc::new(Inner {
                arrivals: Mutex::default(),
                orders: Mutex::default(),
                usual: Mutex::new(usual),
                count: watch::Sender::new(0),
                let_go: CancellationToken::new(),
            }),
            open: Arc::default(),
        };
        sink.serve(listener);
        sink
    }

    fn serve(&self, listener: TcpListener) {
        let token = CancellationToken::new();
        let open = token.clone();
        let app = Router::new().fallback(receive).with_state(self.inner.clone());
        let serving = tokio::spawn(async move {
            // Connections end with it: dropped, not shut down in good order.
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let stream = tokio::select! {
                    stream = listener.accept() => stream,
                    () = open.cancelled() => return,
                };
                let Ok((stream, _)) = stream else { continue };
                let service = hyper_util::service::TowerToHyperService::new(app.clone());
                connections.spawn(async move {
                    let io = hyper_util::rt::TokioIo::new(stream);
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
                });
            }
        });
        *self.open.lock().unwrap() = Some((token, serving));
    }

    /// A URL of it.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What it does with the next requests, before what it usually does.
    pub fn then(&self, orders: impl IntoIterator<Item = Does>) {
        self.inner.orders.lock().unwrap().extend(orders);
    }

    /// What it usually does.
    pub fn usually(&self, does: Does) {
        *self.inner.usual.lock().unwrap() = does;
    }

    /// Answers all that hang.
    pub fn let_go(&self) {
        self.inner.let_go.cancel();
    }

    /// It is gone: connections break, and new ones are refused.
    pub async fn disappear(&self) {
        let open = self.open.lock().unwrap().take();
        if let Some((open, serving)) = open {
            open.cancel();
            serving.await.unwrap();
        }
    }

    /// It is back, on the same port.
    pub async fn come_back(&self) {
        let listener = crate::place::eventually("the port", async || TcpListener::bind(self.address).await.ok()).await;
        self.serve(listener);
    }

    /// What came so far.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.inner.arrivals.lock().unwrap().clone()
    }

    /// The ids of what came so far.
    pub fn ids(&self) -> Vec<String> {
        self.arrivals().iter().map(Arrival::id).collect()
    }

    /// Waits until so many requests came.
    pub async fn got(&self, count: usize) -> Vec<Arrival> {
        let mut counted = self.inner.count.subscribe();
        let arrived = tokio::time::timeout(crate::place::DEADLINE, counted.wait_for(|n| *n >= count)).await;
        assert!(arrived.is_ok(), "waited in vain for {count} requests: {} came", self.arrivals().len());
        self.arrivals()
    }
}

async fn receive(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let does = inner.orders.lock().unwrap().pop_front();
    let does = does.unwrap_or_else(|| inner.usual.lock().unwrap().clone());
    let arrival = Arrival { path: head.uri.path().to_owned(), headers: head.headers, body };
    inner.arrivals.lock().unwrap().push(arrival);
    inner.count.send_modify(|count| *count += 1);
    let (status, header, body) = match does {
        Does::Answers(status) => (status, None, Vec::new()),
        Does::Says(status, name, value) => (status, Some((name, value)), Vec::new()),
        Does::Tells(status, body) => (status, None, body),
        Does::Hangs => {
            inner.let_go.cancelled().await;
            (200, None, Vec::new())
        }
        Does::HangsThen(status) => {
            inner.let_go.cancelled().await;
            (status, None, Vec::new())
        }
    };
    let mut response = Response::builder().status(status);
    if let Some((name, value)) = header {
        response = response.header(name, value);
    }
    response.body(Body::from(body)).unwrap()
}
