//! Writes values as text in one fixed form: JSON for machines and people, YAML for people.

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::{Map, Value};

/// Keys that people look for first, in this order; others follow by name. Fields of data stand by name.
const FIRST: &[&str] = &[
    "asyncapi",
    "info",
    "servers",
    "defaultContentType",
    "channels",
    "operations",
    "components",
    "$schema",
    "$id",
    "name",
    "durable_name",
    "title",
    "version",
    "action",
    "channel",
    "address",
    "description",
    "const",
    "type",
];

/// Keys that close an object.
const LAST: &[&str] = &["$defs", "examples"];

/// Pretty JSON with a newline at the end.
pub(crate) fn json(value: &Value) -> Result<Vec<u8>, serde_json::Error> {
    let mut text = serde_json::to_vec_pretty(&Ordered(value, ""))?;
    text.push(b'\n');
    Ok(text)
}

/// Block YAML with a newline at the end.
pub(crate) fn yaml(value: &Value) -> Vec<u8> {
    let mut text = String::new();
    block(value, "", 0, &mut text);
    text.trim_start_matches('\n').as_bytes().to_vec()
}

/// A value, and the key that it stands under.
struct Ordered<'a>(&'a Value, &'a str);

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let Self(value, under) = *self;
        match value {
            Value::Object(object) => {
                let mut map = s.serialize_map(Some(object.len()))?;
                for (key, value) in ordered(object, under) {
                    map.serialize_entry(key, &Ordered(value, key))?;
                }
                map.end()
            }
            Value::Array(items) => {
                let mut seq = s.serialize_seq(Some(items.len()))?;
                for item in items {
                    seq.serialize_element(&Ordered(item, ""))?;
                }
                seq.end()
            }
            scalar => scalar.serialize(s),
        }
    }
}

/// The entries of an object in an order that does not depend on how the object was built.
fn ordered<'a>(object: &'a Map<String, Value>, under: &str) -> Vec<(&'a String, &'a Value)> {
    let rank = |key: &str| match (FIRST.iter().position(|k| *k == key), LAST.iter().position(|k| *k == key)) {
        (Some(place), _) => place,
        (None, None) => FIRST.len(),
        (None, Some(place)) => FIRST.len() + 1 + place,
    };
    let mut entries: Vec<_> = object.iter().collect();
    entries.sort_by_key(|(key, _)| (if under == "properties" { 0 } else { rank(key) }, key.as_str()));
    entries
}

/// Writes what follows `key:` or `-`, with its leading blank or line break and its final newline.
fn block(value: &Value, under: &str, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(object) if !object.is_empty() => {
            out.push('\n');
            for (key, value) in ordered(object, under) {
                out.push_str(&format!("{indent}{}:", scalar(key)));
                block(value, key, depth + 1, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            for item in items {
                let mut text = String::new();
                block(item, "", depth + 1, &mut text);
                // The first entry of an object stands on the line of its dash.
                let text = text.strip_prefix('\n').map_or(text.as_str(), |rest| &rest[indent.len() + 1..]);
                out.push_str(&format!("{indent}-{text}"));
            }
        }
        Value::String(text) => out.push_str(&format!(" {}\n", scalar(text))),
        other => out.push_str(&format!(" {other}\n")),
    }
}

/// A text as it is where no reader can take it for anything else, otherwise in double quotes.
fn scalar(text: &str) -> String {
    const WORDS: &[&str] = &["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || " _-./;,()'".contains(c))
        && !text.ends_with(' ')
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    if plain { text.to_owned() } else { Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_has_a_fixed_order() {
        let text = String::from_utf8(json(&json!({"b": 1, "a": [true], "$defs": {}, "title": "t"})).unwrap()).unwrap();
        assert_eq!(text, "{\n  \"title\": \"t\",\n  \"a\": [\n    true\n  ],\n  \"b\": 1,\n  \"$defs\": {}\n}\n");
    }

    #[test]
    fn fields_stand_by_name() {
        let fields = json!({"properties": {"version": {"description": "d", "const": 1}, "event_id": 1}});
        let text = String::from_utf8(yaml(&fields)).unwrap();
        assert_eq!(text, "properties:\n  event_id: 1\n  version:\n    description: d\n    const: 1\n");
    }

    #[test]
    fn yaml_is_in_blocks_and_quotes_what_is_ambiguous() {
        let value = json!({
            "info": {"title": "A title, plain", "version": "1.0"},
            "list": [{"a": 1, "b": [1, "x: y"]}, "no", [], {}, [["deep"]]],
            "none": null,
            "$ref": "#/a",
        });
        let expected = concat!(
            "info:\n  title: A title, plain\n  version: \"1.0\"\n",
            "\"$ref\": \"#/a\"\n",
            "list:\n  - a: 1\n    b:\n      - 1\n      - \"x: y\"\n  - \"no\"\n  - []\n  - {}\n  - - - deep\n",
            "none: null\n",
        );
        assert_eq!(String::from_utf8(yaml(&value)).unwrap(), expected);
    }
}
