//! A feed as server-sent events (WHATWG HTML, section 9.2): `id` is the position, `event` the kind, `data` the body.

use std::convert::Infallible;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use deltran_runtime::{Caller, Failure};
use futures::StreamExt;

use super::{Asking, Pages};
use crate::feed::{self, Item};

const RESUME_HEADER: &str = "last-event-id";

/// Answers with the feed, after the position of `Last-Event-ID` where a client resumes.
pub async fn stream(
    State(pages): State<Pages>,
    caller: Caller,
    headers: HeaderMap,
    params: Asking,
) -> Result<Response, Failure> {
    let resume = headers.get(RESUME_HEADER).map(|value| value.to_str().unwrap_or("?"));
    let asked = super::asked(&caller, params, resume)?;
    let items = feed::open(&pages.pulse, asked).await?;
    let events = items.map(|item| Ok::<_, Infallible>(event(item))).take_until(pages.closing.cancelled_owned());
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(pages.keep_alive)).into_response())
}

fn event(item: Result<Item, Failure>) -> Event {
    match item {
        Ok(Item::Notification(n)) => Event::default().id(n.position.to_string()).event(n.kind.as_str()).data(n.body),
        // Without data nothing is dispatched, and a client that resumes does so from here.
        Ok(Item::CaughtUp(position)) => Event::default().id(position.to_string()).comment("caught up"),
        Err(failure) => {
            let told = serde_json::json!({
                "code": failure.reason, "message": failure.message, "details": failure.details
            });
            Event::default().event("failure").data(told.to_string())
        }
    }
}
