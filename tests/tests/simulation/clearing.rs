//! Clearing's shell around its real domain: windows, what was counted of them, frozen sets; operators and the driver.

use std::collections::{BTreeMap, BTreeSet};

use deltran_clearing::domain::netting::{self, NettingSet, PairTotal, netted_events};
use deltran_clearing::domain::obligations::{self, Obligation, Tally};
use deltran_clearing::domain::orders::{self, Abort, CloseOrder, Next, OpenOrder};
use deltran_clearing::domain::sealing::{self, Agreement};
use deltran_clearing::domain::settling::{self, Batch};
use deltran_clearing::domain::window::Seal;
use deltran_clearing::domain::{Change, Decision, Refusal, Window, WindowState, Write};
use deltran_events::Event;
use deltran_kernel::{Currency, Minor, NettingSetId, ParticipantId, Timestamp, TransactionId, WindowId};
use deltran_messaging::{Delivery, Outgoing};
use deltran_token::domain::command::SealTotals;

use super::Faults;
use super::check::{Breach, Checked, Truth, breach, holds};
use super::shell::Shell;

const USER: &str = "clearing-engine";
pub const SCHEDULE: &str = "manual";

type Pair = (WindowId, Currency, ParticipantId, ParticipantId);

/// The tables.
#[derive(Clone, Default)]
pub struct Rows {
    pub windows: BTreeMap<WindowId, Window>,
    /// In the order of planning.
    order: Vec<WindowId>,
    pub tallies: BTreeMap<WindowId, Tally>,
    pending: BTreeMap<WindowId, BTreeMap<u64, TransactionId>>,
    pairs: BTreeMap<Pair, (u64, Minor)>,
    sealed: BTreeMap<WindowId, BTreeMap<ParticipantId, Minor>>,
    pub sets: BTreeMap<NettingSetId, NettingSet>,
}

/// The engine.
pub struct ClearingEngine {
    pub rows: Rows,
    pub shell: Shell,
}

/// Rows after a transaction, and what it says.
pub type Draft = (Rows, Vec<Outgoing>);

fn outgoing(events: Vec<(WindowId, Event)>) -> Vec<Outgoing> {
    events.into_iter().map(|(window, event)| Outgoing::new(event, window, USER)).collect()
}

fn refused(refusal: Refusal) -> Breach {
    Breach::new("C4", refusal.to_string())
}

impl Rows {
    /// Windows of a currency in some states, in the order of planning.
    fn of(&self, currency: Currency, states: &[WindowState]) -> Vec<Window> {
        let windows = self.order.iter().filter_map(|id| self.windows.get(id));
        windows.filter(|w| w.currency == currency && states.contains(&w.state)).cloned().collect()
    }

    pub fn live(&self, currency: Currency) -> Vec<Window> {
        self.of(currency, &[WindowState::Scheduled, WindowState::Open, WindowState::Closing])
    }

    fn apply(&mut self, writes: &[Write]) -> Checked {
        for write in writes {
            match write {
                Write::Insert(window) => {
                    let before = self.windows.insert(window.id, window.clone());
                    holds(before.is_none(), "C4", || format!("window {} is inserted twice", window.id))?;
                    self.order.push(window.id);
                }
                Write::Update { from, window } => {
                    let before = self.windows.insert(window.id, window.clone());
                    let state = before.map(|w| w.state);
                    holds(state == Some(*from), "C4", || format!("window {} is {state:?}, not {from}", window.id))?;
                }
            }
        }
        Ok(())
    }

    fn pairs_of(&self, ids: &BTreeSet<WindowId>) -> Vec<PairTotal> {
        let of = self.pairs.iter().filter(|((window, ..), _)| ids.contains(window));
        of.map(|((_, _, payer, payee), (count, gross))| PairTotal {
            payer: *payer,
            payee: *payee,
            count: *count,
            gross: *gross,
        })
        .collect()
    }

