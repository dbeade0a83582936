//! Commands about windows, from operators and from timetables, and what the ledger's answers lead to.

use deltran_events::data::clearing::{WindowAborted, WindowClosed, WindowClosing};
use deltran_kernel::{Currency, Money, Timestamp, WindowId};

use super::schedule::Slot;
use super::window::{Change, Decision, Refusal, Seal, Window, WindowState};

/// The order to open a window of a manual schedule.
#[derive(Debug, Clone)]
pub struct OpenOrder<'a> {
    /// The window's id, chosen by the caller: the idempotency key.
    pub id: WindowId,
    /// The schedule.
    pub schedule: &'a str,
    /// The currency.
    pub currency: Currency,
    /// Who orders it.
    pub by: &'a str,
    /// The present time.
    pub at: Timestamp,
}

/// Orders a window to open. `known` is the window of this id, `live` are the currency's windows that
/// are not yet sealed.
///
/// # Errors
/// In this order: the id names another window; another window of the currency is open.
pub fn open(order: &OpenOrder<'_>, known: Option<&Window>, live: &[Window]) -> Result<Decision, Refusal> {
    if let Some(known) = known {
        if known.schedule != order.schedule || known.currency != order.currency {
            return Err(Refusal::IdTaken(order.id));
        }
        if known.state != WindowState::Scheduled || known.open_ordered_by.is_some() {
            return Ok(Decision::AlreadyApplied);
        }
    }
    place_is_free(order.currency, live)?;

    // ---- nothing below may fail ----
    let mut change = Change::default();
    let planned = Window::scheduled(order.id, order.schedule, order.currency, order.at, None);
    let window = Window { open_ordered_by: Some(order.by.to_owned()), note: None, ..known.cloned().unwrap_or(planned) };
    match known {
        None => change.insert(window),
        Some(_) => change.update(WindowState::Scheduled, window),
    }
    Ok(Decision::Executed(change))
}

/// Plans a window of a timetable.
pub fn plan(id: WindowId, schedule: &str, currency: Currency, slot: Slot) -> Change {
    let mut change = Change::default();
    change.insert(Window::scheduled(id, schedule, currency, slot.opens_at, Some(slot.closes_at)));
    change
}

/// Orders a planned window of a timetable to open.
///
/// # Errors
/// Another window of the currency is open, or this one is not SCHEDULED.
pub fn open_planned(window: &Window, by: &str, live: &[Window]) -> Result<Change, Refusal> {
    if window.state != WindowState::Scheduled {
        return Err(Refusal::NotDrawn { window: window.id, from: window.state, to: WindowState::Open });
    }
    place_is_free(window.currency, live)?;

    // ---- nothing below may fail ----
    let mut change = Change::default();
    change.update(window.state, Window { open_ordered_by: Some(by.to_owned()), ..window.clone() });
    Ok(change)
}

fn place_is_free(currency: Currency, live: &[Window]) -> Result<(), Refusal> {
    match live.iter().find(|w| w.occupies()) {
        Some(open) => Err(Refusal::AlreadyOpen { currency, window: open.id, state: open.state }),
        None => Ok(()),
    }
}

/// What opens in the same step as a window closes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nothing.
    None,
    /// A window of this id, closed by hand; it is planned where it does not exist.
    ByHand(WindowId, Option<Window>),
    /// The window of the next slot of a timetable: the planned one, or a new one of this id.
    Planned(WindowId, Option<Window>, Slot),
}

impl Next {
    fn id(&self) -> Option<WindowId> {
        match self {
            Self::None => None,
            Self::ByHand(id, _) | Self::Planned(id, ..) => Some(*id),
        }
    }
}

/// The order to close a window.
#[derive(Debug, Clone)]
pub struct CloseOrder<'a> {
    /// Who orders it.
    pub by: &'a str,
    /// The present time.
    pub at: Timestamp,
    /// What opens in the same step.
    pub next: Next,
    /// Set where the window ends as ABORTED if the ledger seals it empty.
    pub abort_reason: Option<&'a str>,
}

