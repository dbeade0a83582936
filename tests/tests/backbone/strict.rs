//! Consumers that must not skip, and consumers of two processes.

use std::sync::atomic::Ordering;

use deltran_tests::{Backbone, eventually};

use super::support::{
    LENIENT, Recorder, Running, STRICT, SUBJECT, count, create_consumer, outstanding, seen, words, write,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strict_consumer_stops_before_a_message_and_goes_on_when_it_can() {
    let backbone = Backbone::start("token").await;
    let node = backbone.node("a").await;
    create_consumer(&backbone.broker, &STRICT).await;
    let pool = Recorder::table(&backbone).await;
    let relay = Running::relay(&node);
    write(&node, words(10)).await;
    eventually("all in the stream", async || (count(&backbone.broker, "TRANSACTIONS").await? == 10).then_some(()))
        .await;
    let handler = Recorder::of("a");
    handler.poison.lock().unwrap().insert("7".into());
    let consumer = Running::consumer(&node, &STRICT, handler.clone());
    let stopped = node.context.metrics.consumer_stopped.with_label_values(&[STRICT.name]);
    eventually("the consumer to stop", async || (stopped.get() == 1).then_some(())).await;
    assert_eq!(seen(&pool).await, words(6), "what stands before the message is applied, nothing behind it");
    let problems = node.context.health.problems_of("token");
    assert!(problems.iter().any(|p| p.contains("poison")), "{problems:?}");

    write(&node, ["11"]).await;
    handler.poison.lock().unwrap().clear();
    eventually("the rest", async || (seen(&pool).await.len() == 11).then_some(())).await;
    assert_eq!(seen(&pool).await, words(11));
    assert_eq!(stopped.get(), 0);
    eventually("readiness", async || node.context.health.problems_of("token").is_empty().then_some(())).await;
    assert_eq!(count(&backbone.broker, "DEADLETTERS").await, Some(0));
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strict_consumer_stops_before_an_invalid_message_of_its_engine_and_puts_others_aside() {
    let backbone = Backbone::start("token").await;
    let node = backbone.node("a").await;
    create_consumer(&backbone.broker, &STRICT).await;
    let pool = Recorder::table(&backbone).await;
    let relay = Running::relay(&node);
    let consumer = Running::consumer(&node, &STRICT, Recorder::of("a"));
    let js = backbone.broker.jetstream();
    js.publish(SUBJECT, "from outside".into()).await.unwrap().await.unwrap();
    write(&node, ["1"]).await;
    eventually("what is valid", async || (seen(&pool).await == ["1"]).then_some(())).await;
    eventually("the dead letter", async || (count(&backbone.broker, "DEADLETTERS").await? == 1).then_some(())).await;

    let broken = r#"{"metadata":{"producer":"token-engine/1","producer_seq":2}}"#;
    js.publish(SUBJECT, broken.into()).await.unwrap().await.unwrap();
    let stopped = node.context.metrics.consumer_stopped.with_label_values(&[STRICT.name]);
    eventually("the consumer to stop", async || (stopped.get() == 1).then_some(())).await;
    assert_eq!(count(&backbone.broker, "DEADLETTERS").await, Some(1));
    consumer.stop().await;
    assert_eq!(stopped.get(), 0, "whoever goes on will say so");
    relay.stop().await;
}

/// What a crashed process had fetched comes before what was published since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strict_consumer_keeps_the_order_over_a_crash() {
    let backbone = Backbone::start("token").await;
    let (first, second) = (backbone.node("a").await, backbone.node("b").await);
    create_consumer(&backbone.broker, &STRICT).await;
    let pool = Recorder::table(&backbone).await;
    let relay = Running::relay(&second);
    write(&second, words(20)).await;
    eventually("all in the stream", async || (count(&backbone.broker, "TRANSACTIONS").await? == 20).then_some(()))
        .await;
    let handler = Recorder::of("a");
    handler.outage.store(u32::MAX, Ordering::SeqCst);
    let crashing = Running::consumer(&first, &STRICT, handler.clone());
    eventually("a batch under way", async || (handler.failed.load(Ordering::SeqCst) > 0).then_some(())).await;
    crashing.crash(&first).await;

    write(&second, (21..=30).map(|i| i.to_string())).await;
    eventually("all in the stream", async || (count(&backbone.broker, "TRANSACTIONS").await? == 30).then_some(()))
        .await;
    let consumer = Running::consumer(&second, &STRICT, Recorder::of("b"));
    eventually("all effects", async || (seen(&pool).await.len() == 30).then_some(())).await;
    assert_eq!(seen(&pool).await, words(30));
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_processes_one_consumes_and_the_other_takes_over() {
    let backbone = Backbone::start("token").await;
    let (first, second) = (backbone.node("a").await, backbone.node("b").await);
    create_consumer(&backbone.broker, &LENIENT).await;
    let pool = Recorder::table(&backbone).await;
    let relay = Running::relay(&first);
    let one = Running::consumer(&first, &LENIENT, Recorder::of("a"));
    let held = |node: &deltran_tests::Node| {
        node.context.metrics.lease_held.with_label_values(&["token.lenient-test-consumer"]).get()
    };
    eventually("the first to lead", async || (held(&first) == 1).then_some(())).await;
    let other = Running::consumer(&second, &LENIENT, Recorder::of("b"));
    write(&first, words(20)).await;
    eventually("all effects", async || (seen(&pool).await.len() == 20).then_some(())).await;
    assert_eq!((held(&first), held(&second)), (1, 0));

    one.stop().await;
    write(&first, (21..=40).map(|i| i.to_string())).await;
    eventually("all effects", async || (seen(&pool).await.len() == 40).then_some(())).await;
    assert_eq!((held(&first), held(&second)), (0, 1));
    assert_eq!(seen(&pool).await, words(40));
    let holders: Vec<(String, i64)> =
        sqlx::query_as("SELECT holder, count(*) FROM token.seen GROUP BY holder ORDER BY holder")
            .fetch_all(&pool)
            .await
            .unwrap();
    assert_eq!(holders, [("a".to_owned(), 20), ("b".to_owned(), 20)]);
    eventually("nothing outstanding", async || (outstanding(&backbone.broker, &LENIENT).await == 0).then_some(()))
        .await;
    other.stop().await;
    relay.stop().await;
}
