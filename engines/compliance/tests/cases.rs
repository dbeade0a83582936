//! Cases and rules on a real Postgres: every statement, idempotence, one open case per subject.
#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

mod desk;

use deltran_compliance::domain::case::{Action, Case, CaseError, CaseState, Subject};
use deltran_compliance::domain::rule::{Draft, MOST_RULES, RuleError};
use deltran_compliance::domain::screening::Party;
use deltran_compliance::handle::{CaseFailure, RuleFailure, Subject as Held};
use deltran_compliance::store::{self, CaseFilter};
use deltran_events::data::compliance::{CaseCause, CaseOutcome, RuleKind, RuleMode, RuleScope};
use deltran_kernel::{CaseId, HoldId};
use deltran_runtime::wire::PageOf;
use deltran_runtime::{Failure, FailureKind};

use desk::{NOON, Place, bank, by, command, money, transaction};

fn opening() -> Action {
    Action::Open { reason: "a tip".into(), due_at: Some(NOON.plus_seconds(3600)) }
}

fn about(n: usize) -> Subject {
    Subject::Participant(bank(n))
}

fn page<K>(after: Option<K>) -> PageOf<K> {
    PageOf { size: 100, after }
}

#[tokio::test]
async fn a_case_from_its_beginning_to_its_end_and_again() {
    let mut place = Place::new().await;
    let desk = place.desk.clone();
    let (ada, bob) = (by("ada"), by("bob"));
    let opened = desk.open_case(command(), about(0), opening(), &ada).await.unwrap();
    assert_eq!((opened.state, opened.due_at), (CaseState::Open, Some(NOON.plus_seconds(3600))));
    let id = opened.case_id;

    let refused = desk.open_case(command(), about(0), opening(), &bob).await.unwrap_err();
    assert!(matches!(refused, CaseFailure::Case(CaseError::AlreadyOpen { case_id, .. }) if case_id == id));
    let failure = Failure::from(refused);
    assert_eq!((failure.kind, failure.details["case_id"].as_str()), (FailureKind::WrongState, &*id.to_string()));

    let close = Action::Close { outcome: CaseOutcome::Confirmed, reason: "reported".into() };
    let refused = desk.change_case(command(), id, close.clone(), &ada).await.unwrap_err();
    assert!(matches!(refused, CaseFailure::Case(CaseError::WrongState { state: CaseState::Open, .. })));

    let due_at = Some(NOON.plus_seconds(7200));
    let steps = [
        Action::Assign { assignee: "bob".into(), due_at },
        Action::Note { text: "asked the bank".into() },
        Action::Escalate { to: "grace".into(), reason: "large".into() },
        close,
        Action::Reopen { reason: "news".into(), due_at: None },
        Action::Close { outcome: CaseOutcome::Valuable, reason: "noted".into() },
    ];
    let mut case = opened;
    for action in &steps {
        let id = command();
        case = desk.change_case(id, case.case_id, action.clone(), &bob).await.unwrap();
        // Again, later, under the same id: the same answer and no second step; with another body a refusal.
        place.clock.advance_micros(10_000_000_000);
        assert_eq!(desk.change_case(id, case.case_id, action.clone(), &bob).await.unwrap(), case);
        let other = desk.change_case(id, case.case_id, action.clone(), &ada).await.unwrap_err();
        assert_eq!(Failure::from(other).kind, FailureKind::Conflict);
        place.clock.advance_micros(-10_000_000_000);
    }
    assert_eq!((case.state, case.outcome), (CaseState::Closed, Some(CaseOutcome::Valuable)));
    assert_eq!((case.assignee.as_deref(), case.escalated_to.as_deref()), (Some("bob"), Some("grace")));
    let db = &place.context.db;
    assert_eq!(store::find_case(db.pool(), id).await.unwrap(), Some(case));

    let all = store::list_steps(db, id, &page(None)).await.unwrap();
    let actions: Vec<Action> = all.iter().map(|step| step.action.clone()).collect();
    assert_eq!(actions[0], opening());
    assert_eq!(actions[1..], steps);
    let rest = store::list_steps(db, id, &page(Some(all[4].number))).await.unwrap();
    assert_eq!(rest, all[5..]);

    let words: Vec<String> = place
        .published("case.")
        .await
        .iter()
        .map(|event| {
            let data = &event["data"];
            assert_eq!((&data["case_id"], &data["participant"]), (&id.to_string().into(), &"ALFAAEXX".into()));
            assert!(data.get("transaction_id").is_none());
            format!("{} {}{}", event["event_type"], data["cause"], data["outcome"])
                .replace(['"'], "")
                .replace("null", "")
        })
        .collect();
    let expected = ["opened officer", "escalated ", "closed confirmed", "opened reopened", "closed valuable"];
    assert_eq!(words, expected.map(|word| format!("case.{word}")));

    // Steps stay, for the engine and for whoever owns the table.
    for statement in ["UPDATE case_step SET written = ''", "DELETE FROM case_step", "TRUNCATE case_step"] {
        assert!(place.by_engine(statement).await.unwrap_err().contains("permission denied"), "{statement}");
        let refused = sqlx::raw_sql(statement).execute(&mut place.root).await.unwrap_err().to_string();
        assert!(refused.contains("append-only"), "{statement}: {refused}");
    }
    place.end().await;
}