/// Orders a window to close. The same order again is answered with the window as it is, while it is
/// CLOSING or CLOSED.
///
/// # Errors
/// In this order: the window is in another state than OPEN; the next id is taken.
pub fn close(window: &Window, order: &CloseOrder<'_>) -> Result<Decision, Refusal> {
    let same_next = match &order.next {
        Next::Planned(..) => true,
        next => next.id() == window.next,
    };
    if matches!(window.state, WindowState::Closing | WindowState::Closed) && same_next && order.abort_reason.is_none() {
        return Ok(Decision::AlreadyApplied);
    }
    let closing = window.to(WindowState::Closing)?;
    if let Next::ByHand(id, known) = &order.next {
        let fits = |w: &Window| w.state == WindowState::Scheduled && !w.occupies() && w.currency == window.currency;
        if *id == window.id || known.as_ref().is_some_and(|w| !fits(w)) {
            return Err(Refusal::IdTaken(*id));
        }
    }

    // ---- nothing below may fail ----
    let mut change = Change::default();
    match &order.next {
        Next::None | Next::ByHand(_, Some(_)) => {}
        Next::ByHand(id, None) => {
            change.insert(Window::scheduled(*id, &window.schedule, window.currency, order.at, None));
        }
        Next::Planned(id, None, slot) => {
            let Slot { opens_at, closes_at } = *slot;
            change.insert(Window::scheduled(*id, &window.schedule, window.currency, opens_at, Some(closes_at)));
        }
        Next::Planned(_, Some(planned), slot) => {
            merge(&mut change, retime(planned, *slot, order.by, "the window before it was closed by hand"));
        }
    }
    let closing = Window {
        close_ordered_by: Some(order.by.to_owned()),
        next: order.next.id(),
        abort_reason: order.abort_reason.map(str::to_owned),
        ..closing
    };
    let event = WindowClosing { window_id: window.id, currency: window.currency, ordered_by: order.by.to_owned() };
    change.event(window.id, event);
    change.update(window.state, closing);
    Ok(Decision::Executed(change))
}

fn merge(into: &mut Change, from: Change) {
    into.writes.extend(from.writes);
    into.events.extend(from.events);
}

/// Gives a window the times of a slot. Where nothing differs, nothing happens.
pub fn retime(window: &Window, slot: Slot, by: &str, reason: &str) -> Change {
    let mut change = Change::default();
    if (window.opens_at, window.closes_at) != (slot.opens_at, Some(slot.closes_at)) {
        let retimed = Window { opens_at: slot.opens_at, closes_at: Some(slot.closes_at), ..window.clone() };
        if window.closes_at != retimed.closes_at {
            change.event(window.id, window.extended_event(slot.closes_at, by, reason));
        }
        change.update(window.state, retimed);
    }
    change
}

/// Moves the closing time of an open window to a later one.
///
/// # Errors
/// In this order: the window is not OPEN; it has no closing time; the new one is not later.
pub fn extend(
    window: &Window,
    closes_at: Timestamp,
    by: &str,
    reason: &str,
    now: Timestamp,
) -> Result<Decision, Refusal> {
    if window.state != WindowState::Open {
        return Err(Refusal::NotOpen { window: window.id, state: window.state });
    }
    let Some(present) = window.closes_at else {
        return Err(Refusal::NoClosingTime { window: window.id, state: window.state });
    };
    if present == closes_at && window.extended {
        return Ok(Decision::AlreadyApplied);
    }
    for (bound, what) in [(present, "the present closing time"), (now, "the present time")] {
        if closes_at <= bound {
            return Err(Refusal::NotLater { asked: closes_at, bound, what });
        }
    }

    // ---- nothing below may fail ----
    let mut change = Change::default();
    change.event(window.id, window.extended_event(closes_at, by, reason));
    change.update(window.state, Window { closes_at: Some(closes_at), extended: true, ..window.clone() });
    Ok(Decision::Executed(change))
}

/// How an empty window is ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Abort {
    /// At once.
    Now(Change),
    /// It is open in the ledger: it must be sealed first, with an order that names the reason.
    Seal,
    /// It was done, or ordered, before.
    AlreadyApplied,
}

