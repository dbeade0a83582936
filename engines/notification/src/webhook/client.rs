//! Sends one webhook and says how it ended. It follows no redirect and reads no more than it must.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use deltran_kernel::{Clock, Timestamp};
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Http;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, timeout_at};

use super::connector::{ConnectError, Connector};
use crate::domain::delivery::Attempt;
use crate::domain::retry::{Answer, Fault, retry_after};

/// Bytes of a response that are kept.
const KEPT: usize = 1024;
/// Bytes of a response that are read, so that its connection can be used again; of a longer one it is closed.
const READ: usize = 64 * 1024;
/// Bytes of a response's head.
const MAX_HEAD: usize = 32 * 1024;
const MAX_HEADERS: usize = 64;
/// Time for which an idle connection is kept.
const IDLE: Duration = Duration::from_secs(30);
const AGENT: &str = concat!("DelTran-Webhooks/", env!("CARGO_PKG_VERSION"));

/// A webhook, signed.
#[derive(Debug, Clone)]
pub struct Signed {
    /// Where it goes.
    pub uri: Uri,
    /// `webhook-id`.
    pub id: String,
    /// `webhook-timestamp`.
    pub timestamp: i64,
    /// `webhook-signature`.
    pub signature: String,
    /// The body.
    pub body: Bytes,
}

/// The HTTP client. Cloning shares its connections.
#[derive(Clone)]
pub struct Client {
    http: Http<Connector, Full<Bytes>>,
    timeout: Duration,
    clock: Arc<dyn Clock>,
}

impl Client {
    /// A client with at most `idle` idle connections to a host.
    pub fn new(connector: Connector, timeout: Duration, idle: usize, clock: Arc<dyn Clock>) -> Self {
        let http = Http::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(idle)
            .http1_max_buf_size(MAX_HEAD)
            .http1_max_headers(MAX_HEADERS)
            .build(connector);
        Self { http, timeout, clock }
    }

    /// Sends a webhook.
    pub async fn send(&self, signed: Signed) -> Attempt {
        let at = self.clock.now();
        let started = Instant::now();
        let (answer, response) = self.answer(signed, started + self.timeout).await;
        let duration_ms = u32::try_from(started.elapsed().as_millis()).unwrap_or(u32::MAX);
        Attempt { at, duration_ms, answer, response }
    }

    async fn answer(&self, signed: Signed, deadline: Instant) -> (Answer, String) {
        let Some(request) = request(signed) else { return (Answer::Fault(Fault::Protocol), String::new()) };
        let response = match timeout_at(deadline, self.http.request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return (Answer::Fault(fault(&error)), String::new()),
            Err(_) => return (Answer::Fault(Fault::Timeout), String::new()),
        };
        let answer = status(&response, self.clock.now());
        // The status decides; what the body does after it does not change the answer.
        let mut kept = Vec::with_capacity(KEPT);
        let _ = timeout_at(deadline, read(response.into_body(), &mut kept)).await;
        (answer, kept.escape_ascii().to_string())
    }
}

fn request(signed: Signed) -> Option<Request<Full<Bytes>>> {
    let mut request = Request::new(Full::new(signed.body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = signed.uri;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    headers.insert("webhook-id", signed.id.try_into().ok()?);
    headers.insert("webhook-timestamp", signed.timestamp.into());
    headers.insert("webhook-signature", signed.signature.try_into().ok()?);
    Some(request)
}

fn status(response: &Response<Incoming>, now: Timestamp) -> Answer {
    let header = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    Answer::Status { code: response.status().as_u16(), retry_after: header.and_then(|header| retry_after(header, now)) }
}

/// Reads a body to its end or to the most that is read, and keeps its beginning.
async fn read(mut body: Incoming, kept: &mut Vec<u8>) {
    let mut total = 0;
    while let Some(Ok(frame)) = body.frame().await {
        let Some(data) = frame.data_ref() else { continue };
        let room = KEPT.saturating_sub(kept.len()).min(data.len());
        kept.extend_from_slice(&data[..room]);
        total += data.len();
        if total > READ {
            return;
        }
    }
}

fn fault(error: &(dyn Error + 'static)) -> Fault {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(connect) = error.downcast_ref::<ConnectError>() {
            tracing::debug!(error = %connect, "no connection for a webhook");
            return connect.fault;
        }
        cause = error.source();
    }
    Fault::Protocol
}
