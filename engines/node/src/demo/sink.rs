//! A bank's end of a webhook: takes deliveries and checks their signatures as a receiver would, by the rules of
//! Standard Webhooks (`standard-webhooks/spec`, "Webhook signatures").

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::{hmac, signature};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::problem::Problem;

/// What came under one id.
#[derive(Debug, Default, Clone)]
pub struct Received {
    /// How often it came.
    pub times: u32,
    /// Whether every time `v1` was right.
    pub v1: bool,
    /// Whether every time `v1a` was right.
    pub v1a: bool,
    /// The kind that the body names.
    pub kind: String,
}

/// The keys that the platform gave out when the endpoint was created.
#[derive(Debug, Clone)]
struct Keys {
    secret: Vec<u8>,
    public: Vec<u8>,
}

#[derive(Debug, Default)]
struct Shared {
    keys: Option<Keys>,
    received: BTreeMap<String, Received>,
}

/// A receiver on a free port of this machine. Dropped, it is gone.
#[derive(Debug)]
pub struct Sink {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    served: JoinHandle<()>,
}

impl Sink {
    /// Begins to listen. What comes before [`Sink::expect`] is answered 503, so that it comes again.
    ///
    /// # Errors
    /// Where no port is free.
    pub async fn start() -> Result<Self, Problem> {
        let failed = |e: std::io::Error| Problem::refused(format!("a webhook receiver on this machine: {e}"));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let shared = Arc::<Mutex<Shared>>::default();
        let app = Router::new().route("/", post(take)).with_state(shared.clone());
        let served = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, app).await {
                tracing::warn!(%error, "the webhook receiver ended");
            }
        });
        Ok(Self { address, shared, served })
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Sets the keys to check with: `whsec_…` and `whpk_…`.
    ///
    /// # Errors
    /// Where they are none.
    pub fn expect(&self, secret: &str, public: &str) -> Result<(), Problem> {
        let key = |text: &str, prefix: &str| {
            let bare = text.strip_prefix(prefix);
            bare.and_then(|b| STANDARD.decode(b).ok()).ok_or_else(|| {
                Problem::refused(format!("the platform gave out a key that does not begin with {prefix}"))
            })
        };
        let keys = Keys { secret: key(secret, "whsec_")?, public: key(public, "whpk_")? };
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).keys = Some(keys);
        Ok(())
    }

    /// What came so far, by id.
    pub fn received(&self) -> BTreeMap<String, Received> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).received.clone()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.served.abort();
    }
}

async fn take(State(shared): State<Arc<Mutex<Shared>>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(keys) = shared.keys.clone() else { return StatusCode::SERVICE_UNAVAILABLE };
    let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let id = header("webhook-id").to_owned();
    let signed = [id.as_bytes(), b".", header("webhook-timestamp").as_bytes(), b".", body.as_ref()].concat();
    let (v1, v1a) = verify(&keys, &signed, header("webhook-signature"));
    let value: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let known = shared.received.entry(id).or_insert_with(|| Received { v1: true, v1a: true, ..Received::default() });
    known.times += 1;
    known.v1 &= v1;
    known.v1a &= v1a;
    known.kind = value["type"].as_str().unwrap_or_default().to_owned();
    if v1 && v1a { StatusCode::NO_CONTENT } else { StatusCode::UNAUTHORIZED }
}

/// Whether one of the signatures of each scheme is right.
fn verify(keys: &Keys, signed: &[u8], signatures: &str) -> (bool, bool) {
    let of = |scheme: &str| -> Vec<Vec<u8>> {
        let parts = signatures.split(' ').filter_map(|part| part.split_once(','));
        parts.filter(|(name, _)| *name == scheme).filter_map(|(_, text)| STANDARD.decode(text).ok()).collect()
    };
    let secret = hmac::Key::new(hmac::HMAC_SHA256, &keys.secret);
    let public = signature::UnparsedPublicKey::new(&signature::ED25519, &keys.public);
    let v1 = of("v1").iter().any(|tag| hmac::verify(&secret, signed, tag).is_ok());
    let v1a = of("v1a").iter().any(|given| public.verify(signed, given).is_ok());
    (v1, v1a)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::KeyPair as _;

    #[test]
    fn only_the_right_signatures_count() {
        let pair = signature::Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let keys = Keys { secret: vec![1; 32], public: pair.public_key().as_ref().to_vec() };
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &keys.secret), b"id.1.{}");
        let (v1, v1a) = (STANDARD.encode(tag), STANDARD.encode(pair.sign(b"id.1.{}")));
        let both = format!("v1,AAAA v1,{v1} v1a,{v1a}");
        assert_eq!(verify(&keys, b"id.1.{}", &both), (true, true));
        assert_eq!(verify(&keys, b"id.2.{}", &both), (false, false));
        assert_eq!(verify(&keys, b"id.1.{}", &format!("v1a,{v1a}")), (false, true));
        assert_eq!(verify(&keys, b"id.1.{}", ""), (false, false));
    }
}
