//! The clearing window and its state machine.

use deltran_events::Event;
use deltran_events::data::clearing::{WindowExtended, WindowOpened, WindowScheduled};
use deltran_kernel::{Currency, Minor, NettingSetId, Timestamp, WindowId};

pub use deltran_events::data::clearing::WindowState;

/// What the ledger sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// Number of transactions.
    pub count: u64,
    /// Their sum in minor units.
    pub gross: Minor,
    /// SHA-256 over the 16-byte transaction ids in `window_seq` order.
    pub digest: [u8; 32],
}

/// A clearing window of one currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Its id, in the ledger too.
    pub id: WindowId,
    /// The schedule that it was planned by.
    pub schedule: String,
    /// Its currency.
    pub currency: Currency,
    /// Where it stands.
    pub state: WindowState,
    /// When it should open.
    pub opens_at: Timestamp,
    /// When it should close; none where a person closes it.
    pub closes_at: Option<Timestamp>,
    /// Whether an operator moved the closing time.
    pub extended: bool,
    /// When the ledger opened it.
    pub opened_at: Option<Timestamp>,
    /// When the ledger sealed it.
    pub closed_at: Option<Timestamp>,
    /// The finality time of its settlement.
    pub settled_at: Option<Timestamp>,
    /// Who ordered its opening, while the ledger has not answered.
    pub open_ordered_by: Option<String>,
    /// Who ordered its closing.
    pub close_ordered_by: Option<String>,
    /// The window that its seal opens.
    pub next: Option<WindowId>,
    /// Why it ends as ABORTED, if the ledger seals it empty.
    pub abort_reason: Option<String>,
    /// What the ledger sealed.
    pub sealed: Option<Seal>,
    /// The netting set that it is part of.
    pub netting_set: Option<NettingSetId>,
    /// Why it waits or failed.
    pub note: Option<String>,
}

impl Window {
    /// A planned window.
    pub fn scheduled(
        id: WindowId,
        schedule: &str,
        currency: Currency,
        opens_at: Timestamp,
        closes_at: Option<Timestamp>,
    ) -> Self {
        Self {
            id,
            schedule: schedule.to_owned(),
            currency,
            state: WindowState::Scheduled,
            opens_at,
            closes_at,
            extended: false,
            opened_at: None,
            closed_at: None,
            settled_at: None,
            open_ordered_by: None,
            close_ordered_by: None,
            next: None,
            abort_reason: None,
            sealed: None,
            netting_set: None,
            note: None,
        }
    }

    /// Whether it takes the one place that its currency has for an open window.
    pub fn occupies(&self) -> bool {
        match self.state {
            WindowState::Open | WindowState::Closing => true,
            WindowState::Scheduled => self.open_ordered_by.is_some(),
            _ => false,
        }
    }

    /// Whether the ledger sealed it without a transaction, or it was never open.
    pub fn is_empty(&self) -> bool {
        match &self.sealed {
            Some(seal) => seal.count == 0,
            None => self.state == WindowState::Scheduled && self.open_ordered_by.is_none(),
        }
    }

    /// This window in another state.
    ///
    /// # Errors
    /// [`Refusal::NotDrawn`] with the present state, where there is no such transition.
    pub fn to(&self, to: WindowState) -> Result<Self, Refusal> {
        advance(self.state, to, self.is_empty()).map_err(|from| Refusal::NotDrawn { window: self.id, from, to })?;
        Ok(Self { state: to, ..self.clone() })
    }

    /// This window as the ledger opened it.
    ///
    /// # Errors
    /// As [`Window::to`].
    pub fn opened(&self, at: Timestamp) -> Result<Self, Refusal> {
        Ok(Self { opened_at: Some(at), open_ordered_by: None, note: None, ..self.to(WindowState::Open)? })
    }

    pub(crate) fn scheduled_event(&self) -> Event {
        let Self { opens_at, closes_at, .. } = *self;
        WindowScheduled {
            window_id: self.id,
            schedule: self.schedule.clone(),
            currency: self.currency,
            opens_at,
            closes_at,
        }
        .into()
    }

    pub(crate) fn opened_event(&self) -> Event {
        WindowOpened {
            window_id: self.id,
            schedule: self.schedule.clone(),
            currency: self.currency,
            opened_at: self.opened_at.unwrap_or(self.opens_at),
            closes_at: self.closes_at,
        }
        .into()
    }

    pub(crate) fn extended_event(&self, closes_at: Timestamp, by: &str, reason: &str) -> Event {
        WindowExtended {
            window_id: self.id,
            currency: self.currency,
            closes_at,
            extended_by: by.to_owned(),
            reason: reason.to_owned(),
        }
        .into()
    }
}

/// The state machine: every transition that is drawn, and no other.
///
/// ```text
/// SCHEDULED → OPEN → CLOSING → CLOSED → NETTED → SETTLING → SETTLED
/// NETTED | SETTLING → FAILED → NETTED
/// SCHEDULED | CLOSED → ABORTED, where it is empty
/// ```
///
/// # Errors
/// The present state, where the transition is not drawn.
pub fn advance(from: WindowState, to: WindowState, empty: bool) -> Result<WindowState, WindowState> {
    use WindowState::{Aborted, Closed, Closing, Failed, Netted, Open, Scheduled, Settled, Settling};
    let drawn = match (from, to) {
        (Scheduled, Open)
        | (Open, Closing)
        | (Closing, Closed)
        | (Closed, Netted)
        | (Netted, Settling)
        | (Settling, Settled)
        | (Netted | Settling, Failed)
        | (Failed, Netted) => true,
        (Scheduled | Closed, Aborted) => empty,
        _ => false,
    };
    if drawn { Ok(to) } else { Err(from) }
}

