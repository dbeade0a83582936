//! One row per refusal, in order of precedence; and the transitions of windows and second phases.

use deltran_events::data::transactions::{CoverPolicy, SettlementModel, TransactionState};
use deltran_kernel::{
    CommandId, Currency, Minor, Money, ParticipantId, PostingGroupId, Timestamp, TransactionId, WindowId, WithdrawalId,
};
use uuid::Uuid;

use super::command::{
    Answer, Applied, By, Command, Gates, Instruction, Outcome, ParticipantState, Priority, ScreeningDecision,
};
use super::ledger::Ledger;
use super::refusal::{Denied, Refusal, RefusalCode};

pub(super) fn who(name: &str) -> ParticipantId {
    name.parse().unwrap()
}

pub(super) fn usd() -> Currency {
    Currency::new("USD").unwrap()
}

pub(super) fn money(units: i128) -> Money {
    Money::new(Minor::new(units).unwrap(), usd())
}

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

pub(super) fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

pub(super) fn by(user: &str) -> By {
    By { user: user.into(), trace: None }
}

pub(super) fn instruction(n: u128, payer: &str, payee: &str, units: i128) -> Instruction {
    Instruction {
        id: TransactionId::new(id(n)),
        payer: who(payer),
        payee: who(payee),
        amount: money(units),
        model: SettlementModel::NetMultilateral,
        priority: Priority::Normal,
        end_to_end_id: String::new(),
        uetr: None,
        purpose: String::new(),
        reserve_for: None,
        return_of: None,
        body_hash: [n as u8; 32],
    }
}

pub(super) fn approve() -> Gates {
    Gates {
        decision: ScreeningDecision::Approve,
        evidence: "no_parties".into(),
        list_versions: vec![],
        rule_version: "1".into(),
        screening_score: 0,
        risk_refusal: None,
        risk_version: 1,
        risk_window: None,
        turn: 0,
    }
}

pub(super) fn submit_with(ledger: &mut Ledger, i: Instruction, gates: Gates, now: Timestamp) -> Outcome {
    let command = Command::Submit { instruction: Box::new(i), gates: Ok(Box::new(gates)), by: by("bank") };
    match ledger.execute(command, now).unwrap().into_parts().0 {
        Answer::Outcome(outcome) => outcome,
        other => panic!("{other:?}"),
    }
}

pub(super) fn submit(ledger: &mut Ledger, i: Instruction) -> Outcome {
    submit_with(ledger, i, approve(), at(10))
}

fn code(outcome: &Outcome) -> Option<RefusalCode> {
    outcome.refusal.as_ref().map(|r| r.code)
}

fn command_id(n: u128) -> CommandId {
    CommandId::new(id(n))
}

pub(super) fn deposit(ledger: &mut Ledger, n: u128, participant: &str, units: i128) {
    let command = Command::Deposit {
        id: command_id(n),
        hash: [0; 32],
        participant: who(participant),
        amount: money(units),
        reference: String::new(),
        by: by("operator"),
    };
    ledger.execute(command, at(1)).unwrap();
}

pub(super) fn member(ledger: &mut Ledger, n: u128, name: &str, cap: i128) {
    let participant = who(name);
    for command in [
        Command::Register { id: command_id(n), hash: [0; 32], participant, name: name.into(), by: by("operator") },
        Command::SetState {
            id: command_id(n + 1),
            hash: [0; 32],
            participant,
            state: ParticipantState::Active,
            reason: String::new(),
            by: by("operator"),
        },
        Command::EnableCurrency {
            id: command_id(n + 2),
            hash: [0; 32],
            participant,
            currency: usd(),
            by: by("operator"),
        },
        Command::SetLimit { id: command_id(n + 3), hash: [0; 32], participant, cap: money(cap), by: by("risk") },
    ] {
        ledger.execute(command, at(1)).unwrap();
    }
}

pub(super) fn window(n: u128) -> WindowId {
    WindowId::new(id(n))
}

/// Two banks with 1,000 each and a cap of 100, and an open window.
fn two_banks() -> Ledger {
    let mut ledger = Ledger::default();
    member(&mut ledger, 100, "ALFAAEXX", 100);
    member(&mut ledger, 200, "BRAVINXX", 100);
    deposit(&mut ledger, 300, "ALFAAEXX", 1000);
    deposit(&mut ledger, 301, "BRAVINXX", 1000);
    ledger.execute(Command::OpenWindow { id: window(900), currency: usd() }, at(2)).unwrap();
    ledger
}

