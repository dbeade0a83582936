//! A received message, decoded as far as it goes.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::Message;
use bytes::Bytes;
use deltran_events::{Domain, Envelope, Event, MAX_ENVELOPE_BYTES, MAX_PRODUCER_SEQ};
use serde_json::Value;

use crate::broker::BrokerError;
use crate::decoder::{Decoded, Decoder};

/// What a handler made of a message ahead, in the handler's own type.
pub type Prepared = Arc<dyn Any + Send + Sync>;

/// A message as a consumer gets it.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The subject it was published on.
    pub subject: String,
    /// The stream it was read from.
    pub stream: String,
    /// Its sequence there; only where to resume, never what is a duplicate.
    pub stream_sequence: u64,
    /// The stream that it came from first, and its sequence there: of a sourcing stream, the origin.
    pub origin: (String, u64),
    /// How often it was delivered, this time included.
    pub attempt: u32,
    /// The exact bytes.
    pub payload: Bytes,
    /// The validated envelope with its row of the catalog, or what is wrong.
    pub envelope: Arc<Decoded>,
    /// Producer and number, where the bytes carry both and may: see [`producer_of`].
    pub producer: Option<(String, u64)>,
    /// The platform's own headers (`Deltran-…`) of what is no event, the first value of each.
    pub headers: BTreeMap<String, String>,
    /// Whether this consumer had received it before. Only raw consumers see such deliveries.
    pub duplicate: bool,
    /// What its handler made of it when it was read: see [`Handler::prepare`](crate::Handler::prepare).
    pub prepared: Option<Prepared>,
}

impl Delivery {
    pub(crate) fn read(message: &Message, decoder: &Decoder) -> Result<Self, BrokerError> {
        let info = message.info().map_err(BrokerError::new)?;
        let subject = message.subject.to_string();
        let payload = message.payload.clone();
        let envelope = decoder.decode(id_of(message), &subject, &payload);
        let producer = producer_of(&subject, &payload, valid(&envelope));
        let headers = if subject.starts_with("events.") { BTreeMap::new() } else { own_headers(message) };
        let origin = message
            .headers
            .as_ref()
            .and_then(|h| h.get("Nats-Stream-Source"))
            .and_then(|v| source_of(v.as_str()))
            .unwrap_or_else(|| (info.stream.to_owned(), info.stream_sequence));
        Ok(Self {
            stream: info.stream.to_owned(),
            stream_sequence: info.stream_sequence,
            attempt: u32::try_from(info.delivered).unwrap_or(u32::MAX),
            subject,
            payload,
            origin,
            envelope,
            producer,
            headers,
            duplicate: false,
            prepared: None,
        })
    }

    /// The event with its data, where it is valid and comes from the engine that owns its domain.
    /// What outside publishers put on a subject is recorded by the audit ledger and moves no money.
    pub fn engine_event(&self) -> Option<&Event> {
        let (envelope, spec) = (*self.envelope).as_ref().ok()?;
        let (producer, _) = self.producer.as_ref()?;
        let owner = producer.rsplit_once('/')?.0;
        if owner != spec.domain.source() || envelope.source != owner {
            return None;
        }
        Some(&envelope.data)
    }

    /// The event's id, where the envelope is valid.
    pub fn event_id(&self) -> Option<deltran_kernel::EventId> {
        valid(&self.envelope).map(|envelope| envelope.event_id)
    }

    /// Whether the bytes claim to be from the engine that owns the subject's domain.
    pub(crate) fn claims_engine(&self) -> bool {
        match (&self.producer, owner_of(&self.subject)) {
            (Some((producer, _)), Some(owner)) => source_in(producer) == owner.source(),
            _ => false,
        }
    }
}

fn id_of(message: &Message) -> Option<&str> {
    Some(message.headers.as_ref()?.get(NATS_MESSAGE_ID)?.as_str())
}

fn valid(decoded: &Decoded) -> Option<&Envelope<Event>> {
    decoded.as_ref().ok().map(|(envelope, _)| envelope)
}

/// Producer and number of a message of which nothing else is needed.
pub(crate) fn producer_in(message: &Message, decoder: &Decoder) -> Option<(String, u64)> {
    // Where another consumer needed it, its JSON need not be read again.
    let decoded = decoder.recall(id_of(message), &message.subject, &message.payload);
    producer_of(&message.subject, &message.payload, decoded.as_deref().and_then(valid))
}

