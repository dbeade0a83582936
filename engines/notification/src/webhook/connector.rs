//! Connects to a webhook's host: resolves it, checks every address, and connects to one of those that were
//! checked. A name that points elsewhere a moment later changes nothing, since it is not looked up again.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::domain::address::{Policy, Reach, Target, check};
use crate::domain::retry::Fault;

/// Turns a host into addresses.
#[async_trait]
pub trait Resolve: Send + Sync {
    /// The addresses of a host.
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<IpAddr>>;
}

/// The resolver of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, port)).await?.map(|address| address.ip()).collect())
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ConnectError {
    /// In one word.
    pub fault: Fault,
    message: String,
}

impl ConnectError {
    fn new(fault: Fault, message: impl std::fmt::Display) -> Self {
        Self { fault, message: message.to_string() }
    }
}

/// Trust in certificates: the system's authorities, and those of a PEM file where one is named.
///
/// # Errors
/// Where the file cannot be read or holds no certificate.
pub fn tls(ca_file: &str) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::warn!(%error, "an authority of the system is not trusted");
    }
    let (_, ignored) = roots.add_parsable_certificates(system.certs);
    if !ca_file.is_empty() {
        let unreadable = |e: &dyn std::fmt::Display| format!("notification.webhooks.ca_file = {ca_file:?}: {e}");
        let before = roots.len();
        for certificate in CertificateDer::pem_file_iter(ca_file).map_err(|e| unreadable(&e))? {
            roots.add(certificate.map_err(|e| unreadable(&e))?).map_err(|e| unreadable(&e))?;
        }
        if roots.len() == before {
            return Err(unreadable(&"holds no certificate"));
        }
    }
    tracing::info!(authorities = roots.len(), ignored, "authorities that webhooks trust");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("TLS cannot be set up: {e}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Makes connections for the HTTP client.
#[derive(Clone)]
pub struct Connector {
    /// Where addresses come from.
    pub resolver: Arc<dyn Resolve>,
    /// Which URLs are taken.
    pub policy: Arc<Policy>,
    /// TLS.
    pub tls: TlsConnector,
    /// Time for all of it.
    pub timeout: Duration,
}

impl Connector {
    async fn connect(&self, uri: &Uri) -> Result<Stream, ConnectError> {
        // Judged anew, since the policy may have changed since the URL was taken.
        let target = Target::parse(&uri.to_string(), &self.policy)
            .map_err(|refused| ConnectError::new(Fault::AddressRefused, refused))?;
        let addresses = self.addresses(&target).await?;
        let tcp = self.tcp(&addresses, target.port).await?;
        // Deliveries are small and wait for an answer: gathering them would only delay.
        tcp.set_nodelay(true).map_err(|e| ConnectError::new(Fault::Connect, e))?;
        if !target.tls {
            return Ok(Stream::Plain(tcp));
        }
        let name = ServerName::try_from(target.host).map_err(|e| ConnectError::new(Fault::Tls, e))?;
        let tls = self.tls.connect(name, tcp).await.map_err(|e| ConnectError::new(Fault::Tls, e))?;
        Ok(Stream::Tls(Box::new(tls)))
    }

    async fn addresses(&self, target: &Target) -> Result<Vec<IpAddr>, ConnectError> {
        let addresses = match (target.host.parse::<IpAddr>(), target.reach) {
            (Ok(ip), _) => vec![ip],
            // Whatever the machine calls localhost, the loopback interface is meant.
            (Err(_), Reach::Loopback) => vec![IpAddr::from([127, 0, 0, 1])],
            (Err(_), Reach::Public) => self
                .resolver
                .resolve(&target.host, target.port)
                .await
                .map_err(|e| ConnectError::new(Fault::Resolve, format!("{}: {e}", target.host)))?,
        };
        if addresses.is_empty() {
            return Err(ConnectError::new(Fault::Resolve, format!("{} has no address", target.host)));
        }
        check(&addresses, target.reach)
            .map_err(|refused| ConnectError::new(Fault::AddressRefused, format!("{}: {refused}", target.host)))?;
        Ok(addresses)
    }

    async fn tcp(&self, addresses: &[IpAddr], port: u16) -> Result<TcpStream, ConnectError> {
        let mut last = None;
        // Each gets its share, so that one that does not answer leaves time for the next.
        let share = self.timeout / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
        for ip in addresses {
            match timeout(share, TcpStream::connect(SocketAddr::new(*ip, port))).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = Some(ConnectError::new(Fault::Connect, format!("{ip}: {error}"))),
                Err(_) => last = Some(ConnectError::new(Fault::Timeout, format!("{ip} does not answer"))),
            }
        }
        Err(last.unwrap_or_else(|| ConnectError::new(Fault::Resolve, "the host has no address")))
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            match timeout(connector.timeout, connector.connect(&uri)).await {
                Ok(stream) => stream.map(TokioIo::new),
                Err(_) => Err(ConnectError::new(Fault::Timeout, "no connection in time")),
            }
        })
    }
}

/// A connection.
pub enum Stream {
    /// Without TLS: to the loopback interface.
    Plain(TcpStream),
    /// With TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
