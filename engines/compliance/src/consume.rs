//! Monitoring: committed transactions of the ledger, after the fact.
//!
//! What is added up is remembered between batches, because reading it each time would cost more than all
//! else. It is trusted only where the batch that was taken last by the database is the one that is
//! remembered: after a batch that was not committed, or that another process took, it is read anew.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use deltran_events::Event;
use deltran_events::data::compliance::{CaseCause, RuleMode};
use deltran_events::data::transactions::TransactionState;
use deltran_kernel::{AlertId, EventId, Timestamp};
use deltran_messaging::{ApplyError, Delivery, Handler, Outgoing};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::alert::Alert;
use crate::domain::case::{Action, Subject};
use crate::domain::monitor::{Crossed, Monitor};
use crate::domain::rule::Seen;
use crate::handle::{Desk, PLATFORM, bring_to_cases};
use crate::store;

/// The most buckets that are remembered: some hundred megabytes at worst.
const MOST_REMEMBERED: usize = 500_000;

/// What is remembered of monitoring, as of a batch and a revision of the rules.
struct Memory {
    batch: Uuid,
    rules: i64,
    monitor: Monitor,
}

#[derive(Default)]
struct Remembered {
    /// As of the last batch that was committed.
    committed: Option<Memory>,
    /// As of a batch whose COMMIT is awaited.
    taken: Option<Memory>,
}

/// Watches committed transactions.
pub struct Watch {
    desk: Arc<Desk>,
    remembered: Mutex<Remembered>,
}

impl Watch {
    /// A watch that remembers nothing yet.
    pub fn new(desk: Arc<Desk>) -> Self {
        Self { desk, remembered: Mutex::default() }
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        // What a panic left behind is not trusted unless its batch was committed.
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The monitor as of the batch that was taken last.
    async fn recall(&self, tx: &mut PgConnection, last: Option<Uuid>, rules: i64) -> Result<Monitor, ApplyError> {
        let known = {
            let mut remembered = self.remembered();
            remembered.taken = None;
            remembered.committed.take()
        };
        if let Some(memory) = known
            && Some(memory.batch) == last
            && memory.rules == rules
        {
            let mut monitor = memory.monitor;
            if monitor.len() > MOST_REMEMBERED {
                monitor.forget();
            }
            return Ok(monitor);
        }
        let applied = store::applied_rules(tx).await?;
        store::drop_others(tx, &applied).await?;
        Ok(Monitor::new(applied))
    }

    async fn raise(
        &self,
        tx: &mut PgConnection,
        monitor: &Monitor,
        crossed: Vec<(Crossed, Option<EventId>)>,
    ) -> Result<Vec<Outgoing>, ApplyError> {
        let at = self.desk.clock.now();
        let (mut alerts, causes): (Vec<Alert>, Vec<Option<EventId>>) = crossed
            .into_iter()
            .map(|(crossed, cause)| {
                let alert_id = AlertId::new(self.desk.ids.next_id(at));
                (alert(monitor, crossed, alert_id, at), cause)
            })
            .unzip();
        let subject = |alert: &Alert| Subject::Participant(alert.thread.payer);
        let brought: Vec<(Subject, Action)> = alerts
            .iter()
            .filter(|alert| !alert.shadow)
            .map(|alert| (subject(alert), Action::Alert(alert.alert_id)))
            .collect();
        let (cases, mut events) = bring_to_cases(tx, &*self.desk.ids, at, CaseCause::Alert, &brought).await?;
        for (alert, cause) in alerts.iter_mut().zip(causes).filter(|(alert, _)| !alert.shadow) {
            alert.case_id = cases.get(&subject(alert)).copied();
            let event = Outgoing::new(alert.event(), alert.transaction_id, PLATFORM).of(alert.thread.payer);
            events.push(match cause {
                Some(cause) => event.caused_by(cause),
                None => event,
            });
        }
        store::insert_alerts(tx, &alerts).await?;
        Ok(events)
    }
}

fn alert(monitor: &Monitor, crossed: Crossed, alert_id: AlertId, raised_at: Timestamp) -> Alert {
    let rule = &monitor.rules()[crossed.rule].rule;
    Alert {
        alert_id,
        rule: rule.definition.name.clone(),
        version: rule.version,
        kind: rule.definition.kind(),
        shadow: rule.definition.mode == RuleMode::Shadow,
        thread: crossed.thread,
        from: crossed.from,
        to: crossed.to,
        sum: crossed.sum,
        limit: crossed.limit,
        transaction_id: crossed.transaction_id,
        transactions: crossed.transactions,
        raised_at,
        case_id: None,
    }
}

/// The transaction that an event of the ledger commits, where it does.
fn committed(delivery: &Delivery) -> Result<Option<Seen>, ApplyError> {
    let Ok((envelope, _)) = &*delivery.envelope else { return Ok(None) };
    let (transaction_id, payer, payee, amount, currency) = match delivery.engine_event() {
        Some(Event::TransactionCreated(e)) if e.state == TransactionState::Committed => {
            (e.transaction_id, e.payer, e.payee, &e.amount, e.currency)
        }
        Some(Event::TransactionCommitted(e)) => (e.transaction_id, e.payer, e.payee, &e.amount, e.currency),
        _ => return Ok(None),
    };
    let amount = amount.money(currency).map_err(|e| ApplyError::Permanent(format!("{transaction_id}: {e}")))?;
    Ok(Some(Seen { transaction_id, payer, payee, amount, at: envelope.timestamp }))
}

#[async_trait]
impl Handler for Watch {
    async fn apply(&self, tx: &mut PgConnection, events: &[Delivery]) -> Result<Vec<Outgoing>, ApplyError> {
        let mut seen = Vec::with_capacity(events.len());
        let mut causes = BTreeMap::new();
        for delivery in events {
            if let Some(one) = committed(delivery)? {
                causes.insert(one.transaction_id, delivery.event_id());
                seen.push(one);
            }
        }
        if seen.is_empty() {
            return Ok(Vec::new());
        }
        let batch = self.desk.ids.next_id(self.desk.clock.now());
        let (last, rules) = store::begin_batch(tx, batch).await?;
        let mut monitor = self.recall(tx, last, rules).await?;
        let wanted = monitor.wanted(&seen);
        if !wanted.is_empty() {
            let threads = store::read_threads(tx, monitor.rules(), &wanted).await?;
            monitor.know(threads);
        }
        let mut taken = monitor.take(&seen).map_err(|e| ApplyError::Permanent(e.to_string()))?;
        store::write_taken(tx, monitor.rules(), &taken).await?;
        let crossed = std::mem::take(&mut taken.crossed)
            .into_iter()
            .map(|crossed| {
                let cause = causes.get(&crossed.transaction_id).copied().flatten();
                (crossed, cause)
            })
            .collect();
        let outgoing = self.raise(tx, &monitor, crossed).await?;
        self.remembered().taken = Some(Memory { batch, rules, monitor });
        Ok(outgoing)
    }

    fn committed(&self) {
        let mut remembered = self.remembered();
        if let Some(memory) = remembered.taken.take() {
            remembered.committed = Some(memory);
        }
    }

    async fn reads(&self) -> Option<&'static [&'static str]> {
        Some(&["events.transactions.transaction.created", "events.transactions.transaction.committed"])
    }
}