    /// Nets windows, freezes the set and marks them NETTED.
    fn freeze(&mut self, id: NettingSetId, windows: &[Window]) -> Checked<Vec<Outgoing>> {
        let ids: BTreeSet<WindowId> = windows.iter().map(|w| w.id).collect();
        let Some(currency) = windows.first().map(|w| w.currency) else { return Ok(Vec::new()) };
        let set =
            netting::net(currency, ids.clone(), &self.pairs_of(&ids)).map_err(|e| Breach::new("C2", e.to_string()))?;
        for window in windows {
            let to = window.to(WindowState::Netted).map_err(refused)?;
            let netted = Window { netting_set: Some(id), note: None, ..to };
            self.apply(&[Write::Update { from: window.state, window: netted }])?;
        }
        let events = netted_events(id, &set);
        let before = self.sets.insert(id, set);
        holds(before.is_none(), "C6", || format!("set {id} is frozen twice"))?;
        Ok(outgoing(events))
    }
}

/// What the driver of windows does next with one.
#[derive(Debug, Clone)]
pub enum Step {
    Open(Window),
    Seal(Window),
    Net(Window),
}

/// What the ledger said.
pub enum Answer<T> {
    Done(T),
    Refused(String),
}

impl ClearingEngine {
    pub fn new(shell: Shell) -> Self {
        Self { rows: Rows::default(), shell }
    }

    /// An operator opens a window.
    pub fn open(&self, id: WindowId, currency: Currency, at: Timestamp) -> Checked<Option<Draft>> {
        let live = self.rows.live(currency);
        let order = OpenOrder { id, schedule: SCHEDULE, currency, by: "operator", at };
        self.decided(orders::open(&order, self.rows.windows.get(&id), &live))
    }

    /// An operator closes the window that is open, and may name the next.
    pub fn close(&self, currency: Currency, next: Option<WindowId>, at: Timestamp) -> Checked<Option<Draft>> {
        self.order_close(currency, next, None, at)
    }

    fn order_close(
        &self,
        currency: Currency,
        next: Option<WindowId>,
        abort_reason: Option<&str>,
        at: Timestamp,
    ) -> Checked<Option<Draft>> {
        let live = self.rows.live(currency);
        let Some(window) = live.iter().find(|w| w.state == WindowState::Open) else { return Ok(None) };
        let next = match next {
            Some(next) => Next::ByHand(next, self.rows.windows.get(&next).cloned()),
            None => Next::None,
        };
        self.decided(orders::close(window, &CloseOrder { by: "operator", at, next, abort_reason }))
    }

    /// An operator ends a window that is empty; one that is open is sealed first.
    pub fn abort(&self, currency: Currency, at: Timestamp) -> Checked<Option<Draft>> {
        let states = [WindowState::Scheduled, WindowState::Open, WindowState::Closed];
        let Some(window) = self.rows.of(currency, &states).pop() else { return Ok(None) };
        let counted = self.rows.tallies.get(&window.id).map_or(0, |t| t.count);
        let live = self.rows.live(currency);
        match orders::abort(&window, &live, counted, false, "operator", "not needed") {
            Ok(Abort::Now(change)) => self.changed(change).map(Some),
            Ok(Abort::Seal) => self.order_close(currency, None, Some("not needed"), at),
            Ok(Abort::AlreadyApplied) | Err(_) => Ok(None),
        }
    }

    /// An operator nets windows again whose settlement failed.
    pub fn net_again(&self, id: NettingSetId, currency: Currency, all: bool) -> Checked<Option<Draft>> {
        let mut failed = self.rows.of(currency, &[WindowState::Failed]);
        failed.truncate(if all { usize::MAX } else { 1 });
        if failed.is_empty() {
            return Ok(None);
        }
        let mut rows = self.rows.clone();
        let events = rows.freeze(id, &failed)?;
        Ok(Some((rows, events)))
    }

    fn decided(&self, decision: Result<Decision, Refusal>) -> Checked<Option<Draft>> {
        match decision {
            Ok(Decision::Executed(change)) => self.changed(change).map(Some),
            Ok(Decision::AlreadyApplied) | Err(_) => Ok(None),
        }
    }

    fn changed(&self, change: Change) -> Checked<Draft> {
        let mut rows = self.rows.clone();
        rows.apply(&change.writes)?;
        Ok((rows, outgoing(change.events)))
    }

