//! A server that speaks as S3 does, in memory: as much of it as an archive needs, and as strict as S3 where it matters.
//! It recomputes the signature of every request.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use deltran_audit::config::Settings;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HOST, LAST_MODIFIED, RANGE};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use ring::hmac;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

const NAME: &str = "deltran-archive";
const PREFIX: &str = "frankfurt-1/ledger";
const REGION: &str = "eu-test-1";
/// Whose requests are taken: the key, its secret, and the token that comes with it, which is empty where there is none.
const OPERATOR: (&str, &str, &str) = ("AKIDOPERATOR", "the secret of the operator", "");
const CONTAINER: (&str, &str, &str) = ("AKIDCONTAINER", "the secret of the container", "the token of the session");
/// With what a container asks for its credentials, under [`CREDENTIALS`].
pub const CONTAINER_TOKEN: &str = "who the container is";
const CREDENTIALS: &str = "/credentials";
/// Parts but the last are not smaller.
const LEAST_PART: usize = 5 << 20;
/// Entries of a page of a list.
const PAGE: usize = 3;

type Content = UnsyncBoxBody<Bytes, io::Error>;

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy)]
pub enum Does {
    /// It is answered with this status, and nothing is done.
    Answers(u16),
    /// It is answered with 200 and this, and nothing is done.
    Says(&'static str),
    /// It is done, and the connection closes before the answer.
    Loses,
    /// It is done, and the connection closes within the answer.
    Breaks,
    /// Nothing is done, and there is no answer.
    Hangs,
}

/// A request that goes wrong, so many times.
#[derive(Debug)]
struct Fault {
    method: Method,
    target: String,
    times: u32,
    does: Does,
}

#[derive(Debug, Default)]
struct Upload {
    key: String,
    parts: BTreeMap<u32, Bytes>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Bytes>,
    uploads: BTreeMap<String, Upload>,
    begun: u32,
    faults: Vec<Fault>,
    requests: Vec<String>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    hangs: Notify,
}

/// The server, with one bucket.
pub struct Bucket {
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
    /// What the platform finds in its environment.
    pub environment: BTreeMap<String, String>,
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Bucket {
    pub async fn new() -> Self {
        Self::listening(None).await
    }

    /// With TLS, by an authority that is written to a file.
    pub async fn with_tls(ca_file: &Path) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(ca_file, authority.pem()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".into()];
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        Self::listening(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn listening(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let server = tokio::spawn(serve(listener, tls.clone(), shared.clone()));
        let environment = [("AWS_ACCESS_KEY_ID", OPERATOR.0), ("AWS_SECRET_ACCESS_KEY", OPERATOR.1)];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Self { address, tls, shared, server, environment }
    }

    /// Nobody listens any more, and connections are gone.
    pub async fn go(&mut self) {
        self.server.abort();
        let _ = (&mut self.server).await;
    }

    /// It is there again, with what it had.
    pub async fn come_back(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.server = tokio::spawn(serve(listener, self.tls.clone(), self.shared.clone()));
    }

    fn url(&self) -> String {
        format!("{}://{}", if self.tls.is_some() { "https" } else { "http" }, self.address)
    }

    /// Settings whose archive is here.
    pub fn settings(&self, settings: Settings) -> Settings {
        Settings {
            archive_url: format!("s3://{NAME}/{PREFIX}"),
            archive_endpoint: self.url(),
            archive_region: REGION.to_owned(),
            archive_part_mib: 5,
            ..settings
        }
    }

    /// What a container finds in its environment, whose token stands in a file.
    pub fn of_a_container(&mut self, token_file: &Path) {
        std::fs::write(token_file, CONTAINER_TOKEN).unwrap();
        self.environment = [
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}{CREDENTIALS}", self.url())),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token_file.display().to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
    }

    /// Requests of a method whose target contains a text go wrong so many times.
    pub fn fails(&self, method: Method, target: &str, times: u32, does: Does) {
        self.state().faults.push(Fault { method, target: target.to_owned(), times, does });
    }

    /// Nothing goes wrong any more; how many times something should still have.
    pub fn recovers(&self) -> u32 {
        self.state().faults.drain(..).map(|fault| fault.times).sum()
    }

    /// Waits until a request hangs.
    pub async fn hangs(&self) {
        self.shared.hangs.notified().await;
    }

    /// The objects of the archive, by their names.
    pub fn objects(&self) -> BTreeMap<String, Bytes> {
        let below = format!("{PREFIX}/");
        let name = |key: &String| key.strip_prefix(&below).unwrap().to_owned();
        self.state().objects.iter().map(|(key, bytes)| (name(key), bytes.clone())).collect()
    }

    /// What is done to the objects behind everybody's back.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        self.state().objects.insert(format!("{PREFIX}/{name}"), bytes.into());
    }

    pub fn remove(&self, name: &str) {
        self.state().objects.remove(&format!("{PREFIX}/{name}")).unwrap();
    }

    pub fn clear(&self) {
        self.state().objects.clear();
    }

    /// Files whose upload was begun and neither completed nor aborted.
    pub fn uploads(&self) -> Vec<String> {
        self.state().uploads.values().map(|upload| upload.key.clone()).collect()
    }

    /// Requests that came, `METHOD target` with the range where there is one, and were signed as they should be.
    pub fn requests(&self) -> Vec<String> {
        self.state().requests.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }
}

async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (tls, shared) = (tls.clone(), shared.clone());
        connections.spawn(async move {
            let service = hyper::service::service_fn(move |request| {
                let shared = shared.clone();
                async move { answer(&shared, request).await }
            });
            let http = hyper::server::conn::http1::Builder::new();
            // Connections are broken on purpose.
            match tls {
                None => {
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                }
                Some(tls) => {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                }
            }
        });
    }
}

async fn answer(shared: &Shared, request: Request<Incoming>) -> io::Result<Response<Content>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let does = {
        let mut state = shared.state.lock().unwrap();
        if head.uri.path() == CREDENTIALS {
            return Ok(credentials(&head));
        }
        if let Err((status, code)) = signed(&head, &body) {
            return Ok(refused(status, code));
        }
        let target = head.uri.path_and_query().unwrap().to_string();
        let range = head.headers.get(RANGE).map_or(String::new(), |range| format!(" {}", range.to_str().unwrap()));
        state.requests.push(format!("{} {target}{range}", head.method));
        let fault = state
            .faults
            .iter_mut()
            .find(|fault| fault.times > 0 && fault.method == head.method && target.contains(&fault.target));
        fault.map(|fault| {
            fault.times -= 1;
            fault.does
        })
    };
    match does {
        Some(Does::Answers(status)) => return Ok(refused(status, "AsTold")),
        Some(Does::Says(text)) => return Ok(said(StatusCode::OK, text.to_owned())),
        Some(Does::Hangs) => {
            shared.hangs.notify_one();
            std::future::pending::<()>().await;
        }
        _ => {}
    }
    let response = shared.state.lock().unwrap().done(&head, body);
    match does {
        Some(Does::Loses) => Err(io::Error::other("as told")),
        Some(Does::Breaks) => Ok(broken(response).await),
        _ => Ok(response),
    }
}

