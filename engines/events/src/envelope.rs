//! The envelope: the one line of JSON in which every event travels and is audited.

use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use deltran_kernel::{EventId, ParticipantId, Text, Timestamp};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::catalog::{EVENT_TYPE_PATTERN, Event, EventSpec, VERSION_PATTERN};
use crate::json::Json;
use crate::schema::{self, Invalid};

/// The largest envelope, in bytes: what a leaf of the audit ledger may be.
pub const MAX_ENVELOPE_BYTES: usize = 65_535;

/// The largest `producer_seq`: the largest integer that every reader of JSON reads exactly.
pub const MAX_PRODUCER_SEQ: u64 = (1 << 53) - 1;

const SOURCE_PATTERN: &str = "^[a-z][a-z0-9-]{0,63}$";
const PRODUCER_PATTERN: &str = "^[a-z][a-z0-9-]{0,63}/[0-9]{1,19}$";

/// The envelope of every event. `D` is the event's own data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Envelope<D> {
    /// UUID from the publisher; engines publish UUIDv7.
    #[serde(deserialize_with = "event_id")]
    #[schemars(schema_with = "event_id_schema")]
    pub event_id: EventId,
    /// `<entity>.<action>`.
    #[schemars(regex(pattern = EVENT_TYPE_PATTERN))]
    pub event_type: String,
    /// When it happened: RFC 3339 UTC.
    #[serde(deserialize_with = "timestamp")]
    #[schemars(extend("format" = "date-time"))]
    pub timestamp: Timestamp,
    /// `<engine>-engine`.
    #[schemars(regex(pattern = SOURCE_PATTERN))]
    pub source: String,
    /// `major.minor` of the data's schema.
    #[schemars(regex(pattern = VERSION_PATTERN))]
    pub version: String,
    /// The event's own data; its schema is the one of the event type and version.
    pub data: D,
    /// Who, and in which order.
    #[serde(deserialize_with = "object")]
    pub metadata: Metadata,
}

/// Who caused an event, and its place in the order of its producer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("dependentRequired" = {"producer": ["producer_seq"], "producer_seq": ["producer"]}))]
pub struct Metadata {
    /// What the event belongs to, such as a transaction or a window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// The user or engine that caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// The event that led to this one.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "optional_event_id")]
    #[schemars(schema_with = "optional_event_id_schema")]
    pub causation_id: Option<EventId>,
    /// The participant that it concerns first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub participant_id: Option<ParticipantId>,
    /// `<source>/<epoch>`; absent for outside publishers.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schemars(with = "String", regex(pattern = PRODUCER_PATTERN))]
    pub producer: Option<String>,
    /// The gapless, commit-ordered number of the event within its producer, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schemars(with = "u64", range(min = 1, max = MAX_PRODUCER_SEQ))]
    pub producer_seq: Option<u64>,
}

/// What surrounds an event when it is decided: who and what it belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Context {
    /// See [`Metadata::correlation_id`].
    pub correlation_id: Option<String>,
    /// See [`Metadata::user_id`].
    pub user_id: Option<String>,
    /// See [`Metadata::causation_id`].
    pub causation_id: Option<EventId>,
    /// See [`Metadata::participant_id`].
    pub participant_id: Option<ParticipantId>,
}

/// What the publisher stamps on an event: its id, time and number.
#[derive(Debug, Clone)]
pub struct Stamp<'a> {
    /// A fresh UUIDv7.
    pub event_id: EventId,
    /// When it happened.
    pub at: Timestamp,
    /// `<source>/<epoch>`.
    pub producer: &'a str,
    /// The next number of the producer.
    pub producer_seq: u64,
}

