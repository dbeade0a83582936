//! Receivers that fail, and what becomes of deliveries and endpoints.

use std::collections::BTreeSet;

use deltran_notification::domain::delivery::DeliveryState::{Delivered, Failed, Pending};
use deltran_notification::domain::endpoint::{Cause, Change, EndpointState};
use deltran_notification::store::deliveries::{self, Replay};
use deltran_runtime::wire::PageOf;

use crate::place::{ALFA, Place, bank, eventually, settings};
use crate::sink::{Does, Sink};

#[tokio::test]
async fn a_receiver_that_fails_in_every_way_gets_it_under_the_same_id() {
    let mut settings = settings();
    settings.webhooks.timeout_ms = 400;
    settings.webhooks.connect_timeout_ms = 400;
    settings.webhooks.breaker_threshold = 100;
    let place = Place::with(settings).await;
    let (sink, elsewhere) = (Sink::new(Does::Answers(200)).await, Sink::new(Does::Answers(200)).await);
    let (id, told) = place.endpoint(&sink.url("/"), false).await;
    sink.then([Does::Answers(500), Does::Hangs, Does::Says(307, "location", elsewhere.url("/"))]);
    let filed = place.file(1).await;
    let sender = place.send();
    place.attempted(id, 1).await;
    place.pass(5);
    place.attempted(id, 2).await;
    place.pass(300);
    place.attempted(id, 3).await;
    sink.disappear().await;
    place.pass(1800);
    place.attempted(id, 4).await;
    sink.come_back().await;
    place.pass(7200 - 1);
    assert_eq!(deliveries::standing(place.db(), id, Pending).await.unwrap(), 1);
    place.pass(1);
    place.standing(id, Delivered, 1).await;
    assert_eq!(place.errors(id).await, ["status", "timeout", "redirect", "connect", ""]);
    let arrivals = sink.got(4).await;
    assert_eq!(arrivals.iter().map(|a| a.id()).collect::<BTreeSet<_>>(), BTreeSet::from([filed[0].id.to_string()]));
    assert_eq!(arrivals.iter().map(|a| a.body.clone()).collect::<BTreeSet<_>>().len(), 1, "the same bytes");
    let times: Vec<i64> = arrivals.iter().map(|a| a.timestamp() - arrivals[0].timestamp()).collect();
    assert_eq!(times, [0, 5, 305, 9305], "the time of the attempt is signed");
    assert!(arrivals.iter().all(|a| a.is_of_key(&told.public_key)));
    assert!(elsewhere.arrivals().is_empty(), "no redirect is followed");
    sink.let_go();
    sender.stop().await;
}

#[tokio::test]
async fn a_dead_endpoint_delays_nobody() {
    let mut settings = settings();
    // So few that one endpoint could hold them all.
    settings.webhooks.in_total = 6;
    settings.webhooks.timeout_ms = 60_000;
    let place = Place::with(settings).await;
    let (dead, alive) = (Sink::new(Does::Hangs).await, Sink::new(Does::Answers(200)).await);
    let (silent, _) = place.endpoint(&dead.url("/"), false).await;
    let (lively, _) = place.endpoint(&alive.url("/"), false).await;
    place.file(100).await;
    let sender = place.send();
    place.standing(lively, Delivered, 100).await;
    assert_eq!(alive.arrivals().len(), 100);
    // All that while the dead one held its few, and nothing of it had ended.
    assert!(place.errors(silent).await.is_empty());
    assert!((1..=4).contains(&dead.arrivals().len()), "{}", dead.arrivals().len());
    assert_eq!(deliveries::standing(place.db(), silent, Pending).await.unwrap(), 100);
    dead.let_go();
    place.standing(silent, Delivered, 100).await;
    sender.stop().await;
}

