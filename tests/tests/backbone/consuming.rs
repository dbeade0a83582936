//! Consumers that may give a message up.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::jetstream::message::PublishMessage;
use deltran_events::topology::ConsumerSpec;
use deltran_messaging::dead_letter;
use deltran_tests::{Backbone, eventually};
use serde_json::json;

use super::support::{
    LENIENT, Recorder, Running, STREAM, SUBJECT, api, count, create_consumer, outstanding, said, seen, stored, words,
    write,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redelivery_and_republishing_take_effect_once() {
    let backbone = Backbone::start("token").await;
    let node = backbone.node("a").await;
    create_consumer(&backbone.broker, &LENIENT).await;
    let pool = Recorder::table(&backbone).await;
    let relay = Running::relay(&node);
    let consumer = Running::consumer(&node, &LENIENT, Recorder::of("a"));
    write(&node, words(30)).await;
    eventually("all effects", async || (seen(&pool).await == words(30)).then_some(())).await;

    // The same bytes again, as after the duplicate window, in another order.
    for sequence in (1..=30).rev() {
        let (subject, _, payload) = stored(&backbone.broker, STREAM, sequence).await;
        let again = PublishMessage::build().message_id(format!("again-{sequence}")).payload(payload.into());
        backbone.broker.jetstream().send_publish(subject, again).await.unwrap().await.unwrap();
    }
    let duplicates = node.context.metrics.consumed.with_label_values(&[LENIENT.name, "duplicate"]);
    eventually("the republished to be received", async || (duplicates.get() >= 30).then_some(())).await;

    // Everything again, from the start of the stream.
    let reset = format!("CONSUMER.RESET.{STREAM}.{}", LENIENT.name);
    api(&backbone.broker, &reset, &json!({"seq": 1})).await;
    eventually("the redelivered to be received", async || (duplicates.get() >= 90).then_some(())).await;
    write(&node, ["end"]).await;
    eventually("what is new", async || (seen(&pool).await.len() == 31).then_some(())).await;
    let ranges: Vec<i64> = sqlx::query_scalar("SELECT ranges FROM token.received WHERE consumer = $1")
        .bind(LENIENT.name)
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(ranges, [1, 31]);
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_message_goes_to_the_dead_letters_at_once() {
    let backbone = Backbone::start("token").await;
    let node = backbone.node("a").await;
    create_consumer(&backbone.broker, &LENIENT).await;
    let pool = Recorder::table(&backbone).await;
    let relay = Running::relay(&node);
    let js = backbone.broker.jetstream();
    js.publish(SUBJECT, "no envelope".into()).await.unwrap().await.unwrap();
    write(&node, ["1"]).await;
    let consumer = Running::consumer(&node, &LENIENT, Recorder::of("a"));
    eventually("the dead letter", async || (count(&backbone.broker, "DEADLETTERS").await? == 1).then_some(())).await;
    eventually("the valid one", async || (seen(&pool).await == ["1"]).then_some(())).await;
    eventually("acknowledgements", async || (outstanding(&backbone.broker, &LENIENT).await == 0).then_some(())).await;

    let (subject, headers, payload) = stored(&backbone.broker, "DEADLETTERS", 1).await;
    let header = |name: &str| headers.get(name).map(|v| v.as_str().to_owned()).unwrap_or_default();
    assert_eq!((subject, payload), (format!("dlq.{STREAM}.{}", LENIENT.name), b"no envelope".to_vec()));
    assert!(header(dead_letter::REASON).contains("not an envelope"), "{headers:?}");
    assert_eq!(header(dead_letter::STREAM), STREAM);
    assert_eq!(header(dead_letter::SEQUENCE), "1");
    assert_eq!(header(dead_letter::CONSUMER), LENIENT.name);
    assert_eq!(header(dead_letter::SUBJECT), SUBJECT);
    assert_eq!(header(dead_letter::ATTEMPTS), "1");
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_message_that_cannot_be_applied_is_given_up() {
    let backbone = Backbone::start("token").await;
    let node = backbone.node("a").await;
    create_consumer(&backbone.broker, &LENIENT).await;
    let pool = Recorder::table(&backbone).await;
    let relay = Running::relay(&node);
    write(&node, words(9)).await;
    eventually("all events in the stream", async || (count(&backbone.broker, STREAM).await? == 9).then_some(())).await;
    let handler = Recorder::of("a");
    handler.poison.lock().unwrap().insert("5".into());
    let consumer = Running::consumer(&node, &LENIENT, handler);

    let rest = ["1", "2", "3", "4", "6", "7", "8", "9"];
    eventually("the others", async || (seen(&pool).await == rest).then_some(())).await;
    eventually("the dead letter", async || (count(&backbone.broker, "DEADLETTERS").await? == 1).then_some(())).await;
    let (_, headers, payload) = stored(&backbone.broker, "DEADLETTERS", 1).await;
    assert_eq!(said(&payload), (5, "5".to_owned()));
    assert_eq!(headers.get(dead_letter::ATTEMPTS).unwrap().as_str(), "3");
    assert_eq!(headers.get(dead_letter::SEQUENCE).unwrap().as_str(), "5");
    assert!(headers.get(dead_letter::REASON).unwrap().as_str().contains("is poison"));
    eventually("nothing outstanding", async || (outstanding(&backbone.broker, &LENIENT).await == 0).then_some(()))
        .await;
    assert_eq!(seen(&pool).await, rest);
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_for_now_is_tried_again_in_order() {
    let backbone = Backbone::start("token").await;
    let node = backbone.node("a").await;
    create_consumer(&backbone.broker, &LENIENT).await;
    let pool = Recorder::table(&backbone).await;
    let relay = Running::relay(&node);
    let handler = Recorder::of("a");
    // More often than a message may be delivered: trying again is not a delivery.
    handler.outage.store(6, Ordering::SeqCst);
    let consumer = Running::consumer(&node, &LENIENT, handler.clone());
    write(&node, words(10)).await;
    eventually("all effects", async || (seen(&pool).await.len() == 10).then_some(())).await;
    assert_eq!(seen(&pool).await, words(10));
    assert_eq!(handler.failed.load(Ordering::SeqCst), 6);
    assert_eq!(count(&backbone.broker, "DEADLETTERS").await, Some(0));
    consumer.stop().await;
    relay.stop().await;
}

/// Reads what all streams hold.
static EVERYTHING: ConsumerSpec = ConsumerSpec {
    stream: "AUDIT",
    name: "everything-test-consumer",
    filter_subjects: &[],
    max_deliver: 3,
    ack_wait: Duration::from_secs(2),
    max_ack_pending: 1000,
    strict: false,
    purpose: "a test",
    engine: "token",
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_can_use_up_the_numbers_of_an_engine() {
    let backbone = Backbone::start("token").await;
    let node = backbone.node("a").await;
    let pool = Recorder::table(&backbone).await;
    create_consumer(&backbone.broker, &EVERYTHING).await;
    let consumer = Running::consumer(&node, &EVERYTHING, Recorder::of("a"));
    // A valid event of another domain that names the token engine as its producer.
    let forged = json!({
        "event_id": "0190a5f0-0000-7000-8000-000000000001", "event_type": "breaker.closed",
        "timestamp": "2025-11-06T12:00:00.000000Z", "source": "token-engine", "version": "1.0",
        "data": {"scope": "GLOBAL", "reason": "forged", "changed_by": "nobody"},
        "metadata": {"producer": "token-engine/1", "producer_seq": 1},
    });
    let js = backbone.broker.jetstream();
    js.publish("events.risk.breaker.closed", forged.to_string().into()).await.unwrap().await.unwrap();
    let applied = node.context.metrics.consumed.with_label_values(&[EVERYTHING.name, "applied"]);
    eventually("the forged one", async || (applied.get() == 1).then_some(())).await;
    let relay = Running::relay(&node);
    write(&node, ["1"]).await;
    eventually("the real one", async || (seen(&pool).await == ["1"]).then_some(())).await;
    consumer.stop().await;
    relay.stop().await;
}