fn own_headers(message: &Message) -> BTreeMap<String, String> {
    let all = message.headers.iter().flat_map(|headers| headers.iter());
    let own = all.filter_map(|(name, values)| {
        let name: &str = name.as_ref();
        name.starts_with("Deltran-").then(|| Some((name.to_owned(), values.first()?.as_str().to_owned()))).flatten()
    });
    own.collect()
}

/// The domain that a subject names.
fn owner_of(subject: &str) -> Option<Domain> {
    let name = subject.strip_prefix("events.")?.split('.').next()?;
    Domain::ALL.into_iter().find(|domain| domain.name() == name)
}

/// The source in `<source>/<epoch>`.
fn source_in(producer: &str) -> &str {
    producer.rsplit_once('/').map_or(producer, |(source, _)| source)
}

/// The producer and number under which bytes count: those of a valid envelope, and of an invalid one
/// as far as it is one line that says so. A number under the name of one of the platform's engines
/// counts on that engine's own subjects only, so that nobody else can use its numbers up.
pub fn producer_of(subject: &str, payload: &[u8], valid: Option<&Envelope<Event>>) -> Option<(String, u64)> {
    let (producer, seq) = match valid {
        Some(envelope) => envelope.metadata.producer.clone().zip(envelope.metadata.producer_seq)?,
        None if payload.len() > MAX_ENVELOPE_BYTES || payload.iter().any(|b| matches!(b, b'\n' | b'\r')) => {
            return None;
        }
        None => claimed_producer(payload)?,
    };
    let (source, epoch) = producer.split_once('/')?;
    let named = (1..=64).contains(&source.len())
        && source.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && (1..=19).contains(&epoch.len())
        && epoch.bytes().all(|b| b.is_ascii_digit());
    let owned = match Domain::ALL.into_iter().find(|domain| domain.source() == source) {
        Some(domain) => owner_of(subject) == Some(domain),
        None => true,
    };
    (named && owned && (1..=MAX_PRODUCER_SEQ).contains(&seq)).then_some((producer, seq))
}

/// The producer that bytes claim, where they are JSON with such metadata at all.
fn claimed_producer(payload: &[u8]) -> Option<(String, u64)> {
    let value: Value = serde_json::from_slice(payload).ok()?;
    let metadata = value.get("metadata")?;
    Some((metadata.get("producer")?.as_str()?.to_owned(), metadata.get("producer_seq")?.as_u64()?))
}

/// `Nats-Stream-Source`: stream and sequence, then filter, transformation, original subject and a mark
/// of the source. The stream may be followed by a hash of its account after a colon.
fn source_of(header: &str) -> Option<(String, u64)> {
    let mut parts = header.split(' ');
    let stream = parts.next()?.split(':').next()?;
    let sequence = parts.next()?.parse().ok()?;
    Some((stream.to_owned(), sequence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_origin_of_a_sourced_message() {
        let whole = "CLEARING 42 > > events.clearing.window.opened Oo1rcW34";
        assert_eq!(source_of(whole), Some(("CLEARING".into(), 42)));
        assert_eq!(source_of("CLEARING:abc 7"), Some(("CLEARING".into(), 7)));
        assert_eq!(source_of("CLEARING"), None);
    }

    #[test]
    fn a_claim_is_read_from_any_json() {
        let claim = claimed_producer(br#"{"metadata":{"producer":"token-engine/1","producer_seq":9},"x":1}"#);
        assert_eq!(claim, Some(("token-engine/1".into(), 9)));
        assert_eq!(claimed_producer(b"not json"), None);
    }

    #[test]
    fn a_number_counts_for_its_owner_only() {
        let line =
            |producer: &str, seq: u64| format!(r#"{{"metadata":{{"producer":"{producer}","producer_seq":{seq}}}}}"#);
        let counts = |subject: &str, line: String| producer_of(subject, line.as_bytes(), None).is_some();
        assert!(counts("events.transactions.a.b", line("token-engine/1", 9)));
        assert!(counts("events.reporting.a.b", line("acme-feed/1", 9)));
        assert!(!counts("events.reporting.a.b", line("token-engine/1", 9)), "another engine's name");
        assert!(!counts("dlq.transactions.y", line("token-engine/1", 9)));
        for (producer, seq) in
            [("a\\u0000/1", 1), ("acme/", 1), ("acme/x", 1), ("acme", 1), ("acme/1", 0), ("acme/1", u64::MAX)]
        {
            assert!(!counts("events.reporting.a.b", line(producer, seq)), "{producer} {seq}");
        }
        assert!(!counts("events.transactions.a.b", line("token-engine/1", 9) + "\n"), "more than one line");
    }
}