/// Each row breaks one rule more than the row after it: the first broken rule in order decides.
#[test]
fn refusals_come_in_the_documented_order() {
    type Break = fn(&mut Ledger, &mut Instruction, &mut Gates);
    let breaks: Vec<(RefusalCode, Break)> = vec![
        (RefusalCode::UnknownParticipant, |_, i, _| i.payee = who("NOBOGBXX")),
        (RefusalCode::Suspended, |l, _, _| {
            l.participants.get_mut(&who("ALFAAEXX")).unwrap().state = ParticipantState::Suspended;
        }),
        (RefusalCode::CurrencyNotEnabled, |l, _, _| {
            l.memberships.remove(&(who("ALFAAEXX"), usd()));
        }),
        (RefusalCode::AmountOutOfRange, |_, i, _| i.amount = money(0)),
        (RefusalCode::PayerIsPayee, |_, i, _| i.payee = i.payer),
        (RefusalCode::Return, |_, i, _| i.return_of = Some(TransactionId::new(id(77)))),
        (RefusalCode::Compliance, |_, _, g| g.decision = ScreeningDecision::Decline),
        (RefusalCode::BreakerOpen, |_, _, g| g.risk_refusal = Some(Refusal::new(RefusalCode::BreakerOpen, "open"))),
        (RefusalCode::Cap, |l, _, _| {
            l.memberships.get_mut(&(who("ALFAAEXX"), usd())).unwrap().terms.cap = Minor::ZERO;
        }),
        (RefusalCode::Cover, |l, _, _| {
            l.accounts.insert(super::account::AccountKey::Settlement(who("ALFAAEXX"), usd()), Default::default());
        }),
        (RefusalCode::WindowClosed, |l, _, _| l.open.clear()),
    ];
    for first in 0..breaks.len() {
        let (mut ledger, mut i, mut gates) = (two_banks(), instruction(1, "ALFAAEXX", "BRAVINXX", 60), approve());
        // Payer = payee would repair an unknown payee; the rows below the first are applied in reverse.
        for (_, apply) in breaks[first..].iter().rev() {
            apply(&mut ledger, &mut i, &mut gates);
        }
        let outcome = submit_with(&mut ledger, i, gates, at(10));
        assert_eq!(outcome.state, TransactionState::Rejected, "row {first}");
        assert_eq!(code(&outcome), Some(breaks[first].0), "row {first}: {:?}", outcome.refusal);
    }
    let outcome = submit(&mut two_banks(), instruction(1, "ALFAAEXX", "BRAVINXX", 60));
    assert_eq!((outcome.state, outcome.window), (TransactionState::Committed, Some((window(900), 1))));
}

#[test]
fn gross_needs_tokens_that_stand_behind_nothing() {
    let mut ledger = two_banks();
    let gross =
        |n, units| Instruction { model: SettlementModel::Gross, ..instruction(n, "ALFAAEXX", "BRAVINXX", units) };
    assert_eq!(code(&submit(&mut ledger, gross(1, 1001))), Some(RefusalCode::Liquidity));
    assert_eq!(submit(&mut ledger, instruction(2, "ALFAAEXX", "BRAVINXX", 100)).state, TransactionState::Committed);
    let refused = submit(&mut ledger, gross(3, 901));
    assert_eq!(code(&refused), Some(RefusalCode::Cover));
    assert_eq!(refused.refusal.unwrap().details["headroom"], "9.00");
    assert_eq!(submit(&mut ledger, gross(4, 900)).state, TransactionState::Committed);
    let withdrawal = |n, units| Command::RequestWithdrawal {
        id: WithdrawalId::new(id(n)),
        hash: [0; 32],
        participant: who("ALFAAEXX"),
        amount: money(units),
        reference: String::new(),
        by: by("ALFAAEXX"),
    };
    assert!(matches!(
        ledger.execute(withdrawal(50, 1), at(11)),
        Err(Denied::Refused(r)) if r.code == RefusalCode::Cover
    ));
}

