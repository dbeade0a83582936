//! The commands on endpoints, and the tables behind them.

use deltran_kernel::EndpointId;
use deltran_notification::domain::Kind;
use deltran_notification::domain::delivery::DeliveryState::{Delivered, Failed, Pending};
use deltran_notification::domain::endpoint::{Cause, Change, EndpointState, MAX_ENDPOINTS, Wish};
use deltran_notification::store::deliveries::{self, Replay};
use deltran_notification::store::endpoints;
use deltran_notification::webhook::desk::{DeskError, Edit};
use deltran_notification::webhook::vault::KeyText;
use deltran_runtime::wire::PageOf;
use deltran_runtime::{Failure, FailureKind};

use crate::place::{ALFA, BRAVO, Place, bank, eventually, operator, settings};
use crate::sink::{Does, Sink};

fn wish(url: &str) -> Wish {
    Wish { url: url.to_owned(), kinds: [Kind::PaymentReceived].into(), in_order: false }
}

fn refusal(error: DeskError) -> (FailureKind, String) {
    let failure = Failure::from(error);
    (failure.kind, failure.message)
}

#[tokio::test]
async fn a_command_is_carried_out_once() {
    let place = Place::new().await;
    let id = place.endpoint_id();
    let create = async |wish: Wish| place.create(id, ALFA, wish).await;
    let (first, told) = create(wish("https://a.example.com")).await.unwrap();
    assert!(told.unwrap().shared.starts_with("whsec_"));
    let (again, told) = create(wish("https://a.example.com/")).await.unwrap();
    assert_eq!((&again, told), (&first, None), "the same URL in its normal form, and the secret is told once");
    assert_eq!(refusal(create(wish("https://b.example.com")).await.unwrap_err()).0, FailureKind::Conflict);
    let stolen = place.create(id, BRAVO, wish("https://a.example.com")).await;
    assert_eq!(refusal(stolen.unwrap_err()).0, FailureKind::Conflict);

    let command = place.command();
    let edit = |url: &str| Edit { url: Some(url.into()), kinds: Some(Default::default()), in_order: Some(true) };
    let update = async |url: &str| place.desk.update(command, id, edit(url), &bank(ALFA)).await;
    let updated = update("https://b.example.com/").await.unwrap();
    assert_eq!((updated.endpoint.version, updated.endpoint.wish.url.as_str()), (2, "https://b.example.com/"));
    assert!(updated.endpoint.wish.kinds.is_empty() && updated.endpoint.wish.in_order);
    assert_eq!(update("https://b.example.com/").await.unwrap(), updated);
    assert_eq!(refusal(update("https://c.example.com/").await.unwrap_err()).0, FailureKind::Conflict);
    let other = place.desk.switch(command, id, &Change::Disable, "", &bank(ALFA)).await;
    assert_eq!(refusal(other.unwrap_err()).0, FailureKind::Conflict);
    let bad = place.desk.update(place.command(), id, edit("http://b.example.com/"), &bank(ALFA)).await;
    assert_eq!(refusal(bad.unwrap_err()).0, FailureKind::Malformed);

    let command = place.command();
    let rotate = async || place.desk.rotate(command, id, None, &bank(ALFA)).await.unwrap();
    let (rotated, told) = rotate().await;
    assert!(told.is_some());
    assert_eq!(rotated.secrets.iter().map(|s| s.version.number).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(rotated.secrets[1].version.expires_at, Some(place.clock_now().plus_seconds(86_400)));
    assert_eq!(rotate().await, (rotated, None));
    for _ in 0..2 {
        place.desk.rotate(place.command(), id, None, &bank(ALFA)).await.unwrap();
    }
    let (kind, message) = refusal(place.desk.rotate(place.command(), id, None, &bank(ALFA)).await.unwrap_err());
    assert_eq!(kind, FailureKind::WrongState);
    assert!(message.contains("4 secrets sign"), "{message}");
    let secrets = place.desk.rotate(place.command(), id, Some(0), &bank(ALFA)).await.unwrap().0.secrets;
    assert!(secrets[1..].iter().all(|s| !s.version.signs(place.clock_now())));

    let steps: Vec<(i64, String)> = sqlx::query_as("SELECT version, change FROM endpoint_step ORDER BY version")
        .fetch_all(&mut place.root().await)
        .await
        .unwrap();
    assert_eq!(steps.len(), 6, "{steps:?}");
    assert_eq!(steps[..2], [(1, "created".to_owned()), (2, "updated".to_owned())]);
}

#[tokio::test]
async fn a_bank_keeps_its_own_and_an_operator_stops() {
    let place = Place::new().await;
    let (id, _) = place.endpoint("https://a.example.com/", false).await;
    place.file(2).await;
    let switch = async |change: Change, by| place.desk.switch(place.command(), id, &change, "why", &by).await;
    for change in [Change::Disable, Change::Enable, Change::Delete] {
        assert_eq!(refusal(switch(change, bank(BRAVO)).await.unwrap_err()).0, FailureKind::NotFound);
    }
    let absent = place.desk.rotate(place.command(), place.endpoint_id(), None, &bank(ALFA)).await;
    assert_eq!(refusal(absent.unwrap_err()).0, FailureKind::NotFound);
    let stopped = switch(Change::Disable, operator()).await.unwrap().endpoint;
    assert_eq!(
        (stopped.state, stopped.cause, stopped.note.as_str()),
        (EndpointState::Disabled, Some(Cause::Operator), "why")
    );
    assert_eq!(deliveries::standing(place.db(), id, Failed).await.unwrap(), 2, "given up");
    assert_eq!(refusal(switch(Change::Enable, bank(ALFA)).await.unwrap_err()).0, FailureKind::Unauthorised);
    let (kind, message) = refusal(switch(Change::Disable, operator()).await.unwrap_err());
    assert_eq!(kind, FailureKind::WrongState);
    assert!(message.contains("DISABLED (OPERATOR)"), "{message}");
    assert_eq!(switch(Change::Enable, operator()).await.unwrap().endpoint.state, EndpointState::Enabled);
    switch(Change::Disable, bank(ALFA)).await.unwrap();
    let events = place.events().await;
    let reasons: Vec<&str> = events.iter().map(|(_, data)| data["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["OPERATOR", "OWNER"]);
    assert_eq!(switch(Change::Delete, bank(ALFA)).await.unwrap().endpoint.state, EndpointState::Deleted);
    assert_eq!(refusal(switch(Change::Enable, bank(ALFA)).await.unwrap_err()).0, FailureKind::WrongState);
    place.file(1).await;
    assert_eq!(deliveries::standing(place.db(), id, Failed).await.unwrap(), 2, "a deleted one misses nothing");
    assert_eq!(deliveries::owner(place.db(), id).await.unwrap(), Some(ALFA.parse().unwrap()));
    assert_eq!(deliveries::owner(place.db(), place.endpoint_id()).await.unwrap(), None);
}

#[tokio::test]
async fn a_disabled_endpoint_gets_nothing_until_it_is_enabled() {
    let (place, sink) = (Place::new().await, Sink::new(Does::Answers(200)).await);
    let (id, _) = place.endpoint(&sink.url("/"), false).await;
    let sender = place.send();
    place.file(1).await;
    place.standing(id, Delivered, 1).await;
    place.desk.switch(place.command(), id, &Change::Disable, "", &bank(ALFA)).await.unwrap();
    let missed = place.file(2).await;
    assert_eq!(deliveries::standing(place.db(), id, Failed).await.unwrap(), 2);
    place.desk.switch(place.command(), id, &Change::Enable, "", &bank(ALFA)).await.unwrap();
    let kept = place.file(1).await;
    place.standing(id, Delivered, 2).await;
    assert_eq!(sink.ids()[1..], [kept[0].id.to_string()]);
    let one = Replay::FailedFrom(missed[1].position);
    assert_eq!(place.desk.replay(place.command(), id, one, &bank(ALFA)).await.unwrap(), 1);
    place.standing(id, Delivered, 3).await;
    assert_eq!(sink.ids()[2..], [missed[1].id.to_string()]);
    let unknown = Replay::One(deltran_kernel::EventId::new(id.uuid()));
    let (kind, message) = refusal(place.desk.replay(place.command(), id, unknown, &bank(ALFA)).await.unwrap_err());
    assert_eq!(kind, FailureKind::NotFound);
    assert!(message.contains("never sent"), "{message}");
    let command = place.command();
    for _ in 0..2 {
        let again = place.desk.replay(command, id, Replay::FailedFrom(0), &bank(ALFA)).await.unwrap();
        assert_eq!(again, 1, "asked again, the answer is the same");
    }
    place.standing(id, Delivered, 4).await;
    sender.stop().await;
}

#[tokio::test]
async fn endpoints_are_listed_by_owner_and_state() {
    let place = Place::new().await;
    let mut ids: Vec<EndpointId> = Vec::new();
    for n in 0..MAX_ENDPOINTS {
        let id = place.endpoint_id();
        let wish = wish(&format!("https://a{n}.example.com/"));
        place.create(id, ALFA, wish).await.unwrap();
        ids.push(id);
    }
    ids.sort();
    let more = place.create(place.endpoint_id(), ALFA, wish("https://b.example.com")).await;
    let (kind, message) = refusal(more.unwrap_err());
    assert_eq!(kind, FailureKind::WrongState);
    assert!(message.contains("20 endpoints"), "{message}");
    let other = place.endpoint_id();
    place.create(other, BRAVO, wish("https://b.example.com")).await.unwrap();
    place.desk.switch(place.command(), ids[0], &Change::Delete, "", &bank(ALFA)).await.unwrap();
    place.desk.switch(place.command(), ids[1], &Change::Disable, "", &bank(ALFA)).await.unwrap();
    let list = async |size, after, of: Option<&str>, state| {
        let page = PageOf { size, after };
        let of = of.map(|p| p.parse().unwrap());
        let rows = endpoints::list(place.db(), &page, of, state).await.unwrap();
        assert!(rows.iter().all(|whole| whole.secrets.len() == 1));
        rows.into_iter().map(|whole| whole.endpoint.endpoint_id).collect::<Vec<_>>()
    };
    assert_eq!(list(100, None, Some(ALFA), None).await, ids[1..]);
    assert_eq!(list(3, Some(ids[4]), Some(ALFA), None).await, ids[5..8]);
    assert_eq!(list(100, None, None, Some(EndpointState::Deleted)).await, ids[..1]);
    assert_eq!(list(100, None, Some(ALFA), Some(EndpointState::Disabled)).await, ids[1..2]);
    assert_eq!(list(100, None, Some(BRAVO), None).await, [other]);
    assert_eq!(list(100, None, None, None).await.len(), MAX_ENDPOINTS);
}

#[tokio::test]
async fn without_its_master_key_nothing_is_made_and_what_waits_is_kept() {
    let (place, sink) = (Place::new().await, Sink::new(Does::Answers(200)).await);
    let (id, _) = place.endpoint(&sink.url("/"), false).await;
    place.file(1).await;
    for key in [KeyText::default(), KeyText::new("CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg=")] {
        let missing = key.is_empty();
        let mut settings = settings();
        settings.master_key = key;
        let elsewhere = place.beside(settings).await;
        if missing {
            let made = elsewhere.create(place.endpoint_id(), ALFA, wish("https://a.example.com")).await;
            let failure = Failure::from(made.unwrap_err());
            assert_eq!((failure.kind, failure.reason), (FailureKind::WrongState, "no_master_key"));
            assert!(failure.message.contains("DELTRAN_NOTIFICATION_MASTER_KEY"), "{}", failure.message);
        }
        let sender = elsewhere.send();
        let alert = || elsewhere.context.metrics.alerts.with_label_values(&["notification_webhooks_unsigned"]).get();
        eventually("the alert", async || (alert() == 1).then_some(())).await;
        assert_eq!(deliveries::standing(place.db(), id, Pending).await.unwrap(), 1);
        sender.stop().await;
    }
    assert!(sink.arrivals().is_empty());
    let sender = place.send();
    place.standing(id, Delivered, 1).await;
    sender.stop().await;
}

#[tokio::test]
async fn secrets_are_not_stored_in_the_open_and_history_stays() {
    let (place, sink) = (Place::new().await, Sink::new(Does::Answers(200)).await);
    let (id, told) = place.endpoint(&sink.url("/"), false).await;
    place.file(1).await;
    let sender = place.send();
    place.standing(id, Delivered, 1).await;
    sender.stop().await;
    let secret = told.shared.strip_prefix("whsec_").unwrap().to_owned();
    for table in ["endpoint", "endpoint_step", "endpoint_secret", "endpoint_command", "delivery", "attempt", "outbox"] {
        let statement = format!("SELECT count(*) FROM {table} t WHERE t::text LIKE '%' || $1 || '%'");
        let shown: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(statement))
            .bind(&secret)
            .fetch_one(&mut place.root().await)
            .await
            .unwrap();
        assert_eq!(shown, 0, "{table}");
    }
    for statement in [
        "UPDATE attempt SET error = 'x'",
        "DELETE FROM attempt",
        "TRUNCATE attempt",
        "UPDATE endpoint_step SET note = 'x'",
        "DELETE FROM endpoint_step",
    ] {
        let refused = sqlx::raw_sql(statement).execute(&mut place.root().await).await.unwrap_err().to_string();
        assert!(refused.contains("append-only"), "{statement}: {refused}");
        let refused = sqlx::raw_sql(statement).execute(place.db().pool()).await.unwrap_err().to_string();
        assert!(refused.contains("permission denied"), "{statement} by the engine: {refused}");
    }
}

#[tokio::test]
async fn what_ended_long_ago_is_dropped_with_its_attempts_and_nothing_else() {
    let (place, sink) = (Place::new().await, Sink::new(Does::Answers(200)).await);
    let (id, _) = place.endpoint(&sink.url("/"), false).await;
    sink.then([200, 200, 410].map(Does::Answers));
    let first = place.file(2).await;
    let sender = place.send();
    place.standing(id, Delivered, 2).await;
    place.file(1).await;
    place.standing(id, Failed, 1).await;
    place.desk.switch(place.command(), id, &Change::Enable, "", &bank(ALFA)).await.unwrap();
    // What waits is as old as the rest: its time to be sent does not come.
    sink.then([Does::Says(503, "retry-after", "86400".into())]);
    place.file(1).await;
    place.attempted(id, 4).await;
    sender.stop().await;
    place.clock.advance_micros(1_000_000);
    let now = place.clock_now();
    let drop = async |before, most| {
        let mut tx = place.context.db.begin().await.unwrap();
        let dropped = deliveries::drop_before(&mut tx, before, most).await.unwrap();
        tx.commit().await.unwrap();
        dropped
    };
    assert_eq!(drop(now.plus_seconds(-1), 10).await, 0, "not yet");
    // One that is replayed at this moment stays, and nobody waits for that.
    let mut replaying = place.context.db.begin().await.unwrap();
    let replayed = deliveries::replay(&mut replaying, id, Replay::One(first[0].id), now).await.unwrap();
    assert_eq!(replayed, Some(1));
    assert_eq!(drop(now, 1).await, 1, "no more than is asked for");
    assert_eq!(drop(now, 10).await, 1);
    replaying.commit().await.unwrap();
    assert_eq!(drop(now, 10).await, 0);
    let of = async |state| deliveries::standing(place.db(), id, state).await.unwrap();
    assert_eq!((of(Pending).await, of(Delivered).await, of(Failed).await), (2, 0, 0));
    let page = PageOf { size: 10, after: None };
    let kept = deliveries::attempts(place.db(), &page, id, None, false).await.unwrap();
    assert_eq!(kept.iter().map(|a| a.status).collect::<Vec<_>>(), [Some(503), Some(200)]);
    for statement in ["DELETE FROM delivery", "TRUNCATE delivery CASCADE"] {
        let refused = sqlx::raw_sql(statement).execute(&mut place.root().await).await.unwrap_err().to_string();
        assert!(refused.contains("still to be sent") || refused.contains("append-only"), "{statement}: {refused}");
    }
}
