//! Commands of operators: a decision of the domain, its rows and its events in one transaction, and
//! the wait until the driver has carried it out.

use std::sync::Arc;
use std::time::Duration;

use deltran_events::Event;
use deltran_kernel::{Currency, NettingSetId, Timestamp, WindowId};
use deltran_messaging::{Door, DoorTx, Outbox, Outgoing};
use deltran_runtime::{Caller, DbError, EngineContext, Failure, FailureKind};
use sqlx::PgConnection;
use tokio::sync::{Notify, watch};

use crate::config::Schedules;
use crate::domain::netting::{self, NettingSet, PairTotal, netted_events};
use crate::domain::orders::{self, Abort, CloseOrder, Next, OpenOrder};
use crate::domain::window::{Change, Decision, Refusal, Window, WindowState, Write};
use crate::store::{self, StoredSet};

/// Who is named in events that no person caused.
pub const USER: &str = "clearing-engine";

/// How long a command waits for the driver.
const PATIENCE: Duration = Duration::from_secs(10);
/// Looks again after this, where another process drives.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// The most windows of one netting set: their ids must fit into one event.
const MOST_WINDOWS: usize = 1_000;

/// What the parts of the engine share. Cloning shares it.
#[derive(Clone)]
pub struct Clearing {
    pub(crate) context: EngineContext,
    pub(crate) door: Door,
    pub(crate) schedules: Arc<Schedules>,
    work: Arc<Notify>,
    changed: Arc<watch::Sender<u64>>,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        let mut failure = match &refusal {
            Refusal::IdTaken(_) => Self::new(FailureKind::Conflict, "conflict", message),
            Refusal::NotLater { .. } => Self::malformed("closes_at", &message),
            Refusal::AlreadyOpen { window, .. } => {
                Self::new(FailureKind::WrongState, "wrong_state", message).with("open_window_id", window)
            }
            _ => Self::new(FailureKind::WrongState, "wrong_state", message),
        };
        if let Some(state) = refusal.state() {
            failure = failure.with("state", state);
        }
        failure
    }
}

/// Events of windows on their way out.
pub fn outgoing(events: Vec<(WindowId, Event)>, user: &str) -> Vec<Outgoing> {
    events.into_iter().map(|(window, event)| Outgoing::new(event, window, user)).collect()
}

/// Events of a command on their way out.
fn caused(events: Vec<(WindowId, Event)>, caller: &Caller) -> Vec<Outgoing> {
    outgoing(events, &caller.user).into_iter().map(|e| e.traced(caller.trace.clone())).collect()
}

impl Clearing {
    /// The shared parts.
    pub fn new(context: EngineContext, outbox: Outbox, schedules: Arc<Schedules>) -> Self {
        let door = Door::new(context.db.clone(), outbox);
        Self { context, door, schedules, work: Arc::default(), changed: Arc::new(watch::Sender::new(0)) }
    }

    /// Wakes the driver and whoever waits for a window: something was committed.
    pub fn nudge(&self) {
        self.work.notify_one();
        self.announce();
    }

    /// Wakes whoever waits for a window.
    pub(crate) fn announce(&self) {
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    pub(crate) async fn work(&self) {
        self.work.notified().await;
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.context.clock.now()
    }

    pub(crate) fn fresh_window_id(&self) -> WindowId {
        WindowId::new(self.context.ids.next_id(self.now()))
    }

    /// Begins a transaction about a currency's windows.
    async fn begin(&self, currency: Currency) -> Result<DoorTx, Failure> {
        let mut tx = self.door.begin("command").await?;
        store::lock_currency(&mut tx, currency).await?;
        Ok(tx)
    }

    /// Writes rows and events, commits, and wakes whoever waits for them.
    async fn finish(&self, mut tx: DoorTx, change: Change, caller: &Caller) -> Result<(), Failure> {
        store::apply(&mut tx, &change.writes).await?;
        tx.commit(&caused(change.events, caller)).await?;
        self.nudge();
        Ok(())
    }

    /// A window by its id.
    pub async fn find(&self, id: WindowId) -> Result<Window, Failure> {
        store::window(self.context.db.pool(), id).await?.ok_or_else(|| Failure::not_found("window", id))
    }

    /// The window once `reached` holds, or as it is when patience ends.
    async fn until(&self, id: WindowId, reached: impl Fn(&Window) -> bool + Send) -> Result<Window, Failure> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let mut changes = self.changed.subscribe();
        loop {
            changes.mark_unchanged();
            let window = self.find(id).await?;
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            if reached(&window) || left.is_zero() || self.context.closing.is_cancelled() {
                return Ok(window);
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep(left.min(LOOK_AGAIN)) => {}
                () = self.context.closing.cancelled() => {}
            }
        }
    }