/// A batch of [60, 60, 60] against a cap of 100 accepts exactly one.
#[test]
fn a_batch_cannot_exceed_the_cap() {
    let mut ledger = two_banks();
    let states: Vec<_> =
        (1..=3).map(|n| submit(&mut ledger, instruction(n, "ALFAAEXX", "BRAVINXX", 60))).map(|o| code(&o)).collect();
    assert_eq!(states, [None, Some(RefusalCode::Cap), Some(RefusalCode::Cap)]);
}

#[test]
fn lowering_the_cap_blocks_new_debits_only() {
    let mut ledger = two_banks();
    submit(&mut ledger, instruction(1, "ALFAAEXX", "BRAVINXX", 80));
    let lower = Command::SetLimit {
        id: command_id(60),
        hash: [0; 32],
        participant: who("ALFAAEXX"),
        cap: money(10),
        by: by("r"),
    };
    ledger.execute(lower, at(11)).unwrap();
    assert_eq!(code(&submit(&mut ledger, instruction(2, "ALFAAEXX", "BRAVINXX", 1))), Some(RefusalCode::Cap));
    assert_eq!(submit(&mut ledger, instruction(3, "BRAVINXX", "ALFAAEXX", 100)).state, TransactionState::Committed);
    // 20 to the good: paying them away makes no debit, one more does, and the cap of 10 takes it.
    assert_eq!(submit(&mut ledger, instruction(4, "ALFAAEXX", "BRAVINXX", 30)).state, TransactionState::Committed);
    assert_eq!(code(&submit(&mut ledger, instruction(5, "ALFAAEXX", "BRAVINXX", 1))), Some(RefusalCode::Cap));
}

#[test]
fn the_same_id_has_one_outcome() {
    let mut ledger = two_banks();
    let first = submit(&mut ledger, instruction(1, "ALFAAEXX", "BRAVINXX", 60));
    ledger.participants.get_mut(&who("ALFAAEXX")).unwrap().state = ParticipantState::Suspended;
    let again = |i: Instruction, l: &mut Ledger| {
        l.execute(
            Command::Submit { instruction: Box::new(i), gates: Err("gates are away".into()), by: by("bank") },
            at(20),
        )
    };
    let replay = again(instruction(1, "ALFAAEXX", "BRAVINXX", 60), &mut ledger);
    assert_eq!(replay, Ok(Applied::AlreadyApplied(Answer::Outcome(first))));
    let other = Instruction { body_hash: [9; 32], ..instruction(1, "ALFAAEXX", "BRAVINXX", 61) };
    let conflict = again(other, &mut ledger).unwrap_err();
    assert!(matches!(&conflict, Denied::Conflict { .. }) && !conflict.to_string().contains("60"), "{conflict}");
    let unknown = again(instruction(2, "ALFAAEXX", "BRAVINXX", 1), &mut ledger);
    assert!(matches!(unknown, Err(Denied::Undecided(_))));
    // Decided nothing: the same id may still be submitted.
    ledger.participants.get_mut(&who("ALFAAEXX")).unwrap().state = ParticipantState::Active;
    assert_eq!(submit(&mut ledger, instruction(2, "ALFAAEXX", "BRAVINXX", 1)).state, TransactionState::Committed);
}

#[test]
fn a_reservation_made_before_a_seal_lands_in_the_later_window() {
    let mut ledger = two_banks();
    let two_phase = Instruction { reserve_for: Some(60_000_000), ..instruction(1, "ALFAAEXX", "BRAVINXX", 70) };
    assert_eq!(submit(&mut ledger, two_phase).state, TransactionState::Reserved);
    // The hold counts against the cap.
    assert_eq!(code(&submit(&mut ledger, instruction(2, "ALFAAEXX", "BRAVINXX", 31))), Some(RefusalCode::Cap));
    let seal = Command::SealWindow { id: window(900), next: Some(window(901)), by: by("clearing") };
    let Answer::Sealed(totals) = ledger.execute(seal.clone(), at(12)).unwrap().into_parts().0 else { panic!() };
    assert_eq!((totals.count, totals.gross), (0, Minor::ZERO));
    let commit = |l: &mut Ledger, t| {
        l.execute(Command::Commit { id: TransactionId::new(id(1)), payer: who("ALFAAEXX"), by: by("bank") }, t)
    };
    assert_eq!(commit(&mut ledger, at(13)), Ok(Applied::Executed(Answer::Transaction(TransactionState::Committed))));
    assert_eq!(
        commit(&mut ledger, at(14)),
        Ok(Applied::AlreadyApplied(Answer::Transaction(TransactionState::Committed)))
    );
    assert_eq!(ledger.known.transactions[&TransactionId::new(id(1))].window, Some((window(901), 1)));
    assert!(matches!(ledger.execute(seal, at(15)), Ok(Applied::AlreadyApplied(Answer::Sealed(_)))));
}