/// Writes an event as the one line that is stored, published and audited.
///
/// # Errors
/// [`Invalid`] where the data does not conform to its own schema, the producer is not one of the event's
/// source, or the line is longer than [`MAX_ENVELOPE_BYTES`]: a defect of the publisher, to be refused loudly.
pub fn encode(event: &Event, context: &Context, stamp: &Stamp<'_>) -> Result<Bytes, Invalid> {
    let spec = event.spec();
    let unwritten = |e: serde_json::Error| Invalid::new(spec.event_type(), e.to_string());
    let data = serde_json::to_string(event).map_err(unwritten)?;
    let read = Json::parse(&data).map_err(|reason| Invalid::new(spec.event_type(), reason))?;
    schema::check_data(spec, &read)?;
    let envelope = Envelope {
        event_id: stamp.event_id,
        event_type: spec.event_type().to_owned(),
        timestamp: stamp.at,
        source: spec.domain.source().to_owned(),
        version: spec.version.to_owned(),
        data: event,
        metadata: Metadata {
            correlation_id: context.correlation_id.clone(),
            user_id: context.user_id.clone(),
            causation_id: context.causation_id,
            participant_id: context.participant_id,
            producer: Some(stamp.producer.to_owned()),
            producer_seq: Some(stamp.producer_seq),
        },
    };
    envelope.check().map_err(|reason| Invalid::new(spec.event_type(), reason))?;
    let mut line = Vec::with_capacity(data.len() + 512);
    serde_json::to_writer(&mut line, &envelope).map_err(unwritten)?;
    if line.len() > MAX_ENVELOPE_BYTES {
        return Err(Invalid::new(
            spec.event_type(),
            format!("the envelope has {} bytes: at most {MAX_ENVELOPE_BYTES} are allowed", line.len()),
        ));
    }
    Ok(Bytes::from(line))
}

/// Why a received message is not a valid event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON, or not an envelope.
    #[error("not an envelope: {0}")]
    Envelope(String),
    /// The catalog has no such event.
    #[error("unknown event {event_type:?} on subject {subject:?}")]
    UnknownEvent {
        /// The type that the envelope names.
        event_type: String,
        /// The subject it came on.
        subject: String,
    },
    /// The catalog has the event, but not this major version.
    #[error("unknown schema version {found:?} of {event_type}: this release reads major version {known}")]
    UnknownVersion {
        /// The event's type.
        event_type: String,
        /// The version that the envelope names.
        found: String,
        /// The major version in the catalog.
        known: String,
    },
    /// The data does not conform.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

impl<D> Envelope<D> {
    /// What the types of the fields leave open.
    fn check(&self) -> Result<(), String> {
        if !is_source(&self.source) {
            return Err(format!("source {:?} is not a name such as \"token-engine\"", cut(&self.source)));
        }
        match (&self.metadata.producer, self.metadata.producer_seq) {
            (None, None) => Ok(()),
            (Some(producer), Some(seq)) => {
                let epoch = producer.strip_prefix(self.source.as_str()).and_then(|rest| rest.strip_prefix('/'));
                let is_epoch = |e: &str| (1..=19).contains(&e.len()) && e.bytes().all(|b| b.is_ascii_digit());
                if !epoch.is_some_and(is_epoch) {
                    return Err(format!("producer {:?} is not \"{}/<epoch>\"", cut(producer), self.source));
                }
                if !(1..=MAX_PRODUCER_SEQ).contains(&seq) {
                    return Err(format!("producer_seq {seq} is not between 1 and {MAX_PRODUCER_SEQ}"));
                }
                Ok(())
            }
            _ => Err("producer and producer_seq belong together: one of them is missing".to_owned()),
        }
    }
}

impl Envelope<Event> {
    /// Reads and validates a line received on `subject`: the envelope, then the data against the
    /// schema of its event and version.
    ///
    /// The envelope is checked by its types and not by its JSON Schema, for speed; a test holds the
    /// two together.
    ///
    /// # Errors
    /// [`DecodeError`]: the first thing that is wrong.
    pub fn decode(subject: &str, line: &[u8]) -> Result<(Self, &'static EventSpec), DecodeError> {
        let envelope = raw_envelope(line).map_err(DecodeError::Envelope)?;
        let spec = EventSpec::of_subject(subject, &envelope.event_type).ok_or_else(|| DecodeError::UnknownEvent {
            event_type: cut(&envelope.event_type),
            subject: subject.to_owned(),
        })?;
        if !spec.reads(&envelope.version) {
            return Err(DecodeError::UnknownVersion {
                event_type: envelope.event_type,
                found: cut(&envelope.version),
                known: spec.major().to_owned(),
            });
        }
        let data =
            Json::parse(envelope.data.get()).map_err(|e| Invalid::new(spec.event_type(), format!("data: {e}")))?;
        schema::check_data(spec, &data)?;
        // A schema does not know every currency and every day of the calendar; the type does.
        let data = (spec.read)(&data)?;
        let Envelope { event_id, event_type, timestamp, source, version, data: _, metadata } = envelope;
        Ok((Self { event_id, event_type, timestamp, source, version, data, metadata }, spec))
    }
}