#[tokio::test]
async fn a_case_that_goes_on_beside_another_one_is_refused() {
    let place = Place::new().await;
    let (desk, ada) = (place.desk.clone(), by("ada"));
    let assign = |to: &str| Action::Assign { assignee: to.into(), due_at: None };
    let close = Action::Close { outcome: CaseOutcome::FalsePositive, reason: "nothing".into() };
    let first = desk.open_case(command(), about(1), opening(), &ada).await.unwrap().case_id;
    desk.change_case(command(), first, assign("ada"), &ada).await.unwrap();
    desk.change_case(command(), first, close, &ada).await.unwrap();
    let second = desk.open_case(command(), about(1), opening(), &ada).await.unwrap().case_id;
    let reopen = Action::Reopen { reason: "news".into(), due_at: None };
    let refused = desk.change_case(command(), first, reopen, &ada).await.unwrap_err();
    assert!(matches!(refused, CaseFailure::Case(CaseError::AlreadyOpen { case_id, .. }) if case_id == second));
    let unknown = CaseId::new(transaction(7).uuid());
    let refused = desk.change_case(command(), unknown, assign("bob"), &ada).await.unwrap_err();
    assert_eq!(Failure::from(refused).kind, FailureKind::NotFound);
    // A command's id belongs to one case.
    let id = command();
    desk.change_case(id, second, assign("bob"), &ada).await.unwrap();
    let other = desk.open_case(command(), about(2), opening(), &ada).await.unwrap().case_id;
    for refused in [
        desk.change_case(id, other, assign("bob"), &ada).await.unwrap_err(),
        desk.open_case(id, about(3), opening(), &ada).await.unwrap_err(),
    ] {
        assert_eq!(Failure::from(refused).kind, FailureKind::Conflict);
    }
    let late = Action::Assign { assignee: "bob".into(), due_at: Some(NOON) };
    let failure = Failure::from(desk.change_case(command(), other, late, &ada).await.unwrap_err());
    assert_eq!((failure.kind, failure.details["field"].as_str()), (FailureKind::Malformed, "due_at"));
    place.end().await;
}

/// K8: however many open a case of one subject at once, one is opened; the same command at once is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_open_case_per_subject_under_concurrency() {
    let mut place = Place::new().await;
    for round in 0..10u64 {
        let subject = Subject::Transaction(transaction(round));
        let same = command();
        let tasks: Vec<_> = (0..12)
            .map(|n| {
                let (desk, id) = (place.desk.clone(), if n % 3 == 0 { same } else { command() });
                let user = if n % 3 == 0 { by("ada") } else { by(&format!("user{n}")) };
                tokio::spawn(async move { (n, desk.open_case(id, subject, opening(), &user).await) })
            })
            .collect();
        let mut opened: Vec<(u32, Case)> = Vec::new();
        for task in tasks {
            match task.await.unwrap() {
                (n, Ok(case)) => opened.push((n, case)),
                (_, Err(CaseFailure::Case(CaseError::AlreadyOpen { .. }))) => {}
                (_, Err(other)) => panic!("{other}"),
            }
        }
        let same_command = opened.iter().all(|(n, _)| n % 3 == 0);
        assert!(opened.len() == 1 || (same_command && opened.len() == 4), "{opened:?}");
        assert!(opened.iter().all(|(_, case)| case.case_id == opened[0].1.case_id));
    }
    assert_eq!(place.count("case_file").await, 10);
    assert_eq!(place.count("case_step").await, 10);
    assert_eq!(place.published("case.opened").await.len(), 10);
    // What a program could not do by mistake either.
    let twice = "INSERT INTO case_file (case_id, subject_kind, subject, state, cause, opened_at, opened_by)
                 SELECT gen_random_uuid(), subject_kind, subject, 'OPEN', 'officer', 0, 'x' FROM case_file LIMIT 1";
    assert!(place.by_engine(twice).await.unwrap_err().contains("case_file_open"));
    place.end().await;
}