/// Half of an answer.
async fn broken(response: Response<Content>) -> Response<Content> {
    let (head, body) = response.into_parts();
    let whole = body.collect().await.unwrap().to_bytes();
    let half = Ok(Frame::data(whole.slice(..whole.len() / 2)));
    let frames = futures::stream::iter([half, Err(io::Error::other("as told"))]);
    Response::from_parts(head, StreamBody::new(frames).boxed_unsync())
}

fn said(status: StatusCode, text: String) -> Response<Content> {
    let whole = Full::new(Bytes::from(text)).map_err(|e| match e {}).boxed_unsync();
    Response::builder().status(status).body(whole).unwrap()
}

fn refused(status: u16, code: &str) -> Response<Content> {
    let document = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error>\n  <Code>{code}</Code>\n  <Message>no</Message>\n</Error>\n"
    );
    said(StatusCode::from_u16(status).unwrap(), document)
}

/// Credentials of a container.
fn credentials(head: &Parts) -> Response<Content> {
    if head.headers.get(AUTHORIZATION).is_none_or(|token| token != CONTAINER_TOKEN) {
        return refused(403, "AccessDenied");
    }
    let (key, secret, token) = CONTAINER;
    let answer = serde_json::json!({
        "AccessKeyId": key, "SecretAccessKey": secret, "Token": token, "Expiration": "2999-01-01T00:00:00Z",
    });
    said(StatusCode::OK, answer.to_string())
}

fn pairs(head: &Parts) -> BTreeMap<String, String> {
    url::form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes()).into_owned().collect()
}

fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            true => out.push(byte.into()),
            false => write!(out, "%{byte:02X}").unwrap(),
        }
        out
    })
}

