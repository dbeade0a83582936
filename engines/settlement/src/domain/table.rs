//! Table tests of the decisions: every state against every answer, and every reason to hold.

use std::collections::BTreeMap;

use deltran_events::Event;
use deltran_events::data::clearing::NettingCompleted;
use deltran_events::data::transactions::CoverPolicy::{self, Collateral, CreditLine, Prefunded};
use deltran_kernel::{BatchId, Currency, Minor, Money, NettingSetId, ParticipantId, Timestamp, WindowId};
use uuid::Uuid;

use super::BatchState::{Aborted, AwaitingFunds, Pending, Recast, Reserved, Settled};
use super::*;

const RULES: Rules = Rules { funding_deadline_seconds: 60 };
const DEBTORS: [&str; 2] = ["ALFAAEXX", "BRAVINXX"];
const CREDITOR: &str = "CHARGBXX";

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(0).plus_seconds(seconds)
}

fn minor(units: i128) -> Minor {
    Minor::new(units).unwrap()
}

fn bank(code: &str) -> ParticipantId {
    code.parse().unwrap()
}

fn announced() -> NettingCompleted {
    let usd = Currency::new("USD").unwrap();
    NettingCompleted {
        netting_set_id: NettingSetId::new(Uuid::from_u128(7)),
        currency: usd,
        window_ids: vec![WindowId::new(Uuid::from_u128(2)), WindowId::new(Uuid::from_u128(1))],
        count: 9,
        gross: Money::new(minor(1000), usd).into(),
        moved: Money::new(minor(150), usd).into(),
        efficiency: 8500,
        participants: 3,
        largest_debtor: None,
        digest: "ab".repeat(32),
    }
}

fn netting_set() -> NettingSet {
    let terms = Terms::of(&announced()).unwrap();
    NettingSet {
        id: terms.netting_set_id,
        currency: terms.currency,
        window_ids: terms.window_ids.iter().rev().copied().collect(),
        transactions: terms.transactions,
        gross: terms.gross,
        moved: terms.moved,
        digest: terms.digest,
        positions: vec![(bank(DEBTORS[0]), minor(-100)), (bank(DEBTORS[1]), minor(-50)), (bank(CREDITOR), minor(150))],
    }
}

fn new_batch() -> Batch {
    match announce(Terms::of(&announced()).unwrap(), None, None, at(0)).unwrap() {
        Applied::Executed((batch, _)) => batch,
        Applied::AlreadyApplied(_) => panic!("a new netting set makes a new batch"),
    }
}

/// A batch in a state, with its legs.
fn batch(state: BatchState) -> (Batch, Legs) {
    let read = decide(&new_batch(), &Legs::new(), Answer::NettingSet(netting_set()), &RULES, at(0)).unwrap();
    let mut batch = read.batch;
    batch.state = state;
    if state == AwaitingFunds {
        batch.funding_deadline = Some(at(60));
    }
    (batch, read.legs)
}

fn lines(reserved: [i128; 2], cover: CoverPolicy) -> BTreeMap<ParticipantId, FundingLine> {
    let line = |required, reserved| FundingLine { required: minor(required), reserved: minor(reserved), cover };
    BTreeMap::from([(bank(DEBTORS[0]), line(100, reserved[0])), (bank(DEBTORS[1]), line(50, reserved[1]))])
}

fn funding(reserved: [i128; 2], asked: i64, replayed: bool) -> Answer {
    Answer::Funding { lines: lines(reserved, Collateral), asked_at: at(asked), replayed }
}

fn refused() -> Answer {
    Answer::Refused { reason: "no".into() }
}

fn kinds(events: &[Event]) -> Vec<String> {
    events.iter().map(|event| event.spec().event_type().to_owned()).collect()
}

