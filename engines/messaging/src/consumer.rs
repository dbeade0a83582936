//! The one consumer loop: pulls a batch, and in one transaction records what was received, applies
//! the effects and writes the events they cause; then acknowledges.
//!
//! Duplicates are decided by the received ranges of producer numbers alone, so redelivery and
//! republishing are harmless. Each consumer is a singleton by lease: one process pulls at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::consumer::pull::Stream as PullStream;
use async_nats::jetstream::{AckKind, Message};
use async_trait::async_trait;
use deltran_events::topology::ConsumerSpec;
use deltran_runtime::lease::Epoch;
use deltran_runtime::{DbError, EngineContext, Failure};
use futures::StreamExt;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, BrokerError};
use crate::dead_letter::{self, DeadLetter};
use crate::delivery::Delivery;
use crate::outbox::{Outbox, Outgoing};
use crate::ranges::Ranges;

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

    /// Whether this handler takes every message: invalid ones and duplicates too.
    fn raw(&self) -> bool {
        false
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
        let mut failures = 0u32;
        while !term.is_cancelled() {
            match self.pull().await {
                Ok(messages) => {
                    failures = 0;
                    self.context.health.ready(&self.part());
                    if let Step::NotLeader = self.consume(messages, &epoch, &term).await {
                        return;
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
    }

    async fn pull(&self) -> Result<PullStream, BrokerError> {
        let stream = self.broker.jetstream().get_stream_no_info(self.spec.stream).await.map_err(BrokerError::new)?;
        let consumer: PullConsumer = stream.get_consumer(self.spec.name).await.map_err(BrokerError::new)?;
        consumer
            .stream()
            .max_messages_per_batch(self.context.config.messaging.consumer_batch)
            .heartbeat(Duration::from_secs(5))
            .expires(Duration::from_secs(20))
            .messages()
            .await
            .map_err(BrokerError::new)
    }

    /// Works on messages until the stream of them breaks, the lease is lost or shutdown.
    async fn consume(&self, messages: PullStream, epoch: &Epoch, term: &CancellationToken) -> Step {
        let mut batches = messages.ready_chunks(self.context.config.messaging.consumer_batch);
        loop {
            let batch = tokio::select! {
                biased;
                () = term.cancelled() => return Step::Done,
                batch = batches.next() => batch,
            };
            let Some(batch) = batch else { return Step::Done };
            let mut messages = Vec::with_capacity(batch.len());
            let mut broken = None;
            for item in batch {
                match item {
                    Ok(message) => messages.push(message),
                    Err(error) => broken = Some(error),
                }
            }
            if let Step::NotLeader = self.batch(messages, epoch, term).await {
                return Step::NotLeader;
            }
            if let Some(error) = broken {
                tracing::warn!(consumer = self.spec.name, %error, "pull broke off");
                return Step::Done;
            }
        }
    }

    /// First deliveries go together. A message that came before may be what ended the process then, so
    /// those go one by one, and from the other end every other time: whatever stands beside a message
    /// that is fatal to the process gets through before that one exhausts its deliveries.
    async fn batch(&self, messages: Vec<Message>, epoch: &Epoch, term: &CancellationToken) -> Step {
        if self.spec.strict {
            return self.attempt(&messages, epoch, term).await;
        }
        let attempt = |m: &Message| m.info().map_or(1, |info| info.delivered);
        let (first, mut again): (Vec<Message>, Vec<Message>) = messages.into_iter().partition(|m| attempt(m) <= 1);
        if again.first().is_some_and(|m| attempt(m) % 2 == 1) {
            again.reverse();
        }
        for message in again {
            if let Step::NotLeader = self.attempt(std::slice::from_ref(&message), epoch, term).await {
                return Step::NotLeader;
            }
            if let Err(error) = self.broker.client().flush().await {
                tracing::debug!(consumer = self.spec.name, %error, "acknowledgement not flushed");
            }
        }
        self.attempt(&first, epoch, term).await
    }

    /// Applies messages until they are done, given up, or the term ends. What may pass later is tried
    /// again in place, so that order is kept; the broker is told that work goes on.
    async fn attempt(&self, messages: &[Message], epoch: &Epoch, term: &CancellationToken) -> Step {
        let mut failures = 0u32;
        if messages.is_empty() {
            return Step::Done;
        }
        loop {
            let step = self.apply(messages, epoch).await;
            match step {
                Step::Done => {
                    for message in messages {
                        self.acknowledge(message, AckKind::Ack).await;
                    }
                    self.stopped(None);
                    return Step::Done;
                }
                Step::NotLeader => return Step::NotLeader,
                Step::Later(reason) => {
                    failures += 1;
                    self.count("retry", messages.len());
                    if failures.is_power_of_two() {
                        tracing::warn!(consumer = self.spec.name, reason, failures, "batch is tried again");
                    }
                }
                Step::Never(reason) if messages.len() > 1 && !self.spec.strict => {
                    tracing::debug!(consumer = self.spec.name, reason, "batch is taken apart");
                    for message in messages {
                        if let Step::NotLeader = Box::pin(self.attempt(std::slice::from_ref(message), epoch, term)).await {
                            return Step::NotLeader;
                        }
                    }
                    return Step::Done;
                }
                Step::Never(reason) if self.spec.strict => {
                    failures += 1;
                    self.stopped(Some(&reason));
                }
                Step::Never(reason) => {
                    self.refuse(&messages[0], &reason).await;
                    return Step::Done;
                }
            }
            for message in messages {
                self.acknowledge(message, AckKind::Progress).await;
            }
            pause(failures, term).await;
            if term.is_cancelled() {
                return Step::Done;
            }
        }
    }

    /// One transaction over a batch.
    async fn apply(&self, messages: &[Message], epoch: &Epoch) -> Step {
        let mut deliveries = Vec::with_capacity(messages.len());
        for message in messages {
            match Delivery::read(message) {
                Ok(delivery) => deliveries.push(delivery),
                Err(error) => return Step::Later(error.to_string()),
            }
        }
        if !self.handler.raw() {
            match self.put_invalid_aside(deliveries).await {
                Ok(valid) => deliveries = valid,
                Err(step) => return step,
            }
        }
        let total = deliveries.len();
        match self.transact(deliveries, epoch).await {
            Ok(applied) => {
                self.count("applied", applied);
                self.count("duplicate", total.saturating_sub(applied));
                self.handler.committed();
                self.outbox.wake();
                Step::Done
            }
            Err(ApplyError::NotLeader) => Step::NotLeader,
            Err(ApplyError::Transient(reason)) => Step::Later(reason),
            Err(ApplyError::Permanent(reason)) => Step::Never(reason),
        }
    }

    /// Invalid messages go to the dead letters. Where a consumer must not skip, one that claims to be
    /// from the engine itself stops it instead.
    async fn put_invalid_aside(&self, deliveries: Vec<Delivery>) -> Result<Vec<Delivery>, Step> {
        let mut valid = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            let Err(error) = &delivery.envelope else {
                valid.push(delivery);
                continue;
            };
            let reason = error.to_string();
            if self.spec.strict && delivery.claims_engine() {
                return Err(Step::Never(format!("{} {}: {reason}", delivery.stream, delivery.stream_sequence)));
            }
            self.bury(&delivery, &reason).await.map_err(|e| Step::Later(e.to_string()))?;
        }
        Ok(valid)
    }

    async fn transact(&self, mut deliveries: Vec<Delivery>, epoch: &Epoch) -> Result<usize, ApplyError> {
        let mut tx = self.context.db.begin().await?;
        epoch.check(&mut tx).await?;
        let mut received = self.load_received(&mut tx, &deliveries).await?;
        let mut touched = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut unnumbered = Vec::new();
        for delivery in &mut deliveries {
            if let Some((producer, seq)) = &delivery.producer {
                delivery.duplicate = !received.entry(producer.clone()).or_default().insert(*seq);
                touched.insert(producer.clone());
            } else if let Some(id) = delivery.event_id() {
                let digest = Sha256::digest(&delivery.payload).to_vec();
                delivery.duplicate = !seen.insert((id, digest.clone()));
                unnumbered.push((id, digest));
            }
        }
        if !unnumbered.is_empty() {
            let known = self.record_unnumbered(&mut tx, &unnumbered).await?;
            for delivery in deliveries.iter_mut().filter(|d| d.producer.is_none()) {
                delivery.duplicate |= delivery.event_id().is_some_and(|id| {
                    known.contains(&(id.uuid(), Sha256::digest(&delivery.payload).to_vec()))
                });
            }
        }
        if !self.handler.raw() {
            deliveries.retain(|d| !d.duplicate);
        }
        let applied = deliveries.iter().filter(|d| !d.duplicate).count();
        let events = if deliveries.is_empty() { Vec::new() } else { self.handler.apply(&mut tx, &deliveries).await? };
        self.store_received(&mut tx, &received, &touched).await?;
        self.outbox.append(&mut tx, &events).await?;
        tx.commit().await?;
        Ok(applied)
    }

    async fn load_received(
        &self,
        tx: &mut PgConnection,
        deliveries: &[Delivery],
    ) -> Result<BTreeMap<String, Ranges>, ApplyError> {
        let producers: BTreeSet<&str> = deliveries.iter().filter_map(|d| Some(d.producer.as_ref()?.0.as_str())).collect();
        let producers: Vec<&str> = producers.into_iter().collect();
        let rows: Vec<(String, Vec<i64>)> =
            sqlx::query_as("SELECT producer, ranges FROM received WHERE consumer = $1 AND producer = ANY($2)")
                .bind(self.spec.name)
                .bind(producers)
                .fetch_all(tx)
                .await?;
        rows.into_iter()
            .map(|(producer, pairs)| {
                let ranges = Ranges::from_pairs(&pairs)
                    .ok_or_else(|| ApplyError::Permanent(format!("received ranges of {producer} are not valid: {pairs:?}")))?;
                Ok((producer, ranges))
            })
            .collect()
    }

    async fn store_received(
        &self,
        tx: &mut PgConnection,
        received: &BTreeMap<String, Ranges>,
        touched: &BTreeSet<String>,
    ) -> Result<(), ApplyError> {
        for producer in touched {
            let Some(ranges) = received.get(producer) else { continue };
            sqlx::query(
                "INSERT INTO received (consumer, producer, ranges) VALUES ($1, $2, $3)
                 ON CONFLICT (consumer, producer) DO UPDATE SET ranges = EXCLUDED.ranges",
            )
            .bind(self.spec.name)
            .bind(producer)
            .bind(ranges.to_pairs())
            .execute(&mut *tx)
            .await?;
        }
        Ok(())
    }

    /// Records events without a producer number; returns those that were known before.
    async fn record_unnumbered(
        &self,
        tx: &mut PgConnection,
        events: &[(deltran_kernel::EventId, Vec<u8>)],
    ) -> Result<BTreeSet<(uuid::Uuid, Vec<u8>)>, ApplyError> {
        let ids: Vec<uuid::Uuid> = events.iter().map(|(id, _)| id.uuid()).collect();
        let digests: Vec<&[u8]> = events.iter().map(|(_, digest)| digest.as_slice()).collect();
        let new: Vec<(uuid::Uuid, Vec<u8>)> = sqlx::query_as(
            "INSERT INTO received_event (consumer, event_id, digest)
             SELECT $1, id, digest FROM UNNEST($2::uuid[], $3::bytea[]) AS e (id, digest)
             ON CONFLICT DO NOTHING RETURNING event_id, digest",
        )
        .bind(self.spec.name)
        .bind(&ids)
        .bind(digests)
        .fetch_all(tx)
        .await?;
        let new: BTreeSet<(uuid::Uuid, Vec<u8>)> = new.into_iter().collect();
        Ok(events.iter().map(|(id, digest)| (id.uuid(), digest.clone())).filter(|e| !new.contains(e)).collect())
    }

    /// A single message that cannot be applied: again later, or to the dead letters on the last attempt.
    async fn refuse(&self, message: &Message, reason: &str) {
        let Ok(delivery) = Delivery::read(message) else { return };
        let last = self.spec.max_deliver > 0 && i64::from(delivery.attempt) >= self.spec.max_deliver;
        if !last {
            self.count("retry", 1);
            let delay = Duration::from_millis(200 << delivery.attempt.min(8));
            return self.acknowledge(message, AckKind::Nak(Some(jittered(delay)))).await;
        }
        match self.bury(&delivery, reason).await {
            Ok(()) => self.acknowledge(message, AckKind::Term).await,
            // Not terminated: the broker delivers it again, or its advisory brings it here.
            Err(error) => tracing::warn!(consumer = self.spec.name, %error, "dead letter not stored"),
        }
    }

    async fn bury(&self, delivery: &Delivery, reason: &str) -> Result<(), BrokerError> {
        tracing::warn!(
            consumer = self.spec.name,
            stream = delivery.stream,
            sequence = delivery.stream_sequence,
            reason,
            "message put aside"
        );
        self.count("dead_letter", 1);
        let letter = DeadLetter {
            stream: &delivery.stream,
            sequence: delivery.stream_sequence,
            consumer: self.spec.name,
            subject: &delivery.subject,
            attempts: delivery.attempt,
            reason,
            payload: delivery.payload.clone(),
        };
        dead_letter::publish(&self.broker, letter).await
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
