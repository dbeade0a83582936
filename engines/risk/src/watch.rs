//! What the engine does by itself as time passes: breakers that trip and recover, alarms, snapshots of
//! exposures, and forgetting what counts nowhere any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deltran_events::data::risk::{
    BreakerClosed, BreakerHalfOpened, BreakerMode, BreakerOpened, BreakerTrigger, ThresholdBreached, ThresholdCleared,
};
use deltran_kernel::{CommandId, Minor, Money, Timestamp};
use deltran_messaging::{DoorTx, Outgoing};
use deltran_runtime::DbError;
use deltran_runtime::lease::Epoch;

use crate::config::HISTORY_SECONDS;
use crate::domain::alarm::{changes, fraction};
use crate::domain::book::oldest_hour;
use crate::domain::breaker::{Breaker, BreakerState, Seen, Step, Trouble, automatic};
use crate::domain::scope::Scope;
use crate::domain::trigger::{History, bucket_of, look, since};
use crate::gate::Usage;
use crate::handle::{Desk, USER};
use crate::store::{self, Alarm};

/// Microseconds between two rounds that delete what counts nowhere any more.
const FORGET_EVERY: i64 = 60_000_000;

/// What is published of a breaker that was set.
pub(crate) fn breaker_event(breaker: &Breaker, probes: u32, correlation: CommandId) -> Outgoing {
    let Breaker { scope, state, trigger, reason, changed_by, .. } = breaker.clone();
    let user = changed_by.clone();
    let text = scope.to_string();
    let opened = |mode| BreakerOpened {
        scope: text.clone(),
        reason: reason.clone(),
        changed_by: changed_by.clone(),
        mode: Some(mode),
        trigger: Some(trigger),
    };
    let event = match state {
        BreakerState::Open => Outgoing::new(opened(BreakerMode::Open), correlation, user),
        BreakerState::Reducing => Outgoing::new(opened(BreakerMode::Reducing), correlation, user),
        BreakerState::HalfOpen => {
            Outgoing::new(BreakerHalfOpened { scope: text.clone(), reason, changed_by, probes }, correlation, user)
        }
        BreakerState::Closed => {
            Outgoing::new(BreakerClosed { scope: text.clone(), reason, changed_by }, correlation, user)
        }
    };
    match scope {
        Scope::Participant(participant) => event.of(participant),
        _ => event,
    }
}

#[derive(Default)]
struct Known {
    /// Decisions as of this version of the book.
    version: u64,
    histories: BTreeMap<Scope, History>,
    snapshot_due: Option<Timestamp>,
    forget_due: Option<Timestamp>,
}

/// The watch of an engine: a singleton by lease.
pub struct Watch {
    desk: Arc<Desk>,
    known: Mutex<Known>,
}

