//! Leases with epochs: at most one process does the work of a singleton, and one that was frozen
//! cannot write when it wakes.
//!
//! A lease is a row (holder, epoch, expires_at by the database's clock). Every transaction of a
//! singleton begins with [`Epoch::check`], which locks the row as a foreign key would; take-over
//! raises the epoch, which is part of a key, and so waits for such transactions and makes every later
//! check of the old epoch fail. Renewal changes no key and waits for nobody: a transaction that is
//! longer than the lease does not lose it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::db::{Db, DbError};
use crate::error::Failure;
use crate::health::Health;
use crate::metrics::Metrics;

/// How long a lease lasts without renewal.
pub const LEASE_TIME: Duration = Duration::from_secs(5);
const RENEW_EVERY: Duration = Duration::from_millis(1200);
const TRY_EVERY: Duration = Duration::from_millis(700);

/// The tables of leases, for every engine's schema.
pub const TABLES: &str = include_str!("lease.sql");

/// Proof that a lease was taken, to be checked in each transaction.
#[derive(Debug, Clone)]
pub struct Epoch {
    name: &'static str,
    number: i64,
}

impl Epoch {
    /// The number; it rises with each take-over.
    pub fn number(&self) -> i64 {
        self.number
    }

    /// Fails with [`DbError::NotLeader`] unless this epoch still holds the lease. Nobody takes over
    /// before this transaction has ended.
    pub async fn check(&self, tx: &mut PgConnection) -> Result<(), DbError> {
        let held: Option<i32> = sqlx::query_scalar("SELECT 1 FROM lease WHERE name = $1 AND epoch = $2 FOR KEY SHARE")
            .bind(self.name)
            .bind(self.number)
            .fetch_optional(tx)
            .await?;
        held.map(|_| ()).ok_or(DbError::NotLeader)
    }
}

/// Ends every lease of an engine. Only for who knows that no other process runs on this database, such as
/// the one that has just started a private server under a lock of its own.
pub async fn end_all(db: &Db) -> Result<(), DbError> {
    sqlx::query("UPDATE lease SET expires_at = '-infinity'").execute(db.pool()).await?;
    Ok(())
}

/// When the rounds of a singleton's work begin.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// After this long without a signal: looks for what other processes wrote and for what time brought.
    pub every: Duration,
    /// The longest pause: failures double it from `every` up to here.
    pub longest: Duration,
    /// Raised after more than three rounds in a row that were not whole.
    pub alert: &'static str,
}

/// Why a round was not whole.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RoundError {
    /// Another process leads.
    #[error("the lease is not held")]
    NotLeader,
    /// What is left waits for the next round.
    #[error("{0}")]
    Later(String),
}

impl From<DbError> for RoundError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::NotLeader => Self::NotLeader,
            other => Self::Later(other.to_string()),
        }
    }
}

impl From<Failure> for RoundError {
    fn from(failure: Failure) -> Self {
        Self::Later(failure.message)
    }
}

/// Takes, renews and gives back one lease.
#[derive(Clone)]
pub struct Lease {
    /// Where the lease row lives.
    pub db: Db,
    /// The lease's name within the engine, such as `writer`.
    pub name: &'static str,
    /// Who holds it: unique per process.
    pub holder: String,
    /// Told whether this process holds it.
    pub metrics: Metrics,
    /// Told that the part is ready, on stand-by too.
    pub health: Health,
}