    /// Opens a window of a manual schedule and waits for the ledger.
    ///
    /// # Errors
    /// `not_found` for the schedule, `malformed` where it has not the currency, `wrong_state` where it follows
    /// a timetable or the currency has an open window, `conflict` where the id names another window.
    pub async fn open(
        &self,
        id: WindowId,
        schedule: &str,
        currency: Currency,
        caller: &Caller,
    ) -> Result<Window, Failure> {
        self.check_manual(schedule, currency)?;
        let mut tx = self.begin(currency).await?;
        let known = store::window_for_update(&mut tx, id).await?;
        let live = store::live(&mut *tx, currency).await?;
        let order = OpenOrder { id, schedule, currency, by: &caller.user, at: self.now() };
        let change = executed(orders::open(&order, known.as_ref(), &live)?);
        self.finish(tx, change, caller).await?;
        let waits = |w: &Window| w.state == WindowState::Scheduled && w.open_ordered_by.is_some();
        let window = self.until(id, |w| !waits(w)).await?;
        match (&window.note, window.state) {
            (Some(note), WindowState::Scheduled) if window.open_ordered_by.is_none() => {
                Err(Failure::wrong_state(format!("the ledger did not open window {id}: {note}"), window.state))
            }
            _ => Ok(window),
        }
    }

    fn check_manual(&self, name: &str, currency: Currency) -> Result<(), Failure> {
        let names = self.schedules.names();
        let schedule = self.schedules.named(name).ok_or_else(|| {
            let message = format!("there is no schedule {name:?}: the configuration has {names}");
            Failure::new(FailureKind::NotFound, "not_found", message)
        })?;
        if !schedule.currencies.contains(&currency) {
            return Err(Failure::malformed("currency", format!("{currency} is not a currency of schedule {name:?}")));
        }
        if self.schedules.timetable(currency).is_some() {
            let hint = "its windows open by themselves";
            return Err(Refusal::Timetable { schedule: name.to_owned(), hint }.into());
        }
        Ok(())
    }

    /// Closes a window, and waits until the ledger has sealed it.
    ///
    /// # Errors
    /// `not_found`, `malformed` where a next window is named for a timetable, `wrong_state` with the present
    /// state, `conflict` where the next id is taken.
    pub async fn close(
        &self,
        id: WindowId,
        next: Option<WindowId>,
        caller: &Caller,
    ) -> Result<(Window, Option<Window>), Failure> {
        let currency = self.find(id).await?.currency;
        if next.is_some() && self.schedules.timetable(currency).is_some() {
            return Err(Failure::malformed(
                "next_window_id",
                "must be empty: the timetable opens the next window by itself",
            ));
        }
        self.order_close(id, currency, next, None, caller).await?;
        let window = self.until(id, |w| !matches!(w.state, WindowState::Open | WindowState::Closing)).await?;
        let next = match window.next {
            Some(next) => store::window(self.context.db.pool(), next).await?,
            None => None,
        };
        Ok((window, next))
    }

    async fn order_close(
        &self,
        id: WindowId,
        currency: Currency,
        next: Option<WindowId>,
        abort_reason: Option<&str>,
        caller: &Caller,
    ) -> Result<(), Failure> {
        let mut tx = self.begin(currency).await?;
        let window = locked(&mut tx, id).await?;
        let now = self.now();
        let by_hand = match next {
            Some(next) => Next::ByHand(next, store::window_for_update(&mut tx, next).await?),
            None => Next::None,
        };
        let next = match self.schedules.timetable(currency).and_then(|t| t.follower(now)) {
            None => by_hand,
            Some(slot) => {
                let live = store::live(&mut *tx, currency).await?;
                let planned = live.into_iter().find(|w| w.state == WindowState::Scheduled && !w.occupies());
                Next::Planned(planned.as_ref().map_or_else(|| self.fresh_window_id(), |w| w.id), planned, slot)
            }
        };
        let order = CloseOrder { by: &caller.user, at: now, next, abort_reason };
        let change = executed(orders::close(&window, &order)?);
        self.finish(tx, change, caller).await
    }

    /// Moves the closing time of an open window to a later one.
    ///
    /// # Errors
    /// `not_found`, `wrong_state` with the present state, `malformed` where the time is not later.
    pub async fn extend(
        &self,
        id: WindowId,
        closes_at: Timestamp,
        reason: &str,
        caller: &Caller,
    ) -> Result<Window, Failure> {
        let currency = self.find(id).await?.currency;
        let mut tx = self.begin(currency).await?;
        let window = locked(&mut tx, id).await?;
        let change = executed(orders::extend(&window, closes_at, &caller.user, reason, self.now())?);
        self.finish(tx, change, caller).await?;
        self.find(id).await
    }