#[tokio::test]
async fn an_open_breaker_probes_and_closes() {
    let mut settings = settings();
    settings.webhooks.breaker_threshold = 3;
    settings.webhooks.breaker_pause_ms = 60_000;
    settings.webhooks.retry_ms = vec![1_000; 50];
    let place = Place::with(settings).await;
    let sink = Sink::new(Does::Answers(500)).await;
    let (id, _) = place.endpoint(&sink.url("/"), true).await;
    place.file(5).await;
    let sender = place.send();
    for tried in 1..3 {
        sink.got(tried).await;
        place.attempted(id, tried).await;
        place.pass(1);
    }
    sink.got(3).await;
    eventually("three failures", async || (place.read(id).await.health.failures == 3).then_some(())).await;
    let until = place.read(id).await.health.paused_until.unwrap();
    assert_eq!(until, place.clock_now().plus_seconds(60));
    place.pass(59);
    assert_eq!(sink.arrivals().len(), 3, "none while it is open");
    place.pass(1);
    sink.got(4).await;
    eventually("the probe failed", async || (place.read(id).await.health.failures == 4).then_some(())).await;
    assert_eq!(place.read(id).await.health.paused_until.unwrap(), place.clock_now().plus_seconds(120));
    sink.usually(Does::Answers(200));
    place.pass(120);
    place.standing(id, Delivered, 5).await;
    assert_eq!(place.read(id).await.health.failures, 0);
    sender.stop().await;
}

#[tokio::test]
async fn a_receiver_may_ask_for_time() {
    let (place, sink) = (Place::new().await, Sink::new(Does::Answers(200)).await);
    let (id, _) = place.endpoint(&sink.url("/"), false).await;
    sink.then([Does::Says(503, "retry-after", "100".into())]);
    let sender = place.send();
    place.file(1).await;
    place.attempted(id, 1).await;
    let page = PageOf { size: 10, after: None };
    let shown = deliveries::attempts(place.db(), &page, id, None, true).await.unwrap().remove(0);
    assert_eq!(shown.next_at.unwrap(), place.clock_now().plus_seconds(100));
    place.pass(99);
    place.file(1).await;
    assert_eq!(sink.arrivals().len(), 1, "nor is anything else sent to it meanwhile");
    place.pass(1);
    place.standing(id, Delivered, 2).await;
    sender.stop().await;
}

#[tokio::test]
async fn gone_disables_at_once_and_the_owner_replays() {
    let (place, sink) = (Place::new().await, Sink::new(Does::Answers(410)).await);
    let (id, _) = place.endpoint(&sink.url("/"), true).await;
    let before = place.clock_now();
    let mut missed = place.file(3).await;
    let sender = place.send();
    place.standing(id, Failed, 3).await;
    let whole = place.read(id).await;
    assert_eq!((whole.endpoint.state, whole.endpoint.cause), (EndpointState::Disabled, Some(Cause::Gone)));
    assert_eq!(sink.arrivals().len(), 1);
    let events = place.events().await;
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].0.as_str(), &events[0].1["reason"]), ("endpoint.disabled", &"GONE".into()));
    assert_eq!(events[0].1["endpoint_id"], id.to_string());
    // What comes meanwhile is not sent, and not lost.
    missed.extend(place.file(2).await);
    place.standing(id, Failed, 5).await;
    let refused = place.desk.replay(place.command(), id, Replay::FailedSince(before), &bank(ALFA)).await.unwrap_err();
    assert!(refused.to_string().contains("DISABLED (GONE)"), "{refused}");
    sink.usually(Does::Answers(200));
    place.desk.switch(place.command(), id, &Change::Enable, "moved back", &bank(ALFA)).await.unwrap();
    let replayed = place.desk.replay(place.command(), id, Replay::FailedSince(before), &bank(ALFA)).await.unwrap();
    assert_eq!(replayed, 5);
    place.standing(id, Delivered, 5).await;
    let ids: Vec<String> = sink.ids().into_iter().skip(1).collect();
    assert_eq!(ids, missed.iter().map(|n| n.id.to_string()).collect::<Vec<_>>());
    sender.stop().await;
}

