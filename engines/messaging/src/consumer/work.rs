//! What happens to a batch: applied, tried again, taken apart, put aside.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{AckKind, Message};
use deltran_runtime::beside;
use deltran_runtime::lease::Epoch;
use tokio_util::sync::CancellationToken;

use super::{ApplyError, Consumer, Handler, Step, jittered, pause};
use crate::broker::BrokerError;
use crate::dead_letter::{self, DeadLetter};
use crate::decoder::Decoder;
use crate::delivery::{Delivery, producer_in};
use crate::points::{self, AFTER_ACK, AFTER_COMMIT, BEFORE_ACK, BEFORE_COMMIT};

/// Messages with what was read in them.
pub(super) struct Batch {
    messages: Arc<Vec<Message>>,
    read: Option<Read>,
}

/// What messages say.
struct Read {
    deliveries: Vec<Delivery>,
    /// Not valid, and put aside.
    invalid: Vec<Delivery>,
    /// Numbers of events that the handler does not need.
    unread: Vec<(String, u64)>,
}

impl Read {
    fn of(
        messages: &[Message],
        decoder: &Decoder,
        reads: Option<&'static [&'static str]>,
        handler: &dyn Handler,
    ) -> Result<Self, BrokerError> {
        let mut read = Self { deliveries: Vec::with_capacity(messages.len()), invalid: Vec::new(), unread: Vec::new() };
        for message in messages {
            if reads.is_some_and(|subjects| !subjects.contains(&message.subject.as_str())) {
                read.unread.extend(producer_in(message, decoder));
                continue;
            }
            let mut delivery = Delivery::read(message, decoder)?;
            if handler.raw() || delivery.envelope.is_ok() {
                delivery.prepared = handler.prepare(&delivery);
                read.deliveries.push(delivery);
            } else {
                read.invalid.push(delivery);
            }
        }
        Ok(read)
    }
}

impl Consumer {
    /// Decodes messages, many of them beside what else runs here. What cannot be read is told when it is applied.
    pub(super) async fn read(&self, messages: Vec<Message>) -> Batch {
        let reads = self.handler.reads().await;
        let messages = Arc::new(messages);
        let (many, decoder, handler) = (messages.clone(), self.broker.decoder().clone(), self.handler.clone());
        let read = beside(messages.len(), move || Read::of(&many, &decoder, reads, handler.as_ref()).ok()).await;
        let read = read.ok().flatten();
        Batch { messages, read }
    }

    /// First deliveries go together. A message that came before may be what ended the process then, so
    /// those go one by one, and from the other end every other time: whatever stands beside a message
    /// that is fatal to the process gets through before that one exhausts its deliveries.
    pub(super) async fn batch(&self, batch: Batch, epoch: &Epoch, term: &CancellationToken) -> Step {
        let Batch { messages, read } = batch;
        let attempt = |m: &Message| m.info().map_or(1, |info| info.delivered);
        if self.spec.strict || messages.iter().all(|m| attempt(m) <= 1) {
            return self.attempt(&messages, read, epoch, term).await;
        }
        let (first, mut again): (Vec<Message>, Vec<Message>) = messages.iter().cloned().partition(|m| attempt(m) <= 1);
        if again.first().is_some_and(|m| attempt(m) % 2 == 1) {
            again.reverse();
        }
        for message in again {
            if let Step::NotLeader = self.attempt(std::slice::from_ref(&message), None, epoch, term).await {
                return Step::NotLeader;
            }
            if let Err(error) = self.broker.client().flush().await {
                tracing::debug!(consumer = self.spec.name, %error, "acknowledgement not flushed");
            }
        }
        self.attempt(&first, None, epoch, term).await
    }

    /// Applies messages together. Where one of them never can be, they go one by one, in order.
    async fn attempt(&self, messages: &[Message], read: Option<Read>, epoch: &Epoch, term: &CancellationToken) -> Step {
        if messages.is_empty() {
            return Step::Done;
        }
        match self.persist(messages, read, messages, epoch, term).await {
            Step::Never(reason) => {
                tracing::debug!(consumer = self.spec.name, reason, "batch is taken apart");
                for at in 0..messages.len() {
                    if let Step::NotLeader = self.persist(&messages[at..=at], None, &messages[at..], epoch, term).await
                    {
                        return Step::NotLeader;
                    }
                }
                Step::Done
            }
            step => step,
        }
    }

