//! A leaf: the exact bytes of an event and the columns that are derived from them.

use bytes::Bytes;
use deltran_events::Envelope;
use deltran_kernel::Timestamp;
use deltran_messaging::producer_of;
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::wrapper::{is_line, storable, stored_subject, wrap};

/// SHA-256(0x00 ‖ bytes), the leaf hash of RFC 6962.
pub type LeafHash = [u8; 32];

/// Reasons of leaves that contradict an earlier leaf begin so.
pub const CONFLICT: &str = "conflict: ";

/// The longest derived text, in characters. Longer ones are cut; the envelope has them whole.
const MAX_TEXT: usize = 256;
/// The longest reason, in characters.
const MAX_REASON: usize = 500;

/// The hash of a leaf.
pub fn leaf_hash(envelope: &[u8]) -> LeafHash {
    Sha256::new().chain_update([0]).chain_update(envelope).finalize().into()
}

/// What an envelope says, as it is stored beside it. Every field can be derived again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    /// The event's id, where the bytes have one.
    pub event_id: Option<Uuid>,
    /// The domain that the subject names.
    pub domain: String,
    /// `<entity>.<action>`.
    pub event_type: String,
    /// When it happened.
    pub occurred_at: Option<Timestamp>,
    /// Who published it.
    pub source: String,
    /// The participant that it concerns first.
    pub participant_id: Option<String>,
    /// What it belongs to.
    pub correlation_id: Option<String>,
    /// Producer and number.
    pub producer: Option<(String, u64)>,
    /// Why it is no valid event; none where it is.
    pub invalid_reason: Option<String>,
}

/// A leaf without its place in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Its hash.
    pub hash: LeafHash,
    /// Its bytes: those published, or the wrapper.
    pub envelope: Bytes,
    /// The bytes published, where a wrapper stands for them.
    pub raw: Option<Bytes>,
    /// The subject as it is stored.
    pub subject: String,
    /// Derived columns.
    pub columns: Columns,
}

/// What a decoder made of bytes.
pub use deltran_messaging::Decoded;

impl Leaf {
    /// The leaf of a message, judged by what `decoded` made of its bytes and counted under `producer`.
    pub fn of(subject: &str, payload: &Bytes, decoded: &Decoded, producer: Option<&(String, u64)>) -> Self {
        let subject = stored_subject(subject).into_owned();
        if is_line(payload) {
            let columns = derive(&subject, payload, decoded, producer.cloned());
            return Self { hash: leaf_hash(payload), envelope: payload.clone(), raw: None, subject, columns };
        }
        let envelope = Bytes::from(wrap(&subject, payload));
        let reason = decoded.as_ref().err().map_or_else(|| "is no line".to_owned(), ToString::to_string);
        let columns = wrapper_columns(&subject, reason);
        Self { hash: leaf_hash(&envelope), envelope, raw: Some(payload.clone()), subject, columns }
    }

    /// Whether it is a valid event that contradicts no earlier one.
    pub fn is_valid(&self) -> bool {
        self.columns.invalid_reason.is_none()
    }

    /// Marks it as contradicting an earlier leaf.
    #[must_use]
    pub fn conflicting(mut self, with: &str) -> Self {
        self.columns.invalid_reason = Some(cut(&format!("{CONFLICT}{with}"), MAX_REASON));
        self
    }
}

/// Decodes stored bytes again and derives every column from them.
pub fn derive_again(subject: &str, envelope: &[u8], wrapped: bool) -> (Columns, Decoded) {
    let decoded = Envelope::decode(subject, envelope);
    if wrapped {
        return (wrapper_columns(subject, "is no line".to_owned()), decoded);
    }
    let producer = producer_of(subject, envelope, decoded.as_ref().ok().map(|(envelope, _)| envelope));
    (derive(subject, envelope, &decoded, producer), decoded)
}

fn derive(subject: &str, line: &[u8], decoded: &Decoded, producer: Option<(String, u64)>) -> Columns {
    let domain = domain_of(subject);
    match decoded {
        Ok((envelope, _)) => Columns {
            event_id: Some(envelope.event_id.uuid()),
            domain,
            event_type: cut(&envelope.event_type, MAX_TEXT),
            occurred_at: Some(envelope.timestamp),
            source: cut(&envelope.source, MAX_TEXT),
            participant_id: envelope.metadata.participant_id.map(|p| p.to_string()),
            correlation_id: envelope.metadata.correlation_id.as_deref().map(|c| cut(c, MAX_TEXT)),
            producer,
            invalid_reason: None,
        },
        Err(reason) => Columns { producer, ..claims(line, domain, &reason.to_string()) },
    }
}

/// What invalid bytes say about themselves, as far as they say it in the form of an envelope.
fn claims(line: &[u8], domain: String, reason: &str) -> Columns {
    let value: Value = serde_json::from_slice(line).unwrap_or_default();
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(|t| cut(t, MAX_TEXT));
    let metadata = value.get("metadata").cloned().unwrap_or_default();
    Columns {
        event_id: text(&value, "event_id").and_then(|id| Uuid::try_parse(&id).ok()).filter(|id| !id.is_nil()),
        domain,
        event_type: text(&value, "event_type").unwrap_or_default(),
        occurred_at: text(&value, "timestamp").and_then(|at| at.parse().ok()).filter(storable_time),
        source: text(&value, "source").unwrap_or_default(),
        participant_id: text(&metadata, "participant_id"),
        correlation_id: text(&metadata, "correlation_id"),
        producer: None,
        invalid_reason: Some(cut(reason, MAX_REASON)),
    }
}

