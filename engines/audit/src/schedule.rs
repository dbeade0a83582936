//! Partitions ahead of time, dead letters out of advisories, comparisons from time to time.

use std::sync::Arc;
use std::time::Duration;

use deltran_messaging::Broker;
use deltran_messaging::dead_letter::{self, DeadLetter};
use deltran_runtime::lease::{Epoch, Pace, RoundError};
use deltran_runtime::{DbError, EngineContext};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::consume::{DAYS_AHEAD, gauge};
use crate::domain::advisory::{EXCEEDED, GaveUp};
use crate::reconcile::{Reconciler, schedule_user};
use crate::store::{Comparison, Ledger, Letters, ensure_partitions};

const HOUR: Duration = Duration::from_secs(3600);
/// After a failure.
const SOON: Duration = Duration::from_secs(5);
/// Looks for what another process noted.
const PACE: Pace = Pace { every: Duration::from_secs(5), longest: Duration::from_secs(30), alert: "burial_audit" };
/// Looks whether it is time to compare.
const COMPARE_PACE: Pace =
    Pace { every: Duration::from_secs(20), longest: Duration::from_secs(600), alert: "audit_reconcile_waits" };
/// Advisories worked on at once.
const BATCH: i64 = 100;

/// Makes the ledger's partitions days ahead.
pub struct Partitions {
    context: EngineContext,
}

impl Partitions {
    /// The worker.
    pub fn new(context: EngineContext) -> Self {
        Self { context }
    }

    /// At start and every hour, until shutdown. Any number of processes may do so.
    pub async fn run(self, shutdown: CancellationToken) {
        let part = "audit.partitions";
        loop {
            let pause = match self.make().await {
                Ok(()) => {
                    self.context.health.ready(part);
                    HOUR
                }
                Err(error) => {
                    self.context.health.not_ready(part, error.to_string());
                    SOON
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn make(&self) -> Result<(), DbError> {
        let mut tx = self.context.db.begin().await?;
        let made = ensure_partitions(&mut tx, self.context.clock.now(), DAYS_AHEAD).await?;
        tx.commit().await?;
        if made > 0 {
            tracing::info!(partitions = made, "partitions made ahead");
        }
        let (size, invalid) = Ledger::new(self.context.db.clone()).size().await?;
        gauge(&self.context.metrics, size, invalid);
        Ok(())
    }
}

/// Fetches messages that the broker gave up on and puts them among the dead letters.
#[derive(Clone)]
pub struct Burial {
    context: EngineContext,
    broker: Broker,
    given_up: Arc<Notify>,
}

impl Burial {
    /// The worker; `given_up` tells that there is something to do.
    pub fn new(context: EngineContext, broker: Broker, given_up: Arc<Notify>) -> Self {
        Self { context, broker, given_up }
    }

    /// Works while this process holds the lease `burial`, until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        let (lease, wake) = (self.context.lease("burial"), self.given_up.clone());
        lease
            .rounds(shutdown, PACE, wake, move |epoch| {
                let burial = self.clone();
                async move { burial.all(&epoch).await }
            })
            .await;
    }

    /// One that fails does not keep the others waiting.
    async fn all(&self, epoch: &Epoch) -> Result<(), RoundError> {
        let letters = Letters::new(self.context.db.clone());
        loop {
            let open = letters.given_up(BATCH).await?;
            let mut failed = None;
            for (message, known) in &open {
                if let Err(error) = self.bury(message, *known, epoch).await {
                    failed = Some(error);
                }
            }
            match failed {
                Some(error) => return Err(error),
                None if (open.len() as i64) < BATCH => return Ok(()),
                None => {}
            }
        }
    }

    async fn bury(&self, message: &GaveUp, known: bool, epoch: &Epoch) -> Result<(), RoundError> {
        if !known {
            let found = dead_letter::fetch(&self.broker, &message.stream, message.sequence).await?;
            let reason = match &found {
                Some(_) => EXCEEDED.to_owned(),
                None => format!("{EXCEEDED}; its stream has let it go since, so its bytes are gone"),
            };
            let (subject, payload) = found.unwrap_or_default();
            let letter = DeadLetter {
                stream: &message.stream,
                sequence: message.sequence,
                consumer: &message.consumer,
                subject: &subject,
                attempts: u32::try_from(message.deliveries).unwrap_or(u32::MAX),
                reason: &reason,
                payload,
            };
            dead_letter::publish(&self.broker, letter).await?;
        }
        let mut tx = self.context.db.begin().await?;
        epoch.check(&mut tx).await?;
        Letters::done(&mut tx, message).await?;
        tx.commit().await?;
        Ok(())
    }
}

/// Compares outboxes, streams and ledger from time to time.
#[derive(Clone)]
pub struct Reconciliations {
    context: EngineContext,
    reconciler: Reconciler,
    minutes: u32,
}

impl Reconciliations {
    /// The worker; 0 minutes are never.
    pub fn new(context: EngineContext, reconciler: Reconciler, minutes: u32) -> Self {
        Self { context, reconciler, minutes }
    }

    /// Works while this process holds the lease `reconciliations`, until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        if self.minutes == 0 {
            return shutdown.cancelled().await;
        }
        let lease = self.context.lease("reconciliations");
        lease
            .rounds(shutdown, COMPARE_PACE, Arc::new(Notify::new()), move |epoch| {
                let worker = self.clone();
                async move { worker.round(&epoch).await }
            })
            .await;
    }

    /// Compares where it is time to. It only reads: what differs is told, and somebody decides.
    async fn round(&self, epoch: &Epoch) -> Result<(), RoundError> {
        let now = self.context.clock.now();
        let mut tx = self.context.db.begin().await?;
        epoch.check(&mut tx).await?;
        let last = Comparison::last_ended(&mut tx, now).await?;
        tx.commit().await?;
        if now < last.plus_seconds(i64::from(self.minutes) * 60) {
            return Ok(());
        }
        // Somebody else compares at this moment: then there is news soon anyway.
        let Ok(_turn) = self.reconciler.turn.clone().try_acquire_owned() else { return Ok(()) };
        self.reconciler.run(false, 1, &schedule_user(), None, Some(epoch)).await?;
        Ok(())
    }
}
