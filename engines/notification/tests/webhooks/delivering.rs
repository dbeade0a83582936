//! What arrives, signed, in which order, and what is kept of it.

use deltran_notification::domain::Kind;
use deltran_notification::domain::delivery::DeliveryState::{Delivered, Failed, Pending};
use deltran_notification::store::deliveries::{self, Replay};
use deltran_runtime::wire::PageOf;

use crate::place::{ALFA, BRAVO, Place, bank, settings};
use crate::sink::{Does, Sink};

fn all<K>() -> PageOf<K> {
    PageOf { size: 1000, after: None }
}

#[tokio::test]
async fn each_notification_arrives_signed_and_is_kept() {
    let (place, sink) = (Place::new().await, Sink::new(Does::Tells(200, b"thanks \xff\n".to_vec())).await);
    let (id, told) = place.endpoint(&sink.url("/hook?x=1"), false).await;
    let filed = place.file(3).await;
    let sender = place.send();
    place.standing(id, Delivered, 3).await;
    let mut arrivals = sink.got(3).await;
    arrivals.sort_by_key(|arrival| arrival.body.clone());
    for (arrival, n) in arrivals.iter().zip(&filed) {
        assert_eq!((arrival.id(), arrival.path.as_str()), (n.id.to_string(), "/hook"));
        assert_eq!(arrival.body, n.body.as_bytes());
        assert!(arrival.is_of_secret(&told.shared) && arrival.is_of_key(&told.public_key));
        assert_eq!(arrival.headers["content-type"], "application/json");
        assert!(arrival.headers["user-agent"].to_str().unwrap().starts_with("DelTran-Webhooks/"));
    }
    let attempts = deliveries::attempts(place.db(), &all(), id, None, false).await.unwrap();
    assert_eq!(attempts.len(), 3);
    for attempt in &attempts {
        assert_eq!((attempt.number, attempt.status, attempt.error.as_str()), (1, Some(200), ""));
        assert_eq!((attempt.response.as_str(), attempt.state.as_str()), (r"thanks \xff\n", "DELIVERED"));
        assert_eq!((attempt.kind, attempt.next_at), (Kind::PaymentReceived, None));
    }
    assert!(attempts.is_sorted_by(|a, b| a.attempt_id > b.attempt_id), "the latest first");
    let page = PageOf { size: 1, after: Some(attempts[0].attempt_id) };
    assert_eq!(deliveries::attempts(place.db(), &page, id, None, false).await.unwrap(), attempts[1..2]);
    let of_one = deliveries::attempts(place.db(), &all(), id, Some(filed[0].id), false).await.unwrap();
    assert_eq!(of_one.iter().map(|a| a.notification_id).collect::<Vec<_>>(), [filed[0].id]);
    assert!(deliveries::attempts(place.db(), &all(), id, None, true).await.unwrap().is_empty());
    assert!(place.events().await.is_empty(), "what goes well is no event");
    sender.stop().await;
}

#[tokio::test]
async fn an_endpoint_gets_its_owners_notifications_of_the_kinds_that_it_wants() {
    use deltran_notification::domain::endpoint::Wish;
    let (place, sink) = (Place::new().await, Sink::new(Does::Answers(204)).await);
    let wish = |url: &str, kinds: &[Kind]| Wish {
        url: sink.url(url),
        kinds: kinds.iter().copied().collect(),
        in_order: false,
    };
    let some = place.endpoint_id();
    let wanted = [Kind::PositionChanged, Kind::EndpointDisabled];
    place.create(some, ALFA, wish("/some", &wanted)).await.unwrap();
    let (every, _) = place.endpoint(&sink.url("/every"), false).await;
    let other = place.endpoint_id();
    place.create(other, BRAVO, wish("/other", &[])).await.unwrap();
    for kind in [Kind::PaymentReceived, Kind::PositionChanged, Kind::DeliveryFailed, Kind::EndpointDisabled] {
        place.file_of(ALFA, kind, 1).await;
    }
    let mine = place.file_of(BRAVO, Kind::PaymentReceived, 1).await;
    let sender = place.send();
    place.standing(some, Delivered, 2).await;
    place.standing(every, Delivered, 3).await;
    place.standing(other, Delivered, 1).await;
    let arrivals = sink.got(6).await;
    let to = |path: &str| arrivals.iter().filter(|a| a.path == path).count();
    assert_eq!((to("/some"), to("/every"), to("/other")), (2, 3, 1));
    assert!(arrivals.iter().all(|a| !String::from_utf8_lossy(&a.body).contains("delivery.failed")), "it would loop");
    assert_eq!(arrivals.iter().find(|a| a.path == "/other").unwrap().id(), mine[0].id.to_string());
    sender.stop().await;
}

