//! Compatibility of two schemas of the same major version: what was valid stays valid, and what a
//! reader relies on stays there. A later minor version only adds.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// Compares the schema that is published with the one that would replace it.
///
/// # Errors
/// Every incompatible change, each naming its field.
pub fn check(old: &Value, new: &Value) -> Result<(), Vec<String>> {
    let mut breaks = Vec::new();
    let mut compare = Compare { old, new, visited: BTreeSet::new(), breaks: &mut breaks };
    compare.place(old, new, "");
    if breaks.is_empty() { Ok(()) } else { Err(breaks) }
}

struct Compare<'a> {
    old: &'a Value,
    new: &'a Value,
    visited: BTreeSet<(String, String)>,
    breaks: &'a mut Vec<String>,
}

/// What may stand at one place: alternatives are put together, references followed.
#[derive(Default)]
struct Shape<'a> {
    /// The permitted JSON types; empty for any.
    types: BTreeSet<&'a str>,
    /// The permitted values as JSON texts, where they are listed.
    values: Option<BTreeSet<String>>,
    /// The schemas that constrain objects, arrays, texts and numbers.
    parts: Vec<&'a Map<String, Value>>,
}

impl<'a> Shape<'a> {
    fn of(root: &'a Value, node: &'a Value) -> Self {
        let mut shape = Self::default();
        shape.collect(root, node, 0);
        // Null is a type of its own and no value among others.
        if let Some(values) = &mut shape.values {
            values.remove("null");
        }
        shape
    }

    fn collect(&mut self, root: &'a Value, node: &'a Value, depth: usize) {
        let Some(schema) = node.as_object().filter(|_| depth < 32) else { return };
        if let Some(target) = reference(schema).and_then(|pointer| root.pointer(pointer)) {
            self.collect(root, target, depth + 1);
        }
        for branch in ["anyOf", "oneOf", "allOf"].into_iter().filter_map(|key| schema.get(key)?.as_array()).flatten() {
            self.collect(root, branch, depth + 1);
        }
        match schema.get("type") {
            Some(Value::String(one)) => drop(self.types.insert(one)),
            Some(Value::Array(several)) => self.types.extend(several.iter().filter_map(Value::as_str)),
            _ => {}
        }
        let listed = schema.get("enum").and_then(Value::as_array).into_iter().flatten().chain(schema.get("const"));
        for value in listed {
            self.values.get_or_insert_default().insert(value.to_string());
            self.types.insert(type_of(value));
        }
        self.parts.push(schema);
    }

    fn types_without_null(&self) -> impl Iterator<Item = &'a str> {
        self.types.iter().copied().filter(|name| *name != "null")
    }

    /// The first constraint of a kind.
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.parts.iter().find_map(|part| part.get(key))
    }

    fn properties(&self) -> Vec<(&'a String, &'a Value)> {
        self.parts.iter().filter_map(|part| part.get("properties")?.as_object()).flatten().collect()
    }

    fn property(&self, name: &str) -> Option<&'a Value> {
        self.parts.iter().find_map(|part| part.get("properties")?.get(name))
    }

    fn required(&self) -> BTreeSet<&'a str> {
        self.parts
            .iter()
            .filter_map(|part| part.get("required")?.as_array())
            .flatten()
            .filter_map(Value::as_str)
            .collect()
    }

    fn closed(&self) -> bool {
        self.get("additionalProperties") == Some(&Value::Bool(false))
    }
}

