//! Monitoring on a real Postgres: each crossing is told once, whatever is tried again, rolled back, taken over
//! or restarted.
#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

mod desk;

use std::collections::{BTreeMap, BTreeSet};

use deltran_compliance::consume::Watch;
use deltran_compliance::domain::alert::Alert;
use deltran_compliance::domain::case::{Action, CaseState, Subject};
use deltran_compliance::domain::monitor::{Applied, Head, Monitor};
use deltran_compliance::domain::rule::{Draft, Seen, Thread};
use deltran_compliance::store::{self, AlertFilter, CaseFilter};
use deltran_events::data::compliance::{CaseOutcome, RuleKind, RuleMode};
use deltran_kernel::{CaseId, Money, Timestamp, TransactionId};
use deltran_messaging::{ApplyError, Delivery, Handler, Outgoing};
use deltran_runtime::wire::PageOf;

use desk::{NOON, Place, bank, by, command, committed, money, transaction};

fn draft(name: &str, kind: RuleKind, mode: RuleMode, amounts: &[(&str, &str)]) -> Draft {
    let velocity = kind == RuleKind::Velocity;
    Draft {
        name: name.into(),
        kind,
        mode,
        scope: None,
        window_seconds: 60,
        max_count: if velocity { 6 } else { 0 },
        min_count: if velocity { 0 } else { 3 },
        band: if velocity { 0 } else { 1_000 },
        amounts: amounts.iter().map(|(text, code)| money(text, code)).collect(),
    }
}

/// How a batch ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Committed,
    /// The process dies, or loses the database, before COMMIT.
    RolledBack,
    /// COMMIT goes through and the process never hears of it.
    Unheard,
}

async fn apply(place: &Place, watch: &Watch, batch: &[Delivery], end: End) -> Result<Vec<Outgoing>, ApplyError> {
    let mut tx = place.context.db.begin().await?;
    let events = watch.apply(&mut tx, batch).await?;
    place.outbox.append(&mut tx, &events).await?;
    if end == End::RolledBack {
        return Ok(Vec::new());
    }
    tx.commit().await?;
    if end == End::Committed {
        watch.committed();
    }
    Ok(events)
}

async fn alerts(place: &Place, filter: &AlertFilter) -> Vec<Alert> {
    store::list_alerts(&place.context.db, &PageOf { size: 1000, after: None }, filter).await.unwrap()
}

/// A small generator of numbers, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

type Told = (String, Thread, Timestamp, u64, i128, TransactionId);

/// What a monitor in memory says about the same transactions, taken one by one.
fn reference(rules: Vec<Applied>, seen: &[Seen]) -> (Vec<Told>, Vec<Head>) {
    let mut monitor = Monitor::new(rules);
    let mut told = Vec::new();
    for seen in seen {
        for c in monitor.take(std::slice::from_ref(seen)).unwrap().crossed {
            let name = monitor.rules()[c.rule].rule.definition.name.clone();
            told.push((name, c.thread, c.to, c.sum.count, c.sum.amount.units(), c.transaction_id));
        }
    }
    (told, monitor.rules().iter().map(|applied| applied.head).collect())
}

