//! The ledger's commands about windows: asked under the window's own id until the answer is definite.

use std::collections::BTreeMap;
use std::time::Duration;

use deltran_api::token::v1::token_service_client::TokenServiceClient;
use deltran_api::token::v1::{OpenWindowRequest, SealWindowRequest, WindowTotals};
use deltran_kernel::{Currency, Minor, ParticipantId, Timestamp, WindowId};
use deltran_runtime::peers::Peer;
use deltran_runtime::{EngineContext, Failure, FailureKind, wire};

use crate::NAME;
use crate::domain::window::{Seal, Window};

const TIMEOUT: Duration = Duration::from_secs(5);

/// What the ledger said.
#[derive(Debug)]
pub enum Answer<T> {
    /// It is done, now or before.
    Done(T),
    /// It will not be done.
    Refused(String),
    /// It may or may not be done: ask again under the same id.
    Unknown(String),
}

/// A sealed window.
#[derive(Debug)]
pub struct Sealed {
    /// The control totals.
    pub seal: Seal,
    /// Net per participant.
    pub net: BTreeMap<ParticipantId, Minor>,
    /// When it was sealed, and the next one opened.
    pub at: Timestamp,
}

/// The way to the ledger.
#[derive(Clone)]
pub struct Ledger {
    context: EngineContext,
}

impl Ledger {
    /// The ledger that the engine's peers name.
    pub fn new(context: &EngineContext) -> Self {
        Self { context: context.clone() }
    }

    fn client(&self) -> Result<TokenServiceClient<Peer>, Failure> {
        Ok(TokenServiceClient::new(self.context.peers.to(NAME, "token")?))
    }

    /// Opens a window.
    pub async fn open(&self, window: &Window) -> Answer<Timestamp> {
        let mut client = match self.client() {
            Ok(client) => client,
            Err(failure) => return Answer::Unknown(failure.message),
        };
        let request =
            OpenWindowRequest { window_id: window.id.to_string(), currency: window.currency.code().to_owned() };
        let response = match tokio::time::timeout(TIMEOUT, client.open_window(request)).await {
            Ok(response) => response,
            Err(_) => return Answer::Unknown("the ledger did not answer in time".to_owned()),
        };
        match response.map_err(Failure::from) {
            Err(failure) => judged(failure),
            Ok(response) => match wire::timestamp("opened_at", response.get_ref().opened_at.as_ref()) {
                Ok(Some(at)) => Answer::Done(at),
                _ => Answer::Unknown("the ledger's answer has no opened_at".to_owned()),
            },
        }
    }

    /// Seals a window and opens the next one, if there is one, in the same step.
    pub async fn seal(&self, window: &Window) -> Answer<Sealed> {
        let mut client = match self.client() {
            Ok(client) => client,
            Err(failure) => return Answer::Unknown(failure.message),
        };
        let next_window_id = window.next.map(|id| id.to_string()).unwrap_or_default();
        let request = SealWindowRequest { window_id: window.id.to_string(), next_window_id };
        let response = match tokio::time::timeout(TIMEOUT, client.seal_window(request)).await {
            Ok(response) => response,
            Err(_) => return Answer::Unknown("the ledger did not answer in time".to_owned()),
        };
        match response.map_err(Failure::from) {
            Err(failure) => judged(failure),
            Ok(response) => {
                match response.into_inner().totals.ok_or("they are missing".to_owned()).and_then(|t| sealed(window, &t))
                {
                    Ok(sealed) => Answer::Done(sealed),
                    Err(what) => Answer::Unknown(format!("the ledger's control totals cannot be read: {what}")),
                }
            }
        }
    }
}

/// Only what says that it will never be done is a refusal.
fn judged<T>(failure: Failure) -> Answer<T> {
    match failure.kind {
        FailureKind::WrongState | FailureKind::Conflict | FailureKind::Malformed | FailureKind::NotFound => {
            Answer::Refused(failure.message)
        }
        _ => Answer::Unknown(failure.message),
    }
}

fn sealed(window: &Window, totals: &WindowTotals) -> Result<Sealed, String> {
    if totals.window_id.parse::<WindowId>().ok() != Some(window.id) {
        return Err(format!("they are of window {:?}", totals.window_id));
    }
    let amount = |field: &str, value| minor(field, value, window.currency);
    let mut net = BTreeMap::new();
    for position in &totals.net {
        let participant: ParticipantId = position.participant.parse().map_err(|e| format!("net: {e}"))?;
        if net.insert(participant, amount("net", position.net.as_ref())?).is_some() {
            return Err(format!("net: {participant} stands twice"));
        }
    }
    let digest = <[u8; 32]>::try_from(totals.digest.as_ref()).map_err(|_| "digest: has not 32 bytes".to_owned())?;
    let at = wire::timestamp("sealed_at", totals.sealed_at.as_ref()).map_err(|e| e.message)?;
    Ok(Sealed {
        seal: Seal { count: totals.count, gross: amount("gross", totals.gross.as_ref())?, digest },
        net,
        at: at.ok_or("sealed_at: is missing")?,
    })
}

fn minor(field: &str, value: Option<&deltran_api::common::v1::Money>, currency: Currency) -> Result<Minor, String> {
    let money = wire::money(field, value).map_err(|e| e.message)?;
    if money.currency() != currency {
        return Err(format!("{field}: is of {}, the window of {currency}", money.currency()));
    }
    Ok(money.minor())
}
