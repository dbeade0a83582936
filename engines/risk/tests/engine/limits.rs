//! Limits of every kind: agreed by two, in force from their time on, in every process.

use deltran_events::data::risk::LimitKind;
use deltran_kernel::Timestamp;
use deltran_risk::domain::assess::{Stop, Subject, Verdict};
use deltran_risk::domain::limit::{End, LimitState, Proposal, Rate, Value};
use deltran_risk::store::{self, LimitFilter, StepFilter};
use deltran_runtime::FailureKind;
use deltran_runtime::wire::PageOf;

use super::support::*;

fn every_kind() -> [Proposal; 6] {
    let corridor = Some("AE-IN".parse().unwrap());
    [
        Proposal { participant: Some(bank("ALFAAEXX")), ..proposal(1, LimitKind::NetDebitCap, "5.00") },
        proposal(2, LimitKind::SingleTransactionMaximum, "5.00"),
        bilateral(3, "5.00"),
        Proposal { corridor, ..proposal(4, LimitKind::CorridorMaximum, "5.00") },
        Proposal { corridor, ..proposal(5, LimitKind::CorridorGross, "5.00") },
        Proposal {
            value: Value::Rate(Rate { transactions: 5, window_seconds: 60 }),
            ..proposal(6, LimitKind::Rate, "0.00")
        },
    ]
}

#[tokio::test]
async fn every_kind_is_stored_as_it_was_proposed_and_takes_two() {
    let mut place = Place::new().await;
    let process = place.process().await;
    let at = Timestamp::from_micros(NOON + 60_000_000);
    for proposal in every_kind() {
        let proposal = Proposal { effective_from: Some(at), ..proposal };
        process.desk.propose(&proposal, &by("ada")).await.unwrap();
        let stored = store::find_limit(process.db(), proposal.limit_id).await.unwrap().unwrap();
        assert_eq!((stored.proposal, stored.state), (proposal.clone(), LimitState::Proposed));
        for same in ["ada", "Ada", "ADA"] {
            let refused = process.desk.approve(proposal.limit_id, &by(same)).await.unwrap_err();
            assert_eq!((refused.kind, refused.details["proposed_by"].as_str()), (FailureKind::Unauthorised, "ada"));
        }
        let approved = process.desk.approve(proposal.limit_id, &by("bob")).await.unwrap();
        assert_eq!((approved.state, approved.due_at), (LimitState::Approved, Some(at)));
        // An approval again is the same, another user's is not.
        assert_eq!(process.desk.approve(proposal.limit_id, &by("bob")).await.unwrap(), approved);
        let late = process.desk.approve(proposal.limit_id, &by("cyd")).await.unwrap_err();
        assert_eq!((late.kind, late.details["state"].as_str()), (FailureKind::WrongState, "APPROVED"));
    }
    let of_rate = LimitFilter { kind: Some(LimitKind::Rate), ..LimitFilter::default() };
    let of_usd = LimitFilter { currency: Some(usd()), state: Some(LimitState::Approved), ..LimitFilter::default() };
    for (filter, count) in [(of_rate, 1), (of_usd, 5), (LimitFilter::default(), 6)] {
        let page = PageOf { size: 100, after: None };
        assert_eq!(store::list_limits(process.db(), &page, &filter).await.unwrap().len(), count);
    }
    // Whatever a program does, the table wants four eyes.
    let one = "UPDATE limits SET state = 'APPROVED', due_at = 1, approved_by = upper(proposed_by)";
    let refused = sqlx::raw_sql(one).execute(&mut place.root).await.unwrap_err().to_string();
    assert!(refused.contains("limits_check"), "{refused}");
    let types = place.types().await;
    assert_eq!(types.iter().filter(|t| *t == "limit.proposed").count(), 5);
    assert_eq!(types.iter().filter(|t| *t == "rate_limit.proposed").count(), 1);
}