#[tokio::test]
async fn each_crossing_is_told_once_over_crashes_restarts_and_takeovers() {
    for seed in 1..=6 {
        let mut place = Place::new().await;
        let ada = by("ada");
        for draft in [
            draft("velocity", RuleKind::Velocity, RuleMode::Active, &[("400.00", "USD"), ("300.00", "EUR")]),
            draft("structuring", RuleKind::Structuring, RuleMode::Active, &[("100.00", "USD")]),
            draft("burst", RuleKind::Velocity, RuleMode::Shadow, &[]),
        ] {
            place.desk.set_rule(command(), draft, &ada).await.unwrap();
        }
        let mut numbers = Numbers(seed);
        let mut watches = [Watch::new(place.desk.clone()), Watch::new(place.desk.clone())];
        let (mut seen, mut seconds, mut number, mut lead) = (Vec::new(), 0i64, 0u64, 0usize);
        for _ in 0..120 {
            let mut batch = Vec::new();
            for _ in 0..=numbers.below(12) {
                number += 1;
                let late = if numbers.below(8) == 0 { numbers.below(70) as i64 } else { 0 };
                seconds += (numbers.below(5) / 3) as i64 + if numbers.below(60) == 0 { 70 } else { 0 };
                let amount = if numbers.below(4) == 0 { 9_500 } else { numbers.below(9_000) + 1 };
                let amount = format!("{}.{:02}", amount / 100, amount % 100);
                let amount = money(&amount, if numbers.below(3) == 0 { "EUR" } else { "USD" });
                let (payer, payee) = (numbers.below(2) as usize, 2 + numbers.below(2) as usize);
                let at = NOON.plus_seconds(seconds - late).plus_micros(numbers.below(1_000_000) as i64);
                batch.push(committed(number, payer, payee, amount, at));
                seen.push(Seen {
                    transaction_id: transaction(number),
                    payer: bank(payer),
                    payee: bank(payee),
                    amount,
                    at,
                });
            }
            for _ in 0..numbers.below(3) {
                apply(&place, &watches[lead], &batch, End::RolledBack).await.unwrap();
                if numbers.below(2) == 0 {
                    // A batch of duplicates follows: nothing is applied, and the loop says that it is committed.
                    watches[lead].committed();
                }
                if numbers.below(2) == 0 {
                    lead = 1 - lead;
                }
            }
            let end = if numbers.below(5) == 0 { End::Unheard } else { End::Committed };
            apply(&place, &watches[lead], &batch, end).await.unwrap();
            match numbers.below(6) {
                0 => watches[lead] = Watch::new(place.desk.clone()),
                1 => lead = 1 - lead,
                _ => {}
            }
        }
        let mut tx = place.context.db.begin().await.unwrap();
        let applied = store::applied_rules(&mut tx).await.unwrap();
        drop(tx);
        let fresh = applied.iter().map(|a| Applied { rule: a.rule.clone(), head: Head::default() }).collect();
        let (mut expected, heads) = reference(fresh, &seen);
        assert_eq!(applied.iter().map(|a| a.head).collect::<Vec<_>>(), heads, "seed {seed}");
        assert!(heads.iter().any(|head| head.late > 0) && expected.len() > 20, "seed {seed}: {}", expected.len());

        let all = alerts(&place, &AlertFilter::default()).await;
        let told = |alert: &Alert| {
            let sum = alert.sum;
            (alert.rule.clone(), alert.thread, alert.to, sum.count, sum.amount.units(), alert.transaction_id)
        };
        let mut got: Vec<Told> = all.iter().map(told).collect();
        got.sort();
        expected.sort();
        assert_eq!(got, expected, "seed {seed}");

        // One event per alert that is none of a shadow run, and all of a payer's in its one case.
        let raised = place.published("alert.raised").await;
        let ids: BTreeSet<String> =
            raised.iter().map(|event| event["data"]["alert_id"].as_str().unwrap().to_owned()).collect();
        let shown: BTreeSet<String> = all.iter().filter(|a| !a.shadow).map(|a| a.alert_id.to_string()).collect();
        assert_eq!((raised.len(), &ids), (shown.len(), &shown));
        assert!(all.iter().all(|alert| alert.shadow == (alert.rule == "burst")));
        assert!(all.iter().all(|alert| alert.shadow == alert.case_id.is_none()));
        assert!(all.iter().any(|alert| alert.shadow));
        let (page, every) = (PageOf { size: 100, after: None }, CaseFilter::default());
        let cases = store::list_cases(&place.context.db, &page, &every).await.unwrap();
        let cases: BTreeMap<Subject, _> = cases.into_iter().map(|case| (case.subject, case.case_id)).collect();
        assert_eq!(cases.len(), 2);
        for alert in all.iter().filter(|alert| !alert.shadow) {
            assert_eq!(alert.case_id, cases.get(&Subject::Participant(alert.thread.payer)).copied());
        }
        assert_eq!(place.published("case.opened").await.len(), 2);
        // Rows are bounded, and old ones are gone.
        let most: i64 = sqlx::query_scalar(
            "SELECT max(n) FROM (SELECT count(*) AS n FROM rule_bucket GROUP BY rule, payer, payee, currency) AS t",
        )
        .fetch_one(&mut place.root)
        .await
        .unwrap();
        assert!(most <= 122, "{most}");
        let oldest: i64 =
            sqlx::query_scalar("SELECT min(bucket) FROM rule_bucket").fetch_one(&mut place.root).await.unwrap();
        assert!(heads.iter().all(|head| head.latest.unwrap() - oldest <= 140), "{oldest} {heads:?}");
        place.end().await;
    }
}

fn three(first: u64, from: i64) -> Vec<Delivery> {
    (0..3).map(|n| committed(first + n, 0, 2, money("99.00", "USD"), NOON.plus_seconds(from))).collect()
}

