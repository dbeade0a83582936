//! HTTP to an object store, over the client and the TLS that the platform has already. It follows no redirect and knows
//! no proxy. Whether a request is sent again is decided above it, by its kind of failure.

use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::USER_AGENT;
use http::{HeaderValue, Response};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector as Tcp;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use object_store::client::{
    ClientConfigKey, ClientOptions, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
    HttpResponse, HttpResponseBody, HttpService,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::{Sleep, sleep, timeout};

/// Time for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Time from a request to the head of its answer, its body sent.
pub const ANSWER: Duration = Duration::from_secs(120);
/// Time between two pieces of an answer, while somebody waits for them.
pub const PIECE: Duration = Duration::from_secs(30);
/// Time for which an idle connection is kept: less than what servers keep it for.
const IDLE: Duration = Duration::from_secs(15);
static AGENT: HeaderValue = HeaderValue::from_static(concat!("DelTran/", env!("CARGO_PKG_VERSION")));

/// Trust in certificates: the system's authorities, and those of a PEM file where one is named.
///
/// # Errors
/// Where the file cannot be read or holds no certificate.
pub fn trust(ca_file: &str) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::warn!(%error, "an authority of the system is not trusted");
    }
    roots.add_parsable_certificates(system.certs);
    if !ca_file.is_empty() {
        let unreadable = |e: &dyn std::fmt::Display| format!("audit.archive_ca_file = {ca_file:?}: {e}");
        let before = roots.len();
        for certificate in CertificateDer::pem_file_iter(ca_file).map_err(|e| unreadable(&e))? {
            roots.add(certificate.map_err(|e| unreadable(&e))?).map_err(|e| unreadable(&e))?;
        }
        if roots.len() == before {
            return Err(unreadable(&"holds no certificate"));
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("TLS cannot be set up: {e}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

/// Makes clients.
#[derive(Debug)]
pub struct Connector {
    /// Whom they trust.
    pub tls: Arc<ClientConfig>,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let mut tcp = Tcp::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        let schemes = HttpsConnectorBuilder::new().with_tls_config((*self.tls).clone());
        let schemes = match options.get_config_value(&ClientConfigKey::AllowHttp).as_deref() {
            Some("true") => schemes.https_or_http(),
            _ => schemes.https_only(),
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(schemes.enable_http1().wrap_connector(tcp));
        Ok(HttpClient::new(Service { client }))
    }
}

#[derive(Debug)]
struct Service {
    client: Client<HttpsConnector<Tcp>, HttpRequestBody>,
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        request.headers_mut().entry(USER_AGENT).or_insert_with(|| AGENT.clone());
        let answer = timeout(ANSWER, self.client.request(request)).await;
        let answer = answer.map_err(|_| late(format!("no answer within {} s", ANSWER.as_secs())))?;
        let (head, body) = answer.map_err(|e| broken(&e, e.is_connect()))?.into_parts();
        Ok(Response::from_parts(head, HttpResponseBody::new(Paced { body, waits: None })))
    }
}

/// A failure in one line, with what is behind it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Broken(String);

fn late(what: String) -> HttpError {
    HttpError::new(HttpErrorKind::Timeout, Broken(what))
}

fn broken(error: &(dyn Error + 'static), connecting: bool) -> HttpError {
    let (mut kind, mut words) = (HttpErrorKind::Unknown, Vec::new());
    let mut cause = Some(error);
    while let Some(error) = cause {
        words.push(error.to_string());
        if let Some(error) = error.downcast_ref::<hyper::Error>()
            && (error.is_closed() || error.is_incomplete_message() || error.is_body_write_aborted())
        {
            // It may have arrived: only what may come twice is sent again.
            kind = HttpErrorKind::Interrupted;
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            kind = match error.kind() {
                io::ErrorKind::TimedOut => HttpErrorKind::Timeout,
                io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof => HttpErrorKind::Interrupted,
                _ => kind,
            };
        }
        cause = error.source();
    }
    if connecting {
        kind = HttpErrorKind::Connect;
    }
    words.dedup();
    HttpError::new(kind, Broken(words.join(": ")))
}

/// The body of an answer, each piece of which has its time.
struct Paced {
    body: Incoming,
    waits: Option<Pin<Box<Sleep>>>,
}

impl Body for Paced {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.waits = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(|e| broken(&e, false))));
        }
        ready!(this.waits.get_or_insert_with(|| Box::pin(sleep(PIECE))).as_mut().poll(cx));
        Poll::Ready(Some(Err(late(format!("nothing of the answer came for {} s", PIECE.as_secs())))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
