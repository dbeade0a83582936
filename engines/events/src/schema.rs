//! Validation of event data against its JSON Schema; validators are compiled once.

use std::sync::OnceLock;

use deltran_kernel::Currency;
use jsonschema::{PatternOptions, Validator};
use schemars::Schema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::Amount;
use crate::amount::AMOUNT_PATTERN;
use crate::catalog::{EVENTS, EventSpec};
use crate::envelope::Envelope;
use crate::json::{Json, Representation};

/// The version of the envelope's own schema.
pub const ENVELOPE_VERSION: &str = "1.0";

/// The longest reason that is kept, in characters; a reason may quote the data.
const MAX_REASON: usize = 300;

/// Data that does not conform to the schema of its event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{event_type}: {reason}")]
pub struct Invalid {
    /// The event's type.
    pub event_type: String,
    /// The first thing that is wrong, with its path.
    pub reason: String,
}

impl Invalid {
    /// An error about an event.
    pub fn new(event_type: impl Into<String>, reason: String) -> Self {
        Self { event_type: event_type.into(), reason }
    }
}

/// Compiles every validator of the catalog. Call it at start, so that the first event is as quick as
/// the last and a schema that does not compile stops the start.
///
/// # Errors
/// The first schema that does not compile.
pub fn compile_all() -> Result<(), Invalid> {
    checks().as_ref().map(|_| ()).map_err(Clone::clone)
}

/// Checks data against the schema of its event, and its amounts against their currency.
///
/// # Errors
/// The first deviation, with its path in the data.
pub fn check_data(spec: &EventSpec, data: &Json<'_>) -> Result<(), Invalid> {
    let check = &checks().as_ref().map_err(Clone::clone)?[spec.index];
    // The details cost far more than the verdict.
    if !check.validator.is_valid(data)
        && let Err(e) = check.validator.validate(data)
    {
        let reason = format!("data{}: {e}", e.instance_path());
        return Err(Invalid::new(spec.event_type(), reason.chars().take(MAX_REASON).collect()));
    }
    check.amounts(data).map_err(|reason| Invalid::new(spec.event_type(), reason))
}

/// The schema of an event's data as it is published in `schemas/`.
pub fn document(spec: &EventSpec) -> Value {
    let event_type = spec.event_type();
    let id = format!("urn:deltran:schema:{}:{event_type}:{}", spec.domain.name(), spec.version);
    named((spec.schema)(), id, event_type)
}

/// The schema of the envelope as it is published in `schemas/`.
pub fn envelope_document() -> Value {
    let schema = schemars::generate::SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<Envelope<Map<String, Value>>>();
    let mut document = named(schema, format!("urn:deltran:schema:envelope:{ENVELOPE_VERSION}"), "envelope");
    document["description"] = "The envelope of every event: one line of JSON of at most 65,535 bytes.".into();
    document
}

fn named(mut schema: Schema, id: String, title: &str) -> Value {
    schema.insert("$id".to_owned(), id.into());
    schema.insert("title".to_owned(), title.into());
    let mut document = schema.to_value();
    unwrap_lines(&mut document);
    document
}

/// Descriptions come from comments, whose lines end where the source does.
fn unwrap_lines(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                match value {
                    Value::String(text) if key == "description" => *text = text.replace('\n', " "),
                    other => unwrap_lines(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(unwrap_lines),
        _ => {}
    }
}

/// What is checked in the data of one event.
struct Check {
    validator: Validator<Representation>,
    amounts: Vec<AmountPath>,
}

/// The way from the data to an amount.
#[derive(Debug, Clone, PartialEq, Eq)]
struct AmountPath {
    steps: Vec<Step>,
    /// Whether an object on the way must have a currency.
    priced: bool,
}

/// A step on the way from the data to an amount.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Field(String),
    Items,
}

impl Check {
    fn new(spec: &EventSpec) -> Result<Self, Invalid> {
        let schema = document(spec);
        let validator = jsonschema::options_for::<Representation>()
            .with_draft(jsonschema::Draft::Draft202012)
            .with_pattern_options(PatternOptions::regex())
            .build(&schema)
            .map_err(|e| Invalid::new(spec.event_type(), format!("its schema does not compile: {e}")))?;
        let mut amounts = Vec::new();
        find_amounts(&schema, &schema, false, &mut Vec::new(), &mut amounts);
        Ok(Self { validator, amounts })
    }