#[test]
fn a_reservation_that_ran_out_cannot_be_committed() {
    let mut ledger = two_banks();
    let gross = Instruction {
        model: SettlementModel::Gross,
        reserve_for: Some(5_000_000),
        ..instruction(1, "ALFAAEXX", "BRAVINXX", 400)
    };
    submit(&mut ledger, gross);
    assert_eq!(ledger.settlement(who("ALFAAEXX"), usd()).units(), 600);
    let commit = Command::Commit { id: TransactionId::new(id(1)), payer: who("ALFAAEXX"), by: by("bank") };
    let late = ledger.execute(commit, at(16));
    assert!(matches!(late, Err(Denied::WrongState { state, .. }) if state == "EXPIRED"));
    assert_eq!(ledger.settlement(who("ALFAAEXX"), usd()).units(), 1000);
}

#[test]
fn held_reserves_nothing_and_is_checked_again() {
    let mut ledger = two_banks();
    let gates = || Gates { decision: ScreeningDecision::BlockAndReview, ..approve() };
    for n in [1, 2] {
        let held = submit_with(&mut ledger, instruction(n, "ALFAAEXX", "BRAVINXX", 60), gates(), at(10));
        assert_eq!(held.state, TransactionState::Held);
    }
    let release = |l: &mut Ledger, n, release| {
        let command = Command::Release {
            id: TransactionId::new(id(n)),
            release,
            reason: "reviewed".into(),
            gates: Some(Box::new(approve())),
            by: by("compliance-engine"),
        };
        l.execute(command, at(20)).map(|a| a.into_parts())
    };
    assert_eq!(release(&mut ledger, 1, true), Ok((Answer::Transaction(TransactionState::Committed), false)));
    assert_eq!(release(&mut ledger, 1, true), Ok((Answer::Transaction(TransactionState::Committed), true)));
    // The cap is used up: release ends in a refusal, for ever.
    assert_eq!(release(&mut ledger, 2, true), Ok((Answer::Transaction(TransactionState::Rejected), false)));
    let record = &ledger.known.transactions[&TransactionId::new(id(2))];
    assert_eq!(record.refusal.as_ref().map(|r| r.code), Some(RefusalCode::Cap));
    assert_eq!(record.outcome().state, TransactionState::Held, "the submission's answer stays what it was");
}

/// What risk says when a held transaction is released counts as it does when one is submitted.
#[test]
fn a_release_is_refused_where_risk_refuses_it() {
    let mut ledger = two_banks();
    let held = Gates { decision: ScreeningDecision::Review, ..approve() };
    submit_with(&mut ledger, instruction(1, "ALFAAEXX", "BRAVINXX", 60), held, at(10));
    let limit = Refusal::new(RefusalCode::Limit, "too much");
    let gates = Some(Box::new(Gates { risk_refusal: Some(limit.clone()), ..approve() }));
    let (id, reason, by) = (TransactionId::new(id(1)), "reviewed".into(), by("compliance-engine"));
    let released = ledger.execute(Command::Release { id, release: true, reason, gates, by }, at(20)).unwrap();
    assert_eq!(released.into_parts().0, Answer::Transaction(TransactionState::Rejected));
    assert_eq!(ledger.known.transactions[&id].refusal, Some(limit));
}

