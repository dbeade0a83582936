//! Where a connection goes: addresses are judged when it is made, and certificates are verified.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use deltran_kernel::SystemClock;
use deltran_notification::domain::retry::{Answer, Fault};
use deltran_notification::webhook::client::{Client, Signed};
use deltran_notification::webhook::connector::{Connector, Resolve, SystemResolver, tls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::place::settings;
use crate::sink::{Does, Sink};

/// Answers whatever it is told, another thing at every call.
struct Names {
    answers: Vec<Vec<IpAddr>>,
    asked: AtomicUsize,
}

#[async_trait]
impl Resolve for Names {
    async fn resolve(&self, _: &str, _: u16) -> io::Result<Vec<IpAddr>> {
        let n = self.asked.fetch_add(1, Ordering::SeqCst);
        Ok(self.answers[n.min(self.answers.len() - 1)].clone())
    }
}

fn client(resolver: Arc<dyn Resolve>, allow_loopback: bool, ports: &[u16], ca_file: &str) -> Client {
    let mut own = settings().webhooks;
    own.ports.extend(ports);
    let connector = Connector {
        resolver,
        policy: Arc::new(own.policy(allow_loopback)),
        tls: tls(ca_file).unwrap(),
        timeout: Duration::from_secs(5),
    };
    Client::new(connector, Duration::from_secs(5), 4, Arc::new(SystemClock))
}

fn signed(url: &str) -> Signed {
    Signed {
        uri: url.parse().unwrap(),
        id: "0190c3d5-0000-7000-8000-000000000001".into(),
        timestamp: 1,
        signature: "v1,AA==".into(),
        body: Bytes::from_static(b"{}"),
    }
}

async fn sent(client: &Client, url: &str) -> Answer {
    client.send(signed(url)).await.answer
}

#[tokio::test]
async fn a_name_that_leads_inside_is_refused_when_it_is_connected_to() {
    let sink = Sink::new(Does::Answers(200)).await;
    let port = sink.address.port();
    for inside in [
        "127.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2001::1",
        "fe80::1",
        "fd00:ec2::254",
    ] {
        let inside: IpAddr = inside.parse().unwrap();
        for answer in [vec![inside], vec!["93.184.215.14".parse().unwrap(), inside]] {
            let names = Arc::new(Names { answers: vec![answer], asked: AtomicUsize::new(0) });
            // Allowed for a URL that says so itself, loopback is not what a name may lead to.
            let client = client(names, true, &[port], "");
            let answer = sent(&client, &format!("https://bank.example.com:{port}/")).await;
            assert_eq!(answer, Answer::Fault(Fault::AddressRefused), "{inside}");
        }
    }
    assert!(sink.arrivals().is_empty());
}

#[tokio::test]
async fn a_name_is_looked_up_once_a_connection() {
    let public: IpAddr = "93.184.215.14".parse().unwrap();
    let names = Arc::new(Names { answers: vec![vec!["10.0.0.1".parse().unwrap()], vec![public]], asked: 0.into() });
    let client = client(names.clone(), false, &[], "");
    assert_eq!(sent(&client, "https://bank.example.com/").await, Answer::Fault(Fault::AddressRefused));
    assert_eq!(names.asked.load(Ordering::SeqCst), 1, "what was checked is what would be connected to");
    let nothing = Arc::new(Names { answers: vec![vec![]], asked: 0.into() });
    let client = self::client(nothing, false, &[], "");
    assert_eq!(sent(&client, "https://bank.example.com/").await, Answer::Fault(Fault::Resolve));
}

#[tokio::test]
async fn addresses_in_urls_are_judged_again() {
    let sink = Sink::new(Does::Answers(200)).await;
    let strict = client(Arc::new(SystemResolver), false, &[sink.address.port()], "");
    for url in
        [sink.url("/"), format!("https://{}/", sink.address), "https://[::1]/".into(), "https://10.0.0.1/".into()]
    {
        assert_eq!(sent(&strict, &url).await, Answer::Fault(Fault::AddressRefused), "{url}");
    }
    let open = client(Arc::new(SystemResolver), true, &[], "");
    assert!(sent(&open, &sink.url("/")).await.is_success());
    assert!(sent(&open, &format!("http://localhost:{}/", sink.address.port())).await.is_success());
    sink.disappear().await;
    let fresh = client(Arc::new(SystemResolver), true, &[], "");
    assert_eq!(sent(&fresh, &sink.url("/")).await, Answer::Fault(Fault::Connect));
}

#[tokio::test]
async fn connections_are_used_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let accepted = Arc::new(AtomicUsize::new(0));
    let counted = accepted.clone();
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                }
            });
        }
    });
    let client = client(Arc::new(SystemResolver), true, &[], "");
    for _ in 0..5 {
        assert!(sent(&client, &url).await.is_success());
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
    server.abort();
}

#[tokio::test]
async fn what_is_not_http_is_no_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        for answer in ["SSH-2.0-OpenSSH_9.9\r\n", ""] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let client = client(Arc::new(SystemResolver), true, &[], "");
    assert_eq!(sent(&client, &url).await, Answer::Fault(Fault::Protocol));
    assert_eq!(sent(&client, &url).await, Answer::Fault(Fault::Protocol));
    server.await.unwrap();
}

#[tokio::test]
async fn certificates_are_verified() {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, authority.pem()).unwrap();
    let trusting = client(Arc::new(SystemResolver), true, &[], ca_file.to_str().unwrap());
    let strict = client(Arc::new(SystemResolver), true, &[], "");
    for (name, trusted) in [("localhost", true), ("other.example", false)] {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.into()]).unwrap().signed_by(&key, &authority).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut buffer = [0; 4096];
                let _ = stream.read(&mut buffer).await;
                let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
                let _ = stream.shutdown().await;
            }
        });
        let expected =
            if trusted { Answer::Status { code: 204, retry_after: None } } else { Answer::Fault(Fault::Tls) };
        assert_eq!(sent(&trusting, &url).await, expected, "{name}");
        assert_eq!(sent(&strict, &url).await, Answer::Fault(Fault::Tls), "an authority that nobody named");
        server.abort();
    }
    assert!(tls("/nowhere/ca.pem").err().unwrap().contains("/nowhere/ca.pem"));
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    assert!(tls(empty.to_str().unwrap()).err().unwrap().contains("holds no certificate"));
}
