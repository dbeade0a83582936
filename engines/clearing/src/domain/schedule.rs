//! Schedules: when windows open and close. Pure: given the present time and the windows of a
//! currency, what is the one next step.
//!
//! The timetable's closing times apply to whatever window is open then. A closing that was missed is
//! made up for at once, and the next window closes at the first closing time that is still ahead.
//! Nothing is remembered outside the windows themselves, so a clock that jumps only moves the
//! answer, and one open window never becomes two.

use croner::Cron;
use deltran_kernel::{BusinessCalendar, Currency, Timestamp, WindowId};
use jiff::Zoned;
use jiff::tz::TimeZone;

use super::window::{Window, WindowState};

/// Days that are looked through for a business day: more than a year, so that a yearly closing is found.
const HORIZON_DAYS: u32 = 800;

/// A schedule: one window at a time for each of its currencies.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// Its name.
    pub name: String,
    /// Its currencies.
    pub currencies: Vec<Currency>,
    /// Who opens and closes.
    pub mode: Mode,
    /// Seconds after sealing until missing obligations raise an alert.
    pub grace_seconds: u32,
}

/// Who opens and closes the windows of a schedule.
#[derive(Debug, Clone)]
pub enum Mode {
    /// An operator.
    Manual,
    /// A timetable.
    Cron(Box<Timetable>),
}

/// Closing and opening times in a time zone, on business days.
#[derive(Debug, Clone)]
pub struct Timetable {
    /// Closing times.
    pub close: Cron,
    /// Opening times; without them a window opens when the one before closes.
    pub open: Option<Cron>,
    /// Where the times are read.
    pub zone: TimeZone,
    /// On which days they count.
    pub calendar: BusinessCalendar,
}

/// A window as the timetable sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The window.
    pub id: WindowId,
    /// Where it stands.
    pub state: WindowState,
    /// When it should open.
    pub opens_at: Timestamp,
    /// When it should close.
    pub closes_at: Option<Timestamp>,
    /// Whether an operator moved the closing time.
    pub extended: bool,
}

/// The windows of a currency that matter to its timetable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// The one window that is open, opening or closing.
    pub current: Option<Seen>,
    /// The first window that is planned and not ordered to open.
    pub next: Option<Seen>,
    /// When the last window that was ever opened should have opened.
    pub last_opens_at: Option<Timestamp>,
}

impl View {
    /// The view of a currency's unfinished windows, in the order of planning.
    pub fn of<'a>(windows: impl IntoIterator<Item = &'a Window>, last_opens_at: Option<Timestamp>) -> Self {
        let mut view = Self { last_opens_at, ..Self::default() };
        for window in windows {
            let place = if window.occupies() {
                &mut view.current
            } else if window.state == WindowState::Scheduled && view.next.is_none() {
                &mut view.next
            } else {
                continue;
            };
            *place = Some(Seen {
                id: window.id,
                state: window.state,
                opens_at: window.opens_at,
                closes_at: window.closes_at,
                extended: window.extended,
            });
        }
        view
    }
}

/// From when to when a window should be open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Opening.
    pub opens_at: Timestamp,
    /// Closing; after the opening.
    pub closes_at: Timestamp,
}

/// The next step of a timetable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Plan a window.
    Create(Slot),
    /// Give a window other times.
    Retime(WindowId, Slot),
    /// Order a planned window to open.
    Open(WindowId),
    /// Order a window to close, and in the same step the next to open where one is named.
    Close {
        /// The window that closes.
        window: WindowId,
        /// The window that opens.
        next: Option<WindowId>,
    },
}

impl Timetable {
    /// The first closing time after `after`; none within two years means never.
    pub fn next_close(&self, after: Timestamp) -> Option<Timestamp> {
        self.next_of(&self.close, after)
    }

    /// The first opening time after `after`, where there are opening times.
    pub fn next_open(&self, after: Timestamp) -> Option<Timestamp> {
        self.next_of(self.open.as_ref()?, after)
    }

    /// The one next step for a currency, or none while there is nothing to do.
    pub fn plan(&self, now: Timestamp, view: &View) -> Option<Action> {
        match &view.current {
            None => self.plan_idle(now, view),
            Some(current) if current.state == WindowState::Open => self.plan_open(now, current, view),
            Some(_) => None,
        }
    }

