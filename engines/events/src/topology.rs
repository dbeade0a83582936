//! The catalog of streams and consumers, and their configuration in the broker's own JSON form.
//!
//! `setup/streams` and `setup/consumers` are written from here, and the broker is brought into line
//! with here: nothing else says what a stream is.

use std::time::Duration;

use serde_json::{Map, Value, json};

const DAY: u64 = 24 * 60 * 60;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Where a broker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Profile {
    /// One broker on one machine; everything fits a laptop.
    Development,
    /// A cluster of three.
    Production,
}

impl Profile {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Development, Self::Production];

    /// Its name, also that of its overlay.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Development => "development",
            Self::Production => "production",
        }
    }

    /// The profile of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.name() == name)
    }

    /// Copies of every stream.
    pub const fn replicas(self) -> u8 {
        match self {
            Self::Development => 1,
            Self::Production => 3,
        }
    }
}

/// What a full stream does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discard {
    /// Refuses new messages: nothing is lost, outboxes grow and an alert rings.
    New,
    /// Forgets the oldest messages.
    Old,
}

impl Discard {
    /// The broker's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Old => "old",
        }
    }
}

/// A stream. All have limits retention and file storage, and refuse to delete or purge messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSpec {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// What it stores.
    pub subjects: &'static [&'static str],
    /// The streams that it copies.
    pub sources: &'static [&'static str],
    /// How long it keeps a message.
    pub max_age: Duration,
    /// What it does when it is full.
    pub discard: Discard,
    /// How long the broker drops a second message with the same id.
    pub duplicate_window: Duration,
    /// Its largest size by profile.
    bytes: [u64; 2],
}

impl StreamSpec {
    /// The most that it stores, in bytes. The broker reserves the sum over all streams.
    pub const fn max_bytes(&self, profile: Profile) -> u64 {
        self.bytes[profile as usize]
    }

    /// Its copies in the cluster.
    pub const fn replicas(&self, profile: Profile) -> u8 {
        profile.replicas()
    }

    /// Whether it stores what is published on `subject`.
    pub fn binds(&self, subject: &str) -> bool {
        self.subjects.iter().any(|pattern| matches(pattern, subject))
    }

    /// Its configuration in the broker's JSON form; durations are in nanoseconds.
    pub fn config_json(&self, profile: Profile) -> Value {
        let mut config = json!({
            "name": self.name,
            "description": self.purpose,
            "subjects": self.subjects,
            "retention": "limits",
            "storage": "file",
            "discard": self.discard.as_str(),
            "max_age": nanoseconds(self.max_age),
            "max_bytes": self.max_bytes(profile),
            "max_msgs": -1,
            "max_msgs_per_subject": -1,
            "max_msg_size": -1,
            "max_consumers": -1,
            "num_replicas": self.replicas(profile),
            "duplicate_window": nanoseconds(self.duplicate_window),
            "compression": "none",
            "deny_delete": true,
            "deny_purge": true,
            "allow_direct": true,
        });
        if !self.sources.is_empty() {
            // Else a source that is reached after the stream has messages of others is copied from that moment on: what
            // stands in it already is passed over, and the broker reports no lag.
            config["sources"] = self.sources.iter().map(|name| json!({"name": name, "opt_start_seq": 1})).collect();
        }
        config
    }
}

/// A durable pull consumer: explicit acknowledgement, deliver all, replay instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerSpec {
    /// The stream that it reads.
    pub stream: &'static str,
    /// Its durable name.
    pub name: &'static str,
    /// What it reads of the stream; empty for everything. A whole domain: numbers that a narrower filter leaves out
    /// would be gaps in what was received of a producer, one for each event that is passed over.
    pub filter_subjects: &'static [&'static str],
    /// How often a message is delivered at most; -1 for without end.
    pub max_deliver: i64,
    /// After how long an unacknowledged message is delivered again.
    pub ack_wait: Duration,
    /// How many messages may be unacknowledged at a time.
    pub max_ack_pending: i64,
    /// Whether it may skip nothing: it then stops with an alert where another would dead-letter.
    pub strict: bool,
    /// What it is for.
    pub purpose: &'static str,
    /// The engine that reads it.
    pub engine: &'static str,
}

