//! What the engines say about their numbers and outboxes.

use std::collections::BTreeMap;
use std::time::Duration;

use deltran_api::platform::v1::platform_service_client::PlatformServiceClient;
use deltran_api::platform::v1::{EngineStatus, GetStatusRequest, ReadOutboxRequest, ReadOutboxResponse};
use deltran_runtime::EngineContext;
use deltran_runtime::peers::Peer;

use crate::NAME;

/// How long a place may take to answer.
pub const ANSWER: Duration = Duration::from_secs(10);

/// A producer by its own account.
#[derive(Clone)]
pub struct Said {
    /// The last number that it gave out.
    pub assigned: u64,
    /// The last one that its engine has published.
    pub published: u64,
    /// Where its engine runs.
    pub peer: Peer,
}

/// Every producer that answers, and the places that do not.
pub async fn ask(context: &EngineContext) -> (BTreeMap<String, Said>, Vec<String>) {
    let mut said = BTreeMap::<String, Said>::new();
    let (statuses, silent) = statuses(context, ANSWER).await;
    for (engine, peer) in statuses {
        let last = said.entry(engine.producer).or_insert_with(|| Said { assigned: 0, published: 0, peer });
        last.assigned = engine.assigned.max(last.assigned);
        last.published = engine.published.max(last.published);
    }
    (said, silent)
}

/// What every engine says about itself, all asked at once, and the places that do not answer within `patience`.
pub async fn statuses(context: &EngineContext, patience: Duration) -> (Vec<(EngineStatus, Peer)>, Vec<String>) {
    let places = context.peers.everywhere(NAME).into_iter().map(|(place, peer)| async move {
        let mut client = PlatformServiceClient::new(peer.clone());
        let answer = tokio::time::timeout(patience, client.get_status(GetStatusRequest {})).await;
        (place, peer, answer)
    });
    let (mut told, mut silent) = (Vec::new(), Vec::new());
    for (place, peer, answer) in futures::future::join_all(places).await {
        match answer {
            Ok(Ok(answer)) => {
                told.extend(answer.into_inner().engines.into_iter().map(|engine| (engine, peer.clone())));
            }
            Ok(Err(status)) => silent.push(format!("{place} ({})", status.message())),
            Err(_) => silent.push(format!("{place} (within {} s)", patience.as_secs())),
        }
    }
    (told, silent)
}

/// A page of a producer's outbox, of numbers above `after`.
///
/// # Errors
/// In words, where its engine does not answer.
pub async fn outbox(said: &Said, producer: &str, after: u64) -> Result<ReadOutboxResponse, String> {
    let request = ReadOutboxRequest { producer: producer.to_owned(), after };
    let mut client = PlatformServiceClient::new(said.peer.clone());
    match tokio::time::timeout(ANSWER, client.read_outbox(request)).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(format!("its engine does not show its outbox: {}", status.message())),
        Err(_) => Err(format!("its engine does not show its outbox within {} s", ANSWER.as_secs())),
    }
}
