//! Every refusal of a proposal, and the ways of a limit.

use super::*;
use proptest::prelude::*;
use uuid::Uuid;

const AT: Timestamp = Timestamp::from_micros(5);

fn usd(amount: &str) -> Money {
    Money::parse(amount, Currency::new("USD").unwrap()).unwrap()
}

fn proposal(kind: LimitKind, participant: Option<&str>, amount: &str) -> Proposal {
    Proposal {
        limit_id: CommandId::new(Uuid::from_u128(1)),
        kind,
        participant: participant.map(|p| p.parse().unwrap()),
        counterparty: None,
        corridor: None,
        value: Value::Amount(usd(amount)),
        effective_from: None,
        reason: "why".into(),
    }
}

fn towards(counterparty: &str, amount: &str) -> Proposal {
    let counterparty = Some(counterparty.parse().unwrap());
    Proposal { counterparty, ..proposal(LimitKind::Bilateral, Some("ALFAAEXX"), amount) }
}

fn through(kind: LimitKind, amount: &str) -> Proposal {
    Proposal { corridor: Some("AE-IN".parse().unwrap()), ..proposal(kind, None, amount) }
}

fn rate(transactions: u64, window_seconds: u32) -> Proposal {
    let value = Value::Rate(Rate { transactions, window_seconds });
    Proposal { value, ..proposal(LimitKind::Rate, None, "0.00") }
}

fn proposed_by(proposal: &Proposal, by: &str) -> Limit {
    propose(None, proposal, by, AT).unwrap().into_inner()
}

fn proposed(kind: LimitKind) -> Limit {
    proposed_by(&proposal(kind, Some("ALFAAEXX"), "100.00"), "ada")
}

fn later(proposal: Proposal, micros: i64) -> Proposal {
    Proposal { effective_from: Some(Timestamp::from_micros(micros)), ..proposal }
}

#[test]
fn proposals_that_make_no_sense_are_refused() {
    use LimitKind::{Bilateral, CorridorGross, CorridorMaximum, NetDebitCap, SingleTransactionMaximum};
    let cap = |amount| proposal(NetDebitCap, Some("ALFAAEXX"), amount);
    let of_whom = Some("ALFAAEXX".parse().unwrap());
    let corridor = Some("AE-IN".parse().unwrap());
    for (n, (proposal, bad_field)) in [
        (cap("100.00"), None),
        (cap("0.00"), None),
        (cap("-0.01"), Some("amount")),
        (proposal(NetDebitCap, None, "100.00"), Some("participant")),
        (Proposal { counterparty: of_whom, ..cap("1.00") }, Some("counterparty")),
        (Proposal { corridor, ..cap("1.00") }, Some("corridor")),
        (proposal(SingleTransactionMaximum, None, "100.00"), None),
        (proposal(SingleTransactionMaximum, Some("ALFAAEXX"), "0.01"), None),
        (proposal(SingleTransactionMaximum, None, "0.00"), Some("amount")),
        (proposal(SingleTransactionMaximum, None, "-1.00"), Some("amount")),
        (towards("BRAVINXX", "100.00"), None),
        (towards("BRAVINXX", "0.00"), None),
        (towards("BRAVINXX", "-1.00"), Some("amount")),
        (towards("ALFAAEXX", "1.00"), Some("counterparty")),
        (proposal(Bilateral, Some("ALFAAEXX"), "1.00"), Some("counterparty")),
        (Proposal { participant: None, ..towards("BRAVINXX", "1.00") }, Some("participant")),
        (through(CorridorMaximum, "1.00"), None),
        (through(CorridorMaximum, "0.00"), Some("amount")),
        (through(CorridorGross, "0.00"), None),
        (through(CorridorGross, "-0.01"), Some("amount")),
        (proposal(CorridorGross, None, "1.00"), Some("corridor")),
        (Proposal { participant: of_whom, ..through(CorridorGross, "1.00") }, Some("participant")),
        (rate(1, 10), None),
        (Proposal { participant: of_whom, ..rate(1, 3_600) }, None),
        (rate(0, 10), Some("rate.transactions")),
        (rate(1, 5), Some("rate.window_seconds")),
        (rate(1, 12), Some("rate.window_seconds")),
        (rate(1, 3_605), Some("rate.window_seconds")),
        (Proposal { value: Value::Amount(usd("1.00")), ..rate(1, 10) }, Some("rate")),
        (Proposal { value: rate(1, 10).value, ..cap("1.00") }, Some("amount")),
        (later(cap("1.00"), 6), None),
        (later(cap("1.00"), 5), Some("effective_from")),
    ]
    .into_iter()
    .enumerate()
    {
        match propose(None, &proposal, "ada", AT) {
            Ok(Outcome::Executed(limit)) => {
                assert_eq!((bad_field, limit.state), (None, LimitState::Proposed), "row {n}");
                assert_eq!((limit.proposed_by.as_str(), limit.effective_at), ("ada", None));
            }
            Err(LimitError::Malformed { field, .. }) => assert_eq!(Some(field), bad_field, "row {n}"),
            other => panic!("row {n}: {other:?}"),
        }
    }
}