#[test]
fn every_arrow_and_no_other() {
    let full = || funding([100, 50], 30, false);
    let posted = || Answer::Posted { at: at(5) };
    let set = || Answer::NettingSet(netting_set());
    let late = || funding([100, 49], 60, false);
    // State, whether the settle command was refused, answer, and what it leads to: `None` is refused.
    type Row = (BatchState, bool, Answer, Option<(BatchState, &'static [&'static str], Pace)>);
    let rows: Vec<Row> = vec![
        (Pending, false, full(), Some((Reserved, &["batch.reserved"], Pace::Now))),
        (Pending, false, funding([100, 49], 30, false), Some((AwaitingFunds, &["batch.awaiting_funds"], Pace::Retry))),
        (Pending, false, funding([100, 49], 30, true), Some((AwaitingFunds, &["batch.awaiting_funds"], Pace::Retry))),
        (Pending, false, refused(), Some((Pending, &[], Pace::Slow))),
        (Pending, false, posted(), None),
        (Pending, false, set(), None),
        (AwaitingFunds, false, full(), Some((Reserved, &["batch.reserved"], Pace::Now))),
        (AwaitingFunds, false, funding([100, 49], 59, false), Some((AwaitingFunds, &[], Pace::Retry))),
        (AwaitingFunds, false, funding([100, 49], 59, true), Some((AwaitingFunds, &[], Pace::Now))),
        // The last try decides: asked at or after the deadline, and not an older answer.
        (AwaitingFunds, false, late(), Some((Aborted, &["batch.aborted"], Pace::End))),
        (AwaitingFunds, false, funding([100, 49], 61, true), Some((AwaitingFunds, &[], Pace::Now))),
        (AwaitingFunds, false, funding([100, 50], 99, false), Some((Reserved, &["batch.reserved"], Pace::Now))),
        (AwaitingFunds, false, refused(), Some((AwaitingFunds, &[], Pace::Slow))),
        (AwaitingFunds, false, posted(), None),
        (AwaitingFunds, false, set(), None),
        (Reserved, false, posted(), Some((Settled, &["batch.settled"], Pace::End))),
        (Reserved, false, refused(), Some((Reserved, &[], Pace::Slow))),
        (Reserved, false, full(), None),
        (Reserved, false, late(), None),
        (Reserved, false, set(), None),
        (Reserved, true, posted(), Some((Settled, &["batch.settled"], Pace::End))),
        (Reserved, true, full(), Some((Reserved, &[], Pace::Now))),
        (Reserved, true, funding([100, 49], 30, false), Some((AwaitingFunds, &["batch.awaiting_funds"], Pace::Retry))),
        (Reserved, true, funding([100, 49], 30, true), Some((Reserved, &[], Pace::Now))),
        (Reserved, true, refused(), Some((Reserved, &[], Pace::Slow))),
        (Reserved, true, set(), None),
    ];
    for (state, doubted, answer, expected) in rows {
        let (mut before, legs) = batch(state);
        before.doubted = doubted;
        let name = format!("{state} doubted={doubted} {answer:?}");
        match (decide(&before, &legs, answer.clone(), &RULES, at(40)), expected) {
            (Ok(decision), Some((after, events, pace))) => {
                assert_eq!((decision.batch.state, decision.pace), (after, pace), "{name}");
                assert_eq!(kinds(&decision.events), events, "{name}");
                let ended = matches!(after, Settled | Aborted);
                assert_eq!(decision.batch.is_ended(), ended, "{name}");
                assert_eq!(decision.batch.command().is_none(), ended, "{name}");
                assert_eq!(decision.batch.final_at.is_some(), after == Settled, "{name}");
            }
            (Err(refusal), None) => assert_eq!(refusal, NotDrawn { state, answer: answer.kind() }, "{name}"),
            (outcome, _) => panic!("{name}: {outcome:?}"),
        }
    }
    for state in [Settled, Recast, Aborted] {
        for answer in [full(), late(), posted(), refused(), set()] {
            let (before, legs) = batch(state);
            let refusal = decide(&before, &legs, answer, &RULES, at(99)).unwrap_err();
            assert!(refusal.to_string().contains(state.as_str()), "{refusal}");
        }
    }
}

