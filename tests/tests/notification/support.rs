//! What these tests share: events as other engines publish them, and readers of feeds over three ways.

use std::collections::BTreeMap;

use bytes::Bytes;
use deltran_api::notification::v1::notification_service_client::NotificationServiceClient;
use deltran_api::notification::v1::{
    ListNotificationsRequest, StreamNotificationsRequest, StreamNotificationsResponse, SubscribeRequest, Subscription,
};
use deltran_events::data::transactions::{Evidence, SettlementModel, TransactionCreated, TransactionState};
use deltran_events::{Context, Event, Stamp, encode};
use deltran_kernel::{Clock, Currency, EventId, IdSource, Money, SystemClock, SystemIds, TransactionId};
use deltran_messaging::Broker;
use deltran_tests::{As, Stack, eventually};
use futures::StreamExt;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tonic::Streaming;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

pub const ALFA: &str = "ALFAAEXX";
pub const BRAV: &str = "BRAVINXX";
pub const CHAR: &str = "CHARGB2L";

pub type Client1 = NotificationServiceClient<InterceptedService<Channel, As>>;

pub fn bank(stack: &Stack, who: &str) -> Client1 {
    NotificationServiceClient::new(stack.bank(who))
}

pub fn operator(stack: &Stack) -> Client1 {
    NotificationServiceClient::new(stack.role("operator", "ada"))
}

pub fn fresh() -> uuid::Uuid {
    SystemIds::new().next_id(SystemClock.now())
}

/// Subscribes a bank to kinds.
pub async fn subscribe(stack: &Stack, who: &str, kinds: &[&str]) -> Subscription {
    let request = SubscribeRequest {
        subscription_id: fresh().to_string(),
        kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
        ..SubscribeRequest::default()
    };
    bank(stack, who).subscribe(request).await.unwrap().into_inner().subscription.unwrap()
}

/// Publishes as the engines do: numbered per producer.
pub struct Publisher {
    broker: Broker,
    ids: SystemIds,
    numbers: BTreeMap<&'static str, u64>,
}

impl Publisher {
    pub fn new(stack: &Stack) -> Self {
        Self { broker: stack.broker.clone(), ids: SystemIds::new(), numbers: BTreeMap::new() }
    }

    /// The next line of an event's producer, and its subject.
    pub fn line(&mut self, event: impl Into<Event>) -> (String, Bytes) {
        let event = event.into();
        let spec = event.spec();
        let number = self.numbers.entry(spec.domain.source()).or_insert(0);
        *number += 1;
        let at = SystemClock.now();
        let producer = format!("{}/1", spec.domain.source());
        let stamp =
            Stamp { event_id: EventId::new(self.ids.next_id(at)), at, producer: &producer, producer_seq: *number };
        (spec.subject(), encode(&event, &Context::default(), &stamp).unwrap())
    }

    /// Stores lines in the broker, in order.
    pub async fn send(&self, lines: &[(String, Bytes)]) {
        // The connection takes so many without their acknowledgements, and no more.
        for some in lines.chunks(1_000) {
            let mut acks = Vec::new();
            for (subject, line) in some {
                acks.push(self.broker.jetstream().publish(subject.clone(), line.clone()).await.unwrap());
            }
            for ack in acks {
                ack.await.unwrap();
            }
        }
    }

    pub async fn publish(&mut self, events: impl IntoIterator<Item = impl Into<Event>>) -> Vec<(String, Bytes)> {
        let lines: Vec<_> = events.into_iter().map(|event| self.line(event)).collect();
        self.send(&lines).await;
        lines
    }
}

/// A committed payment in USD.
pub fn paid(payer: &str, payee: &str, amount: &str) -> TransactionCreated {
    let currency = Currency::new("USD").unwrap();
    TransactionCreated {
        transaction_id: TransactionId::new(fresh()),
        payer: payer.parse().unwrap(),
        payee: payee.parse().unwrap(),
        amount: Money::parse(amount, currency).unwrap().into(),
        currency,
        settlement_model: SettlementModel::Gross,
        state: TransactionState::Committed,
        window_id: None,
        window_seq: None,
        end_to_end_id: None,
        uetr: None,
        return_of: None,
        expires_at: None,
        evidence: Evidence {
            screening: "APPROVE".into(),
            screening_evidence: "no_match".into(),
            list_versions: Vec::new(),
            rule_version: "1".into(),
            screening_score: None,
            risk_version: 1,
            cap_headroom: None,
            cover_headroom: None,
        },
    }
}

