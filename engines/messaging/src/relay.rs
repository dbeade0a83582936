//! The relay: publishes an engine's outbox to JetStream in the order of commits, and drops rows once
//! the audit ledger has them.
//!
//! It notices where the broker forgot what it had acknowledged, and keeps its events until the stream was made anew; then
//! it publishes again what the ledger has not confirmed.

use std::collections::BTreeMap;
use std::time::Duration;

use deltran_api::audit::v1::ConfirmedThroughRequest;
use deltran_api::audit::v1::audit_service_client::AuditServiceClient;
use deltran_kernel::EventId;
use deltran_runtime::lease::Epoch;
use deltran_runtime::{DbError, EngineContext};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, BrokerError};
use crate::outbox::{Outbox, Row, restore};
use crate::points::{self, AFTER_COMMIT, AFTER_PUBLISH, BEFORE_COMMIT};
use crate::publish::{Stored, publish};
use crate::stored::{self, StreamState};

/// Looks for rows that another process wrote, where no signal arrives.
const POLL: Duration = Duration::from_millis(500);
/// Rounds begin at least so far apart. The first event after a while goes at once, and those that follow it share a round: a
/// round of one event costs nearly what a round of a thousand does.
const PACE: Duration = Duration::from_millis(20);
const CONFIRM_EVERY: Duration = Duration::from_secs(1);
/// Looks whether the stream is still the one that it was. Whoever makes one anew waits longer than this first.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What a stream says of itself comes in this time, or is asked for again: one without a leader says nothing, and the
/// question is lost.
const SAID: Duration = Duration::from_secs(2);
/// The longest pause after a failure is 100 ms, doubled so often. What counts against limits may be seconds behind only.
const DOUBLED: u32 = 3;
/// Time for the last round of publishing after shutdown was asked for.
const LAST_MOMENT: Duration = Duration::from_secs(4);
/// Confirmed rows deleted by one statement.
const TRIM: i64 = 20_000;

/// Why the relay stopped for a moment.
#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error("stream {0}: its events wait until it is refilled from the audit ledger")]
    Stream(String),
}

/// What was published, and to what.
#[derive(sqlx::FromRow)]
struct Marks {
    assigned: i64,
    published: i64,
    stream_created: String,
    acknowledged: i64,
    repeated: bool,
}

/// The relay of one engine.
#[derive(Clone)]
pub struct Relay {
    context: EngineContext,
    broker: Broker,
    outbox: Outbox,
}

type StoredRow = (i64, uuid::Uuid, String, String, Vec<u8>, Option<String>);

impl Relay {
    /// A relay for an engine's outbox.
    pub fn new(context: EngineContext, broker: Broker, outbox: Outbox) -> Self {
        Self { context, broker, outbox }
    }

    /// Publishes while this process holds the lease `relay`, until shutdown. On shutdown it publishes
    /// what is already committed, as far as the broker takes it within a few seconds.
    pub async fn run(self, shutdown: CancellationToken) {
        let lease = self.context.lease("relay");
        let follower = self.clone();
        let leading = lease.run(shutdown.clone(), move |epoch, term| {
            let relay = self.clone();
            async move { relay.term(epoch, term).await }
        });
        tokio::join!(leading, follower.follow(&shutdown));
    }

    /// Knows how much waits for the broker, whichever process publishes it: submissions are refused by that.
    async fn follow(&self, shutdown: &CancellationToken) {
        while !shutdown.is_cancelled() {
            // While the database is away nothing is submitted.
            if let Ok(marks) = self.marks().await {
                self.gauge(marks.assigned, marks.published);
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = shutdown.cancelled() => {}
            }
        }
    }

    fn part(&self) -> String {
        format!("{}.relay", self.context.engine)
    }

    async fn term(self, epoch: Epoch, term: CancellationToken) {
        // A slow audit ledger must not hold publishing up.
        tokio::join!(self.publish_until(&epoch, &term), self.confirm_until(&epoch, &term));
    }

