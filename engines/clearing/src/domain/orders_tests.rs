//! Tests of commands: one row per refusal, in order, and the effects.

use super::*;
use crate::domain::window::Write;
use deltran_kernel::Minor;
use uuid::Uuid;

const AT: Timestamp = Timestamp::from_micros(1_000_000);

fn id(n: u128) -> WindowId {
    WindowId::new(Uuid::from_u128(n))
}

fn usd() -> Currency {
    Currency::new("USD").unwrap()
}

fn seal(count: u64) -> Seal {
    Seal { count, gross: Minor::new(i128::from(count) * 100).unwrap(), digest: [7; 32] }
}

fn window(n: u128, state: WindowState) -> Window {
    let planned = Window::scheduled(id(n), "manual", usd(), AT, None);
    let sealed = (state == WindowState::Closed).then(|| seal(0));
    Window { state, sealed, ..planned }
}

fn order(n: u128) -> OpenOrder<'static> {
    OpenOrder { id: id(n), schedule: "manual", currency: usd(), by: "ada", at: AT }
}

fn close_order(next: Next) -> CloseOrder<'static> {
    CloseOrder { by: "ada", at: AT, next, abort_reason: None }
}

fn change(decision: Result<Decision, Refusal>) -> Change {
    match decision {
        Ok(Decision::Executed(change)) => change,
        other => panic!("{other:?}"),
    }
}

fn types(change: &Change) -> Vec<String> {
    change.events.iter().map(|(_, e)| e.spec().event_type().to_owned()).collect()
}

fn states(change: &Change) -> Vec<(WindowId, WindowState)> {
    change
        .writes
        .iter()
        .map(|w| match w {
            Write::Insert(w) | Write::Update { window: w, .. } => (w.id, w.state),
        })
        .collect()
}

#[test]
fn opening_plans_and_orders() {
    let change = change(open(&order(1), None, &[]));
    assert_eq!(types(&change), ["window.scheduled"]);
    let [Write::Insert(window)] = &change.writes[..] else { panic!("{change:?}") };
    assert!(window.occupies() && window.open_ordered_by.as_deref() == Some("ada"));
}

#[test]
fn opening_is_refused_while_another_window_is_open() {
    for (state, ordered) in
        [(WindowState::Open, None), (WindowState::Closing, None), (WindowState::Scheduled, Some("x".to_owned()))]
    {
        let other = Window { open_ordered_by: ordered, ..window(2, state) };
        let refused = open(&order(1), None, std::slice::from_ref(&other)).unwrap_err();
        assert_eq!(refused, Refusal::AlreadyOpen { currency: usd(), window: id(2), state }, "{state}");
    }
    assert!(open(&order(1), None, &[window(2, WindowState::Scheduled)]).is_ok(), "planned only is no obstacle");
}

#[test]
fn the_window_id_is_the_idempotency_key() {
    for state in WindowState::ALL.iter().copied().filter(|s| *s != WindowState::Scheduled) {
        let known = window(1, state);
        assert_eq!(open(&order(1), Some(&known), &[]), Ok(Decision::AlreadyApplied), "{state}");
    }
    let ordered = Window { open_ordered_by: Some("ada".into()), ..window(1, WindowState::Scheduled) };
    assert_eq!(open(&order(1), Some(&ordered), &[]), Ok(Decision::AlreadyApplied));
    let withdrawn = window(1, WindowState::Scheduled);
    assert_eq!(states(&change(open(&order(1), Some(&withdrawn), &[]))), [(id(1), WindowState::Scheduled)]);
    let other = Window { schedule: "other".into(), ..window(1, WindowState::Open) };
    assert_eq!(open(&order(1), Some(&other), &[]), Err(Refusal::IdTaken(id(1))));
}