/// Who sends a release reads the transaction first, and may have read it before it was HELD: then risk was not asked, and
/// nothing is let pass. What is over is answered as it was, and a rejection needs nobody else.
#[test]
fn nothing_is_released_that_risk_was_not_asked_about() {
    use TransactionState::{Committed, Rejected, Reserved};
    let plain = |n| instruction(n, "ALFAAEXX", "BRAVINXX", 1);
    let phases = |n| Instruction { reserve_for: Some(60_000_000), ..instruction(n, "ALFAAEXX", "BRAVINXX", 1) };
    let review = || Gates { decision: ScreeningDecision::Review, ..approve() };
    // What was submitted, how it was screened, whether it was released in order before; then whether this is a release,
    // whether risk was asked, and the state that is answered.
    type Row = (Instruction, Gates, bool, (bool, bool), Option<TransactionState>);
    let rows: [Row; 8] = [
        (plain(1), review(), false, (true, false), None),
        (phases(2), review(), false, (true, false), None),
        (plain(3), review(), false, (true, true), Some(Committed)),
        (phases(4), review(), false, (true, true), Some(Reserved)),
        (plain(5), review(), false, (false, false), Some(Rejected)),
        (plain(6), review(), true, (true, false), Some(Committed)),
        (phases(7), review(), true, (true, false), Some(Reserved)),
        (plain(8), approve(), false, (true, false), None),
    ];
    for (instruction, screened, before, (release, asked), expected) in rows {
        let mut ledger = two_banks();
        let (id, held) = (instruction.id, screened.decision == ScreeningDecision::Review);
        submit_with(&mut ledger, instruction, screened, at(10));
        let command = |release: bool, asked: bool| Command::Release {
            id,
            release,
            reason: "reviewed".into(),
            gates: asked.then(|| Box::new(approve())),
            by: by("compliance-engine"),
        };
        if before {
            ledger.execute(command(true, true), at(15)).unwrap();
        }
        let stood = ledger.known.transactions[&id].clone();
        let decided = ledger.execute(command(release, asked), at(20)).map(|a| a.into_parts().0);
        match (expected, held) {
            (Some(state), _) => assert_eq!(decided, Ok(Answer::Transaction(state)), "{id}"),
            (None, true) => assert!(matches!(decided, Err(Denied::Undecided(_))), "{id}: {decided:?}"),
            (None, false) => assert!(matches!(decided, Err(Denied::WrongState { .. })), "{id}: {decided:?}"),
        }
        if expected.is_none() {
            assert_eq!(ledger.known.transactions[&id], stood, "nothing of it is stored");
        }
    }
    // Nor does the payer's second phase end HELD.
    let mut ledger = two_banks();
    submit_with(&mut ledger, phases(1), review(), at(10));
    let commit = Command::Commit { id: TransactionId::new(id(1)), payer: who("ALFAAEXX"), by: by("bank") };
    assert!(matches!(ledger.execute(commit, at(20)), Err(Denied::WrongState { state, .. }) if state == "HELD"));
}

/// A verdict for one window lets nothing into another: that is undecided, and nothing of it is stored.
#[test]
fn a_verdict_for_a_window_counts_in_that_window_only() {
    let mut ledger = two_banks();
    let submit = |l: &mut Ledger, n, judged_for| {
        let gates = Ok(Box::new(Gates { risk_window: Some(window(judged_for)), ..approve() }));
        let instruction = Box::new(instruction(n, "ALFAAEXX", "BRAVINXX", 1));
        l.execute(Command::Submit { instruction, gates, by: by("bank") }, at(10))
    };
    assert!(matches!(submit(&mut ledger, 1, 901), Err(Denied::Undecided(_))));
    assert!(!ledger.known.transactions.contains_key(&TransactionId::new(id(1))));
    assert!(submit(&mut ledger, 1, 900).is_ok());
}

/// What a gate said counts only while the ledger listens to that gate: else it is undecided, a refusal too.
#[test]
fn a_verdict_counts_in_its_turn_only() {
    let mut ledger = two_banks();
    ledger.turn = 2;
    let limit = || Refusal::new(RefusalCode::Limit, "too much");
    for (turn, refusal) in [(1, None), (3, None), (1, Some(limit()))] {
        let gates = Ok(Box::new(Gates { turn, risk_refusal: refusal, ..approve() }));
        let instruction = Box::new(instruction(1, "ALFAAEXX", "BRAVINXX", 1));
        let decided = ledger.execute(Command::Submit { instruction, gates, by: by("bank") }, at(10));
        assert!(matches!(decided, Err(Denied::Undecided(_))), "{turn}");
        assert!(ledger.known.transactions.is_empty(), "nothing of it is stored");
    }
    let held = Gates { decision: ScreeningDecision::Review, turn: 2, ..approve() };
    assert_eq!(submit_with(&mut ledger, instruction(1, "ALFAAEXX", "BRAVINXX", 1), held, at(10)).refusal, None);
    let release = |ledger: &mut Ledger, turn| {
        let gates = Some(Box::new(Gates { turn, ..approve() }));
        let (id, reason, by) = (TransactionId::new(id(1)), "reviewed".into(), by("compliance-engine"));
        ledger.execute(Command::Release { id, release: true, reason, gates, by }, at(20))
    };
    assert!(matches!(release(&mut ledger, 1), Err(Denied::Undecided(_))));
    assert!(release(&mut ledger, 2).is_ok());
    assert!(release(&mut ledger, 1).is_ok(), "what was decided is answered as it was");
}

