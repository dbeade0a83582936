//! The outbox: events written in the transaction that caused them, numbered without a gap in the
//! order of commits.

pub mod restore;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use deltran_events::{Context, Domain, Event, Stamp};
use deltran_kernel::{Clock, EventId, IdSource, Timestamp};
use deltran_runtime::DbError;
use sqlx::PgConnection;
use tokio::sync::Notify;

/// An event with what surrounds it, on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The event.
    pub event: Event,
    /// Who and what it belongs to.
    pub context: Context,
    /// W3C `traceparent` of the call that caused it.
    pub trace: Option<String>,
}

impl Outgoing {
    /// An event that belongs to `correlation`, caused by `user`.
    pub fn new(event: impl Into<Event>, correlation: impl std::fmt::Display, user: impl Into<String>) -> Self {
        let context =
            Context { correlation_id: Some(correlation.to_string()), user_id: Some(user.into()), ..Context::default() };
        Self { event: event.into(), context, trace: None }
    }

    /// Names the participant that it concerns first.
    #[must_use]
    pub fn of(mut self, participant: deltran_kernel::ParticipantId) -> Self {
        self.context.participant_id = Some(participant);
        self
    }

    /// Names the event that led to this one.
    #[must_use]
    pub fn caused_by(mut self, event: EventId) -> Self {
        self.context.causation_id = Some(event);
        self
    }

    /// Carries the trace of the call that caused it.
    #[must_use]
    pub fn traced(mut self, trace: Option<String>) -> Self {
        self.trace = trace;
        self
    }
}

/// A numbered, encoded event: a row of the outbox.
#[derive(Debug, Clone)]
pub struct Row {
    /// The number within its producer.
    pub seq: u64,
    /// The event's id.
    pub event_id: EventId,
    /// Where it is published.
    pub subject: String,
    /// `<event_type>/<version>`.
    pub schema: String,
    /// The exact bytes.
    pub envelope: Bytes,
    /// W3C `traceparent`.
    pub trace: Option<String>,
}

/// How far numbers were given out and published, as this process knows.
#[derive(Debug, Default)]
pub struct Progress {
    assigned: AtomicU64,
    published: AtomicU64,
}

impl Progress {
    /// Events that wait for the broker.
    pub fn backlog(&self) -> u64 {
        self.assigned.load(Ordering::Relaxed).saturating_sub(self.published.load(Ordering::Relaxed))
    }

    pub(crate) fn assigned(&self, seq: u64) {
        self.assigned.fetch_max(seq, Ordering::Relaxed);
    }

    pub(crate) fn published(&self, seq: u64) {
        self.published.fetch_max(present(seq), Ordering::Relaxed);
    }

    /// What comes after is to be published once more.
    pub(crate) fn back_to(&self, seq: u64) {
        self.published.store(present(seq), Ordering::Relaxed);
    }
}

/// A stored number: those at or below 0 are of earlier epochs, before the first of the present one.
fn present(seq: u64) -> u64 {
    if i64::try_from(seq).is_ok() { seq } else { 0 }
}

/// The outbox of one engine. Cloning shares it.
#[derive(Clone)]
pub struct Outbox {
    domain: Domain,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    written: Arc<Notify>,
    progress: Arc<Progress>,
}

impl Outbox {
    /// The outbox of the engine that publishes in `domain`.
    pub fn new(domain: Domain, clock: Arc<dyn Clock>, ids: Arc<dyn IdSource>) -> Self {
        Self { domain, clock, ids, written: Arc::default(), progress: Arc::default() }
    }

    /// Whose outbox it is.
    pub fn domain(&self) -> Domain {
        self.domain
    }

    /// Counters of this process.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Tells the relay that something was committed. Call it after COMMIT.
    pub fn wake(&self) {
        self.written.notify_one();
    }

    pub(crate) async fn written(&self) {
        self.written.notified().await;
    }