impl Lease {
    /// Runs `work` whenever this process holds the lease, until `shutdown`.
    ///
    /// `work` gets the epoch and a token that is cancelled when the lease is lost or on shutdown. It
    /// should return soon after; the lease is given back then. Where it returns early, it is
    /// started anew under a new epoch.
    pub async fn run<F, W>(&self, shutdown: CancellationToken, mut work: W)
    where
        W: FnMut(Epoch, CancellationToken) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let label = format!("{}.{}", self.db.engine(), self.name);
        let held = self.metrics.lease_held.with_label_values(&[&label]);
        while !shutdown.is_cancelled() {
            match self.take().await {
                Ok(Some(epoch)) => {
                    tracing::info!(lease = label, epoch = epoch.number, "lease taken");
                    held.set(1);
                    let term = shutdown.child_token();
                    let mut task = tokio::spawn(work(epoch.clone(), term.clone()));
                    let renewed = tokio::select! {
                        () = self.renew(&epoch, &shutdown) => true,
                        done = &mut task => {
                            if let Err(panic) = done { tracing::error!(lease = label, error = %panic, "singleton failed"); }
                            false
                        }
                    };
                    term.cancel();
                    if renewed && let Err(panic) = task.await {
                        tracing::error!(lease = label, error = %panic, "singleton failed");
                    }
                    held.set(0);
                    if let Err(error) = self.give_back(&epoch).await {
                        tracing::debug!(lease = label, %error, "lease not given back: it will expire");
                    }
                }
                Ok(None) => self.health.ready(&label),
                Err(error) => self.health.not_ready(&label, error.to_string()),
            }
            tokio::select! {
                () = tokio::time::sleep(TRY_EVERY) => {}
                () = shutdown.cancelled() => {}
            }
        }
    }

    /// Does rounds of work whenever this process holds the lease, until `shutdown`: at the beginning, at every
    /// signal of `wake`, and at the pace that is given.
    pub async fn rounds<W, F>(&self, shutdown: CancellationToken, pace: Pace, wake: Arc<Notify>, work: W)
    where
        W: Fn(Epoch) -> F + Clone + Send + 'static,
        F: Future<Output = Result<(), RoundError>> + Send,
    {
        let metrics = self.metrics.clone();
        self.run(shutdown, move |epoch, term| {
            let (work, wake, metrics) = (work.clone(), wake.clone(), metrics.clone());
            async move {
                let mut failures = 0u32;
                while !term.is_cancelled() {
                    match work(epoch.clone()).await {
                        Ok(()) => failures = 0,
                        Err(RoundError::NotLeader) => break,
                        Err(RoundError::Later(reason)) => {
                            failures = failures.saturating_add(1);
                            if failures.is_power_of_two() {
                                tracing::warn!(lease = epoch.name, reason, failures, "a round was not whole");
                            }
                        }
                    }
                    metrics.alert(pace.alert, failures > 3);
                    let pause = pace.every.saturating_mul(1 << failures.min(16)).min(pace.longest.max(pace.every));
                    tokio::select! {
                        () = wake.notified() => {}
                        () = tokio::time::sleep(pause) => {}
                        () = term.cancelled() => {}
                    }
                }
                // Whoever leads next raises it again where it holds.
                metrics.alert(pace.alert, false);
            }
        })
        .await;
    }

    async fn take(&self) -> Result<Option<Epoch>, DbError> {
        // One that is held is only looked at: to lock it would be to wait for its holder's transaction.
        let number: Option<i64> = sqlx::query_scalar(
            "INSERT INTO lease (name, holder, epoch, expires_at)
             SELECT $1, $2, 1, clock_timestamp() + $3 * interval '1 millisecond'
             WHERE NOT EXISTS (SELECT FROM lease WHERE name = $1 AND expires_at >= clock_timestamp())
             ON CONFLICT (name) DO UPDATE SET holder = $2, epoch = lease.epoch + 1, expires_at = clock_timestamp() + $3 * interval '1 millisecond'
             WHERE lease.expires_at < clock_timestamp()
             RETURNING epoch",
        )
        .bind(self.name)
        .bind(&self.holder)
        .bind(LEASE_TIME.as_millis() as i64)
        .fetch_optional(self.db.pool())
        .await?;
        Ok(number.map(|number| Epoch { name: self.name, number }))
    }

    /// Returns when the lease is lost or shutdown is asked for.
    async fn renew(&self, epoch: &Epoch, shutdown: &CancellationToken) {
        let mut last = tokio::time::Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep(RENEW_EVERY) => {}
                () = shutdown.cancelled() => return,
            }
            let renewal = sqlx::query(
                "UPDATE lease SET expires_at = clock_timestamp() + $3 * interval '1 millisecond' WHERE name = $1 AND epoch = $2",
            )
            .bind(epoch.name)
            .bind(epoch.number)
            .bind(LEASE_TIME.as_millis() as i64)
            .execute(self.db.pool());
            match tokio::time::timeout(LEASE_TIME / 2, renewal).await {
                Ok(Ok(done)) if done.rows_affected() == 1 => last = tokio::time::Instant::now(),
                Ok(Ok(_)) => {
                    tracing::warn!(lease = epoch.name, epoch = epoch.number, "lease lost to another process");
                    return;
                }
                Ok(Err(error)) => tracing::warn!(lease = epoch.name, %error, "lease not renewed"),
                Err(_) => tracing::warn!(lease = epoch.name, "lease not renewed in time"),
            }
            if last.elapsed() > LEASE_TIME {
                return;
            }
        }
    }

    async fn give_back(&self, epoch: &Epoch) -> Result<(), DbError> {
        sqlx::query("UPDATE lease SET expires_at = '-infinity' WHERE name = $1 AND epoch = $2")
            .bind(epoch.name)
            .bind(epoch.number)
            .execute(self.db.pool())
            .await?;
        Ok(())
    }
}
