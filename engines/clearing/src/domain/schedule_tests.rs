//! Tests of schedules: days, calendars, daylight saving, missed times and clocks that jump.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use uuid::Uuid;

fn timetable(close: &str, open: Option<&str>, zone: &str) -> Timetable {
    Timetable {
        close: close.parse().unwrap(),
        open: open.map(|o| o.parse().unwrap()),
        zone: TimeZone::get(zone).unwrap(),
        calendar: BusinessCalendar::default(),
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn id(n: u128) -> WindowId {
    WindowId::new(Uuid::from_u128(n))
}

fn slot(opens_at: &str, closes_at: &str) -> Slot {
    Slot { opens_at: at(opens_at), closes_at: at(closes_at) }
}

fn seen(n: u128, state: WindowState, slot: Slot) -> Seen {
    Seen { id: id(n), state, opens_at: slot.opens_at, closes_at: Some(slot.closes_at), extended: false }
}

/// A currency's windows in memory, with the ledger answering at once.
#[derive(Default)]
struct Model {
    windows: BTreeMap<u128, Seen>,
    opened: BTreeMap<u128, Timestamp>,
    last_opened: Option<u128>,
}

impl Model {
    fn view(&self) -> View {
        let first = |state| self.windows.values().find(|w| w.state == state).cloned();
        View {
            current: first(WindowState::Open),
            next: first(WindowState::Scheduled),
            last_opens_at: self.last_opened.map(|n| self.windows[&n].opens_at),
        }
    }

    fn open(&mut self, window: WindowId, now: Timestamp) {
        let n = window.uuid().as_u128();
        self.windows.get_mut(&n).unwrap().state = WindowState::Open;
        self.opened.insert(n, now);
        self.last_opened = Some(n);
    }

    /// Takes steps until there is nothing to do.
    fn settle(&mut self, timetable: &Timetable, now: Timestamp) {
        for _ in 0..20 {
            let Some(action) = timetable.plan(now, &self.view()) else { return };
            match action {
                Action::Create(slot) => {
                    let n = self.windows.len() as u128 + 1;
                    self.windows.insert(n, seen(n, WindowState::Scheduled, slot));
                }
                Action::Retime(window, slot) => {
                    let w = self.windows.get_mut(&window.uuid().as_u128()).unwrap();
                    (w.opens_at, w.closes_at) = (slot.opens_at, Some(slot.closes_at));
                }
                Action::Open(window) => self.open(window, now),
                Action::Close { window, next } => {
                    self.windows.get_mut(&window.uuid().as_u128()).unwrap().state = WindowState::Closed;
                    if let Some(next) = next {
                        self.open(next, now);
                    }
                }
            }
            assert!(self.count(WindowState::Open) <= 1, "C4");
        }
        panic!("the timetable does not come to rest at {now}: {:?}", self.view());
    }

    fn count(&self, state: WindowState) -> usize {
        self.windows.values().filter(|w| w.state == state).count()
    }

    fn current(&self) -> Seen {
        self.view().current.expect("a window is open")
    }
}

#[test]
fn a_day_without_opening_times_has_always_one_open_window() {
    let daily = timetable("0 11,17 * * *", None, "UTC");
    let mut model = Model::default();
    model.settle(&daily, at("2026-03-02T09:00:00Z"));
    assert_eq!(model.current().closes_at, Some(at("2026-03-02T11:00:00Z")));
    assert_eq!(model.view().next.unwrap().closes_at, Some(at("2026-03-02T17:00:00Z")), "the next one is announced");
    model.settle(&daily, at("2026-03-02T10:59:59.999999Z"));
    assert_eq!(model.current().id, id(1));
    model.settle(&daily, at("2026-03-02T11:00:00Z"));
    assert_eq!((model.current().id, model.current().closes_at), (id(2), Some(at("2026-03-02T17:00:00Z"))));
}

#[test]
fn closings_that_were_missed_are_made_up_for_at_once() {
    let hourly = timetable("0 * * * *", None, "UTC");
    let mut model = Model::default();
    model.settle(&hourly, at("2026-03-02T09:10:00Z"));
    model.settle(&hourly, at("2026-03-02T12:30:00Z"));
    assert_eq!(model.count(WindowState::Closed), 1);
    assert_eq!(model.current().closes_at, Some(at("2026-03-02T13:00:00Z")), "the next closing is ahead");
}

#[test]
fn a_clock_set_back_closes_nothing_twice_and_moves_closings_back() {
    let hourly = timetable("0 * * * *", None, "UTC");
    let mut model = Model::default();
    model.settle(&hourly, at("2026-03-02T09:10:00Z"));
    model.settle(&hourly, at("2030-01-01T00:30:00Z"));
    assert_eq!(model.current().closes_at, Some(at("2030-01-01T01:00:00Z")));
    model.settle(&hourly, at("2026-03-02T09:20:00Z"));
    assert_eq!(model.current().closes_at, Some(at("2026-03-02T10:00:00Z")));
    assert_eq!((model.count(WindowState::Open), model.count(WindowState::Closed)), (1, 1));
}

#[test]
fn an_operators_extension_stays() {
    let hourly = timetable("0 * * * *", None, "UTC");
    let mut model = Model::default();
    model.settle(&hourly, at("2026-03-02T09:10:00Z"));
    let w = model.windows.get_mut(&1).unwrap();
    (w.closes_at, w.extended) = (Some(at("2026-03-02T11:30:00Z")), true);
    model.settle(&hourly, at("2026-03-02T11:10:00Z"));
    assert_eq!(model.current().id, id(1));
    assert_eq!(model.view().next.unwrap().closes_at, Some(at("2026-03-02T12:00:00Z")));
    model.settle(&hourly, at("2026-03-02T11:30:00Z"));
    assert_eq!(model.current().closes_at, Some(at("2026-03-02T12:00:00Z")));
}

#[test]
fn weekends_and_holidays_have_no_closing() {
    let saturday_sunday = vec![jiff::civil::Weekday::Saturday, jiff::civil::Weekday::Sunday];
    let calendar = BusinessCalendar::new(saturday_sunday, ["2026-03-09".parse().unwrap()]);
    let daily = Timetable { calendar, ..timetable("0 17 * * *", Some("0 8 * * *"), "Asia/Dubai") };
    assert_eq!(
        daily.next_close(at("2026-03-06T14:00:00Z")),
        Some(at("2026-03-10T13:00:00Z")),
        "Friday evening to Tuesday"
    );
    let mut model = Model::default();
    model.settle(&daily, at("2026-03-07T10:00:00Z"));
    assert_eq!(model.count(WindowState::Open), 0);
    assert_eq!(model.view().next.unwrap().opens_at, at("2026-03-10T04:00:00Z"));
}

#[test]
fn opening_times_leave_the_night_closed() {
    let daily = timetable("0 17 * * *", Some("0 8 * * *"), "UTC");
    let mut model = Model::default();
    model.settle(&daily, at("2026-03-02T12:00:00Z"));
    assert_eq!(model.current().opens_at, at("2026-03-02T08:00:00Z"), "a start at noon opens what should be open");
    model.settle(&daily, at("2026-03-02T17:00:00Z"));
    assert_eq!(model.count(WindowState::Open), 0);
    model.settle(&daily, at("2026-03-03T07:59:59Z"));
    assert_eq!(model.count(WindowState::Open), 0);
    model.settle(&daily, at("2026-03-03T08:00:00Z"));
    assert_eq!(model.current().closes_at, Some(at("2026-03-03T17:00:00Z")));
    // A whole day away: the slot that passed is not opened late, the window takes the next one's times.
    model.settle(&daily, at("2026-03-05T06:00:00Z"));
    assert_eq!(model.count(WindowState::Open), 0);
    assert_eq!(model.view().next.unwrap().opens_at, at("2026-03-05T08:00:00Z"));
}

#[test]
fn a_window_closed_early_is_not_opened_again_the_same_day() {
    let daily = timetable("0 17 * * *", Some("0 8 * * *"), "UTC");
    assert_eq!(daily.follower(at("2026-03-02T15:00:00Z")), None);
    let mut model = Model::default();
    model.settle(&daily, at("2026-03-02T12:00:00Z"));
    model.windows.get_mut(&1).unwrap().state = WindowState::Closed;
    model.settle(&daily, at("2026-03-02T15:00:00Z"));
    assert_eq!(model.count(WindowState::Open), 0);
    assert_eq!(model.view().next.unwrap().opens_at, at("2026-03-03T08:00:00Z"));
    let always = timetable("0 17 * * *", None, "UTC");
    let follower = always.follower(at("2026-03-02T15:00:00Z"));
    assert_eq!(follower, Some(slot("2026-03-02T15:00:00Z", "2026-03-02T17:00:00Z")));
}

#[test]
fn where_closing_and_opening_meet_one_step_does_both() {
    let round = timetable("0 17 * * *", Some("0 17 * * *"), "UTC");
    let mut model = Model::default();
    model.settle(&round, at("2026-03-02T12:00:00Z"));
    let first = model.current().id;
    let due = at("2026-03-02T17:00:00Z");
    assert!(matches!(round.plan(due, &model.view()), Some(Action::Close { window, next: Some(_) }) if window == first));
}

/// Spring forward: 02:00 to 03:00 does not exist on 2026-03-29 in Zurich.
#[test]
fn a_closing_inside_the_lost_hour_comes_right_after_it() {
    let night = timetable("30 2 * * *", None, "Europe/Zurich");
    assert_eq!(night.next_close(at("2026-03-28T12:00:00Z")), Some(at("2026-03-29T01:00:00Z")));
    assert_eq!(night.next_close(at("2026-03-29T01:00:00Z")), Some(at("2026-03-30T00:30:00Z")));
    let hourly = timetable("0 * * * *", None, "Europe/Zurich");
    assert_eq!(hourly.next_close(at("2026-03-29T00:00:00Z")), Some(at("2026-03-29T01:00:00Z")));
}

/// Fall back: 02:00 to 03:00 happens twice on 2026-10-25 in Zurich.
#[test]
fn a_closing_inside_the_repeated_hour_comes_once() {
    let night = timetable("30 2 * * *", None, "Europe/Zurich");
    assert_eq!(night.next_close(at("2026-10-24T12:00:00Z")), Some(at("2026-10-25T00:30:00Z")));
    assert_eq!(night.next_close(at("2026-10-25T00:30:00Z")), Some(at("2026-10-26T01:30:00Z")));
    let hourly = timetable("0 * * * *", None, "Europe/Zurich");
    let mut now = at("2026-10-24T23:30:00Z");
    for expected in ["2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"] {
        now = hourly.next_close(now).unwrap();
        assert_eq!(now, at(expected), "real hours, each once");
    }
}

#[test]
fn nothing_is_decided_while_the_ledger_has_not_answered() {
    let hourly = timetable("0 * * * *", None, "UTC");
    for state in [WindowState::Closing, WindowState::Scheduled] {
        let current = Some(seen(1, state, slot("2026-03-02T08:00:00Z", "2026-03-02T09:00:00Z")));
        let view = View { current, next: None, last_opens_at: None };
        assert_eq!(hourly.plan(at("2026-03-02T12:00:00Z"), &view), None, "{state}");
    }
}

#[test]
fn a_window_from_a_manual_schedule_gets_a_closing_time() {
    let hourly = timetable("0 * * * *", None, "UTC");
    let manual =
        Seen { closes_at: None, ..seen(1, WindowState::Open, slot("2026-03-02T08:00:00Z", "2026-03-02T09:00:00Z")) };
    let view = View { current: Some(manual), next: None, last_opens_at: None };
    let expected = slot("2026-03-02T08:00:00Z", "2026-03-02T13:00:00Z");
    assert_eq!(hourly.plan(at("2026-03-02T12:00:00Z"), &view), Some(Action::Retime(id(1), expected)));
}

proptest! {
    /// Under any jumps of the clock: it comes to rest, at most one window is open, one always is where
    /// there are no opening times, and its closing time is ahead.
    #[test]
    fn clocks_may_jump(jumps in prop::collection::vec(-200_000i64..400_000, 1..40), which in 0usize..3) {
        let table = match which {
            0 => timetable("0 * * * *", None, "Europe/Zurich"),
            1 => timetable("30 2,12,17 * * *", None, "America/New_York"),
            _ => timetable("0 17 * * *", Some("0 8 * * *"), "Europe/Zurich"),
        };
        let mut model = Model::default();
        let mut now = at("2026-03-27T09:00:00Z");
        for jump in jumps {
            now = now.plus_seconds(jump);
            model.settle(&table, now);
            let open = model.view().current;
            prop_assert!(which == 2 || open.is_some());
            if let Some(open) = open {
                prop_assert!(open.closes_at.unwrap() > now);
            }
            prop_assert!(model.count(WindowState::Scheduled) <= 1);
        }
    }
}