#[test]
fn a_return_gives_back_no_more_than_was_paid() {
    let mut ledger = two_banks();
    submit(&mut ledger, instruction(1, "ALFAAEXX", "BRAVINXX", 60));
    let back = |n, units| Instruction {
        return_of: Some(TransactionId::new(id(1))),
        ..instruction(n, "BRAVINXX", "ALFAAEXX", units)
    };
    assert_eq!(submit(&mut ledger, back(2, 40)).state, TransactionState::Committed);
    let refused = submit(&mut ledger, back(3, 21));
    assert_eq!(
        refused.refusal.as_ref().map(|r| (r.code, r.details["remaining"].as_str())),
        Some((RefusalCode::Return, "0.20"))
    );
    assert_eq!(submit(&mut ledger, back(4, 20)).state, TransactionState::Committed);
    assert_eq!(ledger.known.transactions[&TransactionId::new(id(1))].state, TransactionState::Committed);
}

/// A debtor on collateral that is short at settlement, tops up, and settles.
#[test]
fn settlement_is_all_or_nothing() {
    let mut ledger = two_banks();
    let collateral = |user: &str| Command::SetCollateral {
        id: command_id(70),
        hash: [0; 32],
        participant: who("ALFAAEXX"),
        policy: CoverPolicy::Collateral,
        amount: money(500),
        by: by(user),
    };
    let proposed = Answer::Collateral { proposed_by: "ada".into(), approved_by: None };
    assert_eq!(ledger.execute(collateral("ada"), at(3)), Ok(Applied::Executed(proposed.clone())));
    assert_eq!(ledger.execute(collateral("ada"), at(3)), Ok(Applied::AlreadyApplied(proposed)), "four eyes");
    assert!(
        matches!(ledger.execute(collateral("Ada"), at(3)), Ok(Applied::AlreadyApplied(_))),
        "the same user, spelt otherwise"
    );
    let applied = Answer::Collateral { proposed_by: "ada".into(), approved_by: Some("bob".into()) };
    assert_eq!(ledger.execute(collateral("bob"), at(3)), Ok(Applied::Executed(applied)));
    let spend = Instruction { model: SettlementModel::Gross, ..instruction(1, "ALFAAEXX", "BRAVINXX", 950) };
    assert_eq!(submit(&mut ledger, spend).state, TransactionState::Committed);
    assert_eq!(submit(&mut ledger, instruction(2, "ALFAAEXX", "BRAVINXX", 100)).state, TransactionState::Committed);
    ledger.execute(Command::SealWindow { id: window(900), next: None, by: by("clearing") }, at(11)).unwrap();

    let settle = |l: &mut Ledger, n, legs: [i128; 2]| {
        let command = Command::Settle {
            group: PostingGroupId::new(id(n)),
            hash: [0; 32],
            windows: vec![window(900)],
            legs: vec![(who("ALFAAEXX"), money(legs[0])), (who("BRAVINXX"), money(legs[1]))],
            by: by("settlement"),
        };
        l.execute(command, at(12))
    };
    let before = ledger.posting_seq;
    assert!(
        matches!(settle(&mut ledger, 500, [-90, 90]), Err(Denied::WrongState { .. })),
        "legs must be its positions"
    );
    assert!(
        matches!(settle(&mut ledger, 501, [-100, 100]), Err(Denied::Refused(r)) if r.code == RefusalCode::Liquidity)
    );
    assert_eq!(ledger.posting_seq, before, "nothing was posted");

    deposit(&mut ledger, 302, "ALFAAEXX", 60);
    // What came in covers the debt first: only the rest may be spent.
    let spend =
        |n, units| Instruction { model: SettlementModel::Gross, ..instruction(n, "ALFAAEXX", "BRAVINXX", units) };
    let (group, windows) = (PostingGroupId::new(id(502)), vec![window(900)]);
    let earmark = Command::Earmark { group, hash: [0; 32], windows, by: by("settlement") };
    let Answer::Funding { debtors, .. } = ledger.execute(earmark, at(13)).unwrap().into_parts().0 else { panic!() };
    assert_eq!((debtors[0].required.units(), debtors[0].reserved.units()), (100, 100));
    assert_eq!(code(&submit(&mut ledger, spend(3, 11))), Some(RefusalCode::Liquidity));
    assert!(settle(&mut ledger, 503, [-100, 100]).is_ok());
    assert!(
        matches!(settle(&mut ledger, 504, [-100, 100]), Err(Denied::WrongState { state, .. }) if state == "SETTLED")
    );
    assert_eq!(ledger.settlement(who("ALFAAEXX"), usd()).units(), 10);
    assert_eq!(ledger.settlement(who("BRAVINXX"), usd()).units(), 2050);
    assert_eq!(ledger.cap_headroom(who("ALFAAEXX"), usd()).unwrap(), money(100));
}

