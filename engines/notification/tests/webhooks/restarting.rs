//! Senders that end, freeze or lose their database in the middle, and endpoints that change meanwhile.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use deltran_notification::domain::breaker::Breaker;
use deltran_notification::domain::delivery::DeliveryState::{Delivered, Failed, Pending};
use deltran_notification::domain::delivery::{Attempt, Conclusion, Delivery, conclude};
use deltran_notification::domain::endpoint::{Change, EndpointState};
use deltran_notification::domain::retry::Answer;
use deltran_notification::store::deliveries;
use deltran_notification::webhook::connector::Resolve;
use deltran_notification::webhook::desk::Edit;
use deltran_notification::webhook::settings::Webhooks;
use deltran_runtime::lease;
use deltran_runtime::wire::PageOf;

use crate::place::{ALFA, Place, bank, eventually, settings};
use crate::sink::{Does, Sink};

#[tokio::test]
async fn what_was_under_way_is_sent_again_by_the_next_one() {
    let (place, sink) = (Place::new().await, Sink::new(Does::Answers(200)).await);
    let (id, told) = place.endpoint(&sink.url("/"), true).await;
    let filed = place.file(5).await;
    sink.then([Does::Answers(200), Does::Hangs]);
    let frozen = place.send();
    sink.got(2).await;
    place.standing(id, Delivered, 1).await;
    // Its lease runs out while it waits for an answer; another takes over.
    lease::end_all(place.db()).await.unwrap();
    let next = place.send_elsewhere("another");
    place.standing(id, Delivered, 5).await;
    // The answer comes late, to one that may not write any more.
    sink.let_go();
    frozen.stop().await;
    let expected: Vec<String> = [0, 1, 1, 2, 3, 4].map(|n: usize| filed[n].id.to_string()).to_vec();
    assert_eq!(sink.ids(), expected, "at least once, in order");
    assert!(sink.arrivals().iter().all(|a| a.is_of_secret(&told.shared)));
    let page = PageOf { size: 100, after: None };
    let attempts = deliveries::attempts(place.db(), &page, id, None, false).await.unwrap();
    assert_eq!(attempts.len(), 5, "what was not committed did not happen");
    next.stop().await;
}

#[tokio::test]
async fn an_orderly_end_stores_what_is_under_way() {
    let (place, sink) = (Place::new().await, Sink::new(Does::Hangs).await);
    let (id, _) = place.endpoint(&sink.url("/"), false).await;
    place.file(3).await;
    let first = place.send();
    sink.got(3).await;
    sink.let_go();
    first.stop().await;
    assert_eq!(deliveries::standing(place.db(), id, Delivered).await.unwrap(), 3);
    let next = place.send_elsewhere("another");
    place.file(1).await;
    place.standing(id, Delivered, 4).await;
    assert_eq!(sink.arrivals().len(), 4, "none twice");
    next.stop().await;
}

#[tokio::test]
async fn health_outlives_a_restart() {
    let (place, sink) = (Place::new().await, Sink::new(Does::Answers(500)).await);
    let (id, _) = place.endpoint(&sink.url("/"), false).await;
    place.file(1).await;
    let first = place.send();
    eventually("a failure", async || (place.read(id).await.health.failures == 1).then_some(())).await;
    first.stop().await;
    let since = place.read(id).await.health.failing_since;
    assert!(since.is_some());
    let next = place.send_elsewhere("another");
    place.pass(5);
    eventually("another failure", async || (place.read(id).await.health.failures == 2).then_some(())).await;
    assert_eq!(place.read(id).await.health.failing_since, since);
    assert_eq!(deliveries::standing(place.db(), id, Pending).await.unwrap(), 1);
    next.stop().await;
}

#[tokio::test]
async fn another_process_sees_what_is_filed_and_changed() {
    let (place, sink) = (Place::new().await, Sink::new(Does::Answers(200)).await);
    let sender = place.send_elsewhere("another");
    let (id, _) = place.endpoint(&sink.url("/"), false).await;
    place.file(2).await;
    sink.got(2).await;
    place.standing(id, Delivered, 2).await;
    sender.stop().await;
}

#[tokio::test]
async fn while_results_cannot_be_stored_nothing_is_sent_twice() {
    let (place, sink) = (Place::new().await, Sink::new(Does::Hangs).await);
    let (id, _) = place.endpoint(&sink.url("/"), true).await;
    place.file(2).await;
    let sender = place.send();
    sink.got(1).await;
    let mut root = place.root().await;
    sqlx::raw_sql("ALTER TABLE attempt RENAME TO away").execute(&mut root).await.unwrap();
    sink.let_go();
    sink.usually(Does::Answers(200));
    eventually("the trouble is told", async || {
        place.context.health.problems().contains_key("notification.webhooks").then_some(())
    })
    .await;
    assert_eq!(deliveries::standing(place.db(), id, Pending).await.unwrap(), 2);
    sqlx::raw_sql("ALTER TABLE away RENAME TO attempt").execute(&mut root).await.unwrap();
    place.standing(id, Delivered, 2).await;
    assert_eq!(sink.arrivals().len(), 2, "each once");
    assert!(place.context.health.problems().is_empty());
    sender.stop().await;
}