impl ConsumerSpec {
    /// Its configuration in the broker's JSON form; the same in every profile, because the number of
    /// its copies follows its stream.
    pub fn config_json(&self, _profile: Profile) -> Value {
        let mut config = json!({
            "durable_name": self.name,
            "description": self.purpose,
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "replay_policy": "instant",
            "max_deliver": self.max_deliver,
            "ack_wait": nanoseconds(self.ack_wait),
            "max_ack_pending": self.max_ack_pending,
        });
        match self.filter_subjects {
            [] => {}
            [one] => config["filter_subject"] = (*one).into(),
            several => config["filter_subjects"] = json!(several),
        }
        config
    }
}

const fn days(n: u64) -> Duration {
    Duration::from_secs(n * DAY)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Minutes, because the broker keeps every id of the window in memory.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// Every stream, in the order of the documentation.
pub static STREAMS: &[StreamSpec] = &[
    StreamSpec {
        name: "TRANSACTIONS",
        purpose: "transaction lifecycle events",
        subjects: &["events.transactions.>"],
        sources: &[],
        max_age: days(7),
        discard: Discard::New,
        duplicate_window: DUPLICATE_WINDOW,
        bytes: [4 * GIB, 256 * GIB],
    },
    StreamSpec {
        name: "COMPLIANCE",
        purpose: "compliance checks and alerts",
        subjects: &["events.compliance.>"],
        sources: &[],
        max_age: days(30),
        discard: Discard::New,
        duplicate_window: DUPLICATE_WINDOW,
        bytes: [GIB, 64 * GIB],
    },
    StreamSpec {
        name: "SETTLEMENT",
        purpose: "settlement operations",
        subjects: &["events.settlement.>"],
        sources: &[],
        max_age: days(90),
        discard: Discard::New,
        duplicate_window: DUPLICATE_WINDOW,
        bytes: [512 * MIB, 64 * GIB],
    },
    StreamSpec {
        name: "CLEARING",
        purpose: "clearing window operations",
        subjects: &["events.clearing.>"],
        sources: &[],
        max_age: days(30),
        discard: Discard::New,
        duplicate_window: DUPLICATE_WINDOW,
        bytes: [512 * MIB, 64 * GIB],
    },
    StreamSpec {
        name: "NOTIFICATIONS",
        purpose: "real-time notifications",
        subjects: &["events.notifications.>"],
        sources: &[],
        max_age: days(7),
        discard: Discard::Old,
        duplicate_window: DUPLICATE_WINDOW,
        bytes: [512 * MIB, 16 * GIB],
    },
    StreamSpec {
        name: "REPORTING",
        purpose: "reporting and analytics",
        subjects: &["events.reporting.>"],
        sources: &[],
        max_age: days(90),
        discard: Discard::Old,
        duplicate_window: DUPLICATE_WINDOW,
        bytes: [512 * MIB, 64 * GIB],
    },
    StreamSpec {
        name: "RISK",
        purpose: "risk events and circuit breakers",
        subjects: &["events.risk.>"],
        sources: &[],
        max_age: days(30),
        discard: Discard::New,
        duplicate_window: DUPLICATE_WINDOW,
        bytes: [512 * MIB, 32 * GIB],
    },
    StreamSpec {
        name: "AUDIT",
        purpose: "the complete audit trail, one sequence",
        subjects: &["events.audit.>"],
        sources: &["TRANSACTIONS", "COMPLIANCE", "SETTLEMENT", "CLEARING", "NOTIFICATIONS", "REPORTING", "RISK"],
        max_age: days(180),
        discard: Discard::New,
        duplicate_window: DUPLICATE_WINDOW,
        bytes: [8 * GIB, 2048 * GIB],
    },
    StreamSpec {
        name: "DEADLETTERS",
        purpose: "what no consumer could process, with the reason",
        subjects: &["dlq.>"],
        sources: &[],
        max_age: days(30),
        discard: Discard::New,
        duplicate_window: DUPLICATE_WINDOW,
        bytes: [512 * MIB, 16 * GIB],
    },
    StreamSpec {
        name: "ADVISORIES",
        purpose: "messages the broker gave up on",
        subjects: &["$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>", "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>"],
        sources: &[],
        max_age: days(30),
        discard: Discard::Old,
        duplicate_window: DUPLICATE_WINDOW,
        bytes: [256 * MIB, 4 * GIB],
    },
];

/// Every consumer, in the order of its stream.
pub static CONSUMERS: &[ConsumerSpec] = &[
    ConsumerSpec {
        stream: "TRANSACTIONS",
        name: "events_transactions_clearing",
        filter_subjects: &["events.transactions.>"],
        max_deliver: -1,
        ack_wait: Duration::from_secs(30),
        max_ack_pending: 20_000,
        strict: true,
        purpose: "obligations of the windows and their seals",
        engine: "clearing",
    },
    ConsumerSpec {
        stream: "TRANSACTIONS",
        name: "events_transactions_risk",
        filter_subjects: &["events.transactions.>"],
        max_deliver: -1,
        ack_wait: Duration::from_secs(30),
        max_ack_pending: 20_000,
        strict: true,
        purpose: "positions and flows that limits and breakers decide on",
        engine: "risk",
    },
    ConsumerSpec {
        stream: "TRANSACTIONS",
        name: "events_transactions_reporting",
        filter_subjects: &["events.transactions.>"],
        max_deliver: -1,
        ack_wait: Duration::from_secs(30),
        max_ack_pending: 20_000,
        strict: true,
        purpose: "entries and balances of statements and reports",
        engine: "reporting",
    },
    ConsumerSpec {
        stream: "TRANSACTIONS",
        name: "compliance-engine-consumer",
        filter_subjects: &["events.transactions.>"],
        max_deliver: 10,
        ack_wait: Duration::from_secs(30),
        max_ack_pending: 20_000,
        strict: false,
        purpose: "committed transactions, for monitoring",
        engine: "compliance",
    },
    ConsumerSpec {
        stream: "TRANSACTIONS",
        name: "events_transactions_notification",
        filter_subjects: &["events.transactions.>"],
        max_deliver: 10,
        ack_wait: Duration::from_secs(30),
        max_ack_pending: 20_000,
        strict: false,
        purpose: "payments, funds, standing and finality, for those who asked to be told",
        engine: "notification",
    },
    ConsumerSpec {
        stream: "SETTLEMENT",
        name: "events_settlement_clearing",
        filter_subjects: &["events.settlement.>"],
        max_deliver: -1,
        ack_wait: Duration::from_secs(30),
        max_ack_pending: 1_000,
        strict: true,
        purpose: "what became of the settlement of a window",
        engine: "clearing",
    },
    ConsumerSpec {
        stream: "SETTLEMENT",
        name: "events_settlement_reporting",
        filter_subjects: &["events.settlement.>"],
        max_deliver: -1,
        ack_wait: Duration::from_secs(30),
        max_ack_pending: 1_000,
        strict: true,
        purpose: "finality of netting sets, for settlement reports",
        engine: "reporting",
    },
    ConsumerSpec {
        stream: "SETTLEMENT",
        name: "events_settlement_notification",
        filter_subjects: &["events.settlement.>"],
        max_deliver: 10,
        ack_wait: Duration::from_secs(30),
        max_ack_pending: 1_000,
        strict: false,
        purpose: "missing funds and failed settlements, for those who asked to be told",
        engine: "notification",
    },
    ConsumerSpec {
        stream: "CLEARING",
        name: "settlement-engine-consumer",
        filter_subjects: &["events.clearing.>"],
        max_deliver: 10,
        ack_wait: Duration::from_secs(30),
        max_ack_pending: 1_000,
        strict: false,
        purpose: "netting sets to settle",
        engine: "settlement",
    },
    ConsumerSpec {
        stream: "CLEARING",
        name: "events_clearing_reporting",
        filter_subjects: &["events.clearing.>"],
        max_deliver: -1,
        ack_wait: Duration::from_secs(30),
        max_ack_pending: 1_000,
        strict: true,
        purpose: "windows and netting sets of settlement reports",
        engine: "reporting",
    },
    ConsumerSpec {
        stream: "CLEARING",
        name: "events_clearing_notification",
        filter_subjects: &["events.clearing.>"],
        max_deliver: 10,
        ack_wait: Duration::from_secs(30),
        max_ack_pending: 1_000,
        strict: false,
        purpose: "windows and positions, for those who asked to be told",
        engine: "notification",
    },
    ConsumerSpec {
        stream: "NOTIFICATIONS",
        name: "notification-engine-consumer",
        filter_subjects: &["events.notifications.>"],
        max_deliver: 3,
        ack_wait: Duration::from_secs(30),
        max_ack_pending: 1_000,
        strict: false,
        purpose: "notifications to deliver",
        engine: "notification",
    },
    ConsumerSpec {
        stream: "REPORTING",
        name: "reporting-engine-consumer",
        filter_subjects: &["events.reporting.>"],
        max_deliver: 3,
        ack_wait: Duration::from_secs(300),
        max_ack_pending: 1_000,
        strict: false,
        purpose: "reports to write",
        engine: "reporting",
    },
    ConsumerSpec {
        stream: "RISK",
        name: "events_risk_notification",
        filter_subjects: &["events.risk.>"],
        max_deliver: 10,
        ack_wait: Duration::from_secs(30),
        max_ack_pending: 1_000,
        strict: false,
        purpose: "limits and alerts, for those who asked to be told",
        engine: "notification",
    },
    ConsumerSpec {
        stream: "AUDIT",
        name: "audit-engine-consumer",
        filter_subjects: &[],
        max_deliver: -1,
        ack_wait: Duration::from_secs(30),
        max_ack_pending: 50_000,
        strict: true,
        purpose: "every event, for the audit ledger",
        engine: "audit",
    },
    // Strict, because a dead letter that became a dead letter would come back for ever.
    ConsumerSpec {
        stream: "DEADLETTERS",
        name: "dead_letters_audit",
        filter_subjects: &["dlq.>"],
        max_deliver: -1,
        ack_wait: Duration::from_secs(30),
        max_ack_pending: 1_000,
        strict: true,
        purpose: "dead letters, for operators and the audit ledger",
        engine: "audit",
    },
    // Without end, because giving up on an advisory would cause another one.
    ConsumerSpec {
        stream: "ADVISORIES",
        name: "advisories_audit",
        filter_subjects: &[],
        max_deliver: -1,
        ack_wait: Duration::from_secs(30),
        max_ack_pending: 1_000,
        strict: false,
        purpose: "messages that the broker gave up on, to be dead-lettered",
        engine: "audit",
    },
];

/// The stream of a name.
pub fn stream(name: &str) -> Option<&'static StreamSpec> {
    STREAMS.iter().find(|spec| spec.name == name)
}

