//! Leases with epochs: at most one process does the work of a singleton, and one that was frozen
//! cannot write when it wakes.
//!
//! A lease is a row (holder, epoch, expires_at by the database's clock). Every transaction of a
//! singleton begins with [`Epoch::check`], which locks the row as a foreign key would; take-over
//! raises the epoch, which is part of a key, and so waits for such transactions and makes every later
//! check of the old epoch fail. Renewal changes no key and waits for nobody: a transaction that is
//! longer than the lease does not lose it.
//!
//! A process that was stopped inside a transaction would hold take-over up for ever. So whoever takes over
//! ends the connections that stand in its way and wait for their client: Postgres rolls their
//! transactions back, as if the connection had broken. One that works is waited for.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::PgConnection;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::db::{Db, DbError};
use crate::error::Failure;
use crate::health::Health;
use crate::metrics::Metrics;

/// How long a lease lasts without renewal. With a look every [`TRY_EVERY`] and the start of the work, somebody else
/// leads within 5 s; a database that answers nothing for two seconds costs nobody the lease.
pub const LEASE_TIME: Duration = Duration::from_secs(3);
const TRY_EVERY: Duration = Duration::from_millis(500);
/// A take-over that waits longer looks who stands in its way, and again after as long.
const BLOCKED_FOR: Duration = Duration::from_millis(200);
/// A take-over waits no longer at once, in milliseconds, so that it ends with its process.
const LONGEST_WAIT: u32 = 1_500;
/// Postgres ended a wait for a lock.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// The tables of leases, for every engine's schema.
pub const TABLES: &str = include_str!("lease.sql");

/// Proof that a lease was taken, to be checked in each transaction.
#[derive(Debug, Clone)]
pub struct Epoch {
    name: &'static str,
    number: i64,
    /// Until when nobody else can have taken the lease, by this process's clock, which goes on while it is stopped.
    until: Arc<Mutex<Instant>>,
}

impl Epoch {
    /// The number; it rises with each take-over.
    pub fn number(&self) -> i64 {
        self.number
    }

    /// Fails with [`DbError::NotLeader`] where somebody else may hold the lease by now. For effects outside the
    /// database, just before them: one that was stopped leaves them undone when it wakes.
    pub fn current(&self) -> Result<(), DbError> {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if Instant::now() < until { Ok(()) } else { Err(DbError::NotLeader) }
    }