/// A transaction that is held has a case of its own, or joins the open one.
#[tokio::test]
async fn a_hold_opens_a_case_of_its_transaction() {
    let mut place = Place::new().await;
    let desk = place.desk.clone();
    let held = |n| Held {
        transaction_id: transaction(n),
        payer: Some(bank(0)),
        parties: [Party { name: "Ada Lovelace".into(), ..Party::default() }, Party::default()],
    };
    let reason = Action::Open { reason: "seen before".into(), due_at: None };
    let open = desk.open_case(command(), Subject::Transaction(transaction(2)), reason, &by("ada")).await.unwrap();
    // No list is loaded: all are held. Screened again, nobody is held twice.
    for _ in 0..2 {
        desk.screen(&[held(1), held(2), held(3)], &by("token-engine")).await.unwrap();
    }
    assert_eq!(place.count("case_file").await, 3);
    let db = &place.context.db;
    let cases = store::list_cases(db, &page(None), &CaseFilter::default()).await.unwrap();
    for n in 1..=3 {
        let case = cases.iter().find(|case| case.subject == Subject::Transaction(transaction(n))).unwrap();
        let hold: uuid::Uuid = sqlx::query_scalar("SELECT hold_id FROM hold WHERE transaction_id = $1")
            .bind(transaction(n).uuid())
            .fetch_one(&mut place.root)
            .await
            .unwrap();
        let steps = store::list_steps(db, case.case_id, &page(None)).await.unwrap();
        let actions: Vec<&str> = steps.iter().map(|step| step.action.as_str()).collect();
        assert_eq!(actions, ["OPENED", "HOLD"]);
        assert_eq!(steps[1].action, Action::Hold(HoldId::new(hold)));
        let cause = if n == 2 { CaseCause::Officer } else { CaseCause::Hold };
        assert_eq!((case.cause, case.case_id == open.case_id), (cause, n == 2));
    }
    let opened = place.published("case.opened").await;
    assert_eq!(opened.len(), 3);
    assert_eq!(opened[1]["data"]["transaction_id"], transaction(1).to_string());
    assert!(opened.iter().all(|event| !event.to_string().contains("Ada")));
    place.end().await;
}

#[tokio::test]
async fn lists_are_paged_and_filtered() {
    let place = Place::new().await;
    let (desk, ada) = (place.desk.clone(), by("ada"));
    let mut ids = Vec::new();
    for n in 0..7 {
        place.clock.advance_micros(1_000_000);
        let case = desk.open_case(command(), Subject::Transaction(transaction(n)), opening(), &ada).await.unwrap();
        ids.push(case.case_id);
    }
    let bobs = Action::Assign { assignee: "bob".into(), due_at: None };
    desk.change_case(command(), ids[3], bobs, &ada).await.unwrap();
    let db = &place.context.db;
    let list = async |size, after, filter: CaseFilter| -> Vec<CaseId> {
        let cases = store::list_cases(db, &PageOf { size, after }, &filter).await.unwrap();
        cases.into_iter().map(|case| case.case_id).collect()
    };
    assert_eq!(list(3, None, CaseFilter::default()).await, ids[..3]);
    assert_eq!(list(100, Some(ids[2]), CaseFilter::default()).await, ids[3..]);
    let of = |state| CaseFilter { state: Some(state), ..CaseFilter::default() };
    assert_eq!(list(100, None, of(CaseState::Investigating)).await, [ids[3]]);
    assert_eq!(list(100, None, of(CaseState::Open)).await.len(), 6);
    assert_eq!(list(100, None, CaseFilter { assignee: Some("bob".into()), ..CaseFilter::default() }).await, [ids[3]]);
    let subject = Some(Subject::Transaction(transaction(5)));
    assert_eq!(list(100, None, CaseFilter { subject, ..CaseFilter::default() }).await, [ids[5]]);
    assert!(list(100, None, CaseFilter { subject: Some(about(0)), ..CaseFilter::default() }).await.is_empty());
    place.end().await;
}

