//! Every state and input.

use super::*;
use uuid::Uuid;

const AT: Timestamp = Timestamp::from_micros(1_000_000);

fn command(n: u128, to: BreakerState, reason: &str) -> SetBreaker {
    SetBreaker { command_id: CommandId::new(Uuid::from_u128(n)), scope: Scope::Global, to, reason: reason.into() }
}

fn breaker(state: BreakerState, trigger: BreakerTrigger) -> Breaker {
    Breaker {
        scope: Scope::Global,
        state,
        trigger,
        reason: "why".into(),
        changed_by: "ada".into(),
        changed_at: Timestamp::from_micros(1),
        open_until: None,
    }
}

fn recovery() -> Recovery {
    Recovery { cool_down: 60, probes: 10, refused_share: 2_000 }
}

/// By hand: from every state to every state, except to the one that a person put it into already.
#[test]
fn a_person_may_set_what_is_not_set_by_a_person() {
    use BreakerState::{Closed, HalfOpen, Open, Reducing};
    use BreakerTrigger::{Manual, RejectRate};
    for (present, to, allowed) in [
        (None, Open, true),
        (None, Reducing, true),
        (None, Closed, false),
        (Some((Closed, Manual)), Open, true),
        (Some((Closed, Manual)), Reducing, true),
        (Some((Closed, Manual)), Closed, false),
        (Some((Closed, RejectRate)), Closed, false),
        (Some((Closed, RejectRate)), Open, true),
        (Some((Open, Manual)), Open, false),
        (Some((Open, Manual)), Reducing, true),
        (Some((Open, Manual)), Closed, true),
        (Some((Open, RejectRate)), Open, true),
        (Some((Open, RejectRate)), Reducing, true),
        (Some((Open, RejectRate)), Closed, true),
        (Some((HalfOpen, RejectRate)), Open, true),
        (Some((HalfOpen, RejectRate)), Reducing, true),
        (Some((HalfOpen, RejectRate)), Closed, true),
        (Some((Reducing, Manual)), Open, true),
        (Some((Reducing, Manual)), Reducing, false),
        (Some((Reducing, Manual)), Closed, true),
    ] {
        let present = present.map(|(state, trigger)| breaker(state, trigger));
        match set(None, present.as_ref(), &command(1, to, "r"), "bob", AT) {
            Ok(Outcome::Executed(next)) => {
                assert!(allowed, "{present:?} to {to:?}");
                assert_eq!((next.state, next.trigger, next.changed_by.as_str()), (to, Manual, "bob"));
                assert_eq!((next.changed_at, next.open_until), (AT, None));
            }
            other => {
                assert!(!allowed, "{present:?} to {to:?}");
                assert_eq!(other, Err(BreakerError::WrongState { scope: Scope::Global, state: to }));
            }
        }
    }
}

/// R6: a command takes effect once; its answer stays, whatever happened since.
#[test]
fn a_command_again_is_not_a_second_one() {
    use BreakerState::{Closed, Open};
    let Ok(Outcome::Executed(opened)) = set(None, None, &command(1, Open, "r"), "ada", AT) else { panic!() };
    let earlier = (command(1, Open, "r"), opened.clone());
    let closed = Breaker { state: Closed, ..opened.clone() };
    let again = set(Some(&earlier), Some(&closed), &command(1, Open, "r"), "ada", AT);
    assert_eq!(again, Ok(Outcome::AlreadyApplied(opened)));
    for other in [command(1, Open, "other"), command(1, Closed, "r"), command(1, BreakerState::Reducing, "r")] {
        let result = set(Some(&earlier), Some(&closed), &other, "ada", AT);
        assert_eq!(result, Err(BreakerError::Conflict(other.command_id)));
    }
}

/// By itself: every state, with and without trouble, before and after its cool-down, with every outcome of
/// the probes.
#[test]
fn every_state_and_input() {
    use BreakerState::{Closed, HalfOpen, Open, Reducing};
    use BreakerTrigger::{Manual, Probes, StaleData, VolumeSpike};
    let trouble = Some(Trouble { trigger: VolumeSpike, reason: "many".into() });
    let until = |micros| Some(AT.plus_micros(micros));
    for (n, (present, open_until, troubled, accepted, refused, expected)) in [
        (None, None, false, 0, 0, None),
        (None, None, true, 0, 0, Some((Open, VolumeSpike, until(60)))),
        (Some((Closed, Manual)), None, false, 100, 100, None),
        (Some((Closed, Manual)), None, true, 0, 0, Some((Open, VolumeSpike, until(60)))),
        (Some((Closed, StaleData)), None, true, 0, 0, Some((Open, VolumeSpike, until(60)))),
        // What a person set stays.
        (Some((Open, Manual)), None, true, 0, 0, None),
        (Some((Open, Manual)), None, false, 100, 0, None),
        (Some((Reducing, Manual)), None, true, 0, 0, None),
        (Some((Reducing, Manual)), None, false, 100, 0, None),
        // OPEN lasts for its cool-down, and longer while there is trouble.
        (Some((Open, StaleData)), until(1), false, 0, 0, None),
        (Some((Open, StaleData)), until(1), true, 0, 0, None),
        (Some((Open, StaleData)), until(0), false, 0, 0, Some((HalfOpen, StaleData, None))),
        (Some((Open, StaleData)), until(0), true, 0, 0, Some((Open, StaleData, until(60)))),
        // HALF_OPEN: trouble, too few outcomes, enough, too many refusals.
        (Some((HalfOpen, StaleData)), None, true, 10, 0, Some((Open, VolumeSpike, until(60)))),
        (Some((HalfOpen, StaleData)), None, false, 9, 0, None),
        (Some((HalfOpen, StaleData)), None, false, 10, 0, Some((Closed, StaleData, None))),
        (Some((HalfOpen, StaleData)), None, false, 8, 2, Some((Closed, StaleData, None))),
        (Some((HalfOpen, StaleData)), None, false, 7, 2, None),
        (Some((HalfOpen, StaleData)), None, false, 0, 3, Some((Open, Probes, until(60)))),
        (Some((HalfOpen, Probes)), None, false, 50, 3, Some((Open, Probes, until(60)))),
    ]
    .into_iter()
    .enumerate()
    {
        let present = present.map(|(state, trigger)| Breaker { open_until, ..breaker(state, trigger) });
        let seen = Seen { trouble: trouble.clone().filter(|_| troubled), accepted, refused };
        let step = automatic(Scope::Global, present.as_ref(), &seen, &recovery(), "risk-engine", AT);
        let found = step.as_ref().map(|step| match step {
            Step::Changed(next) => {
                assert_eq!((next.changed_by.as_str(), next.changed_at), ("risk-engine", AT), "row {n}");
                (next.state, next.trigger, next.open_until)
            }
            Step::Extended(next) => {
                assert_eq!(Some(&Breaker { open_until, ..next.clone() }), present.as_ref(), "row {n}: only the time");
                (next.state, next.trigger, next.open_until)
            }
        });
        assert_eq!(found, expected, "row {n}");
    }
}

#[test]
fn words_read_back() {
    for state in BreakerState::ALL {
        assert_eq!(BreakerState::from_word(state.as_str()), Some(state));
    }
    assert_eq!(BreakerState::from_word("open"), None);
}