/// Whether a request is signed (AWS Signature Version 4) by a key that is known, its body with it.
fn signed(head: &Parts, body: &[u8]) -> Result<(), (u16, &'static str)> {
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let authorization = header("authorization").strip_prefix("AWS4-HMAC-SHA256 ").ok_or((403, "AccessDenied"))?;
    let part = |name: &str| {
        let found = authorization.split(", ").find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        found.ok_or((400, "AuthorizationHeaderMalformed"))
    };
    let (key, scope) = part("Credential")?.split_once('/').ok_or((400, "AuthorizationHeaderMalformed"))?;
    let known = [OPERATOR, CONTAINER].into_iter().find(|(known, ..)| *known == key);
    let (_, secret, token) = known.ok_or((403, "InvalidAccessKeyId"))?;
    let date = header("x-amz-date");
    let day = date.get(..8).ok_or((403, "AccessDenied"))?;
    if scope != format!("{day}/{REGION}/s3/aws4_request") {
        return Err((400, "AuthorizationHeaderMalformed"));
    }
    if header("x-amz-security-token") != token {
        return Err((400, "InvalidToken"));
    }
    let digest = hex::encode(Sha256::digest(body));
    if header("x-amz-content-sha256") != digest {
        return Err((400, "XAmzContentSHA256Mismatch"));
    }
    let names = part("SignedHeaders")?;
    let mut must = vec![HOST.as_str(), "x-amz-content-sha256", "x-amz-date"];
    must.extend((!token.is_empty()).then_some("x-amz-security-token"));
    if must.iter().any(|name| !names.split(';').any(|signed| signed == *name)) {
        return Err((403, "AccessDenied"));
    }
    let headers: String = names.split(';').map(|name| format!("{name}:{}\n", header(name).trim())).collect();
    let query: Vec<String> = pairs(head).iter().map(|(k, v)| format!("{}={}", encoded(k), encoded(v))).collect();
    let (method, path, query) = (&head.method, head.uri.path(), query.join("&"));
    let canonical = format!("{method}\n{path}\n{query}\n{headers}\n{names}\n{digest}");
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex::encode(Sha256::digest(canonical)));
    let mac =
        |key: &[u8], text: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec();
    let signing = scope.split('/').fold(format!("AWS4{secret}").into_bytes(), |key, part| mac(key.as_slice(), part));
    match part("Signature")? == hex::encode(mac(&signing, &text)) {
        true => Ok(()),
        false => Err((403, "SignatureDoesNotMatch")),
    }
}

fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", hex::encode(&Sha256::digest(bytes)[..16]))
}

/// The texts between a tag and its end.
fn between<'a>(document: &'a str, tag: &str) -> Vec<&'a str> {
    let (begin, end) = (format!("<{tag}>"), format!("</{tag}>"));
    document.split(begin.as_str()).skip(1).filter_map(|rest| rest.split(end.as_str()).next()).collect()
}

impl State {
    fn done(&mut self, head: &Parts, body: Bytes) -> Response<Content> {
        let query = pairs(head);
        let asked = |name: &str| query.get(name).map(String::as_str);
        let of_bucket = head.uri.path().strip_prefix('/').and_then(|path| path.strip_prefix(NAME));
        let Some(key) = of_bucket.map(|path| path.trim_start_matches('/')) else {
            return refused(404, "NoSuchBucket");
        };
        match (&head.method, asked("uploadId")) {
            (&Method::GET, None) if asked("list-type") == Some("2") => self.list(&query),
            (&Method::GET | &Method::HEAD, None) => self.read(key, head),
            (&Method::PUT, None) => {
                let response = Response::builder().header(ETAG, etag(&body));
                self.objects.insert(key.to_owned(), body);
                response.body(Content::default()).unwrap()
            }
            (&Method::DELETE, None) => {
                self.objects.remove(key);
                said(StatusCode::NO_CONTENT, String::new())
            }
            (&Method::POST, None) if asked("uploads").is_some() => {
                self.begun += 1;
                let id = format!("upload/{}", self.begun);
                self.uploads.insert(id.clone(), Upload { key: key.to_owned(), ..Upload::default() });
                let document =
                    format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>");
                said(StatusCode::OK, document)
            }
            (method, Some(id)) => match self.uploads.get_mut(id).filter(|upload| upload.key == key) {
                None => refused(404, "NoSuchUpload"),
                Some(_) if *method == Method::DELETE => {
                    self.uploads.remove(id);
                    said(StatusCode::NO_CONTENT, String::new())
                }
                Some(upload) if *method == Method::PUT => match asked("partNumber").and_then(|n| n.parse().ok()) {
                    Some(number @ 1..=10_000) => {
                        let response = Response::builder().header(ETAG, etag(&body));
                        upload.parts.insert(number, body);
                        response.body(Content::default()).unwrap()
                    }
                    _ => refused(400, "InvalidArgument"),
                },
                Some(_) if *method == Method::POST => self.complete(id, &body),
                Some(_) => refused(405, "MethodNotAllowed"),
            },
            _ => refused(405, "MethodNotAllowed"),
        }
    }

