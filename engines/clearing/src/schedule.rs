//! The driver: brings every window forward by steps. Each order is committed here before the ledger is
//! asked, and its answer after, so that it can stop at any point and another process goes on.
//!
//! It is a singleton by the lease `windows`. Commands and consumed events wake it; a timer stands
//! behind them for the passage of time and for what other processes committed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deltran_events::Event;
use deltran_kernel::{Currency, NettingSetId, WindowId};
use deltran_messaging::DoorTx;
use deltran_runtime::lease::Epoch;
use deltran_runtime::{DbError, Failure};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use crate::commands::{Clearing, USER, outgoing};
use crate::domain::netting::netted_events;
use crate::domain::orders::{self, CloseOrder, Next};
use crate::domain::schedule::{Action, View};
use crate::domain::sealing::{self, Agreement};
use crate::domain::window::{Change, Decision, Refusal, Window, WindowState};
use crate::ledger::{Answer, Ledger, Sealed};
use crate::store;

const TICK: Duration = Duration::from_secs(1);
/// Currencies that are worked on at once.
const AT_ONCE: usize = 4;
/// Rounds over one currency before the others have their turn again.
const ROUNDS: usize = 32;
/// Ticks between two looks at what changes slowly.
const SLOW: u64 = 15;

/// Drives windows while this process holds the lease, until shutdown.
pub async fn run(clearing: Clearing, shutdown: CancellationToken) {
    let lease = clearing.context.lease("windows");
    lease
        .run(shutdown, move |epoch, term| {
            let ledger = Ledger::new(&clearing.context);
            let driver = Driver { clearing: clearing.clone(), ledger, epoch, breached: Arc::default() };
            async move { driver.term(term).await }
        })
        .await;
}

/// Why a pass broke off.
enum Trouble {
    /// Another process leads.
    NotLeader,
    /// It is tried again.
    Other(String),
}

impl From<DbError> for Trouble {
    fn from(error: DbError) -> Self {
        match error {
            DbError::NotLeader => Self::NotLeader,
            other => Self::Other(other.to_string()),
        }
    }
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Self::Other(refusal.to_string())
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Other(failure.message)
    }
}

/// Whether a step committed something, so that there may be more to do at once.
type Progress = bool;

/// What somebody must look at.
#[derive(Default)]
struct Alerts {
    late: bool,
    contradiction: bool,
    refused: bool,
}

struct Driver {
    clearing: Clearing,
    ledger: Ledger,
    epoch: Epoch,
    /// Windows whose contradiction was counted in this term.
    breached: Arc<Mutex<BTreeSet<WindowId>>>,
}

impl Driver {
    async fn term(self, term: CancellationToken) {
        let health = self.clearing.context.health.clone();
        let mut ticks = 0u64;
        while !term.is_cancelled() {
            let outcome = tokio::select! {
                outcome = self.pass(ticks.is_multiple_of(SLOW)) => outcome,
                () = term.cancelled() => return,
            };
            match outcome {
                Ok(()) => health.ready("clearing.windows"),
                Err(Trouble::NotLeader) => return,
                Err(Trouble::Other(what)) => health.not_ready("clearing.windows", what),
            }
            tokio::select! {
                () = self.clearing.work() => {}
                () = tokio::time::sleep(TICK) => ticks += 1,
                () = term.cancelled() => {}
            }
        }
    }

