//! Webhooks of the real program, by its commands: payments reach a receiver that goes away while the program is
//! killed, each under one id and signed by a secret that outlives both.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use deltran_api::notification::v1::notification_service_client::NotificationServiceClient;
use deltran_api::notification::v1::{ListNotificationsRequest, SubscribeRequest};
use deltran_tests::node::{Deltran, PATIENCE, id, pay, run, submit_many};
use deltran_tests::receiver::{Arrivals, Receiver, ids};
use deltran_tests::{As, within};
use serde_json::Value;

const ALFA: &str = "ALFAAEXX";
const BRAVO: &str = "BRAVINXX";
const TOML: &str = "[notification.webhooks]
retry_ms = [100, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200]
breaker_pause_ms = 100
breaker_longest_pause_ms = 500
";

async fn arrived(arrivals: &Arrivals, ids: &BTreeSet<String>) {
    within(PATIENCE, "what was notified", async || {
        deltran_tests::receiver::ids(arrivals).is_superset(ids).then_some(())
    })
    .await;
}

/// Pays ALFA so many times; the ids of all notifications of ALFA once there are `total`.
async fn paid(node: &Deltran, name: &str, count: usize, total: usize) -> BTreeSet<String> {
    let payments = (0..count).map(|n| pay(&format!("{name} {n}"), BRAVO, ALFA, "1.00")).collect();
    submit_many(&mut node.bank(BRAVO), payments).await.unwrap();
    within(PATIENCE, "the feed", async || {
        let mut feed = NotificationServiceClient::new(node.as_caller(As::bank(ALFA)));
        let listed = feed.list_notifications(ListNotificationsRequest::default()).await.ok()?.into_inner();
        let ids: BTreeSet<String> = listed.notifications.into_iter().map(|n| n.notification_id).collect();
        (ids.len() == total).then_some(ids)
    })
    .await
}

