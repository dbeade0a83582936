//! Tests of holds: every transition, every refusal.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn hold(state: HoldState) -> Hold {
    let proposed = state != HoldState::Placed;
    let decided = state.is_under_way() || state.is_final();
    Hold {
        hold_id: HoldId::new(Uuid::from_u128(1)),
        transaction_id: TransactionId::new(Uuid::from_u128(2)),
        payer: None,
        state,
        evidence: "exact_name".into(),
        matched_name: "X".into(),
        proposed_by: proposed.then(|| "ada".into()),
        decided_by: decided.then(|| "bob".into()),
        reason: "why".into(),
        placed_at: Timestamp::from_micros(0),
        screened_at: Timestamp::from_micros(0),
        outcome: None,
    }
}

#[test]
fn a_proposal_needs_a_placed_hold() {
    for state in HoldState::ALL {
        for release in [true, false] {
            let result = propose(&hold(state), "cyd", release, "known customer");
            if state == HoldState::Placed {
                let Ok(Outcome::Executed(next)) = result else { panic!("{result:?}") };
                let expected = if release { HoldState::ReleaseProposed } else { HoldState::RejectProposed };
                assert_eq!((next.state, next.proposed_by.as_deref()), (expected, Some("cyd")));
                assert_eq!(next.reason, "known customer");
            } else {
                assert!(matches!(result, Err(HoldError::WrongState { state: s, .. }) if s == state), "{state:?}");
            }
        }
    }
}

#[test]
fn the_same_proposal_again_is_not_a_second_one() {
    let first = hold(HoldState::ReleaseProposed);
    assert!(matches!(propose(&first, "ada", true, "why"), Ok(Outcome::AlreadyApplied(_))));
    for (by, release, reason) in [("bob", true, "why"), ("ada", false, "why"), ("ada", true, "other")] {
        assert!(matches!(propose(&first, by, release, reason), Err(HoldError::WrongState { .. })));
    }
}

#[test]
fn another_officer_decides() {
    for (state, approve, next_state) in [
        (HoldState::ReleaseProposed, true, HoldState::Releasing),
        (HoldState::RejectProposed, true, HoldState::Rejecting),
        (HoldState::ReleaseProposed, false, HoldState::Placed),
        (HoldState::RejectProposed, false, HoldState::Placed),
    ] {
        let Ok(Outcome::Executed(next)) = decide(&hold(state), "bob", approve, "") else { panic!("{state:?}") };
        assert_eq!((next.state, next.decided_by.as_deref(), next.reason.as_str()), (next_state, Some("bob"), "why"));
        assert_eq!(next.proposed_by.is_some(), approve);
    }
    for state in [HoldState::Placed, HoldState::Released, HoldState::Rejected, HoldState::Releasing] {
        assert!(matches!(decide(&hold(state), "cyd", true, ""), Err(HoldError::WrongState { .. })), "{state:?}");
    }
}

/// K4: four eyes.
#[test]
fn the_proposer_does_not_decide() {
    for state in [HoldState::ReleaseProposed, HoldState::RejectProposed] {
        for (by, approve) in [("ada", true), ("ada", false), ("ADA", true)] {
            let error = decide(&hold(state), by, approve, "").unwrap_err();
            assert!(matches!(error, HoldError::SameOfficer { .. }));
            assert!(error.to_string().contains("ada") && error.to_string().contains(by));
        }
    }
}

#[test]
fn a_decision_again_is_not_a_second_one() {
    for state in [HoldState::Releasing, HoldState::Rejecting, HoldState::Released, HoldState::Rejected] {
        assert!(matches!(decide(&hold(state), "bob", true, ""), Ok(Outcome::AlreadyApplied(_))));
        assert!(matches!(decide(&hold(state), "bob", false, ""), Err(HoldError::WrongState { .. })));
    }
}

/// K5: the state at the end is what the ledger says.
#[test]
fn the_ledger_has_the_last_word() {
    use HoldState::{Rejected, Rejecting, Released, Releasing};
    let late = Timestamp::from_micros(ARRIVAL_MICROS);
    let early = Timestamp::from_micros(ARRIVAL_MICROS - 1);
    let cap = || Ledger::Rejected("cap".into());
    for (from, ledger, now, end) in [
        (Releasing, Ledger::WentOn("COMMITTED"), early, Some((Released, "COMMITTED", "why", false))),
        (Releasing, Ledger::WentOn("RESERVED"), early, Some((Released, "RESERVED", "why", false))),
        (Releasing, cap(), early, Some((Rejected, "REJECTED", "why; the ledger rejected it: cap", true))),
        (Releasing, Ledger::NotFound, early, None),
        (
            Releasing,
            Ledger::NotFound,
            late,
            Some((Rejected, NOT_FOUND, "why; the ledger has no such transaction", true)),
        ),
        (Releasing, Ledger::Held, late, None),
        (Rejecting, cap(), early, Some((Rejected, "REJECTED", "why", false))),
        (Rejecting, Ledger::NotFound, early, None),
        (
            Rejecting,
            Ledger::NotFound,
            late,
            Some((Rejected, NOT_FOUND, "why; the ledger has no such transaction", false)),
        ),
        (
            Rejecting,
            Ledger::WentOn("COMMITTED"),
            early,
            Some((Released, "COMMITTED", "why; the ledger did not hold it: it is COMMITTED", true)),
        ),
        (Rejecting, Ledger::Held, late, None),
    ] {
        let found = finish(&hold(from), &ledger, now);
        let found = found
            .as_ref()
            .map(|f| (f.hold.state, f.hold.outcome.as_deref().unwrap(), f.hold.reason.as_str(), f.surprise));
        assert_eq!(found, end, "{from:?} {ledger:?}");
    }
    for state in HoldState::ALL.into_iter().filter(|s| !s.is_under_way()) {
        assert_eq!(finish(&hold(state), &Ledger::WentOn("COMMITTED"), late), None);
    }
}

#[test]
fn words_read_back() {
    for state in HoldState::ALL {
        assert_eq!(HoldState::from_word(state.as_str()), Some(state));
    }
    assert_eq!(HoldState::from_word("OPEN"), None);
}

proptest! {
    /// K4 along every path: a hold under way or ended was proposed and decided by two different users.
    #[test]
    fn two_officers_always(steps in prop::collection::vec((0..3usize, any::<bool>(), any::<bool>(), any::<bool>()), 0..30)) {
        let users = ["ada", "bob", "cyd"];
        let mut now = hold(HoldState::Placed);
        for (user, is_proposal, flag, ends) in steps {
            let result = if is_proposal { propose(&now, users[user], flag, "r") } else { decide(&now, users[user], flag, "") };
            if let Ok(outcome) = result {
                now = outcome.into_inner();
            }
            if ends && let Some(finished) = finish(&now, &Ledger::WentOn("COMMITTED"), Timestamp::from_micros(1)) {
                now = finished.hold;
            }
            if now.state.is_under_way() || now.state.is_final() {
                prop_assert!(now.proposed_by.is_some() && now.decided_by.is_some());
                prop_assert_ne!(&now.proposed_by, &now.decided_by);
            }
        }
    }
}
