//! Events of other engines become read models; requests for reports come back to the worker.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use deltran_events::data::clearing::WindowState;
use deltran_events::{Domain, Event};
use deltran_kernel::{Clock, Currency, Minor, ReportId, Timestamp};
use deltran_messaging::{ApplyError, Delivery, Handler, Outgoing};
use jiff::tz::TimeZone;
use sqlx::PgConnection;
use tokio::sync::Notify;

use crate::USER;
use crate::config::Checked;
use crate::domain::Contradiction;
use crate::domain::day::Day;
use crate::domain::fold::{self, Seen};
use crate::domain::job::{About, Subject, formats_of};
use crate::domain::position::Position;
use crate::domain::timetable::settlement_report;
use crate::store::{self, ClearingFacts, Netted, SettledBatch};
use crate::worker::requested;

impl From<Contradiction> for ApplyError {
    fn from(contradiction: Contradiction) -> Self {
        Self::Permanent(contradiction.0)
    }
}

/// An event of the engine that owns its domain, with its producer, number and time.
struct Own<'a> {
    event: &'a Event,
    producer: &'a str,
    seq: u64,
    at: Timestamp,
}

/// The event of a delivery, where the owning engine published it.
fn own_event(delivery: &Delivery) -> Option<Own<'_>> {
    let event = delivery.engine_event()?;
    let (Ok((envelope, _)), Some((producer, seq))) = (&*delivery.envelope, &delivery.producer) else { return None };
    Some(Own { event, producer, seq: *seq, at: envelope.timestamp })
}

fn minor(amount: &deltran_events::Amount, currency: Currency) -> Result<Minor, ApplyError> {
    amount.money(currency).map(|m| m.minor()).map_err(|e| ApplyError::Permanent(e.to_string()))
}

/// The ledger's events: entries, balances, windows.
pub struct Transactions {
    /// Name of the time zone of business days.
    pub zone_name: String,
    /// The same.
    pub zone: TimeZone,
    /// Told after each commit.
    pub applied: Arc<Notify>,
}

#[async_trait]
impl Handler for Transactions {
    async fn apply(&self, tx: &mut PgConnection, events: &[Delivery]) -> Result<Vec<Outgoing>, ApplyError> {
        let fixed = store::fix_zone(&mut *tx, &self.zone_name).await?;
        if fixed != self.zone_name {
            let what = format!(
                "business days were counted in {fixed}: set reporting.time_zone to that, not to {}",
                self.zone_name
            );
            return Err(ApplyError::Permanent(what));
        }
        let (mut seen, mut last) = (Vec::with_capacity(events.len()), None);
        for delivery in events {
            let Some(own) = own_event(delivery) else { continue };
            let position = Position::of(Domain::Transactions.source(), own.producer, own.seq);
            let (Some(position), Some(id)) = (position, delivery.event_id()) else { continue };
            seen.push(Seen { position, id, at: own.at, day: Day::of(own.at, &self.zone), event: own.event.clone() });
            last = Some(own.producer);
        }
        let Some(last) = last else { return Ok(Vec::new()) };
        let needed: BTreeSet<_> = seen.iter().filter_map(|seen| fold::needs(&seen.event)).collect();
        let waiting = store::pending_of(&mut *tx, &Vec::from_iter(needed)).await?;
        let effects = fold::fold(&seen, waiting)?;
        store::apply(tx, last, &effects).await?;
        Ok(Vec::new())
    }

    fn committed(&self) {
        self.applied.notify_waiters();
    }
}

/// Clearing's events: windows and netting sets.
pub struct Clearing;

#[async_trait]
impl Handler for Clearing {
    async fn apply(&self, tx: &mut PgConnection, events: &[Delivery]) -> Result<Vec<Outgoing>, ApplyError> {
        let (mut facts, mut last) = (ClearingFacts::default(), None);
        for delivery in events {
            let Some(own) = own_event(delivery) else { continue };
            clearing_fact(&mut facts, own.event, own.at)?;
            last = Some((own.producer, own.at));
        }
        if let Some((producer, at)) = last {
            store::apply_clearing(tx, &facts, producer, at).await?;
        }
        Ok(Vec::new())
    }
}

