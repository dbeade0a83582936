//! Retention: what has stood long enough in a feed is dropped, by one process at a time.

use std::sync::Arc;
use std::time::Duration;

use deltran_runtime::lease::{Epoch, Pace, RoundError};
use deltran_runtime::{DbError, EngineContext};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::store;

const PACE: Pace =
    Pace { every: Duration::from_secs(600), longest: Duration::from_secs(3600), alert: "notification_retention" };
/// Dropped in one transaction.
const MOST: i64 = 5_000;

/// Drops what is older than the settings keep, while this process holds the lease, until shutdown.
pub async fn retain(context: EngineContext, settings: Settings, shutdown: CancellationToken) {
    let lease = context.lease("retention");
    let ending = shutdown.clone();
    let work = move |epoch: Epoch| {
        let (context, ending, age) = (context.clone(), ending.clone(), settings.retention_micros());
        async move { Ok::<_, RoundError>(round(&context, &epoch, age, &ending).await?) }
    };
    lease.rounds(shutdown, PACE, Arc::new(Notify::new()), work).await;
}

async fn round(
    context: &EngineContext,
    epoch: &Epoch,
    age_micros: i64,
    ending: &CancellationToken,
) -> Result<(), DbError> {
    while !ending.is_cancelled() {
        let mut tx = context.db.begin().await?;
        epoch.check(&mut tx).await?;
        let before = context.clock.now().plus_micros(-age_micros);
        let dropped = store::feed::drop_before(&mut tx, before, MOST).await?;
        tx.commit().await?;
        if dropped == 0 {
            break;
        }
        tracing::info!(notifications = dropped, "notifications dropped after their time");
    }
    Ok(())
}