/// A command about an endpoint, in the name of its owner.
async fn endpoint(node: &Deltran, words: &[&str]) -> Value {
    node.must(&[&["endpoint"], words, &["--participant", ALFA]].concat()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payments_reach_a_receiver_whatever_ends_in_between() {
    let mut node = Deltran::start(TOML).await;
    node.banks(&[(ALFA, "1000.00", "1000.00"), (BRAVO, "1000.00", "1000.00")]).await;
    node.open_window(id("window")).await;
    let mut bank = NotificationServiceClient::new(node.as_caller(As::bank(ALFA)));
    let request = SubscribeRequest {
        subscription_id: id("subscription").to_string(),
        kinds: vec!["payment.received".into()],
        ..Default::default()
    };
    bank.subscribe(request).await.unwrap();
    let key = node.data().join("notification.key");
    assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);

    let arrivals = Arrivals::default();
    let first = Receiver::new(SocketAddr::from(([127, 0, 0, 1], 0)), arrivals.clone()).await;
    let (address, url) = (first.address, format!("http://{}/hook", first.address));
    let endpoint_id = id("endpoint").to_string();
    let created = endpoint(&node, &["create", "--url", &url, "--id", &endpoint_id]).await;
    let secret = created["secret"]["secret"].as_str().unwrap().to_owned();
    assert_eq!(
        (created["endpoint"]["url"].as_str(), created["endpoint"]["state"].as_str()),
        (Some(url.as_str()), Some("ENABLED"))
    );
    let repeated = endpoint(&node, &["create", "--url", &url, "--id", &endpoint_id]).await;
    assert!(repeated["secret"].is_null(), "{repeated}");

    arrived(&arrivals, &paid(&node, "before", 3, 3).await).await;
    // The receiver goes, the program is killed while it tries, both come back.
    first.go();
    let six = paid(&node, "without a receiver", 3, 6).await;
    within(PATIENCE, "a failed attempt", async || {
        let attempts = endpoint(&node, &["attempts", &endpoint_id, "--failed"]).await;
        (attempts["attempts"].as_array()?.len() > 1).then_some(())
    })
    .await;
    node.kill();
    node.start_again().await;
    let second = Receiver::new(address, arrivals.clone()).await;
    arrived(&arrivals, &six).await;
    let nine = paid(&node, "after", 3, 9).await;
    arrived(&arrivals, &nine).await;
    assert_eq!(ids(&arrivals), nine, "nothing else came");
    for (headers, body) in arrivals.lock().unwrap().iter() {
        standardwebhooks::Webhook::new(&secret).unwrap().verify(body, headers).unwrap();
        let body: Value = serde_json::from_slice(body).unwrap();
        assert_eq!((&body["type"], &body["data"]["payer"]), (&"payment.received".into(), &BRAVO.into()));
    }

    let rotated = endpoint(&node, &["rotate", &endpoint_id, "--overlap", "0"]).await;
    let fresh = rotated["secret"]["secret"].as_str().unwrap().to_owned();
    assert_eq!(rotated["endpoint"]["public_keys"].as_array().unwrap().len(), 1);
    let kinds = ["--kind", "payment.sent,payment.received", "--kind", "window.closed"];
    let changed = endpoint(&node, &[&["update", &endpoint_id, "--in-order", "true"], &kinds[..]].concat()).await;
    assert_eq!(changed["in_order"], true);
    assert_eq!(changed["kinds"], serde_json::json!(["payment.received", "payment.sent", "window.closed"]));
    let replayed = endpoint(&node, &["replay", &endpoint_id, "--notification", nine.first().unwrap()]).await;
    assert_eq!(replayed["deliveries"], 1);
    within(PATIENCE, "the replayed one, by the new secret", async || {
        let arrivals = arrivals.lock().unwrap();
        let (headers, body) = arrivals.last()?;
        standardwebhooks::Webhook::new(&fresh).unwrap().verify(body, headers).ok()
    })
    .await;

    // An operator stops it; its owner cannot start it; what it misses is replayed.
    let stopped = node.must(&["endpoint", "disable", &endpoint_id, "--reason", "incident 12"]).await;
    assert_eq!((&stopped["state"], &stopped["cause"]), (&"DISABLED".into(), &"OPERATOR".into()));
    let refused = node.run(&["endpoint", "enable", &endpoint_id, "--participant", ALFA]).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.error.contains("operator"), "{refused:?}");
    // One tells that the endpoint is disabled.
    let missed = paid(&node, "while it is disabled", 1, 11).await;
    node.must(&["endpoint", "enable", &endpoint_id]).await;
    let replayed = endpoint(&node, &["replay", &endpoint_id, "--failed-from", "1"]).await;
    assert_eq!(replayed["deliveries"], 1);
    within(PATIENCE, "the missed payment", async || (ids(&arrivals).len() == 10).then_some(())).await;
    assert!(ids(&arrivals).is_subset(&missed), "of what its feed says");

    let text = async |words: &[&str]| {
        let ran = run(|command| {
            command.arg("endpoint").args(words).args(["--endpoint", node.told("grpc")]);
        })
        .await;
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.out
    };
    assert!(text(&["list"]).await.contains("endpoints: 1"));
    let attempts = text(&["attempts", &endpoint_id]).await;
    assert!(attempts.contains("connect") && attempts.contains("DELIVERED"), "{attempts}");
    let foreign = node.run(&["endpoint", "attempts", &endpoint_id, "--participant", BRAVO]).await;
    assert!(foreign.error.contains("there is no endpoint"), "{foreign:?}");
    for (url, why) in [("http://10.0.0.1/", "private"), ("https://127.1/", "odd way"), ("ftp://a.example/", "https")] {
        let refused = node.run(&["endpoint", "create", "--participant", ALFA, "--url", url]).await;
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.error.contains(why), "{refused:?}");
    }
    assert_eq!(endpoint(&node, &["delete", &endpoint_id]).await["state"], "DELETED");
    assert!(text(&["list"]).await.contains("endpoints: 0"));
    second.go();
    node.verify().await;
    node.stop();
}
