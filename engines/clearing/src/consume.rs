//! Events of other engines: obligations from the ledger, what became of batches from settlement.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use deltran_events::Event;
use deltran_kernel::{Currency, EventId, NettingSetId, WindowId};
use deltran_messaging::{ApplyError, Delivery, Handler, Outgoing};
use sqlx::PgConnection;

use crate::commands::{self, Clearing, USER};
use crate::domain::obligations::{self, Contradiction, Obligation, Tally};
use crate::domain::settling::{self, Batch};
use crate::domain::window::Decision;
use crate::store;

impl From<Contradiction> for ApplyError {
    fn from(contradiction: Contradiction) -> Self {
        Self::Permanent(contradiction.0)
    }
}

/// Counts obligations.
pub struct Transactions(pub Clearing);

#[async_trait]
impl Handler for Transactions {
    async fn apply(&self, tx: &mut PgConnection, events: &[Delivery]) -> Result<Vec<Outgoing>, ApplyError> {
        let mut new: BTreeMap<WindowId, Vec<Obligation>> = BTreeMap::new();
        for delivery in events {
            if let Some(event) = delivery.engine_event()
                && let Some(obligation) = obligations::of_event(event)?
            {
                new.entry(obligation.window).or_default().push(obligation);
            }
        }
        if new.is_empty() {
            return Ok(Vec::new());
        }
        // The window row is not asked: the ledger decides what a window is, and it may be ahead.
        let windows: Vec<WindowId> = new.keys().copied().collect();
        let mut tallies = store::lock_tallies(tx, &windows).await?;
        let waiting = store::waiting_of(tx, &windows).await?;
        let none = BTreeMap::new();
        let mut taken = BTreeMap::new();
        for (window, obligations) in &new {
            let Some(first) = obligations.first() else { continue };
            let tally = tallies.remove(window).unwrap_or_else(|| Tally::new(first.currency));
            taken.insert(*window, obligations::take(tally, waiting.get(window).unwrap_or(&none), obligations)?);
        }
        let all: Vec<Obligation> = new.into_values().flatten().collect();
        store::store_taken(tx, &taken, &obligations::pair_totals(&all)?).await?;
        Ok(Vec::new())
    }

    fn committed(&self) {
        self.0.nudge();
    }
}

/// Follows batches.
pub struct Settlement(pub Clearing);

struct Followed {
    set: NettingSetId,
    currency: Currency,
    batch: Batch,
    cause: Option<EventId>,
}

fn followed(event: &Event, cause: Option<EventId>) -> Option<Followed> {
    let (set, currency, batch) = match event {
        Event::BatchCreated(e) => (e.netting_set_id, e.currency, Batch::Created),
        Event::BatchSettled(e) => (e.netting_set_id, e.currency, Batch::Settled(e.final_at)),
        Event::BatchAborted(e) => (e.netting_set_id, e.currency, Batch::Aborted(e.reason.clone())),
        _ => return None,
    };
    Some(Followed { set, currency, batch, cause })
}

#[async_trait]
impl Handler for Settlement {
    async fn apply(&self, tx: &mut PgConnection, events: &[Delivery]) -> Result<Vec<Outgoing>, ApplyError> {
        let mut all = Vec::new();
        for delivery in events {
            all.extend(delivery.engine_event().and_then(|event| followed(event, delivery.event_id())));
        }
        let currencies: BTreeSet<Currency> = all.iter().map(|f| f.currency).collect();
        store::lock_currencies(tx, &currencies).await?;
        let mut outgoing = Vec::new();
        for Followed { set, currency, batch, cause } in all {
            // The set says which windows it covers; the event only names them.
            if store::currency_of_set(&mut *tx, set).await? != Some(currency) {
                return Err(ApplyError::Permanent(format!(
                    "a batch of {currency} names netting set {set}, which is none of its sets"
                )));
            }
            let ids = store::windows_of_set(&mut *tx, set).await?;
            for window in store::windows_for_update(tx, &ids).await? {
                match settling::apply(&window, set, &batch).map_err(|e| ApplyError::Permanent(e.to_string()))? {
                    Decision::AlreadyApplied => {}
                    Decision::Executed(change) => {
                        store::apply(tx, &change.writes).await?;
                        let events = commands::outgoing(change.events, USER);
                        outgoing.extend(events.into_iter().map(|e| match cause {
                            Some(cause) => e.caused_by(cause),
                            None => e,
                        }));
                    }
                }
            }
        }
        Ok(outgoing)
    }

    fn committed(&self) {
        self.0.nudge();
    }
}