/// R6: the id is the key, the whole body is compared.
#[test]
fn the_same_proposal_again_is_the_stored_one() {
    let stored = proposed_by(&later(towards("BRAVINXX", "100.00"), 9), "ada");
    let same = stored.proposal.clone();
    let long_after = Timestamp::from_micros(1_000);
    assert_eq!(propose(Some(&stored), &same, "bob", long_after), Ok(Outcome::AlreadyApplied(stored.clone())));
    for other in [
        Proposal { value: Value::Amount(usd("101.00")), ..same.clone() },
        Proposal { participant: Some("CHARUSXX".parse().unwrap()), ..same.clone() },
        Proposal { counterparty: Some("CHARUSXX".parse().unwrap()), ..same.clone() },
        Proposal { effective_from: None, ..same.clone() },
        Proposal { reason: "other".into(), ..same.clone() },
        proposal(LimitKind::NetDebitCap, Some("ALFAAEXX"), "100.00"),
    ] {
        assert_eq!(propose(Some(&stored), &other, "ada", AT), Err(LimitError::Conflict(same.limit_id)));
    }
}

/// R1: four eyes, with both names.
#[test]
fn the_proposer_does_not_approve() {
    for by in ["ada", "Ada", "ADA"] {
        let error = approve(&proposed(LimitKind::NetDebitCap), by, AT, 1).unwrap_err();
        assert!(matches!(error, LimitError::SameUser { .. }));
        assert!(error.to_string().contains("by ada") && error.to_string().contains(by));
    }
}

#[test]
fn what_is_due_is_in_force_at_once_and_a_cap_when_the_ledger_took_it() {
    let Ok(Outcome::Executed(maximum)) = approve(&proposed(LimitKind::SingleTransactionMaximum), "bob", AT, 3) else {
        panic!()
    };
    assert_eq!((maximum.state, maximum.effective_at, maximum.approval), (LimitState::Active, Some(AT), 3));
    let Ok(Outcome::Executed(cap)) = approve(&proposed(LimitKind::NetDebitCap), "bob", AT, 4) else { panic!() };
    assert_eq!((cap.state, cap.effective_at, cap.due_at), (LimitState::Approved, None, Some(AT)));
    let later = AT.plus_seconds(1);
    assert_eq!(activate(&cap, later), None, "the ledger decides");
    let active = answered(&cap, &Ledger::Taken, later).unwrap();
    assert_eq!((active.state, active.effective_at), (LimitState::Active, Some(later)));
    assert_eq!(answered(&active, &Ledger::Taken, later), None, "an answer that comes again changes nothing");
    assert_eq!(answered(&maximum, &Ledger::Refused("x".into()), later), None);
}

#[test]
fn a_limit_waits_for_its_time() {
    let limit = proposed_by(&later(through(LimitKind::CorridorGross, "5.00"), 100), "ada");
    let waits = approve(&limit, "bob", Timestamp::from_micros(50), 1).unwrap().into_inner();
    assert_eq!(
        (waits.state, waits.due_at, waits.effective_at),
        (LimitState::Approved, Some(Timestamp::from_micros(100)), None)
    );
    assert_eq!(activate(&waits, Timestamp::from_micros(99)), None);
    let active = activate(&waits, Timestamp::from_micros(120)).unwrap();
    assert_eq!((active.state, active.effective_at), (LimitState::Active, Some(Timestamp::from_micros(100))));
    assert_eq!(activate(&active, Timestamp::from_micros(120)), None);
    // Approved after its time, it is in force from then on.
    let late = approve(&limit, "bob", Timestamp::from_micros(150), 1).unwrap().into_inner();
    assert_eq!((late.state, late.effective_at), (LimitState::Active, Some(Timestamp::from_micros(150))));
}

