//! One row per rule of compatibility.

use serde_json::{Value, json};

use super::check;

/// An object with a required field `a` of some schema, and with definitions.
fn object(a: Value) -> Value {
    json!({
        "type": "object",
        "properties": {"a": a, "b": {"type": ["string", "null"]}},
        "required": ["a"],
        "$defs": {
            "Short": {"oneOf": [{"type": "string", "const": "X", "description": "one"}, {"type": "string", "const": "Y"}]},
            "Long": {"oneOf": [{"type": "string", "const": "X"}, {"type": "string", "const": "Y"}, {"type": "string", "const": "Z"}]},
            "Inner": {"type": "object", "properties": {"c": {"type": "string"}, "d": {"type": "integer"}}, "required": ["c"]},
            "InnerLess": {"type": "object", "properties": {"c": {"type": "string"}}, "required": ["c"]},
            "InnerMore": {"type": "object", "properties": {"c": {"type": "string"}, "d": {"type": "integer"}, "e": {"type": "string"}}, "required": ["c"]},
            "InnerStrict": {"type": "object", "properties": {"c": {"type": "string"}, "d": {"type": "integer"}}, "required": ["c", "d"]},
        }
    })
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/$defs/{name}")})
}

fn nullable(name: &str) -> Value {
    json!({"anyOf": [reference(name), {"type": "null"}]})
}

#[test]
fn additions_are_compatible() {
    let text = || object(json!({"type": "string"}));
    let with = |change: fn(&mut Value)| {
        let mut schema = text();
        change(&mut schema);
        schema
    };
    for (what, old, new) in [
        ("nothing", text(), text()),
        ("a description", text(), with(|s| s["properties"]["a"]["description"] = "new".into())),
        ("a title and an id", text(), with(|s| s["$id"] = "urn:x".into())),
        ("a new optional field", text(), with(|s| s["properties"]["c"] = json!({"type": "integer"}))),
        ("null where it may be absent", with(|s| s["properties"]["b"] = json!({"type": "string"})), text()),
        ("a new value of a list", object(json!({"enum": ["X"]})), object(json!({"enum": ["X", "Y"]}))),
        ("a new documented value", object(reference("Short")), object(reference("Long"))),
        ("a new value behind null", object(nullable("Short")), object(nullable("Long"))),
        ("a new field inside", object(reference("Inner")), object(reference("InnerMore"))),
        (
            "a new field inside items",
            object(json!({"type": "array", "items": reference("Inner")})),
            object(json!({"type": "array", "items": reference("InnerMore")})),
        ),
        (
            "a wider bound",
            object(json!({"type": "integer", "maximum": 5, "minimum": 1})),
            object(json!({"type": "integer", "maximum": 9, "minimum": 0})),
        ),
        (
            "the same under another name",
            object(reference("Inner")),
            object(
                json!({"type": "object", "properties": {"c": {"type": "string"}, "d": {"type": "integer"}}, "required": ["c"]}),
            ),
        ),
    ] {
        assert_eq!(check(&old, &new), Ok(()), "{what}");
    }
}