    /// Writes events in the caller's transaction and numbers them. The counter row stays locked until
    /// that transaction ends, so this comes last before COMMIT.
    ///
    /// # Errors
    /// [`DbError::Other`] where an event does not conform to its schema: a defect.
    pub async fn append(&self, tx: &mut PgConnection, events: &[Outgoing]) -> Result<(), DbError> {
        if events.is_empty() {
            return Ok(());
        }
        let (epoch, last): (i64, i64) =
            sqlx::query_as("UPDATE outbox_counter SET assigned = assigned + $1 RETURNING epoch, assigned")
                .bind(events.len() as i64)
                .fetch_one(&mut *tx)
                .await?;
        let first = last as u64 - events.len() as u64 + 1;
        let said = events.iter().map(|e| (&e.event, &e.context, e.trace.as_deref()));
        let rows = self.encode(epoch, first, self.clock.now(), said)?;
        Self::insert(tx, &rows).await
    }

    /// Numbers and encodes events, each with its context and trace, from `first` on. For a producer that counts in
    /// memory.
    ///
    /// # Errors
    /// [`DbError::Other`] where an event does not conform to its schema: a defect.
    pub fn encode<'a>(
        &self,
        epoch: i64,
        first: u64,
        at: Timestamp,
        events: impl IntoIterator<Item = (&'a Event, &'a Context, Option<&'a str>)>,
    ) -> Result<Vec<Row>, DbError> {
        let producer = self.producer(epoch);
        let events = events.into_iter();
        let mut rows = Vec::with_capacity(events.size_hint().0);
        for (seq, (event, context, trace)) in (first..).zip(events) {
            let spec = event.spec();
            if spec.domain != self.domain {
                return Err(DbError::Other(format!("{} may not publish {}", self.domain.source(), spec.subject())));
            }
            let event_id = EventId::new(self.ids.next_id(at));
            let stamp = Stamp { event_id, at, producer: &producer, producer_seq: seq };
            let envelope = deltran_events::encode(event, context, &stamp)
                .map_err(|e| DbError::Other(format!("an event does not conform to its schema: {e}")))?;
            rows.push(Row {
                seq,
                event_id,
                subject: spec.subject(),
                schema: format!("{}/{}", spec.event_type(), spec.version),
                envelope,
                trace: trace.map(str::to_owned),
            });
        }
        Ok(rows)
    }

    /// `<source>/<epoch>`.
    pub fn producer(&self, epoch: i64) -> String {
        format!("{}/{epoch}", self.domain.source())
    }

    /// Writes encoded rows with one statement.
    pub async fn insert(tx: &mut PgConnection, rows: &[Row]) -> Result<(), DbError> {
        if rows.is_empty() {
            return Ok(());
        }
        let seqs: Vec<i64> = rows.iter().map(|r| r.seq as i64).collect();
        let ids: Vec<uuid::Uuid> = rows.iter().map(|r| r.event_id.uuid()).collect();
        let subjects: Vec<&str> = rows.iter().map(|r| r.subject.as_str()).collect();
        let schemas: Vec<&str> = rows.iter().map(|r| r.schema.as_str()).collect();
        let envelopes: Vec<&[u8]> = rows.iter().map(|r| r.envelope.as_ref()).collect();
        let traces: Vec<Option<&str>> = rows.iter().map(|r| r.trace.as_deref()).collect();
        sqlx::query(
            "INSERT INTO outbox (seq, event_id, subject, schema, envelope, trace)
             SELECT * FROM UNNEST($1::bigint[], $2::uuid[], $3::text[], $4::text[], $5::bytea[], $6::text[])",
        )
        .bind(seqs)
        .bind(ids)
        .bind(subjects)
        .bind(schemas)
        .bind(envelopes)
        .bind(traces)
        .execute(tx)
        .await?;
        Ok(())
    }

    /// After COMMIT of numbers up to `last`: counts them and wakes the relay.
    pub fn committed(&self, last: u64) {
        self.progress.assigned(last);
        self.wake();
    }
}
