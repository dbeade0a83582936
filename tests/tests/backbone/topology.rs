//! Streams and consumers on a real broker, against the catalog.

use deltran_events::topology::{CONSUMERS, Profile, STREAMS};
use deltran_messaging::Broker;
use deltran_messaging::topology::{self, Kind, Plan, Target, TopologyError};
use deltran_tests::{Nats, eventually};
use serde_json::{Value, json};

use super::support::{api, count, stored};

async fn server() -> (Nats, Broker) {
    let nats = Nats::start().await;
    let broker = Broker::connect(&nats.url(), "test").await.unwrap();
    eventually("the connection", async || broker.is_connected().then_some(())).await;
    (nats, broker)
}

async fn planned(broker: &Broker) -> Plan {
    topology::plan(broker, Profile::Development, None).await.unwrap()
}

async fn applied(broker: &Broker) {
    let plan = planned(broker).await;
    topology::apply(broker, &plan, false).await.unwrap();
}

async fn stream_config(broker: &Broker, name: &str) -> Value {
    api(broker, &format!("STREAM.INFO.{name}"), &json!({})).await["config"].take()
}

/// Changes a stream behind the catalog's back.
async fn change(broker: &Broker, name: &str, field: &str, value: Value) {
    let mut config = stream_config(broker, name).await;
    config[field] = value;
    api(broker, &format!("STREAM.UPDATE.{name}"), &config).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_created_once_and_then_nothing_is_left_to_do() {
    let (_nats, broker) = server().await;
    let plan = planned(&broker).await;
    assert_eq!(plan.changes.len(), STREAMS.len() + CONSUMERS.len());
    assert!(plan.changes.iter().all(|c| c.kind == Kind::Create), "{plan}");
    let done = topology::apply(&broker, &plan, false).await.unwrap();
    assert!(done.iter().all(|line| line.starts_with("created ")), "{done:?}");
    let after = planned(&broker).await;
    assert!(after.is_empty(), "{after}");
    assert_eq!(after.to_string(), "streams and consumers are as configured");

    // The old plan again: everything is found as it should be.
    topology::apply(&broker, &plan, false).await.unwrap();
    for spec in STREAMS {
        let config = stream_config(&broker, spec.name).await;
        assert_eq!((&config["deny_delete"], &config["deny_purge"]), (&json!(true), &json!(true)), "{}", spec.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_processes_may_apply_at_once() {
    let (nats, broker) = server().await;
    let appliers = (0..6).map(|_| {
        let url = nats.url();
        async move {
            let broker = Broker::connect(&url, "applier").await.unwrap();
            eventually("the connection", async || broker.is_connected().then_some(())).await;
            applied(&broker).await;
        }
    });
    futures::future::join_all(appliers).await;
    assert!(planned(&broker).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_can_be_neither_deleted_nor_purged() {
    let (_nats, broker) = server().await;
    applied(&broker).await;
    let js = broker.jetstream();
    js.publish("events.risk.a.b", "kept".into()).await.unwrap().await.unwrap();
    for (subject, body) in [("STREAM.MSG.DELETE.RISK", json!({"seq": 1})), ("STREAM.PURGE.RISK", json!({}))] {
        let answer: Value = js.request(subject, &body).await.unwrap();
        assert!(answer["error"]["code"].is_u64(), "{subject}: {answer}");
    }
    assert_eq!(count(&broker, "RISK").await, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drift_is_found_by_field_and_removed() {
    let (_nats, broker) = server().await;
    applied(&broker).await;
    // One that keeps less than configured, and a consumer that reads less.
    change(&broker, "RISK", "max_age", json!(3_600_000_000_000_u64)).await;
    change(&broker, "RISK", "metadata", json!({"owner": "nobody"})).await;
    let consumer = json!({"stream_name": "NOTIFICATIONS", "action": "update", "config": {
        "durable_name": "notification-engine-consumer", "ack_policy": "explicit", "deliver_policy": "all",
        "filter_subjects": ["events.notifications.a", "events.notifications.b"], "max_deliver": 3,
        "ack_wait": 5_000_000_000_u64, "max_ack_pending": 1000, "description": "notifications to deliver"}});
    api(&broker, "CONSUMER.CREATE.NOTIFICATIONS.notification-engine-consumer", &consumer).await;

    let plan = planned(&broker).await;
    let text = plan.to_string();
    assert!(text.contains("~ stream RISK: update\n    max_age: 1 h → 30 d"), "{text}");
    assert!(text.contains("    ack_wait: 5 s → 30 s"), "{text}");
    assert!(
        text.contains("filter_subjects: events.notifications.a, events.notifications.b → events.notifications.>"),
        "{text}"
    );
    assert_eq!(plan.changes.len(), 2, "{text}");
    let done = topology::apply(&broker, &plan, true).await.unwrap();
    assert_eq!(done[0], "updated stream RISK: max_age");
    assert!(planned(&broker).await.is_empty());
    assert_eq!(stream_config(&broker, "RISK").await["metadata"]["owner"], "nobody", "what is not named stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn narrowing_needs_a_word_and_changes_nothing_without_it() {
    let (_nats, broker) = server().await;
    applied(&broker).await;
    change(&broker, "RISK", "max_bytes", json!(1_u64 << 40 >> 6)).await;
    change(&broker, "CLEARING", "max_age", json!(3_600_000_000_000_u64)).await;
    change(&broker, "REPORTING", "subjects", json!(["events.reporting.>", "events.more.>"])).await;
    let plan = planned(&broker).await;
    let error = topology::apply(&broker, &plan, false).await.unwrap_err();
    assert!(matches!(error, TopologyError::Narrowing(_)));
    let text = error.to_string();
    assert!(text.contains("--allow-narrowing") && text.contains("stream RISK") && text.contains("max_bytes"), "{text}");
    assert!(text.contains("subjects: events.reporting.>, events.more.> → events.reporting.> (narrowing)"), "{text}");
    assert!(!text.contains("CLEARING"), "that one widens: {text}");
    assert_eq!(planned(&broker).await, plan, "nothing was changed");
    topology::apply(&broker, &plan, true).await.unwrap();
    assert!(planned(&broker).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_change_in_place_stops_everything() {
    let (_nats, broker) = server().await;
    let memory = json!({"name": "RISK", "subjects": ["events.risk.>"], "storage": "memory"});
    api(&broker, "STREAM.CREATE.RISK", &memory).await;
    let plan = planned(&broker).await;
    let risk = plan.changes.iter().find(|c| c.target == Target::Stream("RISK".into())).unwrap();
    assert_eq!(risk.kind, Kind::Unchangeable);
    let error = topology::apply(&broker, &plan, true).await.unwrap_err();
    assert!(matches!(error, TopologyError::Unchangeable(_)));
    assert!(error.to_string().contains("storage: memory → file (stop what publishes"), "{error}");
    assert_eq!(count(&broker, "CLEARING").await, None, "nothing was created");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audit_holds_the_messages_of_all_streams_with_their_ids_and_origin() {
    let (_nats, broker) = server().await;
    applied(&broker).await;
    let js = broker.jetstream();
    let domains = ["transactions", "compliance", "settlement", "clearing", "notifications", "reporting", "risk"];
    for domain in domains {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Msg-Id", format!("id-{domain}").as_str());
        js.publish_with_headers(format!("events.{domain}.a.b"), headers, domain.into()).await.unwrap().await.unwrap();
    }
    js.publish("events.audit.a.b", "own".into()).await.unwrap().await.unwrap();
    eventually("all of them in AUDIT", async || (count(&broker, "AUDIT").await? == 8).then_some(())).await;
    let mut found = Vec::new();
    for sequence in 1..=8 {
        let (subject, headers, payload) = stored(&broker, "AUDIT", sequence).await;
        let domain = String::from_utf8(payload).unwrap();
        if domain == "own" {
            assert!(headers.get("Nats-Stream-Source").is_none());
            continue;
        }
        assert_eq!(subject, format!("events.{domain}.a.b"));
        assert_eq!(headers.get("Nats-Msg-Id").unwrap().as_str(), format!("id-{domain}"));
        let source = headers.get("Nats-Stream-Source").unwrap().as_str().to_owned();
        assert!(source.starts_with(&format!("{} 1 > > {subject}", domain.to_uppercase())), "{source}");
        found.push(domain);
    }
    found.sort_unstable();
    let mut expected = domains.to_vec();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_taken_as_the_catalog_is_and_mistakes_in_them_are_named() {
    let (_nats, broker) = server().await;
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, value: &Value| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, serde_json::to_vec_pretty(value).unwrap()).unwrap();
    };
    for spec in STREAMS {
        let mut config = spec.config_json(Profile::Production);
        config["max_age"] = json!(7_u64);
        write(&format!("streams/{}.json", spec.name), &config);
    }
    for spec in CONSUMERS {
        write(&format!("consumers/{}.{}.json", spec.stream, spec.name), &spec.config_json(Profile::Development));
    }
    let mut overlay = deltran_events::topology::overlay_json(Profile::Development);
    for spec in STREAMS {
        overlay["streams"][spec.name]["max_age"] = spec.config_json(Profile::Development)["max_age"].clone();
    }
    write("overlays/development.json", &overlay);
    let from_files = || topology::plan(&broker, Profile::Development, Some(folder.path()));
    let plan = from_files().await.unwrap();
    topology::apply(&broker, &plan, false).await.unwrap();
    assert!(from_files().await.unwrap().is_empty());
    assert!(planned(&broker).await.is_empty(), "the overlay makes the files what the catalog says");

    write("consumers/RISK.nobody.json", &json!({"durable_name": "somebody"}));
    let error = from_files().await.unwrap_err().to_string();
    assert!(error.contains("RISK.nobody.json") && error.contains("somebody"), "{error}");
}