#[test]
fn what_breaks_a_reader_or_an_old_event_is_refused_with_its_field() {
    let text = || object(json!({"type": "string"}));
    let with = |change: fn(&mut Value)| {
        let mut schema = text();
        change(&mut schema);
        schema
    };
    for (field, old, new) in [
        ("field b: it is gone", text(), with(|s| drop(s["properties"].as_object_mut().unwrap().remove("b")))),
        (
            "field a: it is gone",
            text(),
            with(|s| {
                s["properties"].as_object_mut().unwrap().remove("a");
                s["required"] = json!([]);
            }),
        ),
        ("field a: its type was string and would be integer", text(), object(json!({"type": "integer"}))),
        (
            "field a: its type was string and would be number or string",
            text(),
            object(json!({"type": ["string", "number"]})),
        ),
        ("field a: its type was string and would be anything", text(), object(json!({}))),
        (
            "field b: it could be null and no longer may",
            text(),
            with(|s| s["properties"]["b"] = json!({"type": "string"})),
        ),
        ("field a: it was never null and could be", text(), object(json!({"type": ["string", "null"]}))),
        (
            "field c: a new field must be optional",
            text(),
            with(|s| {
                s["properties"]["c"] = json!({"type": "string"});
                s["required"] = json!(["a", "c"]);
            }),
        ),
        ("field b: it was optional and would be required", text(), with(|s| s["required"] = json!(["a", "b"]))),
        ("field a: it was always there and could be missing", text(), with(|s| s["required"] = json!([]))),
        ("field a: the value \"X\" is gone", object(json!({"enum": ["X", "Y"]})), object(json!({"enum": ["Y"]}))),
        ("field a: the value \"Z\" is gone", object(reference("Long")), object(reference("Short"))),
        ("field a: the value \"Z\" is gone", object(nullable("Long")), object(nullable("Short"))),
        (
            "field a: the value \"Z\" is gone",
            object(reference("Long")),
            object(json!({"enum": ["X", "Y"], "type": "string"})),
        ),
        ("field a: it took any value and would take only listed ones", text(), object(reference("Short"))),
        (
            "field a[]: the value \"Z\" is gone",
            object(json!({"type": "array", "items": reference("Long")})),
            object(json!({"type": "array", "items": reference("Short")})),
        ),
        ("field a.d: it is gone", object(reference("Inner")), object(reference("InnerLess"))),
        ("field a.d: it is gone", object(nullable("Inner")), object(nullable("InnerLess"))),
        (
            "field a.d: it was optional and would be required",
            object(reference("Inner")),
            object(reference("InnerStrict")),
        ),
        (
            "field a[].d: it is gone",
            object(json!({"type": "array", "items": reference("Inner")})),
            object(json!({"type": "array", "items": reference("InnerLess")})),
        ),
        (
            "field a: its pattern was \"^x$\" and would be \"^y$\"",
            object(json!({"type": "string", "pattern": "^x$"})),
            object(json!({"type": "string", "pattern": "^y$"})),
        ),
        (
            "field a: its pattern was none and would be \"^y$\"",
            text(),
            object(json!({"type": "string", "pattern": "^y$"})),
        ),
        (
            "field a: its format was \"uint64\" and would be \"uint32\"",
            object(json!({"type": "integer", "format": "uint64"})),
            object(json!({"type": "integer", "format": "uint32"})),
        ),
        (
            "field a: its maximum is narrower",
            object(json!({"type": "integer"})),
            object(json!({"type": "integer", "maximum": 5})),
        ),
        (
            "field a: its minimum is narrower",
            object(json!({"type": "integer", "minimum": 0})),
            object(json!({"type": "integer", "minimum": 1})),
        ),
        (
            "the data itself: it took other fields and would take no others",
            text(),
            with(|s| s["additionalProperties"] = false.into()),
        ),
        (
            "field c: readers take no other fields here",
            with(|s| s["additionalProperties"] = false.into()),
            with(|s| {
                s["additionalProperties"] = false.into();
                s["properties"]["c"] = json!({});
            }),
        ),
        ("the data itself: its type was object and would be array", text(), json!({"type": "array"})),
    ] {
        let breaks = check(&old, &new).unwrap_err();
        assert!(breaks.iter().any(|b| b == field), "{field}: {breaks:?}");
    }
}

#[test]
fn a_schema_that_contains_itself_is_compared_in_finite_time() {
    let tree = |leaf: &str| {
        json!({
            "$ref": "#/$defs/Tree",
            "$defs": {"Tree": {"type": "object", "properties": {
                "leaf": {"type": leaf},
                "left": {"$ref": "#/$defs/Tree"},
                "others": {"type": "array", "items": {"$ref": "#/$defs/Tree"}},
            }}}
        })
    };
    assert_eq!(check(&tree("string"), &tree("string")), Ok(()));
    assert!(
        check(&tree("string"), &tree("integer"))
            .unwrap_err()
            .contains(&"field leaf: its type was string and would be integer".to_owned())
    );
}