/// The last position of a bank's feed.
pub async fn last(stack: &Stack, who: &str) -> u64 {
    let answer = bank(stack, who).list_notifications(ListNotificationsRequest::default()).await.unwrap();
    answer.into_inner().last_position
}

pub async fn filed(stack: &Stack, who: &str, position: u64) {
    eventually("notifications to be filed", async || (last(stack, who).await >= position).then_some(())).await;
    assert_eq!(last(stack, who).await, position, "{who} was told more than once");
}

/// Takes `n` items of a feed, whatever the way: position and body.
pub trait Feed {
    async fn next(&mut self) -> (u64, Value);

    async fn take(&mut self, n: usize) -> Vec<(u64, Value)> {
        let mut taken = Vec::new();
        while taken.len() < n {
            taken.push(tokio::time::timeout(deltran_tests::DEADLINE, self.next()).await.expect("a feed stands still"));
        }
        taken
    }
}

pub struct OverGrpc(pub Streaming<StreamNotificationsResponse>);

pub async fn over_grpc(stack: &Stack, who: &str, after: u64) -> OverGrpc {
    let request = StreamNotificationsRequest { after_position: after, ..StreamNotificationsRequest::default() };
    OverGrpc(bank(stack, who).stream_notifications(request).await.unwrap().into_inner())
}

impl Feed for OverGrpc {
    async fn next(&mut self) -> (u64, Value) {
        loop {
            let answer = self.0.message().await.unwrap().expect("the stream goes on");
            let Some(n) = answer.notification else { continue };
            let body: Value = serde_json::from_str(&n.body).unwrap();
            assert_eq!((n.position, body["position"].as_u64()), (answer.position, Some(n.position)));
            assert_eq!((body["id"].as_str(), body["type"].as_str()), (Some(&*n.notification_id), Some(&*n.kind)));
            return (n.position, body);
        }
    }
}

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

pub struct OverWebSocket(pub Socket);

pub async fn over_websocket(stack: &Stack, who: &str, query: &str) -> Result<OverWebSocket, (u16, Value)> {
    let mut request = format!("ws://{}/v1/notifications/ws?{query}", stack.http).into_client_request().unwrap();
    request.headers_mut().insert("deltran-participant", who.parse().unwrap());
    match tokio_tungstenite::connect_async(request).await {
        Ok((socket, _)) => Ok(OverWebSocket(socket)),
        Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => {
            let body = answer.body().as_deref().unwrap_or_default();
            Err((answer.status().as_u16(), serde_json::from_slice(body).unwrap_or_default()))
        }
        Err(other) => panic!("{other}"),
    }
}

impl Feed for OverWebSocket {
    async fn next(&mut self) -> (u64, Value) {
        loop {
            let Message::Text(text) = self.0.next().await.expect("the socket stays open").unwrap() else { continue };
            let body: Value = serde_json::from_str(&text).unwrap();
            return (body["position"].as_u64().unwrap(), body);
        }
    }
}

pub struct OverSse {
    body: hyper::body::Incoming,
    read: String,
}

pub async fn over_sse(stack: &Stack, headers: &[(&str, &str)], query: &str) -> Result<OverSse, (u16, Value)> {
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let mut request = hyper::Request::get(format!("http://{}/v1/notifications/sse?{query}", stack.http));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = client.request(request.body(Empty::new()).unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    if status != 200 {
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        return Err((status, serde_json::from_slice(&body).unwrap_or_default()));
    }
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    Ok(OverSse { body: answer.into_body(), read: String::new() })
}

impl OverSse {
    /// The next block of lines; none where the stream has ended.
    pub async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.read.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.read = rest;
                return Some(block);
            }
            let frame = self.body.frame().await?.unwrap();
            self.read += std::str::from_utf8(frame.data_ref().map_or(&[], |data| data)).unwrap();
        }
    }
}

impl Feed for OverSse {
    async fn next(&mut self) -> (u64, Value) {
        loop {
            let block = self.block().await.expect("the stream goes on");
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            let Some(data) = field("data:") else { continue };
            let body: Value = serde_json::from_str(data).unwrap();
            assert_eq!(field("event:"), body["type"].as_str());
            return (field("id:").unwrap().parse().unwrap(), body);
        }
    }
}