/// The consumer of a stream by name.
pub fn consumer(stream: &str, name: &str) -> Option<&'static ConsumerSpec> {
    CONSUMERS.iter().find(|spec| spec.stream == stream && spec.name == name)
}

/// The consumers of an engine.
pub fn consumers_of(engine: &str) -> impl Iterator<Item = &'static ConsumerSpec> {
    CONSUMERS.iter().filter(move |spec| spec.engine == engine)
}

/// The stream that stores what is published on `subject`.
pub fn stream_of_subject(subject: &str) -> Option<&'static StreamSpec> {
    STREAMS.iter().find(|spec| spec.binds(subject))
}

/// What a profile changes in the base files of `setup/`, by stream.
pub fn overlay_json(profile: Profile) -> Value {
    let overlay = |spec: &StreamSpec| {
        let change = json!({"num_replicas": spec.replicas(profile), "max_bytes": spec.max_bytes(profile)});
        (spec.name.to_owned(), change)
    };
    json!({"profile": profile.name(), "streams": STREAMS.iter().map(overlay).collect::<Map<_, _>>()})
}

/// Whether a subject falls under a pattern: `*` stands for one token, `>` at the end for one or more.
pub fn matches(pattern: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for expected in pattern.split('.') {
        match (expected, tokens.next()) {
            (">", Some(token)) => return !token.is_empty(),
            ("*", Some(token)) if !token.is_empty() => {}
            (expected, Some(token)) if expected == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_the_broker_does() {
        for (pattern, subject, expected) in [
            ("events.a.>", "events.a.b", true),
            ("events.a.>", "events.a.b.c", true),
            ("events.a.>", "events.a", false),
            ("events.a.>", "events.ab.c", false),
            ("events.a.*", "events.a.b", true),
            ("events.a.*", "events.a.b.c", false),
            ("events.a", "events.a", true),
            ("events.a", "events.a.b", false),
            ("events.a.b", "events.a", false),
        ] {
            assert_eq!(matches(pattern, subject), expected, "{pattern} {subject}");
        }
    }
}
