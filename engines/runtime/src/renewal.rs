//! Renewals of leases: those of an engine that are due at the same time are one statement.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::db::DbError;
use crate::lease::LEASE_TIME;

/// How often a lease is renewed.
const EVERY: Duration = Duration::from_millis(750);
/// What is asked for in this time goes along.
const GATHER: Duration = Duration::from_millis(10);

/// One lease that is due.
struct Due {
    name: &'static str,
    epoch: i64,
    reply: oneshot::Sender<Result<bool, DbError>>,
}

/// The way to whoever renews an engine's leases. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Renewals {
    due: mpsc::UnboundedSender<Due>,
    /// Leases are renewed at the same moments after this one, whenever they were taken.
    origin: Instant,
}

impl Renewals {
    /// Renews by `pool`, in which nothing may wait for another, until the last clone is gone.
    pub(crate) fn by(pool: PgPool) -> Self {
        let (due, mut waiting) = mpsc::unbounded_channel::<Due>();
        tokio::spawn(async move {
            while let Some(first) = waiting.recv().await {
                tokio::time::sleep(GATHER).await;
                let mut all = vec![first];
                while let Ok(more) = waiting.try_recv() {
                    all.push(more);
                }
                // Who asked has given up.
                all.retain(|due| !due.reply.is_closed());
                renew(&pool, all).await;
            }
        });
        Self { due, origin: Instant::now() }
    }

    /// Completes when the leases of the engine are due next.
    pub(crate) async fn due(&self) {
        let gone = self.origin.elapsed().as_millis();
        let next = Duration::from_millis((gone / EVERY.as_millis() + 1) as u64 * EVERY.as_millis() as u64);
        tokio::time::sleep_until(self.origin + next).await;
    }

    /// Renews a lease; `false` where its epoch is over.
    pub(crate) async fn renew(&self, name: &'static str, epoch: i64) -> Result<bool, DbError> {
        let (reply, answer) = oneshot::channel();
        // A closed channel drops the reply, which the receiver sees.
        let _closed = self.due.send(Due { name, epoch, reply });
        answer.await.unwrap_or_else(|_| Err(DbError::Unavailable("nobody renews leases any more".into())))
    }
}

async fn renew(pool: &PgPool, all: Vec<Due>) {
    let wanted: BTreeSet<(&str, i64)> = all.iter().map(|due| (due.name, due.epoch)).collect();
    let (names, epochs): (Vec<&str>, Vec<i64>) = wanted.into_iter().unzip();
    let renewing = sqlx::query_as(
        "UPDATE lease SET expires_at = clock_timestamp() + $3 * interval '1 millisecond'
         FROM UNNEST($1::text[], $2::bigint[]) AS due (name, epoch)
         WHERE lease.name = due.name AND lease.epoch = due.epoch RETURNING lease.name, lease.epoch",
    )
    .bind(names)
    .bind(epochs)
    .bind(LEASE_TIME.as_millis() as i64)
    .fetch_all(pool);
    // A connection that hangs is given up, as each that asked gives up.
    let renewed: Result<BTreeSet<(String, i64)>, DbError> = match tokio::time::timeout(LEASE_TIME / 2, renewing).await {
        Ok(rows) => rows.map(BTreeSet::from_iter).map_err(DbError::from),
        Err(_) => Err(DbError::Unavailable("it did not answer in time".into())),
    };
    for Due { name, epoch, reply } in all {
        let answer = match &renewed {
            Ok(renewed) => Ok(renewed.contains(&(name.to_owned(), epoch))),
            Err(error) => Err(DbError::Unavailable(error.to_string())),
        };
        let _gone = reply.send(answer);
    }
}
