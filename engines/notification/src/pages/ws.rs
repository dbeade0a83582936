//! A feed over a WebSocket (RFC 6455): each text message is the body of one notification.

use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::{IntoResponse, Response};
use deltran_runtime::{Caller, Failure, FailureKind};
use futures::{Stream, StreamExt};
use tokio::time::MissedTickBehavior;

use super::{Asking, Pages};
use crate::feed::{self, Item};

/// Time in which a client takes something of what it is sent.
const TAKE: Duration = Duration::from_secs(60);
/// Signs of life in a row that a client may leave unanswered.
const UNANSWERED: u32 = 3;
/// Nothing that a client says has a meaning; it may say so much at once.
const MOST_HEARD: usize = 4096;
/// The reason of a close frame takes at most this many bytes.
const MOST_REASON: usize = 123;

/// Answers with the feed.
pub async fn stream(
    State(pages): State<Pages>,
    caller: Caller,
    params: Asking,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Failure> {
    let asked = super::asked(&caller, params, None)?;
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return Ok(rejection.into_response()),
    };
    let items = feed::open(&pages.pulse, asked).await?;
    let upgrade = upgrade.max_message_size(MOST_HEARD).max_frame_size(MOST_HEARD);
    Ok(upgrade.on_upgrade(move |socket| run(socket, items, pages)))
}

async fn run(mut socket: WebSocket, items: impl Stream<Item = Result<Item, Failure>> + Send, pages: Pages) {
    let mut items = std::pin::pin!(items);
    let mut life = tokio::time::interval(pages.keep_alive);
    life.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut unanswered = 0;
    let end = loop {
        let message = tokio::select! {
            () = pages.closing.cancelled() => break close(close_code::AWAY, "the platform stops: resume elsewhere"),
            heard = socket.recv() => match heard {
                None | Some(Err(_) | Ok(Message::Close(_))) => return,
                Some(Ok(_)) => {
                    unanswered = 0;
                    continue;
                }
            },
            _ = life.tick() => {
                if unanswered == UNANSWERED {
                    return;
                }
                unanswered += 1;
                Message::Ping(Default::default())
            }
            item = items.next() => match item {
                Some(Ok(Item::Notification(n))) => Message::Text(n.body.into()),
                Some(Ok(Item::CaughtUp(_))) => continue,
                Some(Err(failure)) => break close(code(&failure), &failure.message),
                None => break close(close_code::AWAY, "the platform stops: resume elsewhere"),
            },
        };
        let sent = tokio::select! {
            () = pages.closing.cancelled() => return,
            sent = tokio::time::timeout(TAKE, socket.send(message)) => sent,
        };
        if !matches!(sent, Ok(Ok(()))) {
            return;
        }
    };
    // Whether the client still hears it is its own affair.
    let _told = tokio::time::timeout(pages.keep_alive, socket.send(end)).await;
}

fn code(failure: &Failure) -> u16 {
    match failure.kind {
        FailureKind::Unavailable | FailureKind::Overloaded => close_code::AGAIN,
        FailureKind::Internal => close_code::ERROR,
        _ => close_code::POLICY,
    }
}

fn close(code: u16, reason: &str) -> Message {
    let mut end = reason.len().min(MOST_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    Message::Close(Some(CloseFrame { code, reason: reason[..end].into() }))
}