/// As where the answer to a COMMIT is lost: the same results are stored again.
#[tokio::test]
async fn results_count_once_and_what_was_taken_was_taken() {
    let place = Place::new().await;
    let (id, _) = place.endpoint("http://127.0.0.1:9/", false).await;
    place.file(3).await;
    let found = deliveries::next(place.db(), &[(id, 10)], false).await.unwrap().remove(&id).unwrap();
    let rules = Webhooks::default().rules();
    let now = place.clock_now();
    let concluded = |delivery: &Delivery, code| {
        let answer = Answer::Status { code, retry_after: None };
        let attempt = Attempt { at: now, duration_ms: 1, answer, response: String::new() };
        let mut breaker = Breaker::new(Default::default(), &rules);
        let schedule = (&Webhooks { retry_ms: vec![], ..Webhooks::default() }.schedule(), &rules);
        conclude(delivery.clone(), "ALFAAEXX".parse().unwrap(), attempt, Some(&mut breaker), schedule, (0, now))
    };
    let results = [concluded(&found[0], 200), concluded(&found[1], 500)];
    let store = async |results: &[Conclusion]| {
        let mut tx = place.context.db.begin().await.unwrap();
        let new = deliveries::conclude(&mut tx, results, now).await.unwrap();
        tx.commit().await.unwrap();
        new.len()
    };
    assert_eq!(store(&results).await, 2);
    assert_eq!(store(&results).await, 0, "nothing follows from them twice");
    let counts = async || {
        let of = async |state| deliveries::standing(place.db(), id, state).await.unwrap();
        (of(Delivered).await, of(Failed).await, of(Pending).await, place.errors(id).await.len())
    };
    assert_eq!(counts().await, (1, 1, 1, 2));
    // Disabled while it was under way: a failure changes nothing, a success happened.
    place.desk.switch(place.command(), id, &Change::Disable, "", &bank(ALFA)).await.unwrap();
    assert_eq!(store(&[concluded(&found[2], 500)]).await, 1);
    assert_eq!(counts().await, (1, 2, 0, 3));
    let later = Delivery { attempts: 1, ..found[2].clone() };
    assert_eq!(store(&[concluded(&later, 200)]).await, 1);
    assert_eq!(counts().await, (2, 1, 0, 4));
}

/// An endpoint is moved while its old address has yet to answer. Whether the sender has seen the change or not, what
/// the old one says neither disables the endpoint nor counts against it.
#[tokio::test]
async fn a_moved_endpoint_is_not_judged_by_its_old_address() {
    for (code, word) in [(410, "gone"), (500, "status")] {
        for seen in [true, false] {
            let mut settings = settings();
            settings.webhooks.poll_ms = if seen { 10 } else { 60_000 };
            settings.webhooks.retry_ms = vec![1];
            let place = Place::with(settings).await;
            let (old, new) = (Sink::new(Does::HangsThen(code)).await, Sink::new(Does::Answers(200)).await);
            let (id, _) = place.endpoint(&old.url("/"), false).await;
            place.file(1).await;
            let sender = place.send_elsewhere("another");
            old.got(1).await;
            let edit = Edit { url: Some(new.url("/")), ..Edit::default() };
            place.desk.update(place.command(), id, edit, &bank(ALFA)).await.unwrap();
            let mut filed = 1;
            if seen {
                place.file(1).await;
                filed += 1;
                new.got(1).await;
                place.standing(id, Delivered, 1).await;
            }
            old.let_go();
            eventually("the old one's answer", async || {
                place.errors(id).await.contains(&word.to_owned()).then_some(())
            })
            .await;
            let whole = place.read(id).await;
            assert_eq!((whole.endpoint.state, whole.endpoint.version), (EndpointState::Enabled, 2), "{code} {seen}");
            assert_eq!(whole.health, Default::default(), "{code} {seen}");
            place.pass(1);
            place.standing(id, Delivered, filed).await;
            assert_eq!((old.arrivals().len(), new.arrivals().len()), (1, filed as usize), "{code} {seen}");
            assert!(place.events().await.is_empty());
            sender.stop().await;
        }
    }
}

/// A resolver with a defect that shows once.
struct Fails(AtomicBool);

#[async_trait]
impl Resolve for Fails {
    async fn resolve(&self, _: &str, _: u16) -> io::Result<Vec<IpAddr>> {
        assert!(self.0.swap(true, Ordering::SeqCst), "a defect");
        Ok(vec![IpAddr::from([127, 0, 0, 1])])
    }
}

#[tokio::test]
async fn what_a_defect_took_down_is_sent_again() {
    let place = Place::over(settings(), Arc::new(Fails(AtomicBool::new(false)))).await;
    let (id, _) = place.endpoint("https://bank.example.com/", true).await;
    place.file(1).await;
    let sender = place.send();
    place.attempted(id, 1).await;
    assert_eq!(place.errors(id).await, ["address_refused"]);
    sender.stop().await;
}
