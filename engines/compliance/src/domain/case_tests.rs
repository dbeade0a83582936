//! Tests of cases: every transition, every refusal, in their precedence.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const NOW: Timestamp = Timestamp::from_micros(1_000_000);

fn id(n: u128) -> CaseId {
    CaseId::new(Uuid::from_u128(n))
}

fn case(state: CaseState) -> Case {
    let closed = state == CaseState::Closed;
    Case {
        state,
        assignee: (state != CaseState::Open).then(|| "ada".into()),
        outcome: closed.then_some(CaseOutcome::FalsePositive),
        closed_at: closed.then_some(Timestamp::from_micros(5)),
        due_at: Some(NOW.plus_seconds(60)),
        ..new_case(id(1), subject(), CaseCause::Alert, "compliance-engine", Timestamp::from_micros(1))
    }
}

fn subject() -> Subject {
    Subject::Participant("ALFAAEXX".parse().unwrap())
}

fn command(n: u128, action: Action) -> Command {
    Command { command_id: CommandId::new(Uuid::from_u128(n)), action, by: "ada".into(), at: NOW }
}

fn opened(due_at: Option<Timestamp>) -> Action {
    Action::Open { reason: "tip".into(), due_at }
}

fn actions(due_at: Option<Timestamp>) -> [Action; 6] {
    [
        opened(due_at),
        Action::Assign { assignee: "bob".into(), due_at },
        Action::Note { text: "asked the bank".into() },
        Action::Escalate { to: "grace".into(), reason: "large".into() },
        Action::Close { outcome: CaseOutcome::Valuable, reason: "filed".into() },
        Action::Reopen { reason: "news".into(), due_at },
    ]
}

/// The state after each action in each state, or that it is refused.
#[test]
fn every_transition_and_every_refusal() {
    use CaseState::{Closed, Investigating, Open};
    let table = [
        ("OPENED", [None, None, None]),
        ("ASSIGNED", [Some(Investigating), Some(Investigating), None]),
        ("NOTED", [Some(Open), Some(Investigating), None]),
        ("ESCALATED", [Some(Open), Some(Investigating), None]),
        ("CLOSED", [None, Some(Closed), None]),
        ("REOPENED", [None, None, Some(Investigating)]),
    ];
    for (action, (word, expected)) in actions(None).into_iter().zip(table) {
        assert_eq!(action.as_str(), word);
        for (state, expected) in CaseState::ALL.into_iter().zip(expected) {
            let before = case(state);
            let result = change(&before, None, &command(1, action.clone()));
            match expected {
                None => assert!(
                    matches!(result, Err(CaseError::WrongState { case_id, state: s, .. }) if s == state && case_id == id(1)),
                    "{word} {state:?}: {result:?}"
                ),
                Some(expected) => {
                    let Ok(Outcome::Executed(Changed { case: next, step })) = result else {
                        panic!("{word} {state:?}")
                    };
                    assert_eq!((next.state, step.state, step.action), (expected, expected, action.clone()));
                    assert_eq!((step.case_id, step.by.as_str(), step.at), (id(1), "ada", NOW));
                    assert_eq!(next.outcome.is_some(), expected == Closed);
                    assert_eq!(next.closed_at.is_some(), expected == Closed);
                    assert_eq!(
                        (next.subject, next.opened_at, next.cause),
                        (before.subject, before.opened_at, before.cause)
                    );
                }
            }
        }
    }
    for action in [Action::Hold(HoldId::new(Uuid::from_u128(1))), Action::Alert(AlertId::new(Uuid::from_u128(1)))] {
        assert!(change(&case(Open), None, &command(1, action)).is_err(), "these are the platform's");
    }
}

#[test]
fn what_each_command_leaves() {
    let next = |state, action| change(&case(state), None, &command(1, action)).unwrap().into_inner().case;
    let due = Some(NOW.plus_seconds(9));
    let assigned = next(CaseState::Open, Action::Assign { assignee: "bob".into(), due_at: None });
    assert_eq!((assigned.assignee.as_deref(), assigned.due_at), (Some("bob"), case(CaseState::Open).due_at));
    assert_eq!(next(CaseState::Open, Action::Assign { assignee: "bob".into(), due_at: due }).due_at, due);
    let [_, _, note, escalate, close, reopen] = actions(due);
    assert_eq!(next(CaseState::Open, note), case(CaseState::Open));
    assert_eq!(next(CaseState::Open, escalate).escalated_to.as_deref(), Some("grace"));
    let closed = next(CaseState::Investigating, close);
    assert_eq!((closed.outcome, closed.closed_at), (Some(CaseOutcome::Valuable), Some(NOW)));
    let again = next(CaseState::Closed, reopen);
    assert_eq!((again.assignee.as_deref(), again.due_at, again.outcome), (Some("ada"), due, None));
    let again = next(CaseState::Closed, Action::Reopen { reason: "r".into(), due_at: None });
    assert_eq!(again.due_at, None);
}

