//! The AsyncAPI document: every subject, what is said on it, who says it and who reads it.

use serde_json::{Map, Value, json};

use crate::catalog::{EVENTS, EventSpec};
use crate::schema;
use crate::topology::{self, CONSUMERS};

/// The document as a value. Paths of schemas are relative to `schemas/`.
pub(crate) fn document() -> Value {
    let by_name =
        |entry: fn(&EventSpec) -> Value| EVENTS.iter().map(|spec| (name(spec), entry(spec))).collect::<Map<_, _>>();
    let mut operations: Map<String, Value> =
        EVENTS.iter().map(|spec| (format!("publish.{}", name(spec)), publish(spec))).collect();
    operations.extend(CONSUMERS.iter().flat_map(|consumer| {
        EVENTS
            .iter()
            .filter(move |spec| reads(consumer, spec))
            .map(move |spec| (format!("{}.{}", consumer.name, name(spec)), receive(consumer, spec)))
    }));
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "DelTran events",
            "version": schema::ENVELOPE_VERSION,
            "description": "Every event of the platform, with its subject, its stream and the schema of its data.",
            "license": {"name": "Apache-2.0"},
        },
        "servers": {"local": {
            "host": "127.0.0.1:4222",
            "protocol": "nats",
            "description": "the broker of a machine that runs the whole platform",
        }},
        "defaultContentType": "application/json",
        "channels": by_name(channel),
        "operations": operations,
        "components": {
            "messages": by_name(message),
            "messageTraits": {"event": {"headers": headers()}},
        },
    })
}

/// The name of an event in the document: its subject without `events.`, because two domains may have
/// events of the same type.
fn name(spec: &EventSpec) -> String {
    format!("{}.{}", spec.domain.name(), spec.event_type())
}

fn description(spec: &EventSpec) -> Value {
    schema::document(spec).get("description").cloned().unwrap_or_default()
}

fn channel(spec: &EventSpec) -> Value {
    json!({
        "address": spec.subject(),
        "messages": {name(spec): {"$ref": format!("#/components/messages/{}", name(spec))}},
        "x-stream": spec.domain.stream(),
    })
}

fn publish(spec: &EventSpec) -> Value {
    json!({
        "action": "send",
        "channel": {"$ref": format!("#/channels/{}", name(spec))},
        "x-engine": spec.domain.engine(),
    })
}

fn receive(consumer: &topology::ConsumerSpec, spec: &EventSpec) -> Value {
    json!({
        "action": "receive",
        "channel": {"$ref": format!("#/channels/{}", name(spec))},
        "x-engine": consumer.engine,
    })
}

/// The audit trail reads everything; to say so once per event would tell nobody anything.
fn reads(consumer: &topology::ConsumerSpec, spec: &EventSpec) -> bool {
    consumer.filter_subjects.iter().any(|pattern| topology::matches(pattern, &spec.subject()))
}

fn message(spec: &EventSpec) -> Value {
    let path = format!("./{}/{}.schema.json", spec.domain.name(), spec.event_type());
    json!({
        "name": spec.event_type(),
        "title": spec.event_type(),
        "description": description(spec),
        "contentType": "application/json",
        "traits": [{"$ref": "#/components/messageTraits/event"}],
        "payload": {"allOf": [
            {"$ref": "./envelope.schema.json"},
            {"properties": {"event_type": {"const": spec.event_type()}, "data": {"$ref": path}}},
        ]},
        "x-schema-version": spec.version,
    })
}

fn headers() -> Value {
    json!({
        "type": "object",
        "properties": {
            "Nats-Msg-Id": {"type": "string", "description": "the event_id: the broker drops a second message with the same id"},
            "Content-Type": {"type": "string", "const": "application/json"},
            "traceparent": {"type": "string", "description": "W3C trace context"},
            "Deltran-Schema": {"type": "string", "description": "<event_type>/<version>"},
        },
    })
}