/// A limit with a time takes effect then, in every process, whether or not one has read anything since.
#[tokio::test]
async fn a_limit_takes_effect_at_its_time_in_every_process() {
    let mut place = Place::new().await;
    let (one, other) = (place.process().await, place.process().await);
    let at = Timestamp::from_micros(NOON + 60_000_000);
    let maximum = |n, amount| proposal(n, LimitKind::SingleTransactionMaximum, amount);
    one.agree(maximum(1, "100.00")).await;
    let waits = one.agree(Proposal { effective_from: Some(at), ..maximum(2, "10.00") }).await;
    assert_eq!(waits.state, LimitState::Approved);
    other.desk.gate.reload().await.unwrap();
    let pays = |n| subject(n, "ALFAAEXX", "BRAVINXX", "50.00");
    place.clock.advance_micros(59_999_999);
    assert!(one.passes(&pays(1)).await && other.passes(&pays(2)).await);
    place.clock.advance_micros(1);
    for process in [&one, &other] {
        assert!(!process.passes(&pays(3)).await);
    }
    // The driver writes it down, under its own time, and nothing changes by that.
    place.wait(5);
    let activate = async |process: &Process| {
        let tx = process.desk.door.begin("test").await.unwrap();
        process.desk.activate(tx, place.now()).await.unwrap();
        process.desk.gate.reload().await.unwrap();
    };
    activate(&other).await;
    activate(&one).await;
    assert!(!one.passes(&pays(4)).await && !other.passes(&pays(5)).await);
    let found = |n| store::find_limit(one.db(), command(n));
    let (before, now) = (found(1).await.unwrap().unwrap(), found(2).await.unwrap().unwrap());
    assert_eq!((before.state, now.state), (LimitState::Superseded, LimitState::Active));
    assert_eq!(now.effective_at, Some(at));
    let changed: Vec<_> = place.published().await.into_iter().filter(|(t, _)| t == "limit.changed").collect();
    assert_eq!(changed.len(), 2, "each is in force once");
    assert_eq!(changed[1].1["effective_at"], "2025-11-06T12:01:00.000000Z");
    assert_eq!(changed[1].1["approved_by"], "bob");
}

/// One that was approved later and is in force at once comes first; the earlier one takes its place when its
/// time comes.
#[tokio::test]
async fn due_limits_come_before_what_is_approved_after_their_time() {
    let place = Place::new().await;
    let process = place.process().await;
    let at = Timestamp::from_micros(NOON + 60_000_000);
    let maximum = |n, amount| proposal(n, LimitKind::SingleTransactionMaximum, amount);
    process.agree(Proposal { effective_from: Some(at), ..maximum(1, "10.00") }).await;
    place.wait(61);
    // The driver has not run yet.
    process.agree(maximum(2, "20.00")).await;
    let found = |n| store::find_limit(process.db(), command(n));
    assert_eq!(found(1).await.unwrap().unwrap().state, LimitState::Superseded);
    assert_eq!(found(2).await.unwrap().unwrap().state, LimitState::Active);
    assert!(process.passes(&subject(1, "ALFAAEXX", "BRAVINXX", "20.00")).await);
    assert!(!process.passes(&subject(2, "ALFAAEXX", "BRAVINXX", "20.01")).await);
}

