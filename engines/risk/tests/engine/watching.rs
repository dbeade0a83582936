//! Breakers that trip and recover by themselves, alarms and snapshots, driven by a clock that is moved.

use deltran_events::data::risk::{BreakerTrigger, LimitKind};
use deltran_risk::domain::breaker::{BreakerState, SetBreaker};
use deltran_risk::domain::limit::Proposal;
use deltran_risk::domain::scope::Scope;
use deltran_risk::store;
use serde_json::Value as Json;

use super::support::*;

fn pays(n: u128) -> deltran_risk::domain::assess::Subject {
    subject(n, "ALFAAEXX", "BRAVINXX", "1.00")
}

async fn state(process: &Process, scope: &str) -> Option<(BreakerState, BreakerTrigger)> {
    let breakers = store::all_breakers(process.db().pool()).await.unwrap();
    breakers.get(&scope.parse::<Scope>().unwrap()).map(|b| (b.state, b.trigger))
}

fn breaker_events(published: Vec<(String, Json)>, scope: &str) -> Vec<String> {
    let of = |(schema, data): (String, Json)| {
        (schema.starts_with("breaker.") && data["scope"] == scope).then(|| match data["trigger"].as_str() {
            Some(trigger) => format!("{schema} {trigger}"),
            None => schema,
        })
    };
    published.into_iter().filter_map(of).collect()
}