    /// One look at every currency.
    async fn pass(&self, slow: bool) -> Result<(), Trouble> {
        let mut by_currency: BTreeMap<Currency, Vec<Window>> =
            self.clearing.schedules.currencies().map(|c| (c, Vec::new())).collect();
        for window in store::unfinished(self.clearing.context.db.pool()).await? {
            by_currency.entry(window.currency).or_default().push(window);
        }
        let outcomes: Vec<Result<Alerts, Trouble>> = futures::stream::iter(by_currency)
            .map(|(currency, windows)| self.currency(currency, windows))
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let mut alerts = Alerts::default();
        let mut trouble = None;
        for outcome in outcomes {
            match outcome {
                Ok(found) => {
                    alerts.late |= found.late;
                    alerts.contradiction |= found.contradiction;
                    alerts.refused |= found.refused;
                }
                Err(Trouble::NotLeader) => return Err(Trouble::NotLeader),
                Err(other) => trouble = Some(other),
            }
        }
        if let Some(trouble) = trouble {
            return Err(trouble);
        }
        let metrics = &self.clearing.context.metrics;
        metrics.alert("window_totals_late", alerts.late);
        metrics.alert("window_totals_contradict", alerts.contradiction);
        metrics.alert("window_command_refused", alerts.refused);
        if slow { self.slow().await } else { Ok(()) }
    }

    /// What is looked at now and then: counts by state, and windows that only the ledger knows.
    async fn slow(&self) -> Result<(), Trouble> {
        let context = &self.clearing.context;
        let counts: BTreeMap<String, i64> = store::state_counts(context.db.pool()).await?.into_iter().collect();
        for state in WindowState::ALL {
            let n = counts.get(state.as_str()).copied().unwrap_or(0);
            context.metrics.windows.with_label_values(&[state.as_str()]).set(n);
        }
        let orphans = store::orphans(context.db.pool()).await?;
        context.metrics.alert("window_unknown", !orphans.is_empty());
        Ok(())
    }

    /// Works on one currency until there is nothing to do.
    async fn currency(&self, currency: Currency, mut windows: Vec<Window>) -> Result<Alerts, Trouble> {
        for _ in 0..ROUNDS {
            let mut alerts = Alerts::default();
            let mut progress = false;
            for window in &windows {
                progress |= self.window(window, &mut alerts).await?;
            }
            if !progress {
                progress = self.timetable(currency, &windows).await?;
            }
            if !progress {
                return Ok(alerts);
            }
            self.clearing.announce();
            windows = store::unfinished(self.clearing.context.db.pool()).await?;
            windows.retain(|w| w.currency == currency);
        }
        // There is more: come back at once, after the other currencies.
        self.clearing.nudge();
        Ok(Alerts::default())
    }

    async fn window(&self, window: &Window, alerts: &mut Alerts) -> Result<Progress, Trouble> {
        match window.state {
            WindowState::Scheduled if window.open_ordered_by.is_some() => self.open(window, alerts).await,
            WindowState::Closing => self.seal(window, alerts).await,
            WindowState::Closed => self.net(window, alerts).await,
            _ => Ok(false),
        }
    }

    /// Begins a transaction of the singleton: its own epoch first, then the currency.
    async fn begin(&self, currency: Currency) -> Result<DoorTx, Trouble> {
        let mut tx = self.clearing.door.begin("windows").await?;
        self.epoch.check(&mut tx).await?;
        store::lock_currency(&mut tx, currency).await?;
        Ok(tx)
    }

    async fn finish(&self, mut tx: DoorTx, change: Change) -> Result<Progress, Trouble> {
        store::apply(&mut tx, &change.writes).await?;
        self.publish(tx, change.events).await
    }

    async fn publish(&self, tx: DoorTx, events: Vec<(WindowId, Event)>) -> Result<Progress, Trouble> {
        tx.commit(&outgoing(events, USER)).await?;
        Ok(true)
    }

    /// The window as it is in this transaction, where it is still in the state that was seen.
    async fn again(&self, tx: &mut DoorTx, seen: &Window) -> Result<Option<Window>, Trouble> {
        Ok(store::window_for_update(tx, seen.id).await?.filter(|w| w.state == seen.state))
    }

    /// Says why a window waits. No progress: the next look comes with the timer.
    async fn note(&self, window: &Window, note: &str) -> Result<Progress, Trouble> {
        if window.note.as_deref() == Some(note) {
            return Ok(false);
        }
        let mut tx = self.begin(window.currency).await?;
        if store::set_note(&mut tx, window.id, Some(note)).await? {
            tracing::warn!(window.id = %window.id, window.state = %window.state, note, "window waits");
        }
        tx.commit(&[]).await?;
        self.clearing.announce();
        Ok(false)
    }

