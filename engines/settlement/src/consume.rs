//! `netting.completed` of the clearing engine: every netting set gets its one batch.

use std::sync::Arc;

use async_trait::async_trait;
use deltran_events::Event;
use deltran_events::data::clearing::NettingCompleted;
use deltran_kernel::Clock;
use deltran_messaging::{ApplyError, Delivery, Handler, Outgoing};
use deltran_runtime::metrics::Metrics;
use sqlx::PgConnection;
use tokio::sync::Notify;

use crate::domain::{Applied, Contradiction, Terms, announce};
use crate::store;

/// Files batches and wakes the driver.
pub struct Announcements {
    /// The present time.
    pub clock: Arc<dyn Clock>,
    /// Counts contradictions.
    pub metrics: Metrics,
    /// Told after each commit.
    pub wake: Arc<Notify>,
}

#[async_trait]
impl Handler for Announcements {
    async fn apply(&self, tx: &mut PgConnection, events: &[Delivery]) -> Result<Vec<Outgoing>, ApplyError> {
        let mut outgoing = Vec::new();
        for delivery in events {
            let Some(Event::NettingCompleted(event)) = delivery.engine_event() else { continue };
            outgoing.extend(self.announced(&mut *tx, delivery, event).await?);
        }
        Ok(outgoing)
    }

    fn committed(&self) {
        self.wake.notify_one();
    }
}

impl Announcements {
    async fn announced(
        &self,
        tx: &mut PgConnection,
        delivery: &Delivery,
        event: &NettingCompleted,
    ) -> Result<Option<Outgoing>, ApplyError> {
        let terms = Terms::of(event).map_err(|e| self.refused(delivery, &e))?;
        let known = store::of_netting_set(&mut *tx, terms.netting_set_id).await?;
        let taken = store::taken(&mut *tx, &terms.window_ids).await?;
        match announce(terms, known.as_ref(), taken, self.clock.now()).map_err(|e| self.refused(delivery, &e))? {
            Applied::AlreadyApplied(batch) => {
                tracing::debug!(batch.id = %batch, "the netting set has its batch already");
                Ok(None)
            }
            Applied::Executed((batch, created)) => {
                store::insert(tx, &batch).await?;
                let mut outgoing = Outgoing::new(created, batch.terms.netting_set_id, crate::USER);
                outgoing.context.causation_id = delivery.event_id();
                Ok(Some(outgoing))
            }
        }
    }

    fn refused(&self, delivery: &Delivery, contradiction: &Contradiction) -> ApplyError {
        // The same message comes again before it is put aside: one breach, not ten.
        if delivery.attempt <= 1 {
            self.metrics.breach(contradiction.invariant(), &contradiction.to_string());
        }
        ApplyError::Permanent(contradiction.to_string())
    }
}
