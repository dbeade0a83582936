//! Messages into the ledger, the list of dead letters and the list of what the broker gave up on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use deltran_events::data::audit::DeadLetterRecorded;
use deltran_kernel::{Clock, Timestamp};
use deltran_messaging::{ApplyError, Delivery, Handler, Outgoing, Prepared};
use deltran_runtime::EngineContext;
use deltran_runtime::metrics::Metrics;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use tokio::sync::Notify;

use crate::NAME;
use crate::domain::advisory;
use crate::domain::letter::Origin;
use crate::domain::sequence::{Arrival, leaf_of};
use crate::store::{Appended, Letters, NewLetter, append, ensure_partitions};

/// Days for which partitions are made, that of today included.
pub const DAYS_AHEAD: i32 = 8;

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// Writes every message of AUDIT as one leaf.
pub struct Sequencer {
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    appended: Arc<Notify>,
    /// The last day (since 1970) whose partitions are known to be there.
    partitioned: AtomicI64,
    /// What the transaction under way did.
    last: Mutex<Option<(i64, Appended)>>,
}

impl Sequencer {
    /// A sequencer; `appended` is told of every commit.
    pub fn new(context: &EngineContext, appended: Arc<Notify>) -> Self {
        Self {
            clock: context.clock.clone(),
            metrics: context.metrics.clone(),
            appended,
            partitioned: AtomicI64::new(i64::MIN),
            last: Mutex::new(None),
        }
    }
}

fn day_of(at: Timestamp) -> i64 {
    at.micros().div_euclid(MICROS_PER_DAY)
}

#[async_trait]
impl Handler for Sequencer {
    async fn apply(&self, tx: &mut PgConnection, events: &[Delivery]) -> Result<Vec<Outgoing>, ApplyError> {
        let now = self.clock.now();
        let today = day_of(now);
        // The worker makes them days ahead; this is for the first minute and for a clock that jumps.
        if today > self.partitioned.load(Ordering::Relaxed) {
            ensure_partitions(tx, now, DAYS_AHEAD).await?;
        }
        let arrivals: Vec<Arrival<'_>> = events.iter().map(Arrival::from).collect();
        let done = append(tx, &arrivals, now).await?;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((today, done));
        Ok(Vec::new())
    }

    fn prepare(&self, delivery: &Delivery) -> Option<Prepared> {
        Some(Arc::new(leaf_of(delivery)))
    }

    fn committed(&self) {
        let Some((today, done)) = self.last.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        self.partitioned.fetch_max(today, Ordering::Relaxed);
        gauge(&self.metrics, done.size, done.invalid);
        if done.conflicts > 0 {
            tracing::error!(leaves = done.conflicts, size = done.size, "events contradict what stands in the ledger");
            self.metrics.alert("audit_conflict", true);
        }
        self.appended.notify_waiters();
    }

    fn raw(&self) -> bool {
        true
    }
}

/// Shows the size of the ledger.
pub fn gauge(metrics: &Metrics, size: u64, invalid: u64) {
    let show =
        |label, n: u64| metrics.audit_leaves.with_label_values(&[label]).set(i64::try_from(n).unwrap_or(i64::MAX));
    show("valid", size.saturating_sub(invalid));
    show("invalid", invalid);
}

/// Lists what no consumer could process.
pub struct LetterRecorder {
    clock: Arc<dyn Clock>,
}

impl LetterRecorder {
    /// A recorder.
    pub fn new(context: &EngineContext) -> Self {
        Self { clock: context.clock.clone() }
    }
}

#[async_trait]
impl Handler for LetterRecorder {
    async fn apply(&self, tx: &mut PgConnection, events: &[Delivery]) -> Result<Vec<Outgoing>, ApplyError> {
        // The same sequence twice in one batch is one letter.
        let letters: BTreeMap<u64, NewLetter> = events
            .iter()
            .map(|delivery| {
                let letter = NewLetter {
                    id: delivery.stream_sequence,
                    origin: Origin::read(&delivery.subject, &delivery.headers),
                    payload: delivery.payload.to_vec(),
                    digest: Sha256::digest(&delivery.payload).into(),
                };
                (letter.id, letter)
            })
            .collect();
        let list: Vec<NewLetter> = letters.values().cloned().collect();
        let new = Letters::record(tx, &list, self.clock.now()).await?;
        Ok(new.iter().filter_map(|id| letters.get(id)).map(recorded).collect())
    }

    fn raw(&self) -> bool {
        true
    }
}

fn recorded(letter: &NewLetter) -> Outgoing {
    let origin = letter.origin.clone();
    let event = DeadLetterRecorded {
        dead_letter_id: letter.id,
        stream: origin.stream,
        stream_sequence: origin.sequence,
        consumer: origin.consumer,
        subject: origin.subject,
        reason: origin.reason,
        attempts: origin.attempts,
    };
    Outgoing::new(event, correlation(letter.id), format!("{NAME}-engine"))
}

/// The correlation id of the events about a dead letter.
pub fn correlation(dead_letter_id: u64) -> String {
    format!("dead-letter-{dead_letter_id}")
}

/// Notes messages that exhausted their deliveries; [`crate::schedule::Burial`] fetches them.
pub struct AdvisoryReader {
    clock: Arc<dyn Clock>,
    given_up: Arc<Notify>,
}

impl AdvisoryReader {
    /// A reader that tells `given_up` of every commit.
    pub fn new(context: &EngineContext, given_up: Arc<Notify>) -> Self {
        Self { clock: context.clock.clone(), given_up }
    }
}

#[async_trait]
impl Handler for AdvisoryReader {
    async fn apply(&self, tx: &mut PgConnection, events: &[Delivery]) -> Result<Vec<Outgoing>, ApplyError> {
        let gave_up: Vec<_> =
            events.iter().filter_map(|delivery| advisory::read(&delivery.subject, &delivery.payload)).collect();
        if !gave_up.is_empty() {
            Letters::note(tx, &gave_up, self.clock.now()).await?;
        }
        Ok(Vec::new())
    }

    fn committed(&self) {
        self.given_up.notify_one();
    }

    fn raw(&self) -> bool {
        true
    }
}
