//! The one consumer loop: pulls a batch, and in one transaction records what was received, applies
//! the effects and writes the events they cause; then acknowledges.
//!
//! Duplicates are decided by the received ranges of producer numbers alone, so redelivery and
//! republishing are harmless. Each consumer is a singleton by lease: one process pulls at a time.
//!
//! A consumer that must not skip (`strict`) also keeps the order of its stream: what its predecessor
//! left unacknowledged comes first, and a message that cannot be applied stops it.

pub(crate) mod received;
mod work;

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::consumer::pull::Stream as PullStream;
use async_nats::jetstream::{AckKind, Message};
use async_trait::async_trait;
use deltran_events::Domain;
use deltran_events::topology::ConsumerSpec;
use deltran_runtime::lease::Epoch;
use deltran_runtime::{DbError, EngineContext, Failure};
use futures::{FutureExt, StreamExt};
use sqlx::PgConnection;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, BrokerError};
use crate::delivery::{Delivery, Prepared};
use crate::outbox::{Outbox, Outgoing};
pub use received::{received, texts, to_ranges};
use work::Batch;

/// Why a batch was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// It may succeed later as it is.
    #[error("{0}")]
    Transient(String),
    /// It will never succeed: the message contradicts what is known.
    #[error("{0}")]
    Permanent(String),
    /// Another process leads.
    #[error("the lease is not held")]
    NotLeader,
}

impl From<DbError> for ApplyError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::NotLeader => Self::NotLeader,
            error if error.is_transient() => Self::Transient(error.to_string()),
            error => Self::Permanent(error.to_string()),
        }
    }
}

impl From<sqlx::Error> for ApplyError {
    fn from(error: sqlx::Error) -> Self {
        DbError::from(error).into()
    }
}

impl From<Failure> for ApplyError {
    fn from(failure: Failure) -> Self {
        use deltran_runtime::FailureKind::{Overloaded, Unavailable};
        match failure.kind {
            Unavailable | Overloaded => Self::Transient(failure.message),
            _ => Self::Permanent(failure.message),
        }
    }
}

/// What an engine does with the events it receives.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Applies new events in the given transaction and returns the events that they cause.
    async fn apply(&self, tx: &mut PgConnection, events: &[Delivery]) -> Result<Vec<Outgoing>, ApplyError>;

    /// Called after COMMIT, to wake what waits for the effects.
    fn committed(&self) {}

    /// What it makes of a message where messages are read, beside the batch before, so that [`Handler::apply`] has less to do
    /// in its transaction.
    fn prepare(&self, _delivery: &Delivery) -> Option<Prepared> {
        None
    }

    /// Whether this handler takes every message: invalid ones and duplicates too.
    fn raw(&self) -> bool {
        false
    }

    /// The subjects whose events it needs, asked once per batch, after it came; `None` for all. What comes on
    /// others is recorded as received, and neither validated nor applied.
    async fn reads(&self) -> Option<&'static [&'static str]> {
        None
    }
}

/// A durable consumer and its handler.
#[derive(Clone)]
pub struct Consumer {
    context: EngineContext,
    broker: Broker,
    outbox: Outbox,
    spec: &'static ConsumerSpec,
    handler: Arc<dyn Handler>,
}

/// Batches that are decoded while the one before is applied.
const AHEAD: usize = 1;
/// How long one request for messages stands. Shorter than the rest of a lease, so that the request of a process that was
/// stopped draws no messages away from the one that takes over.
const REQUEST: Duration = Duration::from_secs(2);
/// What comes within this time of a batch that was not full shares the next one. The first message after a while is
/// taken at once: a transaction over one message costs nearly what one over a hundred does.
const PACE: Duration = Duration::from_millis(50);

/// Messages as they come.
struct Batches {
    chunks: futures::stream::ReadyChunks<PullStream>,
    /// Before that nothing is taken.
    rested: Instant,
}

enum Step {
    Done,
    Later(String),
    Never(String),
    NotLeader,
}

impl Consumer {
    /// The consumer of the catalog by this name, with its handler.
    pub fn new(
        context: EngineContext,
        broker: Broker,
        outbox: Outbox,
        spec: &'static ConsumerSpec,
        handler: Arc<dyn Handler>,
    ) -> Self {
        Self { context, broker, outbox, spec, handler }
    }

