//! Watching: the caller's transactions from the stream, resumable by position.

use deltran_api::token::v1 as pb;
use deltran_events::{Domain, Envelope};
use deltran_messaging::watch::{From, Seen, watch};
use deltran_runtime::{Caller, Failure};
use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::Value;
use tonic::{Request, Response, Status};

use super::Api;

pub(super) type Watched = BoxStream<'static, Result<pb::WatchTransactionsResponse, Status>>;

impl Api {
    pub(super) async fn watch_transactions(
        &self,
        request: Request<pb::WatchTransactionsRequest>,
    ) -> Result<Response<Watched>, Failure> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let from = if request.only_new { From::Now } else { From::After(request.after_position) };
        let stream = Domain::Transactions.stream();
        let seen = watch(&self.broker, stream, "events.transactions.>", from)
            .await
            .map_err(|e| Failure::unavailable(e.to_string()))?;
        let closing = self.context.closing.clone();
        let answers = seen
            .take_until(closing.cancelled_owned())
            .filter_map(move |seen| {
                let answer = match seen {
                    Ok(seen) => shown(&caller, seen).map(Ok),
                    Err(error) => Some(Err(Failure::unavailable(error.to_string()).into())),
                };
                std::future::ready(answer)
            })
            .boxed();
        Ok(Response::new(answers))
    }
}

/// A valid event that the caller may see.
fn shown(caller: &Caller, seen: Seen) -> Option<pb::WatchTransactionsResponse> {
    let (envelope, spec) = Envelope::decode(&seen.subject, &seen.payload).ok()?;
    if let Some(own) = caller.participant {
        let data = envelope.data.to_value().ok()?;
        let concerns = ["payer", "payee", "participant"]
            .iter()
            .any(|field| data.get(field).and_then(Value::as_str) == Some(own.as_str()));
        // Events about a transaction without its parties go to nobody but operators.
        if !concerns && envelope.metadata.participant_id != Some(own) {
            return None;
        }
    }
    Some(pb::WatchTransactionsResponse {
        position: seen.position,
        event_type: spec.event_type().to_owned(),
        envelope: String::from_utf8(seen.payload.to_vec()).ok()?,
    })
}