fn wrapper_columns(subject: &str, reason: String) -> Columns {
    Columns {
        domain: domain_of(subject),
        event_type: super::wrapper::EVENT_TYPE.to_owned(),
        source: super::wrapper::SOURCE.to_owned(),
        invalid_reason: Some(cut(&reason, MAX_REASON)),
        ..Columns::default()
    }
}

/// The year 0 and later, as valid envelopes have it; Postgres knows few years before.
fn storable_time(at: &Timestamp) -> bool {
    at.micros() >= -62_167_219_200_000_000
}

fn domain_of(subject: &str) -> String {
    cut(subject.split('.').nth(1).unwrap_or_default(), MAX_TEXT)
}

fn cut(text: &str, most: usize) -> String {
    storable(text, most).into_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use deltran_events::data::audit::AccessGranted;
    use deltran_events::{Context, Event, Stamp};
    use deltran_kernel::{EventId, IdSource, SeededIds};
    use proptest::prelude::*;

    pub(crate) const SUBJECT: &str = "events.audit.access.granted";

    pub(crate) fn line(seq: u64, query: &str) -> Vec<u8> {
        let at = Timestamp::from_micros(1_762_430_400_000_000);
        let stamp = Stamp {
            event_id: EventId::new(SeededIds::new(seq).next_id(at)),
            at,
            producer: "audit-engine/1",
            producer_seq: seq,
        };
        let event = Event::from(AccessGranted { user: "ada".into(), role: "auditor".into(), query: query.into() });
        let context = Context { correlation_id: Some("c1".into()), ..Context::default() };
        deltran_events::encode(&event, &context, &stamp).unwrap().to_vec()
    }

    pub(crate) fn leaf(subject: &str, payload: &[u8]) -> Leaf {
        let decoded = Envelope::decode(subject, payload);
        let producer = producer_of(subject, payload, decoded.as_ref().ok().map(|(e, _)| e));
        Leaf::of(subject, &Bytes::copy_from_slice(payload), &decoded, producer.as_ref())
    }

    #[test]
    fn hashes_as_rfc_6962_does() {
        // The empty leaf and a one-byte leaf of the test vectors that transparency logs share.
        assert_eq!(hex::encode(leaf_hash(b"")), "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
        assert_eq!(hex::encode(leaf_hash(&[0])), "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7");
    }

    #[test]
    fn derives_every_column_of_a_valid_event() {
        let bytes = line(7, "list");
        let leaf = leaf(SUBJECT, &bytes);
        assert_eq!(leaf.envelope, bytes);
        assert!(leaf.is_valid() && leaf.raw.is_none());
        let c = &leaf.columns;
        assert_eq!(
            (c.domain.as_str(), c.event_type.as_str(), c.source.as_str()),
            ("audit", "access.granted", "audit-engine")
        );
        assert_eq!(c.producer, Some(("audit-engine/1".into(), 7)));
        assert_eq!(c.correlation_id.as_deref(), Some("c1"));
        assert_eq!(c.occurred_at, Some(Timestamp::from_micros(1_762_430_400_000_000)));
        assert!(c.event_id.is_some());
    }

    #[test]
    fn keeps_what_invalid_bytes_say() {
        let odd = br#"{"event_id":"0190c3d5-0000-7000-8000-000000000001","event_type":"a\u0000b","source":"acme","metadata":{"correlation_id":"x","producer":"acme/2","producer_seq":4}}"#;
        let leaf = leaf("events.reporting.a.b", odd);
        assert!(!leaf.is_valid());
        assert_eq!(leaf.columns.event_type, "a\u{FFFD}b");
        assert_eq!(leaf.columns.producer, Some(("acme/2".into(), 4)));
        assert!(leaf.columns.event_id.is_some());
    }

    #[test]
    fn wraps_what_is_no_line() {
        for raw in [b"{\n}".to_vec(), vec![0xff, 0xfe], vec![b'x'; 70_000]] {
            let leaf = leaf("events.risk.a.b", &raw);
            assert_eq!(leaf.envelope, wrap("events.risk.a.b", &raw));
            assert_eq!(leaf.raw.as_deref(), Some(raw.as_slice()));
            assert!(!leaf.is_valid() && leaf.columns.producer.is_none() && leaf.columns.event_id.is_none());
        }
    }

    proptest! {
        /// What is derived at the append is what `verify` derives from the stored row.
        #[test]
        fn is_derived_again_the_same(
            payload in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..80),
                "\\{\"event_id\":\"[0-9a-f-]{36}\",\"timestamp\":\"[-0-9]{1,7}-01-01T00:00:00Z\",\"source\":\".{0,5}\"\\}".prop_map(String::into_bytes),
                (1u64..9, "[a-z]{0,9}").prop_map(|(seq, query)| line(seq, &query)),
            ],
            subject in prop_oneof!["events\\.[a-z]{0,9}\\..{0,9}", Just(SUBJECT.to_owned())],
        ) {
            let leaf = leaf(&subject, &payload);
            let (again, _) = derive_again(&leaf.subject, &leaf.envelope, leaf.raw.is_some());
            prop_assert_eq!(again.invalid_reason.is_some(), !leaf.is_valid());
            let strip = |c: Columns| Columns { invalid_reason: None, ..c };
            prop_assert_eq!(strip(again), strip(leaf.columns));
        }
    }
}
