//! A feed over a WebSocket (RFC 6455): each text message is the body of one notification.

use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use deltran_runtime::{Caller, Failure, FailureKind};
use futures::{Stream, StreamExt};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{Asking, Pages};
use crate::feed::{self, Item};

/// Signs of life in a row that a client may leave unanswered; it is given up at the one after them. A client that
/// takes nothing of what it is sent has as long.
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
    let upgrade = upgrade.map_err(no_upgrade)?;
    let items = feed::open(&pages.pulse, asked).await?;
    let upgrade = upgrade.max_message_size(MOST_HEARD).max_frame_size(MOST_HEARD);
    Ok(upgrade.on_upgrade(move |socket| run(socket, items, pages.closing, pages.keep_alive)))
}

fn no_upgrade(rejection: WebSocketUpgradeRejection) -> Failure {
    Failure::malformed("upgrade", format!("{}: ask with a WebSocket client", rejection.body_text()))
}

async fn run(
    mut socket: WebSocket,
    items: impl Stream<Item = Result<Item, Failure>> + Send,
    closing: CancellationToken,
    keep_alive: Duration,
) {
    let mut items = std::pin::pin!(items);
    let patience = keep_alive * (UNANSWERED + 1);
    let mut life = tokio::time::interval(keep_alive);
    life.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut unanswered = 0;
    let end = loop {
        let message = tokio::select! {
            () = closing.cancelled() => break close(close_code::AWAY, "the platform stops: resume elsewhere"),
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
            () = closing.cancelled() => return,
            sent = tokio::time::timeout(patience, socket.send(message)) => sent,
        };
        if !matches!(sent, Ok(Ok(()))) {
            return;
        }
    };
    // Whether the client still hears it is its own affair.
    let _told = tokio::time::timeout(keep_alive, socket.send(end)).await;
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::Router;
    use axum::extract::FromRequestParts;
    use axum::http::Request;
    use axum::routing::get;
    use futures::stream;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::mpsc;

    use super::*;
    use crate::domain::{Kind, Notification};

    /// How long a test waits for what must come.
    const DEADLINE: Duration = Duration::from_secs(30);

    fn notification(body: String) -> Item {
        Item::Notification(Notification {
            id: "0190c3d5-0000-7000-8000-000000000001".parse().unwrap(),
            participant: "ALFAAEXX".parse().unwrap(),
            kind: Kind::PaymentReceived,
            position: 1,
            at: deltran_kernel::Timestamp::from_micros(0),
            body,
        })
    }

    /// Serves a feed of notifications with these bodies, of which nothing follows where they end. Says when a reader
    /// was let go.
    async fn serve(bodies: Vec<String>, endless: bool, keep_alive: Duration) -> (SocketAddr, mpsc::Receiver<()>) {
        let (ended, told) = mpsc::channel(1);
        let page = move |upgrade: WebSocketUpgrade| async move {
            upgrade.on_upgrade(move |socket| async move {
                let all = bodies.into_iter().map(|body| Ok(notification(body)));
                let items = match endless {
                    true => stream::iter(all.collect::<Vec<_>>().into_iter().cycle()).left_stream(),
                    false => stream::iter(all).chain(stream::pending()).right_stream(),
                };
                run(socket, items, CancellationToken::new(), keep_alive).await;
                ended.send(()).await.unwrap();
            })
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().route("/", get(page));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        (address, told)
    }

    async fn connect(address: SocketAddr) -> TcpStream {
        let mut client = TcpStream::connect(address).await.unwrap();
        let request = format!(
            "GET / HTTP/1.1\r\nhost: {address}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        client.write_all(request.as_bytes()).await.unwrap();
        client
    }

    async fn is_let_go(mut told: mpsc::Receiver<()>) {
        tokio::time::timeout(DEADLINE, told.recv()).await.expect("the reader is let go").unwrap();
    }

    #[tokio::test]
    async fn what_asks_for_no_socket_is_told_so_as_everything_is() {
        let (mut parts, ()) = Request::get("/").body(()).unwrap().into_parts();
        let failure = no_upgrade(WebSocketUpgrade::from_request_parts(&mut parts, &()).await.unwrap_err());
        assert_eq!((failure.kind, failure.reason), (FailureKind::Malformed, "malformed"));
        assert!(failure.message.starts_with("upgrade: ") && failure.message.contains("WebSocket client"));
    }

    #[tokio::test]
    async fn a_reader_that_takes_nothing_is_let_go() {
        let (address, told) = serve(vec!["x".repeat(64 * 1024)], true, Duration::from_millis(50)).await;
        let client = connect(address).await;
        is_let_go(told).await;
        drop(client);
    }

    #[tokio::test]
    async fn a_reader_that_answers_no_sign_of_life_is_let_go() {
        let (address, told) = serve(vec!["x".to_owned()], false, Duration::from_millis(50)).await;
        let mut client = connect(address).await;
        // It reads everything, to the end that the platform makes, and answers nothing.
        let mut read = Vec::new();
        tokio::time::timeout(DEADLINE, client.read_to_end(&mut read)).await.expect("an end").unwrap();
        let head = read.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        let mut frames = read[head..].to_vec();
        // FIN and text, one byte; FIN and ping, none.
        let text = frames.windows(3).position(|w| w == [0x81, 1, b'x']).expect("the notification");
        frames.drain(text..text + 3);
        assert_eq!(frames, [0x89, 0].repeat(UNANSWERED as usize), "pings, and nothing else");
        is_let_go(told).await;
    }
}