    fn renewed(&self, asked_at: Instant) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = asked_at + LEASE_TIME;
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

/// Who does the work of a singleton, as a process knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Leader {
    /// Nobody does, or it is not known.
    #[default]
    Unknown,
    /// This process.
    Here,
    /// Another one, which takes requests at this address.
    At(String),
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
    /// Where the holder takes requests.
    pub address: String,
    /// Told who holds it, where somebody wants to know.
    pub leader: Option<Arc<watch::Sender<Leader>>>,
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
        let mut away = false;
        while !shutdown.is_cancelled() {
            match self.take().await {
                Ok(Some(epoch)) => {
                    tracing::info!(lease = label, epoch = epoch.number, "lease taken");
                    // The database answers again; most work says nothing of readiness by itself.
                    if std::mem::take(&mut away) {
                        self.health.ready(&label);
                    }
                    held.set(1);
                    self.tell(Leader::Here);
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
                    self.tell(Leader::Unknown);
                    if let Err(error) = self.give_back(&epoch).await {
                        tracing::debug!(lease = label, %error, "lease not given back: it will expire");
                    }
                }
                Ok(None) => {
                    away = false;
                    self.health.ready(&label);
                    self.follow().await;
                }
                Err(error) => {
                    away = true;
                    self.health.not_ready(&label, error.to_string());
                }
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

    /// Does one piece of work as the holder of this lease. None where somebody else holds it, or took it meanwhile: then
    /// the work was broken off.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn once<F: Future>(&self, work: impl FnOnce(Epoch) -> F) -> Result<Option<F::Output>, DbError> {
        let Some(epoch) = self.take().await? else { return Ok(None) };
        let never = CancellationToken::new();
        let done = tokio::select! {
            done = work(epoch.clone()) => Some(done),
            () = self.renew(&epoch, &never) => None,
        };
        if let Err(error) = self.give_back(&epoch).await {
            tracing::debug!(lease = self.name, %error, "lease not given back: it will expire");
        }
        Ok(done)
    }

    fn tell(&self, leader: Leader) {
        if let Some(told) = &self.leader {
            told.send_if_modified(|last| std::mem::replace(last, leader.clone()) != leader);
        }
    }

    /// Finds out who holds it.
    async fn follow(&self) {
        if self.leader.is_none() {
            return;
        }
        let address = sqlx::query_scalar::<_, String>(
            "SELECT address FROM lease WHERE name = $1 AND expires_at >= clock_timestamp() AND address NOT IN ('', $2)",
        )
        .bind(self.name)
        // Whoever held it at this process's own address is gone.
        .bind(&self.address)
        .fetch_optional(self.db.pool())
        .await;
        // Whatever failed is told by the next try to take it.
        self.tell(address.ok().flatten().map_or(Leader::Unknown, Leader::At));
    }

    async fn take(&self) -> Result<Option<Epoch>, DbError> {
        // One that is held is only looked at: to lock it would be to wait for its holder's transaction.
        let held: Option<i32> =
            sqlx::query_scalar("SELECT 1 FROM lease WHERE name = $1 AND expires_at >= clock_timestamp()")
                .bind(self.name)
                .fetch_optional(self.db.pool())
                .await?;
        if held.is_some() {
            return Ok(None);
        }
        let asked_at = Instant::now();
        let mut tx = self.db.begin().await?;
        let process: i32 = sqlx::query_scalar("SELECT pg_backend_pid() FROM set_config('lock_timeout', $1, true)")
            .bind(LONGEST_WAIT.to_string())
            .fetch_one(&mut *tx)
            .await?;
        let number: Result<Option<i64>, sqlx::Error> = {
            let taking = sqlx::query_scalar(
                "INSERT INTO lease (name, holder, address, epoch, expires_at)
                 SELECT $1, $2, $3, 1, clock_timestamp() + $4 * interval '1 millisecond'
                 ON CONFLICT (name) DO UPDATE SET holder = $2, address = $3, epoch = lease.epoch + 1,
                     expires_at = clock_timestamp() + $4 * interval '1 millisecond'
                 WHERE lease.expires_at < clock_timestamp()
                 RETURNING epoch",
            )
            .bind(self.name)
            .bind(&self.holder)
            .bind(&self.address)
            .bind(LEASE_TIME.as_millis() as i64)
            .fetch_optional(&mut *tx);
            tokio::pin!(taking);
            loop {
                tokio::select! {
                    number = &mut taking => break number,
                    () = tokio::time::sleep(BLOCKED_FOR) => {
                        if let Err(error) = self.clear_the_way(process).await {
                            tracing::warn!(lease = self.name, %error, "who stands in the way of a take-over is not known");
                        }
                    }
                }
            }
        };
        match number {
            Ok(None) => Ok(None),
            Ok(Some(number)) => {
                tx.commit().await?;
                let until = Arc::new(Mutex::new(asked_at + LEASE_TIME));
                Ok(Some(Epoch { name: self.name, number, until }))
            }
            // Somebody works in a transaction of the last epoch.
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(LOCK_NOT_AVAILABLE) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Ends the connections that hold up `process`, a server process that takes an expired lease, where they wait for
    /// a client that does not go on. Whoever may log in as their user may do that.
    async fn clear_the_way(&self, process: i32) -> Result<(), DbError> {
        let mut tx = self.db.begin().await?;
        // The engine's role may not, the user that it logged in as may.
        sqlx::query("SET LOCAL ROLE NONE").execute(&mut *tx).await?;
        let idle: Vec<(i32, String)> = sqlx::query_as(
            "SELECT a.pid, a.application_name FROM unnest(pg_blocking_pids($1)) AS b (pid)
             JOIN pg_stat_activity a ON a.pid = b.pid WHERE a.wait_event_type = 'Client'",
        )
        .bind(process)
        .fetch_all(&mut *tx)
        .await?;
        for (pid, whose) in idle {
            // By itself: within the query above it might be called for connections that the query does not choose.
            sqlx::query("SELECT pg_terminate_backend($1)").bind(pid).execute(&mut *tx).await?;
            tracing::warn!(
                lease = self.name,
                whose,
                pid,
                "ended a transaction of the last holder, which does not go on"
            );
        }
        tx.commit().await
    }

    /// Returns when the lease is lost or shutdown is asked for.
    async fn renew(&self, epoch: &Epoch, shutdown: &CancellationToken) {
        loop {
            tokio::select! {
                () = self.db.renewals().due() => {}
                () = shutdown.cancelled() => return,
            }
            let asked_at = Instant::now();
            let renewal = self.db.renewals().renew(epoch.name, epoch.number);
            match tokio::time::timeout(LEASE_TIME / 2, renewal).await {
                Ok(Ok(true)) => epoch.renewed(asked_at),
                Ok(Ok(false)) => {
                    tracing::warn!(lease = epoch.name, epoch = epoch.number, "lease lost to another process");
                    return;
                }
                Ok(Err(error)) => tracing::warn!(lease = epoch.name, %error, "lease not renewed"),
                Err(_) => tracing::warn!(lease = epoch.name, "lease not renewed in time"),
            }
            if epoch.current().is_err() {
                return;
            }
        }
    }

    async fn give_back(&self, epoch: &Epoch) -> Result<(), DbError> {
        sqlx::query("UPDATE lease SET expires_at = '-infinity' WHERE name = $1 AND epoch = $2")
            .bind(epoch.name)
            .bind(epoch.number)
            .execute(self.db.renewing())
            .await?;
        Ok(())
    }
}