#[tokio::test]
async fn proposals_end_by_those_who_may_end_them() {
    let mut place = Place::new().await;
    let process = place.process().await;
    let [cap, maximum, ..] = every_kind();
    for (proposal, how, wrong, right) in [(cap, End::Reject, "ADA", "bob"), (maximum, End::Withdraw, "bob", "Ada")] {
        process.desk.propose(&proposal, &by("ada")).await.unwrap();
        let id = proposal.limit_id;
        assert!(process.desk.end(id, how, "no", &by(wrong)).await.is_err());
        let ended = process.desk.end(id, how, "no", &by(right)).await.unwrap().into_inner();
        assert_eq!(process.desk.end(id, how, "no", &by(right)).await.unwrap().into_inner(), ended);
        assert_eq!(store::find_limit(process.db(), id).await.unwrap(), Some(ended));
        assert_eq!(process.desk.approve(id, &by("bob")).await.unwrap_err().kind, FailureKind::WrongState);
    }
    // One that waits for its time is taken back in every process.
    let at = Timestamp::from_micros(NOON + 60_000_000);
    let waits = Proposal { effective_from: Some(at), ..proposal(9, LimitKind::SingleTransactionMaximum, "1.00") };
    process.agree(waits).await;
    let other = place.process().await;
    process.desk.end(command(9), End::Withdraw, "no", &by("ada")).await.unwrap();
    other.desk.gate.reload().await.unwrap();
    place.wait(61);
    assert!(process.passes(&subject(1, "ALFAAEXX", "BRAVINXX", "5.00")).await);
    assert!(other.passes(&subject(1, "ALFAAEXX", "BRAVINXX", "5.00")).await);
    let filter = StepFilter { limit_id: Some(command(9)), ..StepFilter::default() };
    let steps = store::list_steps(process.db(), &PageOf { size: 10, after: None }, &filter).await.unwrap();
    let steps: Vec<_> = steps.iter().map(|s| (s.state.as_str(), s.by.as_str(), s.note.as_str())).collect();
    assert_eq!(steps, [("PROPOSED", "ada", "policy"), ("APPROVED", "bob", ""), ("WITHDRAWN", "ada", "no")]);
    let ends: Vec<_> =
        place.types().await.into_iter().filter(|t| t == "limit.rejected" || t == "limit.withdrawn").collect();
    assert_eq!(ends, ["limit.rejected", "limit.withdrawn", "limit.withdrawn"]);
}

/// A bilateral limit over a day: a burst, what comes back, a lowered limit, the way back, settlement, restart.
#[tokio::test]
async fn a_bilateral_limit_holds_over_a_day() {
    let place = Place::new().await;
    let mut process = place.process().await;
    let pays = |n, amount| subject(n, "ALFAAEXX", "BRAVINXX", amount);
    process.agree(bilateral(1, "100.00")).await;
    process.mark(0).await;
    let burst: Vec<Subject> = (1..=3).map(|n| pays(n, "60.00")).collect();
    let (_, verdicts) = process.desk.gate.admit(&turn(1, 0, 1), &burst).await.unwrap();
    let passed: Vec<bool> = verdicts.iter().map(|v| matches!(v, Verdict::Pass { .. })).collect();
    assert_eq!(passed, [true, false, false], "trap 1");
    process.consume(&[place.event(committed(&burst[0], 1))]).await.unwrap();
    assert!(process.passes(&pays(4, "40.00")).await);
    process.consume(&[place.event(committed(&pays(4, "40.00"), 1))]).await.unwrap();

    process.agree(bilateral(2, "30.00")).await;
    match process.admit(&pays(5, "0.01")).await {
        Verdict::Refused(Stop::Amount { kind: LimitKind::Bilateral, maximum, headroom, .. }) => {
            assert_eq!((maximum, headroom), (money("30.00"), money("0.00")));
        }
        other => panic!("{other:?}"),
    }
    let back = subject(6, "BRAVINXX", "ALFAAEXX", "80.00");
    assert!(process.passes(&back).await, "a lowered limit blocks new debits only");
    process.consume(&[place.event(committed(&back, 1))]).await.unwrap();
    assert!(process.passes(&pays(7, "10.00")).await && !process.passes(&pays(8, "0.01")).await);

    // A restart forgets what is under way and knows what was counted.
    process = place.process().await;
    process.mark(place.last()).await;
    assert!(process.passes(&pays(7, "10.00")).await && !process.passes(&pays(8, "0.01")).await);
    let events = [place.event(committed(&pays(7, "10.00"), 1)), place.event(sealed(1)), place.event(settled(1))];
    process.consume(&events).await.unwrap();
    assert!(process.passes(&pays(9, "30.00")).await, "what is settled is owed no more");
}
