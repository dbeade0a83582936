//! Events of the ledger: counted in the same transaction as they are received, then handed to the gate.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use deltran_events::Event;
use deltran_kernel::{Currency, EventId, Timestamp, TransactionId, WindowId};
use deltran_messaging::{ApplyError, Delivery, Handler, Outgoing};
use sqlx::PgConnection;
use tokio::time::Instant;

use crate::domain::count::{Contradiction, Fact, Sums, fact_of, waits};
use crate::handle::{Desk, USER};
use crate::store::{self, Counted};

impl From<Contradiction> for ApplyError {
    fn from(contradiction: Contradiction) -> Self {
        Self::Permanent(contradiction.0)
    }
}

/// For how long what was counted waits for its COMMIT. After that another process may have counted
/// something else under its version, and it is read from the database instead.
const HANDOVER: Duration = Duration::from_secs(2);

/// What a batch counted, until it is committed.
struct Kept {
    version: u64,
    facts: Vec<Fact>,
    since: Instant,
}

/// Counts transactions and windows.
pub struct Transactions {
    desk: Arc<Desk>,
    kept: Mutex<Option<Kept>>,
}

impl Transactions {
    /// The handler of an engine.
    pub fn new(desk: Arc<Desk>) -> Self {
        Self { desk, kept: Mutex::new(None) }
    }

    fn keep(&self, next: Option<Kept>) -> Option<Kept> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *kept, next)
    }

    /// What the events mean, in their order, and the sums of it.
    async fn read(tx: &mut PgConnection, events: &[(&Event, Timestamp)]) -> Result<(Vec<Fact>, Counted), ApplyError> {
        let ids: BTreeSet<TransactionId> = events.iter().filter_map(|(event, _)| waits(event)).collect();
        let ids: Vec<TransactionId> = ids.into_iter().collect();
        let before = if ids.is_empty() { BTreeMap::new() } else { store::waiting_of(tx, &ids).await? };
        let mut waiting = before.clone();
        let mut facts = Vec::with_capacity(events.len());
        let mut sums = Sums::default();
        for (event, at) in events {
            if let Some(fact) = fact_of(event, *at, &mut waiting)? {
                sums.add(&fact);
                facts.push(fact);
            }
        }
        let mut changed: BTreeMap<_, _> = before.keys().map(|id| (*id, None)).collect();
        changed.extend(waiting.into_iter().map(|(id, waiting)| (id, Some(waiting))));
        changed.retain(|id, waiting| before.get(id) != waiting.as_ref());
        Ok((facts, Counted { sums, waiting: changed }))
    }

    /// Follows the use of liquidity through committed transactions, in their order.
    async fn days(&self, tx: &mut PgConnection, facts: &[Fact]) -> Result<(), ApplyError> {
        let mut keys = BTreeSet::new();
        let mut sent = Vec::new();
        for fact in facts {
            let Fact::Committed { payment, at, .. } = fact else { continue };
            let day = self.desk.settings.day_of(*at);
            let payer = (payment.payer, payment.currency(), day.clone());
            let payee = (payment.payee, payment.currency(), day);
            keys.extend([payer.clone(), payee.clone()]);
            sent.push((payer, payee, payment.units(), *at));
        }
        if keys.is_empty() {
            return Ok(());
        }
        let mut days = store::lock_days(tx, &keys).await?;
        for (payer, payee, units, at) in sent {
            days.entry(payer).or_default().send(units, at);
            days.entry(payee).or_default().receive(units, at);
        }
        Ok(store::save_days(tx, &days).await?)
    }
}

#[async_trait]
impl Handler for Transactions {
    async fn apply(&self, tx: &mut PgConnection, deliveries: &[Delivery]) -> Result<Vec<Outgoing>, ApplyError> {
        self.keep(None);
        let mut events = Vec::with_capacity(deliveries.len());
        let mut seals: BTreeMap<Currency, (WindowId, Option<EventId>)> = BTreeMap::new();
        for delivery in deliveries {
            let (Some(event), Ok((envelope, _))) = (delivery.engine_event(), &*delivery.envelope) else { continue };
            if let Event::WindowSealed(sealed) = event {
                seals.insert(sealed.currency, (sealed.window_id, delivery.event_id()));
            }
            events.push((event, envelope.timestamp));
        }
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let version = store::next_version(tx).await?;
        let (facts, counted) = Self::read(tx, &events).await?;
        store::count(tx, version, &counted).await?;
        self.days(tx, &facts).await?;
        let mut outgoing = Vec::new();
        if !seals.is_empty() {
            let windows = seals.iter().map(|(currency, (window, _))| (*currency, *window)).collect();
            for snapshot in store::snapshot(tx, &windows).await? {
                let cause = seals.get(&snapshot.currency).and_then(|(_, cause)| *cause);
                let event = Outgoing::new(snapshot.clone(), snapshot.currency, USER);
                outgoing.push(cause.map_or(event.clone(), |cause| event.caused_by(cause)));
            }
        }
        self.keep(Some(Kept { version, facts, since: Instant::now() }));
        Ok(outgoing)
    }

    fn committed(&self) {
        match self.keep(None) {
            Some(kept) if kept.since.elapsed() < HANDOVER => self.desk.gate.counted(kept.version, &kept.facts),
            Some(_) => self.desk.gate.behind.notify_one(),
            None => {}
        }
    }
}