fn draft(name: &str, max_count: u64) -> Draft {
    Draft {
        name: name.into(),
        kind: RuleKind::Velocity,
        mode: RuleMode::Shadow,
        scope: Some(RuleScope::Pair),
        window_seconds: 600,
        max_count,
        min_count: 0,
        band: 0,
        amounts: vec![money("123.45", "USD"), money("999", "JPY")],
    }
}

#[tokio::test]
async fn rules_are_versions_that_stay() {
    let mut place = Place::new().await;
    let (desk, ada) = (place.desk.clone(), by("ada"));
    let shipped = store::list_rules(&place.context.db, None, 100, None, false).await.unwrap();
    let names: Vec<&str> = shipped.iter().map(|listed| listed.rule.definition.name.as_str()).collect();
    assert_eq!(names, ["structuring", "velocity"]);
    assert!(
        shipped.iter().all(|listed| listed.current && listed.rule.version == 1 && listed.rule.command_id.is_none())
    );

    let id = command();
    let first = desk.set_rule(id, draft("burst", 10), &ada).await.unwrap();
    assert_eq!(
        (first.rule.version, first.current, first.rule.definition.draft()),
        (1, true, {
            let mut sorted = draft("burst", 10);
            sorted.amounts.reverse();
            sorted
        })
    );
    let second = desk.set_rule(command(), draft("burst", 11), &ada).await.unwrap();
    assert_eq!((second.rule.version, second.current), (2, true));
    // The first command again: its answer, no longer in use.
    let again = desk.set_rule(id, draft("burst", 10), &ada).await.unwrap();
    assert_eq!((again.rule, again.current), (first.rule, false));
    let conflict = desk.set_rule(id, draft("burst", 12), &ada).await.unwrap_err();
    assert!(matches!(conflict, RuleFailure::Rule(RuleError::Conflict(_))));
    assert_eq!(Failure::from(conflict).kind, FailureKind::Conflict);
    let bad = desk.set_rule(command(), Draft { window_seconds: 61, ..draft("burst", 1) }, &ada).await.unwrap_err();
    assert_eq!(Failure::from(bad).details["field"], "window_seconds");

    let db = &place.context.db;
    let list = async |after, size, name, history| -> Vec<(String, u32, bool)> {
        let rules = store::list_rules(db, after, size, name, history).await.unwrap();
        rules.into_iter().map(|r| (r.rule.definition.name.clone(), r.rule.version, r.current)).collect()
    };
    let row = |name: &str, version, current| (name.to_owned(), version, current);
    let all = [row("burst", 1, false), row("burst", 2, true), row("structuring", 1, true), row("velocity", 1, true)];
    assert_eq!(list(None, 100, None, true).await, all);
    assert_eq!(list(Some(("burst", 1)), 2, None, true).await, all[1..3]);
    assert_eq!(list(None, 100, None, false).await, all[1..]);
    assert_eq!(list(None, 100, Some("burst"), true).await, all[..2]);

    let events = place.published("rule.changed").await;
    assert_eq!(events.len(), 2);
    let data = &events[0]["data"];
    assert_eq!((&data["rule"], &data["rule_version"], &data["mode"]), (&"burst".into(), &1.into(), &"SHADOW".into()));
    assert_eq!(
        (&data["scope"], &data["window_seconds"], &data["max_count"]),
        (&"PAIR".into(), &600.into(), &10.into())
    );
    assert_eq!(data["amounts"][1], serde_json::json!({"amount": "123.45", "currency": "USD"}));

    for n in 3..MOST_RULES {
        desk.set_rule(command(), draft(&format!("r{n}"), 1), &ada).await.unwrap();
    }
    let full = desk.set_rule(command(), draft("one-more", 1), &ada).await.unwrap_err();
    assert_eq!(Failure::from(full).details["field"], "rule");
    desk.set_rule(command(), draft("burst", 13), &ada).await.unwrap();
    for statement in ["UPDATE rule_version SET max_count = 1", "DELETE FROM rule_version", "DELETE FROM rule_alert"] {
        assert!(place.by_engine(statement).await.unwrap_err().contains("permission denied"), "{statement}");
    }
    place.end().await;
}