#[test]
fn a_batch_that_knows_no_legs_asks_for_them_only() {
    let batch = new_batch();
    assert_eq!(batch.command(), Some(Command::ReadNettingSet));
    for answer in [funding([100, 50], 1, false), Answer::Posted { at: at(1) }] {
        assert!(decide(&batch, &Legs::new(), answer, &RULES, at(1)).is_err());
    }
    let held = decide(&batch, &Legs::new(), refused(), &RULES, at(1)).unwrap();
    assert_eq!((held.batch.state, held.batch.loaded, held.breaches[0].invariant), (Pending, false, "S2"));
    assert_eq!(held.batch.command(), Some(Command::ReadNettingSet));
}

#[test]
fn s2_a_netting_set_that_differs_never_settles() {
    type Change = fn(&mut NettingSet);
    let changes: [(&str, Change); 11] = [
        ("the id", |set| set.id = NettingSetId::new(Uuid::from_u128(8))),
        ("currency", |set| set.currency = Currency::new("EUR").unwrap()),
        ("windows", |set| set.window_ids.truncate(1)),
        ("count", |set| set.transactions = 10),
        ("gross", |set| set.gross = minor(1001)),
        ("moved", |set| set.moved = minor(149)),
        ("digest", |set| set.digest = "cd".repeat(32)),
        ("number of positions", |set| set.positions.truncate(2)),
        ("number of participants", |set| set.positions[1].0 = bank(DEBTORS[0])),
        ("sum of the positions", |set| set.positions[1].1 = minor(-51)),
        ("sum of the debits", |set| (set.positions[1].1, set.positions[2].1) = (minor(-49), minor(149))),
    ];
    for (name, change) in changes {
        let mut set = netting_set();
        change(&mut set);
        let decision = decide(&new_batch(), &Legs::new(), Answer::NettingSet(set.clone()), &RULES, at(1)).unwrap();
        assert_eq!(
            (decision.batch.state, decision.batch.loaded, decision.pace),
            (Pending, false, Pace::Slow),
            "{name}"
        );
        assert!(decision.batch.alarm && decision.batch.note.contains(name), "{name}: {}", decision.batch.note);
        assert_eq!(decision.breaches.len(), 1, "{name}");
        assert_eq!(decision.breaches[0].invariant, "S2", "{name}");
        let again = decide(&decision.batch, &decision.legs, Answer::NettingSet(set), &RULES, at(2)).unwrap();
        assert!(again.breaches.is_empty(), "{name}: counted once");
        let right = decide(&again.batch, &again.legs, Answer::NettingSet(netting_set()), &RULES, at(3)).unwrap();
        assert!(right.batch.loaded && !right.batch.alarm, "{name}");
    }
}

#[test]
fn s3_funding_that_is_not_of_these_debtors_is_held() {
    type Change = fn(&mut BTreeMap<ParticipantId, FundingLine>);
    let line =
        |required, reserved| FundingLine { required: minor(required), reserved: minor(reserved), cover: Collateral };
    let changes: [(&str, Change); 5] = [
        ("a debtor is left out", |lines| lines.retain(|participant, _| *participant != bank(DEBTORS[1]))),
        ("another amount", |lines| lines.values_mut().for_each(|line| line.required = minor(99))),
        ("negative", |lines| lines.values_mut().for_each(|line| line.reserved = minor(-1))),
        ("a creditor owes", |lines| {
            lines.insert(bank(CREDITOR), FundingLine { required: minor(1), reserved: minor(1), cover: Collateral });
        }),
        ("a stranger owes", |lines| {
            lines.insert(bank("DELTUSXX"), FundingLine { required: minor(1), reserved: minor(1), cover: Collateral });
        }),
    ];
    for (name, change) in changes {
        for state in [Pending, AwaitingFunds, Reserved] {
            let (mut before, legs) = batch(state);
            before.doubted = state == Reserved;
            let mut lines = lines([100, 50], Collateral);
            change(&mut lines);
            let answer = Answer::Funding { lines, asked_at: at(99), replayed: false };
            let decision = decide(&before, &legs, answer, &RULES, at(99)).unwrap();
            assert_eq!((decision.batch.state, decision.pace), (state, Pace::Slow), "{name} {state}");
            assert_eq!(decision.breaches[0].invariant, "S3", "{name} {state}");
            assert_eq!(decision.legs, legs, "{name} {state}");
            assert_eq!(decision.batch.next_earmark, 2, "{name} {state}: the next try is another command");
        }
    }
    // Tokens that were locked for one of several windows may exceed what the net of all requires.
    let (before, legs) = batch(Pending);
    let mut lines = lines([120, 50], Collateral);
    lines.insert(bank(CREDITOR), line(0, 30));
    let answer = Answer::Funding { lines, asked_at: at(1), replayed: false };
    assert_eq!(decide(&before, &legs, answer, &RULES, at(1)).unwrap().batch.state, Reserved);
}

