//! A broker that forgets is noticed, and its streams come back above every known sequence with everything in them once.

use deltran_messaging::stored;
use deltran_tests::{eventually, made_anew, within};
use serde_json::json;
use std::time::Duration;

use super::support::{PRODUCER, STREAM, World};

/// Within which a stream is there again, on a machine with other work.
const PATIENCE: Duration = Duration::from_secs(120);

impl World {
    async fn last(&self, stream: &str) -> u64 {
        stored::state(&self.stack.broker, stream).await.unwrap().unwrap().last_sequence
    }

    /// Numbers 1 to `n` stand once as leaves and in the stream, everything is equal and verifies.
    async fn everything_once(&self, n: usize) {
        self.standing().await;
        assert_eq!(self.leaves().await, (1..=n as i64).collect::<Vec<_>>());
        self.equal().await;
        self.verifies().await.unwrap();
        assert_eq!(self.messages(STREAM).await, n as u64);
    }

    /// Leaves of what somebody without an outbox published.
    async fn leaves_of_outsiders(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM audit.leaf WHERE subject = 'events.risk.x.y'")
            .fetch_one(&self.root)
            .await
            .unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_emptied_cut_or_made_anew_from_1_comes_back() {
    let world = World::with(20, "").await;
    within(PATIENCE, "the first look", async || {
        let known: i64 =
            sqlx::query_scalar("SELECT count(*) FROM audit.stream_known WHERE highest >= 20 AND stream = $1")
                .bind(STREAM)
                .fetch_one(&world.root)
                .await
                .unwrap();
        (known == 1).then_some(())
    })
    .await;

    let last = world.last(STREAM).await;
    world.api(&format!("STREAM.PURGE.{STREAM}"), json!({})).await;
    made_anew(PATIENCE, &world.stack.broker, &[(STREAM, last)]).await;
    world.write(3).await;
    world.everything_once(23).await;

    let last = world.last(STREAM).await;
    world.api(&format!("STREAM.MSG.DELETE.{STREAM}"), json!({"seq": last - 5})).await;
    made_anew(PATIENCE, &world.stack.broker, &[(STREAM, last)]).await;
    world.everything_once(23).await;

    // While its engine writes: deleted and created again by somebody who knows no better.
    let last = world.last(STREAM).await;
    let mut config = world.api(&format!("STREAM.INFO.{STREAM}"), json!({})).await["config"].take();
    config["first_seq"] = json!(0);
    let broken = async {
        world.api(&format!("STREAM.DELETE.{STREAM}"), json!({})).await;
        world.api(&format!("STREAM.CREATE.{STREAM}"), config).await;
        // An event of somebody without an outbox, which stands nowhere else.
        let outside = r#"{"event_id":"0190c3d5-0000-7000-8000-000000000001","event_type":"x.y"}"#;
        world.stack.broker.jetstream().publish("events.risk.x.y", outside.into()).await.unwrap().await.unwrap();
    };
    tokio::join!(world.write(30), broken);
    made_anew(PATIENCE, &world.stack.broker, &[(STREAM, last)]).await;
    world.standing().await;
    assert_eq!(world.leaves().await, (1..=53).collect::<Vec<_>>());
    world.equal().await;
    world.verifies().await.unwrap();
    assert_eq!(world.leaves_of_outsiders().await, 1);
    world.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_was_rolled_back_or_lost_everything_comes_back() {
    let mut world = World::with(20, "").await;
    world.stack.nats.keep().await;
    world.write(10).await;
    world.standing().await;
    let known = [(STREAM, world.last(STREAM).await), ("AUDIT", world.last("AUDIT").await)];
    world.stack.nats.roll_back().await;
    made_anew(PATIENCE, &world.stack.broker, &known).await;
    world.write(5).await;
    world.everything_once(35).await;

    let known = [(STREAM, world.last(STREAM).await), ("AUDIT", world.last("AUDIT").await)];
    world.stack.nats.wipe().await;
    world.write(5).await;
    made_anew(PATIENCE, &world.stack.broker, &known).await;
    world.everything_once(40).await;
    let told: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM audit.leaf WHERE event_type = 'reconciliation.mismatch' AND producer <> $1",
    )
    .bind(PRODUCER)
    .fetch_one(&world.root)
    .await
    .unwrap();
    assert!(told >= 4, "{told} losses are on record");
    world.stack.stop().await;
}

/// Its height alone does not tell: it was given more than it lost before anybody looked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_was_rolled_back_and_went_on_past_what_was_known_comes_back() {
    const OTHERS: i64 = 60;
    let mut world = World::with(20, "").await;
    world.stack.nats.keep().await;
    world.write(10).await;
    world.standing().await;
    let known = [(STREAM, world.last(STREAM).await), ("AUDIT", world.last("AUDIT").await)];
    within(PATIENCE, "the keeper to know both", async || {
        let rows: Vec<(String, i64)> =
            sqlx::query_as("SELECT stream, highest FROM audit.stream_known").fetch_all(&world.root).await.unwrap();
        let has = |(stream, highest): &(&str, u64)| rows.iter().any(|(s, h)| s == stream && *h as u64 >= *highest);
        known.iter().all(has).then_some(())
    })
    .await;
    let publish = async |url: String| {
        let client = async_nats::connect(url).await.unwrap();
        let jetstream = async_nats::jetstream::new(client);
        for n in 1..=OTHERS {
            let event = format!(r#"{{"event_id":"0190c3d5-0000-7000-8000-{n:012}","event_type":"x.y"}}"#);
            jetstream.publish("events.risk.x.y", event.into()).await.unwrap().await.unwrap();
        }
        eventually("AUDIT to have copied them", async || {
            let mut audit = jetstream.get_stream("AUDIT").await.unwrap();
            (audit.info().await.unwrap().state.last_sequence > known[1].1).then_some(())
        })
        .await;
    };
    world.stack.nats.roll_back_unseen(publish).await;
    made_anew(PATIENCE, &world.stack.broker, &known).await;
    world.write(5).await;
    world.standing().await;
    assert_eq!(world.leaves().await, (1..=35).collect::<Vec<_>>());
    world.equal().await;
    world.verifies().await.unwrap();
    assert_eq!(world.leaves_of_outsiders().await, OTHERS);
    world.stack.stop().await;
}

/// Where nobody keeps the streams, as before the keeper has looked twice: what is published again must not lift a stream to
/// its old height, where nobody could tell any more that it forgot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_on_demand_makes_anew_what_was_rolled_back() {
    let mut world = World::with(20, "[audit]\nkeep_streams = false\n").await;
    world.stack.nats.keep().await;
    world.write(10).await;
    world.standing().await;
    let known = [(STREAM, world.last(STREAM).await), ("AUDIT", world.last("AUDIT").await)];
    world.stack.nats.roll_back().await;
    within(PATIENCE, "the broker to answer again", async || {
        stored::state(&world.stack.broker, STREAM).await.ok().flatten().map(|_| ())
    })
    .await;
    world.reconcile(true).await;
    for (stream, highest) in known {
        let state = stored::state(&world.stack.broker, stream).await.unwrap().unwrap();
        assert!(state.begins_at > highest && state.mark.is_none(), "{stream}: {state:?}");
    }
    world.write(5).await;
    world.standing().await;
    assert_eq!(world.leaves().await, (1..=35).collect::<Vec<_>>());
    within(PATIENCE, "everything to be equal", async || world.reconcile(false).await.1.ok.then_some(())).await;
    world.verifies().await.unwrap();
    world.stack.stop().await;
}