/// Something to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// A new window.
    Insert(Window),
    /// A window that was in state `from`.
    Update {
        /// The state that it must still be in.
        from: WindowState,
        /// What it becomes.
        window: Window,
    },
}

/// What a decision leads to: rows to write, in this order, and events to publish.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Windows, in the order in which they must be written.
    pub writes: Vec<Write>,
    /// Events, each with the window that it belongs to.
    pub events: Vec<(WindowId, Event)>,
}

impl Change {
    pub(crate) fn insert(&mut self, window: Window) {
        self.events.push((window.id, window.scheduled_event()));
        self.writes.push(Write::Insert(window));
    }

    pub(crate) fn update(&mut self, from: WindowState, window: Window) {
        self.writes.push(Write::Update { from, window });
    }

    pub(crate) fn event(&mut self, window: WindowId, event: impl Into<Event>) {
        self.events.push((window, event.into()));
    }
}

/// A command that was understood: it has effects, or had them already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// These are its effects.
    Executed(Change),
    /// The same command was carried out before.
    AlreadyApplied,
}

/// Why a command about windows is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The state machine has no such transition.
    #[error("window {window} is {from}: it cannot become {to}")]
    NotDrawn {
        /// The window.
        window: WindowId,
        /// Its present state.
        from: WindowState,
        /// The state that was asked for.
        to: WindowState,
    },
    /// Only an open window has a closing time that can be moved.
    #[error("window {window} is {state}: only an OPEN window can be extended")]
    NotOpen {
        /// The window.
        window: WindowId,
        /// Its present state.
        state: WindowState,
    },
    /// The currency has an open window.
    #[error("{currency} has window {window} in state {state}: close it first")]
    AlreadyOpen {
        /// The currency.
        currency: Currency,
        /// The window that is open.
        window: WindowId,
        /// Its state.
        state: WindowState,
    },
    /// The id names another window.
    #[error("window {0} exists with another schedule, currency or state: choose a new id")]
    IdTaken(WindowId),
    /// The window has transactions.
    #[error("window {window} is {state} and has {count} transactions: only an empty window can be aborted")]
    NotEmpty {
        /// The window.
        window: WindowId,
        /// Its present state.
        state: WindowState,
        /// How many are known.
        count: u64,
    },
    /// The opening is ordered and the ledger has not answered.
    #[error("window {0} is SCHEDULED and being opened: wait until it is OPEN")]
    Opening(WindowId),
    /// The schedule follows a timetable.
    #[error("schedule {schedule:?} follows a timetable: {hint}")]
    Timetable {
        /// The schedule.
        schedule: String,
        /// What to do.
        hint: &'static str,
    },
    /// The window has no closing time to move.
    #[error("window {window} is {state} and has no closing time: its schedule is manual, close it by hand")]
    NoClosingTime {
        /// The window.
        window: WindowId,
        /// Its present state.
        state: WindowState,
    },
    /// The new closing time is not later than the present one, or not in the future.
    #[error("closes_at {asked} is not later than {bound}, {what}")]
    NotLater {
        /// The time that was asked for.
        asked: Timestamp,
        /// What it must be later than.
        bound: Timestamp,
        /// What that is.
        what: &'static str,
    },
    /// An event contradicts what is known.
    #[error("{0}")]
    Contradiction(String),
}

impl Refusal {
    /// The state that stood in the way, where it was one.
    pub fn state(&self) -> Option<WindowState> {
        match self {
            Self::NotDrawn { from: state, .. }
            | Self::AlreadyOpen { state, .. }
            | Self::NotOpen { state, .. }
            | Self::NotEmpty { state, .. }
            | Self::NoClosingTime { state, .. } => Some(*state),
            Self::Opening(_) => Some(WindowState::Scheduled),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use WindowState::*;

    /// All pairs of states: what is drawn for a window with transactions, and for an empty one.
    #[test]
    fn only_what_is_drawn_is_possible() {
        let drawn = [
            (Scheduled, Open),
            (Open, Closing),
            (Closing, Closed),
            (Closed, Netted),
            (Netted, Settling),
            (Settling, Settled),
            (Netted, Failed),
            (Settling, Failed),
            (Failed, Netted),
        ];
        let drawn_when_empty = [(Scheduled, Aborted), (Closed, Aborted)];
        for &from in WindowState::ALL {
            for &to in WindowState::ALL {
                let always = drawn.contains(&(from, to));
                let empty = always || drawn_when_empty.contains(&(from, to));
                assert_eq!(advance(from, to, false), if always { Ok(to) } else { Err(from) }, "{from} → {to}");
                assert_eq!(advance(from, to, true), if empty { Ok(to) } else { Err(from) }, "{from} → {to}, empty");
            }
        }
    }

    #[test]
    fn a_refusal_names_the_present_state() {
        let id = WindowId::new(uuid::Uuid::from_u128(7));
        let window = Window::scheduled(id, "manual", Currency::new("USD").unwrap(), Timestamp::from_micros(0), None);
        let refusal = window.to(Settled).unwrap_err();
        assert_eq!(refusal.state(), Some(Scheduled));
        assert!(refusal.to_string().contains("SCHEDULED"), "{refusal}");
    }
}