    async fn publish_until(&self, epoch: &Epoch, term: &CancellationToken) {
        let mut failures = 0u32;
        let mut looked = None;
        loop {
            let last_round = term.is_cancelled();
            let began = Instant::now();
            let round = tokio::select! {
                round = self.publish_all(epoch, &mut looked) => round,
                () = late(term) => return,
            };
            match round {
                Ok(()) => {
                    failures = 0;
                    self.alert(false);
                }
                Err(RelayError::Db(DbError::NotLeader)) => {
                    // The confirmations of this term end with it.
                    self.alert(false);
                    return term.cancel();
                }
                Err(error) => {
                    // Whatever it was: look before anything else is published.
                    looked = None;
                    failures += 1;
                    self.failed(&error, failures);
                    if let RelayError::Stream(_) = error {
                        failures = failures.min(2);
                    }
                }
            }
            if last_round {
                return;
            }
            let wait = async {
                if failures > 0 {
                    return tokio::time::sleep(Duration::from_millis(100 << failures.min(DOUBLED))).await;
                }
                tokio::time::sleep_until(began + PACE).await;
                tokio::select! {
                    () = self.outbox.written() => {}
                    () = tokio::time::sleep(POLL) => {}
                }
            };
            tokio::select! {
                () = wait => {}
                // One more round publishes what was committed last.
                () = term.cancelled() => {}
            }
        }
    }

    fn alert(&self, raised: bool) {
        self.context.metrics.alert(&format!("relay_{}", self.context.engine), raised);
    }

    fn failed(&self, error: &RelayError, failures: u32) {
        let label = match error {
            RelayError::Db(_) => "database",
            RelayError::Broker(_) => "broker",
            RelayError::Stream(_) => "stream",
        };
        self.context.metrics.publish_failures.with_label_values(&[self.context.engine, label]).inc();
        self.alert(true);
        if failures.is_power_of_two() {
            tracing::warn!(engine = self.context.engine, %error, failures, "events wait in the outbox");
        }
    }