#[test]
fn one_window_of_a_currency_is_open() {
    let mut ledger = two_banks();
    let open = |l: &mut Ledger, n| l.execute(Command::OpenWindow { id: window(n), currency: usd() }, at(5));
    assert!(matches!(open(&mut ledger, 900), Ok(Applied::AlreadyApplied(Answer::Opened { .. }))));
    assert!(matches!(open(&mut ledger, 901), Err(Denied::WrongState { message, .. }) if message.contains("900")
        || message.contains(&window(900).to_string())));
    ledger.execute(Command::SealWindow { id: window(900), next: None, by: by("c") }, at(6)).unwrap();
    assert!(matches!(open(&mut ledger, 900), Err(Denied::WrongState { state, .. }) if state == "SEALED"));
    assert!(open(&mut ledger, 901).is_ok());
}

#[test]
fn time_never_stands_still_or_goes_back() {
    let mut ledger = Ledger::default();
    assert_eq!(ledger.tick(at(5)), at(5));
    assert_eq!(ledger.tick(at(5)), at(5).plus_micros(1));
    assert_eq!(ledger.tick(at(4)), at(5).plus_micros(2));
}

/// A restored ledger decides nothing until somebody says that it goes on; what was asked meanwhile may be asked again.
#[test]
fn a_restored_ledger_waits_until_it_is_resumed() {
    let mut ledger = two_banks();
    ledger.waits = true;
    let pay = |l: &mut Ledger, gates: Result<Box<Gates>, String>| {
        let instruction = Box::new(instruction(1, "ALFAAEXX", "BRAVINXX", 1));
        l.execute(Command::Submit { instruction, gates, by: by("bank") }, at(10))
    };
    let resume = |l: &mut Ledger, n, reason: &str| {
        let command = Command::Resume {
            id: CommandId::new(id(n)),
            hash: [reason.len() as u8; 32],
            reason: reason.into(),
            by: by("ada"),
        };
        l.execute(command, at(20))
    };
    assert!(matches!(pay(&mut ledger, Ok(Box::new(approve()))), Err(Denied::Undecided(_))));
    let open = Command::OpenWindow { id: window(901), currency: usd() };
    assert!(matches!(ledger.execute(open, at(11)), Err(Denied::Undecided(_))));
    assert_eq!(ledger.execute(Command::ExpireDue, at(12)), Ok(Applied::Executed(Answer::Expired(0))));
    assert!(ledger.known.transactions.is_empty(), "nothing of it is stored");
    ledger.take_effects();

    assert_eq!(resume(&mut ledger, 70, "seen"), Ok(Applied::Executed(Answer::Done)));
    let effects = ledger.take_effects();
    assert!(effects.resumed);
    assert_eq!(effects.events.len(), 1);
    assert_eq!(resume(&mut ledger, 70, "seen"), Ok(Applied::AlreadyApplied(Answer::Done)));
    assert!(matches!(resume(&mut ledger, 70, "seen again"), Err(Denied::Conflict { .. })));
    assert!(matches!(resume(&mut ledger, 71, "seen"), Err(Denied::WrongState { .. })));
    assert!(pay(&mut ledger, Ok(Box::new(approve()))).is_ok());
}
