//! The gate's decisions, one row per reason, and in which order they come.

use super::*;
use crate::domain::breaker::Breaker;
use crate::domain::rules::{Ceiling, Entry};
use deltran_events::data::risk::BreakerTrigger;
use deltran_kernel::CommandId;
use uuid::Uuid;

const NOW: Timestamp = Timestamp::from_micros(1_762_430_400_000_000);

fn currency() -> Currency {
    Currency::new("USD").unwrap()
}

fn bank(id: &str) -> ParticipantId {
    id.parse().unwrap()
}

fn minor(units: i128) -> Minor {
    Minor::new(units).unwrap()
}

fn subject(n: u128, payer: &str, payee: &str, units: i128) -> Subject {
    Subject {
        id: TransactionId::new(Uuid::from_u128(n)),
        payer: bank(payer),
        payee: bank(payee),
        amount: Money::new(minor(units), currency()),
        gross: false,
        two_phase: false,
        release: false,
    }
}

fn pays(n: u128, units: i128) -> Subject {
    subject(n, "ALFAAEXX", "BRAVINXX", units)
}

fn window(n: u128) -> WindowId {
    WindowId::new(Uuid::from_u128(n))
}

fn keeper() -> Gatekeeper {
    Gatekeeper::new(Recovery { cool_down: 60_000_000, probes: 2, refused_share: 2_000 })
}

fn breaker(keeper: &mut Gatekeeper, scope: &str, state: BreakerState) {
    let scope: Scope = scope.parse().unwrap();
    let breaker = Breaker {
        scope,
        state,
        trigger: BreakerTrigger::Manual,
        reason: format!("because {scope}"),
        changed_by: "ada".into(),
        changed_at: NOW,
        open_until: None,
    };
    keeper.rules.breakers.insert(scope, breaker);
}

fn bilateral(keeper: &mut Gatekeeper, units: i128) {
    let ceiling = Ceiling { limit_id: CommandId::new(Uuid::from_u128(7)), most: minor(units) };
    keeper.rules.bilateral.insert((bank("ALFAAEXX"), bank("BRAVINXX"), currency()), ceiling);
}

fn committed(subject: &Subject, window: WindowId) -> Fact {
    let payment = Payment { payer: subject.payer, payee: subject.payee, amount: subject.amount };
    Fact::Committed { id: subject.id, payment, window: Some(window), at: NOW, first: true }
}

fn count(keeper: &mut Gatekeeper, facts: &[Fact]) {
    let version = keeper.book.version + 1;
    keeper.count(version, facts);
}

fn passes(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Pass { .. })
}