    /// Ends an empty window. One that is open is sealed first; if the ledger seals it with transactions
    /// it goes on to netting, and the answer says so.
    ///
    /// # Errors
    /// `not_found`, `wrong_state` with the present state.
    pub async fn abort(&self, id: WindowId, reason: &str, caller: &Caller) -> Result<Window, Failure> {
        let currency = self.find(id).await?.currency;
        let planned = self.schedules.timetable(currency).is_some();
        let mut tx = self.begin(currency).await?;
        let window = locked(&mut tx, id).await?;
        let counted = store::counted_of(&mut *tx, id).await?.map_or(0, |t| t.count);
        let live = store::live(&mut *tx, currency).await?;
        match orders::abort(&window, &live, counted, planned, &caller.user, reason)? {
            Abort::Now(change) => self.finish(tx, change, caller).await?,
            Abort::AlreadyApplied => drop(tx),
            Abort::Seal => {
                drop(tx);
                self.order_close(id, currency, None, Some(reason), caller).await?;
            }
        }
        let window = self.until(id, |w| !matches!(w.state, WindowState::Open | WindowState::Closing)).await?;
        match &window.sealed {
            Some(seal) if window.state != WindowState::Aborted => {
                Err(Refusal::NotEmpty { window: id, state: window.state, count: seal.count }.into())
            }
            _ => Ok(window),
        }
    }

    /// Nets FAILED windows of one currency again, alone or together. The same id with the same windows is
    /// answered with the stored set.
    ///
    /// # Errors
    /// `malformed`, `not_found`, `conflict` where the id is in use for other windows, `wrong_state` with the
    /// window and its state.
    pub async fn net_windows(
        &self,
        id: NettingSetId,
        windows: &[WindowId],
        caller: &Caller,
    ) -> Result<StoredSet, Failure> {
        let mut ids = windows.to_vec();
        ids.sort_unstable();
        ids.dedup();
        if ids.is_empty() || ids.len() != windows.len() || ids.len() > MOST_WINDOWS {
            return Err(Failure::malformed("window_ids", format!("takes 1 to {MOST_WINDOWS} different windows")));
        }
        let mut currencies = std::collections::BTreeSet::new();
        for id in &ids {
            currencies.insert(self.find(*id).await?.currency);
        }
        let (Some(&currency), 1) = (currencies.first(), currencies.len()) else {
            return Err(Failure::malformed("window_ids", "are of several currencies: a netting set has one"));
        };
        let mut tx = self.begin(currency).await?;
        if let Some(known) = store::set(&mut tx, id).await? {
            return match known.set.windows.iter().eq(ids.iter()) {
                true => Ok(known),
                false => Err(Failure::conflict("netting set", id)),
            };
        }
        let windows = store::windows_for_update(&mut tx, &ids).await?;
        if let Some(w) = windows.iter().find(|w| w.state != WindowState::Failed) {
            return Err(Refusal::NotDrawn { window: w.id, from: w.state, to: WindowState::Netted }.into());
        }
        let pairs = store::pairs_of(&mut *tx, &ids).await?;
        let set = self.freeze(&mut tx, id, currency, &windows, &pairs).await?;
        let change = Change { writes: Vec::new(), events: netted_events(set.id, &set.set) };
        self.finish(tx, change, caller).await?;
        Ok(set)
    }

    /// Nets windows from their pair totals `pairs`, freezes the set and marks them NETTED.
    pub(crate) async fn freeze(
        &self,
        tx: &mut PgConnection,
        id: NettingSetId,
        currency: Currency,
        windows: &[Window],
        pairs: &[PairTotal],
    ) -> Result<StoredSet, Failure> {
        let set = netting::net(currency, windows.iter().map(|w| w.id).collect(), pairs).map_err(Failure::internal)?;
        self.check_sum(&set);
        let mut writes = Vec::new();
        for window in windows {
            let netted = Window { netting_set: Some(id), note: None, ..window.to(WindowState::Netted)? };
            writes.push(Write::Update { from: window.state, window: netted });
        }
        let stored = StoredSet { id, set, netted_at: self.now() };
        store::insert_set(tx, id, &stored.set, stored.netted_at).await?;
        store::apply(tx, &writes).await?;
        Ok(stored)
    }

    fn check_sum(&self, set: &NettingSet) {
        let sum = deltran_kernel::Minor::sum(set.positions.values().copied());
        if sum != Ok(deltran_kernel::Minor::ZERO) {
            self.context.metrics.breach("C2", &format!("net positions of {:?} sum to {sum:?}", set.windows));
        }
    }

    /// A frozen set by its id.
    pub async fn netting_set(&self, id: NettingSetId) -> Result<StoredSet, Failure> {
        let mut connection = self.context.db.pool().acquire().await.map_err(DbError::from)?;
        store::set(&mut connection, id).await?.ok_or_else(|| Failure::not_found("netting set", id))
    }
}

async fn locked(tx: &mut DoorTx, id: WindowId) -> Result<Window, Failure> {
    store::window_for_update(tx, id).await?.ok_or_else(|| Failure::not_found("window", id))
}

/// The change of a decision; nothing where it was applied before.
fn executed(decision: Decision) -> Change {
    match decision {
        Decision::Executed(change) => change,
        Decision::AlreadyApplied => Change::default(),
    }
}