#[test]
fn closing_orders_the_seal_and_plans_the_next() {
    let change = change(close(&window(1, WindowState::Open), &close_order(Next::ByHand(id(2), None))));
    assert_eq!(types(&change), ["window.scheduled", "window.closing"]);
    assert_eq!(states(&change), [(id(2), WindowState::Scheduled), (id(1), WindowState::Closing)]);
}

#[test]
fn closing_in_every_state() {
    use WindowState::*;
    for &state in WindowState::ALL {
        let outcome = close(&window(1, state), &close_order(Next::None));
        match state {
            Open => assert!(matches!(outcome, Ok(Decision::Executed(_)))),
            Closing | Closed => assert_eq!(outcome, Ok(Decision::AlreadyApplied), "{state}"),
            _ => assert_eq!(outcome, Err(Refusal::NotDrawn { window: id(1), from: state, to: Closing })),
        }
        if matches!(state, Closing | Closed) {
            let another = close(&window(1, state), &close_order(Next::ByHand(id(2), None)));
            assert_eq!(another, Err(Refusal::NotDrawn { window: id(1), from: state, to: Closing }), "another next");
        }
    }
}

#[test]
fn the_next_id_must_be_free_or_planned() {
    let open = window(1, WindowState::Open);
    let euro = Window { currency: Currency::new("EUR").unwrap(), ..window(2, WindowState::Scheduled) };
    let ordered = Window { open_ordered_by: Some("x".into()), ..window(2, WindowState::Scheduled) };
    for known in [window(2, WindowState::Settled), euro, ordered] {
        assert_eq!(close(&open, &close_order(Next::ByHand(id(2), Some(known)))), Err(Refusal::IdTaken(id(2))));
    }
    assert_eq!(close(&open, &close_order(Next::ByHand(id(1), None))), Err(Refusal::IdTaken(id(1))));
    let planned = window(2, WindowState::Scheduled);
    assert!(close(&open, &close_order(Next::ByHand(id(2), Some(planned)))).is_ok());
}

#[test]
fn closing_early_gives_the_planned_window_its_times() {
    let slot = Slot { opens_at: AT, closes_at: AT.plus_seconds(60) };
    let planned = Window { closes_at: Some(AT.plus_seconds(3600)), ..window(2, WindowState::Scheduled) };
    let change = change(close(&window(1, WindowState::Open), &close_order(Next::Planned(id(2), Some(planned), slot))));
    assert_eq!(types(&change), ["window.extended", "window.closing"]);
    assert!(matches!(&change.writes[0], Write::Update { window, .. } if window.closes_at == Some(slot.closes_at)));
}

#[test]
fn the_seal_closes_one_and_opens_the_next() {
    let closing = Window { next: Some(id(2)), ..window(1, WindowState::Closing) };
    let change = sealed(&closing, Some(&window(2, WindowState::Scheduled)), seal(3), 3, AT).unwrap();
    assert_eq!(types(&change), ["window.closed", "window.opened"]);
    assert_eq!(states(&change), [(id(1), WindowState::Closed), (id(2), WindowState::Open)], "the old one first");
    assert!(sealed(&window(1, WindowState::Open), None, seal(0), 0, AT).is_err());
}

#[test]
fn a_window_whose_end_was_ordered_ends_only_if_it_is_empty() {
    let closing = Window { abort_reason: Some("mistake".into()), ..window(1, WindowState::Closing) };
    let empty = sealed(&closing, None, seal(0), 0, AT).unwrap();
    assert_eq!(types(&empty), ["window.closed", "window.aborted"]);
    assert_eq!(states(&empty), [(id(1), WindowState::Aborted)]);
    for (count, counted) in [(1, 0), (0, 1)] {
        let full = sealed(&closing, None, seal(count), counted, AT).unwrap();
        assert_eq!(types(&full), ["window.closed"]);
        assert_eq!(states(&full), [(id(1), WindowState::Closed)]);
    }
}