    /// Asks the ledger to open a window.
    async fn open(&self, window: &Window, alerts: &mut Alerts) -> Result<Progress, Trouble> {
        let answer = self.ledger.open(window).await;
        if let Answer::Unknown(what) = &answer {
            return self.note(window, &format!("its opening waits for the ledger: {what}")).await;
        }
        let mut tx = self.begin(window.currency).await?;
        let Some(window) = self.again(&mut tx, window).await? else { return Ok(true) };
        match answer {
            Answer::Unknown(_) => Ok(false),
            Answer::Done(at) => self.finish(tx, orders::opened(&window, at)?).await,
            Answer::Refused(why) => {
                // A person reads the answer; a timetable stays due, and somebody must look.
                let withdraw = self.clearing.schedules.timetable(window.currency).is_none();
                alerts.refused |= !withdraw;
                if window.note.as_deref() != Some(why.as_str()) {
                    tracing::warn!(window.id = %window.id, why, "the ledger refused to open a window");
                }
                self.finish(tx, orders::open_refused(&window, &why, withdraw)).await?;
                self.clearing.announce();
                Ok(false)
            }
        }
    }

    /// Asks the ledger to seal a window, and to open the next in the same step.
    async fn seal(&self, window: &Window, alerts: &mut Alerts) -> Result<Progress, Trouble> {
        let Sealed { seal, net, at } = match self.ledger.seal(window).await {
            Answer::Done(sealed) => sealed,
            Answer::Unknown(what) => {
                return self.note(window, &format!("its sealing waits for the ledger: {what}")).await;
            }
            Answer::Refused(why) => {
                alerts.refused = true;
                return self.note(window, &format!("the ledger refused to seal it: {why}")).await;
            }
        };
        let mut tx = self.begin(window.currency).await?;
        let Some(window) = self.again(&mut tx, window).await? else { return Ok(true) };
        let next = match window.next {
            Some(next) => store::window_for_update(&mut tx, next).await?,
            None => None,
        };
        let counted = store::counted_of(&mut *tx, window.id).await?.map_or(0, |t| t.count);
        let change = orders::sealed(&window, next.as_ref(), seal, counted, at)?;
        store::sealed_positions::store(&mut tx, window.id, &net).await?;
        self.finish(tx, change).await
    }

    /// Nets a sealed window, once the control totals agree.
    async fn net(&self, window: &Window, alerts: &mut Alerts) -> Result<Progress, Trouble> {
        let Some(seal) = &window.sealed else {
            return Err(DbError::corrupt(format!("window {} is CLOSED without control totals", window.id)).into());
        };
        let pool = self.clearing.context.db.pool();
        let tally = store::counted_of(pool, window.id).await?;
        match sealing::complete(window.currency, seal, tally.as_ref()) {
            Agreement::Wait { missing, first_missing } => self.late(window, missing, first_missing, alerts).await,
            Agreement::Contradiction(what) => self.contradiction(window, &what, alerts).await,
            Agreement::Agree => self.freeze(window, alerts).await,
        }
    }