#[test]
fn s4_a_prefunded_debtor_that_is_short_waits_loudly() {
    for (cover, breaches) in [(Prefunded, 1), (Collateral, 0), (CreditLine, 0)] {
        let (before, legs) = batch(Pending);
        let short = |asked| Answer::Funding { lines: lines([100, 49], cover), asked_at: at(asked), replayed: false };
        let first = decide(&before, &legs, short(1), &RULES, at(1)).unwrap();
        assert_eq!((first.batch.state, first.breaches.len()), (AwaitingFunds, breaches), "{cover}");
        assert_eq!(first.batch.alarm, cover == Prefunded, "{cover}");
        assert!(first.breaches.iter().all(|b| b.invariant == "S4" && b.detail.contains(DEBTORS[1])), "{cover}");
        let second = decide(&first.batch, &first.legs, short(2), &RULES, at(2)).unwrap();
        assert_eq!((second.breaches.len(), second.batch.alarm), (0, cover == Prefunded), "{cover}: counted once");
        let last = decide(&second.batch, &second.legs, short(61), &RULES, at(61)).unwrap();
        assert_eq!(last.batch.state, Aborted, "{cover}");
    }
}

#[test]
fn s5_a_refused_settlement_asks_for_funding_and_keeps_its_id() {
    let (before, legs) = batch(Reserved);
    let settle = before.command();
    let refused = decide(&before, &legs, refused(), &RULES, at(1)).unwrap();
    assert_eq!((refused.batch.state, refused.breaches[0].invariant), (Reserved, "S5"));
    assert!(matches!(refused.batch.command(), Some(Command::Earmark(_))));
    // Where the ledger refuses that too, the posting may have been done: the same command asks.
    let again = decide(&refused.batch, &refused.legs, self::refused(), &RULES, at(2)).unwrap();
    assert_eq!((again.batch.state, again.batch.command()), (Reserved, settle.clone()));
    let funded = decide(&refused.batch, &refused.legs, funding([100, 50], 2, false), &RULES, at(2)).unwrap();
    assert_eq!(funded.batch.command(), settle, "the ledger decides once about one command");
    assert!(funded.batch.alarm && funded.events.is_empty());
    let settled = decide(&funded.batch, &funded.legs, Answer::Posted { at: at(3) }, &RULES, at(4)).unwrap();
    assert_eq!((settled.batch.state, settled.batch.final_at, settled.batch.alarm), (Settled, Some(at(3)), false));
}

#[test]
fn the_deadline_is_set_once_and_shortfalls_are_listed_by_size() {
    let (before, legs) = batch(Pending);
    let waiting = decide(&before, &legs, funding([90, 20], 5, false), &RULES, at(6)).unwrap();
    assert_eq!(waiting.batch.funding_deadline, Some(at(66)));
    let [Event::BatchAwaitingFunds(event)] = waiting.events.as_slice() else { panic!("{:?}", waiting.events) };
    let listed: Vec<&str> = event.shortfalls.iter().map(|s| s.participant.as_str()).collect();
    assert_eq!((event.short_debtors, listed), (2, vec![DEBTORS[1], DEBTORS[0]]));
    assert_eq!(event.shortfalls[0].reserved, Money::new(minor(20), before.terms.currency).into());
    let later = decide(&waiting.batch, &waiting.legs, funding([90, 50], 30, false), &RULES, at(30)).unwrap();
    assert_eq!((later.batch.funding_deadline, later.batch.note.as_str()), (Some(at(66)), "1 debtor(s) lack 0.10 USD"));
}