/// Ends an empty window. `live` are the currency's windows that are not yet sealed, `counted` is what was consumed of
/// it, `planned` whether a timetable would plan it again at once.
///
/// # Errors
/// In this order: its opening is under way, by an order of its own or by the seal of the window before it; a timetable
/// owns it; it has transactions; its state is too late for that.
pub fn abort(
    window: &Window,
    live: &[Window],
    counted: u64,
    planned: bool,
    by: &str,
    reason: &str,
) -> Result<Abort, Refusal> {
    let sealed = window.sealed.as_ref().map_or(0, |seal| seal.count);
    // The ledger opens it with the seal that was ordered, and may have done so already.
    let follows = live.iter().any(|w| w.state == WindowState::Closing && w.next == Some(window.id));
    match window.state {
        WindowState::Aborted => return Ok(Abort::AlreadyApplied),
        WindowState::Closing if window.abort_reason.is_some() => return Ok(Abort::AlreadyApplied),
        WindowState::Scheduled if follows || window.open_ordered_by.is_some() => {
            return Err(Refusal::Opening(window.id));
        }
        WindowState::Scheduled if planned => {
            let hint = "it would plan the window again; add a holiday to its calendar instead";
            return Err(Refusal::Timetable { schedule: window.schedule.clone(), hint });
        }
        _ if counted.max(sealed) > 0 => {
            return Err(Refusal::NotEmpty { window: window.id, state: window.state, count: counted.max(sealed) });
        }
        WindowState::Open => return Ok(Abort::Seal),
        _ => {}
    }
    let aborted = window.to(WindowState::Aborted)?;

    // ---- nothing below may fail ----
    let mut change = Change::default();
    change.event(window.id, aborted_event(window, by, reason));
    change.update(window.state, Window { abort_reason: Some(reason.to_owned()), ..aborted });
    Ok(Abort::Now(change))
}

fn aborted_event(window: &Window, by: &str, reason: &str) -> WindowAborted {
    WindowAborted {
        window_id: window.id,
        currency: window.currency,
        ordered_by: by.to_owned(),
        reason: reason.to_owned(),
    }
}

/// The ledger opened a window.
///
/// # Errors
/// The window is not SCHEDULED.
pub fn opened(window: &Window, at: Timestamp) -> Result<Change, Refusal> {
    let open = window.opened(at)?;

    // ---- nothing below may fail ----
    let mut change = Change::default();
    change.event(window.id, open.opened_event());
    change.update(window.state, open);
    Ok(change)
}

/// The ledger refused to open a window: the order is withdrawn where a person gave it.
pub fn open_refused(window: &Window, why: &str, withdraw: bool) -> Change {
    let mut change = Change::default();
    let open_ordered_by = if withdraw { None } else { window.open_ordered_by.clone() };
    change.update(window.state, Window { open_ordered_by, note: Some(why.to_owned()), ..window.clone() });
    change
}

/// The ledger sealed a window and opened the next, if one was named. A window whose end was ordered
/// becomes ABORTED if it is empty; if not it goes on to netting, with a note.
///
/// # Errors
/// The window is not CLOSING, or the next one not SCHEDULED.
pub fn sealed(
    window: &Window,
    next: Option<&Window>,
    seal: Seal,
    counted: u64,
    at: Timestamp,
) -> Result<Change, Refusal> {
    let count = seal.count;
    let closed =
        Window { sealed: Some(seal.clone()), closed_at: Some(at), note: None, ..window.to(WindowState::Closed)? };
    let last = match &window.abort_reason {
        Some(_) if count == 0 && counted == 0 => closed.to(WindowState::Aborted)?,
        Some(_) => {
            let note = format!("its end was ordered, but the ledger sealed it with {count} transactions: it is netted");
            Window { note: Some(note), ..closed.clone() }
        }
        None => closed.clone(),
    };
    let next = next.map(|next| next.opened(at).map(|open| (next, open))).transpose()?;

    // ---- nothing below may fail ----
    let mut change = Change::default();
    let event = WindowClosed {
        window_id: window.id,
        currency: window.currency,
        count,
        gross: Money::new(seal.gross, window.currency).into(),
        digest: hex::encode(seal.digest),
        closed_at: at,
    };
    change.event(window.id, event);
    if last.state == WindowState::Aborted {
        let by = window.close_ordered_by.as_deref().unwrap_or_default();
        change.event(window.id, aborted_event(window, by, window.abort_reason.as_deref().unwrap_or_default()));
    }
    change.update(window.state, last);
    if let Some((next, open)) = next {
        change.event(open.id, open.opened_event());
        change.update(next.state, open);
    }
    Ok(change)
}

#[cfg(test)]
#[path = "orders_tests.rs"]
mod tests;
