//! Old events are read for ever: one example of every version ever published.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use deltran_events::catalog::EVENTS;
use deltran_events::{Context, Envelope, EventSpec, Json, Stamp, encode, schema};
use serde_json::{Map, Value, json};

struct Example {
    /// `<domain>/<entity>.<action>/<version>`.
    name: String,
    subject: String,
    version: String,
    content: Value,
    /// As it would stand in a stream.
    line: Vec<u8>,
}

fn names(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn examples() -> Vec<Example> {
    let root = crate::root().join("schemas/examples");
    let mut found = Vec::new();
    for domain in names(&root) {
        for event_type in names(&root.join(&domain)) {
            for file in names(&root.join(&domain).join(&event_type)) {
                let version = file.strip_suffix(".json").unwrap().to_owned();
                let name = format!("{domain}/{event_type}/{version}");
                let text = fs::read(root.join(format!("{name}.json"))).unwrap();
                let content: Value = serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
                let line = content.to_string().into_bytes();
                found.push(Example { subject: format!("events.{domain}.{event_type}"), name, version, content, line });
            }
        }
    }
    found
}

#[test]
fn every_example_is_read_and_written_again_as_it_was() {
    for example in examples() {
        let name = &example.name;
        let (envelope, spec) =
            Envelope::decode(&example.subject, &example.line).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(envelope.version, example.version, "{name}");
        assert_eq!(envelope.event_type, spec.event_type(), "{name}");
        let event = envelope.data.clone();
        assert_eq!(event.spec().index, spec.index, "{name}");

        let metadata = envelope.metadata.clone();
        let context = Context {
            correlation_id: metadata.correlation_id,
            user_id: metadata.user_id,
            causation_id: metadata.causation_id,
            participant_id: metadata.participant_id,
        };
        let producer = metadata.producer.unwrap_or_else(|| panic!("{name}: no producer"));
        let producer_seq = metadata.producer_seq.unwrap_or_default();
        let stamp = Stamp { event_id: envelope.event_id, at: envelope.timestamp, producer: &producer, producer_seq };
        let again: Value = serde_json::from_slice(&encode(&event, &context, &stamp).unwrap()).unwrap();
        assert_eq!(again["data"], example.content["data"], "{name}");
        if example.version == spec.version {
            assert_eq!(again, example.content, "{name}");
        }
    }
}

#[test]
fn every_event_has_an_example_of_its_current_version() {
    let found: BTreeSet<String> = examples().into_iter().map(|example| example.name).collect();
    let missing: Vec<String> = EVENTS
        .iter()
        .map(|spec| format!("{}/{}/{}", spec.domain.name(), spec.event_type(), spec.version))
        .filter(|name| !found.contains(name))
        .collect();
    assert!(missing.is_empty(), "write schemas/examples/… by hand for {missing:?}");
}

#[test]
fn every_example_has_an_id_of_its_own() {
    let all = examples();
    let ids: BTreeSet<&str> = all.iter().filter_map(|example| example.content["event_id"].as_str()).collect();
    assert_eq!(ids.len(), all.len());
}

/// The data, and what becomes of it when a member is left out or is something else.
fn variants(data: &Value) -> Vec<Value> {
    let mut variants = vec![data.clone()];
    for name in data.as_object().unwrap().keys() {
        let changed = |change: &dyn Fn(&mut Map<String, Value>)| {
            let mut data = data.clone();
            change(data.as_object_mut().unwrap());
            data
        };
        variants.push(changed(&|object| drop(object.remove(name))));
        for other in
            [json!(null), json!(true), json!(7), json!(-1), json!("x"), json!(""), json!([{}]), json!({"a": 1})]
        {
            variants.push(changed(&|object| drop(object.insert(name.clone(), other.clone()))));
        }
    }
    variants
}

/// The validator looks at JSON in pieces of the text; it must see what it sees in values of their own.
#[test]
fn pieces_of_the_text_are_judged_as_plain_values_are() {
    let (mut valid, mut invalid) = (0, 0);
    for example in examples() {
        let spec = EventSpec::of_subject(&example.subject, example.content["event_type"].as_str().unwrap()).unwrap();
        let plain = jsonschema::options()
            .with_pattern_options(jsonschema::PatternOptions::regex())
            .build(&schema::document(spec))
            .unwrap();
        for data in variants(&example.content["data"]) {
            let text = data.to_string();
            let verdict = schema::check_data(spec, &Json::parse(&text).unwrap());
            if plain.is_valid(&data) {
                valid += 1;
                // What is not in the schema is checked besides: amounts against their currency.
                let against_schema = verdict.is_err_and(|e| e.reason.starts_with("data"));
                assert!(!against_schema, "{} {text}", example.name);
            } else {
                invalid += 1;
                let reason = verdict.expect_err(&text).reason;
                let expected = plain.validate(&data).unwrap_err();
                assert!(reason.starts_with(&format!("data{}: ", expected.instance_path())), "{reason} {expected}");
            }
        }
    }
    assert!(valid > 500 && invalid > 500, "{valid} valid, {invalid} not");
}