/// The headroom of a refusal for a limit of this kind.
fn headroom(verdict: Verdict, expected: LimitKind) -> i128 {
    match verdict {
        Verdict::Refused(Stop::Amount { kind, headroom, .. }) if kind == expected => headroom.minor().units(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn breakers_come_in_their_order() {
    let all = ["global", "currency:USD", "corridor:AE-IN", "participant:ALFAAEXX", "participant:BRAVINXX"];
    for first in 0..all.len() {
        let mut keeper = keeper();
        all[first..].iter().for_each(|scope| breaker(&mut keeper, scope, BreakerState::Open));
        let expected = Stop::Breaker {
            scope: all[first].parse().unwrap(),
            state: BreakerState::Open,
            reason: format!("because {}", all[first]),
        };
        assert_eq!(keeper.admit(&pays(1, 1), Ticket::default(), &Ok(()), NOW), Verdict::Refused(expected));
    }
    for other in ["currency:EUR", "participant:CHARUSXX", "corridor:IN-AE"] {
        let mut keeper = keeper();
        breaker(&mut keeper, other, BreakerState::Open);
        assert!(passes(&keeper.admit(&pays(1, 1), Ticket::default(), &Ok(()), NOW)), "{other}");
    }
}

/// One row per limit, in order of precedence: each refuses by itself, and before all that come after it.
#[test]
fn limits_come_in_their_order() {
    use LimitKind::{Bilateral, CorridorGross, CorridorMaximum, SingleTransactionMaximum};
    let corridor: Corridor = "AE-IN".parse().unwrap();
    type Set = Box<dyn Fn(&mut Gatekeeper)>;
    let key = (corridor, currency());
    let steps: Vec<(Option<LimitKind>, Set)> = vec![
        (None, Box::new(|k| breaker(k, "global", BreakerState::Open))),
        (Some(SingleTransactionMaximum), Box::new(|k| k.rules.maxima.extend([(currency(), minor(9))]))),
        (Some(CorridorMaximum), Box::new(move |k| k.rules.corridor_maxima.extend([(key, minor(9))]))),
        (Some(Bilateral), Box::new(|k| bilateral(k, 9))),
        (Some(CorridorGross), Box::new(move |k| k.rules.corridor_gross.extend([(key, minor(9))]))),
        (Some(LimitKind::Rate), Box::new(|k| k.rules.rate = Some(Rate { transactions: 0, window_seconds: 60 }))),
    ];
    for first in 0..steps.len() {
        let mut keeper = keeper();
        steps[first..].iter().for_each(|(_, set)| set(&mut keeper));
        let found = match keeper.admit(&pays(1, 10), Ticket::default(), &Ok(()), NOW) {
            Verdict::Refused(Stop::Breaker { .. }) => None,
            Verdict::Refused(Stop::Amount { kind, .. }) => Some(kind),
            Verdict::Refused(Stop::Rate { .. }) => Some(LimitKind::Rate),
            other => panic!("{other:?}"),
        };
        assert_eq!(found, steps[first].0);
        assert!(keeper.flight.is_empty(), "what is refused does not count");
    }
}

#[test]
fn the_smaller_maximum_counts() {
    for (for_all, own, units, stopped_at) in [
        (None, None, 99_999, None),
        (Some(100), None, 100, None),
        (Some(100), None, 101, Some(100)),
        (None, Some(50), 51, Some(50)),
        (Some(100), Some(50), 60, Some(50)),
        (Some(50), Some(100), 60, Some(50)),
    ] {
        let mut keeper = keeper();
        keeper.rules.maxima.extend(for_all.map(|m| (currency(), minor(m))));
        keeper.rules.maxima_of.extend(own.map(|m| ((bank("ALFAAEXX"), currency()), minor(m))));
        let verdict = keeper.admit(&pays(1, units), Ticket::default(), &Ok(()), NOW);
        let stopped = (!passes(&verdict)).then(|| headroom(verdict, LimitKind::SingleTransactionMaximum));
        assert_eq!(stopped, stopped_at, "{for_all:?} {own:?} {units}");
    }
}

/// Trap 1: of a burst, only what fits passes.
#[test]
fn a_batch_counts_what_it_let_pass() {
    let mut keeper = keeper();
    bilateral(&mut keeper, 100);
    let verdicts: Vec<bool> =
        (1..=3).map(|n| passes(&keeper.admit(&pays(n, 60), Ticket::default(), &Ok(()), NOW))).collect();
    assert_eq!(verdicts, [true, false, false]);
    assert!(passes(&keeper.admit(&pays(4, 40), Ticket::default(), &Ok(()), NOW)), "exactly to the limit");
    assert_eq!(headroom(keeper.admit(&pays(5, 1), Ticket::default(), &Ok(()), NOW), LimitKind::Bilateral), 0);
    // The other way is another limit, and a gross transaction owes nothing.
    assert!(passes(&keeper.admit(&subject(6, "BRAVINXX", "ALFAAEXX", 1_000), Ticket::default(), &Ok(()), NOW)));
    assert!(passes(&keeper.admit(&Subject { gross: true, ..pays(7, 1_000) }, Ticket::default(), &Ok(()), NOW)));
}

/// What comes back counts once, what is refused counts no more, and the same id counts once.
#[test]
fn under_way_and_counted_are_never_the_same_amount_twice() {
    let mut keeper = keeper();
    bilateral(&mut keeper, 100);
    for _ in 0..3 {
        assert!(passes(&keeper.admit(&pays(1, 60), Ticket::default(), &Ok(()), NOW)), "asked again");
    }
    assert!(
        matches!(keeper.admit(&pays(1, 61), Ticket::default(), &Ok(()), NOW), Verdict::Undecided(_)),
        "another body"
    );
    count(&mut keeper, &[committed(&pays(1, 60), window(1))]);
    assert_eq!(headroom(keeper.admit(&pays(2, 41), Ticket::default(), &Ok(()), NOW), LimitKind::Bilateral), 40);
    assert!(passes(&keeper.admit(&pays(1, 60), Ticket::default(), &Ok(()), NOW)), "the ledger answers what it decided");
    assert!(passes(&keeper.admit(&pays(3, 40), Ticket::default(), &Ok(()), NOW)));
    count(&mut keeper, &[Fact::Refused { id: pays(3, 40).id, decision: None, at: NOW }]);
    assert!(passes(&keeper.admit(&pays(4, 40), Ticket::default(), &Ok(()), NOW)));
    count(&mut keeper, &[Fact::Settled { windows: vec![window(1)], currency: currency() }]);
    assert_eq!(headroom(keeper.admit(&pays(5, 61), Ticket::default(), &Ok(()), NOW), LimitKind::Bilateral), 60);
}

#[test]
fn a_held_transaction_counts_when_it_is_released() {
    let mut keeper = keeper();
    bilateral(&mut keeper, 100);
    assert!(passes(&keeper.admit(&pays(1, 60), Ticket::default(), &Ok(()), NOW)));
    count(&mut keeper, &[Fact::Held { id: pays(1, 60).id }]);
    assert!(passes(&keeper.admit(&pays(2, 60), Ticket::default(), &Ok(()), NOW)), "held, it reserves nothing");
    let released = Subject { release: true, ..pays(1, 60) };
    assert_eq!(headroom(keeper.admit(&released, Ticket::default(), &Ok(()), NOW), LimitKind::Bilateral), 40);
}

/// What the payer is owed in the open window lets it pay more, in that window only; what is reserved lands
/// nobody knows where.
#[test]
fn an_offset_counts_in_its_window_only() {
    let mut keeper = keeper();
    bilateral(&mut keeper, 100);
    count(&mut keeper, &[committed(&subject(1, "BRAVINXX", "ALFAAEXX", 1_000), window(1))]);
    assert_eq!(keeper.admit(&pays(2, 100), Ticket::default(), &Ok(()), NOW), Verdict::Pass { window: None });
    let in_window = Verdict::Pass { window: Some(window(1)) };
    // 100 are under way anywhere: at worst in the next window, where nothing offsets them.
    assert_eq!(keeper.admit(&pays(3, 900), Ticket::default(), &Ok(()), NOW), in_window);
    assert_eq!(keeper.admit(&pays(4, 100), Ticket::default(), &Ok(()), NOW), in_window);
    assert_eq!(headroom(keeper.admit(&pays(5, 1), Ticket::default(), &Ok(()), NOW), LimitKind::Bilateral), 0);
    count(&mut keeper, &[committed(&pays(2, 100), window(1)), committed(&pays(3, 900), window(1))]);
    assert_eq!(headroom(keeper.admit(&pays(5, 1), Ticket::default(), &Ok(()), NOW), LimitKind::Bilateral), 0);
    count(&mut keeper, &[Fact::Refused { id: pays(4, 1).id, decision: None, at: NOW }]);
    let reserved = Subject { two_phase: true, ..pays(6, 101) };
    assert_eq!(headroom(keeper.admit(&reserved, Ticket::default(), &Ok(()), NOW), LimitKind::Bilateral), 100);
    count(&mut keeper, &[committed(&subject(7, "BRAVINXX", "ALFAAEXX", 500), window(1))]);
    assert_eq!(
        headroom(keeper.admit(&reserved, Ticket::default(), &Ok(()), NOW), LimitKind::Bilateral),
        100,
        "it may land elsewhere"
    );
    assert_eq!(keeper.admit(&pays(8, 600), Ticket::default(), &Ok(()), NOW), in_window);
    count(&mut keeper, &[Fact::Sealed { window: window(1), currency: currency(), next: Some(window(2)) }]);
    assert!(
        !passes(&keeper.admit(&pays(9, 1), Ticket::default(), &Ok(()), NOW)),
        "a credit in one window hides no debt in another"
    );
}

#[test]
fn a_limit_lowered_below_present_use_blocks_new_debits_only() {
    let mut keeper = keeper();
    bilateral(&mut keeper, 1_000);
    count(&mut keeper, &[committed(&pays(1, 900), window(1))]);
    bilateral(&mut keeper, 100);
    assert_eq!(headroom(keeper.admit(&pays(2, 1), Ticket::default(), &Ok(()), NOW), LimitKind::Bilateral), 0);
    assert!(
        passes(&keeper.admit(&subject(3, "BRAVINXX", "ALFAAEXX", 2_000), Ticket::default(), &Ok(()), NOW)),
        "the other way"
    );
    count(&mut keeper, &[Fact::Sealed { window: window(1), currency: currency(), next: Some(window(2)) }]);
    count(&mut keeper, &[committed(&subject(3, "BRAVINXX", "ALFAAEXX", 2_000), window(2))]);
    // Still 900 are owed in the first window. What only uses up a credit makes no new debit.
    assert_eq!(
        keeper.admit(&pays(4, 2_000), Ticket::default(), &Ok(()), NOW),
        Verdict::Pass { window: Some(window(2)) }
    );
    assert!(!passes(&keeper.admit(&pays(5, 1), Ticket::default(), &Ok(()), NOW)));
}

#[test]
fn a_corridor_counts_every_model_for_a_day() {
    let mut keeper = keeper();
    let key = ("AE-IN".parse().unwrap(), currency());
    keeper.rules.corridor_gross.insert(key, minor(100));
    assert!(passes(&keeper.admit(&Subject { gross: true, ..pays(1, 60) }, Ticket::default(), &Ok(()), NOW)));
    assert_eq!(
        headroom(
            keeper.admit(&subject(2, "DELTAEXX", "ECHOINXX", 41), Ticket::default(), &Ok(()), NOW),
            LimitKind::CorridorGross
        ),
        40
    );
    let fact = committed(&pays(1, 60), window(1));
    count(&mut keeper, &[fact]);
    for (hours, left) in [(0, 40), (23, 40), (24, 40), (25, 100)] {
        let later = NOW.plus_seconds(hours * 3_600);
        let verdict = keeper.judge(&pays(3, 101), &Ok(()), later);
        assert_eq!(headroom(verdict, LimitKind::CorridorGross), left, "after {hours} h");
    }
    assert!(
        passes(&keeper.admit(&subject(4, "BRAVINXX", "ALFAAEXX", 999), Ticket::default(), &Ok(()), NOW)),
        "the way back is another one"
    );
}

#[test]
fn a_rate_counts_what_passed_and_what_was_accepted() {
    let mut keeper = keeper();
    keeper.rules.rate = Some(Rate { transactions: 100, window_seconds: 60 });
    keeper.rules.rates_of.insert(bank("ALFAAEXX"), Rate { transactions: 3, window_seconds: 10 });
    for n in 1..=3 {
        assert!(passes(&keeper.admit(&pays(n, 1), Ticket::default(), &Ok(()), NOW)));
    }
    assert!(!passes(&keeper.admit(&pays(4, 1), Ticket::default(), &Ok(()), NOW)));
    assert!(
        passes(&keeper.admit(&subject(5, "BRAVINXX", "ALFAAEXX", 1), Ticket::default(), &Ok(()), NOW)),
        "another payer"
    );
    count(&mut keeper, &[committed(&pays(1, 1), window(1)), committed(&pays(2, 1), window(1))]);
    count(&mut keeper, &[Fact::Refused { id: pays(3, 1).id, decision: None, at: NOW }]);
    assert!(passes(&keeper.admit(&pays(6, 1), Ticket::default(), &Ok(()), NOW)), "a refused one counts no more");
    assert!(!passes(&keeper.admit(&pays(7, 1), Ticket::default(), &Ok(()), NOW)));
    for (seconds, expected) in [(10, false), (14, false), (15, true)] {
        let verdict = keeper.judge(&pays(7, 1), &Ok(()), NOW.plus_seconds(seconds));
        assert_eq!(passes(&verdict), expected, "after {seconds} s");
    }
}

/// REDUCING: who owes may be paid, who is owed may pay, neither beyond zero; nothing GROSS.
#[test]
fn reducing_lets_positions_shrink_only() {
    // ALFA is owed 100, BRAVO owes 60, CHARLIE owes 40.
    let setup = || {
        let mut keeper = keeper();
        let owed = [subject(1, "BRAVINXX", "ALFAAEXX", 60), subject(2, "CHARUSXX", "ALFAAEXX", 40)];
        count(&mut keeper, &owed.map(|s| committed(&s, window(1))));
        keeper
    };
    for (scope, payer, payee, units, expected) in [
        ("global", "ALFAAEXX", "BRAVINXX", 60, true),
        ("global", "ALFAAEXX", "BRAVINXX", 61, false),
        ("currency:USD", "ALFAAEXX", "CHARUSXX", 40, true),
        ("currency:USD", "ALFAAEXX", "CHARUSXX", 41, false),
        ("currency:USD", "BRAVINXX", "ALFAAEXX", 1, false),
        ("global", "BRAVINXX", "CHARUSXX", 1, false),
        ("global", "ALFAAEXX", "DELTUSXX", 1, false),
        ("participant:ALFAAEXX", "ALFAAEXX", "DELTUSXX", 100, true),
        ("participant:ALFAAEXX", "ALFAAEXX", "DELTUSXX", 101, false),
        ("participant:ALFAAEXX", "DELTUSXX", "ALFAAEXX", 1, false),
        ("participant:BRAVINXX", "DELTUSXX", "BRAVINXX", 60, true),
        ("participant:BRAVINXX", "DELTUSXX", "BRAVINXX", 61, false),
        ("participant:BRAVINXX", "BRAVINXX", "DELTUSXX", 1, false),
        ("corridor:AE-IN", "ALFAAEXX", "BRAVINXX", 60, true),
        ("corridor:AE-IN", "ALFAAEXX", "CHARUSXX", 100, true),
    ] {
        let mut keeper = setup();
        breaker(&mut keeper, scope, BreakerState::Reducing);
        let asked = subject(9, payer, payee, units);
        assert!(
            matches!(keeper.judge(&asked, &Err("stale".into()), NOW), Verdict::Undecided(_))
                || scope.starts_with("corridor")
        );
        let verdict = keeper.admit(&asked, Ticket::default(), &Ok(()), NOW);
        assert_eq!(passes(&verdict), expected, "{scope}: {payer} pays {payee} {units}");
        let gross = Subject { gross: true, id: pays(10, 1).id, ..asked };
        let covered = !matches!((scope, payee), ("corridor:AE-IN", "CHARUSXX"));
        assert_eq!(
            passes(&keeper.admit(&gross, Ticket::default(), &Ok(()), NOW)),
            !covered,
            "{scope}: GROSS lowers nothing"
        );
    }
    // What is under way counts as if it came, and as if it did not.
    let mut keeper = setup();
    breaker(&mut keeper, "global", BreakerState::Reducing);
    assert_eq!(keeper.judge(&pays(3, 60), &Ok(()), NOW), Verdict::Pass { window: Some(window(1)) });
    assert!(
        !passes(&keeper.judge(&Subject { two_phase: true, ..pays(3, 60) }, &Ok(()), NOW)),
        "its window is not known"
    );
    // What is owed in a sealed window may be settled at any moment: it can be used up no more.
    count(&mut keeper, &[Fact::Sealed { window: window(1), currency: currency(), next: Some(window(2)) }]);
    assert!(!passes(&keeper.judge(&pays(3, 1), &Ok(()), NOW)));
    let mut keeper = setup();
    assert!(passes(&keeper.admit(&subject(3, "DELTUSXX", "ALFAAEXX", 500), Ticket::default(), &Ok(()), NOW)));
    assert!(passes(&keeper.admit(&pays(4, 30), Ticket::default(), &Ok(()), NOW)));
    breaker(&mut keeper, "global", BreakerState::Reducing);
    assert!(!passes(&keeper.admit(&pays(5, 31), Ticket::default(), &Ok(()), NOW)), "30 of the 60 are on their way");
    assert!(passes(&keeper.admit(&pays(6, 30), Ticket::default(), &Ok(()), NOW)));
    assert!(!passes(&keeper.admit(&subject(7, "ALFAAEXX", "CHARUSXX", 41), Ticket::default(), &Ok(()), NOW)));
    assert!(
        passes(&keeper.admit(&subject(8, "ALFAAEXX", "CHARUSXX", 40), Ticket::default(), &Ok(()), NOW)),
        "down to zero"
    );
}

#[test]
fn half_open_lets_a_few_pass_in_each_cool_down() {
    let mut keeper = keeper();
    breaker(&mut keeper, "participant:ALFAAEXX", BreakerState::HalfOpen);
    for (n, seconds, expected) in
        [(1, 0, true), (2, 0, true), (3, 1, false), (4, 59, false), (5, 60, true), (6, 60, true), (7, 61, false)]
    {
        let verdict = keeper.admit(&pays(n, 1), Ticket::default(), &Ok(()), NOW.plus_seconds(seconds));
        assert_eq!(passes(&verdict), expected, "{n}");
    }
    assert!(
        !passes(&keeper.admit(&subject(8, "BRAVINXX", "ALFAAEXX", 1), Ticket::default(), &Ok(()), NOW)),
        "what it receives tells nothing of it"
    );
    let again = NOW.plus_seconds(62);
    keeper.rules.breakers.get_mut(&Scope::Participant(bank("ALFAAEXX"))).unwrap().changed_at = again;
    assert!(passes(&keeper.admit(&pays(9, 1), Ticket::default(), &Ok(()), again)), "half open anew");
}

#[test]
fn what_is_not_known_stops_what_needs_it_and_nothing_else() {
    let stale: Known = Err("behind".into());
    let mut keeper = keeper();
    assert!(passes(&keeper.admit(&pays(1, 1), Ticket::default(), &stale, NOW)));
    bilateral(&mut keeper, 1_000);
    assert_eq!(keeper.admit(&pays(2, 1), Ticket::default(), &stale, NOW), Verdict::Undecided("behind".into()));
    assert!(passes(&keeper.admit(&subject(3, "ALFAAEXX", "CHARUSXX", 1), Ticket::default(), &stale, NOW)));
    keeper.rules.rate = Some(Rate { transactions: 1_000, window_seconds: 60 });
    assert!(matches!(
        keeper.admit(&subject(4, "ALFAAEXX", "CHARUSXX", 1), Ticket::default(), &stale, NOW),
        Verdict::Undecided(_)
    ));
}

#[test]
fn what_the_ledger_refuses_anyway_counts_nowhere() {
    let mut keeper = keeper();
    bilateral(&mut keeper, 100);
    for odd in [pays(1, 0), pays(2, -500), subject(3, "ALFAAEXX", "ALFAAEXX", 5)] {
        assert!(passes(&keeper.admit(&odd, Ticket::default(), &Ok(()), NOW)));
    }
    assert!(keeper.flight.is_empty());
    assert_eq!(headroom(keeper.admit(&pays(4, 101), Ticket::default(), &Ok(()), NOW), LimitKind::Bilateral), 100);
}

/// A limit takes effect at its time in whatever process knows of it.
#[test]
fn a_limit_takes_effect_at_its_time() {
    let mut keeper = keeper();
    let kind = LimitKind::SingleTransactionMaximum;
    keeper.rules.expect(Entry {
        limit_id: CommandId::new(Uuid::from_u128(1)),
        key: crate::domain::limit::Key {
            kind,
            participant: None,
            counterparty: None,
            corridor: None,
            currency: Some(currency()),
        },
        value: crate::domain::limit::Value::Amount(Money::new(minor(10), currency())),
        due_at: NOW,
        approval: 1,
    });
    assert!(passes(&keeper.admit(&pays(1, 11), Ticket::default(), &Ok(()), NOW.plus_micros(-1))));
    assert!(!passes(&keeper.admit(&pays(2, 11), Ticket::default(), &Ok(()), NOW)));
}
