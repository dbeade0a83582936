//! Feeds over HTTP, for those who speak no gRPC: `/v1/notifications/ws` and `/v1/notifications/sse`.
//!
//! Both take `after`, `kinds` (with commas) and `participant`; whatever is wrong is answered before a stream begins.

mod sse;
mod ws;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::routing::get;
use deltran_runtime::rights::{Access, access};
use deltran_runtime::{Caller, Failure};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::feed::{Asked, Pulse};
use crate::grpc::{kinds, whose};

/// Who may read a feed over gRPC may do so here.
const RPC: &str = "/deltran.notification.v1.NotificationService/StreamNotifications";

/// What the pages need.
#[derive(Clone)]
pub struct Pages {
    /// Wakes readers of feeds.
    pub pulse: Arc<Pulse>,
    /// Cancelled when endless answers must end.
    pub closing: CancellationToken,
    /// The time between signs of life.
    pub keep_alive: Duration,
}

impl Pages {
    /// The pages.
    pub fn router(self) -> Router {
        Router::new()
            .route("/v1/notifications/sse", get(sse::stream))
            .route("/v1/notifications/ws", get(ws::stream))
            .with_state(self)
    }
}

/// What a request asks for, as it stands in its query.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Params {
    participant: String,
    after: String,
    kinds: String,
}

type Asking = Result<Query<Params>, QueryRejection>;

/// What a caller may be given. `resume` is a position that goes before the query's.
fn asked(caller: &Caller, params: Asking, resume: Option<&str>) -> Result<Asked, Failure> {
    match access(RPC) {
        Access::Roles(roles) if roles.contains(&caller.role) => {}
        _ => return Err(Failure::unauthorised(format!("role {} may not read feeds", caller.role.as_str()))),
    }
    let Query(params) = params.map_err(|e| Failure::malformed("query", e.body_text()))?;
    let after = match resume {
        Some(text) => position("Last-Event-ID", text)?,
        None if params.after.is_empty() => 0,
        None => position("after", &params.after)?,
    };
    let words = params.kinds.split(',').filter(|word| !word.is_empty());
    Ok(Asked { participant: whose(caller, &params.participant)?, after, kinds: kinds(words)? })
}

fn position(field: &str, text: &str) -> Result<u64, Failure> {
    let cut: String = text.chars().take(64).collect();
    text.parse().map_err(|_| Failure::malformed(field, format!("{cut:?} is no position: expected a number such as 17")))
}

#[cfg(test)]
mod tests {
    use axum::http::Uri;
    use deltran_runtime::Role;

    use super::*;
    use crate::domain::Kind;

    fn caller(role: Role) -> Caller {
        let participant = (role == Role::Bank).then(|| "ALFAAEXX".parse().unwrap());
        Caller { participant, role, user: "ada".to_owned(), trace: None }
    }

    fn ask(role: Role, query: &str, resume: Option<&str>) -> Result<Asked, String> {
        let uri: Uri = format!("http://localhost/?{query}").parse().unwrap();
        asked(&caller(role), Query::try_from_uri(&uri), resume).map_err(|e| format!("{} {}", e.reason, e.message))
    }

    #[test]
    fn a_query_is_read_or_refused() {
        let read = ask(Role::Bank, "after=7&kinds=payment.sent,payment.received", None).unwrap();
        assert_eq!((read.participant.as_str(), read.after), ("ALFAAEXX", 7));
        assert_eq!(read.kinds.into_iter().collect::<Vec<_>>(), [Kind::PaymentReceived, Kind::PaymentSent]);
        assert_eq!(ask(Role::Bank, "after=7", Some("9")).unwrap().after, 9, "what a client resumes from goes before");
        assert_eq!(ask(Role::Bank, "", None).unwrap().after, 0);
        assert_eq!(ask(Role::Operator, "participant=BRAVINXX", None).unwrap().participant.as_str(), "BRAVINXX");
        for (role, query, resume, said) in [
            (Role::Bank, "after=seven", None, "after: \"seven\""),
            (Role::Bank, "after=-1", None, "after: \"-1\""),
            (Role::Bank, "", Some("x"), "Last-Event-ID: \"x\""),
            (Role::Bank, "kinds=payment.lost", None, "kinds: \"payment.lost\""),
            (Role::Bank, "from=1", None, "query: "),
            (Role::Bank, "participant=BRAVINXX", None, "unauthorised"),
            (Role::Operator, "", None, "participant: is missing"),
            (Role::Compliance, "participant=BRAVINXX", None, "unauthorised"),
        ] {
            let refused = ask(role, query, resume).unwrap_err();
            assert!(refused.contains(said), "{query}: {refused}");
        }
    }
}