#[tokio::test]
async fn filing_again_changes_nothing() {
    let place = Place::new().await;
    let (id, _) = place.endpoint("http://127.0.0.1:9/", false).await;
    let filed = place.file(2).await;
    let mut tx = place.context.db.begin().await.unwrap();
    deliveries::file(&mut tx, &filed).await.unwrap();
    deliveries::file(&mut tx, &[]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(deliveries::standing(place.db(), id, Pending).await.unwrap(), 2);
}

#[tokio::test]
async fn an_endpoint_in_order_is_never_overtaken() {
    let (place, sink) = (Place::new().await, Sink::new(Does::Answers(200)).await);
    let (id, _) = place.endpoint(&sink.url("/"), true).await;
    let filed = place.file(40).await;
    // The first passes; the second fails twice; one in the middle is given up.
    sink.then([200, 500, 503, 200, 200].map(Does::Answers));
    let sender = place.send();
    place.attempted(id, 2).await;
    place.pass(5);
    place.attempted(id, 3).await;
    place.pass(300);
    place.standing(id, Delivered, 40).await;
    let expected: Vec<String> = [0, 1, 1].into_iter().chain(1..40).map(|n| filed[n].id.to_string()).collect();
    assert_eq!(sink.ids(), expected);
    // One that is given up holds up nobody; replayed, it comes first again.
    sink.then(std::iter::repeat_n(Does::Answers(500), 8));
    let more = place.file(3).await;
    for (tried, wait) in (1..).zip([5, 300, 1800, 7200, 18_000, 36_000, 36_000]) {
        place.attempted(id, 42 + tried).await;
        assert_eq!(sink.ids().last().unwrap(), &more[0].id.to_string());
        place.pass(wait);
    }
    place.attempted(id, 42 + 8).await;
    assert_eq!(deliveries::standing(place.db(), id, Failed).await.unwrap(), 1);
    // The breaker is open by now: the next is a probe.
    place.pass(3600);
    place.standing(id, Delivered, 42).await;
    let replayed = place.desk.replay(place.command(), id, Replay::One(more[0].id), &bank(ALFA)).await.unwrap();
    assert_eq!(replayed, 1);
    place.standing(id, Delivered, 43).await;
    let ids: Vec<String> = sink.ids().into_iter().skip(42 + 8).collect();
    assert_eq!(ids, [&more[1], &more[2], &more[0]].map(|n| n.id.to_string()));
    sender.stop().await;
}

#[tokio::test]
async fn a_rotation_signs_with_both_for_a_while() {
    let (place, sink) = (Place::new().await, Sink::new(Does::Answers(200)).await);
    let (id, old) = place.endpoint(&sink.url("/"), false).await;
    let sender = place.send();
    place.file(1).await;
    place.standing(id, Delivered, 1).await;
    let (whole, new) = place.desk.rotate(place.command(), id, Some(60_000_000), &bank(ALFA)).await.unwrap();
    let new = new.unwrap();
    assert_eq!(whole.secrets.len(), 2);
    place.file(1).await;
    place.standing(id, Delivered, 2).await;
    place.pass(60);
    place.file(1).await;
    place.standing(id, Delivered, 3).await;
    let arrivals = sink.got(3).await;
    let verified = |secret: &str, key: &str| {
        arrivals.iter().map(|a| (a.is_of_secret(secret), a.is_of_key(key))).collect::<Vec<_>>()
    };
    let (yes, no) = ((true, true), (false, false));
    assert_eq!(verified(&old.shared, &old.public_key), [yes, yes, no]);
    assert_eq!(verified(&new.shared, &new.public_key), [no, yes, yes]);
    // A secret that leaked ends at once.
    let (_, fresh) = place.desk.rotate(place.command(), id, Some(0), &bank(ALFA)).await.unwrap();
    place.file(1).await;
    place.standing(id, Delivered, 4).await;
    let last = sink.got(4).await.pop().unwrap();
    assert!(last.is_of_secret(&fresh.unwrap().shared) && !last.is_of_secret(&new.shared));
    sender.stop().await;
}

#[tokio::test]
async fn much_of_a_response_is_not_kept() {
    let mut settings = settings();
    settings.webhooks.timeout_ms = 2_000;
    settings.webhooks.connect_timeout_ms = 2_000;
    let place = Place::with(settings).await;
    let mut huge = vec![b'x'; 4 * 1024 * 1024];
    huge[1] = 0;
    let sink = Sink::new(Does::Tells(200, huge)).await;
    let (id, _) = place.endpoint(&sink.url("/"), false).await;
    place.file(3).await;
    let sender = place.send();
    place.standing(id, Delivered, 3).await;
    let attempts = deliveries::attempts(place.db(), &all(), id, None, false).await.unwrap();
    for attempt in attempts {
        assert_eq!(attempt.response.len(), 1023 + r"\x00".len());
        assert!(attempt.response.starts_with(r"x\x00x"));
    }
    // A head that does not end is no answer.
    let endless = Sink::new(Does::Says(200, "x-long", "y".repeat(64 * 1024))).await;
    let (other, _) = place.endpoint(&endless.url("/"), false).await;
    place.file(1).await;
    endless.got(1).await;
    crate::place::eventually("an attempt", async || {
        let attempts = deliveries::attempts(place.db(), &all(), other, None, true).await.unwrap();
        attempts.first().map(|attempt| assert_eq!(attempt.error, "protocol"))
    })
    .await;
    sender.stop().await;
}

/// How fast it goes, for people: `--nocapture` shows it. The condition is that all arrive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_arrive() {
    const MANY: u64 = 4_000;
    let (place, sink) = (Place::new().await, Sink::new(Does::Answers(200)).await);
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(place.endpoint(&sink.url(&format!("/{n}")), false).await.0);
    }
    place.file(MANY / 4).await;
    let started = tokio::time::Instant::now();
    let sender = place.send();
    sink.got(MANY as usize).await;
    for id in ids {
        place.standing(id, Delivered, MANY / 4).await;
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{MANY} deliveries to 4 endpoints in {seconds:.2} s: {:.0} a second", MANY as f64 / seconds);
    assert_eq!(sink.arrivals().len(), MANY as usize, "each once");
    sender.stop().await;
}