#[tokio::test]
async fn five_days_of_failing_disable_and_tell() {
    let mut settings = settings();
    settings.webhooks.breaker_threshold = 1_000;
    let place = Place::with(settings).await;
    let sink = Sink::new(Does::Answers(500)).await;
    let (id, _) = place.endpoint(&sink.url("/"), false).await;
    let sender = place.send();
    for day in 0..5 {
        assert_eq!(place.read(id).await.endpoint.state, EndpointState::Enabled, "day {day}");
        place.file(1).await;
        let failures = place.read(id).await.health.failures;
        eventually("another failure", async || (place.read(id).await.health.failures > failures).then_some(())).await;
        place.pass(86_400);
    }
    eventually("disabled", async || {
        place.wake();
        (place.read(id).await.endpoint.state == EndpointState::Disabled).then_some(())
    })
    .await;
    assert_eq!(place.read(id).await.endpoint.cause, Some(Cause::Failing));
    let events = place.events().await;
    let told: Vec<&str> = events.iter().map(|(kind, _)| kind.as_str()).filter(|k| *k == "endpoint.disabled").collect();
    assert_eq!(told.len(), 1, "{events:?}");
    assert_eq!(events.last().unwrap().1["reason"], "FAILING");
    assert_eq!(deliveries::standing(place.db(), id, Pending).await.unwrap(), 0);
    // Enabled again, it is judged anew.
    sink.usually(Does::Answers(200));
    place.desk.switch(place.command(), id, &Change::Enable, "", &bank(ALFA)).await.unwrap();
    assert_eq!(place.read(id).await.health, Default::default());
    place.desk.replay(place.command(), id, Replay::FailedFrom(1), &bank(ALFA)).await.unwrap();
    place.standing(id, Delivered, 5).await;
    sender.stop().await;
}

#[tokio::test]
async fn a_delivery_that_is_given_up_is_told_and_can_be_replayed() {
    let mut settings = settings();
    settings.webhooks.retry_ms = vec![1_000, 2_000];
    settings.webhooks.breaker_threshold = 1_000;
    let place = Place::with(settings).await;
    let sink = Sink::new(Does::Answers(500)).await;
    let (id, _) = place.endpoint(&sink.url("/"), false).await;
    let filed = place.file(1).await;
    let sender = place.send();
    for (tried, wait) in [(1, 1), (2, 2)] {
        place.attempted(id, tried).await;
        place.pass(wait);
    }
    place.standing(id, Failed, 1).await;
    let events = place.events().await;
    assert_eq!((events.len(), events[0].0.as_str()), (1, "delivery.failed"));
    let data = &events[0].1;
    assert_eq!((&data["notification_id"], &data["attempts"]), (&filed[0].id.to_string().into(), &3.into()));
    assert_eq!((&data["error"], &data["kind"]), (&"status 500".into(), &"payment.received".into()));
    // Replayed it has the whole schedule before it again, and its attempts are counted on.
    let again = place.desk.replay(place.command(), id, Replay::One(filed[0].id), &bank(ALFA)).await.unwrap();
    assert_eq!(again, 1);
    place.attempted(id, 4).await;
    sink.usually(Does::Answers(200));
    place.pass(1);
    place.standing(id, Delivered, 1).await;
    assert_eq!(place.errors(id).await, ["status", "status", "status", "status", ""]);
    assert_eq!(sink.ids(), vec![filed[0].id.to_string(); 5]);
    // One that was taken is sent again where it is asked for by name, and by name only.
    let failed = place.desk.replay(place.command(), id, Replay::FailedFrom(0), &bank(ALFA)).await.unwrap();
    let one = place.desk.replay(place.command(), id, Replay::One(filed[0].id), &bank(ALFA)).await.unwrap();
    assert_eq!((failed, one), (0, 1));
    sink.got(6).await;
    place.standing(id, Delivered, 1).await;
    sender.stop().await;
}
