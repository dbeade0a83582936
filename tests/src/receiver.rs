//! A receiver of webhooks.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::node::PATIENCE;
use crate::wait::within;

/// What came, in its order.
pub type Arrivals = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;

/// The notifications that came, by their ids.
pub fn ids(arrivals: &Arrivals) -> BTreeSet<String> {
    let id = |(headers, _): &(HeaderMap, Bytes)| headers["webhook-id"].to_str().expect("an id").to_owned();
    arrivals.lock().expect("nobody has failed").iter().map(id).collect()
}

/// Takes what comes on an address until it is told to go away, or dropped.
#[derive(Debug)]
pub struct Receiver {
    /// Where it listens.
    pub address: SocketAddr,
    gone: DropGuard,
}

impl Receiver {
    /// Listens on an address; port 0 takes a free one.
    pub async fn new(address: SocketAddr, arrivals: Arrivals) -> Self {
        let listener = within(PATIENCE, "the port", async || TcpListener::bind(address).await.ok()).await;
        let token = CancellationToken::new();
        let receiver = Self { address: listener.local_addr().expect("an address"), gone: token.clone().drop_guard() };
        tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let stream = tokio::select! {
                    stream = listener.accept() => stream,
                    () = token.cancelled() => return,
                };
                let Ok((stream, _)) = stream else { continue };
                let arrivals = arrivals.clone();
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let arrivals = arrivals.clone();
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                        arrivals.lock().expect("nobody has failed").push((head.headers, body));
                        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
                    }
                });
                connections.spawn(async move {
                    // Whoever breaks it off: what came was taken.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        receiver
    }

    /// Goes away with all its connections.
    pub fn go(self) {
        drop(self.gone);
    }
}