    /// The window that follows one which is closed at `now` by hand: it opens in the same step, unless
    /// the timetable has opening times of its own.
    pub fn follower(&self, now: Timestamp) -> Option<Slot> {
        match self.open {
            None => Some(Slot { opens_at: now, closes_at: self.next_close(now)? }),
            Some(_) => None,
        }
    }

    fn plan_open(&self, now: Timestamp, current: &Seen, view: &View) -> Option<Action> {
        let ahead = self.next_close(now)?;
        let retimed = Slot { opens_at: current.opens_at, closes_at: ahead };
        let Some(closes_at) = current.closes_at else { return Some(Action::Retime(current.id, retimed)) };
        // Only a clock that was set back or another timetable leaves a closing time between.
        if !current.extended && now < closes_at && ahead < closes_at {
            return Some(Action::Retime(current.id, retimed));
        }
        let slot = match &self.open {
            None => Slot { opens_at: closes_at, closes_at: self.next_close(closes_at.max(now))? },
            Some(open) => self.slot(open, closes_at.max(now), Some(current.opens_at))?,
        };
        let Some(next) = &view.next else { return Some(Action::Create(slot)) };
        if (next.opens_at, next.closes_at) != (slot.opens_at, Some(slot.closes_at)) {
            return Some(Action::Retime(next.id, slot));
        }
        let due = now >= closes_at;
        due.then(|| Action::Close { window: current.id, next: (slot.opens_at <= now).then_some(next.id) })
    }

    fn plan_idle(&self, now: Timestamp, view: &View) -> Option<Action> {
        let slot = match &self.open {
            None => {
                let opens_at = view.next.as_ref().map_or(now, |next| next.opens_at.min(now));
                Slot { opens_at, closes_at: self.next_close(now)? }
            }
            Some(open) => self.slot(open, now, view.last_opens_at)?,
        };
        let Some(next) = &view.next else { return Some(Action::Create(slot)) };
        if (next.opens_at, next.closes_at) != (slot.opens_at, Some(slot.closes_at)) {
            return Some(Action::Retime(next.id, slot));
        }
        (slot.opens_at <= now).then_some(Action::Open(next.id))
    }

    /// The slot that `at` lies in, unless the window that opened at `used` had it; else the next one.
    fn slot(&self, open: &Cron, at: Timestamp, used: Option<Timestamp>) -> Option<Slot> {
        if let Some(opens_at) = self.previous_of(open, at)
            && used.is_none_or(|used| opens_at > used)
            && let Some(closes_at) = self.next_close(opens_at)
            && closes_at > at
        {
            return Some(Slot { opens_at, closes_at });
        }
        let opens_at = self.next_of(open, at)?;
        Some(Slot { opens_at, closes_at: self.next_close(opens_at)? })
    }

    fn next_of(&self, cron: &Cron, from: Timestamp) -> Option<Timestamp> {
        let (mut from, mut inclusive) = (self.zoned(from), false);
        for _ in 0..HORIZON_DAYS {
            let found = cron.find_next_occurrence(&from, inclusive).ok()?;
            if self.calendar.is_business_day(found.date()) {
                return Some(Timestamp::from_jiff(found.timestamp()));
            }
            from = found.tomorrow().ok()?.start_of_day().ok()?;
            inclusive = true;
        }
        None
    }

    /// The last time at or before `at`.
    fn previous_of(&self, cron: &Cron, at: Timestamp) -> Option<Timestamp> {
        let (mut from, mut inclusive) = (self.zoned(at), true);
        for _ in 0..HORIZON_DAYS {
            let found = cron.find_previous_occurrence(&from, inclusive).ok()?;
            if self.calendar.is_business_day(found.date()) && found.timestamp() <= at.to_jiff() {
                return Some(Timestamp::from_jiff(found.timestamp()));
            }
            from = found.start_of_day().ok()?;
            inclusive = false;
        }
        None
    }

    fn zoned(&self, at: Timestamp) -> Zoned {
        at.to_jiff().to_zoned(self.zone.clone())
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
