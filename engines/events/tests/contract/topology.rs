//! The catalog of streams and consumers says what the documentation says.

use std::time::Duration;

use deltran_events::catalog::EVENTS;
use deltran_events::topology::{self, CONSUMERS, Discard, Profile, STREAMS};
use deltran_events::{Domain, EventSpec};
use serde_json::json;

const DAY: u64 = 86_400;
const GIB: u64 = 1 << 30;

#[test]
fn the_streams_are_those_of_the_documentation() {
    let advisories: &[&str] =
        &["$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>", "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>"];
    let table: &[(&str, &[&str], u64, Discard, &str)] = &[
        ("TRANSACTIONS", &["events.transactions.>"], 7, Discard::New, "transaction lifecycle events"),
        ("COMPLIANCE", &["events.compliance.>"], 30, Discard::New, "compliance checks and alerts"),
        ("SETTLEMENT", &["events.settlement.>"], 90, Discard::New, "settlement operations"),
        ("CLEARING", &["events.clearing.>"], 30, Discard::New, "clearing window operations"),
        ("NOTIFICATIONS", &["events.notifications.>"], 7, Discard::Old, "real-time notifications"),
        ("REPORTING", &["events.reporting.>"], 90, Discard::Old, "reporting and analytics"),
        ("RISK", &["events.risk.>"], 30, Discard::New, "risk events and circuit breakers"),
        ("AUDIT", &["events.audit.>"], 180, Discard::New, "the complete audit trail, one sequence"),
        ("DEADLETTERS", &["dlq.>"], 30, Discard::New, "what no consumer could process, with the reason"),
        ("ADVISORIES", advisories, 30, Discard::Old, "messages the broker gave up on"),
    ];
    let found: Vec<_> =
        STREAMS.iter().map(|s| (s.name, s.subjects, s.max_age.as_secs() / DAY, s.discard, s.purpose)).collect();
    assert_eq!(found, table);
    for spec in STREAMS {
        let sources: &[&str] = match spec.name {
            "AUDIT" => &["TRANSACTIONS", "COMPLIANCE", "SETTLEMENT", "CLEARING", "NOTIFICATIONS", "REPORTING", "RISK"],
            _ => &[],
        };
        assert_eq!(spec.sources, sources, "{}", spec.name);
    }
}

#[test]
fn the_consumers_are_those_of_the_documentation() {
    /// Stream, name, filter, deliveries, seconds to acknowledge, unacknowledged, strict, engine.
    type Row = (&'static str, &'static str, &'static [&'static str], i64, u64, i64, bool, &'static str);
    let table: &[Row] = &[
        ("TRANSACTIONS", "events_transactions_clearing", &["events.transactions.>"], -1, 30, 20_000, true, "clearing"),
        ("TRANSACTIONS", "events_transactions_risk", &["events.transactions.>"], -1, 30, 20_000, true, "risk"),
        (
            "TRANSACTIONS",
            "events_transactions_reporting",
            &["events.transactions.>"],
            -1,
            30,
            20_000,
            true,
            "reporting",
        ),
        ("TRANSACTIONS", "compliance-engine-consumer", &["events.transactions.>"], 10, 30, 20_000, false, "compliance"),
        (
            "TRANSACTIONS",
            "events_transactions_notification",
            &["events.transactions.>"],
            10,
            30,
            20_000,
            false,
            "notification",
        ),
        ("SETTLEMENT", "events_settlement_clearing", &["events.settlement.>"], -1, 30, 1_000, true, "clearing"),
        ("SETTLEMENT", "events_settlement_reporting", &["events.settlement.>"], -1, 30, 1_000, true, "reporting"),
        (
            "SETTLEMENT",
            "events_settlement_notification",
            &["events.settlement.>"],
            10,
            30,
            1_000,
            false,
            "notification",
        ),
        ("CLEARING", "settlement-engine-consumer", &["events.clearing.>"], 10, 30, 1_000, false, "settlement"),
        ("CLEARING", "events_clearing_reporting", &["events.clearing.>"], -1, 30, 1_000, true, "reporting"),
        ("CLEARING", "events_clearing_notification", &["events.clearing.>"], 10, 30, 1_000, false, "notification"),
        (
            "NOTIFICATIONS",
            "notification-engine-consumer",
            &["events.notifications.>"],
            3,
            30,
            1_000,
            false,
            "notification",
        ),
        ("REPORTING", "reporting-engine-consumer", &["events.reporting.>"], 3, 300, 1_000, false, "reporting"),
        ("RISK", "events_risk_notification", &["events.risk.>"], 10, 30, 1_000, false, "notification"),
        ("AUDIT", "audit-engine-consumer", &[], -1, 30, 50_000, true, "audit"),
        ("DEADLETTERS", "dead_letters_audit", &["dlq.>"], -1, 30, 1_000, true, "audit"),
        ("ADVISORIES", "advisories_audit", &[], -1, 30, 1_000, false, "audit"),
    ];
    let found: Vec<_> = CONSUMERS
        .iter()
        .map(|c| {
            (
                c.stream,
                c.name,
                c.filter_subjects,
                c.max_deliver,
                c.ack_wait.as_secs(),
                c.max_ack_pending,
                c.strict,
                c.engine,
            )
        })
        .collect();
    assert_eq!(found, table);
}

