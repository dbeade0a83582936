//! Outbox and relay.

use std::collections::BTreeSet;

use deltran_events::topology::Profile;
use deltran_messaging::topology;
use deltran_tests::{Backbone, eventually};
use serde_json::json;
use sqlx::PgPool;

use super::support::{Running, STREAM, SUBJECT, api, count, event, said, stored, words, write};

async fn marks(pool: &PgPool) -> (i64, i64) {
    sqlx::query_as("SELECT c.assigned, m.published FROM token.outbox_counter c, token.outbox_mark m")
        .fetch_one(pool)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_have_no_gap_though_many_write_and_some_roll_back() {
    let backbone = Backbone::start("token").await;
    let node = backbone.node("a").await;
    let writers = (0..16).map(|task| {
        let node = node.clone();
        async move {
            let mut written = 0;
            for i in 0..12 {
                match (task + i) % 4 {
                    // Given up after the numbers were taken.
                    0 => {
                        let mut tx = node.context.db.begin().await.unwrap();
                        node.outbox.append(&mut tx, &[event("lost"), event("lost")]).await.unwrap();
                        drop(tx);
                    }
                    1 => {
                        // Refused before it had events.
                        drop(node.door.begin("test").await.unwrap());
                    }
                    n => {
                        let events: Vec<_> = (0..n).map(|_| event("kept")).collect();
                        node.door.begin("test").await.unwrap().commit(&events).await.unwrap();
                        written += n;
                    }
                }
            }
            written
        }
    });
    let written: i64 = futures::future::join_all(writers).await.into_iter().sum();
    let pool = backbone.postgres.pool().await;
    let rows: Vec<(i64, Vec<u8>)> =
        sqlx::query_as("SELECT seq, envelope FROM token.outbox ORDER BY seq").fetch_all(&pool).await.unwrap();
    let numbers: Vec<i64> = rows.iter().map(|(seq, _)| *seq).collect();
    assert_eq!(numbers, (1..=written).collect::<Vec<i64>>());
    assert_eq!(marks(&pool).await.0, written);
    for (seq, envelope) in rows {
        assert_eq!(said(&envelope), (seq as u64, "kept".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_published_in_order_with_their_headers() {
    let backbone = Backbone::start("token").await;
    let node = backbone.node("a").await;
    let relay = Running::relay(&node);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    write(&node, words(40)).await;
    let traced = event("41").traced(Some(trace.to_owned()));
    node.door.begin("test").await.unwrap().commit(&[traced]).await.unwrap();
    eventually("all events in the stream", async || (count(&backbone.broker, STREAM).await? == 41).then_some(())).await;

    let pool = backbone.postgres.pool().await;
    let rows: Vec<(i64, uuid::Uuid, Vec<u8>)> =
        sqlx::query_as("SELECT seq, event_id, envelope FROM token.outbox ORDER BY seq").fetch_all(&pool).await.unwrap();
    assert_eq!(rows.len(), 41, "rows stay until the audit ledger has them");
    for (seq, event_id, envelope) in rows {
        let (subject, headers, payload) = stored(&backbone.broker, STREAM, seq as u64).await;
        assert_eq!((subject.as_str(), said(&payload)), (SUBJECT, (seq as u64, seq.to_string())));
        assert_eq!(payload, envelope, "the exact bytes");
        let header = |name: &str| headers.get(name).map(|v| v.as_str().to_owned());
        assert_eq!(header("Nats-Msg-Id"), Some(event_id.to_string()));
        assert_eq!(header("Content-Type").as_deref(), Some("application/json"));
        assert_eq!(header("Deltran-Schema").as_deref(), Some("participant.activated/1.0"));
        assert_eq!(header("traceparent").as_deref(), (seq == 41).then_some(trace));
    }
    eventually("the mark", async || (marks(&pool).await == (41, 41)).then_some(())).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_when_the_relay_is_stopped_is_published() {
    let backbone = Backbone::start("token").await;
    let node = backbone.node("a").await;
    let relay = Running::relay(&node);
    let held = node.context.metrics.lease_held.with_label_values(&["token.relay"]);
    eventually("the lease", async || (held.get() == 1).then_some(())).await;
    // No wake-up: the rows are from another process.
    let mut tx = node.context.db.begin().await.unwrap();
    let other = backbone.node("b").await;
    other.outbox.append(&mut tx, &[event("1"), event("2")]).await.unwrap();
    tx.commit().await.unwrap();
    relay.stop().await;
    assert_eq!(count(&backbone.broker, STREAM).await, Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_the_broker_is_killed_while_events_are_written() {
    let mut backbone = Backbone::start("token").await;
    let node = backbone.node("a").await;
    let relay = Running::relay(&node);
    let writer = {
        let node = node.clone();
        tokio::spawn(async move { write(&node, words(400)).await })
    };
    eventually("some events in the stream", async || (count(&backbone.broker, STREAM).await? > 20).then_some(())).await;
    backbone.nats.kill();
    writer.await.unwrap();
    assert!(node.outbox.progress().backlog() > 0 || marks(&backbone.postgres.pool().await).await.1 < 400);
    backbone.nats.restart().await;

    let pool = backbone.postgres.pool().await;
    eventually("everything to be published", async || (marks(&pool).await == (400, 400)).then_some(())).await;
    let last = eventually("the stream", async || backbone.broker.stream_info(STREAM).await.ok()?).await.last_sequence;
    let mut numbers = BTreeSet::new();
    for sequence in 1..=last {
        let (seq, word) = said(&stored(&backbone.broker, STREAM, sequence).await.2);
        assert_eq!(word, seq.to_string());
        numbers.insert(seq);
    }
    assert_eq!(numbers, (1..=400).collect());
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_stream_pushes_back_and_loses_nothing() {
    let backbone = Backbone::start("token").await;
    let node = backbone.node("a").await;
    let mut config = api(&backbone.broker, &format!("STREAM.INFO.{STREAM}"), &json!({})).await["config"].take();
    config["max_bytes"] = json!(12_000);
    api(&backbone.broker, &format!("STREAM.UPDATE.{STREAM}"), &config).await;

    let relay = Running::relay(&node);
    write(&node, words(60)).await;
    let refused = node.context.metrics.publish_failures.with_label_values(&["token", "broker"]);
    eventually("the stream to refuse", async || (refused.get() > 1).then_some(())).await;
    let before = count(&backbone.broker, STREAM).await.unwrap();
    assert!((1..60).contains(&before), "{before} of 60 fit");
    assert!(node.outbox.progress().backlog() > 0);
    assert_eq!(node.context.metrics.alerts.with_label_values(&["relay_token"]).get(), 1);

    let plan = topology::plan(&backbone.broker, Profile::Development, None).await.unwrap();
    assert_eq!(plan.changes.len(), 1, "{plan}");
    topology::apply(&backbone.broker, &plan, false).await.unwrap();
    eventually("the rest", async || (count(&backbone.broker, STREAM).await? == 60).then_some(())).await;
    let mut numbers = BTreeSet::new();
    for sequence in 1..=60 {
        numbers.insert(said(&stored(&backbone.broker, STREAM, sequence).await.2).0);
    }
    assert_eq!(numbers, (1..=60).collect());
    eventually("the backlog to be gone", async || (node.outbox.progress().backlog() == 0).then_some(())).await;
    eventually("the alert to end", async || {
        (node.context.metrics.alerts.with_label_values(&["relay_token"]).get() == 0).then_some(())
    })
    .await;
    relay.stop().await;
}