fn clearing_fact(facts: &mut ClearingFacts, event: &Event, at: Timestamp) -> Result<(), ApplyError> {
    use WindowState::{Aborted, Closed, Closing, Failed, Netted as InSet, Open, Scheduled, Settled, Settling};
    let (id, currency, state, opened, set) = match event {
        Event::WindowScheduled(e) => (e.window_id, e.currency, Scheduled, None, None),
        Event::WindowOpened(e) => (e.window_id, e.currency, Open, Some((e.schedule.clone(), e.opened_at)), None),
        Event::WindowClosing(e) => (e.window_id, e.currency, Closing, None, None),
        Event::WindowClosed(e) => (e.window_id, e.currency, Closed, None, None),
        Event::WindowNetted(e) => (e.window_id, e.currency, InSet, None, Some(e.netting_set_id)),
        Event::WindowSettling(e) => (e.window_id, e.currency, Settling, None, Some(e.netting_set_id)),
        Event::WindowSettled(e) => (e.window_id, e.currency, Settled, None, Some(e.netting_set_id)),
        Event::WindowFailed(e) => (e.window_id, e.currency, Failed, None, None),
        Event::WindowAborted(e) => (e.window_id, e.currency, Aborted, None, None),
        Event::NettingCompleted(e) => {
            facts.sets.push(Netted {
                id: e.netting_set_id,
                currency: e.currency,
                count: e.count,
                gross: minor(&e.gross, e.currency)?,
                moved: minor(&e.moved, e.currency)?,
                windows: e.window_ids.clone(),
                efficiency: e.efficiency,
                participants: e.participants,
                largest_debtor: e.largest_debtor,
                digest: e.digest.clone(),
                at,
            });
            return Ok(());
        }
        _ => return Ok(()),
    };
    facts.windows.push((id, currency, state, opened, set));
    Ok(())
}

/// Settlement's events: finality, and with it the automatic settlement report.
pub struct Settlement {
    /// Whether every settlement is followed by its report.
    pub reports: bool,
    /// When reports are asked for: an event may be old when it arrives, and its report waits from then on.
    pub clock: Arc<dyn Clock>,
}

#[async_trait]
impl Handler for Settlement {
    async fn apply(&self, tx: &mut PgConnection, events: &[Delivery]) -> Result<Vec<Outgoing>, ApplyError> {
        let (mut batches, mut last) = (Vec::new(), None);
        for delivery in events {
            let Some(own) = own_event(delivery) else { continue };
            if let Event::BatchSettled(e) = own.event {
                batches.push(SettledBatch {
                    id: e.batch_id,
                    set: e.netting_set_id,
                    moved: minor(&e.moved, e.currency)?,
                    windows: e.window_ids.clone(),
                    currency: e.currency,
                    final_at: e.final_at,
                });
            }
            last = Some((own.producer, own.at));
        }
        let Some((producer, at)) = last else { return Ok(Vec::new()) };
        store::apply_settled(&mut *tx, &batches, producer, at).await?;
        if !self.reports {
            return Ok(Vec::new());
        }
        let asked: Vec<(ReportId, Subject)> = batches
            .iter()
            .map(|batch| {
                let about = About::SettledSet(batch.set);
                (settlement_report(batch.id), Subject { about, formats: formats_of(about.kind()).to_vec() })
            })
            .collect();
        let new = store::insert_many(tx, &asked, USER, None, self.clock.now()).await?;
        let new = asked.iter().filter(|(id, _)| new.contains(id));
        Ok(new.map(|(id, subject)| requested(*id, subject, None, USER)).collect())
    }
}

/// The engine's own requests, on their way to the worker.
pub struct Requests {
    /// Told after each commit.
    pub wake: Arc<Notify>,
}

#[async_trait]
impl Handler for Requests {
    async fn apply(&self, tx: &mut PgConnection, events: &[Delivery]) -> Result<Vec<Outgoing>, ApplyError> {
        let mut ids = Vec::new();
        for delivery in events {
            if let Some(Event::ReportRequested(e)) = delivery.engine_event() {
                ids.push(e.report_id);
            }
        }
        if !ids.is_empty() {
            store::accept(tx, &ids).await?;
        }
        Ok(Vec::new())
    }

    fn committed(&self) {
        self.wake.notify_one();
    }
}

impl Transactions {
    /// The handler with the engine's settings.
    pub fn new(checked: &Checked, applied: Arc<Notify>) -> Self {
        Self { zone_name: checked.settings.time_zone.clone(), zone: checked.zone.clone(), applied }
    }
}