#[test]
fn every_consumer_reads_a_stream_that_stores_what_it_reads() {
    for consumer in CONSUMERS {
        let stream = topology::stream(consumer.stream).unwrap();
        for filter in consumer.filter_subjects {
            assert!(stream.subjects.contains(filter) || stream.binds(filter), "{}: {filter}", consumer.name);
        }
        assert!(!consumer.strict || consumer.max_deliver == -1, "{} must not skip", consumer.name);
        assert_eq!(topology::consumer(consumer.stream, consumer.name), Some(consumer));
        assert!(topology::consumers_of(consumer.engine).any(|c| c == consumer));
    }
    assert_eq!(topology::consumer("AUDIT", "nobody"), None);
    assert_eq!(topology::stream("NOTHING"), None);
}

/// The streams that store a subject; the broker refuses bindings that overlap.
fn bound(subject: &str) -> Vec<&'static str> {
    STREAMS.iter().filter(|spec| spec.binds(subject)).map(|spec| spec.name).collect()
}

#[test]
fn every_event_falls_into_the_one_stream_of_its_domain() {
    for spec in EVENTS {
        assert_eq!(bound(&spec.subject()), [spec.domain.stream()], "{}", spec.subject());
        assert_eq!(topology::stream_of_subject(&spec.subject()).unwrap().name, spec.domain.stream());
        assert_eq!(EventSpec::of_subject(&spec.subject(), spec.event_type()).unwrap().index, spec.index);
    }
    for domain in Domain::ALL {
        assert!(
            topology::stream(domain.stream())
                .unwrap()
                .subjects
                .contains(&format!("events.{}.>", domain.name()).as_str())
        );
    }
}

#[test]
fn older_three_token_subjects_are_captured() {
    for (subject, stream) in [
        ("events.transactions.created", "TRANSACTIONS"),
        ("events.compliance.alert", "COMPLIANCE"),
        ("events.settlement.completed", "SETTLEMENT"),
        ("events.clearing.window.opened", "CLEARING"),
        ("dlq.TRANSACTIONS.events_transactions_clearing", "DEADLETTERS"),
        ("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.AUDIT.audit-engine-consumer", "ADVISORIES"),
    ] {
        assert_eq!(bound(subject), [stream], "{subject}");
    }
    for subject in ["events.transactions", "events", "event.transactions.created", "dlq", "$JS.API.STREAM.INFO.AUDIT"] {
        assert!(bound(subject).is_empty(), "{subject}");
    }
}

#[test]
fn no_audited_stream_can_fill_the_audit_trail() {
    for profile in Profile::ALL {
        let audit = topology::stream("AUDIT").unwrap();
        let sources: u64 = audit.sources.iter().map(|name| topology::stream(name).unwrap().max_bytes(profile)).sum();
        assert!(audit.max_bytes(profile) >= sources, "{}", profile.name());
    }
    let total: u64 = STREAMS.iter().map(|spec| spec.max_bytes(Profile::Development)).sum();
    assert!(total <= 20 * GIB, "development must fit a laptop: {total} bytes");
}

#[test]
fn configurations_are_in_the_form_of_the_broker() {
    assert_eq!(
        topology::stream("NOTIFICATIONS").unwrap().config_json(Profile::Production),
        json!({
            "name": "NOTIFICATIONS",
            "description": "real-time notifications",
            "subjects": ["events.notifications.>"],
            "retention": "limits",
            "storage": "file",
            "discard": "old",
            "max_age": 604_800_000_000_000_u64,
            "max_bytes": 16 * GIB,
            "max_msgs": -1,
            "max_msgs_per_subject": -1,
            "max_msg_size": -1,
            "max_consumers": -1,
            "num_replicas": 3,
            "duplicate_window": 120_000_000_000_u64,
            "compression": "none",
            "deny_delete": true,
            "deny_purge": true,
            "allow_direct": true,
        })
    );
    assert_eq!(
        topology::consumer("REPORTING", "reporting-engine-consumer").unwrap().config_json(Profile::Development),
        json!({
            "durable_name": "reporting-engine-consumer",
            "description": "reports to write",
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "replay_policy": "instant",
            "max_deliver": 3,
            "ack_wait": 300_000_000_000_u64,
            "max_ack_pending": 1_000,
            "filter_subject": "events.reporting.>",
        })
    );
    let everything = topology::consumer("AUDIT", "audit-engine-consumer").unwrap().config_json(Profile::Development);
    assert!(everything.get("filter_subject").is_none() && everything.get("filter_subjects").is_none());
}

/// The base files are the development profile, and an overlay names all in which the profiles differ.
#[test]
fn base_and_overlay_give_the_profile() {
    for profile in Profile::ALL {
        let overlay = topology::overlay_json(profile);
        for spec in STREAMS {
            let mut config = spec.config_json(Profile::Development);
            for (key, value) in overlay["streams"][spec.name].as_object().unwrap() {
                config[key] = value.clone();
            }
            assert_eq!(config, spec.config_json(profile), "{} {}", spec.name, profile.name());
        }
        assert_eq!(Profile::from_name(profile.name()), Some(profile));
    }
    assert_eq!(Profile::from_name("test"), None);
}

#[test]
fn durations_are_whole_and_the_duplicate_window_is_minutes() {
    for spec in STREAMS {
        assert!(
            spec.duplicate_window >= Duration::from_secs(60) && spec.duplicate_window < spec.max_age,
            "{}",
            spec.name
        );
    }
}