#[tokio::test]
async fn alerts_join_the_open_case_and_open_a_new_one_after_it() {
    let mut place = Place::new().await;
    let (desk, ada) = (place.desk.clone(), by("ada"));
    let rule = draft("structuring", RuleKind::Structuring, RuleMode::Active, &[("100.00", "USD")]);
    desk.set_rule(command(), rule, &ada).await.unwrap();
    let reason = Action::Open { reason: "tip".into(), due_at: None };
    let open = desk.open_case(command(), Subject::Participant(bank(0)), reason, &ada).await.unwrap();
    let watch = Watch::new(desk.clone());
    apply(&place, &watch, &three(1, 0), End::Committed).await.unwrap();
    let assign = Action::Assign { assignee: "ada".into(), due_at: None };
    desk.change_case(command(), open.case_id, assign, &ada).await.unwrap();
    place.clock.advance_micros(1_000_000);
    apply(&place, &watch, &three(4, 200), End::Committed).await.unwrap();
    let close = Action::Close { outcome: CaseOutcome::Confirmed, reason: "reported".into() };
    desk.change_case(command(), open.case_id, close, &ada).await.unwrap();
    place.clock.advance_micros(1_000_000);
    apply(&place, &watch, &three(7, 400), End::Committed).await.unwrap();

    let all = alerts(&place, &AlertFilter::default()).await;
    let cases: Vec<_> = all.iter().map(|alert| alert.case_id.unwrap()).collect();
    assert_eq!(cases[..2], [open.case_id; 2]);
    assert_ne!(cases[2], open.case_id);
    assert_eq!(all[1].transactions, [transaction(4), transaction(5), transaction(6)]);
    assert_eq!((all[1].from, all[1].to), (NOON.plus_seconds(140), NOON.plus_seconds(201)));

    let db = &place.context.db;
    let steps = store::list_steps(db, open.case_id, &PageOf { size: 100, after: None }).await.unwrap();
    let words: Vec<(&str, CaseState)> = steps.iter().map(|step| (step.action.as_str(), step.state)).collect();
    use CaseState::{Closed, Investigating, Open};
    let expected =
        [("OPENED", Open), ("ALERT", Open), ("ASSIGNED", Investigating), ("ALERT", Investigating), ("CLOSED", Closed)];
    assert_eq!(words, expected);
    assert_eq!(steps[3].action, Action::Alert(all[1].alert_id));
    let of_case = AlertFilter { case_id: Some(open.case_id), ..AlertFilter::default() };
    assert_eq!(alerts(&place, &of_case).await, all[..2]);
    assert_eq!(store::latest_alerts(db, open.case_id, 1).await.unwrap(), all[1..2]);
    for (filter, n) in [
        (AlertFilter { payer: Some(bank(1)), ..AlertFilter::default() }, 0),
        (AlertFilter { payer: Some(bank(0)), ..AlertFilter::default() }, 3),
        (AlertFilter { rule: Some("velocity".into()), ..AlertFilter::default() }, 0),
        (AlertFilter { without_shadow: true, ..AlertFilter::default() }, 3),
    ] {
        assert_eq!(alerts(&place, &filter).await.len(), n, "{filter:?}");
    }

    let raised = place.published("alert.raised").await;
    let data = &raised[1]["data"];
    for (field, expected) in [
        ("kind", "structuring"),
        ("rule", "structuring"),
        ("participant", "ALFAAEXX"),
        ("counterparty", "CHRLGB2L"),
        ("case_id", &open.case_id.to_string()),
        ("transaction_id", &transaction(6).to_string()),
    ] {
        assert_eq!(data[field], expected, "{field}");
    }
    assert_eq!(data["sum"], serde_json::json!({"amount": "297.00", "currency": "USD"}));
    assert_eq!((&data["count"], &data["rule_version"]), (&3.into(), &2.into()));
    assert!(raised[1]["metadata"]["causation_id"].is_string());
    assert_eq!(place.published("case.opened").await.len(), 2);
    place.end().await;
}

async fn latest_alerts(place: &Place, id: CaseId) -> usize {
    store::latest_alerts(&place.context.db, id, 1000).await.unwrap().len()
}

