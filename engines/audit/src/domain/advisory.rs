//! Advisories of the broker about messages that it gave up on.

use serde::Deserialize;

/// The reason in a dead letter that comes from an advisory.
pub const EXCEEDED: &str = "exceeded max deliveries: its consumer ended or failed every time";

/// A message that exhausted its deliveries.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GaveUp {
    /// The stream it is in.
    pub stream: String,
    /// Its sequence there.
    pub sequence: u64,
    /// The consumer.
    pub consumer: String,
    /// Deliveries.
    pub deliveries: u64,
}

#[derive(Deserialize)]
struct Advisory {
    stream: String,
    consumer: String,
    stream_seq: u64,
    #[serde(default)]
    deliveries: u64,
}

/// Reads an advisory. None for what calls for no dead letter: a termination is this platform's own,
/// after it stored one; and what is no advisory.
pub fn read(subject: &str, payload: &[u8]) -> Option<GaveUp> {
    if !subject.starts_with("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.") {
        return None;
    }
    let advisory: Advisory = serde_json::from_slice(payload).ok()?;
    let countable = (1..=i64::MAX as u64).contains(&advisory.stream_seq) && advisory.deliveries <= i64::MAX as u64;
    (countable && is_name(&advisory.stream) && is_name(&advisory.consumer)).then_some(GaveUp {
        stream: advisory.stream,
        sequence: advisory.stream_seq,
        consumer: advisory.consumer,
        deliveries: advisory.deliveries,
    })
}

/// A name as the broker allows it for streams and consumers.
fn is_name(name: &str) -> bool {
    (1..=255).contains(&name.len())
        && !name.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '.' | '*' | '>' | '/' | '\\'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_exhausted_its_deliveries_and_nothing_else() {
        let subject = "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.RISK.c";
        let advisory = br#"{"type":"io.nats.jetstream.advisory.v1.max_deliver","id":"x","timestamp":"t","stream":"RISK","consumer":"c","stream_seq":7,"deliveries":3}"#;
        let gave_up = GaveUp { stream: "RISK".into(), sequence: 7, consumer: "c".into(), deliveries: 3 };
        assert_eq!(read(subject, advisory), Some(gave_up));
        assert_eq!(read("$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.RISK.c", advisory), None);
        for junk in [
            &b"{}"[..],
            b"no",
            br#"{"stream":"a.b","consumer":"c","stream_seq":7}"#,
            br#"{"stream":"a","consumer":"c","stream_seq":0}"#,
        ] {
            assert_eq!(read(subject, junk), None);
        }
    }
}
