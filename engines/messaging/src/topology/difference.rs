//! What differs between a configuration that is wanted and one that is there, and what removing the
//! difference means.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Map, Value, json};

use super::Target;

/// What it means to remove a difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// At least as much is kept and read as before.
    Plain,
    /// Less is kept or read.
    Narrows,
    /// It cannot be removed in place; the text says what to do.
    Unchangeable(&'static str),
}

/// A field that differs.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Its name in the broker's JSON.
    pub field: String,
    /// What is there.
    pub old: Value,
    /// What is wanted.
    pub new: Value,
    /// What the change means.
    pub effect: Effect,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} → {}", self.field, text(&self.field, &self.old), text(&self.field, &self.new))?;
        match self.effect {
            Effect::Plain => Ok(()),
            Effect::Narrows => f.write_str(" (narrowing)"),
            Effect::Unchangeable(remedy) => write!(f, " ({remedy})"),
        }
    }
}

const REBUILD_STREAM: &str = "stop what publishes to it, back it up with `nats stream backup`, delete it and create it with \
     first_seq above its last sequence, so that no cursor misses what comes next; then publish again from the audit ledger";
const REBUILD_CONSUMER: &str = "delete it with `nats consumer rm` and apply again: it is read from the start, and what was \
     received before is recognised";
const ONE_WAY: &str = "the broker never gives this protection up: recreate the stream to be rid of it";

/// Fields of a stream that stay for its life.
const FIXED_IN_STREAM: [&str; 8] =
    ["storage", "retention", "max_consumers", "first_seq", "mirror", "sealed", "persist_mode", "allow_msg_counter"];
/// Fields of a stream that can be set and not taken back.
const ONE_WAY_IN_STREAM: [&str; 2] = ["deny_delete", "deny_purge"];
/// Fields of a consumer that stay for its life.
const FIXED_IN_CONSUMER: [&str; 9] = [
    "deliver_policy",
    "opt_start_seq",
    "opt_start_time",
    "ack_policy",
    "replay_policy",
    "deliver_subject",
    "idle_heartbeat",
    "flow_control",
    "max_waiting",
];
/// Fields that bound what is kept; nothing, 0 and -1 all mean without bound.
const LIMITS: [&str; 6] = ["max_age", "max_bytes", "max_msgs", "max_msgs_per_subject", "max_msg_size", "max_consumers"];
/// Fields in nanoseconds.
const DURATIONS: [&str; 5] = ["max_age", "duplicate_window", "ack_wait", "idle_heartbeat", "inactive_threshold"];
/// Fields whose order means nothing.
const SETS: [&str; 2] = ["subjects", "filter_subjects"];
/// What the server writes into metadata itself.
pub(crate) const SERVER_METADATA: &str = "_nats.";

/// The differences in what `desired` names, in the order of its fields.
pub(super) fn between(target: &Target, actual: &Value, desired: &Value) -> Vec<Difference> {
    let (mut actual, mut desired) = (normal(target, actual), normal(target, desired));
    for config in [&mut actual, &mut desired] {
        let sources = config.get_mut("sources").and_then(Value::as_array_mut).into_iter().flatten();
        // Where copying begins counts when a source is new only.
        for source in sources.filter_map(Value::as_object_mut) {
            source.remove("opt_start_seq");
        }
    }
    desired
        .iter()
        .filter_map(|(field, new)| {
            let old = actual.get(field).cloned().unwrap_or(Value::Null);
            let same =
                if SETS.contains(&field.as_str()) { strings(&old) == strings(new) } else { covers(field, &old, new) };
            let effect = || effect(target, field, &old, new);
            (!same).then(|| Difference { field: field.clone(), effect: effect(), old: old.clone(), new: new.clone() })
        })
        .collect()
}