    /// What the driver has to do.
    pub fn due(&self) -> Vec<Step> {
        let windows = self.rows.order.iter().filter_map(|id| self.rows.windows.get(id));
        windows
            .filter_map(|w| match w.state {
                WindowState::Scheduled if w.open_ordered_by.is_some() => Some(Step::Open(w.clone())),
                WindowState::Closing => Some(Step::Seal(w.clone())),
                WindowState::Closed => Some(Step::Net(w.clone())),
                _ => None,
            })
            .collect()
    }

    /// The ledger has opened a window, or has not.
    pub fn opened(&self, seen: &Window, answer: Answer<Timestamp>) -> Checked<Option<Draft>> {
        let Some(window) = self.again(seen) else { return Ok(None) };
        match answer {
            Answer::Done(at) => self.changed(orders::opened(window, at).map_err(refused)?).map(Some),
            Answer::Refused(why) => self.changed(orders::open_refused(window, &why, true)).map(Some),
        }
    }

    /// The ledger has sealed a window.
    pub fn sealed(&self, seen: &Window, totals: &SealTotals) -> Checked<Option<Draft>> {
        let Some(window) = self.again(seen) else { return Ok(None) };
        let next = window.next.and_then(|next| self.rows.windows.get(&next));
        let counted = self.rows.tallies.get(&window.id).map_or(0, |t| t.count);
        let seal = Seal { count: totals.count, gross: totals.gross, digest: totals.digest };
        let change = orders::sealed(window, next, seal, counted, totals.sealed_at).map_err(refused)?;
        let (mut rows, events) = self.changed(change)?;
        let before = rows.sealed.insert(window.id, totals.net.iter().copied().collect());
        holds(before.is_none(), "C1", || format!("window {} is sealed twice", window.id))?;
        Ok(Some((rows, events)))
    }

    /// Nets a sealed window, once the control totals agree.
    pub fn net(&self, seen: &Window, id: NettingSetId) -> Checked<Option<Draft>> {
        let Some(window) = self.again(seen) else { return Ok(None) };
        let Some(seal) = &window.sealed else { return breach("C1", format!("{} is CLOSED without totals", window.id)) };
        let tally = self.rows.tallies.get(&window.id);
        let pairs = self.rows.pairs_of(&BTreeSet::from([window.id]));
        let none = BTreeMap::new();
        let net = self.rows.sealed.get(&window.id).unwrap_or(&none);
        match sealing::compare(window.currency, seal, net, tally, &pairs) {
            Agreement::Wait { .. } => Ok(None),
            Agreement::Contradiction(what) => breach("C1", format!("window {}: {what}", window.id)),
            Agreement::Agree => {
                let mut rows = self.rows.clone();
                let events = rows.freeze(id, std::slice::from_ref(window))?;
                Ok(Some((rows, events)))
            }
        }
    }

    fn again(&self, seen: &Window) -> Option<&Window> {
        self.rows.windows.get(&seen.id).filter(|w| w.state == seen.state)
    }

    /// Counts obligations.
    pub fn count(&self, deliveries: &[Delivery], faults: &Faults) -> Checked<Draft> {
        let contradiction = |e: obligations::Contradiction| Breach::new("C3", e.to_string());
        let mut rows = self.rows.clone();
        let mut new: BTreeMap<WindowId, Vec<Obligation>> = BTreeMap::new();
        for delivery in deliveries {
            let Some(event) = delivery.engine_event() else { continue };
            let Some(mut obligation) = obligations::of_event(event).map_err(contradiction)? else { continue };
            if faults.clearing_counts_into_its_open_window {
                let live = self.rows.live(obligation.currency);
                let open = live.iter().find(|w| w.state == WindowState::Open);
                obligation.window = open.map_or(obligation.window, |w| w.id);
            }
            new.entry(obligation.window).or_default().push(obligation);
        }
        for (window, obligations) in &new {
            let Some(first) = obligations.first() else { continue };
            let tally = rows.tallies.remove(window).unwrap_or_else(|| Tally::new(first.currency));
            let pending = rows.pending.entry(*window).or_default();
            let taken = obligations::take(tally, pending, obligations).map_err(contradiction)?;
            pending.retain(|seq, _| !taken.released.contains(seq));
            pending.extend(taken.waiting);
            rows.tallies.insert(*window, taken.tally);
        }
        let all: Vec<Obligation> = new.into_values().flatten().collect();
        for (window, currency, pair) in obligations::pair_totals(&all).map_err(contradiction)? {
            let row = rows.pairs.entry((window, currency, pair.payer, pair.payee)).or_insert((0, Minor::ZERO));
            row.0 += pair.count;
            row.1 = row.1.add(pair.gross).map_err(|e| Breach::new("C3", e.to_string()))?;
        }
        Ok((rows, Vec::new()))
    }

