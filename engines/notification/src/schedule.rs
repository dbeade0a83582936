//! Retention: what has stood long enough in a feed, and deliveries that ended long ago, are dropped by one process at a
//! time.

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

/// What is dropped.
#[derive(Debug, Clone, Copy)]
enum What {
    Notifications,
    Deliveries,
}

/// Drops what is older than the settings keep, while this process holds the lease, until shutdown.
pub async fn retain(context: EngineContext, settings: Settings, shutdown: CancellationToken) {
    let lease = context.lease("retention");
    let ending = shutdown.clone();
    let ages =
        [(What::Notifications, settings.retention_micros()), (What::Deliveries, settings.webhooks.retention_micros())];
    let work = move |epoch: Epoch| {
        let (context, ending) = (context.clone(), ending.clone());
        async move {
            for (what, age) in ages {
                round(&context, &epoch, what, age, &ending).await?;
            }
            Ok::<_, RoundError>(())
        }
    };
    lease.rounds(shutdown, PACE, Arc::new(Notify::new()), work).await;
}

async fn round(
    context: &EngineContext,
    epoch: &Epoch,
    what: What,
    age_micros: i64,
    ending: &CancellationToken,
) -> Result<(), DbError> {
    while !ending.is_cancelled() {
        let mut tx = context.db.begin().await?;
        epoch.check(&mut tx).await?;
        let before = context.clock.now().plus_micros(-age_micros);
        let dropped = match what {
            What::Notifications => store::feed::drop_before(&mut tx, before, MOST).await?,
            What::Deliveries => store::deliveries::drop_before(&mut tx, before, MOST).await?,
        };
        tx.commit().await?;
        if dropped == 0 {
            break;
        }
        tracing::info!(?what, dropped, "dropped after their time");
    }
    Ok(())
}