fn reference(schema: &Map<String, Value>) -> Option<&str> {
    schema.get("$ref")?.as_str()?.strip_prefix('#')
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

impl Compare<'_> {
    fn place(&mut self, old: &Value, new: &Value, path: &str) {
        let names = |node: &Value| node.as_object().and_then(reference).map(str::to_owned);
        // A pair of definitions is compared once, at its first place: schemas may contain themselves.
        if let (Some(old_name), Some(new_name)) = (names(old), names(new))
            && !self.visited.insert((old_name, new_name))
        {
            return;
        }
        let (was, is) = (Shape::of(self.old, old), Shape::of(self.new, new));
        self.types(&was, &is, path);
        self.values(&was, &is, path);
        self.constraints(&was, &is, path);
        self.fields(&was, &is, path);
        for key in ["items", "additionalProperties"] {
            if let (Some(was @ Value::Object(_)), Some(is @ Value::Object(_))) = (was.get(key), is.get(key)) {
                self.place(was, is, &format!("{path}[]"));
            }
        }
    }

    fn refuse(&mut self, path: &str, what: &str) {
        let field = path.trim_start_matches('.');
        self.breaks.push(if field.is_empty() {
            format!("the data itself: {what}")
        } else {
            format!("field {field}: {what}")
        });
    }

    fn types(&mut self, was: &Shape<'_>, is: &Shape<'_>, path: &str) {
        if !was.types_without_null().eq(is.types_without_null()) {
            let words = |shape: &Shape<'_>| match shape.types.is_empty() {
                true => "anything".to_owned(),
                false => shape.types.iter().copied().collect::<Vec<_>>().join(" or "),
            };
            self.refuse(path, &format!("its type was {} and would be {}", words(was), words(is)));
        } else if was.types.contains("null") && !is.types.contains("null") {
            self.refuse(path, "it could be null and no longer may");
        }
    }

    fn values(&mut self, was: &Shape<'_>, is: &Shape<'_>, path: &str) {
        match (&was.values, &is.values) {
            (_, None) => {}
            (None, Some(_)) => self.refuse(path, "it took any value and would take only listed ones"),
            (Some(was), Some(is)) => {
                for value in was.difference(is) {
                    self.refuse(path, &format!("the value {value} is gone"));
                }
            }
        }
    }

    /// Pattern and format are what tells one kind of text or number from another, so they stay; bounds may widen.
    fn constraints(&mut self, was: &Shape<'_>, is: &Shape<'_>, path: &str) {
        for key in ["pattern", "format"] {
            if was.get(key) != is.get(key) {
                let word = |value: Option<&Value>| value.map_or("none".to_owned(), Value::to_string);
                self.refuse(path, &format!("its {key} was {} and would be {}", word(was.get(key)), word(is.get(key))));
            }
        }
        for (key, lower) in [
            ("minimum", true),
            ("exclusiveMinimum", true),
            ("minLength", true),
            ("minItems", true),
            ("minProperties", true),
            ("maximum", false),
            ("exclusiveMaximum", false),
            ("maxLength", false),
            ("maxItems", false),
            ("maxProperties", false),
        ] {
            let bound = |shape: &Shape<'_>| shape.get(key).and_then(Value::as_f64);
            let narrowed = match (bound(was), bound(is)) {
                (_, None) => false,
                (None, Some(_)) => true,
                (Some(was), Some(is)) => {
                    if lower {
                        is > was
                    } else {
                        is < was
                    }
                }
            };
            if narrowed {
                self.refuse(path, &format!("its {key} is narrower"));
            }
        }
    }

    fn fields(&mut self, was: &Shape<'_>, is: &Shape<'_>, path: &str) {
        let (was_required, is_required) = (was.required(), is.required());
        for (name, old) in was.properties() {
            let field = format!("{path}.{name}");
            match is.property(name) {
                None => self.refuse(&field, "it is gone"),
                Some(new) => self.place(old, new, &field),
            }
        }
        for name in is_required.difference(&was_required) {
            let known = was.property(name).is_some();
            let what = if known { "it was optional and would be required" } else { "a new field must be optional" };
            self.refuse(&format!("{path}.{name}"), what);
        }
        for name in was_required.difference(&is_required) {
            if is.property(name).is_some() {
                self.refuse(&format!("{path}.{name}"), "it was always there and could be missing");
            }
        }
        for name in was_required.intersection(&is_required) {
            let nullable = |root, shape: &Shape<'_>| {
                shape.property(name).is_some_and(|field| Shape::of(root, field).types.contains("null"))
            };
            if !nullable(self.old, was) && nullable(self.new, is) {
                self.refuse(&format!("{path}.{name}"), "it was never null and could be");
            }
        }
        if was.closed() {
            for (name, _) in is.properties() {
                if was.property(name).is_none() {
                    self.refuse(&format!("{path}.{name}"), "readers take no other fields here");
                }
            }
        } else if is.closed() {
            self.refuse(path, "it took other fields and would take no others");
        }
    }
}

#[cfg(test)]
#[path = "compat_tests.rs"]
mod tests;