impl Watch {
    /// A watch that knows nothing yet.
    pub fn new(desk: Arc<Desk>) -> Self {
        Self { desk, known: Mutex::new(Known::default()) }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One round at `at`. Every transaction begins with the check of `epoch`, where there is one; `behind` says
    /// for how long counted data has been behind the ledger.
    pub async fn round(&self, epoch: Option<&Epoch>, at: Timestamp, behind: Duration) -> Result<(), DbError> {
        self.breakers(epoch, at, behind).await?;
        self.alarms(epoch, at).await?;
        self.snapshots(epoch, at).await?;
        self.forget(epoch, at).await
    }

    async fn begin(&self, name: &'static str, epoch: Option<&Epoch>) -> Result<DoorTx, DbError> {
        let mut tx = self.desk.door.begin(name).await?;
        if let Some(epoch) = epoch {
            epoch.check(&mut tx).await?;
        }
        Ok(tx)
    }

    async fn breakers(&self, epoch: Option<&Epoch>, at: Timestamp, behind: Duration) -> Result<(), DbError> {
        self.load(at).await?;
        let breakers = store::all_breakers(self.desk.door.db().pool()).await?;
        let stale = self.stale(behind);
        let due: Vec<(Scope, Seen)> = {
            let known = self.known();
            let scopes: BTreeSet<Scope> = known
                .histories
                .keys()
                .chain(breakers.keys())
                .chain(stale.iter().flat_map(|(scopes, _)| scopes))
                .copied()
                .collect();
            scopes
                .into_iter()
                .filter_map(|scope| {
                    let present = breakers.get(&scope);
                    let empty = History::new();
                    let history = known.histories.get(&scope).unwrap_or(&empty);
                    let mut seen = look(&self.desk.settings.thresholds(scope), history, since(present), at);
                    if let Some((_, trouble)) = stale.as_ref().filter(|(scopes, _)| scopes.contains(&scope)) {
                        seen.trouble = Some(trouble.clone());
                    }
                    automatic(scope, present, &seen, &self.desk.settings.recovery, USER, at).map(|_| (scope, seen))
                })
                .collect()
        };
        for (scope, seen) in due {
            self.step(epoch, scope, &seen, at).await?;
        }
        Ok(())
    }

    /// The scopes in which counted data decides, where it is too far behind the ledger.
    fn stale(&self, behind: Duration) -> Option<(BTreeSet<Scope>, Trouble)> {
        let after = self.desk.settings.stale_data_after()?;
        if behind < after {
            return None;
        }
        let reason = format!("what counts against limits is {} s behind the ledger", behind.as_secs());
        Some((self.desk.gate.counted_scopes(), Trouble { trigger: BreakerTrigger::StaleData, reason }))
    }

    /// Reads decisions that are newer than what is known, and forgets old ones.
    async fn load(&self, at: Timestamp) -> Result<(), DbError> {
        let oldest = bucket_of(at) - HISTORY_SECONDS;
        let before = self.known().version;
        let (version, newer) = store::decisions(self.desk.door.db(), before, oldest).await?;
        let mut known = self.known();
        if version < before {
            known.histories.clear();
        }
        for (scope, history) in newer {
            known.histories.entry(scope).or_default().extend(history);
        }
        known.histories.retain(|_, history| {
            *history = history.split_off(&oldest);
            !history.is_empty()
        });
        known.version = version;
        Ok(())
    }

    async fn step(&self, epoch: Option<&Epoch>, scope: Scope, seen: &Seen, at: Timestamp) -> Result<(), DbError> {
        let recovery = &self.desk.settings.recovery;
        let mut tx = self.begin("breaker", epoch).await?;
        let version = store::lock_version(&mut tx).await? + 1;
        // A person may have set it in the meantime.
        let present = store::lock_breaker(&mut tx, scope).await?;
        match automatic(scope, present.as_ref(), seen, recovery, USER, at) {
            None => Ok(()),
            Some(Step::Extended(breaker)) => {
                store::extend_breaker(&mut tx, &breaker).await?;
                tx.commit(&[]).await
            }
            Some(Step::Changed(breaker)) => {
                let id = CommandId::new(self.desk.ids.next_id(at));
                store::set_version(&mut tx, version).await?;
                store::save_breaker(&mut tx, id, &breaker).await?;
                tx.commit(&[breaker_event(&breaker, recovery.probes, id)]).await?;
                tracing::warn!(
                    breaker.scope = %scope, breaker.state = breaker.state.as_str(), reason = breaker.reason,
                    "a breaker changed by itself"
                );
                self.desk.gate.reload().await
            }
        }
    }

    async fn alarms(&self, epoch: Option<&Epoch>, at: Timestamp) -> Result<(), DbError> {
        // What is not known rings no alarm and clears none.
        if self.desk.gate.is_known().is_err() {
            return Ok(());
        }
        let usages = self.desk.gate.usages();
        let ringing = store::alarms(self.desk.door.db()).await?;
        let (mut rows, mut events) = (Vec::new(), Vec::new());
        for usage in usages {
            let Usage { kind, participant, counterparty, currency, ceiling, used } = usage;
            let alarm = |threshold| Alarm { kind, participant, counterparty, currency, threshold };
            let thresholds = ringing.range(alarm(0)..=alarm(u32::MAX)).map(|a| a.threshold).collect();
            let share = fraction(used, ceiling.most.units());
            for change in changes(&self.desk.settings.alarms, share, &thresholds) {
                rows.push((alarm(change.threshold), change.breached));
                events.push(threshold_event(&usage, share, change.threshold, change.breached));
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        let mut tx = self.begin("alarms", epoch).await?;
        store::set_alarms(&mut tx, &rows, at).await?;
        tx.commit(&events).await
    }

    async fn snapshots(&self, epoch: Option<&Epoch>, at: Timestamp) -> Result<(), DbError> {
        let Some(every) = self.desk.settings.snapshot_every else { return Ok(()) };
        let due = self.known().snapshot_due.get_or_insert(at.plus_micros(every)).to_owned();
        if at < due {
            return Ok(());
        }
        let mut tx = self.begin("snapshot", epoch).await?;
        let snapshots = store::snapshot(&mut tx, &BTreeMap::new()).await?;
        let events: Vec<Outgoing> = snapshots.into_iter().map(|s| Outgoing::new(s.clone(), s.currency, USER)).collect();
        tx.commit(&events).await?;
        self.known().snapshot_due = Some(at.plus_micros(every));
        Ok(())
    }

    async fn forget(&self, epoch: Option<&Epoch>, at: Timestamp) -> Result<(), DbError> {
        if self.known().forget_due.is_some_and(|due| at < due) {
            return Ok(());
        }
        let mut tx = self.begin("forget", epoch).await?;
        store::forget(&mut tx, oldest_hour(at) - 24, bucket_of(at) - HISTORY_SECONDS).await?;
        tx.commit(&[]).await?;
        self.known().forget_due = Some(at.plus_micros(FORGET_EVERY));
        Ok(())
    }
}

fn threshold_event(usage: &Usage, fraction: u32, threshold: u32, breached: bool) -> Outgoing {
    let Usage { kind, participant, counterparty, currency, ceiling, used } = *usage;
    let limit_id = ceiling.limit_id;
    let amount = |minor| Money::new(minor, currency).into();
    let (limit, used) = (amount(ceiling.most), amount(Minor::new(used).unwrap_or_default()));
    let outgoing = if breached {
        let event =
            ThresholdBreached { limit_id, kind, participant, counterparty, currency, limit, used, fraction, threshold };
        Outgoing::new(event, limit_id, USER)
    } else {
        let event =
            ThresholdCleared { limit_id, kind, participant, counterparty, currency, limit, used, fraction, threshold };
        Outgoing::new(event, limit_id, USER)
    };
    outgoing.of(participant)
}