/// Lays what `desired` names over a configuration that was read from the broker.
pub(super) fn overlay(target: &Target, config: &mut Value, desired: &Value) {
    let mut merged = normal(target, config);
    for (field, new) in normal(target, desired) {
        match (merged.get_mut(&field), new) {
            (Some(Value::Object(old)), Value::Object(new)) => old.extend(new),
            (_, new) => {
                merged.insert(field, new);
            }
        }
    }
    *config = Value::Object(merged);
}

/// A configuration in one form: filters of a consumer as a list, sources of a stream always named,
/// without what the server adds.
fn normal(target: &Target, config: &Value) -> Map<String, Value> {
    let mut config = config.as_object().cloned().unwrap_or_default();
    if let Some(Value::Object(metadata)) = config.get_mut("metadata") {
        metadata.retain(|key, _| !key.starts_with(SERVER_METADATA));
    }
    match target {
        Target::Stream(_) => {
            config.entry("sources").or_insert_with(|| json!([]));
        }
        Target::Consumer(..) => {
            // A consumer without a filter reads everything, so that "no filter" is a wish as well.
            let one = config.remove("filter_subject").filter(|v| v.as_str().is_some_and(|s| !s.is_empty()));
            let list = config.entry("filter_subjects").or_insert_with(|| json!([]));
            if let (Some(one), Some(list)) = (one, list.as_array_mut()) {
                list.push(one);
            }
            // The server always calls it by both.
            config.remove("name");
        }
    }
    config
}

/// Whether `old` has everything that `new` names. What a side does not name is the zero of its type.
fn covers(field: &str, old: &Value, new: &Value) -> bool {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            new.iter().all(|(key, value)| covers(key, old.get(key).unwrap_or(&Value::Null), value))
        }
        (Value::Array(old), Value::Array(new)) => {
            old.len() == new.len() && old.iter().zip(new).all(|(old, new)| covers(field, old, new))
        }
        (old, new) => old == new || (is_zero(field, old) && is_zero(field, new)),
    }
}

fn is_zero(field: &str, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_i64() == Some(0) || (unbounded(field) && n.as_i64() == Some(-1)),
        Value::String(s) => s.is_empty() || (field == "compression" && s == "none"),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
    }
}

fn unbounded(field: &str) -> bool {
    LIMITS.contains(&field) || field == "max_deliver"
}

fn effect(target: &Target, field: &str, old: &Value, new: &Value) -> Effect {
    let narrows = |yes: bool| if yes { Effect::Narrows } else { Effect::Plain };
    match target {
        Target::Stream(_) if FIXED_IN_STREAM.contains(&field) => Effect::Unchangeable(REBUILD_STREAM),
        Target::Stream(_) if ONE_WAY_IN_STREAM.contains(&field) => {
            if old.as_bool().unwrap_or(false) {
                Effect::Unchangeable(ONE_WAY)
            } else {
                Effect::Plain
            }
        }
        Target::Stream(_) => match field {
            "subjects" => narrows(!strings(old).is_subset(&strings(new))),
            "sources" => narrows(!names(old).is_subset(&names(new)) || names(old) == names(new)),
            "num_replicas" => narrows(number(new) < number(old)),
            "discard" => narrows(new == "old"),
            limit if LIMITS.contains(&limit) => narrows(bound(new) < bound(old)),
            _ => Effect::Plain,
        },
        Target::Consumer(..) if FIXED_IN_CONSUMER.contains(&field) => Effect::Unchangeable(REBUILD_CONSUMER),
        Target::Consumer(..) => match field {
            // No filter reads everything.
            "filter_subjects" if is_zero(field, new) => Effect::Plain,
            "filter_subjects" => narrows(is_zero(field, old) || !strings(old).is_subset(&strings(new))),
            "max_deliver" => narrows(bound(new) < bound(old)),
            _ => Effect::Plain,
        },
    }
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

/// A limit, where nothing, 0 and -1 are the highest.
fn bound(value: &Value) -> i64 {
    match number(value) {
        0 | -1 => i64::MAX,
        bound => bound,
    }
}

fn strings(value: &Value) -> BTreeSet<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn names(value: &Value) -> BTreeSet<&str> {
    value.as_array().into_iter().flatten().filter_map(|source| source.get("name")?.as_str()).collect()
}

/// A value for people.
fn text(field: &str, value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::String(s) => s.clone(),
        Value::Number(n) if unbounded(field) && matches!(n.as_i64(), Some(0 | -1)) => "without bound".to_owned(),
        Value::Number(n) if DURATIONS.contains(&field) => n.as_u64().map_or_else(|| n.to_string(), duration),
        Value::Number(n) if field == "max_bytes" => format!("{n} bytes"),
        Value::Array(items) if SETS.contains(&field) => match items.as_slice() {
            [] => "everything".to_owned(),
            items => items.iter().map(|item| text("", item)).collect::<Vec<_>>().join(", "),
        },
        other => other.to_string(),
    }
}

