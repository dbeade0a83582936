//! A received message, decoded as far as it goes.

use async_nats::jetstream::Message;
use bytes::Bytes;
use deltran_events::catalog::EventSpec;
use deltran_events::{DecodeError, Envelope, Event};
use serde_json::Value;

use crate::broker::BrokerError;

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
    pub envelope: Result<(Envelope<Value>, &'static EventSpec), DecodeError>,
    /// Producer and number, where the bytes carry both, valid or not.
    pub producer: Option<(String, u64)>,
    /// Whether this consumer had received it before. Only raw consumers see such deliveries.
    pub duplicate: bool,
}

impl Delivery {
    pub(crate) fn read(message: &Message) -> Result<Self, BrokerError> {
        let info = message.info().map_err(BrokerError::new)?;
        let subject = message.subject.to_string();
        let payload = message.payload.clone();
        let envelope = Envelope::decode(&subject, &payload);
        let producer = match &envelope {
            Ok((envelope, _)) => envelope.metadata.producer.clone().zip(envelope.metadata.producer_seq),
            Err(_) => claimed_producer(&payload),
        };
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
            producer: producer.filter(|(_, seq)| *seq > 0),
            duplicate: false,
        })
    }

    /// The event with its data, where it is valid and comes from the engine that owns its domain.
    /// What outside publishers put on a subject is recorded by the audit ledger and moves no money.
    pub fn engine_event(&self) -> Option<Event> {
        let (envelope, spec) = self.envelope.as_ref().ok()?;
        let (producer, _) = self.producer.as_ref()?;
        let owner = producer.rsplit_once('/')?.0;
        if owner != spec.domain.source() || envelope.source != owner {
            return None;
        }
        envelope.event(spec).ok()
    }

    /// The event's id, where the envelope is valid.
    pub fn event_id(&self) -> Option<deltran_kernel::EventId> {
        self.envelope.as_ref().ok().map(|(envelope, _)| envelope.event_id)
    }

    /// Whether the bytes claim to be from the engine that owns the subject's domain.
    pub(crate) fn claims_engine(&self) -> bool {
        let domain = self.subject.split('.').nth(1);
        let owner = deltran_events::Domain::ALL.into_iter().find(|d| Some(d.name()) == domain);
        match (&self.producer, owner) {
            (Some((producer, _)), Some(owner)) => producer.rsplit_once('/').is_some_and(|(p, _)| p == owner.source()),
            _ => false,
        }
    }
}

/// The producer that bytes claim, where they are JSON with such metadata at all.
fn claimed_producer(payload: &[u8]) -> Option<(String, u64)> {
    let value: Value = serde_json::from_slice(payload).ok()?;
    let metadata = value.get("metadata")?;
    Some((metadata.get("producer")?.as_str()?.to_owned(), metadata.get("producer_seq")?.as_u64()?))
}

/// `Nats-Stream-Source`: stream and sequence first, then details that do not matter here. The stream
/// may be followed by a hash of its account after a colon.
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
        assert_eq!(source_of("CLEARING 42 > > events.clearing.>"), Some(("CLEARING".into(), 42)));
        assert_eq!(source_of("CLEARING:abc 7"), Some(("CLEARING".into(), 7)));
        assert_eq!(source_of("CLEARING"), None);
    }

    #[test]
    fn a_claim_is_read_from_any_json() {
        let claim = claimed_producer(br#"{"metadata":{"producer":"token-engine/1","producer_seq":9},"x":1}"#);
        assert_eq!(claim, Some(("token-engine/1".into(), 9)));
        assert_eq!(claimed_producer(b"not json"), None);
    }
}