const REJECTS: &str = "
[breakers]
cool_down_seconds = 30
probes = 3
refused_share = 3400
[breakers.reject_rate]
enabled = true
scopes = [\"corridor\"]
window_seconds = 60
minimum = 4
share = 5000
";

#[tokio::test]
async fn a_breaker_trips_on_refusals_and_closes_after_its_cool_down() {
    let mut place = Place::with(REJECTS).await;
    let process = place.process().await;
    let scope = "corridor:AE-IN";
    // Two of four are no more than half. Refusals for a breaker are none.
    let batch = [
        place.event(committed(&pays(1), 1)),
        place.event(committed(&pays(2), 1)),
        place.event(rejected(&pays(3), "cap", false)),
        place.event(rejected(&pays(4), "limit", false)),
        place.event(rejected(&pays(5), "breaker_open", false)),
    ];
    process.consume(&batch).await.unwrap();
    process.round().await;
    assert_eq!(state(&process, scope).await, None);
    process.consume(&[place.event(rejected(&pays(6), "cap", false))]).await.unwrap();
    process.round().await;
    assert_eq!(state(&process, scope).await, Some((BreakerState::Open, BreakerTrigger::RejectRate)));
    assert!(!process.passes(&pays(7)).await);
    assert!(process.passes(&subject(8, "ALFAAEXX", "CHARUSXX", "1.00")).await, "another corridor");

    place.wait(29);
    process.round().await;
    assert_eq!(state(&process, scope).await.unwrap().0, BreakerState::Open);
    place.wait(1);
    process.round().await;
    assert_eq!(state(&process, scope).await.unwrap().0, BreakerState::HalfOpen);
    // Three may pass to try; too many of them are refused.
    let mut passed = Vec::new();
    for n in 10..14 {
        passed.push(process.passes(&pays(n)).await);
    }
    assert_eq!(passed, [true, true, true, false]);
    let outcomes = [10, 11].map(|n| place.event(rejected(&pays(n), "cap", false)));
    process.consume(&outcomes).await.unwrap();
    process.round().await;
    assert_eq!(state(&process, scope).await, Some((BreakerState::Open, BreakerTrigger::Probes)));

    // The second time they are accepted.
    place.wait(30);
    process.round().await;
    for n in 20..23 {
        assert!(process.passes(&pays(n)).await, "{n}");
    }
    process.consume(&[20, 21].map(|n| place.event(committed(&pays(n), 1)))).await.unwrap();
    process.round().await;
    assert_eq!(state(&process, scope).await.unwrap().0, BreakerState::HalfOpen, "two of three have come back");
    process.consume(&[place.event(committed(&pays(22), 1))]).await.unwrap();
    process.round().await;
    assert_eq!(state(&process, scope).await.unwrap().0, BreakerState::Closed);
    assert!(process.passes(&pays(23)).await);
    process.round().await;
    let expected = [
        "breaker.opened REJECT_RATE",
        "breaker.half_opened",
        "breaker.opened PROBES",
        "breaker.half_opened",
        "breaker.closed",
    ];
    assert_eq!(breaker_events(place.published().await, scope), expected);
    // A watch that starts anew goes on from what is stored.
    let restarted = place.process().await;
    restarted.round().await;
    assert_eq!(state(&restarted, scope).await.unwrap().0, BreakerState::Closed);
}

#[tokio::test]
async fn what_a_person_set_only_a_person_changes() {
    let mut place = Place::with(REJECTS).await;
    let process = place.process().await;
    let scope: Scope = "corridor:AE-IN".parse().unwrap();
    let set = |n, to| SetBreaker { command_id: command(n), scope, to, reason: "incident".into() };
    process.desk.set_breaker(&set(1, BreakerState::Reducing), &by("ada")).await.unwrap();
    process.consume(&[1, 2, 3, 4, 5].map(|n| place.event(rejected(&pays(n), "cap", false)))).await.unwrap();
    process.round().await;
    place.wait(3_000);
    process.round().await;
    assert_eq!(state(&process, "corridor:AE-IN").await, Some((BreakerState::Reducing, BreakerTrigger::Manual)));
    let again = process.desk.set_breaker(&set(1, BreakerState::Reducing), &by("ada")).await.unwrap();
    assert_eq!(again.state, BreakerState::Reducing);
    assert!(process.desk.set_breaker(&set(1, BreakerState::Open), &by("ada")).await.is_err(), "another body");
    assert!(process.desk.set_breaker(&set(2, BreakerState::Reducing), &by("ada")).await.is_err(), "already");
    process.desk.set_breaker(&set(3, BreakerState::Closed), &by("bob")).await.unwrap();
    let listed = store::list_breakers(process.db(), None, 10, Some(BreakerState::Closed)).await.unwrap();
    assert_eq!((listed.len(), listed[0].changed_by.as_str()), (1, "bob"));
    assert!(store::list_breakers(process.db(), Some(scope), 10, None).await.unwrap().is_empty(), "pages");
    assert_eq!(store::find_breaker(process.db(), scope).await.unwrap().as_ref(), listed.first());
    let published = place.published().await;
    assert_eq!((published[0].0.as_str(), &published[0].1["mode"]), ("breaker.opened", &"REDUCING".into()));
    let refused = sqlx::raw_sql("DELETE FROM breaker_command").execute(&mut place.root).await;
    assert!(refused.unwrap_err().to_string().contains("append-only"));
}

#[tokio::test]
async fn a_breaker_trips_on_many_more_transactions_than_before() {
    let settings = "
        [breakers.volume_spike]
        enabled = true
        scopes = [\"participant\"]
        interval_seconds = 10
        intervals = 3
        factor = 30000
        floor = 5
    ";
    let place = Place::with(settings).await;
    let process = place.process().await;
    let mut n = 0;
    let mut burst = |count: usize| -> Vec<_> {
        let ids: Vec<u128> = (0..count)
            .map(|_| {
                n += 1;
                n
            })
            .collect();
        ids.into_iter().map(|n| place.event(committed(&pays(n), 1))).collect()
    };
    for count in [4, 4, 12] {
        process.consume(&burst(count)).await.unwrap();
        process.round().await;
        assert_eq!(state(&process, "participant:ALFAAEXX").await, None);
        place.wait(10);
    }
    process.consume(&burst(21)).await.unwrap();
    process.round().await;
    let tripped = Some((BreakerState::Open, BreakerTrigger::VolumeSpike));
    assert_eq!(state(&process, "participant:ALFAAEXX").await, tripped);
    assert_eq!(state(&process, "participant:BRAVINXX").await, None, "what it receives is not its doing");
}

#[tokio::test]
async fn stale_data_trips_where_it_decides_and_recovers() {
    let mut place =
        Place::with("breakers = { cool_down_seconds = 30, probes = 1, stale_data = { after_seconds = 20 } }").await;
    let process = place.process().await;
    process.round_behind(1_000).await;
    assert!(place.types().await.is_empty(), "no limit needs what is counted");
    process.agree(bilateral(1, "100.00")).await;
    process.round_behind(19).await;
    assert_eq!(state(&process, "currency:USD").await, None);
    process.round_behind(20).await;
    let tripped = Some((BreakerState::Open, BreakerTrigger::StaleData));
    assert_eq!(state(&process, "currency:USD").await, tripped);
    place.wait(30);
    process.round_behind(50).await;
    assert_eq!(state(&process, "currency:USD").await, tripped, "still behind");
    place.wait(29);
    process.round_behind(0).await;
    assert_eq!(state(&process, "currency:USD").await, tripped, "it cools down anew");
    place.wait(1);
    process.round_behind(0).await;
    assert_eq!(state(&process, "currency:USD").await.unwrap().0, BreakerState::HalfOpen);
    process.mark(0).await;
    assert!(process.passes(&pays(1)).await && !process.passes(&pays(2)).await);
    process.consume(&[place.event(committed(&pays(1), 1))]).await.unwrap();
    process.round_behind(0).await;
    assert_eq!(state(&process, "currency:USD").await.unwrap().0, BreakerState::Closed);
    let expected = ["breaker.opened STALE_DATA", "breaker.half_opened", "breaker.closed"];
    assert_eq!(breaker_events(place.published().await, "currency:USD"), expected);
}

#[tokio::test]
async fn alarms_ring_once_per_crossing() {
    let mut place = Place::new().await;
    let process = place.process().await;
    process.agree(bilateral(1, "100.00")).await;
    // As the driver does with a cap that the ledger took.
    let cap = Proposal { participant: Some(bank("ALFAAEXX")), ..proposal(2, LimitKind::NetDebitCap, "90.00") };
    process.desk.propose(&cap, &by("ada")).await.unwrap();
    let active = "UPDATE limits SET state = 'ACTIVE', approved_by = 'bob', due_at = 1, effective_at = 1
                  WHERE kind = 'NET_DEBIT_CAP'; UPDATE gate SET version = version + 1";
    sqlx::raw_sql(active).execute(&mut place.root).await.unwrap();
    process.mark(0).await;
    let alarms = async |place: &mut Place| -> Vec<String> {
        let published = place.published().await;
        let of = |(schema, data): (String, Json)| {
            schema
                .starts_with("threshold.")
                .then(|| format!("{schema} {} {}", data["kind"].as_str().unwrap(), data["threshold"]))
        };
        published.into_iter().filter_map(of).collect()
    };
    let mut expected = Vec::new();
    let mut n = 0;
    for (payer, amount, rings) in [
        ("ALFAAEXX", "71.99", &[][..]),
        ("ALFAAEXX", "0.01", &["threshold.breached NET_DEBIT_CAP 8000"]),
        ("ALFAAEXX", "8.00", &["threshold.breached BILATERAL 8000"]),
        ("ALFAAEXX", "15.00", &["threshold.breached NET_DEBIT_CAP 9500", "threshold.breached BILATERAL 9500"]),
        ("BRAVINXX", "4.00", &[]),
        (
            "BRAVINXX",
            "20.00",
            &[
                "threshold.cleared NET_DEBIT_CAP 9500",
                "threshold.cleared BILATERAL 8000",
                "threshold.cleared BILATERAL 9500",
            ],
        ),
        ("BRAVINXX", "10.00", &["threshold.cleared NET_DEBIT_CAP 8000"]),
    ] {
        n += 1;
        let payee = if payer == "ALFAAEXX" { "BRAVINXX" } else { "ALFAAEXX" };
        process.consume(&[place.event(committed(&subject(n, payer, payee, amount), 1))]).await.unwrap();
        for _ in 0..3 {
            process.round().await;
        }
        expected.extend(rings.iter().map(|r| (*r).to_owned()));
        assert_eq!(alarms(&mut place).await, expected, "step {n}");
    }
    let (_, last) = place.published().await.pop().unwrap();
    assert_eq!((&last["used"], &last["limit"], &last["fraction"]), (&"61.00".into(), &"90.00".into(), &6_777.into()));
}

#[tokio::test]
async fn snapshots_come_at_their_interval_and_old_rows_go() {
    let mut place = Place::with("snapshot_seconds = 3600").await;
    let process = place.process().await;
    process.consume(&[place.event(committed(&pays(1), 1))]).await.unwrap();
    for (seconds, snapshots) in [(0, 0), (3_599, 0), (1, 1), (3_599, 1), (1, 2), (200_000, 3)] {
        place.wait(seconds);
        process.round().await;
        let published = place.published().await;
        assert_eq!(published.len(), snapshots, "after {seconds} s more");
        assert!(published.iter().all(|(schema, data)| schema == "exposure.snapshot" && data["window_id"].is_null()));
    }
    async fn left(place: &mut Place) -> (i64, i64, i64, i64) {
        let counts = "SELECT (SELECT count(*) FROM decision), (SELECT count(*) FROM corridor_hour),
                             (SELECT count(*) FROM window_pair), (SELECT count(*) FROM window_member)";
        sqlx::query_as(counts).fetch_one(&mut place.root).await.unwrap()
    }
    assert_eq!(left(&mut place).await, (0, 0, 1, 2), "what is owed stays");
    process.consume(&[place.event(sealed(1)), place.event(settled(1))]).await.unwrap();
    place.wait(61);
    process.round().await;
    assert_eq!(left(&mut place).await, (0, 0, 0, 0));
    assert_eq!(place.process().await.desk.gate.book_version(), 2, "a process that reads all of it finds no debt");
}
