//! The driver: takes every batch that has not ended from answer to answer. One process drives at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use deltran_kernel::BatchId;
use deltran_messaging::{Door, Outgoing};
use deltran_runtime::lease::Epoch;
use deltran_runtime::{DbError, EngineContext};
use futures::{FutureExt, StreamExt};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::calls;
use crate::config::Settings;
use crate::domain::{Batch, Decision, Legs, Pace, decide};
use crate::store::{self, Stored};

const LEASE: &str = "batches";
/// An open batch has an alarm.
const HELD_ALERT: &str = "settlement_batch_held";
/// Another engine does not answer.
const SILENT_ALERT: &str = "settlement_unanswered";
/// Looks for batches that another process filed, where no signal arrives.
const POLL: Duration = Duration::from_secs(1);
/// Batches driven at once.
const AT_ONCE: usize = 4;
/// Steps of one batch in one turn; more means that answers are being replayed.
const STEPS: usize = 16;
const FIRST_DELAY: Duration = Duration::from_millis(250);
/// The longest pause before a command without an answer is sent again.
const LONGEST_UNANSWERED: Duration = Duration::from_secs(5);
/// The longest pause before a batch that is held asks again.
const LONGEST_HELD: Duration = Duration::from_secs(30);
/// Unanswered tries after which somebody is told.
const UNANSWERED_ALERT: u32 = 5;

/// Drives batches.
#[derive(Clone)]
pub struct Driver {
    /// The engine's context.
    pub context: EngineContext,
    /// Its database and outbox.
    pub door: Door,
    /// How batches wait for funds.
    pub settings: Settings,
    /// Told when a batch was filed.
    pub wake: Arc<Notify>,
}

/// How a turn of a batch ended.
enum Turn {
    Ended,
    Stopped,
    Again(Duration),
    Held,
    Unanswered(String),
}

/// When a batch has its next turn.
struct Next {
    unanswered: u32,
    held: u32,
    due: Instant,
}