/// The envelope of a line, its data still as text.
fn raw_envelope(line: &[u8]) -> Result<Envelope<&RawValue>, String> {
    if line.len() > MAX_ENVELOPE_BYTES {
        return Err(format!("{} bytes: at most {MAX_ENVELOPE_BYTES} are allowed", line.len()));
    }
    if memchr::memchr2(b'\n', b'\r', line).is_some() {
        return Err("more than one line".to_owned());
    }
    let text = std::str::from_utf8(line).map_err(|e| e.to_string())?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let envelope = object::<Envelope<&RawValue>, _>(&mut reader).map_err(|e| e.to_string())?;
    reader.end().map_err(|e| e.to_string())?;
    envelope.check()?;
    Ok(envelope)
}

fn is_source(source: &str) -> bool {
    source.len() <= 64
        && source.starts_with(|c: char| c.is_ascii_lowercase())
        && source.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// What a stranger wrote, at a length that fits a message.
fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

/// Reads a JSON object; derived readers would take an array as well.
fn object<'de, T: Deserialize<'de>, R: Deserializer<'de>>(reader: R) -> Result<T, R::Error> {
    struct Object<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(entries))
        }
    }
    reader.deserialize_map(Object(PhantomData))
}

/// Reads a field that may be absent and may not be null.
fn present<'de, T: Deserialize<'de>, R: Deserializer<'de>>(reader: R) -> Result<Option<T>, R::Error> {
    T::deserialize(reader).map(Some)
}

fn event_id<'de, R: Deserializer<'de>>(reader: R) -> Result<EventId, R::Error> {
    parse_event_id(&Text::deserialize(reader)?.0)
}

fn optional_event_id<'de, R: Deserializer<'de>>(reader: R) -> Result<Option<EventId>, R::Error> {
    Option::<Text<'_>>::deserialize(reader)?.map(|text| parse_event_id(&text.0)).transpose()
}

/// One form only, so that ids can be compared as texts.
fn parse_event_id<E: Error>(text: &str) -> Result<EventId, E> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(E::custom("an event id is written in small letters"));
    }
    text.parse().map_err(E::custom)
}

fn timestamp<'de, R: Deserializer<'de>>(reader: R) -> Result<Timestamp, R::Error> {
    let Text(text) = Text::deserialize(reader)?;
    if !is_utc_second_or_finer(text.as_bytes()) {
        return Err(R::Error::custom(format_args!(
            "time {:?} is not UTC such as 2025-11-06T12:00:00.000000Z",
            cut(&text)
        )));
    }
    text.parse().map_err(R::Error::custom)
}

/// `2025-11-06T12:00:00Z` with at most nine digits of a second: of all that RFC 3339 allows, the form
/// that everybody writes and that sorts.
fn is_utc_second_or_finer(text: &[u8]) -> bool {
    let (Some(second), Some(rest)) = (text.get(..19), text.get(19..)) else { return false };
    let form = second.iter().zip(b"0000-00-00T00:00:00").all(|(found, form)| match form {
        b'0' => found.is_ascii_digit(),
        other => found == other,
    });
    let fraction_of_second = match rest {
        b"Z" => true,
        [b'.', digits @ .., b'Z'] => (1..=9).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    form && fraction_of_second
}

fn event_id_schema(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = EventId::json_schema(generator);
    schema.insert("not".to_owned(), serde_json::json!({"const": "00000000-0000-0000-0000-000000000000"}));
    schema
}

fn optional_event_id_schema(generator: &mut SchemaGenerator) -> Schema {
    let id = event_id_schema(generator);
    json_schema!({"anyOf": [id, {"type": "null"}]})
}