/// An officer closes the case at the moment of the alert: it is in that case before its end, or in a new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_is_never_brought_to_a_closed_case() {
    let mut place = Place::new().await;
    let (desk, ada) = (place.desk.clone(), by("ada"));
    let rule = draft("structuring", RuleKind::Structuring, RuleMode::Active, &[("100.00", "USD")]);
    desk.set_rule(command(), rule, &ada).await.unwrap();
    let watch = Watch::new(desk.clone());
    apply(&place, &watch, &three(1, 0), End::Committed).await.unwrap();
    let mut joined = 0;
    for round in 1..=25 {
        place.clock.advance_micros(1_000_000);
        let filter = CaseFilter { subject: Some(Subject::Participant(bank(0))), ..CaseFilter::default() };
        let cases = store::list_cases(&place.context.db, &PageOf { size: 1000, after: None }, &filter).await.unwrap();
        let open: Vec<_> = cases.into_iter().filter(|case| case.state != CaseState::Closed).collect();
        let [case] = &open[..] else { panic!("{open:?}") };
        let assign = Action::Assign { assignee: "ada".into(), due_at: None };
        desk.change_case(command(), case.case_id, assign, &ada).await.unwrap();
        let close = Action::Close { outcome: CaseOutcome::Valuable, reason: "done".into() };
        let id = case.case_id;
        let before = latest_alerts(&place, id).await;
        let (closer, by) = (desk.clone(), ada.clone());
        let closing = tokio::spawn(async move { closer.change_case(command(), id, close, &by).await });
        apply(&place, &watch, &three(round * 3 + 1, round as i64 * 200), End::Committed).await.unwrap();
        closing.await.unwrap().unwrap();
        let steps = store::list_steps(&place.context.db, id, &PageOf { size: 1000, after: None }).await.unwrap();
        assert_eq!(steps.last().unwrap().action.as_str(), "CLOSED", "{steps:?}");
        let here = latest_alerts(&place, id).await;
        joined += usize::from(here > before);
        // The next round needs an open case: where the alert joined this one, there is none yet.
        if here > before {
            let reason = Action::Reopen { reason: "next".into(), due_at: None };
            desk.change_case(command(), id, reason, &ada).await.unwrap();
        }
    }
    assert_eq!(place.count("rule_alert").await, 26);
    assert_eq!(place.count("rule_alert WHERE case_id IS NULL").await, 0);
    println!("{joined} of 25 alerts joined the case that was being closed");
    place.end().await;
}

#[tokio::test]
async fn a_new_version_begins_with_empty_windows_and_off_is_off() {
    let mut place = Place::new().await;
    let (desk, ada) = (place.desk.clone(), by("ada"));
    let watch = Watch::new(desk.clone());
    let rule = |mode| draft("structuring", RuleKind::Structuring, mode, &[("100.00", "USD")]);
    desk.set_rule(command(), rule(RuleMode::Active), &ada).await.unwrap();
    let batch = three(1, 0);
    apply(&place, &watch, &batch[..2], End::Committed).await.unwrap();
    assert_eq!(place.count("rule_bucket WHERE rule = 'structuring'").await, 1);
    desk.set_rule(command(), rule(RuleMode::Active), &ada).await.unwrap();
    apply(&place, &watch, &batch[2..], End::Committed).await.unwrap();
    assert_eq!(place.count("rule_alert").await, 0);
    assert_eq!(place.count("rule_bucket WHERE rule = 'structuring' AND version = 2").await, 0);
    apply(&place, &watch, &three(4, 1), End::Committed).await.unwrap();
    assert_eq!(place.count("rule_alert WHERE version = 3").await, 1);
    desk.set_rule(command(), rule(RuleMode::Off), &ada).await.unwrap();
    apply(&place, &watch, &three(7, 300), End::Committed).await.unwrap();
    assert_eq!(place.count("rule_alert").await, 1);
    assert_eq!(place.count("rule_bucket WHERE rule = 'structuring'").await, 0);
    place.end().await;
}

#[tokio::test]
async fn what_is_no_committed_transaction_changes_nothing() {
    let mut place = Place::new().await;
    let watch = Watch::new(place.desk.clone());
    let mut foreign = committed(1, 0, 2, money("99.00", "USD"), NOON);
    foreign.producer = Some(("acme-feed/1".into(), 1));
    apply(&place, &watch, &[foreign], End::Committed).await.unwrap();
    assert_eq!(place.count("rule_bucket").await, 0);
    assert_eq!(place.count("monitor_mark WHERE batch IS NOT NULL").await, 0);
    place.end().await;
}

/// What a batch costs: printed, not judged. 50,000 transactions among 40 banks by the rules that ship.
#[tokio::test]
async fn cost_of_a_batch() {
    let place = Place::new().await;
    let watch = Watch::new(place.desk.clone());
    let mut numbers = Numbers(7);
    let amount = |n: u64| -> Money { money(&format!("{}.{:02}", n / 100, n % 100), "USD") };
    let (mut spent, mut number) = (std::time::Duration::ZERO, 0u64);
    for batch in 0..25 {
        let deliveries: Vec<Delivery> = (0..2_000)
            .map(|_| {
                number += 1;
                let (payer, payee) = (numbers.below(20) as usize, 20 + numbers.below(20) as usize);
                let at = NOON.plus_micros(batch * 100_000);
                committed(number, payer, payee, amount(numbers.below(2_000_000) + 1), at)
            })
            .collect();
        let started = tokio::time::Instant::now();
        apply(&place, &watch, &deliveries, End::Committed).await.unwrap();
        spent += started.elapsed();
    }
    println!("{number} transactions in {spent:?}: {:?} each", spent / u32::try_from(number).unwrap());
    place.end().await;
}