    /// JSON Schema cannot say that the currency decides on the digits of an amount: the one beside it, else
    /// that of the nearest object around it.
    fn amounts(&self, data: &Json<'_>) -> Result<(), String> {
        self.amounts.iter().try_for_each(|path| check_amounts(data, &path.steps, None))
    }
}

fn check_amounts(value: &Json<'_>, steps: &[Step], currency: Option<Currency>) -> Result<(), String> {
    match steps {
        [] if *value == Json::Null => Ok(()),
        [] => {
            let amount = Amount::deserialize(value).map_err(|e| e.to_string())?;
            let currency = currency.ok_or("an amount has no currency")?;
            amount.money(currency).map(|_| ()).map_err(|e| e.to_string())
        }
        [Step::Field(name), rest @ ..] => {
            let Some(inner) = value.get(name) else { return Ok(()) };
            let currency = match value.get("currency").and_then(Json::as_str) {
                Some(code) => Some(Currency::new(code).map_err(|e| format!("currency: {e}"))?),
                None => currency,
            };
            check_amounts(inner, rest, currency).map_err(|e| format!("{name}: {e}"))
        }
        [Step::Items, rest @ ..] => match value {
            Json::Array(items) => items.iter().try_for_each(|item| check_amounts(item, rest, currency)),
            _ => Ok(()),
        },
    }
}

/// Collects the paths of all amounts. The data of events is a tree, so this ends.
fn find_amounts(root: &Value, node: &Value, priced: bool, path: &mut Vec<Step>, found: &mut Vec<AmountPath>) {
    if node.get("pattern").and_then(Value::as_str) == Some(AMOUNT_PATTERN) {
        found.push(AmountPath { steps: path.clone(), priced });
        return;
    }
    let required = node.get("required").and_then(Value::as_array);
    let priced = priced || required.is_some_and(|names| names.iter().any(|name| name == "currency"));
    let target = node.get("$ref").and_then(Value::as_str).and_then(|r| root.pointer(r.trim_start_matches('#')));
    let branches = ["anyOf", "oneOf", "allOf"].into_iter().filter_map(|key| node.get(key)?.as_array()).flatten();
    for same_place in target.into_iter().chain(branches) {
        find_amounts(root, same_place, priced, path, found);
    }
    for (name, field) in node.get("properties").and_then(Value::as_object).into_iter().flatten() {
        path.push(Step::Field(name.clone()));
        find_amounts(root, field, priced, path, found);
        path.pop();
    }
    if let Some(items) = node.get("items") {
        path.push(Step::Items);
        find_amounts(root, items, priced, path, found);
        path.pop();
    }
}

fn checks() -> &'static Result<Vec<Check>, Invalid> {
    static CHECKS: OnceLock<Result<Vec<Check>, Invalid>> = OnceLock::new();
    CHECKS.get_or_init(|| EVENTS.iter().map(Check::new).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_amount_of_the_catalog_has_a_currency() {
        let checks = checks().as_ref().unwrap();
        for (spec, check) in EVENTS.iter().zip(checks) {
            for path in &check.amounts {
                assert!(path.priced, "{} {:?} has no required currency", spec.event_type(), path.steps);
            }
        }
    }

    #[test]
    fn nested_amounts_are_found() {
        let paths = |entity: &str, action: &str| {
            let spec = EVENTS.iter().find(|s| s.entity == entity && s.action == action).unwrap();
            checks().as_ref().unwrap()[spec.index].amounts.iter().map(|path| path.steps.clone()).collect::<Vec<_>>()
        };
        let field = |name: &str| Step::Field(name.to_owned());
        let created = paths("transaction", "created");
        assert!(created.contains(&vec![field("amount")]));
        assert!(created.contains(&vec![field("evidence"), field("cap_headroom")]));
        assert!(paths("batch", "awaiting_funds").contains(&vec![field("shortfalls"), Step::Items, field("required")]));
    }

    #[test]
    fn the_nearest_currency_decides() {
        let spec = EVENTS.iter().find(|s| s.event_type() == "rule.changed").unwrap();
        let check = &checks().as_ref().unwrap()[spec.index];
        let rule = |amount: &str, currency: &str| {
            let amounts =
                serde_json::json!([{"amount": "1.00", "currency": "USD"}, {"amount": amount, "currency": currency}]);
            let data = serde_json::json!({"amounts": amounts}).to_string();
            check.amounts(&Json::parse(&data).unwrap())
        };
        assert_eq!(rule("1000", "JPY"), Ok(()));
        assert!(rule("1000.00", "JPY").is_err());
        assert!(rule("1000", "USD").is_err());
    }
}