#[test]
fn others_reject_and_the_proposer_withdraws() {
    use LimitState::{Approved, Rejected, Withdrawn};
    let limit = proposed(LimitKind::SingleTransactionMaximum);
    for (how, by, expected) in [
        (End::Reject, "bob", Ok(Rejected)),
        (End::Reject, "Ada", Err(())),
        (End::Withdraw, "Ada", Ok(Withdrawn)),
        (End::Withdraw, "bob", Err(())),
    ] {
        match end(&limit, how, by, "no", AT) {
            Ok(Outcome::Executed(next)) => {
                assert_eq!(Ok(next.state), expected);
                assert_eq!(end(&next, how, by, "no", AT), Ok(Outcome::AlreadyApplied(next.clone())));
                let other_reason = end(&next, how, by, "other", AT);
                assert_eq!(
                    other_reason,
                    Err(LimitError::WrongState { limit_id: next.proposal.limit_id, state: next.state })
                );
                assert!(matches!(approve(&next, "cyd", AT, 1), Err(LimitError::WrongState { .. })));
            }
            Err(LimitError::WrongUser { .. }) => assert_eq!(expected, Err(())),
            other => panic!("{other:?}"),
        }
    }
    let waits = approve(&proposed_by(&later(rate(5, 60), 100), "ada"), "bob", AT, 1).unwrap().into_inner();
    assert_eq!(waits.state, Approved);
    assert!(end(&waits, End::Withdraw, "ada", "no", Timestamp::from_micros(99)).is_ok());
    assert!(end(&waits, End::Withdraw, "ada", "no", Timestamp::from_micros(100)).is_err(), "its time has come");
    let on_its_way = approve(&proposed(LimitKind::NetDebitCap), "bob", AT, 1).unwrap().into_inner();
    assert!(matches!(
        end(&on_its_way, End::Reject, "bob", "no", AT),
        Err(LimitError::WrongState { state: Approved, .. })
    ));
}

#[test]
fn a_cap_that_the_ledger_refused_can_be_approved_again() {
    let cap = approve(&proposed(LimitKind::NetDebitCap), "bob", AT, 1).unwrap().into_inner();
    let back = answered(&cap, &Ledger::Refused("unknown participant".into()), AT).unwrap();
    assert_eq!((back.state, back.approved_by.as_deref(), back.due_at), (LimitState::Proposed, None, None));
    assert_eq!(back.refusal.as_deref(), Some("unknown participant"));
    let Ok(Outcome::Executed(again)) = approve(&back, "cyd", AT, 2) else { panic!() };
    assert_eq!((again.state, again.refusal), (LimitState::Approved, None));
}

#[test]
fn an_approval_again_is_not_a_second_one() {
    for kind in [LimitKind::NetDebitCap, LimitKind::SingleTransactionMaximum] {
        let approved = approve(&proposed(kind), "bob", AT, 1).unwrap().into_inner();
        for state in [approved.state, LimitState::Active, LimitState::Superseded] {
            let limit = Limit { state, ..approved.clone() };
            assert_eq!(approve(&limit, "bob", AT, 9), Ok(Outcome::AlreadyApplied(limit.clone())));
            assert!(
                matches!(approve(&limit, "cyd", AT, 9), Err(LimitError::WrongState { state: s, .. }) if s == state)
            );
        }
    }
}

#[test]
fn words_read_back() {
    for state in LimitState::ALL {
        assert_eq!(LimitState::from_word(state.as_str()), Some(state));
    }
    assert_eq!(LimitState::from_word("active"), None);
}

proptest! {
    /// R1 along every path: what has effect was proposed and approved by two different users.
    #[test]
    fn two_users_always(steps in prop::collection::vec((0..3usize, 0..6u8), 0..30), which in 0..3u8) {
        let users = ["ada", "bob", "cyd"];
        let proposal = match which {
            0 => proposal(LimitKind::SingleTransactionMaximum, None, "1.00"),
            1 => later(rate(5, 60), 15),
            _ => proposal(LimitKind::NetDebitCap, Some("ALFAAEXX"), "1.00"),
        };
        let mut limit = proposed_by(&proposal, "ada");
        for (n, (user, step)) in steps.into_iter().enumerate() {
            let at = Timestamp::from_micros(6 + n as i64);
            let next = match step {
                0 => approve(&limit, users[user], at, 1).ok().map(Outcome::into_inner),
                1 => answered(&limit, &Ledger::Taken, at),
                2 => answered(&limit, &Ledger::Refused("no".into()), at),
                3 => end(&limit, End::Reject, users[user], "no", at).ok().map(Outcome::into_inner),
                4 => end(&limit, End::Withdraw, users[user], "no", at).ok().map(Outcome::into_inner),
                _ => activate(&limit, at),
            };
            let ended = limit.ended.is_some();
            if let Some(next) = next {
                prop_assert!(!ended || next == limit, "what was ended stays so");
                limit = next;
            }
            if matches!(limit.state, LimitState::Approved | LimitState::Active) {
                prop_assert!(limit.approved_by.as_deref().is_some_and(|by| by != limit.proposed_by));
            }
            prop_assert_eq!(limit.effective_at.is_some(), limit.state == LimitState::Active);
        }
    }
}