/// Nanoseconds in the largest unit that divides them.
fn duration(nanoseconds: u64) -> String {
    const UNITS: [(u64, &str); 5] = [
        (86_400_000_000_000, "d"),
        (3_600_000_000_000, "h"),
        (60_000_000_000, "min"),
        (1_000_000_000, "s"),
        (1_000_000, "ms"),
    ];
    match UNITS.iter().find(|(unit, _)| nanoseconds >= *unit && nanoseconds.is_multiple_of(*unit)) {
        Some((unit, word)) => format!("{} {word}", nanoseconds / unit),
        None => format!("{nanoseconds} ns"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(actual: Value, desired: Value) -> Vec<(String, Effect)> {
        shown(&Target::Stream("S".into()), actual, desired)
    }

    fn consumer(actual: Value, desired: Value) -> Vec<(String, Effect)> {
        shown(&Target::Consumer("S".into(), "c".into()), actual, desired)
    }

    fn shown(target: &Target, actual: Value, desired: Value) -> Vec<(String, Effect)> {
        between(target, &actual, &desired).into_iter().map(|d| (d.field, d.effect)).collect()
    }

    #[test]
    fn only_what_is_named_counts_and_defaults_are_no_difference() {
        let actual = json!({
            "name": "S", "subjects": ["b", "a"], "max_msgs": -1, "compression": "none", "allow_direct": true,
            "consumer_limits": {}, "metadata": {"_nats.ver": "2.15.2", "owner": "x"},
        });
        let desired =
            json!({"name": "S", "subjects": ["a", "b"], "max_msgs": 0, "compression": "none", "mirror_direct": false});
        assert_eq!(stream(actual.clone(), desired), []);
        assert_eq!(stream(actual.clone(), json!({"metadata": {"owner": "x"}})), []);
        let (plain, from_the_first) =
            (json!({"sources": [{"name": "A"}]}), json!({"sources": [{"name": "A", "opt_start_seq": 1}]}));
        assert_eq!((stream(plain.clone(), from_the_first.clone()), stream(from_the_first, plain)), (vec![], vec![]));
        assert_eq!(stream(actual, json!({"metadata": {"owner": "y"}})), [("metadata".into(), Effect::Plain)]);
    }

    #[test]
    fn less_kept_or_read_is_narrowing() {
        let rows = [
            (json!({"max_age": 2}), json!({"max_age": 1}), true),
            (json!({"max_age": 0}), json!({"max_age": 1}), true),
            (json!({"max_age": 1}), json!({"max_age": 0}), false),
            (json!({"max_bytes": 1}), json!({"max_bytes": 2}), false),
            (json!({"max_bytes": -1}), json!({"max_bytes": 2}), true),
            (json!({"subjects": ["a", "b"]}), json!({"subjects": ["a"]}), true),
            (json!({"subjects": ["a"]}), json!({"subjects": ["a", "b"]}), false),
            (json!({"num_replicas": 3}), json!({"num_replicas": 1}), true),
            (json!({"num_replicas": 1}), json!({"num_replicas": 3}), false),
            (json!({"discard": "new"}), json!({"discard": "old"}), true),
            (json!({"discard": "old"}), json!({"discard": "new"}), false),
            (json!({"sources": [{"name": "A"}]}), json!({"sources": [{"name": "A"}, {"name": "B"}]}), false),
            (json!({"sources": [{"name": "A"}, {"name": "B"}]}), json!({"sources": [{"name": "A"}]}), true),
            (json!({"sources": [{"name": "A"}]}), json!({}), true),
        ];
        for (actual, desired, narrowing) in rows {
            let found = stream(actual.clone(), desired.clone());
            let expected = if narrowing { Effect::Narrows } else { Effect::Plain };
            assert_eq!(found.iter().map(|d| &d.1).collect::<Vec<_>>(), [&expected], "{actual} {desired}");
        }
    }

    #[test]
    fn filters_are_compared_as_sets_in_either_form() {
        assert_eq!(consumer(json!({"filter_subject": "a"}), json!({"filter_subjects": ["a"]})), []);
        assert_eq!(consumer(json!({"name": "c"}), json!({"durable_name": ""})), []);
        let filter = |effect| vec![("filter_subjects".to_owned(), effect)];
        assert_eq!(consumer(json!({"filter_subject": "a"}), json!({})), filter(Effect::Plain));
        assert_eq!(consumer(json!({}), json!({"filter_subject": "a"})), filter(Effect::Narrows));
        assert_eq!(
            consumer(json!({"filter_subject": "a"}), json!({"filter_subjects": ["a", "b"]})),
            filter(Effect::Plain)
        );
        assert_eq!(consumer(json!({"filter_subject": "a"}), json!({"filter_subject": "b"})), filter(Effect::Narrows));
    }

    #[test]
    fn what_cannot_change_says_what_to_do() {
        for (actual, desired) in [
            (json!({"storage": "memory"}), json!({"storage": "file"})),
            (json!({"retention": "interest"}), json!({"retention": "limits"})),
            (json!({"deny_purge": true}), json!({"deny_purge": false})),
        ] {
            assert!(matches!(stream(actual, desired)[..], [(_, Effect::Unchangeable(_))]));
        }
        assert_eq!(stream(json!({}), json!({"deny_purge": true})), [("deny_purge".into(), Effect::Plain)]);
        let found = consumer(json!({"deliver_policy": "new"}), json!({"deliver_policy": "all"}));
        assert!(matches!(found[..], [(_, Effect::Unchangeable(_))]));
    }

    #[test]
    fn an_update_keeps_what_is_not_named() {
        let target = Target::Consumer("S".into(), "c".into());
        let mut config = json!({"durable_name": "c", "name": "c", "filter_subject": "a", "max_ack_pending": 1,
            "metadata": {"_nats.ver": "1", "owner": "x"}});
        overlay(
            &target,
            &mut config,
            &json!({"durable_name": "c", "filter_subjects": ["a", "b"], "metadata": {"for": "y"}}),
        );
        let expected = json!({"durable_name": "c", "filter_subjects": ["a", "b"], "max_ack_pending": 1,
            "metadata": {"owner": "x", "for": "y"}});
        assert_eq!(config, expected);
    }

    #[test]
    fn differences_are_shown_in_units() {
        let target = Target::Stream("S".into());
        let found = between(&target, &json!({"max_age": 604_800_000_000_000_u64}), &json!({"max_age": 0}));
        assert_eq!(found[0].to_string(), "max_age: 7 d → without bound");
        let found = between(
            &target,
            &json!({"duplicate_window": 120_000_000_000_u64}),
            &json!({"duplicate_window": 90_000_000_000_u64}),
        );
        assert_eq!(found[0].to_string(), "duplicate_window: 2 min → 90 s");
    }
}