impl Driver {
    /// Drives while this process holds the lease, until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        let lease = self.context.lease(LEASE);
        lease
            .run(shutdown, move |epoch, term| {
                let driver = self.clone();
                async move { driver.term(epoch, term).await }
            })
            .await;
    }

    async fn term(self, epoch: Epoch, term: CancellationToken) {
        self.drive(&epoch, &term).await;
        // Whoever leads next raises them again where they hold.
        for alert in [HELD_ALERT, SILENT_ALERT] {
            self.context.metrics.alert(alert, false);
        }
    }

    async fn drive(&self, epoch: &Epoch, term: &CancellationToken) {
        let part = format!("{}.{LEASE}", self.context.engine);
        let mut turns = BTreeMap::new();
        while !term.is_cancelled() {
            match self.pass(epoch, term, &mut turns).await {
                Ok(()) => self.context.health.ready(&part),
                Err(DbError::NotLeader) => return,
                Err(error) => self.context.health.not_ready(&part, error.to_string()),
            }
            let poll = Instant::now() + POLL;
            let due = turns.values().map(|next: &Next| next.due).min().map_or(poll, |due| due.min(poll));
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep_until(due) => {}
                () = term.cancelled() => return,
            }
        }
    }

    /// A turn for every batch that is due.
    async fn pass(
        &self,
        epoch: &Epoch,
        term: &CancellationToken,
        turns: &mut BTreeMap<BatchId, Next>,
    ) -> Result<(), DbError> {
        let open: BTreeMap<BatchId, bool> = store::open(self.door.db().pool()).await?.into_iter().collect();
        turns.retain(|id, _| open.contains_key(id));
        self.context.metrics.alert(HELD_ALERT, open.values().any(|alarm| *alarm));
        let now = Instant::now();
        let due: Vec<BatchId> =
            open.into_keys().filter(|id| turns.get(id).is_none_or(|next| next.due <= now)).collect();
        let outcomes: Vec<(BatchId, Result<Turn, DbError>)> = futures::stream::iter(due)
            .map(|id| {
                let (driver, epoch, term) = (self.clone(), epoch.clone(), term.clone());
                async move { (id, driver.turn(id, &epoch, &term).await) }.boxed()
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let mut failed = Ok(());
        for (id, outcome) in outcomes {
            match outcome {
                Ok(turn) => self.plan(id, turn, turns),
                Err(error) => {
                    self.plan(id, Turn::Unanswered(error.to_string()), turns);
                    // That another process leads matters more than any other failure.
                    if !matches!(failed, Err(DbError::NotLeader)) {
                        failed = Err(error);
                    }
                }
            }
        }
        let silent = turns.values().any(|next| next.unanswered >= UNANSWERED_ALERT);
        self.context.metrics.alert(SILENT_ALERT, silent);
        failed
    }

    /// Sets when a batch has its next turn.
    fn plan(&self, id: BatchId, turn: Turn, turns: &mut BTreeMap<BatchId, Next>) {
        let now = Instant::now();
        let next = turns.entry(id).or_insert(Next { unanswered: 0, held: 0, due: now });
        let (unanswered, held, delay) = match turn {
            Turn::Ended => {
                turns.remove(&id);
                return;
            }
            Turn::Stopped => (next.unanswered, next.held, Duration::ZERO),
            Turn::Again(delay) => (0, 0, delay),
            Turn::Held => (0, next.held.saturating_add(1), doubling(next.held, LONGEST_HELD)),
            Turn::Unanswered(reason) => {
                let unanswered = next.unanswered.saturating_add(1);
                if unanswered.is_power_of_two() {
                    tracing::warn!(batch.id = %id, reason, unanswered, "no answer: the same command is sent again");
                }
                (unanswered, next.held, doubling(next.unanswered, LONGEST_UNANSWERED))
            }
        };
        *next = Next { unanswered, held, due: now + delay };
    }

    /// Takes one batch as far as it goes at present.
    async fn turn(&self, id: BatchId, epoch: &Epoch, term: &CancellationToken) -> Result<Turn, DbError> {
        let pool = self.door.db().pool();
        for _ in 0..STEPS {
            let Some(stored) = store::batch(pool, id).await? else { return Ok(Turn::Ended) };
            let legs = store::legs(pool, id).await?;
            let Some(command) = stored.batch.command() else { return Ok(Turn::Ended) };
            let answer = tokio::select! {
                answer = calls::ask(&self.context, &stored.batch, &legs, command) => answer,
                // Dropped while under way its outcome is unknown, and the next term asks again.
                () = term.cancelled() => return Ok(Turn::Stopped),
            };
            let answer = match answer {
                Ok(answer) => answer,
                Err(unknown) => return Ok(Turn::Unanswered(unknown.to_string())),
            };
            let now = self.context.clock.now();
            let decision = match decide(&stored.batch, &legs, answer, &self.settings.rules(), now) {
                Ok(decision) => decision,
                Err(not_drawn) => return Err(DbError::Other(format!("batch {id}: {not_drawn}"))),
            };
            if self.save(epoch, &stored, &legs, &decision).await? {
                self.told(&stored.batch, &decision);
                match decision.pace {
                    Pace::End => return Ok(Turn::Ended),
                    Pace::Slow => return Ok(Turn::Held),
                    Pace::Retry => return Ok(Turn::Again(self.until_retry(&decision.batch))),
                    Pace::Now => {}
                }
            }
        }
        Ok(Turn::Again(Duration::from_secs(u64::from(self.settings.retry_seconds))))
    }

    /// Stores a decision with its events, as the holder of the lease. False where the batch was written
    /// since it was read.
    async fn save(&self, epoch: &Epoch, before: &Stored, legs: &Legs, decision: &Decision) -> Result<bool, DbError> {
        let mut tx = self.door.begin("batches").await?;
        epoch.check(&mut tx).await?;
        if !store::save(&mut tx, before, legs, decision).await? {
            return Ok(false);
        }
        let correlation = decision.batch.terms.netting_set_id;
        let events: Vec<Outgoing> =
            decision.events.iter().map(|event| Outgoing::new(event.clone(), correlation, crate::USER)).collect();
        // A lost COMMIT is read back by the next turn: it begins with what is stored.
        tx.commit(&events).await?;
        Ok(true)
    }

    fn told(&self, before: &Batch, decision: &Decision) {
        for breach in &decision.breaches {
            self.context.metrics.breach(breach.invariant, &breach.detail);
        }
        let after = &decision.batch;
        if after.state != before.state {
            tracing::info!(
                batch.id = %after.id,
                batch.before = %before.state,
                batch.after = %after.state,
                note = after.note,
                "batch moved"
            );
        }
    }

    /// Until the next earmark try: the retry time, but never beyond the funding deadline, at which the
    /// last try is due.
    fn until_retry(&self, batch: &Batch) -> Duration {
        let retry = Duration::from_secs(u64::from(self.settings.retry_seconds));
        let left = batch.funding_deadline.map(|at| at.micros().saturating_sub(self.context.clock.now().micros()));
        left.map_or(retry, |micros| retry.min(Duration::from_micros(u64::try_from(micros).unwrap_or(0))))
    }
}

fn doubling(times: u32, most: Duration) -> Duration {
    FIRST_DELAY.saturating_mul(1 << times.min(8)).min(most)
}