    /// Publishes everything that is committed and not yet acknowledged by the broker. The next rows are
    /// read while the acknowledgements of the last ones are under way.
    async fn publish_all(&self, epoch: &Epoch, looked: &mut Option<Instant>) -> Result<(), RelayError> {
        let mut marks = self.marks().await?;
        self.gauge(marks.assigned, marks.published);
        let due = |looked: &Option<Instant>| looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY);
        if marks.assigned <= marks.published && !due(looked) {
            return Ok(());
        }
        if !self.broker.is_connected() {
            if marks.assigned <= marks.published {
                return Ok(());
            }
            // Else the connection would keep what is sent and send it twice when it is back.
            return Err(BrokerError::new("not connected").into());
        }
        let window = self.context.config.messaging.publish_window as i64;
        loop {
            if due(looked) {
                marks = self.look(epoch, marks).await?;
                *looked = Some(Instant::now());
            }
            let mut rows = self.read(marks.published, window).await?;
            while let Some(last) = rows.last().map(|row| row.seq as i64) {
                epoch.current()?;
                let acks = publish(&self.broker, rows).await?;
                let (next, acknowledged) = tokio::join!(self.read(last, window), acks.all());
                let Stored { highest, lowest } = acknowledged?;
                if lowest.is_some_and(|lowest| lowest <= marks.acknowledged as u64) {
                    return Err(self.repeated(epoch, lowest.unwrap_or_default(), marks.acknowledged).await?);
                }
                marks.acknowledged = marks.acknowledged.max(i64::try_from(highest).unwrap_or(i64::MAX));
                marks.published = last;
                points::reached(&self.part(), AFTER_PUBLISH)?;
                self.mark(epoch, last, marks.acknowledged).await?;
                rows = next?;
                if due(looked) {
                    break;
                }
            }
            if rows.is_empty() {
                return Ok(());
            }
        }
    }

    async fn marks(&self) -> Result<Marks, DbError> {
        Ok(sqlx::query_as(
            "SELECT c.assigned, m.published, m.stream_created, m.acknowledged, m.repeated
             FROM outbox_counter c, outbox_mark m",
        )
        .fetch_one(self.context.db.pool())
        .await?)
    }

    /// Whether the stream still has what it acknowledged. One that was made anew above that is taken for the next, and
    /// what the ledger has not confirmed is published to it once more.
    async fn look(&self, epoch: &Epoch, marks: Marks) -> Result<Marks, RelayError> {
        let name = self.outbox.domain().stream();
        let stop = |why: String| Err(RelayError::Stream(format!("{name} {why}")));
        let state = tokio::time::timeout(SAID, stored::state(&self.broker, name)).await;
        let state = state.map_err(|_| BrokerError(format!("stream {name} says nothing: it has no leader")))??;
        let Some(state) = state else { return stop("is not there".into()) };
        if state.mark.is_some() {
            return stop("is being made anew".into());
        }
        let acknowledged = marks.acknowledged as u64;
        if marks.stream_created == state.created {
            if marks.repeated {
                return stop("gave out a sequence twice".into());
            }
            if state.last_sequence < acknowledged {
                return stop(format!("ends at {}, {acknowledged} was acknowledged", state.last_sequence));
            }
            return Ok(marks);
        }
        if !marks.stream_created.is_empty() && state.begins_at <= acknowledged {
            return stop(format!("was made anew at {}, {acknowledged} was acknowledged before", state.begins_at));
        }
        self.adopt(epoch, &marks, &state).await
    }

    async fn adopt(&self, epoch: &Epoch, marks: &Marks, state: &StreamState) -> Result<Marks, RelayError> {
        let anew = !marks.stream_created.is_empty();
        let mut tx = self.context.db.begin().await?;
        epoch.check(&mut tx).await?;
        sqlx::query(
            "UPDATE outbox_mark SET stream_created = $1, repeated = false,
                 published = CASE WHEN $2 THEN LEAST(published, confirmed) ELSE published END",
        )
        .bind(&state.created)
        .bind(anew)
        .execute(&mut *tx)
        .await
        .map_err(DbError::from)?;
        tx.commit().await?;
        let marks = self.marks().await?;
        if anew {
            self.outbox.progress().back_to(marks.published as u64);
            let (stream, from) = (self.outbox.domain().stream(), marks.published);
            tracing::warn!(engine = self.context.engine, stream, from, "the stream was made anew: publishing again");
        }
        Ok(marks)
    }

    /// Notes that the broker gave out a sequence that it had given out before.
    async fn repeated(&self, epoch: &Epoch, sequence: u64, acknowledged: i64) -> Result<RelayError, DbError> {
        let mut tx = self.context.db.begin().await?;
        epoch.check(&mut tx).await?;
        sqlx::query("UPDATE outbox_mark SET repeated = true").execute(&mut *tx).await?;
        tx.commit().await?;
        let name = self.outbox.domain().stream();
        Ok(RelayError::Stream(format!("{name} gave out {sequence}, {acknowledged} was acknowledged before")))
    }

    async fn read(&self, after: i64, window: i64) -> Result<Vec<Row>, DbError> {
        let rows: Vec<StoredRow> = sqlx::query_as(
            "SELECT seq, event_id, subject, schema, envelope, trace FROM outbox WHERE seq > $1 ORDER BY seq LIMIT $2",
        )
        .bind(after)
        .bind(window)
        .fetch_all(self.context.db.pool())
        .await?;
        let row = |(seq, event_id, subject, schema, envelope, trace): StoredRow| {
            let (seq, event_id, envelope) = (seq as u64, EventId::new(event_id), envelope.into());
            Row { seq, event_id, subject, schema, envelope, trace }
        };
        Ok(rows.into_iter().map(row).collect())
    }

    async fn mark(&self, epoch: &Epoch, published: i64, acknowledged: i64) -> Result<(), DbError> {
        let mut tx = self.context.db.begin().await?;
        epoch.check(&mut tx).await?;
        sqlx::query(
            "UPDATE outbox_mark SET published = GREATEST(published, $1), acknowledged = GREATEST(acknowledged, $2)",
        )
        .bind(published)
        .bind(acknowledged)
        .execute(&mut *tx)
        .await?;
        points::reached(&self.part(), BEFORE_COMMIT)?;
        tx.commit().await?;
        points::reached(&self.part(), AFTER_COMMIT)?;
        self.outbox.progress().published(published as u64);
        self.context.metrics.outbox_published.with_label_values(&[self.context.engine]).set(published);
        Ok(())
    }

    fn gauge(&self, assigned: i64, published: i64) {
        let metrics = &self.context.metrics;
        self.outbox.progress().assigned(assigned as u64);
        self.outbox.progress().published(published as u64);
        metrics.outbox_assigned.with_label_values(&[self.context.engine]).set(assigned);
        metrics.outbox_published.with_label_values(&[self.context.engine]).set(published);
    }

    /// Asks the audit ledger again and again how far it has this engine's events, and drops rows up to there.
    async fn confirm_until(&self, epoch: &Epoch, term: &CancellationToken) {
        let mut confirm = tokio::time::interval(CONFIRM_EVERY);
        confirm.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = confirm.tick() => {}
                () = term.cancelled() => return,
            }
            let confirmed = tokio::select! {
                confirmed = self.try_confirm(epoch) => confirmed,
                () = term.cancelled() => return,
            };
            if let Err(failure) = confirmed {
                tracing::debug!(engine = self.context.engine, error = %failure, "not confirmed by the audit ledger yet");
            }
        }
    }

    async fn try_confirm(&self, epoch: &Epoch) -> Result<(), deltran_runtime::Failure> {
        let (number, published, before): (i64, i64, i64) =
            sqlx::query_as("SELECT c.epoch, m.published, m.confirmed FROM outbox_counter c, outbox_mark m")
                .fetch_one(self.context.db.pool())
                .await
                .map_err(DbError::from)?;
        if published <= before {
            return Ok(());
        }
        let peer = self.context.peers.to(self.context.engine, "audit")?;
        let ended = if before < 0 { restore::ended(&self.context.db).await? } else { BTreeMap::new() };
        let (number, first, last) = restore::numbering(before, number, &ended);
        let request = ConfirmedThroughRequest { producer: self.outbox.producer(number) };
        let answer = AuditServiceClient::new(peer).confirmed_through(request).await?.into_inner();
        let answer = i64::try_from(answer.producer_seq).unwrap_or(i64::MAX);
        let confirmed = first.saturating_add(answer).min(last).min(published);
        self.context.metrics.outbox_confirmed.with_label_values(&[self.context.engine]).set(confirmed);
        if confirmed <= before {
            return Ok(());
        }
        loop {
            let mut tx = self.context.db.begin().await?;
            epoch.check(&mut tx).await?;
            let deleted = sqlx::query(
                "DELETE FROM outbox WHERE seq IN (SELECT seq FROM outbox WHERE seq <= $1 ORDER BY seq LIMIT $2)",
            )
            .bind(confirmed)
            .bind(TRIM)
            .execute(&mut *tx)
            .await
            .map_err(DbError::from)?
            .rows_affected();
            let done = (deleted as i64) < TRIM;
            if done {
                sqlx::query("UPDATE outbox_mark SET confirmed = GREATEST(confirmed, $1)")
                    .bind(confirmed)
                    .execute(&mut *tx)
                    .await
                    .map_err(DbError::from)?;
            }
            tx.commit().await?;
            if done {
                return Ok(());
            }
        }
    }
}

/// Completes some seconds after the end of a term: what the broker has not taken by then stays for the next.
async fn late(term: &CancellationToken) {
    term.cancelled().await;
    tokio::time::sleep(LAST_MOMENT).await;
}
