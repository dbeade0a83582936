//! Outboxes, streams and ledger are compared event by event, and what is safe to publish again comes back.

use std::time::Duration;

use deltran_tests::eventually;
use serde_json::json;

use super::support::{PRODUCER, STREAM, World};

/// The audit engine would else mend by itself what these tests break.
const CONFIG: &str = "[audit]\nkeep_streams = false\n";

fn row(kind: &str, place: &str, seq: u64, repaired: bool) -> (String, String, u64, bool) {
    (kind.to_owned(), place.to_owned(), seq, repaired)
}

/// The duplicate window of these streams is over, so that they take an id again.
async fn forgotten() {
    tokio::time::sleep(Duration::from_millis(400)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stream_lost_is_published_again_and_nothing_takes_effect_twice() {
    let world = World::with(20, CONFIG).await;
    world.equal().await;
    eventually("its event", async || (world.events_of("reconciliation.completed").await == 1).then_some(())).await;
    assert_eq!(world.events_of("reconciliation.mismatch").await, 0);

    // One message deleted in the middle.
    world.api(&format!("STREAM.MSG.DELETE.{STREAM}"), json!({"seq": 7})).await;
    assert!(world.verifies().await.unwrap_err().contains("RISK"));
    let (found, summary) = world.found(false).await;
    assert_eq!(found, [row("missing_in_stream", STREAM, 7, false)]);
    assert!(!summary.ok && summary.differences == 1 && summary.repaired == 0, "{summary:?}");
    // The same again is no news.
    world.found(false).await;
    eventually("one mismatch", async || (world.events_of("reconciliation.mismatch").await == 1).then_some(())).await;
    assert_eq!(world.stack.metrics.alerts.with_label_values(&["audit_reconcile"]).get(), 1);

    forgotten().await;
    let (found, summary) = world.found(true).await;
    assert_eq!(found, [row("missing_in_stream", STREAM, 7, true)]);
    assert!(summary.ok && summary.repaired == 1, "{summary:?}");
    world.equal().await;
    assert_eq!(world.stack.metrics.alerts.with_label_values(&["audit_reconcile"]).get(), 0);
    // Its place is empty, and it is elsewhere.
    world.verifies().await.unwrap();

    // All of them.
    world.api(&format!("STREAM.PURGE.{STREAM}"), json!({})).await;
    forgotten().await;
    let (found, _) = world.found(true).await;
    assert_eq!(found, (1..=20).map(|n| row("missing_in_stream", STREAM, n, true)).collect::<Vec<_>>());
    world.equal().await;
    assert_eq!((world.messages(STREAM).await, world.leaves().await.len()), (20, 20));

    // What meets in AUDIT comes back from the stream of origin.
    world.api("STREAM.PURGE.AUDIT", json!({"filter": "events.risk.>"})).await;
    forgotten().await;
    let (found, summary) = world.found(true).await;
    assert_eq!(found, (1..=20).map(|n| row("missing_in_stream", "AUDIT", n, true)).collect::<Vec<_>>());
    assert!(summary.ok, "{summary:?}");
    world.equal().await;
    assert_eq!(world.leaves().await, (1..=20).collect::<Vec<_>>(), "each event is one leaf");
    world.verifies().await.unwrap();
    world.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_ledger_never_had_comes_from_the_outbox() {
    let world = World::with(5, CONFIG).await;
    // Rows that count as published and never were: the broker acknowledged them and forgot.
    let mut tx = world.root.begin().await.unwrap();
    sqlx::query("LOCK TABLE risk.outbox_mark").execute(&mut *tx).await.unwrap();
    world.write(3).await;
    sqlx::query("UPDATE risk.outbox_mark SET published = 8").execute(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();

    let (found, summary) = world.found(false).await;
    assert_eq!(found, (6..=8).map(|n| row("missing_in_ledger", PRODUCER, n, false)).collect::<Vec<_>>());
    assert_eq!(summary.differences, 3, "{summary:?}");
    let (found, summary) = world.found(true).await;
    assert_eq!(found, (6..=8).map(|n| row("missing_in_ledger", PRODUCER, n, true)).collect::<Vec<_>>());
    assert!(summary.ok, "{summary:?}");
    world.standing().await;
    world.equal().await;
    assert_eq!(world.leaves().await, (1..=8).collect::<Vec<_>>());
    world.verifies().await.unwrap();
    world.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_safe_to_repair_is_listed_and_left_alone() {
    let world = World::with(6, CONFIG).await;
    // Other bytes under a number that stands.
    let (subject, envelope): (String, Vec<u8>) =
        sqlx::query_as("SELECT subject, envelope FROM audit.leaf WHERE producer = $1 AND producer_seq = 3")
            .bind(PRODUCER)
            .fetch_one(&world.root)
            .await
            .unwrap();
    let forged = String::from_utf8(envelope).unwrap().replace("a test", "another");
    let ack = world.stack.broker.jetstream().publish(subject, forged.into()).await.unwrap().await.unwrap();
    assert_eq!(ack.sequence, 7);
    eventually("the conflict", async || (world.leaves().await.len() == 7).then_some(())).await;

    // A leaf that somebody removed, and a number that its engine never gave out.
    for statement in [
        "ALTER TABLE audit.leaf DISABLE TRIGGER ALL",
        "DELETE FROM audit.leaf WHERE producer = 'risk-engine/1' AND producer_seq = 5",
        "UPDATE risk.outbox_counter SET assigned = 5",
    ] {
        sqlx::query(statement).execute(&world.root).await.unwrap();
    }
    for repair in [false, true] {
        let (differences, summary) = world.reconcile(repair).await;
        let found: Vec<_> =
            differences.iter().map(|d| (d.kind.as_str(), d.place.as_str(), d.producer_seq, d.sequence)).collect();
        let expected = [
            ("missing_in_ledger", STREAM, 5, 5),
            ("differs", STREAM, 3, 7),
            ("differs", "AUDIT", 3, differences[2].sequence),
            ("missing_in_outbox", PRODUCER, 6, 0),
        ];
        assert_eq!(found, expected, "{differences:?}");
        assert!(differences.iter().all(|d| !d.repaired), "{differences:?}");
        assert!(!summary.ok && summary.repaired == 0, "{summary:?}");
    }
    assert_eq!(world.messages(STREAM).await, 7, "nothing was published");
    world.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stream_let_go_of_by_itself_is_no_difference() {
    let world = World::with(10, CONFIG).await;
    let mut config = world.api(&format!("STREAM.INFO.{STREAM}"), json!({})).await["config"].take();
    config["max_age"] = json!(1_000_000_000);
    config["duplicate_window"] = json!(100_000_000);
    world.api(&format!("STREAM.UPDATE.{STREAM}"), config).await;
    eventually("the stream to let go", async || (world.messages(STREAM).await == 0).then_some(())).await;
    world.equal().await;
    world.stack.stop().await;
}