#[test]
fn aborting_in_every_state() {
    use WindowState::*;
    let run = |w: &Window, counted, planned| abort(w, &[], counted, planned, "ada", "mistake");
    for &state in WindowState::ALL {
        let outcome = run(&window(1, state), 0, false);
        match state {
            Scheduled | Closed => assert!(matches!(outcome, Ok(Abort::Now(_))), "{state}"),
            Open => assert_eq!(outcome, Ok(Abort::Seal)),
            Aborted => assert_eq!(outcome, Ok(Abort::AlreadyApplied)),
            _ => assert_eq!(outcome, Err(Refusal::NotDrawn { window: id(1), from: state, to: Aborted })),
        }
        if !matches!(state, Aborted | Scheduled) {
            let full = run(&window(1, state), 2, false);
            assert_eq!(full, Err(Refusal::NotEmpty { window: id(1), state, count: 2 }), "{state}");
        }
    }
    let opening = Window { open_ordered_by: Some("x".into()), ..window(1, Scheduled) };
    assert_eq!(run(&opening, 0, false), Err(Refusal::Opening(id(1))));
    assert!(matches!(run(&window(1, Scheduled), 0, true), Err(Refusal::Timetable { .. })));
    let full = Window { sealed: Some(seal(4)), ..window(1, Closed) };
    assert_eq!(run(&full, 0, false), Err(Refusal::NotEmpty { window: id(1), state: Closed, count: 4 }));
}

#[test]
fn extending_moves_later_only() {
    let open = Window { closes_at: Some(AT), ..window(1, WindowState::Open) };
    let run = |w: &Window, to, now| extend(w, to, "ada", "month end", now);
    let now = AT.plus_seconds(-60);
    let later = AT.plus_seconds(1);
    let change = change(run(&open, later, now));
    assert_eq!(types(&change), ["window.extended"]);
    let [Write::Update { window: extended, .. }] = &change.writes[..] else { panic!("{change:?}") };
    assert_eq!(run(extended, later, now), Ok(Decision::AlreadyApplied));
    assert!(matches!(run(&open, AT, now), Err(Refusal::NotLater { .. })));
    assert!(matches!(run(&open, later, AT.plus_seconds(9)), Err(Refusal::NotLater { .. })));
    let manual = window(1, WindowState::Open);
    assert_eq!(run(&manual, later, now), Err(Refusal::NoClosingTime { window: id(1), state: WindowState::Open }));
    let closed = Window { closes_at: Some(AT), ..window(1, WindowState::Closed) };
    assert_eq!(run(&closed, later, now), Err(Refusal::NotOpen { window: id(1), state: WindowState::Closed }));
}

#[test]
fn a_refused_opening_withdraws_an_operators_order() {
    let ordered = Window { open_ordered_by: Some("ada".into()), ..window(1, WindowState::Scheduled) };
    for (withdraw, occupies) in [(true, false), (false, true)] {
        let change = open_refused(&ordered, "another is open", withdraw);
        let [Write::Update { window, .. }] = &change.writes[..] else { panic!("{change:?}") };
        assert_eq!((window.occupies(), window.note.as_deref()), (occupies, Some("another is open")));
    }
}

/// The ledger opens the next window with the seal that was ordered, and transactions may be in it before that is known.
#[test]
fn a_window_that_opens_with_the_seal_of_another_is_not_aborted() {
    let next = window(2, WindowState::Scheduled);
    let closing = Window { next: Some(id(2)), ..window(1, WindowState::Closing) };
    let run = |live: &[Window]| abort(&next, live, 0, false, "ada", "mistake");
    assert_eq!(run(&[closing.clone(), next.clone()]), Err(Refusal::Opening(id(2))));
    let other = Window { next: Some(id(3)), ..closing.clone() };
    let sealed = Window { state: WindowState::Closed, ..closing };
    for live in [&[other, next.clone()], &[sealed, next.clone()]] {
        assert!(matches!(run(live), Ok(Abort::Now(_))), "{live:?}");
    }
}