#[test]
fn a_subject_has_one_case_that_is_not_closed() {
    let due = Some(NOW.plus_seconds(1));
    let Ok(Outcome::Executed(first)) = open(None, None, id(7), subject(), &command(1, opened(due))) else {
        panic!("refused")
    };
    assert_eq!((first.case.state, first.case.due_at, first.case.cause), (CaseState::Open, due, CaseCause::Officer));
    assert_eq!((first.case.case_id, first.case.opened_by.as_str(), first.case.opened_at), (id(7), "ada", NOW));
    for state in [CaseState::Open, CaseState::Investigating] {
        let result = open(None, Some(&case(state)), id(7), subject(), &command(2, opened(due)));
        let expected = CaseError::AlreadyOpen { subject: subject(), case_id: id(1), state };
        assert_eq!(result, Err(expected));
    }
}

#[test]
fn a_due_date_lies_ahead() {
    for due_at in [NOW, NOW.plus_seconds(-1)] {
        let past = Err(CaseError::PastDue { due_at });
        assert_eq!(open(None, None, id(7), subject(), &command(1, opened(Some(due_at)))), past);
        let [_, assign, _, _, _, reopen] = actions(Some(due_at));
        assert_eq!(change(&case(CaseState::Open), None, &command(1, assign)), past);
        assert_eq!(change(&case(CaseState::Closed), None, &command(1, reopen)), past);
    }
}

/// Before the state, before the due date: the same command again is an answer, its id with another body is none.
#[test]
fn a_command_counts_once() {
    let past = Some(NOW.plus_seconds(-5));
    for action in actions(past) {
        let command = command(1, action.clone());
        let before = case(CaseState::Closed);
        let step = Step { number: 3, ..changed(before.clone(), &command).step };
        let again = |step: &Step, command: &Command| match &command.action {
            Action::Open { .. } => open(Some((step, &before)), Some(&before), id(9), subject(), command),
            _ => change(&before, Some(step), command),
        };
        let Ok(Outcome::AlreadyApplied(answer)) = again(&step, &command) else { panic!("{action:?}") };
        assert_eq!((answer.case, answer.step), (before.clone(), step.clone()));
        let conflict = Err(CaseError::Conflict(command.command_id));
        assert_eq!(again(&step, &Command { by: "bob".into(), ..command.clone() }), conflict);
        for other in actions(None) {
            if other != action {
                let other = Step { action: other, ..step.clone() };
                assert_eq!(again(&other, &command), conflict);
            }
        }
        let elsewhere = Step { case_id: id(2), ..step.clone() };
        if !matches!(action, Action::Open { .. }) {
            assert_eq!(change(&before, Some(&elsewhere), &command), conflict);
        }
    }
    let command = command(1, opened(None));
    let step = changed(case(CaseState::Open), &command).step;
    let other = Subject::Transaction(TransactionId::new(Uuid::from_u128(4)));
    let result = open(Some((&step, &case(CaseState::Open))), None, id(9), other, &command);
    assert_eq!(result, Err(CaseError::Conflict(command.command_id)));
}

proptest! {
    /// Whatever officers do, a case is in a state that its parts agree with.
    #[test]
    fn the_parts_agree(picks in prop::collection::vec(0usize..6, 0..40)) {
        let mut case = new_case(id(1), subject(), CaseCause::Hold, "compliance-engine", Timestamp::from_micros(1));
        for pick in picks {
            let action = actions(Some(NOW.plus_seconds(7)))[pick].clone();
            if let Ok(Outcome::Executed(next)) = change(&case, None, &command(1, action)) {
                case = next.case;
            }
            let closed = case.state == CaseState::Closed;
            prop_assert_eq!(case.outcome.is_some(), closed);
            prop_assert_eq!(case.closed_at.is_some(), closed);
            prop_assert!(case.state == CaseState::Open || case.assignee.is_some());
            prop_assert_eq!(CaseState::from_word(case.state.as_str()), Some(case.state));
        }
    }
}