    /// Applies messages until they are done, given up, or the term ends. What may pass later is tried
    /// again in place, so that order is kept; the broker is told that work goes on, for those that wait
    /// behind too. Answers `Never` for several messages only.
    async fn persist(
        &self,
        messages: &[Message],
        mut read: Option<Read>,
        waiting: &[Message],
        epoch: &Epoch,
        term: &CancellationToken,
    ) -> Step {
        let mut failures = 0u32;
        while !term.is_cancelled() {
            match self.apply(messages, read.take(), epoch).await {
                Step::Done => {
                    if points::reached(self.spec.name, BEFORE_ACK).is_err() {
                        return Step::NotLeader;
                    }
                    for message in messages {
                        self.acknowledge(message, AckKind::Ack).await;
                    }
                    if points::reached(self.spec.name, AFTER_ACK).is_err() {
                        return Step::NotLeader;
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
                Step::Never(reason) if messages.len() > 1 => return Step::Never(reason),
                Step::Never(reason) if self.spec.strict => {
                    failures += 1;
                    self.stopped(Some(&reason));
                }
                Step::Never(reason) => {
                    self.refuse(&messages[0], &reason).await;
                    return Step::Done;
                }
            }
            for message in waiting {
                self.acknowledge(message, AckKind::Progress).await;
            }
            pause(failures, term).await;
        }
        for message in messages {
            self.acknowledge(message, AckKind::Nak(None)).await;
        }
        Step::Done
    }

    /// One transaction over a batch; then invalid messages go to the dead letters. Where a consumer must
    /// not skip, one that claims to be from the engine itself stops it instead.
    async fn apply(&self, messages: &[Message], read: Option<Read>, epoch: &Epoch) -> Step {
        let read = match read {
            Some(read) => Ok(read),
            None => Read::of(messages, self.broker.decoder(), self.handler.reads().await, self.handler.as_ref()),
        };
        let Read { deliveries, invalid, unread } = match read {
            Ok(read) => read,
            Err(error) => return Step::Later(error.to_string()),
        };
        if self.spec.strict
            && let Some(delivery) = invalid.iter().find(|d| d.claims_engine())
        {
            return Step::Never(format!("{} {}: {}", delivery.stream, delivery.stream_sequence, fault(delivery)));
        }
        let total = deliveries.len();
        match self.transact(deliveries, &unread, epoch).await {
            Ok(applied) => {
                self.count("unread", unread.len());
                self.count("applied", applied);
                self.count("duplicate", total.saturating_sub(applied));
                if total > 0 {
                    self.handler.committed();
                }
            }
            Err(ApplyError::NotLeader) => return Step::NotLeader,
            Err(ApplyError::Transient(reason)) => return Step::Later(reason),
            Err(ApplyError::Permanent(reason)) => return Step::Never(reason),
        }
        // After the others, so that what is tried again is not put aside again.
        for delivery in invalid {
            if let Err(error) = self.bury(&delivery, &fault(&delivery)).await {
                return Step::Later(error.to_string());
            }
        }
        Step::Done
    }

    async fn transact(
        &self,
        mut deliveries: Vec<Delivery>,
        unread: &[(String, u64)],
        epoch: &Epoch,
    ) -> Result<usize, ApplyError> {
        if deliveries.is_empty() && unread.is_empty() {
            return Ok(0);
        }
        let mut tx = self.context.db.begin().await?;
        epoch.check(&mut tx).await?;
        self.receive(&mut tx, &mut deliveries, unread).await?;
        let applied = deliveries.iter().filter(|d| !d.duplicate).count();
        if !self.handler.raw() {
            deliveries.retain(|d| !d.duplicate);
        }
        let events = if deliveries.is_empty() { Vec::new() } else { self.handler.apply(&mut tx, &deliveries).await? };
        self.outbox.append(&mut tx, &events).await?;
        points::reached(self.spec.name, BEFORE_COMMIT)?;
        tx.commit().await?;
        if !events.is_empty() {
            self.outbox.wake();
        }
        points::reached(self.spec.name, AFTER_COMMIT)?;
        Ok(applied)
    }

    /// A single message that cannot be applied: again later, or to the dead letters on the last attempt.
    async fn refuse(&self, message: &Message, reason: &str) {
        let Ok(delivery) = Delivery::read(message, self.broker.decoder()) else { return };
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
}

/// What is wrong with an invalid message.
fn fault(delivery: &Delivery) -> String {
    (*delivery.envelope).as_ref().err().map(ToString::to_string).unwrap_or_default()
}