    fn list(&self, query: &BTreeMap<String, String>) -> Response<Content> {
        let asked = |name: &str| query.get(name).cloned().unwrap_or_default();
        let (prefix, after) = (asked("prefix"), asked("continuation-token"));
        let mut found = self.objects.iter().filter(|(key, _)| key.starts_with(&prefix) && **key > after);
        let page: Vec<_> = found.by_ref().take(PAGE).collect();
        let mut document = String::from("<ListBucketResult>");
        if let (Some((last, _)), Some(_)) = (page.last(), found.next()) {
            write!(document, "<IsTruncated>true</IsTruncated><NextContinuationToken>{last}</NextContinuationToken>")
                .unwrap();
        }
        for (key, bytes) in page {
            write!(
                document,
                "<Contents><Key>{key}</Key><LastModified>2020-01-01T00:00:00.000Z</LastModified><Size>{}</Size></Contents>",
                bytes.len()
            )
            .unwrap();
        }
        said(StatusCode::OK, document + "</ListBucketResult>")
    }

    fn read(&self, key: &str, head: &Parts) -> Response<Content> {
        let Some(bytes) = self.objects.get(key) else { return refused(404, "NoSuchKey") };
        let response =
            Response::builder().header(ETAG, etag(bytes)).header(LAST_MODIFIED, "Wed, 01 Jan 2020 00:00:00 GMT");
        if head.method == Method::HEAD {
            return response.header(CONTENT_LENGTH, bytes.len()).body(Content::default()).unwrap();
        }
        let whole = |bytes: Bytes| Full::new(bytes).map_err(|e| match e {}).boxed_unsync();
        let Some(range) = head.headers.get(RANGE) else {
            return response.header(CONTENT_LENGTH, bytes.len()).body(whole(bytes.clone())).unwrap();
        };
        let range = range.to_str().unwrap().strip_prefix("bytes=").unwrap();
        let (first, last) = range.split_once('-').unwrap();
        let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap_or(bytes.len() - 1));
        if first >= bytes.len() {
            return refused(416, "InvalidRange");
        }
        let some = bytes.slice(first..bytes.len().min(last + 1));
        response
            .status(StatusCode::PARTIAL_CONTENT)
            .header(CONTENT_LENGTH, some.len())
            .header(CONTENT_RANGE, format!("bytes {first}-{}/{}", first + some.len() - 1, bytes.len()))
            .body(whole(some))
            .unwrap()
    }

    fn complete(&mut self, id: &str, body: &[u8]) -> Response<Content> {
        let document = String::from_utf8(body.to_vec()).unwrap().replace("&quot;", "\"");
        let numbers: Vec<u32> = between(&document, "PartNumber").iter().map(|n| n.parse().unwrap()).collect();
        let tags = between(&document, "ETag");
        let parts = &self.uploads[id].parts;
        let there = |(number, tag): (&u32, &&str)| parts.get(number).is_some_and(|part| etag(part) == **tag);
        if numbers.is_empty() || numbers.len() != tags.len() || !numbers.iter().zip(&tags).all(there) {
            return refused(400, "InvalidPart");
        }
        if !numbers.is_sorted_by(|a, b| a < b) {
            return refused(400, "InvalidPartOrder");
        }
        if numbers[..numbers.len() - 1].iter().any(|number| parts[number].len() < LEAST_PART) {
            return refused(400, "EntityTooSmall");
        }
        let whole: Vec<u8> = numbers.iter().flat_map(|number| parts[number].to_vec()).collect();
        let tag = etag(&whole).replace('"', "&quot;");
        let upload = self.uploads.remove(id).unwrap();
        self.objects.insert(upload.key, whole.into());
        let document = format!("<CompleteMultipartUploadResult><ETag>{tag}</ETag></CompleteMultipartUploadResult>");
        said(StatusCode::OK, document)
    }
}