    async fn freeze(&self, window: &Window, alerts: &mut Alerts) -> Result<Progress, Trouble> {
        let mut tx = self.begin(window.currency).await?;
        let Some(window) = self.again(&mut tx, window).await? else { return Ok(true) };
        let Some(seal) = &window.sealed else { return Ok(false) };
        let tally = store::counted_of(&mut *tx, window.id).await?;
        let net = store::sealed_positions::load(&mut *tx, window.id).await?;
        let pairs = store::pairs_of(&mut *tx, &[window.id]).await?;
        match sealing::compare(window.currency, seal, &net, tally.as_ref(), &pairs) {
            Agreement::Agree => {}
            Agreement::Wait { missing, first_missing } => {
                drop(tx);
                return self.late(&window, missing, first_missing, alerts).await;
            }
            Agreement::Contradiction(what) => {
                drop(tx);
                return self.contradiction(&window, &what, alerts).await;
            }
        }
        let id = NettingSetId::new(self.clearing.context.ids.next_id(self.clearing.now()));
        let (currency, count) = (window.currency, seal.count);
        let set = self.clearing.freeze(&mut tx, id, currency, &[window], &pairs).await?;
        self.publish(tx, netted_events(id, &set.set)).await?;
        let (gross, moved) = (set.set.gross.units(), set.set.moved.units());
        tracing::info!(netting_set.id = %id, %currency, count, gross, moved, "netting set frozen");
        Ok(true)
    }

    async fn late(&self, window: &Window, missing: u64, first: u64, alerts: &mut Alerts) -> Result<Progress, Trouble> {
        let grace = self.clearing.schedules.of(window.currency).map_or(60, |s| s.grace_seconds);
        let closed_at = window.closed_at.unwrap_or(window.opens_at);
        if self.clearing.now() <= closed_at.plus_seconds(i64::from(grace)) {
            return Ok(false);
        }
        alerts.late = true;
        self.note(
            window,
            &format!("{missing} transactions that the ledger sealed have not arrived, the first is window_seq {first}"),
        )
        .await
    }

    /// It never nets; a person must find out which side is wrong.
    async fn contradiction(&self, window: &Window, what: &str, alerts: &mut Alerts) -> Result<Progress, Trouble> {
        alerts.contradiction = true;
        if self.breached.lock().unwrap_or_else(PoisonError::into_inner).insert(window.id) {
            self.clearing.context.metrics.breach("C1", &format!("window {}: {what}", window.id));
        }
        self.note(window, &format!("control totals contradict what was consumed: {what}")).await
    }

    /// The next step of a currency's timetable, where it has one.
    async fn timetable(&self, currency: Currency, windows: &[Window]) -> Result<Progress, Trouble> {
        let Some(timetable) = self.clearing.schedules.timetable(currency) else { return Ok(false) };
        let last = store::last_opens_at(self.clearing.context.db.pool(), currency).await?;
        if timetable.plan(self.clearing.now(), &View::of(windows, last)).is_none() {
            return Ok(false);
        }
        // Decided again on what stands under the lock.
        let mut tx = self.begin(currency).await?;
        let live = store::live(&mut *tx, currency).await?;
        let last = store::last_opens_at(&mut *tx, currency).await?;
        match timetable.plan(self.clearing.now(), &View::of(&live, last)) {
            None => Ok(true),
            Some(action) => {
                let change = self.carry_out(currency, action, &live)?;
                self.finish(tx, change).await
            }
        }
    }

    fn carry_out(&self, currency: Currency, action: Action, live: &[Window]) -> Result<Change, Trouble> {
        let find = |id: WindowId| {
            live.iter().find(|w| w.id == id).ok_or_else(|| Trouble::Other(format!("window {id} is not live any more")))
        };
        match action {
            Action::Create(slot) => {
                let name = self.clearing.schedules.of(currency).map_or("", |s| s.name.as_str());
                Ok(orders::plan(self.clearing.fresh_window_id(), name, currency, slot))
            }
            Action::Retime(id, slot) => Ok(orders::retime(find(id)?, slot, USER, "the timetable gives other times")),
            Action::Open(id) => Ok(orders::open_planned(find(id)?, USER, live)?),
            Action::Close { window, next } => {
                let next = match next.map(find).transpose()? {
                    None => Next::None,
                    Some(next) => Next::ByHand(next.id, Some(next.clone())),
                };
                let order = CloseOrder { by: USER, at: self.clearing.now(), next, abort_reason: None };
                match orders::close(find(window)?, &order)? {
                    Decision::Executed(change) => Ok(change),
                    Decision::AlreadyApplied => Ok(Change::default()),
                }
            }
        }
    }
}
