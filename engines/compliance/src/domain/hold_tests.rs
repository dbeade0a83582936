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
        if let Some(Finished { told, .. }) = &found {
            assert!(!told.is_empty() && !told.contains("why"), "what officers wrote is told to nobody: {told}");
        }
        let found = found
            .as_ref()
            .map(|f| (f.hold.state, f.hold.outcome.as_deref().unwrap(), f.hold.reason.as_str(), f.surprise));
        assert_eq!(found, end, "{from:?} {ledger:?}");
    }
    for state in HoldState::ALL.into_iter().filter(|s| !s.is_under_way()) {
        assert_eq!(finish(&hold(state), &Ledger::WentOn("COMMITTED"), late), None);
    }
}

/// Other parties under the same id hide nothing, and nobody approves a release that was proposed on less.
#[test]
fn evidence_only_grows() {
    let basis = |score: u32| Basis {
        score,
        list_versions: vec![format!("list {score}")],
        rule_version: "r".into(),
        matches: format!("[{score}]"),
    };
    let of = |name: &str, evidence: &str| Hold {
        matched_name: name.into(),
        evidence: evidence.into(),
        ..hold(HoldState::Placed)
    };
    let known = Hold { matched_name: "Ada; Bob".into(), ..hold(HoldState::Placed) };
    let again = |state, name: &str, score| {
        let known = Hold { state, ..known.clone() };
        screened_again((&known, &basis(9_000)), (&of(name, "similar_name"), &basis(score)))
            .map(|(hold, basis)| (hold.state, hold.matched_name, hold.evidence, basis.score, basis.matches))
    };
    use HoldState::{Placed, RejectProposed, ReleaseProposed};
    let seen = |state, names: &str, evidence: &str, score: u32| {
        Some((state, names.to_owned(), evidence.to_owned(), score, format!("[{score}]")))
    };
    for (state, name, score, expected) in [
        (Placed, "Ada; Bob", 9_000, None),
        (Placed, "Bob", 8_000, None),
        (Placed, "Bo", 8_000, seen(Placed, "Ada; Bob; Bo", "exact_name", 9_000)),
        (Placed, "Eve", 8_000, seen(Placed, "Ada; Bob; Eve", "exact_name", 9_000)),
        (Placed, "Ada", 9_001, seen(Placed, "Ada; Bob", "similar_name", 9_001)),
        (ReleaseProposed, "Ada; Bob", 9_000, None),
        (ReleaseProposed, "Eve", 8_000, seen(Placed, "Ada; Bob; Eve", "exact_name", 9_000)),
        (ReleaseProposed, "Ada", 9_500, seen(Placed, "Ada; Bob", "similar_name", 9_500)),
        (RejectProposed, "Eve", 9_500, seen(RejectProposed, "Ada; Bob; Eve", "similar_name", 9_500)),
    ] {
        assert_eq!(again(state, name, score), expected, "{state:?} {name} {score}");
    }
    for state in HoldState::ALL.into_iter().filter(|s| s.is_under_way() || s.is_final()) {
        assert_eq!(again(state, "Eve", 10_000), None, "{state:?}");
    }
    let mut long = of("Ada", "error");
    for n in 0..1_000 {
        if let Some((next, _)) = screened_again((&long, &basis(0)), (&of(&format!("Name {n}"), "error"), &basis(0))) {
            long = next;
        }
    }
    assert!((2_000..2_050).contains(&long.matched_name.len()) && long.matched_name.starts_with("Ada; Name 0;"));
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