    /// Follows batches.
    pub fn follow(&self, deliveries: &[Delivery]) -> Checked<Draft> {
        let mut rows = self.rows.clone();
        let mut out = Vec::new();
        for delivery in deliveries {
            let (set, currency, batch) = match delivery.engine_event() {
                Some(Event::BatchCreated(e)) => (e.netting_set_id, e.currency, Batch::Created),
                Some(Event::BatchSettled(e)) => (e.netting_set_id, e.currency, Batch::Settled(e.final_at)),
                Some(Event::BatchAborted(e)) => (e.netting_set_id, e.currency, Batch::Aborted(e.reason.clone())),
                _ => continue,
            };
            let known = rows.sets.get(&set).map(|s| (s.currency, s.windows.clone()));
            let windows = match known {
                Some((own, windows)) if own == currency => windows,
                _ => return breach("C7", format!("a batch names netting set {set}, which is none of its sets")),
            };
            for id in windows {
                let Some(window) = rows.windows.get(&id) else { continue };
                match settling::apply(window, set, &batch).map_err(|e| Breach::new("C7", e.to_string()))? {
                    Decision::AlreadyApplied => {}
                    Decision::Executed(change) => {
                        rows.apply(&change.writes)?;
                        out.extend(outgoing(change.events));
                    }
                }
            }
        }
        Ok((rows, out))
    }

    /// C1 to C8, against what the ledger committed.
    pub fn check(&self, truth: &Truth) -> Checked {
        let rows = &self.rows;
        let mut occupied = BTreeSet::new();
        for window in rows.windows.values() {
            let id = window.id;
            let free = !window.occupies() || occupied.insert(window.currency);
            holds(free, "C4", || format!("{} has two windows that are open, opening or closing", window.currency))?;
            let counted = truth.windows.get(&id);
            if window.netting_set.is_some() {
                let (tally, real) = (rows.tallies.get(&id), counted.map_or(0, |c| c.ids.len() as u64));
                let consumed = tally.map_or(0, |t| t.count);
                holds(consumed == real, "C1", || format!("window {id} is netted with {consumed} of {real}"))?;
            }
            if window.state == WindowState::Settled {
                let settled = counted.and_then(|c| c.settled);
                holds(settled.map(|s| s.1) == window.settled_at, "S6", || {
                    format!("window {id} is SETTLED at {:?}, the ledger says {settled:?}", window.settled_at)
                })?;
            }
            if window.state == WindowState::Aborted {
                let empty = counted.is_none_or(|c| c.ids.is_empty());
                holds(empty, "C8", || format!("window {id} is ABORTED and not empty"))?;
            }
        }
        for (id, tally) in &rows.tallies {
            let real = truth.windows.get(id).map_or(0, |c| c.ids.len() as u64);
            holds(tally.count <= real, "C3", || format!("window {id}: {} counted of {real}", tally.count))?;
        }
        for (id, set) in &rows.sets {
            let sum: i128 = set.positions.values().map(|n| n.units()).sum();
            holds(sum == 0, "C2", || format!("the positions of set {id} sum to {sum}"))?;
            let mut net: BTreeMap<ParticipantId, i128> = BTreeMap::new();
            for counted in set.windows.iter().filter_map(|w| truth.windows.get(w)) {
                counted.net.iter().for_each(|(p, n)| *net.entry(*p).or_default() += n);
            }
            let same = set.positions.iter().map(|(p, n)| (*p, n.units())).eq(net);
            holds(same, "C2", || format!("set {id} is not what its windows come to"))?;
        }
        Ok(())
    }

    /// C6: what was frozen stays.
    pub fn frozen(&self, after: &Rows) -> Checked {
        let kept = self.rows.sets.iter().all(|(id, set)| after.sets.get(id) == Some(set));
        holds(kept, "C6", || "a frozen set has changed".into())
    }
}
