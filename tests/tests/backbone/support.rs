//! What the tests of the backbone share: an event to publish, a handler that records, and readers.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use deltran_events::data::transactions::ParticipantActivated;
use deltran_events::topology::ConsumerSpec;
use deltran_events::{Envelope, Event};
use deltran_messaging::{ApplyError, Broker, Consumer, Delivery, Handler, Outgoing, Relay};
pub use deltran_tests::api;
use deltran_tests::{Backbone, Node};
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const STREAM: &str = "TRANSACTIONS";
pub const SUBJECT: &str = "events.transactions.participant.activated";

/// Gives a message up after three deliveries.
pub static LENIENT: ConsumerSpec = ConsumerSpec {
    stream: STREAM,
    name: "lenient-test-consumer",
    filter_subjects: &["events.transactions.>"],
    max_deliver: 3,
    ack_wait: Duration::from_secs(2),
    max_ack_pending: 1000,
    strict: false,
    purpose: "a test",
    engine: "token",
};

/// Skips nothing.
pub static STRICT: ConsumerSpec = ConsumerSpec {
    stream: STREAM,
    name: "strict-test-consumer",
    filter_subjects: &["events.transactions.>"],
    max_deliver: -1,
    ack_wait: Duration::from_secs(20),
    max_ack_pending: 1000,
    strict: true,
    purpose: "a test",
    engine: "token",
};

/// An event that says `word`.
pub fn event(word: impl std::fmt::Display) -> Outgoing {
    let activated = ParticipantActivated { participant: "ALFAAEXX".parse().unwrap(), reason: word.to_string() };
    Outgoing::new(activated, "test", "tester")
}

/// What an event says.
pub fn word(delivery: &Delivery) -> Option<String> {
    match delivery.engine_event()? {
        Event::ParticipantActivated(data) => Some(data.reason.clone()),
        _ => None,
    }
}

/// Words "1" … "n".
pub fn words(n: usize) -> Vec<String> {
    (1..=n).map(|i| i.to_string()).collect()
}

impl Recorder {
    /// Creates what the recorder writes to.
    pub async fn table(backbone: &Backbone) -> PgPool {
        let pool = backbone.postgres.pool().await;
        let table = "CREATE TABLE token.seen (id bigserial PRIMARY KEY, holder text NOT NULL, word text NOT NULL)";
        sqlx::query(table).execute(&pool).await.unwrap();
        pool
    }
}

/// Writes down what it gets, once per time that it takes effect.
#[derive(Default)]
pub struct Recorder {
    pub holder: String,
    /// Words that can never be applied.
    pub poison: Mutex<BTreeSet<String>>,
    /// How many more batches fail for now.
    pub outage: AtomicU32,
    /// How many batches have failed for now.
    pub failed: AtomicU32,
}

impl Recorder {
    pub fn of(holder: &str) -> Arc<Self> {
        Arc::new(Self { holder: holder.to_owned(), ..Self::default() })
    }
}

#[async_trait]
impl Handler for Recorder {
    async fn apply(&self, tx: &mut PgConnection, events: &[Delivery]) -> Result<Vec<Outgoing>, ApplyError> {
        for delivery in events {
            let Some(word) = word(delivery) else { continue };
            if self.poison.lock().unwrap().contains(&word) {
                return Err(ApplyError::Permanent(format!("{word:?} is poison")));
            }
            sqlx::query("INSERT INTO seen (holder, word) VALUES ($1, $2)")
                .bind(&self.holder)
                .bind(&word)
                .execute(&mut *tx)
                .await?;
        }
        // After the effects, which must go with the failure.
        if self.outage.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
            self.failed.fetch_add(1, Ordering::SeqCst);
            return Err(ApplyError::Transient("not just now".into()));
        }
        Ok(Vec::new())
    }
}

/// What took effect, in order.
pub async fn seen(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar("SELECT word FROM token.seen ORDER BY id").fetch_all(pool).await.unwrap()
}

/// A worker that runs until it is stopped.
pub struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    pub fn relay(node: &Node) -> Self {
        let stop = CancellationToken::new();
        let relay = Relay::new(node.context.clone(), node.broker.clone(), node.outbox.clone());
        Self { task: tokio::spawn(relay.run(stop.clone())), stop }
    }

    pub fn consumer(node: &Node, spec: &'static ConsumerSpec, handler: Arc<dyn Handler>) -> Self {
        let stop = CancellationToken::new();
        let consumer = Consumer::new(node.context.clone(), node.broker.clone(), node.outbox.clone(), spec, handler);
        Self { task: tokio::spawn(consumer.run(stop.clone())), stop }
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    /// Ends a consumer as a crash would: nothing is acknowledged, given back or renewed any more.
    pub async fn crash(self, node: &Node) {
        // Its connections go first, so that what it still does has no effect.
        node.context.db.pool().close().await;
        node.broker.client().drain().await.unwrap();
        self.task.abort();
    }
}

/// Writes one event per transaction.
pub async fn write(node: &Node, words: impl IntoIterator<Item = impl std::fmt::Display>) {
    for word in words {
        let mut tx = node.context.db.begin().await.unwrap();
        node.outbox.append(&mut tx, &[event(word)]).await.unwrap();
        tx.commit().await.unwrap();
        node.outbox.wake();
    }
}

/// Creates the durable of a spec that is not in the catalog.
pub async fn create_consumer(broker: &Broker, spec: &ConsumerSpec) {
    let config = spec.config_json(deltran_events::topology::Profile::Development);
    let body = json!({"stream_name": spec.stream, "config": config, "action": "create"});
    api(broker, &format!("CONSUMER.CREATE.{}.{}", spec.stream, spec.name), &body).await;
}

/// A stored message: subject, headers, bytes.
pub async fn stored(broker: &Broker, stream: &str, sequence: u64) -> (String, async_nats::HeaderMap, Vec<u8>) {
    let stream = broker.jetstream().get_stream_no_info(stream).await.unwrap();
    let message = stream.get_raw_message(sequence).await.unwrap();
    (message.subject.to_string(), message.headers, message.payload.to_vec())
}

/// Number of messages in a stream, where the broker answers.
pub async fn count(broker: &Broker, stream: &str) -> Option<u64> {
    Some(broker.stream_info(stream).await.ok()??.messages)
}

/// Messages of a consumer that were neither delivered nor acknowledged, or delivered and not acknowledged.
pub async fn outstanding(broker: &Broker, spec: &ConsumerSpec) -> u64 {
    let info = api(broker, &format!("CONSUMER.INFO.{}.{}", spec.stream, spec.name), &json!({})).await;
    info["num_pending"].as_u64().unwrap() + info["num_ack_pending"].as_u64().unwrap()
}

/// Producer number and word of a stored event.
pub fn said(payload: &[u8]) -> (u64, String) {
    let (envelope, _) = Envelope::decode(SUBJECT, payload).unwrap();
    let Event::ParticipantActivated(data) = envelope.data else { panic!("another event") };
    (envelope.metadata.producer_seq.unwrap(), data.reason)
}