    /// Consumes while this process holds the consumer's lease, until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        let lease = self.context.lease(self.spec.name);
        lease
            .run(shutdown, move |epoch, term| {
                let consumer = self.clone();
                async move { consumer.term(epoch, term).await }
            })
            .await;
    }

    fn part(&self) -> String {
        format!("{}.{}", self.context.engine, self.spec.name)
    }

    async fn term(self, epoch: Epoch, term: CancellationToken) {
        let _reader = Domain::of_stream(self.spec.stream).map(|_| self.broker.decoder().reader());
        let mut failures = 0u32;
        while !term.is_cancelled() {
            let connections = self.broker.connections();
            match self.pull().await {
                Ok(messages) => {
                    failures = 0;
                    self.context.health.ready(&self.part());
                    if let Step::NotLeader = self.consume(messages, connections, &epoch, &term).await {
                        break;
                    }
                }
                Err(error) => {
                    failures += 1;
                    self.context.health.not_ready(&self.part(), error.to_string());
                }
            }
            if !term.is_cancelled() {
                pause(failures, &term).await;
            }
        }
        // Whoever goes on will say so where it stops as well.
        self.stopped(None);
    }

    async fn pull(&self) -> Result<PullStream, BrokerError> {
        let stream = self.broker.jetstream().get_stream_no_info(self.spec.stream).await.map_err(BrokerError::new)?;
        let mut consumer: PullConsumer = stream.get_consumer(self.spec.name).await.map_err(BrokerError::new)?;
        if self.spec.strict && consumer.cached_info().num_ack_pending > 0 {
            // Else what was delivered to a process that is gone would come after what is new.
            if let Err(error) = consumer.reset(None).await {
                tracing::warn!(
                    consumer = self.spec.name,
                    %error,
                    "broker older than 2.14: what is unacknowledged comes late and out of order"
                );
            }
        }
        consumer
            .stream()
            .max_messages_per_batch(self.context.config.messaging.consumer_batch)
            .heartbeat(REQUEST / 2)
            .expires(REQUEST)
            .messages()
            .await
            .map_err(BrokerError::new)
    }

    /// Works on messages until the stream of them breaks, the lease is lost or shutdown.
    async fn consume(
        &self,
        messages: PullStream,
        mut connections: watch::Receiver<u64>,
        epoch: &Epoch,
        term: &CancellationToken,
    ) -> Step {
        let chunks = messages.ready_chunks(self.context.config.messaging.consumer_batch);
        let mut batches = Batches { chunks, rested: Instant::now() };
        if !self.spec.strict {
            // Deliveries are counted: nothing waits here while what came before it is tried again.
            while let Some((batch, whole)) = self.next(&mut batches, term).await {
                if let Step::NotLeader = self.batch(batch, epoch, term).await {
                    return Step::NotLeader;
                }
                if !whole {
                    break;
                }
            }
            return Step::Done;
        }
        let (sender, mut receiver) = mpsc::channel(AHEAD);
        let (reader, reading) = (self.clone(), term.clone());
        // It ends with the messages, the term, or when nobody takes what it read.
        tokio::spawn(async move {
            loop {
                let next = tokio::select! {
                    next = reader.next(&mut batches, &reading) => next,
                    // What the last connection lost would come again only after the time for its acknowledgement; pulling
                    // anew asks for it at once.
                    _ = connections.changed() => return,
                };
                let Some((batch, whole)) = next else { return };
                if sender.send(batch).await.is_err() || !whole {
                    return;
                }
            }
        });
        while let Some(batch) = receiver.recv().await {
            if let Step::NotLeader = self.batch(batch, epoch, term).await {
                return Step::NotLeader;
            }
        }
        Step::Done
    }

    /// The next messages, decoded, and whether the stream of them goes on; none where it or the term has ended.
    async fn next(&self, batches: &mut Batches, term: &CancellationToken) -> Option<(Batch, bool)> {
        let rested = tokio::time::sleep_until(batches.rested);
        let batch = tokio::select! {
            biased;
            () = term.cancelled() => None,
            // Else a batch would end after the 128 messages that a task may take before it yields.
            batch = rested.then(|()| tokio::task::unconstrained(batches.chunks.next())) => Some(batch?),
        };
        if let Some(batch) = batch {
            if batch.len() < self.context.config.messaging.consumer_batch {
                batches.rested = Instant::now() + PACE;
            }
            let (messages, broken) = apart(batch);
            if let Some(error) = &broken {
                tracing::warn!(consumer = self.spec.name, error, "pull broke off");
            }
            return Some((self.read(messages).await, broken.is_none()));
        }
        // The next process need not wait for what was fetched here and not begun.
        while let Some(Some(batch)) = batches.chunks.next().now_or_never() {
            for message in apart(batch).0 {
                self.acknowledge(&message, AckKind::Nak(None)).await;
            }
        }
        None
    }

    async fn acknowledge(&self, message: &Message, kind: AckKind) {
        // An acknowledgement that is lost means a redelivery, which the received ranges make harmless.
        if let Err(error) = message.ack_with(kind).await {
            tracing::debug!(consumer = self.spec.name, %error, "acknowledgement not sent");
        }
    }

    fn stopped(&self, reason: Option<&str>) {
        let gauge = self.context.metrics.consumer_stopped.with_label_values(&[self.spec.name]);
        if let Some(reason) = reason {
            if gauge.get() == 0 {
                tracing::error!(consumer = self.spec.name, reason, "stopped before a message that cannot be processed");
            }
            self.context.health.not_ready(&self.part(), format!("stopped before a message: {reason}"));
        } else if gauge.get() == 1 {
            self.context.health.ready(&self.part());
        }
        gauge.set(i64::from(reason.is_some()));
    }

    fn count(&self, result: &str, n: usize) {
        self.context.metrics.consumed.with_label_values(&[self.spec.name, result]).inc_by(n as u64);
    }
}

/// The messages of a batch, and why no more come, where that is so.
fn apart<E: std::fmt::Display>(batch: Vec<Result<Message, E>>) -> (Vec<Message>, Option<String>) {
    let mut messages = Vec::with_capacity(batch.len());
    let mut broken = None;
    for item in batch {
        match item {
            Ok(message) => messages.push(message),
            Err(error) => broken = Some(error.to_string()),
        }
    }
    (messages, broken)
}

/// 100 ms, doubling to 10 s, with jitter.
async fn pause(failures: u32, term: &CancellationToken) {
    let delay = jittered(Duration::from_millis((50u64 << failures.min(8)).min(10_000)));
    tokio::select! {
        () = tokio::time::sleep(delay) => {}
        () = term.cancelled() => {}
    }
}

/// Between half the delay and all of it, so that many consumers do not come back at once.
fn jittered(delay: Duration) -> Duration {
    use std::hash::{BuildHasher, Hasher};
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    delay / 2 + delay / 2 * u32::try_from(random % 1000).unwrap_or(0) / 1000
}