#[test]
fn an_empty_netting_set_settles_without_legs() {
    let usd = Currency::new("USD").unwrap();
    let event = NettingCompleted {
        count: 0,
        gross: Money::zero(usd).into(),
        moved: Money::zero(usd).into(),
        efficiency: 10_000,
        participants: 0,
        ..announced()
    };
    let Ok(Applied::Executed((batch, _))) = announce(Terms::of(&event).unwrap(), None, None, at(0)) else { panic!() };
    let set =
        NettingSet { transactions: 0, gross: Minor::ZERO, moved: Minor::ZERO, positions: Vec::new(), ..netting_set() };
    let mut step = decide(&batch, &Legs::new(), Answer::NettingSet(set), &RULES, at(1)).unwrap();
    for answer in
        [Answer::Funding { lines: BTreeMap::new(), asked_at: at(1), replayed: false }, Answer::Posted { at: at(2) }]
    {
        step = decide(&step.batch, &step.legs, answer, &RULES, at(2)).unwrap();
    }
    assert_eq!((step.batch.state, step.legs.len()), (Settled, 0));
}

#[test]
fn s1_one_batch_per_netting_set_and_a_window_in_one_batch() {
    let terms = Terms::of(&announced()).unwrap();
    let first = new_batch();
    assert_eq!(first.terms.window_ids, [WindowId::new(Uuid::from_u128(1)), WindowId::new(Uuid::from_u128(2))]);
    assert_eq!(announce(terms.clone(), Some(&first), None, at(9)), Ok(Applied::AlreadyApplied(first.id)));
    let changed = Terms { digest: "00".repeat(32), ..terms.clone() };
    let refusal = announce(changed, Some(&first), None, at(9)).unwrap_err();
    assert_eq!((refusal.invariant(), refusal.clone()), ("S2", Contradiction::Changed(terms.netting_set_id)));
    let other = Terms { netting_set_id: NettingSetId::new(Uuid::from_u128(8)), ..terms.clone() };
    let refusal = announce(other.clone(), None, Some((terms.window_ids[0], first.id)), at(9)).unwrap_err();
    assert_eq!(refusal.invariant(), "S1");
    let Ok(Applied::Executed((second, event))) = announce(other, None, None, at(9)) else { panic!() };
    assert_ne!(second.id, first.id);
    assert_eq!(event.spec().event_type(), "batch.created");
}

#[test]
fn what_no_netting_set_can_be_is_refused() {
    let usd = Currency::new("USD").unwrap();
    let twice = announced().window_ids.iter().flat_map(|id| [*id, *id]).collect();
    for event in [
        NettingCompleted { window_ids: Vec::new(), ..announced() },
        NettingCompleted { window_ids: twice, ..announced() },
        NettingCompleted { moved: Money::new(minor(1001), usd).into(), ..announced() },
        NettingCompleted { moved: Money::new(minor(-1), usd).into(), ..announced() },
        NettingCompleted { gross: deltran_events::Amount::Text("1000".into()), ..announced() },
        NettingCompleted { count: u64::MAX, ..announced() },
        NettingCompleted { participants: u32::MAX, ..announced() },
    ] {
        assert!(matches!(Terms::of(&event), Err(Contradiction::Impossible(..))), "{event:?}");
    }
}

#[test]
fn ids_are_the_same_for_everybody() {
    let batch = new_batch();
    assert_eq!(batch.id, BatchId::new(Uuid::new_v5(&Uuid::from_u128(7), b"batch")));
    let (mut pending, legs) = self::batch(Pending);
    let first = pending.command();
    assert_eq!(first, pending.clone().command());
    pending = decide(&pending, &legs, funding([0, 0], 1, false), &RULES, at(1)).unwrap().batch;
    assert_ne!(pending.command(), first, "each answered try has its own number");
    let (reserved, _) = self::batch(Reserved);
    let group = Uuid::new_v5(&Uuid::from_u128(7), b"settle");
    assert_eq!(reserved.command(), Some(Command::Settle(deltran_kernel::PostingGroupId::new(group))));
}
