//! What was found to be whole, so that it is not found again for every report of the same day.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use deltran_events::Domain;
use deltran_kernel::{Currency, ParticipantId, Timestamp, WindowId};
use sqlx::PgConnection;
use tokio::time::Instant;

use super::{Halt, Producer};
use crate::domain::position::Position;
use crate::domain::settled::{WindowFacts, legs_agree, window_ready};
use crate::ledger;
use crate::store::{self, Applied};

/// The ledger's writer gives up a batch that takes longer; what it has not committed by then gets a later time.
const LONGEST_BATCH_MICROS: i64 = 30_000_000;
/// How long a report waits in place for the events that the ledger has published just now.
const CATCH_UP: Duration = Duration::from_secs(20);
/// How often the position is looked at where no signal arrives, because another process applies.
const LOOK: Duration = Duration::from_millis(200);

/// Windows and days that are whole. It is kept for one term of the worker: what is whole stays whole.
#[derive(Debug, Default)]
pub struct Proofs {
    windows: Mutex<BTreeSet<WindowId>>,
    /// Ends of days, up to which every event has arrived.
    over: Mutex<Option<Timestamp>>,
}

impl Proofs {
    fn has_window(&self, id: WindowId) -> bool {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }

    fn add_window(&self, id: WindowId) {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
    }

    fn over(&self, end: Timestamp) -> bool {
        self.over.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|over| over >= end)
    }

    fn set_over(&self, end: Timestamp) {
        let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        *over = (*over).max(Some(end));
    }
}

impl Producer {
    async fn applied(&self) -> Result<Applied, Halt> {
        let source = Domain::Transactions.source();
        Ok(store::applied(self.context.db.pool(), "events_transactions_reporting", source).await?)
    }

    /// Waits a while until the ledger's events up to one are applied.
    pub(super) async fn reaches(&self, position: Position) -> Result<(), Halt> {
        let deadline = Instant::now() + CATCH_UP;
        loop {
            let signal = self.applied.notified();
            let applied = self.applied().await?;
            if position.seq == 0 || applied.position >= position {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let at = applied.position;
                return Err(Halt::Waits(format!(
                    "the ledger stands at event {position}, its events have arrived up to {at}"
                )));
            }
            // Either a batch was applied, or it is time to look at what another process applied.
            let _ = tokio::time::timeout(LOOK, signal).await;
        }
    }

    /// Where the ledger stands, once its events up to there are applied.
    pub(super) async fn so_far(&self, currency: Currency, participant: ParticipantId) -> Result<Position, Halt> {
        let said = ledger::balances(&self.context, currency, Some(participant)).await?;
        self.reaches(said.position).await?;
        Ok(said.position)
    }

    /// Every event of the ledger before `end` is applied: because one after it is, with none missing, or because the
    /// ledger says long enough after it that there are no more.
    pub(super) async fn day_over(
        &self,
        end: Timestamp,
        currency: Currency,
        participant: ParticipantId,
        proofs: &Proofs,
    ) -> Result<(), Halt> {
        if proofs.over(end) {
            return Ok(());
        }
        let applied = self.applied().await?;
        if applied.gap {
            return Err(Halt::Waits(format!("events of the ledger are missing after {}", applied.position)));
        }
        if applied.last_at.is_none_or(|last| last < end) {
            if self.context.clock.now() < end.plus_micros(LONGEST_BATCH_MICROS) {
                return Err(Halt::Waits("the day ended a moment ago: the ledger may still be at work on it".into()));
            }
            self.so_far(currency, participant).await?;
        }
        proofs.set_over(end);
        Ok(())
    }

    /// P3 and P4 for a window: everything that was sealed has arrived, it is settled, and the legs are its nets.
    pub(super) async fn window_whole(&self, db: &mut PgConnection, id: WindowId, proofs: &Proofs) -> Result<(), Halt> {
        if proofs.has_window(id) {
            return Ok(());
        }
        let facts = store::window_facts(&mut *db, id).await?;
        Halt::unless_ready(window_ready(id, facts.as_ref(), true), "P3")?;
        let posted = facts.as_ref().and_then(|facts| facts.posted.as_ref());
        let Some(group) = posted.map(|posted| posted.group) else { return Ok(()) };
        let mut windows: BTreeMap<WindowId, WindowFacts> = facts.into_iter().map(|facts| (id, facts)).collect();
        for other in store::windows_of_group(&mut *db, group).await? {
            if other != id {
                let facts = store::window_facts(&mut *db, other).await?;
                Halt::unless_ready(window_ready(other, facts.as_ref(), true), "P3")?;
                windows.extend(facts.map(|facts| (other, facts)));
            }
        }
        let legs = store::legs_of(&mut *db, group).await?;
        legs_agree(windows.values(), &legs).map_err(|e| Halt::Breach("P4", format!("settlement {group}: {e}")))?;
        windows.keys().for_each(|id| proofs.add_window(*id));
        Ok(())
    }
}
